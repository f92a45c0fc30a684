//! Attaching and detaching, for all who do it: calls of the API, and the thread that watches.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::attach::{self, Attachment, ModePreference};
use super::backend::Backend;
use super::error::AttachError;
use super::events::Events;
use super::firewall::lock;
use super::ifindex::IfIndex;
use super::interfaces::Interfaces;
use super::metrics::{ATTACH_FAILURES, ATTACH_FALLBACKS, ATTACHMENTS};
use super::namespace::Namespace;
use super::publish::Active;

/// What attaching and detaching need of a firewall.
#[derive(Debug)]
pub(super) struct Attacher {
    backend: Arc<dyn Backend>,
    active: Arc<RwLock<Option<Arc<Active>>>>,
    interfaces: Arc<Mutex<Interfaces>>,
    events: Arc<Events>,
    pub(super) namespace: Namespace,
    /// Interfaces that were detached by hand: auto-attach leaves them alone.
    released: Mutex<BTreeSet<IfIndex>>,
}

/// An attachment as auto-attach sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub ifindex: IfIndex,
    /// The name that its slot has.
    pub name: String,
    /// Whether auto-attach made it.
    pub automatic: bool,
    /// Whether it is still that of the interface which has this number.
    pub alive: bool,
}

impl Attacher {
    pub(super) fn new(
        backend: Arc<dyn Backend>,
        active: Arc<RwLock<Option<Arc<Active>>>>,
        interfaces: Arc<Mutex<Interfaces>>,
        events: Arc<Events>,
    ) -> Self {
        Self {
            backend,
            active,
            interfaces,
            events,
            namespace: Namespace::default(),
            released: Mutex::default(),
        }
    }

    /// Runs something in the namespace of the firewall.
    pub(super) fn inside<T: Send>(
        &self,
        interface: impl Into<String>,
        work: impl FnOnce() -> Result<T, AttachError> + Send,
    ) -> Result<T, AttachError> {
        let failed = |source: io::Error| AttachError::Syscall {
            interface: interface.into(),
            call: "setns",
            source,
        };
        self.namespace.run(work).map_err(failed)?
    }

    /// See [`Firewall::attach`](crate::Firewall::attach).
    pub(super) fn attach(
        &self,
        ifindex: IfIndex,
        preference: ModePreference,
    ) -> Result<Attachment, AttachError> {
        self.inside(format!("interface {ifindex}"), || {
            self.attach_here(ifindex, preference)
        })
    }

    fn attach_here(
        &self,
        ifindex: IfIndex,
        preference: ModePreference,
    ) -> Result<Attachment, AttachError> {
        let backend = &*self.backend;
        let no_such_interface = AttachError::NoSuchInterface(ifindex);
        let name = backend.interface_name(ifindex).ok_or(no_such_interface)?;
        let mut interfaces = lock(&self.interfaces);
        interfaces.sweep_at(ifindex);
        if interfaces.attachment(ifindex).is_some() {
            return Err(AttachError::AlreadyAttached { interface: name });
        }
        self.attach_as(&mut interfaces, ifindex, &name, preference, 0)
    }

    /// Attaches an interface that is not, with these flags in the table of interfaces. To be called in
    /// the namespace.
    pub(super) fn attach_as(
        &self,
        interfaces: &mut Interfaces,
        ifindex: IfIndex,
        name: &str,
        preference: ModePreference,
        flags: u16,
    ) -> Result<Attachment, AttachError> {
        let attached = self.link_as(interfaces, ifindex, name, preference, flags);
        match &attached {
            Ok(attachment) => {
                let mode = attachment.mode.as_str();
                metrics::counter!(ATTACHMENTS.name, "mode" => mode).increment(1);
                for better in &attachment.fallbacks {
                    let mode = better.from.as_str();
                    metrics::counter!(ATTACH_FALLBACKS.name, "mode" => mode).increment(1);
                }
            }
            // It went meanwhile, as interfaces do: that is no failure.
            Err(AttachError::NoSuchInterface(_)) => {}
            Err(_) => metrics::counter!(ATTACH_FAILURES.name).increment(1),
        }
        attached
    }

    fn link_as(
        &self,
        interfaces: &mut Interfaces,
        ifindex: IfIndex,
        name: &str,
        preference: ModePreference,
        flags: u16,
    ) -> Result<Attachment, AttachError> {
        let backend = &*self.backend;
        let reservation = match interfaces.reserve(backend, ifindex, name) {
            Err(AttachError::Full { .. }) => {
                interfaces.sweep();
                interfaces.reserve(backend, ifindex, name)?
            }
            reserved => reserved?,
        };
        interfaces.set_flags(backend, ifindex, flags);
        self.set_scopes(interfaces, reservation.slot());
        self.events.name_interface(ifindex, name);
        let (link, mode, fallbacks) = match attach::link(backend, ifindex, name, preference) {
            Ok(linked) => linked,
            Err(error) => {
                let slot = reservation.slot();
                interfaces.set_flags(backend, ifindex, 0);
                interfaces.cancel(backend, reservation);
                self.set_scopes(interfaces, slot);
                return Err(error);
            }
        };
        let attachment = interfaces.keep(backend, reservation, link, preference, mode, fallbacks);
        match attachment.why() {
            None => log::info!(
                interface = name, ifindex = ifindex.get(), mode = mode.as_str();
                "{name}: attached in {mode} mode"
            ),
            Some(why) => log::warn!(
                interface = name, ifindex = ifindex.get(), mode = mode.as_str();
                "{name}: attached in {mode} mode: {why}"
            ),
        }
        Ok(attachment)
    }

