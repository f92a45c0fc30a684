//! Kernels that cannot do what xdpgate needs are refused by name.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod netns;
}

use std::path::Path;
use std::thread;

use common::netns::{mount_tmpfs, skipped};
use xdpgate::{Firewall, LoadError};

const BTF: &str = "/sys/kernel/btf/vmlinux";

fn is_refused() {
    let error = Firewall::loader().load().unwrap_err();
    assert!(matches!(error, LoadError::NoBtf { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!(
            "the kernel has no type information (BTF): {BTF} is missing; run a kernel that is built \
             with CONFIG_DEBUG_INFO_BTF=y"
        )
    );
}

#[test]
fn a_kernel_that_shows_no_type_information() {
    if skipped() {
        return;
    }
    if !Path::new(BTF).exists() {
        println!("skipped: this kernel has none to hide");
        return;
    }
    // An empty directory in its place, for this thread alone.
    thread::spawn(|| {
        mount_tmpfs(Path::new("/sys/kernel/btf"));
        is_refused();
    })
    .join()
    .unwrap();
}

#[test]
fn a_kernel_without_type_information() {
    if skipped() {
        return;
    }
    if Path::new(BTF).exists() {
        println!("skipped: this kernel has type information");
        return;
    }
    is_refused();
}
