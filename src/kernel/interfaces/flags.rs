//! What the table says of an interface beside its slot: port of a bridge, dry run.

use super::{Interfaces, Slot, State, number, write};
use crate::kernel::backend::Backend;
use crate::kernel::ifindex::IfIndex;
use crate::kernel::layout::{INTERFACE_DRY_RUN, INTERFACE_PORT};

impl Interfaces {
    /// Sets the flags of an interface, if it has a slot; but for that of its dry run.
    pub(in crate::kernel) fn set_flags(
        &mut self,
        backend: &dyn Backend,
        ifindex: IfIndex,
        flags: u16,
    ) {
        let found = self.slots.iter().position(|s| s.ifindex == ifindex);
        if let Some(index) = found {
            let dry_run = self.slots[index].flags & INTERFACE_DRY_RUN;
            self.write_flags(backend, index, flags & !INTERFACE_DRY_RUN | dry_run);
        }
    }

    /// Says whether nothing is dropped on an attached interface; `false` if it is not attached.
    pub(in crate::kernel) fn set_dry_run(
        &mut self,
        backend: &dyn Backend,
        ifindex: IfIndex,
        dry_run: bool,
    ) -> bool {
        let is_it = |slot: &Slot| slot.ifindex == ifindex && slot.is_attached();
        let Some(index) = self.slots.iter().position(is_it) else {
            return false;
        };
        let slot = &mut self.slots[index];
        let mut flags = slot.flags & !INTERFACE_DRY_RUN;
        if dry_run {
            flags |= INTERFACE_DRY_RUN;
        }
        if let State::Attached { attachment, .. } = &mut slot.state {
            attachment.dry_run = dry_run;
        }
        self.write_flags(backend, index, flags);
        true
    }

    fn write_flags(&mut self, backend: &dyn Backend, index: usize, flags: u16) {
        if self.slots[index].flags != flags {
            self.slots[index].flags = flags;
            self.mark(backend, index);
            let entry = self.slots[index].in_table(number(index));
            write(backend, self.slots[index].position, entry);
        }
    }

    /// The flags of an interface that is a port of a bridge, and attached.
    pub(in crate::kernel) fn port_flags(&self, ifindex: IfIndex) -> Option<u16> {
        let found = self.slots.iter().find(|s| s.ifindex == ifindex)?;
        (found.is_attached() && found.flags & INTERFACE_PORT != 0).then_some(found.flags)
    }

    /// Whether an interface is a port of a bridge.
    pub(in crate::kernel) fn is_port(&self, ifindex: IfIndex) -> bool {
        let found = self.slots.iter().find(|s| s.ifindex == ifindex);
        found.is_some_and(|s| s.flags & INTERFACE_PORT != 0)
    }

    /// Whether an interface is attached for another reason than that it is a port.
    pub(in crate::kernel) fn stays_attached(&self, ifindex: IfIndex) -> bool {
        let found = self.slots.iter().find(|s| s.ifindex == ifindex);
        found.is_some_and(|s| s.is_attached() && (s.automatic || s.flags & INTERFACE_PORT == 0))
    }

    /// The interfaces that are marked as ports.
    pub(in crate::kernel) fn ports(&self) -> Vec<IfIndex> {
        let ports = self.slots.iter().filter(|s| s.flags & INTERFACE_PORT != 0);
        ports.map(|s| s.ifindex).collect()
    }
}
