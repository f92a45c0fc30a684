//! A process of its own that holds a firewall and does what it is told, until it is killed.
//!
//! It is the test binary, run again with `CHILD` in its environment: a test of the name `child` must
//! call [`serve`] first of all.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use xdpgate::policy::Policy;
use xdpgate::{ApplyOptions, Enforcement, Firewall, Generation, Loader, Pinning, Verdict};

use super::live::Entry;
use super::netns;
use super::packet::udp_from;

/// In the environment of a child: the directory of its pins, and of its state.
const CHILD: &str = "XDPGATE_TEST_CHILD";

/// Where the firewalls of a test leave what outlives them.
#[derive(Clone)]
pub struct Places {
    pub pins: PathBuf,
    pub state: PathBuf,
}

impl Places {
    /// A BPF file system and a state directory of the test's own.
    pub fn new(test: &str) -> (Self, TempDir) {
        let mount = env::temp_dir().join(format!("xdpgate-{test}-{}", std::process::id()));
        netns::mount_bpffs(&mount);
        let state = TempDir::new().unwrap();
        let places = Self {
            pins: mount.join("pins"),
            state: state.path().join("state"),
        };
        (places, state)
    }

    pub fn loader(&self) -> Loader {
        let loader = Firewall::loader().pin(Pinning::Require).max_rules(64);
        let small = loader.max_interfaces(4).max_bans(16).remember_flows(0);
        small.pin_root(&self.pins).state_dir(&self.state)
    }

    /// What the pinned program makes of the probes, whoever holds it: the number of its policy.
    pub fn judged(&self) -> u32 {
        let entry = Entry::pinned(&newest(&self.pins).join("xdpgate"));
        number(|frame| entry.receive(frame))
    }

    pub fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.state.join(file)).unwrap_or_default()
    }

    /// The number of the policy in a file.
    pub fn saved(&self, file: &str) -> u32 {
        let policy = Policy::from_yaml(&self.text(file)).expect(file);
        number_of(&policy)
    }
}

fn newest(pins: &Path) -> PathBuf {
    let names = std::fs::read_dir(pins).expect("pins");
    let names = names.map(|e| e.unwrap().file_name().into_string().unwrap());
    let newest = names.filter_map(|n| n.parse::<u32>().ok()).max();
    pins.join(newest.expect("maps").to_string())
}

/// A policy that drops one probe for each bit of a number: two of them mixed would be a third.
pub fn policy(number: u32) -> Policy {
    let bits = (0..8).filter(|bit| number >> bit & 1 != 0);
    let rules = bits.map(|bit| {
        format!("  - {{ id: n{number}-{bit}, match: {{ src: 192.0.2.{bit} }}, action: drop }}\n")
    });
    let rules: String = rules.collect();
    let text = format!("version: 1\nfailsafe: none\nrules:\n{rules}");
    Policy::from_yaml(text.trim_end_matches("rules:\n")).expect("a policy")
}

pub fn number(mut judge: impl FnMut(&[u8]) -> Verdict) -> u32 {
    let bit = |bit: u32| match judge(&udp_from(&format!("192.0.2.{bit}"))) {
        Verdict::Drop => 1 << bit,
        Verdict::Pass => 0,
    };
    (0..8).map(bit).sum()
}

pub fn number_of(policy: &Policy) -> u32 {
    let bits = policy.rules().iter().map(|rule| {
        let (_, bit) = rule.id.as_str().split_once('-').expect("n..-..");
        1 << bit.parse::<u32>().unwrap()
    });
    bits.sum()
}

/// What the program of a firewall makes of the probes.
pub fn judged(firewall: &Firewall) -> u32 {
    number(|frame| firewall.evaluate(frame).unwrap().verdict)
}

