//! Images that no compiler made: the reader answers, and never panics or hangs.
//!
//! The first byte picks a real image, which the rest patches word by word, or says that the rest is
//! the whole image.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use xdpgate::compile::compile;
use xdpgate::image::{Image, ImageReader, Surroundings};
use xdpgate::packet::Parsed;
use xdpgate_fuzz::packet::{addressed, ip};
use xdpgate_fuzz::{equal::options, policies, pool};

static IMAGES: LazyLock<Vec<Image>> = LazyLock::new(|| {
    let compiled = |rows_up_to| {
        let policies = policies();
        let image = |p| compile(p, &options(p, [1, 2], rows_up_to)).expect("an image");
        policies.iter().map(image).collect::<Vec<_>>()
    };
    [compiled(0), compiled(1000)].concat()
});

static PACKETS: LazyLock<Vec<Parsed>> = LazyLock::new(|| {
    let v4 = pool::V4_ADDRESSES.iter().map(|a| (*a).into());
    let v6 = pool::V6_ADDRESSES.iter().map(|a| (*a).into());
    let peers = ["10.1.2.4", "2001:db8:1::2"];
    let mut frames = vec![ip("10.1.2.3", "10.1.2.4").tcp(1, 80).build()];
    for address in v4
        .map(std::net::IpAddr::V4)
        .chain(v6.map(std::net::IpAddr::V6))
    {
        let peer = peers[usize::from(address.is_ipv6())]
            .parse()
            .expect("an address");
        frames.push(addressed(address, peer).tcp(53, 443).build());
        frames.push(addressed(peer, address).icmp(8, 0).build());
    }
    frames.iter().map(|f| Parsed::from_frame(f)).collect()
});

fuzz_target!(|input: &[u8]| {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    let image = match IMAGES.get(usize::from(*kind)) {
        None => Image::hostile(rest),
        Some(image) => {
            let mut bytes = image.as_bytes().to_vec();
            for patch in rest.chunks_exact(7) {
                let at = u32::from_le_bytes([patch[0], patch[1], patch[2], 0]) as usize * 4;
                let at = at % bytes.len();
                bytes[at..at + 4].copy_from_slice(&patch[3..]);
            }
            Image::hostile(&bytes)
        }
    };
    let reader = ImageReader::new(&image).expect("its header is in order");
    for packet in PACKETS.iter() {
        for (ticks, scopes) in [(0, 0), (u64::MAX, u64::MAX)] {
            let said = reader.judge(packet, Surroundings { ticks, scopes });
            assert!(said.passed.len() <= 4096);
        }
    }
});
