//! The numbers of heartbeats, kept small, and their sums over the fleet.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use xdpgate_api::fleet::v1::Heartbeat;
use xdpgate_api::v1::{Disposition, VerdictRates};

/// So many verdict counters, top rules and texts of a heartbeat are looked at.
const VERDICTS: usize = 64;
const TOP: usize = 20;
const TEXT: usize = 200;
/// So many reasons are told apart over the fleet; nodes have some twenty.
const REASONS: usize = 256;

/// Texts that many nodes say, each held once.
#[derive(Debug, Default)]
pub(super) struct Texts(Mutex<(HashSet<Arc<str>>, usize)>);

impl Texts {
    pub(super) fn get(&self, text: &str) -> Arc<str> {
        let text = short(text);
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (texts, swept) = &mut *guard;
        if let Some(held) = texts.get(text) {
            return held.clone();
        }
        if texts.len() >= 1024.max(2 * *swept) {
            texts.retain(|text| Arc::strong_count(text) > 1);
            *swept = texts.len();
        }
        let held: Arc<str> = text.into();
        texts.insert(held.clone());
        held
    }
}

fn short(text: &str) -> &str {
    let mut end = text.len().min(TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What became of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// They passed.
    Pass,
    /// They were dropped.
    Drop,
    /// They were judged as drop and passed, because of dry run.
    WouldDrop,
}

/// Frames and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Count {
    /// Frames.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Rates per second.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Rates {
    /// Frames that passed.
    pub passed: f64,
    /// Frames that were dropped.
    pub dropped: f64,
    /// Frames that would have been.
    pub would_drop: f64,
    /// Bits of all of them.
    pub bits: f64,
}

/// A rule as one node reports it.
#[derive(Debug, Clone)]
pub(super) struct TopRule {
    pub id: Arc<str>,
    pub matched: f32,
    pub bits: f32,
    pub dropped: f32,
    pub would_drop: f32,
    /// Since its daemon started, if it says so.
    pub packets: Option<u64>,
}

/// Frames by why and what became of them.
type Counter = ((Arc<str>, Fate), Count);

/// The numbers of a heartbeat: some kilobytes at most.
#[derive(Debug, Clone, Default)]
pub(super) struct Beat {
    pub counts: Box<[Counter]>,
    pub rates: Option<Rates>,
    pub top: Box<[TopRule]>,
    pub attached: u32,
    pub broken: Option<Arc<str>>,
    pub not_saved: Option<Arc<str>>,
    pub bans: u64,
    pub rules: u64,
    pub entries: u64,
}

impl Beat {
    pub(super) fn new(heartbeat: &Heartbeat, texts: &Texts) -> Self {
        let mut counts = BTreeMap::<_, Count>::new();
        for one in heartbeat.verdicts.iter().take(VERDICTS) {
            let fate = match Disposition::try_from(one.disposition) {
                Ok(Disposition::Pass) => Fate::Pass,
                Ok(Disposition::Drop) => Fate::Drop,
                Ok(Disposition::WouldDrop) => Fate::WouldDrop,
                _ => continue,
            };
            let count = counts.entry((texts.get(&one.reason), fate)).or_default();
            count.packets = count.packets.saturating_add(one.packets);
            count.bytes = count.bytes.saturating_add(one.bytes);
        }
        let rates = heartbeat.rates.as_ref().map(|rates| {
            let interfaces = rates.interfaces.iter().filter_map(|i| i.rates.as_ref());
            let mut sum = Rates::default();
            interfaces
                .chain(&rates.other)
                .for_each(|rates| sum.add_verdicts(rates));
            sum
        });
        let mut stats = HashMap::new();
        for one in &heartbeat.top_rule_stats {
            stats.insert(one.id.as_str(), one.packets);
        }
        // A rule that is named twice counts once.
        let mut named = HashSet::new();
        let top = heartbeat.top_rules.iter().take(TOP);
        let top = top
            .filter(|rule| named.insert(rule.id.as_str()))
            .map(|rule| {
                let matched = rule.matched.unwrap_or_default();
                TopRule {
                    id: texts.get(&rule.id),
                    matched: sane(matched.packets) as f32,
                    bits: sane(matched.bits) as f32,
                    dropped: sane(rule.dropped) as f32,
                    would_drop: sane(rule.would_drop) as f32,
                    packets: stats.get(rule.id.as_str()).copied(),
                }
            });
        Self {
            counts: counts.into_iter().collect(),
            rates,
            top: top.collect(),
            attached: heartbeat.attached,
            broken: heartbeat.broken.as_ref().map(|text| texts.get(text)),
            not_saved: heartbeat.not_saved.as_ref().map(|text| texts.get(text)),
            bans: heartbeat.bans,
            rules: heartbeat.rules,
            entries: heartbeat.entries,
        }
    }
}

