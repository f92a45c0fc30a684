//! Errors of the library as gRPC statuses.

use tonic::{Code, Status};
use xdpgate::policy::{ChangeError, ChangeErrorKind, ChangeErrors, PrefixParseError};
use xdpgate::{
    ApplyError, AttachError, BanError, ConfirmError, EnforcementError, EntryCountersError,
    EvaluateError, EventError, PendingError, PolicyError, RollbackError, TransactionError,
};

use super::Fault;

/// A policy that was not planned or applied.
pub(in crate::agent) fn apply(error: &ApplyError) -> Status {
    let message = apply_message(error);
    match error {
        ApplyError::Policy(error) => return policy(error),
        ApplyError::Limit {
            what,
            count,
            limit,
            knob,
        } => Fault::new(Code::ResourceExhausted, "POLICY_LIMIT", message)
            .with("what", what)
            .with("count", count)
            .with("limit", limit)
            .with("knob", knob),
        ApplyError::Pending(error) => return pending(error),
        ApplyError::Verifier { summary, .. } => {
            Fault::new(Code::Internal, "VERIFIER_REFUSED", message).with("summary", summary)
        }
        ApplyError::Syscall { call, .. } => {
            Fault::new(Code::Internal, "SYSTEM_CALL_FAILED", message).with("call", call)
        }
        _ => Fault::new(Code::Internal, "INTERNAL", message),
    }
    .into()
}

/// The message of an error, with mends in terms of the daemon.
pub(in crate::agent) fn apply_message(error: &ApplyError) -> String {
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
        ApplyError::Syscall { .. } => format!("{error}; its cause is with the kernel of the node"),
        _ => error.to_string(),
    }
}

/// Changes that were not made. `path` says where in the request a change stands.
pub(in crate::agent) fn transaction(
    error: &TransactionError,
    path: impl Fn(usize) -> String,
) -> Status {
    match error {
        TransactionError::Changes(errors) => changes(errors, path),
        TransactionError::Generation { expected, actual } => {
            let actual = actual.map_or(0, xdpgate::Generation::get);
            generation(expected.get(), actual)
        }
        TransactionError::Within { .. } => {
            let what = "it is out of range: it must be more than 0 and at most 31 days";
            Fault::field("confirm_within", what).into()
        }
        TransactionError::NotSaved { .. } => {
            Fault::new(Code::FailedPrecondition, "NOT_SAVED", error)
                .blocked_by("NOT_SAVED", "state_dir")
                .into()
        }
        TransactionError::KeyUsed { key, generation } => {
            let message = format!(
                "idempotency_key {key:?} belongs to another request, which was answered with \
                 generation {generation}: make up another key"
            );
            Fault::new(Code::AlreadyExists, "KEY_USED", message)
                .with("key", key)
                .with("generation", generation)
                .into()
        }
        TransactionError::KeyTakenBack { key, generation } => {
            let message = format!(
                "the change of idempotency_key {key:?}, generation {generation}, was not confirmed in time \
                 and is taken back: make up another key to make it again"
            );
            Fault::new(Code::FailedPrecondition, "KEY_TAKEN_BACK", message)
                .with("key", key)
                .with("generation", generation)
                .blocked_by("KEY_TAKEN_BACK", "idempotency_key")
                .into()
        }
        TransactionError::KeyLength { bytes } => {
            let most = xdpgate::ApplyOptions::LONGEST_KEY;
            let what = format!("it has {bytes} bytes: it may have up to {most}");
            Fault::field("idempotency_key", what).into()
        }
        TransactionError::Apply(error) => apply(error),
        _ => super::internal(error),
    }
}

