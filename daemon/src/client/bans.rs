//! `xdpgate ban`, `unban` and `bans`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use xdpgate::policy::Prefix;
use xdpgate_api::v1::{
    BanInfo, BanRequest, BanResponse, BanScope, ListBansRequest, ListBansResponse, UnbanRequest,
    unban_request,
};

use super::args::Remote;
use super::out::answer;
use super::table::{Align, Table};
use super::{duration, names, remote};
use crate::Failure;

/// Which frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Scope {
    /// Those that come from the prefix
    Source,
    /// Those that go to it
    Destination,
    /// Both
    Both,
}

impl From<Scope> for BanScope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Source => Self::Source,
            Scope::Destination => Self::Destination,
            Scope::Both => Self::Both,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Before any rule, within a millisecond, without a new policy. The kernel ends it on time by itself. A ban
that is there already gets the new time.

Examples:
  xdpgate ban 203.0.113.7
  xdpgate ban 2001:db8::/48 --for 1h30m --scope both")]
pub(super) struct BanArgs {
    /// The address or prefix
    pub prefix: Prefix,
    /// For how long: 90s, 10m, 7d; up to 10 years
    #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse)]
    #[arg(default_value = "10m")]
    pub time: Duration,
    /// Which frames
    #[arg(long, value_enum, default_value_t = Scope::Source)]
    pub scope: Scope,
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Args)]
#[command(after_help = "\
One that is not there is no error.

Examples:
  xdpgate unban 203.0.113.7
  xdpgate unban 2001:db8::/48 --scope both
  xdpgate unban --all")]
pub(super) struct UnbanArgs {
    /// The address or prefix, exactly as it was banned
    #[arg(required_unless_present = "all")]
    pub prefix: Option<Prefix>,
    /// Lift all bans
    #[arg(long, conflicts_with_all = ["prefix", "scope"])]
    pub all: bool,
    /// In which direction
    #[arg(long, value_enum, default_value_t = Scope::Source)]
    pub scope: Scope,
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xdpgate bans
  xdpgate bans --json | jq -r '.bans[].prefix'")]
pub(super) struct List {
    #[command(flatten)]
    pub remote: Remote,
}

pub(super) fn ban(args: &BanArgs) -> Result<(), Failure> {
    let request = BanRequest {
        prefix: args.prefix.to_string(),
        scope: BanScope::from(args.scope).into(),
        ttl: Some(duration::proto(args.time)),
    };
    let done = remote::call(&args.remote, async |mut client| client.ban(request).await)?;
    answer(args.remote.json, &done, ban_text)
}

fn ban_text(done: &BanResponse) -> String {
    let ban = done.ban.clone().unwrap_or_default();
    format!(
        "{} is banned as {} until {} ({})\n",
        ban.prefix,
        names::scope(ban.scope()),
        duration::time_text(ban.expires),
        duration::until(ban.expires),
    )
}

pub(super) fn unban(args: &UnbanArgs) -> Result<(), Failure> {
    let (which, scope) = match &args.prefix {
        Some(prefix) => (
            unban_request::Which::Prefix(prefix.to_string()),
            BanScope::from(args.scope),
        ),
        None => (unban_request::Which::All(true), BanScope::Unspecified),
    };
    let request = UnbanRequest {
        which: Some(which),
        scope: scope.into(),
    };
    let done = remote::call(&args.remote, async |mut client| client.unban(request).await)?;
    answer(args.remote.json, &done, |done| match done.lifted {
        0 => "there was no such ban\n".to_owned(),
        1 => "1 ban is lifted\n".to_owned(),
        lifted => format!("{lifted} bans are lifted\n"),
    })
}

pub(super) fn list(args: &List) -> Result<(), Failure> {
    let all = remote::session(&args.remote, async |mut client| {
        let mut all = ListBansResponse::default();
        loop {
            let request = ListBansRequest {
                page_size: 10_000,
                page_token: all.next_page_token.clone(),
            };
            let page = client.list_bans(request).await;
            let page = page.map_err(|status| remote::refused(&args.remote, &status))?;
            let page = page.into_inner();
            all.bans.extend(page.bans);
            all.total = page.total;
            all.next_page_token = page.next_page_token;
            if all.next_page_token.is_empty() {
                return Ok(all);
            }
        }
    })?;
    answer(args.remote.json, &all, |all| list_text(&all.bans))
}

fn list_text(bans: &[BanInfo]) -> String {
    if bans.is_empty() {
        return "no bans\n".to_owned();
    }
    let mut table = Table::new(&[
        ("PREFIX", Align::Left),
        ("SCOPE", Align::Left),
        ("ENDS IN", Align::Right),
        ("AT", Align::Left),
        ("PACKETS", Align::Right),
    ]);
    for ban in bans {
        table.row([
            ban.prefix.clone(),
            names::scope(ban.scope()).to_owned(),
            duration::until(ban.expires),
            duration::time_text(ban.expires),
            ban.packets.to_string(),
        ]);
    }
    table.to_string()
}
