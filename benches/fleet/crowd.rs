//! Nodes of one process: each with its own connection, certificate and session.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::{Channel, Endpoint};
use xdpgate::policy::PolicyHash;
use xdpgate_api::fleet::v1::Heartbeat;
use xdpgate_api::v1 as api;
use xdpgate_controller::fleet::testing::{Manners, Node, Seen, Shared};

use crate::ground::Member;

/// Who loses its controller comes back after a random part of this, which doubles with each attempt.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What went over the wire of one node, TLS and all, without the headers of TCP.
#[derive(Debug, Default)]
pub struct Wire {
    pub sent: AtomicU64,
    pub received: AtomicU64,
    /// It reads no more.
    pub stalled: AtomicBool,
}

/// A node has put a state in force, and has said so.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    pub place: usize,
    pub sequence: u64,
    pub hash: Option<PolicyHash>,
    pub at: Instant,
}

/// Nodes that run until this is dropped.
pub struct Crowd {
    pub wires: Vec<Arc<Wire>>,
    pub kinds: Vec<&'static str>,
    pub reports: mpsc::UnboundedReceiver<Report>,
    tasks: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Lets nodes dial, all at once.
    pub fn start(members: &[Member], to: SocketAddr) -> Self {
        let shared = Arc::<Shared>::default();
        let says = Box::new(heartbeat());
        let (sender, reports) = mpsc::unbounded_channel();
        let mut crowd = Self {
            wires: Vec::new(),
            kinds: members.iter().map(|member| member.kind).collect(),
            reports,
            tasks: Vec::new(),
        };
        for (place, member) in members.iter().enumerate() {
            let wire = Arc::<Wire>::default();
            crowd.wires.push(Arc::clone(&wire));
            let node = Node::new(member.id.clone(), &shared).with(Manners {
                says: Some(says.clone()),
                fetches: true,
                ..Manners::default()
            });
            let (seen, mut changes) = watch::channel(node.seen().clone());
            let sender = sender.clone();
            crowd.tasks.push(tokio::spawn(async move {
                let mut last = 0;
                while changes.changed().await.is_ok() {
                    let (sequence, hash) = {
                        let seen = changes.borrow_and_update();
                        (seen.sequence, seen.hash)
                    };
                    if sequence > last {
                        last = sequence;
                        let at = Instant::now();
                        // Nobody reads it any more at the end.
                        let _ = sender.send(Report {
                            place,
                            sequence,
                            hash,
                            at,
                        });
                    }
                }
            }));
            crowd.tasks.push(tokio::spawn(live(
                node,
                place,
                member.tls.clone(),
                to,
                wire,
                seen,
            )));
        }
        crowd
    }

    /// Places of nodes of a kind.
    pub fn of(&self, kind: &str) -> Vec<usize> {
        (0..self.kinds.len())
            .filter(|place| self.kinds[*place] == kind)
            .collect()
    }

    /// When each of these nodes had a state of this number or a later one, in order; fewer if the time was up.
    pub async fn have(&mut self, places: &[usize], sequence: u64, within: Duration) -> Vec<Report> {
        let end = tokio::time::Instant::now() + within;
        let mut waits = vec![false; self.kinds.len()];
        places.iter().for_each(|place| waits[*place] = true);
        let mut found = Vec::new();
        while found.len() < places.len() {
            match tokio::time::timeout_at(end, self.reports.recv()).await {
                Ok(Some(report)) => {
                    if report.sequence >= sequence && std::mem::take(&mut waits[report.place]) {
                        found.push(report);
                    }
                }
                _ => break,
            }
        }
        found
    }

    /// Bytes that these nodes have received and sent.
    pub fn bytes(&self, places: &[usize]) -> (u64, u64) {
        places.iter().fold((0, 0), |(received, sent), place| {
            let wire = &self.wires[*place];
            (
                received + wire.received.load(Ordering::Relaxed),
                sent + wire.sent.load(Ordering::Relaxed),
            )
        })
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Dials, has a session, and comes back when that has ended.
async fn live(
    mut node: Node,
    place: usize,
    tls: Arc<ClientConfig>,
    to: SocketAddr,
    wire: Arc<Wire>,
    seen: watch::Sender<Seen>,
) {
    let mut attempt = 0;
    loop {
        if let Ok(channel) = dial(place, tls.clone(), to, wire.clone()).await {
            // The sender lives as long as the session, so that it does not end by itself.
            let (_orders, to_do) = mpsc::channel(1);
            let (relay, mut relayed) = watch::channel(node.seen().clone());
            let began = Instant::now();
            let forward = async {
                while relayed.changed().await.is_ok() {
                    seen.send_replace(relayed.borrow_and_update().clone());
                }
            };
            let ((back, _), ()) = tokio::join!(node.run(channel, to_do, relay), forward);
            node = back;
            if began.elapsed() > BACKOFF.1 {
                attempt = 0;
            }
        }
        let longest = (BACKOFF.0 * 2_u32.pow(attempt)).min(BACKOFF.1);
        tokio::time::sleep(longest.mul_f64(rand::random())).await;
        attempt = (attempt + 1).min(5);
    }
}

/// Nodes of one address: more would be taken for one who floods the controller.
const OF_ADDRESS: usize = 100;

/// A connection.
pub async fn dial(
    place: usize,
    tls: Arc<ClientConfig>,
    to: SocketAddr,
    wire: Arc<Wire>,
) -> Result<Channel, tonic::transport::Error> {
    let connector = tower::service_fn(move |_| {
        let (tls, wire) = (TlsConnector::from(tls.clone()), wire.clone());
        async move {
            let socket = TcpSocket::new_v4()?;
            let network = u32::from(Ipv4Addr::new(127, 0, 1, 0));
            let address = Ipv4Addr::from(network + u32::try_from(place / OF_ADDRESS).unwrap_or(0));
            socket.bind((address, 0).into())?;
            let stream = socket.connect(to).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::from(to.ip());
            let stream = tls.connect(name, Counted { stream, wire }).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    Endpoint::from_static("http://controller")
        .connect_with_connector(connector)
        .await
}

/// A heartbeat as a busy node sends it.
fn heartbeat() -> Heartbeat {
    let rule = |n: u32| (format!("rule-{n}"), f64::from(20 - n));
    let rates = |n: u32| api::RuleRates {
        id: rule(n).0,
        matched: Some(api::Rate {
            packets: rule(n).1,
            bits: 800.0 * rule(n).1,
        }),
        dropped: rule(n).1,
        ..api::RuleRates::default()
    };
    let stats = |n: u32| api::RuleStats {
        id: rule(n).0,
        packets: 1_000,
        bytes: 100_000,
        dropped_packets: 1_000,
        ..api::RuleStats::default()
    };
    Heartbeat {
        top_rules: (0..20).map(rates).collect(),
        top_rule_stats: (0..20).map(stats).collect(),
        attached: 2,
        rules: 100,
        entries: 1_000,
        ..Heartbeat::default()
    }
}

#[derive(Debug)]
struct Counted {
    stream: TcpStream,
    wire: Arc<Wire>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.wire.stalled.load(Ordering::Relaxed) {
            // Nothing wakes it: it never reads again.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let many = (buffer.filled().len() - before) as u64;
        self.wire.received.fetch_add(many, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(many)) = polled {
            self.wire.sent.fetch_add(many as u64, Ordering::Relaxed);
        }
        polled
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
