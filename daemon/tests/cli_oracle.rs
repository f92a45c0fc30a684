//! `xdpgate eval --oracle`: policies tried on capture files, without root.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use common::captures::{self, Order, Timed};
use common::{Scratch, XDPGATE, command, frames, xdpgate};

const POLICY: &str = "
version: 1
sets:
  bad-hosts: { entries: [203.0.113.7, '2001:db8::/32'] }
rules:
  - { id: watch-dns, priority: 5, match: { dport: 53 }, action: drop, mode: monitor }
  - { id: allow-office, priority: 10, match: { src: 192.0.2.0/24 }, action: pass }
  - { id: block-bad, priority: 20, match: { src: '@bad-hosts' }, action: drop }
";

/// The lines of `--json` for POLICY and [`sample`].
const LINES: &str = r#"{"index":0,"verdict":"pass","rule":"allow-office","reason":"rule","monitored":["watch-dns"]}
{"index":1,"verdict":"drop","rule":"block-bad","reason":"rule","monitored":[]}
{"index":2,"verdict":"drop","rule":"block-bad","reason":"rule","monitored":["watch-dns"]}
{"index":3,"verdict":"pass","rule":null,"reason":"default","monitored":[]}
{"index":4,"verdict":"pass","rule":null,"reason":"non_ip","monitored":[]}
{"index":5,"verdict":"pass","rule":null,"reason":"malformed","monitored":[]}
"#;

fn sample() -> Vec<Vec<u8>> {
    let mut cut = frames::udp("198.51.100.9", "192.0.2.10", 80);
    cut.truncate(20);
    vec![
        frames::udp("192.0.2.1", "192.0.2.10", 53),
        frames::udp("203.0.113.7", "192.0.2.10", 80),
        frames::udp("2001:db8::1", "2001:db9::1", 53),
        frames::udp("203.0.113.8", "192.0.2.10", 80),
        frames::arp(),
        cut,
    ]
}

fn eval(policy: &str, pcap: &str, more: &[&str]) -> common::Ended {
    xdpgate(
        [
            &["eval", "--oracle", "--policy", policy, "--pcap", pcap],
            more,
        ]
        .concat(),
    )
}

#[test]
fn r108_each_frame_has_its_line() {
    let scratch = Scratch::new();
    let policy = scratch.file("policy.yaml", POLICY);
    let pcap = scratch.file("sample.pcap", captures::simple(&sample()));
    assert_eq!(eval(&policy, &pcap, &["--json"]).ok(), LINES);
}

#[test]
fn r108_every_form_of_capture_file_gives_the_same() {
    let scratch = Scratch::new();
    let policy = scratch.file("policy.yaml", POLICY);
    let sample = sample();
    let timed: Vec<Timed<'_>> = sample.iter().map(|f| (0, f.as_slice())).collect();
    for order in [Order::Little, Order::Big] {
        let forms = [
            ("micro", captures::pcap(order, false, 1, &timed)),
            ("nano", captures::pcap(order, true, 1, &timed)),
            (
                "check sequence",
                captures::pcap(order, true, 0x2400_0001, &timed),
            ),
            ("ng", captures::pcapng(order, 1, &timed)),
        ];
        for (name, bytes) in forms {
            let pcap = scratch.file("sample", bytes);
            assert_eq!(
                eval(&policy, &pcap, &["--json"]).ok(),
                LINES,
                "{order:?} {name}"
            );
        }
    }
}

#[test]
fn r108_the_clock_is_that_of_the_capture() {
    let scratch = Scratch::new();
    let policy = scratch.file(
        "policy.yaml",
        "
version: 1
rules:
  - { id: early, match: { dport: 1 }, action: drop, expires: 1970-01-01T00:00:10Z }
  - id: limit
    match: { dport: 2 }
    action: { rate_limit: { packets_per_second: 1, burst: 1, per: rule } }
",
    );
    let (early, limit) = (
        frames::udp("192.0.2.1", "192.0.2.2", 1),
        frames::udp("192.0.2.1", "192.0.2.2", 2),
    );
    const SECOND: u64 = 1_000_000_000;
    let timed: &[Timed<'_>] = &[
        (10 * SECOND - 1, &early),
        (10 * SECOND, &early),
        (20 * SECOND, &limit),
        (20 * SECOND + 999_999_999, &limit),
        (21 * SECOND, &limit),
    ];
    let expected = [
        "drop rule",
        "pass default",
        "pass rule",
        "drop rate_limit",
        "pass rule",
    ];
    for order in [Order::Little, Order::Big] {
        for bytes in [
            captures::pcap(order, true, 1, timed),
            captures::pcapng(order, 1, timed),
        ] {
            let pcap = scratch.file("timed", bytes);
            let lines = eval(&policy, &pcap, &["--json"]).ok();
            let said: Vec<String> = lines
                .lines()
                .map(|line| {
                    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
                    format!("{} {}", line["verdict"], line["reason"]).replace('"', "")
                })
                .collect();
            assert_eq!(said, expected, "{order:?}");
        }
    }
}