/// A change waits for its confirmation.
fn pending(error: &PendingError) -> Status {
    let left = error.deadline.duration_since(jiff::Timestamp::now());
    let fault = Fault::new(Code::FailedPrecondition, "CHANGE_PENDING", error)
        .with("generation", error.generation)
        .with("deadline", error.deadline)
        .blocked_by("CHANGE_PENDING", format!("generation {}", error.generation));
    if error.refused.is_some() {
        // When that ends nobody knows.
        return fault.with("overdue", true).into();
    }
    // Then it is taken back by itself.
    let left = std::time::Duration::try_from(left).unwrap_or_default();
    fault.retry_after(left).into()
}

/// Nothing waits for a confirmation.
pub(in crate::agent) fn nothing_pending() -> Status {
    confirm(&ConfirmError::NothingPending)
}

/// Nothing was confirmed.
pub(in crate::agent) fn confirm(error: &ConfirmError) -> Status {
    let (reason, subject) = match error {
        ConfirmError::NothingPending => ("NOTHING_PENDING", "pending"),
        ConfirmError::Generation { .. } => ("ANOTHER_PENDING", "pending"),
        ConfirmError::Overdue { .. } => ("OVERDUE", "pending"),
        ConfirmError::NotInForce { .. } => ("NOT_IN_FORCE", "pending"),
        ConfirmError::NotSaved { .. } => ("NOT_SAVED", "state_dir"),
        _ => return super::internal(error),
    };
    let mend = match error {
        ConfirmError::NothingPending => "; `xdpgate status` shows what is in force",
        _ => "",
    };
    Fault::new(Code::FailedPrecondition, reason, format!("{error}{mend}"))
        .blocked_by(reason, subject)
        .into()
}

/// Nothing was rolled back.
pub(in crate::agent) fn rollback(error: &RollbackError) -> Status {
    match error {
        RollbackError::Generation { expected, actual } => {
            let actual = actual.map_or(0, xdpgate::Generation::get);
            generation(expected.get(), actual)
        }
        RollbackError::NothingToRollBack => {
            let message = format!("{error}; apply the policy that is wanted");
            Fault::new(Code::FailedPrecondition, "NOTHING_TO_ROLL_BACK", message)
                .blocked_by("NOTHING_TO_ROLL_BACK", "policy")
                .into()
        }
        RollbackError::Read(_) => {
            let message = format!("{error}; apply the policy that is wanted");
            Fault::new(Code::FailedPrecondition, "PREVIOUS_UNREADABLE", message)
                .blocked_by("PREVIOUS_UNREADABLE", "state_dir")
                .into()
        }
        RollbackError::Apply(error) => apply(error),
        _ => super::internal(error),
    }
}

/// The mode was not changed.
pub(in crate::agent) fn enforcement(error: &EnforcementError) -> Status {
    match error {
        EnforcementError::NothingToConfirm { .. } | EnforcementError::Within { .. } => {
            Fault::field("confirm_within", error).into()
        }
        EnforcementError::Pending(error) => pending(error),
        EnforcementError::NotSaved { .. } => {
            Fault::new(Code::FailedPrecondition, "NOT_SAVED", error)
                .blocked_by("NOT_SAVED", "state_dir")
                .into()
        }
        _ => super::internal(error),
    }
}

/// Another policy is in force than was expected.
fn generation(expected: u64, actual: u64) -> Status {
    let message = format!(
        "generation {expected} was expected to be in force, but {} is: get the policy again, and \
         change that",
        match actual {
            0 => "none".to_owned(),
            actual => actual.to_string(),
        }
    );
    Fault::new(Code::Aborted, "GENERATION_CHANGED", message)
        .with("expected", expected)
        .with("actual", actual)
        .into()
}

fn changes(errors: &ChangeErrors, path: impl Fn(usize) -> String) -> Status {
    let all: Vec<&ChangeError> = errors.iter().collect();
    let message = match all.first() {
        Some(first) => change(first, &path(first.index())) + &more(all.len()),
        None => "the changes were refused: look at the policy again".to_owned(),
    };
    let reason = all
        .first()
        .map_or("CHANGE_REFUSED", |first| change_reason(first));
    let fault = Fault::new(Code::InvalidArgument, reason, message);
    let add = |fault: Fault, error: &&ChangeError| {
        let place = path(error.index());
        let place = match error.policy_error().field() {
            Some(field) => format!("{place}.{field}"),
            None => place,
        };
        fault.violation(place, description(error.policy_error()))
    };
    all.iter().fold(fault, add).into()
}

