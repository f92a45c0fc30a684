//! REST under `/api/v1`, for people, tools and the UI.
//!
//! ```text
//! socket -> TLS -> bounds (connections, header time) -> request id, headers -> bounds (requests) -> guard -> handler
//! ```
//!
//! The guard asks one [table](TABLE) who may call a route, and refuses what is not in it. A handler gets parts that are checked,
//! makes commands of them for the [core](crate::core), and answers with an ETag; what is refused is a [`Problem`].

mod access;
mod events;
mod extract;
mod find;
mod fleet;
mod forwarded;
mod layers;
mod page;
mod problem;
mod routes;
mod rules;
mod serve;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use utoipa::openapi::OpenApi as Document;
use xdpgate::policy::Prefix;

pub use access::{Access, TABLE};
pub use fleet::{FleetError, FleetView, Scope};
pub use problem::Problem;
pub use serve::{check_listen, serve};

use crate::auth::Auth;
use crate::auth::join::Joining;
use crate::auth::oidc::Oidc;
use crate::core::{Command, CommandError, Core, Effect, Outcome};
use crate::counts::Counts;
use crate::feed::Feeds;
use crate::metrics::Metrics;
use crate::rollout::{Look, Looks};
use access::Caller;
use events::Hub;
use extract::Change;

/// Bounds.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether answers go over TLS, so that browsers are told to come by nothing else.
    pub tls: bool,
    /// Requests that are worked on at once.
    pub requests: usize,
    /// Those of one address.
    pub requests_per_client: usize,
    /// Streams of events at once.
    pub streams: usize,
    /// Those of one user.
    pub streams_per_user: usize,
    /// Connections at once.
    pub connections: usize,
    /// Those of one address.
    pub connections_per_client: usize,
    /// A request's head has come within this time.
    pub header_within: std::time::Duration,
    /// The largest import of a set, in bytes.
    pub import: usize,
    /// Hosts and ports under which nodes dial controllers, as they are told with a join token; empty: it is not known.
    pub dial: Vec<String>,
    /// Proxies that are believed when they say for whom they call.
    pub proxies: Vec<Prefix>,
    /// By which names it may be called, beside addresses and localhost; `None`: by any.
    pub names: Option<Vec<String>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tls: false,
            requests: 512,
            requests_per_client: 64,
            streams: 256,
            streams_per_user: 16,
            connections: 4_096,
            connections_per_client: 256,
            header_within: std::time::Duration::from_secs(10),
            import: 256 << 20,
            dial: Vec::new(),
            proxies: Vec::new(),
            names: None,
        }
    }
}

/// All that handlers use. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    core: Core,
    auth: Auth,
    joining: Joining,
    fleet: Arc<dyn FleetView>,
    feeds: OnceLock<Feeds>,
    oidc: OnceLock<Oidc>,
    options: Options,
    metrics: Option<Metrics>,
    hub: Hub,
    looks: OnceLock<watch::Receiver<Looks>>,
    large: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    clients: Counts<IpAddr>,
    connected: Counts<IpAddr>,
    /// Of a process: event ids of another one mean nothing here.
    boot: String,
}

impl App {
    /// Puts the parts together. Called within the runtime: the events of the fleet are followed from now on.
    pub fn new(
        core: Core,
        auth: Auth,
        joining: Joining,
        fleet: Arc<dyn FleetView>,
        metrics: Option<Metrics>,
        options: Options,
    ) -> Self {
        let hub = Hub::start(&core, &fleet, options.streams, options.streams_per_user);
        Self(Arc::new(Inner {
            core,
            auth,
            joining,
            fleet,
            feeds: OnceLock::new(),
            oidc: OnceLock::new(),
            metrics,
            hub,
            looks: OnceLock::new(),
            large: Arc::new(Semaphore::new(4)),
            requests: Arc::new(Semaphore::new(options.requests)),
            clients: Counts::new(options.requests_per_client),
            connected: Counts::new(options.connections_per_client),
            boot: crate::auth::authority::new_node_id(),
            options,
        }))
    }

    /// With feeds; the first ones that are given count.
    pub fn with_feeds(self, feeds: Feeds) -> Self {
        self.0.hub.follow(&feeds);
        let _ = self.0.feeds.set(feeds);
        self
    }

    /// With login by an identity provider; the first one that is given counts.
    pub fn with_oidc(self, oidc: Oidc) -> Self {
        let _ = self.0.oidc.set(oidc);
        self
    }

    fn feeds(&self) -> Result<&Feeds, Problem> {
        let feeds = self.0.feeds.get();
        feeds.ok_or_else(|| Problem::unavailable("this controller runs no feeds"))
    }

    /// Has it tell what the [executor](crate::rollout::Executor) of rollouts sees. Only the first one counts.
    pub fn watch_rollouts(&self, looks: watch::Receiver<Looks>) {
        // Nobody needs to know that there was one already.
        let _ = self.0.looks.set(looks);
    }

    fn look(&self, rollout: &str) -> Option<Look> {
        self.0.looks.get()?.borrow().get(rollout).cloned()
    }

    fn core(&self) -> &Core {
        &self.0.core
    }

    fn auth(&self) -> &Auth {
        &self.0.auth
    }

    fn joining(&self) -> &Joining {
        &self.0.joining
    }

    fn fleet(&self) -> &dyn FleetView {
        &*self.0.fleet
    }

    /// A place for a large body; few are held in memory at once.
    fn large_body(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let place = Arc::clone(&self.0.large).try_acquire_owned();
        place.map_err(|_| Problem::unavailable("other large bodies are being read: try again"))
    }

