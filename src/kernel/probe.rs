//! What this thread may do, and whether the kernel has what no firewall can do without.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;

use super::error::{CAPABILITIES, LoadError};
use super::sys;

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

/// Refuses by name a kernel that would refuse the programs with something from its verifier.
///
/// It is asked what it can do and never for its version: vendors take new features to old kernels.
pub(super) fn check_kernel() -> Result<(), LoadError> {
    knows_bind_map(&sys::probe_bind_map())?;
    has_btf(Path::new("/sys/kernel"))
}

/// `BPF_PROG_BIND_MAP` came with 5.10, the oldest kernel that is tested. The newest of what is needed
/// came shortly before: links of XDP programs with 5.9, ring buffers with 5.8.
fn knows_bind_map(error: &io::Error) -> Result<(), LoadError> {
    match error.raw_os_error() {
        Some(code) if code == Errno::EINVAL as i32 => {
            Err(LoadError::OldKernel("bpf(BPF_PROG_BIND_MAP)"))
        }
        _ => Ok(()),
    }
}

/// Global functions of a program that take its context are verified by the type information of the
/// kernel (`btf_get_prog_ctx_type`): without it a packet is just memory to them. Where sysfs is not
/// mounted nothing is known.
fn has_btf(sys_kernel: &Path) -> Result<(), LoadError> {
    let path = sys_kernel.join("btf/vmlinux");
    match !sys_kernel.is_dir() || path.exists() {
        true => Ok(()),
        false => Err(LoadError::NoBtf { path }),
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
    fn an_old_kernel_is_refused_by_name() {
        let said = |errno: Errno| knows_bind_map(&io::Error::from(errno));
        let refused = said(Errno::EINVAL).unwrap_err().to_string();
        assert_eq!(
            refused,
            "the kernel is older than Linux 5.10, by its calls: it has no bpf(BPF_PROG_BIND_MAP); run \
             5.10 or newer"
        );
        // Of 5.10 and newer, and of one that does not let us ask.
        for errno in [Errno::EBADF, Errno::EPERM] {
            said(errno).unwrap();
        }
    }

    #[test]
    fn a_kernel_without_type_information_is_refused_by_name() {
        let sys = tempfile::tempdir().unwrap();
        has_btf(&sys.path().join("not-mounted")).unwrap();
        let refused = has_btf(sys.path()).unwrap_err().to_string();
        assert!(refused.contains("btf/vmlinux is missing"), "{refused}");
        assert!(refused.contains("CONFIG_DEBUG_INFO_BTF=y"), "{refused}");
        fs::create_dir(sys.path().join("btf")).unwrap();
        fs::write(sys.path().join("btf/vmlinux"), "").unwrap();
        has_btf(sys.path()).unwrap();
    }

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
