//! Putting in force what the fleet says, or nothing of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ed25519_dalek::VerifyingKey;
use prost::Message;
use xdpgate::policy::{AddressSetBuilder, Atomicity, Change, PolicyHash, Rule};
use xdpgate::{
    ApplyError, ApplyOptions, Enforcement, Firewall, Generation, Policy, TransactionError,
};
use xdpgate_api::fleet::v1::{
    self, Delta, Rules, Snapshot, State, change::Change as Is, result::Reason,
};
use xdpgate_api::v1::{Mode, SetEntries};

use super::chunks::Chunks;
use super::decide::{Held, Refusal};
use super::files::Files;
use crate::agent::{convert, fault};

/// The firewall of a node, and the states that it has had. What is called here takes its time.
#[derive(Debug)]
pub(super) struct Target {
    pub firewall: Arc<Firewall>,
    files: Files,
    /// One state at a time, also if a session ends while one is put in force.
    turn: Mutex<()>,
    held: Mutex<Held>,
    /// The hash of the generation in force: it takes a while for large sets.
    hash: Mutex<Option<(Generation, PolicyHash)>>,
}

impl Target {
    pub(super) fn new(firewall: Arc<Firewall>, files: Files, held: Held) -> Self {
        Self {
            firewall,
            files,
            turn: Mutex::default(),
            held: Mutex::new(held),
            hash: Mutex::default(),
        }
    }

    pub(super) fn held(&self) -> Held {
        lock(&self.held).clone()
    }

    /// Forgets the states of another fleet.
    pub(super) fn forget(&self) {
        self.keep(Held::default());
    }

    /// What is in force, for a controller.
    pub(super) fn held_message(&self) -> v1::Held {
        v1::Held {
            state: self.held().message(),
            policy_hash: self
                .hash()
                .map_or_else(Vec::new, |hash| hash.as_bytes().to_vec()),
            mode: convert::mode(self.firewall.enforcement()).into(),
        }
    }

    /// The hash of the policy in force.
    pub(super) fn hash(&self) -> Option<PolicyHash> {
        let (policy, generation) = self.firewall.in_force()?;
        let known = *lock(&self.hash);
        if let Some((_, hash)) = known.filter(|(of, _)| *of == generation) {
            return Some(hash);
        }
        let hash = policy.hash();
        *lock(&self.hash) = Some((generation, hash));
        Some(hash)
    }

    /// Puts a changed policy in force.
    ///
    /// # Errors
    /// Then what was in force before still is.
    pub(super) fn delta(
        &self,
        delta: &Delta,
        trusted: Option<&VerifyingKey>,
    ) -> Result<(), Refusal> {
        let to = delta.to.as_ref().ok_or_else(no_state)?;
        self.put(to, trusted, |before, hash| {
            let is_base = match hash {
                Some(hash) => delta.from_hash == hash.as_bytes(),
                None => {
                    let empty = before.hash();
                    delta.from_hash.is_empty() || delta.from_hash == empty.as_bytes()
                }
            };
            if !is_base {
                let error = "from_hash: this node has another policy: send a snapshot";
                return Err(Refusal::new(Reason::Base, error));
            }
            let changes = changes(delta)?;
            let changed = before.change(&changes, Atomicity::AllOrNothing);
            let changed = changed.map_err(|e| Refusal::new(Reason::Policy, one_line(&e)))?;
            Ok(changed.policy)
        })
    }

    /// Puts a policy in force whose chunks are all there.
    ///
    /// # Errors
    /// Then what was in force before still is.
    pub(super) fn snapshot(
        &self,
        snapshot: &Snapshot,
        chunks: &Chunks,
        trusted: Option<&VerifyingKey>,
    ) -> Result<(), Refusal> {
        let to = snapshot.to.as_ref().ok_or_else(no_state)?;
        self.put(to, trusted, |_, _| build(snapshot, chunks))
    }

    /// Whether a state would be put in force, as far as can be said before its content is there; and whether its
    /// policy is in force already.
    pub(super) fn check(
        &self,
        state: Option<&State>,
        trusted: Option<&VerifyingKey>,
    ) -> Result<bool, Refusal> {
        let state = state.ok_or_else(no_state)?;
        let promised = lock(&self.held).check(state, trusted)?;
        Ok(self.hash() == Some(promised))
    }

