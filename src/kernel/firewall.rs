//! The firewall: what is loaded, and everything that can be done with it.

use std::collections::hash_map::RandomState;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use super::at_deadline::Deadlines;
use super::attach::{Attachment, ModePreference};
use super::attacher::Attacher;
use super::auto::Watching;
use super::backend::Backend;
use super::ban_table::BanTable;
use super::bridge::Bridges;
use super::core::{Core, CoreOwner};
use super::enforcement::Enforcement;
use super::entry_counters::InheritedEntries;
use super::error::{AttachError, EvaluateError, HealthError, PinError};
use super::estimate::Samples;
use super::events::Events;
use super::ifindex::IfIndex;
use super::interfaces::Interfaces;
use super::keeper::Keeper;
use super::loader::Loader;
use super::metrics::{self as told, Telemetry};
use super::namespace::Namespace;
use super::preflight::{self, Preflight};
use super::publish::{Active, Generation};
use super::rates::{Rates, Sampler};
use super::scopes::Scopes;
use super::slots::RuleSlots;
use super::snapshot::Snapshots;
use super::stats::{ProgramInfo, Stats};
use super::{build_info, evaluate};
use crate::policy::Policy;
use crate::verdict::Evaluation;

/// A loaded firewall. Dropping it detaches all its interfaces, unless it is pinned
/// ([`Loader::pin`]): then they go on being judged, and the next process takes over.
///
/// Every method takes `&self` and may be called from any thread. Interface numbers are those of
/// the namespace given by [`Loader::namespace`], or else of the network namespace of the calling
/// thread; use one firewall per namespace.
///
/// ```no_run
/// use xdpgate::{Firewall, IfIndex, ModePreference, Policy};
///
/// let firewall = Firewall::loader().load()?;
/// let policy = Policy::from_yaml(&std::fs::read_to_string("policy.yaml")?)?;
/// println!("{}", firewall.plan(&policy)?);
/// firewall.apply(&policy)?;
/// firewall.attach(IfIndex::from_name("eth0")?, ModePreference::BestAvailable)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Firewall {
    /// First, so that no deadline passes any more when the rest goes.
    pub(super) core: CoreOwner,
    /// Next, so that nobody attaches any more.
    pub(super) watching: Watching,
    /// Next, because it detaches its ports and restores them while all else is there.
    pub(super) bridges: Bridges,
    pub(super) attacher: Arc<Attacher>,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) interfaces: Arc<Mutex<Interfaces>>,
    pub(super) bans: Mutex<BanTable>,
    snapshots: Arc<Snapshots>,
    sampler: Mutex<Option<Sampler>>,
    /// See [`Loader::sample_every`].
    sample_every: Duration,
    pub(super) events: Arc<Events>,
    pub(super) samples: Samples,
}

/// What a firewall begins with: nothing, or what an earlier process left.
#[derive(Debug)]
pub(super) struct Beginning {
    pub secret: RandomState,
    pub slots: RuleSlots,
    pub interfaces: Interfaces,
    pub bans: BanTable,
    pub generation: u64,
    pub entries: Option<InheritedEntries>,
}

impl Firewall {
    /// The settings of a firewall to be loaded.
    pub fn loader() -> Loader {
        Loader::default()
    }

    pub(super) fn new(
        backend: Arc<dyn Backend>,
        beginning: Beginning,
        rows_up_to: usize,
        sample_every: Duration,
    ) -> Self {
        let active = Arc::new(RwLock::new(None));
        let interfaces = Arc::new(Mutex::new(beginning.interfaces));
        let events = Arc::new(Events::new(backend.events()));
        let mut bans = beginning.bans;
        let telemetry = Telemetry::new(bans.all(backend.bans(), backend.ticks()).len());
        let core = Core {
            backend: Arc::clone(&backend),
            secret: beginning.secret,
            active: Arc::clone(&active),
            slots: Mutex::new(beginning.slots),
            interfaces: Arc::clone(&interfaces),
            rows_up_to,
            events: Arc::clone(&events),
            generations: AtomicU64::new(beginning.generation),
            entry_turn: Mutex::new(()),
            inherited_entries: Mutex::new(beginning.entries),
            memory: Mutex::default(),
            disk: Mutex::default(),
            keeper: Keeper::default(),
            deadlines: Deadlines::default(),
            management: RwLock::new(Arc::new([])),
            telemetry,
        };
        Self {
            core: CoreOwner(Arc::new(core)),
            watching: Watching::default(),
            bridges: Bridges::new(Arc::clone(&backend), Arc::clone(&interfaces)),
            attacher: Arc::new(Attacher::new(
                Arc::clone(&backend),
                Arc::clone(&active),
                Arc::clone(&interfaces),
                Arc::clone(&events),
            )),
            events,
            snapshots: Arc::new(Snapshots::new(
                Arc::clone(&backend),
                Arc::clone(&active),
                Arc::clone(&interfaces),
            )),
            sampler: Mutex::new(None),
            samples: Samples::default(),
            sample_every,
            backend,
            bans: Mutex::new(bans),
            interfaces,
        }
    }

