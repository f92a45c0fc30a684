//! Opening, specialising and loading the two programs of the object.

use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use bytemuck::bytes_of;
use libbpf_rs::skel::SkelBuilder;
use libbpf_rs::{ErrorKind, MapHandle, ProgramHandle, libbpf_sys};

use super::error::VerifierLog;
use super::layout::{BANKS, COUNTERS_PER_INTERFACE, EXIT_FORWARD, HostShape, REASON_SLOTS};
use super::shared_maps::SharedMaps;
use super::skeleton::{OpenXdpgateSkel, XdpgateSkel, XdpgateSkelBuilder, types};
use super::stats::ProgramFacts;
use super::sys;
use crate::abi::Shape;

/// The maps that each generation has for itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnMaps<'m> {
    pub image: &'m MapHandle,
    pub scopes: &'m MapHandle,
    pub entry_counters: &'m MapHandle,
}

/// A program in the kernel.
#[derive(Debug)]
pub(super) struct LoadedProgram {
    pub handle: ProgramHandle,
    pub facts: ProgramFacts,
}

/// Why a program is not in the kernel; each public error has its own form of it.
#[derive(Debug)]
pub(super) enum ProgramError {
    Verifier {
        summary: String,
        log: VerifierLog,
    },
    Syscall {
        call: &'static str,
        source: io::Error,
    },
}

impl ProgramError {
    pub(super) fn syscall(call: &'static str) -> impl FnOnce(libbpf_rs::Error) -> Self {
        move |error| Self::Syscall {
            call,
            source: to_io(&error),
        }
    }
}

/// Keeps the kind and the text of an error of libbpf-rs, whose type stays private.
pub(super) fn to_io(error: &libbpf_rs::Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::NotFound => io::ErrorKind::NotFound,
        ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
        ErrorKind::AlreadyExists => io::ErrorKind::AlreadyExists,
        ErrorKind::InvalidInput => io::ErrorKind::InvalidInput,
        ErrorKind::OutOfMemory => io::ErrorKind::OutOfMemory,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error.to_string())
}

/// Loads the entry program and the one that tells the time, and makes the maps that all generations
/// share, unless those of an earlier process are to be used.
pub(super) fn load_entry(
    host: HostShape,
    cpus: u32,
    event_buffer: u32,
    existing: Option<&SharedMaps>,
) -> Result<(LoadedProgram, ProgramHandle, SharedMaps), ProgramError> {
    let open = |open: &mut OpenXdpgateSkel<'_>| {
        open.progs.xdpgate_policy.set_autoload(false);
        open.progs.xdpgate.set_flags(flags(host));
        open.progs.xdpgate_special.set_flags(flags(host));
        open.progs.xdpgate.set_autoload(host.exit == 0);
        open.progs.xdpgate_special.set_autoload(host.exit != 0);
        open.maps.image.set_autocreate(false)?;
        open.maps.scopes.set_autocreate(false)?;
        open.maps.entry_counters.set_autocreate(false)?;
        match existing {
            Some(maps) => maps.lend_to_entry(open)?,
            None => size_maps(open, host, cpus, event_buffer)?,
        }
        write_rodata(open, offset_of!(types::rodata, host), bytes_of(&host));
        Ok(())
    };
    load(open, |skeleton| {
        let clock = ProgramHandle::try_from(&skeleton.progs.xdpgate_clock)?;
        let entry = match host.exit {
            0 => ProgramHandle::try_from(&skeleton.progs.xdpgate)?,
            _ => ProgramHandle::try_from(&skeleton.progs.xdpgate_special)?,
        };
        Ok((entry, (clock, SharedMaps::of(skeleton)?)))
    })
    .map(|(entry, (clock, maps))| (entry, clock, maps))
}

fn size_maps(
    open: &mut OpenXdpgateSkel<'_>,
    host: HostShape,
    cpus: u32,
    event_buffer: u32,
) -> libbpf_rs::Result<()> {
    let verdicts = cpus * host.interface_slots * (COUNTERS_PER_INTERFACE * BANKS) as u32;
    let rules = cpus * host.rule_slots;
    let maps = &mut open.maps;
    maps.verdict_counters.set_max_entries(verdicts)?;
    maps.rule_counters.set_max_entries(rules * BANKS as u32)?;
    maps.rate_budgets.set_max_entries(host.rule_slots)?;
    maps.rate_sources.set_max_entries(host.source_lines)?;
    maps.rate_overflows.set_max_entries(rules)?;
    // An array has at least one element.
    maps.bans.set_max_entries(host.ban_lines.max(1))?;
    maps.flows.set_max_entries(host.flow_lines.max(1))?;
    maps.events.set_max_entries(event_buffer)?;
    maps.event_budgets.set_max_entries(event_budgets(host))?;
    maps.event_counters.set_max_entries(cpus)?;
    maps.ports.set_max_entries(ports(host))
}

/// Loads an instance of the judging program, specialised for an image.
pub(super) fn load_policy(
    shared: &SharedMaps,
    host: HostShape,
    shape: &Shape,
    generation: u64,
    own: OwnMaps<'_>,
) -> Result<LoadedProgram, ProgramError> {
    let open = |open: &mut OpenXdpgateSkel<'_>| {
        open.progs.xdpgate.set_autoload(false);
        open.progs.xdpgate_special.set_autoload(false);
        open.progs.xdpgate_clock.set_autoload(false);
        open.progs.xdpgate_policy.set_flags(flags(host));
        open.maps.image.reuse_fd(own.image.as_fd())?;
        open.maps.scopes.reuse_fd(own.scopes.as_fd())?;
        open.maps
            .entry_counters
            .reuse_fd(own.entry_counters.as_fd())?;
        shared.lend_to_policy(open)?;
        write_rodata(open, offset_of!(types::rodata, host), bytes_of(&host));
        write_rodata(open, offset_of!(types::rodata, shape), bytes_of(shape));
        let at = offset_of!(types::rodata, generation);
        write_rodata(open, at, bytes_of(&generation));
        Ok(())
    };
    load(open, |skeleton| {
        Ok((ProgramHandle::try_from(&skeleton.progs.xdpgate_policy)?, ()))
    })
    .map(|(program, ())| program)
}

