//! Putting a policy in force: compile, bring it into the kernel, switch.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::backend::Judge;
use super::core::Core;
use super::entry_counters;
use super::error::ApplyError;
use super::firewall::{Firewall, lock};
use super::memory::Before;
use super::metrics;
use super::scopes::Scopes;
use super::slots::{Assignment, RuleSlot, RuleSlots};
use super::state_dir::Hash;
use crate::compile::{Clock, CompileOptions, Recompilation, active_rules, compile};
use crate::image::{Damage, Image};
use crate::management::Management;
use crate::plan::Plan;
use crate::policy::{AddressItem, AddressMatch, Policy, PolicyHash, RuleId, SetName};

/// The policy in force.
#[derive(Debug)]
pub(super) struct Active {
    pub generation: Generation,
    pub policy: Arc<Policy>,
    /// The active rules in evaluation order: the position is the rule's number.
    pub rules: Arc<[(RuleId, RuleSlot)]>,
    pub judge: Arc<dyn Judge>,
    pub scopes: Scopes,
    /// What passes before any rule.
    pub management: Arc<[Management]>,
    /// The image without its lines, which the judge has.
    pub image: Image,
    /// The size that it has with them.
    pub image_bytes: usize,
}

impl Active {
    /// The numbers of the entries of a set, if it counts them.
    pub(super) fn entry_numbers(&self, set: &SetName) -> Option<&[u32]> {
        let entries = &self.image.names.entries;
        let place = entries.binary_search_by(|(name, _)| name.cmp(set));
        Some(&entries[place.ok()?].1)
    }
}

/// The number of a policy that was applied: 1 for the first, one more for each that was published, or
/// refused as late as by the kernel.
///
/// The numbers go on after a restart, and with a [`state_dir`](crate::Loader::state_dir) after one of
/// the machine as well. A start with a saved policy gives it a new number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Generation(pub(super) u64);

