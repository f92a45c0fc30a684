//! Status and counters, for people and for programs.

use serde_json::{Value, json};
use xdpgate_api::v1::{
    AttachMode, Attachment, Disposition, GetStatsResponse, GetStatusResponse, ModePreference,
    Program, RuleStats, Verdict, VerdictCount,
};

use super::table::{Align, Table};

pub(super) fn status_text(status: &GetStatusResponse) -> String {
    let mut text = format!(
        "xdpgated {}, up {} s",
        status.version, status.uptime_seconds
    );
    text += match status.dry_run {
        true => ", DRY RUN: judged and counted, nothing is dropped\n",
        false => ", enforcing\n",
    };
    text += &match &status.policy {
        Some(policy) => format!(
            "policy    generation {}; rules: {}, set entries: {}, default: {}\n          hash {}\n",
            policy.generation,
            policy.rules,
            policy.set_entries,
            verdict_name(policy.default_verdict()),
            policy.hash,
        ),
        None => "policy    none yet: everything passes\n".to_owned(),
    };
    for program in [&status.entry_program, &status.policy_program]
        .into_iter()
        .flatten()
    {
        text += &format!("program   {} (id {})", program.name, program.id);
        text += &match program.verified_instructions {
            Some(count) => format!(", {count} instructions verified\n"),
            None => "\n".to_owned(),
        };
    }
    if let Some(dir) = &status.pin_root {
        text += &format!("pinned    at {dir}: outlives the daemon\n");
    }
    if let Some(broken) = &status.broken {
        text += &format!("BROKEN    {broken}\n");
    }
    let mut table = Table::new(&[
        ("INTERFACE", Align::Left),
        ("IFINDEX", Align::Right),
        ("MODE", Align::Left),
        ("PROGRAM", Align::Right),
        ("LINK", Align::Right),
        ("NOTE", Align::Left),
    ]);
    for attachment in &status.attachments {
        table.row([
            attachment.name.clone(),
            attachment.ifindex.to_string(),
            mode_name(attachment.mode()).to_owned(),
            attachment.program_id.to_string(),
            attachment.link_id.to_string(),
            attachment.fell_back.clone().unwrap_or_default(),
        ]);
    }
    format!("{text}\n{table}")
}

pub(super) fn status_json(status: &GetStatusResponse) -> Value {
    let program = |program: &Program| {
        json!({
            "id": program.id,
            "name": program.name,
            "verified_instructions": program.verified_instructions,
        })
    };
    json!({
        "version": status.version,
        "uptime_seconds": status.uptime_seconds,
        "dry_run": status.dry_run,
        "policy": status.policy.as_ref().map(|policy| json!({
            "generation": policy.generation,
            "hash": policy.hash,
            "rules": policy.rules,
            "set_entries": policy.set_entries,
            "default": verdict_name(policy.default_verdict()),
        })),
        "pin_root": status.pin_root,
        "broken": status.broken,
        "attachments": status.attachments.iter().map(attachment_json).collect::<Vec<_>>(),
        "entry_program": status.entry_program.as_ref().map(program),
        "policy_program": status.policy_program.as_ref().map(program),
    })
}

pub(super) fn attachment_json(attachment: &Attachment) -> Value {
    json!({
        "ifindex": attachment.ifindex,
        "name": attachment.name,
        "requested": preference_name(attachment.requested()),
        "mode": mode_name(attachment.mode()),
        "fell_back": attachment.fell_back,
        "program_id": attachment.program_id,
        "link_id": attachment.link_id,
    })
}

pub(super) fn stats_text(stats: &GetStatsResponse) -> String {
    let mut verdicts = Table::new(&[
        ("INTERFACE", Align::Left),
        ("VERDICT", Align::Left),
        ("REASON", Align::Left),
        ("PACKETS", Align::Right),
        ("BYTES", Align::Right),
    ]);
    let mut rows = |name: &str, counts: &[VerdictCount]| {
        for count in counts {
            verdicts.row([
                name.to_owned(),
                disposition_name(count.disposition()).to_owned(),
                count.reason.clone(),
                count.packets.to_string(),
                count.bytes.to_string(),
            ]);
        }
    };
    for interface in &stats.interfaces {
        match interface.attached {
            true => rows(&interface.name, &interface.verdicts),
            false => rows(
                &format!("{} (detached)", interface.name),
                &interface.verdicts,
            ),
        }
    }
    rows("(other)", &stats.other);

    let mut rules = Table::new(&[
        ("RULE", Align::Left),
        ("PACKETS", Align::Right),
        ("BYTES", Align::Right),
        ("DROPPED", Align::Right),
        ("WOULD DROP", Align::Right),
    ]);
    for rule in &stats.rules {
        rules.row([
            rule.id.clone(),
            rule.packets.to_string(),
            rule.bytes.to_string(),
            rule.dropped_packets.to_string(),
            rule.would_drop_packets.to_string(),
        ]);
    }
    format!("{verdicts}\n{rules}")
}

pub(super) fn stats_json(stats: &GetStatsResponse) -> Value {
    let counts = |counts: &[VerdictCount]| -> Vec<Value> {
        let count = |count: &VerdictCount| {
            json!({
                "verdict": disposition_name(count.disposition()),
                "reason": count.reason,
                "packets": count.packets,
                "bytes": count.bytes,
            })
        };
        counts.iter().map(count).collect()
    };
    let rule = |rule: &RuleStats| {
        json!({
            "id": rule.id,
            "packets": rule.packets,
            "bytes": rule.bytes,
            "dropped_packets": rule.dropped_packets,
            "would_drop_packets": rule.would_drop_packets,
        })
    };
    json!({
        "generation": stats.generation,
        "interfaces": stats.interfaces.iter().map(|interface| json!({
            "ifindex": interface.ifindex,
            "name": interface.name,
            "attached": interface.attached,
            "verdicts": counts(&interface.verdicts),
        })).collect::<Vec<_>>(),
        "other": counts(&stats.other),
        "rules": stats.rules.iter().map(rule).collect::<Vec<_>>(),
    })
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Unspecified => "unknown",
        Verdict::Pass => "pass",
        Verdict::Drop => "drop",
    }
}

pub(super) fn mode_name(mode: AttachMode) -> &'static str {
    match mode {
        AttachMode::Unspecified => "unknown",
        AttachMode::Generic => "generic",
        AttachMode::Native => "native",
        AttachMode::Offload => "offload",
    }
}

pub(super) fn preference_name(preference: ModePreference) -> &'static str {
    match preference {
        ModePreference::Unspecified | ModePreference::BestAvailable => "best",
        ModePreference::Native => "native",
        ModePreference::Generic => "generic",
        ModePreference::Offload => "offload",
    }
}

fn disposition_name(disposition: Disposition) -> &'static str {
    match disposition {
        Disposition::Unspecified => "unknown",
        Disposition::Pass => "pass",
        Disposition::Drop => "drop",
        Disposition::WouldDrop => "would_drop",
    }
}
