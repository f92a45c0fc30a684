use super::*;

fn index(number: u32) -> IfIndex {
    IfIndex::new(number).unwrap()
}

/// An interface of this number, named after it, of this kind.
fn link(number: u32, kind: &str) -> Interface {
    let mut interface = Interface::new(index(number), format!("{kind}{number}"));
    interface.kind = Some(kind.to_owned());
    interface
}

fn physical(number: u32) -> Interface {
    let mut interface = Interface::new(index(number), format!("eth{number}"));
    interface.parent = Some(format!("0000:00:{number:02x}.0"));
    interface
}

fn member(interface: Interface, master: u32) -> Interface {
    Interface {
        master: Some(index(master)),
        ..interface
    }
}

fn above(interface: Interface, lower: u32) -> Interface {
    Interface {
        lower: Some(index(lower)),
        ..interface
    }
}

/// The names of the interfaces that are attached, and why the others are not.
fn told(selector: &Selector, interfaces: &[Interface]) -> (Vec<String>, Vec<String>) {
    let decisions = selector.decide(interfaces).unwrap();
    let (mut attached, mut skipped) = (Vec::new(), Vec::new());
    for (interface, decision) in interfaces.iter().zip(decisions) {
        match decision {
            Decision::Attach => attached.push(interface.name.clone()),
            Decision::Skip(reason) => skipped.push(format!("{}: {reason}", interface.name)),
        }
    }
    (attached, skipped)
}

fn by_hand(interface: &Interface) -> Held {
    Held {
        ifindex: interface.ifindex,
        name: interface.name.clone(),
        automatic: false,
        alive: true,
    }
}

#[test]
fn r53_every_reason_is_told() {
    let mut lo = Interface::new(index(1), "lo");
    lo.loopback = true;
    let mut eth3 = physical(3);
    eth3.driver = Some("ixgbe".to_owned());
    let mut eth4 = physical(4);
    (eth4.driver, eth4.up) = (Some("mlx5_core".to_owned()), false);
    let mut eth5 = member(physical(5), 7);
    (eth5.driver, eth5.ipv4) = (Some("mlx5_core".to_owned()), true);
    let interfaces = [
        lo,
        physical(2),
        eth3,
        eth4,
        eth5,
        link(6, "veth"),
        link(7, "bridge"),
        link(8, "ipvlan"),
        link(9, "wireguard"),
    ];

    let selector = Selector::all()
        .exclude("eth2")
        .exclude_kinds(["ipvlan"])
        .include("veth*")
        .drivers(["mlx5_core"]);
    let (attached, skipped) = told(&selector, &interfaces);
    assert_eq!(attached, ["eth4", "eth5"]);
    assert_eq!(
        skipped,
        [
            "lo: loopback, which is only taken by its exact name",
            "eth2: excluded by the name \"eth2\"",
            "eth3: its driver ixgbe is not selected",
            "veth6: its driver is not known",
            "bridge7: its driver is not known",
            "ipvlan8: excluded by the kind ipvlan",
            "wireguard9: wireguard, which is only taken by name or kind",
        ]
    );
    let selector = Selector::physical().master("bridge*");
    let (attached, skipped) = told(&selector, &interfaces);
    assert_eq!(attached, ["eth5"]);
    assert_eq!(skipped[1], "eth2: it has no master");
    assert_eq!(skipped[4], "veth6: not selected");
    let (_, skipped) = told(&Selector::physical().master("br7"), &interfaces);
    assert_eq!(skipped[4], "eth5: its master bridge7 is not selected");
    let (attached, skipped) = told(&Selector::physical().only_up(true), &interfaces);
    assert_eq!(attached, ["eth2", "eth3", "eth5"]);
    assert_eq!(skipped[1], "eth4: not set up yet");
    let (attached, skipped) = told(&Selector::physical().family(Family::Ipv4), &interfaces);
    assert_eq!(attached, ["eth5"]);
    assert_eq!(skipped[1], "eth2: no IPv4 address yet");
    assert_eq!(told(&Selector::none().include("lo"), &interfaces).0, ["lo"]);
    assert!(
        told(&Selector::none().include("?o"), &interfaces)
            .0
            .is_empty()
    );
}

#[test]
fn a_word_that_means_nothing_is_refused() {
    let error = Selector::all().exclude("eth[").decide(&[]).unwrap_err();
    assert!(
        error.to_string().starts_with("\"eth[\" is not a pattern"),
        "{error}"
    );
    assert_eq!("physical".parse(), Ok(InterfaceClass::Physical));
    let error = "any".parse::<InterfaceClass>().unwrap_err().to_string();
    assert_eq!(
        error,
        "\"any\" is no class of interfaces: write physical, all or none"
    );
    assert_eq!("ipv6".parse(), Ok(Family::Ipv6));
    assert!("6".parse::<Family>().is_err());
}

#[test]
fn r115_a_bond_is_its_members_if_all_are_selected() {
    let bond = [
        member(physical(2), 4),
        member(physical(3), 4),
        link(4, "bond"),
        above(link(5, "vlan"), 4),
    ];
    assert_eq!(told(&Selector::all(), &bond).0, ["eth2", "eth3"]);
    let (attached, skipped) = told(&Selector::all().exclude("eth3"), &bond);
    assert_eq!(attached, ["bond4"]);
    assert_eq!(
        skipped,
        [
            "eth2: its packets are judged on bond4, above it",
            "eth3: excluded by the name \"eth3\"",
            "vlan5: its packets are judged on bond4, below it",
        ]
    );
    assert_eq!(told(&Selector::physical(), &bond).0, ["eth2", "eth3"]);
    assert_eq!(told(&Selector::none().kinds(["vlan"]), &bond).0, ["vlan5"]);
    // A bond without members yet.
    assert_eq!(told(&Selector::all(), &[link(4, "bond")]).0, ["bond4"]);
}