/// All programs of one `policy_slot` must be of one form: the kernel holds them to it.
fn flags(host: HostShape) -> u32 {
    match host.frags {
        0 => 0,
        _ => libbpf_sys::BPF_F_XDP_HAS_FRAGS,
    }
}

/// Every interface may be a port. A map has at least one element.
fn ports(host: HostShape) -> u32 {
    match host.exit & EXIT_FORWARD {
        0 => 1,
        _ => host.interface_slots,
    }
}

/// A budget for each rule slot, for each reason without a rule, and for all events.
fn event_budgets(host: HostShape) -> u32 {
    host.rule_slots + REASON_SLOTS as u32 + 1
}

fn write_rodata(open: &mut OpenXdpgateSkel<'_>, offset: usize, bytes: &[u8]) {
    let rodata = open
        .maps
        .rodata
        .initial_value_mut()
        .expect("rodata has a value before load");
    rodata[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// The generation of a program that judges, in a copy of its rodata.
pub(super) fn generation_in(rodata: &[u8]) -> Option<u64> {
    let at = offset_of!(types::rodata, generation);
    let bytes = rodata.get(at..at + size_of::<u64>())?;
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

/// BPF_LOG_STATS: how many instructions were verified, also where the kernel keeps no such number.
const LOG_STATS: u32 = 4;
const STATS_LOG_BYTES: usize = 16 << 10;
/// BPF_LOG_LEVEL1: every instruction that the verifier walked.
const LOG_INSTRUCTIONS: u32 = 1;
const FULL_LOG_BYTES: usize = 16 << 20;

fn load<T>(
    configure: impl Fn(&mut OpenXdpgateSkel<'_>) -> libbpf_rs::Result<()>,
    extract: impl Fn(&XdpgateSkel<'_>) -> libbpf_rs::Result<(ProgramHandle, T)>,
) -> Result<(LoadedProgram, T), ProgramError> {
    let attempt = |log: &mut [u8], level| {
        let mut storage = MaybeUninit::uninit();
        let mut open = XdpgateSkelBuilder::default().open(&mut storage)?;
        configure(&mut open)?;
        extract(&sys::load_logged(open, log, level)?)
    };
    let started = Instant::now();
    let mut log = vec![0; STATS_LOG_BYTES];
    let error = match attempt(&mut log, LOG_STATS) {
        Ok((handle, rest)) => {
            let facts = facts(&handle, &text(&log), started.elapsed())?;
            return Ok((LoadedProgram { handle, facts }, rest));
        }
        Err(error) => error,
    };
    if log[0] == 0 {
        // The verifier was not reached: it may have been a map, or the BTF.
        return Err(ProgramError::syscall("loading the BPF object")(error));
    }
    let mut full = vec![0; FULL_LOG_BYTES];
    let log = match attempt(&mut full, LOG_INSTRUCTIONS) {
        Err(_) if full[0] != 0 => text(&full),
        _ => text(&log),
    };
    Err(ProgramError::Verifier {
        summary: summary(&log),
        log: VerifierLog(log),
    })
}

fn facts(program: &ProgramHandle, log: &str, load: Duration) -> Result<ProgramFacts, ProgramError> {
    let info = sys::program_info(program.as_fd()).map_err(|source| ProgramError::Syscall {
        call: "bpf(BPF_OBJ_GET_INFO_BY_FD)",
        source,
    })?;
    let verified = Some(info.verified_insns).filter(|n| *n > 0);
    Ok(ProgramFacts {
        id: info.id,
        name: program.name().to_string_lossy().into_owned(),
        verified_insns: verified.or_else(|| processed(log)),
        translated_bytes: info.xlated_prog_len,
        machine_bytes: info.jited_prog_len,
        load,
    })
}

fn text(log: &[u8]) -> String {
    let end = log.iter().position(|b| *b == 0).unwrap_or(log.len());
    String::from_utf8_lossy(&log[..end]).into_owned()
}

/// N of the log's line `processed N insns (limit 1000000) ...`.
fn processed(log: &str) -> Option<u32> {
    let line = log
        .lines()
        .rev()
        .find_map(|l| l.strip_prefix("processed "))?;
    line.split(' ').next()?.parse().ok()
}

/// The line that says what was wrong: the last one before the statistics.
fn summary(log: &str) -> String {
    const STATISTICS: [&str; 4] = [
        "processed ",
        "verification time",
        "stack depth",
        "max_states",
    ];
    let is_reason = |l: &&str| !l.trim().is_empty() && !STATISTICS.iter().any(|s| l.starts_with(s));
    log.lines()
        .rev()
        .find(is_reason)
        .unwrap_or("no reason given")
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_gives_the_count_and_the_reason() {
        let log = "0: (bf) r6 = r1\nR0 invalid mem access 'scalar'\nverification time 12 usec\n\
                   stack depth 8\nprocessed 4711 insns (limit 1000000) max_states_per_insn 0\n";
        assert_eq!(processed(log), Some(4711));
        assert_eq!(summary(log), "R0 invalid mem access 'scalar'");
        assert_eq!(processed(""), None);
    }
}