    /// Works in another network namespace than that of the calling thread.
    pub(super) fn in_namespace(mut self, namespace: Namespace) -> Self {
        let attacher = Arc::get_mut(&mut self.attacher).expect("nobody watches yet");
        attacher.namespace = namespace.clone();
        self.bridges.set_namespace(namespace);
        self
    }

    /// Attaches an interface. Its frames are judged and counted from now on.
    ///
    /// # Errors
    /// Another XDP program runs there, the interface lacks the mode, or is not there. Then nothing
    /// changed, the counters of detached interfaces included.
    pub fn attach(
        &self,
        ifindex: IfIndex,
        preference: ModePreference,
    ) -> Result<Attachment, AttachError> {
        let _no_port = self.bridges.keep_apart(ifindex)?;
        let attachment = self.attacher.attach(ifindex, preference)?;
        self.attacher.take_back(ifindex);
        Ok(attachment)
    }

    /// The number of the interface with this name, in the network namespace of the firewall.
    ///
    /// # Errors
    /// There is none, or the namespace cannot be entered.
    pub fn ifindex(&self, name: &str) -> Result<IfIndex, AttachError> {
        self.attacher.inside(name, || IfIndex::from_name(name))
    }

    /// Looks at an interface without changing anything: what [`attach`](Self::attach) would come
    /// to, and why, with the command that mends each finding. See [`preflight`](crate::preflight).
    ///
    /// The program of this firewall itself is no finding.
    ///
    /// ```no_run
    /// # use xdpgate::{Firewall, IfIndex, ModePreference};
    /// # let firewall = Firewall::loader().load()?;
    /// let eth0 = IfIndex::from_name("eth0")?;
    /// println!("{}", firewall.preflight(eth0, ModePreference::BestAvailable)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// There is no such interface.
    pub fn preflight(
        &self,
        ifindex: IfIndex,
        preference: ModePreference,
    ) -> Result<Preflight, AttachError> {
        let interface = format!("interface {ifindex}");
        self.attacher.inside(interface, || {
            let backend = &*self.backend;
            let name = backend
                .interface_name(ifindex)
                .ok_or(AttachError::NoSuchInterface(ifindex))?;
            let occupant = match self.attacher.is_attached(ifindex) {
                true => None,
                false => backend.occupant(ifindex, &name),
            };
            Ok(preflight::assess(
                ifindex,
                name,
                backend.device(ifindex),
                occupant.as_ref(),
                preference,
                backend.takes_frags(),
            ))
        })
    }

    /// Detaches an interface: its frames pass unseen from now on. Its counters stay readable.
    /// [Auto-attach](Firewall::auto_attach) leaves it alone then, until [`Firewall::attach`].
    ///
    /// # Errors
    /// It was not attached by this firewall, is gone, or is a port of a bridge.
    pub fn detach(&self, ifindex: IfIndex) -> Result<Attachment, AttachError> {
        let _no_port = self.bridges.keep_apart(ifindex)?;
        self.attacher.detach(ifindex)
    }

    /// The attached interfaces, by index. One that was removed from the system is not among them.
    pub fn attachments(&self) -> Vec<Attachment> {
        self.attacher.attachments()
    }

    /// Switches dry run on or off, at once and for all interfaces, until a process starts that finds
    /// another mode saved: what is to last is chosen by [`Firewall::set_enforcement`]. It does not end
    /// [pass mode](crate::Enforcement::Pass), which is logged as a warning.
    pub fn set_dry_run(&self, dry_run: bool) {
        let mode = Enforcement::of(dry_run);
        if !self.backend.set_enforcement_unless_pass(mode) {
            log::warn!(
                "pass mode is on and stays: nothing is dropped until another mode is chosen"
            );
        }
    }

