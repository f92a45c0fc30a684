//! Settings, then a loaded firewall.

mod load;

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use libbpf_rs::num_possible_cpus;
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_getres};
use nix::unistd::{SysconfVar, sysconf};

use super::ban_table::{self};
use super::error::LoadError;
use super::frags::Frags;
use super::layout::{
    BANKS, COUNTERS_PER_INTERFACE, EXIT_ATOMIC, EXIT_FORWARD, HostShape, SOURCE_SLOTS,
};
use super::pin_root::Pinning;
use super::program::to_io;
use super::realtime::is_realtime;
use crate::compile::ROWS_UP_TO;
use crate::management::Management;

/// Settings of a [`Firewall`](crate::Firewall) before it is loaded.
///
/// ```no_run
/// use xdpgate::Firewall;
///
/// let firewall = Firewall::loader().dry_run(false).max_rules(1000).load()?;
/// # Ok::<(), xdpgate::LoadError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "settings do nothing before `load`"]
pub struct Loader {
    dry_run: Option<bool>,
    max_interfaces: u16,
    max_rules: u32,
    rows_up_to: usize,
    frags: Frags,
    max_rate_sources: u32,
    max_bans: u32,
    flow_lines: Option<u32>,
    event_buffer: u32,
    sample_every: Duration,
    pinning: Option<Pinning>,
    pin_root: PathBuf,
    mount_bpffs: bool,
    state_dir: Option<PathBuf>,
    namespace: Option<PathBuf>,
    fast_forward: bool,
    atomic_counters: Option<bool>,
    management: Vec<Management>,
}

impl Default for Loader {
    fn default() -> Self {
        Self {
            dry_run: None,
            max_interfaces: 256,
            max_rules: 16_384,
            rows_up_to: ROWS_UP_TO,
            frags: Frags::Auto,
            max_rate_sources: 65_536,
            max_bans: 65_536,
            flow_lines: None,
            event_buffer: 1 << 20,
            sample_every: Duration::from_secs(1),
            pinning: None,
            pin_root: PathBuf::from(PIN_ROOT),
            mount_bpffs: true,
            state_dir: None,
            namespace: None,
            fast_forward: false,
            atomic_counters: None,
            management: Vec::new(),
        }
    }
}

impl Loader {
    /// Whether frames are only judged and counted, and never dropped: `true` unless set, so that a
    /// first start harms nobody.
    ///
    /// This is for a first start. What wins is, in this order: [pass mode](crate::Enforcement::Pass), by
    /// the pins or by the mark in the [`state_dir`](Loader::state_dir); a change of the mode that is
    /// [pending](crate::Firewall::pending), or the mode before if its deadline is past; dry run where
    /// [enforcement was taken back](crate::Firewall::enforcement_taken_back); the mode that
    /// [`Firewall::set_enforcement`](crate::Firewall::set_enforcement) chose last, by the state
    /// directory; this; the mode of the process whose pins are taken over; dry run.
    /// [`Firewall::set_dry_run`](crate::Firewall::set_dry_run) changes it later, for this process.
    pub fn dry_run(self, dry_run: bool) -> Self {
        Self {
            dry_run: Some(dry_run),
            ..self
        }
    }

    /// Whether the firewall outlives this process, by pins in a BPF file system; unless set it does
    /// not, and nothing of an earlier process is looked for.
    ///
    /// A process that finds the pins of an earlier one, which ended in whatever way, takes over its
    /// interfaces without a gap: they run the old program, by the old policy, until this process has a
    /// policy, and then the new program takes its place in the same link. Counters of rules (by their
    /// id) and of interfaces, bans, rate limits and dry run go on. After an update of xdpgate that
    /// lays out its maps in another way they begin anew, except for dry run, and there is no gap
    /// either; after a change of sizes such as [`Loader::max_rules`] counters and bans go on.
    ///
    /// One process at a time may use a [`pin_root`](Loader::pin_root).
    ///
    /// ```no_run
    /// use xdpgate::{Firewall, Pinning};
    ///
    /// let firewall = Firewall::loader()
    ///     .pin(Pinning::Auto)
    ///     .state_dir("/var/lib/xdpgate")
    ///     .load()?;
    /// # Ok::<(), xdpgate::LoadError>(())
    /// ```
    pub fn pin(self, pinning: Pinning) -> Self {
        Self {
            pinning: Some(pinning),
            ..self
        }
    }

