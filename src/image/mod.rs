//! The policy image: what the compiler makes of a policy and the XDP program reads.

mod reader;
mod writer;

pub use reader::{ImageError, ImageReader, Judgement, Surroundings};
pub(crate) use writer::ImageWriter;

use crate::abi::{Line, Shape};
use crate::compile::Basis;
use crate::policy::{RuleId, SetName};
use std::sync::Arc;

/// XXH3 over the lines behind the header: finds images that were cut off or altered.
fn checksum(lines: &[Line]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytemuck::cast_slice(lines))
}

/// What of lines is not as they were sealed.
#[cfg_attr(
    not(feature = "kernel"),
    allow(dead_code, reason = "of lines in the kernel")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    Header,
    Lines,
}

#[cfg_attr(
    not(feature = "kernel"),
    allow(dead_code, reason = "of lines in the kernel")
)]
impl Damage {
    /// Compares lines with the header that they were sealed with.
    pub(crate) fn of(lines: &[Line], sealed: &Shape) -> Option<Self> {
        let Some((header, body)) = lines.split_at_checked(writer::header_lines()) else {
            return Some(Self::Header);
        };
        let header: &[u8] = bytemuck::cast_slice(header);
        if header[..size_of::<Shape>()] != *bytemuck::bytes_of(sealed) {
            return Some(Self::Header);
        }
        (checksum(body) != sealed.checksum).then_some(Self::Lines)
    }
}

/// The hash of an IPv4 address in the table of hosts: a bijection for each seed, so no two addresses
/// share one. Mirrors `hash4` in `bpf/lookup.h`.
pub(crate) fn hash4(seed: [u64; 2], address: u32) -> u64 {
    let h = (u64::from(address) ^ seed[0]).wrapping_mul(MIX_1);
    let h = (h ^ (h >> 32) ^ seed[1]).wrapping_mul(MIX_2);
    h ^ (h >> 29)
}

/// The hash of an IPv6 address (length 0) or prefix: NH over its words, keyed by the whole seed, so
/// that keys chosen without knowing it collide with a probability of 2^-32 (UMAC: Black et al.,
/// CRYPTO 1999). Mirrors `hash6` in `bpf/lookup.h`.
pub(crate) fn hash6(seed: [u64; 2], address: u128, length: u32) -> u64 {
    let keys = [seed[0] >> 32, seed[0], seed[1] >> 32, seed[1]];
    let word =
        |i: usize| u64::from(((address >> (96 - 32 * i)) as u32).wrapping_add(keys[i] as u32));
    let h = (word(0) * word(1)).wrapping_add(word(2) * word(3));
    let h = (h ^ (h >> 32) ^ u64::from(length)).wrapping_mul(MIX_1);
    let h = (h ^ (h >> 29)).wrapping_mul(MIX_2);
    h ^ (h >> 32)
}

/// The home line of a key in a table of `lines`, by the high half of its hash.
pub(crate) fn home_line(hash: u64, lines: u32) -> u32 {
    (((hash >> 32) * u64::from(lines)) >> 32) as u32
}

/// The other line where a key may lie, by the low half of its hash.
pub(crate) fn other_line(hash: u64, lines: u32) -> u32 {
    (((hash & 0xffff_ffff) * u64::from(lines)) >> 32) as u32
}

/// The constants of Murmur3's finalizer.
const MIX_1: u64 = 0xff51_afd7_ed55_8ccd;
const MIX_2: u64 = 0xc4ce_b9fe_1a85_ec53;

/// A compiled policy: one flat, position-independent array of 64-byte lines.
///
/// When compiled as a whole the same policy, seed and counter slots give the same bytes. The layout
/// is that of `bpf/abi.h`; byte order is the host's, because an image is made on the node that runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub(crate) lines: Vec<Line>,
    pub(crate) shape: Shape,
    pub(crate) names: Arc<Names>,
    /// What later compilations may build on.
    pub(crate) basis: Option<Arc<Basis>>,
    /// Hosts that were changed since it was compiled as a whole, by table: source or destination,
    /// IPv4 or IPv6.
    pub(crate) edits: [[usize; 2]; 2],
}

/// What the numbers in an image stand for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Names {
    /// The rules by number.
    pub(crate) rules: Vec<RuleId>,
    /// Lists of names and globs, by interface scope.
    pub(crate) scopes: Vec<Vec<String>>,
    /// By set that counts its entries: the record of each entry, in the order of the set.
    pub(crate) entries: Vec<(SetName, Vec<u32>)>,
}

impl Image {
    /// The image as bytes, a multiple of 64.
    pub fn as_bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.lines)
    }

    /// How many 64-byte lines the image has.
    pub fn line_count(&self) -> usize {
        self.lines.len()
    }

    /// The rules that the image holds, in evaluation order; the position is the rule's number.
    pub fn rules(&self) -> &[RuleId] {
        &self.names.rules
    }

    /// The interface scopes by bit: the lists of names and globs that rules are for.
    pub fn scopes(&self) -> &[Vec<String>] {
        &self.names.scopes
    }

    /// The same with other lines, or with none while they lie elsewhere.
    #[cfg_attr(
        not(feature = "kernel"),
        allow(dead_code, reason = "they lie in the kernel")
    )]
    pub(crate) fn with_lines(self, lines: Vec<Line>) -> Self {
        Self { lines, ..self }
    }

    /// Makes the header fit to lines that were changed.
    pub(crate) fn seal_again(&mut self) {
        writer::seal(&mut self.shape, &mut self.lines);
    }

    /// How many rules are found by rows of bits.
    pub fn rowed_count(&self) -> usize {
        self.shape.rowed_count as usize
    }

    #[cfg_attr(
        not(feature = "kernel"),
        allow(dead_code, reason = "rodata of the program")
    )]
    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }
}

/// For the fuzz target that reads images which no compiler made.
#[cfg(fuzzing)]
impl Image {
    /// An image of these bytes, cut to whole lines, with magic, layout, length and checksum made to
    /// fit: they would hide everything behind them.
    pub fn hostile(bytes: &[u8]) -> Self {
        let mut lines =
            vec![bytemuck::Zeroable::zeroed(); writer::header_lines().max(bytes.len() / 64)];
        let all: &mut [u8] = bytemuck::cast_slice_mut::<Line, u8>(&mut lines);
        let length = bytes.len().min(all.len());
        all[..length].copy_from_slice(&bytes[..length]);
        let shape = bytemuck::pod_read_unaligned(&all[..size_of::<Shape>()]);
        let body = lines.split_off(writer::header_lines());
        let writer = ImageWriter::with_body(body);
        writer.finish(shape, Names::default(), None)
    }
}
