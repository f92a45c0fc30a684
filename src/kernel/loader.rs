//! Settings, then a loaded firewall.

use libbpf_rs::num_possible_cpus;

use super::backend::Backend;
use super::error::LoadError;
use super::firewall::Firewall;
use super::layout::{COUNTERS_PER_INTERFACE, HostShape};
use super::live::Kernel;
use super::probe;
use super::program::{ProgramError, to_io};
use super::recorder::{Recorder, Rehearsal};

/// Settings of a [`Firewall`] before it is loaded.
///
/// ```no_run
/// use xdpgate::Firewall;
///
/// let firewall = Firewall::loader().dry_run(false).max_rules(1000).load()?;
/// # Ok::<(), xdpgate::LoadError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "settings do nothing before `load`"]
pub struct Loader {
    dry_run: bool,
    max_interfaces: u16,
    max_rules: u32,
}

impl Default for Loader {
    fn default() -> Self {
        Self {
            dry_run: true,
            max_interfaces: 256,
            max_rules: 16_384,
        }
    }
}

impl Loader {
    /// Whether frames are only judged and counted, and never dropped: `true` unless set, so that a
    /// first start harms nobody. [`Firewall::set_dry_run`] changes it later.
    pub fn dry_run(self, dry_run: bool) -> Self {
        Self { dry_run, ..self }
    }

    /// How many interfaces may be attached at one time; 256 unless set. Takes 1 KiB of memory per
    /// interface and CPU.
    pub fn max_interfaces(self, max_interfaces: u16) -> Self {
        Self {
            max_interfaces,
            ..self
        }
    }

    /// How many rules may have counters at one time; 16,384 unless set. Takes 32 bytes of memory
    /// per rule and CPU. While a policy is replaced its rules and the new ones count together, so
    /// let there be room for both where they have few rule ids in common.
    pub fn max_rules(self, max_rules: u32) -> Self {
        Self { max_rules, ..self }
    }

    /// Loads the program that interfaces run and makes the maps beside it. It judges nothing
    /// before [`Firewall::apply`]: every frame passes, with the reason
    /// [`NoPolicy`](crate::Reason::NoPolicy).
    ///
    /// libbpf may write a line to standard error when the kernel refuses something; a program that
    /// minds can silence it with `libbpf_rs::set_print(None)`, which is global to the process and
    /// therefore not done here.
    ///
    /// # Errors
    /// Missing capabilities, a size out of range, or what the kernel refused.
    pub fn load(self) -> Result<Firewall, LoadError> {
        probe::check_capabilities()?;
        let cpus = num_possible_cpus().map_err(|error| LoadError::Syscall {
            call: "reading the possible CPUs",
            source: to_io(&error),
        })?;
        let cpus = u32::try_from(cpus).expect("a number of CPUs");
        let host = self.host_shape(cpus)?;
        let kernel =
            Kernel::load(host, cpus).map_err(|error: ProgramError| LoadError::from(error))?;
        Ok(self.finish(Box::new(kernel)))
    }

    /// A firewall that touches no kernel and needs no privileges, and what it does, written down:
    /// for tests of programs that embed one, and to see what they would do.
    ///
    /// Policies are compiled as ever and [`Firewall::evaluate`] judges by the compiled image. Every
    /// interface index exists, and nothing is ever counted.
    pub fn rehearse(self) -> (Firewall, Rehearsal) {
        let recorder = Recorder::default();
        let rehearsal = recorder.rehearsal();
        (self.finish(Box::new(recorder)), rehearsal)
    }

    fn finish(self, backend: Box<dyn Backend>) -> Firewall {
        backend.set_dry_run(self.dry_run);
        Firewall::new(backend, self.max_interfaces, self.max_rules)
    }

    fn host_shape(&self, cpus: u32) -> Result<HostShape, LoadError> {
        let limit = |knob, value: u32, per_unit: u32| {
            let most = i32::MAX as u32 / cpus / per_unit;
            if (1..=most).contains(&value) {
                return Ok(());
            }
            let reason = format!("it must be 1 to {most} on {cpus} CPUs");
            Err(LoadError::Limit {
                knob,
                value: value.into(),
                reason,
            })
        };
        let counters = COUNTERS_PER_INTERFACE as u32;
        limit("max_interfaces", self.max_interfaces.into(), counters)?;
        limit("max_rules", self.max_rules, 1)?;
        // Slot 0 counts frames of interfaces that are not listed.
        let interface_slots = u32::from(self.max_interfaces) + 1;
        Ok(HostShape {
            interface_slots,
            rule_slots: self.max_rules,
            evaluate: 0,
            reserved: 0,
        })
    }
}
