//! Commands that change sets.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use xdpgate::policy::{AddressSet, EntryCounters, Prefix};

use super::policies::check_comment;
use super::{Draft, Made, already_there, invalid, not_found};
use crate::core::records::Kind;
use crate::core::{CommandError, EffectKind, ErrorKind, Patch, SetContent, SetPatch};
use crate::domain::{Name, SetState};

/// The most entries of a set.
pub const MAX_ENTRIES: usize = 10_000_000;
/// The longest default expiry: ten years.
const MAX_EXPIRY: u64 = 10 * 366 * 86_400;

impl Draft<'_> {
    /// A set as it is by now.
    fn set(&self, name: &Name) -> Option<SetState> {
        match self.sets.get(name) {
            Some(drafted) => drafted.clone(),
            None => self
                .ground
                .view
                .sets
                .get(name)
                .map(|set| SetState::clone(set)),
        }
    }

    fn present_set(&self, name: &Name) -> Result<SetState, CommandError> {
        self.set(name).ok_or_else(|| not_found(object(name), "set"))
    }

    fn keep_set(&mut self, set: SetState) -> Result<(), CommandError> {
        let entries = set.entries.len();
        if entries > MAX_ENTRIES {
            let reason = format!("{entries} entries: a set may have {MAX_ENTRIES}");
            let error = CommandError::new(ErrorKind::TooLarge, object(&set.name), reason);
            return Err(error.field("entries").mend("use several sets"));
        }
        self.sets.insert(set.name.clone(), Some(set));
        Ok(())
    }

    pub(super) fn put_set(&mut self, name: &Name, content: &SetContent, create: bool) -> Made {
        check_comment(&object(name), content.comment.as_deref())?;
        check_expiry(name, content.default_expiry)?;
        let before = self.set(name);
        if create && before.is_some() {
            return Err(already_there(object(name), "set"));
        }
        let entries = match self.until(content.default_expiry) {
            None => Arc::clone(&content.entries),
            until => {
                let entries = content.entries.entries();
                let set = AddressSet::from_entries(entries.map(|(p, at)| (p, at.or(until))));
                Arc::new(set.with_counters(content.entries.counters()))
            }
        };
        let ground = self.ground;
        let set = SetState {
            name: name.clone(),
            version: self.next_set_version(name),
            comment: content.comment.clone(),
            default_expiry: content.default_expiry,
            entries,
            created: before
                .as_ref()
                .map_or(&ground.touch, |set| &set.created)
                .clone(),
            updated: ground.touch.clone(),
        };
        let effect = match before {
            None => EffectKind::Created,
            Some(before) if says_the_same(&before, &set) => return Ok(EffectKind::Unchanged),
            Some(_) => EffectKind::Replaced,
        };
        self.keep_set(set)?;
        Ok(effect)
    }

    pub(super) fn patch_set(&mut self, name: &Name, patch: &SetPatch) -> Made {
        let before = self.present_set(name)?;
        let mut set = before.clone();
        patch.comment.apply(&mut set.comment);
        patch.default_expiry.apply(&mut set.default_expiry);
        check_comment(&object(name), set.comment.as_deref())?;
        check_expiry(name, set.default_expiry)?;
        let counters = match patch.counters {
            Patch::Keep => set.counters(),
            Patch::Clear => EntryCounters::None,
            Patch::Set(counters) => counters,
        };
        if counters != set.counters() {
            set.entries = Arc::new(AddressSet::clone(&set.entries).with_counters(counters));
        }
        if says_the_same(&before, &set) {
            return Ok(EffectKind::Unchanged);
        }
        self.change_set(set)?;
        Ok(EffectKind::Replaced)
    }

    pub(super) fn add_entries(
        &mut self,
        name: &Name,
        entries: &[(Prefix, Option<Timestamp>)],
    ) -> Made {
        let mut set = self.present_set(name)?;
        let until = self.until(set.default_expiry);
        let come = entries.iter().map(|(prefix, at)| (*prefix, at.or(until)));
        let mut all = AddressSet::clone(&set.entries);
        let count = all.insert(come);
        if count == 0 {
            return Ok(EffectKind::Unchanged);
        }
        set.entries = Arc::new(all);
        self.change_set(set)?;
        Ok(EffectKind::Entries(count as u64))
    }

    pub(super) fn remove_entries(&mut self, name: &Name, entries: &[Prefix]) -> Made {
        let mut set = self.present_set(name)?;
        let mut all = AddressSet::clone(&set.entries);
        let count = all.remove(entries.iter().copied());
        if count == 0 {
            return Ok(EffectKind::Unchanged);
        }
        set.entries = Arc::new(all);
        self.change_set(set)?;
        Ok(EffectKind::Entries(count as u64))
    }

    pub(super) fn delete_set(&mut self, name: &Name) -> Made {
        if self.set(name).is_none() {
            return Ok(EffectKind::Unchanged);
        }
        self.sets.insert(name.clone(), None);
        Ok(EffectKind::Removed)
    }

    pub(super) fn revert_set(&mut self, name: &Name, version: u64) -> Made {
        let past = &self.ground.past.sets;
        let Some(then) = past.get(&(name.clone(), version)) else {
            return Err(not_found(object(name), "version").field("version"));
        };
        let before = self.set(name);
        let effect = match &before {
            None => EffectKind::Created,
            Some(before) if says_the_same(before, then) => return Ok(EffectKind::Unchanged),
            Some(_) => EffectKind::Replaced,
        };
        let created = before
            .as_ref()
            .map_or(&self.ground.touch, |set| &set.created);
        let set = SetState {
            created: created.clone(),
            ..then.clone()
        };
        self.change_set(set)?;
        Ok(effect)
    }

    /// Keeps a set that has changed.
    fn change_set(&mut self, set: SetState) -> Result<(), CommandError> {
        let version = self.next_set_version(&set.name);
        let updated = self.ground.touch.clone();
        self.keep_set(SetState {
            version,
            updated,
            ..set
        })
    }

    fn next_set_version(&self, name: &Name) -> u64 {
        match self.ground.view.sets.get(name) {
            Some(before) => before.version + 1,
            None => self.first_version(Kind::Set, name),
        }
    }

    /// When an entry expires that comes now without an expiry.
    fn until(&self, default_expiry: Option<u64>) -> Option<Timestamp> {
        let seconds = i64::try_from(default_expiry?).ok()?;
        self.ground
            .now
            .checked_add(SignedDuration::from_secs(seconds))
            .ok()
    }
}

/// The set, unless it says what it said before.
pub(super) fn finish(set: SetState, before: Option<&SetState>) -> Option<SetState> {
    match before {
        Some(before) if says_the_same(before, &set) => None,
        _ => Some(set),
    }
}

fn says_the_same(a: &SetState, b: &SetState) -> bool {
    let entries = Arc::ptr_eq(&a.entries, &b.entries) || a.entries == b.entries;
    entries && a.comment == b.comment && a.default_expiry == b.default_expiry
}

fn check_expiry(name: &Name, seconds: Option<u64>) -> Result<(), CommandError> {
    match seconds {
        Some(seconds) if !(1..=MAX_EXPIRY).contains(&seconds) => {
            let reason = format!("{seconds} s: 1 to {MAX_EXPIRY} are allowed");
            let error = invalid(object(name), "default_expiry", reason);
            Err(error.mend("leave it out for entries that last"))
        }
        _ => Ok(()),
    }
}

fn object(name: &Name) -> String {
    format!("set/{name}")
}
