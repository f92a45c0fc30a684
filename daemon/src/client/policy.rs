//! `xdpgate policy`, and reading policy files for other commands.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use xdpgate::policy::AddressSet;
use xdpgate::{Firewall, Loader};
use xdpgate_api::v1::{
    ApplyPolicyRequest, ApplyPolicyResponse, ConfirmPolicyRequest, Estimate, GetPolicyRequest,
    Mode, PlanPolicyRequest, PlanPolicyResponse, RollbackPolicyRequest,
};

use super::args::Remote;
use super::change::{self as changes, Guard};
use super::out::{answer, print, print_json};
use super::{convert, diff, duration, failsafe, names, remote};
use crate::Failure;

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  xdpgate policy check policy.yaml
  xdpgate policy plan policy.yaml
  xdpgate policy apply policy.yaml --confirm-within 60s
  xdpgate policy confirm
  xdpgate policy diff policy.yaml           a file against what is in force")]
pub(super) enum Policy {
    /// Say whether a policy file is right, without a daemon
    Check(Check),
    /// Say what applying a policy would change, and how recent traffic would fare
    Plan(Plan),
    /// Replace the daemon's policy, all or nothing
    Apply(Apply),
    /// Keep the change that waits for its confirmation
    Confirm(Confirm),
    /// Bring back the policy before the one in force
    Rollback(Rollback),
    /// Print the policy in force, in canonical form
    Get(Get),
    /// Change the management traffic that passes before any rule
    Failsafe(failsafe::Failsafe),
    /// Compare two policies, or one with what is in force
    Diff(diff::Diff),
    /// Make a policy of the sets of nftables or ipset, or of a list
    Convert(convert::Convert),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  xdpgate policy check policy.yaml")]
pub(super) struct Check {
    /// The policy file
    pub file: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xdpgate policy plan policy.yaml
  xdpgate policy apply policy.yaml --expect $(xdpgate policy plan policy.yaml --json | jq .generation)")]
pub(super) struct Plan {
    /// The policy file
    pub file: PathBuf,
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Lists that the policy names by `file` are read here and sent along. With --confirm-within the policy
before comes back by itself unless `xdpgate policy confirm` is said in time, also when this host was
cut off by it, or the daemon was killed.

Examples:
  xdpgate policy apply policy.yaml --plan
  xdpgate policy apply policy.yaml --confirm-within 60s
  xdpgate policy apply policy.yaml --expect 4 --idempotency-key deploy-2041
  xdpgate policy apply policy.yaml --server http://127.0.0.1:50051")]
pub(super) struct Apply {
    /// The policy file
    pub file: PathBuf,
    /// Only say what would change: the same as `policy plan`
    #[arg(long, conflicts_with_all = ["confirm_within", "expect", "idempotency_key"])]
    pub plan: bool,
    #[command(flatten)]
    pub guard: Guard,
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xdpgate confirm                   the same as: xdpgate policy confirm
  xdpgate policy confirm 7          only if it is generation 7 that waits")]
pub(super) struct Confirm {
    /// The generation that is to be kept; without it whatever waits, a change of the mode too
    pub generation: Option<u64>,
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  xdpgate policy rollback\n  xdpgate policy rollback --expect 7"
)]
pub(super) struct Rollback {
    /// Refuse it unless the policy in force is of this generation
    #[arg(long, value_name = "GENERATION")]
    pub expect: Option<u64>,
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  xdpgate policy get > policy.yaml\n  xdpgate policy get --json | jq -r .hash"
)]
pub(super) struct Get {
    #[command(flatten)]
    pub remote: Remote,
}

pub(super) fn run(command: &Policy) -> Result<(), Failure> {
    match command {
        Policy::Check(args) => check(args),
        Policy::Plan(args) => plan(&args.remote, &args.file),
        Policy::Apply(args) if args.plan => plan(&args.remote, &args.file),
        Policy::Apply(args) => apply(args),
        Policy::Confirm(args) => confirm(args),
        Policy::Rollback(args) => rollback(args),
        Policy::Get(args) => get(args),
        Policy::Failsafe(args) => failsafe::run(args),
        Policy::Diff(args) => diff::run(args),
        Policy::Convert(args) => convert::run(args),
    }
}

/// Reads a policy file and the lists that it names.
pub(super) fn read(file: &Path) -> Result<xdpgate::Policy, Failure> {
    xdpgate::Policy::from_file(file).map_err(|e| Failure::policy(file, &e))
}

/// A loader for a firewall that can hold this policy.
pub(super) fn loader(policy: &xdpgate::Policy) -> Loader {
    let rules = u32::try_from(policy.rules().len()).unwrap_or(u32::MAX);
    Firewall::loader().max_rules(rules.max(1))
}

fn check(args: &Check) -> Result<(), Failure> {
    let policy = read(&args.file)?;
    let entries: usize = policy.sets().values().map(AddressSet::len).sum();
    let rules = policy.rules().len();
    let enabled = policy.rules().iter().filter(|r| r.enabled).count();
    if args.json {
        return print_json(&json!({
            "default": policy.default_verdict().to_string(),
            "rules": rules,
            "enabled_rules": enabled,
            "sets": policy.sets().len(),
            "set_entries": entries,
            "hash": policy.hash().to_string(),
        }));
    }
    print(&format!(
        "{}: right\n  default  {}\n  rules    {rules}, of these {enabled} enabled\n  sets     {}, \
         entries {entries}\n  hash     {}\n",
        args.file.display(),
        policy.default_verdict(),
        policy.sets().len(),
        policy.hash(),
    ))
}

/// What the daemon found wrong is wrong with the file.
fn of_file(file: &Path, failure: Failure) -> Failure {
    let name = file.display();
    match failure {
        Failure::Input(reason) => Failure::input(name, reason),
        Failure::Faults(faults) => Failure::Faults(
            faults
                .iter()
                .map(|fault| format!("{name}: {fault}"))
                .collect(),
        ),
        other => other,
    }
}

fn plan(server: &Remote, file: &Path) -> Result<(), Failure> {
    let yaml = read(file)?.to_yaml();
    let request = PlanPolicyRequest { yaml };
    let planned = remote::call(server, async |mut client| client.plan_policy(request).await);
    let planned = planned.map_err(|failure| of_file(file, failure))?;
    answer(server.json, &planned, plan_text)
}

fn plan_text(planned: &PlanPolicyResponse) -> String {
    let plan = planned.plan.clone().unwrap_or_default();
    let mut text = format!("{}\n", plan.text.trim_end());
    if let Some(estimate) = &planned.estimate {
        text += &estimate_text(estimate);
    }
    text + "plan only: nothing was changed\n"
}

fn estimate_text(estimate: &Estimate) -> String {
    let mut text = format!(
        "of {} frames that were dropped since {}: {} would pass, {} would be dropped\n",
        estimate.samples,
        duration::time_text(estimate.since),
        estimate.would_pass,
        estimate.would_drop,
    );
    for rule in &estimate.rules {
        text += &format!("  {}: {} frames\n", rule.id, rule.frames);
    }
    text
}

fn apply(args: &Apply) -> Result<(), Failure> {
    let request = ApplyPolicyRequest {
        yaml: read(&args.file)?.to_yaml(),
        expected_generation: args.guard.expect,
        idempotency_key: args.guard.idempotency_key.clone(),
        confirm_within: args.guard.confirm_within(),
    };
    let done = remote::call(&args.remote, async |mut client| {
        client.apply_policy(request).await
    });
    let done = done.map_err(|failure| of_file(&args.file, failure))?;
    answer(args.remote.json, &done, apply_text)
}

fn apply_text(done: &ApplyPolicyResponse) -> String {
    let plan = done.plan.clone().unwrap_or_default();
    let mut text = match (done.repeated, plan.text.trim_end()) {
        (true, _) => changes::repeated(),
        (false, "") => String::new(),
        (false, text) => format!("{text}\n"),
    };
    let generation = done.applied.as_ref().map_or(0, |a| a.generation);
    text += &changes::after(done.applied.as_ref(), done.confirm_by, generation);
    text
}

pub(super) fn confirm(args: &Confirm) -> Result<(), Failure> {
    let request = ConfirmPolicyRequest {
        generation: args.generation,
    };
    let done = remote::call(&args.remote, async |mut client| {
        client.confirm_policy(request).await
    })?;
    answer(args.remote.json, &done, |done| {
        let mut text = format!("kept: generation {}", done.generation);
        if done.mode() != Mode::Unspecified {
            text += &format!(", mode {}", names::mode(done.mode()));
        }
        text + "\n"
    })
}

fn rollback(args: &Rollback) -> Result<(), Failure> {
    let request = RollbackPolicyRequest {
        expected_generation: args.expect,
    };
    let done = remote::call(&args.remote, async |mut client| {
        client.rollback_policy(request).await
    })?;
    answer(args.remote.json, &done, |done| {
        let plan = done.plan.clone().unwrap_or_default();
        let after = changes::after(done.applied.as_ref(), None, 0);
        format!("{}\n{after}", plan.text.trim_end())
    })
}

fn get(args: &Get) -> Result<(), Failure> {
    let policy = remote::call(&args.remote, async |mut client| {
        client.get_policy(GetPolicyRequest {}).await
    })?;
    answer(args.remote.json, &policy, |policy| policy.yaml.clone())
}
