//! `xdpgate fleet`: how the node stands with its fleet.

use clap::{Args, Subcommand};
use xdpgate_api::v1::{FleetState, FleetStatus, GetStatusRequest};

use super::args::Remote;
use super::out::{BAD, WARN, answer, styled};
use super::{duration, remote};
use crate::Failure;

/// What is asked of the fleet.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  xdpgate fleet status")]
pub(super) enum Fleet {
    /// Show the controller, the last state, and what is wrong
    #[command(after_help = "\
Examples:
  xdpgate fleet status
  xdpgate fleet status --json | jq -r .controller")]
    Status(Status),
}

#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    pub remote: Remote,
}

pub(super) fn run(command: &Fleet) -> Result<(), Failure> {
    let Fleet::Status(args) = command;
    let status = remote::call(&args.remote, async |mut client| {
        client.get_status(GetStatusRequest {}).await
    })?;
    match &status.fleet {
        Some(fleet) => answer(args.remote.json, fleet, fleet_text),
        None => Err(Failure::operation(
            "this node is in no fleet: name controllers in [fleet] of its configuration",
        )),
    }
}

/// In one line, for `xdpgate status`.
pub(super) fn line(fleet: &FleetStatus) -> String {
    let mut text = match &fleet.controller {
        Some(controller) => format!("{} connected to {controller}", name(fleet)),
        None => styled(WARN, format!("{} NOT CONNECTED", name(fleet))),
    };
    if let Some(problem) = &fleet.problem {
        text += &styled(WARN, format!(": {problem}"));
    }
    if fleet.changed_here {
        text += &styled(WARN, "; the policy was changed at the node");
    }
    if fleet.panic_off {
        let held = "; pass mode holds until `xdpgate enforce`, whatever the fleet wants";
        text += &styled(WARN, held);
    }
    text
}

fn name(fleet: &FleetStatus) -> &str {
    match fleet.node_id.as_str() {
        "" => "no member yet,",
        id => id,
    }
}

fn fleet_text(fleet: &FleetStatus) -> String {
    let since = fleet.since.map_or_else(String::new, |at| {
        format!(", since {}", duration::time_text(Some(at)))
    });
    let mut text = format!("fleet     {}{since}\n", line(fleet));
    text += &match &fleet.state {
        Some(state) => format!("state     {}\n", state_text(state)),
        None => "state     none yet: it keeps the policy that it has until something is assigned to it\n"
            .to_owned(),
    };
    if let Some(refusal) = &fleet.refusal {
        let state = refusal.state.as_ref().map_or_else(String::new, state_text);
        let why = format!("REFUSED   {}: {}\n", refusal.reason, refusal.error);
        text += &styled(BAD, why);
        text += &format!("          {state}\n");
    }
    if let Some(expires) = fleet.certificate_expires {
        text += &format!(
            "member    certificate expires {}\n",
            duration::time_text(Some(expires))
        );
    }
    text += match fleet.signed {
        true => "signed    states without the signature of the fleet are refused\n",
        false => "signed    no: the fleet has no signing key\n",
    };
    text
}

fn state_text(state: &FleetState) -> String {
    let at = state.time.map_or_else(String::new, |at| {
        format!(" at {}", duration::time_text(Some(at)))
    });
    format!(
        "{} of {}{at}\n          hash {}",
        state.sequence, state.epoch, state.hash
    )
}
