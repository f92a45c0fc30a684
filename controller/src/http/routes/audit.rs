//! The audit log, the newest first.

use axum::Json as Answer;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::core::audit::{Entry, PREFIX};
use crate::http::App;
use crate::http::extract::Params;
use crate::http::page::{Page, cursor, limit, place};
use crate::http::problem::{Problem, Refusals};
use crate::store::Key;

/// Entries that one request looks at.
const LOOKED_AT: usize = 20_000;
/// The first step back in time, in microseconds: an hour.
const STEP: u64 = 3_600_000_000;
/// Nothing is older: 2020.
const BEGINNING: u64 = 1_577_836_800_000_000;

/// Which entries.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct AuditParams {
    /// Those by this user, token or part of the controller.
    actor: Option<String>,
    /// Those of an action, as `rule.create`, or of all that begin so, as `rule.`.
    action: Option<String>,
    /// Those about a thing, as `policy/web`, and all below it.
    object: Option<String>,
    /// Those from then on.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Those before then.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// How many, up to 1,000; 100 unless said. A page may have fewer, and there may be more all the same: see `next`.
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// One change.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct AuditEntry {
    /// What it is called by.
    id: String,
    #[serde(flatten)]
    #[schema(value_type = Object)]
    entry: Entry,
}

impl AuditParams {
    fn holds(&self, entry: &Entry) -> bool {
        let about = |object: &String| {
            let rest = entry.object.strip_prefix(object.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.actor
            .as_ref()
            .is_none_or(|actor| *actor == entry.actor)
            && self.action.as_ref().is_none_or(|a| match a.ends_with('.') {
                true => entry.action.starts_with(a),
                false => entry.action == *a,
            })
            && self.object.as_ref().is_none_or(about)
    }
}

/// What was changed, by whom, from where, the newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", params(AuditParams), responses((status = 200, body = Page<AuditEntry>), Refusals))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    Params(params): Params<AuditParams>,
) -> Result<Answer<Page<AuditEntry>>, Problem> {
    let limit = limit(params.limit)?;
    let last: Option<String> = place(params.cursor.as_deref())?;
    let micros = |at: Timestamp| u64::try_from(at.as_microsecond()).unwrap_or(0);
    let floor = params
        .since
        .map_or(BEGINNING, |since| micros(since).max(BEGINNING));
    // Keys below this one are looked at.
    let mut upper = match (&last, params.until) {
        (Some(last), _) => last.clone(),
        (None, Some(until)) => format!("{:020}", micros(until)),
        (None, None) => format!("{:020}", micros(Timestamp::now()) + STEP),
    };
    let mut items: Vec<AuditEntry> = Vec::new();
    let (mut step, mut looked_at) = (STEP, 0);
    loop {
        let top: u64 = upper
            .get(..20)
            .and_then(|digits| digits.parse().ok())
            .unwrap_or(0);
        let bottom = (top + 1).saturating_sub(step).max(floor);
        let Some(records) = window(&app, bottom, &upper).await? else {
            // Too many for one page of the store: look at a shorter time.
            step = (step / 16).max(1);
            continue;
        };
        looked_at += records.len();
        for (id, value) in records.into_iter().rev() {
            upper.clone_from(&id);
            let Ok(entry) = serde_json::from_slice::<Entry>(&value) else {
                continue;
            };
            if params.holds(&entry) {
                items.push(AuditEntry { id, entry });
            }
            if items.len() == limit {
                let next = Some(cursor(&upper));
                return Ok(Answer(Page {
                    items,
                    next,
                    total: None,
                }));
            }
        }
        if bottom <= floor {
            return Ok(Answer(Page {
                items,
                next: None,
                total: None,
            }));
        }
        upper = format!("{bottom:020}");
        if looked_at >= LOOKED_AT {
            let next = Some(cursor(&upper));
            return Ok(Answer(Page {
                items,
                next,
                total: None,
            }));
        }
        step = step.saturating_mul(16);
    }
}

/// The entries from a time on and below a key, the oldest first; `None` if these are more than a page of the store, unless the
/// time cannot be made shorter.
async fn window(
    app: &App,
    bottom: u64,
    upper: &str,
) -> Result<Option<Vec<(String, bytes::Bytes)>>, Problem> {
    let unavailable = |e: crate::store::StoreError| Problem::unavailable(e.to_string());
    let mut after = Key::new(format!("{PREFIX}{bottom:020}"));
    let mut found = Vec::new();
    let one_moment = upper
        .get(..20)
        .is_some_and(|top| top == format!("{bottom:020}"));
    loop {
        let page = app
            .core()
            .store()
            .list(PREFIX, after.as_ref(), 1_000, None)
            .await;
        let page = page.map_err(unavailable)?;
        let before = page.records.len();
        after = page.records.last().map(|(key, _)| key.clone());
        let ids = page.records.into_iter().map(|(key, record)| {
            (
                key.as_str().trim_start_matches(PREFIX).to_owned(),
                record.value,
            )
        });
        let below: Vec<_> = ids.take_while(|(id, _)| id.as_str() < upper).collect();
        let all = below.len() == before && page.more;
        found.extend(below);
        if !all {
            return Ok(Some(found));
        }
        if !one_moment {
            return Ok(None);
        }
    }
}
