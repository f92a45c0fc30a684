//! What every call goes through before a service sees it, and its answer after.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Frame, SizeHint};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::{Bytes, http};
use tonic::transport::Server;
use tonic::{Code, Status};
use tower::layer::util::{Identity, Stack};
use tower::{Layer, Service};

use super::audit::AuditNote;
use super::identify::{Presented, Refusal};
use super::methods::{Need, need};
use super::peer::{Activity, Peer, Shown};
use super::tls::Certificate;
use super::{Access, Caller, Role, Rules};

impl Access {
    /// A server with the limits of the configuration, all of whose services are behind this.
    pub(in crate::agent) fn server(&self) -> Server<Stack<Self, Identity>> {
        let limits = &self.rules().api.limits;
        let keepalive = Some(Duration::from_secs(limits.keepalive_seconds));
        Server::builder()
            .max_concurrent_streams(limits.max_streams)
            .http2_keepalive_interval(keepalive)
            .http2_keepalive_timeout(keepalive)
            .http2_max_header_list_size(HEADERS)
            .layer(self.clone())
    }

    /// The longest message that the service takes, in bytes.
    pub(in crate::agent) fn max_message_bytes(&self) -> usize {
        self.rules().api.limits.max_message_bytes
    }

    /// Whether a call may be made, and by whom; nobody needs to be known for a health check.
    fn admit(
        &self,
        rules: &Rules,
        peer: &Peer,
        presented: &Presented,
        path: &str,
    ) -> Result<Option<Caller>, Refusal> {
        let need = need(path);
        let caller = match need {
            // Not by a token: whether it is right is not to be found out here.
            Need::Nothing => {
                let caller = self.identify(rules, peer, &Presented::Nothing).ok();
                match &caller {
                    // Who is an admin by a token stays one.
                    Some(caller) if peer.activity().shown(rules.epoch) == Shown::Nobody => {
                        peer.activity().show(caller.role, rules.epoch);
                    }
                    None if peer.certificate().is_some() => peer.activity().doubt(),
                    _ => {}
                }
                caller
            }
            Need::Read | Need::Change => {
                let caller = self.identify(rules, peer, presented);
                match &caller {
                    Ok(caller) => peer.activity().show(caller.role, rules.epoch),
                    Err(_) => peer.activity().doubt(),
                }
                Some(caller?)
            }
        };
        let who = match &caller {
            Some(caller) => caller.to_string(),
            None => format!("{:?}", peer.origin().source()),
        };
        self.spend(rules, who)?;
        if let Some(caller) = &caller {
            may(caller, path)?;
        }
        Ok(caller)
    }
}

/// Whether somebody has the role that a call takes.
fn may(caller: &Caller, path: &str) -> Result<(), Refusal> {
    if need(path) != Need::Change || caller.role >= Role::Admin {
        return Ok(());
    }
    let refusal = Refusal::denied(format!(
        "{caller} is a viewer and may not call {}: it takes the role admin",
        name(path)
    ));
    Err(refusal.of(caller.to_string()))
}

/// The method, without its service. It is whatever a client says it is, so not all of it is taken.
fn name(path: &str) -> &str {
    let method = path.rsplit('/').next().unwrap_or(path);
    match method.len() <= 64 {
        true => method,
        false => method.get(..64).unwrap_or("?"),
    }
}

impl<S> Layer<S> for Access {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            access: self.clone(),
            inner,
        }
    }
}

/// Services that are called only by those who may.
#[derive(Debug, Clone)]
pub(in crate::agent) struct Guarded<S> {
    access: Access,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let Some(peer) = request.extensions().get::<Peer>().cloned() else {
            let status = Status::internal("it is not known where this call comes from");
            return Box::pin(async move { Ok(status.into_http()) });
        };
        let in_call = InCall::begin(peer.activity());
        let presented = Presented::of(request.headers());
        let path = request.uri().path().to_owned();
        // Before the rules are looked at, so that no change of them is missed.
        let changed = (need(&path) == Need::Read).then(|| self.access.change_of_rules());
        let rules = self.access.rules();
        let caller = match self.access.admit(&rules, &peer, &presented, &path) {
            Ok(caller) => caller,
            Err(refusal) => {
                let origin = peer.origin();
                let audit = self.access.audit();
                audit.refused(origin, &refusal.who, name(&path), &refusal.message);
                return Box::pin(async move { Ok(refusal.status().into_http()) });
            }
        };
        let call = Call {
            standing: Standing {
                access: self.access.clone(),
                peer,
                presented,
                path,
                epoch: rules.epoch,
            },
            caller,
            audited: false,
            _in_call: in_call,
        };
        if let Some(caller) = &call.caller {
            request.extensions_mut().insert(caller.clone());
            request.extensions_mut().insert(call.standing.clone());
        }
        let answer = self.inner.call(request);
        Box::pin(async move {
            let mut call = call;
            let mut response = answer.await?;
            let note = response.extensions_mut().remove();
            call.answered(&response, note);
            Ok(response.map(|body| {
                let ended = false;
                Body::new(Answer {
                    body,
                    call,
                    changed,
                    ended,
                })
            }))
        })
    }
}

