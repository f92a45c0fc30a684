//! Commands that change policies as a whole.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use xdpgate::policy::{Rule, RuleId};

use super::{Draft, Made, already_there, invalid, not_found};
use crate::core::records::Kind;
use crate::core::{CommandError, EffectKind, ErrorKind, Patch, SettingsPatch};
use crate::domain::{Name, PolicyContent, PolicyState, RuleState, Rules, Settings, Touch};

/// The most rules of a policy.
pub const MAX_RULES: usize = 100_000;

/// A policy while it is changed.
pub(super) struct PolicyDraft {
    name: Name,
    pub(super) exists: bool,
    comment: Option<String>,
    settings: Settings,
    /// What `edits` are made on.
    base: Rules,
    edits: BTreeMap<RuleId, Option<Rule>>,
    /// How many there are.
    rules: usize,
    created: Touch,
    version: u64,
}

impl PolicyDraft {
    /// The rule with this id.
    pub(super) fn rule(&self, id: &RuleId) -> Option<&Rule> {
        match self.edits.get(id) {
            Some(edited) => edited.as_ref(),
            None => self.base.get(id.as_str()).map(|state| &state.rule),
        }
    }

    /// Puts (`Some`) or removes (`None`) a rule.
    pub(super) fn edit(&mut self, id: RuleId, rule: Option<Rule>) -> Made {
        let before = self.rule(&id);
        let kind = match (before, &rule) {
            (None, Some(_)) => EffectKind::Created,
            (Some(before), Some(rule)) if before == rule => return Ok(EffectKind::Unchanged),
            (Some(_), Some(_)) => EffectKind::Replaced,
            (Some(_), None) => EffectKind::Removed,
            (None, None) => return Ok(EffectKind::Unchanged),
        };
        if kind == EffectKind::Created && self.rules >= MAX_RULES {
            return Err(too_many(&self.name, self.rules + 1));
        }
        match kind {
            EffectKind::Created => self.rules += 1,
            EffectKind::Removed => self.rules -= 1,
            _ => {}
        }
        self.edits.insert(id, rule);
        Ok(kind)
    }

    /// Replaces all rules; returns whether any differs.
    fn replace(&mut self, rules: impl IntoIterator<Item = Rule>) -> Result<bool, CommandError> {
        let mut come: BTreeMap<RuleId, Rule> = BTreeMap::new();
        for rule in rules {
            come.insert(rule.id.clone(), rule);
        }
        if come.len() > MAX_RULES {
            return Err(too_many(&self.name, come.len()));
        }
        let mut ids: Vec<RuleId> = self
            .base
            .iter()
            .map(|state| state.rule.id.clone())
            .collect();
        ids.extend(self.edits.keys().cloned());
        let mut differs = false;
        for id in ids.into_iter().filter(|id| !come.contains_key(id)) {
            differs |= self.edit(id, None)? != EffectKind::Unchanged;
        }
        for (id, rule) in come {
            differs |= self.edit(id, Some(rule))? != EffectKind::Unchanged;
        }
        Ok(differs)
    }

    /// The version that comes of it; `None` if it is gone.
    pub(super) fn version(&self, before: Option<&Arc<PolicyState>>) -> Option<u64> {
        let edited = |(id, rule): (&RuleId, &Option<Rule>)| {
            self.base.get(id.as_str()).map(|state| &state.rule) != rule.as_ref()
        };
        let same = before.filter(|before| {
            before.settings == self.settings
                && before.comment == self.comment
                && !self.edits.iter().any(edited)
        });
        self.exists
            .then(|| same.map_or(self.version, |before| before.version))
    }

    /// The policy that came of it, `Some(None)` if it is gone, `None` if nothing changed.
    pub(super) fn finish(
        self,
        before: Option<&Arc<PolicyState>>,
        touch: &Touch,
    ) -> Option<Option<PolicyState>> {
        if !self.exists {
            return before.is_some().then_some(None);
        }
        let mut rules = self.base;
        let version = self.version;
        let edits: Vec<_> = self
            .edits
            .into_iter()
            .filter(|(id, rule)| rules.get(id.as_str()).map(|state| &state.rule) != rule.as_ref())
            .map(|(id, rule)| (id, rule.map(|rule| RuleState { rule, version })))
            .collect();
        let same = before.is_some_and(|before| {
            edits.is_empty() && before.settings == self.settings && before.comment == self.comment
        });
        if same {
            return None;
        }
        if !edits.is_empty() {
            rules.edit(edits);
        }
        Some(Some(PolicyState {
            name: self.name,
            version,
            comment: self.comment,
            settings: self.settings,
            rules,
            created: self.created,
            updated: touch.clone(),
        }))
    }
}

