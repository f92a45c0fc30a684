//! From configuration and command line to a firewall that is attached, or to nothing new at all.

use std::path::PathBuf;
use std::sync::Arc;

use xdpgate::{
    Applied, Attachment, AutoAttach, Bridge, Enforcement, EventOptions, Firewall, IfIndex,
    Management, ModePreference, Policy, Previous, RestoreOutcome,
};

use super::args::Args;
use super::config::{Api, Config, Problem};
use super::fault;
use super::fleet::Node;
use super::monitor::Metrics;
use super::reload::Reloader;
use crate::Failure;
use xdpgate_service::logging::Log;

/// What is to be done, from arguments and a file that were all checked.
#[derive(Debug)]
pub(super) struct Plan {
    args: Args,
    config: Config,
    policy: Option<(PathBuf, Policy)>,
    /// In place of those that the configuration selects.
    interfaces: Vec<IfIndex>,
    bridges: Vec<Bridge>,
}

/// A firewall that is up.
#[derive(Debug)]
pub(super) struct Started {
    pub firewall: Arc<Firewall>,
    /// `None` if the interfaces were named.
    pub auto: Option<Arc<AutoAttach>>,
    pub reloader: Reloader,
}

/// Reads the policy that the configuration names.
pub(super) fn read_policy(config: &Config) -> Result<Option<(PathBuf, Policy)>, Failure> {
    let Some(file) = &config.policy else {
        return Ok(None);
    };
    let policy = Policy::from_file(file).map_err(|e| Failure::policy(file, &e))?;
    Ok(Some((file.clone(), policy)))
}

impl Plan {
    /// Reads configuration and policy and finds the interfaces. Changes nothing.
    pub(super) fn new(args: &Args) -> Result<Self, Failure> {
        let loaded = args
            .load()
            .map_err(|problems| Problem::failure(&problems))?;
        for warning in &loaded.warnings {
            log::warn!("{warning}");
        }
        let config = loaded.config;
        let policy = read_policy(&config)?;
        let mut interfaces = Vec::new();
        for name in &args.interfaces {
            let ifindex = IfIndex::from_name(name).map_err(Failure::operation)?;
            if interfaces.contains(&ifindex) {
                return Err(Failure::input(
                    "--interface",
                    format!("{name} is there twice"),
                ));
            }
            interfaces.push(ifindex);
        }
        let bridges = config.bridge.iter().map(|pair| {
            let port = |name: &String| IfIndex::from_name(name).map_err(Failure::operation);
            let bridge = Bridge::new(port(&pair.outer)?, port(&pair.inner)?);
            Ok(bridge
                .filter(pair.filter.into())
                .mode(config.interfaces.mode.into()))
        });
        Ok(Self {
            bridges: bridges.collect::<Result<_, Failure>>()?,
            args: args.clone(),
            config,
            policy,
            interfaces,
        })
    }

    /// How to log.
    pub(super) fn log(&self) -> Log {
        self.config.log
    }

