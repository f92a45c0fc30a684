//! Whether verdicts are carried out: `enforce`, `dry-run`, `panic-off`; and `reload`, `stop`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use xdpgate_api::v1::{
    Mode, ReloadConfigRequest, ReloadConfigResponse, SetModeRequest, SetModeResponse, StopRequest,
};

use super::args::Remote;
use super::connect::connect;
use super::out::{answer, print, print_json};
use super::{duration, names, remote};
use crate::Failure;

#[derive(Debug, Args)]
#[command(after_help = "\
With --confirm-within the mode before comes back by itself unless `xdpgate confirm` is said in time:
use it when what you drop might be yourself.

Examples:
  xdpgate enforce --confirm-within 60s    then, over a new connection: xdpgate confirm
  xdpgate enforce --interface eth0")]
pub(super) struct Enforce {
    /// Take it back unless it is confirmed within this time, at least 1s
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub confirm_within: Option<Duration>,
    /// Only this interface: it drops again after `dry-run --interface`
    #[arg(long, value_name = "NAME", conflicts_with = "confirm_within")]
    pub interface: Option<String>,
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Args)]
#[command(after_help = "\
It lasts over restarts, unless the configuration of the daemon says to enforce: then the answer says so.

Examples:
  xdpgate dry-run
  xdpgate dry-run --interface eth1        the others go on dropping")]
pub(super) struct DryRun {
    /// Only this interface
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The daemon is asked first. If it does not answer within 2 seconds or is gone, the mode is written through
the pins, for which root is needed. Pass mode stays over restarts until `xdpgate enforce` or `xdpgate
dry-run`. The exit code is 0 only if pass mode is in force.

Examples:
  xdpgate panic-off
  xdpgate panic-off --pin /sys/fs/bpf/xdpgate --state-dir /var/lib/xdpgate")]
pub(super) struct PanicOff {
    /// The directory of the daemon's pins
    #[arg(long, value_name = "DIR", env = "XDPGATED_PINS_ROOT")]
    #[arg(default_value = "/sys/fs/bpf/xdpgate")]
    pub pin: PathBuf,
    /// The directory of the daemon's state
    #[arg(long, value_name = "DIR", env = "XDPGATED_STATE_DIR")]
    #[arg(default_value = "/var/lib/xdpgate")]
    pub state_dir: PathBuf,
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xdpgate reload
  xdpgate reload --json | jq -r '.needs_restart[]'")]
pub(super) struct Reload {
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xdpgate stop              what is attached goes on being judged
  xdpgate stop --detach     nothing is left, every packet passes")]
pub(super) struct Stop {
    /// Detach every interface and remove all pins: every packet passes, and nothing is left
    #[arg(long)]
    pub detach: bool,
    #[command(flatten)]
    pub remote: Remote,
}

pub(super) fn enforce(args: &Enforce) -> Result<(), Failure> {
    let request = SetModeRequest {
        mode: Mode::Enforce.into(),
        confirm_within: args.confirm_within.map(duration::proto),
        interface: args.interface.clone(),
    };
    set(&args.remote, request)
}

pub(super) fn dry_run(args: &DryRun) -> Result<(), Failure> {
    let request = SetModeRequest {
        mode: Mode::DryRun.into(),
        confirm_within: None,
        interface: args.interface.clone(),
    };
    set(&args.remote, request)
}

fn set(remote: &Remote, request: SetModeRequest) -> Result<(), Failure> {
    let interface = request.interface.clone();
    let wanted = request.mode();
    let done = remote::call(remote, async |mut client| client.set_mode(request).await)?;
    answer(remote.json, &done, |done| match interface {
        None => set_text(done),
        Some(name) => format!(
            "{name}: {}\nmode of the daemon: {}\n",
            match wanted {
                Mode::Enforce => "drops, if the daemon enforces",
                _ => "drops nothing",
            },
            names::mode(done.mode()),
        ),
    })
}

fn set_text(done: &SetModeResponse) -> String {
    let mut text = format!(
        "mode {}, before {}\n",
        names::mode(done.mode()),
        names::mode(done.previous())
    );
    if done.confirm_by.is_some() {
        text += &format!(
            "mode {} comes back at {} (in {}) unless you keep this one: xdpgate confirm\n",
            names::mode(done.previous()),
            duration::time_text(done.confirm_by),
            duration::until(done.confirm_by),
        );
    }
    if done.next_start_enforces {
        text += &format!("{}\n", names::NEXT_START_ENFORCES);
    }
    text
}

pub(super) fn panic_off(args: &PanicOff) -> Result<(), Failure> {
    let asked = remote::run(async {
        let request = SetModeRequest {
            mode: Mode::Pass.into(),
            ..Default::default()
        };
        let call = async {
            let mut client = connect(&args.remote).await?;
            let done = client.set_mode(request).await;
            let done = done.map_err(|status| remote::refused(&args.remote, &status))?;
            Ok(done.into_inner().mode())
        };
        match tokio::time::timeout(PATIENCE, call).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::operation("it did not answer within 2 s")),
        }
    });
    let why = match asked {
        Ok(Mode::Pass) => return told(args, "daemon", None),
        Ok(mode) => format!("the daemon says mode {}", names::mode(mode)),
        Err(failure) => failure.to_string(),
    };
    eprintln!("{why}; trying the pins at {}", args.pin.display());
    xdpgate::pass_all(&args.pin, Some(&args.state_dir)).map_err(Failure::operation)?;
    told(args, "pins", Some(&why))
}

fn told(args: &PanicOff, way: &str, why: Option<&str>) -> Result<(), Failure> {
    if args.remote.json {
        return print_json(&json!({ "mode": "pass", "way": way, "why": why }));
    }
    print(&format!(
        "pass mode, by the {way}: nothing is dropped until `xdpgate enforce`\n"
    ))
}

/// How long the daemon has to answer before the pins are tried.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn reload(args: &Reload) -> Result<(), Failure> {
    let done = remote::call(&args.remote, async |mut client| {
        client.reload_config(ReloadConfigRequest {}).await
    })?;
    answer(args.remote.json, &done, reload_text)
}

fn reload_text(done: &ReloadConfigResponse) -> String {
    let mut text = match done.changed.is_empty() {
        true => "the configuration was read; nothing in force has changed\n".to_owned(),
        false => format!("in force: {}\n", done.changed.join(", ")),
    };
    if !done.needs_restart.is_empty() {
        let keys = done.needs_restart.join(", ");
        text += &format!("takes effect with the next start: {keys}\n");
    }
    text
}

pub(super) fn stop(args: &Stop) -> Result<(), Failure> {
    let request = StopRequest {
        detach: args.detach,
    };
    let stopped = remote::call(&args.remote, async |mut client| client.stop(request).await)?;
    answer(args.remote.json, &stopped, |stopped| {
        match stopped.goes_on {
            true => "stopping; what is attached goes on being judged\n",
            false => "stopping; everything is detached\n",
        }
        .to_owned()
    })
}
