//! Effective policies: all that the policies of a profile say together, made by the library.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use lru::LruCache;
use xdpgate::policy::{Atomicity, Change, PolicyErrorKind, PolicyHash, Rule, RuleId};
use xdpgate::{Policy, PolicyError};

use super::view::Things;
use super::{CommandError, ErrorKind};
use crate::domain::{Name, PolicyState, SetState, Settings, diff};

/// How many are kept to make the next one from.
const KEPT: NonZeroUsize = NonZeroUsize::new(128).unwrap();

/// An effective policy, and what it was made of.
#[derive(Debug)]
pub(super) struct Effective {
    policies: Vec<Arc<PolicyState>>,
    sets: BTreeMap<Name, Arc<SetState>>,
    pub(super) policy: Arc<Policy>,
    pub(super) hash: PolicyHash,
}

/// The effective policies that were made last: the next one of the same policies is made from it by what differs.
#[derive(Debug)]
pub(super) struct Effectives(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    last: LruCache<Vec<Name>, Arc<Effective>>,
    by_hash: HashMap<PolicyHash, Weak<Policy>>,
}

impl Default for Effectives {
    fn default() -> Self {
        Self(Mutex::new(Kept {
            last: LruCache::new(KEPT),
            by_hash: HashMap::new(),
        }))
    }
}

impl Effectives {
    /// Of these policies, in the order of the profile, with those of these sets that they name.
    pub(super) fn make(
        &self,
        policies: Vec<Arc<PolicyState>>,
        sets: &Things<SetState>,
    ) -> Result<Arc<Effective>, CommandError> {
        let named = policies.iter().flat_map(|policy| policy.rules.sets());
        let sets: BTreeMap<_, _> = named
            .filter_map(|name| Some((name.clone(), Arc::clone(sets.get(name)?))))
            .collect();
        let names: Vec<Name> = policies.iter().map(|policy| policy.name.clone()).collect();
        let base = self.kept().last.get(&names).cloned();
        let changes = match &base {
            Some(base) => base.changes(&policies, &sets)?,
            None => None,
        };
        let policy = match (base, changes) {
            (Some(base), Some(changes)) if changes.is_empty() => {
                (Arc::clone(&base.policy), base.hash)
            }
            (Some(base), Some(changes)) => {
                let changed = base.policy.change(&changes, Atomicity::AllOrNothing);
                let refuse = |errors: xdpgate::policy::ChangeErrors| {
                    let error = errors.iter().next().expect("one at the least");
                    refusal(error.policy_error(), &policies)
                };
                self.share(changed.map_err(refuse)?.policy)
            }
            _ => self.share(build(&policies, &sets)?),
        };
        let made = Arc::new(Effective {
            policies,
            sets,
            policy: policy.0,
            hash: policy.1,
        });
        self.kept().last.put(names, Arc::clone(&made));
        Ok(made)
    }

