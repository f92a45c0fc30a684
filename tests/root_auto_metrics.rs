//! What auto-attach tells through the `metrics` facade. In a program of its own: the recorder is
//! global.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod auto;
    pub mod netns;
    pub mod recorder;
}

use common::auto::{attached, ip_batch, loaded};
use common::netns::{self, index, veth, wait_until};
use common::recorder::Counters;
use libbpf_rs::query::{ProgInfoIter, ProgInfoQueryOptions};
use libbpf_rs::{MapCore, MapHandle};
use xdpgate::policy::Policy;
use xdpgate::{AttachMode, AutoAttachOptions, Firewall, ModePreference, Selector};

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
    assert_eq!(counters.gauge("xdpgate_healthy{}"), 1.0);
    // The map by which the entry program jumps.
    let entry = firewall.program_info().entry.id;
    let options = ProgInfoQueryOptions::default().include_map_ids(true);
    let mut programs = ProgInfoIter::with_query_opts(options);
    let entry = programs.find(|p| p.id == entry).unwrap();
    let mut maps = entry.map_ids.iter().map(|id| MapHandle::from_map_id(*id));
    let slot = maps.find_map(|m| m.ok().filter(|m| m.name() == "policy_slot"));
    slot.unwrap().delete(&0u32.to_ne_bytes()).unwrap();
    firewall.health().unwrap_err();
    assert_eq!(counters.gauge("xdpgate_healthy{}"), 0.0);
}
