//! The oracle: what a policy says about a frame, by the simplest code that can be right.
//!
//! It asks the rules one by one in their order, and so defines what the compiled policy in the
//! kernel must answer: the kernel's verdict equals the oracle's on every frame. It needs no
//! privileges and no kernel, and its clock is the caller's.
//!
//! ```
//! use xdpgate::{Policy, Reason, Verdict, oracle::Oracle};
//!
//! let policy = Policy::builder().build()?;
//! let mut oracle = Oracle::new(&policy);
//! let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[0x08, 0x06], &[0; 28]].concat();
//! let said = oracle.evaluate(&arp, jiff::Timestamp::UNIX_EPOCH, Some("eth0"));
//! assert_eq!((said.verdict, said.reason), (Verdict::Pass, Reason::NonIp));
//! # Ok::<(), xdpgate::PolicyError>(())
//! ```

mod entries;
mod failsafe;
mod matching;
mod rate;

use globset::GlobMatcher;
use jiff::Timestamp;

use crate::management::Management;
use crate::packet::{Packet, Parsed};
use crate::policy::{Action, Mode, Policy, Prefix, Rule, SetName};
use crate::verdict::{Evaluation, Reason};
use crate::{Verdict, policy::RuleId};

use entries::EntryCounts;
pub use entries::EntryHits;
use rate::Budgets;

/// Judges frames by a policy, one rule after the other. Holds the rate-limit budgets and the
/// counters, which frames change.
#[derive(Debug)]
pub struct Oracle<'p> {
    policy: &'p Policy,
    rules: Vec<State>,
    entries: EntryCounts<'p>,
    management: Vec<Management>,
}

/// What the oracle keeps for one rule.
#[derive(Debug, Default)]
struct State {
    interfaces: Vec<GlobMatcher>,
    budgets: Budgets,
    hits: RuleHits,
}

/// What a rule has matched: frames for which it decided, in either way, or was asked and went on
/// (`count`, monitor mode).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RuleHits {
    /// Frames.
    pub packets: u64,
    /// Bytes of these frames, from the Ethernet header on.
    pub bytes: u64,
    /// Frames of these that a rule in monitor mode would have dropped.
    pub would_drop: u64,
}

/// A frame's surroundings: what is not in its bytes, or only in their number.
#[derive(Debug, Clone, Copy)]
struct Arrival<'a> {
    bytes: usize,
    at: Timestamp,
    interface: Option<&'a str>,
}

impl<'p> Oracle<'p> {
    /// An oracle for the policy, with full rate-limit budgets.
    pub fn new(policy: &'p Policy) -> Self {
        let state = |rule: &Rule| State {
            interfaces: rule
                .interfaces
                .iter()
                .filter_map(|glob| Some(globset::Glob::new(glob).ok()?.compile_matcher()))
                .collect(),
            ..State::default()
        };
        Self {
            policy,
            rules: policy.rules().iter().map(state).collect(),
            entries: EntryCounts::default(),
            management: Vec::new(),
        }
    }

    /// Management traffic of the host that passes before any rule, as with
    /// [`CompileOptions::management`](crate::compile::CompileOptions::management).
    #[must_use]
    pub fn management(mut self, of_host: impl Into<Vec<Management>>) -> Self {
        self.management = of_host.into();
        self
    }

    /// Judges a frame that arrives `at` this time on this interface. Without an interface, rules
    /// that name any do not match.
    ///
    /// Rate limits assume that time does not go backwards; if it does, it stands still for them.
    pub fn evaluate(&mut self, frame: &[u8], at: Timestamp, interface: Option<&str>) -> Evaluation {
        self.judge(&Parsed::from_frame(frame), frame.len(), at, interface)
    }

    /// Judges a frame that was parsed before; `bytes` is the length of the frame.
    pub fn judge(
        &mut self,
        parsed: &Parsed,
        bytes: usize,
        at: Timestamp,
        interface: Option<&str>,
    ) -> Evaluation {
        match parsed {
            Parsed::NonIp => decide(Verdict::Pass, Reason::NonIp),
            Parsed::VlanDepth => decide(self.policy.malformed(), Reason::VlanDepth),
            Parsed::Malformed => decide(self.policy.malformed(), Reason::Malformed),
            Parsed::Ip(packet) => self.judge_packet(
                packet,
                Arrival {
                    bytes,
                    at,
                    interface,
                },
            ),
        }
    }

