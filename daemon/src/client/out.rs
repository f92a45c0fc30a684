//! What goes to stdout: text, coloured where that is seen, and JSON.

use std::fmt::Display;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use prost::{Message, Name};
use serde::Serialize;

use super::json;
use crate::Failure;

/// Whether text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Color {
    /// Makes it hold for what this process prints.
    pub(super) fn set(self) {
        let choice = match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
    }
}

/// What goes well.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// What is to be looked at.
pub(super) const WARN: Style = AnsiColor::Yellow.on_default();
/// What goes wrong, or is dropped.
pub(super) const BAD: Style = AnsiColor::Red.on_default();
/// Headings.
pub(super) const HEAD: Style = Style::new().bold();

/// Text in a style; the codes are taken out again where no colour is wanted.
pub(super) fn styled(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Prints text.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| Failure::output(&e))
}

/// Prints a value as indented JSON.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(Failure::operation)?;
    write(&(text + "\n"))
}

/// Prints a value as one line of JSON: of a stream.
pub(super) fn print_json_line(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(Failure::operation)?;
    write(&(text + "\n"))
}

/// Prints a message of the API: as JSON if that is asked for, else as what `text` makes of it.
pub(super) fn answer<M: Message + Name>(
    as_json: bool,
    message: &M,
    text: impl FnOnce(&M) -> String,
) -> Result<(), Failure> {
    match as_json {
        true => print_json(&json::of(message)?),
        false => print(&text(message)),
    }
}

fn write(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| Failure::output(&e))
}
