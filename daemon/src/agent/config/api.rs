//! `[api]`: where the API is served, who may use it, and within which limits.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xdpgate::Management;
use xdpgate::policy::Prefix;

use crate::agent::access::Role;
use crate::endpoint::Endpoint;

/// Where the API is served, who may use it, and within which limits; docs/access.md explains it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::agent) struct Api {
    /// Where to serve the API, one or more of: unix:PATH, https://ADDRESS:PORT (needs api.tls), or a
    /// loopback ADDRESS:PORT in the clear (needs tokens, or api.insecure_loopback).
    pub listen: Vec<String>,
    /// The mode of the file of a Unix socket, in octal: who may open it at all.
    pub socket_mode: String,
    /// The group of the file of a Unix socket. Default: that of the daemon.
    #[schemars(example = &"adm")]
    pub socket_group: Option<String>,
    /// What those may do who can open a Unix socket and are neither root nor the user of the daemon (both
    /// are admin): viewer or admin.
    pub socket_role: Role,
    /// From where https://ADDRESS:PORT beyond loopback can be reached whatever the policy is, bans too;
    /// empty: only from where the policy lets it. By default from everywhere: name the prefixes of those
    /// who manage the node, since no rule and no ban keeps anybody else off the port.
    pub reachable_from: Vec<String>,
    /// Whether every user of this host is an admin by a loopback address without TLS and without a token.
    pub insecure_loopback: bool,
    /// The file of the tokens, a [[token]] with name, role and sha256 for each: `xdpgated token new` makes
    /// them. Default: no tokens.
    #[schemars(example = &"/etc/xdpgate/tokens.toml")]
    pub tokens_file: Option<PathBuf>,
    /// Whether a token is enough where no client certificate is shown: over https without one, and over a
    /// loopback address.
    pub allow_tokens_without_client_certificate: bool,
    /// The certificate of the daemon, and whose clients it takes.
    pub tls: Option<Tls>,
    /// What clients may do by the name in their certificate: the first that matches decides, and a
    /// certificate that matches none is refused.
    pub clients: Vec<Client>,
    /// What one client can take up.
    pub limits: Limits,
}

/// The files of TLS 1.3, all in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::agent) struct Tls {
    /// The certificate of the daemon, and after it those between it and its CA.
    #[schemars(example = &"/etc/xdpgate/node.crt")]
    pub certificate: PathBuf,
    /// Its key; only the owner may read the file.
    #[schemars(example = &"/etc/xdpgate/node.key")]
    pub key: PathBuf,
    /// The CA whose client certificates are taken. It may only be left out with
    /// api.allow_tokens_without_client_certificate.
    #[schemars(example = &"/etc/xdpgate/clients-ca.crt")]
    pub client_ca: Option<PathBuf>,
}

/// The role of clients with a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::agent) struct Client {
    /// The common name, or a DNS name or URI among the alternative names; one * stands for anything.
    #[schemars(example = &"*.ops.example.org")]
    pub name: String,
    /// viewer or admin.
    pub role: Role,
}

/// What the API takes at most.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::agent) struct Limits {
    /// Connections at one time, for each of api.listen. When there are as many, one goes that has not
    /// shown who it is, of the source with the most of these, or one of a viewer if these have more than
    /// three quarters; if all are admins, a new one is refused.
    pub max_connections: u32,
    /// Calls at one time on one connection.
    pub max_streams: u32,
    /// The longest message, in bytes.
    pub max_message_bytes: usize,
    /// Calls a second of one client, for as many at once too.
    pub requests_per_second: u32,
    /// How long a connection may take to show who it is.
    pub handshake_seconds: u64,
    /// How long a connection may be without a call.
    pub idle_seconds: u64,
    /// How often a connection is asked whether it is alive; one that does not answer in that time is cut.
    pub keepalive_seconds: u64,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: vec![Endpoint::DEFAULT.to_owned()],
            socket_mode: "0600".to_owned(),
            socket_group: None,
            socket_role: Role::Viewer,
            reachable_from: vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()],
            insecure_loopback: false,
            tokens_file: None,
            allow_tokens_without_client_certificate: false,
            tls: None,
            clients: Vec::new(),
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 256,
            max_streams: 64,
            max_message_bytes: xdpgate_api::MAX_MESSAGE,
            requests_per_second: 1000,
            handshake_seconds: 10,
            idle_seconds: 600,
            keepalive_seconds: 20,
        }
    }
}

