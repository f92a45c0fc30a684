//! What rollouts ask of the sessions.

use super::{Delivery, Fate, Fleet, NodeStatus, Target};
use crate::rollout::{Answer, Observer, Sight};

impl Observer for Fleet {
    fn sights(&self, policy: &str) -> Vec<Sight> {
        let targets = self.0.targets();
        let of = |target: &Target| {
            let policies = &target.desired.as_deref()?.policies;
            let found = policies.iter().find(|(name, _)| name.as_str() == policy);
            found.map(|(_, version)| *version)
        };
        targets
            .nodes
            .iter()
            .filter_map(|(id, target)| {
                let version = of(target)?;
                // Those that were never here are the business of whoever has them.
                let known = self.0.known(id)?;
                Some(sight(self.0.status(&known, target), version))
            })
            .collect()
    }
}

fn sight(status: NodeStatus, version: u64) -> Sight {
    let counts = status.numbers.iter().flat_map(|numbers| &numbers.counts);
    let frames = |dropped: bool| {
        let rows = counts.clone();
        let rows = rows.filter(|row| !dropped || row.fate != Fate::Pass);
        rows.map(|row| row.count.packets).sum()
    };
    Sight {
        version: Some(version),
        online: status.connected_since.is_some(),
        answer: match &status.delivery {
            Delivery::Applied => Answer::Applied,
            Delivery::Refused { error, .. } => Answer::Refused(error.clone()),
            Delivery::Pending { .. } | Delivery::Offline => Answer::Pending,
        },
        frames: frames(false),
        dropped: frames(true),
        broken: status.numbers.as_ref().and_then(|n| n.broken.clone()),
        node: status.node,
    }
}
