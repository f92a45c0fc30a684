//! The gRPC service `xdpgate.fleet.v1.Fleet`.
//!
//! `Session` and `Fetch` are answered with frames that all nodes share, so they are served by hand; `Join` and `Renew` by
//! the generated code.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{Stream, stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codec::{CompressionEncoding, Streaming};
use tonic::server::NamedService;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use xdpgate_api::fleet::v1::fleet_server::{self, FleetServer};
use xdpgate_api::fleet::v1::{
    FetchRequest, FetchResponse, FromController, FromNode, JoinRequest, JoinResponse, RenewRequest,
    RenewResponse,
};

use super::frame::{self, Decode};
use super::messages::Messages;
use super::node::Link;
use super::session::Session;
use super::{Fleet, Identify, Identity, Inner, lock};
use crate::domain::NodeId;
use crate::metrics::{MEMBERS, SENT_BYTES, SESSIONS_REFUSED};
use crate::store::Digest;

/// Digests in a request.
const DIGESTS: usize = 1024;
/// Messages to a node that may be on their way at once: a state, the welcome, and questions.
const DOWN: usize = 24;
/// A request for chunks, or one to join, is not larger than this and comes within this time.
const REQUEST: (usize, Duration) = (64 << 10, Duration::from_secs(10));

/// Makes members of the fleet, and renews their certificates.
#[async_trait]
pub trait Members: std::fmt::Debug + Send + Sync + 'static {
    /// A new member, by a token.
    ///
    /// # Errors
    /// UNAUTHENTICATED: the token is not good. INVALID_ARGUMENT: the request is wrong.
    async fn join(
        &self,
        request: JoinRequest,
        origin: Option<SocketAddr>,
    ) -> Result<JoinResponse, Status>;

    /// A new certificate for a member, whose certificate was checked.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: the request is wrong.
    async fn renew(
        &self,
        node: &NodeId,
        request: RenewRequest,
        origin: Option<SocketAddr>,
    ) -> Result<RenewResponse, Status>;

    /// Somebody with the certificate of a node was refused, for this reason.
    async fn refused(&self, node: &NodeId, origin: Option<SocketAddr>, why: &str);
}

/// The service, for [`tonic::transport::Server::add_service`].
#[derive(Debug, Clone)]
pub struct FleetService {
    calls: Calls,
    generated: FleetServer<Calls>,
}

#[derive(Debug, Clone)]
struct Calls {
    fleet: Fleet,
    identify: Arc<dyn Identify>,
    members: Arc<dyn Members>,
}

/// A server with the bounds that sessions need: peers that are gone are noticed, and none keeps more than a few calls open.
pub fn server() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .http2_max_header_list_size(16 << 10)
        .http2_max_pending_accept_reset_streams(Some(32))
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(256 << 10)
        .max_concurrent_streams(8)
        .tcp_nodelay(true)
}

/// That there is too much of something, and when to try again.
pub(super) fn exhausted(text: &str, again: Duration) -> Status {
    // Those who are told so at one moment do not come back at one moment.
    let again = again.mul_f64(1.0 + rand::random::<f64>());
    let text = format!("{text}: try again in {:.1} s", again.as_secs_f64());
    Status::with_error_details(
        Code::ResourceExhausted,
        text,
        ErrorDetails::with_retry_info(Some(again)),
    )
}

impl FleetService {
    /// Serves a fleet.
    pub fn new(fleet: Fleet, identify: Arc<dyn Identify>, members: Arc<dyn Members>) -> Self {
        let calls = Calls {
            fleet,
            identify,
            members,
        };
        let generated = FleetServer::new(calls.clone())
            .max_decoding_message_size(REQUEST.0)
            .accept_compressed(CompressionEncoding::Zstd)
            .send_compressed(CompressionEncoding::Zstd);
        Self { calls, generated }
    }
}

impl NamedService for FleetService {
    const NAME: &'static str = fleet_server::SERVICE_NAME;
}