impl Draft<'_> {
    /// The draft of a policy, which need not be there.
    fn policy_draft(&mut self, name: &Name) -> &mut PolicyDraft {
        let first = self.first_version(Kind::Policy, name);
        let ground = self.ground;
        self.policies.entry(name.clone()).or_insert_with(|| {
            let before = ground.view.policies.get(name);
            PolicyDraft {
                name: name.clone(),
                exists: before.is_some(),
                comment: before.and_then(|before| before.comment.clone()),
                settings: before
                    .map(|before| before.settings.clone())
                    .unwrap_or_default(),
                base: before
                    .map(|before| before.rules.clone())
                    .unwrap_or_default(),
                edits: BTreeMap::new(),
                rules: before.map_or(0, |before| before.rules.len()),
                created: before
                    .map_or(&ground.touch, |before| &before.created)
                    .clone(),
                version: before.map_or(first, |before| before.version + 1),
            }
        })
    }

    /// The draft of a policy that is there.
    pub(super) fn policy(&mut self, name: &Name) -> Result<&mut PolicyDraft, CommandError> {
        let draft = self.policy_draft(name);
        if !draft.exists {
            return Err(not_found(format!("policy/{name}"), "policy"));
        }
        Ok(draft)
    }

    pub(super) fn put_policy(
        &mut self,
        name: &Name,
        content: &PolicyContent,
        create: bool,
    ) -> Made {
        let object = || format!("policy/{name}");
        check_settings(name, &content.settings)?;
        let mut ids = HashSet::new();
        let twice = content.rules.iter().find(|rule| !ids.insert(&rule.id));
        if let Some(rule) = twice {
            let object = format!("policy/{name}/rule/{}", rule.id);
            return Err(
                invalid(object, "id", "another rule has this id").mend("ids must be unique")
            );
        }
        let existed = self.policy_draft(name).exists;
        if existed && create {
            return Err(already_there(object(), "policy"));
        }
        let rules = content
            .rules
            .iter()
            .map(|rule| super::rules::canonical(rule.clone()));
        let draft = self.policy_draft(name);
        let mut differs = draft.replace(rules)?;
        differs |= draft.settings != content.settings;
        draft.settings = content.settings.clone();
        draft.exists = true;
        Ok(match (existed, differs) {
            (false, _) => EffectKind::Created,
            (true, true) => EffectKind::Replaced,
            (true, false) => EffectKind::Unchanged,
        })
    }

    pub(super) fn patch_policy(&mut self, name: &Name, patch: &SettingsPatch) -> Made {
        let draft = self.policy(name)?;
        let mut settings = draft.settings.clone();
        let mut comment = draft.comment.clone();
        patch.default.apply(&mut settings.default);
        patch.malformed.apply(&mut settings.malformed);
        patch.failsafe.apply(&mut settings.failsafe);
        patch.comment.apply(&mut comment);
        check_settings(name, &settings)?;
        check_comment(&format!("policy/{name}"), comment.as_deref())?;
        if draft.settings == settings && draft.comment == comment {
            return Ok(EffectKind::Unchanged);
        }
        draft.settings = settings;
        draft.comment = comment;
        Ok(EffectKind::Replaced)
    }

    pub(super) fn delete_policy(&mut self, name: &Name) -> Made {
        let draft = self.policy_draft(name);
        if !draft.exists {
            return Ok(EffectKind::Unchanged);
        }
        draft.replace([])?;
        draft.exists = false;
        Ok(EffectKind::Removed)
    }

    pub(super) fn revert_policy(&mut self, name: &Name, version: u64) -> Made {
        let past = &self.ground.past.policies;
        let Some(then) = past.get(&(name.clone(), version)) else {
            let error = not_found(format!("policy/{name}"), "version");
            return Err(error.field("version"));
        };
        let draft = self.policy_draft(name);
        let existed = draft.exists;
        let rules = then.rules.iter().map(|state| state.rule.clone());
        let mut differs = draft.replace(rules)?;
        differs |= draft.settings != then.settings || draft.comment != then.comment;
        draft.settings = then.settings.clone();
        draft.comment = then.comment.clone();
        draft.exists = true;
        Ok(match (existed, differs) {
            (false, _) => EffectKind::Created,
            (true, true) => EffectKind::Replaced,
            (true, false) => EffectKind::Unchanged,
        })
    }
}

impl<T: Clone> Patch<T> {
    /// Makes it of a field.
    pub(super) fn apply(&self, field: &mut Option<T>) {
        match self {
            Self::Keep => {}
            Self::Clear => *field = None,
            Self::Set(value) => *field = Some(value.clone()),
        }
    }
}

/// Whether the settings alone make a policy.
fn check_settings(name: &Name, settings: &Settings) -> Result<(), CommandError> {
    let Some(failsafe) = &settings.failsafe else {
        return Ok(());
    };
    let policy = xdpgate::Policy::builder()
        .failsafe(failsafe.clone())
        .build();
    let refuse = |error| crate::core::effective::about(&error, format!("policy/{name}"));
    policy.map(drop).map_err(refuse)
}

/// Whether a text for people is of a sane size.
pub(super) fn check_comment(object: &str, comment: Option<&str>) -> Result<(), CommandError> {
    const MAX: usize = 4096;
    match comment.map(str::len) {
        Some(bytes) if bytes > MAX => {
            let reason = format!("{bytes} bytes: at most {MAX} are allowed");
            Err(invalid(object.to_owned(), "comment", reason))
        }
        _ => Ok(()),
    }
}

fn too_many(name: &Name, rules: usize) -> CommandError {
    let reason = format!("{rules} rules: a policy may have {MAX_RULES}");
    CommandError::new(ErrorKind::TooLarge, format!("policy/{name}"), reason)
        .field("rules")
        .mend("use address sets in place of rules that differ only in the address, or several policies")
}
