//! The calls about counters.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tonic::Status;
use xdpgate::Firewall;
use xdpgate_api::v1;

use super::Shared;
use super::stream::{Over, Sink};
use crate::agent::{convert, fault};

/// The last counters that were read, shared by those who ask at nearly one time: reading takes some
/// ten milliseconds of waiting, and many may watch.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Option<(Instant, Arc<v1::GetStatsResponse>)>>);

impl Recent {
    /// Counters that are not older than this.
    pub(super) fn get(&self, firewall: &Firewall, oldest: Duration) -> Arc<v1::GetStatsResponse> {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, stats)) = &*recent
            && at.elapsed() <= oldest
        {
            return Arc::clone(stats);
        }
        let stats = Arc::new(convert::stats(firewall.stats()));
        *recent = Some((Instant::now(), Arc::clone(&stats)));
        stats
    }
}

/// How old what is sent to who watches may be.
const FRESH: Duration = Duration::from_millis(50);

const LEAST_INTERVAL: Duration = Duration::from_millis(100);
const MOST_INTERVAL: Duration = Duration::from_secs(3600);

pub(super) fn interval(request: &v1::WatchStatsRequest) -> Result<Duration, Status> {
    let asked = request.interval.as_ref();
    let parsed = asked
        .map(|asked| convert::parse_duration("interval", asked, LEAST_INTERVAL, MOST_INTERVAL));
    Ok(parsed.transpose()?.unwrap_or(Duration::from_secs(1)))
}

/// Sends counters and rates until the stream is over. What the client does not take in time is left out.
pub(super) fn watch(
    shared: &Shared,
    every: Duration,
    top_rules: usize,
    mut sink: Sink<v1::WatchStatsResponse>,
) -> Result<(), Over> {
    let mut lost = 0;
    let mut next = Instant::now();
    loop {
        if sink.has_room() {
            let rates = shared.firewall.rates();
            let stats = shared.recent.get(&shared.firewall, FRESH);
            let mut message = v1::WatchStatsResponse {
                time: Some(convert::now()),
                stats: Some(Arc::unwrap_or_clone(stats)),
                rates: rates.as_ref().map(convert::rates),
                lost: std::mem::take(&mut lost),
            };
            if top_rules > 0 {
                keep_top(&mut message, top_rules);
            }
            sink.send(message)?;
        } else {
            lost += 1;
        }
        next += every;
        let now = Instant::now();
        // After a pause of the machine nothing is made up for.
        next = next.max(now);
        sink.sleep(next - now)?;
    }
}

/// Leaves those rules that match most a second; as long as there are no rates, most in all.
fn keep_top(message: &mut v1::WatchStatsResponse, top: usize) {
    let (Some(stats), rates) = (&mut message.stats, &mut message.rates) else {
        return;
    };
    let mut by_hits: Vec<(f64, &str)> = match rates {
        Some(rates) => {
            let rules = rates.rules.iter();
            let matched = |rule: &v1::RuleRates| rule.matched.as_ref().map_or(0.0, |r| r.packets);
            rules.map(|rule| (matched(rule), &*rule.id)).collect()
        }
        None => {
            let rules = stats.rules.iter();
            rules.map(|rule| (rule.packets as f64, &*rule.id)).collect()
        }
    };
    by_hits.sort_by(|a, b| b.0.total_cmp(&a.0));
    by_hits.truncate(top);
    let kept: HashSet<String> = by_hits.into_iter().map(|(_, id)| id.to_owned()).collect();
    stats.rules.retain(|rule| kept.contains(&rule.id));
    if let Some(rates) = rates {
        rates.rules.retain(|rule| kept.contains(&rule.id));
    }
}

/// The entries of a set that were hit, the most hit first.
pub(super) fn entry_counters(
    firewall: &Firewall,
    request: &v1::GetEntryCountersRequest,
) -> Result<v1::GetEntryCountersResponse, Status> {
    let set = convert::set_name("set", &request.set)?;
    let mut hit = firewall
        .entry_counters(&set)
        .map_err(|e| fault::entry_counters(&e))?;
    hit.retain(|entry| entry.matched.packets > 0);
    let count = hit.len();
    let limit = match request.limit {
        0 => 100,
        limit => limit as usize,
    };
    hit.sort_by_key(|entry| (std::cmp::Reverse(entry.matched.packets), entry.entry));
    let entry = |entry: xdpgate::EntryStats| v1::EntryStats {
        prefix: entry.entry.to_string(),
        packets: entry.matched.packets,
        bytes: entry.matched.bytes,
    };
    Ok(v1::GetEntryCountersResponse {
        entries: hit.into_iter().take(limit).map(entry).collect(),
        hit: count as u64,
    })
}