    /// What to tell over HTTP, and where.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.config.metrics
    }

    /// How the API is served.
    pub(super) fn api(&self) -> &Api {
        &self.config.api
    }

    /// The node as a member of a fleet; `own` is what passes for the API.
    pub(super) fn fleet(&self, own: Vec<Management>) -> Result<Arc<Node>, Failure> {
        let node = Node::open(&self.config.fleet, &self.config.state_dir, own);
        node.map_err(|reason| match &self.args.config {
            Some(file) => Failure::input(file.display(), reason),
            None => Failure::Input(reason),
        })
    }

    /// Loads, applies and attaches; `management` passes whatever the policy is. On error what was done is undone; what an earlier daemon left goes
    /// on.
    pub(super) fn carry_out(self, management: Vec<Management>) -> Result<Started, Failure> {
        let config = &self.config;
        let most = u16::try_from(self.interfaces.len()).unwrap_or(u16::MAX);
        let had_pins = config.pins.root.exists();
        let firewall = Firewall::loader()
            .max_interfaces(config.max_interfaces.max(most))
            .max_rules(config.max_rules)
            .max_bans(config.max_bans)
            .fast_forward(!self.bridges.is_empty())
            .pin(config.pins.pinning.into())
            .pin_root(&config.pins.root)
            .mount_bpffs(config.pins.mount_bpffs)
            .state_dir(&config.state_dir)
            .management(management)
            .load()
            .map_err(Failure::operation)?;
        let inherited = firewall.attachments();
        // Where an earlier filter is in force it goes on as it is until nothing can fail any more.
        if inherited.is_empty() {
            self.set_mode(&firewall);
        }
        match self.bring_up(&firewall) {
            Ok((applied, auto)) => {
                self.set_mode(&firewall);
                Self::keep_samples(&firewall);
                self.report(&firewall, applied);
                let (firewall, auto) = (Arc::new(firewall), auto.map(Arc::new));
                let (watched, selected) = (Arc::clone(&firewall), auto.clone());
                Ok(Started {
                    reloader: Reloader::new(self.args, self.config, watched, selected),
                    firewall,
                    auto,
                })
            }
            Err(failure) => {
                undo(&firewall, &inherited, had_pins);
                Err(failure)
            }
        }
    }

    /// Enforces if the configuration says so. If it does not, a mode that was chosen by a call holds, or
    /// else it is dry run. Pass mode stays in any case; and so does enforcement that waits for its
    /// confirmation, and dry run where nobody confirmed it: the configuration is not a confirmation.
    fn set_mode(&self, firewall: &Firewall) {
        // In this order: one that does not wait any more is known as taken back.
        let waits = firewall.pending().map(|pending| pending.previous);
        if matches!(waits, Some(Previous::Enforcement(_)))
            || firewall.enforcement_taken_back()
            || firewall.enforcement() == Enforcement::Pass
        {
            return;
        }
        if self.config.enforce || firewall.chosen_enforcement().is_none() {
            firewall.set_dry_run(!self.config.enforce);
        }
    }

    /// Says nothing: either all is reported, or why it failed.
    fn bring_up(
        &self,
        firewall: &Firewall,
    ) -> Result<(Option<Applied>, Option<AutoAttach>), Failure> {
        let mut applied = None;
        // One that waits to be taken back is no reason for another one than that which was saved.
        let is_first = firewall.policy().is_none() && firewall.pending().is_none();
        if let Some((file, policy)) = self.policy.as_ref().filter(|_| is_first) {
            applied = Some(firewall.apply(policy).map_err(|e| match e {
                xdpgate::ApplyError::Policy(e) => Failure::policy(file, &e),
                e => Failure::operation(fault::apply_message(&e)),
            })?);
        }
        for bridge in &self.bridges {
            firewall
                .bridge(bridge.clone())
                .map_err(Failure::operation)?;
        }
        match firewall.take_down_former_bridges() {
            Ok(ports) => {
                for port in ports.iter().filter(|p| p.outcome != RestoreOutcome::InUse) {
                    log::info!("{}: no port any more: {:?}", port.name, port.outcome);
                }
            }
            Err(error) => log::warn!("settings of former ports: {error}"),
        }
        let mode = ModePreference::from(self.config.interfaces.mode);
        let attached = firewall.attachments();
        for ifindex in &self.interfaces {
            match attached.iter().find(|a| a.ifindex == *ifindex) {
                None => drop(
                    firewall
                        .attach(*ifindex, mode)
                        .map_err(Failure::operation)?,
                ),
                Some(former) => check_mode(former, mode)?,
            }
        }
        if !self.interfaces.is_empty() {
            return Ok((applied, None));
        }
        let interfaces = &self.config.interfaces;
        let selector = interfaces
            .selector()
            .map_err(|e| Failure::input("configuration", e))?;
        let auto = firewall
            .auto_attach_with(selector, interfaces.options())
            .map_err(Failure::operation)?;
        Ok((applied, Some(auto)))
    }

    /// Keeps samples, by which a plan says how recent traffic would fare.
    fn keep_samples(firewall: &Firewall) {
        if let Err(error) = firewall.keep_samples(EventOptions::default()) {
            log::warn!("plans come without an estimate: {error}");
        }
    }

    fn report(&self, firewall: &Firewall, applied: Option<Applied>) {
        match (applied, &self.policy, firewall.policy()) {
            (Some(applied), _, _) => super::log_applied(&applied),
            (None, Some((file, policy)), Some(saved)) if *policy != *saved => log::warn!(
                "the policy that was saved is in force; {} differs from it: `xdpgate policy apply` \
                 puts it in force",
                file.display()
            ),
            (None, _, Some(_)) => log::info!("the policy that was saved is in force"),
            (None, _, None) => log::info!("no policy yet: everything passes until one is applied"),
        }
        let attachments = firewall.attachments();
        for attachment in &attachments {
            // Why it fell back, the library has said.
            log::info!(
                interface = attachment.name.as_str(), ifindex = attachment.ifindex.get(),
                mode = attachment.mode.as_str();
                "{}: attached in {} mode", attachment.name, attachment.mode
            );
        }
        if attachments.is_empty() {
            log::warn!("no interface is attached yet; `xdpgate interfaces` says why");
        }
        match firewall.enforcement() {
            Enforcement::Enforce => {}
            Enforcement::DryRun if firewall.enforcement_taken_back() => log::warn!(
                "dry run: nothing is dropped, whatever the configuration says, because enforcement was not \
                 confirmed and is taken back; `xdpgate enforce` drops"
            ),
            Enforcement::DryRun => log::info!("dry run: nothing is dropped; --enforce drops"),
            Enforcement::Pass => log::warn!(
                "pass mode: nothing is dropped, whatever the configuration says, until the mode enforce \
                 or dry run is set by the call SetMode"
            ),
        }
        match firewall.pin_root() {
            Some(dir) => log::info!("pinned at {}: outlives this process", dir.display()),
            None => log::info!("not pinned: all ends with this process"),
        }
    }
}