/// What follows the first of some faults.
pub(in crate::agent) fn more(faults: usize) -> String {
    match faults {
        0 | 1 => String::new(),
        2 => "; and one more fault".to_owned(),
        more => format!("; and {} more faults", more - 1),
    }
}

/// Why one change was refused.
pub(in crate::agent) fn change(error: &ChangeError, path: &str) -> String {
    format!("{path}: {}", error.policy_error())
}

fn change_reason(error: &ChangeError) -> &'static str {
    match error.kind() {
        ChangeErrorKind::AlreadyExists => "CHANGE_ALREADY_EXISTS",
        ChangeErrorKind::NotFound => "CHANGE_NOT_FOUND",
        ChangeErrorKind::InUse => "CHANGE_IN_USE",
        ChangeErrorKind::Invalid(_) => "CHANGE_INVALID",
        _ => "CHANGE_REFUSED",
    }
}

/// An interface that was not attached or detached.
pub(in crate::agent) fn attach(error: &AttachError) -> Status {
    attach_request(error, None)
}

/// Likewise; `name` is what the request said.
pub(in crate::agent) fn attach_request(error: &AttachError, name: Option<&str>) -> Status {
    let (code, reason) = match error {
        AttachError::NoSuchInterface(_) | AttachError::NoSuchName { .. } => {
            (Code::NotFound, "NO_SUCH_INTERFACE")
        }
        AttachError::NotAttached(_) => (Code::NotFound, "NOT_ATTACHED"),
        AttachError::AlreadyAttached { .. } => (Code::AlreadyExists, "ALREADY_ATTACHED"),
        AttachError::Foreign { .. } => (Code::FailedPrecondition, "FOREIGN_PROGRAM"),
        AttachError::ModeUnsupported { .. } => (Code::FailedPrecondition, "MODE_UNSUPPORTED"),
        AttachError::InBridge { .. } => (Code::FailedPrecondition, "IN_BRIDGE"),
        AttachError::Full { .. } => (Code::ResourceExhausted, "TOO_MANY_INTERFACES"),
        AttachError::Capability { .. } => (Code::PermissionDenied, "CAPABILITY_MISSING"),
        AttachError::Syscall { .. } => (Code::Internal, "SYSTEM_CALL_FAILED"),
        _ => (Code::Internal, "INTERNAL"),
    };
    let message = match (error, name) {
        (AttachError::NotAttached(_), Some(name)) => {
            format!("{name} is not attached; `xdpgate interfaces` shows which are")
        }
        (AttachError::NotAttached(_), None) => {
            format!("{error}; `xdpgate interfaces` shows which are")
        }
        (AttachError::Full { interface, limit }, _) => format!(
            "no counters left for {interface}: there is room for {limit} interfaces; set \
             max_interfaces in the configuration of xdpgated"
        ),
        (AttachError::InBridge { interface }, _) => format!(
            "{interface} is a port of a bridge: take the bridge out of the configuration of xdpgated"
        ),
        _ => error.to_string(),
    };
    let mut fault = Fault::new(code, reason, message);
    if let AttachError::Full { limit, .. } = error {
        fault = fault.with("limit", limit).with("knob", "max_interfaces");
    }
    if code == Code::FailedPrecondition {
        let interface = match error {
            AttachError::Foreign { interface, .. }
            | AttachError::ModeUnsupported { interface, .. }
            | AttachError::InBridge { interface } => interface.as_str(),
            _ => name.unwrap_or_default(),
        };
        fault = fault.blocked_by(reason, interface);
    }
    fault.into()
}