impl Api {
    /// Where to serve.
    ///
    /// # Errors
    ///
    /// What is wrong or would let in whom it should not, with the key and the mend.
    pub(in crate::agent) fn endpoints(&self) -> Result<Vec<Endpoint>, String> {
        let mut endpoints = Vec::new();
        for text in &self.listen {
            let endpoint = text.parse().map_err(|e| format!("api.listen: {e}"))?;
            self.check_endpoint(&endpoint)
                .map_err(|reason| format!("api.listen: {endpoint}: {reason}"))?;
            if endpoints.contains(&endpoint) {
                return Err(format!("api.listen: {endpoint} is there twice"));
            }
            endpoints.push(endpoint);
        }
        if endpoints.is_empty() {
            return Err(format!(
                "api.listen: it is empty; the default is [{:?}]",
                Endpoint::DEFAULT
            ));
        }
        self.check_tls()?;
        self.check_limits()?;
        if self.peers()?.len() * self.listen.len() > Management::MAX {
            return Err(format!(
                "api.reachable_from: prefixes times api.listen may be {} at most",
                Management::MAX
            ));
        }
        let mode = self.mode()?;
        if mode & 0o007 != 0 && self.socket_role == Role::Admin {
            return Err(format!(
                "api.socket_role: every user of this host would be an admin by api.socket_mode {}; let \
                 the mode be 0660 with api.socket_group, or the role viewer",
                self.socket_mode
            ));
        }
        Ok(endpoints)
    }

    fn check_endpoint(&self, endpoint: &Endpoint) -> Result<(), String> {
        match endpoint {
            Endpoint::Unix(_) => Ok(()),
            Endpoint::Tls { .. } if self.tls.is_none() => {
                Err("api.tls is missing: set certificate, key and client_ca".to_owned())
            }
            Endpoint::Tls { .. } => endpoint.address().map(drop).map_err(|e| e.to_string()),
            Endpoint::Tcp(_) if self.insecure_loopback || self.takes_tokens_alone() => Ok(()),
            Endpoint::Tcp(_) => Err(
                "every user of this host could change the policy there: use unix:PATH, or set \
                 api.tokens_file and api.allow_tokens_without_client_certificate, or say \
                 api.insecure_loopback = true (--insecure-loopback)"
                    .to_owned(),
            ),
        }
    }

