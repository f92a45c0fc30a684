//! What one client, or many, can take up of the API of the real daemon.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::certificates::token;
use common::daemon::Daemon;
use common::host::{Host, audited, status};
use common::{is_root, text, wait_for};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, connect, setsockopt, socket, sockopt,
};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;
use xdpgate_api::v1::firewall_client::FirewallClient;
use xdpgate_api::v1::{ApplyPolicyRequest, GetStatusRequest};

fn open_files(daemon: &Daemon) -> usize {
    let files = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()));
    files.expect("it runs").count()
}

/// In MiB.
fn resident(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()));
    let status = status.expect("it runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("a line");
    let kib = line.trim().trim_end_matches(" kB").parse::<u64>();
    kib.expect("a number") / 1024
}

/// Ten thousand connections that say nothing, or next to nothing, from one neighbour, who goes on making
/// them: others are served, and the daemon does not grow.
#[test]
fn r69_ten_thousand_idle_connections_shut_out_nobody() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let attacker = host
        .namespace
        .neighbour(("xg0", "192.0.2.1/24"), ("xg1", "192.0.2.2/24"));
    let config = format!(
        "[api.limits]\nhandshake_seconds = 3600\n{}[[api.clients]]\nname = 'ops'\nrole = 'admin'\n",
        host.mutual_tls()
    );
    let daemon = host.start_with("https://0.0.0.0:50051", &config, &[]);
    let ops = host.ca.issue(&host.scratch, "ops");
    host.ask_as(&ops, &["status"]).ok();
    let before = resident(&daemon);

    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let enough = hard.min(20_000);
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(enough), hard).expect("root may");
    let (made, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    // Whatever becomes of the test, it stops.
    let end = Instant::now() + Duration::from_secs(60);
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            attacker.run(|| {
                let mut open = Vec::new();
                while !stop.load(Ordering::Relaxed) && Instant::now() < end {
                    let address = "192.0.2.1:50051".parse().expect("an address");
                    // Its queue may be full for a moment.
                    let connected = TcpStream::connect_timeout(&address, Duration::from_secs(3));
                    let Ok(mut connection) = connected else {
                        continue;
                    };
                    // The beginning of a TLS record, from every other one.
                    if open.len() % 2 == 0 {
                        let _ = connection.write_all(&[0x16, 3, 1]);
                    }
                    open.push(connection);
                    made.fetch_add(1, Ordering::Relaxed);
                    if open.len() == 10_000 {
                        open.drain(..5000);
                    }
                }
            });
        });
        let start = Instant::now();
        while made.load(Ordering::Relaxed) < 10_000 {
            let made = made.load(Ordering::Relaxed);
            assert!(start.elapsed() < Duration::from_secs(50), "{made} made");
            std::thread::sleep(Duration::from_millis(10));
            let files = open_files(&daemon);
            assert!(files < 256 + 100, "{files} open files");
        }
        for _ in 0..5 {
            host.ask_as(&ops, &["status"]).ok();
        }
        stop.store(true, Ordering::Relaxed);
        flood.join().expect("no panic");
    });
    let grown = resident(&daemon).saturating_sub(before);
    println!(
        "{} connections, {grown} MiB more",
        made.load(Ordering::Relaxed)
    );
    assert!(grown < 64, "it has grown by {grown} MiB");
}

/// Waits until the other end has closed the connection.
fn closed_within(connection: &mut TcpStream, limit: Duration) -> bool {
    let start = Instant::now();
    connection
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("a socket");
    let mut buffer = [0; 4096];
    while start.elapsed() < limit {
        match connection.read(&mut buffer) {
            Ok(0) => return true,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return true,
            Ok(_) => {}
        }
    }
    false
}

