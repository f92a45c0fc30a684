//! What is answered when something is refused: RFC 9457, always with the mend if there is one.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::fleet::FleetError;
use super::request_id;
use crate::auth::AuthError;
use crate::core::{CommandError, ErrorKind};

/// A refusal, as `application/problem+json`.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Problem(Box<ProblemBody>);

/// A refusal (RFC 9457).
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody {
    /// `about:blank`: the code says more than a page could.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The status of the answer.
    status: u16,
    /// What sort of refusal it is, for programs: `invalid`, `not_found`, `conflict`, ...
    code: &'static str,
    /// What is wrong, in one line.
    detail: String,
    /// The field that is wrong, dotted.
    #[serde(skip_serializing_if = "String::is_empty")]
    field: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    mend: String,
    /// The thing that it is about, as `policy/web/rule/block`.
    #[serde(skip_serializing_if = "String::is_empty")]
    object: String,
    /// The version that the thing has, where another one was expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    /// The request, as in the log.
    #[serde(skip_serializing_if = "String::is_empty")]
    request_id: String,
    /// Seconds to wait.
    #[serde(skip)]
    retry_after: Option<u64>,
    /// Not all of the request was read: no other one comes by this connection.
    #[serde(skip)]
    closes: bool,
}

/// For OpenAPI: every operation may answer these.
#[derive(utoipa::IntoResponses)]
#[allow(dead_code, reason = "it is documentation")]
pub(super) enum Refusals {
    /// The request is refused: `code`, `field`, `detail` and `mend` say why.
    #[response(status = "4XX", content_type = "application/problem+json")]
    Caller(#[to_schema] ProblemBody),
    /// It cannot be answered now.
    #[response(status = "5XX", content_type = "application/problem+json")]
    Server(#[to_schema] ProblemBody),
}

impl Problem {
    /// A refusal; `status` is one of those that this API uses.
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(ProblemBody {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Refused"),
            status: status.as_u16(),
            code,
            detail: detail.into(),
            field: String::new(),
            mend: String::new(),
            object: String::new(),
            version: None,
            request_id: String::new(),
            retry_after: None,
            closes: false,
        }))
    }

    /// A value that cannot be.
    pub(super) fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let new = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail);
        new.field(field)
    }

    /// There is no such thing.
    pub(super) fn not_found(object: impl Into<String>) -> Self {
        let new = Self::new(StatusCode::NOT_FOUND, "not_found", "there is no such thing");
        new.of(object)
    }

    /// Nobody is logged in, or the token is wrong.
    pub(super) fn unauthenticated(detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
    }

    /// The caller may not.
    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// There is too much of something; again after so long.
    pub(super) fn too_many(detail: impl Into<String>, after: Duration) -> Self {
        let new = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail);
        new.with(|body| body.retry_after = Some(after.as_secs().max(1)))
    }

    /// It is larger than what is taken.
    pub(super) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail).closing()
    }

    /// Not now; again in a second.
    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        let new = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
        new.with(|body| body.retry_after = Some(1))
    }

    /// The connection ends with this answer, because the body was not read to its end.
    pub(super) fn closing(self) -> Self {
        self.with(|body| body.closes = true)
    }

    /// Names the field.
    pub(super) fn field(self, field: impl Into<String>) -> Self {
        self.with(|body| body.field = field.into())
    }

    /// Says what to do about it.
    pub(super) fn mend(self, mend: impl Into<String>) -> Self {
        self.with(|body| body.mend = mend.into())
    }

    /// Names the thing.
    pub(super) fn of(self, object: impl Into<String>) -> Self {
        self.with(|body| body.object = object.into())
    }

    /// With the path of what holds the field in front.
    pub(super) fn within(self, path: &str) -> Self {
        self.with(|body| {
            body.field = match body.field.as_str() {
                "" => path.to_owned(),
                field => format!("{path}.{field}"),
            };
        })
    }

    fn with(mut self, change: impl FnOnce(&mut ProblemBody)) -> Self {
        change(&mut self.0);
        self
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        use StatusCode as S;
        let text = error.to_string();
        match error {
            AuthError::NotFound(_) => Self::new(S::NOT_FOUND, "not_found", text),
            AuthError::AlreadyExists(_) => Self::new(S::CONFLICT, "already_exists", text),
            AuthError::Conflict(_) => Self::new(S::CONFLICT, "conflict", text),
            AuthError::Invalid { field, detail } => Self::invalid(field, detail),
            AuthError::Credentials(detail) => Self::unauthenticated(detail),
            AuthError::Forbidden(_) => Self::forbidden(text),
            AuthError::Throttled(wait) => Self::too_many(text, wait),
            AuthError::Busy => Self::unavailable(text),
            AuthError::Unavailable(_) => Self::unavailable(text),
            AuthError::Damaged(_) => {
                log::error!("{text}");
                Self::new(S::INTERNAL_SERVER_ERROR, "damaged", text)
            }
        }
    }
}

impl From<FleetError> for Problem {
    fn from(error: FleetError) -> Self {
        match error {
            FleetError::Invalid(text) => Self::invalid("rules", text),
            FleetError::Unavailable(text) => Self::new(StatusCode::CONFLICT, "offline", text),
            FleetError::Timeout(text) => Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", text),
        }
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        use StatusCode as S;
        let (status, code) = match error.kind {
            ErrorKind::NotFound => (S::NOT_FOUND, "not_found"),
            ErrorKind::AlreadyExists => (S::CONFLICT, "already_exists"),
            ErrorKind::Conflict if error.version.is_some() => {
                (S::PRECONDITION_FAILED, "version_conflict")
            }
            ErrorKind::Conflict => (S::CONFLICT, "conflict"),
            ErrorKind::Invalid => (S::UNPROCESSABLE_ENTITY, "invalid"),
            ErrorKind::InUse => (S::CONFLICT, "in_use"),
            ErrorKind::TooLarge => (S::PAYLOAD_TOO_LARGE, "too_large"),
            ErrorKind::Unavailable => (S::SERVICE_UNAVAILABLE, "unavailable"),
        };
        let new = Self::new(status, code, error.reason)
            .field(error.field)
            .mend(error.mend);
        let version = error.version;
        new.of(error.object).with(|body| {
            body.version = version;
            body.retry_after = (status == S::SERVICE_UNAVAILABLE).then_some(1);
        })
    }
}

impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        self.0.request_id = request_id();
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::BAD_REQUEST);
        let mut response = Response::new(match serde_json::to_vec(&self) {
            Ok(bytes) => Body::from(bytes),
            Err(_) => Body::empty(),
        });
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        if let Some(seconds) = self.0.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.0.closes {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
