//! What a firewall tells the `metrics` facade when it is asked to.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod netns;
    pub mod recorder;
}

use std::time::Duration;

use common::netns::{self, index, wait_until};
use common::recorder::Counters;
use xdpgate::policy::Change;
use xdpgate::{
    BanScope, Firewall, MetricsOptions, ModePreference, Policy, TransactionOptions,
    describe_metrics,
};

const POLICY: &str =
    "version: 1\nrules: [{ id: block, match: { src: 203.0.113.7 }, action: drop }]\n";

/// What is told when it is asked for.
fn told(firewall: &Firewall, counters: &Counters) {
    metrics::with_local_recorder(counters, || {
        firewall.record_metrics(MetricsOptions::default());
    });
}

#[test]
fn r95_bans_made_lifted_and_expired() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let firewall = Firewall::loader().load().unwrap();
        let counters = Counters::default();
        let long = Duration::from_secs(600);
        let bans = || {
            told(&firewall, &counters);
            let count = |what: &str| counters.get(&format!("xdpgate_bans_{what}_total{{}}"));
            let in_force = counters.gauge("xdpgate_bans{}");
            (in_force, count("made"), count("lifted"), count("expired"))
        };
        assert_eq!(bans(), (0.0, 0, 0, 0));
        let prefix = |text: &str| text.parse().unwrap();
        firewall
            .ban(prefix("203.0.113.7"), BanScope::Both, long)
            .unwrap();
        firewall
            .ban(prefix("203.0.113.8"), BanScope::Source, long)
            .unwrap();
        // Banned already.
        firewall
            .ban(prefix("203.0.113.8"), BanScope::Source, long)
            .unwrap();
        assert_eq!(bans(), (3.0, 3, 0, 0));
        assert!(firewall.unban(prefix("203.0.113.8"), BanScope::Source));
        assert!(!firewall.unban(prefix("203.0.113.8"), BanScope::Source));
        assert_eq!(bans(), (2.0, 3, 1, 0));
        let short = Duration::from_millis(20);
        firewall
            .ban(prefix("203.0.113.9"), BanScope::Source, short)
            .unwrap();
        wait_until("its end", || bans() == (2.0, 4, 1, 1));
        assert_eq!(firewall.unban_all(), 2);
        assert_eq!(bans(), (0.0, 4, 3, 1));
    });
}

#[test]
fn r95_all_that_is_told_is_described_and_the_other_way_round() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        let firewall = Firewall::loader().load().unwrap();
        let counters = Counters::default();
        metrics::with_local_recorder(&counters, || {
            describe_metrics();
            firewall
                .attach(index("lo"), ModePreference::BestAvailable)
                .unwrap();
            let policy = Policy::from_yaml(POLICY).unwrap();
            firewall.plan(&policy).unwrap();
            firewall.apply(&policy).unwrap();
            let twice = [Change::CreateRule(policy.rules()[0].clone())];
            firewall
                .transact(&twice, TransactionOptions::default())
                .unwrap_err();
        });
        netns::sh("ping -c 3 -i 0.2 127.0.0.1");
        told(&firewall, &counters);
        assert_eq!(counters.get("xdpgate_applies_total{outcome=applied}"), 1);
        assert_eq!(counters.get("xdpgate_applies_total{outcome=refused}"), 1);
        assert_eq!(counters.get("xdpgate_plans_total{outcome=planned}"), 1);
        let passed = "xdpgate_packets_total{interface=lo,verdict=pass,reason=default}";
        assert_eq!(counters.get(passed), 6);

        let described = counters.described();
        let names = counters.names();
        for name in &names {
            assert!(described.contains(name), "{name} is not described");
        }
        // Of rules that no packet matched nothing is told.
        let of_rules = |name: &&String| name.starts_with("xdpgate_rule_");
        for name in described.iter().filter(|n| !of_rules(n)) {
            assert!(names.contains(name), "{name} is never told");
        }
    });
}