/// Clients that connect and then say nothing, or too little: in the clear and with TLS.
#[test]
fn half_open_clients_are_cut() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let config = format!("[api.limits]\nhandshake_seconds = 1\n{}", host.mutual_tls());
    let plain = ["--insecure-loopback", "--listen", "127.0.0.1:50052"];
    let daemon = host.start_with("https://127.0.0.1:50051", &config, &plain);
    let before = open_files(&daemon);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    host.namespace.run(|| {
        let mut connections = Vec::new();
        for (port, said) in [
            (50051, &b""[..]),
            (50051, &[0x16, 3, 1, 2, 0, 1][..]),
            (50052, b""),
            (50052, b"PRI * HT"),
            (50052, preface),
        ] {
            let mut connection = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
            connection.write_all(said).expect("said");
            connections.push((port, said, connection));
        }
        for (port, said, mut connection) in connections {
            let closed = closed_within(&mut connection, Duration::from_secs(8));
            assert!(closed, "port {port} after {said:?}");
        }
        // One that is wrong is cut at once, whatever the limit.
        let mut wrong = TcpStream::connect(("127.0.0.1", 50052)).expect("it listens");
        wrong
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("said");
        assert!(closed_within(&mut wrong, Duration::from_secs(8)));
    });
    wait_for("its files", || {
        (open_files(&daemon) <= before).then_some(())
    });
}

/// Says HTTP/2 PINGs until it cannot get rid of more, and reads no answer. `false`: it was cut before that.
fn ping_until_stuck(connection: &mut TcpStream) -> bool {
    let start = Instant::now();
    let limit = Some(Duration::from_millis(300));
    connection.set_write_timeout(limit).expect("a socket");
    let settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let pings = b"\0\0\x08\x06\0\0\0\0\0pingping".repeat(256);
    let mut said = connection.write_all(settings);
    while said.is_ok() && start.elapsed() < Duration::from_secs(8) {
        said = connection.write_all(&pings);
    }
    said.is_err_and(|e| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

/// Clients that ask for answers and never read any, more of them than there are places: the daemon cannot
/// write to them, and lets go of them all the same.
#[test]
fn r69_clients_that_do_not_read_are_cut() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let config = "[api.limits]\nmax_connections = 8\nhandshake_seconds = 4\n";
    let daemon = host.start_with(PLAIN, config, &["--insecure-loopback"]);
    let before = open_files(&daemon);
    let open = || {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).expect("a socket");
        // Little room for answers, so that the daemon soon has nowhere to put them.
        setsockopt(&socket, sockopt::RcvBuf, &4096).expect("a size");
        let address = SockaddrIn::new(127, 0, 0, 1, 50051);
        connect(socket.as_raw_fd(), &address).expect("it listens");
        TcpStream::from(socket)
    };
    let mut connections: Vec<_> = host.namespace.run(|| (0..40).map(|_| open()).collect());
    let stuck: usize = std::thread::scope(|scope| {
        let pinging: Vec<_> = connections
            .iter_mut()
            .map(|connection| scope.spawn(|| ping_until_stuck(connection)))
            .collect();
        let ended = pinging.into_iter().map(|one| one.join().expect("no panic"));
        ended.filter(|stuck| *stuck).count()
    });
    println!("{stuck} were stuck");
    assert!(stuck > 0, "the daemon could write to all of them");
    // This end still holds them.
    wait_for("its files", || {
        (open_files(&daemon) <= before).then_some(())
    });
    drop(connections);
}

/// A relay between clients and a daemon that can stop to read what the daemon says, as a client does that
/// hangs or is cut off.
struct Relay {
    port: u16,
    hangs: Arc<AtomicBool>,
    /// How many connections the daemon has closed.
    closed: Arc<AtomicUsize>,
}

impl Relay {
    fn start(host: &Host, daemon: u16) -> Self {
        let (hangs, closed) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let copies = (Arc::clone(&hangs), Arc::clone(&closed));
        let listener = host
            .namespace
            .run(|| TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let connect = host
            .namespace
            .run(|| TcpStream::connect(("127.0.0.1", daemon)));
        let server = connect.expect("it listens");
        std::thread::spawn(move || {
            let Ok((client, _)) = listener.accept() else {
                return;
            };
            let (mut from, mut to) = (
                client.try_clone().expect("a copy"),
                server.try_clone().expect("a copy"),
            );
            let (hangs, closed) = copies;
            let stuck = Arc::clone(&hangs);
            std::thread::spawn(move || {
                let mut buffer = [0; 16 << 10];
                while let Ok(n @ 1..) = from.read(&mut buffer) {
                    while stuck.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    if to.write_all(&buffer[..n]).is_err() {
                        return;
                    }
                }
            });
            let (mut from, mut to) = (server, client);
            let mut buffer = [0; 16 << 10];
            loop {
                // What the daemon says then is lost; that it closes is not.
                match from.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(n) if !hangs.load(Ordering::Relaxed) => {
                        if to.write_all(&buffer[..n]).is_err() {
                            return;
                        }
                    }
                    Ok(_) => {}
                }
            }
            closed.fetch_add(1, Ordering::Relaxed);
            let _ = to.shutdown(Shutdown::Both);
        });
        Self {
            port,
            hangs,
            closed,
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed) > 0
    }

