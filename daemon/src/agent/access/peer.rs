//! Who is at the other end of a connection, as far as the connection tells.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Role;
use super::tls::Certificate;

/// The other end of a connection; goes into the extensions of each of its requests.
#[derive(Debug, Clone)]
pub(crate) struct Peer(Arc<State>);

#[derive(Debug)]
struct State {
    origin: Origin,
    certificate: Option<Certificate>,
    /// The rules by which the certificate was verified last.
    verified: AtomicU64,
    activity: Arc<Activity>,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A process of this user on this host.
    Unix {
        uid: Option<u32>,
        pid: Option<i32>,
    },
    /// In the clear, from this host.
    Loopback(SocketAddr),
    Tls(SocketAddr),
}

/// What is counted as one: an IPv4 address, a /64 of IPv6, a user of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Source {
    Address(IpAddr),
    User(Option<u32>),
}

/// What happens on a connection.
#[derive(Debug)]
pub(super) struct Activity {
    since: Instant,
    /// A [`Shown`], and in the upper bits by which rules.
    shown: AtomicU64,
    calls: AtomicU32,
    /// Milliseconds after `since` when a call began or ended last.
    last: AtomicU64,
}

/// Who somebody on a connection has shown to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shown {
    Nobody = 0,
    Viewer = 1,
    Admin = 2,
}

impl Peer {
    pub(super) fn new(
        origin: Origin,
        certificate: Option<Certificate>,
        verified: u64,
        activity: Arc<Activity>,
    ) -> Self {
        Self(Arc::new(State {
            origin,
            certificate,
            verified: verified.into(),
            activity,
        }))
    }

    pub(super) fn origin(&self) -> Origin {
        self.0.origin
    }

    pub(super) fn certificate(&self) -> Option<&Certificate> {
        self.0.certificate.as_ref()
    }

    /// The rules by which the certificate was verified last.
    pub(super) fn verified(&self) -> &AtomicU64 {
        &self.0.verified
    }

    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.0.activity
    }
}

impl Origin {
    pub(super) fn source(self) -> Source {
        match self {
            Self::Unix { uid, .. } => Source::User(uid),
            Self::Loopback(address) | Self::Tls(address) => {
                Source::Address(match address.ip().to_canonical() {
                    IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !0 << 64)),
                    v4 => v4,
                })
            }
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { uid, pid } => {
                f.write_str("unix")?;
                uid.map_or(Ok(()), |uid| write!(f, " uid {uid}"))?;
                pid.map_or(Ok(()), |pid| write!(f, " pid {pid}"))
            }
            Self::Loopback(address) | Self::Tls(address) => {
                let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                address.fmt(f)
            }
        }
    }
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            since: Instant::now(),
            shown: AtomicU64::new(Shown::Nobody as u64),
            calls: AtomicU32::new(0),
            last: AtomicU64::new(0),
        }
    }

    /// Who is there, as far as calls have shown by the rules of this epoch: who was an admin by others may
    /// be none any more, and counts as a viewer until the next call.
    pub(super) fn shown(&self, epoch: u64) -> Shown {
        let shown = self.shown.load(Ordering::Relaxed);
        match (shown & 3, shown >> 2) {
            (nobody, _) if nobody == Shown::Nobody as u64 => Shown::Nobody,
            (admin, by) if admin == Shown::Admin as u64 && by == epoch => Shown::Admin,
            _ => Shown::Viewer,
        }
    }

    /// A call came from somebody with this role by the rules of this epoch.
    pub(super) fn show(&self, role: Role, epoch: u64) {
        let shown = match role {
            Role::Viewer => Shown::Viewer,
            Role::Admin => Shown::Admin,
        };
        self.shown
            .store(epoch << 2 | shown as u64, Ordering::Relaxed);
    }

    /// A call was refused because it is not known who makes it: whoever was an admin may be none any more.
    pub(super) fn doubt(&self) {
        let doubted = |shown| (shown & 3 == Shown::Admin as u64).then_some(Shown::Viewer as u64);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let _ = self.shown.fetch_update(set, fetch, doubted);
    }

    pub(super) fn begin(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.touch();
        self.calls.fetch_sub(1, Ordering::Relaxed);
    }

    fn touch(&self) {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// For how long there was no call; nothing while there is one.
    pub(super) fn quiet_for(&self) -> Duration {
        if self.calls.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.since.elapsed().saturating_sub(last)
    }

    /// How long the connection has been there.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }
}
