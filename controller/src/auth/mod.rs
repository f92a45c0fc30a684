//! Who may: users with passwords and sessions, API tokens, and the certificates of nodes.
//!
//! Secrets are made at random, told once to whom they are for, and kept as digests (passwords: argon2id). What is
//! written is written straight to the [`Store`], with an audit entry in the same transaction; and
//! each call is judged by what the store says then, so that what is revoked is dead at once, on every controller.
//!
//! | key | value |
//! |---|---|
//! | `user/NAME` | role, hash of the password or who it is at the identity provider, generation |
//! | `session/DIGEST` | of a cookie: whose, since when, last seen, the generation of the user |
//! | `api-token/ID` | digest, owner, role, expiry, last use |
//! | `join-token/ID` | digest, expiry, uses that are left, labels |
//! | `authority/nodes` | the authorities of certificates with their keys, [sealed](authority::KeyFile) if a key file is given |
//! | `authority/signing` | the key that signs states, likewise |
//! | `issued/NODE` | the certificates of a node that are good |

pub mod authority;
mod error;
mod external;
pub mod join;
mod members;
pub mod oidc;
mod password;
mod records;
mod refusals;
mod secret;
mod sessions;
mod setup;
mod signer;
mod throttle;
mod tokens;
mod users;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

pub use crate::core::Actor;
pub use crate::domain::Role;
pub use error::AuthError;
pub use external::{External, Subject};
pub use password::{MAX_PASSWORD, MIN_PASSWORD};
pub use records::Stored;
pub use secret::Secret;
pub use sessions::{Identity, Login, Means, Session};
pub use setup::FirstAdmin;
pub use signer::Signer;
pub(crate) use throttle::network;
pub use tokens::{NewToken, Token};
pub use users::{NewUser, User, UserPatch};

use crate::store::Store;
use password::Passwords;
use throttle::Throttle;

/// A name for what lives shortly, as a request: 80 random bits.
pub(crate) fn short_id() -> String {
    secret::base32(&rand::random::<[u8; 10]>())
}

/// How long sessions live.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// A session ends when it was not used for this long.
    pub idle: Duration,
    /// It ends after this long, used or not.
    pub absolute: Duration,
    /// A one-time password is good for this long.
    pub one_time: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(3_600),
            absolute: Duration::from_secs(24 * 3_600),
            one_time: Duration::from_secs(24 * 3_600),
        }
    }
}

/// Users, sessions and API tokens. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Auth(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<dyn Store>,
    options: Options,
    passwords: Passwords,
    throttle: Throttle,
}

impl Auth {
    /// Over a store.
    pub fn new(store: Arc<dyn Store>, options: Options) -> Self {
        Self(Arc::new(Inner {
            store,
            options,
            passwords: Passwords::default(),
            throttle: Throttle::default(),
        }))
    }

    /// Counts an attempt of an address to log in by other means than a password.
    ///
    /// # Errors
    /// [`AuthError::Throttled`].
    pub fn attempt(&self, address: IpAddr, now: Timestamp) -> Result<Attempt<'_>, AuthError> {
        // No user is called so.
        let account = format!("@{}", network(address));
        let begun = self.0.throttle.begin(&account, address, now);
        begun.map_err(AuthError::Throttled)?;
        Ok(Attempt {
            auth: self,
            account,
            address,
        })
    }

    fn store(&self) -> &dyn Store {
        &*self.0.store
    }
}

/// An attempt to log in, held against its address unless it is told that it was right.
#[derive(Debug)]
pub struct Attempt<'a> {
    auth: &'a Auth,
    account: String,
    address: IpAddr,
}

impl Attempt<'_> {
    /// It was right.
    pub fn succeeded(self) {
        let throttle = &self.auth.0.throttle;
        throttle.succeeded(&self.account, self.address);
    }
}
