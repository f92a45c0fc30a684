//! The gRPC service `xdpgate.fleet.v1.Peers`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt as _};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Extensions, Request, Response, Status};
use xdpgate_api::fleet::v1::peers_server::{self, PeersServer};
use xdpgate_api::fleet::v1::{
    Claim, DropsRequest, FollowRequest, FollowResponse, QueryRequest, QueryResponse,
};
use xdpgate_api::v1::WatchEventsResponse;

use super::question::{self, Question};
use crate::auth::authority::identify_controller;
use crate::domain::NodeId;
use crate::fleet::{self, Budget, Event, Fleet};
use crate::http::FleetView;

/// Claims in a message.
const CLAIMS: usize = 2_000;
/// How long news may wait for others, to go in one message.
const TOGETHER: Duration = Duration::from_millis(20);
/// Events that are told, in the long run and at once; of what is more only the number is told.
const EVENTS: (u32, u32) = (200, 1_000);

/// Answers other controllers.
#[derive(Debug, Clone)]
pub struct PeerService {
    fleet: Fleet,
    called: Arc<Notify>,
}

impl PeerService {
    pub(super) fn new(fleet: Fleet, called: Arc<Notify>) -> Self {
        Self { fleet, called }
    }

    /// For [`tonic::transport::Server::add_service`].
    pub fn server(self) -> PeersServer<Self> {
        PeersServer::new(self)
            .accept_compressed(CompressionEncoding::Zstd)
            .send_compressed(CompressionEncoding::Zstd)
    }
}

/// Whether a controller calls.
fn check(extensions: &Extensions) -> Result<(), Status> {
    let info = extensions.get::<TlsConnectInfo<TcpConnectInfo>>();
    let chain = info.and_then(TlsConnectInfo::peer_certs);
    let first = chain.as_ref().and_then(|chain| chain.first());
    let name = first.and_then(|first| identify_controller(first));
    let other = || Status::unauthenticated("this call takes the certificate of a controller");
    name.map(drop).ok_or_else(other)
}

#[tonic::async_trait]
impl peers_server::Peers for PeerService {
    type FollowStream = ReceiverStream<Result<FollowResponse, Status>>;
    type DropsStream = BoxStream<'static, Result<WatchEventsResponse, Status>>;

    async fn follow(
        &self,
        request: Request<FollowRequest>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        check(request.extensions())?;
        self.called.notify_one();
        let (to, news) = mpsc::channel(4);
        let fleet = self.fleet.clone();
        tokio::spawn(async move {
            if let Err(status) = tell(&fleet, &to).await {
                // It may have hung up.
                let _ = to.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(news)))
    }

    async fn query(
        &self,
        request: Request<QueryRequest>,
    ) -> Result<Response<QueryResponse>, Status> {
        check(request.extensions())?;
        let question = serde_json::from_str::<Question>(&request.get_ref().question);
        let other = |error| Status::unimplemented(format!("not understood here: {error}"));
        let answer = question::answer(&self.fleet, question.map_err(other)?).await?;
        Ok(Response::new(QueryResponse { answer }))
    }

    async fn drops(
        &self,
        request: Request<DropsRequest>,
    ) -> Result<Response<Self::DropsStream>, Status> {
        check(request.extensions())?;
        let asked = request.into_inner();
        let node = NodeId::new(&asked.node);
        let node = node.map_err(|error| Status::invalid_argument(error.to_string()))?;
        question::here(&self.fleet, &node)?;
        let sampled = FleetView::drops(&self.fleet, &node, asked.request.unwrap_or_default());
        let sampled = sampled.map_err(question::status)?;
        Ok(Response::new(sampled.map(Ok).boxed()))
    }
}

type News = mpsc::Sender<Result<FollowResponse, Status>>;

/// Until the other one hangs up, or reads too slowly.
async fn tell(fleet: &Fleet, to: &News) -> Result<(), Status> {
    let hung_up = |_| Status::cancelled("it has hung up");
    let claim = |claim: fleet::Claim| Claim {
        node: claim.node.to_string(),
        at: claim.at,
    };
    let mut events = fleet.events();
    let (own, mut claims) = fleet.claims();
    let mut own = own.into_iter().map(claim).peekable();
    loop {
        let message = FollowResponse {
            claims: own.by_ref().take(CLAIMS).collect(),
            complete: own.peek().is_none(),
            events: Vec::new(),
        };
        let is_last = message.complete;
        to.send(Ok(message)).await.map_err(hung_up)?;
        if is_last {
            break;
        }
    }
    let mut budget = Budget::new(EVENTS.0, EVENTS.1);
    let mut left_out = 0;
    let mut news = FollowResponse::default();
    let mut due: Option<Instant> = None;
    loop {
        tokio::select! {
            claimed = claims.recv() => match claimed {
                Ok(claimed) => news.claims.push(claim(claimed)),
                Err(RecvError::Lagged(_)) => return Err(Status::aborted("it reads too slowly")),
                Err(RecvError::Closed) => return Ok(()),
            },
            event = events.next() => {
                let Some(event) = event else { return Ok(()) };
                match budget.take(Instant::now(), Duration::ZERO) {
                    Ok(_) => news.events.push(text(&event)),
                    Err(_) => left_out += 1,
                }
            }
            () = async { sleep_until(due.expect("checked")).await }, if due.is_some() => {
                due = None;
                if left_out > 0 && budget.take(Instant::now(), Duration::ZERO).is_ok() {
                    news.events.push(text(&Event::Lost { events: std::mem::take(&mut left_out) }));
                }
                to.send(Ok(std::mem::take(&mut news))).await.map_err(hung_up)?;
                continue;
            }
            () = to.closed() => return Ok(()),
        }
        due.get_or_insert_with(|| Instant::now() + TOGETHER);
    }
}

fn text(event: &Event) -> String {
    serde_json::to_string(event).unwrap_or_default()
}
