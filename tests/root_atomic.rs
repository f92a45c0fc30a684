//! Counters that are added to in atomic steps, as PREEMPT_RT kernels need it.
#![cfg(feature = "kernel")]

mod common;

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use common::cpus::{cpus, on_cpus};
use common::live::{Entry, in_guest};
use common::netns::skipped;
use common::packet::ip;
use libbpf_rs::Program;
use libbpf_rs::libbpf_sys::{bpf_prog_get_info_by_fd, bpf_prog_info};
use xdpgate::policy::{Policy, SetName};
use xdpgate::{Count, Disposition, Firewall, Reason};

const POLICY: &str = "
version: 1
failsafe: none
sets: { bad: { counters: entry, entries: [203.0.113.7] } }
rules:
  - { id: watch, match: { protocol: udp }, action: drop, mode: monitor }
  - { id: count, match: { protocol: udp }, action: count }
  - { id: block, match: { src: '@bad' }, action: drop }
";

/// Atomic additions of 64 bits in the program that judges.
fn atomic_additions(firewall: &Firewall) -> usize {
    const BPF_STX_ATOMIC_DW: u8 = 0xdb;
    let id = firewall.program_info().policy.expect("a policy").id;
    let program = Program::fd_from_id(id).expect("its program");
    let length = firewall
        .program_info()
        .policy
        .expect("a policy")
        .translated_bytes;
    let mut code = vec![0u8; length as usize];
    let mut info = bpf_prog_info {
        xlated_prog_len: length,
        xlated_prog_insns: code.as_mut_ptr() as u64,
        ..Default::default()
    };
    let mut size = size_of_val(&info) as u32;
    // SAFETY: `info` and the memory for the instructions outlive the call and are as long as is said.
    let asked =
        unsafe { bpf_prog_get_info_by_fd(program.as_raw_fd(), &raw mut info, &raw mut size) };
    assert_eq!((asked, info.xlated_prog_len), (0, length));
    let instructions = code.chunks_exact(8);
    instructions.filter(|i| i[0] == BPF_STX_ATOMIC_DW).count()
}

/// Lets the calling thread go before all that are not urgent, if that is allowed.
fn be_urgent() {
    let first = nix::libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameters outlive the call.
    let done = unsafe { nix::libc::sched_setscheduler(0, nix::libc::SCHED_FIFO, &first) };
    if done != 0 {
        println!("not urgent: {}", std::io::Error::last_os_error());
    }
}

fn loaded(atomic: bool, fast_forward: bool) -> Firewall {
    let loader = Firewall::loader().dry_run(false);
    let loader = loader.atomic_counters(atomic).fast_forward(fast_forward);
    let firewall = loader.load().expect("load");
    let policy = Policy::from_yaml(POLICY).unwrap();
    firewall.apply(&policy).expect("apply");
    assert_eq!(firewall.program_info().atomic_counters, atomic);
    firewall
}

#[test]
fn r65_counters_are_exact_in_atomic_steps() {
    if skipped() {
        return;
    }
    for fast_forward in [false, true] {
        let firewall = loaded(true, fast_forward);
        let entry = Entry::of(&firewall);
        let frame = |src: &str| ip(src, "198.51.100.1").udp(1, 2).build();
        let (bad, good) = (frame("203.0.113.7"), frame("203.0.113.8"));
        let (cpus, times) = (cpus().min(2), if in_guest() { 1000 } else { 20_000 });
        let (all, interrupted) = (AtomicU64::new(0), if in_guest() { 4000 } else { 1000 });
        on_cpus(cpus, |_| {
            let done = AtomicBool::new(false);
            let receive = |times: u32| {
                entry.receive_many(&bad, times);
                entry.receive_many(&good, times);
                all.fetch_add(times.into(), Ordering::Relaxed);
            };
            thread::scope(|scope| {
                // On the same CPU, and wherever PREEMPT_RT lets it, between two instructions.
                scope.spawn(|| {
                    be_urgent();
                    for _ in 0..interrupted {
                        thread::sleep(Duration::from_micros(20));
                        receive(1);
                    }
                    done.store(true, Ordering::Relaxed);
                });
                while !done.load(Ordering::Relaxed) {
                    receive(times);
                }
            });
        });
        let all = all.into_inner();
        let count = |packets: u64| Count {
            packets,
            bytes: packets * bad.len() as u64,
        };
        let stats = firewall.stats();
        let verdicts = &stats.other;
        assert_eq!(verdicts.get(Reason::Rule, Disposition::Dropped), count(all));
        let passed = verdicts.get(Reason::Default, Disposition::Passed);
        assert_eq!(passed, count(all));
        assert_eq!(verdicts.total(), count(2 * all));
        let found: Vec<_> = stats.rules.iter().collect();
        assert_eq!(found[0].matched, count(2 * all), "watch");
        assert_eq!(found[0].would_drop, 2 * all, "watch");
        assert_eq!(found[1].matched, count(2 * all), "count");
        assert_eq!(found[2].matched, count(all), "block");
        assert_eq!(found[2].dropped, all, "block");
        let entries = firewall.entry_counters(&SetName::new("bad").unwrap());
        assert_eq!(entries.unwrap()[0].matched, count(all));
    }
}

#[test]
fn r65_the_plain_way_has_no_atomic_steps_for_them() {
    if skipped() {
        return;
    }
    let [plain, atomic] = [false, true].map(|atomic| atomic_additions(&loaded(atomic, false)));
    println!("atomic additions: {plain} without, {atomic} with");
    // Two for the verdict; two and two more for the rule that decides; as many for one passed by.
    assert!(atomic >= plain + 6, "{plain} without, {atomic} with");
    // Those of bans, entries and events, which have no plain way.
    assert!(plain <= 8, "{plain}");
    // Asked of the kernel, unless it is said.
    let firewall = Firewall::loader().load().expect("load");
    let version = std::fs::read_to_string("/proc/version").unwrap();
    let is_realtime = version.contains("PREEMPT_RT");
    assert_eq!(firewall.program_info().atomic_counters, is_realtime);
}
