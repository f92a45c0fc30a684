//! Every entry in order, with those that cover it on a stack.

use std::collections::HashMap;

use super::effect::{Effect, Effects, Source};
use super::outcomes::Outcomes;
use super::{Address, Found, Member, leave};
use crate::compile::Clock;
use crate::compile::recompile::HostClasses;
use crate::policy::{AddressItem, Policy};

/// A prefix and the label of where it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry<A> {
    address: A,
    len: u8,
    origin: u32,
}

/// What the sweep finds in one family.
#[derive(Debug)]
pub(in crate::compile) struct Swept<A> {
    pub(in crate::compile) hosts: Vec<Found<A>>,
    pub(in crate::compile) prefixes: Vec<Found<A>>,
    /// The outcome of all other addresses.
    pub(in crate::compile) miss: u32,
}

pub(super) fn sweep<A: Address>(
    policy: &Policy,
    effects: &Effects<'_>,
    members: &[Member<'_>],
    outcomes: &mut Outcomes,
    clock: &Clock,
    classes: &mut HostClasses,
) -> Swept<A> {
    let (entries, origins) = entries::<A>(policy, effects, clock);
    let (effects, outside) = effects.of(members, A::FAMILY);
    let nothing = outcomes.nothing();
    let mut base = outcomes.apply(nothing, &outside, Clock::NEVER);
    let mut steps = Steps {
        effects,
        origins,
        known: HashMap::new(),
        last: None,
    };
    let mut hosts = Vec::new();
    let mut prefixes = Vec::new();
    let mut stack: Vec<Found<A>> = Vec::new();
    for group in entries.chunk_by(|a, b| a.address == b.address && a.len == b.len) {
        let Entry { address, len, .. } = group[0];
        leave(&mut stack, address);
        let parent = stack.last().map_or(base, |top| top.outcome);
        let outcome = group.iter().fold(parent, |outcome, entry| {
            steps.step(outcome, entry.origin, outcomes)
        });
        let found = Found {
            address,
            len,
            outcome,
        };
        if len == 0 {
            base = outcome;
        } else if len == A::WIDTH {
            classes.note(parent, group.iter().map(|e| e.origin), outcome);
            if outcome != parent {
                hosts.push(found);
            }
        } else {
            stack.push(found);
            if outcome != parent {
                prefixes.push(found);
            }
        }
    }
    Swept {
        hosts,
        prefixes,
        miss: base,
    }
}

/// All entries of one family, sorted by address, length and origin; and by origin the source and
/// the tick up to which its entries hold.
fn entries<A: Address>(
    policy: &Policy,
    effects: &Effects<'_>,
    clock: &Clock,
) -> (Vec<Entry<A>>, Vec<(u32, u64)>) {
    let mut out = Vec::new();
    let mut origins: Vec<(u32, u64)> = (0..effects.sources.len() as u32)
        .map(|source| (source, Clock::NEVER))
        .collect();
    let mut expiring: HashMap<(u32, u64), u32> = HashMap::new();
    for (origin, source) in (0..).zip(&effects.sources) {
        let entry = |address, len| Entry {
            address,
            len,
            origin,
        };
        match source {
            Source::Set(name) => {
                let Some(set) = policy.sets().get(*name) else {
                    continue;
                };
                let (hosts, prefixes) = A::of_set(set);
                out.reserve(hosts.len() + prefixes.len());
                out.extend(hosts.iter().map(|a| entry(*a, A::WIDTH)));
                out.extend(prefixes.iter().map(|(a, len)| entry(*a, *len)));
                for (address, len, expires) in A::expiring_of(set) {
                    let until = clock.ticks_at(*expires);
                    if until <= clock.ticks {
                        continue;
                    }
                    let next = origins.len() as u32;
                    // The first origins are the sources themselves.
                    let expiring = *expiring.entry((origin, until)).or_insert(next);
                    if expiring == next {
                        origins.push((origin, until));
                    }
                    out.push(Entry {
                        address: *address,
                        len: *len,
                        origin: expiring,
                    });
                }
            }
            Source::Inline(m) => out.extend(m.items.iter().filter_map(|item| match item {
                AddressItem::Prefix(p) => Some(entry(A::of(p.addr())?, p.len())),
                AddressItem::Set(_) => None,
            })),
        }
    }
    // Stable, because it is fast on runs that are sorted already, as sets are.
    out.sort();
    (out, origins)
}

/// From an outcome, by entering entries of one origin, to the next; remembered, because a million
/// entries of one set all take the same step.
struct Steps {
    effects: Vec<Effect>,
    origins: Vec<(u32, u64)>,
    known: HashMap<(u32, u32), u32>,
    last: Option<((u32, u32), u32)>,
}

impl Steps {
    fn step(&mut self, from: u32, origin: u32, outcomes: &mut Outcomes) -> u32 {
        if let Some((key, to)) = self.last
            && key == (from, origin)
        {
            return to;
        }
        let (source, until) = self.origins[origin as usize];
        let effect = &self.effects[source as usize];
        let to = *self
            .known
            .entry((from, origin))
            .or_insert_with(|| outcomes.apply(from, effect, until));
        self.last = Some(((from, origin), to));
        to
    }
}
