//! How a rollout begins.

use jiff::Timestamp;

use super::change::What;
use super::{Plan, PlanError, Reach, Rollout, State};

/// What a rollout is made of.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "as the fields of the record")]
pub struct Start<'a> {
    pub id: &'a str,
    pub policy: &'a str,
    pub from: u64,
    pub to: u64,
    pub plan: &'a Plan,
    pub by: &'a str,
    pub why: &'a str,
    pub now: Timestamp,
}

impl Rollout {
    /// Begins at the first stage, over these nodes, which have the policy.
    ///
    /// # Errors
    /// The plan cannot be followed, or names a node that is none of these.
    pub fn start<'a>(
        start: &Start<'_>,
        nodes: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<Self, PlanError> {
        start.plan.check()?;
        let stages = start.plan.resolve(start.id, nodes.clone());
        let known: std::collections::HashSet<&str> = nodes.collect();
        for (place, stage) in stages.iter().enumerate() {
            let Reach::Nodes(named) = &stage.reach else {
                continue;
            };
            let field = format!("stages[{place}].reach");
            if named.is_empty() {
                let reason = "no node has the policy: change it without a rollout".to_owned();
                return Err(PlanError { field, reason });
            }
            if let Some(other) = named.iter().find(|node| !known.contains(node.as_str())) {
                let reason = format!("{other} is no node that has policy {}", start.policy);
                return Err(PlanError { field, reason });
            }
        }
        let mut rollout = Self {
            id: start.id.to_owned(),
            version: 1,
            policy: start.policy.to_owned(),
            from: start.from,
            to: start.to,
            stages,
            gates: start.plan.gates.clone(),
            state: State::Running,
            in_force: true,
            stage: 0,
            since: start.now,
            paused_at: None,
            reason: None,
            events: Vec::new(),
            events_left_out: 0,
        };
        rollout.note(start.now, start.by, What::Started, start.why, None);
        Ok(rollout)
    }
}
