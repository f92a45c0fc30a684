//! Where the figures come from.

use std::fs;

use serde::Serialize;

/// The machine, its kernel and the compiler.
#[derive(Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cpus: usize,
    pub kernel: String,
    pub clang: &'static str,
    /// What makes calls slower than they need be: return thunks and the like.
    pub spectre_v2: String,
    pub load_average: String,
    pub data: bool,
}

impl Machine {
    pub fn here() -> Self {
        let read = |path| {
            fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo
            .lines()
            .find_map(|l| l.strip_prefix("model name")?.split_once(": "));
        Self {
            cpu: model
                .map_or(std::env::consts::ARCH, |(_, name)| name)
                .to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease"),
            clang: xdpgate::build_info().clang,
            spectre_v2: read("/sys/devices/system/cpu/vulnerabilities/spectre_v2"),
            load_average: read("/proc/loadavg"),
            data: crate::cases::data::is_there(),
        }
    }
}
