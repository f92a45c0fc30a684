//! Lays out the sections of an image.

use bytemuck::{Pod, Zeroable};

use super::{Image, Names, checksum};
use crate::abi::{IMAGE_LAYOUT, IMAGE_MAGIC, LINE_BYTES, Line, Shape};
use crate::compile::Basis;

/// Appends sections behind room for the header.
pub(crate) struct ImageWriter {
    lines: Vec<Line>,
}

impl ImageWriter {
    pub(crate) fn new() -> Self {
        Self {
            lines: vec![Line::zeroed(); header_lines()],
        }
    }

    /// The body of an image that was not made section by section.
    #[cfg(fuzzing)]
    pub(crate) fn with_body(body: Vec<Line>) -> Self {
        let mut writer = Self::new();
        writer.lines.extend(body);
        writer
    }

    /// Appends the items, back to back, and returns the number of the first line. Items never
    /// straddle lines: their size divides that of a line.
    pub(crate) fn section<T: Pod>(&mut self, items: &[T]) -> u32 {
        const { assert!(LINE_BYTES.is_multiple_of(size_of::<T>())) };
        let first = self.lines.len();
        let bytes: &[u8] = bytemuck::cast_slice(items);
        self.lines
            .resize(first + bytes.len().div_ceil(LINE_BYTES), Line::zeroed());
        bytemuck::cast_slice_mut::<Line, u8>(&mut self.lines[first..])[..bytes.len()]
            .copy_from_slice(bytes);
        first as u32
    }

    /// Puts the header in front and seals the image.
    pub(crate) fn finish(mut self, mut shape: Shape, names: Names, basis: Option<Basis>) -> Image {
        shape.magic = IMAGE_MAGIC;
        shape.layout = IMAGE_LAYOUT;
        shape.lines = self.lines.len() as u32;
        seal(&mut shape, &mut self.lines);
        Image {
            lines: self.lines,
            shape,
            names: names.into(),
            basis: basis.map(Into::into),
            edits: [[0; 2]; 2],
        }
    }
}

/// Writes the header in front of lines that have room for it, with their checksum.
pub(super) fn seal(shape: &mut Shape, lines: &mut [Line]) {
    let (header, body) = lines.split_at_mut(header_lines());
    shape.checksum = checksum(body);
    let bytes = bytemuck::bytes_of(shape);
    bytemuck::cast_slice_mut::<Line, u8>(header)[..bytes.len()].copy_from_slice(bytes);
}

pub(super) const fn header_lines() -> usize {
    size_of::<Shape>().div_ceil(LINE_BYTES)
}
