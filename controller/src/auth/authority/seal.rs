//! Private keys in the store: sealed by a key file, or as they are.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use xdpgate_service::files::{self, Others};

use crate::auth::AuthError;

/// A key of 256 bits that seals what the store keeps of private keys, so that who has a copy of the store (a backup, a member of
/// etcd) has not the authority. Without one the file mode of the store is what guards them.
pub struct KeyFile(LessSafeKey);

/// A private key as it is stored.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sealed {
    /// As it is, base64.
    Plain(String),
    /// ChaCha20-Poly1305: nonce and text, base64. The name of the record is bound to it.
    Sealed(String),
}

impl KeyFile {
    /// Reads the file: 32 bytes in base64, as `openssl rand -base64 32` makes them. Only its owner may read it.
    ///
    /// # Errors
    /// One line with the file and the mend.
    pub fn read(path: &Path) -> Result<Self, String> {
        let name = path.display();
        let text = files::read(path, Others::MayNothing)?;
        let bytes = STANDARD
            .decode(text.trim())
            .ok()
            .filter(|bytes| bytes.len() == 32);
        let bytes = bytes.ok_or_else(|| {
            format!("{name}: not 32 bytes in base64: make one by `openssl rand -base64 32`")
        })?;
        Self::new(&bytes).ok_or_else(|| format!("{name}: not a key"))
    }

    pub(crate) fn new(bytes: &[u8]) -> Option<Self> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, bytes).ok()?;
        Some(Self(LessSafeKey::new(key)))
    }
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyFile(...)")
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(...)")
    }
}

/// For the record `name`.
pub(crate) fn seal(file: Option<&KeyFile>, name: &str, secret: &[u8]) -> Result<Sealed, AuthError> {
    let Some(KeyFile(key)) = file else {
        return Ok(Sealed::Plain(STANDARD.encode(secret)));
    };
    let nonce: [u8; 12] = rand::random();
    let mut text = secret.to_vec();
    let bound = Aad::from(name.as_bytes());
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound, &mut text)
        .map_err(|_| AuthError::Damaged(format!("{name} cannot be sealed")))?;
    Ok(Sealed::Sealed(
        STANDARD.encode([&nonce[..], &text].concat()),
    ))
}

/// What was sealed for the record `name`.
pub(crate) fn open(
    file: Option<&KeyFile>,
    name: &str,
    sealed: &Sealed,
) -> Result<Vec<u8>, AuthError> {
    let damaged = || AuthError::Damaged(format!("the key in {name} is damaged"));
    let (text, key) = match (sealed, file) {
        (Sealed::Plain(text), _) => return STANDARD.decode(text).map_err(|_| damaged()),
        (Sealed::Sealed(text), Some(KeyFile(key))) => (text, key),
        (Sealed::Sealed(_), None) => {
            return Err(AuthError::Damaged(format!(
                "the key in {name} is sealed: set `authority.key_file` to the file it was sealed with"
            )));
        }
    };
    let mut bytes = STANDARD.decode(text).map_err(|_| damaged())?;
    let (nonce, text) = bytes.split_at_mut_checked(12).ok_or_else(damaged)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
    let opened = key.open_in_place(nonce, Aad::from(name.as_bytes()), text);
    let opened = opened.map_err(|_| {
        AuthError::Damaged(format!(
            "the key in {name} cannot be opened: `authority.key_file` is another one, or it is damaged"
        ))
    })?;
    Ok(opened.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_is_sealed_takes_the_same_file_and_the_same_record() {
        let file = KeyFile::new(&[7; 32]).unwrap();
        let sealed = seal(Some(&file), "authority/nodes", b"private").unwrap();
        assert!(
            !serde_json::to_string(&sealed)
                .unwrap()
                .contains("cHJpdmF0ZQ")
        );
        let opened = open(Some(&file), "authority/nodes", &sealed).unwrap();
        assert_eq!(opened, b"private");
        assert!(open(Some(&file), "authority/signing", &sealed).is_err());
        assert!(open(None, "authority/nodes", &sealed).is_err());
        assert!(open(KeyFile::new(&[8; 32]).as_ref(), "authority/nodes", &sealed).is_err());
        let plain = seal(None, "authority/nodes", b"private").unwrap();
        assert_eq!(
            open(Some(&file), "authority/nodes", &plain).unwrap(),
            b"private"
        );
    }

    #[test]
    fn a_key_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, STANDARD.encode([1; 32]) + "\n").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(KeyFile::read(&path).unwrap_err().contains("chmod 600"));
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        KeyFile::read(&path).unwrap();
        std::fs::write(&path, "short").unwrap();
        assert!(KeyFile::read(&path).unwrap_err().contains("openssl rand"));
    }
}
