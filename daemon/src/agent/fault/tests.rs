use std::io;

use tonic::{Code, Status};
use tonic_types::StatusExt;
use xdpgate::policy::{Atomicity, Change, Policy, RuleId, SetName};
use xdpgate::{
    ApplyError, AttachError, AttachMode, BanError, EnforcementError, EntryCountersError,
    EvaluateError, EventError, Firewall, Generation, IfIndex, PendingError, RollbackError,
    SavedPolicyError, TransactionError,
};

use super::*;

fn disk_full() -> io::Error {
    io::Error::from_raw_os_error(28)
}

fn ifindex() -> IfIndex {
    IfIndex::new(7).expect("not 0")
}

/// A real refusal of two changes.
fn refused_changes() -> TransactionError {
    let changes = [
        Change::EnableRule(RuleId::new("nowhere").expect("an id"), true),
        Change::AddEntries(SetName::new("none").expect("a name"), Vec::new()),
    ];
    let refused = Policy::default().change(&changes, Atomicity::AllOrNothing);
    refused.expect_err("both are refused").into()
}

/// A real pending change, as the library tells of it.
fn pending() -> PendingError {
    let (firewall, _) = Firewall::loader().rehearse();
    let options = xdpgate::ApplyOptions::default().confirm_within(Duration::from_secs(60));
    firewall
        .apply_with(&Policy::default(), options)
        .expect("applied");
    match firewall.apply(&Policy::default()) {
        Err(ApplyError::Pending(pending)) => pending,
        other => panic!("{other:?}"),
    }
}

fn apply_errors() -> Vec<ApplyError> {
    vec![
        ApplyError::Policy(Policy::from_yaml("version: 1\nrulez: []").expect_err("unknown")),
        ApplyError::Limit {
            what: "rules",
            count: 9,
            limit: 4,
            knob: "max_rules",
        },
        ApplyError::Pending(pending()),
        ApplyError::Syscall {
            call: "bpf(BPF_MAP_CREATE)",
            source: disk_full(),
        },
    ]
}

