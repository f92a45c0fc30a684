//! `xdpgate policy`: check, apply, get; and reading policy files for other commands.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use xdpgate::policy::AddressSet;
use xdpgate::{Firewall, Loader, Policy};
use xdpgate_api::v1::{Applied, ApplyPolicyRequest, GetPolicyRequest, Plan, PlanPolicyRequest};

use super::args::{Apply, Check, Remote};
use super::{print, print_json, remote};
use crate::failure::Failure;

/// Reads a policy file and the lists that it names.
pub(super) fn read(file: &Path) -> Result<Policy, Failure> {
    Policy::from_file(file).map_err(|e| Failure::policy(file, &e))
}

/// A loader for a firewall that can hold this policy.
pub(super) fn loader(policy: &Policy) -> Loader {
    let rules = u32::try_from(policy.rules().len()).unwrap_or(u32::MAX);
    Firewall::loader().max_rules(rules.max(1))
}

pub(super) fn check(args: &Check) -> Result<(), Failure> {
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

pub(super) fn apply(args: &Apply) -> Result<(), Failure> {
    let yaml = read(&args.file)?.to_yaml();
    let of_file = |failure| match failure {
        Failure::Input(reason) => Failure::input(args.file.display(), reason),
        other => other,
    };
    let (plan, hash, applied) = if args.plan {
        let request = PlanPolicyRequest { yaml };
        let planned = remote::call(&args.remote, async |mut client| {
            client.plan_policy(request.clone()).await
        });
        let planned = planned.map_err(of_file)?;
        (planned.plan, planned.hash, None)
    } else {
        let request = ApplyPolicyRequest {
            yaml,
            ..Default::default()
        };
        let done = remote::call(&args.remote, async |mut client| {
            client.apply_policy(request.clone()).await
        });
        let done = done.map_err(of_file)?;
        (done.plan, done.hash, done.applied)
    };
    let plan = plan.unwrap_or_default();
    if args.remote.json {
        return print_json(&json!({
            "plan": plan.text,
            "hash": hash,
            "applied": applied.as_ref().map(applied_json),
        }));
    }
    print(&changed_text(&plan, applied.as_ref()))
}

pub(super) fn get(remote: &Remote) -> Result<(), Failure> {
    let policy = remote::call(remote, async |mut client| {
        client.get_policy(GetPolicyRequest {}).await
    })?;
    if remote.json {
        return print_json(&json!({
            "generation": policy.generation,
            "hash": policy.hash,
            "yaml": policy.yaml,
        }));
    }
    print(&policy.yaml)
}

fn applied_json(applied: &Applied) -> serde_json::Value {
    json!({
        "generation": applied.generation,
        "compile_nanoseconds": applied.compile_nanoseconds,
        "publish_nanoseconds": applied.publish_nanoseconds,
        "image_bytes": applied.image_bytes,
        "entries": applied.entries,
        "verified_instructions": applied.verified_instructions,
    })
}

fn changed_text(plan: &Plan, applied: Option<&Applied>) -> String {
    let plan = plan.text.trim_end();
    let Some(applied) = applied else {
        return format!("{plan}\nplan only: nothing was changed\n");
    };
    let milliseconds = |n: u64| Duration::from_nanos(n).as_secs_f64() * 1e3;
    format!(
        "{plan}\ngeneration {} is in force: {} entries, {} KiB; compiled in {:.1} ms, published in \
         {:.1} ms\n",
        applied.generation,
        applied.entries,
        applied.image_bytes.div_ceil(1024),
        milliseconds(applied.compile_nanoseconds),
        milliseconds(applied.publish_nanoseconds),
    )
}
