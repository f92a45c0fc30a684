//! Opening, specialising and loading the two programs of the object.

use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use libbpf_rs::skel::SkelBuilder;
use libbpf_rs::{ErrorKind, MapHandle, ProgramHandle};

use super::layout::{COUNTERS_PER_INTERFACE, HostShape};
use super::skeleton::{OpenXdpgateSkel, XdpgateSkelBuilder, types};
use super::stats::ProgramFacts;
use super::sys;
use crate::abi::Shape;

/// The maps that all generations share.
#[derive(Debug)]
pub(super) struct SharedMaps {
    pub policy_slot: MapHandle,
    pub control: MapHandle,
    pub interfaces: MapHandle,
    pub verdict_counters: MapHandle,
    pub rule_counters: MapHandle,
    pub evaluation: MapHandle,
}

/// A program in the kernel.
#[derive(Debug)]
pub(super) struct LoadedProgram {
    pub handle: ProgramHandle,
    pub facts: ProgramFacts,
}

/// Why a program is not in the kernel; each public error has its own form of it.
#[derive(Debug)]
pub(super) enum ProgramError {
    Verifier { summary: String, log: String },
    Syscall { call: &'static str, source: io::Error },
}

impl ProgramError {
    pub(super) fn syscall(call: &'static str) -> impl FnOnce(libbpf_rs::Error) -> Self {
        move |error| Self::Syscall { call, source: to_io(&error) }
    }
}

/// Keeps the kind and the text of an error of libbpf-rs, whose type stays private.
pub(super) fn to_io(error: &libbpf_rs::Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::NotFound => io::ErrorKind::NotFound,
        ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
        ErrorKind::AlreadyExists => io::ErrorKind::AlreadyExists,
        ErrorKind::InvalidInput => io::ErrorKind::InvalidInput,
        ErrorKind::OutOfMemory => io::ErrorKind::OutOfMemory,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error.to_string())
}

/// Loads the entry program and makes the maps that all generations share.
pub(super) fn load_entry(
    host: HostShape,
    cpus: u32,
) -> Result<(LoadedProgram, SharedMaps), ProgramError> {
    let verdicts = cpus * host.interface_slots * COUNTERS_PER_INTERFACE as u32;
    load(|open| {
        open.progs.xdpgate_policy.set_autoload(false);
        open.maps.image.set_autocreate(false)?;
        open.maps.verdict_counters.set_max_entries(verdicts)?;
        open.maps.rule_counters.set_max_entries(cpus * host.rule_slots)?;
        write_host(open, host);
        Ok(())
    })
    .map(|(entry, maps)| (entry.expect("the entry program is loaded"), maps))
}

/// Loads an instance of the judging program, specialised for an image.
pub(super) fn load_policy(
    shared: &SharedMaps,
    host: HostShape,
    shape: &Shape,
    image: &MapHandle,
) -> Result<LoadedProgram, ProgramError> {
    todo!()
}
