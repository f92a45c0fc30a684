//! Prefixes that are not hosts: a 16-8-8 trie for IPv4, a search over lengths for IPv6.
//!
//! Most blocks of the trie have few different entries. These are packed, one entry for each run of
//! equal ones, found by counting bits (Asai, Ohara: "Poptrie", SIGCOMM 2015).

use std::collections::HashMap;

use super::address::{Address, Found, leave};
use super::{Refusal, hosts};
use crate::abi::{
    AddressIndex, BLOCK_LINES, ENTRY_BLOCK, ENTRY_PACKED, LENGTH_STEPS, LengthNode, Line,
    PACKED_ENTRIES, PackedBlock,
};
use crate::image::ImageWriter;
use crate::policy::PolicyError;
use bytemuck::Zeroable;

/// Lines that blocks may take: 512 MiB.
const MAX_LINES: usize = 1 << 23;

/// Runs of equal entries up to which a block is packed: two lines.
const PACKED_RUNS: usize = PACKED_ENTRIES + 16;

/// Writes the multibit trie. `prefixes` are sorted, so a prefix comes after all that cover it and
/// never overwrites a longer one, and those of one block follow each other.
pub(super) fn write4(
    prefixes: &[Found<u32>],
    index: &mut AddressIndex,
    image: &mut ImageWriter,
) -> Result<(), PolicyError> {
    if prefixes.is_empty() {
        return Ok(());
    }
    let mut root = vec![index.miss; 1 << 16];
    let mut blocks = Blocks::default();
    for group in
        prefixes.chunk_by(|a, b| a.len > 16 && b.len > 16 && a.address >> 16 == b.address >> 16)
    {
        let p = group[0];
        let at = (p.address >> 16) as usize;
        if p.len <= 16 {
            root[at..at + (1 << (16 - p.len))].fill(p.outcome);
        } else {
            root[at] = blocks.block(group, 24, root[at]);
        }
        if blocks.0.len() > MAX_LINES {
            let reason = format!("its IPv4 prefixes need more than {MAX_LINES} lines of tables");
            return Err(PolicyError::limit(None, reason)
                .mend("list hosts in place of prefixes of length 25 to 31"));
        }
    }
    index.root = image.section(&root);
    index.block_count = blocks.0.len() as u32;
    index.blocks = image.section(&blocks.0);
    Ok(())
}

/// The lines of all blocks.
#[derive(Default)]
struct Blocks(Vec<Line>);

impl Blocks {
    /// Adds the block of these prefixes, all longer than the block's own, of which `len` is the
    /// longest that an entry of it stands for. Returns the entry that leads to it.
    fn block(&mut self, prefixes: &[Found<u32>], len: u8, around: u32) -> u32 {
        let mut entries = [around; 256];
        let shift = 32 - len;
        let groups = prefixes.chunk_by(|a, b| {
            a.len > len && b.len > len && a.address >> shift == b.address >> shift
        });
        for group in groups {
            let p = group[0];
            let at = (p.address >> shift & 255) as usize;
            if p.len <= len {
                entries[at..at + (1 << (len - p.len))].fill(p.outcome);
            } else {
                entries[at] = self.block(group, len + 8, entries[at]);
            }
        }
        let first = self.0.len() as u32;
        let runs: Vec<&[u32]> = entries.chunk_by(|a, b| a == b).collect();
        if runs.len() > PACKED_RUNS {
            const { assert!(BLOCK_LINES as usize * 64 == 256 * 4) };
            self.0.extend_from_slice(&lines_of(&entries));
            return ENTRY_BLOCK | first;
        }
        let mut packed = PackedBlock::zeroed();
        let mut position = 0;
        for (number, run) in runs.iter().enumerate() {
            if number > 0 {
                packed.begins[position / 64] |= 1 << (position % 64);
            }
            position += run.len();
        }
        for word in 1..4 {
            packed.before[word] =
                packed.before[word - 1] + packed.begins[word - 1].count_ones() as u8;
        }
        let values: Vec<u32> = runs.iter().map(|run| run[0]).collect();
        let (near, far) = values.split_at(values.len().min(PACKED_ENTRIES));
        packed.entries[..near.len()].copy_from_slice(near);
        self.0.push(bytemuck::cast(packed));
        for entries in far.chunks(16) {
            let mut line = Line::zeroed();
            line.0[..entries.len()].copy_from_slice(entries);
            self.0.push(line);
        }
        ENTRY_PACKED | first
    }
}

fn lines_of(entries: &[u32; 256]) -> [Line; BLOCK_LINES as usize] {
    let mut lines = [Line::zeroed(); BLOCK_LINES as usize];
    bytemuck::cast_slice_mut::<Line, u32>(&mut lines).copy_from_slice(entries);
    lines
}

/// Writes the table of prefixes and markers and the search over their lengths.
pub(super) fn write6(
    prefixes: &[Found<u128>],
    index: &mut AddressIndex,
    seed: [u64; 2],
    image: &mut ImageWriter,
) -> Result<(), Refusal> {
    if prefixes.is_empty() {
        return Ok(());
    }
    let mut lengths: Vec<u8> = prefixes.iter().map(|p| p.len).collect();
    lengths.sort_unstable();
    lengths.dedup();
    // Node 0 is where the search ends.
    let mut nodes = vec![LengthNode::zeroed()];
    add_nodes(&lengths, &mut nodes);

    let mut table: HashMap<(u128, u8), u32> = HashMap::with_capacity(prefixes.len() * 2);
    let mut covering: Vec<Found<u128>> = Vec::new();
    for p in prefixes {
        leave(&mut covering, p.address);
        covering.push(*p);
        let mut node = 1;
        for _ in 0..LENGTH_STEPS {
            let LengthNode {
                length,
                after_hit,
                after_miss,
                ..
            } = nodes[node as usize];
            let length = length as u8;
            if length > p.len {
                node = after_miss;
                continue;
            }
            let key = (p.address.truncate(length), length);
            let best = covering.iter().rev().find(|c| c.len <= length);
            table.insert(key, best.map_or(index.miss, |c| c.outcome));
            if length == p.len {
                break;
            }
            node = after_hit;
        }
    }
    let mut keys: Vec<(u128, u8, u32)> = table
        .into_iter()
        .map(|((address, len), outcome)| (address, len, outcome))
        .collect();
    keys.sort_unstable();
    let table = hosts::build6(&keys, seed)?;
    index.root = image.section(&nodes);
    index.depth = usize::BITS - lengths.len().leading_zeros();
    index.blocks = image.section(&table);
    index.block_count = table.len() as u32;
    Ok(())
}

/// Appends a balanced search tree over the lengths and returns its root, 0 for none.
fn add_nodes(lengths: &[u8], nodes: &mut Vec<LengthNode>) -> u32 {
    if lengths.is_empty() {
        return 0;
    }
    let middle = lengths.len() / 2;
    let length = lengths[middle];
    let mask = crate::policy::mask128(length);
    let at = nodes.len();
    nodes.push(LengthNode {
        mask_hi: (mask >> 64) as u64,
        mask_lo: mask as u64,
        length: u32::from(length),
        ..LengthNode::zeroed()
    });
    let after_miss = add_nodes(&lengths[..middle], nodes);
    let after_hit = add_nodes(&lengths[middle + 1..], nodes);
    nodes[at].after_miss = after_miss;
    nodes[at].after_hit = after_hit;
    at as u32
}