/// Errors of the library, by what is made of them. Those that hold a verifier's log cannot be made
/// from outside of it; they have the code and words of a mistake of ours.
fn statuses() -> Vec<(Code, &'static str, Status)> {
    use Code::*;
    let mut all = Vec::new();
    let codes = [
        (InvalidArgument, "POLICY_INVALID"),
        (ResourceExhausted, "POLICY_LIMIT"),
        (FailedPrecondition, "CHANGE_PENDING"),
        (Internal, "SYSTEM_CALL_FAILED"),
    ];
    for ((code, reason), error) in codes.into_iter().zip(apply_errors()) {
        all.push((code, reason, apply(&error)));
    }
    for ((code, reason), error) in codes.into_iter().zip(apply_errors()) {
        let error = TransactionError::Apply(error);
        all.push((code, reason, transaction(&error, |_| "yaml".to_owned())));
    }
    for ((code, reason), error) in codes.into_iter().zip(apply_errors()) {
        all.push((code, reason, rollback(&RollbackError::Apply(error))));
    }
    let path = |index| format!("changes[{index}]");
    for (code, reason, error) in [
        (InvalidArgument, "CHANGE_NOT_FOUND", refused_changes()),
        (
            Aborted,
            "GENERATION_CHANGED",
            TransactionError::Generation {
                expected: Generation::new(3),
                actual: None,
            },
        ),
        (
            InvalidArgument,
            "FIELD_INVALID",
            TransactionError::Within {
                within: Duration::ZERO,
            },
        ),
        (
            FailedPrecondition,
            "NOT_SAVED",
            TransactionError::NotSaved {
                source: disk_full(),
            },
        ),
        (
            AlreadyExists,
            "KEY_USED",
            TransactionError::KeyUsed {
                key: "k".to_owned(),
                generation: Generation::new(3),
            },
        ),
        (
            FailedPrecondition,
            "KEY_TAKEN_BACK",
            TransactionError::KeyTakenBack {
                key: "k".to_owned(),
                generation: Generation::new(3),
            },
        ),
        (
            InvalidArgument,
            "FIELD_INVALID",
            TransactionError::KeyLength { bytes: 500 },
        ),
    ] {
        all.push((code, reason, transaction(&error, path)));
    }
    let eth0 = || "eth0".to_owned();
    for (code, reason, error) in [
        (
            NotFound,
            "NO_SUCH_INTERFACE",
            AttachError::NoSuchInterface(ifindex()),
        ),
        (
            NotFound,
            "NO_SUCH_INTERFACE",
            AttachError::NoSuchName { name: eth0() },
        ),
        (
            NotFound,
            "NOT_ATTACHED",
            AttachError::NotAttached(ifindex()),
        ),
        (
            AlreadyExists,
            "ALREADY_ATTACHED",
            AttachError::AlreadyAttached { interface: eth0() },
        ),
        (
            FailedPrecondition,
            "IN_BRIDGE",
            AttachError::InBridge { interface: eth0() },
        ),
        (
            FailedPrecondition,
            "MODE_UNSUPPORTED",
            AttachError::ModeUnsupported {
                interface: eth0(),
                mode: AttachMode::Offload,
                reason: "the driver has none; leave the mode out".to_owned(),
                source: disk_full(),
            },
        ),
        (
            ResourceExhausted,
            "TOO_MANY_INTERFACES",
            AttachError::Full {
                interface: eth0(),
                limit: 4,
            },
        ),
        (
            PermissionDenied,
            "CAPABILITY_MISSING",
            AttachError::Capability {
                interface: eth0(),
                needed: "CAP_BPF",
            },
        ),
        (
            Internal,
            "SYSTEM_CALL_FAILED",
            AttachError::Syscall {
                interface: eth0(),
                call: "bpf(BPF_LINK_CREATE)",
                source: disk_full(),
            },
        ),
    ] {
        all.push((code, reason, attach(&error)));
    }
    let prefix = || "203.0.113.0/24".parse().expect("a prefix");
    for (code, reason, error) in [
        (
            InvalidArgument,
            "FIELD_INVALID",
            BanError::WholeFamily { prefix: prefix() },
        ),
        (
            ResourceExhausted,
            "TOO_MANY_BANS",
            BanError::Full {
                prefix: prefix(),
                count: 8,
                limit: 8,
                knob: "max_bans",
            },
        ),
        (
            ResourceExhausted,
            "TOO_MANY_PREFIX_LENGTHS",
            BanError::Lengths {
                prefix: prefix(),
                in_use: vec![8, 16],
                limit: 8,
            },
        ),
    ] {
        all.push((code, reason, ban(&error)));
    }
    let set = || SetName::new("bad").expect("a name");
    for (reason, error) in [
        ("NO_SUCH_SET", EntryCountersError::NoSuchSet(set())),
        ("NOT_COUNTED", EntryCountersError::NotCounted(set())),
    ] {
        all.push((NotFound, reason, entry_counters(&error)));
    }
    for (code, reason, error) in [
        (
            InvalidArgument,
            "FIELD_INVALID",
            EvaluateError::TooLong { bytes: 9, limit: 8 },
        ),
        (
            Internal,
            "INTERNAL",
            EvaluateError::Answer { reason: 9, rule: 9 },
        ),
        (
            Internal,
            "SYSTEM_CALL_FAILED",
            EvaluateError::Syscall {
                call: "bpf(BPF_PROG_TEST_RUN)",
                source: disk_full(),
            },
        ),
    ] {
        all.push((code, reason, evaluate(3, &error)));
    }
    let limit = EventError::Limit {
        option: "total_per_second",
        value: 0,
        most: 9,
    };
    let failed = EventError::Syscall {
        call: "a thread",
        source: disk_full(),
    };
    all.push((InvalidArgument, "FIELD_INVALID", event(&limit)));
    all.push((Internal, "SYSTEM_CALL_FAILED", event(&failed)));
    let another = xdpgate::ConfirmError::Generation {
        generation: Generation::new(1),
        expected: Generation::new(2),
    };
    let not_saved = xdpgate::ConfirmError::NotSaved {
        source: disk_full(),
    };
    let overdue = xdpgate::ConfirmError::Overdue {
        generation: Generation::new(2),
        reason: "no room".to_owned(),
    };
    let not_in_force = xdpgate::ConfirmError::NotInForce {
        generation: Generation::new(2),
        reason: "no room".to_owned(),
    };
    all.push((FailedPrecondition, "OVERDUE", confirm(&overdue)));
    all.push((FailedPrecondition, "NOT_IN_FORCE", confirm(&not_in_force)));
    all.push((FailedPrecondition, "NOTHING_PENDING", nothing_pending()));
    all.push((FailedPrecondition, "ANOTHER_PENDING", confirm(&another)));
    all.push((FailedPrecondition, "NOT_SAVED", confirm(&not_saved)));
    let another = RollbackError::Generation {
        expected: Generation::new(1),
        actual: None,
    };
    all.push((Aborted, "GENERATION_CHANGED", rollback(&another)));
    let unreadable = RollbackError::Read(SavedPolicyError::Read(disk_full()));
    all.push((
        FailedPrecondition,
        "NOTHING_TO_ROLL_BACK",
        rollback(&RollbackError::NothingToRollBack),
    ));
    all.push((
        FailedPrecondition,
        "PREVIOUS_UNREADABLE",
        rollback(&unreadable),
    ));
    for (code, reason, error) in [
        (
            InvalidArgument,
            "FIELD_INVALID",
            EnforcementError::NothingToConfirm {
                mode: xdpgate::Enforcement::Pass,
            },
        ),
        (
            FailedPrecondition,
            "CHANGE_PENDING",
            EnforcementError::Pending(pending()),
        ),
        (
            InvalidArgument,
            "FIELD_INVALID",
            EnforcementError::Within {
                within: Duration::ZERO,
            },
        ),
        (
            FailedPrecondition,
            "NOT_SAVED",
            EnforcementError::NotSaved {
                source: disk_full(),
            },
        ),
    ] {
        all.push((code, reason, enforcement(&error)));
    }
    all.push((
        NotFound,
        "NOT_FOUND",
        not_found("set", "bad", "create it first"),
    ));
    all.push((Unavailable, "STOPPING", stopping()));
    all
}

