//! Serving the API until a signal comes.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::Server;
use xdpgate::Firewall;
use xdpgate_api::MAX_MESSAGE;
use xdpgate_api::v1::FILE_DESCRIPTOR_SET;
use xdpgate_api::v1::firewall_server::FirewallServer;

use super::listen::Listener;
use super::service::FirewallService;
use crate::endpoint::Endpoint;
use crate::failure::Failure;

/// Serves, says `ready`, and detaches everything when SIGINT or SIGTERM comes.
pub(super) fn until_signal(firewall: Firewall, listener: Listener) -> Result<(), Failure> {
    let firewall = Arc::new(firewall);
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::operation)?;
    let served = runtime.block_on(serve(Arc::clone(&firewall), listener));
    for attachment in firewall.attachments() {
        match firewall.detach(attachment.ifindex) {
            Ok(attachment) => log::info!("{}: detached", attachment.name),
            Err(e) => log::warn!("{}: {e}", attachment.name),
        }
    }
    runtime.shutdown_timeout(DRAIN);
    served.map_err(|e| Failure::operation(format!("serving the API: {e}")))
}

type Error = Box<dyn std::error::Error + Send + Sync>;

async fn serve(firewall: Arc<Firewall>, listener: Listener) -> Result<(), Error> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (stop, stopped) = watch::channel(false);
    let stopped = async move {
        let mut stopped = stopped;
        // An error means that the sender is gone, which is a stop too.
        let _ = stopped.wait_for(|stop| *stop).await;
    };

    let (health, health_server) = tonic_health::server::health_reporter();
    let service = FirewallServer::new(FirewallService::new(firewall))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    health
        .set_serving::<FirewallServer<FirewallService>>()
        .await;
    let router = Server::builder()
        .add_service(service)
        .add_service(health_server)
        .add_service(reflection);

    let endpoint = listener.endpoint();
    // Kept until all is drained: its file goes with it.
    let (incoming, _file) = match listener {
        Listener::Unix(listener, file) => {
            let stream = UnixListenerStream::new(UnixListener::from_std(listener)?);
            (Incoming::Unix(stream), Some(file))
        }
        Listener::Tcp(listener, _) => (
            Incoming::Tcp(TcpListenerStream::new(TcpListener::from_std(listener)?)),
            None,
        ),
    };
    if let Endpoint::Tcp(address) = endpoint {
        log::warn!("{address}: every user of this host may change the policy through it");
    }
    log::info!("ready: serving at {endpoint}");
    let serving: std::pin::Pin<Box<dyn Future<Output = _> + Send>> = match incoming {
        Incoming::Unix(stream) => Box::pin(router.serve_with_incoming_shutdown(stream, stopped)),
        Incoming::Tcp(stream) => Box::pin(router.serve_with_incoming_shutdown(stream, stopped)),
    };
    tokio::pin!(serving);
    let name = tokio::select! {
        ended = &mut serving => return Ok(ended?),
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    };
    log::info!("stopping: {name}");
    health
        .set_not_serving::<FirewallServer<FirewallService>>()
        .await;
    stop.send(true).map_err(io::Error::other)?;
    match tokio::time::timeout(DRAIN, serving).await {
        Ok(ended) => Ok(ended?),
        Err(_) => {
            log::warn!("connections that were still open after {DRAIN:?} are cut");
            Ok(())
        }
    }
}

enum Incoming {
    Unix(UnixListenerStream),
    Tcp(TcpListenerStream),
}

/// How long running calls may take to end.
const DRAIN: Duration = Duration::from_secs(3);
