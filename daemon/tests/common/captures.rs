//! Capture files: every form that `xdpgate eval` reads.

/// A frame and when it came, in nanoseconds since the epoch.
pub type Timed<'a> = (u64, &'a [u8]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Little,
    Big,
}

impl Order {
    fn u16(self, value: u16) -> [u8; 2] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    fn u32(self, value: u32) -> [u8; 4] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }
}

/// The usual form: little-endian, microseconds, Ethernet; a frame a millisecond.
pub fn simple(frames: &[Vec<u8>]) -> Vec<u8> {
    let timed: Vec<Timed<'_>> = (0..)
        .zip(frames)
        .map(|(n, f)| (n * 1_000_000, f.as_slice()))
        .collect();
    pcap(Order::Little, false, 1, &timed)
}

/// A classic capture file.
pub fn pcap(order: Order, nanoseconds: bool, linktype: u32, frames: &[Timed<'_>]) -> Vec<u8> {
    let magic = if nanoseconds {
        0xa1b2_3c4d
    } else {
        0xa1b2_c3d4
    };
    let mut out = Vec::new();
    out.extend(order.u32(magic));
    out.extend(order.u16(2));
    out.extend(order.u16(4));
    out.extend([0, 0, 65535, linktype].map(|word| order.u32(word)).concat());
    for (at, frame) in frames {
        let fraction = at % 1_000_000_000 / if nanoseconds { 1 } else { 1000 };
        let length = frame.len() as u32;
        let header = [(at / 1_000_000_000) as u32, fraction as u32, length, length];
        out.extend(header.map(|word| order.u32(word)).concat());
        out.extend(*frame);
    }
    out
}

/// A pcapng file whose times are in nanoseconds and 1000 s late, which an option says.
pub fn pcapng(order: Order, linktype: u16, frames: &[Timed<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut block = |kind: u32, mut body: Vec<u8>| {
        body.resize(body.len().next_multiple_of(4), 0);
        let length = order.u32(body.len() as u32 + 12);
        out.extend(order.u32(kind));
        out.extend(length);
        out.extend(body);
        out.extend(length);
    };
    let version = [order.u16(1), order.u16(0)].concat();
    block(
        0x0a0d_0d0a,
        [&order.u32(0x1a2b_3c4d)[..], &version, &[0xff; 8]].concat(),
    );

    let offset: i64 = -1000;
    let offset = match order {
        Order::Little => offset.to_le_bytes(),
        Order::Big => offset.to_be_bytes(),
    };
    let mut interface = [order.u16(linktype), [0; 2]].concat();
    interface.extend(order.u32(0));
    interface.extend([&order.u16(9)[..], &order.u16(1), &[9, 0, 0, 0]].concat());
    interface.extend([&order.u16(14)[..], &order.u16(8), &offset].concat());
    interface.extend([0; 4]);
    block(1, interface);

    for (at, frame) in frames {
        let at = at + 1000 * 1_000_000_000;
        let length = frame.len() as u32;
        let header = [0, (at >> 32) as u32, at as u32, length, length];
        let mut body = header.map(|word| order.u32(word)).concat();
        body.extend(*frame);
        block(6, body);
    }
    out
}
