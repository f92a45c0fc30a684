//! `xdpgate status`, `system` and `stats`.

mod stats;

use std::time::Duration;

use clap::Args;
use xdpgate_api::v1::{
    GetStatusRequest, GetStatusResponse, GetSystemRequest, GetSystemResponse, Mode, Pending,
    Program, pending,
};

use super::args::Remote;
use super::interfaces::attachment_note;
use super::out::{BAD, HEAD, WARN, answer, styled};
use super::table::{Align, Table};
use super::{duration, names, remote, units};
use crate::Failure;

pub(super) use stats::{Stats, rates_text, stats};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xdpgate status
  xdpgate status --json | jq -r .mode")]
pub(super) struct Status {
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xdpgate system
  xdpgate system --json | jq .resident_bytes")]
pub(super) struct System {
    #[command(flatten)]
    pub remote: Remote,
}

pub(super) fn status(args: &Status) -> Result<(), Failure> {
    let status = remote::call(&args.remote, async |mut client| {
        client.get_status(GetStatusRequest {}).await
    })?;
    answer(args.remote.json, &status, status_text)
}

pub(super) fn system(args: &System) -> Result<(), Failure> {
    let system = remote::call(&args.remote, async |mut client| {
        client.get_system(GetSystemRequest {}).await
    })?;
    answer(args.remote.json, &system, system_text)
}

/// Whether verdicts are carried out, in words.
fn mode_text(status: &GetStatusResponse) -> String {
    match (status.mode(), status.dry_run) {
        (Mode::Pass, _) => styled(
            WARN,
            "PASS MODE: nothing is dropped, also after a restart; `xdpgate enforce` ends it",
        ),
        (_, true) => styled(WARN, "DRY RUN: judged and counted, nothing is dropped"),
        (_, false) => "enforcing".to_owned(),
    }
}

/// What comes back, when, and how to keep what is there.
pub(super) fn pending_text(pending: &Pending) -> String {
    let what = match &pending.what {
        Some(pending::What::PolicyGeneration(generation)) => {
            format!("the policy before generation {generation} comes back")
        }
        Some(pending::What::PreviousMode(mode)) => {
            let mode = Mode::try_from(*mode).unwrap_or_default();
            format!("mode {} comes back", names::mode(mode))
        }
        None => "the change is taken back".to_owned(),
    };
    if let Some(reason) = &pending.refused {
        return format!(
            "OVERDUE since {}: {what} as soon as that is possible, now it is not: {reason}; apply a policy, \
             which replaces it",
            duration::time_text(pending.deadline),
        );
    }
    format!(
        "{what} at {} (in {}) unless you keep it: xdpgate confirm",
        duration::time_text(pending.deadline),
        duration::until(pending.deadline),
    )
}

fn status_text(status: &GetStatusResponse) -> String {
    let up = units::duration(Duration::from_secs(status.uptime_seconds));
    let mut text = format!(
        "xdpgated {}, up {up}, {}\n",
        status.version,
        mode_text(status)
    );
    text += &match &status.policy {
        Some(policy) => format!(
            "policy    generation {}; rules: {}, set entries: {}, default: {}\n          hash {}\n",
            policy.generation,
            policy.rules,
            policy.set_entries,
            names::verdict(policy.default_verdict()),
            policy.hash,
        ),
        None => "policy    none yet: everything passes\n".to_owned(),
    };
    if status.next_start_enforces {
        text += &styled(WARN, format!("mode      {}\n", names::NEXT_START_ENFORCES));
    }
    if let Some(pending) = &status.pending {
        text += &styled(WARN, format!("pending   {}\n", pending_text(pending)));
    }
    if let Some(fleet) = &status.fleet {
        text += &format!("fleet     {}\n", super::fleet::line(fleet));
    }
    if status.bans > 0 {
        text += &format!("bans      {}\n", status.bans);
    }
    for program in [&status.entry_program, &status.policy_program]
        .into_iter()
        .flatten()
    {
        text += &program_text(program);
    }
    if let Some(dir) = &status.pin_root {
        text += &format!("pinned    at {dir}: outlives the daemon\n");
    }
    if let Some(why) = &status.not_saved {
        text += &styled(WARN, format!("NOT SAVED {why}\n"));
    }
    if let Some(broken) = &status.broken {
        text += &styled(BAD, format!("BROKEN    {broken}\n"));
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
            names::attach_mode(attachment.mode()).to_owned(),
            attachment.program_id.to_string(),
            attachment.link_id.to_string(),
            attachment_note(attachment),
        ]);
    }
    format!("{text}\n{table}")
}

fn program_text(program: &Program) -> String {
    let mut text = format!("program   {} (id {})", program.name, program.id);
    if let Some(count) = program.verified_instructions {
        text += &format!(", {count} instructions verified");
    }
    if program.translated_bytes > 0 {
        text += &format!(
            ", {} translated, {} of machine code",
            units::bytes(program.translated_bytes.into()),
            units::bytes(program.machine_bytes.into()),
        );
    }
    if let Some(load) = program.load.and_then(|load| Duration::try_from(load).ok()) {
        text += &format!(", loaded in {}", units::duration(load));
    }
    text + "\n"
}

fn system_text(system: &GetSystemResponse) -> String {
    let load: Vec<String> = system.load.iter().map(|l| format!("{l:.2}")).collect();
    let head = |text: &str| styled(HEAD, text);
    let mut text = format!(
        "{}      {}, Linux {} {}\n          up {}, {} CPUs, load {}, memory {} of {} available\n",
        head("host"),
        system.hostname,
        system.kernel_release,
        system.machine,
        units::duration(Duration::from_secs(system.uptime_seconds)),
        system.cpus,
        load.join(" "),
        units::bytes(system.memory_available_bytes),
        units::bytes(system.memory_total_bytes),
    );
    text += &format!("          boot {}\n", system.boot_id);
    text += &format!(
        "{}    pid {}, {} resident, {} open files, {:.1} s of CPU time\n",
        head("daemon"),
        system.pid,
        units::bytes(system.resident_bytes),
        system.open_files,
        system.cpu_seconds,
    );
    for program in [&system.entry_program, &system.policy_program]
        .into_iter()
        .flatten()
    {
        text += &program_text(program);
    }
    text += &format!(
        "compiler  {}, frames in several buffers: {}\n",
        system.clang,
        if system.frags { "yes" } else { "no" },
    );
    text
}
