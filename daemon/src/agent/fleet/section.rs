//! `[fleet]` of the configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::VerifyingKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xdpgate_service::files::{self, Others};

use super::token::JoinToken;
use crate::endpoint::Endpoint;

/// The fleet whose controllers say what is in force here; docs/fleet.md explains it. All of it takes
/// effect with a reload.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::agent) struct Fleet {
    /// Where the controllers are, as https://HOST:PORT; dialled one after the other. Empty: no fleet.
    /// Addresses are better than names: a policy that drops by default may drop the answers of name
    /// servers, and then the addresses that a name had last are used.
    pub controllers: Vec<String>,
    /// What lets the node into the fleet, once: see token_file, which is better, since it can be removed.
    #[schemars(example = &"xgj1.3f2a.c2VjcmV0.47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU")]
    pub token: Option<String>,
    /// A file with such a token; only its owner may read it. It is removed when the node has joined. It counts
    /// before token.
    #[schemars(example = &"/etc/xdpgate/join-token")]
    pub token_file: Option<PathBuf>,
    /// What the node calls itself at joining. Default: the name of the host.
    #[schemars(example = &"edge-7")]
    pub name: Option<String>,
    /// Its labels, as KEY=VALUE, by which groups of the fleet select it.
    pub labels: Vec<String>,
    /// The public key (ed25519, base64) by which the fleet signs what nodes shall have. With it, what has
    /// not its signature is refused. Default: the key that came at joining, if one did.
    #[schemars(example = &"11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")]
    pub trusted_key: Option<String>,
    /// A file with that key, which counts before trusted_key.
    #[schemars(example = &"/etc/xdpgate/fleet.pub")]
    pub trusted_key_file: Option<PathBuf>,
    /// What becomes of changes of the policy that somebody makes at the node itself.
    pub local_changes: LocalChanges,
    /// How long the first wait after a lost connection is at most, in seconds. Each one after it is at most
    /// twice as long.
    pub reconnect_first_seconds: u64,
    /// How long a wait is at most, in seconds.
    pub reconnect_most_seconds: u64,
}

/// What becomes of changes that somebody makes at the node itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::agent) enum LocalChanges {
    /// They are made, told to the controller, and put right by it
    Repair,
    /// Changes of the policy by the API of the node are refused; bans and the mode are not
    Refuse,
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            controllers: Vec::new(),
            token: None,
            token_file: None,
            name: None,
            labels: Vec::new(),
            trusted_key: None,
            trusted_key_file: None,
            local_changes: LocalChanges::Repair,
            reconnect_first_seconds: 1,
            reconnect_most_seconds: 60,
        }
    }
}

/// A controller.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Controller {
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    pub port: u16,
}

impl Controller {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(Endpoint::Tls { host, port }) => Ok(Self { host, port }),
            _ => Err(format!(
                "{text:?} is not https://HOST:PORT, as https://192.0.2.10:7443"
            )),
        }
    }
}

impl std::fmt::Display for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (host, port) = (self.host.clone(), self.port);
        Endpoint::Tls { host, port }.fmt(f)
    }
}

/// What the section says, with the files that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub controllers: Vec<Controller>,
    pub token: Option<JoinToken>,
    /// Where the token is from, if it is from a file.
    pub token_file: Option<PathBuf>,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub trusted: Option<VerifyingKey>,
    pub local_changes: LocalChanges,
    pub first_wait: Duration,
    pub most_wait: Duration,
}

impl Fleet {
    /// What is wrong without looking at any file, with the key and the mend.
    pub(in crate::agent) fn check(&self) -> Result<(), String> {
        self.without_files().map(drop)
    }

    /// All that it says. A token file that is not there is no error: it goes when the node has joined.
    pub(super) fn settings(&self) -> Result<Settings, String> {
        let mut settings = self.without_files()?;
        if let Some(file) = &self.trusted_key_file {
            let text = files::read(file, Others::MayRead)
                .map_err(|reason| format!("fleet.trusted_key_file: {reason}"))?;
            settings.trusted = Some(key("trusted_key_file", text.trim())?);
        }
        if let Some(file) = self.token_file.as_deref().filter(|file| file.exists()) {
            settings.token = Some(read_token(file)?);
            settings.token_file = Some(file.to_owned());
        }
        Ok(settings)
    }