    /// The directory for the pins, in a BPF file system; `/sys/fs/bpf/xdpgate` unless set. Each
    /// firewall needs its own.
    pub fn pin_root(self, dir: impl Into<PathBuf>) -> Self {
        Self {
            pin_root: dir.into(),
            ..self
        }
    }

    /// Whether a BPF file system may be mounted at `/sys/fs/bpf` if pins are to be there and none is;
    /// it may unless set. The mount stays.
    pub fn mount_bpffs(self, allowed: bool) -> Self {
        Self {
            mount_bpffs: allowed,
            ..self
        }
    }

    /// A directory for what must outlive the process and the machine's next start; none unless set. It
    /// is made if need be. Each firewall needs its own: one that is in use is refused.
    ///
    /// Each policy that comes in force is saved there as `policy.yaml` before [`Firewall::apply`](crate::Firewall::apply)
    /// returns, in canonical form, and put in force again by [`Loader::load`]: so a restart needs
    /// nobody who knows the policy. What cannot be saved is in force all the same:
    /// [`Applied::not_saved`](crate::Applied::not_saved) says why, and it is tried again
    /// ([`Firewall::saved`](crate::Firewall::saved)). Beside it are the policy before, a change that is
    /// pending, the mode, the number of the last generation and the keys of requests.
    pub fn state_dir(self, dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: Some(dir.into()),
            ..self
        }
    }

    /// How many interfaces may be attached at one time; 256 unless set. Takes 2 KiB of memory per
    /// interface and CPU.
    pub fn max_interfaces(self, max_interfaces: u16) -> Self {
        Self {
            max_interfaces,
            ..self
        }
    }

    /// How many rules may have counters at one time; 16,384 unless set. Takes 72 bytes of memory
    /// per rule and CPU, and 32 per rule. While a policy is replaced its rules and the new ones count together, so
    /// let there be room for both where they have few rule ids in common.
    pub fn max_rules(self, max_rules: u32) -> Self {
        Self { max_rules, ..self }
    }

    /// Up to how many rules that need more than one address are found by rows of bits alone;
    /// [`ROWS_UP_TO`] unless set. Beyond that most are found by pairs of addresses. The verdicts are
    /// the same; this is for measuring which is faster.
    pub fn rows_up_to(self, rows_up_to: usize) -> Self {
        Self { rows_up_to, ..self }
    }

    /// How often the counters are sampled for [`Firewall::rates`](crate::Firewall::rates); every second unless set. A sample
    /// takes a grace period of the kernel, some 10 ms, so much shorter intervals are not kept.
    pub fn sample_every(self, sample_every: Duration) -> Self {
        Self {
            sample_every,
            ..self
        }
    }

    /// Management traffic of this host that passes whatever the policy is; none unless set. See
    /// [`Firewall::set_management`](crate::Firewall::set_management).
    pub fn management(self, of_host: impl Into<Vec<Management>>) -> Self {
        Self {
            management: of_host.into(),
            ..self
        }
    }

    /// The network namespace whose interfaces the firewall attaches, by a path such as
    /// `/run/netns/blue` or `/proc/1234/ns/net`; that of the calling thread unless set. The firewall
    /// keeps the namespace alive. Entering it takes CAP_SYS_ADMIN.
    ///
    /// Names and numbers of interfaces are those of the namespace: see [`Firewall::ifindex`](crate::Firewall::ifindex). The
    /// same numbers mean other interfaces elsewhere, so one firewall serves one namespace.
    ///
    /// ```no_run
    /// use xdpgate::{Firewall, ModePreference};
    ///
    /// let firewall = Firewall::loader().namespace("/run/netns/blue").load()?;
    /// firewall.attach(firewall.ifindex("eth0")?, ModePreference::BestAvailable)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn namespace(self, path: impl Into<PathBuf>) -> Self {
        Self {
            namespace: Some(path.into()),
            ..self
        }
    }

    /// Whether frames may lie in several buffers, as with an MTU of 9000; wherever the kernel can
    /// unless set. [`ProgramInfo::frags`](crate::ProgramInfo::frags) says what came of it.
    pub fn frags(self, frags: Frags) -> Self {
        Self { frags, ..self }
    }

    /// For how many sources there is room in all limits per source together; 65,536 unless set.
    /// Takes 64 bytes of memory for each three.
    ///
    /// A source needs room only while it has less than its whole burst left. Those for which
    /// there is none share one budget per rule, as large as that of one source, and their packets
    /// are counted in [`RuleStats::rate_overflow`](crate::RuleStats::rate_overflow). The last room
    /// is hard to find: let there be a quarter more than there are busy sources.
    pub fn max_rate_sources(self, max_rate_sources: u32) -> Self {
        Self {
            max_rate_sources,
            ..self
        }
    }

    /// How many bytes of [events](crate::Firewall::events) the kernel keeps until they are read; 1 MiB
    /// unless set, which holds 5,957 events. A power of two, and a page or more.
    pub fn event_buffer(self, bytes: u32) -> Self {
        Self {
            event_buffer: bytes,
            ..self
        }
    }

    /// How many bans may be in force at one time, [`BanScope::Both`](crate::BanScope::Both) counted
    /// as two; 65,536 unless set. Takes 64 bytes of memory per ban. With 0 the program is loaded
    /// without what bans need, which saves some nanoseconds a packet.
    pub fn max_bans(self, max_bans: u32) -> Self {
        Self { max_bans, ..self }
    }

    /// Of how many flows at the least the rule is remembered, all CPUs together; 65,536 for each
    /// possible CPU unless set, but at most 1,048,576, and 0 for none. Takes 64 bytes of memory each, in
    /// which two IPv4 flows have room if the rules look at nothing but addresses, ports and protocol.
    ///
    /// A policy that needs more than one address to find a rule gains by it as long as the flows of
    /// a moment have room; all others do not use it.
    pub fn remember_flows(self, flows: u32) -> Self {
        Self {
            flow_lines: Some(flows),
            ..self
        }
    }

    /// Whether [bridges](crate::Firewall::bridge) can be made; not unless set. Without it the programs have
    /// not one instruction for them.
    pub fn fast_forward(self, fast_forward: bool) -> Self {
        Self {
            fast_forward,
            ..self
        }
    }

    /// Whether counters are added to in atomic steps, which costs some nanoseconds a packet; on
    /// PREEMPT_RT kernels unless set. There two packets may be judged by turns on one CPU, and
    /// plain counters would lose some of them. [`ProgramInfo::atomic_counters`] says what came of it.
    ///
    /// [`ProgramInfo::atomic_counters`]: crate::ProgramInfo::atomic_counters
    pub fn atomic_counters(self, atomic_counters: bool) -> Self {
        Self {
            atomic_counters: Some(atomic_counters),
            ..self
        }
    }

    /// What the programs do at their end that is not the plain case.
    fn exit(&self) -> u32 {
        let mut exit = 0;
        if self.fast_forward {
            exit |= EXIT_FORWARD;
        }
        if self.atomic_counters.unwrap_or_else(is_realtime) {
            exit |= EXIT_ATOMIC;
        }
        exit
    }

    fn flow_lines(&self, cpus: u32) -> u32 {
        let default = FLOWS_PER_CPU.saturating_mul(cpus).min(MOST_DEFAULT_FLOWS);
        self.flow_lines.unwrap_or(default)
    }

    fn host_shape(&self, cpus: u32, secret: &RandomState) -> Result<HostShape, LoadError> {
        let limit = |knob, value: u32, per_unit: u32| {
            let most = i32::MAX as u32 / cpus / per_unit;
            if (1..=most).contains(&value) {
                return Ok(());
            }
            let reason = format!("it must be 1 to {most} on {cpus} CPUs");
            Err(LoadError::Limit {
                knob,
                value: value.into(),
                reason,
            })
        };
        let counters = (COUNTERS_PER_INTERFACE * BANKS) as u32;
        limit("max_interfaces", self.max_interfaces.into(), counters)?;
        limit("max_rules", self.max_rules, BANKS as u32)?;
        if !(1..=MAX_RATE_SOURCES).contains(&self.max_rate_sources) {
            return Err(LoadError::Limit {
                knob: "max_rate_sources",
                value: self.max_rate_sources.into(),
                reason: format!("it must be 1 to {MAX_RATE_SOURCES}"),
            });
        }
        if self.max_bans > MOST_BANS {
            return Err(LoadError::Limit {
                knob: "max_bans",
                value: self.max_bans.into(),
                reason: format!("it must be 0 to {MOST_BANS}"),
            });
        }
        if self.flow_lines.is_some_and(|flows| flows > MOST_FLOWS) {
            return Err(LoadError::Limit {
                knob: "remember_flows",
                value: self.flow_lines(cpus).into(),
                reason: format!("it must be 0 to {MOST_FLOWS}"),
            });
        }
        check_event_buffer(self.event_buffer)?;
        // Slot 0 counts frames of interfaces that are not listed.
        let interface_slots = u32::from(self.max_interfaces) + 1;
        Ok(HostShape {
            interface_slots,
            rule_slots: self.max_rules,
            evaluate: 0,
            tick_ns: tick_ns()?,
            frags: 0,
            source_lines: self.max_rate_sources.div_ceil(SOURCE_SLOTS),
            seed: host_seed(secret),
            ban_lines: ban_table::lines(self.max_bans),
            flow_lines: self.flow_lines(cpus),
            tick_zero: 0,
            exit: self.exit(),
            reserved: 0,
        })
    }
}

