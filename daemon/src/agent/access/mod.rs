//! Who may use the API: connections and their limits, identities, roles, audit. docs/access.md has the
//! whole picture.
//!
//! A connection gets a place ([`accept`], [`connections`]) and on TCP does a TLS handshake ([`tls`]). Each
//! call then goes through [`layer`]: who is it ([`Access::identify`]), may they call this ([`methods`]), is
//! it within their budget ([`limit`]); and what changes something, or is refused, is written down
//! ([`audit`]).

mod accept;
mod audit;
mod connections;
mod identify;
mod layer;
mod limit;
mod methods;
mod peer;
mod reach;
mod tls;
mod token_command;
mod tokens;

pub(crate) use audit::{AuditNote, TARGET as AUDIT};
pub(in crate::agent) use layer::Standing;
pub(in crate::agent) use reach::warnings;
pub(in crate::agent) use token_command::TokenCommand;
pub(crate) use tokens::is_placeholder_text;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::config::Api;
use audit::Audit;
use limit::Budgets;
use peer::Source;
use tls::ServerTls;
use tokens::Tokens;

/// What somebody may do.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
    ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Read everything, change nothing
    Viewer,
    /// Everything
    Admin,
}

/// Who makes a call; in the extensions of each request that the service sees, except for health checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The name of the token, in the certificate, or the number of the user.
    pub name: String,
    /// How it was found.
    pub by: By,
    /// What they may do.
    pub role: Role,
}

/// How it was found who somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// A bearer token.
    Token,
    /// A client certificate.
    Certificate,
    /// The user at the other end of the Unix socket.
    User,
    /// It was not: the configuration says that everybody on this host is an admin.
    Loopback,
}

/// The rules of access and what is counted for them. Clones are the same one.
#[derive(Debug, Clone)]
pub(in crate::agent) struct Access(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    rules: RwLock<Arc<Rules>>,
    /// Told when they are other ones.
    changed: watch::Sender<()>,
    /// Calls, by who makes them.
    calls: Mutex<Budgets<String>>,
    /// Tokens that were wrong, by where they came from.
    failures: Mutex<Budgets<Source>>,
    audit: Audit,
}

/// What holds until it is read again.
#[derive(Debug)]
struct Rules {
    /// Counts how often they were read.
    epoch: u64,
    api: Api,
    tokens: Tokens,
    tls: Option<ServerTls>,
}

/// Keys of the section that hold from the start to the end of the daemon.
pub(in crate::agent) const FIXED: &[&str] = &[
    "api.listen",
    "api.socket_mode",
    "api.socket_group",
    "api.reachable_from",
    "api.limits.max_streams",
    "api.limits.max_message_bytes",
    "api.limits.keepalive_seconds",
];

impl Access {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    ///
    /// Key, file and reason, in one line.
    pub(in crate::agent) fn new(api: &Api) -> Result<Self, String> {
        let rules = Rules::read(api, 0)?;
        Ok(Self(Arc::new(Shared {
            rules: RwLock::new(Arc::new(rules)),
            changed: watch::Sender::default(),
            calls: Mutex::new(Budgets::new()),
            failures: Mutex::new(Budgets::new()),
            audit: Audit::default(),
        })))
    }

    /// Puts another configuration in force, and what the files hold now. Connections stay; what they may
    /// do is decided anew with their next call or message, and streams of those who may not read them any
    /// more end. `max_streams`, `max_message_bytes` and
    /// `keepalive_seconds` stay as they were at the start.
    ///
    /// # Errors
    ///
    /// Key, file and reason, in one line; what was in force stays so.
    pub(in crate::agent) fn reload(&self, api: &Api) -> Result<(), String> {
        let now = self.rules();
        if (&now.api.listen, &now.api.socket_mode, &now.api.socket_group)
            != (&api.listen, &api.socket_mode, &api.socket_group)
        {
            return Err(
                "api.listen: to change it or the mode or group of a socket takes a restart".into(),
            );
        }
        let rules = Rules::read(api, now.epoch + 1)?;
        let mut slot = self.0.rules.write().unwrap_or_else(PoisonError::into_inner);
        *slot = Arc::new(rules);
        drop(slot);
        self.0.changed.send_replace(());
        Ok(())
    }

    fn rules(&self) -> Arc<Rules> {
        let rules = self.0.rules.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&rules)
    }

    fn audit(&self) -> &Audit {
        &self.0.audit
    }
}

impl Rules {
    fn read(api: &Api, epoch: u64) -> Result<Self, String> {
        // Whoever asks for it has checked it; that it is safe must not depend on that.
        api.endpoints()?;
        let tokens = match &api.tokens_file {
            Some(file) => Tokens::read(file)?,
            None => Tokens::default(),
        };
        let optional = api.takes_tokens_alone();
        let tls = api
            .tls
            .as_ref()
            .map(|tls| ServerTls::new(tls, optional, epoch == 0));
        Ok(Self {
            epoch,
            api: api.clone(),
            tokens,
            tls: tls.transpose()?,
        })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Admin => "admin",
        })
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match self.by {
            By::Token => write!(f, "token {name}"),
            By::Certificate => write!(f, "certificate {name}"),
            By::User => write!(f, "user {name}"),
            By::Loopback => f.write_str("anybody"),
        }
    }
}
