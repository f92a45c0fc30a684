//! How the node is, in a message whose size does not grow with the policy.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use xdpgate::Firewall;
use xdpgate::policy::AddressSet;
use xdpgate_api::fleet::v1::{FromNode, Heartbeat, from_node};
use xdpgate_api::v1::{GetStatsResponse, Rates, RuleRates, RuleStats, VerdictCount};

use super::target::Target;
use crate::agent::convert;

const MOST_RULES: usize = 20;
const MOST_INTERFACES: usize = 64;
/// How long a text may be.
const LONGEST: usize = 512;

/// Says how the node is, until nobody listens any more.
pub(super) async fn go_on(target: Arc<Target>, every: Duration, out: mpsc::Sender<FromNode>) {
    let mut ticks = interval_at(Instant::now(), every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let target = Arc::clone(&target);
        let made = tokio::task::spawn_blocking(move || heartbeat(&target)).await;
        let Ok(heartbeat) = made else {
            log::error!("fleet: a heartbeat could not be made");
            continue;
        };
        let message = FromNode {
            message: Some(from_node::Message::Heartbeat(heartbeat)),
        };
        if out.send(message).await.is_err() {
            return;
        }
    }
}

fn heartbeat(target: &Target) -> Heartbeat {
    let firewall: &Firewall = &target.firewall;
    let policy = firewall.policy();
    let sets = policy.iter().flat_map(|policy| policy.sets().values());
    let mut attachments = firewall.attachments();
    let attached = attachments.len() as u32;
    attachments.truncate(MOST_INTERFACES);
    let rates = firewall.rates();
    let rates = rates.as_ref().map(convert::rates);
    let (rates, top_rules) = rates.map(shorten).unzip();
    let top_rules = top_rules.unwrap_or_default();
    let mut stats = convert::stats(firewall.stats());
    Heartbeat {
        held: Some(target.held_message()),
        top_rule_stats: of(&top_rules, std::mem::take(&mut stats.rules)),
        verdicts: total(stats),
        rates,
        top_rules,
        attachments: attachments.into_iter().map(convert::attachment).collect(),
        attached,
        broken: firewall.health().err().map(|e| cut(e.to_string())),
        not_saved: firewall.saved().err().map(|e| cut(e.to_string())),
        bans: firewall.bans().len() as u64,
        rules: policy
            .as_ref()
            .map_or(0, |policy| policy.rules().len() as u64),
        entries: sets.map(AddressSet::len).sum::<usize>() as u64,
    }
}

fn cut(text: String) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// The counters of these rules, in their order. One that went meanwhile has none.
fn of(rules: &[RuleRates], stats: Vec<RuleStats>) -> Vec<RuleStats> {
    let mut stats: HashMap<String, RuleStats> = stats
        .into_iter()
        .map(|rule| (rule.id.clone(), rule))
        .collect();
    let known = |rule: &RuleRates| {
        stats.remove(&rule.id).unwrap_or_else(|| RuleStats {
            id: rule.id.clone(),
            ..RuleStats::default()
        })
    };
    rules.iter().map(known).collect()
}

/// All interfaces together, by verdict and reason.
fn total(stats: GetStatsResponse) -> Vec<VerdictCount> {
    let interfaces = stats.interfaces.into_iter().flat_map(|i| i.verdicts);
    let mut sums: BTreeMap<(i32, String), VerdictCount> = BTreeMap::new();
    for count in interfaces.chain(stats.other) {
        let key = (count.disposition, count.reason.clone());
        let sum = sums.entry(key).or_insert_with(|| VerdictCount {
            packets: 0,
            bytes: 0,
            ..count.clone()
        });
        sum.packets += count.packets;
        sum.bytes += count.bytes;
    }
    sums.into_values().collect()
}

/// The rates without those of single rules, and the rules with the most hits a second; ties by id.
fn shorten(mut rates: Rates) -> (Rates, Vec<RuleRates>) {
    let mut rules = std::mem::take(&mut rates.rules);
    let hits = |rule: &RuleRates| rule.matched.as_ref().map_or(0.0, |rate| rate.packets);
    rules.retain(|rule| hits(rule) > 0.0);
    rules.sort_by(|a, b| hits(b).total_cmp(&hits(a)).then_with(|| a.id.cmp(&b.id)));
    rules.truncate(MOST_RULES);
    rates.interfaces.truncate(MOST_INTERFACES);
    (rates, rules)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use xdpgate::Policy;
    use xdpgate_api::v1::{InterfaceRates, Rate};

    use super::super::decide::Held;
    use super::super::files::Files;
    use super::*;

    #[test]
    fn its_size_is_bounded_whatever_the_policy_is() {
        let rule = |n: u32| RuleRates {
            id: format!("{n:064}"),
            matched: Some(Rate {
                packets: f64::from(n / 2),
                bits: 1.0,
            }),
            ..Default::default()
        };
        let rates = Rates {
            rules: (0..5000).map(rule).collect(),
            interfaces: vec![InterfaceRates::default(); 500],
            ..Default::default()
        };
        let (rates, top) = shorten(rates);
        assert_eq!(
            (rates.rules.len(), rates.interfaces.len(), top.len()),
            (0, 64, 20)
        );
        let ids: Vec<u32> = top
            .iter()
            .map(|r| r.id.parse().expect("a number"))
            .collect();
        assert_eq!(ids[..4], [4998, 4999, 4996, 4997], "by hits, then by id");

        let (firewall, _) = Firewall::loader().max_rules(4096).rehearse();
        let rules: Vec<String> = (0..1000)
            .map(|n| {
                format!(
                    "{{ id: r{n}, match: {{ dport: {} }}, action: drop }}",
                    n + 1
                )
            })
            .collect();
        let text = format!("{{ version: 1, rules: [{}] }}", rules.join(", "));
        firewall
            .apply(&Policy::from_yaml(&text).expect("a policy"))
            .expect("room");
        let scratch = tempfile::tempdir().expect("a directory");
        let files = Files::new(scratch.path());
        let target = Target::new(Arc::new(firewall), files, Held::default());
        let heartbeat = heartbeat(&target);
        assert_eq!(heartbeat.rules, 1000);
        assert!(
            heartbeat.encoded_len() < 4096,
            "{}",
            heartbeat.encoded_len()
        );
    }
}
