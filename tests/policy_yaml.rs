//! What the policy format accepts and what it means. What it refuses is in `policy_refused.rs`.

use jiff::Timestamp;
use xdpgate::policy::{
    Action, AddressItem, AddressMatch, AddressSet, EntryCounters, Failsafe, Family, FragmentMatch,
    IcmpMatch, Match, Mode, PolicyErrorKind, Prefix, ProtocolName, Ranges, RateLimit, RateScope,
    RateUnit, Rule, RuleId, SetName, TcpFlagsMatch, VlanMatch,
};
use xdpgate::{Policy, PolicyError, Verdict};

/// A policy of one rule `r` with this match.
fn with_match(text: &str) -> Result<Policy, PolicyError> {
    let text = format!("version: 1\nrules: [{{ id: r, action: drop, match: {{ {text} }} }}]");
    Policy::from_yaml(&text)
}

fn matched(text: &str) -> Match {
    with_match(text)
        .unwrap_or_else(|e| panic!("{text}: {e}"))
        .rules()[0]
        .matches
        .clone()
}

/// The kind and the field of the error.
fn refused(text: &str) -> (PolicyErrorKind, String) {
    let error = with_match(text).expect_err(text);
    assert_eq!(error.rule(), RuleId::new("r").as_ref());
    assert!(error.position().is_some());
    (error.kind(), error.field().unwrap().to_owned())
}

fn is_contradiction(text: &str) -> bool {
    refused(text).0 == PolicyErrorKind::Contradiction
}

