//! The recipes of the corpus's frames.
//!
//! The bytes in `tests/corpus/*.toml` are what counts; the recipes here say how they came about
//! and are held against them. After a new case or recipe, `cargo test --test corpus_frames --
//! --ignored` fills in the frames.

mod common;

use std::collections::BTreeMap;

use common::corpus;
use common::packet::{ACK, FIN, Frame, RST, SYN, ethernet, ip};

const KINDS: [u16; 3] = [0x8100, 0x88a8, 0x9100];

/// 2001:db8::1 to 2001:db8:1::10, as `v4` is 192.0.2.1 to 198.51.100.10.
fn v6() -> Frame {
    ip("2001:db8::1", "2001:db8:1::10")
}

fn v4() -> Frame {
    ip("192.0.2.1", "198.51.100.10")
}

fn recipes() -> BTreeMap<String, Frame> {
    let mut all = BTreeMap::new();
    for (name, frame) in [plain(), addresses(), cut(), ipv4(), ipv6(), others()].concat() {
        assert!(all.insert(name.to_owned(), frame).is_none(), "{name} twice");
    }
    for outer in KINDS {
        all.insert(format!("tag-{outer:x}"), v4().tag(outer, 10).tcp(40000, 80));
        for inner in KINDS {
            let frame = v4().tag(outer, 10).tag(inner, 20);
            all.insert(format!("tags-{outer:x}-{inner:x}"), frame.tcp(40000, 80));
        }
    }
    for number in [0u8, 43, 60, 135, 139, 140] {
        let frame = v6().options_header(number, 1).tcp(40000, 80);
        all.insert(format!("tcp6-ext-{number}"), frame);
    }
    for (count, name) in [
        (8, "tcp6-chain-8"),
        (9, "tcp6-chain-9"),
        (11, "tcp6-chain-11"),
    ] {
        let chain = (0..count).fold(v6(), |f, i| {
            f.options_header(if i == 0 { 0 } else { 60 }, 1)
        });
        all.insert(name.to_owned(), chain.tcp(40000, 80));
    }
    all
}

fn plain() -> Vec<(&'static str, Frame)> {
    vec![
        ("tcp4", v4().tcp(40000, 80)),
        ("tcp4-reply", v4().tcp(80, 40000)),
        ("tcp4-port-0", v4().tcp(40000, 0)),
        ("tcp4-port-8000", v4().tcp(40000, 8000)),
        ("tcp4-port-8999", v4().tcp(40000, 8999)),
        ("tcp4-port-9000", v4().tcp(40000, 9000)),
        ("tcp4-ssh", v4().tcp(40000, 22)),
        ("tcp4-from-ssh", v4().tcp(22, 40000)),
        ("tcp4-syn", v4().tcp(40000, 80).flags(SYN)),
        ("tcp4-syn-ack", v4().tcp(80, 40000).flags(SYN | ACK)),
        ("tcp4-rst", v4().tcp(40000, 80).flags(RST)),
        ("tcp4-fin", v4().tcp(40000, 80).flags(FIN | ACK)),
        ("tcp4-payload", v4().tcp(40000, 80).payload(&[0x58; 100])),
        ("tcp4-ttl-1", v4().ttl(1).tcp(40000, 80)),
        ("tcp4-dscp-46", v4().dscp(46).tcp(40000, 80)),
        ("tcp6", v6().tcp(40000, 80)),
        ("tcp6-ttl-1-dscp-46", v6().ttl(1).dscp(46).tcp(40000, 80)),
        ("tcp6-ssh", v6().tcp(40000, 22)),
        ("udp4", v4().udp(40000, 80).payload(b"xdpgate")),
        ("udp6", v6().udp(40000, 80).payload(b"xdpgate")),
        ("sctp4", v4().ports(132, 40000, 80)),
        ("dccp4", v4().ports(33, 40000, 80)),
        ("udplite4", v4().ports(136, 40000, 80)),
        ("udplite6", v6().ports(136, 40000, 80)),
        ("echo4", v4().icmp(8, 0)),
        ("unreachable4", v4().icmp(3, 1)),
        ("echo6", v6().icmp(128, 0)),
        ("gre4", v4().ports(47, 40000, 80)),
        ("igmp4", v4().protocol(2).payload(&[0x16, 0, 0, 0])),
        ("esp6", v6().protocol(50).payload(&[0x58; 16])),
        ("protocol-255", v4().protocol(255)),
        ("tag-priority", v4().tag(0x8100, 0xe000).tcp(40000, 80)),
        ("tag-10-priority-7", v4().tag(0x8100, 0xf00a).tcp(40000, 80)),
        (
            "tags-6",
            v6().tag(0x88a8, 10).tag(0x8100, 20).tcp(40000, 80),
        ),
        (
            "tags-3",
            v4().tag(0x88a8, 10)
                .tag(0x8100, 20)
                .tag(0x8100, 30)
                .tcp(40000, 80),
        ),
        (
            "tags-3-cut",
            v4().tag(0x88a8, 10)
                .tag(0x8100, 20)
                .tag(0x9100, 30)
                .truncate(22),
        ),
    ]
}

