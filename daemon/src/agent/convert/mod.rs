//! Between the library's types and the messages of the API.

mod live;
mod request;

pub(super) use live::{auto_event, ban, event, now, rates, timestamp};
pub(super) use request::duration as parse_duration;
pub(super) use request::{
    Wrong, add_entries, ban_scope, change, change_name, counters, known, prefix, set_name,
};

use std::time::Duration;

use xdpgate::policy::AddressSet;
use xdpgate::{self as lib, Policy};
use xdpgate_api::v1;

/// All but what the configuration says.
pub(super) fn status(firewall: &lib::Firewall, uptime: Duration) -> v1::GetStatusResponse {
    let programs = firewall.program_info();
    let policy = firewall.in_force();
    v1::GetStatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: uptime.as_secs(),
        dry_run: firewall.dry_run(),
        policy: policy.map(|(policy, generation)| summary(&policy, generation)),
        attachments: firewall.attachments().into_iter().map(attachment).collect(),
        entry_program: Some(program(programs.entry)),
        policy_program: programs.policy.map(program),
        pin_root: firewall.pin_root().map(|dir| dir.display().to_string()),
        broken: firewall.health().err().map(|error| error.to_string()),
        mode: mode(firewall.enforcement()).into(),
        pending: firewall.pending().map(|waiting| pending(&waiting)),
        not_saved: firewall.saved().err().map(|error| error.to_string()),
        bans: firewall.bans().len() as u64,
        next_start_enforces: false,
        fleet: None,
    }
}

pub(super) fn mode(mode: lib::Enforcement) -> v1::Mode {
    match mode {
        lib::Enforcement::DryRun => v1::Mode::DryRun,
        lib::Enforcement::Enforce => v1::Mode::Enforce,
        lib::Enforcement::Pass => v1::Mode::Pass,
    }
}

fn pending(pending: &lib::Pending) -> v1::Pending {
    use v1::pending::What;
    v1::Pending {
        what: Some(match &pending.previous {
            lib::Previous::Enforcement(before) => What::PreviousMode(mode(*before).into()),
            _ => What::PolicyGeneration(pending.generation.get()),
        }),
        deadline: Some(timestamp(pending.deadline)),
        refused: pending
            .refused
            .as_ref()
            .map(|refused| refused.reason.clone()),
    }
}

fn summary(policy: &Policy, generation: lib::Generation) -> v1::PolicySummary {
    v1::PolicySummary {
        generation: generation.get(),
        hash: policy.hash().to_string(),
        rules: number(policy.rules().len()),
        set_entries: policy.sets().values().map(AddressSet::len).sum::<usize>() as u64,
        default_verdict: verdict(policy.default_verdict()).into(),
    }
}

pub(super) fn attachment(attachment: lib::Attachment) -> v1::Attachment {
    v1::Attachment {
        ifindex: attachment.ifindex.get(),
        mode: attach_mode(attachment.mode).into(),
        fell_back: attachment.why(),
        name: attachment.name,
        program_id: attachment.program_id,
        link_id: attachment.link_id,
        requested: requested(attachment.requested).into(),
        dry_run: attachment.dry_run,
    }
}

pub(super) fn attach_mode(mode: lib::AttachMode) -> v1::AttachMode {
    match mode {
        lib::AttachMode::Generic => v1::AttachMode::Generic,
        lib::AttachMode::Native => v1::AttachMode::Native,
        lib::AttachMode::Offload => v1::AttachMode::Offload,
        _ => v1::AttachMode::Unspecified,
    }
}

fn requested(preference: lib::ModePreference) -> v1::ModePreference {
    match preference {
        lib::ModePreference::BestAvailable => v1::ModePreference::BestAvailable,
        lib::ModePreference::Exactly(lib::AttachMode::Native) => v1::ModePreference::Native,
        lib::ModePreference::Exactly(lib::AttachMode::Generic) => v1::ModePreference::Generic,
        lib::ModePreference::Exactly(lib::AttachMode::Offload) => v1::ModePreference::Offload,
        _ => v1::ModePreference::Unspecified,
    }
}

