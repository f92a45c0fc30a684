//! Which sets and rules an address is in.

use std::net::IpAddr;

use axum::Json as Answer;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::policies::waiting;
use crate::core::EntryFilter;
use crate::domain::Name;
use crate::http::App;
use crate::http::extract::Params;
use crate::http::find::touches;
use crate::http::problem::{Problem, Refusals};
use crate::http::routes::sets::Entry;

/// Rules that are told.
const MOST: usize = 1_000;

/// Which address.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct LookupParams {
    /// The address.
    #[param(value_type = String)]
    address: IpAddr,
}

/// Where an address is named.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct Found {
    /// The countries that it is in now, by the sets `country-CODE`.
    countries: Vec<String>,
    /// The sets that it is in.
    sets: Vec<InSet>,
    /// The rules that name it, by a prefix or a set; up to 1,000.
    rules: Vec<InRule>,
}

/// A set that an address is in.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct InSet {
    /// The set.
    set: String,
    /// The entries in which it lies, up to 100.
    entries: Vec<Entry>,
    /// Whether one of them has not expired.
    now: bool,
}

/// A rule that names an address.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct InRule {
    /// The policy.
    policy: String,
    /// The rule.
    rule: String,
    /// `src` or `dst`.
    side: &'static str,
    /// The prefix, or `@set`.
    by: String,
    /// Whether the rule is enabled.
    enabled: bool,
    /// Its priority.
    priority: u32,
}

/// Which sets and rules an address is in.
#[utoipa::path(get, path = "/api/v1/lookup", tag = "lookup", params(LookupParams), responses((status = 200, body = Found), Refusals))]
pub(in crate::http) async fn lookup(
    State(app): State<App>,
    Params(params): Params<LookupParams>,
) -> Result<Answer<Found>, Problem> {
    let view = app.core().view();
    let work = move || {
        let (address, now) = (params.address.to_canonical(), Timestamp::now());
        let sets = view
            .sets()
            .values()
            .filter(|set| set.entries.contains(address));
        let filter = EntryFilter {
            address: Some(address),
            expired: None,
        };
        let entries = |set: &Name| {
            let found = view.find_entries(set, &filter, None, MOST);
            let items = found.into_iter().flat_map(|found| found.items);
            items.map(Entry::from).collect()
        };
        let sets = sets.map(|set| InSet {
            set: set.name.to_string(),
            entries: entries(&set.name),
            now: set.entries.contains_at(address, now),
        });
        let rules = view.policies().values().flat_map(|policy| {
            let view = &view;
            policy.rules.iter().flat_map(move |state| {
                let rule = &state.rule;
                touches(view, rule, address)
                    .into_iter()
                    .map(move |(side, by)| InRule {
                        policy: policy.name.to_string(),
                        rule: rule.id.to_string(),
                        side,
                        by,
                        enabled: rule.enabled,
                        priority: rule.priority,
                    })
            })
        });
        Ok(Found {
            countries: crate::feed::lookup(&view, address, now).countries,
            sets: sets.collect(),
            rules: rules.take(MOST).collect(),
        })
    };
    Ok(Answer(waiting(work).await?))
}
