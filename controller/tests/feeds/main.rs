//! Feeds over real web servers and files, into sets of a real store.
#![allow(unreachable_pub, reason = "as in the other tests")]

#[path = "../common/mod.rs"]
mod common;

mod countries;
mod kubernetes;
mod lists;
mod manage;
mod server;

use common::core as fleet;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fleet::{Fleet, name};
use jiff::{SignedDuration, Timestamp};
use server::Server;
use xdpgate_controller::core::{Actor, Core, Options, audit};
use xdpgate_controller::domain::{Role, SetState};
use xdpgate_controller::feed::{
    FeedContent, FeedHealth, FeedStatus, Feeds, LastTry, SetStatus, Settings, Source,
};

/// A fleet with feeds, and a server of lists.
struct World {
    fleet: Fleet,
    server: Server,
    feeds: Feeds,
    /// The time at which it is; rounds pass it.
    now: Timestamp,
}

fn settings() -> Settings {
    Settings {
        allow_private: vec!["127.0.0.0/8".parse().unwrap()],
        timeout: Duration::from_secs(2),
        ..Settings::default()
    }
}

fn admin() -> Actor {
    Actor {
        name: "anna".to_owned(),
        role: Role::Admin,
        origin: "local".to_owned(),
    }
}

impl World {
    async fn new() -> Self {
        Self::with(settings()).await
    }

    async fn with(settings: Settings) -> Self {
        let fleet = Fleet::new().await;
        let feeds = Feeds::new(fleet.core.clone(), settings, "one").unwrap();
        Self {
            fleet,
            server: Server::new().await,
            feeds,
            now: Timestamp::now(),
        }
    }

    async fn put(&self, feed: &str, content: &FeedContent) {
        self.feeds
            .put(&admin(), &name(feed), content, &Options::default())
            .await
            .unwrap();
    }

    /// A feed `list` of the path `/list`.
    async fn list(&self) -> FeedContent {
        let content = url([self.server.url("/list")]);
        self.put("list", &content).await;
        content
    }

    fn pass(&mut self, seconds: i64) {
        self.now = self
            .now
            .checked_add(SignedDuration::from_secs(seconds))
            .unwrap();
    }

    /// Runs what is due two hours later. Returns what was run.
    async fn round(&mut self) -> Vec<String> {
        self.pass(7200);
        self.run().await
    }

    /// Runs what is due.
    async fn run(&self) -> Vec<String> {
        let ran = self.feeds.run_due(self.now).await.unwrap();
        ran.iter().map(ToString::to_string).collect()
    }

    fn set(&self, set: &str) -> Arc<SetState> {
        let view = self.fleet.core.view();
        Arc::clone(
            view.sets()
                .get(set)
                .unwrap_or_else(|| panic!("no set {set}")),
        )
    }

    async fn status(&self, feed: &str) -> FeedStatus {
        self.feeds
            .get(&name(feed))
            .await
            .unwrap()
            .expect("a feed")
            .1
    }

    async fn set_status(&self, feed: &str, set: &str) -> SetStatus {
        self.status(feed)
            .await
            .sets
            .get(set)
            .cloned()
            .unwrap_or_else(|| panic!("no {set} in {feed}"))
    }

    /// The last try of the feed `list`.
    async fn last(&self) -> LastTry {
        self.set_status("list", "list")
            .await
            .last_try
            .expect("a try")
    }

    async fn health(&self, feed: &str) -> FeedHealth {
        let (feed, status) = self.feeds.get(&name(feed)).await.unwrap().expect("a feed");
        status.health(&feed.content, feed.updated.at, self.now)
    }
}

fn url(urls: impl IntoIterator<Item = String>) -> FeedContent {
    FeedContent::new(Source::Url {
        urls: urls.into_iter().collect(),
    })
}

fn file(paths: &[&str]) -> FeedContent {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    FeedContent::new(Source::File { paths })
}

/// So many hosts, from the first one on.
fn hosts(first: u32, count: u32) -> String {
    let host = |n| format!("{}\n", std::net::Ipv4Addr::from(0xcb00_0000 + n));
    (first..first + count).map(host).collect()
}

/// How many entries of the audit log there are for each action.
async fn audited(core: &Core) -> BTreeMap<String, usize> {
    let page = core
        .store()
        .list(audit::PREFIX, None, 1000, None)
        .await
        .unwrap();
    let mut count = BTreeMap::new();
    for (_, record) in page.records {
        let entry: audit::Entry = serde_json::from_slice(&record.value).unwrap();
        *count.entry(entry.action).or_default() += 1;
    }
    count
}

/// The folder of data that tests share, if it is there.
fn data(file: &str) -> Option<PathBuf> {
    let root = std::env::var_os("XDPGATE_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")),
        PathBuf::from,
    );
    Some(root.join(file)).filter(|path| path.exists())
}