fn addresses() -> Vec<(&'static str, Frame)> {
    vec![
        (
            "neighbour4",
            ip("192.0.2.2", "198.51.100.10").tcp(40000, 80),
        ),
        (
            "neighbour6",
            ip("2001:db8::2", "2001:db8:1::10").tcp(40000, 80),
        ),
        ("swapped4", ip("198.51.100.10", "192.0.2.1").tcp(40000, 80)),
        ("nested4", ip("10.1.2.3", "198.51.100.10").udp(40000, 53)),
        (
            "nested6",
            ip("2001:db8:1:2::3", "2001:db8:1::10").udp(40000, 53),
        ),
        (
            "first-of-24",
            ip("192.0.2.0", "198.51.100.10").udp(40000, 53),
        ),
        (
            "last-of-24",
            ip("192.0.2.255", "198.51.100.10").udp(40000, 53),
        ),
        (
            "before-24",
            ip("192.0.1.255", "198.51.100.10").udp(40000, 53),
        ),
        ("after-24", ip("192.0.3.0", "198.51.100.10").udp(40000, 53)),
        (
            "last-of-65",
            ip("2001:db8::7fff:ffff:ffff:ffff", "2001:db8:1::10").udp(40000, 53),
        ),
        (
            "after-65",
            ip("2001:db8::8000:0:0:0", "2001:db8:1::10").udp(40000, 53),
        ),
        ("zero4", ip("0.0.0.0", "255.255.255.255").udp(40000, 53)),
        (
            "mapped6",
            ip("::ffff:192.0.2.1", "::ffff:198.51.100.10").tcp(40000, 80),
        ),
        (
            "compatible6",
            ip("::c000:201", "::c633:640a").tcp(40000, 80),
        ),
    ]
}

fn cut() -> Vec<(&'static str, Frame)> {
    vec![
        ("cut-0", v4().truncate(0)),
        ("cut-ethernet", v4().tcp(40000, 80).truncate(13)),
        ("cut-before-ipv4", v4().tcp(40000, 80).truncate(14)),
        (
            "cut-in-tag",
            v4().tag(0x8100, 10).tcp(40000, 80).truncate(17),
        ),
        (
            "cut-in-second-tag",
            v4().tag(0x88a8, 1).tag(0x8100, 2).tcp(1, 80).truncate(21),
        ),
        (
            "cut-behind-tag",
            v4().tag(0x8100, 10).tcp(40000, 80).truncate(18),
        ),
        ("cut-in-ipv4", v4().tcp(40000, 80).truncate(33)),
        ("cut-behind-ipv4", v4().tcp(40000, 80).truncate(34)),
        (
            "cut-in-options",
            v4().options(40).tcp(40000, 80).truncate(73),
        ),
        ("cut-in-tcp4", v4().tcp(40000, 80).truncate(53)),
        ("cut-in-udp4", v4().udp(40000, 80).truncate(41)),
        ("cut-in-sctp4", v4().ports(132, 40000, 80).truncate(45)),
        ("cut-in-dccp4", v4().ports(33, 40000, 80).truncate(45)),
        ("cut-in-icmp4", v4().icmp(8, 0).truncate(41)),
        ("cut-behind-gre4", v4().ports(47, 40000, 80).truncate(34)),
        (
            "cut-in-payload",
            v4().tcp(40000, 80).payload(&[0x58; 100]).truncate(54),
        ),
        ("cut-in-ipv6", v6().tcp(40000, 80).truncate(53)),
        ("cut-in-tcp6", v6().tcp(40000, 80).truncate(73)),
        ("cut-in-icmp6", v6().icmp(135, 0).ttl(255).truncate(61)),
        (
            "cut-in-extension",
            v6().options_header(60, 2).tcp(40000, 80).truncate(69),
        ),
        (
            "cut-before-extension",
            v6().options_header(60, 1).tcp(40000, 80).truncate(55),
        ),
    ]
}

