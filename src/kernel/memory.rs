//! What is known beside the policy in force, and how it comes to the disk.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::confirm::{Waiting, WaitingChange};
use super::core::Core;
use super::enforcement::Enforcement;
use super::firewall::{Firewall, lock};
use super::publish::Generation;
use super::state_dir::{
    Hash, KeyRecord, PENDING, POLICY, PendingChange, PendingRecord, PreviousRecord, Record,
    SavedFile, StateDir,
};
use crate::policy::Policy;

/// The policy before the present one.
#[derive(Debug, Clone, Default)]
pub(super) enum Before {
    #[default]
    Unknown,
    /// There was none.
    NoPolicy,
    /// It is not on disk, or not yet.
    Kept(Arc<Policy>),
    Saved(SavedFile),
}

/// All of it is changed by whoever has the turn on transactions.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub pending: Option<Waiting>,
    /// What was confirmed, by this process and as the last change that waited: `None` as soon as another
    /// waits, which may be of the same generation.
    pub confirmed: Option<Generation>,
    pub before: Before,
    /// The mode that was chosen to last; pass mode has its own mark.
    pub enforcement: Option<Enforcement>,
    /// Enforcement that nobody confirmed was taken back, and no mode was chosen since.
    pub enforcement_taken_back: bool,
    pub keys: VecDeque<KeyRecord>,
    pub unsaved: Option<Unsaved>,
}

/// How many keys are kept.
const KEYS: usize = 256;

impl Memory {
    /// Keeps in mind that a request was answered.
    pub(super) fn remember(&mut self, key: Option<(&str, Hash)>, generation: Generation) {
        let Some((key, request)) = key else {
            return;
        };
        if self.keys.len() == KEYS {
            self.keys.pop_front();
        }
        self.keys.push_back(KeyRecord {
            key: key.to_owned(),
            request,
            generation: generation.get(),
            taken_back: false,
        });
    }

    /// Ends the waiting of a change that nobody confirmed, and keeps in mind that it was not to last:
    /// who asks for it again must not hear that it is in force.
    pub(super) fn end_waiting(&mut self, waiting: &Waiting) {
        self.pending = None;
        if waiting.is_of_mode() {
            self.enforcement_taken_back = true;
            // It has the generation of the policy, which stays.
            return;
        }
        let generation = waiting.generation.get();
        let of_it = self.keys.iter_mut().filter(|k| k.generation == generation);
        of_it.for_each(|key| key.taken_back = true);
    }
}

/// The disk is behind.
#[derive(Debug)]
pub(super) struct Unsaved {
    pub reason: String,
    pub tried: Instant,
}

/// What the disk is known to hold.
#[derive(Debug)]
pub(super) struct Disk {
    pub dir: StateDir,
    /// `policy.yaml`.
    pub policy: Option<(Arc<Policy>, Hash)>,
    /// `pending.yaml`.
    pub pending: Option<(Arc<Policy>, Hash)>,
}

/// The state directory is behind what is in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("what is in force is not saved: {reason}; it is tried again every 30 seconds")]
pub struct NotSaved {
    /// Why, with the file.
    pub reason: String,
}

impl Firewall {
    /// Whether the [state directory](crate::Loader::state_dir) holds all that is in force: policy,
    /// mode, pending change, idempotency keys. Without one there is nothing to save. What could not
    /// be saved is tried again with the next change, and every 30 seconds.
    /// [`Firewall::record_metrics`] tells it as the gauge `xdpgate_policy_saved`.
    ///
    /// # Errors
    /// It does not: a process that starts now would begin with what was saved last.
    pub fn saved(&self) -> Result<(), NotSaved> {
        match &lock(&self.core.memory).unsaved {
            None => Ok(()),
            Some(unsaved) => Err(NotSaved {
                reason: unsaved.reason.clone(),
            }),
        }
    }
}

impl Core {
    /// Saves what is in force; if that fails it is kept in mind, and tried again.
    pub(super) fn save_or_note(&self) -> Option<String> {
        let error = self.save().err()?.to_string();
        log::error!("what is in force is not saved: {error}");
        Some(error)
    }

    /// Brings the disk up to what is in force. For whoever has the turn on transactions.
    ///
    /// # Errors
    /// As a rule nothing on the disk changed: see `state_dir`.
    pub(super) fn save(&self) -> io::Result<()> {
        let saved = self.try_save();
        let mut memory = lock(&self.memory);
        memory.unsaved = saved.as_ref().err().map(|error| Unsaved {
            reason: error.to_string(),
            tried: Instant::now(),
        });
        drop(memory);
        if saved.is_err() {
            self.keeper.wake();
        }
        saved
    }

