//! Ethernet frames.

use etherparse::PacketBuilder;

const MACS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);

/// A UDP packet between two addresses of one family, from port 40000.
pub fn udp(src: &str, dst: &str, dport: u16) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(MACS.0, MACS.1);
    let ip = match (
        src.parse().expect("an address"),
        dst.parse().expect("an address"),
    ) {
        (std::net::IpAddr::V4(src), std::net::IpAddr::V4(dst)) => {
            ethernet.ipv4(src.octets(), dst.octets(), 64)
        }
        (std::net::IpAddr::V6(src), std::net::IpAddr::V6(dst)) => {
            ethernet.ipv6(src.octets(), dst.octets(), 64)
        }
        _ => panic!("{src} and {dst} are of two families"),
    };
    let udp = ip.udp(40000, dport);
    let mut frame = Vec::new();
    udp.write(&mut frame, b"payload").expect("a frame");
    frame
}

/// An ARP request, which no rule is asked about.
pub fn arp() -> Vec<u8> {
    [
        &MACS.1[..],
        &MACS.0,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &[0; 20],
    ]
    .concat()
}