fn ipv4() -> Vec<(&'static str, Frame)> {
    vec![
        ("options-40", v4().options(40).tcp(40000, 80)),
        ("options-4-udp", v4().options(4).udp(40000, 80)),
        ("version-6-in-ipv4", v4().version(6).tcp(40000, 80)),
        ("ihl-4", v4().ihl(4).tcp(40000, 80)),
        ("ihl-0", v4().ihl(0).tcp(40000, 80)),
        ("ihl-15-without-options", v4().ihl(15).udp(40000, 80)),
        ("total-0", v4().length(0).tcp(40000, 80)),
        (
            "total-below-header",
            v4().options(8).length(27).tcp(40000, 80),
        ),
        ("total-20", v4().length(20).tcp(40000, 80)),
        ("total-39", v4().length(39).tcp(40000, 80)),
        ("total-beyond-frame", v4().length(1500).tcp(40000, 80)),
        (
            "padded-udp4",
            v4().length(24)
                .protocol(17)
                .payload(&[0x9c, 0x40, 0, 80])
                .padding(22),
        ),
        ("padded-tcp4", v4().tcp(40000, 80).padding(6)),
        ("data-offset-4", v4().tcp(40000, 80).data_offset(4)),
        ("data-offset-15", v4().tcp(40000, 80).data_offset(15)),
        ("dont-fragment", v4().dont_fragment().tcp(40000, 80)),
        (
            "first4",
            v4().fragment(0, true).tcp(40000, 80).payload(&[0x58; 4]),
        ),
        ("first4-udp", v4().fragment(0, true).udp(40000, 80)),
        ("later4", v4().fragment(185, true).tcp(40000, 80)),
        ("last4", v4().fragment(370, false).tcp(40000, 80)),
        ("last4-empty", v4().fragment(370, false).protocol(6)),
        (
            "tiny-first4",
            v4().fragment(0, true)
                .protocol(6)
                .payload(&[0x9c, 0x40, 0, 80, 0, 0, 0, 1]),
        ),
        ("tiny-first4-gre", v4().fragment(0, true).protocol(47)),
        (
            "end-65535",
            v4().fragment(8189, false).protocol(17).payload(&[0x58; 23]),
        ),
        (
            "end-65536",
            v4().fragment(8189, false).protocol(17).payload(&[0x58; 24]),
        ),
        (
            "end-65536-by-length",
            v4().fragment(8189, false).protocol(17).length(44),
        ),
        (
            "end-65535-options",
            v4().options(8)
                .fragment(8189, false)
                .length(51)
                .protocol(17),
        ),
    ]
}

