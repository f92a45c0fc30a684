//! Prefixes that are not hosts: a 16-8-8 trie for IPv4, a search over lengths for IPv6.

use std::collections::HashMap;

use super::address::{Address, Found};
use super::{Refusal, hosts};
use crate::abi::{AddressIndex, BLOCK_LINES, ENTRY_BLOCK, LENGTH_STEPS, LengthNode};
use crate::image::ImageWriter;
use crate::policy::PolicyError;
use bytemuck::Zeroable;

/// Blocks of 1 KiB that a trie may have: 512 MiB.
const MAX_BLOCKS: usize = 1 << 19;

/// Writes the multibit trie. `prefixes` are sorted, so a prefix comes after all that cover it and
/// never overwrites a longer one.
pub(super) fn write4(
    prefixes: &[Found<u32>],
    index: &mut AddressIndex,
    image: &mut ImageWriter,
) -> Result<(), PolicyError> {
    if prefixes.is_empty() {
        return Ok(());
    }
    let mut root = vec![index.miss; 1 << 16];
    let mut blocks: Vec<[u32; 256]> = Vec::new();
    for p in prefixes {
        if blocks.len() > MAX_BLOCKS {
            return Err(PolicyError::limit(
                None,
                format!("its IPv4 prefixes need more than {MAX_BLOCKS} KiB of tables"),
            )
            .mend("list hosts in place of prefixes of length 25 to 31"));
        }
        if p.len <= 16 {
            let first = (p.address >> 16) as usize;
            root[first..first + (1 << (16 - p.len))].fill(p.outcome);
            continue;
        }
        let block = block_of(&mut root[(p.address >> 16) as usize], &mut blocks);
        let at = (p.address >> 8 & 255) as usize;
        if p.len <= 24 {
            blocks[block][at..at + (1 << (24 - p.len))].fill(p.outcome);
            continue;
        }
        let mut entry = blocks[block][at];
        let inner = block_of(&mut entry, &mut blocks);
        blocks[block][at] = entry;
        let at = (p.address & 255) as usize;
        blocks[inner][at..at + (1 << (32 - p.len))].fill(p.outcome);
    }
    index.root = image.section(&root);
    index.block_count = blocks.len() as u32;
    const { assert!(BLOCK_LINES as usize * 64 == 256 * 4) };
    index.blocks = image.section(blocks.as_flattened());
    Ok(())
}

/// The block behind an entry, made from the leaf that was there.
fn block_of(entry: &mut u32, blocks: &mut Vec<[u32; 256]>) -> usize {
    if *entry & ENTRY_BLOCK == 0 {
        blocks.push([*entry; 256]);
        *entry = ENTRY_BLOCK | (blocks.len() - 1) as u32;
    }
    (*entry & !ENTRY_BLOCK) as usize
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
        while covering
            .last()
            .is_some_and(|c| p.address.truncate(c.len) != c.address)
        {
            covering.pop();
        }
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
