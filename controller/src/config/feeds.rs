//! `[feeds]`: what feeds may read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xdpgate_service::config::Invalid;

use crate::feed::{ApiServer, Settings};

/// What feeds may read: address lists that are made over the API.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Feeds {
    /// The folder below which the files of feeds are. Default: there are no feeds from files.
    #[schemars(example = &"/var/lib/xdpgate-controller/feeds")]
    pub directory: Option<PathBuf>,
    /// Prefixes that are not on the internet and that feeds may be read from nevertheless, as those of a mirror of your
    /// own. Who may make feeds can have the controller ask any address in them.
    pub allow_private: Vec<String>,
    /// Authorities of web servers beside those that everybody trusts, PEM.
    #[schemars(example = &"/etc/xdpgate/mirror-ca.crt")]
    pub ca: Option<PathBuf>,
    /// How long one address of a feed may take, in seconds.
    #[schemars(range(min = 1, max = 500))]
    pub timeout_seconds: u32,
    /// The API server of Kubernetes, for feeds of the addresses of nodes and pods. In a pod it is found by itself.
    pub kubernetes: Option<Kubernetes>,
}

/// The API server of Kubernetes, for feeds of the addresses of nodes and pods. In a pod it is found by itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kubernetes {
    /// Where, as https://HOST:PORT; http:// only on loopback.
    #[schemars(example = &"https://10.96.0.1")]
    pub server: String,
    /// The file of the token of an account that may list nodes. It is read anew each time.
    #[serde(default = "token_file")]
    pub token_file: PathBuf,
    /// The authority that signed the server's certificate, PEM.
    #[serde(default = "ca")]
    pub ca: PathBuf,
}

/// Where a pod has what its service account has.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

fn token_file() -> PathBuf {
    Path::new(ACCOUNT).join("token")
}

fn ca() -> PathBuf {
    Path::new(ACCOUNT).join("ca.crt")
}

impl Default for Feeds {
    fn default() -> Self {
        Self {
            directory: None,
            allow_private: Vec::new(),
            ca: None,
            timeout_seconds: 120,
            kubernetes: None,
        }
    }
}

impl Feeds {
    /// As the module of feeds takes it. `variable` is how the environment is asked for the API server that a pod has.
    pub fn settings(&self, variable: impl Fn(&str) -> Option<String>) -> Settings {
        let named = self.kubernetes.as_ref().map(|named| ApiServer {
            url: named.server.clone(),
            token_file: named.token_file.clone(),
            ca: named.ca.clone(),
        });
        let found = || {
            let host = variable("KUBERNETES_SERVICE_HOST")?;
            let port = variable("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
            let host = match host.contains(':') {
                true => format!("[{host}]"),
                false => host,
            };
            Some(ApiServer {
                url: format!("https://{host}:{port}"),
                token_file: token_file(),
                ca: ca(),
            })
        };
        let prefixes = self.allow_private.iter();
        Settings {
            directory: self.directory.clone(),
            allow_private: prefixes.filter_map(|text| text.parse().ok()).collect(),
            ca: self.ca.clone(),
            timeout: Duration::from_secs(self.timeout_seconds.into()),
            kubernetes: named.or_else(found),
        }
    }

    pub(super) fn invalid(&self) -> Vec<Invalid> {
        let mut invalid = Vec::new();
        let files = [("feeds.directory", &self.directory), ("feeds.ca", &self.ca)];
        for (key, path) in files {
            if path.as_ref().is_some_and(|path| !path.is_absolute()) {
                let reason = "it is not a path from the root: begin it with a slash";
                invalid.push(Invalid::new(key, reason));
            }
        }
        for (index, prefix) in self.allow_private.iter().enumerate() {
            if let Err(error) = prefix.parse::<xdpgate::policy::Prefix>() {
                let key = format!("feeds.allow_private[{index}]");
                invalid.push(Invalid::new(key, format!("{prefix:?}: {error}")));
            }
        }
        if let Some(kubernetes) = &self.kubernetes
            && let Err(reason) = super::store::endpoint_is_safe(&kubernetes.server)
        {
            invalid.push(Invalid::new("feeds.kubernetes.server", reason));
        }
        invalid
    }
}
