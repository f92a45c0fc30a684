//! The client at work: each command against the real daemon, with real packets.

mod common;

use std::io::Write;
use std::net::UdpSocket;
use std::process::Stdio;

use common::neighbours::{BLOCK, Neighbours};
use common::tools::has_tool;
use common::{Ended, XDPGATE, command, is_root, run, text, wait_for, xdpgate};
use nix::sys::signal::Signal;
use serde_json::Value;

#[track_caller]
fn differs(ended: &Ended) {
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (Some(1), ""),
        "{ended}"
    );
}

/// Plan, apply, confirm, compare, roll back: what each says is what the packets see.
#[test]
fn r72_a_policy_goes_its_round() {
    if !is_root() {
        return;
    }
    let scene = Neighbours::new();
    let daemon = scene.daemon(&["--enforce"]);
    let policy = scene.scratch.file("policy.yaml", BLOCK);
    let empty = scene.scratch.file("empty.yaml", "version: 1\n");

    daemon.ask(&["policy", "get"]).refused(1, &["policy"]);
    let planned = daemon.ask(&["policy", "plan", &policy]).ok();
    assert!(
        planned.contains("block-bad") && planned.contains("nothing was changed"),
        "{planned}"
    );
    assert!(scene.bad_arrives());
    differs(&daemon.ask(&["policy", "diff", &policy]));

    // Not confirmed in time: it was in force, and is not any more.
    let applied = daemon
        .ask(&["policy", "apply", &policy, "--confirm-within", "2s"])
        .ok();
    assert!(applied.contains("xdpgate policy confirm 1"), "{applied}");
    assert!(!scene.bad_arrives());
    let status = daemon.ask(&["status"]).ok();
    assert!(
        status.contains("pending") && status.contains("xdpgate confirm"),
        "{status}"
    );
    wait_for("the policy before", || scene.bad_arrives().then_some(()));
    daemon.ask(&["confirm"]).refused(1, &[]);

    let applied = daemon.json(&["policy", "apply", &policy, "--confirm-within", "1m"]);
    let generation = applied["applied"]["generation"]
        .as_u64()
        .expect("a generation");
    assert!(applied["confirm_by"].is_string(), "{applied}");
    let wrong = (generation + 7).to_string();
    daemon.ask(&["policy", "confirm", &wrong]).refused(1, &[]);
    let kept = daemon.json(&["policy", "confirm", &generation.to_string()]);
    assert_eq!(kept["generation"], generation);
    assert_eq!(daemon.ask(&["policy", "diff", &policy]).ok(), "");

    // Another has changed it meanwhile.
    daemon
        .ask(&["policy", "apply", &empty, "--expect", "99"])
        .refused(1, &["99"]);
    let once = ["policy", "apply", &empty, "--idempotency-key", "a-key"];
    assert_eq!(daemon.json(&once)["repeated"], false);
    assert!(scene.bad_arrives());
    assert_eq!(daemon.json(&once)["repeated"], true);
    let again = daemon.ask(&once).ok();
    assert!(again.contains("carried out before"), "{again}");

    let back = daemon.ask(&["policy", "rollback"]).ok();
    assert!(
        back.contains("block-bad") && back.contains("is in force"),
        "{back}"
    );
    assert!(!scene.bad_arrives());
}

#[test]
fn rules_are_changed_one_by_one() {
    if !is_root() {
        return;
    }
    let scene = Neighbours::new();
    let daemon = scene.daemon(&["--enforce"]);
    let rule =
        "{ id: block-bad, match: { src: 203.0.113.7 }, action: drop, labels: { owner: web } }";
    let done = daemon.ask(&["rule", "put", rule]).ok();
    assert!(done.contains("rule: created"), "{done}");
    assert!(!scene.bad_arrives());
    daemon.ask(&["rule", "disable", "block-bad"]).ok();
    assert!(scene.bad_arrives());
    assert!(daemon.ask(&["rules"]).ok().contains("drop (off)"));
    daemon.ask(&["rule", "enable", "block-bad"]).ok();
    assert!(!scene.bad_arrives());

    let file = scene
        .scratch
        .file("rule.yaml", rule.replace("block-bad", "second"));
    daemon.ask(&["rule", "put", &file]).ok();
    let ids = |more: &[&str]| -> Vec<String> {
        let rules = daemon.json(&[&["rule", "list"], more].concat());
        let rules = rules["rules"].as_array().expect("rules").clone();
        rules
            .iter()
            .map(|r| r["id"].as_str().expect("an id").to_owned())
            .collect()
    };
    assert_eq!(ids(&[]), ["block-bad", "second"]);
    assert_eq!(ids(&["--search", "SECOND"]), ["second"]);
    assert_eq!(ids(&["--address", "203.0.113.7"]).len(), 2);
    assert_eq!(ids(&["--address", "203.0.113.8"]).len(), 0);
    assert_eq!(ids(&["--label", "owner=web"]).len(), 2);
    let shown = daemon.ask(&["rule", "show", "block-bad"]).ok();
    assert!(
        shown.contains("203.0.113.7") && shown.contains("dropped 2"),
        "{shown}"
    );
    daemon
        .ask(&["rule", "show", "none"])
        .refused(1, &["none", "xdpgate rules"]);
    let wrong = daemon.ask(&["rule", "put", &rule.replace("src", "scr")]);
    wrong.refused(2, &["rule: match.scr", "did you mean \"src\""]);
    daemon.ask(&["rule", "remove", "block-bad", "second"]).ok();
    assert!(scene.bad_arrives());
}

