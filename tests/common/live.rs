//! Frames through the program that interfaces run, as if received: they are judged and counted.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use libbpf_rs::Program;
use libbpf_rs::libbpf_sys::{bpf_prog_test_run_opts, bpf_test_run_opts, xdp_md};
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

    /// The entry program that is pinned in a file, whoever loaded it.
    pub fn pinned(path: &std::path::Path) -> Self {
        let fd = Program::fd_from_pinned_path(path);
        Self(fd.unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    /// What the program does with a frame of at least 14 bytes.
    pub fn receive(&self, frame: &[u8]) -> Verdict {
        let (verdict, _) = self.run(frame, None, 1).expect("BPF_PROG_TEST_RUN");
        verdict
    }

    /// Lets the same frame come `times` times; returns the mean time of one in nanoseconds.
    pub fn flood(&self, frame: &[u8], times: u32) -> u32 {
        self.run(frame, None, times).expect("BPF_PROG_TEST_RUN").1
    }

    /// Nanoseconds that the program takes for a frame: the mean of many runs, and the best of a few
    /// such means, because other processes disturb them.
    pub fn nanoseconds(&self, frame: &[u8]) -> u32 {
        let means = (0..3).map(|_| self.flood(frame, 2000));
        means.min().expect("a mean")
    }

    /// The same frame so many times in a row.
    pub fn receive_many(&self, frame: &[u8], times: u32) {
        self.run(frame, None, times).expect("BPF_PROG_TEST_RUN");
    }

    /// The same with only `linear` bytes in the first buffer, and the rest in others. The kernel
    /// refuses it on 5.10, for a program that takes frames in one buffer only, and for too few
    /// bytes.
    pub fn receive_scattered(&self, frame: &[u8], linear: u32) -> io::Result<Verdict> {
        let context = xdp_md {
            data_end: linear,
            ..Default::default()
        };
        Ok(self.run(frame, Some(&context), 1)?.0)
    }

    fn run(
        &self,
        frame: &[u8],
        context: Option<&xdp_md>,
        repeat: u32,
    ) -> io::Result<(Verdict, u32)> {
        let mut opts = bpf_test_run_opts {
            sz: size_of::<bpf_test_run_opts>() as _,
            data_in: frame.as_ptr().cast(),
            data_size_in: frame.len() as u32,
            repeat: repeat as _,
            ..Default::default()
        };
        if let Some(context) = context {
            opts.ctx_in = std::ptr::from_ref(context).cast();
            opts.ctx_size_in = size_of_val(context) as u32;
        }
        // SAFETY: frame and context outlive the call, and the sizes are those of what is pointed
        // to.
        let rc = unsafe { bpf_prog_test_run_opts(self.0.as_raw_fd(), &mut opts) };
        if rc != 0 {
            return Err(io::Error::from_raw_os_error(-rc));
        }
        match opts.retval {
            1 => Ok((Verdict::Drop, opts.duration)),
            2 => Ok((Verdict::Pass, opts.duration)),
            other => panic!("XDP action {other}"),
        }
    }
}
