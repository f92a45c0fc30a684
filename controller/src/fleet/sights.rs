//! What rollouts ask of the sessions.

use super::counters::Fate;
use super::health::Seen;
use super::stats::Delivery;
use super::{Fleet, node};
use crate::rollout::{Answer, Observer, Sight};

impl Observer for Fleet {
    fn sights(&self, policy: &str) -> Vec<Sight> {
        let targets = self.0.targets();
        let sights = self.0.all().into_iter().filter_map(|known| {
            let desired = targets.get(&known.id)?.desired?;
            let mut policies = desired.policies.iter();
            let (_, version) = policies.find(|(name, _)| name.as_str() == policy)?;
            let node = known.lock();
            let (frames, dropped) = drops(&node);
            Some(Sight {
                node: known.id.clone(),
                online: node.link.is_some() && node.health.seen() != Seen::Offline,
                version: Some(*version),
                answer: match Delivery::of(&node, Some(desired)) {
                    Delivery::Applied => Answer::Applied,
                    Delivery::Refused { error, .. } => Answer::Refused(error),
                    Delivery::Pending { .. } | Delivery::Offline | Delivery::Unassigned => {
                        Answer::Pending
                    }
                },
                broken: node.beat.broken.as_deref().map(str::to_owned),
                frames,
                dropped,
            })
        });
        sights.collect()
    }
}

/// Frames of the last heartbeat, and how many of them were dropped or would have been.
fn drops(node: &node::Inner) -> (u64, u64) {
    let mut sums = (0_u64, 0_u64);
    for ((_, fate), count) in &node.beat.counts {
        sums.0 = sums.0.saturating_add(count.packets);
        if *fate != Fate::Pass {
            sums.1 = sums.1.saturating_add(count.packets);
        }
    }
    sums
}
