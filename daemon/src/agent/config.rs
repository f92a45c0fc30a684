//! The configuration file, in TOML.

mod api;

pub(super) use api::{Api, Tls};

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use xdpgate::{AutoAttachOptions, Filter, Pinning, Selector};

use super::args::Mode;
use super::logging::Log;
use super::monitor::Metrics;
use crate::failure::Failure;

/// All of it. What is absent is as [`Config::default`] has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    /// Drop for real.
    pub enforce: bool,
    /// The policy for as long as none is saved.
    pub policy: Option<PathBuf>,
    /// Where the policy is saved.
    pub state_dir: PathBuf,
    /// How many rules a policy may have, together with the one that it replaces.
    pub max_rules: u32,
    /// How many interfaces may be attached at one time.
    pub max_interfaces: u16,
    pub api: Api,
    pub interfaces: Interfaces,
    pub pins: Pins,
    pub bridge: Vec<Bridge>,
    pub log: Log,
    pub metrics: Metrics,
}

/// Which interfaces are attached.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Interfaces {
    pub class: String,
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    pub kinds: Vec<String>,
    pub exclude_kinds: Vec<String>,
    pub drivers: Vec<String>,
    pub masters: Vec<String>,
    pub only_up: bool,
    pub family: Option<String>,
    pub mode: Mode,
    pub rescan_seconds: u64,
    pub receive_buffer: usize,
}

/// What outlives the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Pins {
    pub pinning: PinMode,
    pub root: PathBuf,
    pub mount_bpffs: bool,
}

/// Whether the firewall outlives the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum PinMode {
    /// If there is a BPF file system, or one can be mounted
    Auto,
    /// Or do not start
    Require,
    /// No; what was pinned before is taken over and its pins are removed
    Off,
}

/// A pair of ports.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bridge {
    pub outer: String,
    pub inner: String,
    #[serde(default)]
    pub filter: Direction,
}

/// Which direction of a bridge is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Direction {
    Inbound,
    Outbound,
    #[default]
    Both,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enforce: false,
            policy: None,
            state_dir: PathBuf::from("/var/lib/xdpgate"),
            max_rules: 16_384,
            max_interfaces: 256,
            api: Api::default(),
            interfaces: Interfaces::default(),
            pins: Pins::default(),
            bridge: Vec::new(),
            log: Log::default(),
            metrics: Metrics::default(),
        }
    }
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

impl Default for Pins {
    fn default() -> Self {
        Self {
            pinning: PinMode::Auto,
            root: PathBuf::from("/sys/fs/bpf/xdpgate"),
            mount_bpffs: true,
        }
    }
}

impl Config {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path).map_err(|e| Failure::input(path.display(), e))?;
        Self::parse(&text).map_err(|reason| Failure::input(path.display(), reason))
    }

    /// On error: the line and the key, and what is wrong, in one line.
    fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let line = |at: usize| 1 + text[..at].matches('\n').count();
            let at = error.span().map(|span| line(span.start));
            let place = at.map_or_else(String::new, |line| format!("line {line}: "));
            format!("{place}{}", error.message().replace('\n', ", "))
        })?;
        let _checked = config.interfaces.selector()?;
        let _checked = config.metrics.endpoint()?;
        for (key, is_zero) in [
            ("max_rules", config.max_rules == 0),
            ("max_interfaces", config.max_interfaces == 0),
            (
                "interfaces.rescan_seconds",
                config.interfaces.rescan_seconds == 0,
            ),
        ] {
            if is_zero {
                return Err(format!("{key}: it must be 1 or more"));
            }
        }
        Ok(config)
    }
}

impl Interfaces {
    /// Which interfaces they are; the error names the key.
    pub(super) fn selector(&self) -> Result<Selector, String> {
        let class = self.class.parse();
        let class = class.map_err(|e: xdpgate::SelectorError| format!("interfaces.class: {e}"))?;
        let mut selector = Selector::new(class)
            .kinds(&self.kinds)
            .exclude_kinds(&self.exclude_kinds)
            .drivers(&self.drivers)
            .only_up(self.only_up);
        for (key, names) in [("include", &self.include), ("exclude", &self.exclude)] {
            for name in names {
                selector = match key {
                    "include" => selector.include(name),
                    _ => selector.exclude(name),
                };
                // Nothing is there: only the patterns are looked at.
                selector
                    .decide(&[])
                    .map_err(|e| format!("interfaces.{key}: {e}"))?;
            }
        }
        for master in &self.masters {
            selector = selector.master(master);
        }
        if let Some(family) = &self.family {
            let family = family.parse();
            let named = |e: xdpgate::SelectorError| format!("interfaces.family: {e}");
            selector = selector.family(family.map_err(named)?);
        }
        Ok(selector)
    }

    pub(super) fn options(&self) -> AutoAttachOptions {
        AutoAttachOptions::default()
            .mode(self.mode.into())
            .rescan_every(Duration::from_secs(self.rescan_seconds))
            .receive_buffer(self.receive_buffer)
    }
}

impl From<PinMode> for Pinning {
    fn from(mode: PinMode) -> Self {
        match mode {
            PinMode::Auto => Self::Auto,
            PinMode::Require => Self::Require,
            PinMode::Off => Self::Off,
        }
    }
}

impl From<Direction> for Filter {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Inbound => Self::Inbound,
            Direction::Outbound => Self::Outbound,
            Direction::Both => Self::Both,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file that is shipped is the default, said in full.
    #[test]
    fn the_example_is_the_default() {
        let text = include_str!("../../xdpgated.toml");
        assert_eq!(Config::parse(text).unwrap(), Config::default());
        assert_eq!(Config::parse("").unwrap(), Config::default());
    }

    #[test]
    fn errors_name_the_key_and_the_line() {
        for (text, expected) in [
            (
                "enforce = false\nenfroce = true\n",
                &["line 2", "enfroce"][..],
            ),
            (
                "[interfaces]\nclass = \"physicl\"\n",
                &["interfaces.class", "physicl"],
            ),
            (
                "[interfaces]\ninclude = [\"eth[\"]\n",
                &["interfaces.include", "eth["],
            ),
            (
                "[interfaces]\nfamily = \"ipx\"\n",
                &["interfaces.family", "ipx"],
            ),
            ("[interfaces]\nmode = \"fast\"\n", &["line 2", "fast"]),
            ("[pins]\npinning = true\n", &["line 2"]),
            (
                "[metrics]\nlisten = \"0.0.0.0:29187\"\n",
                &["metrics.listen", "metrics.allow_remote"],
            ),
            ("[log]\nformat = \"xml\"\n", &["line 2", "xml"]),
            ("max_rules = 0\n", &["max_rules", "1 or more"]),
            ("[api]\nlisten = \"unix:a\"\n", &["line 2"]),
            ("[api.tls]\nkey = \"k\"\n", &["line 1", "certificate"]),
            ("[[bridge]]\nouter = \"a\"\n", &["line 1", "inner"]),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(!error.contains('\n'), "{error}");
            for word in expected {
                assert!(error.contains(word), "no {word:?} in {error:?}");
            }
        }
    }
}