impl tower::Service<http::Request<Body>> for FleetService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let calls = self.calls.clone();
        match request.uri().path().rsplit('/').next() {
            Some("Session") => Box::pin(async move {
                Ok(calls
                    .session(request)
                    .await
                    .unwrap_or_else(|status| status.into_http()))
            }),
            Some("Fetch") => Box::pin(async move {
                Ok(calls
                    .fetch(request)
                    .await
                    .unwrap_or_else(|status| status.into_http()))
            }),
            _ => self.generated.call(request),
        }
    }
}

/// A session that is counted until it ends.
struct Place(Arc<Inner>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Calls {
    /// Who calls, if it is a member.
    fn member(
        &self,
        extensions: &http::Extensions,
        headers: &http::HeaderMap,
    ) -> Result<Identity, Status> {
        let identity = self.identify.identify(extensions, headers)?;
        let fleet = &self.fleet.0;
        let serial = identity.serial.as_deref();
        let member = fleet.membership(&fleet.targets(), &identity.node, serial);
        member.inspect_err(|status| self.tell_refused(&identity.node, extensions, status))?;
        Ok(identity)
    }

    fn tell_refused(&self, node: &NodeId, extensions: &http::Extensions, status: &Status) {
        let (members, node, origin) = (self.members.clone(), node.clone(), origin(extensions));
        let why = status.message().to_owned();
        tokio::spawn(async move { members.refused(&node, origin, &why).await });
    }

    /// Waits for its turn, so that a storm of nodes that come back does not take all that there is.
    async fn admit(&self) -> Result<Place, Status> {
        let fleet = &self.fleet.0;
        if fleet.drains.load(Ordering::Acquire) {
            refused("stopping");
            return Err(Status::unavailable(
                "the controller stops: dial another one",
            ));
        }
        let most = fleet.config.sessions;
        let one_more = |many: usize| (many < most).then_some(many + 1);
        let taken = fleet
            .sessions
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        taken.map_err(|_| {
            refused("full");
            exhausted(
                "the controller has as many sessions as it may",
                Duration::from_secs(10),
            )
        })?;
        let place = Place(fleet.clone());
        let wait = lock(&fleet.admission).take(Instant::now(), fleet.config.connect_within);
        let wait = wait.map_err(|again| {
            refused("rate");
            exhausted("too many nodes connect at once", again)
        })?;
        if !wait.is_zero() {
            sleep(wait).await;
        }
        Ok(place)
    }

    async fn session(self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        let (parts, body) = request.into_parts();
        let identity = self.member(&parts.extensions, &parts.headers);
        let identity = identity.inspect_err(|_| refused("identity"))?;
        let packed = is_packed(&parts.headers)?;
        let place = self.admit().await?;
        let fleet = self.fleet.0.clone();
        let number = fleet.numbers.fetch_add(1, Ordering::Relaxed);
        let (down, frames) = mpsc::channel(DOWN);
        let (control, orders) = mpsc::channel(DOWN);
        let zstd = frame::takes_zstd(&parts.headers);
        let session = Session {
            node: fleet.node(&identity.node),
            number,
            link: Link {
                number,
                control,
                address: origin(&parts.extensions),
                since: jiff::Timestamp::now(),
            },
            serial: identity.serial,
            up: Messages::new(body, packed, fleet.config.message),
            down,
            control: orders,
            zstd,
            fleet,
        };
        tokio::spawn(async move {
            session.run().await;
            drop(place);
        });
        Ok(frame::response(ReceiverStream::new(frames), zstd))
    }

    async fn fetch(self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        let (parts, body) = request.into_parts();
        let identity = self.member(&parts.extensions, &parts.headers)?;
        let fleet = &self.fleet.0;
        let node = fleet.node(&identity.node);
        let busy = || {
            exhausted(
                "this node fetches as much at once as it may",
                Duration::from_secs(1),
            )
        };
        let place = node.fetch(fleet.config.fetches).ok_or_else(busy)?;
        let encoding = is_packed(&parts.headers)?.then_some(CompressionEncoding::Zstd);
        let decode = Decode(std::marker::PhantomData);
        let mut messages: Streaming<FetchRequest> =
            Streaming::new_request(decode, body, encoding, Some(REQUEST.0));
        let late = |_| Status::deadline_exceeded("the request did not come within 10 s");
        let message = timeout(REQUEST.1, messages.message())
            .await
            .map_err(late)??;
        let digests = message.unwrap_or_default().digests;
        if digests.len() > DIGESTS {
            let text = format!("{} digests: ask for up to {DIGESTS} at once", digests.len());
            return Err(Status::invalid_argument(text));
        }
        let offered = node.lock().offered.clone();
        let chunk = |digest: &Vec<u8>| {
            let digest = <[u8; 32]>::try_from(digest.as_slice()).map(Digest);
            let digest = digest.map_err(|_| Status::invalid_argument("a digest has 32 bytes"))?;
            let chunk = offered
                .as_ref()
                .and_then(|snapshot| snapshot.chunk(&digest));
            let none =
                || Status::not_found(format!("{digest} is not part of what this node is to have"));
            chunk.cloned().ok_or_else(none)
        };
        let chunks = digests.iter().map(chunk).collect::<Result<Vec<_>, _>>();
        let chunks = chunks.inspect_err(|_| {
            let status = Status::not_found("chunks that are not part of what it is to have");
            self.tell_refused(&identity.node, &parts.extensions, &status);
        })?;
        let zstd = frame::takes_zstd(&parts.headers);
        // Read as fast as the node takes them; the place is taken until the last one is on its way.
        let frames = chunks.into_iter().map(move |chunk| {
            let _place = &place;
            let bytes = chunk.frame.bytes(zstd);
            metrics::counter!(SENT_BYTES, "kind" => "chunk").increment(bytes.len() as u64);
            Ok::<Bytes, Status>(bytes)
        });
        Ok(frame::response(stream::iter(frames), zstd))
    }
}

/// Whether messages are compressed; other ways than by zstd are refused.
fn is_packed(headers: &http::HeaderMap) -> Result<bool, Status> {
    match headers
        .get("grpc-encoding")
        .map(http::HeaderValue::as_bytes)
    {
        None | Some(b"identity") => Ok(false),
        Some(b"zstd") => Ok(true),
        Some(_) => Err(Status::unimplemented(
            "messages may be compressed by zstd only",
        )),
    }
}

/// The address of who calls.
fn origin(extensions: &http::Extensions) -> Option<SocketAddr> {
    let tls = extensions
        .get::<TlsConnectInfo<TcpConnectInfo>>()
        .map(|info| info.get_ref());
    let info = tls.or_else(|| extensions.get::<TcpConnectInfo>());
    info.and_then(TcpConnectInfo::remote_addr)
}

/// Counts a session that is refused.
fn refused(reason: &'static str) {
    metrics::counter!(SESSIONS_REFUSED, "reason" => reason).increment(1);
}

/// Counts what became of a request to be or stay a member: the word for good, and the one for refused.
fn counted<T>(done: Result<T, Status>, words: [&'static str; 2]) -> Result<Response<T>, Status> {
    let word = words[usize::from(done.is_err())];
    metrics::counter!(MEMBERS, "outcome" => word).increment(1);
    done.map(Response::new)
}

type Never<T> = Response<std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>>;

#[tonic::async_trait]
impl fleet_server::Fleet for Calls {
    type SessionStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<FromController, Status>> + Send>>;
    type FetchStream = std::pin::Pin<Box<dyn Stream<Item = Result<FetchResponse, Status>> + Send>>;

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let origin = origin(&extensions);
        let done = self.members.join(request, origin).await;
        counted(done, ["joined", "join_refused"])
    }

    async fn renew(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<RenewResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let identity = self.member(&extensions, &metadata.into_headers())?;
        let renewed = self
            .members
            .renew(&identity.node, message, origin(&extensions));
        counted(renewed.await, ["renewed", "renewal_refused"])
    }

    async fn session(
        &self,
        _: Request<Streaming<FromNode>>,
    ) -> Result<Never<FromController>, Status> {
        Err(Status::unimplemented("served by hand"))
    }

    async fn fetch(&self, _: Request<FetchRequest>) -> Result<Never<FetchResponse>, Status> {
        Err(Status::unimplemented("served by hand"))
    }
}