pub(super) fn preference(preference: v1::ModePreference) -> lib::ModePreference {
    match preference {
        v1::ModePreference::Unspecified | v1::ModePreference::BestAvailable => {
            lib::ModePreference::BestAvailable
        }
        v1::ModePreference::Native => lib::ModePreference::Exactly(lib::AttachMode::Native),
        v1::ModePreference::Generic => lib::ModePreference::Exactly(lib::AttachMode::Generic),
        v1::ModePreference::Offload => lib::ModePreference::Exactly(lib::AttachMode::Offload),
    }
}

pub(super) fn preflight(preflight: lib::Preflight) -> v1::InterfacePreflight {
    let finding = |finding: &lib::Finding| v1::Finding {
        kind: finding.kind.to_string(),
        severity: match finding.severity {
            lib::Severity::Hint => v1::Severity::Hint,
            lib::Severity::Degrades => v1::Severity::Degrades,
            lib::Severity::MayBlockNative => v1::Severity::MayBlockNative,
            lib::Severity::BlocksNative => v1::Severity::BlocksNative,
            lib::Severity::BlocksAttach => v1::Severity::BlocksAttach,
            _ => v1::Severity::Unspecified,
        }
        .into(),
        message: finding.message.clone(),
        mend: finding.mend.clone(),
    };
    v1::InterfacePreflight {
        ifindex: preflight.ifindex.get(),
        expected_mode: preflight.expected_mode().map(|m| attach_mode(m).into()),
        findings: preflight.findings.iter().map(finding).collect(),
        name: preflight.name,
    }
}

pub(super) fn bridge(bridge: lib::BridgeInfo) -> v1::Bridge {
    let direction = |stats: lib::DirectionStats| v1::Direction {
        forwarded_packets: stats.forwarded.packets,
        forwarded_bytes: stats.forwarded.bytes,
        dropped_packets: stats.dropped.packets,
        dropped_bytes: stats.dropped.bytes,
    };
    v1::Bridge {
        outer: bridge.outer.attachment.name,
        inner: bridge.inner.attachment.name,
        filter: bridge.filter.to_string(),
        inbound: Some(direction(bridge.inbound)),
        outbound: Some(direction(bridge.outbound)),
    }
}

pub(super) fn watch(stats: lib::AutoStats) -> v1::WatchStats {
    v1::WatchStats {
        messages: stats.messages,
        overruns: stats.overruns,
        rescans: stats.rescans,
        attached: stats.attached,
        detached: stats.detached,
        failed: stats.failed,
    }
}

pub(super) fn program(facts: lib::ProgramFacts) -> v1::Program {
    v1::Program {
        id: facts.id,
        name: facts.name,
        verified_instructions: facts.verified_insns,
        translated_bytes: facts.translated_bytes,
        machine_bytes: facts.machine_bytes,
        load: facts.load.try_into().ok(),
    }
}

pub(super) fn plan(plan: lib::Plan) -> v1::Plan {
    let names = |ids: &[lib::policy::RuleId]| ids.iter().map(ToString::to_string).collect();
    v1::Plan {
        text: plan.to_string(),
        empty: plan.is_empty(),
        added_rules: names(&plan.added),
        removed_rules: names(&plan.removed),
        changed_rules: names(&plan.changed),
        sets: plan.sets.iter().map(set_change).collect(),
        default_verdict: plan.default.map(|(_, new)| verdict(new).into()),
        malformed: plan.malformed.map(|(_, new)| verdict(new).into()),
        failsafe_changed: plan.failsafe,
        image_bytes: plan.image_bytes.map(|bytes| bytes as u64),
    }
}

fn set_change(change: &lib::SetChange) -> v1::SetChange {
    let kind = match change.kind {
        lib::SetChangeKind::Added => v1::set_change::Kind::Added,
        lib::SetChangeKind::Removed => v1::set_change::Kind::Removed,
        lib::SetChangeKind::Changed => v1::set_change::Kind::Changed,
        _ => v1::set_change::Kind::Unspecified,
    };
    v1::SetChange {
        name: change.name.to_string(),
        kind: kind.into(),
        added_entries: change.added as u64,
        removed_entries: change.removed as u64,
        changed_expiries: change.expiries as u64,
    }
}

