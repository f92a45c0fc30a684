//! The host, the process and the programs: what `/proc` says, read when it is asked for.

use std::fs;
use std::io;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};
use tonic::Status;
use xdpgate::Firewall;
use xdpgate_api::v1;

use crate::agent::{convert, fault};

pub(super) fn get(firewall: &Firewall) -> Result<v1::GetSystemResponse, Status> {
    let programs = firewall.program_info();
    let programs = v1::GetSystemResponse {
        entry_program: Some(convert::program(programs.entry)),
        policy_program: programs.policy.map(convert::program),
        clang: programs.clang.to_owned(),
        frags: programs.frags,
        ..Default::default()
    };
    host(programs).map_err(|e| fault::internal(format!("{e}; is /proc mounted?")))
}

fn host(programs: v1::GetSystemResponse) -> io::Result<v1::GetSystemResponse> {
    let memory = read("/proc/meminfo")?;
    let load = read("/proc/loadavg")?;
    let load = load
        .split_whitespace()
        .take(3)
        .map(|text| text.parse::<f64>());
    let page = sysconf(SysconfVar::PAGE_SIZE)?.unwrap_or(4096) as u64;
    let resident = read("/proc/self/statm")?;
    let resident = resident.split_whitespace().nth(1);
    let resident: u64 = number("/proc/self/statm", resident)?;
    let cpu = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?;
    let uptime = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    Ok(v1::GetSystemResponse {
        hostname: read("/proc/sys/kernel/hostname")?,
        kernel_release: read("/proc/sys/kernel/osrelease")?,
        machine: nix::sys::utsname::uname()?
            .machine()
            .to_string_lossy()
            .into_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id")?,
        uptime_seconds: uptime.tv_sec() as u64,
        cpus: sysconf(SysconfVar::_NPROCESSORS_ONLN)?.unwrap_or(0) as u32,
        load: load.collect::<Result<_, _>>().map_err(io::Error::other)?,
        memory_total_bytes: kib(&memory, "MemTotal:")? << 10,
        memory_available_bytes: kib(&memory, "MemAvailable:")? << 10,
        pid: std::process::id(),
        resident_bytes: resident * page,
        // Less the one that reads.
        open_files: (fs::read_dir("/proc/self/fd")?.count() as u32).saturating_sub(1),
        cpu_seconds: cpu.tv_sec() as f64 + cpu.tv_nsec() as f64 / 1e9,
        ..programs
    })
}

fn read(path: &str) -> io::Result<String> {
    let text = fs::read_to_string(path);
    let text = text.map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")))?;
    Ok(text.trim_end().to_owned())
}

/// A value of `/proc/meminfo`.
fn kib(memory: &str, key: &str) -> io::Result<u64> {
    let line = memory.lines().find_map(|line| line.strip_prefix(key));
    number(
        "/proc/meminfo",
        line.and_then(|line| line.split_whitespace().next()),
    )
}

fn number(path: &str, text: Option<&str>) -> io::Result<u64> {
    let parsed = text.and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| io::Error::other(format!("{path}: no number where one is expected")))
}
