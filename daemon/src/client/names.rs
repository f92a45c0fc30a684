//! What the values of the API are called in text.

use anstyle::Style;
use xdpgate_api::v1::{AttachMode, BanScope, Disposition, Mode, Severity, Verdict};

use super::out::{BAD, GOOD, WARN};

pub(super) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Unspecified => "unknown",
        Verdict::Pass => "pass",
        Verdict::Drop => "drop",
    }
}

pub(super) fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Unspecified => "unknown",
        Mode::DryRun => "dry run",
        Mode::Enforce => "enforce",
        Mode::Pass => "pass",
    }
}

pub(super) fn attach_mode(mode: AttachMode) -> &'static str {
    match mode {
        AttachMode::Unspecified => "unknown",
        AttachMode::Generic => "generic",
        AttachMode::Native => "native",
        AttachMode::Offload => "offload",
    }
}

pub(super) fn disposition(disposition: Disposition) -> &'static str {
    match disposition {
        Disposition::Unspecified => "unknown",
        Disposition::Pass => "pass",
        Disposition::Drop => "drop",
        Disposition::WouldDrop => "would_drop",
    }
}

pub(super) fn disposition_style(disposition: Disposition) -> Style {
    match disposition {
        Disposition::Unspecified => Style::new(),
        Disposition::Pass => GOOD,
        Disposition::Drop => BAD,
        Disposition::WouldDrop => WARN,
    }
}

pub(super) fn scope(scope: BanScope) -> &'static str {
    match scope {
        BanScope::Unspecified | BanScope::Source => "source",
        BanScope::Destination => "destination",
        BanScope::Both => "both",
    }
}

pub(super) fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Unspecified => "unknown",
        Severity::Hint => "hint",
        Severity::Degrades => "degrades",
        Severity::MayBlockNative => "may block native mode",
        Severity::BlocksNative => "blocks native mode",
        Severity::BlocksAttach => "blocks",
    }
}

/// What an operator who chose dry run has to know of the configuration.
pub(super) const NEXT_START_ENFORCES: &str = "the configuration says to enforce, and so does the next start: to stay in dry run set enforce = \
     false there, or leave out --enforce";
