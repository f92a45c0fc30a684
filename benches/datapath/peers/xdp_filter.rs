//! xdp-filter of xdp-tools: the program of the package, with a map of the size that is needed.
//!
//! Its own command line makes maps of 10,000 addresses, which no option changes. So the object that
//! it would load is loaded here, with larger maps and the entries that `xdp-filter ip -m src` makes.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::ptr;

use libbpf_rs::libbpf_sys::bpf_map__set_pin_path;
use libbpf_rs::{AsRawLibbpf, MapCore, MapFlags, ObjectBuilder, num_possible_cpus};
use xdpgate::policy::Prefix;

use super::{MISSING, command};
use crate::harness::{Subject, program};

pub const NAME: &str = "xdp-filter";

/// "allow unless listed", of IPv4 and IPv6 addresses only: the smallest that can do it.
const PROGRAM: &str = "xdpfilt_alw_ip";

/// Of the flags of an entry, "as a source".
const SOURCE: u64 = 1;

/// xdp-filter that drops what comes from these hosts.
pub fn load(hosts: &[Prefix]) -> Result<Subject, String> {
    let object = object().ok_or(MISSING)?;
    let failed = |e: libbpf_rs::Error| format!("{e:#}");
    let mut open = ObjectBuilder::default().open_file(object).map_err(failed)?;
    for mut map in open.maps_mut() {
        // They would be pinned, where an xdp-filter that is in use has its own.
        let raw = map.as_libbpf_object().as_ptr();
        // SAFETY: the map is of an open object, and no path is what unsets one.
        if unsafe { bpf_map__set_pin_path(raw, ptr::null()) } != 0 {
            return Err("its maps cannot be kept from being pinned".to_owned());
        }
        if map.name().to_string_lossy().starts_with("filter_ip") {
            map.set_max_entries(hosts.len().max(1) as u32)
                .map_err(failed)?;
        }
    }
    let object = open.load().map_err(failed)?;
    let cpus = num_possible_cpus().map_err(failed)?;
    let value = vec![SOURCE.to_ne_bytes().to_vec(); cpus];
    for map in object.maps() {
        let wants_v4 = match map.name().to_string_lossy().as_ref() {
            "filter_ipv4" => true,
            "filter_ipv6" => false,
            _ => continue,
        };
        for host in hosts.iter().filter(|h| h.addr().is_ipv4() == wants_v4) {
            let key = match host.addr() {
                IpAddr::V4(a) => a.octets().to_vec(),
                IpAddr::V6(a) => a.octets().to_vec(),
            };
            map.update_percpu(&key, &value, MapFlags::ANY)
                .map_err(failed)?;
        }
    }
    Ok(Subject {
        name: NAME,
        fd: program(&object, PROGRAM).1,
    })
}

/// The object of the package, where the distributions put it.
fn object() -> Option<PathBuf> {
    command("xdp-filter")?;
    let multiarch = format!("/usr/lib/{}-linux-gnu/bpf", std::env::consts::ARCH);
    let places = [multiarch.as_str(), "/usr/lib64/bpf", "/usr/lib/bpf"];
    let mut files = places
        .map(|dir| PathBuf::from(dir).join(format!("{PROGRAM}.o")))
        .into_iter();
    files.find(|file| fs::exists(file).unwrap_or(false))
}