#[test]
fn every_error_has_its_details_and_one_line() {
    for (code, reason, status) in statuses() {
        assert_eq!(status.code(), code, "{reason}: {status}");
        let details = status.get_error_details();
        let info = details.error_info().expect("an ErrorInfo");
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            (reason, DOMAIN),
            "{status}"
        );
        let message = status.message();
        assert_eq!(message.lines().count(), 1, "{reason}: {message:?}");
        let is_upper = |c: char| c.is_ascii_uppercase() || c == '_';
        assert!(reason.chars().all(is_upper), "{reason}");
        // What is wrong, and then what to do.
        let says = [";", ":", " must ", " may ", "retry", "trying"];
        assert!(
            says.iter().any(|word| message.contains(word)),
            "{reason}: {message}"
        );
        assert_eq!(
            code == Code::InvalidArgument,
            details.bad_request().is_some(),
            "{reason}: a field for each request that is wrong"
        );
        assert_eq!(
            code == Code::FailedPrecondition,
            details.precondition_failure().is_some(),
            "{reason}: what is in the way"
        );
        if code == Code::ResourceExhausted {
            assert!(info.metadata.contains_key("limit"), "{reason}: {info:?}");
        }
    }
}

#[test]
fn every_change_at_fault_is_named() {
    let status = transaction(&refused_changes(), |index| format!("changes[{index}].x"));
    let details = status.get_details_bad_request().expect("violations");
    let fields: Vec<&str> = details
        .field_violations
        .iter()
        .map(|v| v.field.as_str())
        .collect();
    assert_eq!(fields, ["changes[0].x", "changes[1].x"]);
    assert!(
        status.message().ends_with("; and one more fault"),
        "{status}"
    );
}

/// Details are a header, and headers are small.
#[test]
fn many_faults_still_fit_a_header() {
    let fault = Fault::new(Code::InvalidArgument, "CHANGE_INVALID", "x".repeat(10_000));
    let fault = (0..1000).fold(fault, |fault, n| {
        fault.violation(format!("changes[{n}]"), "a line\nand another")
    });
    let status = Status::from(fault);
    assert!(status.details().len() < 4096, "{}", status.details().len());
    assert!(status.message().len() < 600);
    let details = status.get_error_details();
    assert_eq!(
        details.error_info().expect("info").metadata["violations"],
        "1000"
    );
    let violations = &details.bad_request().expect("violations").field_violations;
    assert_eq!(violations.len(), MOST_VIOLATIONS);
    assert_eq!(violations[0].description, "a line; and another");
}
