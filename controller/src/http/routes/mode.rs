//! The kill switch.

use axum::Json as Answer;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::core::Command;
use crate::domain::Mode;
use crate::http::extract::{Change, ChangeParams, Json};
use crate::http::problem::{Problem, Refusals};
use crate::http::{App, Changed};

/// The mode of all nodes.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct FleetMode {
    /// `dry_run`: all nodes judge and count, and let all pass. `enforce`: all carry verdicts out. null: as their groups say.
    #[schema(value_type = Option<String>)]
    #[serde(deserialize_with = "given")]
    mode: Option<Mode>,
}

/// It has to be named, also where it is null.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Mode>, D::Error> {
    Option::deserialize(deserializer)
}

/// The mode of all nodes, if one is set.
#[utoipa::path(get, path = "/api/v1/mode", tag = "mode", responses((status = 200, body = FleetMode), Refusals))]
pub(in crate::http) async fn get(State(app): State<App>) -> Answer<FleetMode> {
    Answer(FleetMode {
        mode: app.core().view().fleet_mode(),
    })
}

/// The kill switch: puts all nodes in a mode, whatever their groups say, or gives it back to the groups.
#[utoipa::path(put, path = "/api/v1/mode", tag = "mode", params(ChangeParams), request_body = FleetMode,
    responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn put(
    State(app): State<App>,
    change: Change,
    Json(body): Json<FleetMode>,
) -> Result<Response, Problem> {
    app.change_one(
        change,
        vec![Command::SetFleetMode { mode: body.mode }],
        None,
    )
    .await
}
