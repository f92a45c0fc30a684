//! From settings to a loaded firewall.

use std::collections::hash_map::RandomState;
use std::sync::Arc;

use super::{Loader, cpu_numbers, host_seed};
use crate::kernel::backend::Backend;
use crate::kernel::ban_table::{self, BanTable};
use crate::kernel::enforcement::Enforcement;
use crate::kernel::error::LoadError;
use crate::kernel::firewall::{Beginning, Firewall};
use crate::kernel::frags::Frags;
use crate::kernel::inheritance::Inheritance;
use crate::kernel::interfaces::Interfaces;
use crate::kernel::layout::HostShape;
use crate::kernel::live::Kernel;
use crate::kernel::namespace::Namespace;
use crate::kernel::pin_root::{PinRoot, Pinning};
use crate::kernel::probe;
use crate::kernel::recorder::{Recorder, Rehearsal};
use crate::kernel::resume::Saved;
use crate::kernel::slots::RuleSlots;

impl Loader {
    /// Loads the program that interfaces run and makes the maps beside it. It judges nothing
    /// before [`Firewall::apply`]: every frame passes, with the reason
    /// [`NoPolicy`](crate::Reason::NoPolicy).
    ///
    /// libbpf may write a line to standard error when the kernel refuses something; a program that
    /// minds can silence it with `libbpf_rs::set_print(None)`, which is global to the process and
    /// therefore not done here.
    ///
    /// # Errors
    /// Missing capabilities, a kernel older than 5.10 or without BTF, a size out of range, [`Frags::Require`] on a kernel without, pins that
    /// cannot be made or are in use, a saved policy that cannot be put in force, or what the kernel
    /// refused. Interfaces of an earlier process stay attached, and are judged by its policy.
    pub fn load(self) -> Result<Firewall, LoadError> {
        probe::check_capabilities()?;
        probe::check_kernel()?;
        let namespace = self.enter_namespace()?;
        let cpus = cpu_numbers()?;
        let secret = RandomState::new();
        let host = HostShape {
            frags: self.frags.resolve()?.into(),
            ..self.host_shape(cpus, &secret)?
        };
        let pinning = self.pinning.unwrap_or(Pinning::Off);
        let root = match self.pinning {
            Some(pinning) => PinRoot::open(pinning, &self.pin_root, self.mount_bpffs)?,
            None => None,
        };
        let saved = self.state_dir.as_deref().map(Saved::open).transpose()?;
        let chosen = saved.as_ref().and_then(Saved::enforcement);
        let mode = chosen.or(self.dry_run.map(Enforcement::of));
        // In the namespace: interfaces may be taken over.
        let load = || {
            let event_buffer = self.event_buffer;
            let (kernel, inheritance) = Kernel::load(host, cpus, event_buffer, mode, root)?;
            let (host_seed, kernel) = (kernel.seed(), Arc::new(kernel));
            let backend = Arc::clone(&kernel);
            let finished = self.finish(kernel, secret, host_seed, inheritance);
            finished.inspect_err(|_| backend.abandon())
        };
        let firewall = namespace.run(load).map_err(|source| LoadError::Syscall {
            call: "setns",
            source,
        })??;
        let firewall = firewall.in_namespace(namespace);
        if let Some(saved) = saved
            && let Err(error) = firewall.core.resume(saved)
        {
            firewall.backend.abandon();
            return Err(error);
        }
        // Last, when nothing can fail any more: until here an earlier filter goes on as it was.
        firewall.core.begin_mode(mode);
        if pinning == Pinning::Off {
            firewall.let_go_of_pins()?;
        }
        Ok(firewall)
    }

    /// A firewall that touches no kernel and needs no privileges, and what it does, written down:
    /// for tests of programs that embed one, and to see what they would do. Nothing is pinned or saved.
    ///
    /// Policies are compiled as ever and [`Firewall::evaluate`] judges by the compiled image. Every
    /// interface index exists, and nothing is ever counted.
    pub fn rehearse(self) -> (Firewall, Rehearsal) {
        let secret = RandomState::new();
        let seed = host_seed(&secret);
        let takes_frags = self.frags != Frags::Off;
        let recorder = Recorder::new(takes_frags, ban_table::lines(self.max_bans), seed);
        let rehearsal = recorder.rehearsal();
        recorder.set_enforcement(Enforcement::of(self.dry_run.unwrap_or(true)));
        let inheritance = Inheritance::default();
        let firewall = self.finish(Arc::new(recorder), secret, seed, inheritance);
        let firewall = firewall.expect("there is nothing to take over");
        (firewall, rehearsal)
    }

    fn finish(
        self,
        backend: Arc<dyn Backend>,
        secret: RandomState,
        host_seed: [u64; 2],
        inheritance: Inheritance,
    ) -> Result<Firewall, LoadError> {
        let Inheritance {
            links,
            has_maps,
            counted,
            entries,
        } = inheritance;
        // Of whoever read events before: nobody does now.
        backend.events().set_budget(None);
        let memory = backend.slot_memory().filter(|_| has_maps);
        let mut beginning = Beginning {
            secret,
            slots: memory.map_or_else(|| RuleSlots::new(self.max_rules), RuleSlots::recover),
            interfaces: match memory {
                Some(memory) => Interfaces::recover(&*backend, memory),
                None => Interfaces::new(self.max_interfaces),
            },
            bans: match has_maps {
                true => BanTable::recover(self.max_bans, host_seed, backend.bans()),
                false => BanTable::new(self.max_bans, host_seed),
            },
            generation: memory.map_or(0, |memory| memory.generation()),
            entries,
        };
        beginning.slots.inherit(counted.rules);
        let lost = counted
            .bans
            .into_iter()
            .filter(|ban| {
                !beginning
                    .bans
                    .inherit(backend.bans(), *ban, backend.ticks())
            })
            .count();
        if lost > 0 {
            log::error!(bans = lost; "{lost} bans of the process before were lost: max_bans is too small");
        }
        for inherited in links {
            let key = (inherited.ifindex, inherited.name.clone());
            let counted = counted.interfaces.get(&key);
            let (mode, program) = (inherited.mode, inherited.link.program_id());
            let mut inherited = inherited;
            inherited.bridged = inherited.bridged.filter(|_| self.fast_forward);
            if let Some((_, partner)) = inherited.bridged
                && let Err(error) = backend.set_partner(inherited.ifindex, Some(partner))
            {
                log::error!(
                    interface = key.1.as_str(), ifindex = key.0.get();
                    "{}: is no port any more: {error}", key.1
                );
            }
            beginning
                .interfaces
                .inherit(&*backend, inherited, counted)
                .map_err(LoadError::Attach)?;
            log::info!(
                interface = key.1.as_str(), ifindex = key.0.get(), mode = mode.as_str(), program;
                "{}: taken over in {mode} mode, with program {program}",
                key.1
            );
        }
        let firewall = Firewall::new(backend, beginning, self.rows_up_to, self.sample_every);
        let mut firewall = firewall.with_management(self.management);
        firewall
            .bridges
            .configure(self.fast_forward, self.state_dir);
        Ok(firewall)
    }

    fn enter_namespace(&self) -> Result<Namespace, LoadError> {
        let Some(path) = &self.namespace else {
            return Ok(Namespace::default());
        };
        Namespace::open(path).map_err(|source| LoadError::Namespace {
            path: path.clone(),
            source,
        })
    }
}
