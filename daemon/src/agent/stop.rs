//! What is left to do when the daemon ends.

use xdpgate::{Firewall, RollbackError};

use super::deadline;

/// Takes back what nobody has confirmed: nobody would keep its deadline until the next start.
pub(super) fn take_back(firewall: &Firewall) {
    // Once more for each change that was on its way when this looked.
    loop {
        // First: what the deadline takes back from here on is not rolled back once more.
        let in_force = firewall.generation().unwrap_or_default();
        let Some(pending) = firewall.pending() else {
            return;
        };
        let generation = pending.generation.get();
        match firewall.rollback_from(in_force) {
            Ok(back) => {
                log::warn!(
                    generation;
                    "what waits for its confirmation is taken back, because the daemon ends"
                );
                deadline::taken_back("stop", pending.generation, &back);
                return;
            }
            Err(RollbackError::Generation { .. }) => {}
            Err(error) => {
                log::error!(
                    generation;
                    "what waits for its confirmation stays in force until the next start: {error}"
                );
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::thread;
    use std::time::{Duration, Instant};

    use xdpgate::{ApplyOptions, Policy};

    use super::*;

    /// One that takes its time.
    fn large() -> Policy {
        let mut text = "version: 1\nrules:\n".to_owned();
        for n in 0..4000 {
            let (high, low) = (n / 250, n % 250);
            let address = format!("198.{}.{high}.{low}", 18);
            let _ = writeln!(
                text,
                "  - {{ id: r{n}, match: {{ src: {address}, dst: 192.0.2.{low} }}, action: drop }}"
            );
        }
        Policy::from_yaml(&text).expect("a policy")
    }

    #[test]
    fn r110_a_change_that_is_on_its_way_at_the_end_is_taken_back() {
        let (firewall, _) = Firewall::loader().rehearse();
        let first = Policy::from_yaml("version: 1\n").expect("a policy");
        firewall.apply(&first).expect("room");
        let large = large();
        thread::scope(|scope| {
            let change = scope.spawn(|| {
                let options = ApplyOptions::default().confirm_within(Duration::from_secs(600));
                firewall.apply_with(&large, options).expect("room")
            });
            let started = Instant::now();
            while firewall.pending().is_none() {
                assert!(started.elapsed() < Duration::from_secs(20));
                thread::yield_now();
            }
            take_back(&firewall);
            change.join().expect("no panic");
        });
        assert_eq!(firewall.pending(), None);
        assert_eq!(*firewall.policy().expect("a policy"), first);
    }
}
