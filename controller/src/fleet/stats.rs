//! What is known of nodes, one by one and together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::counters::{self, Beat};
use super::elsewhere::{Others, Part, Place};
use super::health::Seen;
use super::node::{self, mode_number};
use super::{
    Count, Desired, Fate, Fleet, Inner, Node, NodeId, Rates, Reason, RuleRow, Sample, State, Steps,
    Target, lock,
};
use crate::domain::Name;

/// Rules in an overview, and in one that others are added to: a rule may be among the first of all and of none of them.
const TOP: (usize, usize) = (20, 200);

/// What became of what a node shall have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "delivery")]
pub enum Delivery {
    /// It is in force.
    Applied,
    /// The node refused it, and has what it had before.
    Refused {
        /// Why.
        reason: Reason,
        /// In one line.
        error: String,
    },
    /// The node is here and has not answered.
    Pending {
        /// For longer than it should take.
        overdue: bool,
    },
    /// The node is not here.
    Offline,
    /// Nothing is assigned to the node and nothing was: it keeps its own policy.
    Unassigned,
}

/// What is known of one node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeStatus {
    /// Its identity.
    pub node: NodeId,
    /// How it is, in one word.
    pub state: State,
    /// What became of what it shall have.
    #[serde(flatten)]
    pub delivery: Delivery,
    /// The address that its session comes from; absent without one.
    pub address: Option<SocketAddr>,
    /// Since when.
    pub connected_since: Option<jiff::Timestamp>,
    /// The version of its daemon; empty if it was never here, as all texts below.
    pub version: String,
    /// What it calls itself.
    pub host_name: String,
    /// As uname -r.
    pub kernel: String,
    /// As uname -m.
    pub machine: String,
    /// The hash of the policy that it has in force, as far as is known.
    pub has: Option<String>,
    /// The hash of what it shall have; absent if nothing could be made for it yet.
    pub wanted: Option<String>,
    /// The number of the last state that it acknowledged, 0 for none.
    pub sequence: u64,
    /// How often it had something else in force than it acknowledged.
    pub drift: u32,
    /// Whether pass mode was set at the node (`xdpgate panic-off`): it drops nothing until that is taken back there.
    pub panic_off: bool,
    /// How many heartbeats are missed.
    pub missed: u32,
    /// Whether it comes and goes so often that it must hold for longer.
    pub flapping: bool,
    /// How many seconds ago the last heartbeat came.
    pub heartbeat_age: Option<f64>,
    /// Whether the numbers below are those of now. If not, they are of its last heartbeat, and absent if there was none.
    pub fresh: bool,
    /// Its numbers.
    pub numbers: Option<Numbers>,
}

/// The numbers of a heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Numbers {
    /// Frames since its daemon started, by reason and what became of them.
    pub counts: Vec<Row>,
    /// Its rates, if it knows them yet.
    pub rates: Option<Rates>,
    /// The rules with the most hits.
    pub top_rules: Vec<RuleRow>,
    /// Attached interfaces.
    pub attached: u32,
    /// What is broken.
    pub broken: Option<String>,
    /// Why its disk is behind what is in force.
    pub not_saved: Option<String>,
    /// Bans in force.
    pub bans: u64,
    /// Rules in force.
    pub rules: u64,
    /// Entries in force.
    pub entries: u64,
}

/// Frames of one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Why.
    pub reason: String,
    /// What became of them.
    pub fate: Fate,
    /// How many.
    #[serde(flatten)]
    pub count: Count,
}

/// The fleet, or a group of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// How many nodes there are.
    pub nodes: u32,
    /// How many are online.
    pub online: u32,
    /// Of how many the numbers are those of now: the sums below are of these.
    pub fresh: u32,
    /// How many nodes are in each state; states in which none is are there with 0.
    pub states: BTreeMap<State, u32>,
    /// The state of all: the worst of any node that is not in maintenance; absent without nodes.
    pub state: Option<State>,
    /// How many have in force what they shall have.
    pub applied: u32,
    /// How often any node had something else in force than it acknowledged.
    pub drift: u64,
    /// At how many nodes pass mode was set: they drop nothing until it is taken back there.
    pub panic_off: u32,
    /// Frames over all nodes since this controller began to count, by reason and what became of them: they never go back.
    /// Only of the whole fleet; absent as long as no heartbeat has come.
    pub counts: Option<Vec<Row>>,
    /// The sum of the rates; absent if no fresh heartbeat said any.
    pub rates: Option<Rates>,
    /// Of how many nodes `rates` is.
    pub rates_of: u32,
    /// The rules with the most hits over these nodes.
    pub top_rules: Vec<RuleRow>,
    /// The sum of bans in force; absent without a fresh heartbeat.
    pub bans: Option<u64>,
}

