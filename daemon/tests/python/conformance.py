"""Drives every method of xdpgate.v1.Firewall from Python, against a daemon that judges real packets.

usage: conformance.py SERVER GENERATED INTERFACE

Packets come in by INTERFACE from 10.9.0.2 all the time. What there is to call is asked of the daemon
by server reflection: a method that is not called here is an error. The last call stops the daemon.
"""

import ipaddress
import sys
import time

SERVER, GENERATED, INTERFACE = sys.argv[1:]
sys.path.insert(0, GENERATED)

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status
from xdpgate.v1 import xdpgate_pb2 as pb
from xdpgate.v1 import xdpgate_pb2_grpc

SENDER = "10.9.0.2"
POLICY = """
version: 1
sets: { bad: { entries: [203.0.113.7], counters: entry } }
rules:
  - { id: block, match: { src: '@bad' }, action: drop, comment: Known offenders }
  - { id: web, match: { dport: [80, 443] }, action: pass, labels: { owner: web } }
"""
TIMEOUT = 20

called = set()


class Recorded:
    """The client; remembers which methods were called."""

    def __init__(self, channel):
        self.stub = xdpgate_pb2_grpc.FirewallStub(channel)

    def __getattr__(self, name):
        method = getattr(self.stub, name)

        def call(request, **options):
            called.add(name)
            return method(request, timeout=TIMEOUT, **options)

        return call


def refused(code, reason, call):
    """Asserts that a call is refused, and gives the details of the error."""
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, (error.code(), error.details())
        assert "\n" not in error.details(), error.details()
        details = {}
        for packed in rpc_status.from_call(error).details:
            for kind in ("ErrorInfo", "BadRequest", "PreconditionFailure", "RetryInfo"):
                message = getattr(error_details_pb2, kind)()
                if packed.Unpack(message):
                    details[kind] = message
        assert details["ErrorInfo"].domain == "xdpgate"
        assert details["ErrorInfo"].reason == reason, details["ErrorInfo"]
        return details
    raise AssertionError(f"not refused: {reason}")


def udp(source, port):
    """A frame with an empty UDP packet to 10.9.0.1."""
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address("10.9.0.1").packed
    ip = bytes([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]) + addresses
    return bytes(12) + b"\x08\x00" + ip + (4000).to_bytes(2) + port.to_bytes(2) + bytes([0, 8, 0, 0])


def verdicts(client, *frames):
    answer = client.Evaluate(pb.EvaluateRequest(frames=frames))
    return [pb.Verdict.Name(result.verdict)[8:] for result in answer.results]


def dropped(client):
    stats = client.GetStats(pb.GetStatsRequest())
    counts = [count for interface in stats.interfaces for count in interface.verdicts]
    return sum(count.packets for count in counts if count.disposition == pb.DISPOSITION_DROP)


def policies(client):
    refused(
        grpc.StatusCode.NOT_FOUND, "NO_POLICY", lambda: client.GetPolicy(pb.GetPolicyRequest())
    )
    plan = client.PlanPolicy(pb.PlanPolicyRequest(yaml=POLICY))
    assert plan.plan.added_rules == ["block", "web"] and plan.generation == 0
    request = pb.ApplyPolicyRequest(yaml=POLICY, expected_generation=0, idempotency_key="first")
    applied = client.ApplyPolicy(request)
    assert applied.plan == plan.plan and applied.hash == plan.hash
    again = client.ApplyPolicy(pb.ApplyPolicyRequest(yaml=POLICY, idempotency_key="first"))
    assert again.repeated and again.applied.generation == applied.applied.generation
    details = refused(
        grpc.StatusCode.ABORTED,
        "GENERATION_CHANGED",
        lambda: client.ApplyPolicy(pb.ApplyPolicyRequest(yaml=POLICY, expected_generation=99)),
    )
    assert details["ErrorInfo"].metadata["actual"] == str(applied.applied.generation)
    got = client.GetPolicy(pb.GetPolicyRequest())
    assert got.hash == applied.hash
    assert client.PlanPolicy(pb.PlanPolicyRequest(yaml=got.yaml)).plan.empty

    wrong = [pb.Change(put_rule="{ id: r, action: sink }"), pb.Change(remove_set="a b")]
    details = refused(
        grpc.StatusCode.INVALID_ARGUMENT,
        "CHANGE_INVALID",
        lambda: client.ChangePolicy(pb.ChangePolicyRequest(changes=wrong)),
    )
    fields = [violation.field for violation in details["BadRequest"].field_violations]
    assert fields == ["changes[0].put_rule.action", "changes[1].remove_set"], fields
    changed = client.ChangePolicy(
        pb.ChangePolicyRequest(
            changes=[
                pb.Change(create_rule="{ id: log, match: { protocol: udp }, action: count }"),
                pb.Change(enable_rule=pb.EnableRule(id="web", enabled=False)),
            ],
            confirm_within=Duration(seconds=60),
        )
    )
    assert [effect.kind for effect in changed.effects] == [
        pb.Effect.KIND_CREATED,
        pb.Effect.KIND_REPLACED,
    ]
    status = client.GetStatus(pb.GetStatusRequest())
    assert status.pending.policy_generation == changed.generation
    confirmed = client.ConfirmPolicy(pb.ConfirmPolicyRequest(generation=changed.generation))
    assert confirmed.generation == changed.generation
    back = client.RollbackPolicy(pb.RollbackPolicyRequest())
    assert back.plan.removed_rules == ["log"] and back.hash == applied.hash, back

    first = client.ListRules(pb.ListRulesRequest(page_size=1))
    second = client.ListRules(pb.ListRulesRequest(page_size=1, page_token=first.next_page_token))
    assert [rule.id for rule in [*first.rules, *second.rules]] == ["block", "web"]
    assert first.total == 2 and not second.next_page_token
    found = client.ListRules(pb.ListRulesRequest(search="OFFENDERS", address="203.0.113.7"))
    assert [rule.id for rule in found.rules] == ["block"]


