//! Interfaces that are attached as they appear.
//!
//! ```text
//! rtnetlink -> netlink -> watch (one thread) -> decide, reconcile (pure) -> Attacher
//! ```

mod decide;
mod events;
mod interface;
mod known;
mod netlink;
mod reconcile;
mod selector;
mod wake;
mod watch;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub use decide::{Decision, SkipReason};
pub use events::{AutoEvent, AutoEvents, Resync};
pub use interface::{Interface, OperState};
pub use reconcile::DetachReason;
pub use selector::{Family, InterfaceClass, Selector, SelectorError};

use super::attach::{Attachment, ModePreference};
use super::attacher::Attacher;
use super::error::AttachError;
use super::firewall::{Firewall, lock};
use known::Shared;
use netlink::Netlink;
use wake::{Request, Wake};
use watch::Watcher;

/// How interfaces are watched.
///
/// ```
/// use std::time::Duration;
/// use xdpgate::AutoAttachOptions;
///
/// let options = AutoAttachOptions::default().rescan_every(Duration::from_secs(5));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "options do nothing by themselves"]
pub struct AutoAttachOptions {
    mode: ModePreference,
    rescan_every: Duration,
    receive_buffer: usize,
}

impl Default for AutoAttachOptions {
    fn default() -> Self {
        Self {
            mode: ModePreference::BestAvailable,
            rescan_every: Duration::from_secs(30),
            receive_buffer: 8 << 20,
        }
    }
}

impl AutoAttachOptions {
    /// The modes that attachments may have; the best available unless set, which for a bond is
    /// generic: in native mode its members would run the program, and count for themselves.
    pub fn mode(self, mode: ModePreference) -> Self {
        Self { mode, ..self }
    }

    /// How often all interfaces are looked at anew although nothing was told, and what failed is
    /// tried again; every 30 seconds unless set, and not more often than ten times a second.
    pub fn rescan_every(self, rescan_every: Duration) -> Self {
        Self {
            rescan_every,
            ..self
        }
    }

    /// How many bytes of messages the kernel keeps until they are read; 8 MiB unless set. If there
    /// are more, all interfaces are looked at anew. Beyond `net.core.rmem_max` it takes CAP_NET_ADMIN
    /// in the user namespace of the machine; without it there are as many as that allows.
    pub fn receive_buffer(self, bytes: usize) -> Self {
        Self {
            receive_buffer: bytes,
            ..self
        }
    }
}

/// Why interfaces are not watched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AutoAttachError {
    /// The selector makes no sense.
    #[error(transparent)]
    Selector(#[from] SelectorError),
    /// The firewall watches already.
    #[error("interfaces are watched already: drop the AutoAttach before, or stop() it")]
    Running,
    /// The watching has ended.
    #[error("interfaces are not watched any more: the firewall or its thread has ended")]
    Stopped,
    /// A system call failed.
    #[error("{call}: {source}")]
    Syscall {
        /// The call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

/// An interface, and what auto-attach makes of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AutoInterface {
    /// What the kernel says of it.
    pub interface: Interface,
    /// What is to become of it.
    pub decision: Decision,
    /// What came of it; also if it was attached by hand.
    pub attachment: Option<Attachment>,
    /// Why it is not attached although it is to be.
    pub error: Option<Arc<AttachError>>,
}

/// What was done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AutoStats {
    /// Messages of the kernel about interfaces.
    pub messages: u64,
    /// How often messages were lost.
    pub overruns: u64,
    /// How often all interfaces were looked at, the first time included.
    pub rescans: u64,
    /// Interfaces that were attached.
    pub attached: u64,
    /// Interfaces that were detached, because they went or are not selected any more.
    pub detached: u64,
    /// Attempts to attach that failed.
    pub failed: u64,
    /// Attached interfaces that got another name.
    pub renamed: u64,
}

/// Attaches interfaces as they appear, for as long as it lives. Dropping it ends the watching and
/// leaves all attachments as they are.
#[derive(Debug)]
#[must_use = "dropping it ends the watching"]
pub struct AutoAttach {
    shared: Arc<Shared>,
    thread: Arc<WatchThread>,
    attacher: Weak<Attacher>,
}

