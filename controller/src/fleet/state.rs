//! What the controller knows of a node, in one word, and what its numbers are worth.
//!
//! The states, the first that holds:
//!
//! | state | when | its numbers |
//! |---|---|---|
//! | `revoked` | its certificate is revoked | none |
//! | `maintenance` | an operator has put it in maintenance | as old as they are |
//! | `never_connected` | it is registered, and has never been here | none |
//! | `offline` | three heartbeats did not come | none |
//! | `draining` | it was told to dial another controller | as old as they are |
//! | `connecting` | it has a session, and has not yet sent a heartbeat in it | none |
//! | `stale` | a heartbeat did not come, or its session is broken | as old as they are |
//! | `drifted` | it has something else in force than it acknowledged | fresh |
//! | `refused` | it has refused what it shall have | fresh |
//! | `unassigned` | nothing is assigned to it and nothing was, so it keeps its own policy | fresh |
//! | `fresh` | none of these | fresh |
//!
//! Only a fresh number counts in sums. So a zero is shown only where a fresh heartbeat said zero; where none
//! has, there is no number. `of` says of how many nodes a sum is.

use serde::{Deserialize, Serialize};

use crate::domain::NodeRecord;

/// See the table above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is registered, and has never been here.
    NeverConnected,
    /// It has a session, and has not yet sent a heartbeat in it.
    Connecting,
    /// All is well.
    Fresh,
    /// A heartbeat did not come, or its session is broken.
    Stale,
    /// Three heartbeats did not come.
    Offline,
    /// It has refused what it shall have.
    Refused,
    /// It has something else in force than it acknowledged.
    Drifted,
    /// Nothing is assigned to it, and it keeps its own policy.
    Unassigned,
    /// It was told to dial another controller.
    Draining,
    /// An operator has put it in maintenance.
    Maintenance,
    /// Its certificate is revoked.
    Revoked,
}

/// What the state of a node is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    /// Its certificate is revoked.
    pub revoked: bool,
    /// An operator has put it in maintenance.
    pub maintenance: bool,
    /// It was here once.
    pub known: bool,
    /// Too many of its heartbeats did not come.
    pub offline: bool,
    /// It was told to dial another controller.
    pub draining: bool,
    /// It has a session now.
    pub session: bool,
    /// A heartbeat has come in that session, or in the last one if there is none.
    pub beat: bool,
    /// How many heartbeats are missed.
    pub missed: u32,
    /// It has something else in force than it acknowledged.
    pub drifted: bool,
    /// It has refused what it shall have.
    pub refused: bool,
    /// Nothing is assigned to it, and the fleet has never given it a policy.
    pub unassigned: bool,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::NeverConnected,
        Self::Connecting,
        Self::Fresh,
        Self::Stale,
        Self::Offline,
        Self::Refused,
        Self::Drifted,
        Self::Unassigned,
        Self::Draining,
        Self::Maintenance,
        Self::Revoked,
    ];

    /// All of them, the one that asks for most attention first.
    pub const WORST: [Self; 11] = [
        Self::Offline,
        Self::Drifted,
        Self::Refused,
        Self::Stale,
        Self::Connecting,
        Self::Draining,
        Self::Fresh,
        Self::Unassigned,
        Self::NeverConnected,
        Self::Maintenance,
        Self::Revoked,
    ];

    /// Of a node that no controller has a session of; `was_there`: one that is gone had it last.
    pub(super) fn absent(record: &NodeRecord, was_there: bool) -> Self {
        Self::of(&Facts {
            revoked: record.revoked,
            maintenance: record.maintenance,
            known: was_there,
            offline: was_there,
            ..Facts::default()
        })
    }

    /// The first that holds.
    pub fn of(facts: &Facts) -> Self {
        match *facts {
            Facts { revoked: true, .. } => Self::Revoked,
            Facts {
                maintenance: true, ..
            } => Self::Maintenance,
            Facts {
                known: false,
                session: false,
                ..
            } => Self::NeverConnected,
            Facts { offline: true, .. } => Self::Offline,
            Facts { draining: true, .. } => Self::Draining,
            Facts {
                session: true,
                beat: false,
                ..
            } => Self::Connecting,
            Facts { session: false, .. } | Facts { missed: 1.., .. } => Self::Stale,
            Facts { drifted: true, .. } => Self::Drifted,
            Facts { refused: true, .. } => Self::Refused,
            Facts {
                unassigned: true, ..
            } => Self::Unassigned,
            _ => Self::Fresh,
        }
    }
}

impl Facts {
    /// Whether the numbers of its last heartbeat are those of now, and so count in sums.
    pub fn is_authoritative(&self) -> bool {
        self.session && self.beat && self.missed == 0 && !self.offline && !self.revoked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r88_each_state_of_the_table_and_what_its_numbers_are_worth() {
        let well = Facts {
            known: true,
            session: true,
            beat: true,
            ..Facts::default()
        };
        let table = [
            (Facts::default(), State::NeverConnected, false),
            (
                Facts {
                    session: true,
                    ..Facts::default()
                },
                State::Connecting,
                false,
            ),
            (
                Facts {
                    beat: false,
                    ..well
                },
                State::Connecting,
                false,
            ),
            (well, State::Fresh, true),
            (Facts { missed: 1, ..well }, State::Stale, false),
            (
                Facts {
                    session: false,
                    ..well
                },
                State::Stale,
                false,
            ),
            (
                Facts {
                    offline: true,
                    missed: 3,
                    ..well
                },
                State::Offline,
                false,
            ),
            (
                Facts {
                    offline: true,
                    session: false,
                    ..well
                },
                State::Offline,
                false,
            ),
            (
                Facts {
                    drifted: true,
                    refused: true,
                    ..well
                },
                State::Drifted,
                true,
            ),
            (
                Facts {
                    refused: true,
                    ..well
                },
                State::Refused,
                true,
            ),
            (
                Facts {
                    unassigned: true,
                    ..well
                },
                State::Unassigned,
                true,
            ),
            (
                Facts {
                    unassigned: true,
                    refused: true,
                    ..well
                },
                State::Refused,
                true,
            ),
            (
                Facts {
                    unassigned: true,
                    offline: true,
                    ..well
                },
                State::Offline,
                false,
            ),
            (
                Facts {
                    refused: true,
                    missed: 2,
                    ..well
                },
                State::Stale,
                false,
            ),
            (
                Facts {
                    draining: true,
                    ..well
                },
                State::Draining,
                true,
            ),
            (
                Facts {
                    draining: true,
                    offline: true,
                    ..well
                },
                State::Offline,
                false,
            ),
            (
                Facts {
                    maintenance: true,
                    ..well
                },
                State::Maintenance,
                true,
            ),
            (
                Facts {
                    maintenance: true,
                    ..Facts::default()
                },
                State::Maintenance,
                false,
            ),
            (
                Facts {
                    revoked: true,
                    maintenance: true,
                    ..well
                },
                State::Revoked,
                false,
            ),
        ];
        for (facts, state, counts) in table {
            assert_eq!(State::of(&facts), state, "{facts:?}");
            assert_eq!(facts.is_authoritative(), counts, "{facts:?}");
        }
        for state in State::ALL {
            assert!(
                table.iter().any(|row| row.1 == state),
                "{state:?} is not in the table"
            );
        }
    }
}
