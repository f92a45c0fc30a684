//! The listener of nodes: TLS by the embedded authority, and a bound on those who do not finish their handshake.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;

use crate::auth::authority::{Authority, ServerCertificate, server_config};
use crate::fleet::{self, FleetService};
use crate::peers::PeerService;

/// Handshakes at once. More wait in the kernel's queue.
const HANDSHAKES: usize = 512;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where nodes dial, and what they are shown.
#[derive(Debug)]
pub(super) struct Listener {
    pub listener: TcpListener,
    pub certificate: Arc<ServerCertificate>,
    pub authority: Authority,
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
    let (ready, incoming) = mpsc::channel(HANDSHAKES);
    let accepting = tokio::spawn(accept(listener.listener, acceptor, ready));
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

type Accepted = Result<TlsStream<TcpStream>, std::io::Error>;

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, ready: mpsc::Sender<Accepted>) {
    let free = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(shake(stream, acceptor.clone(), ready.clone(), permit));
            }
            Err(error) => {
                log::warn!("nodes: cannot take a connection: {error}");
                // As when there are no more file descriptors, which another one may give back.
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn shake(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    ready: mpsc::Sender<Accepted>,
    _permit: OwnedSemaphorePermit,
) {
    let from = stream.peer_addr();
    // It only makes small messages late.
    let _ = stream.set_nodelay(true);
    match timeout(PATIENCE, acceptor.accept(stream)).await {
        // An error means that the server has stopped.
        Ok(Ok(stream)) => drop(ready.send(Ok(stream)).await),
        Ok(Err(error)) => log::debug!("nodes: a handshake with {from:?}: {error}"),
        Err(_) => log::debug!("nodes: a handshake with {from:?} took more than {PATIENCE:?}"),
    }
}
