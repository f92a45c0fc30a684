//! Who makes a call. A token decides if there is one, else the certificate, else the user at the other end
//! of the Unix socket.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tonic::codegen::http::HeaderMap;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::limit::Rate;
use super::peer::{Origin, Peer};
use super::tls::Certificate;
use super::{Access, By, Caller, Role, Rules, tokens};

/// The token that comes with a call.
#[derive(Clone)]
pub(super) enum Presented {
    Nothing,
    Token(Vec<u8>),
    /// Something in its place, and what is wrong with it.
    Malformed(&'static str),
}

/// Why a call is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    code: Code,
    /// For programs.
    reason: &'static str,
    /// What is missing, and the mend.
    pub message: String,
    retry_after: Option<Duration>,
    /// What is known of who it is.
    pub who: String,
}

impl Presented {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Self::Nothing;
        };
        if values.next().is_some() {
            return Self::Malformed("there are two authorization headers");
        }
        match value.as_bytes().split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => {
                match (1..=LONGEST_TOKEN).contains(&token.len()) {
                    true => Self::Token(token.to_owned()),
                    false => Self::Malformed("the token is empty or too long"),
                }
            }
            _ => Self::Malformed("the authorization header is not `Bearer TOKEN`"),
        }
    }
}

impl Access {
    /// Who makes the call, by the rules of now.
    pub(super) fn identify(
        &self,
        rules: &Rules,
        peer: &Peer,
        presented: &Presented,
    ) -> Result<Caller, Refusal> {
        let certificate = match peer.certificate() {
            Some(certificate) => {
                still_holds(rules, peer, certificate)?;
                Some(certificate)
            }
            None if matches!(peer.origin(), Origin::Tls(_)) && !rules.api.takes_tokens_alone() => {
                return Err(Refusal::unauthenticated(
                    "a client certificate is needed: connect with one (xdpgate --cert, --key)",
                ));
            }
            None => None,
        };
        match presented {
            Presented::Token(token) => return self.by_token(rules, peer, token),
            Presented::Malformed(what) => {
                return Err(Refusal::unauthenticated(format!(
                    "{what}: send `Bearer TOKEN`, once"
                )));
            }
            Presented::Nothing => {}
        }
        match (peer.origin(), certificate) {
            (Origin::Tls(_), Some(certificate)) => by_certificate(rules, certificate),
            (Origin::Tls(_), None) => Err(Refusal::unauthenticated(
                "a token is needed, or a client certificate that the daemon knows: xdpgate \
                 --token-file, or --cert and --key",
            )),
            (Origin::Loopback(_), _) if rules.api.insecure_loopback => Ok(Caller {
                name: String::new(),
                by: By::Loopback,
                role: Role::Admin,
            }),
            (Origin::Loopback(_), _) => Err(Refusal::unauthenticated(
                "a token is needed: xdpgate --token-file FILE, or the Unix socket",
            )),
            (Origin::Unix { uid: Some(uid), .. }, _) => {
                let own = nix::unistd::geteuid().as_raw();
                let role = match uid == 0 || uid == own {
                    true => Role::Admin,
                    false => rules.api.socket_role,
                };
                Ok(Caller {
                    name: uid.to_string(),
                    by: By::User,
                    role,
                })
            }
            (Origin::Unix { uid: None, .. }, _) => Err(Refusal::unauthenticated(
                "the system does not say whose connection it is: connect again",
            )),
        }
    }

    fn by_token(&self, rules: &Rules, peer: &Peer, token: &[u8]) -> Result<Caller, Refusal> {
        let source = peer.origin().source();
        let now = Instant::now();
        let find = || {
            rules.tokens.find(token).map(|token| Caller {
                name: token.name.clone(),
                by: By::Token,
                role: token.role,
            })
        };
        // Others behind the same address may guess: what nobody guesses does not wait for that.
        let unguessable = tokens::is_unguessable(token);
        if unguessable && let Some(caller) = find() {
            return Ok(caller);
        }
        let mut failures = self
            .0
            .failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Before any other token is looked at: who tries many learns nothing from the answer.
        if let Err(wait) = failures.look(&source, FAILURES, now) {
            return Err(Refusal::later(
                "too many wrong tokens came from there",
                wait,
            ));
        }
        if !unguessable && let Some(caller) = find() {
            return Ok(caller);
        }
        let _ = failures.take(source, FAILURES, now);
        Err(Refusal::unauthenticated(
            "the token is not one that the daemon knows: it may have been replaced; `xdpgated token new` \
             makes one, and it takes a reload until it is known",
        ))
    }

