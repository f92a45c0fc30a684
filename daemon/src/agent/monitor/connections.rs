//! HTTP connections, few and for a limited time: whoever reads slowly or says nothing holds nobody up.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::agent::listen::Listener;

/// Connections at one time; more wait to be taken.
const CONNECTIONS: usize = 32;
/// How long a request may take to come, and how long a connection may wait for its next one.
const REQUEST: Duration = Duration::from_secs(20);
/// How long a connection may last.
const LONGEST: Duration = Duration::from_secs(600);
/// The head of a request, in bytes; the least that hyper allows.
const HEAD: usize = 8192;

/// Serves until it is dropped. To be called in a runtime.
pub(super) fn serve(
    listener: Listener,
    pages: Router,
) -> io::Result<impl Future<Output = ()> + Send> {
    let (tcp, unix) = match listener {
        Listener::Tcp(listener, _) => (Some(TcpListener::from_std(listener)?), None),
        Listener::Unix(listener, file) => (None, Some((UnixListener::from_std(listener)?, file))),
        Listener::Tls(..) => return Err(io::Error::other("metrics are served without TLS")),
    };
    Ok(async move {
        let free = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&free).acquire_owned().await else {
                return;
            };
            let taken = match (&tcp, &unix) {
                (Some(tcp), _) => tcp
                    .accept()
                    .await
                    .map(|(stream, _)| begin(stream, &pages, permit)),
                (None, Some((unix, _file))) => unix
                    .accept()
                    .await
                    .map(|(stream, _)| begin(stream, &pages, permit)),
                (None, None) => return,
            };
            if let Err(error) = taken {
                log::warn!("metrics: cannot take a connection: {error}");
                // As when there are no more file descriptors, which another one may give back.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    })
}

fn begin<S>(stream: S, pages: &Router, permit: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .max_buf_size(HEAD)
        .serve_connection(
            TokioIo::new(stream),
            TowerToHyperService::new(pages.clone()),
        );
    tokio::spawn(async move {
        let _permit = permit;
        match tokio::time::timeout(LONGEST, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::debug!("metrics: a connection: {error}"),
            Err(_) => log::debug!("metrics: a connection lasted {LONGEST:?}: cut"),
        }
    });
}