def sets(client):
    def parts():
        yield pb.ImportSetRequest(header=pb.ImportSetHeader(set="bad", count_entries=True))
        yield pb.ImportSetRequest(entries=pb.SetEntries(packed_ipv4=bytes([10, 9, 0, 2, 32])))
        yield pb.ImportSetRequest(
            entries=pb.SetEntries(entries=[pb.SetEntry(prefix="198.51.100.0/24")])
        )

    # What a program sends that fails in the middle, whether its library cancels the call then or ends it.
    def half(breaks):
        header = pb.ImportSetHeader(set="bad", expect_entries=2)
        yield pb.ImportSetRequest(header=header)
        yield pb.ImportSetRequest(entries=pb.SetEntries(packed_ipv4=bytes([192, 0, 2, 1, 32])))
        if breaks:
            raise RuntimeError("the program fails")

    before = client.GetPolicy(pb.GetPolicyRequest()).hash
    try:
        client.ImportSet(half(breaks=True))
        raise AssertionError("half an import was taken")
    except grpc.RpcError as error:
        assert error.code() != grpc.StatusCode.OK, error
    details = refused(
        grpc.StatusCode.INVALID_ARGUMENT,
        "FIELD_INVALID",
        lambda: client.ImportSet(half(breaks=False)),
    )
    assert details["BadRequest"].field_violations[0].field == "header.expect_entries"
    assert client.GetPolicy(pb.GetPolicyRequest()).hash == before

    imported = client.ImportSet(parts())
    assert imported.received == 2 and imported.effect.kind == pb.Effect.KIND_REPLACED
    entries = [
        entry.prefix
        for message in client.ListSetEntries(pb.ListSetEntriesRequest(set="bad"))
        for entry in message.entries
    ]
    assert entries == [SENDER, "198.51.100.0/24"], entries
    assert verdicts(client, udp(SENDER, 9), udp("10.9.0.3", 9)) == ["DROP", "PASS"]


def watching(client):
    """What the packets of the sender come to, now that they are dropped."""
    events = client.WatchEvents(pb.WatchEventsRequest(rule="block"))
    event = next(events).events[0]
    events.cancel()
    assert (event.source, event.rule, event.interface) == (SENDER, "block", INTERFACE)
    assert event.disposition == pb.DISPOSITION_DROP and event.protocol == 17
    assert dropped(client) > 0
    hit = client.GetEntryCounters(pb.GetEntryCountersRequest(set="bad"))
    assert hit.entries[0].prefix == SENDER and hit.hit == 1
    seen = []
    stats = client.WatchStats(pb.WatchStatsRequest(interval=Duration(nanos=200_000_000)))
    for message in stats:
        seen.append(message.stats.rules[0].packets)
        if message.HasField("rates") and message.rates.rules[0].dropped > 0:
            break
    stats.cancel()
    assert seen == sorted(seen) and len(seen) > 1
    # Dropped frames were sampled, so a plan says how they would fare.
    plan = client.PlanPolicy(pb.PlanPolicyRequest(yaml="version: 1"))
    assert plan.estimate.would_pass > 0 and plan.estimate.would_drop == 0, plan.estimate


