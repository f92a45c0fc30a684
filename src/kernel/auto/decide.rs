//! What a selector makes of the interfaces that are there: pure.
//!
//! First each interface is judged by itself, then those that lie on each other are thinned out, so
//! that no packet is judged twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::super::attacher::Held;
use super::super::ifindex::IfIndex;
use super::interface::Interface;
use super::selector::{Family, InterfaceClass, Rules, Selector, SelectorError};

/// What is to become of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is to be attached.
    Attach,
    /// It is not.
    Skip(SkipReason),
}

/// Why an interface is not attached.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// It is the loopback interface, which is only taken by its exact name.
    Loopback,
    /// Neither its class nor its name nor its kind is selected.
    NotSelected,
    /// It is of a kind that is only taken by name or kind.
    ByNameOnly {
        /// The kind.
        kind: String,
    },
    /// Its name is excluded.
    ExcludedName {
        /// The pattern that its name fits.
        pattern: String,
    },
    /// Its kind is excluded.
    ExcludedKind {
        /// The kind.
        kind: String,
    },
    /// Its driver is not among those selected.
    Driver {
        /// Its driver, if it is known.
        driver: Option<String>,
    },
    /// It is not a member of a selected master.
    Master {
        /// Its master, if it has one.
        master: Option<String>,
    },
    /// It was detached by [`Firewall::detach`](crate::Firewall::detach).
    DetachedByHand,
    /// It is not set up.
    Down,
    /// It has no address of the family.
    NoAddress {
        /// The family.
        family: Family,
    },
    /// Its packets are judged before they come to it.
    JudgedBelow {
        /// Where.
        on: String,
    },
    /// Its packets are judged by the interface that it is a part of.
    JudgedAbove {
        /// Where.
        on: String,
    },
}

impl SkipReason {
    /// Whether it keeps an interface from being attached, but is no reason to detach it.
    fn is_passing(&self) -> bool {
        matches!(self, Self::Down | Self::NoAddress { .. })
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback => f.write_str("loopback, which is only taken by its exact name"),
            Self::NotSelected => f.write_str("not selected"),
            Self::ByNameOnly { kind } => write!(f, "{kind}, which is only taken by name or kind"),
            Self::ExcludedName { pattern } => write!(f, "excluded by the name {pattern:?}"),
            Self::ExcludedKind { kind } => write!(f, "excluded by the kind {kind}"),
            Self::Driver { driver: Some(name) } => write!(f, "its driver {name} is not selected"),
            Self::Driver { driver: None } => f.write_str("its driver is not known"),
            Self::Master { master: Some(name) } => write!(f, "its master {name} is not selected"),
            Self::Master { master: None } => f.write_str("it has no master"),
            Self::DetachedByHand => f.write_str("detached by hand; attach it by hand again"),
            Self::Down => f.write_str("not set up yet"),
            Self::NoAddress { family } => write!(f, "no {family} address yet"),
            Self::JudgedBelow { on } => write!(f, "its packets are judged on {on}, below it"),
            Self::JudgedAbove { on } => write!(f, "its packets are judged on {on}, above it"),
        }
    }
}

impl Selector {
    /// What the selector makes of these interfaces, in their order. They should be all of a
    /// namespace: what lies on an interface that is not among them is judged by itself. Touches
    /// nothing.
    ///
    /// ```
    /// use xdpgate::{Decision, IfIndex, Interface, Selector};
    ///
    /// let mut eth0 = Interface::new(IfIndex::new(2).unwrap(), "eth0");
    /// eth0.parent = Some("0000:00:04.0".to_owned());
    /// let mut vlan = Interface::new(IfIndex::new(3).unwrap(), "eth0.7");
    /// (vlan.kind, vlan.lower) = (Some("vlan".to_owned()), Some(eth0.ifindex));
    ///
    /// let decisions = Selector::all().decide(&[eth0, vlan])?;
    /// assert_eq!(decisions[0], Decision::Attach);
    /// let Decision::Skip(reason) = &decisions[1] else { panic!() };
    /// assert_eq!(reason.to_string(), "its packets are judged on eth0, below it");
    /// # Ok::<(), xdpgate::SelectorError>(())
    /// ```
    ///
    /// # Errors
    /// A pattern that is not a glob.
    pub fn decide(&self, interfaces: &[Interface]) -> Result<Vec<Decision>, SelectorError> {
        let seen = interfaces.iter().map(|i| (i.ifindex, i.clone())).collect();
        let decisions = decide(&self.compile()?, &seen, &[]);
        let decision = |i: &Interface| decisions[&i.ifindex].clone();
        Ok(interfaces.iter().map(decision).collect())
    }
}

