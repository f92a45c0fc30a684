use super::*;
use crate::kernel::recorder::Recorder;

fn index(number: u32) -> IfIndex {
    IfIndex::new(number).unwrap()
}

fn attach(table: &mut Interfaces, backend: &Recorder, number: u32) -> Result<u16, AttachError> {
    let reservation = table.reserve(backend, index(number), &format!("if{number}"))?;
    let slot = reservation.slot;
    let link = backend.link(index(number), AttachMode::Native).unwrap();
    let native = AttachMode::Native;
    table.keep(
        backend,
        reservation,
        link,
        ModePreference::BestAvailable,
        native,
        vec![],
    );
    Ok(slot)
}

fn refuse(table: &mut Interfaces, backend: &Recorder, number: u32, name: &str) {
    let reservation = table.reserve(backend, index(number), name).unwrap();
    assert_eq!(slot_of(backend, number), reservation.slot, "{name}");
    table.cancel(backend, reservation);
}

/// Looks an interface up as the program does.
fn slot_of(backend: &Recorder, number: u32) -> u16 {
    let table = backend.interface_table();
    for position in positions(index(number)) {
        match table.get(&position) {
            None => break,
            Some(entry) if entry.ifindex == number => return entry.slot,
            Some(_) => {}
        }
    }
    OTHER
}

#[test]
fn interfaces_that_share_a_home_are_found() {
    let (mut table, backend) = (Interfaces::new(100), Recorder::default());
    for n in 0..INTERFACE_HOPS {
        assert_eq!(
            attach(&mut table, &backend, 5 + n * INTERFACE_ENTRIES).unwrap(),
            n as u16 + 1
        );
    }
    for n in 0..INTERFACE_HOPS {
        assert_eq!(slot_of(&backend, 5 + n * INTERFACE_ENTRIES), n as u16 + 1);
    }
    let ninth = 5 + INTERFACE_HOPS * INTERFACE_ENTRIES;
    assert!(matches!(
        attach(&mut table, &backend, ninth),
        Err(AttachError::Full { .. })
    ));
    table.release(index(5 + 3 * INTERFACE_ENTRIES)).unwrap();
    assert_eq!(
        attach(&mut table, &backend, ninth).unwrap(),
        4,
        "in the place of the one that left"
    );
    assert_eq!(slot_of(&backend, ninth), 4);
    assert_eq!(slot_of(&backend, 5 + 7 * INTERFACE_ENTRIES), 8);
}

#[test]
fn the_slot_that_was_left_first_is_taken_first() {
    let (mut table, backend) = (Interfaces::new(3), Recorder::default());
    for number in [10, 11, 12] {
        attach(&mut table, &backend, number).unwrap();
    }
    assert!(matches!(
        attach(&mut table, &backend, 13),
        Err(AttachError::Full { limit: 3, .. })
    ));
    table.release(index(11)).unwrap();
    table.release(index(10)).unwrap();
    assert_eq!(
        attach(&mut table, &backend, 11).unwrap(),
        2,
        "its own, left or not"
    );
    assert_eq!(attach(&mut table, &backend, 13).unwrap(), 1, "that of 10");
    for (number, slot) in [(10, OTHER), (11, 2), (12, 3), (13, 1)] {
        assert_eq!(slot_of(&backend, number), slot, "if{number}");
    }
    let attached: Vec<u32> = table.attachments().map(|a| a.ifindex.get()).collect();
    assert_eq!(attached, [13, 11, 12]);
}

#[test]
fn flags_are_those_of_the_interface_that_has_the_place() {
    let (mut table, backend) = (Interfaces::new(2), Recorder::default());
    let flags_of = |number: u32| {
        let table = backend.interface_table();
        let entry = table.values().find(|entry| entry.ifindex == number);
        entry.map(|entry| (entry.slot, entry.flags))
    };
    attach(&mut table, &backend, 10).unwrap();
    let reservation = table.reserve(&backend, index(11), "if11").unwrap();
    table.set_flags(&backend, index(11), 3);
    assert_eq!([10, 11].map(flags_of), [Some((1, 0)), Some((2, 3))]);
    // As for a port that could not be attached.
    table.set_flags(&backend, index(11), 0);
    table.cancel(&backend, reservation);
    assert_eq!([10, 11].map(flags_of), [Some((1, 0)), None]);

    table.release(index(10)).unwrap();
    table.set_flags(&backend, index(10), 1);
    assert_eq!(attach(&mut table, &backend, 11).unwrap(), 2);
    assert_eq!(attach(&mut table, &backend, 12).unwrap(), 1, "that of 10");
    assert_eq!(
        [10, 11, 12].map(flags_of),
        [None, Some((2, 0)), Some((1, 0))]
    );
    // Of no interface that is known.
    table.set_flags(&backend, index(10), 1);
    assert_eq!(flags_of(10), None);
}

#[test]
fn a_refused_attachment_changes_nothing() {
    let (mut table, backend) = (Interfaces::new(2), Recorder::default());
    refuse(&mut table, &backend, 10, "if10");
    assert_eq!(slot_of(&backend, 10), OTHER);
    assert!(table.slots.is_empty());

    attach(&mut table, &backend, 10).unwrap();
    attach(&mut table, &backend, 11).unwrap();
    table.release(index(10)).unwrap();
    let since = table.slots[0].detached_since();
    // In another place, in the same home, and under the number of the one that left.
    for (number, name) in [(12, "if12"), (10 + INTERFACE_ENTRIES, "near"), (10, "new")] {
        refuse(&mut table, &backend, number, name);
        if number != 10 {
            assert_eq!(slot_of(&backend, number), OTHER, "{name}");
        }
        let slot = &table.slots[0];
        assert_eq!((slot.ifindex, slot.name.as_str()), (index(10), "if10"));
        assert_eq!(slot.detached_since(), since, "{name}");
        assert_eq!((slot_of(&backend, 10), slot_of(&backend, 11)), (1, 2));
    }
    assert_eq!(attach(&mut table, &backend, 12).unwrap(), 1);
    assert_eq!((slot_of(&backend, 10), slot_of(&backend, 12)), (OTHER, 1));
}
