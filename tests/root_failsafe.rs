//! Management traffic comes in whatever the policy is: real connections to a host that drops all else.
#![cfg(feature = "kernel")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common {
    pub mod netns;
    pub mod packet;
    pub mod places;
}

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use common::netns::{self, skipped, wait_until};
use common::places::Place;
use xdpgate::policy::{Change, SetName};
use xdpgate::{
    Disposition, Firewall, Management, ManagementPort, ModePreference, Policy, Reason,
    TransactionOptions,
};

const NOTHING_PASSES: &str =
    "{ version: 1, default: drop, failsafe: { ssh_from: [192.0.2.0/24] } }";

/// The port of the API of this host, and that of its controller.
const API: u16 = 50_051;
const CONTROLLER: u16 = 4443;

/// A host and the network before it: two addresses in the prefix of SSH and out of it.
fn host_and_network() -> (Place, Place) {
    let (host, network) = (Place::new(), Place::new());
    host.within(enable_ipv6);
    network.within(enable_ipv6);
    netns::run({
        let (host, network) = (&host, &network);
        move || {
            netns::sh("ip link add wan type veth peer name net");
            host.take("wan");
            network.take("net");
        }
    });
    each(
        &host,
        "ip addr add 192.0.2.1/24 dev wan && ip -6 addr add 2001:db8::1/64 dev wan nodad",
    );
    each(
        &host,
        "ip link set wan up && ip route add 198.51.100.0/24 dev wan",
    );
    each(
        &network,
        "ip addr add 192.0.2.2/24 dev net && ip addr add 198.51.100.2/32 dev net",
    );
    each(
        &network,
        "ip -6 addr add 2001:db8::2/64 dev net nodad && ip link set net up",
    );
    (host, network)
}

/// Commands, one after the other.
fn each(place: &Place, commands: &str) {
    for command in commands.split(" && ") {
        place.sh(command);
    }
}

fn management() -> Vec<Management> {
    let flow = |peer: &str, port| Management::new(peer.parse().unwrap(), port);
    vec![
        flow("0.0.0.0/0", ManagementPort::Local(API)),
        flow("192.0.2.2", ManagementPort::Remote(CONTROLLER)),
    ]
}

/// The namespaces of tests are silent: IPv6 is off in them.
fn enable_ipv6() {
    for scope in ["all", "default"] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "0").unwrap();
    }
}

/// A listener that stays until its place is gone.
fn listen(place: &Place, address: &str) {
    let address = address.to_owned();
    place.within(move || {
        let listener = TcpListener::bind(address).unwrap();
        std::mem::forget(listener);
    });
}

/// Whether a connection comes about, from an address of its own.
fn connects(place: &Place, from: &str, to: &str) -> bool {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    place.within(move || {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, socket};
        use std::os::fd::AsRawFd;
        let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else {
            panic!("IPv4")
        };
        let kind = (AddressFamily::Inet, SockType::Stream);
        let socket = socket(kind.0, kind.1, SockFlag::SOCK_NONBLOCK, None).unwrap();
        bind(socket.as_raw_fd(), &SockaddrIn::from(from)).unwrap();
        let begun = nix::sys::socket::connect(socket.as_raw_fd(), &SockaddrIn::from(to));
        assert!(matches!(begun, Ok(()) | Err(nix::Error::EINPROGRESS)));
        let stream = TcpStream::from(socket);
        for _ in 0..60 {
            if stream.peer_addr().is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    })
}

