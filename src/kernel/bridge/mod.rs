//! Bridges: pairs of interfaces between which frames are forwarded in the driver, judged on the way.

mod error;
mod ethtool;
mod pair;
mod port;
mod saved;
mod settings;

pub use error::BridgeError;
pub use pair::{Bridge, BridgeInfo, BridgePort, DirectionStats, Filter};
pub use port::{RestoreOutcome, Restored, restore_interfaces};

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use pair::{Pair, Side};
pub(super) use port::{Port, PreparedPort};

use super::attach::{AttachMode, ModePreference};
use super::backend::Backend;
use super::error::AttachError;
use super::firewall::{Firewall, lock};
use super::ifindex::IfIndex;
use super::interfaces::Interfaces;
use super::namespace::Namespace;
use super::stats::Stats;

/// The bridges of a firewall. Dropping it takes them down.
#[derive(Debug)]
pub(super) struct Bridges {
    backend: Arc<dyn Backend>,
    interfaces: Arc<Mutex<Interfaces>>,
    /// Whether the programs can forward.
    is_loaded: bool,
    state_dir: Option<PathBuf>,
    /// Where the ports are.
    namespace: Namespace,
    /// Locked before `interfaces`.
    pairs: Mutex<Vec<Pair>>,
}

impl Bridges {
    pub(super) fn new(backend: Arc<dyn Backend>, interfaces: Arc<Mutex<Interfaces>>) -> Self {
        Self {
            backend,
            interfaces,
            is_loaded: false,
            state_dir: None,
            namespace: Namespace::default(),
            pairs: Mutex::default(),
        }
    }

    pub(super) fn configure(&mut self, is_loaded: bool, state_dir: Option<PathBuf>) {
        (self.is_loaded, self.state_dir) = (is_loaded, state_dir);
    }

    pub(super) fn set_namespace(&mut self, namespace: Namespace) {
        self.namespace = namespace;
    }

    /// Runs something in the namespace of the ports.
    fn inside<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, BridgeError> + Send,
    ) -> Result<T, BridgeError> {
        let ran = self.namespace.run(work);
        ran.map_err(|source| BridgeError::Syscall {
            call: "setns",
            source,
        })?
    }

    /// Keeps an interface from becoming a port for as long as what is returned lives.
    pub(super) fn keep_apart(&self, ifindex: IfIndex) -> Result<impl Sized + '_, AttachError> {
        let pairs = lock(&self.pairs);
        match port(&pairs, ifindex) {
            None => Ok(pairs),
            Some(side) => Err(AttachError::InBridge {
                interface: side.name.clone(),
            }),
        }
    }

    /// Puts ports back as they were: detached, unless they had been attached before they became
    /// ports. Goes on after an error; the first is returned.
    fn take_down(&self, interfaces: &mut Interfaces, sides: Vec<Side>) -> Result<(), BridgeError> {
        interfaces.sweep();
        let mut links = Vec::new();
        for side in &sides {
            if side.stays_attached {
                interfaces.set_flags(&*self.backend, side.ifindex, 0);
                links.push(interfaces.attachment(side.ifindex).is_some());
            } else {
                links.push(interfaces.release(side.ifindex).is_some());
            }
        }
        if let Err(error) = self.backend.wait_for_readers() {
            log::warn!("waiting for packets in flight: {error}");
        }
        for side in &sides {
            interfaces.set_flags(&*self.backend, side.ifindex, 0);
            if let Err(error) = self.backend.set_partner(side.ifindex, None) {
                log::warn!("{}: forgetting its partner: {error}", side.name);
            }
        }
        let mut result = Ok(());
        for (side, was_linked) in sides.into_iter().zip(links) {
            // A link is with its interface to the end.
            if let Err(error) = side.port.restore(was_linked) {
                log::warn!("{error}");
                result = result.and(Err(error));
            }
        }
        result
    }

    /// Lets ports go on as what an earlier process made of them.
    fn leave(&self, interfaces: &mut Interfaces, sides: Vec<Side>) {
        for side in sides {
            let Some((flags, partner)) = side.former else {
                continue;
            };
            if let Err(error) = self.backend.set_partner(side.ifindex, partner) {
                log::error!("{}: goes on without its partner: {error}", side.name);
            }
            interfaces.set_flags(&*self.backend, side.ifindex, flags);
        }
    }

    /// Takes all down.
    pub(super) fn take_all_down(&self) {
        let pairs = std::mem::take(&mut *lock(&self.pairs));
        if pairs.is_empty() {
            return;
        }
        let down = self.inside(|| {
            let mut interfaces = lock(&self.interfaces);
            for pair in pairs {
                // What went wrong is logged.
                let _ = self.take_down(&mut interfaces, pair.sides.into());
            }
            Ok(())
        });
        if let Err(error) = down {
            log::error!("ports of bridges are not put back: {error}");
        }
    }
}

impl Drop for Bridges {
    fn drop(&mut self) {
        // What is pinned goes on.
        if self.backend.pinned().is_none() {
            self.take_all_down();
        }
    }
}