impl AutoAttach {
    /// All interfaces that are there, by index, and what is made of them.
    pub fn interfaces(&self) -> Vec<AutoInterface> {
        let attacher = self.attacher.upgrade();
        let attachments = attacher.map(|a| a.attachments()).unwrap_or_default();
        let known = lock(&self.shared.known);
        let of = |interface: &Interface| {
            let ifindex = interface.ifindex;
            let attachment = attachments.iter().find(|a| a.ifindex == ifindex);
            let decision = known.decisions.get(&ifindex)?.clone();
            Some(AutoInterface {
                interface: interface.clone(),
                decision,
                attachment: attachment.cloned(),
                error: known.failed.get(&ifindex).cloned(),
            })
        };
        known.seen.values().filter_map(of).collect()
    }

    /// What happens from now on. Any number of streams may be open.
    ///
    /// ```no_run
    /// use xdpgate::{AutoEvent, Firewall, Selector};
    ///
    /// let firewall = Firewall::loader().load()?;
    /// let auto = firewall.auto_attach(Selector::physical())?;
    /// for event in auto.events() {
    ///     if let AutoEvent::Failed { interface, error, .. } = event {
    ///         eprintln!("{interface}: {error}");
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn events(&self) -> AutoEvents {
        self.shared.listeners.subscribe()
    }

    /// What was done so far.
    pub fn stats(&self) -> AutoStats {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        AutoStats {
            messages: read(&counters.messages),
            overruns: read(&counters.overruns),
            rescans: read(&counters.rescans),
            attached: read(&counters.attached),
            detached: read(&counters.detached),
            failed: read(&counters.failed),
            renamed: read(&counters.renamed),
        }
    }

    /// Selects otherwise from now on, without a moment in which nobody watches. What both selections
    /// take stays attached as it is, also in its mode; what only the former took is detached, if
    /// auto-attach attached it; what only the new one takes is attached. What was detached by hand
    /// stays so. Streams of events and the counters go on. When it returns, all that is done.
    ///
    /// ```no_run
    /// use xdpgate::{AutoAttachOptions, Firewall, Selector};
    ///
    /// let firewall = Firewall::loader().load()?;
    /// let auto = firewall.auto_attach(Selector::physical())?;
    /// auto.select(Selector::physical().exclude("eth9"), AutoAttachOptions::default())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A pattern that is not a glob, no netlink socket, or the watching has ended: all stays as it
    /// is then.
    pub fn select(
        &self,
        selector: Selector,
        options: AutoAttachOptions,
    ) -> Result<(), AutoAttachError> {
        let rules = selector.compile()?;
        let failed = |source| AutoAttachError::Syscall {
            call: "looking at all interfaces",
            source,
        };
        let _one_at_a_time = lock(&self.thread.selecting);
        if !self.thread.is_running() {
            return Err(AutoAttachError::Stopped);
        }
        let (done, is_done) = mpsc::sync_channel(1);
        let request = Request {
            rules,
            options,
            done,
        };
        self.thread.wake.select(request).map_err(failed)?;
        match is_done.recv() {
            Ok(result) => result.map_err(failed),
            Err(_) => Err(AutoAttachError::Stopped),
        }
    }

    /// Ends the watching, as dropping does. When it returns nothing is attached or detached any
    /// more.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for AutoAttach {
    fn drop(&mut self) {
        self.thread.stop();
    }
}

/// The thread that watches for a firewall, if there is one; it ends with this.
#[derive(Debug, Default)]
pub(super) struct Watching(Mutex<Weak<WatchThread>>);

impl Watching {
    /// Ends the thread.
    pub(super) fn stop(&self) {
        let thread = lock(&self.0).upgrade();
        if let Some(thread) = thread {
            thread.stop();
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Debug)]
struct WatchThread {
    wake: Arc<Wake>,
    /// Held from the question to the answer.
    selecting: Mutex<()>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl WatchThread {
    /// Ends the thread and waits for it.
    fn stop(&self) {
        let mut handle = lock(&self.handle);
        if handle.is_none() {
            return;
        }
        if let Err(errno) = self.wake.stop() {
            log::error!("the thread that watches interfaces cannot be stopped: {errno}");
            return;
        }
        if handle.take().is_some_and(|t| t.join().is_err()) {
            log::error!("the thread that watched interfaces had panicked");
        }
    }

    fn is_running(&self) -> bool {
        lock(&self.handle)
            .as_ref()
            .is_some_and(|t| !t.is_finished())
    }
}

impl Firewall {
    /// Attaches all interfaces that a selector takes, and from now on each as it appears, before it
    /// is set up. See [`Firewall::auto_attach_with`].
    ///
    /// ```no_run
    /// use xdpgate::{Firewall, Selector};
    ///
    /// let firewall = Firewall::loader().load()?;
    /// let auto = firewall.auto_attach(Selector::physical().exclude("eth9"))?;
    /// for interface in auto.interfaces() {
    ///     println!("{}: {:?}", interface.interface.name, interface.decision);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A pattern that is not a glob, watching that goes on already, or no netlink socket. That an
    /// interface could not be attached is no error here: see [`AutoInterface::error`].
    pub fn auto_attach(&self, selector: Selector) -> Result<AutoAttach, AutoAttachError> {
        self.auto_attach_with(selector, AutoAttachOptions::default())
    }

