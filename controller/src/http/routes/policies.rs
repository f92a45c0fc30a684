//! Policies.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::core::{Command, Patch, SettingsPatch, View};
use crate::domain::{Name, PolicyContent, PolicyState, Settings};
use crate::http::extract::{Change, ChangeParams, Json, MergePatch, Params, Target, Yaml, patch};
use crate::http::page::{Page, limit, page, place};
use crate::http::problem::{Problem, Refusals};
use crate::http::rules::{self, FailsafeBody, PolicyInfo, Word};
use crate::http::{App, Changed, tag, tagged};

/// Which things, by name.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct ListParams {
    /// Text in the name or comment, in upper or lower case.
    pub(in crate::http) q: Option<String>,
    /// How many, up to 1,000; 100 unless said.
    pub(in crate::http) limit: Option<usize>,
    /// `next` of the page before.
    pub(in crate::http) cursor: Option<String>,
    /// `name`, or `-name` for the other way round.
    pub(in crate::http) sort: Option<String>,
}

impl ListParams {
    /// Whether this is looked for.
    pub(in crate::http) fn holds(&self, name: &Name, comment: Option<&String>) -> bool {
        self.q.as_ref().is_none_or(|q| {
            let q = q.to_lowercase();
            let has = |text: &str| text.to_lowercase().contains(&q);
            has(name.as_str()) || comment.is_some_and(|text| has(text))
        })
    }

    /// The page of things that are looked for.
    pub(in crate::http) fn page<T>(
        &self,
        all: Vec<T>,
        name: impl Fn(&T) -> String,
    ) -> Result<Page<T>, Problem> {
        let sort = self.sort.as_deref();
        crate::http::find::word("sort", sort, &["name", "-name"])?;
        let after = place(self.cursor.as_deref())?;
        Ok(page(
            all,
            after,
            limit(self.limit)?,
            sort == Some("-name"),
            name,
        ))
    }
}

/// A policy to be.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct PolicyBody {
    /// `[a-zA-Z0-9._-]{1,64}`.
    #[schema(value_type = String)]
    name: Name,
    /// Free text.
    comment: Option<String>,
    /// The verdict when no rule decides.
    default: Option<Word>,
    /// The verdict for frames that cannot be parsed far enough.
    malformed: Option<Word>,
    /// Management traffic that passes before any rule.
    failsafe: Option<FailsafeBody>,
    /// The rules, as in a policy file.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    rules: Vec<Map<String, Value>>,
}

/// Changes of a policy but for its rules: what is not named stays, null clears.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct PolicyPatch {
    /// The verdict when no rule decides.
    #[serde(default, deserialize_with = "patch")]
    #[schema(value_type = Option<Word>)]
    default: Patch<Word>,
    /// The verdict for frames that cannot be parsed far enough.
    #[serde(default, deserialize_with = "patch")]
    #[schema(value_type = Option<Word>)]
    malformed: Patch<Word>,
    /// Management traffic that passes before any rule.
    #[serde(default, deserialize_with = "patch")]
    #[schema(value_type = Option<FailsafeBody>)]
    failsafe: Patch<FailsafeBody>,
    /// Free text.
    #[serde(default, deserialize_with = "patch")]
    #[schema(value_type = Option<String>)]
    comment: Patch<String>,
}

/// A version to go back to.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Revert {
    /// The version.
    pub(in crate::http) version: u64,
}

/// Which versions.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct VersionParams {
    /// How many, up to 1,000; 100 unless said.
    pub(in crate::http) limit: Option<usize>,
    /// `next` of the page before.
    pub(in crate::http) cursor: Option<String>,
}

/// Which two versions.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct DiffParams {
    /// The older version.
    pub(in crate::http) from: u64,
    /// The newer version.
    pub(in crate::http) to: u64,
}

/// What differs between two versions.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct Diff {
    /// In words, a line each.
    text: String,
    #[serde(flatten)]
    #[schema(value_type = Object)]
    diff: crate::core::PolicyDiff,
}

