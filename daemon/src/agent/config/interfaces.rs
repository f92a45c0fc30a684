//! `[interfaces]`: which interfaces are attached, and how.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xdpgate::{
    AttachMode, AutoAttachOptions, Family, InterfaceClass, ModePreference, Selector, SelectorError,
};

use super::Invalid;

/// Which interfaces are attached, at the start and whenever one appears. docs/interfaces.md has the
/// rules.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::agent) struct Interfaces {
    /// physical: hardware, and what a hypervisor offers as such; all: also virtual ones that carry
    /// packets of their own; none: only what include and kinds name.
    pub class: String,
    /// Names and patterns of names that are attached as well.
    pub include: Vec<String>,
    /// Names and patterns of names that never are.
    pub exclude: Vec<String>,
    /// Kinds, as in `ip link add type KIND`, that are attached as well.
    pub kinds: Vec<String>,
    /// Kinds that never are.
    pub exclude_kinds: Vec<String>,
    /// Only those of these drivers, if any are named.
    pub drivers: Vec<String>,
    /// Only members of these bonds or bridges, if any are named.
    pub masters: Vec<String>,
    /// Only those that are set up.
    pub only_up: bool,
    /// Only those with an address of this family: ipv4 or ipv6. Default: with and without.
    #[schemars(example = &"ipv4")]
    pub family: Option<String>,
    /// Where in the receive path the program runs. What is attached stays in its mode until it is
    /// detached.
    pub mode: Mode,
    /// How often all interfaces are looked at although the kernel told nothing, and what failed is tried
    /// again, in seconds.
    #[schemars(range(min = 1))]
    pub rescan_seconds: u64,
    /// How many bytes of the kernel's messages are kept until they are read.
    pub receive_buffer: usize,
}

/// Where in the receive path the program may run.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(in crate::agent) enum Mode {
    /// The best that the interface has: offload, native, generic
    Best,
    /// In the driver, or not at all
    Native,
    /// In the network stack: slower
    Generic,
}

impl Default for Interfaces {
    fn default() -> Self {
        Self {
            class: "physical".to_owned(),
            include: Vec::new(),
            exclude: Vec::new(),
            kinds: Vec::new(),
            exclude_kinds: Vec::new(),
            drivers: Vec::new(),
            masters: Vec::new(),
            only_up: false,
            family: None,
            mode: Mode::Best,
            rescan_seconds: 30,
            receive_buffer: 8 << 20,
        }
    }
}

impl Interfaces {
    /// Which interfaces they are.
    ///
    /// # Errors
    ///
    /// One of those that [`Interfaces::invalid`] lists.
    pub(in crate::agent) fn selector(&self) -> Result<Selector, SelectorError> {
        let mut selector = Selector::new(self.class.parse()?)
            .kinds(&self.kinds)
            .exclude_kinds(&self.exclude_kinds)
            .drivers(&self.drivers)
            .only_up(self.only_up);
        for pattern in &self.include {
            selector = selector.include(pattern);
        }
        for pattern in &self.exclude {
            selector = selector.exclude(pattern);
        }
        for master in &self.masters {
            selector = selector.master(master);
        }
        if let Some(family) = &self.family {
            selector = selector.family(family.parse()?);
        }
        Ok(selector)
    }

    pub(in crate::agent) fn options(&self) -> AutoAttachOptions {
        AutoAttachOptions::default()
            .mode(self.mode.into())
            .rescan_every(Duration::from_secs(self.rescan_seconds))
            .receive_buffer(self.receive_buffer)
    }

    pub(super) fn invalid(&self) -> Vec<Invalid> {
        let mut invalid = Vec::new();
        if let Err(error) = self.class.parse::<InterfaceClass>() {
            invalid.push(Invalid::new("interfaces.class", error));
        }
        if let Some(Err(error)) = self.family.as_ref().map(|f| f.parse::<Family>()) {
            invalid.push(Invalid::new("interfaces.family", error));
        }
        for (key, patterns) in [("include", &self.include), ("exclude", &self.exclude)] {
            for (index, pattern) in patterns.iter().enumerate() {
                // Nothing is there: only the pattern is looked at.
                if let Err(error) = Selector::none().include(pattern).decide(&[]) {
                    invalid.push(Invalid::new(format!("interfaces.{key}[{index}]"), error));
                }
            }
        }
        invalid
    }
}

impl From<Mode> for ModePreference {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Best => Self::BestAvailable,
            Mode::Native => Self::Exactly(AttachMode::Native),
            Mode::Generic => Self::Exactly(AttachMode::Generic),
        }
    }
}