/// An interface that an earlier daemon attached stays in its mode: to change it would leave a gap.
fn check_mode(former: &Attachment, wanted: ModePreference) -> Result<(), Failure> {
    let ModePreference::Exactly(mode) = wanted else {
        return Ok(());
    };
    if former.mode == mode {
        return Ok(());
    }
    Err(Failure::operation(format!(
        "{} is attached in {} mode from before, and {mode} is demanded: detach it first (`xdpgate \
         unload`), or leave out --mode",
        former.name, former.mode
    )))
}

/// Leaves what was there before: nothing, or what an earlier daemon left.
fn undo(firewall: &Firewall, inherited: &[Attachment], had_pins: bool) {
    let failed = |what: &str, error: &dyn std::error::Error| log::error!("{what}: {error}");
    for bridge in firewall.bridges() {
        let ports = [&bridge.outer, &bridge.inner].map(|port| &port.attachment);
        let is_former = |port: &&Attachment| inherited.iter().any(|a| a.ifindex == port.ifindex);
        if !ports.iter().all(is_former)
            && let Err(error) = firewall.unbridge(ports[0].ifindex)
        {
            failed(&ports[0].name, &error);
        }
    }
    if inherited.is_empty() && !had_pins {
        if let Err(error) = firewall.uninstall() {
            failed("undoing the start", &error);
        }
        return;
    }
    for attachment in firewall.attachments() {
        if inherited.iter().all(|a| a.ifindex != attachment.ifindex)
            && let Err(error) = firewall.detach(attachment.ifindex)
        {
            failed(&attachment.name, &error);
        }
    }
}
