//! The thread that watches: reads what the kernel tells, decides, attaches.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::super::attach::{AttachMode, ModePreference};
use super::super::attacher::{Attacher, Held};
use super::super::error::AttachError;
use super::super::firewall::lock;
use super::super::ifindex::IfIndex;
use super::super::metrics::OVERRUNS;
use super::AutoAttachOptions;
use super::decide::{Decision, SkipReason};
use super::events::{AutoEvent, Resync};
use super::interface::Interface;
use super::known::{self, Shared, count};
use super::netlink::{Message, Netlink, Received};
use super::reconcile::{Action, reconcile};
use super::selector::Rules;
use super::wake::{Asked, Request, Wake};

pub(super) struct Watcher {
    pub attacher: Arc<Attacher>,
    pub rules: Rules,
    pub options: AutoAttachOptions,
    pub shared: Arc<Shared>,
    netlink: Netlink,
    /// Interfaces that went since the last time that all was brought in line: whatever has their
    /// number now is another one.
    gone: BTreeSet<IfIndex>,
    /// When the first message of an interface that is not attached yet was read.
    told: BTreeMap<IfIndex, Instant>,
    next_scan: Option<Instant>,
    /// Why each interface would be refused by itself, so that one message among thousands of
    /// interfaces costs little. Not kept if the rules ask for masters.
    refusals: BTreeMap<IfIndex, Option<SkipReason>>,
}

/// Datagrams that are read before what they say is acted upon.
const BATCH: usize = 64;
/// How often a dump is made anew because interfaces came or went meanwhile.
const DUMPS: usize = 5;
/// Scans leave time for others: each makes the kernel describe all interfaces.
const LEAST_PAUSE: Duration = Duration::from_millis(100);
/// When a scan that failed or was disturbed is made again.
const SOON: Duration = Duration::from_secs(1);

impl Watcher {
    /// Listens, then looks at all interfaces, so that none falls in between, and attaches what is
    /// to be attached.
    pub(super) fn start(
        attacher: Arc<Attacher>,
        rules: Rules,
        options: AutoAttachOptions,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let netlink = Netlink::open(rules.family, options.receive_buffer)?;
        // Whoever watches anew wants what they select.
        attacher.take_all_back();
        let mut watcher = Self {
            attacher,
            rules,
            options,
            shared,
            netlink,
            gone: BTreeSet::new(),
            told: BTreeMap::new(),
            next_scan: None,
            refusals: BTreeMap::new(),
        };
        watcher.scan()?;
        Ok(watcher)
    }

    /// Watches until it is told to stop.
    pub(super) fn run(mut self, wake: &Wake) {
        loop {
            if let Err(errno) = self.wait(wake) {
                log::error!("interfaces are not watched any more: poll: {errno}");
                return;
            }
            match wake.asked() {
                Asked::Nothing => {}
                Asked::Stop => return,
                Asked::Select(request) => {
                    let Request {
                        rules,
                        options,
                        done,
                    } = *request;
                    let _ = done.send(self.select(rules, options));
                }
            }
            let result = match self.listen() {
                Ok(Heard::Overrun) => {
                    count(&self.shared.counters.overruns);
                    metrics::counter!(OVERRUNS.name).increment(1);
                    let overruns = self.shared.counters.overruns.load(Ordering::Relaxed);
                    log::warn!(
                        overruns;
                        "messages about interfaces were lost: all interfaces are looked at"
                    );
                    self.rescan(Resync::Overrun)
                }
                Ok(Heard::News) => {
                    self.converge(false);
                    Ok(())
                }
                Ok(Heard::Nothing) => Ok(()),
                Err(error) => Err(error),
            };
            let result = match self.next_scan {
                Some(due) if Instant::now() >= due => result.and(self.rescan(Resync::Timer)),
                _ => result,
            };
            if let Err(error) = result {
                log::warn!("looking at all interfaces failed, again in {SOON:?}: {error}");
                self.scan_by(Instant::now() + SOON);
                // Not at once, for an error that stays.
                wake.pause(SOON);
            }
        }
    }