#[test]
fn sets_and_bans() {
    if !is_root() {
        return;
    }
    let scene = Neighbours::new();
    let policy = "
version: 1
sets: { bad: { entries: [198.51.100.1], counters: entry } }
rules: [{ id: block-bad, match: { src: '@bad' }, action: drop }]
";
    let policy = scene.scratch.file("policy.yaml", policy);
    let daemon = scene.daemon(&["--enforce", "--policy", &policy]);
    assert!(scene.bad_arrives());
    daemon
        .ask(&["set", "add", "bad", "203.0.113.0/24", "--expires", "2s"])
        .ok();
    assert!(!scene.bad_arrives());
    let covering = ["set", "show", "bad", "--covering", "203.0.113.7"];
    assert!(
        daemon
            .ask(&covering)
            .ok()
            .starts_with("203.0.113.0/24  # until ")
    );
    let counted = daemon.json(&["entries", "bad"]);
    assert_eq!(counted["entries"][0]["prefix"], "203.0.113.0/24");
    assert!(
        counted["entries"][0]["packets"].as_u64() >= Some(1),
        "{counted}"
    );
    wait_for("its expiry", || scene.bad_arrives().then_some(()));

    // A list of 30,000 by stdin: several messages, one change.
    let mut list = "203.0.113.7 # bad\n2001:db8::/32\n".to_owned();
    for n in 0..30_000u32 {
        list += &format!("{}\n", std::net::Ipv4Addr::from(0x0b00_0000 + 3 * n));
    }
    let mut child = command(XDPGATE)
        .args([
            "set",
            "import",
            "bad",
            "-",
            "--json",
            "--server",
            &daemon.server,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("xdpgate");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(list.as_bytes()).expect("read");
    drop(stdin);
    let done: Ended = child.wait_with_output().expect("its end").into();
    let done: Value = serde_json::from_str(&done.ok()).expect("JSON");
    assert_eq!(done["received"], 30_002);
    assert!(!scene.bad_arrives());
    let shown = daemon.ask(&["set", "show", "bad"]).ok();
    assert_eq!(shown.lines().count(), 30_002);
    assert!(shown.lines().any(|line| line == "2001:db8::/32"));
    let sets = daemon.json(&["set", "list"]);
    assert_eq!(sets["sets"][0]["entries"], 30_002);
    assert_eq!(sets["sets"][0]["rules"][0], "block-bad");

    let wrong = scene
        .scratch
        .file("wrong.txt", "203.0.113.7\nexample.org\n");
    let ended = daemon.ask(&["set", "import", "bad", &wrong]);
    ended.refused(2, &["wrong.txt:2: "]);
    let gone = scene.scratch.file("gone.txt", "203.0.113.7\n");
    daemon
        .ask(&["set", "import", "bad", &gone, "--remove"])
        .ok();
    assert!(scene.bad_arrives());
    daemon
        .ask(&["set", "import", "none", &gone, "--add"])
        .refused(1, &["none", "--add"]);
    daemon.ask(&["set", "add", "bad", "203.0.113.7"]).ok();
    daemon.ask(&["set", "remove", "bad", "203.0.113.7"]).ok();
    assert!(scene.bad_arrives());

    let banned = daemon.ask(&["ban", "203.0.113.7", "--for", "1h30m"]).ok();
    assert!(
        banned.contains("is banned as source until") && banned.contains("(1h"),
        "{banned}"
    );
    assert!(!scene.bad_arrives());
    let bans = daemon.json(&["bans"]);
    assert_eq!(bans["bans"][0]["prefix"], "203.0.113.7");
    assert_eq!(bans["bans"][0]["scope"], "source");
    assert_eq!(
        daemon.ask(&["unban", "203.0.113.7"]).ok(),
        "1 ban is lifted\n"
    );
    assert!(scene.bad_arrives());
    daemon
        .ask(&["ban", "203.0.113.7", "--for", "2s", "--scope", "both"])
        .ok();
    assert!(!scene.bad_arrives());
    wait_for("the end of the ban", || scene.bad_arrives().then_some(()));
    assert_eq!(daemon.ask(&["unban", "--all"]).code, Some(0));
    daemon
        .ask(&["ban", "203.0.113.7", "--for", "10"])
        .refused(2, &["no unit", "90s"]);
}

/// Over the API, and without it: the daemon hangs, or is gone.
#[test]
fn r72_modes_and_the_way_out() {
    if !is_root() {
        return;
    }
    let scene = Neighbours::new();
    scene
        .host
        .run(|| run("mount", ["-t", "bpf", "bpf", "/sys/fs/bpf"]))
        .ok();
    let policy = scene.scratch.file("policy.yaml", BLOCK);
    let state = text(&scene.scratch.path("state"));
    let arguments = [
        "--policy",
        &policy,
        "--pin",
        "require",
        "--pin-root",
        "/sys/fs/bpf/xdpgate",
        "--state-dir",
        &state,
    ];
    let daemon = scene.daemon(&arguments);
    assert!(scene.bad_arrives(), "dry run");
    let enforced = daemon.ask(&["enforce", "--confirm-within", "1m"]).ok();
    assert!(enforced.contains("xdpgate confirm"), "{enforced}");
    assert!(!scene.bad_arrives());
    daemon.ask(&["confirm"]).ok();
    daemon.ask(&["dry-run"]).ok();
    assert!(scene.bad_arrives());
    daemon.ask(&["enforce"]).ok();
    let said = daemon.ask(&["panic-off"]).ok();
    assert!(said.contains("by the daemon"), "{said}");
    assert!(scene.bad_arrives());
    assert_eq!(daemon.json(&["status"])["mode"], "pass");

    let through_pins = |server: &str| -> Ended {
        let arguments = [
            "panic-off",
            "--json",
            "--server",
            server,
            "--pin",
            "/sys/fs/bpf/xdpgate",
            "--state-dir",
            &state,
        ];
        scene.host.run(|| xdpgate(arguments))
    };
    let by_pins = |ended: Ended| {
        assert_eq!(ended.code, Some(0), "{ended}");
        let said: Value = serde_json::from_str(&ended.stdout).expect("JSON");
        assert_eq!(said["way"], "pins", "{said}");
        assert!(scene.bad_arrives());
    };
    daemon.ask(&["enforce"]).ok();
    assert!(!scene.bad_arrives());
    daemon.signal(Signal::SIGSTOP);
    by_pins(through_pins(&daemon.server));
    daemon.signal(Signal::SIGCONT);
    daemon.ask(&["enforce"]).ok();
    assert!(!scene.bad_arrives());
    let server = daemon.server.clone();
    daemon.stop(Signal::SIGKILL);
    assert!(!scene.bad_arrives(), "it goes on without the daemon");
    by_pins(through_pins(&server));

    // Where there are no pins it says so, and does not claim to have done it.
    let ended = xdpgate([
        "panic-off",
        "--server",
        &server,
        "--pin",
        "/nowhere",
        "--state-dir",
        &state,
    ]);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(1), ""),
        "{ended}"
    );
    assert!(
        ended.stderr.contains("error: ") && ended.stderr.contains("/nowhere"),
        "{ended}"
    );
}