#[test]
fn r107_whoever_manages_a_host_that_drops_all_gets_in() {
    if skipped() {
        return;
    }
    let (host, network) = host_and_network();
    for port in [22, 80, API] {
        listen(&host, &format!("0.0.0.0:{port}"));
    }
    for port in [CONTROLLER, CONTROLLER + 1] {
        listen(&network, &format!("0.0.0.0:{port}"));
    }
    let firewall = host.within(|| {
        let loader = Firewall::loader().dry_run(false).management(management());
        let firewall = loader.load().unwrap();
        firewall
            .apply(&Policy::from_yaml(NOTHING_PASSES).unwrap())
            .unwrap();
        let wan = firewall.ifindex("wan").unwrap();
        firewall.attach(wan, ModePreference::BestAvailable).unwrap();
        std::sync::Arc::new(firewall)
    });
    // Address resolution of both families begins anew.
    for place in [&host, &network] {
        each(place, "ip neigh flush all && ip -6 neigh flush all");
    }
    for (from, to, want) in [
        ("192.0.2.2:0", "192.0.2.1:22", true),
        ("198.51.100.2:0", "192.0.2.1:22", false),
        ("192.0.2.2:0", "192.0.2.1:80", false),
        ("192.0.2.2:0", "192.0.2.1:50051", true),
        ("198.51.100.2:0", "192.0.2.1:50051", true),
    ] {
        assert_eq!(connects(&network, from, to), want, "{from} to {to}");
    }
    for (to, want) in [
        ("192.0.2.2:4443", true),
        ("192.0.2.2:4444", false),
        ("198.51.100.2:4443", false),
    ] {
        assert_eq!(connects(&host, "192.0.2.1:0", to), want, "to {to}");
    }

    // The neighbour answers a solicitation, and asks one itself.
    host.within(|| {
        let socket = UdpSocket::bind("[2001:db8::1]:0").unwrap();
        socket.send_to(b"anything", "[2001:db8::2]:9").unwrap();
        wait_until("the neighbour's address", || {
            netns::sh("ip -6 neigh show 2001:db8::2").contains("lladdr")
        });
    });
    network.sh("ip -6 neigh flush all");
    network.within(|| {
        let socket = UdpSocket::bind("[2001:db8::2]:0").unwrap();
        socket.send_to(b"anything", "[2001:db8::1]:9").unwrap();
        wait_until("the host's address", || {
            netns::sh("ip -6 neigh show 2001:db8::1").contains("lladdr")
        });
    });

    // An answer of a DHCP server comes in, and nothing else to that port.
    let receives = |from: &'static str| {
        let socket = host.within(|| UdpSocket::bind("192.0.2.1:68").unwrap());
        socket
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        network.within(move || {
            let server = UdpSocket::bind(from).unwrap();
            server.send_to(b"offer", "192.0.2.1:68").unwrap();
        });
        match socket.recv(&mut [0; 16]) {
            Ok(_) => true,
            Err(e) if e.kind() == ErrorKind::WouldBlock => false,
            Err(e) => panic!("{e}"),
        }
    };
    assert!(receives("192.0.2.2:67"));
    assert!(!receives("192.0.2.2:69"));

    let stats = firewall.stats();
    let counts = &stats.interfaces[0].counts;
    let of = |reason, disposition| counts.get(reason, disposition).packets;
    assert!(of(Reason::Failsafe, Disposition::Passed) > 10, "{counts:?}");
    assert!(
        of(Reason::NonIp, Disposition::Passed) > 0,
        "ARP: {counts:?}"
    );
    assert!(of(Reason::Default, Disposition::Dropped) > 0, "{counts:?}");

    // In so many words nothing of it passes.
    let none = "{ version: 1, default: drop, failsafe: none }";
    firewall.apply(&Policy::from_yaml(none).unwrap()).unwrap();
    assert!(!connects(&network, "192.0.2.2:0", "192.0.2.1:22"));
    assert!(!connects(&network, "192.0.2.2:0", "192.0.2.1:50051"));
}

#[test]
fn management_belongs_to_the_host_and_not_to_the_policy() {
    if skipped() {
        return;
    }
    let text = "{ version: 1, default: drop, sets: { s: { entries: [10.0.0.1, 10.0.0.2, 10.0.0.3] } }, \
                rules: [ { id: r, match: { src: '@s' }, action: drop } ] }";
    let policy = Policy::from_yaml(text).unwrap();
    let firewall = Firewall::loader().dry_run(false).load().unwrap();
    firewall.set_management(management()).unwrap();
    let applied = firewall.apply(&policy).unwrap();
    let api = common::packet::ip("10.0.0.1", "192.0.2.1")
        .tcp(40_000, API)
        .build();
    let reason = || firewall.evaluate(&api).unwrap().reason;
    assert_eq!(reason(), Reason::Failsafe, "before any rule");

    // An image that is changed in a few hosts keeps it.
    let more = Change::AddEntries(
        SetName::new("s").unwrap(),
        vec![("10.0.0.4".parse().unwrap(), None)],
    );
    let done = firewall
        .transact(&[more], TransactionOptions::default())
        .unwrap();
    assert_eq!(done.applied.unwrap().changed_hosts, Some(1));
    assert_eq!(reason(), Reason::Failsafe);

    let hash = firewall.policy().unwrap().hash();
    let anew = firewall.set_management([]).unwrap().expect("another image");
    assert_eq!(anew.generation.get(), applied.generation.get() + 2);
    assert_eq!(firewall.policy().unwrap().hash(), hash);
    assert_eq!(reason(), Reason::Rule);
    assert!(
        firewall.set_management([]).unwrap().is_none(),
        "nothing changed"
    );

    let many = vec![management()[0]; Management::MAX + 1];
    let error = firewall.set_management(many).unwrap_err().to_string();
    assert!(error.contains("limit is 16"), "{error}");
    assert!(firewall.management().is_empty());
}
