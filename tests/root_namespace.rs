//! Firewalls of another network namespace than that of their process.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod auto;
    pub mod netns;
    pub mod packet;
}

use std::fs;

use common::auto::{attached, program, wait_for_links};
use common::netns::{self, Other, Wire, index, mount_private, sh, veth, wait_until};
use common::packet::udp_from as frame;
use nix::mount::{MsFlags, mount};
use xdpgate::{Firewall, IfIndex, LoadError, ModePreference, Selector};

fn frames_on(firewall: &Firewall, ifindex: IfIndex) -> u64 {
    let stats = firewall.stats();
    let of = stats.interfaces.iter().find(|i| i.ifindex == ifindex);
    of.map_or(0, |i| i.counts.total().packets)
}

#[test]
fn r116_interfaces_of_a_namespace_that_is_held_by_a_path() {
    if netns::skipped() {
        return;
    }
    netns::run(|| {
        // As `ip netns add` does it, but where no other process sees it.
        mount_private();
        let held = std::env::temp_dir().join(format!("xdpgate-netns-{}", std::process::id()));
        fs::write(&held, "").unwrap();
        let blue = Other::new();
        mount(
            Some(&blue.path()),
            &held,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .unwrap();

        blue.run(|| veth("a0", "b0"));
        let there = blue.run(|| index("a0"));
        // The same number here is another interface.
        sh(&format!(
            "ip link add red index {there} type veth peer name r0"
        ));
        assert_eq!(index("red"), there);

        let firewall = Firewall::loader().namespace(&held).load().unwrap();
        assert_eq!(firewall.ifindex("a0").unwrap(), there);
        assert_eq!(
            firewall.ifindex("red").unwrap_err().to_string(),
            "there is no interface \"red\"; `ip link` lists them"
        );
        let attachment = firewall
            .attach(there, ModePreference::BestAvailable)
            .unwrap();
        assert_eq!(attachment.name, "a0");
        assert!(!sh("ip link show red").contains("prog/xdp"));
        assert!(blue.run(|| sh("ip link show a0")).contains("prog/xdp"));
        blue.run(|| Wire::open("b0").send(&frame("192.0.2.1")));
        wait_until("a frame", || frames_on(&firewall, there) == 1);

        let names = |firewall: &Firewall| -> Vec<String> {
            firewall
                .interfaces()
                .unwrap()
                .into_iter()
                .map(|i| i.name)
                .collect()
        };
        assert_eq!(names(&firewall), ["lo", "b0", "a0"]);

        // The namespace lives on without a process in it.
        let selector = Selector::none().kinds(["veth"]).exclude("b*");
        let auto = firewall.auto_attach(selector).unwrap();
        blue.run(|| veth("a1", "b1"));
        veth("a2", "b2");
        wait_until("the one that came", || attached(&firewall) == ["a0", "a1"]);
        drop(blue);
        fs::File::open(&held).expect("held by its path");
        assert_eq!(names(&firewall).len(), 5);
        assert_eq!(attached(&firewall), ["a0", "a1"]);
        firewall.detach(there).unwrap();
        drop(auto);
        let program = program(&firewall);
        drop(firewall);
        wait_for_links(program, 0);
        nix::mount::umount(&held).unwrap();
        fs::remove_file(&held).unwrap();
    });
}

#[test]
fn r116_what_is_no_network_namespace_is_refused() {
    if netns::skipped() {
        return;
    }
    for (path, why) in [
        ("/run/netns/there-is-no-such", "No such file"),
        ("/proc/self/ns/uts", "Invalid argument"),
        ("/dev/null", "Invalid argument"),
    ] {
        let error = Firewall::loader().namespace(path).load().unwrap_err();
        assert!(matches!(error, LoadError::Namespace { .. }), "{error:?}");
        let message = error.to_string();
        assert!(
            message.starts_with(path) && message.contains(why),
            "{message}"
        );
    }
}
