//! The stages of a rollout: as they are asked for, and as the record has them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use xxhash_rust::xxh3::xxh3_64;

use super::Gates;
use crate::domain::{Name, Selector, Touch};

/// The most stages of a plan.
pub const MAX_STAGES: usize = 20;
/// The most nodes that a stage names.
pub const MAX_CANARIES: usize = 1000;
/// The longest time that a stage bakes, in seconds: 30 days.
const MAX_BAKE: u32 = 30 * 24 * 3600;

/// A stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Which nodes have the new version from this stage on.
    pub reach: Reach,
    /// How long all of them must have had it, and be well, before the next stage, in seconds.
    #[serde(default)]
    pub bake_seconds: u32,
}

/// Which nodes a stage reaches, beside those of the stages before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// These nodes, by their ids, sorted: the canary, also where a number was asked for.
    Nodes(Vec<String>),
    /// So many percent, the same ones as long as the rollout lasts; nodes that join meanwhile included.
    Percent(u8),
    /// Those whose labels a selector chooses, as `zone=a`.
    Selector(String),
    /// Every node.
    All,
}

/// How a rollout shall go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The stages; the last one reaches all.
    pub stages: Vec<PlannedStage>,
    /// What ends it.
    #[serde(default)]
    pub gates: Gates,
}

/// A plan that is kept under a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamedPlan {
    /// The name; `default` is what counts where none is named.
    pub name: Name,
    /// Grows with each change; for `expect`.
    pub version: u64,
    /// The plan.
    pub plan: Plan,
    /// Who changed it last.
    pub updated: Touch,
}

/// A stage as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlannedStage {
    /// Which nodes have the new version from this stage on.
    pub reach: Planned,
    /// How long all of them must have had it, and be well, before the next stage, in seconds.
    #[serde(default)]
    pub bake_seconds: u32,
}

/// Which nodes a stage shall reach, beside those of the stages before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Planned {
    /// So many nodes, chosen by chance when the rollout starts.
    Count(u32),
    /// These nodes, by their ids.
    Nodes(Vec<String>),
    /// So many percent.
    Percent(u8),
    /// Those whose labels a selector chooses.
    Selector(String),
    /// Every node.
    All,
}

/// Why a plan was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct PlanError {
    /// The field, as `stages[1].reach`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Default for Plan {
    /// One node for 5 minutes, a tenth for 10 minutes, half of them, all.
    fn default() -> Self {
        let stage = |reach, bake_seconds| PlannedStage {
            reach,
            bake_seconds,
        };
        Self {
            stages: vec![
                stage(Planned::Count(1), 300),
                stage(Planned::Percent(10), 600),
                stage(Planned::Percent(50), 0),
                stage(Planned::All, 0),
            ],
            gates: Gates::default(),
        }
    }
}

