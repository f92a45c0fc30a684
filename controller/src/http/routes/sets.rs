//! Address sets.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use xdpgate::policy::{AddressSetBuilder, EntryCounters, Prefix};

use super::policies::{DiffParams, ListParams, Revert, VersionParams, versions_page, waiting};
use crate::core::{Command, EntryFilter, FoundEntry, Patch, SetContent, SetPatch, View};
use crate::domain::{Name, SetState};
use crate::http::extract::{Change, ChangeParams, Json, MergePatch, Params, Target, patch as tri};
use crate::http::find::sets_of;
use crate::http::page::{Page, cursor, limit, place};
use crate::http::problem::{Problem, Refusals};
use crate::http::rules::Touched;
use crate::http::{App, Changed, tagged};

/// Entries that come or go by one request of JSON; more go by PUT as a stream.
pub(in crate::http) const MAX_ENTRIES: usize = 10_000;

/// A set without its entries.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct SetInfo {
    /// The name, as rules have it behind the `@`.
    name: String,
    /// 1, 2, ...; also the ETag.
    version: u64,
    /// Free text.
    comment: Option<String>,
    /// How many seconds an entry lasts that comes without an expiry; absent: for good.
    default_expiry: Option<u64>,
    /// `none` or `entry`.
    counters: Counters,
    /// How many entries it has.
    entries: usize,
    /// Rules that name it, as `policy/rule`, up to 100.
    used_by: Vec<String>,
    /// Who made it.
    created: Touched,
    /// Who made this version.
    updated: Touched,
}

/// Which counters entries have.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum Counters {
    /// None.
    None,
    /// One each.
    Entry,
}

/// A set to be.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct SetBody {
    /// `[a-zA-Z0-9._-]{1,64}`.
    #[schema(value_type = String)]
    name: Name,
    /// Free text.
    comment: Option<String>,
    /// How many seconds an entry lasts that comes without an expiry.
    default_expiry: Option<u64>,
    /// Which counters entries have.
    counters: Option<Counters>,
    /// Up to 10,000; more go by PUT of its entries.
    #[serde(default)]
    entries: Vec<EntryBody>,
}

/// Changes of a set but for its entries: what is not named stays, null clears.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct SetPatchBody {
    /// Free text.
    #[serde(default, deserialize_with = "tri")]
    #[schema(value_type = Option<String>)]
    comment: Patch<String>,
    /// How many seconds an entry lasts that comes without an expiry; for those that come from now on.
    #[serde(default, deserialize_with = "tri")]
    #[schema(value_type = Option<u64>)]
    default_expiry: Patch<u64>,
    /// Which counters entries have.
    #[serde(default, deserialize_with = "tri")]
    #[schema(value_type = Option<Counters>)]
    counters: Patch<Counters>,
}

/// An entry: an address or prefix, or one with its expiry.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub(in crate::http) enum EntryBody {
    /// `203.0.113.7` or `2001:db8::/32`.
    Text(String),
    /// With its expiry.
    Full(FullEntry),
}

/// An entry with its expiry.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct FullEntry {
    /// `203.0.113.7` or `2001:db8::/32`.
    pub(in crate::http) address: String,
    /// From when on it is not in the set; absent: as the set says.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(in crate::http) expires: Option<Timestamp>,
}

/// Entries that come.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Entries {
    /// Up to 10,000.
    entries: Vec<EntryBody>,
}

/// Entries that go.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Gone {
    /// Up to 10,000.
    entries: Vec<String>,
}

/// An entry of a set.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct Entry {
    /// The address or prefix.
    pub(in crate::http) address: String,
    /// From when on it is not in the set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(in crate::http) expires: Option<Timestamp>,
}

/// Which entries.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct EntryParams {
    /// Those in which this address lies.
    #[param(value_type = Option<String>)]
    address: Option<IpAddr>,
    /// How many, up to 1,000; 100 unless said.
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// What differs between two versions of a set.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct SetDiffBody {
    /// In words.
    text: String,
    /// Entries that came, up to 1,000.
    added: Vec<Entry>,
    /// How many came.
    added_count: usize,
    /// Entries that went, up to 1,000.
    removed: Vec<String>,
    /// How many went.
    removed_count: usize,
}

impl From<FoundEntry> for Entry {
    fn from(found: FoundEntry) -> Self {
        Self {
            address: found.prefix.to_string(),
            expires: found.expires,
        }
    }
}

impl From<Counters> for EntryCounters {
    fn from(counters: Counters) -> Self {
        match counters {
            Counters::None => Self::None,
            Counters::Entry => Self::Entry,
        }
    }
}

