//! Whether the kernel still holds the policy that was written, and putting it right.

use std::sync::Arc;
use std::time::Duration;

use xdpgate::{Firewall, HealthError};

use super::Node;

/// A mistake in the kernel's memory lasts no longer than this.
const EVERY: Duration = Duration::from_secs(15);

/// Looks again and again, with a controller or without one, as long as there is a fleet.
pub(super) async fn watch(node: &Arc<Node>) {
    loop {
        tokio::time::sleep(EVERY).await;
        if node.settings.borrow().controllers.is_empty() {
            continue;
        }
        let target = node.target();
        let looked = Arc::clone(&target);
        let found = tokio::task::spawn_blocking(move || look(&looked.firewall)).await;
        match found {
            Ok(Found::Well) => node.status.memory(None),
            Ok(Found::Repaired(what)) => {
                node.status.repaired();
                node.status.memory(None);
                log::error!("fleet: {what}: the policy is published anew");
            }
            Ok(Found::Wrong(what)) => {
                log::error!("fleet: {what}");
                node.status.memory(Some(what));
            }
            Err(error) => log::error!("fleet: looking at the policy did not end well: {error}"),
        }
        node.status.tell(&target.held());
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Well,
    /// What was wrong.
    Repaired(String),
    /// What is wrong and stays so.
    Wrong(String),
}

fn look(firewall: &Firewall) -> Found {
    let wrong = match firewall.verify() {
        Err(error) => return Found::Wrong(error.to_string()),
        Ok(verified) => match verified.and_then(|verified| verified.altered) {
            Some(altered) => format!("{altered} in the kernel is not what was written"),
            None => match firewall.health() {
                Err(error @ HealthError::NotJudging { .. }) => error.to_string(),
                _ => return Found::Well,
            },
        },
    };
    match firewall.republish() {
        Ok(_) => Found::Repaired(wrong),
        Err(error) => Found::Wrong(format!("{wrong}, and it cannot be published anew: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use xdpgate::Policy;

    use super::*;

    #[test]
    fn what_is_well_is_left_alone() {
        let (firewall, _) = Firewall::loader().rehearse();
        assert_eq!(look(&firewall), Found::Well);
        firewall.apply(&Policy::default()).expect("room");
        assert_eq!(look(&firewall), Found::Well);
        assert_eq!(firewall.generation().map(|g| g.get()), Some(1));
    }
}