    /// Selects by other rules from now on, and brings all in line with them. On error all is as it
    /// was.
    fn select(&mut self, rules: Rules, options: AutoAttachOptions) -> io::Result<()> {
        let netlink = Netlink::open(rules.family, options.receive_buffer)?;
        let former = (
            std::mem::replace(&mut self.netlink, netlink),
            std::mem::replace(&mut self.rules, rules),
            std::mem::replace(&mut self.options, options),
        );
        self.refusals.clear();
        if !self.rules.drivers.is_empty() {
            // Nobody asked for them before.
            let mut known = lock(&self.shared.known);
            for interface in known.seen.values_mut().filter(|i| i.driver.is_none()) {
                self.netlink.describe(interface);
            }
        }
        self.scan().map(drop).inspect_err(|_| {
            (self.netlink, self.rules, self.options) = former;
            self.refusals.clear();
            self.scan_by(Instant::now() + SOON);
        })
    }

    /// Waits for news, for the next scan, or until something is asked.
    fn wait(&self, wake: &Wake) -> Result<(), Errno> {
        let timeout = match self.next_scan {
            None => PollTimeout::NONE,
            // In whole milliseconds, and not before it is due.
            Some(due) => {
                let left = due.saturating_duration_since(Instant::now());
                let left = left.saturating_add(Duration::from_millis(1));
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        };
        let listening = self.netlink.listening();
        let mut files =
            [listening.as_fd(), wake.event.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut files, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Takes in what was told, but not more than a batch.
    fn listen(&mut self) -> io::Result<Heard> {
        let mut heard = Heard::Nothing;
        let mut addresses_changed = false;
        for _ in 0..BATCH {
            let messages = match self.netlink.receive()? {
                Received::Nothing => break,
                Received::Overrun => return Ok(Heard::Overrun),
                Received::Messages(messages) => messages,
            };
            for message in messages {
                count(&self.shared.counters.messages);
                match message {
                    Message::Link(interface) => {
                        if self.learn(*interface) {
                            heard = Heard::News;
                        }
                    }
                    Message::Gone(ifindex) => {
                        self.forget(ifindex);
                        heard = Heard::News;
                    }
                    Message::Address => addresses_changed = true,
                }
            }
        }
        if addresses_changed && self.learn_addresses()? {
            heard = Heard::News;
        }
        Ok(heard)
    }

    /// Takes in an interface; says whether that is news.
    fn learn(&mut self, mut interface: Interface) -> bool {
        let ifindex = interface.ifindex;
        let before = lock(&self.shared.known).seen.get(&ifindex).cloned();
        // No interface changes its kind: it is another one, and the end of the first was missed.
        let before = before.filter(|b| {
            let is_same = b.kind == interface.kind;
            if !is_same {
                self.forget(ifindex);
            }
            is_same
        });
        match &before {
            // What is asked for separately stays as it was.
            Some(before) => {
                interface.driver.clone_from(&before.driver);
                if interface.parent.is_none() {
                    interface.parent.clone_from(&before.parent);
                }
                (interface.ipv4, interface.ipv6) = (before.ipv4, before.ipv6);
            }
            None => {
                self.told.entry(ifindex).or_insert_with(Instant::now);
                if interface.kind.is_none() || !self.rules.drivers.is_empty() {
                    self.netlink.describe(&mut interface);
                }
            }
        }
        if before.as_ref() == Some(&interface) {
            return false;
        }
        if let Some(before) = before.filter(|b| b.name != interface.name)
            && !self.attacher.is_attached(ifindex)
        {
            // Its slot goes on when it is attached again.
            self.attacher.rename(ifindex, &before.name, &interface.name);
        }
        let mut known = lock(&self.shared.known);
        // Something of it changed: it may be attachable now.
        known.failed.remove(&ifindex);
        self.refusals.remove(&ifindex);
        known.seen.insert(ifindex, interface);
        true
    }

    fn forget(&mut self, ifindex: IfIndex) {
        let mut known = lock(&self.shared.known);
        known.seen.remove(&ifindex);
        known.failed.remove(&ifindex);
        known.decisions.remove(&ifindex);
        self.told.remove(&ifindex);
        self.refusals.remove(&ifindex);
        self.gone.insert(ifindex);
        // Whatever gets its number is another one.
        self.attacher.take_back(ifindex);
    }

    /// Looks which interfaces have an address; says whether that is news.
    fn learn_addresses(&mut self) -> io::Result<bool> {
        let Some(family) = self.rules.family else {
            return Ok(false);
        };
        let with_address: BTreeSet<IfIndex> =
            self.netlink.with_address(family)?.into_iter().collect();
        let mut known = lock(&self.shared.known);
        let mut changed = false;
        for (ifindex, interface) in &mut known.seen {
            let has = with_address.contains(ifindex);
            let field = match family {
                super::Family::Ipv4 => &mut interface.ipv4,
                super::Family::Ipv6 => &mut interface.ipv6,
            };
            if *field != has {
                *field = has;
                changed = true;
                self.refusals.remove(ifindex);
            }
        }
        Ok(changed)
    }

    /// Looks at all interfaces and tries again what failed; says so if something had to be done.
    fn rescan(&mut self, why: Resync) -> io::Result<()> {
        let did_something = self.scan()?;
        if did_something || why == Resync::Overrun {
            self.send(AutoEvent::Resynced { why });
        }
        Ok(())
    }

    fn scan(&mut self) -> io::Result<bool> {
        let started = Instant::now();
        count(&self.shared.counters.rescans);
        let every = self.options.rescan_every.max(LEAST_PAUSE);
        self.next_scan = started.checked_add(every);
        let mut dump = None;
        for _ in 0..DUMPS {
            // What was told so far is older than what is asked now.
            self.netlink.discard()?;
            let links = self.netlink.links()?;
            let interrupted = links.interrupted;
            dump = Some(links);
            if !interrupted {
                break;
            }
        }
        let dump = dump.expect("at least one dump");
        if dump.interrupted {
            self.scan_by(started + SOON);
        }
        self.take_over(dump.interfaces, dump.interrupted);
        self.learn_addresses()?;
        lock(&self.shared.known).failed.clear();
        Ok(self.converge(true))
    }

    /// Makes what is known what was found. If some may be missing, none is taken for gone.
    fn take_over(&mut self, found: Vec<Interface>, some_may_be_missing: bool) {
        let there: BTreeSet<IfIndex> = found.iter().map(|i| i.ifindex).collect();
        if !some_may_be_missing {
            let known = lock(&self.shared.known);
            let gone: Vec<IfIndex> = known
                .seen
                .keys()
                .filter(|i| !there.contains(i))
                .copied()
                .collect();
            drop(known);
            for ifindex in gone {
                self.forget(ifindex);
            }
        }
        for interface in found {
            self.learn(interface);
        }
    }

    fn scan_by(&mut self, due: Instant) {
        self.next_scan = Some(self.next_scan.map_or(due, |next| next.min(due)));
    }

    /// Brings what is attached in line with what is known. After a scan, `verify` asks the kernel
    /// what has become of each link; says whether there was anything to do.
    fn converge(&mut self, verify: bool) -> bool {
        let held = self.held(verify);
        // After it: what is detached in between still counts as attached.
        let released = self.attacher.released();
        self.gone.clear();
        let (actions, events) = {
            let mut known = lock(&self.shared.known);
            let mut decisions =
                known::decide_from(&self.rules, &mut self.refusals, &known.seen, &held);
            let attached: BTreeSet<IfIndex> = held.iter().map(|h| h.ifindex).collect();
            for released in released.difference(&attached) {
                if let Some(decision) = decisions.get_mut(released)
                    && *decision == Decision::Attach
                {
                    *decision = Decision::Skip(SkipReason::DetachedByHand);
                }
            }
            let actions = reconcile(&decisions, &known.seen, &held);
            let events = known.skipped(&decisions);
            known.decisions = decisions;
            (actions, events)
        };
        for event in events {
            self.send(event);
        }
        let mut did_something = false;
        for action in actions {
            did_something |= self.act(action);
        }
        did_something
    }

    fn held(&self, verify: bool) -> Vec<Held> {
        let mut held = self.attacher.held(verify);
        let known = lock(&self.shared.known);
        for held in &mut held {
            held.alive &= !self.gone.contains(&held.ifindex);
            // The link lives, but on an interface that went away while messages were lost: the one
            // that has its number now runs nothing.
            if verify && let Some(interface) = known.seen.get(&held.ifindex) {
                held.alive &= interface.program_id.is_some();
            }
        }
        held
    }

    fn act(&mut self, action: Action) -> bool {
        let counters = &self.shared.counters;
        match action {
            Action::Rename { ifindex, from, to } => {
                self.attacher.rename(ifindex, &from, &to);
                count(&counters.renamed);
                log::info!(
                    interface = to.as_str(), ifindex = ifindex.get();
                    "{from}: is named {to} now"
                );
                self.send(AutoEvent::Renamed { ifindex, from, to });
                true
            }
            Action::Detach(ifindex, why) => {
                let Some(attachment) = self.attacher.release_automatic(ifindex) else {
                    return false;
                };
                count(&counters.detached);
                self.send(AutoEvent::Detached { attachment, why });
                true
            }
            Action::Attach(ifindex) => self.attach(ifindex),
        }
    }

    fn attach(&mut self, ifindex: IfIndex) -> bool {
        if lock(&self.shared.known).failed.contains_key(&ifindex) {
            return false;
        }
        let counters = &self.shared.counters;
        let told = self.told.remove(&ifindex).unwrap_or_else(Instant::now);
        match self
            .attacher
            .attach_automatically(ifindex, self.mode(ifindex))
        {
            Ok(attachment) => {
                count(&counters.attached);
                let took = told.elapsed();
                self.send(AutoEvent::Attached { attachment, took });
            }
            // It went already, and the message that says so is on its way.
            Err(AttachError::NoSuchInterface(_)) => {
                log::debug!("interface {ifindex} went before it was attached");
            }
            // By somebody else, just now.
            Err(AttachError::AlreadyAttached { .. }) => {}
            Err(error) => self.failed(ifindex, error),
        }
        true
    }

    /// The modes that an attachment may have.
    ///
    /// A bond in native mode (since 5.15) hands the program to its members, and frames say that they
    /// came in by those: they would count, and match rules, as of interfaces that are not attached.
    fn mode(&self, ifindex: IfIndex) -> ModePreference {
        let known = lock(&self.shared.known);
        let is_bond = known
            .seen
            .get(&ifindex)
            .is_some_and(|i| i.is_kind(&["bond"]));
        match self.options.mode {
            ModePreference::BestAvailable if is_bond => {
                ModePreference::Exactly(AttachMode::Generic)
            }
            mode => mode,
        }
    }

    fn failed(&mut self, ifindex: IfIndex, error: AttachError) {
        count(&self.shared.counters.failed);
        let error = Arc::new(error);
        let mut known = lock(&self.shared.known);
        known.failed.insert(ifindex, Arc::clone(&error));
        let interface = known.seen.get(&ifindex).map(|i| i.name.clone());
        drop(known);
        log::warn!(
            interface = interface.as_deref(), ifindex = ifindex.get();
            "not attached: {error}"
        );
        self.send(AutoEvent::Failed {
            ifindex,
            interface: interface.unwrap_or_default(),
            error,
        });
    }

    fn send(&self, event: AutoEvent) {
        self.shared.listeners.send(&event);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Nothing,
    News,
    Overrun,
}
