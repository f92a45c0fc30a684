//! What being inside a source's prefixes does.

use std::collections::HashMap;

use super::{Member, What};
use crate::compile::Clock;
use crate::policy::{AddressItem, AddressMatch, Family, SetName};

/// Where entries come from: a named set, or the prefixes written in a match.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'p> {
    Set(&'p SetName),
    Inline(&'p AddressMatch),
}

/// The sources of a direction and what each member has to do with them.
#[derive(Debug)]
pub(super) struct Effects<'p> {
    pub(super) sources: Vec<Source<'p>>,
    /// By member: the sources of its address match.
    member_sources: Vec<Vec<u32>>,
}

/// What changes when a source is entered, in one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Effect {
    /// Rules that decide, up to a tick: only those that may come first at some time.
    pub(super) rules: Vec<(u32, u64)>,
    pub(super) set_rows: Vec<usize>,
    pub(super) clear_rows: Vec<usize>,
    pub(super) labels: Vec<u32>,
}

impl<'p> Effects<'p> {
    pub(super) fn new(members: &[Member<'p>]) -> Self {
        let mut sources = Vec::new();
        let mut sets: HashMap<&SetName, u32> = HashMap::new();
        let mut inline: HashMap<&AddressMatch, u32> = HashMap::new();
        let mut sources_of = |address: &'p AddressMatch| {
            let mut of = Vec::new();
            let mut has_prefix = false;
            for item in &address.items {
                match item {
                    AddressItem::Prefix(_) => has_prefix = true,
                    AddressItem::Set(name) => of.push(*sets.entry(name).or_insert_with(|| {
                        sources.push(Source::Set(name));
                        sources.len() as u32 - 1
                    })),
                }
            }
            if has_prefix {
                of.push(*inline.entry(address).or_insert_with(|| {
                    sources.push(Source::Inline(address));
                    sources.len() as u32 - 1
                }));
            }
            of
        };
        let member_sources = members
            .iter()
            .map(|m| m.address.map_or_else(Vec::new, &mut sources_of))
            .collect();
        Self {
            sources,
            member_sources,
        }
    }

    /// What each source does in a family, and what holds outside of all of them.
    pub(super) fn of(&self, members: &[Member<'p>], family: Family) -> (Vec<Effect>, Effect) {
        let mut effects = vec![Effect::default(); self.sources.len()];
        let mut outside = Effect::default();
        for (member, sources) in members.iter().zip(&self.member_sources) {
            if member.family.is_some_and(|f| f != family) {
                continue;
            }
            let negated = member.address.is_some_and(|m| m.negated);
            if member.address.is_none() || negated {
                outside.add(member.what);
            }
            for source in sources {
                let effect = &mut effects[*source as usize];
                match (member.what, negated) {
                    (What::Row(bit), true) => effect.clear_rows.push(bit),
                    (what, _) => effect.add(what),
                }
            }
        }
        effects.iter_mut().for_each(Effect::tidy);
        outside.tidy();
        (effects, outside)
    }
}

impl Effect {
    fn add(&mut self, what: What) {
        match what {
            What::Rule(number, until) => self.rules.push((number, until)),
            What::Row(bit) => self.set_rows.push(bit),
            What::Label(label) => self.labels.push(label),
        }
    }

    /// Leaves out rules that are never first: an earlier one lasts as long.
    fn tidy(&mut self) {
        self.rules.sort_unstable();
        let mut longest = 0;
        self.rules.retain(|(_, until)| {
            let lasts = *until > longest;
            longest = longest.max(*until);
            lasts
        });
    }

    /// The first rule that decides at this tick.
    pub(super) fn rule_at(&self, tick: u64) -> Option<u32> {
        self.rules
            .iter()
            .find(|(_, until)| tick < *until)
            .map(|(number, _)| *number)
    }

    /// Whether it is the same at all times.
    pub(super) fn is_constant(&self) -> bool {
        self.rules.iter().all(|(_, until)| *until == Clock::NEVER)
    }
}
