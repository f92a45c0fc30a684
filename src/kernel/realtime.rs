//! Whether the kernel lets one packet's program come between the instructions of another on the same
//! CPU.

use std::fs;

use nix::sys::utsname::uname;

/// Whether this is a PREEMPT_RT kernel. There softirqs are threads, and since they may run without a
/// lock around them (`CONFIG_PREEMPT_RT_NEEDS_BH_LOCK`, Linux 6.18) two of one CPU may interleave.
pub(super) fn is_realtime() -> bool {
    let told = fs::read_to_string("/sys/kernel/realtime").is_ok_and(|text| text.trim() == "1");
    told || uname().is_ok_and(|name| says_realtime(&name.version().to_string_lossy()))
}

/// The same from the version that `uname -v` prints; not all kernels have the file.
fn says_realtime(version: &str) -> bool {
    version.split_whitespace().any(|word| word == "PREEMPT_RT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r65_realtime_kernels_are_known_by_their_version() {
        for (version, is_it) in [
            ("#1 SMP PREEMPT_RT Debian 6.12.107-1 (2026-10-01)", true),
            ("#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1", false),
            ("#1 SMP PREEMPT Tue Nov 24", false),
            ("#2", false),
        ] {
            assert_eq!(says_realtime(version), is_it, "{version}");
        }
    }
}