/// A rate that a node says; one that is none would make every sum one that is none.
fn sane(rate: f64) -> f64 {
    if rate.is_finite() && rate > 0.0 {
        rate
    } else {
        0.0
    }
}

impl Count {
    pub(super) fn add(&mut self, other: &Self) {
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

impl Rates {
    fn add_verdicts(&mut self, rates: &VerdictRates) {
        for (sum, rate) in [
            (&mut self.passed, &rates.passed),
            (&mut self.dropped, &rates.dropped),
            (&mut self.would_drop, &rates.would_drop),
        ] {
            let rate = rate.unwrap_or_default();
            *sum += sane(rate.packets);
            self.bits += sane(rate.bits);
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.dropped += other.dropped;
        self.would_drop += other.would_drop;
        self.bits += other.bits;
    }
}

/// Frames of the whole fleet since this controller began to count: it never goes back.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals(HashMap<(Arc<str>, Fate), Count>);

impl Totals {
    /// A heartbeat came after another one of the same node. Counters that are lower than before begin anew.
    pub(super) fn take(&mut self, before: &Beat, now: &Beat) {
        let old: HashMap<_, _> = before
            .counts
            .iter()
            .map(|(key, count)| (key, count))
            .collect();
        let new: HashMap<_, _> = now.counts.iter().map(|(key, count)| (key, count)).collect();
        let lower = |key, old: &Count| {
            let now = new.get(key).copied().copied().unwrap_or_default();
            now.packets < old.packets || now.bytes < old.bytes
        };
        let began_anew = old.iter().any(|(key, count)| lower(*key, count));
        for (key, count) in &now.counts {
            let base = old
                .get(key)
                .filter(|_| !began_anew)
                .copied()
                .copied()
                .unwrap_or_default();
            let place = if self.0.contains_key(key) || self.0.len() < REASONS {
                self.0.entry(key.clone()).or_default()
            } else {
                // Who makes reasons up is not let grow this.
                self.0.entry(("other".into(), key.1)).or_default()
            };
            place.packets = place.packets.saturating_add(count.packets - base.packets);
            place.bytes = place.bytes.saturating_add(count.bytes - base.bytes);
        }
    }

    /// By reason and fate.
    pub(super) fn rows(&self) -> BTreeMap<(String, Fate), Count> {
        let rows = self.0.iter();
        rows.map(|((reason, fate), count)| ((reason.to_string(), *fate), *count))
            .collect()
    }
}

/// A rule over all nodes that report it among those with the most hits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleRow {
    /// Its id.
    pub id: String,
    /// Frames a second that matched it.
    pub matched: f64,
    /// Bits a second of these.
    pub bits: f64,
    /// Frames a second that it dropped.
    pub dropped: f64,
    /// Frames a second that it would have dropped.
    pub would_drop: f64,
    /// Frames since the daemons of these nodes started; absent if one of them does not say.
    pub packets: Option<u64>,
    /// How many nodes report it: on all others it is not among their first 20, or has no hits.
    pub nodes: u32,
}

/// The rows of several lists as one list: a rule that is in more than one is added up.
pub(super) fn joined(rows: Vec<RuleRow>, limit: usize) -> Vec<RuleRow> {
    let mut sums = BTreeMap::<String, RuleRow>::new();
    for row in rows {
        match sums.get_mut(&row.id) {
            None => drop(sums.insert(row.id.clone(), row)),
            Some(sum) => {
                sum.matched += row.matched;
                sum.bits += row.bits;
                sum.dropped += row.dropped;
                sum.would_drop += row.would_drop;
                sum.packets = sum
                    .packets
                    .zip(row.packets)
                    .map(|(a, b)| a.saturating_add(b));
                sum.nodes += row.nodes;
            }
        }
    }
    let mut rows: Vec<_> = sums.into_values().collect();
    rows.sort_by(|a, b| {
        let by_rate = b.matched.total_cmp(&a.matched);
        by_rate.then_with(|| b.packets.unwrap_or(0).cmp(&a.packets.unwrap_or(0)))
    });
    rows.truncate(limit);
    rows
}

/// The rules with the most hits a second, then the most hits, then by id: the same order whoever reports first.
pub(super) fn top_rules<'a>(
    tops: impl Iterator<Item = &'a Box<[TopRule]>>,
    limit: usize,
) -> Vec<RuleRow> {
    // Summed in whole numbers of thousandths, so that the order of the nodes makes no difference.
    #[derive(Default)]
    struct Sum {
        rates: [u128; 4],
        packets: Option<u64>,
        nodes: u32,
    }
    let mut sums = HashMap::<&Arc<str>, Sum>::new();
    for rule in tops.flatten() {
        let sum = sums.entry(&rule.id).or_insert_with(|| Sum {
            packets: Some(0),
            ..Sum::default()
        });
        for (sum, rate) in
            sum.rates
                .iter_mut()
                .zip([rule.matched, rule.bits, rule.dropped, rule.would_drop])
        {
            *sum += (f64::from(rate) * 1000.0).round() as u128;
        }
        sum.packets = sum
            .packets
            .zip(rule.packets)
            .map(|(a, b)| a.saturating_add(b));
        sum.nodes += 1;
    }
    let mut rows: Vec<_> = sums.into_iter().collect();
    rows.sort_unstable_by(|(a_id, a), (b_id, b)| {
        let key = |sum: &Sum| (sum.rates[0], sum.packets.unwrap_or(0));
        key(b).cmp(&key(a)).then_with(|| a_id.cmp(b_id))
    });
    rows.truncate(limit);
    let row = |(id, sum): (&Arc<str>, Sum)| {
        let [matched, bits, dropped, would_drop] = sum.rates.map(|rate| rate as f64 / 1000.0);
        RuleRow {
            id: id.to_string(),
            matched,
            bits,
            dropped,
            would_drop,
            packets: sum.packets,
            nodes: sum.nodes,
        }
    };
    rows.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdpgate_api::v1::{Rate, RuleRates, RuleStats, VerdictCount};

    fn beat(texts: &Texts, counts: &[(&str, u64)]) -> Beat {
        let verdict = |(reason, packets): &(&str, u64)| VerdictCount {
            reason: (*reason).to_owned(),
            disposition: Disposition::Drop.into(),
            packets: *packets,
            bytes: packets * 64,
        };
        let verdicts = counts.iter().map(verdict).collect();
        Beat::new(
            &Heartbeat {
                verdicts,
                ..Heartbeat::default()
            },
            texts,
        )
    }

    fn packets(totals: &Totals, reason: &str) -> u64 {
        totals
            .rows()
            .get(&(reason.to_owned(), Fate::Drop))
            .map_or(0, |count| count.packets)
    }

    #[test]
    fn r88_counters_that_begin_anew_do_not_go_back_in_the_sum() {
        let texts = Texts::default();
        let mut totals = Totals::default();
        let series: [&[(&str, u64)]; 5] = [
            &[("rule", 100), ("ban", 7)],
            &[("rule", 150), ("ban", 7)],
            // The daemon was started again: one counter is gone, so the higher one began at 0 too.
            &[("rule", 160)],
            &[("rule", 160), ("ban", 1)],
            &[("rule", 5)],
        ];
        let mut before = Beat::default();
        let mut last = 0;
        let expected = [100, 150, 310, 310, 315];
        for (counts, expected) in series.iter().zip(expected) {
            let now = beat(&texts, counts);
            totals.take(&before, &now);
            assert_eq!(packets(&totals, "rule"), expected);
            assert!(packets(&totals, "rule") >= last);
            last = packets(&totals, "rule");
            before = now;
        }
        assert_eq!(packets(&totals, "ban"), 8);
    }

    #[test]
    fn who_makes_reasons_and_rates_up_breaks_nothing() {
        let texts = Texts::default();
        let mut totals = Totals::default();
        for i in 0..10_000 {
            let reason = format!("made-up-{i}");
            totals.take(&Beat::default(), &beat(&texts, &[(&reason, 1)]));
        }
        assert!(totals.0.len() <= REASONS + 1);
        assert_eq!(packets(&totals, "other"), 10_000 - REASONS as u64);
        assert!(texts.0.lock().unwrap().0.len() < 3000);
        let rule = RuleRates {
            id: "é".repeat(500),
            matched: Some(Rate {
                packets: f64::NAN,
                bits: f64::INFINITY,
            }),
            dropped: -1.0,
            would_drop: 0.0,
        };
        let heartbeat = Heartbeat {
            top_rules: vec![rule; 5000],
            ..Heartbeat::default()
        };
        let beat = Beat::new(&heartbeat, &texts);
        assert_eq!(beat.top.len(), 1);
        assert_eq!(top_rules([&beat.top].into_iter(), 9)[0].matched, 0.0);
    }

    #[test]
    fn r89_the_order_is_by_rate_then_total_then_id_whoever_comes_first() {
        let texts = Texts::default();
        let node = |rules: &[(&str, f64, u64)]| {
            let rates = rules.iter().map(|(id, rate, _)| RuleRates {
                id: (*id).to_owned(),
                matched: Some(Rate {
                    packets: *rate,
                    bits: 8.0 * rate,
                }),
                ..RuleRates::default()
            });
            let stats = rules.iter().map(|(id, _, packets)| RuleStats {
                id: (*id).to_owned(),
                packets: *packets,
                ..RuleStats::default()
            });
            let heartbeat = Heartbeat {
                top_rules: rates.collect(),
                top_rule_stats: stats.collect(),
                ..Heartbeat::default()
            };
            Beat::new(&heartbeat, &texts)
        };
        let nodes = [
            node(&[("fast", 0.1, 5), ("b", 2.0, 10), ("a", 2.0, 10)]),
            node(&[("fast", 1000.7, 5), ("more", 2.0, 11)]),
            node(&[("fast", 0.2, 5)]),
        ];
        let rows = top_rules(nodes.iter().map(|beat| &beat.top), 10);
        let ids: Vec<_> = rows.iter().map(|row| row.id.as_str()).collect();
        assert_eq!(ids, ["fast", "more", "a", "b"]);
        assert_eq!(
            (rows[0].nodes, rows[0].packets, rows[1].nodes),
            (3, Some(15), 1)
        );
        for rotated in 0..3 {
            let mut nodes = nodes.to_vec();
            nodes.rotate_left(rotated);
            assert_eq!(top_rules(nodes.iter().map(|beat| &beat.top), 10), rows);
            nodes.reverse();
            assert_eq!(top_rules(nodes.iter().map(|beat| &beat.top), 10), rows);
        }
        assert_eq!(top_rules(nodes.iter().map(|beat| &beat.top), 2), rows[..2]);
    }
}
