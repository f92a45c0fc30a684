//! Commands that change groups.

use super::policies::check_comment;
use super::{Draft, Made, already_there, invalid};
use crate::core::{EffectKind, GroupContent};
use crate::domain::{Group, Name};

/// The most policies of a group.
const MAX_POLICIES: usize = 64;

impl Draft<'_> {
    fn group(&self, name: &Name) -> Option<&Group> {
        match self.groups.get(name) {
            Some(drafted) => drafted.as_ref(),
            None => self.ground.view.groups.get(name).map(AsRef::as_ref),
        }
    }

    pub(super) fn put_group(&mut self, name: &Name, content: &GroupContent, create: bool) -> Made {
        let object = || format!("group/{name}");
        check_comment(&object(), content.comment.as_deref())?;
        if content.policies.len() > MAX_POLICIES {
            let reason = format!(
                "{} policies: a group may have {MAX_POLICIES}",
                content.policies.len()
            );
            return Err(invalid(object(), "policies", reason));
        }
        for (place, policy) in content.policies.iter().enumerate() {
            if content.policies[..place].contains(policy) {
                let reason = format!("policy {policy} is there twice");
                return Err(invalid(object(), "policies", reason));
            }
        }
        let before = self.group(name);
        if create && before.is_some() {
            return Err(already_there(object(), "group"));
        }
        let ground = self.ground;
        let last = ground
            .view
            .groups
            .get(name)
            .map_or(0, |group| group.version);
        let group = Group {
            name: name.clone(),
            version: last + 1,
            selector: content.selector.clone(),
            policies: content.policies.clone(),
            rank: content.rank,
            mode: content.mode,
            comment: content.comment.clone(),
            created: before.map_or(&ground.touch, |group| &group.created).clone(),
            updated: ground.touch.clone(),
        };
        let effect = match before {
            None => EffectKind::Created,
            Some(before) if says_the_same(before, &group) => return Ok(EffectKind::Unchanged),
            Some(_) => EffectKind::Replaced,
        };
        self.groups.insert(name.clone(), Some(group));
        Ok(effect)
    }

    pub(super) fn delete_group(&mut self, name: &Name) -> Made {
        if self.group(name).is_none() {
            return Ok(EffectKind::Unchanged);
        }
        self.groups.insert(name.clone(), None);
        Ok(EffectKind::Removed)
    }
}

/// The group, unless it says what it said before.
pub(super) fn finish(group: Group, before: Option<&Group>) -> Option<Group> {
    match before {
        Some(before) if says_the_same(before, &group) => None,
        _ => Some(group),
    }
}

fn says_the_same(a: &Group, b: &Group) -> bool {
    a.selector == b.selector
        && a.policies == b.policies
        && a.rank == b.rank
        && a.mode == b.mode
        && a.comment == b.comment
}
