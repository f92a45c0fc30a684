//! The calls that keep people from shutting themselves out, and what changes have in common.

use std::time::Duration;

use tonic::Status;
use xdpgate::{
    ApplyOptions, Enforcement, Firewall, Generation, Previous, RolledBack, TransactionOptions,
};
use xdpgate_api::v1;

use super::Shared;
use crate::agent::convert::{self, Wrong};
use crate::agent::fault;

const LEAST_WITHIN: Duration = Duration::from_secs(1);
const MOST_WITHIN: Duration = Duration::from_secs(31 * 86_400);

/// What changes of the policy have in common: see the head of the .proto file.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    expected: Option<Generation>,
    key: Option<String>,
    within: Option<Duration>,
}

impl Guard {
    pub(super) fn new(
        expected: Option<u64>,
        key: &str,
        within: Option<&prost_types::Duration>,
    ) -> Result<Self, Status> {
        if key.len() > ApplyOptions::LONGEST_KEY {
            let what = format!(
                "it has {} bytes: it may have up to {}",
                key.len(),
                ApplyOptions::LONGEST_KEY
            );
            return Err(Wrong::new("idempotency_key", what).into());
        }
        Ok(Self {
            expected: expected.map(Generation::new),
            key: (!key.is_empty()).then(|| key.to_owned()),
            within: parse_within(within)?,
        })
    }

    pub(super) fn apply(self) -> ApplyOptions {
        let mut options = ApplyOptions::default();
        if let Some(generation) = self.expected {
            options = options.expect_generation(generation);
        }
        if let Some(within) = self.within {
            options = options.confirm_within(within);
        }
        match self.key {
            Some(key) => options.key(key),
            None => options,
        }
    }

    pub(super) fn transaction(self) -> TransactionOptions {
        self.apply().into()
    }
}

fn parse_within(within: Option<&prost_types::Duration>) -> Result<Option<Duration>, Wrong> {
    let parse = |d| convert::parse_duration("confirm_within", d, LEAST_WITHIN, MOST_WITHIN);
    within.map(parse).transpose()
}

/// When a change is taken back, if it is the one that waits.
pub(super) fn confirm_by(
    firewall: &Firewall,
    generation: Generation,
) -> Option<prost_types::Timestamp> {
    let pending = firewall.pending()?;
    (pending.generation == generation).then(|| convert::timestamp(pending.deadline))
}

pub(super) fn confirm(
    firewall: &Firewall,
    request: v1::ConfirmPolicyRequest,
) -> Result<v1::ConfirmPolicyResponse, Status> {
    let generation = match (request.generation, firewall.pending()) {
        (Some(generation), _) => Generation::new(generation),
        (None, Some(pending)) => pending.generation,
        (None, None) => return Err(fault::nothing_pending()),
    };
    firewall
        .confirm(generation)
        .map_err(|e| fault::confirm(&e))?;
    Ok(v1::ConfirmPolicyResponse {
        generation: firewall.generation().map_or(0, Generation::get),
        mode: convert::mode(firewall.enforcement()).into(),
    })
}

pub(super) fn rollback(
    shared: &Shared,
    request: v1::RollbackPolicyRequest,
) -> Result<v1::RollbackPolicyResponse, Status> {
    let firewall = &shared.firewall;
    let _change = shared.lock_changes();
    let done = match request.expected_generation {
        Some(expected) => firewall.rollback_from(Generation::new(expected)),
        None => firewall.rollback(),
    };
    let done = done.map_err(|e| fault::rollback(&e))?;
    let after = firewall.policy().unwrap_or_default();
    let (applied, before) = match &done {
        RolledBack::Policy(applied) => {
            (Some(convert::applied(applied)), applied.previous.as_deref())
        }
        _ => (None, Some(&*after)),
    };
    Ok(v1::RollbackPolicyResponse {
        applied,
        hash: after.hash().to_string(),
        plan: Some(convert::plan(xdpgate::Plan::between(before, &after))),
    })
}

pub(super) fn set_mode(
    shared: &Shared,
    request: &v1::SetModeRequest,
) -> Result<v1::SetModeResponse, Status> {
    let firewall = &shared.firewall;
    let mode = match convert::known("mode", request.mode)? {
        v1::Mode::DryRun => Enforcement::DryRun,
        v1::Mode::Enforce => Enforcement::Enforce,
        v1::Mode::Pass => Enforcement::Pass,
        v1::Mode::Unspecified => {
            let what = "it is missing: say MODE_DRY_RUN, MODE_ENFORCE or MODE_PASS";
            return Err(Wrong::new("mode", what).into());
        }
    };
    let within = parse_within(request.confirm_within.as_ref())?;
    if within.is_some() && (mode != Enforcement::Enforce || request.interface.is_some()) {
        let what = "only with MODE_ENFORCE for all interfaces: leave it out";
        return Err(Wrong::new("confirm_within", what).into());
    }
    let previous = firewall.enforcement();
    match &request.interface {
        Some(name) => set_on_interface(firewall, name, mode)?,
        None => {
            firewall
                .set_enforcement(mode, within)
                .map_err(|e| fault::enforcement(&e))?;
            log::info!("mode: {mode}, as asked");
        }
    }
    let pending = firewall.pending();
    let pending = pending.filter(|p| matches!(p.previous, Previous::Enforcement(_)));
    Ok(v1::SetModeResponse {
        mode: convert::mode(firewall.enforcement()).into(),
        previous: convert::mode(previous).into(),
        confirm_by: pending.map(|p| convert::timestamp(p.deadline)),
        next_start_enforces: shared.next_start_enforces(),
    })
}

fn set_on_interface(firewall: &Firewall, name: &str, mode: Enforcement) -> Result<(), Status> {
    if mode == Enforcement::Pass {
        let what = "MODE_PASS is for all interfaces: say MODE_DRY_RUN for one";
        return Err(Wrong::new("mode", what).into());
    }
    let dry_run = mode == Enforcement::DryRun;
    firewall
        .ifindex(name)
        .and_then(|ifindex| firewall.set_interface_dry_run(ifindex, dry_run))
        .map_err(|e| fault::attach_request(&e, Some(name)))?;
    log::info!("{name}: {mode}, as asked");
    Ok(())
}