impl Generation {
    /// A generation by its number, to be [expected](crate::ApplyOptions::expect_generation) or
    /// [confirmed](crate::Firewall::confirm). 0 says that no policy is in force yet.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl From<u64> for Generation {
    fn from(number: u64) -> Self {
        Self::new(number)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What [`Firewall::apply`] or [`Firewall::apply_with`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Applied {
    /// The number of the policy that is in force now.
    pub generation: Generation,
    /// The policy that it replaced: what a [`Plan`] of this change starts from. `None` if there was none
    /// in this process, or if an idempotency key was there already and nothing was changed.
    pub previous: Option<Arc<Policy>>,
    /// How long it took to compile the policy into its image.
    pub compile: Duration,
    /// How long it took to bring the image into the kernel, to load its program and to switch.
    pub publish: Duration,
    /// The size of the image.
    pub image_bytes: usize,
    /// How many hosts were changed in the image of the policy before, if that was enough; `None` if
    /// the policy was compiled as a whole.
    pub changed_hosts: Option<usize>,
    /// How many addresses and prefixes the policy names, in its sets and in its rules.
    pub entries: usize,
    /// How many instructions the kernel's verifier walked.
    pub verified_insns: Option<u32>,
    /// Why the policy was not saved, if it was to be: it is in force all the same, and the one before
    /// comes back with the next process, unless saving succeeds until then: [`Firewall::saved`].
    pub not_saved: Option<String>,
    /// Nothing was done: this was done before, by the same
    /// [key](crate::ApplyOptions::key). Of the outcome of then only the generation is known.
    pub repeated: bool,
}

impl Applied {
    /// What was done before.
    pub(super) fn repeated(generation: Generation) -> Self {
        Self {
            generation,
            previous: None,
            compile: Duration::ZERO,
            publish: Duration::ZERO,
            image_bytes: 0,
            changed_hosts: None,
            entries: 0,
            verified_insns: None,
            not_saved: None,
            repeated: true,
        }
    }
}

impl Firewall {
    /// What [`Firewall::apply`] would change. Touches nothing. The size of the image is that of one
    /// that is compiled as a whole: see [`Applied::changed_hosts`].
    ///
    /// # Errors
    /// Those that [`Firewall::apply`] would give for the policy.
    pub fn plan(&self, policy: &Policy) -> Result<Plan, ApplyError> {
        let started = Instant::now();
        let plan = self.make_plan(policy);
        metrics::planned(started, &plan);
        plan
    }

    fn make_plan(&self, policy: &Policy) -> Result<Plan, ApplyError> {
        let core = &self.core;
        lock(&core.slots).check_room(policy.rules().iter().map(|r| &r.id))?;
        let slots = vec![0; active_rules(policy).len()];
        let (image, _) = core.compile(policy, slots, &core.management())?;
        let mut plan = Plan::between(self.policy().as_deref(), policy);
        plan.image_bytes = Some(image.as_bytes().len());
        Ok(plan)
    }

    /// Puts a policy in force on all interfaces at once: each packet is judged by the old policy
    /// or by the new one, never by both.
    ///
    /// A rule whose id the old policy had keeps its counters. Transactions queue up behind each
    /// other; statistics and evaluations go on meanwhile.
    ///
    /// With a [`state_dir`](crate::Loader::state_dir) it is saved. [`Firewall::apply_with`] takes
    /// options, such as a deadline for a confirmation.
    ///
    /// # Errors
    /// The policy cannot be put in force, or an earlier change is still pending. On any error the
    /// policy before it is still in force, whole.
    pub fn apply(&self, policy: &Policy) -> Result<Applied, ApplyError> {
        self.core.apply(policy)
    }
}

impl Core {
    fn apply(&self, policy: &Policy) -> Result<Applied, ApplyError> {
        let mut slots = lock(&self.slots);
        self.check_replaceable()?;
        self.put_in_force_and_save(Arc::new(policy.clone()), None, &mut slots)
    }

    /// [`Firewall::apply`] for whoever holds the lock on transactions. Nothing is saved.
    pub(super) fn put_in_force(
        &self,
        policy: Arc<Policy>,
        slots: &mut RuleSlots,
    ) -> Result<Applied, ApplyError> {
        let started = Instant::now();
        let applied = self.try_in_force(policy, slots);
        self.telemetry.applied(started, &applied);
        applied
    }

    fn try_in_force(
        &self,
        policy: Arc<Policy>,
        slots: &mut RuleSlots,
    ) -> Result<Applied, ApplyError> {
        let assignment = slots.assign(&*self.backend, policy.rules().iter().map(|r| &r.id))?;
        match self.switch_to(policy, &assignment) {
            Ok(applied) => {
                slots.commit(&*self.backend, assignment);
                Ok(applied)
            }
            Err(error) => {
                slots.abandon(&*self.backend, assignment);
                Err(error)
            }
        }
    }

    /// The same, and the policy before is kept for a rollback, and all is saved. A change that should
    /// have been taken back gives way to it.
    pub(super) fn put_in_force_and_save(
        &self,
        policy: Arc<Policy>,
        key: Option<(&str, Hash)>,
        slots: &mut RuleSlots,
    ) -> Result<Applied, ApplyError> {
        let before = self.lasting();
        let mut applied = self.put_in_force(Arc::clone(&policy), slots)?;
        let mut memory = lock(&self.memory);
        match before {
            // The one before that stays what a rollback is for.
            Some(before) if before == policy => {}
            Some(before) => memory.before = Before::Kept(before),
            None => memory.before = Before::NoPolicy,
        }
        if let Some(former) = memory.pending.clone() {
            memory.end_waiting(&former);
            log::warn!(
                "generation {}, which was not confirmed, is replaced: {} is in force",
                former.generation,
                applied.generation
            );
        }
        memory.remember(key, applied.generation);
        drop(memory);
        applied.not_saved = self.save_or_note();
        Ok(applied)
    }

    /// Compiles a policy and makes it the one that judges.
    fn switch_to(
        &self,
        policy: Arc<Policy>,
        assignment: &Assignment,
    ) -> Result<Applied, ApplyError> {
        let rules = numbered(&policy, assignment);

        let started = Instant::now();
        let management = self.management();
        let (image, changed_hosts, hash) = match self.recompile(&policy, &rules, &management) {
            // No policy whose entries are counted, and only for those a later process asks.
            Some((image, hosts)) => (image, Some(hosts), [0; 32]),
            None => {
                let slots = rules.iter().map(|(_, slot)| slot.number).collect();
                let (image, hash) = self.compile(&policy, slots, &management)?;
                (image, None, *hash.as_bytes())
            }
        };
        let compiled = Instant::now();
        // Never given twice: what is known of flows goes by it.
        let generation = Generation(self.generations.fetch_add(1, Ordering::SeqCst) + 1);
        if let Some(memory) = self.backend.slot_memory() {
            let in_force = self.generation().map(Generation::get);
            memory.announce(generation.get(), hash, in_force);
        }
        // Before its program can send an event.
        self.events.announce(generation, Arc::clone(&rules));
        // Until what was counted so far is carried over nobody reads that of single entries.
        let counting = lock(&self.entry_turn);
        // From here to the switch no interface comes or goes.
        let mut interfaces = lock(&self.interfaces);
        let scopes = Scopes::new(image.scopes());
        let by_slot: Vec<(u16, u64)> = interfaces
            .names()
            .map(|(slot, name)| (slot, scopes.of(name)))
            .collect();
        let judge = self.backend.publish(&image, generation, &by_slot)?;
        let published = Instant::now();

        let mut applied = Applied {
            generation,
            previous: None,
            compile: compiled - started,
            publish: published - compiled,
            image_bytes: image.as_bytes().len(),
            changed_hosts,
            entries: entries(&policy),
            verified_insns: judge.program().verified_insns,
            not_saved: None,
            repeated: false,
        };
        let active = Active {
            generation: applied.generation,
            policy,
            rules,
            judge,
            scopes,
            management,
            image_bytes: applied.image_bytes,
            image: image.with_lines(Vec::new()),
        };
        let active = Arc::new(active);
        let mut in_force = self.active.write().unwrap_or_else(PoisonError::into_inner);
        let before = in_force.replace(Arc::clone(&active));
        drop(in_force);
        applied.previous = before.as_ref().map(|before| Arc::clone(&before.policy));
        // What still ran by the policy of an earlier process.
        if interfaces.succeed() {
            self.backend.settle();
        }
        drop(interfaces);
        match (&before, lock(&self.inherited_entries).take()) {
            (Some(before), _) => entry_counters::carry_over(&*self.backend, before, &active),
            (None, Some(inherited)) => inherited.carry_over(&*self.backend, &active),
            (None, None) => {}
        }
        drop(counting);
        drop(before);
        log::info!(
            generation = applied.generation.get(), rules = active.rules.len(),
            entries = applied.entries, image_bytes = applied.image_bytes;
            "policy generation {}: {} rules, {} entries, {} bytes, published in {:?}",
            applied.generation,
            active.rules.len(),
            applied.entries,
            applied.image_bytes,
            applied.compile + applied.publish,
        );
        Ok(applied)
    }

    /// The image of the policy in force, changed into that of another one, and in how many hosts;
    /// `None` if that is not enough.
    fn recompile(
        &self,
        policy: &Policy,
        rules: &[(RuleId, RuleSlot)],
        management: &[Management],
    ) -> Option<(Image, usize)> {
        let active = self.active()?;
        if *active.management != *management {
            return None;
        }
        let change = Recompilation::between(&active.policy, policy)?;
        let slot = |rule: &(RuleId, RuleSlot)| rule.1.number;
        if !rules.iter().map(slot).eq(active.rules.iter().map(slot)) {
            return None;
        }
        let failed = |error| log::warn!("compiling as a whole: cannot read the image: {error}");
        let lines = active.judge.image_lines().map_err(failed).ok()?;
        // What was altered there would be sealed anew with the rest.
        if let Some(damage) = Damage::of(&lines, active.image.shape()) {
            log::error!("compiling as a whole: the image in the kernel was altered: {damage:?}");
            return None;
        }
        let image = active.image.clone().with_lines(lines);
        let image = change.change(image, &self.clock().ok()?)?;
        Some((image, change.hosts()))
    }

    pub(super) fn clock(&self) -> Result<Clock, ApplyError> {
        self.backend.clock().map_err(|source| ApplyError::Syscall {
            call: "reading the clock of the data path",
            source,
        })
    }

    /// The image, and the hash of the policy that it was seeded by.
    pub(super) fn compile(
        &self,
        policy: &Policy,
        counter_slots: Vec<u32>,
        management: &[Management],
    ) -> Result<(Image, PolicyHash), ApplyError> {
        let clock = self.clock()?;
        let hash = policy.hash();
        let seed = [0u8, 1].map(|half| self.secret.hash_one((half, hash)));
        let options = CompileOptions {
            seed,
            counter_slots,
            clock,
            rows_up_to: self.rows_up_to,
            management: management.to_vec(),
        };
        Ok((compile(policy, &options)?, hash))
    }
}

/// The active rules, in evaluation order, with their slots.
fn numbered(policy: &Policy, assignment: &Assignment) -> Arc<[(RuleId, RuleSlot)]> {
    let rules = active_rules(policy).into_iter();
    rules
        .map(|rule| (rule.id.clone(), assignment.slot(&rule.id)))
        .collect()
}

fn entries(policy: &Policy) -> usize {
    let named = |address: &Option<AddressMatch>| {
        let items = address.iter().flat_map(|a| &a.items);
        items
            .filter(|item| matches!(item, AddressItem::Prefix(_)))
            .count()
    };
    let rules = policy.rules().iter();
    policy.sets().values().map(|set| set.len()).sum::<usize>()
        + rules
            .map(|r| named(&r.matches.src) + named(&r.matches.dst))
            .sum::<usize>()
}