/// The policies.
#[utoipa::path(get, path = "/api/v1/policies", tag = "policies", params(ListParams),
    responses((status = 200, body = Page<PolicyInfo>), Refusals))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    Params(params): Params<ListParams>,
) -> Result<Answer<Page<PolicyInfo>>, Problem> {
    let view = app.core().view();
    let all = view.policies().values();
    let all = all.filter(|policy| params.holds(&policy.name, policy.comment.as_ref()));
    let found = params.page(all.collect(), |policy| policy.name.to_string())?;
    Ok(Answer(found.map(|policy| PolicyInfo::new(&view, policy))))
}

/// Makes a policy.
#[utoipa::path(post, path = "/api/v1/policies", tag = "policies", params(ChangeParams), request_body = PolicyBody,
    responses((status = 201, body = Changed), Refusals))]
pub(in crate::http) async fn create(
    State(app): State<App>,
    change: Change,
    Json(body): Json<PolicyBody>,
) -> Result<Response, Problem> {
    let policy = body.name;
    let mut rules = Vec::with_capacity(body.rules.len());
    for (i, fields) in body.rules.into_iter().enumerate() {
        let rule = rules::rule(fields, None);
        rules.push(rule.map_err(|problem| problem.within(&format!("rules[{i}]")))?);
    }
    let settings = Settings {
        default: body.default.map(Into::into),
        malformed: body.malformed.map(Into::into),
        failsafe: body.failsafe.map(FailsafeBody::read).transpose()?,
    };
    let new = format!("/api/v1/policies/{policy}");
    let content = PolicyContent { settings, rules };
    let mut commands = vec![Command::CreatePolicy {
        policy: policy.clone(),
        content,
    }];
    if let Some(comment) = body.comment {
        let patch = SettingsPatch {
            comment: Patch::Set(comment),
            ..SettingsPatch::default()
        };
        commands.push(Command::PatchPolicy { policy, patch });
    }
    app.change_one(change, commands, Some(new)).await
}

/// One policy, without its rules.
#[utoipa::path(get, path = "/api/v1/policies/{policy}", tag = "policies", params(("policy" = String, Path)),
    responses((status = 200, body = PolicyInfo), Refusals))]
pub(in crate::http) async fn get(
    State(app): State<App>,
    Target(name): Target<Name>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let view = app.core().view();
    let policy = found(&view, &name)?;
    Ok(tagged(
        &headers,
        policy.version,
        PolicyInfo::new(&view, policy),
    ))
}

/// Replaces a policy by the text of a policy file, or makes it. A file has no sets here: those of the fleet are named.
#[utoipa::path(put, path = "/api/v1/policies/{policy}", tag = "policies", params(("policy" = String, Path), ChangeParams),
    request_body(content = String, content_type = "application/yaml"),
    responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn put(
    State(app): State<App>,
    Target(policy): Target<Name>,
    change: Change,
    Yaml(text): Yaml,
) -> Result<Response, Problem> {
    let content = content(text).await?;
    app.change_one(change, vec![Command::PutPolicy { policy, content }], None)
        .await
}

/// Changes the settings of a policy: what is not named stays, null clears.
#[utoipa::path(patch, path = "/api/v1/policies/{policy}", tag = "policies", params(("policy" = String, Path), ChangeParams),
    request_body(content = PolicyPatch, content_type = "application/merge-patch+json"),
    responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn patch_policy(
    State(app): State<App>,
    Target(policy): Target<Name>,
    change: Change,
    MergePatch(body): MergePatch<PolicyPatch>,
) -> Result<Response, Problem> {
    let patch = SettingsPatch {
        default: map(body.default, |word| Ok(word.into()))?,
        malformed: map(body.malformed, |word| Ok(word.into()))?,
        failsafe: map(body.failsafe, FailsafeBody::read)?,
        comment: body.comment,
    };
    app.change_one(change, vec![Command::PatchPolicy { policy, patch }], None)
        .await
}

/// Removes a policy. Refused while a group names it. Its versions stay.
#[utoipa::path(delete, path = "/api/v1/policies/{policy}", tag = "policies", params(("policy" = String, Path), ChangeParams),
    responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn remove(
    State(app): State<App>,
    Target(policy): Target<Name>,
    change: Change,
) -> Result<Response, Problem> {
    app.change_one(change, vec![Command::DeletePolicy { policy }], None)
        .await
}

/// A policy as the text of a policy file.
#[utoipa::path(get, path = "/api/v1/policies/{policy}/text", tag = "policies", params(("policy" = String, Path)),
    responses((status = 200, body = String, content_type = "application/yaml"), Refusals))]
