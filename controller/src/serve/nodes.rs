//! The listener of nodes: TLS by the embedded authority, and bounds on those who hold connections for nothing.
//!
//! Who has not shown a certificate is a stranger: of those few are here at once, fewer of one address, and none for
//! long, since all that they may do is join. Who has shown one holds a few connections.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::auth::authority::{Authority, ServerCertificate, server_config};
use crate::auth::network;
use crate::counts::{Counted, Counts};
use crate::fleet::{self, FleetService};
use crate::peers::PeerService;

/// Strangers at once. More wait.
const STRANGERS: usize = 512;
/// Those of one address; and how many more of it may wait.
const OF_ADDRESS: (usize, usize) = (256, 2_048);
/// How long one may wait, and then take for the handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection without a certificate lasts.
const VISIT: Duration = Duration::from_secs(30);
/// Connections of one certificate. A node has one or two.
const OF_CERTIFICATE: usize = 16;
/// Connections at once, beside one for each session that may be.
const SPARE: usize = 4_096;

/// Where nodes dial, and what they are shown.
#[derive(Debug)]
pub(super) struct Listener {
    pub listener: TcpListener,
    pub certificate: Arc<ServerCertificate>,
    pub authority: Authority,
    /// Sessions that may be.
    pub sessions: usize,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Serves until `stopping` says so, and what is under way is done.
pub(super) async fn serve(
    listener: Listener,
    service: FleetService,
    peers: Option<PeerService>,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), Error> {
    let config = server_config(listener.certificate, Some(&listener.authority), &[b"h2"])?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (ready, incoming) = mpsc::channel(STRANGERS);
    let doors = Arc::new(Doors {
        acceptor,
        strangers: Arc::new(Semaphore::new(STRANGERS)),
        of_address: Mutex::default(),
        waiting: Counts::new(OF_ADDRESS.0 + OF_ADDRESS.1),
        of_certificate: Counts::new(OF_CERTIFICATE),
        ready,
    });
    let places = Arc::new(Semaphore::new(listener.sessions.saturating_add(SPARE)));
    let accepting = tokio::spawn(accept(listener.listener, doors, places));
    let stopped = async move {
        // An error means that whoever could say it is gone.
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    let served = fleet::server()
        .add_service(service)
        .add_optional_service(peers.map(PeerService::server))
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), stopped)
        .await;
    accepting.abort();
    Ok(served?)
}

/// What connections pass.
struct Doors {
    acceptor: TlsAcceptor,
    strangers: Arc<Semaphore>,
    of_address: Mutex<HashMap<IpAddr, Arc<Semaphore>>>,
    waiting: Counts<IpAddr>,
    of_certificate: Counts<[u8; 32]>,
    ready: mpsc::Sender<io::Result<Guest>>,
}

async fn accept(listener: TcpListener, doors: Arc<Doors>, places: Arc<Semaphore>) {
    loop {
        // Those that find no place wait in the kernel's queue.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, from)) => {
                let (address, doors) = (network(from.ip()), Arc::clone(&doors));
                tokio::spawn(async move {
                    if let Err(why) = doors.pass(stream, address, place).await {
                        log::debug!("nodes: a connection from {from}: {why}");
                    }
                });
            }
            Err(error) => {
                log::warn!("nodes: cannot take a connection: {error}");
                // As when there are no more file descriptors, which another one may give back.
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Doors {
    async fn pass(
        &self,
        stream: TcpStream,
        address: IpAddr,
        place: OwnedSemaphorePermit,
    ) -> Result<(), String> {
        let waiting = self.waiting.enter(address);
        let _waiting = waiting.ok_or("too many of this address")?;
        let share = self.share(address);
        let turn = async { (share.acquire_owned().await, self.stranger().await) };
        let turn = timeout(PATIENCE, turn).await;
        let (Ok(mine), Ok(stranger)) = turn.map_err(|_| "too many strangers")? else {
            return Err("the server stops".to_owned());
        };
        // It only makes small messages late.
        let _ = stream.set_nodelay(true);
        let shaken = timeout(PATIENCE, self.acceptor.accept(stream)).await;
        let stream = shaken.map_err(|_| format!("no handshake within {PATIENCE:?}"))?;
        let stream = stream.map_err(|error| error.to_string())?;
        let certificate = stream.get_ref().1.peer_certificates();
        let certificate = certificate.and_then(|chain| chain.first());
        let guest = match certificate {
            Some(certificate) => {
                let held = self
                    .of_certificate
                    .enter(Sha256::digest(certificate).into());
                Guest {
                    _member: Some(held.ok_or("too many of this certificate")?),
                    until: None,
                    _stranger: None,
                    _place: place,
                    stream,
                }
            }
            None => Guest {
                _member: None,
                until: Some(Box::pin(sleep(VISIT))),
                _stranger: Some([mine, stranger]),
                _place: place,
                stream,
            },
        };
        // An error means that the server has stopped.
        let _ = self.ready.send(Ok(guest)).await;
        Ok(())
    }

    async fn stranger(&self) -> Result<OwnedSemaphorePermit, tokio::sync::AcquireError> {
        Arc::clone(&self.strangers).acquire_owned().await
    }

    /// The places of an address.
    fn share(&self, address: IpAddr) -> Arc<Semaphore> {
        let mut shares = self
            .of_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if shares.len() > STRANGERS {
            // Whoever has a place, or waits for one, holds the semaphore.
            shares.retain(|_, share| Arc::strong_count(share) > 1);
        }
        let new = || Arc::new(Semaphore::new(OF_ADDRESS.0));
        Arc::clone(shares.entry(address).or_insert_with(new))
    }
}

/// A connection, and what it counts as until it ends.
struct Guest {
    stream: TlsStream<TcpStream>,
    /// When it ends, if it is a stranger's.
    until: Option<Pin<Box<Sleep>>>,
    _stranger: Option<[OwnedSemaphorePermit; 2]>,
    _member: Option<Counted<[u8; 32]>>,
    _place: OwnedSemaphorePermit,
}

impl Connected for Guest {
    type ConnectInfo = <TlsStream<TcpStream> as Connected>::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(until) = &mut self.until
            && until.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