/// Where pins are unless something else is said.
const PIN_ROOT: &str = "/sys/fs/bpf/xdpgate";

/// 5.10 makes no array of 4 GiB.
const MAX_RATE_SOURCES: u32 = 200_000_000;
/// 2 GiB of bans: beyond it, they are a policy.
const MOST_BANS: u32 = 1 << 25;

/// Lines of the table of flows: 2 MiB, as large as L2 caches are.
const FLOWS_PER_CPU: u32 = 65_536;
/// 64 MiB.
const MOST_DEFAULT_FLOWS: u32 = 1 << 20;
/// 2 GiB.
const MOST_FLOWS: u32 = 1 << 25;

/// The seed of the tables that outlive a policy.
fn host_seed(secret: &RandomState) -> [u64; 2] {
    [2u8, 3].map(|half| secret.hash_one(half))
}

/// What the kernel takes as the size of a ring buffer (`ringbuf_map_alloc`, `kernel/bpf/ringbuf.c`).
fn check_event_buffer(bytes: u32) -> Result<(), LoadError> {
    const MOST: u32 = 1 << 28;
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    let page = page.and_then(|p| u32::try_from(p).ok()).unwrap_or(4096);
    if bytes.is_power_of_two() && (page..=MOST).contains(&bytes) {
        return Ok(());
    }
    Err(LoadError::Limit {
        knob: "event_buffer",
        value: bytes.into(),
        reason: format!("it must be a power of two from {page}, a page, to {MOST}"),
    })
}

