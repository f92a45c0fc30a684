//! Taking over a changed configuration while running.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use xdpgate::{AutoAttach, Enforcement, Firewall};

use super::args::Args;
use super::config::{Config, Problem, differences, keep};
use super::service::{Reload, Reloaded};

/// Reads the configuration again, as it was read at the start, and puts in force what can change while
/// running: all of it or, if anything is wrong with it, nothing.
pub(crate) struct Reloader {
    args: Args,
    firewall: Arc<Firewall>,
    auto: Option<Arc<AutoAttach>>,
    followers: Vec<Follower>,
    /// What is in force.
    current: Mutex<Config>,
    enforces: Arc<AtomicBool>,
}

/// A part of the daemon that takes over a section by itself.
struct Follower {
    /// The keys that it takes over: this one and those in it.
    section: &'static str,
    /// Those of them that it does not.
    fixed: &'static [&'static str],
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
            enforces: Arc::new(AtomicBool::new(config.enforce)),
            current: Mutex::new(config),
        }
    }

    /// Adds a part that takes over the keys of `section`. It is called at each reload, also if they are
    /// the same: files that they name may have changed. On error it has to leave all as it was; then it is
    /// called with the former configuration if another part refused this one. Keys that are `fixed` have
    /// their former values then, and are said to need a restart.
    pub(super) fn follow(
        mut self,
        section: &'static str,
        fixed: &'static [&'static str],
        follow: impl Fn(&Config) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.followers.push(Follower {
            section,
            fixed,
            follow: Box::new(follow),
        });
        self
    }

    /// Whether the configuration says to enforce, as it was read last.
    pub(super) fn enforces(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.enforces)
    }

    /// Whether there is a file to be read again.
    pub(super) fn has_file(&self) -> bool {
        self.args.config.is_some()
    }

    /// Reads it and puts it in force. What came of it is logged too. It may take its time: interfaces are
    /// attached and detached meanwhile.
    ///
    /// # Errors
    ///
    /// All that is wrong, with file, line, key and reason; the former configuration stays in force.
    pub(super) fn reload(&self) -> Result<Reloaded, Vec<Problem>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = self.take_over(&mut current);
        match &outcome {
            Ok(outcome) => log::info!("configuration: {}", in_words(outcome)),
            Err(problems) => log::error!(
                "the former configuration stays in force: {}",
                Problem::failure(problems)
            ),
        }
        outcome
    }

    fn take_over(&self, current: &mut Config) -> Result<Reloaded, Vec<Problem>> {
        let loaded = self.args.load()?;
        for warning in &loaded.warnings {
            log::warn!("{warning}");
        }
        let (changed, needs_restart): (Vec<String>, Vec<String>) =
            differences(current, &loaded.config)
                .into_iter()
                .partition(|key| self.can_change(key));
        let new = keep(&loaded.config, current, &needs_restart);
        let selector = new.interfaces.selector();
        let selector = selector.map_err(|e| vec![Problem::of("interfaces", &e.to_string())])?;
        for (index, follower) in self.followers.iter().enumerate() {
            if let Err(reason) = (follower.follow)(&new) {
                self.back(&self.followers[..index], current);
                return Err(vec![Problem::of(follower.section, &reason)]);
            }
        }
        if let Some(auto) = &self.auto
            && new.interfaces != current.interfaces
        {
            let failed = |e: &dyn fmt::Display| vec![Problem::of("interfaces", &e.to_string())];
            if let Err(error) = auto.select(selector, new.interfaces.options()) {
                self.back(&self.followers, current);
                return Err(failed(&error));
            }
        }
        // A mode that was chosen by a call stays as long as the file says the same as before; and pass
        // mode in any case.
        if new.enforce != current.enforce && self.firewall.enforcement() != Enforcement::Pass {
            let mode = match new.enforce {
                true => Enforcement::Enforce,
                false => Enforcement::DryRun,
            };
            if let Err(error) = self.firewall.set_enforcement(mode, None) {
                self.back(&self.followers, current);
                return Err(vec![Problem::of("enforce", &error.to_string())]);
            }
        }
        self.enforces.store(new.enforce, Ordering::Relaxed);
        *current = new;
        Ok(Reloaded {
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
            _ => {
                let mut followers = self.followers.iter();
                followers.any(|f| f.section == section && !f.fixed.contains(&key))
            }
        }
    }
}

fn in_words(outcome: &Reloaded) -> String {
    match (&*outcome.changed, &*outcome.needs_restart) {
        ([], []) => "nothing changed; the files that it names were read again".to_owned(),
        (changed, []) => format!("in force: {}", changed.join(", ")),
        ([], later) => format!("with the next start: {}", later.join(", ")),
        (changed, later) => format!(
            "in force: {}; with the next start: {}",
            changed.join(", "),
            later.join(", ")
        ),
    }
}

impl Reload for Reloader {
    fn reload(&self) -> Result<Reloaded, Vec<(String, String)>> {
        let named = |problem: Problem| match &problem.source {
            Some(source) => (problem.key, format!("{source}: {}", problem.reason)),
            None => (problem.key, problem.reason),
        };
        Self::reload(self).map_err(|problems| problems.into_iter().map(named).collect())
    }
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader")
            .field("args", &self.args)
            .finish_non_exhaustive()
    }
}
