//! Crafted frames.

use std::net::Ipv4Addr;

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, PacketBuilder, VlanId};

use crate::Result;

/// In every payload, by which frames of the demo are told from others.
pub(crate) const MARK: &[u8] = b"xdpgate demo traffic";

const FROM_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Everybody takes it.
const TO_MAC: [u8; 6] = [0xff; 6];
const SPORT: u16 = 40000;

/// A UDP packet.
pub(crate) fn udp(from: &str, to: &str, port: u16) -> Result<Vec<u8>> {
    let (from, to): (Ipv4Addr, Ipv4Addr) = (from.parse()?, to.parse()?);
    let packet = PacketBuilder::ethernet2(FROM_MAC, TO_MAC)
        .ipv4(from.octets(), to.octets(), 64)
        .udp(SPORT, port);
    let mut frame = Vec::new();
    packet.write(&mut frame, MARK)?;
    Ok(frame)
}

/// A UDP packet in VLAN 42.
pub(crate) fn tagged(from: &str, to: &str, port: u16) -> Result<Vec<u8>> {
    let (from, to): (Ipv4Addr, Ipv4Addr) = (from.parse()?, to.parse()?);
    let packet = PacketBuilder::ethernet2(FROM_MAC, TO_MAC)
        .single_vlan(VlanId::try_new(42)?)
        .ipv4(from.octets(), to.octets(), 64)
        .udp(SPORT, port);
    let mut frame = Vec::new();
    packet.write(&mut frame, MARK)?;
    Ok(frame)
}

/// UDP packets in two fragments each: only the first one of a pair has ports.
pub(crate) fn fragments(from: &str, to: &str, pairs: u64) -> Result<Vec<Vec<u8>>> {
    let (from, to): (Ipv4Addr, Ipv4Addr) = (from.parse()?, to.parse()?);
    let mut first = Vec::new();
    let ports = [SPORT, 9000, 8 + 24 + MARK.len() as u16, 0];
    first.extend(ports.iter().flat_map(|word| word.to_be_bytes()));
    first.extend(MARK);
    first.resize(32, 0);
    let mut frames = Vec::new();
    for id in 0..pairs {
        for (payload, offset) in [(first.as_slice(), 0), (MARK, first.len() as u16 / 8)] {
            let mut ip = Ipv4Header::new(
                payload.len() as u16,
                64,
                IpNumber::UDP,
                from.octets(),
                to.octets(),
            )?;
            ip.identification = id as u16;
            ip.dont_fragment = false;
            ip.more_fragments = offset == 0;
            ip.fragment_offset = IpFragOffset::try_new(offset)?;
            ip.header_checksum = ip.calc_header_checksum();
            let mut frame = [&TO_MAC[..], &FROM_MAC, &[0x08, 0x00]].concat();
            ip.write(&mut frame)?;
            frame.extend(payload);
            frames.push(frame);
        }
    }
    Ok(frames)
}
