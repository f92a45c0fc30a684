//! Rows: one bit per rule, with a summary word in front.

use std::collections::HashMap;

use crate::abi::{LINE_BYTES, Line};
use crate::image::ImageWriter;
use bytemuck::Zeroable;

const WORDS_PER_LINE: usize = LINE_BYTES / 8;

/// Lines that one row takes: a summary word, then one bit per rule.
pub(super) fn row_lines(bits: usize) -> u32 {
    if bits == 0 {
        0
    } else {
        (1 + words(bits)).div_ceil(WORDS_PER_LINE) as u32
    }
}

fn words(bits: usize) -> usize {
    bits.div_ceil(64)
}

/// A set of rules.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Row(Box<[u64]>);

impl Row {
    pub(super) fn empty(bits: usize) -> Self {
        Self(vec![0; words(bits)].into())
    }

    pub(super) fn set(&mut self, bit: usize) {
        self.0[bit / 64] |= 1 << (bit % 64);
    }

    /// How many rules are in the set.
    pub(super) fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub(super) fn clear(&mut self, bit: usize) {
        self.0[bit / 64] &= !(1 << (bit % 64));
    }
}

/// The distinct rows of one axis.
#[derive(Debug)]
pub(super) struct RowPool {
    rows: Vec<Row>,
    numbers: HashMap<Row, u32>,
    bits: usize,
}

impl RowPool {
    pub(super) fn new(bits: usize) -> Self {
        Self {
            rows: Vec::new(),
            numbers: HashMap::new(),
            bits,
        }
    }

    /// The number of this row in the axis.
    pub(super) fn intern(&mut self, row: &Row) -> u32 {
        if let Some(number) = self.numbers.get(row) {
            return *number;
        }
        let number = self.rows.len() as u32;
        self.rows.push(row.clone());
        self.numbers.insert(row.clone(), number);
        number
    }

    pub(super) fn get(&self, number: u32) -> &Row {
        &self.rows[number as usize]
    }

    /// The first word of each row.
    pub(super) fn words(&self) -> Vec<u64> {
        self.rows.iter().map(|row| row.0[0]).collect()
    }

    /// The most bits of `which` that one row has.
    pub(super) fn most(&self, which: &Row) -> usize {
        let common = |row: &Row| {
            let words = row.0.iter().zip(&which.0);
            words.map(|(a, b)| (a & b).count_ones() as usize).sum()
        };
        self.rows.iter().map(common).max().unwrap_or(0)
    }

    /// Writes all rows and returns the first line.
    pub(super) fn write(&self, image: &mut ImageWriter) -> u32 {
        let stride = row_lines(self.bits) as usize * WORDS_PER_LINE;
        let mut out = vec![Line::zeroed(); self.rows.len() * stride / WORDS_PER_LINE];
        let all: &mut [u64] = bytemuck::cast_slice_mut(&mut out);
        for (row, out) in self.rows.iter().zip(all.chunks_exact_mut(stride.max(1))) {
            for (i, word) in row.0.iter().enumerate() {
                out[1 + i] = *word;
                out[0] |= u64::from(*word != 0) << i;
            }
        }
        image.section(&out)
    }
}
