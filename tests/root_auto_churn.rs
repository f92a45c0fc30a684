//! A thousand links that come, change and go: what is attached in the kernel is what should be, and
//! nothing is left over.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod auto;
    pub mod netns;
    pub mod random;
}

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use common::auto::{Ip, attached, ip_batch, links_of, loaded, program, wait_for_links};
use common::netns::{self, Other};
use common::random::Random;
use xdpgate::{AutoAttach, AutoAttachOptions, AutoEvent, Firewall, Selector};

const LINKS: u32 = 1000;

/// All veths but the far ends, and but those that got a name that is not wanted.
fn selector() -> Selector {
    Selector::none().kinds(["veth"]).exclude("p*").exclude("x*")
}

fn create(n: u32) -> String {
    format!("link add l{n} type veth peer name p{n}\n")
}

/// The interfaces that should be attached, by what the kernel says now.
fn wanted(firewall: &Firewall) -> Vec<u32> {
    let interfaces = firewall.interfaces().unwrap().into_iter();
    let wanted =
        interfaces.filter(|i| i.kind.as_deref() == Some("veth") && i.name.starts_with(['l', 'm']));
    wanted.map(|i| i.ifindex.get()).collect()
}

/// Something random happens to a random link; commands that make no sense just now fail.
fn happening(random: &mut Random, away: u32) -> String {
    let n = random.below(LINKS);
    match random.below(10) {
        0..=2 => create(n),
        3 => format!("link set l{n} up\nlink set l{n} down\nlink set l{n} up\n"),
        4 => format!("link set l{n} down\nlink set l{n} name m{n}\n"),
        5 => format!("link set m{n} down\nlink set m{n} name l{n}\n"),
        6 => format!("link set l{n} down\nlink set l{n} name x{n}\nlink set x{n} name l{n}\n"),
        7 => format!("link set l{n} netns {away}\n"),
        8 => format!("link del p{n}\n"),
        _ => format!("link del p{n}\n{}", create(n)),
    }
}

#[test]
fn r52_a_thousand_links_at_random_leave_no_double_and_no_leak() {
    if netns::skipped() {
        return;
    }
    let seconds = match std::env::var_os("XDPGATE_LONG") {
        Some(_) => 60,
        None => 20,
    };
    netns::run(|| {
        let other = Other::new();
        let firewall = loaded(4000);
        let program = program(&firewall);
        let options = AutoAttachOptions::default().rescan_every(Duration::from_secs(5));
        let auto = firewall.auto_attach_with(selector(), options).unwrap();
        let mut random = Random::new(52);
        ip_batch(&(0..LINKS).map(create).collect::<String>());
        let took = converge(&firewall, program);
        println!("{LINKS} links made at once: in line {took:?} later");
        let before = Resources::now();

        let end = Instant::now() + Duration::from_secs(seconds);
        let (mut commands, mut took) = (0, Vec::new());
        while Instant::now() < end {
            let mut batch = String::new();
            for _ in 0..100 {
                batch += &happening(&mut random, other.number());
            }
            commands += batch.lines().count();
            ip_batch(&batch);
            took.push(converge(&firewall, program));
        }
        let stats = auto.stats();
        took.sort_unstable();
        let (usual, slowest) = (took[took.len() / 2], took[took.len() - 1]);
        println!("{commands} commands; in line {usual:?} later, {slowest:?} at most; {stats:?}");
        // The machine may stand still for a moment; it does not each time.
        assert!(usual < Duration::from_secs(1), "{usual:?}");
        assert!(slowest < Duration::from_secs(10), "{slowest:?}");
        assert_eq!(stats.failed, 0);
        assert!(stats.attached > u64::from(LINKS) && stats.detached > 0 && stats.renamed > 0);
        let after = Resources::now();
        println!("{before:?} before, {after:?} after");
        // Each attachment is one file; a sanitizer's or allocator's slack is not a leak.
        let attachments = firewall.attachments().len();
        assert!(
            after.files <= before.files - LINKS as usize + attachments,
            "{before:?} {after:?}"
        );
        assert!(
            after.kilobytes < before.kilobytes + (16 << 10),
            "{before:?} {after:?}"
        );

        // All of them go.
        let gone: String = (0..LINKS).map(|n| format!("link del p{n}\n")).collect();
        ip_batch(&gone);
        converge(&firewall, program);
        wait_for_links(program, 0);
        assert_eq!(firewall.attachments(), []);
        assert!(Resources::now().files <= before.files - LINKS as usize);
        drop(auto);
    });
}

/// Waits until what is attached in the kernel is what should be, exactly; returns how long it took.
fn converge(firewall: &Firewall, program: u32) -> Duration {
    let start = Instant::now();
    let took = loop {
        // To look costs the kernel so much that it must not be done all the time.
        thread::sleep(Duration::from_millis(50));
        let looked = start.elapsed();
        let mut wanted = wanted(firewall);
        wanted.sort_unstable();
        if links_of(program) == wanted {
            break looked;
        }
        assert!(looked < Duration::from_secs(20), "never in line");
    };
    let names = attached(firewall);
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    took
}

/// What a leak would raise.
#[derive(Debug)]
struct Resources {
    files: usize,
    kilobytes: usize,
}

impl Resources {
    fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:"))
            .unwrap();
        Self {
            files: fs::read_dir("/proc/self/fd").unwrap().count(),
            kilobytes: line.split_whitespace().next().unwrap().parse().unwrap(),
        }
    }
}

/// Run with `cargo test --release --test root_auto_churn -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn how_long_it_takes_from_a_link_to_its_attachment() {
    if netns::skipped() {
        return;
    }
    for at_once in [false, true] {
        netns::run(|| {
            let firewall = loaded(2000);
            let auto = firewall.auto_attach(selector()).unwrap();
            let mut events = auto.events();
            let mut ip = Ip::start();
            let mut created = BTreeMap::new();
            let mut told = Vec::new();
            let mut whole = Vec::new();
            let mut attached = |created: &BTreeMap<String, Instant>| loop {
                match events
                    .next_timeout(Duration::from_secs(10))
                    .expect("an event")
                {
                    AutoEvent::Attached { attachment, took } => {
                        told.push(took);
                        whole.push(created[&attachment.name].elapsed());
                        return;
                    }
                    AutoEvent::Skipped { .. } => {}
                    other => panic!("{other:?}"),
                }
            };
            for n in 0..LINKS {
                created.insert(format!("l{n}"), Instant::now());
                ip.run(&create(n));
                if !at_once {
                    attached(&created);
                    thread::sleep(Duration::from_millis(1));
                }
            }
            if at_once {
                (0..LINKS).for_each(|_| attached(&created));
            }
            let mut shown = String::new();
            for (what, times) in [("message read", &mut told), ("command given", &mut whole)] {
                times.sort_unstable();
                let at = |part: usize| times[(times.len() - 1) * part / 100];
                let (p50, p99, most) = (at(50), at(99), at(100));
                write!(
                    shown,
                    "; {what} to attached: p50 {p50:?}, p99 {p99:?}, most {most:?}"
                )
                .unwrap();
            }
            let how = if at_once { "at once" } else { "one by one" };
            println!("{LINKS} links {how}{shown}; {:?}", AutoAttach::stats(&auto));
        });
    }
}