impl SetInfo {
    fn new(view: &View, set: &SetState) -> Self {
        let users = view.policies().values().flat_map(|policy| {
            let name = set.name.as_str();
            let names =
                move |rule: &xdpgate::policy::Rule| sets_of(rule).any(|n| n.as_str() == name);
            let rules = policy.rules.iter().filter(move |state| names(&state.rule));
            rules.map(|state| format!("{}/{}", policy.name, state.rule.id))
        });
        Self {
            name: set.name.to_string(),
            version: set.version,
            comment: set.comment.clone(),
            default_expiry: set.default_expiry,
            counters: match set.counters() {
                EntryCounters::None => Counters::None,
                EntryCounters::Entry => Counters::Entry,
            },
            entries: set.entries.len(),
            used_by: users.take(100).collect(),
            created: (&set.created).into(),
            updated: (&set.updated).into(),
        }
    }
}

/// The sets.
#[utoipa::path(get, path = "/api/v1/sets", tag = "sets", params(ListParams), responses((status = 200, body = Page<SetInfo>), Refusals))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    Params(params): Params<ListParams>,
) -> Result<Answer<Page<SetInfo>>, Problem> {
    let view = app.core().view();
    let all = view
        .sets()
        .values()
        .filter(|set| params.holds(&set.name, set.comment.as_ref()));
    let found = params.page(all.cloned().collect(), |set| set.name.to_string())?;
    waiting(move || Ok(Answer(found.map(|set| SetInfo::new(&view, &set))))).await
}

/// Makes a set.
#[utoipa::path(post, path = "/api/v1/sets", tag = "sets", params(ChangeParams), request_body = SetBody,
    responses((status = 201, body = Changed), Refusals))]
pub(in crate::http) async fn create(
    State(app): State<App>,
    change: Change,
    Json(body): Json<SetBody>,
) -> Result<Response, Problem> {
    let mut entries = AddressSetBuilder::default();
    for (prefix, expires) in read(body.entries)? {
        entries.push(prefix, expires);
    }
    let content = SetContent {
        entries: Arc::new(entries.build(body.counters.map_or(EntryCounters::None, Into::into))),
        default_expiry: body.default_expiry,
        comment: body.comment,
    };
    let (set, new) = (body.name.clone(), format!("/api/v1/sets/{}", body.name));
    app.change_one(change, vec![Command::CreateSet { set, content }], Some(new))
        .await
}

/// One set, without its entries.
#[utoipa::path(get, path = "/api/v1/sets/{set}", tag = "sets", params(("set" = String, Path)),
    responses((status = 200, body = SetInfo), Refusals))]
pub(in crate::http) async fn get(
    State(app): State<App>,
    Target(name): Target<Name>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let view = app.core().view();
    let set = found(&view, &name)?.clone();
    let version = set.version;
    let info = waiting(move || Ok(SetInfo::new(&view, &set))).await?;
    Ok(tagged(&headers, version, info))
}

/// Changes a set but for its entries: what is not named stays, null clears.
#[utoipa::path(patch, path = "/api/v1/sets/{set}", tag = "sets", params(("set" = String, Path), ChangeParams),
    request_body(content = SetPatchBody, content_type = "application/merge-patch+json"),
    responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn patch(
    State(app): State<App>,
    Target(set): Target<Name>,
    change: Change,
    MergePatch(body): MergePatch<SetPatchBody>,
) -> Result<Response, Problem> {
    let patch = SetPatch {
        counters: match body.counters {
            Patch::Keep => Patch::Keep,
            Patch::Clear => Patch::Clear,
            Patch::Set(counters) => Patch::Set(counters.into()),
        },
        default_expiry: body.default_expiry,
        comment: body.comment,
    };
    app.change_one(change, vec![Command::PatchSet { set, patch }], None)
        .await
}

/// Removes a set. Refused while a rule names it.
#[utoipa::path(delete, path = "/api/v1/sets/{set}", tag = "sets", params(("set" = String, Path), ChangeParams),
    responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn remove(
    State(app): State<App>,
    Target(set): Target<Name>,
    change: Change,
) -> Result<Response, Problem> {
    app.change_one(change, vec![Command::DeleteSet { set }], None)
        .await
}

/// The entries of a set, one page of them, or those in which an address lies.
#[utoipa::path(get, path = "/api/v1/sets/{set}/entries", tag = "sets", params(("set" = String, Path), EntryParams),
    responses((status = 200, body = Page<Entry>), Refusals))]
pub(in crate::http) async fn entries(
    State(app): State<App>,
    Target(name): Target<Name>,
    Params(params): Params<EntryParams>,
) -> Result<Answer<Page<Entry>>, Problem> {
    let limit = limit(params.limit)?;
    let after = place::<String>(params.cursor.as_deref())?;
    let after = after.map(|text| text.parse::<Prefix>()).transpose();
    let after = after.map_err(|error| Problem::invalid("cursor", error.to_string()))?;
    let view = app.core().view();
    let filter = EntryFilter {
        address: params.address,
        expired: None,
    };
    let work = move || {
        let found = view.find_entries(&name, &filter, after, limit);
        let found = found.ok_or_else(|| Problem::not_found(format!("set/{name}")))?;
        Ok(Page {
            items: found.items.into_iter().map(Entry::from).collect(),
            next: found.next.map(|prefix| cursor(&prefix.to_string())),
            total: Some(found.total),
        })
    };
    Ok(Answer(waiting(work).await?))
}

