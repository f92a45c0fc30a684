//! What the policy format refuses, and the words of each refusal.

use xdpgate::policy::{Action, AddressMatch, AddressSet, Match, Ranges, Rule, RuleId, SetName};
use xdpgate::{Policy, Verdict};

/// A whole policy and its error.
#[rustfmt::skip]
const POLICIES: &[(&str, &str)] = &[
    ("\n\n# only a comment",
     "1:1: the policy is empty; start with `version: 1`"),
    ("[1, 2]",
     "1:1: a list is given; a mapping is wanted"),
    ("rules: []",
     "1:1: version: missing; start with `version: 1`"),
    ("version: 2",
     r#"1:10: version: "2" is not known; this release reads version 1"#),
    ("version: one",
     r#"1:10: version: "one" is not known; this release reads version 1"#),
    ("version: 1\nversion: 1",
     "2:1: version: the key is there twice"),
    ("version: 1\ndefualt: drop",
     r#"2:1: defualt: unknown key; did you mean "default"? Known are version, default, malformed, failsafe, sets, rules"#),
    ("version: 1\ndefault: allow",
     r#"2:10: default: "allow" is not known; known are pass, drop"#),
    ("version: 1\ndefault: [drop]",
     "2:10: default: a list is given; one of pass, drop is wanted"),
    ("version: 1\ndefault:\nrules: []",
     "2:1: default: nothing is given; one of pass, drop is wanted"),
    ("version: 1\nrules: {a: b}",
     "2:8: rules: a mapping is given; a list of rules is wanted"),
    ("version: 1\nrules: [block]",
     r#"2:9: rule number 1: "block" is not a mapping"#),
    ("version: 1\nrules:\n  - { id: a, action: drop }\n  - { id: b, action: drop }\n  - { id: a, action: pass }",
     "5:11: rule a: id: another rule has this id; ids must be unique"),
    ("version: 1\nsets: { bad-hosts: { entries: [] } }",
     "2:31: set bad-hosts: entries: an empty list; leave the key out, or give it an item"),
    ("version: 1\nsets: { bad-hosts: { counters: none } }",
     "2:20: set bad-hosts: the set has no entry; give it entries or leave it out"),
    ("version: 1\nsets: { bad-hosts: { file: list.txt } }",
     "2:28: set bad-hosts: file: this policy was not read from a file; give the addresses as entries"),
    ("version: 1\nsets: { bad-hosts: { entries: [10.0.0.1/8] } }",
     r#"2:32: set bad-hosts: entries: "10.0.0.1/8" has bits set beyond the prefix length; did you mean 10.0.0.0/8?"#),
    ("version: 1\nsets: { bad-hosts: { entries: [10.0.0.1, example.com] } }",
     r#"2:42: set bad-hosts: entries: "example.com" is not an IPv4 or IPv6 address or prefix"#),
    ("version: 1\nsets: { bad-hosts: { entries: 10.0.0.1, counter: entry } }",
     r#"2:41: set bad-hosts: counter: unknown key; did you mean "counters"? Known are entries, file, counters"#),
    ("version: 1\nsets: { bad: { entries: [{ entry: 10.0.0.1, expire: 2030-01-01T00:00:00Z }] } }",
     r#"2:45: set bad: entries.expire: unknown key; did you mean "expires"? Known are entry, expires"#),
    ("version: 1\nsets: { bad: { entries: [10.0.0.2, { expires: 2030-01-01T00:00:00Z }] } }",
     "2:36: set bad: entries.entry: missing; write {entry: 203.0.113.7, expires: 2030-01-01T00:00:00Z}"),
    ("version: 1\nsets: { bad: { entries: [{}] } }",
     "2:26: set bad: entries.entry: missing; write {entry: 203.0.113.7, expires: 2030-01-01T00:00:00Z}"),
    ("version: 1\nsets:\n  bad:\n    entries:\n      - 10.0.0.2\n      - entry: 10.0.0.1/8\n        expires: 2030-01-01T00:00:00Z",
     r#"6:16: set bad: entries.entry: "10.0.0.1/8" has bits set beyond the prefix length; did you mean 10.0.0.0/8?"#),
    ("version: 1\nsets: { bad: { entries: [{ entry: 10.0.0.1, expires: tomorrow }] } }",
     r#"2:54: set bad: entries.expires: "tomorrow" is not a time in UTC; write it as 2030-01-01T00:00:00Z"#),
    ("version: 1\nsets: { bad: { entries: [{ entry: 10.0.0.1, expires: }] } }",
     "2:45: set bad: entries.expires: nothing is given; a time as 2030-01-01T00:00:00Z is wanted"),
    ("version: 1\nsets: { bad: { entries: [{ entry: 10.0.0.1, expires: 1969-12-31T23:59:59Z }] } }",
     "2:54: set bad: entries.expires: before 1970"),
    ("version: 1\nsets: { bad: { entries: [{ entry: 10.0.0.1, expires: 9999-12-31T23:59:59Z }] } }",
     "2:54: set bad: entries.expires: after 9999-12-30T22:00:00Z, which is the last; leave it out for what never expires"),
    ("version: 1\nsets: { bad: { entries: [{ entry: 10.0.0.1, entry: 10.0.0.2 }] } }",
     "2:45: set bad: entries.entry: the key is there twice"),
    ("version: 1\nsets: { bad: { entries: [{ entry: [10.0.0.1] }] } }",
     "2:35: set bad: entries.entry: a list is given; an address or prefix is wanted"),
    ("version: 1\nsets: { bad: { entries: [fe80::] } }",
     "2:26: set bad: entries: a mapping is given; quote IPv6 addresses that end with a colon"),
    ("version: 1\nsets: { bad: { entries: { entry: 10.0.0.1, expires: 2030-01-01T00:00:00Z } } }",
     "2:25: set bad: entries: a mapping is given; a list of addresses and prefixes is wanted"),
    ("version: 1\nsets: { bad: { entries: [10.0.0.1], expires: 2030-01-01T00:00:00Z } }",
     "2:37: set bad: expires: unknown key; known are entries, file, counters"),
    ("version: 1\nsets: { \"bad hosts\": { entries: [10.0.0.1] } }",
     r#"2:9: sets: "bad hosts" is not the name of a set; names are 1 to 64 of a-z A-Z 0-9 . _ -"#),
    ("version: 1\nsets:\n  bad: { entries: [10.0.0.1] }\n  bad: { entries: [10.0.0.1] }",
     "4:3: sets.bad: the key is there twice"),
    ("version: 1\nfailsafe: off",
     r#"2:11: failsafe: "off" is not `none` or a mapping"#),
    ("version: 1\nfailsafe: { ssh_from: [] }",
     "2:23: failsafe.ssh_from: an empty list; leave the key out, or give it an item"),
    ("version: 1\nfailsafe: { ssh_from: [10.0.0.0/33] }",
     r#"2:24: failsafe.ssh_from: "10.0.0.0/33": the prefix length must be a number from 0 to 32"#),
    ("version: 1\nfailsafe: { ssh: [10.0.0.0/8] }",
     "2:13: failsafe.ssh: unknown key; known are ssh_from"),
    ("version: 1\nrules: [",
     "3:1: not YAML: while parsing a node, did not find expected node content"),
    ("version: 1\nrules: [{ id: a, match: { src: [fe80::] }, action: drop }]",
     "2:33: rule a: match.src: a mapping is given; quote IPv6 addresses that end with a colon"),
    ("version: &v 1",
     "1:10: version: an anchor, which a policy cannot have; quote text that starts with &"),
    ("version: 1\ndefault: *v",
     "2:10: an alias, which a policy cannot have; quote text that starts with *"),
    ("version: !!int 1",
     "1:10: version: a tag, which a policy cannot have; quote text that starts with !"),
    ("version: 1\nrules: [{ id: a, match: { protocol: tcp, tcp_flags: !ACK }, action: drop }]",
     "2:53: rule a: match.tcp_flags: a tag, which a policy cannot have; quote text that starts with !"),
    ("version: 1\n? [a]\n: b",
     "2:3: a key must be a word"),
    ("[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]\n",
     "1:18: nested more than 16 deep"),
];

/// A rule, which starts at column 5 of line 3, and the error.
#[rustfmt::skip]
const RULES: &[(&str, &str)] = &[
    ("{ action: drop }",
     "3:5: rule number 1: id: missing; give each rule an id of its own"),
    ("{ id: bad id, action: drop }",
     r#"3:11: rule number 1: id: "bad id" is not an id; ids are 1 to 64 of a-z A-Z 0-9 . _ -"#),
    ("{ id: r }",
     "3:5: rule r: action: missing; one of drop, pass, count, rate_limit"),
    ("{ id: r, action: block }",
     r#"3:22: rule r: action: "block" is not an action; known are drop, pass, count and {rate_limit: {...}}"#),
    ("{ id: r, action: rate_limit }",
     "3:22: rule r: action: a rate is missing; write {rate_limit: {packets_per_second: 1000}}"),
    ("{ id: r, action: { rate_limit: { packets_per_second: 0 } } }",
     "3:58: rule r: action.rate_limit.packets_per_second: a rate of 0; use the action `drop` to let nothing pass"),
    ("{ id: r, action: { rate_limit: { packets_per_second: 5, bits_per_second: 7 } } }",
     "3:36: rule r: action.rate_limit: two rates; give packets_per_second or bits_per_second, or use two rules"),
    ("{ id: r, action: { rate_limit: { burst: 5 } } }",
     "3:36: rule r: action.rate_limit: a rate is missing; give packets_per_second or bits_per_second"),
    ("{ id: r, action: { rate_limit: { packets_per_second: 5, burst: 0 } } }",
     "3:68: rule r: action.rate_limit.burst: a burst of 0 lets nothing pass"),
    ("{ id: r, action: { rate_limit: { packets_per_second: 5, per: source/33 } } }",
     r#"3:66: rule r: action.rate_limit.per: "source/33" is not known; write rule, source, source/24 or {source: {v4: 24, v6: 64}}"#),
    ("{ id: r, action: { rate_limit: { packets_per_second: 5, per: source/0 } } }",
     r#"3:66: rule r: action.rate_limit.per: "source/0" is not known; write rule, source, source/24 or {source: {v4: 24, v6: 64}}"#),
    ("{ id: r, action: { rate_limit: { packets_per_second: 5, per: { source: { v4: 33, v6: 64 } } } } }",
     "3:66: rule r: action.rate_limit.per: the prefix length v4 must be from 1 to 32"),
    ("{ id: r, action: { rate_limit: { packets_per_second: 5, per: { source: { v4: 24, v6: 0 } } } } }",
     "3:66: rule r: action.rate_limit.per: the prefix length v6 must be from 1 to 128"),
    ("{ id: r, action: { rate_limit: { packets_per_second: 5, per: { source: { v4: 24 } } } } }",
     "3:76: rule r: action.rate_limit.per.source.v6: missing; write {source: {v4: 24, v6: 64}}"),
    ("{ id: r, action: { drop: true } }",
     "3:24: rule r: action.drop: unknown key; known are rate_limit"),
    ("{ id: r, action: drop, priority: -1 }",
     r#"3:38: rule r: priority: "-1" is not a number from 0 to 4294967295"#),
    ("{ id: r, action: drop, priority: 4294967296 }",
     r#"3:38: rule r: priority: "4294967296" is not a number from 0 to 4294967295"#),
    ("{ id: r, action: drop, priority: 010 }",
     r#"3:38: rule r: priority: "010" is not a number from 0 to 4294967295"#),
    ("{ id: r, action: drop, priority: 1.5 }",
     r#"3:38: rule r: priority: "1.5" is not a number from 0 to 4294967295"#),
    ("{ id: r, action: drop, enabled: yes }",
     r#"3:37: rule r: enabled: "yes" is not true or false"#),
    ("{ id: r, action: drop, mode: dry-run }",
     r#"3:34: rule r: mode: "dry-run" is not known; known are enforce, monitor"#),
    ("{ id: r, action: drop, expires: 2030-01-01 }",
     r#"3:37: rule r: expires: "2030-01-01" is not a time in UTC; write it as 2030-01-01T00:00:00Z"#),
    ("{ id: r, action: drop, expires: 2030-01-01T00:00:00+02:00 }",
     r#"3:37: rule r: expires: "2030-01-01T00:00:00+02:00" is not a time in UTC; write it as 2030-01-01T00:00:00Z"#),
    ("{ id: r, action: drop, expires: 2030-13-01T00:00:00Z }",
     r#"3:37: rule r: expires: "2030-13-01T00:00:00Z" is not a time in UTC; write it as 2030-01-01T00:00:00Z"#),
    ("{ id: r, action: drop, expires: 1969-12-31T23:59:59Z }",
     "3:37: rule r: expires: before 1970"),
    ("{ id: r, action: drop, expires: 9999-12-31T23:59:59Z }",
     "3:37: rule r: expires: after 9999-12-30T22:00:00Z, which is the last; leave it out for what never expires"),
    ("{ id: r, action: drop, interfaces: eth0 }",
     r#"3:40: rule r: interfaces: "eth0" is not a list of interface names"#),
    ("{ id: r, action: drop, interfaces: [] }",
     "3:40: rule r: interfaces: an empty list; leave the key out, or give it an item"),
    ("{ id: r, action: drop, interfaces: [eth0, a-name-that-is-too-long] }",
     r#"3:47: rule r: interfaces: "a-name-that-is-too-long" is not of 1 to 15 bytes; names are as in `ip link`, globs may use * ? [a-z]"#),
    (r#"{ id: r, action: drop, interfaces: [eth0, "eth[0"] }"#,
     r#"3:47: rule r: interfaces: "eth[0" is not a glob; names are as in `ip link`, globs may use * ? [a-z]"#),
    (r#"{ id: r, action: drop, interfaces: ["eth 0"] }"#,
     r#"3:41: rule r: interfaces: "eth 0" has ' ' in it; names are as in `ip link`, globs may use * ? [a-z]"#),
    (r#"{ id: r, action: drop, interfaces: ["{eth0,eth1}"] }"#,
     r#"3:41: rule r: interfaces: "{eth0,eth1}" has '{' in it; names are as in `ip link`, globs may use * ? [a-z]"#),
    ("{ id: r, action: drop, interfaces: [*] }",
     "3:41: an alias, which a policy cannot have; quote text that starts with *"),
    ("{ id: r, action: drop, name: }",
     "3:28: rule r: name: nothing is given; text is wanted"),
    ("{ id: r, action: drop, comment: [a] }",
     "3:37: rule r: comment: a list is given; text is wanted"),
    ("{ id: r, action: drop, labels: { team: [edge] } }",
     "3:44: rule r: labels.team: a list is given; text is wanted"),
    ("{ id: r, action: drop, labels: { team: a, team: b } }",
     "3:47: rule r: labels.team: the key is there twice"),
    ("{ id: r, action: drop, prioritty: 5 }",
     r#"3:28: rule r: prioritty: unknown key; did you mean "priority"? Known are id, priority, match, action, mode, enabled, expires, interfaces, name, comment, labels"#),
    ("{ id: r, action: drop, action: pass }",
     "3:28: rule r: action: the key is there twice"),
    ("{ id: r, action: drop, match: { src: @bad } }",
     "3:42: not YAML: unexpected character: `@'; quote text that starts with @"),
    (r#"{ id: r, action: drop, match: { src: "@bad" } }"#,
     r#"3:42: rule r: match.src: there is no set "bad"; the policy has no sets"#),
    ("block",
     r#"3:5: rule number 1: "block" is not a mapping"#),
];

/// The match of rule `r`, which starts at column 12 of line 4, and the error without what all have
/// in common.
#[rustfmt::skip]
const MATCHES: &[(&str, &str)] = &[
    (r#"{ src: 10.0.0.1, dst: "2001:db8::1" }"#,
     "4:34: dst: IPv6 only, but match.src is IPv4 only, so no packet can match"),
    ("{ src: 10.0.0.0/8, family: ipv6 }",
     "4:19: src: IPv4 only, but match.family is IPv6 only, so no packet can match"),
    ("{ src: { not: 0.0.0.0/0 }, family: ipv4 }",
     "4:19: src: IPv6 only, but match.family is IPv4 only, so no packet can match"),
    (r#"{ src: { not: [0.0.0.0/0, "::/0"] } }"#,
     "4:19: src: `not` leaves no address: every one is named"),
    (r#"{ src: { not: [0.0.0.0/1, 128.0.0.0/1, "::/1", "8000::/1"] } }"#,
     "4:19: src: `not` leaves no address: every one is named"),
    ("{ src: { not: [0.0.0.0/1, 128.0.0.0/1] }, dst: 10.0.0.1 }",
     "4:59: dst: IPv4 only, but match.src is IPv6 only, so no packet can match"),
    ("{ src: [] }",
     "4:19: src: an empty list; leave the key out, or give it an item"),
    ("{ src: }",
     r#"4:14: src: nothing is given; an address, a prefix or a "@set" is wanted"#),
    ("{ src: { no: 10.0.0.0/8 } }",
     r#"4:21: src.no: unknown key; did you mean "not"? Known are not"#),
    ("{ src: {} }",
     "4:19: src.not: missing; write {not: ...}"),
    ("{ src: { not: [] } }",
     "4:26: src.not: an empty list; leave the key out, or give it an item"),
    ("{ src: { not: 10.0.0.0/33 } }",
     r#"4:26: src.not: "10.0.0.0/33": the prefix length must be a number from 0 to 32"#),
    ("{ src: 10.0.0.300 }",
     r#"4:19: src: "10.0.0.300" is not an IPv4 or IPv6 address or prefix"#),
    ("{ src: localhost }",
     r#"4:19: src: "localhost" is not an IPv4 or IPv6 address or prefix"#),
    ("{ src: [[10.0.0.1]] }",
     r#"4:20: src: a list is given; an address, a prefix or a "@set" is wanted"#),
    (r#"{ src: "@" }"#,
     r#"4:19: src: "@" is not the name of a set; names are 1 to 64 of a-z A-Z 0-9 . _ -"#),
    (r#"{ src: [10.0.0.1, "@a b"] }"#,
     r#"4:30: src: "@a b" is not the name of a set; names are 1 to 64 of a-z A-Z 0-9 . _ -"#),
    ("{ family: inet }",
     r#"4:22: family: "inet" is not known; known are ipv4, ipv6"#),
    ("{ family: [ipv4, ipv6] }",
     "4:22: family: a list is given; one of ipv4, ipv6 is wanted"),
    ("{ protocol: TCP }",
     r#"4:24: protocol: "TCP" is not a known protocol; names are lower case: write tcp"#),
    ("{ protocol: tpc }",
     r#"4:24: protocol: "tpc" is not a known protocol; did you mean "tcp"? A number from 0 to 255 does too"#),
    ("{ protocol: 256 }",
     r#"4:24: protocol: "256" is not a number from 0 to 255"#),
    ("{ protocol: [] }",
     "4:24: protocol: an empty list; leave the key out, or give it an item"),
    ("{ protocol: [all, tcp] }",
     r#"4:25: protocol: "all" is not a known protocol; `all` cannot be one of a list"#),
    ("{ protocol: any }",
     r#"4:24: protocol: "any" is not a known protocol; known are all, icmp, igmp, ipip, tcp, udp, dccp, ipv6, gre, esp, ah, icmpv6, ospf, pim, vrrp, l2tp, sctp, udplite and the numbers from 0 to 255"#),
    ("{ protocol: xyzzy }",
     r#"4:24: protocol: "xyzzy" is not a known protocol; known are all, icmp, igmp, ipip, tcp, udp, dccp, ipv6, gre, esp, ah, icmpv6, ospf, pim, vrrp, l2tp, sctp, udplite and the numbers from 0 to 255"#),
    ("{ protocol: -1 }",
     r#"4:24: protocol: "-1" is not a known protocol; known are all, icmp, igmp, ipip, tcp, udp, dccp, ipv6, gre, esp, ah, icmpv6, ospf, pim, vrrp, l2tp, sctp, udplite and the numbers from 0 to 255"#),
    ("{ protocol: icmp, dport: 80 }",
     "4:37: dport: the protocol has no ports; ports are of tcp, udp, dccp, sctp and udplite"),
    ("{ protocol: [icmp, gre], sport: 80 }",
     "4:44: sport: the protocol has no ports; ports are of tcp, udp, dccp, sctp and udplite"),
    ("{ dport: 65536 }",
     r#"4:21: dport: "65536" is not a number or a range a-b from 0 to 65535"#),
    ("{ dport: 90-80 }",
     "4:21: dport: the range 90-80 is reversed; write 80-90"),
    ("{ dport: 80-65536 }",
     r#"4:21: dport: "80-65536" is not a number or a range a-b from 0 to 65535"#),
    ("{ dport: 80- }",
     r#"4:21: dport: "80-" is not a number or a range a-b from 0 to 65535"#),
    ("{ dport: 80-90-100 }",
     r#"4:21: dport: "80-90-100" is not a number or a range a-b from 0 to 65535"#),
    ("{ dport: 1 - 5 }",
     r#"4:21: dport: "1 - 5" is not a number or a range a-b from 0 to 65535"#),
    (r#"{ dport: "http" }"#,
     r#"4:21: dport: "http" is not a number or a range a-b from 0 to 65535"#),
    ("{ dport: 0x50 }",
     r#"4:21: dport: "0x50" is not a number or a range a-b from 0 to 65535"#),
    ("{ dport: [] }",
     "4:21: dport: an empty list; leave the key out, or give it an item"),
    ("{ dport: [80, [81]] }",
     "4:26: dport: a list is given; a number or a range a-b from 0 to 65535 is wanted"),
    ("{ dport: { not: 0-65535 } }",
     "4:21: dport: no value is left to match"),
    ("{ dport: { not: 70000 } }",
     r#"4:28: dport.not: "70000" is not a number or a range a-b from 0 to 65535"#),
    ("{ dport: 80, fragment: later }",
     "4:21: dport: a later fragment has no such header, but match.fragment is later"),
    (r#"{ tcp_flags: "SYN,!SYN" }"#,
     "4:25: tcp_flags: SYN and !SYN cannot both hold"),
    (r#"{ tcp_flags: "SYN,SYN" }"#,
     "4:25: tcp_flags: SYN is there twice"),
    (r#"{ tcp_flags: "syn" }"#,
     r#"4:25: tcp_flags: "syn" is not a TCP flag; flags are FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, with ! for clear"#),
    (r#"{ tcp_flags: "" }"#,
     r#"4:25: tcp_flags: "" is not a TCP flag; flags are FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, with ! for clear"#),
    (r#"{ tcp_flags: "SYN," }"#,
     r#"4:25: tcp_flags: "" is not a TCP flag; flags are FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, with ! for clear"#),
    ("{ tcp_flags: [SYN] }",
     r#"4:25: tcp_flags: a list is given; TCP flags, as in "SYN,!ACK" is wanted"#),
    ("{ tcp_flags: SYN, protocol: udp }",
     "4:25: tcp_flags: the protocol is not tcp"),
    ("{ tcp_flags: SYN, fragment: later }",
     "4:25: tcp_flags: a later fragment has no such header, but match.fragment is later"),
    ("{ tcp_flags: !ACK }",
     "4:25: tcp_flags: a tag, which a policy cannot have; quote text that starts with !"),
    ("{ icmp: { type: 8 } }",
     "4:20: icmp: the protocol is not icmp or icmpv6; add `protocol: icmp` or `protocol: icmpv6`"),
    ("{ icmp: { type: 8 }, protocol: [icmp, icmpv6] }",
     "4:20: icmp: the protocol is not icmp or icmpv6; add `protocol: icmp` or `protocol: icmpv6`"),
    ("{ icmp: { type: 8 }, protocol: udp }",
     "4:20: icmp: the protocol is not icmp or icmpv6; add `protocol: icmp` or `protocol: icmpv6`"),
    ("{ icmp: { type: 256 }, protocol: icmp }",
     r#"4:28: icmp.type: "256" is not a number from 0 to 255"#),
    ("{ icmp: { code: 0 }, protocol: icmp }",
     "4:20: icmp.type: missing; write {type: 8}"),
    ("{ icmp: 8, protocol: icmp }",
     r#"4:20: icmp: "8" is not a mapping"#),
    ("{ icmp: { type: 8 }, protocol: icmp, fragment: later }",
     "4:20: icmp: a later fragment has no such header, but match.fragment is later"),
    ("{ icmp: { type: 8 }, protocol: icmp, family: ipv6 }",
     "4:43: protocol: IPv4 only, but match.family is IPv6 only, so no packet can match"),
    ("{ icmp: { type: 128 }, protocol: icmpv6, src: 10.0.0.1 }",
     "4:58: src: IPv4 only, but match.protocol is IPv6 only, so no packet can match"),
    ("{ protocol: icmpv6, family: ipv4 }",
     "4:24: protocol: IPv6 only, but match.family is IPv4 only, so no packet can match"),
    ("{ length: 100-40 }",
     "4:22: length: the range 100-40 is reversed; write 40-100"),
    ("{ length: 70000 }",
     "4:22: length: no packet is longer than 65575 bytes"),
    ("{ length: 65536, family: ipv4 }",
     "4:22: length: IPv6 only, but match.family is IPv4 only, so no packet can match"),
    ("{ length: 0-39, family: ipv6 }",
     "4:22: length: IPv4 only, but match.family is IPv6 only, so no packet can match"),
    ("{ length: 4294967296 }",
     r#"4:22: length: "4294967296" is not a number or a range a-b from 0 to 4294967295"#),
    ("{ length: [40, 50] }",
     "4:22: length: a list is given; a number or a range a-b from 0 to 4294967295 is wanted"),
    ("{ fragment: second }",
     r#"4:24: fragment: "second" is not known; known are none, first, later, any"#),
    ("{ vlan: 4096 }",
     r#"4:20: vlan: "4096" is not a number from 0 to 4095; a VLAN is an id, a list of ids, none or any"#),
    ("{ vlan: [none, 5] }",
     r#"4:21: vlan: "none" is not a number from 0 to 4095; a VLAN is an id, a list of ids, none or any"#),
    ("{ vlan: 1-5 }",
     r#"4:20: vlan: "1-5" is not a number from 0 to 4095; a VLAN is an id, a list of ids, none or any"#),
    ("{ vlan: [] }",
     "4:20: vlan: an empty list; a VLAN is an id, a list of ids, none or any"),
    ("{ ttl: 256 }",
     r#"4:19: ttl: "256" is not a number or a range a-b from 0 to 255"#),
    ("{ ttl: 5-1 }",
     "4:19: ttl: the range 5-1 is reversed; write 1-5"),
    ("{ dscp: 64 }",
     r#"4:20: dscp: "64" is not a number from 0 to 63"#),
    ("{ dscp: [1, 2-3] }",
     r#"4:24: dscp: "2-3" is not a number from 0 to 63"#),
    ("{ anomaly: bogus }",
     r#"4:23: anomaly: "bogus" is not known; known are bad_fragment, invalid"#),
    ("{ anomaly: [] }",
     "4:23: anomaly: an empty list; leave the key out, or give it an item"),
    ("{ anomaly: bad_fragment, fragment: none }",
     "4:23: anomaly: bad_fragment is of fragments, but match.fragment is none"),
    ("{ preset: tcp_syn }",
     r#"4:22: preset: "tcp_syn" is not known; did you mean "tcp_fin"? Known are tcp_ack, tcp_rst, tcp_fin"#),
    ("{ preset: tcp_ack, tcp_flags: ACK }",
     "4:22: preset: a preset and match.tcp_flags; write all flags in tcp_flags"),
    ("{ preset: tcp_ack, protocol: udp }",
     "4:22: preset: a preset is of TCP, but match.protocol is not"),
    ("{ preset: tcp_ack, fragment: later }",
     "4:22: tcp_flags: a later fragment has no such header, but match.fragment is later"),
    ("{ src: 10.0.0.1, src: 10.0.0.2 }",
     "4:29: src: the key is there twice"),
    ("{ sports: 5 }",
     r#"4:14: sports: unknown key; did you mean "sport"? Known are src, dst, family, protocol, sport, dport, tcp_flags, icmp, length, fragment, vlan, ttl, dscp, anomaly, preset"#),
    ("[10.0.0.1]",
     "4:12: : a list is given; a mapping is wanted"),
    ("{ src: &a 10.0.0.1, dst: *a }",
     "4:19: src: an anchor, which a policy cannot have; quote text that starts with &"),
    (r#"{ src: "10.0.0.1\n" }"#,
     r#"4:19: src: "10.0.0.1\n" is not an IPv4 or IPv6 address or prefix"#),
    ("{ src: { not: { not: 10.0.0.1 } } }",
     r#"4:26: src.not: a mapping is given; an address, a prefix or a "@set" is wanted"#),
    ("{ <<: { src: 10.0.0.1 } }",
     "4:14: <<: unknown key; known are src, dst, family, protocol, sport, dport, tcp_flags, icmp, length, fragment, vlan, ttl, dscp, anomaly, preset"),
];

/// The match of a rule that lets pass, under `default: drop`: nothing that is empty, or meant as
/// "all" by a word that the format does not know, opens the whitelist. As in [`MATCHES`].
#[rustfmt::skip]
const WHITELISTS: &[(&str, &str)] = &[
    ("",
     "4:5: : nothing is given; a mapping is wanted"),
    ("all",
     r#"4:12: : "all" is not a mapping"#),
    ("{ src: [] }",
     "4:19: src: an empty list; leave the key out, or give it an item"),
    ("{ dst: [] }",
     "4:19: dst: an empty list; leave the key out, or give it an item"),
    ("{ src: { not: [] } }",
     "4:26: src.not: an empty list; leave the key out, or give it an item"),
    ("{ src: }",
     r#"4:14: src: nothing is given; an address, a prefix or a "@set" is wanted"#),
    ("{ dst: ~ }",
     r#"4:14: dst: nothing is given; an address, a prefix or a "@set" is wanted"#),
    (r#"{ src: "" }"#,
     r#"4:19: src: "" is not an IPv4 or IPv6 address or prefix"#),
    ("{ src: any }",
     r#"4:19: src: "any" is not an IPv4 or IPv6 address or prefix"#),
    (r#"{ src: "*" }"#,
     r#"4:19: src: "*" is not an IPv4 or IPv6 address or prefix"#),
    ("{ src: 0/0 }",
     r#"4:19: src: "0/0" is not an IPv4 or IPv6 address or prefix"#),
    (r#"{ src: "@office" }"#,
     r#"4:19: src: there is no set "office"; the policy has no sets"#),
    ("{ protocol: [] }",
     "4:24: protocol: an empty list; leave the key out, or give it an item"),
    ("{ protocol: }",
     "4:14: protocol: nothing is given; a protocol name or number is wanted"),
    ("{ protocol: { not: tcp } }",
     "4:24: protocol: a mapping is given; a protocol name or number is wanted"),
    ("{ protocol: all }",
     "4:12: protocol: all protocols and nothing else: everything passes; say whom to let in; leave match out if everybody is meant"),
    ("{ protocol: [all] }",
     r#"4:25: protocol: "all" is not a known protocol; `all` cannot be one of a list"#),
    ("{ protocol: [tcp, all] }",
     r#"4:30: protocol: "all" is not a known protocol; `all` cannot be one of a list"#),
    ("{ protocol: 0-255 }",
     r#"4:24: protocol: "0-255" is not a number from 0 to 255"#),
    ("{ sport: [] }",
     "4:21: sport: an empty list; leave the key out, or give it an item"),
    ("{ dport: [] }",
     "4:21: dport: an empty list; leave the key out, or give it an item"),
    ("{ dport: { not: [] } }",
     "4:28: dport.not: an empty list; leave the key out, or give it an item"),
    ("{ sport: }",
     "4:14: sport: nothing is given; a number or a range a-b from 0 to 65535 is wanted"),
    ("{ dport: all }",
     r#"4:21: dport: "all" is not a number or a range a-b from 0 to 65535"#),
    (r#"{ dport: "" }"#,
     r#"4:21: dport: "" is not a number or a range a-b from 0 to 65535"#),
    ("{ family: any }",
     r#"4:22: family: "any" is not known; known are ipv4, ipv6"#),
];

/// What else may be empty in a whitelist: the set that it names, and whom the failsafe lets in. As in
/// [`POLICIES`].
#[rustfmt::skip]
const WHITELIST_POLICIES: &[(&str, &str)] = &[
    ("version: 1\ndefault: drop\nsets: { office: { entries: [] } }\nrules: [{ id: r, match: { src: '@office' }, action: pass }]",
     "3:28: set office: entries: an empty list; leave the key out, or give it an item"),
    ("version: 1\ndefault: drop\nsets: { office: { entries: } }\nrules: [{ id: r, match: { src: '@office' }, action: pass }]",
     "3:19: set office: entries: nothing is given; a list of addresses and prefixes is wanted"),
    ("version: 1\ndefault: drop\nsets: { office: {} }\nrules: [{ id: r, match: { src: '@office' }, action: pass }]",
     "3:17: set office: the set has no entry; give it entries or leave it out"),
    ("version: 1\ndefault: drop\nfailsafe: { ssh_from: [] }",
     "3:23: failsafe.ssh_from: an empty list; leave the key out, or give it an item"),
    ("version: 1\ndefault: drop\nfailsafe: { ssh_from: }",
     "3:13: failsafe.ssh_from: nothing is given; a list of prefixes is wanted"),
    ("version: 1\ndefault: drop\nfailsafe: { ssh_from: all }",
     r#"3:23: failsafe.ssh_from: "all" is not a list of prefixes"#),
    ("version: 1\ndefault: drop\nfailsafe: { ssh_from: [any] }",
     r#"3:24: failsafe.ssh_from: "any" is not an IPv4 or IPv6 address or prefix"#),
    ("version: 1\ndefault: drop\nfailsafe:",
     "3:1: failsafe: nothing is given; `none` or a mapping is wanted"),
];

/// Spellings of "every protocol" other than `all`.
const NOT_ALL: &[&str] = &["ALL", "All", " all", "any", "ANY", "*", "ip", ""];

fn check(cases: impl IntoIterator<Item = (String, String)>) {
    let mut failed = 0;
    for (text, wanted) in cases {
        let is = match Policy::from_yaml(&text) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        };
        if is != wanted {
            eprintln!("{text}\n  wanted {wanted}\n  is     {is}\n");
            failed += 1;
        }
    }
    assert_eq!(failed, 0, "refused in other words, or not at all");
}

#[test]
fn policies() {
    check_policies(POLICIES);
}

fn check_policies(policies: &[(&str, &str)]) {
    let owned = |(text, error): &(&str, &str)| ((*text).to_owned(), (*error).to_owned());
    check(policies.iter().map(owned));
}

#[test]
fn rules() {
    check(RULES.iter().map(|(rule, error)| {
        (
            format!("version: 1\nrules:\n  - {rule}\n"),
            (*error).to_owned(),
        )
    }));
}

#[test]
fn matches() {
    check_matches(MATCHES, "action: drop");
}

/// Each match as that of rule `r`; what follows it in the rule and the policy is given.
fn check_matches(matches: &[(&str, &str)], rest: &str) {
    check(matches.iter().map(|(text, error)| {
        let (position, error) = error.split_once(": ").unwrap();
        let dot = if error.starts_with(": ") { "" } else { "." };
        (
            format!("version: 1\nrules:\n  - id: r\n    match: {text}\n    {rest}\n"),
            format!("{position}: rule r: match{dot}{error}"),
        )
    }));
}

#[test]
fn r22_a_whitelist_does_not_allow_all_by_mistake() {
    let rest = "action: pass\ndefault: drop";
    check_matches(WHITELISTS, rest);
    check_policies(WHITELIST_POLICIES);
    let known = "known are all, icmp, igmp, ipip, tcp, udp, dccp, ipv6, gre, esp, ah, icmpv6, ospf, \
                 pim, vrrp, l2tp, sctp, udplite and the numbers from 0 to 255";
    for word in NOT_ALL {
        let matches = format!("{{ protocol: {word:?} }}");
        let error = format!("4:24: protocol: {word:?} is not a known protocol; {known}");
        check_matches(&[(&matches, &error)], rest);
    }
}

/// Code can hand over what no text says.
#[test]
fn r22_nor_does_a_whitelist_from_code() {
    let nowhere = AddressMatch {
        negated: false,
        items: Vec::new(),
    };
    let addresses = "an empty list; leave the field out to match every address";
    let numbers = "no value is left to match";
    let of = |change: &dyn Fn(&mut Match)| {
        let mut rule = Rule::new(RuleId::new("r").unwrap(), 1, Action::Pass);
        change(&mut rule.matches);
        let policy = Policy::builder().default_verdict(Verdict::Drop).rule(rule);
        policy.build().expect_err("an empty list").to_string()
    };
    for (refused, field, error) in [
        (of(&|m| m.src = Some(nowhere.clone())), "src", addresses),
        (of(&|m| m.dst = Some(nowhere.clone())), "dst", addresses),
        (
            of(&|m| m.protocol = Some(Ranges::new([]))),
            "protocol",
            numbers,
        ),
        (of(&|m| m.sport = Some(Ranges::new([]))), "sport", numbers),
        (of(&|m| m.dport = Some(Ranges::new([]))), "dport", numbers),
    ] {
        assert_eq!(refused, format!("rule r: match.{field}: {error}"));
    }
    let office = SetName::new("office").unwrap();
    let policy = Policy::builder().set(office, AddressSet::default());
    let refused = policy.build().expect_err("an empty set").to_string();
    assert_eq!(
        refused,
        "set office: the set has no entry; give it entries or leave it out"
    );
}
