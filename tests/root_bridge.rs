//! Bridges of two interfaces: what crosses them, and that this host sees nothing of it.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod bridged;
    pub mod netns;
    pub mod packet;
    pub mod places;
}

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use common::bridged::*;
use common::netns::{self, index, sh, skipped};
use common::packet::ip;
use xdpgate::{
    AttachMode, Bridge, BridgePort, DirectionStats, Disposition, Filter, Frags, LoadError,
    ModePreference, Reason,
};

#[test]
fn r46_ping_and_tcp_cross_a_bridge_that_the_host_does_not_see() {
    if skipped() {
        return;
    }
    netns::run(|| {
        let (a, b) = hosts();
        let firewall = loader().load().unwrap();
        firewall.apply(&policy(BLOCK)).unwrap();
        let info = bridge(&firewall, (&a, &b), Filter::Both);
        for port in [&info.outer, &info.inner] {
            assert_eq!(port.attachment.mode, AttachMode::Native);
        }
        let stack = Stack::watch(&["outer", "inner"]);
        ping(&a, &b);
        ping(&b, &a);
        let speeds = [bulk(&a, &b, 64), bulk(&b, &a, 64)];
        println!("TCP: {:.2} and {:.2} Gbit/s", speeds[0], speeds[1]);
        // What the policy drops does not cross.
        let refused = a.place.within(|| {
            let blocked = "192.0.2.2:5999".parse().unwrap();
            TcpStream::connect_timeout(&blocked, Duration::from_millis(300))
        });
        let error = refused.unwrap_err().kind();
        assert_eq!(error, std::io::ErrorKind::TimedOut, "no answer at all");
        stack.assert_untouched();

        let infos = firewall.bridges();
        let [info] = &infos[..] else {
            panic!("{infos:?}")
        };
        for inbound in [true, false] {
            let way = direction(info, inbound);
            // The data of one direction and some of the acknowledgements of the other.
            assert!(way.forwarded.bytes > 64 << 20, "{way:?}");
            assert!(way.forwarded.packets > (64 << 20) / 1500, "{way:?}");
        }
        assert!(info.inbound.dropped.packets >= 1, "{info:?}");
        assert_eq!(info.outbound.dropped.packets, 0, "{info:?}");
        let all = |port: &BridgePort, way: DirectionStats| {
            let stats = firewall.stats();
            let found = stats
                .interfaces
                .into_iter()
                .find(|i| i.name == port.attachment.name);
            let total = found.unwrap().counts.total();
            assert!(total.packets >= way.forwarded.packets + way.dropped.packets);
        };
        all(&info.outer, info.inbound);
        all(&info.inner, info.outbound);
    });
}

#[test]
fn r46_each_direction_is_judged_if_it_is_asked_for() {
    if skipped() {
        return;
    }
    netns::run(|| {
        let (a, b) = hosts();
        let firewall = loader().load().unwrap();
        firewall.apply(&policy(BLOCK)).unwrap();
        for filter in [Filter::Inbound, Filter::Outbound, Filter::Both] {
            bridge(&firewall, (&a, &b), filter);
            let stack = Stack::watch(&["outer", "inner"]);
            let (outside, inside) = (wire(&a), wire(&b));
            for inbound in [true, false] {
                let is_judged = match inbound {
                    true => filter != Filter::Outbound,
                    false => filter != Filter::Inbound,
                };
                let (from, to, port) = match inbound {
                    true => (&outside, &inside, "outer"),
                    false => (&inside, &outside, "inner"),
                };
                let of = |reason, disposition| counts(&firewall, port, reason, disposition);
                let unfiltered = of(Reason::Unfiltered, Disposition::Passed);
                let dropped = of(Reason::Rule, Disposition::Dropped);
                let arrived = cross(from, to, &[blocked(), good()]);
                let expected = match is_judged {
                    true => vec![good()],
                    false => vec![blocked(), good()],
                };
                assert_eq!(arrived, expected, "{filter} {port}");
                let unfiltered = of(Reason::Unfiltered, Disposition::Passed) - unfiltered;
                let dropped = of(Reason::Rule, Disposition::Dropped) - dropped;
                let expected = if is_judged { (0, 1) } else { (2, 0) };
                assert_eq!((unfiltered, dropped), expected, "{filter} {port}");

                // The counters of the bridge began with it.
                let way = direction(&firewall.bridges()[0], inbound);
                let packets = (way.forwarded.packets, way.dropped.packets);
                assert_eq!(packets, if is_judged { (1, 1) } else { (2, 0) });
            }
            stack.assert_untouched();
            firewall.unbridge(index("inner")).unwrap();
        }
        assert_eq!(firewall.bridges(), []);
    });
}