    /// Switches dry run on or off for one attached interface, at once: what the policy drops passes
    /// there and is counted as [`WouldDrop`](crate::Disposition::WouldDrop), while other interfaces
    /// drop. Where the whole firewall is in dry run or in pass mode this makes no difference.
    ///
    /// It stays with the interface as its counters do: over detaching and attaching again, and over
    /// restarts of a pinned firewall ([`Attachment::dry_run`]); not over a restart of the machine,
    /// which numbers interfaces anew.
    ///
    /// # Errors
    /// The interface is not attached.
    pub fn set_interface_dry_run(
        &self,
        ifindex: IfIndex,
        dry_run: bool,
    ) -> Result<(), AttachError> {
        let mut interfaces = lock(&self.interfaces);
        match interfaces.set_dry_run(&*self.backend, ifindex, dry_run) {
            true => Ok(()),
            false => Err(AttachError::NotAttached(ifindex)),
        }
    }

    /// Whether frames are only judged and counted, and never dropped: in dry run and in pass mode.
    /// See [`Firewall::enforcement`].
    pub fn dry_run(&self) -> bool {
        self.backend.enforcement() != Enforcement::Enforce
    }

    /// What the policy in force says of a frame, from the XDP program itself. Dry run makes no
    /// difference, and nothing is counted or spent: a rate limit answers as it would now. Rules that
    /// name interfaces do not match: see [`Firewall::evaluate_on`].
    ///
    /// The first evaluation of a generation loads a second instance of its program. The kernel
    /// takes no test frames of less than 14 bytes; they are answered as malformed, which is what
    /// the program would say.
    ///
    /// # Errors
    /// The frame is longer than 65,536 bytes (3072 if the programs take frames in one buffer only,
    /// see [`Frags`](crate::Frags)), or the kernel refused to run the program.
    pub fn evaluate(&self, frame: &[u8]) -> Result<Evaluation, EvaluateError> {
        self.evaluate_in(frame, |_| 0)
    }

    /// The same for a frame that comes in on an interface of this name, which need not be there.
    ///
    /// # Errors
    /// As [`Firewall::evaluate`].
    pub fn evaluate_on(&self, interface: &str, frame: &[u8]) -> Result<Evaluation, EvaluateError> {
        self.evaluate_in(frame, |scopes| scopes.of(interface))
    }

    fn evaluate_in(
        &self,
        frame: &[u8],
        scopes: impl Fn(&Scopes) -> u64,
    ) -> Result<Evaluation, EvaluateError> {
        let Some(active) = self.active() else {
            return Ok(evaluate::no_policy());
        };
        if frame.len() < evaluate::SHORTEST {
            return Ok(evaluate::too_short(&active.policy));
        }
        let limit = evaluate::longest(self.backend.takes_frags());
        if frame.len() > limit {
            return Err(EvaluateError::TooLong {
                bytes: frame.len(),
                limit,
            });
        }
        let answer = active.judge.evaluate(frame, scopes(&active.scopes))?;
        evaluate::evaluation(answer, &active.policy, |number| {
            Some(&active.rules.get(number)?.0)
        })
    }

    /// All counters at one moment: each frame is in all that it counts in, or in none.
    ///
    /// It takes a grace period of the kernel, some 10 ms, because frames that are being judged are
    /// waited for. Calls at one time queue up behind each other; traffic does not wait.
    pub fn stats(&self) -> Stats {
        self.snapshots.take().stats
    }

    /// How fast packets come and what becomes of them, as last sampled.
    ///
    /// One thread takes a sample every second, or as [`Loader::sample_every`] says; it starts with
    /// the first call and ends with the firewall. Rates are those between its last two samples,
    /// the same for all who ask, however often. `None` before there are two, or if the thread
    /// cannot be started, which is logged.
    ///
    /// ```no_run
    /// # fn shown(firewall: &xdpgate::Firewall) {
    /// if let Some(rates) = firewall.rates() {
    ///     for interface in &rates.interfaces {
    ///         let dropped = interface.rates.dropped;
    ///         println!("{}: {:.0} dropped per second", interface.name, dropped.packets);
    ///     }
    /// }
    /// # }
    /// ```
    pub fn rates(&self) -> Option<Rates> {
        let mut sampler = lock(&self.sampler);
        if sampler.is_none() {
            match Sampler::start(Arc::clone(&self.snapshots), self.sample_every) {
                Ok(started) => *sampler = Some(started),
                Err(error) => log::warn!("no rates: cannot start the sampler: {error}"),
            }
        }
        sampler.as_ref()?.latest()
    }