impl Firewall {
    /// Makes a transparent bridge of two interfaces: what comes in by one and is not dropped goes
    /// out by the other, in the driver, unchanged, and no frame of it reaches this host's network
    /// stack. Needs [`Loader::fast_forward`](crate::Loader::fast_forward).
    ///
    /// Both interfaces are prepared (up, promiscuous, offloads off that hold back or change frames)
    /// and attached, if they are not yet. A bridge of a firewall that is pinned goes on when the
    /// process ends; the next one has it once it has called this for the same pair. [`Firewall::unbridge`], and dropping the firewall, puts them back exactly as
    /// they were; with [`Loader::state_dir`](crate::Loader::state_dir) also the next start after a
    /// crash, see [`restore_interfaces`]. Several bridges may be made, each interface in one.
    ///
    /// A frame that the driver of the partner does not take is lost without being counted here:
    /// the tracepoint `xdp:xdp_redirect_err` or `xdp:xdp_devmap_xmit` says so. A veth takes frames
    /// only if its peer runs an XDP program or has GRO on.
    ///
    /// ```no_run
    /// use xdpgate::{Bridge, Filter, Firewall, IfIndex};
    ///
    /// let firewall = Firewall::loader()
    ///     .fast_forward(true)
    ///     .state_dir("/var/lib/xdpgate")
    ///     .load()?;
    /// let (outer, inner) = (IfIndex::from_name("eth1")?, IfIndex::from_name("eth2")?);
    /// firewall.bridge(Bridge::new(outer, inner).filter(Filter::Inbound))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Not loaded for it; both ports are the same, one is in a bridge already, or cannot be
    /// prepared or attached. Then both are as they were.
    pub fn bridge(&self, bridge: Bridge) -> Result<BridgeInfo, BridgeError> {
        if !self.bridges.is_loaded {
            return Err(BridgeError::NotLoaded);
        }
        self.bridges.inside(|| self.bridge_here(&bridge))
    }

    fn bridge_here(&self, bridge: &Bridge) -> Result<BridgeInfo, BridgeError> {
        let bridges = &self.bridges;
        let before = self.stats();
        let mut pairs = lock(&bridges.pairs);
        let ends = self.check(bridge, &pairs)?;
        let mut interfaces = lock(&self.interfaces);
        let mut sides = Vec::new();
        if let Err(error) = self.make(bridge, ends, &before, &mut interfaces, &mut sides) {
            let (former, new): (Vec<_>, Vec<_>) =
                sides.into_iter().partition(|s| s.former.is_some());
            bridges.leave(&mut interfaces, former);
            // What went wrong further is logged; the first error says why.
            let _ = bridges.take_down(&mut interfaces, new);
            return Err(error);
        }
        let sides = <[Side; 2]>::try_from(sides).expect("made both");
        let pair = Pair {
            sides,
            filter: bridge.filter,
        };
        let [outer, inner] = &pair.sides;
        log::info!(
            outer = outer.name.as_str(), inner = inner.name.as_str();
            "{} and {}: bridged, filter {}",
            outer.name,
            inner.name,
            pair.filter
        );
        if outer.port.mtu() != inner.port.mtu() {
            let names = (&outer.name, &inner.name);
            log::warn!(
                outer = outer.name.as_str(), inner = inner.name.as_str();
                "{} and {}: their MTUs differ; frames too long are lost",
                names.0,
                names.1
            );
        }
        let info = pair.info(&*self.backend, None);
        for port in [&info.outer, &info.inner] {
            if port.takes_frames == Some(false) {
                let name = &port.attachment.name;
                log::warn!(
                    interface = name.as_str();
                    "{name}: its driver takes no frames of its partner now: all are lost"
                );
            }
        }
        pairs.push(pair);
        Ok(info)
    }

    /// The names of both ports, outer first, if they may become a bridge.
    fn check(
        &self,
        bridge: &Bridge,
        pairs: &[Pair],
    ) -> Result<[(IfIndex, String); 2], BridgeError> {
        let name = |ifindex| {
            let name = self.backend.interface_name(ifindex);
            name.ok_or(AttachError::NoSuchInterface(ifindex))
        };
        let ends = [
            (bridge.outer, name(bridge.outer)?),
            (bridge.inner, name(bridge.inner)?),
        ];
        for (ifindex, interface) in &ends {
            let interface = interface.clone();
            if port(pairs, *ifindex).is_some() {
                return Err(BridgeError::InBridge { interface });
            }
            if bridge.outer == bridge.inner {
                return Err(BridgeError::SamePort { interface });
            }
        }
        Ok(ends)
    }