impl Delivery {
    pub(super) fn of(node: &node::Inner, desired: Option<&Desired>) -> Self {
        let Some(desired) = desired else {
            return match node.link {
                Some(_) => Self::Pending { overdue: false },
                None => Self::Offline,
            };
        };
        if node.has(desired) {
            return Self::Applied;
        }
        if node.keeps_own(desired) {
            return Self::Unassigned;
        }
        let mode = mode_number(desired.mode);
        if let Some(refusal) = node.refused(desired.hash, mode)
            && node.sent.is_none()
        {
            let error = refusal.error.to_string();
            return Self::Refused {
                reason: refusal.reason,
                error,
            };
        }
        match (&node.link, &node.sent) {
            (None, _) => Self::Offline,
            (_, sent) => Self::Pending {
                overdue: sent.is_some_and(|sent| sent.overdue),
            },
        }
    }
}

impl Fleet {
    /// What is known of a node; `None` if there is none of this identity.
    pub fn status(&self, node: &NodeId) -> Option<NodeStatus> {
        let targets = self.0.targets();
        let target = targets.get(node)?;
        let place = self.0.place(node, &Others::default());
        let known = match &place {
            Place::Here(known) => Arc::clone(known),
            _ => Arc::new(Node::new(node.clone())),
        };
        let mut status = self.0.status(&known, &target);
        if matches!(place, Place::Gone) {
            status.state = State::absent(target.record, true);
        }
        Some(status)
    }

    /// How a node is, in one word, what became of what it shall have, and whether pass mode was set there.
    pub fn state(&self, node: &NodeId) -> Option<(State, Delivery, bool)> {
        let status = self.status(node)?;
        Some((status.state, status.delivery, status.panic_off))
    }

    /// The whole fleet, as it is or was up to a second ago.
    pub fn overview(&self) -> Arc<Overview> {
        self.0.recent()
    }

    /// The nodes of a group; `None` if there is no such group. Looks at every node.
    pub fn overview_of(&self, group: &Name) -> Option<Overview> {
        self.sum(Some(group), &Part::default())
    }

    /// Some of the nodes, or those of them that are in a group; `None` if there is no such group. Looks at every node of the part.
    pub fn sum(&self, group: Option<&Name>, part: &Part) -> Option<Overview> {
        let Some(group) = group else {
            return Some(self.0.overview(part));
        };
        let targets = self.0.targets();
        let group = targets.view.groups().get(group)?;
        let holds = |target: &Target| group.selector.holds(&target.record.labels());
        Some(self.0.overview_where(part, holds))
    }

    /// Takes over the history that another controller has, as far as it is older than that of this one.
    pub fn take_history(&self, fine: Vec<Sample>, coarse: Vec<Sample>) {
        lock(&self.0.history).take(fine, coarse);
    }

    /// Adds to the history how all nodes are. From then on nobody else does.
    pub fn sample(&self, overview: &Overview) {
        self.0.is_sampled.store(true, Ordering::Relaxed);
        self.0.sample(overview);
    }

    /// The rates of the last hour, or day, the oldest first.
    pub fn history(&self, steps: Steps) -> Vec<Sample> {
        lock(&self.0.history).samples(steps)
    }
}

impl Inner {
    pub(super) fn state(&self, node: &node::Inner, target: &Target<'_>) -> (State, bool) {
        let missed = node.health.missed(Instant::now(), &self.config.health);
        let facts = node.facts(target.record.revoked, target.record.maintenance, missed);
        (State::of(&facts), facts.is_authoritative())
    }

    pub(super) fn status(&self, known: &Node, target: &Target<'_>) -> NodeStatus {
        let node = known.lock();
        let now = Instant::now();
        let demands = &self.config.health;
        let (state, fresh) = self.state(&node, target);
        let about = node.about.as_ref();
        let text = |of: fn(&node::About) -> &Arc<str>| {
            about.map(|a| of(a).to_string()).unwrap_or_default()
        };
        let last = node.health.last();
        NodeStatus {
            node: known.id.clone(),
            state,
            delivery: Delivery::of(&node, target.desired.map(Arc::as_ref)),
            address: node.link.as_ref().and_then(|link| link.address),
            connected_since: node.link.as_ref().map(|link| link.since),
            version: text(|about| &about.version),
            host_name: text(|about| &about.host_name),
            kernel: text(|about| &about.kernel),
            machine: text(|about| &about.machine),
            has: node.held.hash.map(|hash| hash.to_string()),
            wanted: target.desired.map(|desired| desired.hash.to_string()),
            sequence: node.held.sequence,
            drift: node.drift,
            panic_off: node.panic_off,
            missed: node.health.missed(now, demands),
            flapping: node.health.is_damped(now, demands),
            heartbeat_age: last.map(|at| now.duration_since(at).as_secs_f64()),
            fresh,
            numbers: last.map(|_| Numbers::of(&node.beat)),
        }
    }

