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
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use xdpgate::{AttachMode, AutoAttachOptions, ModePreference, Selector};

/// The counters by name and labels.
#[derive(Default, Clone)]
struct Counters(Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>);

impl Counters {
    fn get(&self, name: &str) -> u64 {
        let counters = self.0.lock().unwrap();
        counters.get(name).map_or(0, |c| c.load(Ordering::SeqCst))
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

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
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
    });
}