/// Where there is neither a daemon nor pins, `panic-off` says what it could do and what it could not.
#[test]
fn r72_the_way_out_tells_both_halves() {
    if !is_root() {
        return;
    }
    let scene = Neighbours::new();
    let policy = scene.scratch.file("policy.yaml", BLOCK);
    let state = text(&scene.scratch.path("state"));
    let arguments = [
        "--policy",
        &policy,
        "--enforce",
        "--pin",
        "off",
        "--state-dir",
        &state,
    ];
    let daemon = scene.daemon(&arguments);
    assert!(!scene.bad_arrives());
    let server = daemon.server.clone();
    daemon.stop(Signal::SIGTERM);
    let panic_off = |state: &str| {
        let ended = xdpgate([
            "panic-off",
            "--server",
            &server,
            "--pin",
            "/nowhere",
            "--state-dir",
            state,
        ]);
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(1), ""),
            "{ended}"
        );
        let last = ended.stderr.lines().last().unwrap_or_default().to_owned();
        assert!(
            last.starts_with("error: ") && last.contains("/nowhere"),
            "{ended}"
        );
        last
    };
    let neither = panic_off("/nowhere/state");
    assert!(neither.contains("/nowhere/state/pass"), "{neither}");
    assert!(!neither.contains("is marked"), "{neither}");
    let half = panic_off(&state);
    let marked = format!("{state} is marked all the same");
    assert!(half.contains(&marked), "{half}");
    let daemon = scene.daemon(&arguments);
    assert_eq!(daemon.json(&["status"])["mode"], "pass");
    assert!(scene.bad_arrives(), "as it was said");
}

