//! What ends a rollout.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a rollout may do to the nodes that it reached before it is rolled back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Gates {
    /// How many nodes may refuse the version.
    pub max_refused: u32,
    /// How many nodes may lose their control link after they got it.
    pub max_lost: u32,
    /// How many nodes may say that something is broken.
    pub max_unhealthy: u32,
    /// How many nodes may drop more than `drop_ratio_factor` allows.
    pub max_dropping: u32,
    /// Likewise in percent of the nodes that the rollout has reached; the greater of both counts. So one number is right for a
    /// canary and for a large stage.
    pub max_refused_percent: f64,
    /// Likewise.
    pub max_lost_percent: f64,
    /// Likewise.
    pub max_unhealthy_percent: f64,
    /// Likewise.
    pub max_dropping_percent: f64,
    /// The share of frames that a node drops may be so many times what it was before it got the version.
    pub drop_ratio_factor: f64,
    /// A share of dropped frames up to this is never too much, whatever it was before.
    pub drop_ratio_floor: f64,
    /// A node is judged by its drops once it has seen so many frames with the version.
    pub drop_ratio_frames: u64,
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            max_refused: 0,
            max_lost: 0,
            max_unhealthy: 0,
            max_dropping: 0,
            max_refused_percent: 0.0,
            // Some of many nodes always start anew.
            max_lost_percent: 1.0,
            max_unhealthy_percent: 0.0,
            max_dropping_percent: 0.0,
            drop_ratio_factor: 3.0,
            drop_ratio_floor: 0.05,
            drop_ratio_frames: 1000,
        }
    }
}

/// What was seen of the nodes that the rollout has reached.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Observed {
    /// How many are reached and were there when they were.
    pub reached: u64,
    /// How many of them have the version.
    pub applied: u64,
    /// How many have not answered yet.
    pub pending: u64,
    /// How many are reached and were not there before: they get it when they return, and hold nothing up.
    pub offline: u64,
    /// Those that refused it: how many, and one with its reason.
    pub refused: Seen,
    /// Those whose link was lost after they got it.
    pub lost: Seen,
    /// Those that say that something is broken.
    pub unhealthy: Seen,
    /// Those that drop too much: see [`Gates::drops_too_much`].
    pub dropping: Seen,
}

/// How many nodes, and one of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Seen {
    /// How many.
    pub count: u64,
    /// One of them, and what it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub example: Option<String>,
}

/// The gate that ends a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Trouble {
    /// The gate, by its key.
    pub gate: String,
    /// How many nodes there are beyond it.
    pub seen: Seen,
    /// How many it allows.
    pub allowed: u64,
}

impl Gates {
    /// The first gate that is closed.
    pub(super) fn trouble(&self, observed: &Observed) -> Option<Trouble> {
        let reached = observed.reached as f64;
        [
            (
                "max_refused",
                &observed.refused,
                self.max_refused,
                self.max_refused_percent,
            ),
            (
                "max_lost",
                &observed.lost,
                self.max_lost,
                self.max_lost_percent,
            ),
            (
                "max_unhealthy",
                &observed.unhealthy,
                self.max_unhealthy,
                self.max_unhealthy_percent,
            ),
            (
                "max_dropping",
                &observed.dropping,
                self.max_dropping,
                self.max_dropping_percent,
            ),
        ]
        .into_iter()
        .map(|(gate, seen, most, percent)| {
            let share = (reached * percent / 100.0) as u64;
            (gate, seen, u64::from(most).max(share))
        })
        .find(|(_, seen, allowed)| seen.count > *allowed)
        .map(|(gate, seen, allowed)| Trouble {
            gate: gate.to_owned(),
            seen: seen.clone(),
            allowed,
        })
    }

    /// What is wrong with them, if anything: the field, and why.
    pub(super) fn fault(&self) -> Option<(&'static str, String)> {
        let (factor, floor) = (self.drop_ratio_factor, self.drop_ratio_floor);
        if !(factor.is_finite() && factor >= 1.0) {
            let text = format!("{factor}: a number of 1 or more is expected");
            return Some(("gates.drop_ratio_factor", text));
        }
        for (field, percent) in [
            ("gates.max_refused_percent", self.max_refused_percent),
            ("gates.max_lost_percent", self.max_lost_percent),
            ("gates.max_unhealthy_percent", self.max_unhealthy_percent),
            ("gates.max_dropping_percent", self.max_dropping_percent),
        ] {
            if !(0.0..=100.0).contains(&percent) {
                return Some((field, format!("{percent}: 0 to 100 is expected")));
            }
        }
        if !(0.0..=1.0).contains(&floor) {
            let text = format!("{floor}: a share from 0 to 1 is expected");
            return Some(("gates.drop_ratio_floor", text));
        }
        None
    }

    /// Whether a node whose share of dropped frames went from `before` to `now` drops too much.
    pub fn drops_too_much(&self, before: f64, now: f64) -> bool {
        now > self.drop_ratio_floor && now > before * self.drop_ratio_factor
    }
}

impl Seen {
    /// Counts a node.
    pub fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        self.example.get_or_insert_with(example);
    }

    /// What another controller saw of other nodes.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        if self.example.is_none() {
            self.example.clone_from(&other.example);
        }
    }
}

impl Observed {
    /// What another controller saw, of other nodes.
    pub fn merge(&mut self, other: &Self) {
        self.reached += other.reached;
        self.applied += other.applied;
        self.pending += other.pending;
        self.offline += other.offline;
        self.refused.merge(&other.refused);
        self.lost.merge(&other.lost);
        self.unhealthy.merge(&other.unhealthy);
        self.dropping.merge(&other.dropping);
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            gate,
            seen,
            allowed,
        } = self;
        write!(f, "{gate}: {} nodes, {allowed} are allowed", seen.count)?;
        match &seen.example {
            Some(example) => write!(f, ": {example}"),
            None => Ok(()),
        }
    }
}
