//! `[oidc]`: login by an identity provider.

use std::net::IpAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xdpgate_service::config::Invalid;

/// Login by an identity provider (OpenID Connect), beside that by a password. It is on when `issuer` is set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Oidc {
    /// The provider, as it writes itself: the address before `/.well-known/openid-configuration`.
    #[schemars(example = &"https://id.example/realms/ops")]
    pub issuer: Option<String>,
    /// What people see on the button.
    pub name: String,
    /// What the provider knows the controller by.
    #[schemars(example = &"xdpgate")]
    pub client_id: Option<String>,
    /// A file with the secret of this client; only the owner may read it. All controllers need the same.
    #[schemars(example = &"/etc/xdpgate/oidc-secret")]
    pub client_secret_file: Option<PathBuf>,
    /// Where the provider sends browsers back to: this API as browsers call it, with the path /api/v1/login/oidc/callback.
    #[schemars(example = &"https://fleet.example/api/v1/login/oidc/callback")]
    pub redirect_url: Option<String>,
    /// What is asked for beside `openid`.
    pub scopes: Vec<String>,
    /// The claim with the name of the user, which becomes lower-case.
    pub user_claim: String,
    /// The claim with the groups of the user. Who is in none of the groups below has no access.
    pub role_claim: String,
    /// Groups whose members are admins.
    pub admins: Vec<String>,
    /// Groups whose members are operators.
    pub operators: Vec<String>,
    /// Groups whose members are viewers.
    pub viewers: Vec<String>,
    /// Authorities of the provider's certificate, PEM, beside those of the public web.
    #[schemars(example = &"/etc/xdpgate/oidc-ca.crt")]
    pub ca: Option<PathBuf>,
}

impl Default for Oidc {
    fn default() -> Self {
        Self {
            issuer: None,
            name: "single sign-on".to_owned(),
            client_id: None,
            client_secret_file: None,
            redirect_url: None,
            scopes: vec!["profile".to_owned()],
            user_claim: "preferred_username".to_owned(),
            role_claim: "groups".to_owned(),
            admins: Vec::new(),
            operators: Vec::new(),
            viewers: Vec::new(),
            ca: None,
        }
    }
}

/// The path at which logins end.
const CALLBACK: &str = "/api/v1/login/oidc/callback";

impl Oidc {
    pub(super) fn invalid(&self) -> Vec<Invalid> {
        let Some(issuer) = &self.issuer else {
            return Vec::new();
        };
        let mut invalid = Vec::new();
        let mut wrong = |key: &str, reason: &str| {
            invalid.push(Invalid::new(format!("oidc.{key}"), reason.to_owned()));
        };
        const IN_THE_CLEAR: &str = "it is to begin with https://; http:// is for loopback only";
        if !is_safe(issuer) {
            wrong("issuer", IN_THE_CLEAR);
        }
        if self.client_id.is_none() {
            wrong("client_id", "the provider wants it: it is missing");
        }
        if self.client_secret_file.is_none() {
            wrong("client_secret_file", "the provider wants it: it is missing");
        }
        match &self.redirect_url {
            None => wrong("redirect_url", "the provider wants it: it is missing"),
            Some(url) if !is_safe(url) => wrong("redirect_url", IN_THE_CLEAR),
            Some(url) if !url.ends_with(CALLBACK) => {
                wrong(
                    "redirect_url",
                    "its path is to be /api/v1/login/oidc/callback",
                );
            }
            Some(_) => {}
        }
        if [&self.admins, &self.operators, &self.viewers]
            .iter()
            .all(|groups| groups.is_empty())
        {
            wrong(
                "viewers",
                "nobody has a role: name groups in admins, operators or viewers",
            );
        }
        invalid
    }
}

/// Whether what is sent there is not in the clear for others.
fn is_safe(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else {
        return false;
    };
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let loopback = address.map_or(host == "localhost", |address| address.is_loopback());
    url.scheme() == "https" || (url.scheme() == "http" && loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_that_is_missing_or_wrong_is_named() {
        assert!(Oidc::default().invalid().is_empty());
        let set = Oidc {
            issuer: Some("http://id.example".to_owned()),
            redirect_url: Some("https://fleet.example/other".to_owned()),
            ..Oidc::default()
        };
        let keys: Vec<String> = set
            .invalid()
            .iter()
            .map(|wrong| wrong.key.clone())
            .collect();
        let all = [
            "issuer",
            "client_id",
            "client_secret_file",
            "redirect_url",
            "viewers",
        ];
        assert_eq!(keys, all.map(|key| format!("oidc.{key}")));
        for url in [
            "http://127.0.0.1:1",
            "http://[::1]:1",
            "http://localhost",
            "https://x",
        ] {
            assert!(is_safe(url), "{url}");
        }
        for url in [
            "http://127.0.0.1.x",
            "http://localhost.x",
            "ftp://127.0.0.1",
            "x",
        ] {
            assert!(!is_safe(url), "{url}");
        }
    }
}