#[test]
fn r47_two_bridges_at_once_and_any_number_of_an_interface() {
    if skipped() {
        return;
    }
    netns::run(|| {
        // Two of them have one home in the table of interfaces.
        let (a, b) = hosts();
        let c = Host::behind("other0", 5000, "c0", "192.0.2.3");
        let d = Host::behind("other1", 10 + 4096, "d0", "192.0.2.4");
        let firewall = loader().load().unwrap();
        firewall.apply(&policy(BLOCK)).unwrap();
        bridge(&firewall, (&a, &b), Filter::Both);
        let second = Bridge::new(index("other0"), index("other1")).filter(Filter::Inbound);
        let info = firewall.bridge(second).unwrap();
        c.wait_for_carrier();
        d.wait_for_carrier();
        assert_eq!(info.outer.attachment.ifindex.get(), 5000);

        let stack = Stack::watch(&["outer", "inner", "other0", "other1"]);
        thread::scope(|scope| {
            let first = scope.spawn(|| bulk(&a, &b, 16));
            let second = scope.spawn(|| bulk(&d, &c, 16));
            println!("{:.2} {:.2}", first.join().unwrap(), second.join().unwrap());
        });
        ping(&c, &d);
        let wires = [wire(&a), wire(&b), wire(&c), wire(&d)];
        let frames = [blocked(), good()];
        // Across, and nowhere else.
        for (from, to, arrives) in [(0, 1, 1), (1, 0, 1), (2, 3, 1), (3, 2, 2)] {
            wires[from].send(&frames[0]);
            wires[from].send(&frames[1]);
            for (place, wire) in wires.iter().enumerate().filter(|(n, _)| *n != from) {
                let mut seen = 0;
                while let Some(frame) = wire.receive() {
                    seen += usize::from(frames.contains(&frame));
                }
                let expected = if place == to { arrives } else { 0 };
                assert_eq!(seen, expected, "from {from} at {place}");
            }
        }
        stack.assert_untouched();
        let infos = firewall.bridges();
        assert_eq!(infos.len(), 2);
        assert!(infos.iter().all(|i| i.inbound.forwarded.packets > 0));

        // One goes, the other stays.
        firewall.unbridge(index("outer")).unwrap();
        ping(&c, &d);
        assert_eq!(cross(&wires[0], &wires[1], &frames), Vec::<Vec<u8>>::new());
    });
}

#[test]
fn r30_frames_of_an_mtu_of_9000_cross() {
    if skipped() {
        return;
    }
    netns::run(|| {
        let firewall = match loader().frags(Frags::Require).load() {
            Err(LoadError::NoFrags) => {
                println!("skipped: xdp.frags needs 5.18");
                return;
            }
            firewall => firewall.unwrap(),
        };
        let (a, b) = hosts();
        for (host, port) in [(&a, "outer"), (&b, "inner")] {
            sh(&format!("ip link set {port} mtu 9000"));
            host.place
                .sh(&format!("ip link set {} mtu 9000", host.name));
        }
        firewall.apply(&policy(BLOCK)).unwrap();
        let native = ModePreference::Exactly(AttachMode::Native);
        let made = Bridge::new(index("outer"), index("inner")).mode(native);
        firewall.bridge(made).unwrap();
        a.wait_for_carrier();
        b.wait_for_carrier();
        let stack = Stack::watch(&["outer", "inner"]);
        let frame = |port: u16| {
            let frame = ip("198.51.100.1", "198.51.100.2").udp(4000, port);
            frame.payload(&vec![port as u8; 9000 - 28]).build()
        };
        assert_eq!(frame(5998).len(), 9014);
        let (outside, inside) = (wire(&a), wire(&b));
        for (from, to) in [(&outside, &inside), (&inside, &outside)] {
            let arrived = cross(from, to, &[frame(5999), frame(5998)]);
            assert_eq!(arrived, [frame(5998)]);
        }
        a.place.sh("ping -c 2 -i 0.2 -W 5 -M do -s 8972 192.0.2.2");
        println!("TCP: {:.2} Gbit/s", bulk(&a, &b, 64));
        stack.assert_untouched();
        let way = firewall.bridges()[0].inbound;
        assert!(
            way.forwarded.bytes / way.forwarded.packets > 4000,
            "{way:?}"
        );
    });
}