/// The streams end by themselves, and what they say adds up.
#[test]
fn streams_are_one_object_a_line() {
    if !is_root() {
        return;
    }
    let scene = Neighbours::new();
    let policy = scene.scratch.file("policy.yaml", BLOCK);
    let daemon = scene.daemon(&["--policy", &policy]);
    for _ in 0..3 {
        scene.bad_arrives();
    }
    let lines = daemon
        .ask(&[
            "stats", "--watch", "--count", "3", "--every", "200ms", "--json",
        ])
        .ok();
    let lines: Vec<Value> = lines
        .lines()
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[2]["stats"]["rules"][0]["would_drop_packets"], 3);
    assert!(lines[2]["time"].is_string());
    let table = daemon
        .ask(&["stats", "--watch", "--count", "2", "--every", "1s"])
        .ok();
    assert!(
        table.contains("INTERFACE") || table.contains("no rates yet"),
        "{table}"
    );

    let screen = daemon.ask(&["top", "--once"]).ok();
    assert!(
        screen.contains("mode dry run") && screen.contains("xg0"),
        "{screen}"
    );
    let object = daemon.json(&["top", "--once"]);
    assert_eq!(object["status"]["policy"]["rules"], 1);
    assert!(object["stats"]["rates"]["sample"].as_u64() >= Some(1));
    let system = daemon.json(&["system"]);
    assert_eq!(system["pid"], daemon.pid().as_raw());
}

/// Sampled frames as a file that tshark opens, with the verdict in the comment.
#[test]
fn r111_events_are_a_file_for_tshark() {
    if !is_root() {
        return;
    }
    let scene = Neighbours::new();
    let policy = scene.scratch.file("policy.yaml", BLOCK);
    let daemon = scene.daemon(&["--policy", &policy, "--enforce"]);
    let file = text(&scene.scratch.path("drops.pcapng"));
    let arguments = [
        "events",
        "--count",
        "5",
        "--pcap",
        &file,
        "--rule",
        "block-bad",
        "--server",
        &daemon.server,
    ];
    let child = command(XDPGATE)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("xdpgate");
    let socket = scene
        .neighbour
        .run(|| UdpSocket::bind("203.0.113.7:4000"))
        .expect("a socket");
    let mut child = Some(child);
    wait_for("five frames", || {
        socket.send_to(b"sampled", "192.0.2.1:9000").expect("sent");
        let ended = child.as_mut().and_then(|c| c.try_wait().expect("a child"));
        ended.map(|_| ())
    });
    let ended: Ended = child
        .take()
        .expect("a child")
        .wait_with_output()
        .expect("its end")
        .into();
    assert!(ended.stderr.contains("5 frames, 0 lost"), "{ended}");
    assert_eq!(ended.ok(), "");

    let text = daemon.ask(&["events", "--for", "300ms"]);
    assert_eq!(text.code, Some(0), "{text}");
    if !has_tool("tshark", "--captures") {
        return;
    }
    let fields = [
        "-T",
        "fields",
        "-e",
        "ip.src",
        "-e",
        "udp.dstport",
        "-e",
        "frame.interface_name",
        "-e",
        "frame.comment",
    ];
    let shown = run("tshark", [&["-r", &file], &fields[..]].concat()).ok();
    assert_eq!(shown.lines().count(), 5, "{shown}");
    for line in shown.lines() {
        let start = "203.0.113.7\t9000\txg0\tdrop rule=block-bad reason=rule generation=1";
        assert!(line.starts_with(start), "{line}");
    }
}
