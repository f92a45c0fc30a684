//! `[store]`: where it is kept what all controllers know.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xdpgate_service::config::Invalid;

/// Where it is kept what all controllers know. Without [store.etcd] it is one SQLite file, of one controller.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// The SQLite file. Default: controller.db in state_dir.
    #[schemars(example = &"/var/lib/xdpgate-controller/controller.db")]
    pub file: Option<PathBuf>,
    /// How many versions of each policy and set are kept; older ones are deleted. Each that changes one entry of a large set takes some 40 KB.
    pub keep_versions: u32,
    /// How many days the audit log is kept; 0: for ever. An entry takes about half a kilobyte.
    pub keep_audit_days: u32,
    /// An etcd cluster in place of the file: then there may be many controllers.
    pub etcd: Option<Etcd>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            file: None,
            keep_versions: 1_000,
            keep_audit_days: 400,
            etcd: None,
        }
    }
}

/// An etcd cluster in place of the file: then there may be many controllers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Etcd {
    /// Its members, as https://HOST:PORT; http:// only on loopback.
    #[schemars(example = &["https://etcd-1.example:2379"])]
    pub endpoints: Vec<String>,
    /// What all keys begin with, so that the cluster can be shared.
    #[serde(default = "prefix")]
    pub prefix: String,
    /// The authority that signed the members' certificates, PEM.
    #[serde(default)]
    #[schemars(example = &"/etc/xdpgate/etcd-ca.crt")]
    pub ca: Option<PathBuf>,
    /// The controller's certificate for etcd, PEM.
    #[serde(default)]
    #[schemars(example = &"/etc/xdpgate/etcd-client.crt")]
    pub certificate: Option<PathBuf>,
    /// Its key, PEM; only the owner may read the file.
    #[serde(default)]
    #[schemars(example = &"/etc/xdpgate/etcd-client.key")]
    pub key: Option<PathBuf>,
    /// The user, if etcd asks for one.
    #[serde(default)]
    pub user: Option<String>,
    /// The file of the user's password; only the owner may read it.
    #[serde(default)]
    #[schemars(example = &"/etc/xdpgate/etcd-password")]
    pub password_file: Option<PathBuf>,
}

fn prefix() -> String {
    "/xdpgate/".to_owned()
}

impl Store {
    pub(super) fn invalid(&self) -> Vec<Invalid> {
        let mut invalid = Vec::new();
        if self.keep_versions == 0 {
            invalid.push(Invalid::new(
                "store.keep_versions",
                "at least 1: the one in force",
            ));
        }
        let Some(etcd) = &self.etcd else {
            return invalid;
        };
        if self.file.is_some() {
            invalid.push(Invalid::new(
                "store.file",
                "not together with [store.etcd]: choose one",
            ));
        }
        if etcd.endpoints.is_empty() {
            invalid.push(Invalid::new("store.etcd.endpoints", "name at least one"));
        }
        for (index, endpoint) in etcd.endpoints.iter().enumerate() {
            if let Err(reason) = endpoint_is_safe(endpoint) {
                let key = format!("store.etcd.endpoints[{index}]");
                invalid.push(Invalid::new(key, reason));
            }
        }
        if !etcd.prefix.starts_with('/') || !etcd.prefix.ends_with('/') {
            invalid.push(Invalid::new(
                "store.etcd.prefix",
                "it begins and ends with a slash, as /xdpgate/",
            ));
        }
        if etcd.certificate.is_some() != etcd.key.is_some() {
            let missing = match etcd.key {
                None => "store.etcd.key",
                Some(_) => "store.etcd.certificate",
            };
            invalid.push(Invalid::new(
                missing,
                "certificate and key go together: it is missing",
            ));
        }
        if etcd.user.is_some() != etcd.password_file.is_some() {
            let missing = match etcd.user {
                None => "store.etcd.user",
                Some(_) => "store.etcd.password_file",
            };
            invalid.push(Invalid::new(
                missing,
                "user and password_file go together: it is missing",
            ));
        }
        invalid
    }
}

/// In the clear only on this host: whoever reads the store reads the keys of the fleet.
pub(super) fn endpoint_is_safe(endpoint: &str) -> Result<(), String> {
    let url: axum::http::Uri = endpoint
        .parse()
        .map_err(|e| format!("{endpoint:?} is no URL: {e}"))?;
    let host = url.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = bare == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    match url.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if loopback => Ok(()),
        Some("http") => Err(format!(
            "{endpoint}: in the clear only on loopback; say https://"
        )),
        _ => Err(format!("{endpoint}: say https://HOST:PORT")),
    }
}
