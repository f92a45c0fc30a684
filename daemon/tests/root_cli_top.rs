//! `xdpgate top` on a terminal: a real one (made by `script`), a real daemon, real traffic.

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::num::NonZero;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::daemon::Daemon;
use common::namespace::Namespace;
use common::tools::has_tool;
use common::{Scratch, XDPGATE, command, is_root, run, wait_for};
use tonic::transport::Endpoint;
use xdpgate_api::v1::firewall_client::FirewallClient;
use xdpgate_api::v1::{Rates, WatchStatsRequest};

const POLICY: &str = "
version: 1
rules:
  - { id: block-bad, match: { src: 203.0.113.7 }, action: drop }
  - { id: quiet, match: { src: 198.51.100.1 }, action: drop }
";

fn size(cells: u16) -> NonZero<u16> {
    NonZero::new(cells).expect("not 0")
}

/// A program in a terminal of 140 columns and 40 lines, and the state of the terminal after it.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<vt100::Parser>>,
    /// All that was written to the terminal.
    written: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn open(program: &str) -> Self {
        let line = format!(
            "stty rows 40 cols 140; echo at=$(tty); (echo pid=$BASHPID; exec {program}); echo ended=$?; stty -a"
        );
        let mut child = command("script")
            .env("TERM", "xterm-256color")
            .env("SHELL", "/bin/bash")
            .env_remove("NO_COLOR")
            .args(["-qec", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script");
        let screen = Arc::new(Mutex::new(vt100::Parser::new(size(40), size(140), 0)));
        let written = Arc::new(Mutex::new(Vec::new()));
        let copies = (Arc::clone(&screen), Arc::clone(&written));
        let mut out = child.stdout.take().expect("piped");
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = out.read(&mut buffer) {
                copies
                    .0
                    .lock()
                    .expect("no panic")
                    .process(&buffer[..length]);
                copies.1.lock().expect("no panic").extend(&buffer[..length]);
            }
        });
        let keys = child.stdin.take().expect("piped");
        Self {
            child,
            keys,
            screen,
            written,
        }
    }

    fn text(&self) -> String {
        self.screen.lock().expect("no panic").screen().contents()
    }

    /// Waits until the screen has what is looked for, and has not changed for a moment.
    #[track_caller]
    fn settled<T>(&self, what: &str, look: impl Fn(&str) -> Option<T>) -> T {
        wait_for(what, || {
            let text = self.text();
            std::thread::sleep(Duration::from_millis(50));
            (rates_of(&text) == rates_of(&self.text()))
                .then(|| look(&text))
                .flatten()
        })
    }

    /// What stands behind `name=` before the program took the screen.
    fn noted(&self, name: &str) -> String {
        wait_for(name, || {
            let text =
                String::from_utf8_lossy(&self.written.lock().expect("no panic")).into_owned();
            let (_, rest) = text.split_once(&format!("{name}="))?;
            let (value, _) = rest.split_once('\n')?;
            Some(value.trim().to_owned())
        })
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("it reads");
        self.keys.flush().expect("it reads");
    }

    /// Waits for its end, and that the terminal is as it was: lines and echo, the cursor, the screen.
    #[track_caller]
    fn ended(&mut self) {
        let text = wait_for("its end", || {
            let text = self.text();
            (text.contains("ended=") && text.contains("icanon")).then_some(text)
        });
        assert!(text.contains("ended=0"), "{text}");
        for flag in ["-icanon", "-echo ", "-isig"] {
            assert!(!text.contains(flag), "{flag} in {text}");
        }
        let parser = self.screen.lock().expect("no panic");
        assert!(!parser.screen().alternate_screen(), "{text}");
        assert!(!parser.screen().hide_cursor(), "{text}");
        assert!(!text.contains("q quit"), "{text}");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `1.2 k/s` as 1200; within what three digits say.
fn number(text: &str) -> f64 {
    let mut words = text.split_whitespace();
    let value: f64 = words.next().expect("a number").parse().expect("a number");
    let scale = match words.next().expect("a unit") {
        "/s" => 1.0,
        "k/s" => 1e3,
        "M/s" => 1e6,
        unit => panic!("{unit}"),
    };
    value * scale
}

/// The screen without its right part, in which the samples change all the time.
fn rates_of(screen: &str) -> Vec<String> {
    screen
        .lines()
        .map(|line| line.chars().take(88).collect())
        .collect()
}

fn sample(screen: &str) -> Option<u64> {
    let (_, rest) = screen.lines().next()?.split_once("sample ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Rates of a line of the screen: `/s` values, from left to right.
fn rates(screen: &str, name: &str) -> Option<Vec<f64>> {
    let line = screen.lines().find(|line| line.starts_with(name))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let pairs = words
        .windows(2)
        .filter(|pair| pair[1].ends_with("/s") && !pair[1].contains("bit"));
    Some(pairs.map(|pair| number(&pair.join(" "))).collect())
}

struct Scene {
    _host: Namespace,
    _scratch: Scratch,
    daemon: Daemon,
    stop: Arc<AtomicBool>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A daemon that drops, and traffic whose rate is another every second, for half a minute at most.
fn scene() -> Scene {
    let host = Namespace::new();
    let neighbour = host.neighbour(("xg0", "192.0.2.1/24"), ("nb0", "192.0.2.2/24"));
    neighbour.ip("address add 203.0.113.7/32 dev nb0");
    let scratch = Scratch::new();
    let policy = scratch.file("policy.yaml", POLICY);
    let daemon = Daemon::start(
        &host,
        &scratch,
        &["--interface", "xg0", "--policy", &policy, "--enforce"],
    );
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    std::thread::spawn(move || {
        let socket = |from: &str| neighbour.run(|| UdpSocket::bind((from, 0)));
        let (bad, good) = (socket("203.0.113.7"), socket("192.0.2.2"));
        let (bad, good) = (bad.expect("a socket"), good.expect("a socket"));
        for tenth in 0..300u32 {
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            for n in 0..10 + tenth / 10 * 7 {
                let _ = bad.send_to(b"bad", "192.0.2.1:9000");
                if n % 3 == 0 {
                    let _ = good.send_to(b"good", "192.0.2.1:9000");
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    Scene {
        _host: host,
        _scratch: scratch,
        daemon,
        stop,
    }
}

/// What the API says by sample, gathered for as long as the test runs.
fn gather(server: String) -> Arc<Mutex<BTreeMap<u64, Rates>>> {
    let samples = Arc::new(Mutex::new(BTreeMap::new()));
    let copy = Arc::clone(&samples);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let endpoint = Endpoint::from_shared(server).expect("an endpoint");
            let mut client = FirewallClient::new(endpoint.connect().await.expect("a connection"));
            let stream = client.watch_stats(WatchStatsRequest::default()).await;
            let mut stream = stream.expect("a stream").into_inner();
            while let Ok(Some(message)) = stream.message().await {
                if let Some(rates) = message.rates {
                    copy.lock().expect("no panic").insert(rates.sample, rates);
                }
            }
        });
    });
    samples
}

fn may_run() -> bool {
    is_root() && has_tool("script", "")
}

#[test]
fn the_numbers_are_those_of_the_api() {
    if !may_run() {
        return;
    }
    let scene = scene();
    let samples = gather(scene.daemon.server.clone());
    let mut terminal = Terminal::open(&format!("{XDPGATE} top --server {}", scene.daemon.server));
    let mut seen = 0;
    for _ in 0..2 {
        let (number, interface, rule) = terminal.settled("the next sample", |screen| {
            let number = sample(screen).filter(|n| *n > seen)?;
            let interface = rates(screen, "xg0")?;
            let rule = rates(screen, "block-bad")?;
            (interface.len() == 3 && interface[1] > 0.0).then_some((number, interface, rule))
        });
        seen = number;
        let said = wait_for("the same sample over the API", || {
            samples.lock().expect("no panic").get(&number).cloned()
        });
        let of = said
            .interfaces
            .iter()
            .find(|i| i.name == "xg0")
            .expect("xg0");
        let of = of.rates.as_ref().expect("rates");
        let packets = [of.passed, of.dropped, of.would_drop].map(|r| r.unwrap_or_default().packets);
        let of = said
            .rules
            .iter()
            .find(|r| r.id == "block-bad")
            .expect("the rule");
        let matched = of.matched.unwrap_or_default().packets;
        let expected = [&packets[..], &[matched, of.dropped, of.would_drop]].concat();
        for (shown, api) in interface.iter().chain(&rule).zip(expected) {
            // One digit behind the point.
            let near = (shown - api).abs() <= 0.06_f64.max(api * 0.05);
            assert!(
                near,
                "sample {number}: {shown} on the screen, {api} over the API"
            );
        }
    }
    let head = terminal.text();
    assert!(
        head.contains("mode enforce") && head.contains("generation 1, 2 rules"),
        "{head}"
    );
    assert!(head.contains("\nwell"), "{head}");
    // Sources are of samples, so of drops only.
    terminal.settled("the source", |screen| {
        (screen.contains("SOURCE") && screen.contains("203.0.113.7")).then_some(())
    });
    assert!(
        !terminal.text().contains("192.0.2.2"),
        "{}",
        terminal.text()
    );
    terminal.press("q");
    terminal.ended();
}

#[test]
fn keys_and_sizes() {
    if !may_run() {
        return;
    }
    let scene = scene();
    let mut terminal = Terminal::open(&format!("{XDPGATE} top --server {}", scene.daemon.server));
    let tty = terminal.noted("at");
    terminal.settled("rates", |screen| {
        rates(screen, "block-bad").filter(|r| r.len() == 3)
    });

    terminal.press("s");
    terminal.settled("another order", |screen| {
        screen.contains("sort: packets").then_some(())
    });
    terminal.press("ss");
    terminal.settled("the first order", |screen| {
        screen.contains("sort: drops").then_some(())
    });
    terminal.press("\u{1b}[B");
    terminal.settled("the second rule first", |screen| {
        (screen.contains("rules: 2, from 2") && rates(screen, "block-bad").is_none()).then_some(())
    });
    terminal.press("\u{1b}[A");
    terminal.settled("the first rule", |screen| rates(screen, "block-bad"));

    terminal.press("p");
    let paused = terminal.settled("the pause", |screen| {
        screen.contains("PAUSED").then(|| sample(screen)).flatten()
    });
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(sample(&terminal.text()), Some(paused));
    terminal.press("p");
    terminal.settled("the next sample", |screen| {
        sample(screen).filter(|n| *n > paused)
    });

    terminal
        .screen
        .lock()
        .expect("no panic")
        .screen_mut()
        .set_size(size(20), size(90));
    run("stty", ["-F", &tty, "rows", "20", "cols", "90"]).ok();
    terminal.settled("the smaller screen", |screen| {
        let lines: Vec<&str> = screen.lines().collect();
        (lines.len() == 20 && lines[19].starts_with("q quit") && screen.contains("SOURCE"))
            .then_some(())
    });
    terminal.press("\u{3}");
    terminal.ended();
}

/// However it ends, the terminal is given back: a signal, and a daemon that goes and comes again.
#[test]
fn the_terminal_is_given_back() {
    if !may_run() {
        return;
    }
    let scene = scene();
    let mut terminal = Terminal::open(&format!("{XDPGATE} top --server {}", scene.daemon.server));
    let pid = terminal.noted("pid");
    terminal.settled("rates", |screen| {
        rates(screen, "block-bad").filter(|r| r.len() == 3)
    });
    scene.daemon.ask(&["stop", "--detach"]).ok();
    terminal.settled("the loss", |screen| {
        (screen.contains("connection broke") || screen.contains("no daemon answers")).then_some(())
    });
    run("kill", ["-TERM", &pid]).ok();
    terminal.ended();

    // Without a daemon it does not even take the screen.
    let line = format!("{XDPGATE} top --server {}", scene.daemon.server);
    let said = run("script", ["-qec", &line, "/dev/null"]);
    assert_eq!(said.code, Some(1), "{said}");
    assert!(
        said.stdout.starts_with("error: no daemon answers"),
        "{said}"
    );
}
