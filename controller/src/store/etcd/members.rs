//! Calls to the members of the cluster, one after the other until one answers.

use std::error::Error as _;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, KvClient, TlsOptions};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use super::Options;
use crate::store::{Revision, StoreError};

/// What etcd says to a revision that is not there yet.
pub(super) const FUTURE: &str = "future revision";
/// How long after a round in which no member answered the next one begins.
const PAUSE: Duration = Duration::from_millis(100);
/// An answer may have a thousand records.
const LARGEST: usize = 1 << 30;

#[derive(Debug)]
pub(super) struct Members {
    members: Vec<Member>,
    /// The one that answered last.
    current: AtomicUsize,
    options: ConnectOptions,
    timeout: Duration,
}

struct Member {
    endpoint: String,
    client: OnceCell<Client>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.endpoint)
    }
}

/// Why a call has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// It may have been carried out.
    Unknown(String),
    /// It was not, and later it may be.
    Unavailable(String),
    /// It was not, and will not be.
    Refused(StoreError),
}

/// Of a call that changes nothing when it is repeated.
impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unknown(text) | Failure::Unavailable(text) => StoreError::Unavailable(text),
            Failure::Refused(error) => error,
        }
    }
}

/// Records and chunks of a member.
pub(super) fn kv(client: &Client) -> KvClient {
    client.kv_client().max_decoding_message_size(LARGEST)
}

impl Members {
    pub(super) fn new(options: Options) -> Result<Self, String> {
        if options.endpoints.is_empty() {
            return Err("endpoints: none is given; write one as https://host:2379".to_owned());
        }
        for endpoint in &options.endpoints {
            let secure = endpoint.starts_with("https://");
            if !secure && !endpoint.starts_with("http://") {
                return Err(format!(
                    "endpoint {endpoint:?}: write it as https://host:2379"
                ));
            }
            if !secure && options.tls.is_some() {
                return Err(format!(
                    "endpoint {endpoint:?}: it is not https://, but certificates are given"
                ));
            }
        }
        let mut connect = ConnectOptions::new()
            .with_connect_timeout(options.timeout / 4)
            .with_keep_alive(Duration::from_secs(10), Duration::from_secs(5))
            .with_keep_alive_while_idle(true)
            // A member that was cut off from the others says so, and ends its watches.
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((name, password)) = options.user {
            connect = connect.with_user(name, password);
        }
        if let Some(tls) = options.tls {
            let mut with = TlsOptions::new().ca_certificate(Certificate::from_pem(tls.authority));
            if let Some((certificate, key)) = tls.identity {
                with = with.identity(Identity::from_pem(certificate, key));
            }
            connect = connect.with_tls(with);
        }
        let member = |endpoint| Member {
            endpoint,
            client: OnceCell::new(),
        };
        Ok(Self {
            members: options.endpoints.into_iter().map(member).collect(),
            current: AtomicUsize::new(0),
            options: connect,
            timeout: options.timeout,
        })
    }

    /// A call that may be carried out twice.
    pub(super) async fn repeat<T>(&self, call: impl AsyncCall<T>) -> Result<T, Failure> {
        self.call(&call, true).await
    }

    /// A call that must not be.
    pub(super) async fn once<T>(&self, call: impl AsyncCall<T>) -> Result<T, Failure> {
        self.call(&call, false).await
    }

    async fn call<T>(&self, call: &impl AsyncCall<T>, may_repeat: bool) -> Result<T, Failure> {
        let end = Instant::now() + self.timeout;
        let mut tried = 0;
        loop {
            let current = self.current.load(Ordering::Relaxed);
            let failure = match self.client(current).await {
                Err(error) => failure(&error, false),
                Ok(client) => {
                    // One that is silent leaves time for the next.
                    let left = end.saturating_duration_since(Instant::now());
                    let patience = if may_repeat {
                        left.min(self.timeout / 3)
                    } else {
                        left
                    };
                    match timeout(patience, call.call(client.clone())).await {
                        Ok(Ok(answer)) => return Ok(answer),
                        Ok(Err(error)) => failure(&error, true),
                        Err(_) => Failure::Unknown(format!(
                            "{} did not answer in time",
                            self.members[current].endpoint
                        )),
                    }
                }
            };
            let again = match &failure {
                Failure::Unknown(_) => may_repeat,
                Failure::Unavailable(_) => true,
                // The member answers.
                Failure::Refused(_) => return Err(failure),
            };
            self.next_after(current);
            if !again || Instant::now() + PAUSE >= end {
                return Err(failure);
            }
            tried += 1;
            if tried % self.members.len() == 0 {
                sleep(PAUSE).await;
            }
        }
    }

    /// The one that answered last; made when it is asked for first.
    pub(super) async fn current(&self) -> Result<(usize, &Client), Failure> {
        let current = self.current.load(Ordering::Relaxed);
        let client = self
            .client(current)
            .await
            .map_err(|error| failure(&error, false))?;
        Ok((current, client))
    }

    /// Another one from now on, unless somebody has changed that already.
    pub(super) fn next_after(&self, current: usize) {
        let next = (current + 1) % self.members.len();
        let order = Ordering::Relaxed;
        // If it is another one by now, that one is tried.
        let _ = self.current.compare_exchange(current, next, order, order);
    }

    async fn client(&self, index: usize) -> Result<&Client, Error> {
        let member = &self.members[index];
        let connect = || async {
            let connect = Client::connect([&member.endpoint], Some(self.options.clone()));
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "it did not answer in time");
            timeout(self.timeout / 3, connect).await.map_err(late)?
        };
        member.client.get_or_try_init(connect).await
    }
}

/// A call to whatever member it is given.
pub(super) trait AsyncCall<T>: Send + Sync {
    fn call(&self, client: Client) -> impl Future<Output = Result<T, Error>> + Send;
}

impl<T, C, F> AsyncCall<T> for C
where
    C: Fn(Client) -> F + Send + Sync,
    F: Future<Output = Result<T, Error>> + Send,
{
    fn call(&self, client: Client) -> impl Future<Output = Result<T, Error>> + Send {
        self(client)
    }
}

/// What an error says of whether the call was carried out.
fn failure(error: &Error, sent: bool) -> Failure {
    let text = error.to_string();
    let Error::GRpcStatus(status) = error else {
        return if sent {
            Failure::Unknown(text)
        } else {
            Failure::Unavailable(text)
        };
    };
    let message = status.message();
    let text = message.trim_start_matches("etcdserver: ").to_owned();
    match status.code() {
        Code::OutOfRange if message.contains("compacted") => {
            Failure::Refused(StoreError::Compacted(Revision(0)))
        }
        Code::ResourceExhausted if message.contains("space exceeded") => {
            let mend = "; compact and defragment etcd, then disarm its alarm, or raise its quota";
            Failure::Refused(StoreError::Full(text + mend))
        }
        Code::DataLoss => Failure::Refused(StoreError::Damaged(text)),
        // Too many requests.
        Code::ResourceExhausted => Failure::Unavailable(text),
        Code::OutOfRange
        | Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented => Failure::Refused(StoreError::Unavailable(text)),
        _ if !sent || message.contains("no leader") || is_refused_connection(status) => {
            Failure::Unavailable(text)
        }
        _ => Failure::Unknown(text),
    }
}

/// Whether nothing was sent, since nobody listened.
fn is_refused_connection(status: &tonic::Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if kind == Some(io::ErrorKind::ConnectionRefused) {
            return true;
        }
        source = error.source();
    }
    false
}
