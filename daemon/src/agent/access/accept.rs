//! From a listener to connections that the server takes: places, TLS, and the end of those that are quiet.

use std::convert::Infallible;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::Access;
use super::connections::{Connections, Place};
use super::peer::{Activity, Origin, Peer};
use super::tls::Certificate;
use crate::agent::listen::{Listener, SocketFile};

/// The connections of all listeners, for as long as this is there.
#[derive(Debug)]
pub(in crate::agent) struct Accepting {
    tasks: JoinSet<()>,
    /// They go with their listeners.
    _files: Vec<SocketFile>,
}

/// A connection that was accepted, and that ends when it is cut.
#[derive(Debug)]
pub(in crate::agent) struct Connection {
    stream: Stream,
    peer: Peer,
    cut: Option<oneshot::Receiver<()>>,
    _place: Place,
}

#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

#[derive(Debug)]
enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
    Tls(TcpListener),
}

type Sender = mpsc::Sender<Result<Connection, Infallible>>;

impl Access {
    /// Accepts connections, in the runtime of the caller.
    ///
    /// # Errors
    ///
    /// A listener is not one that the runtime can use.
    pub(in crate::agent) fn accept(
        &self,
        listeners: Vec<Listener>,
    ) -> io::Result<(ReceiverStream<Result<Connection, Infallible>>, Accepting)> {
        let (sender, receiver) = mpsc::channel(16);
        let (mut tasks, mut files) = (JoinSet::new(), Vec::new());
        for listener in listeners {
            let socket = match listener {
                Listener::Unix(listener, file) => {
                    files.push(file);
                    Socket::Unix(UnixListener::from_std(listener)?)
                }
                Listener::Tcp(listener, _) => Socket::Tcp(TcpListener::from_std(listener)?),
                Listener::Tls(listener, _) => Socket::Tls(TcpListener::from_std(listener)?),
            };
            let connections = Arc::new(Connections::default());
            tasks.spawn(cut_quiet(self.clone(), Arc::clone(&connections)));
            tasks.spawn(accept(self.clone(), socket, connections, sender.clone()));
        }
        let audit = self.clone();
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                audit.audit().sum_up();
            }
        });
        let accepting = Accepting {
            tasks,
            _files: files,
        };
        Ok((ReceiverStream::new(receiver), accepting))
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.tasks.abort_all();
    }
}

/// Until nobody takes the connections any more.
async fn accept(access: Access, socket: Socket, connections: Arc<Connections>, sender: Sender) {
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = sender.closed() => return,
        };
        let (stream, origin) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of files, most likely: trying again at once would only be busy.
                log::warn!("accepting a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let activity = Arc::new(Activity::new());
        let rules = access.rules();
        let most = rules.api.limits.max_connections as usize;
        let admitted = connections.admit(origin.source(), &activity, most, rules.epoch);
        let Some((place, cut)) = admitted else {
            access
                .audit()
                .refused(origin, "nobody", "connect", "too many connections");
            continue;
        };
        let new = New {
            access: access.clone(),
            origin,
            activity,
            place,
            cut,
        };
        // Also one in the clear: whoever waits for the server must not hold up the others.
        tokio::spawn(new.hand_over(stream, sender.clone()));
        connections.settle(most).await;
    }
}

impl Socket {
    async fn accept(&self) -> io::Result<(Stream, Origin)> {
        match self {
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let credentials = stream.peer_cred().ok();
                let origin = Origin::Unix {
                    uid: credentials.map(|c| c.uid()),
                    pid: credentials.and_then(|c| c.pid()),
                };
                Ok((Stream::Unix(stream), origin))
            }
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                Ok((Stream::Tcp(stream), Origin::Loopback(address)))
            }
            Self::Tls(listener) => {
                let (stream, address) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                Ok((Stream::Tcp(stream), Origin::Tls(address)))
            }
        }
    }
}

/// A connection of which nothing is known but where it comes from.
struct New {
    access: Access,
    origin: Origin,
    activity: Arc<Activity>,
    place: Place,
    cut: oneshot::Receiver<()>,
}

impl New {
    async fn hand_over(mut self, stream: Stream, sender: Sender) {
        let rules = self.access.rules();
        let (stream, certificate) = match (stream, self.origin) {
            (Stream::Tcp(stream), Origin::Tls(_)) => {
                let Some(tls) = &rules.tls else { return };
                let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
                let limit = Duration::from_secs(rules.api.limits.handshake_seconds);
                let accepted = tokio::select! {
                    accepted = tokio::time::timeout(limit, acceptor.accept(stream)) => accepted,
                    _ = &mut self.cut => return,
                };
                let refused = |why: &str| {
                    self.access
                        .audit()
                        .refused(self.origin, "nobody", "TLS handshake", why);
                };
                let stream = match accepted {
                    Ok(Ok(stream)) => stream,
                    // Scanners, and probes of load balancers: not of interest to anybody.
                    Ok(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => return,
                    Ok(Err(e)) => return refused(&e.to_string()),
                    Err(_) => return refused("it took too long"),
                };
                let chain = stream.get_ref().1.peer_certificates();
                let certificate = match chain.map(Certificate::new).transpose() {
                    Ok(certificate) => certificate,
                    Err(e) => return refused(&format!("client certificate: {e}")),
                };
                (Stream::Tls(Box::new(stream)), certificate)
            }
            (stream, _) => (stream, None),
        };
        let peer = Peer::new(self.origin, certificate, rules.epoch, self.activity);
        let connection = Connection {
            stream,
            peer,
            cut: Some(self.cut),
            _place: self.place,
        };
        let _ = sender.send(Ok(connection)).await;
    }
}

async fn cut_quiet(access: Access, connections: Arc<Connections>) {
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let limits = access.rules().api.limits.clone();
        connections.cut_quiet(
            Duration::from_secs(limits.handshake_seconds),
            Duration::from_secs(limits.idle_seconds),
        );
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl Connection {
    /// Whether it was cut; if not, whoever polls is woken when it is.
    fn is_cut(&mut self, context: &mut Context<'_>) -> bool {
        if let Some(cut) = &mut self.cut
            && Pin::new(cut).poll(context).is_ready()
        {
            self.cut = None;
        }
        self.cut.is_none()
    }
}

/// Calls a method of the stream, whichever it is.
macro_rules! stream {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match &mut $self.get_mut().stream {
            Stream::Unix(stream) => Pin::new(stream).$method($($argument),*),
            Stream::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).$method($($argument),*),
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_cut(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        stream!(self.poll_read(context, buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // Nothing is read while the answers to a client that reads none are waiting: so here, too.
        if self.is_cut(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        stream!(self.poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_cut(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        stream!(self.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_cut(context) {
            return Poll::Ready(Ok(()));
        }
        stream!(self.poll_shutdown(context))
    }
}
