//! A rollout made ready to be asked about many nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Rollout, Stage};
use crate::domain::{Labels, Selector};

/// A rollout with its selectors parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Reached {
    rollout: Arc<Rollout>,
    selectors: BTreeMap<String, Selector>,
}

/// How many nodes a stage reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StageNodes {
    /// The stage.
    pub stage: Stage,
    /// How many nodes have the new version from it on.
    pub nodes: usize,
    /// How many of them are new in it.
    pub more: usize,
}

impl Reached {
    /// Parses what is to be parsed. A selector that cannot be read chooses nobody: the start refused it.
    pub fn new(rollout: Arc<Rollout>) -> Self {
        let texts = rollout
            .stages
            .iter()
            .filter_map(|stage| match &stage.reach {
                super::Reach::Selector(text) => Some((text.clone(), text.parse().ok()?)),
                _ => None,
            });
        let selectors = texts.collect();
        Self { rollout, selectors }
    }

    /// The record.
    pub fn rollout(&self) -> &Arc<Rollout> {
        &self.rollout
    }

    /// Whether a node has the new version.
    pub fn reaches(&self, node: &str, labels: &Labels) -> bool {
        self.rollout
            .reaches(node, |text| self.selects(text, labels))
    }

    /// The version that a node has.
    pub fn version(&self, node: &str, labels: &Labels) -> u64 {
        match self.reaches(node, labels) {
            true => self.rollout.to,
            false => self.rollout.from,
        }
    }

    /// How many of these nodes each stage reaches.
    pub fn preview<'a>(
        &self,
        nodes: impl Iterator<Item = (&'a str, &'a Labels)>,
    ) -> Vec<StageNodes> {
        let stages = &self.rollout.stages;
        let mut more = vec![0; stages.len()];
        for (node, labels) in nodes {
            let selects = |text: &str| self.selects(text, labels);
            let holds = |stage: &Stage| stage.reach.holds(&self.rollout.id, node, &selects);
            if let Some(first) = stages.iter().position(holds) {
                more[first] += 1;
            }
        }
        let mut nodes = 0;
        let counted = stages.iter().zip(more).map(|(stage, more)| {
            nodes += more;
            StageNodes {
                stage: stage.clone(),
                nodes,
                more,
            }
        });
        counted.collect()
    }

    fn selects(&self, text: &str, labels: &Labels) -> bool {
        let selector = self.selectors.get(text);
        selector.is_some_and(|selector| selector.holds(labels))
    }
}
