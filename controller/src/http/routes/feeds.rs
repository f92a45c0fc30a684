//! Feeds.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::policies::ListParams;
use crate::domain::Name;
use crate::feed::{Feed, FeedContent, FeedHealth, FeedStatus, Outcome, SetStatus};
use crate::http::access::Caller;
use crate::http::extract::{Change, ChangeParams, Json, Params, Target};
use crate::http::page::Page;
use crate::http::problem::{Problem, Refusals};
use crate::http::rules::Touched;
use crate::http::{App, tag, tagged};

/// A feed, and how it is doing.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct FeedInfo {
    /// The name.
    name: String,
    /// Grows with each change; also the ETag.
    version: u64,
    /// How it is, in a word; the worst of its sets.
    health: FeedHealth,
    /// What it is.
    content: FeedContent,
    /// Not before this it is run again.
    #[schema(value_type = String, format = DateTime)]
    next: Timestamp,
    /// When it was run last.
    #[schema(value_type = Option<String>, format = DateTime)]
    ran: Option<Timestamp>,
    /// The controller that runs it now.
    running: Option<String>,
    /// How many runs failed since the last one that did not.
    failures: u32,
    /// Why the last run could not even begin.
    error: Option<String>,
    /// The sets that it fills.
    sets: Vec<FeedSet>,
    /// Who made it.
    created: Touched,
    /// Who changed it last.
    updated: Touched,
}

/// How one set of a feed is doing.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct FeedSet {
    /// The set.
    set: String,
    /// When what it has was seen last.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_good: Option<Timestamp>,
    /// How many entries that had.
    entries: Option<u64>,
    /// The version of the set that has them.
    set_version: Option<u64>,
    /// When it was tried last.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_try: Option<Timestamp>,
    /// What became of that.
    outcome: Option<Outcome>,
    /// Why it was not taken.
    error: Option<String>,
    /// How many entries were there to take, if it was a list.
    found: Option<u64>,
    /// Whether it was refused for its size alone, and can be accepted.
    acceptable: bool,
    /// Who accepted it; the next run takes it.
    accepted_by: Option<String>,
}

/// A feed to be.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewFeed {
    /// `[a-zA-Z0-9._-]{1,64}`.
    #[schema(value_type = String)]
    name: Name,
    /// What it is.
    content: FeedContent,
}

/// What is accepted.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct AcceptBody {
    /// One of several sets; absent: all that were refused for their size.
    #[schema(value_type = Option<String>)]
    set: Option<Name>,
}

impl FeedInfo {
    fn new(feed: Feed, status: FeedStatus, now: Timestamp) -> Self {
        Self {
            health: status.health(&feed.content, feed.updated.at, now),
            name: feed.name.to_string(),
            version: feed.version,
            next: status.next,
            ran: status.ran,
            running: status.claim.map(|claim| claim.by),
            failures: status.failures,
            error: status.error,
            sets: status.sets.into_iter().map(FeedSet::new).collect(),
            created: (&feed.created).into(),
            updated: (&feed.updated).into(),
            content: feed.content,
        }
    }
}

impl FeedSet {
    fn new((set, status): (Name, SetStatus)) -> Self {
        let (good, tried) = (status.last_good, status.last_try);
        Self {
            set: set.to_string(),
            last_good: good.as_ref().map(|good| good.at),
            entries: good.as_ref().map(|good| good.entries),
            set_version: good.as_ref().map(|good| good.set_version),
            last_try: tried.as_ref().map(|tried| tried.at),
            outcome: tried.as_ref().map(|tried| tried.outcome),
            found: tried.as_ref().and_then(|tried| tried.entries),
            acceptable: tried.as_ref().is_some_and(|tried| tried.acceptable),
            error: tried.and_then(|tried| tried.error),
            accepted_by: status.accept.map(|accept| accept.by),
        }
    }
}

/// The feeds, and how they are doing.
#[utoipa::path(get, path = "/api/v1/feeds", tag = "feeds", params(ListParams),
    responses((status = 200, body = Page<FeedInfo>), Refusals))]
pub(in crate::http) async fn list(
    State(app): State<App>,
    Params(params): Params<ListParams>,
) -> Result<Answer<Page<FeedInfo>>, Problem> {
    let now = Timestamp::now();
    let all = app.feeds()?.list().await.map_err(unavailable)?.into_iter();
    let all = all.filter(|(feed, _)| params.holds(&feed.name, feed.content.comment.as_ref()));
    let found = params.page(all.collect(), |(feed, _)| feed.name.to_string())?;
    Ok(Answer(
        found.map(|(feed, status)| FeedInfo::new(feed, status, now)),
    ))
}

