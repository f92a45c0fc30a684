//! How far changes have come at the nodes.

use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use serde::Deserialize;
use serde_json::Value;

use crate::domain::Name;
use crate::http::App;
use crate::http::extract::{Params, Target};
use crate::http::fleet::Scope;
use crate::http::problem::{Problem, Refusals};

/// The longest wait.
const LONGEST: u64 = 300;

/// Whether to wait.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct WaitParams {
    /// Until this share of the nodes has the change, as `99%` or `0.99`, or until no node is left that may still answer.
    wait: Option<String>,
    /// For so many seconds at most, up to 300; 30 unless said.
    timeout: Option<u64>,
    /// The version of the policy, or a later one; that of now unless said. Only for policies.
    version: Option<u64>,
}

impl WaitParams {
    fn wait(&self) -> Result<Option<(f64, Duration)>, Problem> {
        let seconds = self.timeout.unwrap_or(30);
        if seconds > LONGEST {
            return Err(Problem::invalid(
                "timeout",
                format!("up to {LONGEST} s: ask again then"),
            ));
        }
        let Some(text) = &self.wait else {
            return Ok(None);
        };
        let share = match text.strip_suffix('%') {
            Some(percent) => percent.parse::<f64>().map(|percent| percent / 100.0),
            None => text.parse(),
        };
        match share {
            Ok(share) if (0.0..=1.0).contains(&share) => {
                Ok(Some((share, Duration::from_secs(seconds))))
            }
            _ => Err(Problem::invalid(
                "wait",
                "a share of the nodes, as 99% or 0.99",
            )),
        }
    }
}

/// How far a change has come: nodes that have it, refused it, have not answered, are offline.
#[utoipa::path(get, path = "/api/v1/changes/{revision}", tag = "changes", params(("revision" = u64, Path), WaitParams),
    responses((status = 200, body = Object), Refusals))]
pub(in crate::http) async fn revision(
    State(app): State<App>,
    Target(revision): Target<u64>,
    Params(params): Params<WaitParams>,
) -> Result<Answer<Value>, Problem> {
    if params.version.is_some() {
        return Err(Problem::invalid(
            "version",
            "a revision has no versions: leave it out",
        ));
    }
    let wait = params.wait()?;
    Ok(Answer(
        app.fleet().progress(&Scope::Revision(revision), wait).await,
    ))
}

/// How far a version of a policy has come, over the nodes that have the policy.
#[utoipa::path(get, path = "/api/v1/policies/{policy}/progress", tag = "changes", params(("policy" = String, Path), WaitParams),
    responses((status = 200, body = Object), Refusals))]
pub(in crate::http) async fn policy(
    State(app): State<App>,
    Target(name): Target<Name>,
    Params(params): Params<WaitParams>,
) -> Result<Answer<Value>, Problem> {
    let wait = params.wait()?;
    let version = super::policies::found(&app.core().view(), &name)?.version;
    let scope = Scope::Policy(name, params.version.unwrap_or(version));
    Ok(Answer(app.fleet().progress(&scope, wait).await))
}