    fn try_save(&self) -> io::Result<()> {
        let mut disk = lock(&self.disk);
        let Some(disk) = &mut *disk else {
            return Ok(());
        };
        let (waiting, before, mut record) = {
            let memory = lock(&self.memory);
            let record = Record {
                enforcement: memory.enforcement,
                enforcement_taken_back: memory.enforcement_taken_back,
                keys: memory.keys.iter().cloned().collect(),
                ..Record::default()
            };
            (memory.pending.clone(), memory.before.clone(), record)
        };
        if self.backend.enforcement() == Enforcement::Pass && !disk.dir.is_pass() {
            disk.dir.set_pass(true)?;
        }
        let given = waiting.as_ref().map_or(0, |w| w.generation.get());
        record.generation = given.max(self.last_generation());
        let saved = disk.write(record, waiting, &before, self.policy())?;
        if let Some(file) = saved {
            lock(&self.memory).before = Before::Saved(file);
        }
        Ok(())
    }
}

impl Disk {
    /// Where the policy before is now, if it was not on disk.
    fn write(
        &mut self,
        mut record: Record,
        waiting: Option<Waiting>,
        before: &Before,
        in_force: Option<Arc<Policy>>,
    ) -> io::Result<Option<SavedFile>> {
        let dir = self.dir.clone();
        let mut pending = None;
        let mut lasting = in_force;
        if let Some(waiting) = waiting {
            let change = match waiting.change {
                WaitingChange::Policy { policy, previous } => {
                    lasting = previous;
                    let hash = match known(&self.pending, &policy) {
                        Some(hash) => hash,
                        None => {
                            let text = policy.to_yaml();
                            let hash = Hash::of(&text);
                            pending = Some((dir.prepare(PENDING, &text)?, (policy, hash)));
                            hash
                        }
                    };
                    PendingChange::Policy { hash }
                }
                WaitingChange::Enforcement { before } => PendingChange::Enforcement { before },
            };
            record.pending = Some(PendingRecord {
                generation: waiting.generation.get(),
                deadline: waiting.deadline,
                change,
                opened: waiting.opened,
            });
        }
        // Everything that takes room.
        let mut policy = None;
        let mut is_pending_policy = false;
        match &lasting {
            Some(lasting) => match known(&self.policy, lasting) {
                Some(hash) => record.policy = Some(hash),
                None => {
                    if let Some(hash) = known(&self.pending, lasting) {
                        record.policy = Some(hash);
                        is_pending_policy = dir.path(PENDING).exists();
                    }
                    if !is_pending_policy {
                        let text = lasting.to_yaml();
                        let hash = Hash::of(&text);
                        record.policy = Some(hash);
                        policy = Some(dir.prepare(POLICY, &text)?);
                    }
                }
            },
            // There may be one that was never put in force: it stays.
            None => record.policy = self.policy.as_ref().map(|(_, hash)| *hash),
        }
        let mut saved = None;
        record.previous = match before {
            Before::Unknown => None,
            Before::NoPolicy => Some(PreviousRecord { file: None }),
            Before::Saved(file) => Some(PreviousRecord {
                file: Some(file.clone()),
            }),
            Before::Kept(policy) => {
                let file = self.keep(policy, record.generation)?;
                saved = Some(file.clone());
                Some(PreviousRecord { file: Some(file) })
            }
        };
        let state = dir.prepare_record(&record)?;
        // From here on only names change.
        if let Some((file, now)) = pending {
            file.put_in_place()?;
            self.pending = Some(now);
        }
        if let Some(file) = policy {
            file.put_in_place()?;
        } else if is_pending_policy {
            dir.rename(PENDING, POLICY)?;
            self.pending = None;
        }
        if let (Some(lasting), Some(hash)) = (lasting, record.policy) {
            self.policy = Some((lasting, hash));
        }
        // A record must not reach the disk before the files that it names.
        dir.sync()?;
        state.put_in_place()?;
        dir.sync()?;
        if !matches!(
            record.pending.as_ref().map(|p| &p.change),
            Some(PendingChange::Policy { .. })
        ) {
            self.pending = None;
        }
        dir.remove_unnamed(&record);
        Ok(saved)
    }

    /// Puts the policy before a generation on disk, as another name of `policy.yaml` if it is there.
    fn keep(&self, policy: &Arc<Policy>, generation: u64) -> io::Result<SavedFile> {
        let name = StateDir::previous_name(generation);
        if let Some(hash) = known(&self.policy, policy)
            && self.dir.link(POLICY, &name).is_ok()
        {
            return Ok(SavedFile { name, hash });
        }
        let text = policy.to_yaml();
        let hash = Hash::of(&text);
        self.dir.prepare(&name, &text)?.put_in_place()?;
        Ok(SavedFile { name, hash })
    }
}

/// The hash of a policy that is on disk.
fn known(on_disk: &Option<(Arc<Policy>, Hash)>, policy: &Arc<Policy>) -> Option<Hash> {
    let (there, hash) = on_disk.as_ref()?;
    Arc::ptr_eq(there, policy).then_some(*hash)
}
