//! Management traffic that passes before any rule.

use std::net::IpAddr;

use super::Refusal;
use crate::abi::{self, Shape};
use crate::image::ImageWriter;
use crate::management::{Management, ManagementPort};
use crate::policy::{Policy, PolicyError, mask32, mask128};

/// Writes what the failsafe of the policy and this host let pass, unless the policy has none.
pub(super) fn write(
    policy: &Policy,
    of_host: &[Management],
    shape: &mut Shape,
    image: &mut ImageWriter,
) -> Result<(), Refusal> {
    if of_host.len() > Management::MAX {
        let reason = format!(
            "{} kinds of management traffic of this host, the limit is {}",
            of_host.len(),
            Management::MAX
        );
        return Err(PolicyError::limit(None, reason).into());
    }
    let all = crate::management::of(policy.failsafe(), of_host);
    let mut lines = Vec::new();
    for flow in all {
        let (local, remote) = (&mut shape.local_ports, &mut shape.remote_ports);
        let (bits, port, shift) = match flow.port {
            ManagementPort::Local(port) => (local, port, 16),
            ManagementPort::Remote(port) => (remote, port, 0),
        };
        *bits |= 1 << (port & 63);
        lines.push(line(&flow, u64::from(port) << shift, 0xffff << shift));
    }
    if !lines.is_empty() {
        shape.features |= abi::FEATURE_MANAGEMENT;
        shape.management_count = lines.len() as u32;
        shape.management = image.section(&lines);
    }
    Ok(())
}

fn line(flow: &Management, ports: u64, port_mask: u64) -> abi::Management {
    let (address, mask, v6) = match flow.peer.addr() {
        IpAddr::V4(a) => (
            u128::from(a.to_bits()),
            u128::from(mask32(flow.peer.len())),
            0,
        ),
        IpAddr::V6(a) => (a.to_bits(), mask128(flow.peer.len()), 1),
    };
    abi::Management {
        hi: (address >> 64) as u64,
        lo: address as u64,
        mask_hi: (mask >> 64) as u64,
        mask_lo: mask as u64,
        v6,
        ports,
        port_mask,
        reserved: 0,
    }
}
