//! Tables of text with columns that align.

use std::fmt;

use anstyle::Style;
use unicode_width::UnicodeWidthStr;

/// Headings.
const HEAD: Style = Style::new().bold();

/// A table; printed with two spaces between columns and no trailing ones.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Align>,
    headings: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

/// To which side a column aligns: numbers to the right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// As text does.
    Left,
    /// As numbers do.
    Right,
}

/// A cell, with the style of its text.
#[derive(Debug)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A cell in a style.
    pub fn styled(style: Style, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            style,
        }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::styled(Style::new(), text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[(&str, Align)]) -> Self {
        Self {
            columns: headings.iter().map(|(_, align)| *align).collect(),
            headings: headings
                .iter()
                .map(|(text, _)| (*text).to_owned())
                .collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, of as many cells as there are headings.
    pub fn row<C: Into<Cell>, const N: usize>(&mut self, cells: [C; N]) {
        self.row_of(cells.map(Into::into).into());
    }

    /// Likewise, where their number is known only at run time.
    pub fn row_of(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings: Vec<Cell> = self
            .headings
            .iter()
            .map(|text| Cell::styled(HEAD, text.as_str()))
            .collect();
        let lines = || std::iter::once(&headings).chain(&self.rows);
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|n| lines().map(|row| row[n].text.width()).max().unwrap_or(0))
            .collect();
        for row in lines() {
            let last = row.iter().rposition(|cell| !cell.text.is_empty());
            let used = last.map_or(0, |n| n + 1);
            for (n, cell) in row.iter().enumerate().take(used) {
                let pad = widths[n].saturating_sub(cell.text.width());
                let styled = format_args!("{0}{1}{0:#}", cell.style, cell.text);
                match self.columns[n] {
                    Align::Right => write!(f, "{:pad$}{styled}", "")?,
                    Align::Left if n + 1 == used => write!(f, "{styled}")?,
                    Align::Left => write!(f, "{styled}{:pad$}", "")?,
                }
                if n + 1 < used {
                    f.write_str("  ")?;
                }
            }
            writeln!(f)?;
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
        table.row(["block-bad", "7", ""]);
        table.row(["über", "12345678", "!"]);
        table.row(["封锁", "1", ""]);
        let plain = anstream::adapter::strip_str(&table.to_string()).to_string();
        assert_eq!(
            plain,
            "RULE        PACKETS\nblock-bad         7\nüber       12345678  !\n封锁              1\n"
        );
    }
}
