//! Which interface counts in which slot.
//!
//! The table in the kernel maps an interface number to a slot; it is searched from
//! `ifindex % 4096` over at most eight places, up to the first that was never used. An entry is
//! written before its interface is attached and stays after it was detached, so that frames still
//! on their way find it: it goes when another interface needs the slot or the place, and not before
//! a grace period has passed. It comes back if that interface cannot be attached.

mod flags;
mod takeover;

use std::mem;

use super::attach::{AttachMode, Attachment, Fallback, ModePreference};
use super::backend::{Backend, VerdictCounters, XdpLink};
use super::error::AttachError;
use super::ifindex::IfIndex;
use super::layout::{
    INTERFACE_DRY_RUN, INTERFACE_ENTRIES, INTERFACE_GONE, INTERFACE_HOPS, InterfaceEntry,
};
use super::metrics::DETACHMENTS;
use super::slot_memory::InterfaceRecord;

/// Slot 0 counts the frames of interfaces that are not in the table.
pub(super) const OTHER: u16 = 0;

/// Of a slot that is in no place of the table.
const NO_POSITION: u32 = u32::MAX;

/// What is left in the place of an entry that was taken out.
const GONE: InterfaceEntry = InterfaceEntry {
    ifindex: INTERFACE_GONE,
    slot: OTHER,
    flags: 0,
};

/// The interfaces that have a slot.
#[derive(Debug)]
pub(super) struct Interfaces {
    limit: u16,
    /// Slot n is at n - 1.
    slots: Vec<Slot>,
    /// Grows with every detachment, to know which slot has been free for longest.
    detachments: u64,
}

#[derive(Debug)]
struct Slot {
    ifindex: IfIndex,
    name: String,
    position: u32,
    /// `INTERFACE_PORT` and the like.
    flags: u16,
    /// What was counted here before this interface had the slot.
    baseline: VerdictCounters,
    /// Whether auto-attach attached it, who may also detach it.
    automatic: bool,
    /// The mode that was asked for when it was attached last.
    requested: ModePreference,
    state: State,
}

#[derive(Debug)]
enum State {
    Attached {
        link: Box<dyn XdpLink>,
        attachment: Attachment,
    },
    Detached {
        since: u64,
    },
}

/// The interface that counts in a slot.
#[derive(Debug)]
pub(super) struct SlotOwner {
    pub slot: u16,
    pub ifindex: IfIndex,
    pub name: String,
    pub attached: bool,
    /// What was counted there before this interface had the slot.
    pub baseline: VerdictCounters,
}

/// The slot of an interface that is about to be attached: to be kept or cancelled.
#[derive(Debug)]
#[must_use = "an attachment keeps it, an error cancels it"]
pub(super) struct Reservation {
    slot: u16,
    before: Before,
}

/// What a slot was before it was reserved.
#[derive(Debug)]
enum Before {
    Same,
    Unused,
    Other(Box<Slot>),
}

impl Slot {
    fn is_attached(&self) -> bool {
        matches!(self.state, State::Attached { .. })
    }

    /// Its entry in the table; `slot` is its own number.
    fn in_table(&self, slot: u16) -> InterfaceEntry {
        InterfaceEntry {
            ifindex: self.ifindex.get(),
            slot,
            flags: self.flags,
        }
    }

    fn detached_since(&self) -> Option<u64> {
        match self.state {
            State::Detached { since } => Some(since),
            State::Attached { .. } => None,
        }
    }
}

impl Reservation {
    pub(super) fn slot(&self) -> u16 {
        self.slot
    }
}

impl Interfaces {
    pub(super) fn new(limit: u16) -> Self {
        Self {
            limit,
            slots: Vec::new(),
            detachments: 0,
        }
    }

    /// The attachment of an interface, if it is there and attached.
    pub(super) fn attachment(&self, ifindex: IfIndex) -> Option<&Attachment> {
        self.attachments().find(|a| a.ifindex == ifindex)
    }