fn ipv6() -> Vec<(&'static str, Frame)> {
    let all_kinds = || {
        let v6 = v6()
            .options_header(0, 1)
            .options_header(60, 2)
            .options_header(43, 1);
        v6.fragment(0, false).authentication(6)
    };
    let eight = || all_kinds().options_header(135, 1).options_header(139, 1);
    let tiny = [0x9c, 0x40, 0, 80, 0, 0, 0, 1];
    vec![
        ("version-4-in-ipv6", v6().version(4).tcp(40000, 80)),
        ("tcp6-ah", v6().authentication(6).tcp(40000, 80)),
        ("tcp6-atomic", v6().fragment(0, false).tcp(40000, 80)),
        (
            "tcp6-chain-3",
            v6().options_header(0, 1)
                .options_header(43, 3)
                .authentication(4)
                .tcp(4, 80),
        ),
        (
            "tcp6-chain-8-kinds",
            eight().options_header(140, 1).tcp(40000, 80),
        ),
        (
            "tcp6-chain-9-kinds",
            eight()
                .options_header(140, 1)
                .options_header(60, 1)
                .tcp(4, 80),
        ),
        (
            "tcp6-chain-8-esp",
            eight()
                .options_header(140, 1)
                .protocol(50)
                .payload(&[0x58; 8]),
        ),
        (
            "tcp6-extension-256",
            v6().options_header(60, 32).tcp(40000, 80),
        ),
        ("no-next-header", v6().payload(&[0x9c, 0x40, 0, 80])),
        ("payload-0", v6().length(0).tcp(40000, 80)),
        ("payload-19", v6().length(19).tcp(40000, 80)),
        (
            "payload-in-extension",
            v6().length(7).options_header(60, 1).tcp(40000, 80),
        ),
        ("payload-beyond-frame", v6().length(1400).tcp(40000, 80)),
        ("jumbo", v6().length(0).options_header(0, 1).tcp(40000, 80)),
        (
            "jumbo-cut",
            v6().length(0)
                .options_header(0, 1)
                .tcp(40000, 80)
                .truncate(81),
        ),
        (
            "first6",
            v6().fragment(0, true).tcp(40000, 80).payload(&[0x58; 4]),
        ),
        (
            "first6-behind",
            v6().options_header(0, 1)
                .fragment(0, true)
                .options_header(60, 1)
                .udp(4, 80),
        ),
        ("later6", v6().fragment(185, true).tcp(40000, 80)),
        (
            "last6-behind",
            v6().options_header(0, 1)
                .fragment(370, false)
                .tcp(40000, 80),
        ),
        (
            "later6-extension",
            v6().fragment(185, true)
                .protocol(60)
                .payload(&[6, 0, 0, 0, 0, 0, 0, 0]),
        ),
        (
            "tiny-first6",
            v6().fragment(0, true).protocol(6).payload(&tiny),
        ),
        (
            "first6-chain-cut",
            v6().fragment(0, true).protocol(60).payload(&[6]),
        ),
        (
            "end6-65535",
            v6().fragment(8189, false).protocol(17).payload(&[0x58; 23]),
        ),
        (
            "end6-65536",
            v6().fragment(8189, false).protocol(17).payload(&[0x58; 24]),
        ),
        ("data-offset-4-6", v6().tcp(40000, 80).data_offset(4)),
        (
            "icmp-in-ipv6",
            v6().protocol(1).payload(&[8, 0, 0, 0, 0, 0, 0, 0]),
        ),
    ]
}