    /// As [`Self::attach`], remembered as made by auto-attach.
    pub(super) fn attach_automatically(
        &self,
        ifindex: IfIndex,
        preference: ModePreference,
    ) -> Result<Attachment, AttachError> {
        let attachment = self.attach(ifindex, preference)?;
        lock(&self.interfaces).set_automatic(&*self.backend, ifindex, true);
        Ok(attachment)
    }

    /// See [`Firewall::detach`](crate::Firewall::detach).
    pub(super) fn detach(&self, ifindex: IfIndex) -> Result<Attachment, AttachError> {
        // Both at one moment for who watches: see `released`.
        let mut released = lock(&self.released);
        let mut interfaces = lock(&self.interfaces);
        interfaces.sweep_at(ifindex);
        let attachment = interfaces
            .release(ifindex)
            .ok_or(AttachError::NotAttached(ifindex))?;
        released.insert(ifindex);
        log_detached(&attachment);
        Ok(attachment)
    }

    /// The interfaces that were detached by hand and not attached since.
    pub(super) fn released(&self) -> BTreeSet<IfIndex> {
        lock(&self.released).clone()
    }

    /// Forgets all that was detached by hand.
    pub(super) fn take_all_back(&self) {
        lock(&self.released).clear();
    }

    /// Forgets that an interface was detached by hand.
    pub(super) fn take_back(&self, ifindex: IfIndex) {
        lock(&self.released).remove(&ifindex);
    }

    /// Lets go of what auto-attach made on an interface, be it there or gone.
    pub(super) fn release_automatic(&self, ifindex: IfIndex) -> Option<Attachment> {
        let mut interfaces = lock(&self.interfaces);
        if !interfaces.is_automatic(ifindex) {
            return None;
        }
        let attachment = interfaces.release(ifindex)?;
        log_detached(&attachment);
        Some(attachment)
    }

    /// See [`Firewall::attachments`](crate::Firewall::attachments).
    pub(super) fn attachments(&self) -> Vec<Attachment> {
        let mut interfaces = lock(&self.interfaces);
        interfaces.sweep();
        let mut attachments: Vec<Attachment> = interfaces.attachments().cloned().collect();
        attachments.sort_by_key(|a| a.ifindex);
        attachments
    }

    pub(super) fn is_attached(&self, ifindex: IfIndex) -> bool {
        lock(&self.interfaces).attachment(ifindex).is_some()
    }

    /// All attachments, by index; `verify` asks the kernel whether each is still there.
    pub(super) fn held(&self, verify: bool) -> Vec<Held> {
        let interfaces = lock(&self.interfaces);
        let held = |attachment: &Attachment| {
            let ifindex = attachment.ifindex;
            Held {
                ifindex,
                name: attachment.name.clone(),
                // A port of a bridge belongs to its bridge until that is taken down.
                automatic: interfaces.is_automatic(ifindex) && !interfaces.is_port(ifindex),
                alive: !verify || interfaces.is_alive(ifindex),
            }
        };
        let mut held: Vec<Held> = interfaces.attachments().map(held).collect();
        held.sort_by_key(|h| h.ifindex);
        held
    }

    /// Tells that an interface has another name now: it keeps its slot and its counters, and is in
    /// the scopes of its new name.
    pub(super) fn rename(&self, ifindex: IfIndex, from: &str, to: &str) {
        let mut interfaces = lock(&self.interfaces);
        if let Some(slot) = interfaces.rename(&*self.backend, ifindex, from, to) {
            self.set_scopes(&interfaces, slot);
            self.events.name_interface(ifindex, to);
        }
    }

    /// Tells the policy in force which scopes the interface of a slot is in.
    fn set_scopes(&self, interfaces: &Interfaces, slot: u16) {
        let active = self.active.read();
        let active = active.unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(active) = active
            && let Some((_, name)) = interfaces.names().find(|(n, _)| *n == slot)
        {
            active.judge.set_scopes(slot, active.scopes.of(name));
        }
    }
}

fn log_detached(attachment: &Attachment) {
    log::info!(
        interface = attachment.name.as_str(), ifindex = attachment.ifindex.get();
        "{}: detached", attachment.name
    );
}