pub(in crate::http) async fn text(
    State(app): State<App>,
    Target(name): Target<Name>,
) -> Result<Response, Problem> {
    let policy = Arc::clone(found(&app.core().view(), &name)?);
    let version = policy.version;
    let text = waiting(move || Ok(rules::text(&policy))).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/yaml".parse()),
        (header::ETAG, Ok(tag(version))),
    ];
    let headers = headers.map(|(name, value)| (name, value.unwrap_or_else(|_| tag(version))));
    Ok((headers, text).into_response())
}

/// The versions of a policy, the newest first: who, when, why and what. Also of one that is gone.
#[utoipa::path(get, path = "/api/v1/policies/{policy}/versions", tag = "policies", params(("policy" = String, Path), VersionParams),
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
    let items = app.core().policy_versions(&name, before, limit).await?;
    Ok(Answer(versions_page(items, limit)).into_response())
}

/// What differs between two versions.
#[utoipa::path(get, path = "/api/v1/policies/{policy}/diff", tag = "policies", params(("policy" = String, Path), DiffParams),
    responses((status = 200, body = Diff), Refusals))]
pub(in crate::http) async fn diff(
    State(app): State<App>,
    Target(name): Target<Name>,
    Params(params): Params<DiffParams>,
) -> Result<Answer<Diff>, Problem> {
    let diff = app
        .core()
        .policy_diff(&name, params.from, params.to)
        .await?;
    Ok(Answer(Diff {
        text: diff.to_string(),
        diff,
    }))
}

/// Makes a policy as it was in a version, which makes a new version. Also of one that is gone.
#[utoipa::path(post, path = "/api/v1/policies/{policy}/revert", tag = "policies", params(("policy" = String, Path), ChangeParams),
    request_body = Revert, responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn revert(
    State(app): State<App>,
    Target(policy): Target<Name>,
    change: Change,
    Json(body): Json<Revert>,
) -> Result<Response, Problem> {
    let version = body.version;
    app.change_one(
        change,
        vec![Command::RevertPolicy { policy, version }],
        None,
    )
    .await
}

/// What would change at the nodes if the policy were this text.
#[utoipa::path(post, path = "/api/v1/policies/{policy}/plan", tag = "policies", params(("policy" = String, Path)),
    request_body(content = String, content_type = "application/yaml"),
    responses((status = 200, body = Changed), Refusals))]
pub(in crate::http) async fn plan(
    State(app): State<App>,
    Target(policy): Target<Name>,
    mut change: Change,
    Yaml(text): Yaml,
) -> Result<Response, Problem> {
    change.options.dry_run = true;
    change.options.idempotency_key = None;
    let content = content(text).await?;
    app.change_one(change, vec![Command::PutPolicy { policy, content }], None)
        .await
}

/// Versions, the newest first, one page of them.
pub(in crate::http) fn versions_page(
    items: Vec<crate::core::VersionInfo>,
    limit: usize,
) -> Page<crate::core::VersionInfo> {
    let last = items
        .last()
        .map(|item| item.version)
        .filter(|version| *version > 1);
    let next = last
        .filter(|_| items.len() == limit)
        .map(|version| crate::http::page::cursor(&version));
    Page {
        items,
        next,
        total: None,
    }
}

/// The policy, or 404.
pub(in crate::http) fn found<'v>(
    view: &'v View,
    name: &Name,
) -> Result<&'v Arc<PolicyState>, Problem> {
    let policy = view.policies().get(name);
    policy.ok_or_else(|| Problem::not_found(format!("policy/{name}")))
}

/// Work that takes long goes to a thread that may wait.
pub(in crate::http) async fn waiting<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| {
        log::error!("a request ended unexpectedly: {error}");
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "it ended unexpectedly",
        )
    })?
}

async fn content(text: String) -> Result<PolicyContent, Problem> {
    waiting(move || PolicyContent::from_yaml(&text).map_err(|error| rules::refused(&error))).await
}

fn map<T, U>(
    patch: Patch<T>,
    set: impl FnOnce(T) -> Result<U, Problem>,
) -> Result<Patch<U>, Problem> {
    Ok(match patch {
        Patch::Keep => Patch::Keep,
        Patch::Clear => Patch::Clear,
        Patch::Set(value) => Patch::Set(set(value)?),
    })
}
