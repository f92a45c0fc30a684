"""Measures what a set of a million IPv4 hosts takes by each way into the daemon; fails if it is too much memory.

usage: unshare -n daemon/tests/python/measure_import.py XDPGATED

Run it with the interpreter of scripts/python-client, as root. Each way has a fresh daemon on the loopback
interface of the namespace; VmHWM is the most memory that the daemon ever had in RAM. Ends with 1 if that grows
by more than the bound of the way: what it has before depends on the build and the number of CPUs.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "target/python/generated"))

import grpc
from xdpgate.v1 import xdpgate_pb2 as pb
from xdpgate.v1 import xdpgate_pb2_grpc

COUNT = 1_000_000
TOGETHER = 10_000
RULE = "rules: [{ id: block, match: { src: '@bad' }, action: drop }]\n"
SMALL = "version: 1\nsets: { bad: { entries: [203.0.113.7] } }\n" + RULE
HOSTS = [(0x0B000000 + 37 * n).to_bytes(4, "big") for n in range(COUNT)]


def text(host):
    return ".".join(map(str, host))


def parts(entries):
    yield pb.ImportSetRequest(header=pb.ImportSetHeader(set="bad"))
    for begin in range(0, COUNT, TOGETHER):
        yield pb.ImportSetRequest(entries=entries(HOSTS[begin : begin + TOGETHER]))


def packed(hosts):
    return pb.SetEntries(packed_ipv4=b"".join(host + b"\x20" for host in hosts))


def written(hosts):
    return pb.SetEntries(entries=[pb.SetEntry(prefix=text(host)) for host in hosts])


def by_yaml(client):
    entries = ",".join(map(text, HOSTS))
    yaml = f"version: 1\nsets: {{ bad: {{ entries: [{entries}] }} }}\n{RULE}"
    return lambda: client.ApplyPolicy(pb.ApplyPolicyRequest(yaml=yaml)).applied


def by_import(entries):
    def prepared(client):
        messages = list(parts(entries))
        return lambda: client.ImportSet(iter(messages)).applied

    return prepared


def measure(name, bound, way):
    """Whether the daemon grew by no more than so many MiB."""
    with tempfile.TemporaryDirectory() as scratch:
        server = f"unix:{scratch}/xdpgated.sock"
        environment = os.environ | {"XDPGATED_STATE_DIR": f"{scratch}/state"}
        command = [sys.argv[1], "--listen", server, "--interface", "lo", "--pin", "off"]
        daemon = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        try:
            more = grown(name, server, daemon.pid, way)
            print(f"{more} more, at most {bound}", flush=True)
            return more <= bound
        finally:
            daemon.terminate()
            daemon.wait()


def grown(name, server, pid, way):
    """By how many MiB the most memory grew while the set came in."""
    options = [
        ("grpc.default_authority", "localhost"),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
    ]
    with grpc.insecure_channel(server, options=options) as channel:
        grpc.channel_ready_future(channel).result(timeout=30)
        client = xdpgate_pb2_grpc.FirewallStub(channel)
        client.ApplyPolicy(pb.ApplyPolicyRequest(yaml=SMALL))
        before = peak(pid)
        call = way(client)
        start = time.monotonic()
        applied = call()
        took = time.monotonic() - start
        assert applied.entries >= COUNT, applied
        judged(client)
        after = peak(pid)
    compiled = (applied.compile_nanoseconds + applied.publish_nanoseconds) / 1e9
    print(f"{name}: {took:.2f} s, of which compiled and published {compiled:.2f} s;", end=" ")
    print(f"VmHWM {before >> 10} -> {after >> 10} MiB;", end=" ")
    return (after - before) >> 10


def judged(client):
    """The first and the last host are dropped, who comes before and after passes."""
    first, last = (int.from_bytes(host, "big") for host in (HOSTS[0], HOSTS[-1]))
    frames = [udp(host.to_bytes(4, "big")) for host in (first - 1, first, first + 1, last - 1, last, last + 1)]
    results = client.Evaluate(pb.EvaluateRequest(frames=frames)).results
    verdicts = [pb.Verdict.Name(result.verdict)[8:] for result in results]
    assert verdicts == ["PASS", "DROP", "PASS"] * 2, verdicts


def udp(source):
    """A frame with an empty UDP packet."""
    ip = bytes([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]) + source + bytes([10, 9, 0, 1])
    return bytes(12) + b"\x08\x00" + ip + bytes([15, 160, 0, 9, 0, 8, 0, 0])


def peak(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
# In MiB. About twice what was measured; malloc on more CPUs, and other builds, take somewhat more.
WAYS = [
    ("ImportSet, packed", 128, by_import(packed)),
    ("ImportSet, text", 128, by_import(written)),
    ("ApplyPolicy, YAML", 400, by_yaml),
]
within = [measure(*way) for way in WAYS]
sys.exit(0 if all(within) else 1)