    fn check_tls(&self) -> Result<(), String> {
        if self.allow_tokens_without_client_certificate && self.tokens_file.is_none() {
            return Err(
                "api.allow_tokens_without_client_certificate: there are no tokens; set \
                        api.tokens_file"
                    .to_owned(),
            );
        }
        let Some(tls) = &self.tls else {
            return match self.clients.is_empty() {
                true => Ok(()),
                false => {
                    Err("api.clients: there are no certificates without api.tls; set it".to_owned())
                }
            };
        };
        if tls.client_ca.is_none() && !self.takes_tokens_alone() {
            return Err(
                "api.tls.client_ca: it is missing, so everybody could connect; name the \
                        CA of the clients, or set api.tokens_file and \
                        api.allow_tokens_without_client_certificate = true"
                    .to_owned(),
            );
        }
        for client in &self.clients {
            if client.name.is_empty() || client.name.matches('*').count() > 1 {
                return Err(format!(
                    "api.clients.name: {:?} is not a name with one * at most",
                    client.name
                ));
            }
            if client.name == "*" && client.role == Role::Admin {
                return Err(
                    "api.clients.name: \"*\" would make every certificate of the CA an \
                            admin; write what the names have in common, as in \"*.ops.example.org\""
                        .to_owned(),
                );
            }
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<(), String> {
        let limits = &self.limits;
        for (key, value, most) in [
            ("max_connections", limits.max_connections.into(), 65_536),
            ("max_streams", limits.max_streams.into(), 4096),
            (
                "max_message_bytes",
                limits.max_message_bytes as u64,
                1 << 30,
            ),
            (
                "requests_per_second",
                limits.requests_per_second.into(),
                1_000_000,
            ),
            ("handshake_seconds", limits.handshake_seconds, 3600),
            ("idle_seconds", limits.idle_seconds, 1 << 32),
            ("keepalive_seconds", limits.keepalive_seconds, 3600),
        ] {
            if value == 0 || value > most {
                return Err(format!("api.limits.{key}: it must be 1 to {most}"));
            }
        }
        Ok(())
    }

    /// From where the API is reached whatever the policy is.
    pub(in crate::agent) fn peers(&self) -> Result<Vec<Prefix>, String> {
        let parse = |text: &String| {
            let prefix = text.parse::<Prefix>();
            prefix.map_err(|e| format!("api.reachable_from: {text:?}: {e}"))
        };
        self.reachable_from.iter().map(parse).collect()
    }

    pub(in crate::agent) fn is_reachable_from_anywhere(&self) -> bool {
        let peers = self.peers().unwrap_or_default();
        peers.iter().any(|peer| peer.len() == 0)
    }

    /// Whether a token lets somebody in who shows no certificate.
    pub(in crate::agent) fn takes_tokens_alone(&self) -> bool {
        self.tokens_file.is_some() && self.allow_tokens_without_client_certificate
    }

    /// The mode of the file of a socket.
    pub(in crate::agent) fn mode(&self) -> Result<u32, String> {
        match u32::from_str_radix(&self.socket_mode, 8) {
            Ok(mode) if mode <= 0o777 && mode & 0o600 == 0o600 => Ok(mode),
            _ => Err(format!(
                "api.socket_mode: {:?} is not an octal mode that lets the owner read and write, as \"0660\"",
                self.socket_mode
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Api;

    fn check(text: &str) -> Result<(), String> {
        let api: Api = toml::from_str(text).map_err(|e| e.to_string())?;
        api.endpoints().map(drop)
    }

    const TLS: &str = "tls = { certificate = 'c', key = 'k', client_ca = 'a' }";

    #[test]
    fn what_is_safe_is_taken() {
        for text in [
            "",
            "listen = ['unix:a', 'unix:b']",
            "listen = ['127.0.0.1:1']\ninsecure_loopback = true",
            "listen = ['127.0.0.1:1']\ntokens_file = 't'\nallow_tokens_without_client_certificate = true",
            &format!("listen = ['https://0.0.0.0:1']\n{TLS}"),
            "listen = ['https://[::]:1']\ntokens_file = 't'\n\
             allow_tokens_without_client_certificate = true\ntls = { certificate = 'c', key = 'k' }",
            "socket_mode = '0660'\nsocket_group = 'adm'\nsocket_role = 'admin'",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    /// Row 73: what would let in whom it should not is refused, with key, reason and mend.
    #[test]
    fn r73_insecure_defaults_are_impossible() {
        for (text, key, mend) in [
            ("listen = ['127.0.0.1:1']", "api.listen", "unix:PATH"),
            (
                "listen = ['127.0.0.1:1']\ntokens_file = 't'",
                "api.listen",
                "allow_tokens",
            ),
            ("listen = ['0.0.0.0:1']", "api.listen", "https://0.0.0.0:1"),
            (
                "listen = ['0.0.0.0:1']\ninsecure_loopback = true",
                "api.listen",
                "https://",
            ),
            ("listen = ['https://0.0.0.0:1']", "api.listen", "api.tls"),
            ("listen = []", "api.listen", "default"),
            ("listen = ['unix:a', 'unix:a']", "api.listen", "twice"),
            (
                "tls = { certificate = 'c', key = 'k' }",
                "api.tls.client_ca",
                "name the CA",
            ),
            (
                "allow_tokens_without_client_certificate = true",
                "api.allow_tokens",
                "tokens_file",
            ),
            (
                "clients = [{ name = 'a', role = 'admin' }]",
                "api.clients",
                "api.tls",
            ),
            (
                &format!("{TLS}\nclients = [{{ name = '*', role = 'admin' }}]"),
                "api.clients.name",
                "in common",
            ),
            (
                &format!("{TLS}\nclients = [{{ name = 'a*b*', role = 'viewer' }}]"),
                "api.clients.name",
                "one *",
            ),
            (
                "socket_mode = '0666'\nsocket_role = 'admin'",
                "api.socket_role",
                "0660",
            ),
            ("socket_mode = '0066'", "api.socket_mode", "owner"),
            ("socket_mode = '08'", "api.socket_mode", "octal"),
            (
                "limits = { max_connections = 0 }",
                "api.limits.max_connections",
                "1 to",
            ),
            (
                "reachable_from = ['10.0.0.1/33']",
                "api.reachable_from",
                "0 to 32",
            ),
            ("socket_role = 'root'", "socket_role", "viewer"),
            ("tokens = ['secret']", "tokens", "unknown field"),
        ] {
            let refused = check(text).expect_err(text);
            for word in [key, mend] {
                assert!(refused.contains(word), "no {word:?} in {refused:?}");
            }
        }
    }
}