fn others() -> Vec<(&'static str, Frame)> {
    let arp = [
        0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 2,
    ];
    let lldp = [2, 7, 4, 2, 0, 0, 0, 0, 1, 4, 2, 7, 49, 6, 2, 0, 120, 0, 0];
    let nd = |icmp_type| ip("fe80::1", "fe80::2").ttl(255).icmp(icmp_type, 0);
    vec![
        ("arp", ethernet(0x0806).payload(&arp)),
        ("arp-tagged", ethernet(0x0806).tag(0x8100, 10).payload(&arp)),
        ("lldp", ethernet(0x88cc).payload(&lldp)),
        ("eapol", ethernet(0x888e).payload(&[1, 1, 0, 0])),
        (
            "mpls",
            ethernet(0x8847).payload(&[0, 1, 1, 64, 0x45, 0, 0, 20]),
        ),
        (
            "stp",
            ethernet(0x0026).payload(&[0x42, 0x42, 3, 0, 0, 0, 0, 0]),
        ),
        ("ethernet-only", ethernet(0x88b5)),
        ("nd-router-solicitation", nd(133)),
        ("nd-neighbour-solicitation", nd(135)),
        ("nd-redirect", nd(137)),
        ("nd-138", nd(138)),
        ("nd-forwarded", nd(135).ttl(254)),
        ("nd-tagged", nd(136).tag(0x8100, 10)),
        (
            "nd-in-ipv4",
            v4().ttl(255)
                .protocol(58)
                .payload(&[135, 0, 0, 0, 0, 0, 0, 0]),
        ),
        (
            "dhcp-discover",
            ip("0.0.0.0", "255.255.255.255").udp(68, 67),
        ),
        ("dhcp-offer", ip("192.0.2.254", "192.0.2.1").udp(67, 68)),
        ("dhcp-relay", ip("192.0.2.254", "192.0.2.1").udp(67, 67)),
        (
            "dhcp-one-port",
            ip("192.0.2.254", "192.0.2.1").udp(40000, 67),
        ),
        ("dhcp-tcp", ip("192.0.2.254", "192.0.2.1").tcp(68, 67)),
        ("dhcp-ports-6", v6().udp(68, 67)),
        ("dhcp6-solicit", ip("fe80::1", "ff02::1:2").udp(546, 547)),
        ("dhcp6-reply", ip("fe80::2", "fe80::1").udp(547, 546)),
        ("dhcp6-global", v6().udp(546, 547)),
    ]
}

#[test]
fn frames_are_what_their_recipes_make() {
    let recipes = recipes();
    let mut unused: Vec<&String> = recipes.keys().collect();
    for case in corpus::load() {
        let recipe = recipes.get(&case.recipe);
        let recipe = recipe.unwrap_or_else(|| panic!("{}: no recipe {}", case.name, case.recipe));
        assert_eq!(
            case.frame,
            recipe.build(),
            "{} ({})",
            case.name,
            case.recipe
        );
        unused.retain(|name| **name != case.recipe);
    }
    assert!(unused.is_empty(), "recipes without a case: {unused:?}");
}

#[test]
#[ignore = "writes tests/corpus: after a new case or recipe"]
fn write_frames() {
    let recipes = recipes();
    for path in corpus::files() {
        let old = std::fs::read_to_string(&path).expect("a corpus file");
        let mut new = String::new();
        let mut recipe = None;
        let mut inside = false;
        for line in old.lines() {
            if let Some(name) = line.strip_prefix("recipe = ") {
                recipe = recipes.get(name.trim_matches('"'));
            }
            if line == "frame = \"\"\"" {
                inside = true;
                let recipe = recipe.unwrap_or_else(|| panic!("no recipe in\n{new}"));
                new += &format!("{line}\n{}", hex(recipe));
            } else if !inside || line == "\"\"\"" {
                inside = false;
                new += &format!("{line}\n");
            }
        }
        std::fs::write(&path, new).expect("a corpus file");
    }
}

/// One line per header, 32 bytes at most, with the name of the header behind its first line.
fn hex(frame: &Frame) -> String {
    let mut out = String::new();
    for (name, bytes) in frame.layers() {
        for (i, line) in bytes.chunks(32).enumerate() {
            let digits: Vec<String> = line
                .chunks(2)
                .map(|group| group.iter().map(|b| format!("{b:02x}")).collect())
                .collect();
            let comment = if i == 0 {
                format!("  # {name}")
            } else {
                String::new()
            };
            out += &format!("  {}{comment}\n", digits.join(" "));
        }
    }
    out
}

#[test]
fn every_corpus_file_is_compiled_in() {
    let stems: std::collections::BTreeSet<String> =
        corpus::load().into_iter().map(|c| c.file).collect();
    for path in corpus::files() {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(
            stems.contains(&stem),
            "{stem}: add it to TEXTS in tests/common/corpus.rs"
        );
    }
}
