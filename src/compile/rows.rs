//! Rows: one bit per structured rule, with a summary word in front.

use std::collections::HashMap;

use crate::abi::{LINE_BYTES, Line};
use crate::image::ImageWriter;
use bytemuck::Zeroable;

const WORDS_PER_LINE: usize = LINE_BYTES / 8;

/// Lines that one row takes: a summary word, then one bit per structured rule.
pub(super) fn row_lines(structured: usize) -> u32 {
    if structured == 0 {
        0
    } else {
        (1 + words(structured)).div_ceil(WORDS_PER_LINE) as u32
    }
}

fn words(structured: usize) -> usize {
    structured.div_ceil(64)
}

/// A set of structured rules.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Row(Box<[u64]>);

impl Row {
    pub(super) fn empty(structured: usize) -> Self {
        Self(vec![0; words(structured)].into())
    }

    pub(super) fn set(&mut self, bit: usize) {
        self.0[bit / 64] |= 1 << (bit % 64);
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
    structured: usize,
}

impl RowPool {
    pub(super) fn new(structured: usize) -> Self {
        Self {
            rows: Vec::new(),
            numbers: HashMap::new(),
            structured,
        }
    }

    /// Whether there is only the empty row, because no rule is structured.
    pub(super) fn is_trivial(&self) -> bool {
        self.structured == 0
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

    /// Writes all rows and returns the first line.
    pub(super) fn write(&self, image: &mut ImageWriter) -> u32 {
        let stride = row_lines(self.structured) as usize * WORDS_PER_LINE;
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