/// The interfaces of a namespace.
pub(super) type Seen = BTreeMap<IfIndex, Interface>;
/// What is to become of each of them.
pub(super) type Decisions = BTreeMap<IfIndex, Decision>;

/// Kinds whose members carry all their packets: the members stand for them if all are selected.
const BONDS: [&str; 2] = ["bond", "team"];
/// Kinds that see a part of the packets of their members, or none.
const BRIDGES: [&str; 3] = ["bridge", "vrf", "openvswitch"];
/// Kinds that get their packets from the interface below them, as that one received them.
const STACKED: [&str; 6] = ["vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "hsr"];
/// Kinds that carry the packets of others inside of theirs or bring them from another namespace.
const BY_NAME: [&str; 31] = [
    "amt",
    "bareudp",
    "can",
    "dsa",
    "dummy",
    "erspan",
    "geneve",
    "gre",
    "gretap",
    "gtp",
    "ifb",
    "ip6erspan",
    "ip6gre",
    "ip6gretap",
    "ip6tnl",
    "ipip",
    "macsec",
    "netkit",
    "nlmon",
    "ovpn",
    "ppp",
    "sit",
    "tun",
    "vcan",
    "veth",
    "vti",
    "vti6",
    "vxlan",
    "wireguard",
    "wwan",
    "xfrm",
];

/// Decides for all interfaces. Those that somebody attached by hand are taken as they are.
pub(super) fn decide(rules: &Rules, seen: &Seen, held: &[Held]) -> Decisions {
    decide_by(|interface| refusal(rules, seen, interface), seen, held)
}

/// The same with what is known of each interface by itself: see [`refusal`].
pub(super) fn decide_by(
    refusal: impl Fn(&Interface) -> Option<SkipReason>,
    seen: &Seen,
    held: &[Held],
) -> Decisions {
    let held: BTreeMap<IfIndex, &Held> = held
        .iter()
        .filter(|h| h.alive)
        .map(|h| (h.ifindex, h))
        .collect();
    let by_hand = held.values().filter(|h| !h.automatic).map(|h| h.ifindex);
    let layers = Layers {
        seen,
        members: members(seen),
        by_hand: by_hand.collect(),
    };
    let mut passing: Vec<IfIndex> = Vec::new();
    let mut decisions = Decisions::new();
    for interface in seen.values() {
        let attached = held.get(&interface.ifindex).is_some_and(|h| h.automatic);
        let decision = match refusal(interface) {
            Some(reason) if attached && reason.is_passing() => {
                passing.push(interface.ifindex);
                Decision::Attach
            }
            Some(reason) => Decision::Skip(reason),
            None => Decision::Attach,
        };
        decisions.insert(interface.ifindex, decision);
    }
    // What stays only because it is attached has no say any more once a layer has taken its place:
    // the others are decided without it, as they will be when it is detached.
    loop {
        let mut thinned = decisions.clone();
        layers.thin_out(&mut thinned);
        let mut replaced = false;
        for ifindex in &passing {
            if thinned[ifindex] != decisions[ifindex] {
                decisions.insert(*ifindex, thinned[ifindex].clone());
                replaced = true;
            }
        }
        if !replaced {
            return thinned;
        }
    }
}

/// Why an interface is not taken, were it the only one. Depends on that interface alone, and on the
/// names of all if the rules ask for masters.
pub(super) fn refusal(rules: &Rules, seen: &Seen, interface: &Interface) -> Option<SkipReason> {
    let name = interface.name.as_str();
    let included = rules.include.iter().find(|p| p.is_match(name));
    if interface.loopback && !rules.include.iter().any(|p| p.as_str() == name) {
        return Some(SkipReason::Loopback);
    }
    if let Some(pattern) = rules.exclude.iter().find(|p| p.is_match(name)) {
        let pattern = pattern.as_str().to_owned();
        return Some(SkipReason::ExcludedName { pattern });
    }
    if let Some(kind) = &interface.kind
        && rules.exclude_kinds.contains(kind)
    {
        return Some(SkipReason::ExcludedKind { kind: kind.clone() });
    }
    let kind_is_taken = interface
        .kind
        .as_ref()
        .is_some_and(|k| rules.kinds.contains(k));
    if included.is_none() && !kind_is_taken {
        match (rules.class, &interface.kind) {
            (InterfaceClass::All, Some(kind)) if BY_NAME.contains(&kind.as_str()) => {
                return Some(SkipReason::ByNameOnly { kind: kind.clone() });
            }
            (InterfaceClass::All, _) => {}
            (InterfaceClass::Physical, _) if interface.is_physical() => {}
            (InterfaceClass::Physical | InterfaceClass::None, _) => {
                return Some(SkipReason::NotSelected);
            }
        }
    }
    unmet_condition(rules, seen, interface)
}

fn unmet_condition(rules: &Rules, seen: &Seen, interface: &Interface) -> Option<SkipReason> {
    let driver = &interface.driver;
    if !rules.drivers.is_empty() && !driver.as_ref().is_some_and(|d| rules.drivers.contains(d)) {
        return Some(SkipReason::Driver {
            driver: driver.clone(),
        });
    }
    let master = interface.master.and_then(|m| seen.get(&m)).map(|m| &m.name);
    let fits = |name: &String| rules.masters.iter().any(|p| p.is_match(name));
    if !rules.masters.is_empty() && !master.is_some_and(fits) {
        return Some(SkipReason::Master {
            master: master.cloned(),
        });
    }
    if rules.only_up && !interface.up {
        return Some(SkipReason::Down);
    }
    match rules.family {
        Some(family) if !family.is_on(interface) => Some(SkipReason::NoAddress { family }),
        _ => None,
    }
}

/// The members of each master.
fn members(seen: &Seen) -> BTreeMap<IfIndex, Vec<IfIndex>> {
    let mut members: BTreeMap<IfIndex, Vec<IfIndex>> = BTreeMap::new();
    for interface in seen.values() {
        if let Some(master) = interface.master {
            members.entry(master).or_default().push(interface.ifindex);
        }
    }
    members
}

/// Which interfaces lie on which.
struct Layers<'a> {
    seen: &'a Seen,
    members: BTreeMap<IfIndex, Vec<IfIndex>>,
    by_hand: BTreeSet<IfIndex>,
}