pub(super) fn applied(applied: &lib::Applied) -> v1::Applied {
    v1::Applied {
        generation: applied.generation.get(),
        compile_nanoseconds: nanoseconds(applied.compile),
        publish_nanoseconds: nanoseconds(applied.publish),
        image_bytes: applied.image_bytes as u64,
        entries: applied.entries as u64,
        verified_instructions: applied.verified_insns,
        changed_hosts: applied.changed_hosts.map(|hosts| hosts as u64),
        not_saved: applied.not_saved.clone(),
    }
}

pub(super) fn stats(stats: lib::Stats) -> v1::GetStatsResponse {
    v1::GetStatsResponse {
        generation: stats.generation.map_or(0, lib::Generation::get),
        interfaces: stats.interfaces.into_iter().map(interface_stats).collect(),
        other: counts(&stats.other),
        rules: stats.rules.into_iter().map(rule_stats).collect(),
    }
}

fn interface_stats(stats: lib::InterfaceStats) -> v1::InterfaceStats {
    v1::InterfaceStats {
        ifindex: stats.ifindex.get(),
        name: stats.name,
        attached: stats.attached,
        verdicts: counts(&stats.counts),
    }
}

fn counts(counts: &lib::VerdictCounts) -> Vec<v1::VerdictCount> {
    let count = |count: &lib::VerdictCount| v1::VerdictCount {
        reason: count.reason.to_string(),
        disposition: disposition(count.disposition).into(),
        packets: count.count.packets,
        bytes: count.count.bytes,
    };
    counts.iter().map(count).collect()
}

fn disposition(disposition: lib::Disposition) -> v1::Disposition {
    match disposition {
        lib::Disposition::Passed => v1::Disposition::Pass,
        lib::Disposition::Dropped => v1::Disposition::Drop,
        lib::Disposition::WouldDrop => v1::Disposition::WouldDrop,
        _ => v1::Disposition::Unspecified,
    }
}

/// What a change did; a refusal is told in `refused`.
pub(super) fn effect(
    effect: &Result<lib::policy::Effect, lib::policy::ChangeError>,
    refused: impl FnOnce(&lib::policy::ChangeError) -> String,
) -> v1::Effect {
    use lib::policy::Effect;
    use v1::effect::Kind;
    let plain = |kind: Kind| v1::Effect {
        kind: kind.into(),
        ..Default::default()
    };
    match effect {
        Ok(Effect::Created) => plain(Kind::Created),
        Ok(Effect::Replaced) => plain(Kind::Replaced),
        Ok(Effect::Removed) => plain(Kind::Removed),
        Ok(Effect::Unchanged) => plain(Kind::Unchanged),
        Ok(Effect::Entries(entries)) => v1::Effect {
            entries: *entries as u64,
            ..plain(Kind::Entries)
        },
        Ok(_) => plain(Kind::Unspecified),
        Err(error) => v1::Effect {
            error: Some(refused(error)),
            ..plain(Kind::Refused)
        },
    }
}

pub(super) fn estimate(estimate: lib::Estimate) -> v1::Estimate {
    let rules = estimate.rules.into_iter().take(20);
    v1::Estimate {
        samples: estimate.samples as u64,
        since: Some(timestamp(estimate.since)),
        would_pass: estimate.would_pass as u64,
        would_drop: estimate.would_drop as u64,
        rules: rules
            .map(|(id, frames)| v1::RuleHits {
                id: id.to_string(),
                frames: frames as u64,
            })
            .collect(),
    }
}

fn rule_stats(stats: lib::RuleStats) -> v1::RuleStats {
    v1::RuleStats {
        id: stats.id.to_string(),
        packets: stats.matched.packets,
        bytes: stats.matched.bytes,
        dropped_packets: stats.dropped,
        would_drop_packets: stats.would_drop,
        rate_overflow_packets: stats.rate_overflow,
    }
}

pub(super) fn evaluation(said: lib::Evaluation) -> v1::Evaluation {
    v1::Evaluation {
        verdict: verdict(said.verdict).into(),
        reason: said.reason.to_string(),
        rule: said.rule.map(|id| id.to_string()),
        monitored: said.monitored.iter().map(ToString::to_string).collect(),
    }
}

fn verdict(verdict: lib::Verdict) -> v1::Verdict {
    match verdict {
        lib::Verdict::Pass => v1::Verdict::Pass,
        lib::Verdict::Drop => v1::Verdict::Drop,
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
