//! `[api]`: REST for people and tools, and the web interface.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
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
    /// Proxies whose X-Forwarded-For is believed, as prefixes.
    pub trusted_proxies: Vec<String>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8480".to_owned(),
            embedded_certificate: false,
            certificate: None,
            key: None,
            trusted_proxies: Vec::new(),
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
            Ok(address) if !address.ip().is_loopback() && !self.tls() => {
                invalid.push(Invalid::new(
                    "api.listen",
                    format!(
                        "{address} is not a loopback address, so it takes TLS: name api.certificate and api.key, or \
                         say api.embedded_certificate = true"
                    ),
                ));
            }
            Ok(_) => {}
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
            if let Err(error) = prefix.parse::<xdpgate::policy::Prefix>() {
                let key = format!("api.trusted_proxies[{index}]");
                invalid.push(Invalid::new(key, format!("{prefix:?}: {error}")));
            }
        }
        invalid
    }
}
