//! What is done to the record of a rollout, and its history.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Observed, Rollout, State, Trouble};

/// So many events are kept: as many as stages and pauses make, and the first and the last ones of more.
pub const MAX_EVENTS: usize = 100;
/// The first so many stay, whatever comes.
const KEPT_FIRST: usize = 20;
/// The longest text of an event, in bytes.
const MAX_TEXT: usize = 500;

/// Something that happened to a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// When.
    #[schema(value_type = String, format = "date-time")]
    pub at: Timestamp,
    /// Who did it: a user or token, or `rollout` where it went by itself.
    pub by: String,
    /// What.
    pub what: What,
    /// The stage in which it is from then on, from 0.
    pub stage: usize,
    /// Why; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What was seen of the nodes, where that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It began, with the first stage.
    Started,
    /// It went on to the next stage.
    Advanced,
    /// All nodes have the new version.
    Finished,
    /// A gate ended it.
    RolledBack,
    /// It waits.
    Paused,
    /// It goes on.
    Resumed,
    /// Somebody ended it.
    Aborted,
    /// The policy was released anew, so it does not hold nodes at the former version any more.
    Released,
}

/// What can be done to a rollout that has begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It waits; nodes keep what they have.
    Pause,
    /// It goes on where it was; the time of the pause does not count as baking.
    Resume,
    /// All nodes get the former version.
    Abort,
    /// The next stage, from this one.
    Advance(usize, Observed),
    /// The end, after this last stage.
    Finish(usize, Observed),
    /// All nodes get the former version, because of a gate.
    RollBack(Trouble, Observed),
    /// It ended with the former version, which it does not hold nodes at any more.
    Release,
}

impl What {
    /// As the word of an audit entry.
    pub fn word(self) -> &'static str {
        match self {
            Self::Started => "start",
            Self::Advanced => "advance",
            Self::Finished => "finish",
            Self::RolledBack => "roll_back",
            Self::Paused => "pause",
            Self::Resumed => "resume",
            Self::Aborted => "abort",
            Self::Released => "release",
        }
    }
}

impl Rollout {
    /// Makes a change, and notes it. Says whether there was anything to do.
    ///
    /// # Errors
    /// It cannot be made as the rollout is, and why.
    pub fn change(
        &mut self,
        change: &Change,
        by: &str,
        why: &str,
        now: Timestamp,
    ) -> Result<bool, String> {
        let state = self.state;
        let over = |verb: &str| {
            let how = match state {
                State::Done => "it is done",
                State::Aborted => "it was aborted",
                State::RolledBack => "it was rolled back",
                State::Running | State::Paused => return None,
            };
            Some(format!("{how}, so it cannot {verb}"))
        };
        match change {
            Change::Pause => {
                if let Some(reason) = over("be paused") {
                    return Err(reason);
                }
                if state == State::Paused {
                    return Ok(false);
                }
                self.state = State::Paused;
                self.paused_at = Some(now);
                self.reason = Some(short(why)).filter(|why| !why.is_empty());
                self.note(now, by, What::Paused, why, None);
            }
            Change::Resume => {
                if let Some(reason) = over("be resumed") {
                    return Err(reason);
                }
                if state == State::Running {
                    return Ok(false);
                }
                self.state = State::Running;
                if let Some(at) = self.paused_at.take() {
                    // A clock that was set back makes no stage longer than it was.
                    let paused = now.duration_since(at).max(jiff::SignedDuration::ZERO);
                    self.since = (self.since + paused).min(now);
                }
                self.reason = None;
                self.note(now, by, What::Resumed, why, None);
            }
            Change::Abort => {
                if state == State::Aborted {
                    return Ok(false);
                }
                if let Some(reason) = over("be aborted") {
                    return Err(reason);
                }
                self.end(
                    State::Aborted,
                    Some(short(why)).filter(|why| !why.is_empty()),
                );
                self.note(now, by, What::Aborted, why, None);
            }
            Change::Advance(from, observed) => {
                self.runs_in(*from)?;
                if from + 1 >= self.stages.len() {
                    return Err("there is no further stage".to_owned());
                }
                self.stage = from + 1;
                self.since = now;
                self.note(now, by, What::Advanced, why, Some(observed));
            }
            Change::Finish(from, observed) => {
                self.runs_in(*from)?;
                if from + 1 != self.stages.len() {
                    return Err(format!("stage {} is not the last one", from + 1));
                }
                self.end(State::Done, None);
                self.note(now, by, What::Finished, why, Some(observed));
            }
            Change::RollBack(trouble, observed) => {
                self.runs_in(self.stage)?;
                let reason = short(&trouble.to_string());
                self.end(State::RolledBack, Some(reason.clone()));
                self.note(now, by, What::RolledBack, &reason, Some(observed));
            }
            Change::Release => {
                if self.is_active() {
                    return Err("it goes on: abort it first".to_owned());
                }
                if !self.in_force {
                    return Ok(false);
                }
                self.in_force = false;
                self.note(now, by, What::Released, why, None);
            }
        }
        self.version += 1;
        Ok(true)
    }

    fn end(&mut self, state: State, reason: Option<String>) {
        self.state = state;
        self.in_force = state != State::Done;
        self.paused_at = None;
        self.reason = reason;
    }

    fn runs_in(&self, stage: usize) -> Result<(), String> {
        match self.state == State::Running && self.stage == stage {
            true => Ok(()),
            false => Err(format!("it does not run in stage {}", stage + 1)),
        }
    }

    pub(super) fn note(
        &mut self,
        at: Timestamp,
        by: &str,
        what: What,
        reason: &str,
        observed: Option<&Observed>,
    ) {
        if self.events.len() >= MAX_EVENTS {
            self.events.remove(KEPT_FIRST);
            self.events_left_out += 1;
        }
        self.events.push(Event {
            at,
            by: by.to_owned(),
            what,
            stage: self.stage,
            reason: short(reason),
            observed: observed.cloned(),
        });
    }
}

/// A text of a length that a record may have.
pub(super) fn short(text: &str) -> String {
    let fits = |end: &usize| *end <= MAX_TEXT && text.is_char_boundary(*end);
    let end = (0..=text.len().min(MAX_TEXT)).rev().find(fits);
    text[..end.unwrap_or(0)].to_owned()
}
