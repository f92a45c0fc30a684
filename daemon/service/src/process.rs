//! Metrics of this process, under the names that all Prometheus clients use for them:
//! <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>.
//!
//! They are written beside the exporter because CPU seconds are a counter with a fraction, which the
//! metrics facade has not.

use std::fmt::Write;
use std::fs;
use std::io;

use nix::unistd::{SysconfVar, sysconf};

/// All of them in the text format. Those that cannot be read are left out.
pub fn exposition() -> String {
    let mut out = String::new();
    for (name, kind, help, value) in [
        (
            "process_cpu_seconds_total",
            "counter",
            "User and system CPU time spent, in seconds.",
            stat().and_then(|s| Ok(s.ticks(14)? + s.ticks(15)?)),
        ),
        (
            "process_start_time_seconds",
            "gauge",
            "When the process started, in seconds since 1970.",
            stat().and_then(|s| Ok(s.ticks(22)? + boot_time()?)),
        ),
        (
            "process_resident_memory_bytes",
            "gauge",
            "Memory in RAM, in bytes.",
            stat().and_then(|s| Ok(s.number(24)? * per(SysconfVar::PAGE_SIZE)?)),
        ),
        (
            "process_virtual_memory_bytes",
            "gauge",
            "Address space, in bytes.",
            stat().and_then(|s| s.number(23)),
        ),
        (
            "process_threads",
            "gauge",
            "Threads.",
            stat().and_then(|s| s.number(20)),
        ),
        (
            "process_open_fds",
            "gauge",
            "Open file descriptors.",
            fs::read_dir("/proc/self/fd").map(|fds| fds.count() as f64),
        ),
        (
            "process_max_fds",
            "gauge",
            "How many file descriptors may be open.",
            max_fds(),
        ),
    ] {
        if let Ok(value) = value {
            // Writing to a string does not fail.
            let _ = write!(
                out,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n"
            );
        }
    }
    out
}

/// The fields of `/proc/self/stat` from the third on, see proc_pid_stat(5).
struct Stat(Vec<String>);

fn stat() -> io::Result<Stat> {
    let text = fs::read_to_string("/proc/self/stat")?;
    // The name of the program may hold anything, spaces and parentheses as well.
    let (_, fields) = text.rsplit_once(')').ok_or(io::ErrorKind::InvalidData)?;
    Ok(Stat(fields.split_whitespace().map(str::to_owned).collect()))
}

impl Stat {
    /// A field by its number in the manual.
    fn number(&self, field: usize) -> io::Result<f64> {
        parse(self.0.get(field - 3))
    }

    /// A field in clock ticks, as seconds.
    fn ticks(&self, field: usize) -> io::Result<f64> {
        Ok(self.number(field)? / per(SysconfVar::CLK_TCK)?)
    }
}

/// Seconds since 1970.
fn boot_time() -> io::Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    parse(text.lines().find_map(|line| line.strip_prefix("btime ")))
}

fn max_fds() -> io::Result<f64> {
    let text = fs::read_to_string("/proc/self/limits")?;
    let line = text.lines().find(|l| l.starts_with("Max open files"));
    parse(line.and_then(|l| l.split_whitespace().nth(3)))
}

fn per(what: SysconfVar) -> io::Result<f64> {
    let value = sysconf(what)?.ok_or(io::ErrorKind::Unsupported)?;
    Ok(value as f64)
}

fn parse(text: Option<impl AsRef<str>>) -> io::Result<f64> {
    let number = text.and_then(|t| t.as_ref().parse().ok());
    number.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process() {
        let text = exposition();
        let value = |name: &str| -> f64 {
            let line = text
                .lines()
                .find_map(|l| l.strip_prefix(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("no {name} in {text}"))
                .parse()
                .unwrap()
        };
        let now = jiff::Timestamp::now().as_duration().as_secs_f64();
        let age = now - value("process_start_time_seconds");
        // btime is in whole seconds.
        assert!((-2.0..3600.0).contains(&age), "{age}");
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") > value("process_resident_memory_bytes"));
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_cpu_seconds_total") < 3600.0);
    }
}