    pub(super) fn overview(&self, part: &Part) -> Overview {
        let mut overview = self.overview_where(part, |_| true);
        let totals = lock(&self.totals).rows();
        let row = |((reason, fate), count)| Row {
            reason,
            fate,
            count,
        };
        overview.counts = (!totals.is_empty()).then(|| totals.into_iter().map(row).collect());
        overview
    }

    fn overview_where(&self, part: &Part, holds: impl Fn(&Target<'_>) -> bool) -> Overview {
        let targets = self.targets();
        let mut overview = Overview {
            nodes: 0,
            online: 0,
            fresh: 0,
            states: State::ALL.into_iter().map(|state| (state, 0)).collect(),
            state: None,
            applied: 0,
            drift: 0,
            panic_off: 0,
            counts: None,
            rates: None,
            rates_of: 0,
            top_rules: Vec::new(),
            bans: None,
        };
        // A copy of what is summed, so that no heartbeat waits for the sums.
        let mut beats = Vec::new();
        let nodes = self.nodes_of(&targets, part);
        for (_, target, place) in nodes.filter(|(_, target, _)| holds(target)) {
            overview.nodes += 1;
            let mut of_state = |state| *overview.states.entry(state).or_default() += 1;
            let known = match place {
                Place::Here(known) => known,
                Place::Gone | Place::Nowhere => {
                    let was_there = matches!(place, Place::Gone);
                    of_state(State::absent(target.record, was_there));
                    continue;
                }
                // Who answers for it says its state.
                Place::Answered | Place::Silent => continue,
            };
            let node = known.lock();
            let (state, fresh) = self.state(&node, &target);
            of_state(state);
            overview.online += u32::from(node.health.seen() == Seen::Online);
            overview.applied += u32::from(target.desired.is_some_and(|desired| node.has(desired)));
            overview.drift += u64::from(node.drift);
            overview.panic_off += u32::from(node.panic_off);
            if fresh {
                overview.fresh += 1;
                *overview.bans.get_or_insert(0) += node.beat.bans;
                if let Some(rates) = &node.beat.rates {
                    overview.rates_of += 1;
                    overview.rates.get_or_insert_default().add(rates);
                }
                beats.push(node.beat.top.clone());
            }
        }
        overview.state = overview.worst();
        let limit = match part {
            Part::Own => TOP.1,
            Part::Rest(_) => TOP.0,
        };
        overview.top_rules = counters::top_rules(beats.iter(), limit);
        overview
    }
}

impl Overview {
    fn worst(&self) -> Option<State> {
        let there = |state: &State| self.states.get(state).is_some_and(|count| *count > 0);
        State::WORST.into_iter().find(there)
    }

    /// With what another controller says of its own nodes, which are among `nodes` already.
    pub fn join(mut self, other: Self) -> Self {
        self.online += other.online;
        self.fresh += other.fresh;
        for (state, count) in other.states {
            *self.states.entry(state).or_default() += count;
        }
        self.state = self.worst();
        self.applied += other.applied;
        self.drift += other.drift;
        self.panic_off += other.panic_off;
        if let Some(rows) = other.counts {
            let sums = self.counts.get_or_insert_default();
            for row in rows {
                match sums.iter_mut().find(|sum| sum.is_of(&row)) {
                    Some(sum) => sum.count.add(&row.count),
                    None => sums.push(row),
                }
            }
            sums.sort_by(|a, b| (&a.reason, a.fate).cmp(&(&b.reason, b.fate)));
        }
        if let Some(rates) = other.rates {
            self.rates.get_or_insert_default().add(&rates);
        }
        self.rates_of += other.rates_of;
        self.top_rules.extend(other.top_rules);
        self.top_rules = counters::joined(std::mem::take(&mut self.top_rules), TOP.1);
        if let Some(bans) = other.bans {
            *self.bans.get_or_insert(0) += bans;
        }
        self
    }

    /// With as many rules as one that is shown.
    pub fn short(mut self) -> Self {
        self.top_rules.truncate(TOP.0);
        self
    }
}

impl Row {
    fn is_of(&self, other: &Self) -> bool {
        (&self.reason, self.fate) == (&other.reason, other.fate)
    }
}

impl Numbers {
    fn of(beat: &Beat) -> Self {
        let rows = beat.counts.iter().map(|((reason, fate), count)| Row {
            reason: reason.to_string(),
            fate: *fate,
            count: *count,
        });
        Self {
            counts: rows.collect(),
            rates: beat.rates,
            top_rules: counters::top_rules([&beat.top].into_iter(), TOP.0),
            attached: beat.attached,
            broken: beat.broken.as_ref().map(|text| text.to_string()),
            not_saved: beat.not_saved.as_ref().map(|text| text.to_string()),
            bans: beat.bans,
            rules: beat.rules,
            entries: beat.entries,
        }
    }
}