    async fn connect(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port));
        endpoint
            .expect("an endpoint")
            .connect()
            .await
            .expect("a connection")
    }
}

const PLAIN: &str = "127.0.0.1:50051";

/// Clients that are known, and hang with a stream that is open; or do nothing.
#[test]
fn clients_that_hang_or_do_nothing_are_cut() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let config = "[api.limits]\nkeepalive_seconds = 2\nidle_seconds = 2\nhandshake_seconds = 1\n";
    let _daemon = host.start_with(PLAIN, config, &["--insecure-loopback"]);
    let (streams, hangs, idle) = (
        Relay::start(&host, 50051),
        Relay::start(&host, 50051),
        Relay::start(&host, 50051),
    );
    host.block_on(async || {
        let mut kept = Vec::new();
        for relay in [&streams, &hangs, &idle] {
            let channel = relay.connect().await;
            status(&channel, "")
                .await
                .expect_err("an empty token is none");
            let mut client = FirewallClient::new(channel.clone());
            client
                .get_status(GetStatusRequest {})
                .await
                .expect("it is open");
            kept.push(channel);
        }
        let mut watches = Vec::new();
        for channel in &kept[..2] {
            let mut client = HealthClient::new(channel.clone());
            let watch = client.watch(HealthCheckRequest::default());
            let mut watch = watch.await.expect("a stream").into_inner();
            watch.message().await.expect("a message");
            watches.push(watch);
        }
        hangs.hangs.store(true, Ordering::Relaxed);
        let both = async {
            while !(hangs.is_closed() && idle.is_closed()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let both = tokio::time::timeout(Duration::from_secs(10), both).await;
        assert!(
            both.is_ok(),
            "hangs: {}, idle: {}",
            hangs.is_closed(),
            idle.is_closed()
        );
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(
            !streams.is_closed(),
            "one that answers and has a stream stays"
        );
        hangs.hangs.store(false, Ordering::Relaxed);
    });
}

#[test]
fn r69_each_client_has_its_own_budget_of_calls() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let ((greedy, first), (modest, second)) = (token("greedy", "admin"), token("modest", "viewer"));
    let file = host.scratch.file("tokens.toml", first + &second);
    let config = format!(
        "[api]\ntokens_file = '{file}'\nallow_tokens_without_client_certificate = true\n\
         [api.limits]\nrequests_per_second = 5\n"
    );
    let daemon = host.start_with(PLAIN, &config, &[]);
    host.block_on(async || {
        let endpoint = Endpoint::from_static("http://127.0.0.1:50051");
        let channel = endpoint.connect().await.expect("a connection");
        let start = Instant::now();
        let (mut served, mut refused) = (0, None);
        for _ in 0..200 {
            match status(&channel, &greedy).await {
                Ok(()) => served += 1,
                Err(status) => refused = Some(status),
            }
        }
        let most = 6 + (5.0 * start.elapsed().as_secs_f64()) as usize;
        assert!(
            (5..=most).contains(&served),
            "{served} were served, of {most}"
        );
        let refused = refused.expect("200 calls in less than 39 seconds");
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        assert!(
            refused.message().contains("requests_per_second"),
            "{refused}"
        );
        let wait = refused
            .get_details_retry_info()
            .and_then(|info| info.retry_delay);
        tokio::time::sleep(wait.expect("RetryInfo") + Duration::from_millis(50)).await;
        status(&channel, &greedy)
            .await
            .expect("its budget has filled up");
        status(&channel, &modest)
            .await
            .expect("another one's was never empty");
    });
    audited(&daemon, &["who=\"token greedy\"", "requests_per_second"]);
}

