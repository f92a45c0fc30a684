//! Waiting for packets in flight.

use std::os::fd::{AsFd, AsRawFd};

use libbpf_rs::libbpf_sys;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

/// Waits until every program that runs now has ended.
///
/// An update of a map of maps returns after an RCU grace period, which the kernel promises for
/// just this use (`maybe_wait_bpf_programs`, since 4.20). `membarrier` would do the same, but not
/// on hosts with `nohz_full`.
#[derive(Debug)]
pub(super) struct GracePeriod {
    outer: MapHandle,
    inner: MapHandle,
}

impl GracePeriod {
    pub(super) fn new() -> libbpf_rs::Result<Self> {
        const U32: u32 = size_of::<u32>() as u32;
        let mut options = libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
            ..Default::default()
        };
        let inner = MapHandle::create(MapType::Array, Some("grace_inner"), U32, U32, 1, &options)?;
        options.inner_map_fd = inner.as_fd().as_raw_fd() as u32;
        let outer = MapHandle::create(
            MapType::ArrayOfMaps,
            Some("grace_outer"),
            U32,
            U32,
            1,
            &options,
        )?;
        Ok(Self { outer, inner })
    }

    pub(super) fn wait(&self) -> libbpf_rs::Result<()> {
        let inner = self.inner.as_fd().as_raw_fd().to_ne_bytes();
        self.outer
            .update(&0u32.to_ne_bytes(), &inner, MapFlags::ANY)
    }
}