/// A policy that is wrong, with the field at fault among the details.
pub(in crate::agent) fn policy(error: &PolicyError) -> Status {
    Fault::new(Code::InvalidArgument, "POLICY_INVALID", error)
        .violation(path(error), description(error))
        .into()
}

/// Reason and mend.
pub(in crate::agent) fn description(error: &PolicyError) -> String {
    match error.suggestion() {
        Some(suggestion) => format!("{}; {suggestion}", error.reason()),
        None => error.reason().to_owned(),
    }
}

/// What is wrong with a prefix, and what one looks like.
pub(in crate::agent) fn prefix(error: &PrefixParseError) -> String {
    match error {
        PrefixParseError::Address(_) => format!("{error}; write 203.0.113.7 or 2001:db8::/32"),
        _ => error.to_string(),
    }
}

/// A ban that was not made.
pub(in crate::agent) fn ban(error: &BanError) -> Status {
    match error {
        BanError::WholeFamily { prefix } => Fault::field(
            "prefix",
            format!(
                "a ban of {prefix} would shut out every address of its family, whoever manages this \
                 node among them: give a longer prefix, or apply a policy that drops by default"
            ),
        ),
        BanError::Full {
            prefix,
            count,
            limit,
            knob,
        } => {
            let message = format!(
                "no room for a ban of {prefix}: {count} of {limit} are in force; lift some, set \
                 {knob} in the configuration of xdpgated, or put the prefix into an address set"
            );
            Fault::new(Code::ResourceExhausted, "TOO_MANY_BANS", message)
                .with("count", count)
                .with("limit", limit)
                .with("knob", knob)
        }
        BanError::Lengths { limit, in_use, .. } => {
            let in_use = in_use.iter().map(u8::to_string).collect::<Vec<_>>();
            Fault::new(Code::ResourceExhausted, "TOO_MANY_PREFIX_LENGTHS", error)
                .with("limit", limit)
                .with("in_use", in_use.join(","))
        }
        _ => Fault::new(Code::Internal, "INTERNAL", error),
    }
    .into()
}

/// Counters of entries that are not to be had.
pub(in crate::agent) fn entry_counters(error: &EntryCountersError) -> Status {
    let (reason, set, mend) = match error {
        EntryCountersError::NoSuchSet(set) => (
            "NO_SUCH_SET",
            set.as_str(),
            "; `xdpgate policy get` shows its sets",
        ),
        EntryCountersError::NotCounted(set) => ("NOT_COUNTED", set.as_str(), ""),
        _ => return super::internal(error),
    };
    Fault::new(Code::NotFound, reason, format!("{error}{mend}"))
        .with("set", set)
        .into()
}

/// Sampled frames that cannot be watched.
pub(in crate::agent) fn event(error: &EventError) -> Status {
    match error {
        EventError::Limit {
            option,
            value,
            most,
        } => Fault::field(
            *option,
            format!("{value} is out of range: it must be 1 to {most}"),
        )
        .with("limit", most),
        EventError::Syscall { call, .. } => {
            Fault::new(Code::Internal, "SYSTEM_CALL_FAILED", error).with("call", call)
        }
        _ => Fault::new(Code::Internal, "INTERNAL", error),
    }
    .into()
}

/// A frame that was not evaluated; `index` is its place in the request.
pub(in crate::agent) fn evaluate(index: usize, error: &EvaluateError) -> Status {
    match error {
        EvaluateError::TooLong { limit, .. } => {
            Fault::field(format!("frames[{index}]"), error).with("limit", limit)
        }
        EvaluateError::Verifier { summary, .. } => {
            Fault::new(Code::Internal, "VERIFIER_REFUSED", error).with("summary", summary)
        }
        EvaluateError::Syscall { call, .. } => {
            Fault::new(Code::Internal, "SYSTEM_CALL_FAILED", error).with("call", call)
        }
        _ => Fault::new(Code::Internal, "INTERNAL", error),
    }
    .into()
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