    fn without_files(&self) -> Result<Settings, String> {
        let of = |key: &str, reason: &str| format!("fleet.{key}: {reason}");
        let controllers = self.controllers.iter().map(|text| Controller::parse(text));
        let controllers = controllers
            .collect::<Result<Vec<_>, _>>()
            .map_err(|reason| of("controllers", &reason))?;
        let token = self.token.as_deref().map(JoinToken::parse).transpose();
        let trusted = self.trusted_key.as_deref();
        let (first, most) = (self.reconnect_first_seconds, self.reconnect_most_seconds);
        if first == 0 || first > most || most > 3600 {
            return Err(of(
                "reconnect_first_seconds",
                "it must be 1 to fleet.reconnect_most_seconds, and that at most 3600",
            ));
        }
        Ok(Settings {
            controllers,
            token: token.map_err(|reason| of("token", &reason))?,
            token_file: None,
            name: match &self.name {
                Some(name) => name.clone(),
                None => super::host_name(),
            },
            labels: self.labels()?,
            trusted: trusted.map(|text| key("trusted_key", text)).transpose()?,
            local_changes: self.local_changes,
            first_wait: Duration::from_secs(first),
            most_wait: Duration::from_secs(most),
        })
    }

    fn labels(&self) -> Result<BTreeMap<String, String>, String> {
        let mut labels = BTreeMap::new();
        for label in &self.labels {
            let (key, value) = label
                .split_once('=')
                .filter(|(key, _)| !key.is_empty())
                .ok_or_else(|| format!("fleet.labels: {label:?} is not KEY=VALUE, as env=prod"))?;
            if labels.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(format!("fleet.labels: {key} is there twice: leave one out"));
            }
        }
        Ok(labels)
    }
}

fn read_token(file: &Path) -> Result<JoinToken, String> {
    let of = |reason| format!("fleet.token_file: {reason}");
    let text = files::read(file, Others::MayNothing).map_err(of)?;
    JoinToken::parse(text.trim())
        .map_err(|reason| format!("fleet.token_file: {}: {reason}", file.display()))
}

fn key(name: &str, text: &str) -> Result<VerifyingKey, String> {
    let wrong = || {
        format!(
            "fleet.{name}: it is no ed25519 public key, 32 bytes in base64: `xdpgate-controller` shows that of \
             the fleet"
        )
    };
    let bytes = STANDARD.decode(text).map_err(|_| wrong())?;
    let bytes = bytes.as_slice().try_into().map_err(|_| wrong())?;
    VerifyingKey::from_bytes(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings, String> {
        let fleet: Fleet = toml::from_str(text).map_err(|e| e.to_string())?;
        fleet.settings()
    }

    #[test]
    fn what_is_right_is_taken() {
        assert_eq!(Fleet::default().check(), Ok(()));
        let said = settings(
            "controllers = ['https://[2001:db8::1]:7443', 'https://c.example:1']\n\
             labels = ['env=prod', 'rack=a=b']\nname = 'n'\n\
             trusted_key = '11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo='",
        )
        .expect("right");
        assert_eq!(
            said.controllers[0].to_string(),
            "https://[2001:db8::1]:7443"
        );
        assert_eq!(
            (said.labels["env"].as_str(), said.labels["rack"].as_str()),
            ("prod", "a=b")
        );
        assert!(said.trusted.is_some());
    }

    #[test]
    fn what_is_wrong_is_named_with_the_mend() {
        for (text, key, mend) in [
            (
                "controllers = ['192.0.2.1:7443']",
                "fleet.controllers",
                "https://",
            ),
            (
                "controllers = ['unix:/run/x']",
                "fleet.controllers",
                "https://",
            ),
            ("labels = ['prod']", "fleet.labels", "KEY=VALUE"),
            ("labels = ['a=1', 'a=2']", "fleet.labels", "leave one out"),
            ("token = 'xgj2.a.b.c'", "fleet.token", "xgj1."),
            ("trusted_key = 'AAAA'", "fleet.trusted_key", "32 bytes"),
            (
                "trusted_key_file = '/nowhere'",
                "fleet.trusted_key_file",
                "/nowhere",
            ),
            (
                "reconnect_first_seconds = 0",
                "fleet.reconnect_first_seconds",
                "1 to",
            ),
            (
                "reconnect_first_seconds = 61",
                "fleet.reconnect_first_seconds",
                "reconnect_most",
            ),
            ("local_changes = 'keep'", "local_changes", "repair"),
        ] {
            let refused = settings(text).expect_err(text);
            assert!(refused.contains(key), "{text}: {refused}");
            assert!(refused.contains(mend), "{text}: {refused}");
        }
    }
}
