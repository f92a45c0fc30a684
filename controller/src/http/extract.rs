//! What handlers get of a request, each refused with a [`Problem`].

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::{CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use super::problem::Problem;
use super::{App, Caller};
use crate::core::{Options, Patch};
use crate::domain::Name;

/// The largest body of an ordinary request.
pub(super) const BODY: usize = 2 << 20;
/// The largest policy file, and the largest list of a set that comes at once.
pub(super) const LARGE_BODY: usize = 64 << 20;
/// A body has come within this time.
const WITHIN: Duration = Duration::from_secs(30);
/// A large one.
const LARGE_WITHIN: Duration = Duration::from_secs(300);

/// The parts of the path.
pub(super) struct Target<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Target<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let path = Path::<T>::from_request_parts(parts, app).await;
        path.map(|Path(value)| Self(value)).map_err(|rejection| {
            let text = rejection.body_text();
            // What serde says comes last.
            let detail = text
                .rsplit_once("Cannot parse")
                .map_or(&*text, |(_, rest)| rest);
            let detail = format!("the path is wrong: {}", detail.trim());
            Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
        })
    }
}

/// The query, in which unknown names are refused.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let query = Query::<T>::from_request_parts(parts, app).await;
        query.map(|Query(value)| Self(value)).map_err(|rejection| {
            let text = rejection.body_text();
            let detail = text
                .split_once(": ")
                .map_or(&*text, |(_, rest)| rest)
                .to_owned();
            Problem::new(StatusCode::BAD_REQUEST, "invalid", detail.clone()).field(named(&detail))
        })
    }
}

/// A body of JSON, in which unknown fields are refused.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &App) -> Result<Self, Problem> {
        check_type(request.headers(), &["application/json"])?;
        Ok(Self(parse(&read(request, BODY, WITHIN).await?)?))
    }
}

/// A JSON merge patch (RFC 7396): what is not named stays, null clears.
pub(super) struct MergePatch<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<App> for MergePatch<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &App) -> Result<Self, Problem> {
        check_type(
            request.headers(),
            &["application/merge-patch+json", "application/json"],
        )?;
        Ok(Self(parse(&read(request, BODY, WITHIN).await?)?))
    }
}

/// A text in YAML, of which JSON is a part.
pub(super) struct Yaml(pub(super) String);

impl FromRequest<App> for Yaml {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let kinds = ["application/yaml", "text/yaml", "application/json"];
        check_type(request.headers(), &kinds)?;
        let _place = app.large_body()?;
        let bytes = read(request, LARGE_BODY, LARGE_WITHIN).await?;
        let text = String::from_utf8(bytes.to_vec());
        text.map(Self)
            .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "invalid", "the body is not UTF-8"))
    }
}

/// How a change is to be made, and by whom: `If-Match`, `If-None-Match: *`, `Idempotency-Key`, `?why=`, `?dry_run=` and
/// `?rollout=`.
pub(super) struct Change {
    pub(super) caller: Caller,
    pub(super) options: Options,
    /// The plan by which it is rolled out.
    pub(super) rollout: Option<Name>,
}

impl Change {
    /// A name for a rollout: the same one for the same Idempotency-Key.
    pub(super) fn rollout_name(&self) -> Name {
        let number = match &self.options.idempotency_key {
            Some(key) => {
                xxhash_rust::xxh3::xxh3_64(format!("{}/{key}", self.caller.actor().name).as_bytes())
            }
            None => rand::random(),
        };
        Name::new(format!("r-{number:016x}")).expect("digits and letters are a name")
    }
}

/// The query of a change.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ChangeParams {
    /// Why, for the history and the audit log.
    #[serde(default)]
    why: String,
    /// Only say what would change, per profile of nodes.
    #[serde(default)]
    dry_run: bool,
    /// For changes of a policy or its rules: the plan by which the change is rolled out, as `default`; absent: at once to all nodes.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    rollout: Option<Name>,
}

impl FromRequestParts<App> for Change {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Params(params) = Params::<ChangeParams>::from_request_parts(parts, app).await?;
        let caller = Caller::from_request_parts(parts, app).await?;
        let headers = &parts.headers;
        let key = one(headers, "idempotency-key")?;
        if key.is_some_and(|key| key.is_empty() || key.len() > 128) {
            let detail = "an Idempotency-Key has 1 to 128 characters";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid", detail));
        }
        let options = Options {
            expect: expected(headers)?,
            idempotency_key: key.map(str::to_owned),
            why: params.why,
            partial: false,
            dry_run: params.dry_run,
            on_behalf: None,
        };
        Ok(Self {
            caller,
            options,
            rollout: params.rollout,
        })
    }
}

