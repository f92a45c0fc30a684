//! The connection to another controller.

use std::future::ready;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt as _};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint};
use xdpgate_api::fleet::v1::peers_client::PeersClient;
use xdpgate_api::fleet::v1::{DropsRequest, FollowRequest, QueryRequest};
use xdpgate_api::v1::{WatchEventsRequest, WatchEventsResponse};

use super::question::Question;
use super::{BOUND, Inner, Peers, Presence};
use crate::auth::authority::{Authority, client_config};
use crate::domain::NodeId;
use crate::fleet::Claim;

/// The largest answer, in bytes: the names of some hundred thousand nodes.
const ANSWER: usize = 64 << 20;
/// How soon a lost connection is tried again, at first and at last.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
/// A peer that is silent is asked whether it is there after this time, and has as long to say so.
const ALIVE: Duration = Duration::from_secs(5);

/// A connection, which is made again whenever it is lost.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) name: Arc<str>,
    pub(super) presence: Presence,
    client: PeersClient<Channel>,
    /// It tells which nodes it has, so that it can be asked.
    is_up: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Link {
    /// Within a tokio runtime.
    pub(super) fn open(peers: &Peers, name: Arc<str>, presence: Presence) -> Self {
        let authority = peers.0.authority.clone();
        let me = peers.0.me.as_str().into();
        let client = PeersClient::new(channel(authority, me, presence.address.clone()))
            .max_decoding_message_size(ANSWER)
            .accept_compressed(CompressionEncoding::Zstd);
        let is_up = Arc::<AtomicBool>::default();
        let following = Following {
            peers: Arc::downgrade(&peers.0),
            name: Arc::clone(&name),
            client: client.clone(),
            is_up: Arc::clone(&is_up),
        };
        Self {
            task: tokio::spawn(following.run()).abort_handle(),
            name,
            presence,
            client,
            is_up,
        }
    }

    /// Whether it is to this very process.
    pub(super) fn is_to(&self, presence: &Presence) -> bool {
        self.presence.process == presence.process && self.presence.address == presence.address
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Acquire)
    }

    /// Asks.
    ///
    /// # Errors
    /// What the other one answers; UNAVAILABLE and DEADLINE_EXCEEDED if it does not.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        question: &Question,
        within: Duration,
    ) -> Result<T, Status> {
        if !self.is_up() {
            let text = format!("controller {} is not reached", self.name);
            return Err(Status::unavailable(text));
        }
        let question = serde_json::to_string(question);
        let question = question.map_err(|error| Status::internal(error.to_string()))?;
        let mut client = self.client.clone();
        let late = |_| {
            let text = format!("controller {} did not answer in {within:?}", self.name);
            Status::deadline_exceeded(text)
        };
        let asked = timeout(within, client.query(QueryRequest { question })).await;
        let answer = asked.map_err(late)??.into_inner().answer;
        let other = |error| {
            let text = format!("controller {} is of another version: {error}", self.name);
            Status::unimplemented(text)
        };
        serde_json::from_str(&answer).map_err(other)
    }

    /// Sampled drops of a node that the other one has; they end if it does not answer any more.
    pub(super) fn drops(
        &self,
        node: &NodeId,
        request: WatchEventsRequest,
    ) -> BoxStream<'static, WatchEventsResponse> {
        let (mut client, name) = (self.client.clone(), Arc::clone(&self.name));
        let request = DropsRequest {
            node: node.to_string(),
            request: Some(request),
        };
        let sampled = async move {
            let answer = client.drops(request).await;
            let answer = answer.inspect_err(|status| {
                log::debug!("controller {name}: drops: {}", status.message());
            });
            stream::iter(answer.ok()).flat_map(|answer| {
                let answer = answer.into_inner();
                answer
                    .take_while(|sampled| ready(sampled.is_ok()))
                    .filter_map(|s| ready(s.ok()))
            })
        };
        stream::once(sampled).flatten().boxed()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What follows another controller.
struct Following {
    peers: Weak<Inner>,
    name: Arc<str>,
    client: PeersClient<Channel>,
    is_up: Arc<AtomicBool>,
}

impl Following {
    async fn run(mut self) {
        let mut pause = AGAIN.0;
        while self.peers.strong_count() > 0 {
            let ended = self.follow().await;
            if self.is_up.swap(false, Ordering::AcqRel) {
                pause = AGAIN.0;
            }
            if let Err(status) = ended {
                log::debug!("controller {}: {}", self.name, status.message());
            }
            sleep(pause.mul_f64(0.5 + 0.5 * rand::random::<f64>())).await;
            pause = (2 * pause).min(AGAIN.1);
        }
    }

    async fn follow(&mut self) -> Result<(), Status> {
        let mut news = self.client.follow(FollowRequest {}).await?.into_inner();
        let mut first = Some(Vec::new());
        while let Some(message) = news.message().await? {
            let Some(peers) = self.peers.upgrade().map(Peers) else {
                return Ok(());
            };
            let claims = message.claims.into_iter().filter_map(|claim| {
                let node = NodeId::new(claim.node).ok()?;
                Some(Claim { node, at: claim.at })
            });
            match &mut first {
                Some(first) => first.extend(claims),
                None => peers.0.fleet.hear(&self.name, claims.collect()),
            }
            if message.complete
                && let Some(claims) = first.take()
            {
                peers.0.fleet.hear_all(&self.name, claims);
                self.is_up.store(true, Ordering::Release);
                let name = Arc::clone(&self.name);
                tokio::spawn(async move { peers.take_history(&name).await });
            }
            let Some(peers) = self.peers.upgrade().map(Peers) else {
                return Ok(());
            };
            for event in message.events {
                peers.heard(&event);
            }
        }
        Ok(())
    }
}

/// Dials whenever it has to, each time with a new certificate and the authorities of then.
fn channel(authority: Authority, me: Arc<str>, address: String) -> Channel {
    let connector = tower::service_fn(move |_| {
        let (authority, me, address) = (authority.clone(), Arc::clone(&me), address.clone());
        async move {
            let dialled = timeout(BOUND, dial(&authority, &me, &address)).await;
            let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
            dialled.map_err(late)?.map(TokioIo::new)
        }
    });
    Endpoint::from_static("http://controller")
        .http2_keep_alive_interval(ALIVE)
        .keep_alive_timeout(ALIVE)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(connector)
}

async fn dial(
    authority: &Authority,
    me: &str,
    address: &str,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let config = client_config(authority, me, Timestamp::now());
    let config = config.map_err(std::io::Error::other)?;
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}
