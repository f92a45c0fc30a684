//! Two hosts and the bridge between them, and what crosses it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use xdpgate::policy::Policy;
use xdpgate::{
    AttachMode, Bridge, BridgeInfo, DirectionStats, Disposition, Filter, Firewall, Loader,
    ModePreference, Reason,
};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::netns::{Wire, index, sh, wait_until};
use super::packet::ip;
use super::places::Place;

/// A host behind a wire: a namespace whose one interface is the other end of `port`, which is in the
/// calling thread's namespace. What a user has to do to a local veth is done: see docs/bridge.md.
pub struct Host {
    pub place: Place,
    pub name: String,
    pub address: String,
    /// The program that a veth needs before 5.13 in place of GRO.
    _program: Option<Firewall>,
}

impl Host {
    /// `index` is that of the port.
    pub fn behind(port: &str, index: u32, name: &str, address: &str) -> Self {
        let place = Place::new();
        sh(&format!(
            "ip link add {port} index {index} type veth peer name {name}"
        ));
        place.take(name);
        place.sh(&format!("ip address add {address}/24 dev {name}"));
        place.sh(&format!("ip link set {name} up"));
        // Frames that another driver hands over are taken from a NAPI queue only.
        let program = match takes_frames_with_gro() {
            true => {
                place.sh(&format!("ethtool -K {name} gro on"));
                None
            }
            false => Some(with_program(&place, name)),
        };
        // Checksums are those of the wire, and tags in the frame.
        place.sh(&format!("ethtool -K {name} tx off txvlan off"));
        let (name, address) = (name.to_owned(), address.to_owned());
        Self {
            place,
            name,
            address,
            _program: program,
        }
    }

    pub fn wait_for_carrier(&self) {
        wait_until("carrier", || {
            let link = self.place.sh(&format!("ip link show {}", self.name));
            link.contains("LOWER_UP")
        });
    }
}

/// `veth_gro_requested` came with 5.13.
pub fn takes_frames_with_gro() -> bool {
    let release = nix::sys::utsname::uname().unwrap();
    let release = release.release().to_string_lossy().into_owned();
    let mut numbers = release.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(5), Some(13))
}

/// Lets a program that passes everything run on an interface of a host.
pub fn with_program(place: &Place, name: &str) -> Firewall {
    let name = name.to_owned();
    place.within(move || {
        let firewall = Firewall::loader().load().unwrap();
        let native = ModePreference::Exactly(AttachMode::Native);
        firewall.attach(index(&name), native).unwrap();
        firewall
    })
}

pub fn loader() -> Loader {
    Firewall::loader().fast_forward(true).dry_run(false)
}

pub fn policy(text: &str) -> Policy {
    Policy::from_yaml(text).unwrap()
}

/// Two hosts on the ports `outer` and `inner` of the calling thread's namespace.
pub fn hosts() -> (Host, Host) {
    let a = Host::behind("outer", 10, "a0", "192.0.2.1");
    let b = Host::behind("inner", 11, "b0", "192.0.2.2");
    (a, b)
}

pub fn bridge(firewall: &Firewall, hosts: (&Host, &Host), filter: Filter) -> BridgeInfo {
    let made = Bridge::new(index("outer"), index("inner")).filter(filter);
    let info = firewall.bridge(made).unwrap();
    hosts.0.wait_for_carrier();
    hosts.1.wait_for_carrier();
    info
}

pub fn ping(from: &Host, to: &Host) {
    from.place
        .sh(&format!("ping -c 3 -i 0.2 -W 5 {}", to.address));
}

