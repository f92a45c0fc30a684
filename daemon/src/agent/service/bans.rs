//! The calls about bans.

use std::time::Duration;

use tonic::Status;
use xdpgate::policy::Prefix;
use xdpgate::{Ban, BanScope, Firewall};
use xdpgate_api::v1;

use super::page;
use crate::agent::convert::{self, Wrong};
use crate::agent::fault;

/// Ten years of 365 days and the leap days among them.
const LONGEST: Duration = Duration::from_secs(3653 * 24 * 3600);

pub(super) fn ban(
    firewall: &Firewall,
    request: &v1::BanRequest,
) -> Result<v1::BanResponse, Status> {
    let prefix = convert::prefix("prefix", &request.prefix)?;
    let scope = convert::known("scope", request.scope).map(convert::ban_scope)?;
    let ttl = ttl(request)?;
    let ban = firewall
        .ban(prefix, scope, ttl)
        .map_err(|e| fault::ban(&e))?;
    log::debug!("{prefix}: banned until {}", ban.expires);
    Ok(v1::BanResponse {
        ban: Some(convert::ban(&ban)),
    })
}

pub(super) fn ttl(request: &v1::BanRequest) -> Result<Duration, Wrong> {
    let missing = || Wrong::new("ttl", "it is missing: say for how long, as in 600s");
    let ttl = request.ttl.as_ref().ok_or_else(missing)?;
    convert::parse_duration("ttl", ttl, Duration::from_nanos(1), LONGEST)
}

pub(super) fn unban(
    firewall: &Firewall,
    request: &v1::UnbanRequest,
) -> Result<v1::UnbanResponse, Status> {
    use v1::unban_request::Which;
    let scope: v1::BanScope = convert::known("scope", request.scope)?;
    let lifted = match &request.which {
        Some(Which::Prefix(prefix)) => {
            let prefix = convert::prefix("prefix", prefix)?;
            let scopes = match convert::ban_scope(scope) {
                BanScope::Both => &[BanScope::Source, BanScope::Destination][..],
                BanScope::Source => &[BanScope::Source],
                BanScope::Destination => &[BanScope::Destination],
            };
            let lifted = scopes
                .iter()
                .filter(|scope| firewall.unban(prefix, **scope));
            lifted.count()
        }
        Some(Which::All(true)) if scope == v1::BanScope::Unspecified => {
            let lifted = firewall.unban_all();
            log::info!("all {lifted} bans are lifted, as asked");
            lifted
        }
        Some(Which::All(true)) => {
            return Err(Wrong::new("scope", "only with prefix: leave it out to lift all").into());
        }
        Some(Which::All(false)) | None => {
            return Err(Wrong::new("which", "say a prefix, or all: true").into());
        }
    };
    Ok(v1::UnbanResponse {
        lifted: lifted as u64,
    })
}

pub(super) fn list(
    firewall: &Firewall,
    request: &v1::ListBansRequest,
) -> Result<v1::ListBansResponse, Status> {
    let size = page::size(request.page_size, 1000, 10_000)?;
    let after = match request.page_token.as_str() {
        "" => None,
        token => Some(parse(token).ok_or_else(|| {
            Wrong::new(
                "page_token",
                "no token of this call: leave it empty for the first page",
            )
        })?),
    };
    let bans = firewall.bans();
    let is_before = |ban: &Ban| after.is_some_and(|after| (ban.prefix, ban.scope) <= after);
    let begin = bans.partition_point(is_before);
    let page = &bans[begin..bans.len().min(begin + size)];
    let last = page.last().filter(|_| begin + page.len() < bans.len());
    Ok(v1::ListBansResponse {
        next_page_token: last
            .map(|ban| token((ban.prefix, ban.scope)))
            .unwrap_or_default(),
        bans: page.iter().map(convert::ban).collect(),
        total: bans.len() as u64,
    })
}

/// The token of the page after a ban: bans come and go, so it is not a number.
pub(super) fn token((prefix, scope): (Prefix, BanScope)) -> String {
    format!("{} {prefix}", scope.as_str())
}

pub(super) fn parse(token: &str) -> Option<(Prefix, BanScope)> {
    let (scope, prefix) = token.split_once(' ')?;
    let scope = match scope {
        "source" => BanScope::Source,
        "destination" => BanScope::Destination,
        _ => return None,
    };
    Some((prefix.parse().ok()?, scope))
}