#[test]
fn messages_that_are_too_long_are_refused_and_change_nothing() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let config = "[api.limits]\nmax_message_bytes = 100000\n";
    let daemon = host.start_with(PLAIN, config, &["--insecure-loopback"]);
    host.block_on(async || {
        let endpoint = Endpoint::from_static("http://127.0.0.1:50051");
        let mut client = FirewallClient::new(endpoint.connect().await.expect("a connection"));
        let request = |bytes: usize| ApplyPolicyRequest {
            yaml: format!("version: 1\n# {}\n", "x".repeat(bytes)),
            ..Default::default()
        };
        let refused = client
            .apply_policy(request(100_000))
            .await
            .expect_err("too long");
        assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
        let status = client
            .get_status(GetStatusRequest {})
            .await
            .expect("a status");
        assert!(status.into_inner().policy.is_none());
        client
            .apply_policy(request(90_000))
            .await
            .expect("short enough");
    });
    audited(&daemon, &["ApplyPolicy", "outcome=\"OutOfRange\""]);
}

/// When all who are there are admins a new one has to wait; and who goes leaves a place.
#[test]
fn r69_there_are_only_so_many_connections() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let server = format!("unix:{}", text(&host.scratch.path("s.sock")));
    let daemon = host.start_with(&server, "[api.limits]\nmax_connections = 2\n", &[]);
    host.block_on(async || {
        let known = async || {
            let endpoint = Endpoint::from_shared(server.clone()).expect("an endpoint");
            let mut client = FirewallClient::new(endpoint.connect().await.ok()?);
            let asked = client.get_status(GetStatusRequest {}).await;
            asked.ok().map(|_| client)
        };
        let (first, second) = (known().await.expect("one"), known().await.expect("two"));
        assert!(known().await.is_none(), "there was room for a third one");
        audited(&daemon, &["connect", "too many connections"]);
        drop(first);
        let again = async {
            while known().await.is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), again)
            .await
            .expect("there is room");
        drop(second);
    });
}

/// Whoever has the certificate of a viewer, or none, takes all places and goes on to: an admin of the same
/// address gets in, and stays.
#[test]
fn r69_viewers_do_not_shut_out_an_admin() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let (viewer, admin) = (
        host.ca.issue(&host.scratch, "grafana"),
        host.ca.issue(&host.scratch, "ops"),
    );
    let config = format!(
        "[api.limits]\nmax_connections = 8\nhandshake_seconds = 60\n{}\
         [[api.clients]]\nname = 'ops'\nrole = 'admin'\n\
         [[api.clients]]\nname = 'grafana'\nrole = 'viewer'\n",
        host.mutual_tls()
    );
    let daemon = host.start(&config);
    host.block_on(async || {
        let watch = async || {
            let channel = host.connect(Some(&viewer)).await;
            let mut client = HealthClient::new(channel);
            let watch = client.watch(HealthCheckRequest::default());
            let mut watch = watch.await.expect("a viewer may").into_inner();
            watch.message().await.expect("a message");
            (client, watch)
        };
        let mut watches = Vec::new();
        for _ in 0..8 {
            watches.push(watch().await);
        }
        let mut ops = FirewallClient::new(host.connect(Some(&admin)).await);
        ops.get_status(GetStatusRequest {})
            .await
            .expect("a viewer gives way");
        let address = || TcpStream::connect("127.0.0.1:50051").expect("it listens");
        let mut nobodies = Vec::new();
        for _ in 0..20 {
            watches.push(watch().await);
            nobodies.push(address());
        }
        ops.get_status(GetStatusRequest {})
            .await
            .expect("an admin stays, on the same connection");
        let changed = ops.apply_policy(ApplyPolicyRequest {
            yaml: "version: 1\n".to_owned(),
            ..Default::default()
        });
        changed.await.expect("and changes what it likes");
    });
    let files = open_files(&daemon);
    assert!(files < 100, "{files} open files");
}