/// Ends the process if it is a child, when it was told all.
pub fn serve() {
    let Ok(places) = env::var(CHILD) else {
        return;
    };
    let (pins, state) = places.split_once(':').unwrap();
    let places = Places {
        pins: pins.into(),
        state: state.into(),
    };
    let firewall = places.loader().load().expect("load");
    say(&state_of(&firewall));
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |i: usize| words[i].parse::<u32>().unwrap();
        match words[0] {
            "apply" => {
                let applied = firewall.apply(&policy(number(1))).unwrap();
                assert_eq!(applied.not_saved, None);
            }
            "try" => {
                let within = Duration::from_millis(number(2).into());
                let options = ApplyOptions::default().confirm_within(within);
                firewall.apply_with(&policy(number(1)), options).unwrap();
            }
            "confirm" => firewall.confirm(Generation::new(number(1).into())).unwrap(),
            "not-confirm" => {
                let generation = Generation::new(number(1).into());
                firewall.confirm(generation).unwrap_err();
            }
            "mode" => {
                let within = words
                    .get(2)
                    .map(|_| Duration::from_millis(number(2).into()));
                let mode = match words[1] {
                    "enforce" => Enforcement::Enforce,
                    "pass" => Enforcement::Pass,
                    _ => Enforcement::DryRun,
                };
                firewall.set_enforcement(mode, within).unwrap();
            }
            "rollback" => drop(firewall.rollback().unwrap()),
            "state" => {}
            "change" => change(&firewall, number(1)),
            other => panic!("{other}"),
        }
        say(&state_of(&firewall));
    }
    std::process::exit(0);
}

/// Goes on from a number, one more each time: every third policy waits for its confirmation.
fn change(firewall: &Firewall, from: u32) -> ! {
    for next in (from + 1).. {
        let policy = policy(next % 256);
        if next.is_multiple_of(3) {
            let options = ApplyOptions::default().confirm_within(Duration::from_secs(600));
            let applied = firewall.apply_with(&policy, options).unwrap();
            say(&format!("waits {next}"));
            firewall.confirm(applied.generation).unwrap();
        } else {
            firewall.apply(&policy).unwrap();
        }
        say(&format!("lasts {next}"));
    }
    unreachable!()
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "> {line}").unwrap();
    out.flush().unwrap();
}

fn state_of(firewall: &Firewall) -> String {
    let generation = firewall.generation().map_or(0, Generation::get);
    let pending = firewall.pending();
    let refused = pending.as_ref().and_then(|p| p.refused.as_ref());
    let refused = refused.map_or(0, |refused| refused.tries);
    let pending = pending.map_or(0, |p| p.generation.get());
    let mode = format!("{:?}", firewall.enforcement()).to_lowercase();
    format!(
        "{generation} {} {pending} {mode} {refused}",
        judged(firewall)
    )
}

/// What a child says after each order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub generation: u64,
    /// The number of the policy, by evaluation.
    pub judged: u32,
    /// The generation that waits, or 0.
    pub pending: u64,
    pub mode: String,
    /// How often the kernel refused to take back what waited.
    pub refused: u32,
}

pub struct Process {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Process {
    pub fn start(places: &Places) -> (Self, State) {
        Self::start_by(Command::new(env::current_exe().unwrap()), places)
    }

    /// By a command that takes the arguments of the test binary.
    pub fn start_by(mut command: Command, places: &Places) -> (Self, State) {
        let dirs = format!("{}:{}", places.pins.display(), places.state.display());
        let mut child = command
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(CHILD, dirs)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut process = Self {
            orders: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        };
        let state = process.state();
        (process, state)
    }

    pub fn tell(&mut self, order: &str) -> State {
        self.order(order);
        self.state()
    }

    pub fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    /// The next line, or `None` at its end.
    pub fn line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.answers.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // The harness may have written a word before it, and a kill may have cut it off.
            if let Some((_, said)) = line.split_once("> ")
                && let Some(said) = said.strip_suffix('\n')
            {
                return Some(said.to_owned());
            }
        }
    }

    fn state(&mut self) -> State {
        let line = self.line().expect("an answer");
        let words: Vec<&str> = line.split_whitespace().collect();
        State {
            generation: words[0].parse().unwrap(),
            judged: words[1].parse().unwrap(),
            pending: words[2].parse().unwrap(),
            mode: words[3].to_owned(),
            refused: words[4].parse().unwrap(),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