#[test]
fn r108_an_interface_may_be_named() {
    let scratch = Scratch::new();
    let policy = scratch.file(
        "policy.yaml",
        "
version: 1
rules: [{ id: outside, match: {}, action: drop, interfaces: ['eth*'] }]
",
    );
    let pcap = scratch.file(
        "one.pcap",
        captures::simple(&[frames::udp("192.0.2.1", "192.0.2.2", 1)]),
    );
    for (more, rule) in [
        (
            &["--interface", "eth0"][..],
            r#""verdict":"drop","rule":"outside""#,
        ),
        (&["--interface", "wg0"], r#""verdict":"pass","rule":null"#),
        (&[], r#""verdict":"pass","rule":null"#),
    ] {
        let said = eval(&policy, &pcap, &[&["--json"], more].concat()).ok();
        assert!(said.contains(rule), "{more:?}: {said}");
    }
}

#[test]
fn r108_people_get_a_table() {
    let scratch = Scratch::new();
    let policy = scratch.file("policy.yaml", POLICY);
    let pcap = scratch.file("sample.pcap", captures::simple(&sample()));
    let expected = "  FRAME  VERDICT  REASON      RULE
      0  pass     rule        allow-office  (monitored: watch-dns)
      1  drop     rule        block-bad
      2  drop     rule        block-bad  (monitored: watch-dns)
      3  pass     default
      4  pass     non_ip
      5  pass     malformed
6 frames: 4 pass, 2 drop
";
    assert_eq!(eval(&policy, &pcap, &[]).ok(), expected);

    let empty = scratch.file("empty.pcap", captures::simple(&[]));
    assert_eq!(eval(&policy, &empty, &["--json"]).ok(), "");
}

#[test]
fn r108_a_reader_may_leave() {
    let scratch = Scratch::new();
    let policy = scratch.file("policy.yaml", POLICY);
    let many = vec![frames::udp("203.0.113.7", "192.0.2.10", 80); 20_000];
    let pcap = scratch.file("many.pcap", captures::simple(&many));
    let mut child = command(XDPGATE)
        .args([
            "eval", "--oracle", "--json", "--policy", &policy, "--pcap", &pcap,
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the client");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("a line");
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .expect("piped")
        .read_to_string(&mut stderr)
        .expect("UTF-8");
    let status = child.wait().expect("an end");
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""), "{line}");
}

#[test]
fn r108_bad_input_is_refused_on_one_line() {
    let scratch = Scratch::new();
    let good = scratch.file("good.yaml", POLICY);
    let pcap = scratch.file("good.pcap", captures::simple(&sample()));
    let policy = |name: &str, text: &str| scratch.file(name, text);
    let capture = |name: &str, bytes: &[u8]| scratch.file(name, bytes);

    let whole = captures::simple(&sample());
    let frame = frames::arp();
    let timed: &[Timed<'_>] = &[(0, &frame)];
    let mut lying = whole.clone();
    lying[24 + 8..24 + 12].copy_from_slice(&u32::MAX.to_le_bytes());
    lying.resize(20 << 20, 0);
    let mut no_interface = captures::pcapng(Order::Little, 1, timed);
    no_interface.drain(28..28 + 44);

    let rows: &[(&str, &str, &str, &[&str])] = &[
        (
            "wrong YAML",
            &policy("a.yaml", "version: [1"),
            &pcap,
            &["a.yaml: 2:1: not YAML"],
        ),
        (
            "unknown key",
            &policy("b.yaml", "version: 1\nrulez: []\n"),
            &pcap,
            &["b.yaml: 2:1", "rulez", "rules"],
        ),
        (
            "unknown set",
            &policy("c.yaml", &POLICY.replace("'@bad-hosts'", "'@bad-host'")),
            &pcap,
            &["c.yaml: 8:", "rule block-bad", "match.src", "bad-hosts"],
        ),
        (
            "list that is not there",
            &policy("d.yaml", "version: 1\nsets: { s: { file: none.txt } }\n"),
            &pcap,
            &["d.yaml: 2:", "set s", "none.txt"],
        ),
        (
            "missing policy",
            "/nowhere/policy.yaml",
            &pcap,
            &["/nowhere/policy.yaml: No such file"],
        ),
        (
            "missing capture",
            &good,
            "/nowhere/x.pcap",
            &["/nowhere/x.pcap: No such file"],
        ),
        ("directory", &good, "/", &["/: "]),
        (
            "empty",
            &good,
            &capture("empty", b""),
            &["empty: the file is empty"],
        ),
        (
            "not a capture",
            &good,
            &good,
            &["good.yaml: not a pcap or pcapng file"],
        ),
        (
            "half a header",
            &good,
            &capture("half", &whole[..10]),
            &["half: not a pcap"],
        ),
        (
            "cut header",
            &good,
            &capture("cuth", &whole[..30]),
            &["cuth: frame 0: the file ends"],
        ),
        (
            "cut frame",
            &good,
            &capture("cut", &whole[..whole.len() - 1]),
            &["cut: frame 5: the file ends"],
        ),
        (
            "lying length",
            &good,
            &capture("lie", &lying),
            &["lie: frame 0", "damaged"],
        ),
        (
            "Linux cooked",
            &good,
            &capture("sll", &captures::pcap(Order::Big, false, 113, timed)),
            &["sll: link type 113 is not Ethernet"],
        ),
        (
            "raw IP in pcapng",
            &good,
            &capture("raw", &captures::pcapng(Order::Big, 101, timed)),
            &["raw: frame 0: link type 101 is not Ethernet"],
        ),
        (
            "no interface",
            &good,
            &capture("noif", &no_interface),
            &["noif: frame 0", "interface 0"],
        ),
    ];
    for (name, policy, pcap, words) in rows {
        println!("{name}");
        eval(policy, pcap, &["--json"]).refused(2, words);
    }
}

#[test]
fn wrong_use_is_refused_on_one_line() {
    let see = "see `xdpgate --help`";
    let rows: &[(&[&str], &[&str])] = &[
        (&["evil"], &["evil", see]),
        (&["eval", "--policy", "p"], &["--pcap <FILE>", see]),
        (
            &["eval", "--policy", "p", "--pcap", "f", "--frobnicate"],
            &["--frobnicate", see],
        ),
        (
            &["status", "--server", "192.0.2.1:50051"],
            &["192.0.2.1:50051 is not a loopback address"],
        ),
        (
            &["status", "--server", "nonsense"],
            &["neither unix:PATH nor"],
        ),
    ];
    for (arguments, words) in rows {
        xdpgate(*arguments).refused(2, words);
    }
    xdpgate(["status", "--server", "unix:/nowhere/x.sock"]).refused(
        1,
        &[
            "no daemon answers at unix:/nowhere/x.sock",
            "is xdpgated running?",
        ],
    );
}

#[test]
fn policies_can_be_checked() {
    let scratch = Scratch::new();
    scratch.file("list.txt", "# comment\n192.0.2.1\n192.0.2.2 5\n");
    let policy = scratch.file(
        "policy.yaml",
        "
version: 1
sets: { s: { file: list.txt } }
rules:
  - { id: a, match: { src: '@s' }, action: drop }
  - { id: b, match: { src: 192.0.2.9 }, action: drop, enabled: false }
",
    );
    let said = xdpgate(["policy", "check", &policy]).ok();
    assert!(said.contains("rules    2, of these 1 enabled"), "{said}");
    let said: serde_json::Value =
        serde_json::from_str(&xdpgate(["policy", "check", &policy, "--json"]).ok()).expect("JSON");
    assert_eq!(
        (&said["rules"], &said["set_entries"]),
        (&2.into(), &2.into())
    );
    xdpgate(["policy", "check", "/nowhere"]).refused(2, &["/nowhere: No such file"]);
}
