//! What a node keeps of its fleet, in `fleet` of the state directory.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::decide::Held;

/// The version of all files.
const VERSION: u32 = 1;

/// Who the node is. The key never leaves it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    pub version: u32,
    pub node_id: String,
    /// PKCS #8, PEM.
    pub key: String,
    /// Its certificate first, DER in base64.
    pub chain: Vec<String>,
    /// Likewise.
    pub authorities: Vec<String>,
    /// The key of the fleet that came at joining, or first after it; base64.
    pub signing_key: Option<String>,
    /// The digest of the token by which it joined.
    pub token: String,
}

impl Identity {
    pub(super) fn new(node_id: String, key: String, token: String) -> Self {
        Self {
            version: VERSION,
            node_id,
            key,
            chain: Vec::new(),
            authorities: Vec::new(),
            signing_key: None,
            token,
        }
    }

    /// Takes over what a controller issued.
    pub(super) fn issued(&mut self, chain: &[Vec<u8>], authorities: &[Vec<u8>]) {
        let encode = |all: &[Vec<u8>]| all.iter().map(|der| STANDARD.encode(der)).collect();
        (self.chain, self.authorities) = (encode(chain), encode(authorities));
    }

    pub(super) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        certificates(&self.chain)
    }

    pub(super) fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        certificates(&self.authorities)
    }

    pub(super) fn signing_key(&self) -> Option<Vec<u8>> {
        STANDARD.decode(self.signing_key.as_deref()?).ok()
    }

    pub(super) fn set_signing_key(&mut self, key: &[u8]) {
        self.signing_key = (!key.is_empty()).then(|| STANDARD.encode(key));
    }

    /// From when and until when its certificate is good, in seconds since 1970.
    pub(super) fn validity(&self) -> Result<(i64, i64), String> {
        let chain = self.chain()?;
        let first = chain.first().ok_or("there is no certificate")?;
        let (_, parsed) = x509_parser::parse_x509_certificate(first).map_err(|e| e.to_string())?;
        let validity = parsed.validity();
        Ok((
            validity.not_before.timestamp(),
            validity.not_after.timestamp(),
        ))
    }
}

fn certificates(encoded: &[String]) -> Result<Vec<CertificateDer<'static>>, String> {
    let decode = |text: &String| STANDARD.decode(text).map(CertificateDer::from);
    let decoded = encoded.iter().map(decode).collect::<Result<_, _>>();
    decoded.map_err(|e| format!("a certificate is no base64: {e}"))
}

/// Without the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("node_id", &self.node_id)
            .finish_non_exhaustive()
    }
}

/// The addresses that the names of controllers had last.
pub(super) type Addresses = BTreeMap<String, Vec<IpAddr>>;

/// The files of a node.
#[derive(Debug, Clone)]
pub(super) struct Files {
    dir: PathBuf,
}

const IDENTITY: &str = "identity.json";
const HELD: &str = "held.json";
const ADDRESSES: &str = "addresses.json";
/// The key of a node that is about to join, so that it asks with the same one if the answer was lost.
const JOINING: &str = "joining.pem";

impl Files {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            dir: state_dir.join("fleet"),
        }
    }

    pub(super) fn chunks(&self) -> PathBuf {
        self.dir.join("chunks")
    }

    /// Who the node is; `None` if it never joined.
    ///
    /// # Errors
    /// The file and the reason.
    pub(super) fn identity(&self) -> Result<Option<Identity>, String> {
        self.read(IDENTITY)
    }

    pub(super) fn save_identity(&self, identity: &Identity) -> io::Result<()> {
        self.write_json(IDENTITY, identity)
    }

    pub(super) fn held(&self) -> Result<Held, String> {
        Ok(self.read(HELD)?.unwrap_or_default())
    }

    pub(super) fn save_held(&self, held: &Held) -> io::Result<()> {
        self.write_json(HELD, held)
    }

    pub(super) fn addresses(&self) -> Result<Addresses, String> {
        Ok(self.read(ADDRESSES)?.unwrap_or_default())
    }

    pub(super) fn save_addresses(&self, addresses: &Addresses) -> io::Result<()> {
        self.write_json(ADDRESSES, addresses)
    }

    /// The key to join with: that of the last attempt, or a new one.
    pub(super) fn joining_key(&self) -> Result<String, String> {
        let path = self.dir.join(JOINING);
        if let Ok(pem) = fs::read_to_string(&path) {
            return Ok(pem);
        }
        let key = rcgen::KeyPair::generate().map_err(|e| format!("making a key: {e}"))?;
        let pem = key.serialize_pem();
        let written = self.write(JOINING, pem.as_bytes());
        written.map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(pem)
    }

    pub(super) fn joined(&self) {
        // It is in the identity now.
        let _ = fs::remove_file(self.dir.join(JOINING));
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, String> {
        let path = self.dir.join(name);
        let of = |reason: &dyn fmt::Display| format!("{}: {reason}", path.display());
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(|e| of(&e)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(of(&error)),
        }
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(value)?;
        text.push(b'\n');
        self.write(name, &text)
    }

    /// The old content or the new one, whenever power fails; nobody else may read it.
    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)?;
        let unfinished = self.dir.join(format!(".{name}.new"));
        let _ = fs::remove_file(&unfinished);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&unfinished, self.dir.join(name))?;
        File::open(&self.dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn what_is_written_is_read_and_is_nobody_elses() {
        let scratch = tempfile::tempdir().expect("a directory");
        let files = Files::new(scratch.path());
        assert_eq!(files.identity(), Ok(None));
        assert_eq!(files.held(), Ok(Held::default()));
        let key = files.joining_key().expect("a key");
        assert_eq!(files.joining_key().as_ref(), Ok(&key), "the same again");
        let mut identity = Identity::new("node-1".to_owned(), key, "digest".to_owned());
        identity.issued(&[vec![1, 2]], &[vec![3]]);
        identity.set_signing_key(&[7; 32]);
        files.save_identity(&identity).expect("room");
        files.joined();
        assert_eq!(files.identity(), Ok(Some(identity.clone())));
        assert_eq!(identity.signing_key(), Some(vec![7; 32]));
        assert_eq!(identity.chain().expect("base64")[0].as_ref(), [1, 2]);
        assert!(!format!("{identity:?}").contains("PRIVATE"));
        let mode = |path: PathBuf| fs::metadata(path).expect("there").mode() & 0o777;
        let dir = scratch.path().join("fleet");
        assert_eq!(
            (mode(dir.join(IDENTITY)), mode(dir.clone())),
            (0o600, 0o700)
        );
        let names = fs::read_dir(&dir).expect("a directory");
        assert_eq!(names.count(), 1, "nothing unfinished, no other key");
        // A file that is broken says which one it is.
        fs::write(dir.join(HELD), "{").expect("room");
        let refused = files.held().expect_err("no JSON");
        assert!(refused.contains("held.json"), "{refused}");
    }
}