impl Plan {
    /// Whether it can be followed.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn check(&self) -> Result<(), PlanError> {
        if let Some((field, reason)) = self.gates.fault() {
            let field = field.to_owned();
            return Err(PlanError { field, reason });
        }
        let stages = self.stages.len();
        if !(1..=MAX_STAGES).contains(&stages) {
            return Err(PlanError {
                field: "stages".to_owned(),
                reason: format!("{stages} stages: 1 to {MAX_STAGES} are expected"),
            });
        }
        let mut percent = 0;
        for (place, stage) in self.stages.iter().enumerate() {
            let refuse = |field: &str, reason: String| {
                Err(PlanError {
                    field: format!("stages[{place}].{field}"),
                    reason,
                })
            };
            if stage.bake_seconds > MAX_BAKE {
                let text = format!("{}: at most {MAX_BAKE} (30 days)", stage.bake_seconds);
                return refuse("bake_seconds", text);
            }
            if let Some(reason) = stage.reach.fault(&mut percent) {
                return refuse("reach", reason);
            }
            let reaches_all = matches!(stage.reach, Planned::All | Planned::Percent(100));
            match place + 1 == stages {
                true if !reaches_all => {
                    return refuse(
                        "reach",
                        "the last stage must reach all: write all".to_owned(),
                    );
                }
                false if reaches_all => {
                    return refuse("reach", "it reaches all, so it must be the last".to_owned());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The stages of a rollout over these nodes: numbers become the first so many of them by [`rank`].
    pub(super) fn resolve<'a>(
        &self,
        rollout: &str,
        nodes: impl Iterator<Item = &'a str>,
    ) -> Vec<Stage> {
        let counts = self.stages.iter().filter_map(|stage| match stage.reach {
            Planned::Count(count) => Some(count as usize),
            _ => None,
        });
        // A number counts from the first node, so each such stage has the nodes of those with smaller numbers.
        let most = counts.max().unwrap_or(0);
        let mut first = BTreeSet::new();
        for node in nodes {
            first.insert((rank(rollout, node), node));
            if first.len() > most {
                first.pop_last();
            }
        }
        let reach = |planned: &Planned| match planned {
            Planned::Count(count) => {
                let chosen = first.iter().take(*count as usize);
                sorted(chosen.map(|(_, node)| (*node).to_owned()))
            }
            Planned::Nodes(nodes) => sorted(nodes.iter().cloned()),
            Planned::Percent(100) | Planned::All => Reach::All,
            Planned::Percent(percent) => Reach::Percent(*percent),
            Planned::Selector(selector) => Reach::Selector(selector.clone()),
        };
        let stages = self.stages.iter().map(|stage| Stage {
            reach: reach(&stage.reach),
            bake_seconds: stage.bake_seconds,
        });
        stages.collect()
    }
}

fn sorted(nodes: impl Iterator<Item = String>) -> Reach {
    let nodes: BTreeSet<_> = nodes.collect();
    Reach::Nodes(nodes.into_iter().collect())
}

impl Planned {
    /// What is wrong with it; `percent` is that of the stages before.
    fn fault(&self, percent: &mut u8) -> Option<String> {
        match self {
            Self::Count(0) => Some("0 nodes prove nothing: write 1 or more".to_owned()),
            Self::Count(count) if *count as usize > MAX_CANARIES => Some(format!(
                "{count} nodes: at most {MAX_CANARIES}, write a percentage"
            )),
            Self::Nodes(nodes) if nodes.is_empty() || nodes.len() > MAX_CANARIES => Some(format!(
                "{} nodes: 1 to {MAX_CANARIES} are expected",
                nodes.len()
            )),
            Self::Percent(p) if !(1..=100).contains(p) => {
                Some(format!("{p} percent: 1 to 100 is expected"))
            }
            Self::Percent(p) if *p <= *percent => Some(format!(
                "{p} percent after {percent} percent: each must be more than the one before"
            )),
            Self::Percent(p) => {
                *percent = *p;
                None
            }
            Self::Selector(text) => match text.parse::<Selector>() {
                Ok(_) => None,
                Err(error) => Some(error.to_string()),
            },
            Self::Count(_) | Self::Nodes(_) | Self::All => None,
        }
    }
}

impl Reach {
    pub(super) fn holds(&self, rollout: &str, node: &str, selects: &impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Nodes(nodes) => nodes.binary_search_by(|n| n.as_str().cmp(node)).is_ok(),
            Self::Percent(percent) => {
                // Of 2^64 places the first so many percent.
                let limit = u128::from(*percent) * (1 << 64) / 100;
                u128::from(rank(rollout, node)) < limit
            }
            Self::Selector(selector) => selects(selector),
            Self::All => true,
        }
    }
}

/// The place of a node in the order in which a rollout reaches nodes: the same on every controller, another one for
/// each rollout, so that it is not always the same nodes that go first.
pub fn rank(rollout: &str, node: &str) -> u64 {
    xxh3_64(format!("{rollout}/{node}").as_bytes())
}
