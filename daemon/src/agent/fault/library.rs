//! Errors of the library as gRPC statuses.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use xdpgate::{ApplyError, AttachError, EvaluateError, PolicyError};

/// A policy that was not planned or applied.
pub(super) fn apply(error: &ApplyError) -> Status {
    match error {
        ApplyError::Policy(error) => policy(error),
        ApplyError::Limit { .. } => Status::resource_exhausted(apply_message(error)),
        _ => Status::internal(error.to_string()),
    }
}

/// The message of an error, with mends in terms of the daemon.
pub(super) fn apply_message(error: &ApplyError) -> String {
    match error {
        ApplyError::Limit {
            what,
            count,
            limit,
            knob,
        } => format!(
            "the policy has {count} {what}, there is room for {limit}: start xdpgated with \
             --{} {} or more",
            knob.replace('_', "-"),
            count.saturating_mul(2),
        ),
        _ => error.to_string(),
    }
}

/// An interface that was not attached or detached.
pub(super) fn attach(error: &AttachError) -> Status {
    let code = match error {
        AttachError::NoSuchInterface(_)
        | AttachError::NoSuchName { .. }
        | AttachError::NotAttached(_) => Code::NotFound,
        AttachError::AlreadyAttached { .. } => Code::AlreadyExists,
        AttachError::Foreign { .. }
        | AttachError::ModeUnsupported { .. }
        | AttachError::InBridge { .. } => Code::FailedPrecondition,
        AttachError::Full { .. } => Code::ResourceExhausted,
        AttachError::Capability { .. } => Code::PermissionDenied,
        _ => Code::Internal,
    };
    Status::new(code, error.to_string())
}

/// A policy that is wrong, with the field at fault among the details.
pub(super) fn policy(error: &PolicyError) -> Status {
    let mut description = error.reason().to_owned();
    if let Some(suggestion) = error.suggestion() {
        description += &format!("; {suggestion}");
    }
    let details = ErrorDetails::with_bad_request_violation(path(error), description);
    Status::with_error_details(Code::InvalidArgument, error.to_string(), details)
}

/// A frame that was not evaluated; `index` is its place in the request.
pub(super) fn evaluate(index: usize, error: &EvaluateError) -> Status {
    match error {
        EvaluateError::TooLong { .. } => {
            let field = format!("frames[{index}]");
            let details = ErrorDetails::with_bad_request_violation(&field, error.to_string());
            Status::with_error_details(Code::InvalidArgument, format!("{field}: {error}"), details)
        }
        _ => Status::internal(error.to_string()),
    }
}

/// The field from the root of the policy: `rules["block-bad"].match.src`.
fn path(error: &PolicyError) -> String {
    let subject = match (error.rule(), error.set()) {
        (Some(rule), _) => Some(format!("rules[\"{rule}\"]")),
        (None, Some(set)) => Some(format!("sets[\"{}\"]", set.as_str())),
        (None, None) => None,
    };
    match (subject, error.field()) {
        (Some(subject), Some(field)) => format!("{subject}.{field}"),
        (Some(subject), None) => subject,
        (None, Some(field)) => field.to_owned(),
        (None, None) => "yaml".to_owned(),
    }
}
