//! Where the log goes: stderr, as text or as JSON, by a filter that can be changed while all runs.

mod line;
mod section;

pub use section::{Flags, Format, Level, Log};

use std::env;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::{PoisonError, RwLock};

use env_filter::Filter;
use log::{LevelFilter, Metadata, Record};

/// The target of the audit log: it is written whatever the level.
pub const AUDIT: &str = "audit";

/// The logger of this process.
#[derive(Debug)]
struct Logger {
    now: RwLock<Now>,
    place: Place,
    /// `RUST_LOG`, which goes before the level for as long as the process runs.
    directives: Option<String>,
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
pub struct Control(&'static Logger);

/// Logs to stderr from now on. To be called once.
pub fn install(log: Log) -> Control {
    let directives = env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let logger = Logger::new(log, Place::of_stderr(), directives);
    let logger: &'static Logger = Box::leak(Box::new(logger));
    // An error means that there is a logger already, and that one goes on.
    let _ = log::set_logger(logger);
    let control = Control(logger);
    control.set(log);
    control
}

impl Control {
    /// Logs by this level and in this form from the next record on.
    pub fn set(self, log: Log) {
        log::set_max_level(self.0.change(log));
    }
}

impl Logger {
    fn new(log: Log, place: Place, directives: Option<String>) -> Self {
        let now = Now {
            filter: filter(log.level, directives.as_deref()),
            format: log.format,
        };
        Self {
            now: RwLock::new(now),
            place,
            directives,
        }
    }

    /// Gives the level up to which records are to be handed over.
    fn change(&self, log: Log) -> LevelFilter {
        let filter = filter(log.level, self.directives.as_deref());
        // The audit log is at `info`.
        let most = filter.filter().max(LevelFilter::Info);
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        *now = Now {
            filter,
            format: log.format,
        };
        most
    }
}

/// The library's own report of each step is left to `debug`: the daemon says it when all is done.
fn filter(level: Level, directives: Option<&str>) -> Filter {
    let mut filter = env_filter::Builder::new();
    match directives {
        Some(directives) => filter.parse(directives),
        None => {
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

#[cfg(test)]
mod tests {
    use log::Log as _;

    use super::*;

    fn at(level: Level) -> Log {
        Log {
            level,
            format: Format::Text,
        }
    }

    fn takes(logger: &Logger, target: &str, level: log::Level) -> bool {
        logger.enabled(&Metadata::builder().target(target).level(level).build())
    }

    #[test]
    fn the_level_changes_while_it_runs() {
        let logger = Logger::new(at(Level::Info), Place::Other, None);
        let debug = log::Level::Debug;
        assert!(!takes(&logger, "xdpgated", debug));
        // At info the library's steps are left out.
        assert!(!takes(&logger, "xdpgate::kernel", log::Level::Info));
        assert!(takes(&logger, "xdpgate::kernel", log::Level::Warn));
        assert_eq!(logger.change(at(Level::Debug)), LevelFilter::Debug);
        assert!(takes(&logger, "xdpgated", debug));
        assert!(takes(&logger, "xdpgate::kernel", debug));
        logger.change(at(Level::Error));
        assert!(!takes(&logger, "xdpgated", log::Level::Warn));
    }

    #[test]
    fn the_audit_log_passes_whatever_the_level() {
        for directives in [None, Some("error".to_owned())] {
            let logger = Logger::new(at(Level::Info), Place::Other, directives);
            assert_eq!(logger.change(at(Level::Off)), LevelFilter::Info);
            assert!(takes(&logger, AUDIT, log::Level::Info));
            assert!(!takes(&logger, "xdpgated", log::Level::Info));
        }
    }

    #[test]
    fn the_environment_goes_before_the_level() {
        let directives = Some("warn,xdpgated=trace".to_owned());
        let logger = Logger::new(at(Level::Off), Place::Other, directives);
        assert_eq!(logger.change(at(Level::Error)), LevelFilter::Trace);
        assert!(takes(&logger, "xdpgated", log::Level::Trace));
        assert!(!takes(&logger, "other", log::Level::Info));
    }
}