#[test]
fn r115_a_bridge_is_its_ports_if_one_is_selected() {
    let bridge = [
        member(physical(2), 4),
        member(link(3, "veth"), 4),
        link(4, "bridge"),
        above(link(5, "vlan"), 4),
        above(link(6, "macvlan"), 5),
    ];
    let (attached, skipped) = told(&Selector::all(), &bridge);
    assert_eq!(attached, ["eth2"]);
    assert_eq!(
        skipped[3],
        "macvlan6: its packets are judged on eth2, below it"
    );
    assert_eq!(
        told(&Selector::all().kinds(["veth"]), &bridge).0,
        ["eth2", "veth3"]
    );
    assert_eq!(
        told(&Selector::all().exclude("eth2"), &bridge).0,
        ["bridge4"]
    );
    let upper = Selector::none().kinds(["vlan", "macvlan"]);
    assert_eq!(told(&upper, &bridge).0, ["vlan5"]);
}

#[test]
fn r115_what_lies_on_another_namespace_is_judged_by_itself() {
    let mut vlan = above(link(3, "vlan"), 2);
    let eth2 = physical(2);
    assert_eq!(
        told(&Selector::all(), &[eth2.clone(), vlan.clone()]).0,
        ["eth2"]
    );
    (vlan.lower, vlan.lower_namespace) = (None, Some(0));
    assert_eq!(told(&Selector::all(), &[eth2, vlan]).0, ["eth2", "vlan3"]);
}

#[test]
fn r115_a_tunnel_and_what_it_goes_over_are_both_attached() {
    let interfaces = [physical(2), above(link(3, "vxlan"), 2), link(4, "tun")];
    assert_eq!(told(&Selector::all(), &interfaces).0, ["eth2"]);
    let with_tunnels = Selector::all().kinds(["vxlan"]).include("tun4");
    assert_eq!(
        told(&with_tunnels, &interfaces).0,
        ["eth2", "vxlan3", "tun4"]
    );
}

#[test]
fn r115_a_synthetic_interface_stands_for_the_one_passed_through() {
    // As on Hyper-V: the member has no kind, and neither has its master.
    let interfaces = [physical(2), member(physical(3), 2)];
    let (attached, skipped) = told(&Selector::physical(), &interfaces);
    assert_eq!(attached, ["eth2"]);
    assert_eq!(skipped, ["eth3: its packets are judged on eth2, above it"]);
    assert_eq!(
        told(&Selector::physical().exclude("eth2"), &interfaces).0,
        ["eth3"]
    );
}

#[test]
fn what_was_attached_by_hand_counts_as_judging() {
    let interfaces = [
        member(physical(2), 4),
        member(physical(3), 4),
        link(4, "bond"),
        above(link(5, "vlan"), 6),
        physical(6),
    ];
    let seen = interfaces.iter().map(|i| (i.ifindex, i.clone())).collect();
    let rules = Selector::all().exclude("eth6").compile().unwrap();
    let attach = |held: &[Held]| -> Vec<u32> {
        let decisions = decide(&rules, &seen, held);
        let attach = decisions
            .into_iter()
            .filter(|(_, d)| *d == Decision::Attach);
        attach.map(|(ifindex, _)| ifindex.get()).collect()
    };
    assert_eq!(attach(&[]), [2, 3, 5]);
    // The bond itself: its members would be twice. The decision on it stays what it is.
    assert_eq!(attach(&[by_hand(&interfaces[2])]), [4, 5]);
    assert_eq!(attach(&[by_hand(&interfaces[4])]), [2, 3]);
}

#[test]
fn down_and_no_address_are_no_reason_to_detach() {
    let mut eth2 = physical(2);
    eth2.up = false;
    let seen = Seen::from([(eth2.ifindex, eth2.clone())]);
    let rules = Selector::all()
        .only_up(true)
        .family(Family::Ipv6)
        .compile()
        .unwrap();
    let mut held = by_hand(&eth2);
    held.automatic = true;
    let decide = |held: &[Held]| decide(&rules, &seen, held)[&eth2.ifindex].clone();
    assert_eq!(decide(&[held.clone()]), Decision::Attach);
    held.alive = false;
    assert_eq!(decide(&[held]), Decision::Skip(SkipReason::Down));
}

/// What stays only because it is attached keeps no other from being attached once it goes itself.
#[test]
fn what_a_layer_replaces_replaces_nothing() {
    let mut waiting = member(physical(3), 4);
    waiting.up = false;
    let interfaces = [member(physical(2), 3), waiting, physical(4)];
    let seen: Seen = interfaces.iter().map(|i| (i.ifindex, i.clone())).collect();
    let rules = Selector::all().only_up(true).compile().unwrap();
    let mut held = by_hand(&interfaces[1]);
    held.automatic = true;

    let decisions = decide(&rules, &seen, &[held]);
    let on = "eth4".to_owned();
    assert_eq!(decisions[&index(2)], Decision::Attach);
    assert_eq!(
        decisions[&index(3)],
        Decision::Skip(SkipReason::JudgedAbove { on })
    );
    let after = decide(&rules, &seen, &[]);
    assert_eq!(after[&index(2)], Decision::Attach);
}

#[test]
fn records_that_go_in_circles_come_to_an_end() {
    let interfaces = [
        above(link(2, "vlan"), 3),
        above(link(3, "macvlan"), 2),
        member(above(link(4, "bridge"), 4), 4),
    ];
    let _ = told(&Selector::all(), &interfaces);
}
