//! The real controller and a real node with real packets: what is the node's own, and a network that is parted.

#[allow(unreachable_pub, reason = "tests share it")]
#[path = "common/hosts.rs"]
mod hosts;

use std::time::{Duration, Instant};

use hosts::{Hosts, is_root, until};

/// Drops pings.
const NO_PING: &str = "{ id: no-ping, match: { protocol: icmp }, action: drop }";

fn policy(rule: &str) -> String {
    format!("version: 1\nrules:\n- {rule}\n")
}

/// A node that enforces a policy of the fleet which drops pings.
fn governed() -> (Hosts, String) {
    let mut hosts = Hosts::new();
    hosts.start_node();
    let node = hosts.join();
    let file = hosts.file("fleet.yaml", &policy(NO_PING));
    hosts.ask(&["policy", "apply", "edge", file.to_str().unwrap()]);
    let group = ["group", "apply", "edge", "--selector", "tier=edge"];
    let wait = ["--policy", "edge", "--mode", "enforce", "--wait", "100%"];
    hosts.ask(&[&group[..], &wait].concat());
    assert!(!hosts.passes());
    (hosts, node)
}

#[test]
fn a_node_keeps_its_own_policy_until_a_group_has_it() {
    if !is_root() {
        return;
    }
    let mut hosts = Hosts::new();
    hosts.start_node();
    let own = hosts.file("own.yaml", &policy(NO_PING));
    hosts.tell(&["policy", "apply", own.to_str().unwrap()]);
    hosts.tell(&["enforce"]);
    assert!(!hosts.passes(), "its own policy drops");

    let node = hosts.join();
    until("unassigned", || {
        (hosts.status(&node)["state"] == "unassigned").then_some(())
    });
    // It has sent heartbeats since, and has been sent nothing.
    std::thread::sleep(Duration::from_secs(3));
    assert!(!hosts.passes(), "it joined, and drops as before");
    assert_eq!(hosts.status(&node)["drift"], 0);
    let told = hosts.tell(&["fleet", "status"]);
    assert!(told.contains("it keeps the policy that it has"), "{told}");
    // The kill switch is for it too; nobody waits for it.
    hosts.ask(&["mode", "dry-run", "--wait", "100%"]);
    until("dry run", || hosts.passes().then_some(()));
    hosts.ask(&["mode", "as-groups"]);
    hosts.tell(&["enforce"]);
    assert!(!hosts.passes());

    let other = "{ id: no-ssh, match: { protocol: tcp, dport: 22 }, action: drop }";
    let file = hosts.file("fleet.yaml", &policy(other));
    hosts.ask(&["policy", "apply", "edge", file.to_str().unwrap()]);
    assert!(!hosts.passes(), "no group has it yet");
    let group = ["group", "apply", "edge", "--selector", "tier=edge"];
    hosts.ask(&[&group[..], &["--policy", "edge", "--wait", "100%"]].concat());
    assert!(hosts.passes(), "the fleet's policy is in place of its own");
    assert!(hosts.tell(&["rules"]).contains("no-ssh"));
    hosts.ask(&["group", "delete", "edge", "--wait", "100%"]);
    let rules = hosts.tell(&["rules"]);
    assert!(
        !rules.contains("no-ssh") && !rules.contains("no-ping"),
        "{rules}"
    );
    assert_eq!(hosts.status(&node)["state"], "fresh");
}

#[test]
fn pass_mode_holds_until_it_is_taken_back_at_the_node() {
    if !is_root() {
        return;
    }
    let (hosts, node) = governed();
    hosts.tell(&["panic-off"]);
    assert!(hosts.passes());
    until("it is shown", || {
        (hosts.status(&node)["panic_off"] == true).then_some(())
    });
    // Changes come, and several heartbeats go by.
    let count = "{ id: more, match: { dport: 9 }, action: drop }";
    hosts.ask(&["rule", "add", "edge", count, "--wait", "100%"]);
    std::thread::sleep(Duration::from_secs(3));
    assert!(hosts.passes(), "nobody takes it back for the operator");
    assert!(hosts.tell(&["rules"]).contains("more"));
    let status = hosts.status(&node);
    assert_eq!(
        (&status["drift"], &status["state"]),
        (&0.into(), &"fresh".into())
    );
    let told = hosts.tell(&["fleet", "status"]);
    assert!(told.contains("pass mode holds"), "{told}");
    assert!(
        hosts.ask(&["status"]).contains("pass mode:  1"),
        "{}",
        hosts.ask(&["status"])
    );

    hosts.tell(&["enforce"]);
    assert!(!hosts.passes());
    until("it is over", || {
        (hosts.status(&node)["panic_off"] == false).then_some(())
    });
}

#[test]
fn r84_a_network_that_is_parted_delays_a_node_and_nothing_more() {
    if !is_root() {
        return;
    }
    let (hosts, node) = governed();
    let state = || hosts.status(&node)["state"].clone();
    until("fresh", || (state() == "fresh").then_some(()));
    hosts.part(true);
    let began = Instant::now();
    until("offline", || (state() == "offline").then_some(()));
    let took = began.elapsed();
    // Three heartbeats of a second each did not come.
    assert!((2..10).contains(&took.as_secs()), "offline after {took:?}");
    hosts.ask(&["rule", "remove", "edge", "no-ping"]);
    let late = "{ id: no-ssh, match: { protocol: tcp, dport: 22 }, action: drop }";
    hosts.ask(&["rule", "add", "edge", late]);
    // Longer than it takes the node to see that the link is gone.
    until("the loss", || {
        hosts
            .tell(&["fleet", "status"])
            .contains("NOT CONNECTED")
            .then_some(())
    });
    assert!(!hosts.passes(), "it enforces what it had");
    hosts.part(false);
    let began = Instant::now();
    until("what it missed", || hosts.passes().then_some(()));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "back after {took:?}");
    assert!(hosts.tell(&["rules"]).contains("no-ssh"));
    until("fresh", || (state() == "fresh").then_some(()));
    assert_eq!(hosts.status(&node)["drift"], 0);
}