    /// Rules that would match the packet but for one thing, in evaluation order, up to `most`: a part of the match by its name in a
    /// policy (`dport`, ...), or `enabled`, `expires` or `interfaces`. For people who ask why a rule did not match.
    ///
    /// ```
    /// use xdpgate::packet::Parsed;
    /// use xdpgate::{Policy, oracle::Oracle};
    ///
    /// let policy = Policy::from_yaml("
    /// version: 1
    /// rules: [{ id: web, match: { src: 203.0.113.0/24, protocol: 17 }, action: drop }]
    /// ")?;
    /// let ipv4 = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6, 0, 0, 203, 0, 113, 7, 198, 51, 100, 1];
    /// let frame = [&[2; 12][..], &[8, 0], &ipv4].concat();
    /// let Parsed::Ip(packet) = Parsed::from_frame(&frame) else { panic!() };
    /// let near = Oracle::new(&policy).near(&packet, jiff::Timestamp::UNIX_EPOCH, None, 10);
    /// assert_eq!(near.len(), 1);
    /// assert_eq!((near[0].0.as_str(), near[0].1), ("web", "protocol"));
    /// # Ok::<(), xdpgate::PolicyError>(())
    /// ```
    pub fn near(
        &self,
        packet: &Packet,
        at: Timestamp,
        interface: Option<&str>,
        most: usize,
    ) -> Vec<(&'p RuleId, &'static str)> {
        let one = |(rule, state): (&'p Rule, &State)| {
            let mut missed = matching::misses(&rule.matches, packet, self.policy.sets(), at);
            let on = |i: &str| state.interfaces.iter().any(|g| g.is_match(i));
            let there = rule.interfaces.is_empty() || interface.is_some_and(on);
            missed.extend((!rule.enabled).then_some("enabled"));
            missed.extend(rule.expires.is_some_and(|e| at >= e).then_some("expires"));
            missed.extend((!there).then_some("interfaces"));
            match missed[..] {
                [only] => Some((&rule.id, only)),
                _ => None,
            }
        };
        let rules = self.policy.rules().iter().zip(&self.rules);
        rules.filter_map(one).take(most).collect()
    }

    /// What every rule has matched so far, in evaluation order.
    pub fn hits(&self) -> impl Iterator<Item = (&'p RuleId, RuleHits)> + '_ {
        self.policy
            .rules()
            .iter()
            .map(|r| &r.id)
            .zip(self.rules.iter().map(|s| s.hits))
    }

    /// What rules have matched by each entry of a set so far: those that have matched anything,
    /// sorted. Nothing for a set without `counters: entry`.
    pub fn entry_hits(&self, set: &SetName) -> Vec<(Prefix, EntryHits)> {
        self.entries.of(set)
    }

    fn judge_packet(&mut self, packet: &Packet, arrival: Arrival<'_>) -> Evaluation {
        if failsafe::passes(self.policy.failsafe(), &self.management, packet) {
            return decide(Verdict::Pass, Reason::Failsafe);
        }
        let mut monitored = Vec::new();
        let mut entries = self.entries.of_packet(self.policy, packet, arrival);
        for (rule, state) in self.policy.rules().iter().zip(&mut self.rules) {
            if !applies(rule, state, arrival)
                || !matching::holds(&rule.matches, packet, self.policy.sets(), arrival.at)
            {
                continue;
            }
            entries.count(&rule.matches);
            state.hits.packets += 1;
            state.hits.bytes += arrival.bytes as u64;
            if rule.mode == Mode::Monitor {
                let would_drop = match &rule.action {
                    Action::Drop => true,
                    Action::RateLimit(limit) => {
                        let budgets = &mut state.budgets;
                        !budgets.take(limit, packet.src, arrival.bytes, arrival.at)
                    }
                    Action::Pass | Action::Count => false,
                };
                state.hits.would_drop += u64::from(would_drop);
                monitored.push(rule.id.clone());
                continue;
            }
            let (verdict, reason) = match &rule.action {
                Action::Count => continue,
                Action::Pass => (Verdict::Pass, Reason::Rule),
                Action::Drop => (Verdict::Drop, Reason::Rule),
                Action::RateLimit(limit) => {
                    if state
                        .budgets
                        .take(limit, packet.src, arrival.bytes, arrival.at)
                    {
                        (Verdict::Pass, Reason::Rule)
                    } else {
                        (Verdict::Drop, Reason::RateLimit)
                    }
                }
            };
            return Evaluation {
                verdict,
                reason,
                rule: Some(rule.id.clone()),
                monitored,
            };
        }
        let (verdict, reason) = if packet.malformed {
            (self.policy.malformed(), Reason::Malformed)
        } else {
            (self.policy.default_verdict(), Reason::Default)
        };
        Evaluation {
            verdict,
            reason,
            rule: None,
            monitored,
        }
    }
}

/// A verdict that came about before any rule was asked.
fn decide(verdict: Verdict, reason: Reason) -> Evaluation {
    Evaluation {
        verdict,
        reason,
        rule: None,
        monitored: Vec::new(),
    }
}

/// Whether the rule is there at all for a frame of this time and interface.
fn applies(rule: &Rule, state: &State, arrival: Arrival<'_>) -> bool {
    rule.enabled
        && rule.expires.is_none_or(|expires| arrival.at < expires)
        && (rule.interfaces.is_empty()
            || arrival
                .interface
                .is_some_and(|i| state.interfaces.iter().any(|g| g.is_match(i))))
}