/// How long a tick is: the resolution of the coarse clocks (`KTIME_LOW_RES`, `kernel/time/posix-timers.c`).
fn tick_ns() -> Result<u32, LoadError> {
    clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)
        .map_err(io::Error::from)
        .and_then(|tick| match tick.num_nanoseconds() {
            tick @ 1..=1_000_000_000 => Ok(tick as u32),
            tick => Err(io::Error::other(format!("a tick of {tick} ns"))),
        })
        .map_err(|source| LoadError::Syscall {
            call: "clock_getres(CLOCK_MONOTONIC_COARSE)",
            source,
        })
}

/// One more than the highest number that a CPU may have: the counters are indexed by CPU number,
/// and the numbers may have gaps.
fn cpu_numbers() -> Result<u32, LoadError> {
    let listed = fs::read_to_string("/sys/devices/system/cpu/possible");
    if let Some(cpus) = listed.ok().and_then(|list| end_of_list(&list)) {
        return Ok(cpus);
    }
    let counted = num_possible_cpus().map_err(|error| LoadError::Syscall {
        call: "reading the possible CPUs",
        source: to_io(&error),
    })?;
    Ok(u32::try_from(counted).expect("a number of CPUs"))
}

/// One more than the highest number in a list like `0-3,8-11`.
fn end_of_list(list: &str) -> Option<u32> {
    let mut end = 0;
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if last < first {
            return None;
        }
        end = end.max(last.checked_add(1)?);
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_cpu_counts_and_not_their_number() {
        for (list, end) in [
            ("0\n", Some(1)),
            ("0-1\n", Some(2)),
            ("0-3,8-11\n", Some(12)),
            ("0,64", Some(65)),
            ("8-11,0-3", Some(12)),
            ("", None),
            ("\n", None),
            ("0-", None),
            ("3-0", None),
            ("0,,2", None),
            ("0-4294967295", None),
        ] {
            assert_eq!(end_of_list(list), end, "{list:?}");
        }
    }
}
