//! Audit lines of what nobody asked for: a change that was not confirmed in time.

use xdpgate::{AtDeadline, Firewall, Generation, RolledBack};

use super::access;

/// Writes a line for each such change, those of the start included.
pub(super) fn audit(firewall: &Firewall) {
    firewall.on_deadline(|done| match done {
        AtDeadline::TakenBack { generation, back } => taken_back("deadline", *generation, back),
        AtDeadline::Opened { generation, reason } => {
            let (who, what, outcome) = ("deadline", "SetMode pass", "ok");
            let (generation, why) = (generation.get(), &**reason);
            log::info!(
                target: access::AUDIT, who, what, outcome, generation, why;
                "generation {generation} cannot be taken back"
            );
        }
        _ => {}
    });
}

/// A line that says from which generation to which it went.
pub(super) fn taken_back(who: &str, from: Generation, back: &RolledBack) {
    let (what, generation) = match back {
        RolledBack::Policy(applied) => {
            let what = format!("RollbackPolicy of generation {from}");
            (what, applied.generation)
        }
        RolledBack::Enforcement(mode) => (format!("SetMode {mode}"), from),
        _ => return,
    };
    let (what, outcome, generation) = (&*what, "ok", generation.get());
    log::info!(target: access::AUDIT, who, what, outcome, generation; "not confirmed");
}