/// Adds entries. One that is there lasts as long as the longer of both.
#[utoipa::path(post, path = "/api/v1/sets/{set}/entries", tag = "sets", params(("set" = String, Path), ChangeParams),
    request_body = Entries, responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn add(
    State(app): State<App>,
    Target(set): Target<Name>,
    change: Change,
    Json(body): Json<Entries>,
) -> Result<Response, Problem> {
    let entries = read(body.entries)?;
    app.change_one(change, vec![Command::AddEntries { set, entries }], None)
        .await
}

/// Removes entries, whenever they expire. Those that are not there are no error.
#[utoipa::path(post, path = "/api/v1/sets/{set}/entries/remove", tag = "sets", params(("set" = String, Path), ChangeParams),
    request_body = Gone, responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn take(
    State(app): State<App>,
    Target(set): Target<Name>,
    change: Change,
    Json(body): Json<Gone>,
) -> Result<Response, Problem> {
    let entries = read(body.entries.into_iter().map(EntryBody::Text).collect())?;
    let entries = entries.into_iter().map(|(prefix, _)| prefix).collect();
    app.change_one(change, vec![Command::RemoveEntries { set, entries }], None)
        .await
}

/// The versions of a set, the newest first. Also of one that is gone.
#[utoipa::path(get, path = "/api/v1/sets/{set}/versions", tag = "sets", params(("set" = String, Path), VersionParams),
    responses((status = 200, body = Page<Object>), Refusals))]
pub(in crate::http) async fn versions(
    State(app): State<App>,
    Target(name): Target<Name>,
    Params(params): Params<VersionParams>,
) -> Result<Response, Problem> {
    let (limit, before) = (
        limit(params.limit)?,
        place::<u64>(params.cursor.as_deref())?,
    );
    let items = app.core().set_versions(&name, before, limit).await?;
    Ok(Answer(versions_page(items, limit)).into_response())
}

/// What differs between two versions.
#[utoipa::path(get, path = "/api/v1/sets/{set}/diff", tag = "sets", params(("set" = String, Path), DiffParams),
    responses((status = 200, body = SetDiffBody), Refusals))]
pub(in crate::http) async fn diff(
    State(app): State<App>,
    Target(name): Target<Name>,
    Params(params): Params<DiffParams>,
) -> Result<Answer<SetDiffBody>, Problem> {
    let diff = app.core().set_diff(&name, params.from, params.to).await?;
    Ok(Answer(SetDiffBody {
        text: diff.to_string(),
        added_count: diff.added.len(),
        removed_count: diff.removed.len(),
        added: diff
            .added
            .into_iter()
            .take(1_000)
            .map(|(prefix, expires)| Entry::from(FoundEntry { prefix, expires }))
            .collect(),
        removed: diff
            .removed
            .iter()
            .take(1_000)
            .map(ToString::to_string)
            .collect(),
    }))
}

/// Makes a set as it was in a version, which makes a new version.
#[utoipa::path(post, path = "/api/v1/sets/{set}/revert", tag = "sets", params(("set" = String, Path), ChangeParams),
    request_body = Revert, responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn revert(
    State(app): State<App>,
    Target(set): Target<Name>,
    change: Change,
    Json(body): Json<Revert>,
) -> Result<Response, Problem> {
    let version = body.version;
    app.change_one(change, vec![Command::RevertSet { set, version }], None)
        .await
}

/// The set, or 404.
pub(in crate::http) fn found<'v>(
    view: &'v View,
    name: &Name,
) -> Result<&'v Arc<SetState>, Problem> {
    view.sets()
        .get(name)
        .ok_or_else(|| Problem::not_found(format!("set/{name}")))
}

fn read(entries: Vec<EntryBody>) -> Result<Vec<(Prefix, Option<Timestamp>)>, Problem> {
    if entries.len() > MAX_ENTRIES {
        let detail = format!(
            "{} entries: one request takes up to {MAX_ENTRIES}",
            entries.len()
        );
        let problem = Problem::too_large(detail).field("entries");
        return Err(problem.mend("stream them by PUT of the set's entries"));
    }
    let one = |(i, entry): (usize, EntryBody)| {
        let (text, expires) = match entry {
            EntryBody::Text(text) => (text, None),
            EntryBody::Full(full) => (full.address, full.expires),
        };
        let prefix = text.parse::<Prefix>();
        let bad = |e: xdpgate::policy::PrefixParseError| {
            Problem::invalid(format!("entries[{i}]"), e.to_string())
        };
        Ok((prefix.map_err(bad)?, expires))
    };
    entries.into_iter().enumerate().map(one).collect()
}
