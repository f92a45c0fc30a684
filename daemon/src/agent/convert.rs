//! From the library's types to the messages of the API.

use std::time::Duration;

use xdpgate::policy::AddressSet;
use xdpgate::{self as lib, Policy};
use xdpgate_api::v1;

pub(super) fn status(firewall: &lib::Firewall, uptime: Duration) -> v1::GetStatusResponse {
    let programs = firewall.program_info();
    let policy = firewall.policy().zip(firewall.generation());
    v1::GetStatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: uptime.as_secs(),
        dry_run: firewall.dry_run(),
        policy: policy.map(|(policy, generation)| summary(&policy, generation)),
        attachments: firewall.attachments().into_iter().map(attachment).collect(),
        entry_program: Some(program(programs.entry)),
        policy_program: programs.policy.map(program),
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

fn attachment(attachment: lib::Attachment) -> v1::Attachment {
    let fell_back = attachment.why();
    v1::Attachment {
        ifindex: attachment.ifindex.get(),
        name: attachment.name,
        mode: match attachment.mode {
            lib::AttachMode::Generic => v1::AttachMode::Generic,
            lib::AttachMode::Native => v1::AttachMode::Native,
            lib::AttachMode::Offload => v1::AttachMode::Offload,
            _ => v1::AttachMode::Unspecified,
        }
        .into(),
        fell_back,
        program_id: attachment.program_id,
        link_id: attachment.link_id,
        requested: attachment.requested.as_str().to_owned(),
    }
}

fn program(facts: lib::ProgramFacts) -> v1::Program {
    v1::Program {
        id: facts.id,
        name: facts.name,
        verified_instructions: facts.verified_insns,
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
        disposition: match count.disposition {
            lib::Disposition::Passed => v1::Disposition::Pass,
            lib::Disposition::Dropped => v1::Disposition::Drop,
            lib::Disposition::WouldDrop => v1::Disposition::WouldDrop,
            _ => v1::Disposition::Unspecified,
        }
        .into(),
        packets: count.count.packets,
        bytes: count.count.bytes,
    };
    counts.iter().map(count).collect()
}

fn rule_stats(stats: lib::RuleStats) -> v1::RuleStats {
    v1::RuleStats {
        id: stats.id.to_string(),
        packets: stats.matched.packets,
        bytes: stats.matched.bytes,
        dropped_packets: stats.dropped,
        would_drop_packets: stats.would_drop,
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
