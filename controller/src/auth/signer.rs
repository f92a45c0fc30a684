//! The key by which the fleet signs what its nodes shall have.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::json;

use super::authority::{Authority, Sealed, open, seal};
use super::records::{Change, load};
use super::{Actor, AuthError};
use crate::store::Key;

const RECORD: &str = "authority/signing";

/// An ed25519 key.
#[derive(Clone)]
pub struct Signer(SigningKey);

impl Signer {
    /// The key of the fleet; `None` if it has none.
    ///
    /// # Errors
    /// [`AuthError::Damaged`] if it cannot be opened, with the mend; [`AuthError::Unavailable`].
    pub async fn load(authority: &Authority) -> Result<Option<Self>, AuthError> {
        let Some(stored) = load::<Sealed>(authority.store(), &record()?).await? else {
            return Ok(None);
        };
        let bytes = open(authority.key_file(), RECORD, &stored.value)?;
        let bytes = bytes
            .try_into()
            .map_err(|_| AuthError::Damaged(format!("{RECORD} is damaged")))?;
        Ok(Some(Self(SigningKey::from_bytes(&bytes))))
    }

    /// The key of the fleet, made if it has none. Nodes that have learnt it take only signed states from then on.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub async fn create(authority: &Authority, actor: &Actor) -> Result<Self, AuthError> {
        if let Some(signer) = Self::load(authority).await? {
            return Ok(signer);
        }
        let signer = Self(SigningKey::from_bytes(&rand::random()));
        let key = record()?;
        let sealed = seal(authority.key_file(), RECORD, signer.0.as_bytes())?;
        let public = super::secret::hex(&signer.public());
        let change = Change::default()
            .expect(&key, None)
            .put(&key, &sealed)?
            .audit(
                actor,
                "signing_key.create",
                RECORD,
                json!({ "public": public }),
            );
        match change.commit(authority.store()).await {
            Ok(_) => Ok(signer),
            Err(AuthError::Conflict(_)) => Self::load(authority)
                .await?
                .ok_or_else(|| AuthError::Damaged(format!("there is no {RECORD}"))),
            Err(error) => Err(error),
        }
    }

    /// What nodes check signatures with.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// The signature of some bytes, as of [`signed_bytes`](xdpgate_api::fleet::signed_bytes).
    pub fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.0.sign(bytes).to_bytes()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(...)")
    }
}

fn record() -> Result<Key, AuthError> {
    Key::new(RECORD).ok_or_else(|| AuthError::Damaged(RECORD.to_owned()))
}