    fn put(
        &self,
        state: &State,
        trusted: Option<&VerifyingKey>,
        make: impl FnOnce(&Policy, Option<PolicyHash>) -> Result<Policy, Refusal>,
    ) -> Result<(), Refusal> {
        let _turn = lock(&self.turn);
        let promised = lock(&self.held).check(state, trusted)?;
        let mode = mode(state.mode)?;
        if state.sequence == 0 {
            return self.put_mode(mode, promised);
        }
        let in_force = self.firewall.in_force();
        let hash = in_force.as_ref().map(|(policy, generation)| {
            let known = *lock(&self.hash);
            match known.filter(|(of, _)| of == generation) {
                Some((_, hash)) => hash,
                None => policy.hash(),
            }
        });
        let former = self.firewall.enforcement();
        // Before the policy, so that nothing of it drops even for a moment.
        if let Some(mode) = mode.filter(|mode| *mode != Enforcement::Enforce) {
            self.set_mode(mode)?;
        }
        if hash != Some(promised) {
            let before = in_force.as_ref().map(|(policy, _)| Arc::clone(policy));
            let generation = in_force.map_or_else(Generation::default, |(_, g)| g);
            let done = make(&before.unwrap_or_default(), hash)
                .and_then(|policy| self.apply(&policy, promised, generation));
            if let Err(refusal) = done {
                if self.firewall.enforcement() != former {
                    self.set_mode(former)?;
                }
                return Err(refusal);
            }
        }
        if mode == Some(Enforcement::Enforce) {
            self.set_mode(Enforcement::Enforce)?;
        }
        let after = self.held().after(state, jiff::Timestamp::now());
        self.keep(after);
        Ok(())
    }

    /// The mode alone: the node keeps its own policy, and is not taken for one that has had a state.
    fn put_mode(&self, mode: Option<Enforcement>, promised: PolicyHash) -> Result<(), Refusal> {
        if self.hash() != Some(promised) {
            let error = "hash: another policy is in force: send what is meant for that one";
            return Err(Refusal::new(Reason::Base, error));
        }
        mode.map_or(Ok(()), |mode| self.set_mode(mode))
    }

    /// Whether pass mode was set at the node. It holds until it is taken back there.
    pub(super) fn is_panic_off(&self) -> bool {
        let by_fleet = |held: &Held| {
            let state = held.state.as_ref();
            state.is_some_and(|state| state.mode == i32::from(Mode::Pass))
        };
        self.firewall.enforcement() == Enforcement::Pass && !by_fleet(&lock(&self.held))
    }

    /// Nothing is put in force unless it is what was promised, in place of what it was made from.
    fn apply(
        &self,
        policy: &Policy,
        promised: PolicyHash,
        from: Generation,
    ) -> Result<(), Refusal> {
        let hash = policy.hash();
        if hash != promised {
            let error = format!("hash: {promised} was promised, and {hash} came of it");
            return Err(Refusal::new(Reason::Hash, error));
        }
        let options = ApplyOptions::default().expect_generation(from);
        match self.firewall.apply_with(policy, options) {
            Ok(applied) => {
                crate::agent::log_applied(&applied);
                *lock(&self.hash) = Some((applied.generation, hash));
                Ok(())
            }
            Err(TransactionError::Generation { .. }) => {
                let error = "the policy was changed at the node meanwhile: send the state again";
                Err(Refusal::new(Reason::Base, error))
            }
            Err(TransactionError::Apply(ApplyError::Policy(e))) => {
                Err(Refusal::new(Reason::Policy, one_line(&e)))
            }
            Err(TransactionError::Apply(e)) => Err(Refusal::new(
                Reason::Node,
                one_line(&fault::apply_message(&e)),
            )),
            Err(error) => Err(Refusal::new(Reason::Node, one_line(&error))),
        }
    }

    fn set_mode(&self, mode: Enforcement) -> Result<(), Refusal> {
        if self.firewall.enforcement() == mode {
            return Ok(());
        }
        if self.is_panic_off() {
            log::info!("the fleet wants mode {mode}: pass mode was set here and holds");
            return Ok(());
        }
        log::info!("the fleet sets mode {mode}");
        let set = self.firewall.set_enforcement(mode, None);
        set.map_err(|e| Refusal::new(Reason::Node, format!("mode: {}", one_line(&e))))
    }