    /// Makes changes.
    async fn change(&self, change: Change, mut commands: Vec<Command>) -> Result<Outcome, Problem> {
        if let Some(plan) = &change.rollout {
            let policy = commands.first().and_then(Command::policy);
            let policy = policy.filter(|policy| {
                let mut all = commands.iter();
                all.all(|command| command.policy().as_ref() == Some(policy))
            });
            let detail = "only changes of one policy can be rolled out";
            commands.push(Command::StartRollout {
                rollout: change.rollout_name(),
                policy: policy.ok_or_else(|| Problem::invalid("rollout", detail))?,
                plan: crate::core::PlanChoice::Named(plan.clone()),
            });
        }
        let actor = change.caller.actor();
        Ok(self
            .core()
            .execute(&actor, commands, &change.options)
            .await?)
    }

    /// Makes one change, and answers with what came of it. `new` is where a thing that was created is.
    async fn change_one(
        &self,
        change: Change,
        commands: Vec<Command>,
        new: Option<String>,
    ) -> Result<Response, Problem> {
        // The version is that of the policy, where it is rolled out by the same request.
        let mut rolled_out = change.rollout.is_some();
        let outcome = self.change(change, commands).await?;
        let version = outcome
            .effects
            .iter()
            .rfind(|_| !std::mem::take(&mut rolled_out))
            .and_then(|e| e.as_ref().ok())
            .map(|e| e.version);
        let mut response = axum::Json(Changed::from(outcome)).into_response();
        if let Some(version) = version {
            response.headers_mut().insert(header::ETAG, tag(version));
        }
        if let Some(location) = new {
            *response.status_mut() = StatusCode::CREATED;
            if let Ok(value) = HeaderValue::from_str(&location) {
                response.headers_mut().insert(header::LOCATION, value);
            }
        }
        Ok(response)
    }
}

/// What came of a change.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
struct Changed {
    /// The transaction, for `/changes/{revision}`: how far it has come at the nodes.
    revision: u64,
    /// Whether it is the answer to an earlier request with the same Idempotency-Key.
    repeated: bool,
    /// What was done, one by one.
    effects: Vec<Done>,
    /// What would change at the nodes, with `dry_run`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    plans: Vec<PlanOf>,
}

/// What became of one change: what was done, or why it was refused.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Done {
    /// The thing, what became of it (`effect`), and its version.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    effect: Option<Effect>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<problem::ProblemBody>)]
    error: Option<Problem>,
}

/// What would change at the nodes that have these policies.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct PlanOf {
    /// The policies.
    policies: Vec<String>,
    /// How many nodes these are.
    nodes: usize,
    /// What would change, in words.
    text: String,
}

impl From<Outcome> for Changed {
    fn from(outcome: Outcome) -> Self {
        let plan = |plan: crate::core::ProfilePlan| PlanOf {
            policies: plan.policies.iter().map(ToString::to_string).collect(),
            nodes: plan.nodes,
            text: plan.plan.to_string(),
        };
        Self {
            revision: outcome.revision.0,
            repeated: outcome.repeated,
            effects: outcome.effects.into_iter().map(Done::from).collect(),
            plans: outcome.plans.into_iter().map(plan).collect(),
        }
    }
}

impl From<Result<Effect, CommandError>> for Done {
    fn from(result: Result<Effect, CommandError>) -> Self {
        match result {
            Ok(effect) => Self {
                effect: Some(effect),
                error: None,
            },
            Err(error) => Self::refused(error.into()),
        }
    }
}

impl Done {
    fn refused(problem: Problem) -> Self {
        Self {
            effect: None,
            error: Some(problem),
        }
    }
}

/// The OpenAPI document.
pub fn openapi() -> Document {
    routes::all().split_for_parts().1
}

/// The whole API.
pub fn router(app: App) -> Router {
    let (router, document) = routes::all().split_for_parts();
    let text: Arc<str> = document.to_json().unwrap_or_default().into();
    router
        .layer(axum::Extension(routes::meta::DocumentText(text)))
        .route_layer(from_fn_with_state(app.clone(), access::guard))
        .layer(DefaultBodyLimit::disable())
        .method_not_allowed_fallback(async || {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method",
                "this is not done here",
            )
        })
        .fallback(async || Problem::not_found("").mend("GET /api/v1/openapi.json names all paths"))
        .layer(from_fn_with_state(app.clone(), layers::bound))
        .layer(from_fn_with_state(app.clone(), layers::headers))
        .layer(from_fn(layers::named))
        .with_state(app)
}

/// An ETag.
fn tag(version: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{version}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// A thing with its version, or 304 if the caller has it.
fn tagged(headers: &HeaderMap, version: u64, body: impl Serialize) -> Response {
    let mut response = if extract::not_modified(headers, version) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        axum::Json(body).into_response()
    };
    response.headers_mut().insert(header::ETAG, tag(version));
    response
}

tokio::task_local! {
    static REQUEST: String;
}

/// The name of the request that is being answered.
fn request_id() -> String {
    REQUEST.try_with(Clone::clone).unwrap_or_default()
}

/// Who calls: the other end of the connection, or whom a trusted proxy calls for. Put into each request by [`serve()`].
#[derive(Debug, Clone, Copy)]
struct Peer(IpAddr);

fn peer(request: &Extensions) -> IpAddr {
    let peer = request.get::<Peer>();
    peer.map_or(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), |peer| peer.0)
}
