//! Feeds: address sets that somebody else keeps, read from a URL or a file now and then.
//!
//! What a feed brings is judged before it replaces what the set has: a page of errors, a list that lost most of its
//! entries, or one that would block half the internet is refused, and the last good one stays. So a feed that is broken or
//! taken over does limited harm, and it shows.
//!
//! ```text
//! feed/NAME -> due? claim (one controller) -> read -> parse, judge -> what the set shall have -> a version, if it differs
//!                      feed-status/NAME <---------------------- what became of it
//! ```

mod entries;
mod fetch;
mod file;
mod guard;
mod judge;
mod kubernetes;
mod lookup;
mod manage;
mod parse;
mod places;
mod record;
mod run;
mod status;
mod watch;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, broadcast};
use xdpgate::policy::Prefix;

pub use fetch::{FetchError, Validator};
pub use guard::UrlError;
pub use judge::{Limits, Refusal, judge};
pub use kubernetes::ApiServer;
pub use lookup::{COUNTRY, Found, lookup};
pub use manage::MAX_FEEDS;
pub use parse::{FeedError, Format, parse};
pub use record::{Feed, FeedContent, MAX_EVERY, MIN_EVERY, Source};
pub use status::{Accept, Claim, FeedHealth, FeedStatus, LastGood, LastTry, Outcome, SetStatus};
pub use watch::{FeedEvent, What};

use crate::core::Core;
use crate::store::Store;

/// What the configuration says of feeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The folder below which files of feeds are; without one there are no such feeds.
    pub directory: Option<PathBuf>,
    /// Prefixes that are not on the internet, and may be reached.
    pub allow_private: Vec<Prefix>,
    /// Authorities of web servers beside those that everybody trusts, PEM.
    pub ca: Option<PathBuf>,
    /// How long one place of a feed may take.
    pub timeout: Duration,
    /// The API server of Kubernetes; without one there are no such feeds.
    pub kubernetes: Option<ApiServer>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            directory: None,
            allow_private: Vec::new(),
            ca: None,
            timeout: Duration::from_secs(120),
            kubernetes: None,
        }
    }
}

/// Why feeds cannot be read at all.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

/// The feeds of the fleet, and what runs them. A copy is the same one.
#[derive(Debug, Clone)]
pub struct Feeds(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    core: Core,
    settings: Settings,
    guard: guard::Guard,
    fetcher: fetch::Fetcher,
    /// Which controller this is.
    me: String,
    /// A feed may be due before its time.
    wake: Notify,
    events: broadcast::Sender<FeedEvent>,
    seen: Mutex<watch::Seen>,
}

impl Feeds {
    /// Those of a core. `me` is the name of this controller.
    ///
    /// # Errors
    /// The file of authorities cannot be read.
    pub fn new(
        core: Core,
        settings: Settings,
        me: impl Into<String>,
    ) -> Result<Self, SettingsError> {
        let mut roots = Vec::new();
        if let Some(path) = &settings.ca {
            let failed = |error: &dyn std::fmt::Display| {
                SettingsError(format!("{}: {error}", path.display()))
            };
            let pem = std::fs::read(path).map_err(|error| failed(&error))?;
            roots = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| failed(&error))?;
        }
        let guard = guard::Guard {
            allowed: settings.allow_private.clone().into(),
        };
        let fetcher = fetch::Fetcher::new(guard.clone(), &roots, settings.timeout)
            .map_err(|error| SettingsError(error.to_string()))?;
        Ok(Self(Arc::new(Inner {
            core,
            settings,
            guard,
            fetcher,
            me: me.into(),
            wake: Notify::new(),
            events: broadcast::channel(256).0,
            seen: Mutex::default(),
        })))
    }

    fn store(&self) -> &Arc<dyn Store> {
        self.0.core.store()
    }
}
