//! Slots and attachments that an earlier process left.

use super::{Interfaces, NO_POSITION, Slot, State, number, remember, write};
use crate::kernel::attach::ModePreference;
use crate::kernel::backend::{Backend, VerdictCounters};
use crate::kernel::error::AttachError;
use crate::kernel::ifindex::IfIndex;
use crate::kernel::inheritance::InheritedLink;
use crate::kernel::layout::{COUNTERS_PER_INTERFACE, INTERFACE_GONE, VerdictCounter};
use crate::kernel::slot_memory::{InterfaceRecord, SlotMemory};

impl Interfaces {
    /// The slots as an earlier process left them, all without an attachment.
    pub(in crate::kernel) fn recover(backend: &dyn Backend, memory: SlotMemory<'_>) -> Self {
        let mut table = Self::new(memory.interfaces);
        let records: Vec<_> = (1..=memory.interfaces)
            .map(|slot| memory.interface(slot))
            .collect();
        let used = records
            .iter()
            .rposition(Option::is_some)
            .map_or(0, |i| i + 1);
        for record in records.into_iter().take(used) {
            // A slot whose last change was cut off: nobody's.
            let record = record.unwrap_or_else(|| InterfaceRecord {
                ifindex: IfIndex::new(INTERFACE_GONE).expect("not 0"),
                name: String::new(),
                position: NO_POSITION,
                flags: 0,
                baseline: [VerdictCounter::default(); COUNTERS_PER_INTERFACE],
                automatic: false,
                requested: 0,
            });
            let slot = Slot {
                ifindex: record.ifindex,
                name: record.name,
                position: record.position,
                flags: record.flags,
                baseline: record.baseline,
                automatic: record.automatic,
                requested: ModePreference::from_number(record.requested),
                state: State::Detached { since: 0 },
            };
            let number = number(table.slots.len());
            write(backend, slot.position, slot.in_table(number));
            table.slots.push(slot);
        }
        table
    }

    /// Takes over an attachment of an earlier process; `counted` is what its frames counted in other
    /// slots.
    pub(in crate::kernel) fn inherit(
        &mut self,
        backend: &dyn Backend,
        inherited: InheritedLink,
        counted: Option<&VerdictCounters>,
    ) -> Result<(), AttachError> {
        let InheritedLink {
            link,
            ifindex,
            name,
            mode,
            automatic,
            dry_run,
            bridged,
        } = inherited;
        // Its link is that of then, so it is the same interface, whatever its name is now.
        let mut automatic = automatic;
        if let Some(slot) = self.slots.iter_mut().find(|s| s.ifindex == ifindex) {
            slot.name.clone_from(&name);
            automatic |= slot.automatic;
        }
        let reservation = self.reserve(backend, ifindex, &name)?;
        if let Some(counted) = counted {
            let index = usize::from(reservation.slot) - 1;
            let slot = &mut self.slots[index];
            for (baseline, counter) in slot.baseline.iter_mut().zip(counted) {
                *baseline = baseline.since(*counter);
            }
            remember(backend, reservation.slot, &self.slots[index]);
        }
        let slot = &self.slots[usize::from(reservation.slot) - 1];
        let requested = slot.requested;
        self.keep(backend, reservation, link, requested, mode, Vec::new());
        self.set_automatic(backend, ifindex, automatic);
        if dry_run {
            self.set_dry_run(backend, ifindex, true);
        }
        if let Some((flags, _)) = bridged {
            self.set_flags(backend, ifindex, flags);
        }
        Ok(())
    }

    /// Lets interfaces run the program of this process that still run that of an earlier one; says
    /// whether all do.
    pub(in crate::kernel) fn succeed(&mut self) -> bool {
        let mut done = true;
        for slot in &mut self.slots {
            let State::Attached { link, attachment } = &mut slot.state else {
                continue;
            };
            match link.succeed() {
                Ok(()) => attachment.program_id = link.program_id(),
                Err(_) if !link.is_alive() => {}
                Err(error) => {
                    log::error!(
                        interface = slot.name.as_str(), ifindex = attachment.ifindex.get();
                        "{}: still runs the program and the policy of the process before: {error}",
                        slot.name
                    );
                    done = false;
                }
            }
        }
        done
    }
}