/// By what a call was let in. It is in the extensions of each request of a [`Caller`], for the calls that
/// go on for long: what held at the headers may not hold any more.
#[derive(Clone)]
pub(in crate::agent) struct Standing {
    access: Access,
    peer: Peer,
    presented: Presented,
    path: String,
    /// The rules by which it was let in.
    epoch: u64,
}

impl Standing {
    /// Whether the call would still be let in. If not, the refusal is in the audit log.
    pub(in crate::agent) fn check(&mut self) -> Result<(), Status> {
        self.look().map_err(|refusal| {
            let (audit, origin) = (self.access.audit(), self.peer.origin());
            audit.refused(origin, &refusal.who, name(&self.path), &refusal.message);
            refusal.status()
        })
    }

    /// There is something to find only if the rules have changed or the certificate's time is up.
    fn look(&mut self) -> Result<(), Refusal> {
        let rules = self.access.rules();
        let expired = self
            .peer
            .certificate()
            .is_some_and(Certificate::has_expired);
        if rules.epoch == self.epoch && !expired {
            return Ok(());
        }
        let caller = self.access.identify(&rules, &self.peer, &self.presented)?;
        may(&caller, &self.path)?;
        self.epoch = rules.epoch;
        Ok(())
    }
}

/// A call that was let in.
struct Call {
    standing: Standing,
    caller: Option<Caller>,
    audited: bool,
    _in_call: InCall,
}

impl Call {
    fn answered<B>(&mut self, response: &http::Response<B>, note: Option<AuditNote>) {
        let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |s| s.code());
        match code {
            Code::Ok => self.audit(note, "ok"),
            code => self.audit(note, &format!("{code:?}")),
        }
    }

    /// Writes the line of a call that changes something, once.
    fn audit(&mut self, note: Option<AuditNote>, outcome: &str) {
        if std::mem::replace(&mut self.audited, true) || need(&self.standing.path) != Need::Change {
            return;
        }
        if let Some(caller) = &self.caller {
            let Standing {
                access, peer, path, ..
            } = &self.standing;
            let audit = access.audit();
            audit.called(caller, peer.origin(), name(path), note, outcome);
        }
    }

    /// Whether what it reads may still be told. What was changed is told in any case.
    fn check_again(&mut self) -> Result<(), Status> {
        match need(&self.standing.path) {
            Need::Read => self.standing.check(),
            Need::Nothing | Need::Change => Ok(()),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // The client went away before there was an answer; what runs on its own thread goes on.
        self.audit(None, "not awaited");
    }
}

/// Counts as a call on the connection while it is there.
struct InCall(Arc<Activity>);

impl InCall {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.begin();
        Self(Arc::clone(activity))
    }
}

impl Drop for InCall {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The body of an answer. A stream ends when whoever reads it may not do so any more.
struct Answer {
    body: Body,
    call: Call,
    /// Of an answer that reads: also one that says nothing for long is to end.
    changed: Option<Changed>,
    ended: bool,
}

/// Waits for other rules, and gives what waits for those after them.
type Changed = Pin<Box<dyn Future<Output = watch::Receiver<()>> + Send>>;

impl Access {
    fn change_of_rules(&self) -> Changed {
        Box::pin(change(self.0.changed.subscribe()))
    }
}

async fn change(mut rules: watch::Receiver<()>) -> watch::Receiver<()> {
    if rules.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    rules
}

impl Answer {
    /// Whether there are other rules since this was asked; if not, whoever polls is woken when there are.
    fn has_to_check(&mut self, context: &mut Context<'_>) -> bool {
        let Some(changed) = &mut self.changed else {
            return false;
        };
        let mut has_to = false;
        while let Poll::Ready(rules) = changed.as_mut().poll(context) {
            *changed = Box::pin(change(rules));
            has_to = true;
        }
        has_to
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let has_to_check = match &polled {
            Poll::Ready(Some(Ok(frame))) => frame.is_data(),
            Poll::Ready(_) => false,
            Poll::Pending => self.has_to_check(context),
        };
        if has_to_check && let Err(status) = self.call.check_again() {
            // As trailers: an error would only reset the stream, without saying why.
            let mut trailers = http::HeaderMap::new();
            status.add_header(&mut trailers)?;
            self.ended = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The longest headers of a call, in bytes.
const HEADERS: u32 = 16 << 10;
