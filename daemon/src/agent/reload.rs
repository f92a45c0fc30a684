//! Taking over a changed configuration while running.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use xdpgate::{AutoAttach, Firewall};

use super::args::Args;
use super::config::{Config, Problem, differences, keep};
use crate::failure::Failure;

/// Reads the configuration again, as it was read at the start, and puts in force what can change while
/// running: all of it or, if anything is wrong with it, nothing.
pub(crate) struct Reloader {
    args: Args,
    firewall: Arc<Firewall>,
    auto: Option<Arc<AutoAttach>>,
    followers: Vec<Follower>,
    /// What is in force.
    current: Mutex<Config>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ReloadOutcome {
    /// Keys that have another value than before and are in force.
    pub changed: Vec<String>,
    /// Keys that have another value and take effect with the next start.
    pub needs_restart: Vec<String>,
}

/// A part of the daemon that takes over a section by itself.
struct Follower {
    /// The keys that it takes over: this one and those in it.
    section: &'static str,
    follow: Follow,
}

type Follow = Box<dyn Fn(&Config) -> Result<(), String> + Send + Sync>;

impl Reloader {
    pub(super) fn new(
        args: Args,
        config: Config,
        firewall: Arc<Firewall>,
        auto: Option<Arc<AutoAttach>>,
    ) -> Self {
        Self {
            args,
            firewall,
            auto,
            followers: Vec::new(),
            current: Mutex::new(config),
        }
    }

    /// Adds a part that takes over the keys of `section`. It is called at each reload, also if they are
    /// the same: files that they name may have changed. On error it has to leave all as it was; then it is
    /// called with the former configuration if another part refused this one.
    #[expect(dead_code, reason = "for the sections of the API and the log")]
    pub(super) fn follow(
        mut self,
        section: &'static str,
        follow: impl Fn(&Config) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.followers.push(Follower {
            section,
            follow: Box::new(follow),
        });
        self
    }

    /// Reads it and puts it in force. What came of it is logged too. It may take its time: interfaces are
    /// attached and detached meanwhile.
    ///
    /// # Errors
    ///
    /// All that is wrong, with file, line, key and reason; the former configuration stays in force.
    pub(crate) fn reload(&self) -> Result<ReloadOutcome, Failure> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = self.take_over(&mut current);
        match &outcome {
            Ok(outcome) => log::info!("configuration: {outcome}"),
            Err(failure) => log::error!("the former configuration stays in force: {failure}"),
        }
        outcome
    }

    fn take_over(&self, current: &mut Config) -> Result<ReloadOutcome, Failure> {
        let loaded = self
            .args
            .load()
            .map_err(|problems| Problem::failure(&problems))?;
        for warning in &loaded.warnings {
            log::warn!("{warning}");
        }
        let (changed, needs_restart): (Vec<String>, Vec<String>) =
            differences(current, &loaded.config)
                .into_iter()
                .partition(|key| self.can_change(key));
        let new = keep(&loaded.config, current, &needs_restart);
        for (index, follower) in self.followers.iter().enumerate() {
            if let Err(reason) = (follower.follow)(&new) {
                self.back(&self.followers[..index], current);
                return Err(Failure::input(follower.section, reason));
            }
        }
        if let Some(auto) = &self.auto
            && new.interfaces != current.interfaces
        {
            let selector = new.interfaces.selector();
            let selector = selector.map_err(|e| Failure::input("interfaces", e))?;
            if let Err(error) = auto.select(selector, new.interfaces.options()) {
                self.back(&self.followers, current);
                return Err(Failure::operation(format!("interfaces: {error}")));
            }
        }
        if new.enforce != current.enforce {
            self.firewall.set_dry_run(!new.enforce);
        }
        *current = new;
        Ok(ReloadOutcome {
            changed,
            needs_restart,
        })
    }

    fn back(&self, followers: &[Follower], former: &Config) {
        for follower in followers {
            if let Err(reason) = (follower.follow)(former) {
                log::error!("{}: going back: {reason}", follower.section);
            }
        }
    }

    fn can_change(&self, key: &str) -> bool {
        let section = key.split('.').next().unwrap_or_default();
        match section {
            "enforce" => true,
            // Without it the interfaces were named on the command line.
            "interfaces" => self.auto.is_some(),
            _ => self.followers.iter().any(|f| f.section == section),
        }
    }
}

impl fmt::Display for ReloadOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.changed.as_slice(), self.needs_restart.as_slice()) {
            ([], []) => f.write_str("nothing changed"),
            (changed, []) => write!(f, "in force: {}", changed.join(", ")),
            ([], later) => write!(f, "with the next start: {}", later.join(", ")),
            (changed, later) => write!(
                f,
                "in force: {}; with the next start: {}",
                changed.join(", "),
                later.join(", ")
            ),
        }
    }
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader")
            .field("args", &self.args)
            .finish_non_exhaustive()
    }
}