#[test]
fn r46_in_generic_mode() {
    if skipped() {
        return;
    }
    netns::run(|| {
        let (a, b) = hosts();
        let firewall = loader().load().unwrap();
        firewall.apply(&policy(BLOCK)).unwrap();
        let generic = ModePreference::Exactly(AttachMode::Generic);
        let made = Bridge::new(index("outer"), index("inner")).mode(generic);
        let info = firewall.bridge(made).unwrap();
        assert_eq!(info.inner.attachment.mode, AttachMode::Generic);
        a.wait_for_carrier();
        b.wait_for_carrier();
        let stack = Stack::watch(&["outer", "inner"]);
        ping(&a, &b);
        println!("TCP: {:.2} Gbit/s", bulk(&a, &b, 16));
        bulk(&b, &a, 16);
        let arrived = cross(&wire(&a), &wire(&b), &[blocked(), good()]);
        assert_eq!(arrived, [good()]);
        stack.assert_untouched();
    });
}

#[test]
fn r46_local_peers_with_a_program_need_no_gro() {
    if skipped() {
        return;
    }
    if !takes_frames_with_gro() {
        println!("skipped: all other tests are with programs here");
        return;
    }
    netns::run(|| {
        let (a, b) = hosts();
        for host in [&a, &b] {
            host.place.sh(&format!("ethtool -K {} gro off", host.name));
        }
        let firewall = loader().load().unwrap();
        firewall.apply(&policy(BLOCK)).unwrap();
        bridge(&firewall, (&a, &b), Filter::Both);
        let (outside, inside) = (wire(&a), wire(&b));
        // Neither takes what another driver hands over; it is lost, and counted as forwarded.
        assert!(cross(&outside, &inside, &[good()]).is_empty());
        let info = &firewall.bridges()[0];
        assert_eq!(info.inbound.forwarded.packets, 1);
        // Which kernels tell since 6.3.
        let told = info.inner.takes_frames;
        println!("takes frames: {told:?}");
        assert_ne!(told, Some(true));
        // Any program at the other end of the wire will do.
        let _programs = [&a, &b].map(|host| with_program(&host.place, &host.name));
        assert_eq!(cross(&outside, &inside, &[good()]), [good()]);
        let info = &firewall.bridges()[0];
        for port in [&info.outer, &info.inner] {
            assert_eq!(port.takes_frames, told.map(|_| true), "{info:?}");
        }
        ping(&b, &a);
        bulk(&a, &b, 8);
    });
}

#[test]
fn r46_both_ports_are_generic_if_one_has_no_native_mode() {
    if skipped() {
        return;
    }
    netns::run(|| {
        let a = Host::behind("outer", 10, "a0", "192.0.2.1");
        let b = Host::behind("member", 12, "b0", "192.0.2.2");
        // A bridge of the kernel has no native mode.
        sh("ip link add inner type bridge");
        sh("ip link set member master inner");
        sh("ip link set member up");
        let before = [sh("ethtool -k outer"), sh("ethtool -k inner")];
        let firewall = loader().load().unwrap();
        firewall.apply(&policy(BLOCK)).unwrap();
        let info = bridge(&firewall, (&a, &b), Filter::Both);
        for port in [&info.outer, &info.inner] {
            assert_eq!(port.attachment.mode, AttachMode::Generic);
            assert_eq!(port.takes_frames, None);
        }
        assert!(info.inner.attachment.why().is_some(), "{info:?}");
        let stack = Stack::watch(&["outer"]);
        ping(&a, &b);
        bulk(&a, &b, 8);
        bulk(&b, &a, 8);
        // The kernel's bridge says something of its own accord.
        stack.assert_nothing_received();
        firewall.unbridge(index("inner")).unwrap();
        assert_eq!([sh("ethtool -k outer"), sh("ethtool -k inner")], before);

        // Demanded, it is refused, and nothing is left.
        let native = ModePreference::Exactly(AttachMode::Native);
        let demanded = Bridge::new(index("outer"), index("inner")).mode(native);
        assert!(firewall.bridge(demanded).is_err());
        assert_eq!(firewall.attachments(), []);
        assert_eq!([sh("ethtool -k outer"), sh("ethtool -k inner")], before);
    });
}
