//! What is on the screen, and where it comes from.

use std::cmp::Reverse;
use std::collections::HashMap;

use tonic::{Status, Streaming};
use xdpgate_api::v1::{
    GetStatusRequest, GetStatusResponse, InterfaceRates, Rates, RuleRates, VerdictRates,
    WatchEventsRequest, WatchEventsResponse, WatchStatsRequest, WatchStatsResponse,
};

use super::Top;
use crate::Failure;
use crate::client::connect::{Client, connect};
use crate::client::remote;
use crate::client::{duration, names};

/// The three calls that fill the screen.
pub(super) struct Feed {
    client: Client,
    stats: Streaming<WatchStatsResponse>,
    /// `None` once it has ended, and where the daemon has none.
    events: Option<Streaming<WatchEventsResponse>>,
}

/// What came.
pub(super) enum Update {
    Stats(Box<(GetStatusResponse, WatchStatsResponse)>),
    Events(WatchEventsResponse),
    NoEvents(String),
}

impl Feed {
    pub(super) async fn open(args: &Top) -> Result<(Self, Option<String>), Failure> {
        let refused = |status: Status| remote::refused(&args.remote, &status);
        let mut client = connect(&args.remote).await?;
        let request = WatchStatsRequest {
            interval: Some(duration::proto(args.every)),
            top_rules: 0,
        };
        let stats = client.watch_stats(request).await.map_err(refused)?;
        let request = WatchEventsRequest {
            per_rule_per_second: 100,
            ..Default::default()
        };
        let (events, why) = match client.watch_events(request).await {
            Ok(stream) => (Some(stream.into_inner()), None),
            Err(status) => (None, Some(status.message().to_owned())),
        };
        let stats = stats.into_inner();
        let feed = Self {
            client,
            stats,
            events,
        };
        Ok((feed, why))
    }

    /// What comes next.
    pub(super) async fn next(&mut self) -> Result<Update, Status> {
        let events = async {
            match &mut self.events {
                Some(stream) => stream.message().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            stats = self.stats.message() => {
                let stats = stats?.ok_or_else(|| Status::unavailable("the daemon ended it"))?;
                let status = self.client.get_status(GetStatusRequest {}).await?.into_inner();
                Ok(Update::Stats(Box::new((status, stats))))
            }
            events = events => Ok(match events {
                Ok(Some(events)) => Update::Events(events),
                Ok(None) => {
                    self.events = None;
                    Update::NoEvents("the daemon ended them".to_owned())
                }
                Err(status) => {
                    self.events = None;
                    Update::NoEvents(status.message().to_owned())
                }
            }),
        }
    }
}

/// By what interfaces and rules are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sort {
    #[default]
    Drops,
    Packets,
    Name,
}

impl Sort {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Drops => Self::Packets,
            Self::Packets => Self::Name,
            Self::Name => Self::Drops,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Drops => "drops",
            Self::Packets => "packets",
            Self::Name => "name",
        }
    }
}

/// All that is shown.
#[derive(Debug, Default)]
pub(super) struct State {
    pub status: GetStatusResponse,
    pub stats: WatchStatsResponse,
    pub sources: Sources,
    /// Why there are no events.
    pub no_events: Option<String>,
    /// Why nothing new comes.
    pub problem: Option<String>,
    pub paused: bool,
    pub sort: Sort,
    /// How many rules are scrolled over.
    pub scrolled: usize,
}

impl State {
    pub(super) fn take(&mut self, update: Update) {
        self.problem = None;
        match update {
            Update::Stats(both) => (self.status, self.stats) = *both,
            Update::Events(events) => self.sources.take(&events),
            Update::NoEvents(why) => self.no_events = Some(why),
        }
    }

    pub(super) fn rates(&self) -> Option<&Rates> {
        self.stats.rates.as_ref()
    }

    /// The interfaces, as they are sorted.
    pub(super) fn interfaces(&self) -> Vec<&InterfaceRates> {
        let mut all: Vec<&InterfaceRates> =
            self.rates().iter().flat_map(|r| &r.interfaces).collect();
        let packets = |i: &InterfaceRates| {
            let [passed, dropped, would_drop] = three(i.rates.as_ref());
            (passed + dropped + would_drop, dropped + would_drop)
        };
        match self.sort {
            Sort::Name => all.sort_by(|a, b| a.name.cmp(&b.name)),
            Sort::Packets => all.sort_by(|a, b| packets(b).0.total_cmp(&packets(a).0)),
            Sort::Drops => all.sort_by(|a, b| packets(b).1.total_cmp(&packets(a).1)),
        }
        all
    }

