//! Rules that ask for one IPv4 five-tuple each: a hash table of their own.

use std::collections::BTreeMap;

use super::allot::{Place, exact_key};
use super::{Refusal, hosts};
use crate::abi::{self, Shape};
use crate::image::ImageWriter;
use crate::policy::Rule;

/// Writes the table of the rules that have their place in it, if there are any. Of rules with the
/// same five-tuple only the first can match.
pub(super) fn write(
    rules: &[&Rule],
    places: &[Place],
    seed: [u64; 2],
    shape: &mut Shape,
    image: &mut ImageWriter,
) -> Result<(), Refusal> {
    let mut first: BTreeMap<u128, u32> = BTreeMap::new();
    for ((number, rule), place) in (0u32..).zip(rules).zip(places) {
        if let (Place::Exact, Some(key)) = (place, exact_key(rule)) {
            first.entry(key).or_insert(number);
        }
    }
    if first.is_empty() {
        return Ok(());
    }
    let keys: Vec<(u128, u8, u32)> = first
        .into_iter()
        .map(|(key, number)| (key, 0, number + 1))
        .collect();
    let table = hosts::build6(&keys, seed)?;
    shape.features |= abi::FEATURE_EXACT;
    shape.exact = image.section(&table);
    shape.exact_lines = table.len() as u32;
    Ok(())
}