    /// The same with options.
    ///
    /// When it returns, all interfaces that were there have been looked at. A thread then listens to
    /// rtnetlink in the network namespace of the firewall, or else of the thread that calls this. It
    /// ends with what is returned, or with the firewall.
    ///
    /// What was attached by [`Firewall::attach`] is never detached. What this attached, now or
    /// before, is detached when the interface goes to another namespace or is not selected any
    /// more. What [`Firewall::detach`] detaches meanwhile is left alone until
    /// [`Firewall::attach`].
    ///
    /// A firewall that [rehearses](crate::Loader::rehearse) looks at the interfaces of this machine,
    /// and writes down what it would attach.
    ///
    /// # Errors
    /// As [`Firewall::auto_attach`].
    pub fn auto_attach_with(
        &self,
        selector: Selector,
        options: AutoAttachOptions,
    ) -> Result<AutoAttach, AutoAttachError> {
        let rules = selector.compile()?;
        let mut watching = lock(&self.watching.0);
        if watching.upgrade().is_some_and(|t| t.is_running()) {
            return Err(AutoAttachError::Running);
        }
        let failed = |call| move |source: io::Error| AutoAttachError::Syscall { call, source };
        let wake = Arc::new(Wake::new().map_err(failed("eventfd"))?);
        let shared = Arc::new(Shared::default());
        let (started, has_started) = mpsc::sync_channel(1);
        let handle = thread::Builder::new()
            .name("xdpgate-auto".to_owned())
            .spawn({
                let (attacher, wake) = (Arc::clone(&self.attacher), Arc::clone(&wake));
                let shared = Arc::clone(&shared);
                move || {
                    let watched = attacher.namespace.enter();
                    let listeners = Arc::clone(&shared);
                    let watcher =
                        watched.and_then(|()| Watcher::start(attacher, rules, options, shared));
                    match watcher {
                        Ok(watcher) => {
                            let _ = started.send(Ok(()));
                            watcher.run(&wake);
                        }
                        Err(error) => drop(started.send(Err(error))),
                    }
                    listeners.listeners.end();
                }
            })
            .map_err(failed("starting a thread"))?;
        let thread = Arc::new(WatchThread {
            wake,
            selecting: Mutex::new(()),
            handle: Mutex::new(Some(handle)),
        });
        match has_started.recv() {
            Ok(Ok(())) => {}
            Ok(Err(source)) => {
                thread.stop();
                return Err(failed("listening to rtnetlink")(source));
            }
            Err(_) => {
                thread.stop();
                return Err(failed("looking at all interfaces")(io::Error::other(
                    "the thread panicked",
                )));
            }
        }
        *watching = Arc::downgrade(&thread);
        Ok(AutoAttach {
            shared,
            thread,
            attacher: Arc::downgrade(&self.attacher),
        })
    }

    /// All interfaces of the firewall's network namespace, by index: what
    /// [`Selector::decide`] judges.
    ///
    /// # Errors
    /// No netlink socket, or the namespace cannot be entered.
    pub fn interfaces(&self) -> Result<Vec<Interface>, AutoAttachError> {
        let inventory = self.attacher.namespace.run(inventory);
        let inventory = inventory.and_then(|inventory| inventory);
        inventory.map_err(|source| AutoAttachError::Syscall {
            call: "asking rtnetlink for all interfaces",
            source,
        })
    }
}

fn inventory() -> io::Result<Vec<Interface>> {
    let mut netlink = Netlink::open(None, 1 << 16)?;
    let mut interfaces = netlink.links()?.interfaces;
    for family in [Family::Ipv4, Family::Ipv6] {
        for ifindex in netlink.with_address(family)? {
            if let Some(interface) = interfaces.iter_mut().find(|i| i.ifindex == ifindex) {
                match family {
                    Family::Ipv4 => interface.ipv4 = true,
                    Family::Ipv6 => interface.ipv6 = true,
                }
            }
        }
    }
    for interface in interfaces.iter_mut().filter(|i| i.kind.is_none()) {
        netlink.describe(interface);
    }
    interfaces.sort_by_key(|i| i.ifindex);
    Ok(interfaces)
}