    /// The policy in force; `None` before the first.
    pub fn policy(&self) -> Option<Arc<Policy>> {
        self.core.policy()
    }

    /// The number of the policy in force; `None` before the first.
    pub fn generation(&self) -> Option<Generation> {
        self.core.generation()
    }

    /// The policy in force and its number, which belong together; `None` before the first. Between
    /// [`Firewall::policy`] and [`Firewall::generation`] there may come another.
    pub fn in_force(&self) -> Option<(Arc<Policy>, Generation)> {
        let active = self.active()?;
        Some((Arc::clone(&active.policy), active.generation))
    }

    /// What the kernel says of the programs.
    pub fn program_info(&self) -> ProgramInfo {
        ProgramInfo {
            entry: self.backend.entry_program(),
            policy: self.active().map(|a| a.judge.program()),
            evaluator: self.active().and_then(|a| a.judge.evaluator()),
            frags: self.backend.takes_frags(),
            atomic_counters: self.backend.counts_atomically(),
            clang: build_info().clang,
        }
    }

    /// Pins the entry program as `DIR/xdpgate`, with the maps that it needs beside it: they stay
    /// in the kernel when this process is gone, judging by the policy in force, for whoever
    /// attaches or tail-calls the program. The directory is made if need be.
    ///
    /// [`unpin`](crate::unpin) removes the pins. Interfaces attached by this firewall are not kept.
    ///
    /// # Errors
    /// Not on a BPF file system, or the directory holds something. Then nothing is pinned.
    pub fn pin(&self, dir: impl AsRef<Path>) -> Result<(), PinError> {
        self.backend.pin(dir.as_ref())
    }

    /// The directory where this firewall is pinned, so that it outlives the process; `None` if all ends
    /// with the process.
    pub fn pin_root(&self) -> Option<&Path> {
        self.backend.pinned()
    }

    /// Ends auto-attach, detaches every interface and removes all pins: nothing is left of this
    /// firewall, and every packet passes. Saved policies stay. This is for the end: afterwards nothing can be attached.
    ///
    /// # Errors
    /// A pin cannot be removed. The interfaces are detached all the same.
    pub fn uninstall(&self) -> Result<(), PinError> {
        self.watching.stop();
        self.bridges.take_all_down();
        lock(&self.interfaces).release_all();
        self.backend.unpin()
    }

    /// Lets all end with this process.
    pub(super) fn let_go_of_pins(&self) -> Result<(), PinError> {
        lock(&self.interfaces).unpin_all();
        self.backend.unpin()
    }

    /// Whether the policy in force is what judges, on every interface that is attached, and what nobody
    /// confirmed was taken back. Costs one system call, and one for each interface. Before there is a
    /// policy all is well.
    ///
    /// Nothing but a mistake, another program by the maps of this one, or a kernel that refuses a policy
    /// that it took before, can break it. [`Firewall::apply`] mends it. The gauge `xdpgate_healthy` of the `metrics` facade is 1 or 0 by
    /// what was found last.
    ///
    /// # Errors
    /// What is broken.
    pub fn health(&self) -> Result<(), HealthError> {
        let found = self.find_broken();
        metrics::gauge!(told::HEALTHY.name).set(f64::from(u8::from(found.is_ok())));
        found
    }

    fn find_broken(&self) -> Result<(), HealthError> {
        if let Some(pending) = self.pending()
            && let Some(refused) = pending.refused
        {
            return Err(HealthError::TakeBack {
                generation: pending.generation,
                reason: refused.reason,
            });
        }
        let Some(active) = self.active() else {
            return Ok(());
        };
        let expected = active.judge.program().id;
        let judging = self.backend.judging_program();
        let found = judging.map_err(|source| HealthError::Syscall {
            call: "bpf(BPF_MAP_LOOKUP_ELEM) on policy_slot",
            source,
        })?;
        // Another thread may just have applied another policy.
        let is_current = self.active().is_some_and(|now| Arc::ptr_eq(&now, &active));
        if is_current && found != Some(expected) {
            return Err(HealthError::NotJudging { expected, found });
        }
        let entry = self.backend.entry_program().id;
        let attachments = self.attachments();
        match attachments.into_iter().find(|a| a.program_id != entry) {
            None => Ok(()),
            Some(attachment) => Err(HealthError::Former {
                interface: attachment.name,
                program: attachment.program_id,
            }),
        }
    }

    pub(super) fn active(&self) -> Option<Arc<Active>> {
        self.core.active()
    }
}

/// Every transaction is finished by one assignment, so what a panic left behind is whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