    /// An equal policy that is there already, or this one.
    fn share(&self, policy: Policy) -> (Arc<Policy>, PolicyHash) {
        let hash = policy.hash();
        let mut kept = self.kept();
        if let Some(there) = kept.by_hash.get(&hash).and_then(Weak::upgrade) {
            return (there, hash);
        }
        kept.by_hash.retain(|_, policy| policy.strong_count() > 0);
        let policy = Arc::new(policy);
        kept.by_hash.insert(hash, Arc::downgrade(&policy));
        (policy, hash)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Effective {
    /// What makes the effective policy of these of this one; `None` if so much differs that it is better made anew.
    fn changes(
        &self,
        policies: &[Arc<PolicyState>],
        sets: &BTreeMap<Name, Arc<SetState>>,
    ) -> Result<Option<Vec<Change>>, CommandError> {
        let (mut gone, mut come): (Vec<RuleId>, Vec<Rule>) = (Vec::new(), Vec::new());
        let changed = self.policies.iter().zip(policies);
        for (place, (old, new)) in changed.enumerate().filter(|(_, (a, b))| !Arc::ptr_eq(a, b)) {
            for (from, to) in old.rules.differences(&new.rules) {
                match (from, to) {
                    (_, Some(to)) => {
                        not_elsewhere(&to.rule.id, place, policies)?;
                        come.push(to.rule.clone());
                    }
                    (Some(from), None) => gone.push(from.rule.id.clone()),
                    (None, None) => {}
                }
            }
        }
        if gone.len() + come.len() > self.policy.rules().len() / 2 + 16 {
            return Ok(None);
        }
        // One that moved from a policy to another both went and came.
        let kept: HashSet<&RuleId> = come.iter().map(|rule| &rule.id).collect();
        gone.retain(|id| !kept.contains(id));
        let mut changes = Vec::new();
        for (name, set) in sets {
            let same = self.sets.get(name).is_some_and(|old| {
                Arc::ptr_eq(&old.entries, &set.entries) || old.entries == set.entries
            });
            if !same {
                let entries = xdpgate::policy::AddressSet::clone(&set.entries);
                changes.push(Change::PutSet(name.to_set_name(), entries));
            }
        }
        changes.extend(gone.into_iter().map(Change::RemoveRule));
        changes.extend(come.into_iter().map(Change::PutRule));
        let unused = self.sets.keys().filter(|name| !sets.contains_key(*name));
        changes.extend(unused.map(|name| Change::RemoveSet(name.to_set_name())));
        let settings = settings(policies);
        let (default, malformed) = (
            settings.default.unwrap_or_default(),
            settings.malformed.unwrap_or_default(),
        );
        if self.policy.default_verdict() != default {
            changes.push(Change::DefaultVerdict(default));
        }
        if self.policy.malformed() != malformed {
            changes.push(Change::Malformed(malformed));
        }
        let failsafe = settings.failsafe.unwrap_or_default();
        changes.extend(diff::failsafe(self.policy.failsafe(), &failsafe));
        Ok(Some(changes))
    }
}

/// Refuses an id that another policy of the profile has too.
fn not_elsewhere(
    id: &RuleId,
    place: usize,
    policies: &[Arc<PolicyState>],
) -> Result<(), CommandError> {
    let others = policies.iter().enumerate().filter(|(i, _)| *i != place);
    let mut found = others.filter(|(_, policy)| policy.rules.get(id.as_str()).is_some());
    match found.next() {
        Some((_, other)) => Err(twice(id, &policies[place].name, &other.name)),
        None => Ok(()),
    }
}

fn twice(id: &RuleId, policy: &Name, other: &Name) -> CommandError {
    let reason = format!(
        "policies {policy} and {other} both have a rule {id}, and there are nodes or groups that have both"
    );
    CommandError::new(
        ErrorKind::Invalid,
        format!("policy/{policy}/rule/{id}"),
        reason,
    )
    .field("id")
    .mend("give one of them another id")
}

/// Each setting from the first policy that states it.
fn settings(policies: &[Arc<PolicyState>]) -> Settings {
    let all = || policies.iter().map(|policy| &policy.settings);
    Settings {
        default: all().find_map(|settings| settings.default),
        malformed: all().find_map(|settings| settings.malformed),
        failsafe: all().find_map(|settings| settings.failsafe.clone()),
    }
}

pub(super) fn build(
    policies: &[Arc<PolicyState>],
    sets: &BTreeMap<Name, Arc<SetState>>,
) -> Result<Policy, CommandError> {
    let mut ids: HashMap<&RuleId, &Name> = HashMap::new();
    let settings = settings(policies);
    let mut builder = Policy::builder()
        .default_verdict(settings.default.unwrap_or_default())
        .malformed(settings.malformed.unwrap_or_default())
        .failsafe(settings.failsafe.unwrap_or_default());
    for policy in policies {
        for state in policy.rules.iter() {
            if let Some(other) = ids.insert(&state.rule.id, &policy.name) {
                return Err(twice(&state.rule.id, &policy.name, other));
            }
            builder = builder.rule(state.rule.clone());
        }
    }
    for (name, set) in sets {
        let entries = xdpgate::policy::AddressSet::clone(&set.entries);
        builder = builder.set(name.to_set_name(), entries);
    }
    builder.build().map_err(|error| refusal(&error, policies))
}

/// What the library said, with the policy that the rule is in.
pub(super) fn refusal(error: &PolicyError, policies: &[Arc<PolicyState>]) -> CommandError {
    let owner = |rule: &RuleId| {
        let mut owners = policies.iter();
        owners.find(|policy| policy.rules.get(rule.as_str()).is_some())
    };
    let object = match (error.rule(), error.set()) {
        (Some(rule), _) => match owner(rule) {
            Some(policy) => format!("policy/{}/rule/{rule}", policy.name),
            None => format!("rule/{rule}"),
        },
        (None, Some(set)) => format!("set/{set}"),
        (None, None) => match policies {
            [policy] => format!("policy/{}", policy.name),
            _ => String::new(),
        },
    };
    about(error, object)
}

/// What the library said, of a thing.
pub(super) fn about(error: &PolicyError, object: String) -> CommandError {
    let kind = match error.kind() {
        PolicyErrorKind::Limit => ErrorKind::TooLarge,
        _ => ErrorKind::Invalid,
    };
    let mend = match error.kind() {
        PolicyErrorKind::UnknownSet => "create the set first",
        _ => error.suggestion().unwrap_or(""),
    };
    CommandError::new(kind, object, error.reason())
        .field(error.field().unwrap_or(""))
        .mend(mend)
}