/// More than can be stacked (`MAX_NEST_DEV` of the kernel is 8), against records that go in circles.
const DEEPEST: usize = 16;

impl Layers<'_> {
    fn thin_out(&self, decisions: &mut Decisions) {
        let mut taken: BTreeSet<IfIndex> = self.by_hand.clone();
        let attached = decisions.iter().filter(|(_, d)| **d == Decision::Attach);
        taken.extend(attached.map(|(ifindex, _)| *ifindex));

        for (master, members) in &self.members {
            if taken.contains(master) && self.stands_for_members(*master, members, &taken) {
                for member in members {
                    self.skip(
                        decisions,
                        &mut taken,
                        *member,
                        SkipReason::JudgedAbove {
                            on: self.seen[master].name.clone(),
                        },
                    );
                }
            }
        }
        let covered: Vec<(IfIndex, IfIndex)> = taken
            .iter()
            .filter_map(|ifindex| Some((*ifindex, self.judged_below(*ifindex, &taken, 0)?)))
            .collect();
        for (ifindex, below) in covered {
            let on = self.seen[&below].name.clone();
            self.skip(
                decisions,
                &mut taken,
                ifindex,
                SkipReason::JudgedBelow { on },
            );
        }
    }

    /// Whether a selected master is attached in place of its members.
    fn stands_for_members(
        &self,
        master: IfIndex,
        members: &[IfIndex],
        taken: &BTreeSet<IfIndex>,
    ) -> bool {
        let Some(interface) = self.seen.get(&master) else {
            return false;
        };
        match &interface.kind {
            // Members that are not selected would be a hole.
            Some(_) if interface.is_kind(&BONDS) => {
                self.by_hand.contains(&master) || !members.iter().all(|m| taken.contains(m))
            }
            Some(_) => false,
            // The synthetic interface of a virtual machine, with a passed-through one as its
            // member: some packets come by it alone.
            None => true,
        }
    }

    fn skip(
        &self,
        decisions: &mut Decisions,
        taken: &mut BTreeSet<IfIndex>,
        ifindex: IfIndex,
        reason: SkipReason,
    ) {
        if !self.by_hand.contains(&ifindex) && taken.remove(&ifindex) {
            decisions.insert(ifindex, Decision::Skip(reason));
        }
    }

    /// The interface below this one that judges its packets.
    fn judged_below(
        &self,
        ifindex: IfIndex,
        taken: &BTreeSet<IfIndex>,
        depth: usize,
    ) -> Option<IfIndex> {
        let interface = self.seen.get(&ifindex)?;
        if depth == DEEPEST {
            return None;
        }
        let judge = |lower: IfIndex| match self.judged_below(lower, taken, depth + 1) {
            Some(below) => Some(below),
            None => taken.contains(&lower).then_some(lower),
        };
        if interface.is_kind(&STACKED) {
            return judge(
                interface
                    .lower
                    .filter(|lower| self.seen.contains_key(lower))?,
            );
        }
        if interface.is_kind(&BONDS) || interface.is_kind(&BRIDGES) {
            return self.members.get(&ifindex)?.iter().find_map(|m| judge(*m));
        }
        None
    }
}

#[cfg(test)]
mod tests;