    pub(super) fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.slots.iter().filter_map(|slot| match &slot.state {
            State::Attached { attachment, .. } => Some(attachment),
            State::Detached { .. } => None,
        })
    }

    /// The slots in the table and the names of their interfaces.
    pub(super) fn names(&self) -> impl Iterator<Item = (u16, &str)> {
        let slots = self.slots.iter().enumerate();
        slots.map(|(index, slot)| (number(index), slot.name.as_str()))
    }

    /// Forgets the attachments of interfaces that are gone.
    pub(super) fn sweep(&mut self) {
        for slot in &mut self.slots {
            if let State::Attached { link, .. } = &slot.state
                && !link.is_alive()
            {
                self.detachments += 1;
                metrics::counter!(DETACHMENTS.name).increment(1);
                slot.state = State::Detached {
                    since: self.detachments,
                };
            }
        }
    }

    /// Forgets the attachment of one interface if it is gone.
    pub(super) fn sweep_at(&mut self, ifindex: IfIndex) {
        if self.attachment(ifindex).is_some() && !self.is_alive(ifindex) {
            self.release(ifindex);
        }
    }

    /// Whether an interface is attached, and the kernel still holds the link.
    pub(super) fn is_alive(&self, ifindex: IfIndex) -> bool {
        self.slots.iter().any(|slot| match &slot.state {
            State::Attached { link, .. } => slot.ifindex == ifindex && link.is_alive(),
            State::Detached { .. } => false,
        })
    }

    /// Gives the interface of a slot another name, if it has the old one; returns the slot.
    pub(super) fn rename(
        &mut self,
        backend: &dyn Backend,
        ifindex: IfIndex,
        from: &str,
        to: &str,
    ) -> Option<u16> {
        let is_it = |s: &Slot| s.ifindex == ifindex && s.name == from;
        let index = self.slots.iter().position(is_it)?;
        let slot = &mut self.slots[index];
        to.clone_into(&mut slot.name);
        if let State::Attached { attachment, .. } = &mut slot.state {
            to.clone_into(&mut attachment.name);
        }
        remember(backend, number(index), &self.slots[index]);
        Some(number(index))
    }

    /// Gives an interface a slot and enters it in the table. On error nothing changed.
    pub(super) fn reserve(
        &mut self,
        backend: &dyn Backend,
        ifindex: IfIndex,
        name: &str,
    ) -> Result<Reservation, AttachError> {
        let failed = |source| AttachError::Syscall {
            interface: name.to_owned(),
            call: "waiting for packets in flight",
            source,
        };
        if let Some(index) = self.slots.iter().position(|s| s.ifindex == ifindex) {
            let slot = number(index);
            let mut before = Before::Same;
            self.slots[index].automatic = false;
            if self.slots[index].name != name {
                // The number went to another interface, whose counters start at zero.
                backend.wait_for_readers().map_err(failed)?;
                let entry = Slot {
                    ifindex,
                    name: name.to_owned(),
                    position: self.slots[index].position,
                    flags: self.slots[index].flags & !INTERFACE_DRY_RUN,
                    baseline: backend.rested_verdicts(slot),
                    automatic: false,
                    requested: ModePreference::default(),
                    state: State::Detached {
                        since: self.detachments,
                    },
                };
                before = Before::Other(Box::new(mem::replace(&mut self.slots[index], entry)));
            }
            remember(backend, slot, &self.slots[index]);
            return Ok(Reservation { slot, before });
        }
        let full = || AttachError::Full {
            interface: name.to_owned(),
            limit: self.limit,
        };
        let place = self.free_position(ifindex);
        let index = match place {
            Some(_) if self.slots.len() < usize::from(self.limit) => self.slots.len(),
            // Either no slot is unused or no place in reach is.
            Some(_) => self.oldest_detached(|_| true).ok_or_else(full)?,
            None => self
                .oldest_detached(|s| is_near(ifindex, s.position))
                .ok_or_else(full)?,
        };
        let (slot, position) = (
            number(index),
            place.or_else(|| Some(self.slots[index].position)),
        );
        let position = position.expect("a free place or that of the slot taken over");
        if let Some(old) = self.slots.get(index) {
            backend.wait_for_readers().map_err(failed)?;
            write(backend, old.position, GONE);
        }
        let entry = Slot {
            ifindex,
            name: name.to_owned(),
            position,
            flags: 0,
            baseline: backend.rested_verdicts(slot),
            automatic: false,
            requested: ModePreference::default(),
            state: State::Detached {
                since: self.detachments,
            },
        };
        remember(backend, slot, &entry);
        write(backend, position, entry.in_table(slot));
        let before = match self.slots.get_mut(index) {
            Some(old) => Before::Other(Box::new(mem::replace(old, entry))),
            None => {
                self.slots.push(entry);
                Before::Unused
            }
        };
        Ok(Reservation { slot, before })
    }

    /// Takes back what `reserve` did for an interface that could not be attached.
    pub(super) fn cancel(&mut self, backend: &dyn Backend, reservation: Reservation) {
        let Reservation { slot, before } = reservation;
        let reserved = &mut self.slots[usize::from(slot) - 1];
        match before {
            Before::Same => {}
            Before::Unused => {
                write(backend, reserved.position, GONE);
                if let Some(memory) = backend.slot_memory() {
                    memory.set_interface(slot, None);
                }
                // It was the last one.
                self.slots.pop();
            }
            Before::Other(old) => {
                if reserved.position != old.position {
                    write(backend, reserved.position, GONE);
                }
                write(backend, old.position, old.in_table(slot));
                remember(backend, slot, &old);
                *reserved = *old;
            }
        }
    }

    /// Keeps the link of an interface that has this slot.
    pub(super) fn keep(
        &mut self,
        backend: &dyn Backend,
        reservation: Reservation,
        link: Box<dyn XdpLink>,
        requested: ModePreference,
        mode: AttachMode,
        fallbacks: Vec<Fallback>,
    ) -> Attachment {
        let index = usize::from(reservation.slot) - 1;
        let slot = &mut self.slots[index];
        slot.requested = requested;
        let attachment = Attachment {
            ifindex: slot.ifindex,
            name: slot.name.clone(),
            requested,
            mode,
            fallbacks,
            program_id: link.program_id(),
            link_id: link.id(),
            dry_run: slot.flags & INTERFACE_DRY_RUN != 0,
        };
        slot.state = State::Attached {
            link,
            attachment: attachment.clone(),
        };
        self.mark(backend, index);
        attachment
    }

    /// Writes down what may change of a slot without its interface.
    fn mark(&self, backend: &dyn Backend, index: usize) {
        if let Some(memory) = backend.slot_memory() {
            let slot = &self.slots[index];
            let requested = slot.requested.number();
            memory.mark_interface(number(index), slot.flags, slot.automatic, requested);
        }
    }

    /// Detaches an interface; its counters stay.
    pub(super) fn release(&mut self, ifindex: IfIndex) -> Option<Attachment> {
        let slot = self
            .slots
            .iter_mut()
            .find(|s| s.ifindex == ifindex && s.is_attached())?;
        self.detachments += 1;
        metrics::counter!(DETACHMENTS.name).increment(1);
        let state = State::Detached {
            since: self.detachments,
        };
        match mem::replace(&mut slot.state, state) {
            State::Attached {
                mut link,
                attachment,
            } => {
                link.unpin();
                Some(attachment)
            }
            State::Detached { .. } => None,
        }
    }

    /// Notes whether it was auto-attach that attached an interface.
    pub(super) fn set_automatic(&mut self, backend: &dyn Backend, ifindex: IfIndex, is: bool) {
        let found = self.slots.iter().position(|s| s.ifindex == ifindex);
        if let Some(index) = found {
            self.slots[index].automatic = is;
            self.mark(backend, index);
        }
    }

    /// Whether an interface is attached, and auto-attach did it.
    pub(super) fn is_automatic(&self, ifindex: IfIndex) -> bool {
        let found = self.slots.iter().find(|s| s.ifindex == ifindex);
        found.is_some_and(|s| s.is_attached() && s.automatic)
    }

    /// Lets attachments end with this process.
    pub(super) fn unpin_all(&mut self) {
        for slot in &mut self.slots {
            if let State::Attached { link, .. } = &mut slot.state {
                link.unpin();
            }
        }
    }

    /// Detaches all.
    pub(super) fn release_all(&mut self) {
        let attached: Vec<IfIndex> = self.attachments().map(|a| a.ifindex).collect();
        for ifindex in attached {
            self.release(ifindex);
        }
    }

    /// Who counts in which slot, and what was counted there before.
    pub(super) fn owners(&self) -> Vec<SlotOwner> {
        let owner = |(index, slot): (usize, &Slot)| SlotOwner {
            slot: number(index),
            ifindex: slot.ifindex,
            name: slot.name.clone(),
            attached: slot.is_attached(),
            baseline: slot.baseline,
        };
        self.slots.iter().enumerate().map(owner).collect()
    }

    fn free_position(&self, ifindex: IfIndex) -> Option<u32> {
        positions(ifindex).find(|p| self.slots.iter().all(|s| s.position != *p))
    }

    /// The index of the slot that has been free for longest, among those that are free.
    fn oldest_detached(&self, which: impl Fn(&Slot) -> bool) -> Option<usize> {
        let free = self.slots.iter().enumerate().filter(|(_, s)| which(s));
        let dated = free.filter_map(|(index, s)| Some((s.detached_since()?, index)));
        dated.min().map(|(_, index)| index)
    }
}

/// Writes an entry of the table in the kernel.
fn write(backend: &dyn Backend, position: u32, entry: InterfaceEntry) {
    if position != NO_POSITION {
        backend.write_interface(position, entry);
    }
}

/// Writes down for a later process who counts in a slot.
fn remember(backend: &dyn Backend, number: u16, slot: &Slot) {
    let Some(memory) = backend.slot_memory() else {
        return;
    };
    let record = InterfaceRecord {
        ifindex: slot.ifindex,
        name: slot.name.clone(),
        position: slot.position,
        flags: slot.flags,
        baseline: slot.baseline,
        automatic: slot.automatic,
        requested: slot.requested.number(),
    };
    memory.set_interface(number, Some(&record));
}

fn number(index: usize) -> u16 {
    u16::try_from(index + 1).expect("at most as many slots as max_interfaces, a u16")
}

/// Where the program looks for an interface.
fn positions(ifindex: IfIndex) -> impl Iterator<Item = u32> {
    (0..INTERFACE_HOPS).map(move |hop| ifindex.get().wrapping_add(hop) % INTERFACE_ENTRIES)
}

fn is_near(ifindex: IfIndex, position: u32) -> bool {
    positions(ifindex).any(|p| p == position)
}

#[cfg(test)]
mod tests;
