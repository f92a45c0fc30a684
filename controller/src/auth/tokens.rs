//! API tokens: for programs, without cookies.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::records::{Change, all, key, load};
use super::secret::{base32, same};
use super::{Actor, Auth, AuthError, Identity, Means, Role, Secret, Stored};

/// What every token begins with, so that scanners of sources find those that leaked.
const PREFIX: &str = "xgt_";
const ID: usize = 16;
/// How long a use may stay unwritten.
const USED_EVERY: SignedDuration = SignedDuration::from_mins(10);
/// How long one that has ended is kept.
const KEPT: SignedDuration = SignedDuration::from_hours(24 * 7);

const WRONG: AuthError = AuthError::Credentials("the API token is wrong, expired or revoked");

/// A token, without its secret.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Token {
    /// What it is called by.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// Whose it is: it dies with its owner, and never may more than its owner.
    pub owner: String,
    /// What it may.
    #[schema(value_type = String, example = "viewer")]
    pub role: Role,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When it ends.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// When it was used last, to within ten minutes.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used: Option<Timestamp>,
    /// From where.
    #[schema(value_type = Option<String>)]
    pub last_address: Option<IpAddr>,
}

/// A token to be.
#[derive(Debug)]
pub struct NewToken {
    /// What it is for: up to 128 characters.
    pub name: String,
    /// What it may: not more than its owner.
    pub role: Role,
    /// When it ends.
    pub expires: Option<Timestamp>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct TokenRecord {
    name: String,
    digest: String,
    owner: String,
    role: Role,
    created: Timestamp,
    expires: Option<Timestamp>,
    last_used: Option<Timestamp>,
    last_address: Option<IpAddr>,
}

impl Auth {
    /// All tokens, or those of one owner.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`], [`AuthError::Damaged`].
    pub async fn tokens(&self, owner: Option<&str>) -> Result<Vec<Stored<Token>>, AuthError> {
        let records = all::<TokenRecord>(self.store(), "api-token").await?;
        let shown = records.into_iter().map(|(key, stored)| Stored {
            value: shown(super::users::name_of(&key), stored.value),
            revision: stored.revision,
        });
        Ok(shown
            .filter(|token| owner.is_none_or(|owner| token.value.owner == owner))
            .collect())
    }

    /// Makes a token for the caller. The secret is told this once.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] names the field, [`AuthError::Forbidden`] if it would may more than the caller.
    pub async fn create_token(
        &self,
        actor: &Actor,
        owner: &str,
        new: NewToken,
        now: Timestamp,
    ) -> Result<(Token, Secret), AuthError> {
        if new.name.trim().is_empty() || new.name.chars().count() > 128 {
            return Err(AuthError::invalid(
                "name",
                "say what it is for, in up to 128 characters",
            ));
        }
        if new.role > actor.role {
            let text = "a token may not do more than who makes it: give it your role or less";
            return Err(AuthError::Forbidden(text.to_owned()));
        }
        if new.expires.is_some_and(|at| at <= now) {
            return Err(AuthError::invalid(
                "expires",
                "it is past: give a time to come",
            ));
        }
        let id = base32(&rand::random::<[u8; 10]>());
        let secret = Secret::new(format!("{PREFIX}{id}_{}", Secret::random().reveal()));
        let record = TokenRecord {
            name: new.name,
            digest: secret.digest(),
            owner: owner.to_owned(),
            role: new.role,
            created: now,
            expires: new.expires,
            last_used: None,
            last_address: None,
        };
        let (owner_key, key) = (key("user", owner)?, key("api-token", &id)?);
        let user = self.user_record(owner).await?;
        let detail = json!({ "name": record.name, "owner": owner, "role": record.role });
        Change::default()
            .expect(&owner_key, Some(user.revision))
            .expect(&key, None)
            .put(&key, &record)?
            .audit(actor, "token.create", key.as_str(), detail)
            .commit(self.store())
            .await?;
        Ok((shown(&id, record), secret))
    }

    /// Deletes tokens that ended more than a week ago.
    pub(super) async fn sweep_tokens(&self, now: Timestamp) -> Result<u64, AuthError> {
        let mut swept = 0;
        for (key, stored) in all::<TokenRecord>(self.store(), "api-token").await? {
            let ended = |at: Timestamp| now > at + KEPT;
            if !stored.value.expires.is_some_and(ended) {
                continue;
            }
            let change = Change::default().expect(&key, Some(stored.revision));
            match change.delete(&key).commit(self.store()).await {
                Ok(_) => swept += 1,
                // Somebody changed or deleted it just now.
                Err(AuthError::Conflict(_)) => (),
                Err(error) => return Err(error),
            }
        }
        Ok(swept)
    }

    /// Revokes a token; `owner` limits it to that owner's.
    ///
    /// # Errors
    /// [`AuthError::NotFound`].
    pub async fn remove_token(
        &self,
        actor: &Actor,
        id: &str,
        owner: Option<&str>,
    ) -> Result<(), AuthError> {
        let missing = || AuthError::NotFound(format!("there is no API token {id:?}"));
        let key = key("api-token", id).map_err(|_| missing())?;
        let stored = load::<TokenRecord>(self.store(), &key)
            .await?
            .ok_or_else(missing)?;
        if owner.is_some_and(|owner| owner != stored.value.owner) {
            return Err(missing());
        }
        // Whatever was written meanwhile (its last use), it goes.
        Change::default()
            .delete(&key)
            .audit(
                actor,
                "token.remove",
                key.as_str(),
                json!({ "name": stored.value.name }),
            )
            .commit(self.store())
            .await
            .map(drop)
    }

    /// Who calls by a token.
    ///
    /// # Errors
    /// [`AuthError::Credentials`], whatever is wrong.
    pub async fn token(
        &self,
        token: &Secret,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<Identity, AuthError> {
        let id = token
            .reveal()
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.get(..ID));
        let Some(id) = id.filter(|id| id.bytes().all(|b| b.is_ascii_alphanumeric())) else {
            return Err(WRONG);
        };
        let key = key("api-token", id)?;
        let stored = load::<TokenRecord>(self.store(), &key)
            .await?
            .ok_or(WRONG)?;
        let record = stored.value;
        if !same(&record.digest, &token.digest()) || record.expires.is_some_and(|at| now >= at) {
            return Err(WRONG);
        }
        let owner = match self.user_record(&record.owner).await {
            Err(AuthError::NotFound(_)) => return Err(WRONG),
            other => other?.value,
        };
        if owner.disabled {
            return Err(WRONG);
        }
        let identity = Identity {
            user: record.owner.clone(),
            role: record.role.min(owner.role),
            means: Means::Token { id: id.to_owned() },
        };
        if record
            .last_used
            .is_none_or(|used| now.duration_since(used) >= USED_EVERY)
        {
            let used = TokenRecord {
                last_used: Some(now),
                last_address: Some(address),
                ..record
            };
            let change = Change::default()
                .expect(&key, Some(stored.revision))
                .put(&key, &used)?;
            self.in_background(change);
        }
        Ok(identity)
    }
}

fn shown(id: &str, token: TokenRecord) -> Token {
    Token {
        id: id.to_owned(),
        name: token.name,
        owner: token.owner,
        role: token.role,
        created: token.created,
        expires: token.expires,
        last_used: token.last_used,
        last_address: token.last_address,
    }
}
