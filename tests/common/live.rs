//! Frames through the program that interfaces run, as if received: they are judged and counted.

use std::os::fd::{AsRawFd, OwnedFd};

use libbpf_rs::Program;
use libbpf_rs::libbpf_sys::{bpf_prog_test_run_opts, bpf_test_run_opts};
use xdpgate::{Firewall, Verdict};

/// Whether this runs in a virtual machine of the kernel matrix, which is slow.
pub fn in_guest() -> bool {
    std::env::var_os("XDPGATE_GUEST").is_some()
}

/// The entry program of a firewall.
pub struct Entry(OwnedFd);

impl Entry {
    pub fn of(firewall: &Firewall) -> Self {
        let id = firewall.program_info().entry.id;
        Self(Program::fd_from_id(id).expect("the entry program"))
    }

    /// What the program does with a frame of at least 14 bytes.
    pub fn receive(&self, frame: &[u8]) -> Verdict {
        let mut opts = bpf_test_run_opts {
            sz: size_of::<bpf_test_run_opts>() as _,
            data_in: frame.as_ptr().cast(),
            data_size_in: frame.len() as u32,
            repeat: 1,
            ..Default::default()
        };
        // SAFETY: the frame outlives the call, and the sizes are those of what is pointed to.
        let rc = unsafe { bpf_prog_test_run_opts(self.0.as_raw_fd(), &mut opts) };
        assert_eq!(
            rc,
            0,
            "BPF_PROG_TEST_RUN: {}",
            std::io::Error::from_raw_os_error(-rc)
        );
        match opts.retval {
            1 => Verdict::Drop,
            2 => Verdict::Pass,
            other => panic!("XDP action {other}"),
        }
    }
}
