//! `[api]`: REST for people and tools, and the web interface.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xdpgate::policy::Prefix;
use xdpgate_service::config::Invalid;

/// REST for people and tools, and the web interface. Beyond loopback only with TLS.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// Where, as ADDRESS:PORT.
    pub listen: String,
    /// Whether it is served with a certificate of the embedded authority, where no other is named.
    pub embedded_certificate: bool,
    /// The certificate, and after it those between it and its CA, PEM.
    #[schemars(example = &"/etc/xdpgate/controller.crt")]
    pub certificate: Option<PathBuf>,
    /// Its key, PEM; only the owner may read the file.
    #[schemars(example = &"/etc/xdpgate/controller.key")]
    pub key: Option<PathBuf>,
    /// Proxies whose X-Forwarded-For or Forwarded is believed, as prefixes: the client is the last address there that is
    /// none of them.
    pub trusted_proxies: Vec<String>,
    /// Names by which it is called, beside localhost and addresses. Calls by other names are refused when any is given, and
    /// on loopback also when none is: no web site can make its own name lead here.
    #[schemars(example = &["fleet.example"])]
    pub hosts: Vec<String>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8480".to_owned(),
            embedded_certificate: false,
            certificate: None,
            key: None,
            trusted_proxies: Vec::new(),
            hosts: Vec::new(),
        }
    }
}

impl Api {
    /// Where it is served; the configuration has been checked.
    ///
    /// # Errors
    /// It is not ADDRESS:PORT.
    pub fn address(&self) -> Result<SocketAddr, Invalid> {
        super::address("api.listen", &self.listen)
    }

    /// Whether there is TLS.
    pub fn tls(&self) -> bool {
        self.certificate.is_some() || self.embedded_certificate
    }

    pub(super) fn invalid(&self) -> Vec<Invalid> {
        let mut invalid = Vec::new();
        match self.address() {
            Err(error) => invalid.push(error),
            Ok(address) => {
                let refused = crate::http::check_listen(address, self.tls()).err();
                invalid.extend(refused.map(|reason| Invalid::new("api.listen", reason)));
            }
        }
        if self.certificate.is_some() != self.key.is_some() {
            let missing = match self.key {
                None => "api.key",
                Some(_) => "api.certificate",
            };
            invalid.push(Invalid::new(
                missing,
                "certificate and key go together: it is missing",
            ));
        }
        for (index, prefix) in self.trusted_proxies.iter().enumerate() {
            if let Err(error) = prefix.parse::<Prefix>() {
                let key = format!("api.trusted_proxies[{index}]");
                invalid.push(Invalid::new(key, format!("{prefix:?}: {error}")));
            }
        }
        for (index, host) in self.hosts.iter().enumerate() {
            if host.is_empty() || host.contains(|c: char| c.is_whitespace() || "/@".contains(c)) {
                let key = format!("api.hosts[{index}]");
                invalid.push(Invalid::new(
                    key,
                    format!("{host:?} is not a name or an address"),
                ));
            }
        }
        invalid
    }

    /// The names by which it may be called; `None`: by any.
    pub fn names(&self) -> Option<Vec<String>> {
        let loopback = self.address().is_ok_and(|at| at.ip().is_loopback());
        (loopback || !self.hosts.is_empty()).then(|| self.hosts.clone())
    }

    /// Proxies that are believed; the configuration has been checked.
    pub fn proxies(&self) -> Vec<Prefix> {
        let parsed = self.trusted_proxies.iter().map(|text| text.parse());
        parsed.filter_map(Result::ok).collect()
    }
}
