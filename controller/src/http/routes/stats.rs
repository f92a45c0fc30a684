//! Numbers of the fleet.

use axum::Json as Answer;
use axum::extract::State;
use serde::Deserialize;
use serde_json::Value;

use crate::domain::Name;
use crate::http::App;
use crate::http::extract::{Params, Target};
use crate::http::find::word;
use crate::http::problem::{Problem, Refusals};

/// Which history.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct HistoryParams {
    /// `hour` in steps of 5 s (as unless said), or `day` in steps of a minute.
    of: Option<String>,
}

/// Totals, rates, top rules, and how many nodes are in each state. What is not known is absent, never 0.
#[utoipa::path(get, path = "/api/v1/stats", tag = "stats", responses((status = 200, body = Object), Refusals))]
pub(in crate::http) async fn overview(State(app): State<App>) -> Answer<Value> {
    Answer(app.fleet().overview().await)
}

/// Rates over time.
#[utoipa::path(get, path = "/api/v1/stats/history", tag = "stats", params(HistoryParams),
    responses((status = 200, body = Object), Refusals))]
pub(in crate::http) async fn history(
    State(app): State<App>,
    Params(params): Params<HistoryParams>,
) -> Result<Answer<Value>, Problem> {
    word("of", params.of.as_deref(), &["hour", "day"])?;
    Ok(Answer(
        app.fleet().history(params.of.as_deref() == Some("day")),
    ))
}

/// As the whole fleet, of the nodes of a group.
#[utoipa::path(get, path = "/api/v1/stats/groups/{group}", tag = "stats", params(("group" = String, Path)),
    responses((status = 200, body = Object), Refusals))]
pub(in crate::http) async fn group(
    State(app): State<App>,
    Target(name): Target<Name>,
) -> Result<Answer<Value>, Problem> {
    let object = format!("group/{name}");
    if !app.core().view().groups().contains_key(&name) {
        return Err(Problem::not_found(object));
    }
    let overview = app.fleet().overview_of(&name).await;
    overview
        .map(Answer)
        .ok_or_else(|| Problem::not_found(object))
}
