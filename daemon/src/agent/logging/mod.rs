//! Where the log goes: stderr, as text or as JSON, by a filter that can be changed while all runs.

mod line;
mod section;

pub(super) use section::{Format, Level, Log};

use std::env;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::{PoisonError, RwLock};

use env_filter::Filter;
use log::{LevelFilter, Metadata, Record};

use super::access::AUDIT;

/// The logger of this process.
#[derive(Debug)]
struct Logger {
    now: RwLock<Now>,
    place: Place,
}

#[derive(Debug)]
struct Now {
    filter: Filter,
    format: Format,
}

/// What reads stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The journal: it has the time itself, and takes the priority from `<N>`.
    Journal,
    Terminal,
    /// A file, a pipe.
    Other,
}

/// Changes what is logged, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Control(&'static Logger);

/// Logs to stderr from now on. To be called once.
pub(super) fn install(log: Log) -> Control {
    let filter = filter(log.level);
    log::set_max_level(most(&filter));
    let logger: &'static Logger = Box::leak(Box::new(Logger {
        now: RwLock::new(Now {
            filter,
            format: log.format,
        }),
        place: Place::of_stderr(),
    }));
    // An error means that there is a logger already, and that one goes on.
    let _ = log::set_logger(logger);
    Control(logger)
}

impl Control {
    /// Logs by this level and in this form from the next record on.
    pub(super) fn set(self, log: Log) {
        let filter = filter(log.level);
        let most = most(&filter);
        let mut now = self.0.now.write().unwrap_or_else(PoisonError::into_inner);
        *now = Now {
            filter,
            format: log.format,
        };
        log::set_max_level(most);
    }
}

/// The library's own report of each step is left to `debug`: the daemon says it when all is done.
fn filter(level: Level) -> Filter {
    let mut filter = env_filter::Builder::new();
    match env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => filter.parse(&text),
        _ => {
            filter.filter_level(level.into());
            if level == Level::Info {
                // The beginning of a path: `xdpgate` would stand for the daemon too.
                filter.filter_module("xdpgate::", LevelFilter::Warn);
            }
            &mut filter
        }
    }
    .build()
}

/// What the filter lets through at most, and [`AUDIT`].
fn most(filter: &Filter) -> LevelFilter {
    filter.filter().max(LevelFilter::Info)
}

impl Place {
    fn of_stderr() -> Self {
        if is_journal() {
            return Self::Journal;
        }
        match anstream::AutoStream::choice(&io::stderr()) {
            anstream::ColorChoice::Never => Self::Other,
            _ => Self::Terminal,
        }
    }
}

/// `JOURNAL_STREAM` is the device and inode of what systemd made stderr, see systemd.exec(5).
fn is_journal() -> bool {
    let stderr = std::fs::metadata("/proc/self/fd/2");
    let (Ok(journal), Ok(stderr)) = (env::var("JOURNAL_STREAM"), stderr) else {
        return false;
    };
    journal == format!("{}:{}", stderr.dev(), stderr.ino())
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        metadata.target() == AUDIT || now.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        if record.target() != AUDIT && !now.filter.matches(record) {
            return;
        }
        let line = match now.format {
            Format::Text => line::text(record, self.place),
            Format::Json => line::json(record),
        };
        // In one piece; and whoever read it may be gone.
        let _ = io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}
