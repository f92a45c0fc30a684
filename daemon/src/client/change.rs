//! What the commands share that change the policy in force.

use std::time::Duration;

use clap::Args;
use xdpgate_api::v1::{Applied, Change, ChangePolicyRequest, ChangePolicyResponse, Effect, effect};

use super::args::Remote;
use super::{duration, remote, units};
use crate::Failure;

/// How a change is made safe.
#[derive(Debug, Args)]
pub(super) struct Guard {
    /// Take it back unless it is confirmed within this time, at least 1s
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub confirm_within: Option<Duration>,
    /// Refuse it unless the policy in force is of this generation; 0: unless there is none
    #[arg(long, value_name = "GENERATION")]
    pub expect: Option<u64>,
    /// Carry it out once, however often it is sent with this key
    #[arg(
        long,
        value_name = "KEY",
        default_value = "",
        hide_default_value = true
    )]
    pub idempotency_key: String,
}

impl Guard {
    pub(super) fn confirm_within(&self) -> Option<prost_types::Duration> {
        self.confirm_within.map(duration::proto)
    }
}

/// Makes these changes, all or none.
pub(super) fn make(
    remote: &Remote,
    guard: &Guard,
    changes: Vec<Change>,
) -> Result<ChangePolicyResponse, Failure> {
    let request = ChangePolicyRequest {
        changes,
        partial: false,
        expected_generation: guard.expect,
        idempotency_key: guard.idempotency_key.clone(),
        confirm_within: guard.confirm_within(),
    };
    remote::call(remote, async |mut client| {
        client.change_policy(request).await
    })
}

/// What one change of `subject` came to.
pub(super) fn text(subject: &str, done: &ChangePolicyResponse) -> String {
    let effect = done.effects.first();
    let mut text = match (done.repeated, effect) {
        (true, _) => repeated(),
        (false, Some(effect)) => format!("{subject}: {}\n", effect_text(effect)),
        (false, None) => String::new(),
    };
    text += &after(done.applied.as_ref(), done.confirm_by, done.generation);
    text
}

pub(super) fn repeated() -> String {
    "this was carried out before; nothing was changed by this call\n".to_owned()
}

pub(super) fn effect_text(effect: &Effect) -> String {
    match effect.kind() {
        effect::Kind::Unspecified => "unknown".to_owned(),
        effect::Kind::Unchanged => "nothing to change".to_owned(),
        effect::Kind::Created => "created".to_owned(),
        effect::Kind::Replaced => "replaced".to_owned(),
        effect::Kind::Removed => "removed".to_owned(),
        effect::Kind::Entries => format!("{} entries changed", effect.entries),
        effect::Kind::Refused => format!("refused: {}", effect.error()),
    }
}

/// What it took, and how to keep it.
pub(super) fn after(
    applied: Option<&Applied>,
    confirm_by: Option<prost_types::Timestamp>,
    generation: u64,
) -> String {
    let mut text = applied.map(applied_text).unwrap_or_default();
    if confirm_by.is_some() {
        text += &format!(
            "the policy before comes back at {} (in {}) unless you keep this one: xdpgate policy \
             confirm {generation}\n",
            duration::time_text(confirm_by),
            duration::until(confirm_by),
        );
    }
    text
}

fn applied_text(applied: &Applied) -> String {
    let milliseconds = |n: u64| Duration::from_nanos(n).as_secs_f64() * 1e3;
    let mut text = format!(
        "generation {} is in force: {} entries, {}; compiled in {:.1} ms, published in {:.1} ms\n",
        applied.generation,
        applied.entries,
        units::bytes(applied.image_bytes),
        milliseconds(applied.compile_nanoseconds),
        milliseconds(applied.publish_nanoseconds),
    );
    if let Some(why) = &applied.not_saved {
        text += &format!("it was not saved: {why}\n");
    }
    text
}
