//! Errors of the API: gRPC statuses with the details of the rich error model.

mod library;

pub(super) use library::{
    apply, apply_message, attach, attach_request, ban, change, confirm, description, enforcement,
    entry_counters, evaluate, event, more, nothing_pending, policy, prefix, rollback, transaction,
};

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation, StatusExt};

/// An error of the API before it is a [`Status`].
#[derive(Debug)]
#[must_use = "an error is to be answered"]
pub(super) struct Fault {
    code: Code,
    reason: &'static str,
    message: String,
    metadata: HashMap<String, String>,
    violations: Vec<FieldViolation>,
    blocked_by: Vec<PreconditionViolation>,
    retry: Option<Duration>,
}

impl Fault {
    /// `reason` is stable and in UPPER_SNAKE_CASE; the message becomes one line.
    pub(super) fn new(code: Code, reason: &'static str, message: impl ToString) -> Self {
        Self {
            code,
            reason,
            message: one_line(&message.to_string()).into_owned(),
            metadata: HashMap::new(),
            violations: Vec::new(),
            blocked_by: Vec::new(),
            retry: None,
        }
    }

    /// A request that is wrong in this field.
    pub(super) fn field(path: impl Into<String>, what: impl ToString) -> Self {
        let (path, what) = (path.into(), what.to_string());
        Self::new(
            Code::InvalidArgument,
            "FIELD_INVALID",
            format!("{path}: {what}"),
        )
        .violation(path, what)
    }

    /// More about the error, for programs.
    pub(super) fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// Another field that is wrong. All there are are counted, and the first ones told.
    pub(super) fn violation(mut self, path: impl Into<String>, what: impl ToString) -> Self {
        let what = one_line(&what.to_string()).into_owned();
        self.violations.push(FieldViolation::new(path, what));
        self
    }

    /// The state that is in the way.
    pub(super) fn blocked_by(mut self, kind: &str, subject: impl Into<String>) -> Self {
        let violation = PreconditionViolation::new(kind, subject, self.message.clone());
        self.blocked_by.push(violation);
        self
    }

    /// To try again after this time may help.
    pub(super) fn retry_after(self, delay: Duration) -> Self {
        Self {
            retry: Some(delay),
            ..self
        }
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        let Fault {
            code,
            reason,
            message,
            mut metadata,
            mut violations,
            blocked_by,
            retry,
        } = fault;
        if violations.len() > MOST_VIOLATIONS {
            metadata.insert("violations".to_owned(), violations.len().to_string());
            violations.truncate(MOST_VIOLATIONS);
        }
        let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
        if !violations.is_empty() {
            details.set_bad_request(violations);
        }
        if !blocked_by.is_empty() {
            details.set_precondition_failure(blocked_by);
        }
        if retry.is_some() {
            details.set_retry_info(retry);
        }
        Status::with_error_details(code, message, details)
    }
}

/// The domain of all reasons.
pub(super) const DOMAIN: &str = "xdpgate";

/// Details travel in the header of the answer, for which clients have some 8 KiB of room.
const MOST_VIOLATIONS: usize = 16;

/// Likewise for each text.
const LONGEST: usize = 512;

fn one_line(text: &str) -> Cow<'_, str> {
    let text: Cow<'_, str> = match text.contains(['\n', '\r']) {
        true => text
            .lines()
            .map(str::trim)
            .collect::<Vec<_>>()
            .join("; ")
            .into(),
        false => text.into(),
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]).into(),
        None => text,
    }
}

/// Something is not there that a call names.
pub(super) fn not_found(what: &str, name: &str, mend: &str) -> Status {
    let message = format!("there is no {what} {name:?}; {mend}");
    Fault::new(Code::NotFound, "NOT_FOUND", message)
        .with("kind", what)
        .with("name", name)
        .into()
}

/// The daemon ends.
pub(super) fn stopping() -> Status {
    let message = "the daemon is stopping; connect again when it is back";
    Fault::new(Code::Unavailable, "STOPPING", message)
        .retry_after(Duration::from_secs(1))
        .into()
}

/// A mistake of ours.
pub(super) fn internal(message: impl ToString) -> Status {
    Fault::new(Code::Internal, "INTERNAL", message).into()
}

#[cfg(test)]
mod tests;
