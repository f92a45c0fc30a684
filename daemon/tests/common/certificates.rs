//! Certificates that are made for one test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, date_time_ymd,
};

use super::{Scratch, text};

/// A certificate and its key, as the paths of their files.
pub struct Pair {
    pub cert: String,
    pub key: String,
}

/// A CA that lives as long as the test.
pub struct Authority {
    pub cert: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(scratch: &Scratch, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self {
            cert: scratch.file(&format!("{name}-ca.crt"), pem),
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate with this common name, and with a URI as an alternative name, if it is one.
    pub fn issue(&self, scratch: &Scratch, name: &str) -> Pair {
        self.issue_with(scratch, name, |_| ())
    }

    /// One whose time was up long ago.
    pub fn issue_expired(&self, scratch: &Scratch, name: &str) -> Pair {
        self.issue_with(scratch, name, |params| {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        })
    }

    fn issue_with(
        &self,
        scratch: &Scratch,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let mut params = params(name);
        change(&mut params);
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        let file: String = name.replace(['/', ':'], "-");
        let pair = Pair {
            cert: scratch.file(&format!("{file}.crt"), cert.pem()),
            key: scratch.file(&format!("{file}.key"), key.serialize_pem()),
        };
        private(&pair.key);
        pair
    }
}

/// Only the owner may read it.
pub fn private(path: &str) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("it is ours");
}

/// It names the loopback address and the one of the node in these tests, so that it serves for a server.
fn params(name: &str) -> CertificateParams {
    let names = ["127.0.0.1", "192.0.2.1", "node.test"].map(str::to_owned);
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name.push(DnType::CommonName, name);
    if name.contains("://") {
        let uri = SanType::URI(name.try_into().expect("ASCII"));
        params.subject_alt_names.push(uri);
    }
    params
}

/// A token from `xdpgated token new`, and its entry for the file.
pub fn token(name: &str, role: &str) -> (String, String) {
    let said = super::run(
        super::XDPGATED,
        ["token", "new", "--name", name, "--role", role],
    )
    .ok();
    let token = said.lines().find(|line| line.starts_with("xdpgate_"));
    let entry = said.find("[[token]]").expect("an entry");
    (token.expect("a token").to_owned(), said[entry..].to_owned())
}

/// Lets everybody go through a directory.
pub fn open_directory(path: &Path) -> String {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    text(path)
}
