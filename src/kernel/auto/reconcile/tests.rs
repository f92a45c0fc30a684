use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::kernel::auto::decide::decide;
use crate::kernel::auto::interface::Interface;
use crate::kernel::auto::selector::{InterfaceClass, Selector};

/// Few numbers, so that masters and lower interfaces are often there.
const NUMBERS: u32 = 8;
const KINDS: [&str; 8] = [
    "bond", "bridge", "vlan", "macvlan", "veth", "vxlan", "team", "vrf",
];

fn number() -> impl Strategy<Value = IfIndex> {
    (1..=NUMBERS).prop_map(|n| IfIndex::new(n).unwrap())
}

fn interface() -> impl Strategy<Value = Interface> {
    let names = select(vec!["eth0", "eth1", "br0", "x", "lo"]);
    let virtual_kind = option::weighted(0.7, select(KINDS.to_vec()));
    let layers = (option::of(number()), option::of(number()));
    (names, virtual_kind, layers, any::<bool>()).prop_map(|(name, kind, layers, up)| {
        // The number is set by whoever has it.
        let mut interface = Interface::new(IfIndex::new(1).unwrap(), name);
        interface.kind = kind.map(str::to_owned);
        interface.parent = kind.is_none().then(|| "0000:00:01.0".to_owned());
        (interface.master, interface.lower) = layers;
        (interface.up, interface.loopback) = (up, name == "lo");
        interface
    })
}

fn seen() -> impl Strategy<Value = Seen> {
    btree_map(number(), interface(), 0..NUMBERS as usize).prop_map(|mut seen| {
        for (ifindex, interface) in &mut seen {
            interface.ifindex = *ifindex;
            interface.name = format!("{}-{ifindex}", interface.name);
        }
        seen
    })
}

fn selector() -> impl Strategy<Value = Selector> {
    use InterfaceClass::{All, None, Physical};
    let patterns = || vec(select(vec!["eth*", "br*", "lo-1", "*-2", "x-?"]), 0..2);
    let class = select(vec![All, None, Physical]);
    (
        class,
        patterns(),
        patterns(),
        vec(select(KINDS.to_vec()), 0..3),
        any::<bool>(),
    )
        .prop_map(|(class, include, exclude, kinds, only_up)| {
            let selector = Selector::new(class).kinds(kinds).only_up(only_up);
            let selector = include.into_iter().fold(selector, Selector::include);
            exclude.into_iter().fold(selector, Selector::exclude)
        })
}

fn held() -> impl Strategy<Value = Vec<Held>> {
    let names = select(vec!["eth0-1", "br0-2", "x-3", "gone"]);
    let each = (names, any::<bool>(), any::<bool>());
    btree_map(number(), each, 0..NUMBERS as usize).prop_map(|held| {
        let held = held.into_iter();
        held.map(|(ifindex, (name, automatic, alive))| Held {
            ifindex,
            name: name.to_owned(),
            automatic,
            alive,
        })
        .collect()
    })
}

/// What is attached after the actions; `refused` cannot be attached.
fn apply(actions: &[Action], seen: &Seen, held: &[Held], refused: &[IfIndex]) -> Vec<Held> {
    let mut after: BTreeMap<IfIndex, Held> = held.iter().map(|h| (h.ifindex, h.clone())).collect();
    for action in actions {
        match action {
            Action::Detach(ifindex, _) => {
                let gone = after.remove(ifindex).expect("attached");
                assert!(gone.automatic, "{action:?}: by hand");
            }
            Action::Rename { ifindex, from, to } => {
                let held = after.get_mut(ifindex).expect("attached");
                assert_eq!(held.name, *from);
                held.name.clone_from(to);
            }
            Action::Attach(ifindex) => {
                let interface = &seen[ifindex];
                if refused.contains(ifindex) {
                    continue;
                }
                let before = after.insert(
                    *ifindex,
                    Held {
                        ifindex: *ifindex,
                        name: interface.name.clone(),
                        automatic: true,
                        alive: true,
                    },
                );
                assert!(before.is_none_or(|b| !b.alive), "{action:?}: twice");
            }
        }
    }
    after.into_values().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(2000)))]

    #[test]
    fn done_once_there_is_nothing_more_to_do(
        seen in seen(),
        selector in selector(),
        held in held(),
    ) {
        let rules = selector.compile().unwrap();
        let actions = |held: &[Held]| {
            reconcile(&decide(&rules, &seen, held), &seen, held)
        };
        let first = actions(&held);
        let after = apply(&first, &seen, &held, &[]);
        prop_assert_eq!(actions(&after), vec![]);
        // All that is attached has its name, and is there unless it was attached by hand.
        for held in &after {
            match seen.get(&held.ifindex) {
                Some(interface) if held.alive => prop_assert_eq!(&interface.name, &held.name),
                _ => prop_assert!(!held.automatic),
            }
        }
    }

    #[test]
    fn what_is_refused_is_all_that_is_left_to_do(
        seen in seen(),
        selector in selector(),
        held in held(),
        refused in vec(number(), 0..4),
    ) {
        let rules = selector.compile().unwrap();
        let decisions = |held: &[Held]| decide(&rules, &seen, held);
        let after = apply(&reconcile(&decisions(&held), &seen, &held), &seen, &held, &refused);
        for action in reconcile(&decisions(&after), &seen, &after) {
            prop_assert!(
                matches!(&action, Action::Attach(i) if refused.contains(i)),
                "{:?}", action
            );
        }
    }

    /// No two interfaces are attached of which one gets the packets of the other.
    #[test]
    fn r115_nothing_is_attached_on_top_of_another(seen in seen(), selector in selector()) {
        let decisions = decide(&selector.compile().unwrap(), &seen, &[]);
        let is_attached = |ifindex: &IfIndex| {
            decisions.get(ifindex) == Some(&Decision::Attach)
        };
        for (ifindex, interface) in &seen {
            if !is_attached(ifindex) {
                continue;
            }
            let kind = interface.kind.as_deref().unwrap_or_default();
            if ["vlan", "macvlan"].contains(&kind)
                && let Some(lower) = &interface.lower
                && !goes_in_circles(&seen, *ifindex)
            {
                prop_assert!(!is_attached(lower), "{ifindex} on {lower}");
            }
            let is_master = ["bond", "bridge", "team", "vrf"].contains(&kind);
            if is_master && !goes_in_circles(&seen, *ifindex) {
                for member in seen.values().filter(|i| i.master == Some(*ifindex)) {
                    prop_assert!(!is_attached(&member.ifindex), "{ifindex} and its member");
                }
            }
        }
    }
}

/// Whether an interface lies on itself, which no kernel allows.
fn goes_in_circles(seen: &Seen, start: IfIndex) -> bool {
    let mut reached = vec![start];
    let mut next = 0;
    while next < reached.len() {
        let current = reached[next];
        next += 1;
        let lower = seen.get(&current).and_then(|i| i.lower);
        let members = seen
            .values()
            .filter(|i| i.master == Some(current))
            .map(|i| i.ifindex);
        for below in lower.into_iter().chain(members) {
            if below == start {
                return true;
            }
            if !reached.contains(&below) {
                reached.push(below);
            }
        }
    }
    false
}
