//! `[metrics]` of the configuration.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;

/// Where metrics and health are served over HTTP: `/metrics`, `/healthz`, `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::agent) struct Metrics {
    /// A loopback ADDRESS:PORT, or unix:PATH. Without it nothing is served. Who can connect can read
    /// names of interfaces and rules, and what they count.
    #[schemars(example = &"127.0.0.1:29187")]
    pub listen: Option<String>,
    /// Whether `listen` may be an address that others than this host reach. There is neither a
    /// password nor encryption.
    pub allow_remote: bool,
    /// Of how many rules the counters are told: those with the most packets. Each is four time series.
    pub top_rules: u16,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            listen: None,
            allow_remote: false,
            top_rules: 20,
        }
    }
}

impl Metrics {
    /// Where it is to be served, if it is; the error names the key.
    pub(in crate::agent) fn endpoint(&self) -> Result<Option<Endpoint>, String> {
        let Some(text) = &self.listen else {
            return Ok(None);
        };
        if let Some(path) = text.strip_prefix("unix:").filter(|p| !p.is_empty()) {
            return Ok(Some(Endpoint::Unix(path.into())));
        }
        let address: SocketAddr = text.parse().map_err(|_| {
            format!("metrics.listen: {text:?} is neither unix:PATH nor ADDRESS:PORT")
        })?;
        if !address.ip().is_loopback() && !self.allow_remote {
            return Err(format!(
                "metrics.listen: {address} is not a loopback address: choose 127.0.0.1, or say \
                 metrics.allow_remote = true if whoever reaches it may read all metrics"
            ));
        }
        Ok(Some(Endpoint::Tcp(address)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_loopback_only_when_said() {
        let at = |listen: &str, allow_remote| Metrics {
            listen: Some(listen.to_owned()),
            allow_remote,
            ..Metrics::default()
        };
        assert_eq!(Metrics::default().endpoint(), Ok(None));
        for loopback in ["127.0.0.1:29187", "[::1]:0", "unix:/run/m.sock"] {
            let endpoint = at(loopback, false).endpoint().unwrap().unwrap();
            assert_eq!(endpoint.to_string(), loopback);
        }
        let refused = at("0.0.0.0:29187", false).endpoint().unwrap_err();
        assert!(refused.contains("metrics.allow_remote"), "{refused}");
        at("0.0.0.0:29187", true).endpoint().unwrap();
        for bad in ["localhost", "127.0.0.1", "unix:", ""] {
            let refused = at(bad, true).endpoint().unwrap_err();
            assert!(refused.starts_with("metrics.listen: "), "{refused}");
        }
    }
}