/// Sends so many mebibytes by TCP, as fast as it goes, and holds what arrives against it. Returns
/// Gbit/s.
pub fn bulk(from: &Host, to: &Host, mebibytes: usize) -> f64 {
    let address: SocketAddr = format!("{}:5001", to.address).parse().unwrap();
    let mut listener = None;
    // A process that another test is just starting may have a copy of the one before.
    wait_until("the address", || {
        listener = to.place.within(move || TcpListener::bind(address).ok());
        listener.is_some()
    });
    let listener = listener.unwrap();
    let receiver = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).unwrap();
        let (mut hash, mut buffer, mut all) = (Xxh3::new(), vec![0; 1 << 16], 0);
        loop {
            match stream.read(&mut buffer).expect("read") {
                0 => break (hash.digest(), all),
                n => {
                    hash.update(&buffer[..n]);
                    all += n;
                }
            }
        }
    });
    let mut stream = from.place.within(move || {
        TcpStream::connect_timeout(&address, Duration::from_secs(10)).expect("connect")
    });
    let patience = Some(Duration::from_secs(20));
    stream.set_write_timeout(patience).unwrap();
    let (mut hash, mut block) = (Xxh3::new(), random_block());
    let started = Instant::now();
    for number in 0..mebibytes as u64 {
        block[..8].copy_from_slice(&number.to_be_bytes());
        hash.update(&block);
        stream.write_all(&block).expect("write");
    }
    drop(stream);
    let all = mebibytes << 20;
    assert_eq!(receiver.join().unwrap(), (hash.digest(), all));
    all as f64 * 8.0 / started.elapsed().as_secs_f64() / 1e9
}

/// A mebibyte of which no part is like another.
fn random_block() -> Vec<u8> {
    (0..1u64 << 17)
        .flat_map(|n| xxh3_64(&n.to_be_bytes()).to_be_bytes())
        .collect()
}

pub fn direction(info: &BridgeInfo, inbound: bool) -> DirectionStats {
    match inbound {
        true => info.inbound,
        false => info.outbound,
    }
}

/// What the stack of the calling thread's namespace has seen: frames past XDP on the ports, and
/// packets of which it took any notice.
pub struct Stack {
    ports: Vec<Wire>,
    before: [u64; 2],
}

impl Stack {
    pub fn watch(ports: &[&str]) -> Self {
        let ports: Vec<Wire> = ports.iter().map(|port| Wire::open(port)).collect();
        let before = ip_packets();
        Self { ports, before }
    }

    /// Nothing came to it, and it sent nothing.
    pub fn assert_untouched(&self) {
        self.assert_nothing_received();
        assert_eq!(ip_packets()[1], self.before[1], "packets of this host");
    }

    pub fn assert_nothing_received(&self) {
        for port in &self.ports {
            assert_eq!(port.receive(), None, "a frame that reached the stack");
        }
        assert_eq!(ip_packets()[0], self.before[0], "packets that came to IP");
    }
}

/// Packets that came to IP in this namespace, and that it sent.
fn ip_packets() -> [u64; 2] {
    let text = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = text.lines().filter(|l| l.starts_with("Ip: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    ["InReceives", "OutRequests"].map(|name| {
        let place = names.split(' ').position(|n| n == name).unwrap();
        values.split(' ').nth(place).unwrap().parse().unwrap()
    })
}

pub fn counts(firewall: &Firewall, name: &str, reason: Reason, disposition: Disposition) -> u64 {
    let stats = firewall.stats();
    let found = stats.interfaces.iter().find(|i| i.name == name).unwrap();
    found.counts.get(reason, disposition).packets
}

/// A policy, and below it a frame that it drops and one that it passes.
pub const BLOCK: &str = "
version: 1
failsafe: none
rules:
  - { id: block, match: { protocol: [tcp, udp], dport: 5999 }, action: drop }
";

pub fn blocked() -> Vec<u8> {
    ip("198.51.100.1", "198.51.100.2").udp(4000, 5999).build()
}

pub fn good() -> Vec<u8> {
    ip("198.51.100.1", "198.51.100.2").udp(4000, 5998).build()
}

/// Opens a packet socket on the interface of a host.
pub fn wire(host: &Host) -> Wire {
    let name = host.name.clone();
    host.place.within(move || Wire::open(&name))
}

/// Sends frames one after the other; returns those that arrive of the same.
pub fn cross(from: &Wire, to: &Wire, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut arrived = Vec::new();
    for frame in frames {
        from.send(frame);
    }
    // Neighbour discovery of the hosts may cross as well.
    while let Some(frame) = to.receive_whole() {
        if frames.contains(&frame) {
            arrived.push(frame);
        }
    }
    arrived
}