    /// What was made so far is in `sides`, also on error.
    fn make(
        &self,
        bridge: &Bridge,
        ends: [(IfIndex, String); 2],
        before: &Stats,
        interfaces: &mut Interfaces,
        sides: &mut Vec<Side>,
    ) -> Result<(), BridgeError> {
        let backend = &*self.backend;
        let failed = |call| move |source| BridgeError::Syscall { call, source };
        for (ifindex, name) in ends {
            interfaces.sweep_at(ifindex);
            let port = backend.prepare_port(ifindex, &name, self.bridges.state_dir.as_deref())?;
            let mut side = Side::new(ifindex, name, port, before);
            side.stays_attached = interfaces.stays_attached(ifindex);
            let flags = interfaces.port_flags(ifindex);
            side.former = flags.map(|flags| (flags, backend.partner(ifindex)));
            sides.push(side);
        }
        for (port, partner) in [(0, 1), (1, 0)] {
            let set = backend.set_partner(sides[port].ifindex, Some(sides[partner].ifindex));
            set.map_err(failed("entering a port"))?;
        }
        let flags = bridge.filter.interface_flags();
        for (side, flags) in sides.iter_mut().zip(flags) {
            self.attach_port(interfaces, side, bridge.mode, flags)?;
        }
        let is_generic = |side: &Side| side.mode() == Some(AttachMode::Generic);
        if sides.iter().any(is_generic) {
            for (side, flags) in sides.iter_mut().zip(flags) {
                if !is_generic(side) {
                    interfaces.release(side.ifindex);
                    let mode = ModePreference::Exactly(AttachMode::Generic);
                    self.attach_port(interfaces, side, mode, flags)?;
                }
                side.port.prepare_generic()?;
            }
        }
        Ok(())
    }

    /// Makes an interface a port that may be attached already.
    fn attach_port(
        &self,
        interfaces: &mut Interfaces,
        side: &mut Side,
        mode: ModePreference,
        flags: u16,
    ) -> Result<(), AttachError> {
        let (ifindex, name) = (side.ifindex, &side.name);
        side.attachment = Some(match interfaces.attachment(ifindex).cloned() {
            Some(attachment) => {
                interfaces.set_flags(&*self.backend, ifindex, flags);
                attachment
            }
            None => {
                let attacher = &self.attacher;
                attacher.attach_as(interfaces, ifindex, name, mode, flags)?
            }
        });
        Ok(())
    }

    /// Takes a bridge down, given either of its ports: both are put back exactly as they were before,
    /// and detached unless they had been attached before they became ports. Frames that come in from
    /// now on go to this host's network stack.
    ///
    /// # Errors
    /// The interface is no port. Or a setting could not be put back: the bridge is down all the same,
    /// and [`restore_interfaces`] may be tried if there is a state directory.
    pub fn unbridge(&self, port: IfIndex) -> Result<(), BridgeError> {
        let mut pairs = lock(&self.bridges.pairs);
        let found = pairs.iter().position(|pair| pair.has(port));
        let pair = pairs.remove(found.ok_or(BridgeError::NotBridged(port))?);
        let [outer, inner] = &pair.sides;
        log::info!(
            outer = outer.name.as_str(), inner = inner.name.as_str();
            "{} and {}: no bridge any more", outer.name, inner.name
        );
        let sides = Vec::from(pair.sides);
        self.bridges.inside(|| {
            let mut interfaces = lock(&self.interfaces);
            self.bridges.take_down(&mut interfaces, sides)
        })
    }

    /// Takes down the bridges of an earlier process, pinned or killed, that this one has not made
    /// again, and puts their ports back as they were; returns what became of each. Ports that were
    /// attached stay so, and their frames go to this host's network stack.
    ///
    /// # Errors
    /// As [`restore_interfaces`].
    pub fn take_down_former_bridges(&self) -> Result<Vec<Restored>, BridgeError> {
        self.bridges.inside(|| {
            let pairs = lock(&self.bridges.pairs);
            let mut interfaces = lock(&self.interfaces);
            let former = interfaces.ports().into_iter();
            let former: Vec<IfIndex> = former.filter(|p| port(&pairs, *p).is_none()).collect();
            for port in &former {
                interfaces.set_flags(&*self.backend, *port, 0);
            }
            if let Err(error) = self.backend.wait_for_readers() {
                log::warn!("waiting for packets in flight: {error}");
            }
            for port in former {
                if let Err(error) = self.backend.set_partner(port, None) {
                    log::warn!("interface {port}: forgetting its partner: {error}");
                }
            }
            drop(interfaces);
            match &self.bridges.state_dir {
                Some(dir) => restore_interfaces(dir),
                None => Ok(Vec::new()),
            }
        })
    }

    /// The bridges, in the order in which they were made, with what they forwarded since then. Takes
    /// a snapshot of the counters, as [`Firewall::stats`].
    pub fn bridges(&self) -> Vec<BridgeInfo> {
        let found = self.bridges.inside(|| {
            let pairs = lock(&self.bridges.pairs);
            if pairs.is_empty() {
                return Ok(Vec::new());
            }
            lock(&self.interfaces).sweep();
            let stats = self.stats();
            let info = |pair: &Pair| pair.info(&*self.backend, Some(&stats));
            Ok(pairs.iter().map(info).collect())
        });
        found.unwrap_or_else(|error| {
            log::error!("bridges are not listed: {error}");
            Vec::new()
        })
    }
}

fn port(pairs: &[Pair], ifindex: IfIndex) -> Option<&Side> {
    pairs
        .iter()
        .flat_map(|p| &p.sides)
        .find(|s| s.ifindex == ifindex)
}