/// Makes a feed. It is run soon. Repeating it is refused; PUT may be repeated.
#[utoipa::path(post, path = "/api/v1/feeds", tag = "feeds", params(ChangeParams), request_body = NewFeed,
    responses((status = 201, body = FeedInfo), Refusals))]
pub(in crate::http) async fn create(
    State(app): State<App>,
    change: Change,
    Json(body): Json<NewFeed>,
) -> Result<Response, Problem> {
    let actor = change.caller.actor();
    let feeds = app.feeds()?;
    let feed = feeds
        .create(&actor, &body.name, &body.content, &change.options)
        .await?;
    let mut response = made(feed);
    *response.status_mut() = StatusCode::CREATED;
    if let Ok(place) = HeaderValue::from_str(&format!("/api/v1/feeds/{}", body.name)) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// One feed, and how it is doing.
#[utoipa::path(get, path = "/api/v1/feeds/{feed}", tag = "feeds", params(("feed" = String, Path)),
    responses((status = 200, body = FeedInfo), Refusals))]
pub(in crate::http) async fn get(
    State(app): State<App>,
    Target(name): Target<Name>,
) -> Result<Response, Problem> {
    let found = app.feeds()?.get(&name).await.map_err(unavailable)?;
    let (feed, status) = found.ok_or_else(|| Problem::not_found(format!("feed/{name}")))?;
    // How it is doing changes without a version: the ETag is for If-Match, and no reason to leave out the answer.
    let (version, now) = (feed.version, Timestamp::now());
    Ok(tagged(
        &HeaderMap::new(),
        version,
        FeedInfo::new(feed, status, now),
    ))
}

/// Makes a feed, or another one of one that is there. It is run soon if anything changed.
#[utoipa::path(put, path = "/api/v1/feeds/{feed}", tag = "feeds", params(("feed" = String, Path), ChangeParams),
    request_body = FeedContent, responses((status = 200, body = FeedInfo), Refusals))]
pub(in crate::http) async fn put(
    State(app): State<App>,
    Target(name): Target<Name>,
    change: Change,
    Json(content): Json<FeedContent>,
) -> Result<Response, Problem> {
    let actor = change.caller.actor();
    Ok(made(
        app.feeds()?
            .put(&actor, &name, &content, &change.options)
            .await?,
    ))
}

/// Deletes a feed. The sets that it filled stay as they are.
#[utoipa::path(delete, path = "/api/v1/feeds/{feed}", tag = "feeds", params(("feed" = String, Path), ChangeParams),
    responses((status = 204), Refusals))]
pub(in crate::http) async fn remove(
    State(app): State<App>,
    Target(name): Target<Name>,
    change: Change,
) -> Result<StatusCode, Problem> {
    let actor = change.caller.actor();
    app.feeds()?.delete(&actor, &name, &change.options).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Has a feed run now, by whichever controller comes first.
#[utoipa::path(post, path = "/api/v1/feeds/{feed}/run", tag = "feeds", params(("feed" = String, Path)),
    responses((status = 202), Refusals))]
pub(in crate::http) async fn run(
    State(app): State<App>,
    Target(name): Target<Name>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    app.feeds()?
        .run_now(&caller.actor(), &name, Timestamp::now())
        .await?;
    Ok(StatusCode::ACCEPTED)
}

/// Says that what was refused because it differs too much is right: the next run, which is at once, takes it if it still
/// has about as many entries.
#[utoipa::path(post, path = "/api/v1/feeds/{feed}/accept", tag = "feeds", params(("feed" = String, Path)),
    request_body = AcceptBody, responses((status = 202), Refusals))]
pub(in crate::http) async fn accept(
    State(app): State<App>,
    Target(name): Target<Name>,
    caller: Caller,
    Json(body): Json<AcceptBody>,
) -> Result<StatusCode, Problem> {
    let (actor, now) = (caller.actor(), Timestamp::now());
    app.feeds()?
        .accept_once(&actor, &name, body.set.as_ref(), now)
        .await?;
    Ok(StatusCode::ACCEPTED)
}

fn made(feed: Feed) -> Response {
    let version = tag(feed.version);
    let info = FeedInfo::new(feed, FeedStatus::default(), Timestamp::now());
    let mut response = Answer(info).into_response();
    response.headers_mut().insert(header::ETAG, version);
    response
}

fn unavailable(error: crate::store::StoreError) -> Problem {
    crate::core::CommandError::from(error).into()
}