    /// Counts a call.
    pub(super) fn spend(&self, rules: &Rules, who: String) -> Result<(), Refusal> {
        let per_second = f64::from(rules.api.limits.requests_per_second);
        let rate = Rate {
            per_second,
            burst: per_second,
        };
        let mut calls = self.0.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.take(who.clone(), rate, Instant::now()).map_err(|wait| {
            let why = format!(
                "more than api.limits.requests_per_second = {per_second} calls came from this client"
            );
            Refusal::later(&why, wait).of(who)
        })
    }
}

/// Whether a certificate that was taken when the connection began would be taken now.
fn still_holds(rules: &Rules, peer: &Peer, certificate: &Certificate) -> Result<(), Refusal> {
    let refused = |message: String| Refusal::unauthenticated(message).of(named(certificate));
    if certificate.has_expired() {
        return Err(refused(
            "the client certificate has expired: renew it".to_owned(),
        ));
    }
    if peer.verified().load(Ordering::Relaxed) == rules.epoch {
        return Ok(());
    }
    let verified = match &rules.tls {
        Some(tls) => tls.verify(certificate),
        None => Err("there is no TLS any more".to_owned()),
    };
    verified.map_err(|e| refused(format!("the client certificate is not taken any more: {e}")))?;
    peer.verified().store(rules.epoch, Ordering::Relaxed);
    Ok(())
}

fn by_certificate(rules: &Rules, certificate: &Certificate) -> Result<Caller, Refusal> {
    for client in &rules.api.clients {
        if let Some(name) = certificate
            .names
            .iter()
            .find(|name| matches(&client.name, name))
        {
            return Ok(Caller {
                name: name.clone(),
                by: By::Certificate,
                role: client.role,
            });
        }
    }
    let refusal = Refusal::denied(format!(
        "the certificate of {:?} has no role: add it to [[api.clients]] in the daemon's configuration",
        certificate.names.join(", ")
    ));
    Err(refusal.of(named(certificate)))
}

fn named(certificate: &Certificate) -> String {
    format!(
        "certificate {}",
        certificate.names.first().map_or("without a name", |n| n)
    )
}

/// Whether a name fits a pattern with one `*` at most.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => {
            name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail)
        }
    }
}

impl Refusal {
    pub(super) fn unauthenticated(message: impl Into<String>) -> Self {
        Self {
            code: Code::Unauthenticated,
            reason: "UNAUTHENTICATED",
            message: message.into(),
            retry_after: None,
            who: "nobody".to_owned(),
        }
    }

    pub(super) fn denied(message: impl Into<String>) -> Self {
        Self {
            code: Code::PermissionDenied,
            reason: "PERMISSION_DENIED",
            ..Self::unauthenticated(message)
        }
    }

    fn later(why: &str, wait: Duration) -> Self {
        let milliseconds = wait.as_millis() + 1;
        Self {
            code: Code::ResourceExhausted,
            reason: "RATE_LIMITED",
            retry_after: Some(wait),
            ..Self::unauthenticated(format!("{why}: try again in {milliseconds} ms"))
        }
    }

    /// With what is known of who it is.
    pub(super) fn of(self, who: String) -> Self {
        Self { who, ..self }
    }

    pub(super) fn status(&self) -> Status {
        let mut details = ErrorDetails::with_error_info(
            self.reason,
            "xdpgate",
            std::collections::HashMap::<String, String>::new(),
        );
        if let Some(wait) = self.retry_after {
            details.set_retry_info(Some(wait));
        }
        Status::with_error_details(self.code, self.message.clone(), details)
    }
}

/// Wrong tokens of one source.
const FAILURES: Rate = Rate {
    per_second: 1.0,
    burst: 10.0,
};

const LONGEST_TOKEN: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, fits) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "anything", true),
            ("*.example.org", "a.example.org", true),
            ("*.example.org", "example.org", false),
            ("*.example.org", "a.example.org.evil", false),
            ("spiffe://fleet/*", "spiffe://fleet/node/1", true),
            ("spiffe://fleet/*", "spiffe://other/node/1", false),
            ("ab*ba", "aba", false),
            ("ab*ba", "abba", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn one_token_in_one_header() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            match Presented::of(&headers) {
                Presented::Nothing => "nothing".to_owned(),
                Presented::Token(token) => String::from_utf8(token).unwrap(),
                Presented::Malformed(_) => "malformed".to_owned(),
            }
        };
        let long = format!("Bearer {}", "x".repeat(LONGEST_TOKEN + 1));
        for (values, expected) in [
            (&[][..], "nothing"),
            (&["Bearer abc"], "abc"),
            (&["bEARER abc"], "abc"),
            (&["Bearer "], "malformed"),
            (&["Bearer"], "malformed"),
            (&["Basic abc"], "malformed"),
            (&["Bearer abc", "Bearer abc"], "malformed"),
            (&[&long], "malformed"),
        ] {
            assert_eq!(of(values), expected, "{values:?}");
        }
    }
}
