//! What this thread may do.

use std::fs;

use super::error::{CAPABILITIES, LoadError};

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Refuses early what the kernel would refuse with a bare EPERM.
///
/// A thread in a user namespace may pass here and be refused by the kernel all the same.
pub(super) fn check_capabilities() -> Result<(), LoadError> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    match effective(&status) {
        Some(mask) if !suffices(mask) => Err(LoadError::Capability(CAPABILITIES)),
        _ => Ok(()),
    }
}

/// The effective capabilities, as in the line `CapEff:\t000001ffffffffff`.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// CAP_SYS_ADMIN stands for the two newer capabilities that were split from it.
fn suffices(mask: u64) -> bool {
    let has = |capability: u32| mask & 1 << capability != 0;
    has(CAP_NET_ADMIN) && (has(CAP_SYS_ADMIN) || (has(CAP_BPF) && has(CAP_PERFMON)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_and_judged() {
        let root = effective("Name:\tx\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n").unwrap();
        assert!(suffices(root));
        assert!(suffices(1 << CAP_NET_ADMIN | 1 << CAP_SYS_ADMIN));
        assert!(suffices(
            1 << CAP_NET_ADMIN | 1 << CAP_BPF | 1 << CAP_PERFMON
        ));
        assert!(!suffices(1 << CAP_BPF | 1 << CAP_PERFMON));
        assert!(!suffices(0));
        assert_eq!(effective("nothing"), None);
    }
}
