//! Tables of text with columns that align.

use std::fmt;

/// A table; printed with two spaces between columns and no trailing ones.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

/// To which side a column aligns: numbers to the right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

impl Table {
    /// A table with these headings.
    pub(super) fn new(headings: &[(&str, Align)]) -> Self {
        Self {
            columns: headings.iter().map(|(_, align)| *align).collect(),
            rows: vec![
                headings
                    .iter()
                    .map(|(text, _)| (*text).to_owned())
                    .collect(),
            ],
        }
    }

    /// Adds a row, of as many cells as there are headings.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.columns.len());
        self.rows.push(cells.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |n: usize| self.rows.iter().map(|row| row[n].chars().count()).max();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|n| width(n).unwrap_or_default())
            .collect();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, align), width) in row.iter().zip(&self.columns).zip(&widths) {
                match align {
                    Align::Left => line += &format!("{cell:<width$}  "),
                    Align::Right => line += &format!("{cell:>width$}  "),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Align, Table};

    #[test]
    fn columns_align_and_lines_do_not_trail() {
        let mut table = Table::new(&[
            ("RULE", Align::Left),
            ("PACKETS", Align::Right),
            ("", Align::Left),
        ]);
        table.row(["block-bad".into(), "7".into(), String::new()]);
        table.row(["über".into(), "12345678".into(), "!".into()]);
        assert_eq!(
            table.to_string(),
            "RULE        PACKETS\nblock-bad         7\nüber       12345678  !\n"
        );
    }
}
