//! Which interfaces are to be attached.

use std::fmt;
use std::str::FromStr;

use globset::{Glob, GlobMatcher};

use super::interface::Interface;

/// Which interfaces are to be attached by [`Firewall::auto_attach`](crate::Firewall::auto_attach).
///
/// It starts from a [class](InterfaceClass). [`include`](Self::include) and [`kinds`](Self::kinds)
/// take more interfaces; all others take some away. Two rules hold for every selector:
///
/// - *Once per packet.* Of interfaces that lie on each other those are attached that a packet comes
///   through first: the members of a bond and not the bond, the ports of a bridge and not the
///   bridge, an interface and not its VLANs and macvlans, as far as the lower ones are selected.
/// - *Loopback* is attached only if it is included by its exact name.
///
/// ```
/// use xdpgate::Selector;
///
/// let selector = Selector::physical().include("tap*").exclude("eth9").only_up(true);
/// ```
///
/// `docs/interfaces.md` has the whole table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a selector does nothing by itself"]
pub struct Selector {
    class: InterfaceClass,
    include: Vec<String>,
    exclude: Vec<String>,
    kinds: Vec<String>,
    exclude_kinds: Vec<String>,
    drivers: Vec<String>,
    masters: Vec<String>,
    only_up: bool,
    family: Option<Family>,
}

/// The interfaces that a [`Selector`] starts from. In text: `physical`, `all` or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InterfaceClass {
    /// Hardware, and what a hypervisor offers as such: see [`Interface::is_physical`].
    Physical,
    /// All but those that carry the packets of others inside of theirs (tunnels such as vxlan, gre,
    /// tun) or lead to another namespace (veth, netkit). These are taken by name or kind only.
    All,
    /// None, so that all are taken by name or kind.
    None,
}

/// A family of addresses. In text: `ipv4` or `ipv6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// Why a selector, or a word for one, makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectorError {
    /// A pattern is not a glob.
    #[error("{pattern:?} is not a pattern for names: {reason}; write for example \"eth*\"")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not the name of a class of interfaces.
    #[error("{0:?} is no class of interfaces: write physical, all or none")]
    Class(String),
    /// Not the name of a family of addresses.
    #[error("{0:?} is no family of addresses: write ipv4 or ipv6")]
    Family(String),
}

impl Selector {
    /// Starts from a class of interfaces.
    pub fn new(class: InterfaceClass) -> Self {
        Self {
            class,
            include: Vec::new(),
            exclude: Vec::new(),
            kinds: Vec::new(),
            exclude_kinds: Vec::new(),
            drivers: Vec::new(),
            masters: Vec::new(),
            only_up: false,
            family: None,
        }
    }

    /// Starts from all hardware.
    pub fn physical() -> Self {
        Self::new(InterfaceClass::Physical)
    }

    /// Starts from all but tunnels, veths and loopback: see [`InterfaceClass::All`].
    pub fn all() -> Self {
        Self::new(InterfaceClass::All)
    }

    /// Starts from none.
    pub fn none() -> Self {
        Self::new(InterfaceClass::None)
    }

    /// Takes interfaces of this name, or whose names fit this glob (`*`, `?`, `[a-z]`,
    /// `{eth,wan}*`), too. The container's end of a veth is often `eth0`: include it by name.
    pub fn include(mut self, name: impl Into<String>) -> Self {
        self.include.push(name.into());
        self
    }

    /// Takes no interfaces of this name, or whose names fit this glob, whatever else takes them.
    pub fn exclude(mut self, name: impl Into<String>) -> Self {
        self.exclude.push(name.into());
        self
    }

    /// Takes interfaces of these kinds too: the words of `ip link add type`, such as `veth`.
    pub fn kinds(mut self, kinds: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.kinds.extend(kinds.into_iter().map(Into::into));
        self
    }

    /// Takes no interfaces of these kinds, whatever else takes them.
    pub fn exclude_kinds(mut self, kinds: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.exclude_kinds.extend(kinds.into_iter().map(Into::into));
        self
    }

    /// Takes only interfaces with these drivers, as `ethtool -i` names them.
    pub fn drivers(mut self, drivers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.drivers.extend(drivers.into_iter().map(Into::into));
        self
    }

    /// Takes only members of a bond, bridge, team or VRF whose name fits this glob. Used again, it
    /// takes those of another one too.
    pub fn master(mut self, name: impl Into<String>) -> Self {
        self.masters.push(name.into());
        self
    }

    /// Whether an interface is left alone until it is set up; `false` unless set. One that was
    /// attached stays so when it is set down: it is judged from its first packet on when it comes
    /// back.
    pub fn only_up(self, only_up: bool) -> Self {
        Self { only_up, ..self }
    }

    /// Leaves an interface alone until it has an address of this family; link-local ones do not
    /// count. One that was attached stays so when it loses its last one.
    pub fn family(self, family: Family) -> Self {
        Self {
            family: Some(family),
            ..self
        }
    }

    /// # Errors
    /// A pattern that is not a glob.
    pub(super) fn compile(&self) -> Result<Rules, SelectorError> {
        let patterns = |globs: &[String]| -> Result<Vec<Pattern>, SelectorError> {
            globs.iter().map(|g| Pattern::new(g)).collect()
        };
        Ok(Rules {
            class: self.class,
            include: patterns(&self.include)?,
            exclude: patterns(&self.exclude)?,
            kinds: self.kinds.clone(),
            exclude_kinds: self.exclude_kinds.clone(),
            drivers: self.drivers.clone(),
            masters: patterns(&self.masters)?,
            only_up: self.only_up,
            family: self.family,
        })
    }
}

/// A selector whose patterns are ready to match.
#[derive(Debug)]
pub(super) struct Rules {
    pub class: InterfaceClass,
    pub include: Vec<Pattern>,
    pub exclude: Vec<Pattern>,
    pub kinds: Vec<String>,
    pub exclude_kinds: Vec<String>,
    pub drivers: Vec<String>,
    pub masters: Vec<Pattern>,
    pub only_up: bool,
    pub family: Option<Family>,
}

/// A name or a glob.
#[derive(Debug)]
pub(super) struct Pattern(GlobMatcher);

impl Pattern {
    fn new(text: &str) -> Result<Self, SelectorError> {
        let glob = Glob::new(text).map_err(|error| SelectorError::Pattern {
            pattern: text.to_owned(),
            reason: error.kind().to_string(),
        })?;
        Ok(Self(glob.compile_matcher()))
    }

    pub(super) fn is_match(&self, name: &str) -> bool {
        self.0.is_match(name)
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.glob().glob()
    }
}

impl Family {
    /// Whether an interface has an address of this family.
    pub(super) fn is_on(self, interface: &Interface) -> bool {
        match self {
            Self::Ipv4 => interface.ipv4,
            Self::Ipv6 => interface.ipv6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

impl FromStr for InterfaceClass {
    type Err = SelectorError;

    fn from_str(word: &str) -> Result<Self, SelectorError> {
        match word {
            "physical" => Ok(Self::Physical),
            "all" => Ok(Self::All),
            "none" => Ok(Self::None),
            _ => Err(SelectorError::Class(word.to_owned())),
        }
    }
}

impl FromStr for Family {
    type Err = SelectorError;

    fn from_str(word: &str) -> Result<Self, SelectorError> {
        match word {
            "ipv4" => Ok(Self::Ipv4),
            "ipv6" => Ok(Self::Ipv6),
            _ => Err(SelectorError::Family(word.to_owned())),
        }
    }
}