fn action(text: &str) -> Action {
    let text = format!("version: 1\nrules: [{{ id: r, action: {text} }}]");
    Policy::from_yaml(&text)
        .unwrap_or_else(|e| panic!("{text}: {e}"))
        .rules()[0]
        .action
        .clone()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn prefixes(texts: &[&str]) -> Vec<AddressItem> {
    texts
        .iter()
        .map(|t| AddressItem::Prefix(prefix(t)))
        .collect()
}

fn rule(id: &str, matches: Match) -> Rule {
    Rule {
        matches,
        ..Rule::new(RuleId::new(id).unwrap(), 10, Action::Drop)
    }
}

/// The policy of `policy-format.md`, but for the list file.
const EXAMPLE: &str = r#"
version: 1
default: pass                 # verdict when no rule decides: pass | drop
malformed: drop
failsafe:
  ssh_from: [192.0.2.0/24]
sets:
  bad-hosts:
    entries: [203.0.113.7, 198.51.100.0/24, "2001:db8::/32"]
    counters: entry
rules:
  - id: block-bad
    match: { src: "@bad-hosts" }
    action: drop
  - id: web-syn-limit
    match:
      dst: [198.51.100.10, 198.51.100.11]
      protocol: tcp
      dport: [80, 443, 8000-8999]
      tcp_flags: "SYN,!ACK"
      length: 40-120
    action:
      rate_limit: { packets_per_second: 10000, burst: 20000, per: source }
    mode: monitor
    enabled: false
    expires: 2030-01-01T00:00:00Z
    interfaces: [eth0, "wan*"]
    name: web SYN limit
    comment: free text
    labels: { team: edge }
  - id: allow-office
    priority: 5
    match: { src: 192.0.2.0/24 }
    action: pass
"#;

#[test]
fn every_key_of_the_format() {
    let policy = Policy::from_yaml(EXAMPLE).unwrap();
    assert_eq!(
        (policy.default_verdict(), policy.malformed()),
        (Verdict::Pass, Verdict::Drop)
    );
    let ssh_from = vec![prefix("192.0.2.0/24")];
    assert_eq!(
        *policy.failsafe(),
        Failsafe {
            enabled: true,
            ssh_from
        }
    );
    let set = &policy.sets()[&SetName::new("bad-hosts").unwrap()];
    assert_eq!((set.len(), set.counters()), (3, EntryCounters::Entry));

    let ids: Vec<_> = policy
        .rules()
        .iter()
        .map(|r| (r.id.as_str(), r.priority))
        .collect();
    assert_eq!(
        ids,
        [
            ("allow-office", 5),
            ("block-bad", 10),
            ("web-syn-limit", 20)
        ]
    );
    let items = vec![AddressItem::Set(SetName::new("bad-hosts").unwrap())];
    let src = Some(AddressMatch {
        negated: false,
        items,
    });
    assert_eq!(
        policy.rules()[1],
        rule(
            "block-bad",
            Match {
                src,
                ..Match::default()
            }
        )
    );

    let web = policy.rule("web-syn-limit").unwrap();
    let items = prefixes(&["198.51.100.10", "198.51.100.11"]);
    let wanted = Match {
        dst: Some(AddressMatch {
            negated: false,
            items,
        }),
        protocol: Some(Ranges::single(6)),
        dport: Some(Ranges::new([(80, 80), (443, 443), (8000, 8999)])),
        tcp_flags: Some(TcpFlagsMatch {
            mask: 0x12,
            value: 0x02,
        }),
        length: Some(Ranges::new([(40, 120)])),
        ..Match::default()
    };
    assert_eq!(web.matches, wanted);
    let scope = RateScope::Source { v4: 32, v6: 128 };
    let limit = RateLimit {
        unit: RateUnit::Packets,
        rate: 10_000,
        burst: 20_000,
        scope,
    };
    assert_eq!(web.action, Action::RateLimit(limit));
    assert_eq!((web.mode, web.enabled), (Mode::Monitor, false));
    assert_eq!(web.expires.unwrap().to_string(), "2030-01-01T00:00:00Z");
    assert_eq!(web.interfaces, ["eth0", "wan*"]);
    assert_eq!(web.name.as_deref(), Some("web SYN limit"));
    assert_eq!(web.comment.as_deref(), Some("free text"));
    assert_eq!(web.labels["team"], "edge");
}

#[test]
fn defaults() {
    let policy = Policy::from_yaml("version: 1").unwrap();
    assert_eq!(policy, Policy::builder().build().unwrap());
    assert_eq!(
        (policy.default_verdict(), policy.malformed()),
        (Verdict::Pass, Verdict::Pass)
    );
    assert_eq!(
        *policy.failsafe(),
        Failsafe {
            enabled: true,
            ssh_from: Vec::new()
        }
    );

    let policy = Policy::from_yaml("version: 1\nfailsafe: none\nrules: []").unwrap();
    assert!(!policy.failsafe().enabled);
    let everything = "version: 1\nrules: [{ id: all, action: pass }]";
    assert_eq!(
        Policy::from_yaml(everything).unwrap().rules()[0].matches,
        Match::default()
    );
}

#[test]
fn json_is_yaml() {
    let json = r#"{
        "version": 1, "default": "drop",
        "rules": [
            {"id": "a", "match": {"src": ["10.0.0.0/8", "2001:db8::"], "dport": 80, "icmp": null},
             "action": {"rate_limit": {"bits_per_second": 1000}}, "enabled": true}
        ]
    }"#;
    let error = Policy::from_yaml(json).unwrap_err();
    assert_eq!(error.field(), Some("match.icmp"), "a null is not a value");
    let policy = Policy::from_yaml(&json.replace(r#", "icmp": null"#, "")).unwrap();
    assert_eq!(policy.default_verdict(), Verdict::Drop);
    assert_eq!(policy.rules()[0].matches.dport, Some(Ranges::single(80)));
}

#[test]
fn addresses_in_every_form() {
    let src = |text: &str| {
        let AddressMatch { negated, items } = matched(text).src.unwrap();
        (negated, items)
    };
    assert_eq!(src("src: 10.0.0.1"), (false, prefixes(&["10.0.0.1"])));
    assert_eq!(src("src: 10.0.0.0/8"), (false, prefixes(&["10.0.0.0/8"])));
    assert_eq!(src("src: '::1'"), (false, prefixes(&["::1"])));
    assert_eq!(
        src("src: 2001:db8::/32"),
        (false, prefixes(&["2001:db8::/32"]))
    );
    // Sorted, and without the repeat.
    let list = "src: [192.0.2.1, 10.0.0.0/8, 192.0.2.1/32]";
    assert_eq!(src(list), (false, prefixes(&["10.0.0.0/8", "192.0.2.1"])));
    assert_eq!(
        src("src: { not: 10.0.0.0/8 }"),
        (true, prefixes(&["10.0.0.0/8"]))
    );
    let both = "src: { not: [10.0.0.0/8, '::1'] }";
    assert_eq!(src(both), (true, prefixes(&["10.0.0.0/8", "::1"])));
    assert_eq!(
        src("src: ::ffff:10.0.0.1"),
        (false, prefixes(&["::ffff:10.0.0.1"]))
    );
}

#[test]
fn other_fields_in_every_form() {
    assert_eq!(matched("family: ipv6").family, Some(Family::Ipv6));
    assert_eq!(matched("dport: 0").dport, Some(Ranges::single(0)));
    assert_eq!(matched("dport: '80'").dport, Some(Ranges::single(80)));
    assert_eq!(
        matched("sport: 1024-65535").sport,
        Some(Ranges::new([(1024, 65_535)]))
    );
    assert_eq!(
        matched("dport: [81, 80, 22]").dport,
        Some(Ranges::new([(22, 22), (80, 81)]))
    );
    let not = Ranges::new([(0, 21), (23, 79), (81, 65_535)]);
    assert_eq!(matched("dport: { not: [22, 80] }").dport, Some(not));
    let icmp = IcmpMatch {
        icmp_type: 8,
        code: None,
    };
    assert_eq!(
        matched("protocol: icmp, icmp: { type: 8 }").icmp,
        Some(icmp)
    );
    let icmp = IcmpMatch {
        icmp_type: 1,
        code: Some(0),
    };
    assert_eq!(
        matched("protocol: icmpv6, icmp: { type: 1, code: 0 }").icmp,
        Some(icmp)
    );
    for (text, fragment) in [
        ("none", FragmentMatch::None),
        ("first", FragmentMatch::First),
        ("later", FragmentMatch::Later),
        ("any", FragmentMatch::Any),
    ] {
        assert_eq!(
            matched(&format!("fragment: {text}")).fragment,
            Some(fragment)
        );
    }
    assert_eq!(matched("vlan: none").vlan, Some(VlanMatch::None));
    assert_eq!(matched("vlan: any").vlan, Some(VlanMatch::Any));
    assert_eq!(
        matched("vlan: 0").vlan,
        Some(VlanMatch::Ids(Ranges::single(0)))
    );
    let ids = Ranges::new([(10, 10), (4095, 4095)]);
    assert_eq!(matched("vlan: [4095, 10]").vlan, Some(VlanMatch::Ids(ids)));
    assert_eq!(matched("ttl: 0-1").ttl, Some(Ranges::new([(0, 1)])));
    assert_eq!(
        matched("dscp: [46, 0]").dscp,
        Some(Ranges::new([(0, 0), (46, 46)]))
    );
    let anomaly = matched("anomaly: [bad_fragment, invalid]").anomaly.unwrap();
    assert!(anomaly.bad_fragment && anomaly.invalid);
    let anomaly = matched("anomaly: invalid").anomaly.unwrap();
    assert!(!anomaly.bad_fragment && anomaly.invalid);
}

#[test]
fn actions_in_every_form() {
    assert_eq!(action("drop"), Action::Drop);
    assert_eq!(action("pass"), Action::Pass);
    assert_eq!(action("count"), Action::Count);
    let limit = |text: &str| match action(&format!("{{ rate_limit: {{ {text} }} }}")) {
        Action::RateLimit(RateLimit {
            unit,
            rate,
            burst,
            scope,
        }) => (unit, rate, burst, scope),
        other => panic!("{other:?}"),
    };
    let site = RateScope::Source { v4: 24, v6: 64 };
    let host = RateScope::Source { v4: 32, v6: 128 };
    let other = RateScope::Source { v4: 20, v6: 48 };
    use RateUnit::{Bits, Packets};
    assert_eq!(
        limit("packets_per_second: 5"),
        (Packets, 5, 5, RateScope::Rule)
    );
    assert_eq!(
        limit("bits_per_second: 5, burst: 9, per: rule"),
        (Bits, 5, 9, RateScope::Rule)
    );
    assert_eq!(limit("bits_per_second: 5, per: source"), (Bits, 5, 5, host));
    assert_eq!(
        limit("packets_per_second: 5, per: source/24"),
        (Packets, 5, 5, site)
    );
    let explicit = "packets_per_second: 5, per: { source: { v4: 20, v6: 48 } }";
    assert_eq!(limit(explicit), (Packets, 5, 5, other));
}

#[test]
fn sets_join_entries_and_list_file() {
    let dir = tempdir("sets");
    std::fs::create_dir_all(dir.join("lists")).unwrap();
    std::fs::write(
        dir.join("lists/feed.txt"),
        "# feed\n10.0.0.1\t3\n2001:db8::/32\n",
    )
    .unwrap();
    let text = "version: 1\nsets: { s: { entries: [10.0.0.1, 10.0.0.2], file: lists/feed.txt } }";
    let entries = |policy: Policy| -> Vec<String> {
        policy.sets()[&SetName::new("s").unwrap()]
            .iter()
            .map(|p| p.to_string())
            .collect()
    };
    let wanted = ["10.0.0.1", "10.0.0.2", "2001:db8::/32"];
    assert_eq!(entries(Policy::from_yaml_in(text, &dir).unwrap()), wanted);
    std::fs::write(dir.join("policy.yaml"), text).unwrap();
    assert_eq!(
        entries(Policy::from_file(dir.join("policy.yaml")).unwrap()),
        wanted
    );

    let error = Policy::from_yaml(text).unwrap_err();
    assert_eq!(error.kind(), PolicyErrorKind::NotSupported);
    std::fs::write(dir.join("lists/feed.txt"), "10.0.0.1\n10.0.0.300\n").unwrap();
    let error = Policy::from_yaml_in(text, &dir).unwrap_err();
    assert_eq!(error.kind(), PolicyErrorKind::File);
    let place = format!("{}:2: ", dir.join("lists/feed.txt").display());
    assert!(
        error
            .to_string()
            .starts_with(&format!("2:51: set s: file: {place}")),
        "{error}"
    );
    let error = Policy::from_file(dir.join("none.yaml")).unwrap_err();
    assert_eq!(
        (error.kind(), error.position()),
        (PolicyErrorKind::File, None)
    );
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn entries_of_a_file_outlast_their_expiry() {
    let dir = tempdir("expiry");
    std::fs::write(dir.join("feed.txt"), "10.0.0.1 2030-01-01T00:00:00Z\n").unwrap();
    let text = "version: 1\nsets: { s: { file: feed.txt, entries: [\
                { entry: 10.0.0.1, expires: 2030-01-01T00:00:00Z }, \
                { entry: 10.0.0.2, expires: 2030-01-01T00:00:00Z }] } }";
    let policy = Policy::from_yaml_in(text, &dir).unwrap();
    let set = &policy.sets()[&SetName::new("s").unwrap()];
    let expiring: Vec<String> = set.expiring().map(|(p, _)| p.to_string()).collect();
    assert_eq!((set.len(), expiring), (2, vec!["10.0.0.2".to_owned()]));
    std::fs::remove_dir_all(dir).unwrap();
}

fn tempdir(name: &str) -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("xdpgate-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn r02_mapped_ipv6_is_no_ipv4() {
    assert!(is_contradiction("src: ::ffff:10.0.0.1, family: ipv4"));
    assert!(is_contradiction("src: ::ffff:10.0.0.1, dst: 10.0.0.1"));
}

#[test]
fn r04_protocol_names_and_numbers() {
    for (name, number) in ProtocolName::ALL {
        let wanted = Some(Ranges::single(*number));
        assert_eq!(matched(&format!("protocol: {name}")).protocol, wanted);
        let upper = format!("protocol: {}", name.to_ascii_uppercase());
        assert_eq!(
            refused(&upper),
            (PolicyErrorKind::InvalidValue, "match.protocol".to_owned())
        );
    }
    for name in [
        "tcp", "udp", "icmp", "icmpv6", "igmp", "gre", "esp", "ah", "sctp", "ipip",
    ] {
        assert!(ProtocolName::number(name).is_some(), "{name}");
    }
    for number in 0..=255u8 {
        let wanted = Some(Ranges::single(number));
        assert_eq!(matched(&format!("protocol: {number}")).protocol, wanted);
    }
    assert_eq!(matched("protocol: all").protocol, None);
    for odd in [
        "256",
        "-1",
        "06",
        "6.0",
        "0x6",
        "Tcp",
        "tcp ip",
        "any",
        "[all, tcp]",
        "[tcp, TCP]",
    ] {
        refused(&format!("protocol: {odd}"));
    }
}

#[test]
fn r09_length_min_over_max_refused() {
    assert_eq!(matched("length: 40-40").length, Some(Ranges::single(40)));
    assert_eq!(refused("length: 41-40").1, "match.length");
    let length = Some(Ranges::new([(41, 40)]));
    let built = Policy::builder()
        .rule(rule(
            "r",
            Match {
                length,
                ..Match::default()
            },
        ))
        .build();
    assert_eq!(
        built.unwrap_err().field(),
        Some("match.length"),
        "from code, too"
    );
}

#[test]
fn r10_flag_contradictions_refused() {
    let flags = |text: &str| matched(text).tcp_flags.unwrap();
    assert_eq!(
        flags("tcp_flags: 'SYN,!ACK'"),
        TcpFlagsMatch {
            mask: 0x12,
            value: 0x02
        }
    );
    assert_eq!(
        flags("tcp_flags: 'FIN, URG ,PSH'"),
        TcpFlagsMatch {
            mask: 0x29,
            value: 0x29
        }
    );
    assert_eq!(
        flags("tcp_flags: '!CWR,ECE'"),
        TcpFlagsMatch {
            mask: 0xc0,
            value: 0x40
        }
    );
    assert!(is_contradiction("tcp_flags: 'SYN,!SYN'"));
    assert!(is_contradiction("tcp_flags: SYN, protocol: udp"));
    assert!(is_contradiction("tcp_flags: SYN, protocol: [udp, icmp]"));
    matched("tcp_flags: SYN, protocol: [tcp, udp]");
    let tcp_flags = Some(TcpFlagsMatch {
        mask: 0x02,
        value: 0x12,
    });
    let built = Policy::builder()
        .rule(rule(
            "r",
            Match {
                tcp_flags,
                ..Match::default()
            },
        ))
        .build();
    assert_eq!(built.unwrap_err().field(), Some("match.tcp_flags"));
}

#[test]
fn r11_presets_expand() {
    for (preset, mask, value, text) in [
        ("tcp_ack", 0x12, 0x10, "\"!SYN,ACK\""),
        ("tcp_rst", 0x04, 0x04, "\"RST\""),
        ("tcp_fin", 0x01, 0x01, "\"FIN\""),
    ] {
        let policy = with_match(&format!("preset: {preset}")).unwrap();
        let m = &policy.rules()[0].matches;
        assert_eq!(m.tcp_flags, Some(TcpFlagsMatch { mask, value }));
        assert_eq!(m.protocol, Some(Ranges::single(6)));
        let read_back = policy.to_yaml();
        assert!(
            read_back.contains(&format!("tcp_flags: {text}")),
            "{read_back}"
        );
        assert!(!read_back.contains("preset"), "{read_back}");
    }
    matched("preset: tcp_ack, protocol: tcp");
    assert_eq!(refused("preset: tcp_ack, tcp_flags: ACK").1, "match.preset");
    assert_eq!(refused("preset: tcp_ack, protocol: udp").1, "match.preset");
}

#[test]
fn r15_equal_priorities_are_ordered_by_id() {
    let text = "version: 1\nrules:\n  - { id: b, priority: 7, action: drop }\n  \
                - { id: a, priority: 7, action: pass }\n  - { id: c, priority: 0, action: count }";
    let policy = Policy::from_yaml(text).unwrap();
    let ids: Vec<_> = policy.rules().iter().map(|r| r.id.as_str()).collect();
    assert_eq!(ids, ["c", "a", "b"]);
}

#[test]
fn families_of_sets_count() {
    let with_sets = |text: &str| {
        Policy::from_yaml(&format!(
            "version: 1\n\
             sets: {{ v4: {{ entries: [10.0.0.1] }}, v6: {{ entries: ['::1'] }}, \
             mixed: {{ entries: [10.0.0.1, '::1'] }}, half: {{ entries: [128.0.0.0/1] }}, \
             until: {{ entries: [{{ entry: 128.0.0.0/1, expires: 2030-01-01T00:00:00Z }}] }} }}\n\
             rules: [{{ id: r, action: drop, match: {{ {text} }} }}]"
        ))
    };
    for text in [
        "src: '@v4', dst: '@v6'",
        "src: 10.0.0.1, dst: '@v6'",
        "src: '@v6', family: ipv4",
        "src: '@v4', protocol: icmpv6",
        "src: { not: ['@half', 0.0.0.0/1] }, dst: '@v4'",
        "src: '@until', family: ipv6",
    ] {
        let error = with_sets(text).expect_err(text);
        assert_eq!(error.kind(), PolicyErrorKind::Contradiction, "{error}");
    }
    for text in [
        "src: '@v4', dst: '@mixed'",
        "src: ['@v4', '@v6'], dst: '@v6'",
        "src: { not: '@v4' }, dst: '@v6'",
        "src: { not: '@v4' }, dst: '@v4'",
        "src: { not: '@half' }, dst: '@v4'",
        "src: { not: 0.0.0.0/0 }, dst: '@v6'",
        "src: '@until', dst: '@v4'",
        // One day its entry is gone.
        "src: { not: ['@until', 0.0.0.0/1] }, dst: '@v4'",
        "protocol: [icmp, icmpv6], family: ipv6",
        "protocol: [icmp, tcp], dport: 80",
    ] {
        with_sets(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    }
}

#[test]
fn code_is_checked_like_text() {
    let refused = |builder: xdpgate::policy::PolicyBuilder| {
        let error = builder.build().unwrap_err();
        assert_eq!(error.position(), None);
        (error.kind(), error.to_string())
    };
    let set = || SetName::new("s").unwrap();
    let some = || AddressSet::from_prefixes([prefix("10.0.0.1")]);
    let (kind, _) = refused(Policy::builder().set(set(), some()).set(set(), some()));
    assert_eq!(kind, PolicyErrorKind::Duplicate);
    let (kind, text) = refused(Policy::builder().set(set(), AddressSet::default()));
    assert_eq!(kind, PolicyErrorKind::InvalidValue);
    assert_eq!(
        text,
        "set s: the set has no entry; give it entries or leave it out"
    );
    let early = AddressSet::from_entries([(prefix("10.0.0.1"), Some(Timestamp::MIN))]);
    let (kind, text) = refused(Policy::builder().set(set(), early));
    assert_eq!(kind, PolicyErrorKind::InvalidValue);
    assert_eq!(text, "set s: entries: 10.0.0.1 expires before 1970");
    let twice = Policy::builder()
        .rule(rule("a", Match::default()))
        .rule(rule("a", Match::default()));
    assert_eq!(refused(twice).0, PolicyErrorKind::Duplicate);
    let off = Failsafe {
        enabled: false,
        ssh_from: vec![prefix("10.0.0.0/8")],
    };
    assert_eq!(
        refused(Policy::builder().failsafe(off)).0,
        PolicyErrorKind::Contradiction
    );

    let one = |matches| refused(Policy::builder().rule(rule("r", matches))).1;
    let items = vec![AddressItem::Set(set())];
    let src = Some(AddressMatch {
        negated: false,
        items,
    });
    let text = one(Match {
        src,
        ..Match::default()
    });
    assert_eq!(
        text,
        "rule r: match.src: there is no set \"s\"; the policy has no sets"
    );
    let src = Some(AddressMatch {
        negated: true,
        items: Vec::new(),
    });
    assert!(
        one(Match {
            src,
            ..Match::default()
        })
        .contains("an empty list")
    );
    let dscp = Some(Ranges::single(64));
    assert!(
        one(Match {
            dscp,
            ..Match::default()
        })
        .contains("64 is above 63")
    );
    let ttl = Some(Ranges::new([(1, 2), (5, 6)]));
    assert!(
        one(Match {
            ttl,
            ..Match::default()
        })
        .contains("more than one range")
    );
    let vlan = Some(VlanMatch::Ids(Ranges::single(4096)));
    assert!(
        one(Match {
            vlan,
            ..Match::default()
        })
        .contains("4096 is above 4095")
    );
}

#[test]
fn a_small_text_stays_small() {
    let bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nversion: 1\n";
    assert!(Policy::from_yaml(bomb).is_err());
    for open in ["[", "{a: ", "- ", "? ", "a:\n "] {
        assert!(Policy::from_yaml(&open.repeat(50_000)).is_err(), "{open}");
    }
}