def bans(client):
    empty = [pb.Change(remove_rule="block")]
    client.ChangePolicy(pb.ChangePolicyRequest(changes=empty))
    assert verdicts(client, udp(SENDER, 9)) == ["PASS"]
    ban = client.Ban(pb.BanRequest(prefix=SENDER, ttl=Duration(seconds=600))).ban
    assert verdicts(client, udp(SENDER, 9)) == ["DROP"]
    assert 590 < ban.expires.seconds - time.time() < 610
    details = refused(
        grpc.StatusCode.INVALID_ARGUMENT,
        "FIELD_INVALID",
        lambda: client.Ban(pb.BanRequest(prefix="10.0.0.1/8", ttl=Duration(seconds=1))),
    )
    assert details["BadRequest"].field_violations[0].field == "prefix"
    listed = client.ListBans(pb.ListBansRequest())
    assert [ban.prefix for ban in listed.bans] == [SENDER] and listed.total == 1
    assert client.Unban(pb.UnbanRequest(prefix=SENDER)).lifted == 1
    assert verdicts(client, udp(SENDER, 9)) == ["PASS"]


def interfaces(client):
    watch = client.WatchInterfaces(pb.WatchInterfacesRequest())
    assert next(watch).kind == pb.WatchInterfacesResponse.KIND_STARTED
    detached = client.DetachInterface(pb.DetachInterfaceRequest(name=INTERFACE)).attachment
    refused(
        grpc.StatusCode.NOT_FOUND,
        "NOT_ATTACHED",
        lambda: client.DetachInterface(pb.DetachInterfaceRequest(name=INTERFACE)),
    )
    report = client.Preflight(pb.PreflightRequest(names=[INTERFACE])).interfaces[0]
    attached = client.AttachInterface(pb.AttachInterfaceRequest(name=INTERFACE)).attachment
    assert attached.ifindex == detached.ifindex and attached.mode == report.expected_mode
    watch.cancel()
    listed = client.ListInterfaces(pb.ListInterfacesRequest()).interfaces
    by_name = {interface.name: interface for interface in listed}
    assert by_name[INTERFACE].attachment.link_id == attached.link_id


def modes(client):
    answer = client.SetMode(pb.SetModeRequest(mode=pb.MODE_PASS))
    assert (answer.previous, answer.mode) == (pb.MODE_ENFORCE, pb.MODE_PASS)
    assert client.GetStatus(pb.GetStatusRequest()).dry_run
    client.SetMode(pb.SetModeRequest(mode=pb.MODE_ENFORCE))
    assert not client.GetStatus(pb.GetStatusRequest()).dry_run
    system = client.GetSystem(pb.GetSystemRequest())
    with open("/proc/sys/kernel/random/boot_id") as boot_id:
        assert system.boot_id == boot_id.read().strip()
    reloaded = client.ReloadConfig(pb.ReloadConfigRequest())
    assert not reloaded.changed and not reloaded.needs_restart, reloaded


def main():
    # Over a Unix socket gRPC's C core would name the socket's path as the authority, which HTTP/2
    # servers that follow RFC 9113 refuse.
    options = [
        ("grpc.default_authority", "localhost"),
        ("grpc.max_receive_message_length", -1),
    ]
    with grpc.insecure_channel(SERVER, options=options) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service="xdpgate.v1.Firewall"), timeout=TIMEOUT
        )
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        service = pb.DESCRIPTOR.services_by_name["Firewall"]
        methods = {method.name for method in service.methods}
        client = Recorded(channel)
        for part in (policies, sets, watching, bans, interfaces, modes):
            part(client)
            print(f"{part.__name__}: ok", flush=True)
        reflected = reflect(channel)
        assert reflected == methods, "the daemon serves another version of the API"
        stopped = client.Stop(pb.StopRequest(detach=True))
        assert not stopped.goes_on
    missing = sorted(methods - called)
    assert not missing, f"not called: {', '.join(missing)}"
    print(f"{len(called)} methods called")


def reflect(channel):
    """The methods that the daemon says it has."""
    database = ProtoReflectionDescriptorDatabase(channel)
    assert "xdpgate.v1.Firewall" in database.get_services()
    file = database.FindFileContainingSymbol("xdpgate.v1.Firewall")
    return {method.name for service in file.service for method in service.method}


main()