/// The version that a change expects: that of `If-Match`, or 0 (there is none) for `If-None-Match: *`.
pub(super) fn expected(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let bad =
        |detail: &str| Problem::new(StatusCode::PRECONDITION_FAILED, "version_conflict", detail);
    match (
        one(headers, IF_MATCH.as_str())?,
        one(headers, IF_NONE_MATCH.as_str())?,
    ) {
        (None, None) | (Some("*"), None) => Ok(None),
        (None, Some("*")) => Ok(Some(0)),
        (Some(tag), None) => match version(tag) {
            Some(version) => Ok(Some(version)),
            None => Err(bad(
                "If-Match is not an ETag of this API: take one from an answer",
            )),
        },
        _ => Err(bad("a change takes one If-Match, or If-None-Match: *")),
    }
}

/// Refuses an idempotency key where a second request would not get the first one's answer.
pub(super) fn no_key(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key("idempotency-key") {
        let detail = "an Idempotency-Key is not taken here";
        let problem = Problem::new(StatusCode::BAD_REQUEST, "invalid", detail);
        return Err(
            problem.mend("leave it out, and look at what is there before you send it again")
        );
    }
    Ok(())
}

/// Whether what the caller has is what there is: the answer is then 304.
pub(super) fn not_modified(headers: &HeaderMap, tag: u64) -> bool {
    let value = headers
        .get(IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    value.is_some_and(|tags| tags.split(',').any(|t| version(t.trim()) == Some(tag)))
}

fn version(tag: &str) -> Option<u64> {
    tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

fn one<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Problem> {
    let mut all = headers.get_all(name).iter();
    let (first, second) = (all.next(), all.next());
    let text = first.map(|value| value.to_str()).transpose();
    match (text, second) {
        (Ok(text), None) => Ok(text.map(str::trim)),
        _ => {
            let detail = format!("the header {name} comes more than once, or is not ASCII");
            Err(Problem::new(StatusCode::BAD_REQUEST, "invalid", detail))
        }
    }
}

/// Refuses bodies of another kind: browsers send those without asking.
pub(super) fn check_type(headers: &HeaderMap, kinds: &[&str]) -> Result<(), Problem> {
    let kind = one(headers, CONTENT_TYPE.as_str())?.unwrap_or_default();
    let kind = kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if kinds.contains(&kind.as_str()) {
        return Ok(());
    }
    let detail = format!("the body is {kind:?}");
    Err(
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", detail)
            .mend(format!("send Content-Type: {}", kinds.join(" or "))),
    )
}

async fn read(request: Request, limit: usize, within: Duration) -> Result<Bytes, Problem> {
    let too_large = || Problem::too_large(format!("the body is larger than {limit} bytes"));
    let length = request.headers().get("content-length");
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let body = Limited::new(request.into_body(), limit).collect();
    match tokio::time::timeout(within, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => {
            let detail = "the body ended before its end";
            Err(Problem::new(StatusCode::BAD_REQUEST, "invalid", detail))
        }
        Err(_) => {
            let detail = format!("the body did not come within {} s", within.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", detail).closing())
        }
    }
}

pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        let text = error.to_string();
        let status = match error.classify() {
            serde_json::error::Category::Data => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::BAD_REQUEST,
        };
        let field = named(&text).to_owned();
        Problem::new(status, "invalid", text).field(field)
    })
}

/// The field that serde names.
fn named(text: &str) -> &str {
    let marks = ["unknown field `", "missing field `", "duplicate field `"];
    let rest = marks
        .iter()
        .find_map(|mark| text.split_once(mark))
        .map(|(_, rest)| rest);
    rest.and_then(|rest| rest.split_once('`'))
        .map_or("", |(field, _)| field)
}

/// For fields of a merge patch: absent, null or a value.
pub(super) fn patch<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Patch<T>, D::Error> {
    Ok(match Option::deserialize(deserializer)? {
        None => Patch::Clear,
        Some(value) => Patch::Set(value),
    })
}
