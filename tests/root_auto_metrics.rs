//! What auto-attach tells through the `metrics` facade. In a program of its own: the recorder is
//! global.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod auto;
    pub mod netns;
}

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use common::auto::{attached, ip_batch, loaded};
use common::netns::{self, index, veth, wait_until};
use libbpf_rs::query::{ProgInfoIter, ProgInfoQueryOptions};
use libbpf_rs::{MapCore, MapHandle};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use xdpgate::policy::Policy;
use xdpgate::{AttachMode, AutoAttachOptions, Firewall, ModePreference, Selector};

/// The counters by name and labels, the gauges by name.
#[derive(Default, Clone)]
struct Counters(Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>);

impl Counters {
    fn get(&self, name: &str) -> u64 {
        let counters = self.0.lock().unwrap();
        counters.get(name).map_or(0, |c| c.load(Ordering::SeqCst))
    }

    fn gauge(&self, name: &str) -> f64 {
        f64::from_bits(self.get(name))
    }
}

impl Recorder for Counters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let labels = key.labels().map(|l| format!("{}={}", l.key(), l.value()));
        let labels: Vec<String> = labels.collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        let mut counters = self.0.lock().unwrap();
        Counter::from_arc(Arc::clone(counters.entry(name).or_default()))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let mut gauges = self.0.lock().unwrap();
        Gauge::from_arc(Arc::clone(gauges.entry(key.name().to_owned()).or_default()))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn r56_overruns_and_attachments_are_counted_as_metrics() {
    if netns::skipped() {
        return;
    }
    let counters = Counters::default();
    metrics::set_global_recorder(counters.clone()).expect("the only one");
    netns::run(|| {
        let firewall = loaded(200);
        let generic = ModePreference::Exactly(AttachMode::Generic);
        firewall.attach(index("lo"), generic).unwrap();
        assert_eq!(counters.get("xdpgate_attachments_total{mode=generic}"), 1);
        let native = ModePreference::Exactly(AttachMode::Native);
        firewall.detach(index("lo")).unwrap();
        firewall.attach(index("lo"), native).unwrap_err();
        assert_eq!(counters.get("xdpgate_attach_failures_total{}"), 1);

        let options = AutoAttachOptions::default().receive_buffer(1);
        let veths = Selector::none().kinds(["veth"]).exclude("b*");
        let auto = firewall.auto_attach_with(veths, options).unwrap();
        let links = |n: u32| format!("link add a{n} type veth peer name b{n}\n");
        ip_batch(&(0..50).map(links).collect::<String>());
        wait_until("all of them", || attached(&firewall).len() == 50);
        assert_eq!(counters.get("xdpgate_attachments_total{mode=native}"), 50);
        let overruns = counters.get("xdpgate_netlink_overruns_total{}");
        assert!(overruns > 0);
        veth("a99", "b99");
        wait_until("one more", || attached(&firewall).len() == 51);
        assert!(auto.stats().overruns >= overruns);

        r66_a_broken_jump_is_a_metric(&firewall, &counters);
    });
}

/// A part of the one test: there is one recorder.
fn r66_a_broken_jump_is_a_metric(firewall: &Firewall, counters: &Counters) {
    firewall.apply(&Policy::default()).unwrap();
    firewall.health().unwrap();
    assert_eq!(counters.gauge("xdpgate_healthy"), 1.0);
    // The map by which the entry program jumps.
    let entry = firewall.program_info().entry.id;
    let options = ProgInfoQueryOptions::default().include_map_ids(true);
    let mut programs = ProgInfoIter::with_query_opts(options);
    let entry = programs.find(|p| p.id == entry).unwrap();
    let mut maps = entry.map_ids.iter().map(|id| MapHandle::from_map_id(*id));
    let slot = maps.find_map(|m| m.ok().filter(|m| m.name() == "policy_slot"));
    slot.unwrap().delete(&0u32.to_ne_bytes()).unwrap();
    firewall.health().unwrap_err();
    assert_eq!(counters.gauge("xdpgate_healthy"), 0.0);
}
