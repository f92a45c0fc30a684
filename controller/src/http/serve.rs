//! The listener: plain on loopback, TLS anywhere else, and bounds on what connections may take.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tower::ServiceExt as _;

use crate::auth::network;

use super::{App, Peer, forwarded, router};

/// A TLS handshake is made within this time.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The largest head of a request.
const HEAD: usize = 32 << 10;
/// How long requests may go on after the end was asked for.
const GRACE: Duration = Duration::from_secs(10);

/// Refuses to listen in the clear where others could listen too.
///
/// # Errors
/// One line, with the keys to set, for `api.listen`.
pub fn check_listen(address: SocketAddr, tls: bool) -> Result<(), String> {
    if tls || address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(format!(
        "{address} is not a loopback address, and passwords and tokens would go there in the clear: name api.certificate \
         and api.key, or say api.embedded_certificate = true, or listen on 127.0.0.1"
    ))
}

/// Serves the API until `stop` is done; then no new requests are taken and those under way have ten seconds.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] without TLS beyond loopback: see [`check_listen`].
pub async fn serve(
    listener: TcpListener,
    app: App,
    tls: Option<Arc<ServerConfig>>,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    check_listen(listener.local_addr()?, tls.is_some()).map_err(|text| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("api.listen: {text}"))
    })?;
    let service = router(app.clone());
    let places = Arc::new(Semaphore::new(app.0.options.connections));
    let (stopping, stopped) = watch::channel(false);
    let tls = tls.map(TlsAcceptor::from);
    let mut stop = pin!(stop);
    loop {
        // Those that find no place wait in the kernel's queue.
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place.map_err(io::Error::other)?,
            () = &mut stop => break,
        };
        let (stream, from) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of files, most likely: it passes.
                    log::warn!("a connection was not accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = &mut stop => break,
        };
        // Proxies have the connections of many.
        let address = from.ip().to_canonical();
        let proxy = app.0.options.proxies.iter().any(|p| p.contains(address));
        let mine = app.0.connected.enter(network(address));
        if mine.is_none() && !proxy {
            continue;
        }
        let (app, service, tls) = (app.clone(), service.clone(), tls.clone());
        let stopped = stopped.clone();
        tokio::spawn(async move {
            let served = async {
                let _ = stream.set_nodelay(true);
                match tls {
                    None => connection(stream, from, &app, service, stopped).await,
                    Some(tls) => {
                        let stream = handshake(&tls, stream).await?;
                        connection(stream, from, &app, service, stopped).await
                    }
                }
            };
            if let Err(error) = served.await {
                log::debug!(peer:display = from; "a connection ended: {error}");
            }
            drop((place, mine));
        });
    }
    drop(listener);
    stopping.send_replace(true);
    drop(stopped);
    let _ = tokio::time::timeout(GRACE, stopping.closed()).await;
    Ok(())
}

async fn handshake(
    tls: &TlsAcceptor,
    stream: TcpStream,
) -> Result<tokio_rustls::server::TlsStream<TcpStream>, String> {
    match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no TLS handshake in time".to_owned()),
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    from: SocketAddr,
    app: &App,
    service: axum::Router,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), String> {
    let options = &app.0.options;
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        let client = forwarded::client(from.ip(), request.headers(), &options.proxies);
        request.extensions_mut().insert(Peer(client));
        service.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_within)
        .max_buf_size(HEAD)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        done = connection.as_mut() => return done.map_err(|e| e.to_string()),
        _ = stopped.wait_for(|stopped| *stopped) => connection.as_mut().graceful_shutdown(),
    }
    connection.await.map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_on_loopback() {
        for address in ["127.0.0.1:80", "[::1]:80", "127.9.9.9:80"] {
            check_listen(address.parse().unwrap(), false).unwrap();
        }
        for address in ["0.0.0.0:80", "[::]:80", "192.0.2.1:80", "[2001:db8::1]:80"] {
            let refused = check_listen(address.parse().unwrap(), false).unwrap_err();
            assert!(refused.contains("api.certificate and api.key"), "{refused}");
            check_listen(address.parse().unwrap(), true).unwrap();
        }
    }
}