    fn keep(&self, held: Held) {
        if let Err(error) = self.files.save_held(&held) {
            log::error!("what the fleet said last is not saved: {error}; make room");
        }
        *lock(&self.held) = held;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn no_state() -> Refusal {
    Refusal::new(Reason::Policy, "to: it is missing")
}

fn one_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().replace(['\n', '\r'], "; ")
}

fn mode(mode: i32) -> Result<Option<Enforcement>, Refusal> {
    match Mode::try_from(mode) {
        Ok(Mode::Unspecified) => Ok(None),
        Ok(Mode::DryRun) => Ok(Some(Enforcement::DryRun)),
        Ok(Mode::Enforce) => Ok(Some(Enforcement::Enforce)),
        Ok(Mode::Pass) => Ok(Some(Enforcement::Pass)),
        Err(_) => {
            let error = format!("mode: {mode} is not known: upgrade xdpgated");
            Err(Refusal::new(Reason::Node, error))
        }
    }
}

fn wrong(wrong: convert::Wrong) -> Refusal {
    Refusal::new(Reason::Policy, format!("{}: {}", wrong.path, wrong.what))
}

/// The changes of a delta, in their order.
fn changes(delta: &Delta) -> Result<Vec<Change>, Refusal> {
    let mut changes = Vec::with_capacity(delta.changes.len());
    for (index, change) in delta.changes.iter().enumerate() {
        let path = format!("changes[{index}]");
        match &change.change {
            Some(Is::Policy(change)) => {
                changes.push(convert::change(&path, change).map_err(wrong)?);
            }
            Some(Is::Entries(entries)) => {
                let set = convert::set_name(&format!("{path}.set"), &entries.set);
                let set = set.map_err(wrong)?;
                let of = |part: &Option<SetEntries>| -> Result<Vec<_>, Refusal> {
                    let mut builder = AddressSetBuilder::default();
                    if let Some(part) = part {
                        convert::add_entries(&mut builder, part).map_err(wrong)?;
                    }
                    Ok(builder.build(convert::counters(false)).entries().collect())
                };
                let gone = of(&entries.remove)?;
                let come = of(&entries.add)?;
                if !gone.is_empty() {
                    let gone = gone.into_iter().map(|(prefix, _)| prefix).collect();
                    changes.push(Change::RemoveEntries(set.clone(), gone));
                }
                if !come.is_empty() {
                    changes.push(Change::AddEntries(set, come));
                }
            }
            None => {
                let error = format!("{path}: a kind that is not known: upgrade xdpgated");
                return Err(Refusal::new(Reason::Policy, error));
            }
        }
    }
    Ok(changes)
}

/// The policy of a snapshot. That it is the right one, its hash says.
fn build(snapshot: &Snapshot, chunks: &Chunks) -> Result<Policy, Refusal> {
    let of_policy = |error: &dyn std::fmt::Display| Refusal::new(Reason::Policy, one_line(error));
    let of_chunks = |error: &dyn std::fmt::Display| Refusal::new(Reason::Chunks, one_line(error));
    let frame = Policy::from_yaml(&snapshot.frame);
    let frame = frame.map_err(|e| of_policy(&format!("frame: {e}")))?;
    let mut builder = Policy::builder()
        .default_verdict(frame.default_verdict())
        .malformed(frame.malformed())
        .failsafe(frame.failsafe().clone());
    for chunk in &snapshot.rules {
        let content = chunks.get(chunk).map_err(|e| of_chunks(&e))?;
        let rules = Rules::decode(content.as_slice()).map_err(|e| of_chunks(&e))?;
        for text in &rules.rules {
            builder = builder.rule(Rule::from_yaml(text).map_err(|e| of_policy(&e))?);
        }
    }
    for set in &snapshot.sets {
        let name = convert::set_name("sets.set", &set.set).map_err(wrong)?;
        let mut entries = AddressSetBuilder::default();
        for chunk in &set.chunks {
            let content = chunks.get(chunk).map_err(|e| of_chunks(&e))?;
            let part = SetEntries::decode(content.as_slice()).map_err(|e| of_chunks(&e))?;
            convert::add_entries(&mut entries, &part).map_err(wrong)?;
        }
        builder = builder.set(name, entries.build(convert::counters(set.count_entries)));
    }
    builder.build().map_err(|e| of_policy(&e))
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