    /// The rules, as they are sorted, those that were hit in the interval first.
    pub(super) fn rules(&self) -> Vec<&RuleRates> {
        let mut all: Vec<&RuleRates> = self.rates().iter().flat_map(|r| &r.rules).collect();
        let matched = |r: &RuleRates| r.matched.unwrap_or_default().packets;
        let drops = |r: &RuleRates| r.dropped + r.would_drop;
        match self.sort {
            Sort::Name => all.sort_by(|a, b| a.id.cmp(&b.id)),
            Sort::Packets => all.sort_by(|a, b| matched(b).total_cmp(&matched(a))),
            Sort::Drops => {
                all.sort_by(|a, b| {
                    let (x, y) = ((drops(a), matched(a)), (drops(b), matched(b)));
                    y.0.total_cmp(&x.0).then(y.1.total_cmp(&x.1))
                });
            }
        }
        all
    }

    /// The first line: version, mode, policy.
    pub(super) fn headline(&self) -> String {
        let policy = match &self.status.policy {
            None => "no policy".to_owned(),
            Some(p) => format!(
                "generation {}, {} rules, {} entries",
                p.generation, p.rules, p.set_entries
            ),
        };
        let sample = self.rates().map_or(0, |rates| rates.sample);
        format!(
            "xdpgated {}  mode {}  {policy}  bans {}  sample {sample}",
            self.status.version,
            names::mode(self.status.mode()),
            self.status.bans,
        )
    }

    /// What is wrong, if anything is.
    pub(super) fn health(&self) -> Result<(), String> {
        if let Some(problem) = &self.problem {
            return Err(problem.clone());
        }
        if let Some(broken) = &self.status.broken {
            return Err(format!("BROKEN: {broken}"));
        }
        if let Some(why) = &self.status.not_saved {
            return Err(format!("not saved: {why}"));
        }
        if let Some(pending) = &self.status.pending {
            return Err(format!(
                "waits for confirmation until {}",
                duration::time_text(pending.deadline)
            ));
        }
        Ok(())
    }
}

/// Packets per second: passed, dropped, would drop.
pub(super) fn three(rates: Option<&VerdictRates>) -> [f64; 3] {
    let rates = rates.copied().unwrap_or_default();
    [rates.passed, rates.dropped, rates.would_drop].map(|r| r.unwrap_or_default().packets)
}

/// Sources of sampled drops, by how many samples they are in.
#[derive(Debug, Default)]
pub(super) struct Sources {
    counts: HashMap<String, u64>,
    pub samples: u64,
    pub lost: u64,
}

impl Sources {
    /// Beyond this the rarer half is forgotten: attackers choose addresses.
    const MOST: usize = 4096;

    fn take(&mut self, message: &WatchEventsResponse) {
        self.lost = message.lost;
        for event in &message.events {
            self.samples += 1;
            if !event.source.is_empty() {
                *self.counts.entry(event.source.clone()).or_default() += 1;
            }
        }
        if self.counts.len() > Self::MOST {
            let keep = self.top(Self::MOST / 2);
            self.counts = keep.into_iter().map(|(s, n)| (s.to_owned(), n)).collect();
        }
    }

    /// The sources that are in the most samples.
    pub(super) fn top(&self, count: usize) -> Vec<(&str, u64)> {
        let mut all: Vec<(&str, u64)> = self.counts.iter().map(|(s, n)| (s.as_str(), *n)).collect();
        all.sort_by_key(|(source, n)| (Reverse(*n), *source));
        all.truncate(count);
        all
    }
}

#[cfg(test)]
mod tests {
    use xdpgate_api::v1::{Event, WatchEventsResponse};

    use super::Sources;

    #[test]
    fn sources_are_bounded_and_the_frequent_ones_stay() {
        let mut sources = Sources::default();
        let event = |source: String| Event {
            source,
            ..Default::default()
        };
        let often = || event("192.0.2.1".to_owned());
        let rare = (0..20_000u32).map(|n| event(std::net::Ipv4Addr::from(n).to_string()));
        for chunk in rare.collect::<Vec<_>>().chunks(1000) {
            let events = [chunk, &[often(), often()]].concat();
            sources.take(&WatchEventsResponse { events, lost: 3 });
        }
        assert_eq!(sources.top(1), [("192.0.2.1", 40)]);
        assert!(sources.counts.len() <= Sources::MOST);
        assert_eq!((sources.samples, sources.lost), (20_040, 3));
    }
}
