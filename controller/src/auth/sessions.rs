//! Sessions: a cookie for whoever logged in.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::records::{Change, Stored, all, key, load};
use super::secret::digest;
use super::users::{UserRecord, name_of};
use super::{Actor, Auth, AuthError, Role, Secret};
use crate::metrics::LOGINS;
use crate::store::Revision;

/// How long a use may stay unwritten.
const SEEN_EVERY: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);

const WRONG: AuthError = AuthError::Credentials("the user name or the password is wrong");
const ENDED: AuthError = AuthError::Credentials("the session has ended: log in again");

/// Who calls.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The user, or the owner of the token.
    pub user: String,
    /// What this call may.
    pub role: Role,
    /// By what.
    pub means: Means,
}

/// By what a caller is known.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Means {
    /// A session.
    Session {
        /// The key of its record.
        digest: String,
        /// What requests that change something have to carry.
        csrf: Secret,
        /// Whether it may only choose a password.
        must_change_password: bool,
    },
    /// An API token.
    Token {
        /// Its id.
        id: String,
    },
}

/// A new session.
#[derive(Debug)]
pub struct Login {
    /// The cookie.
    pub cookie: Secret,
    /// Whose it is.
    pub identity: Identity,
}

/// A session, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Session {
    /// What it is called by, to end it. Nobody can make its cookie of it.
    pub id: String,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When it was used last, to the minute.
    #[schema(value_type = String, format = DateTime)]
    pub seen: Timestamp,
    /// Where it began.
    #[schema(value_type = String)]
    pub address: IpAddr,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct SessionRecord {
    user: String,
    generation: u64,
    created: Timestamp,
    seen: Timestamp,
    address: IpAddr,
}

impl Identity {
    /// As who changes are written down.
    pub fn actor(&self, address: IpAddr) -> Actor {
        Actor {
            name: match &self.means {
                Means::Token { id } => format!("{}+{id}", self.user),
                Means::Session { .. } => self.user.clone(),
            },
            role: self.role,
            origin: address.to_string(),
        }
    }
}

impl Auth {
    /// Begins a session.
    ///
    /// # Errors
    /// [`AuthError::Credentials`], whatever is wrong; [`AuthError::Throttled`], [`AuthError::Busy`].
    pub async fn login(
        &self,
        name: &str,
        password: Secret,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<Login, AuthError> {
        let name = name.to_ascii_lowercase();
        if name.len() > 64 || password.reveal().len() > super::MAX_PASSWORD {
            return Err(WRONG);
        }
        if let Err(wait) = self.0.throttle.begin(&name, address, now) {
            metrics::counter!(LOGINS, "result" => "throttled").increment(1);
            return Err(AuthError::Throttled(wait));
        }
        let stored = match self.user_record(&name).await {
            Ok(stored) => Some(stored),
            Err(AuthError::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        let usable = stored.as_ref().filter(|user| {
            !user.value.disabled
                && user.value.oidc.is_none()
                && user.value.one_time_until.is_none_or(|until| now < until)
        });
        let hash = usable.map(|user| user.value.password.clone());
        let right = self.0.passwords.verify(password, hash).await?;
        let Some(user) = stored.as_ref().filter(|_| right) else {
            let known = stored.is_some().then_some(&*name);
            self.refused(known, address, json!({})).await;
            return Err(WRONG);
        };
        self.0.throttle.succeeded(&name, address);
        self.begin_session(&name, user, address, now, json!({}))
            .await
    }

    /// Begins a session of a user who has shown who he is; expects the record of the user to be as it was read.
    pub(crate) async fn begin_session(
        &self,
        name: &str,
        user: &Stored<UserRecord>,
        address: IpAddr,
        now: Timestamp,
        detail: Value,
    ) -> Result<Login, AuthError> {
        metrics::counter!(LOGINS, "result" => "accepted").increment(1);
        let cookie = Secret::random();
        let session = SessionRecord {
            user: name.to_owned(),
            generation: user.value.generation,
            created: now,
            seen: now,
            address,
        };
        let identity = Identity {
            user: name.to_owned(),
            role: user.value.role,
            means: means(&cookie, user.value.one_time_until.is_some()),
        };
        let (user_key, session_key) = (key("user", name)?, key("session", &cookie.digest())?);
        let actor = identity.actor(address);
        Change::default()
            .expect(&user_key, Some(user.revision))
            .put(&session_key, &session)?
            .audit(&actor, "session.login", user_key.as_str(), detail)
            .commit(self.store())
            .await?;
        Ok(Login { cookie, identity })
    }

    /// Whose session a cookie is.
    ///
    /// # Errors
    /// [`AuthError::Credentials`] if it has ended or never was.
    pub async fn session(&self, cookie: &Secret, now: Timestamp) -> Result<Identity, AuthError> {
        let key = key("session", &cookie.digest())?;
        let stored = load::<SessionRecord>(self.store(), &key)
            .await?
            .ok_or(ENDED)?;
        let session = stored.value;
        if self.has_ended(&session, now) {
            return Err(ENDED);
        }
        let user = match self.user_record(&session.user).await {
            Err(AuthError::NotFound(_)) => return Err(ENDED),
            other => other?.value,
        };
        if user.disabled || user.generation != session.generation {
            return Err(ENDED);
        }
        if user.one_time_until.is_some_and(|until| now >= until) {
            return Err(ENDED);
        }
        let identity = Identity {
            user: session.user.clone(),
            role: user.role,
            means: means(cookie, user.one_time_until.is_some()),
        };
        if now.duration_since(session.seen) >= SEEN_EVERY {
            let seen = SessionRecord {
                seen: now,
                ..session
            };
            let change = Change::default()
                .expect(&key, Some(stored.revision))
                .put(&key, &seen)?;
            self.in_background(change);
        }
        Ok(identity)
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`].
    pub async fn logout(&self, actor: &Actor, session_digest: &str) -> Result<(), AuthError> {
        let (session, user) = (key("session", session_digest)?, key("user", &actor.name)?);
        let change = Change::default().delete(&session).audit(
            actor,
            "session.logout",
            user.as_str(),
            json!({}),
        );
        change.commit(self.store()).await.map(drop)
    }

    /// The sessions of a user that go on, the newest first.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], [`AuthError::Unavailable`], [`AuthError::Damaged`].
    pub async fn sessions(&self, user: &str, now: Timestamp) -> Result<Vec<Session>, AuthError> {
        let generation = self.user_record(user).await?.value.generation;
        let all = all::<SessionRecord>(self.store(), "session").await?;
        let mut sessions: Vec<Session> = all
            .into_iter()
            .filter(|(_, stored)| {
                let session = &stored.value;
                session.user == user
                    && session.generation == generation
                    && !self.has_ended(session, now)
            })
            .map(|(key, stored)| Session {
                id: name_of(&key).to_owned(),
                created: stored.value.created,
                seen: stored.value.seen,
                address: stored.value.address,
            })
            .collect();
        sessions.sort_by_key(|session| std::cmp::Reverse(session.created));
        Ok(sessions)
    }

    /// Ends one session; `of` limits it to that user's.
    ///
    /// # Errors
    /// [`AuthError::NotFound`], [`AuthError::Unavailable`].
    pub async fn end_session(
        &self,
        actor: &Actor,
        id: &str,
        of: Option<&str>,
    ) -> Result<(), AuthError> {
        let missing = || AuthError::NotFound("there is no session of this id".to_owned());
        let key = key("session", id).map_err(|_| missing())?;
        let stored = load::<SessionRecord>(self.store(), &key).await?;
        let session = stored.ok_or_else(missing)?.value;
        if of.is_some_and(|user| user != session.user) {
            return Err(missing());
        }
        let object = format!("user/{}", session.user);
        // Whatever was written meanwhile (its last use), it goes. The audit log has no id by which a cookie is found.
        let detail = json!({ "created": session.created, "address": session.address });
        let change = Change::default()
            .delete(&key)
            .audit(actor, "session.end", &object, detail);
        change.commit(self.store()).await.map(drop)
    }

    fn has_ended(&self, session: &SessionRecord, now: Timestamp) -> bool {
        let options = self.0.options;
        now >= session.seen + options.idle || now >= session.created + options.absolute
    }

    /// Deletes sessions that have ended, and API tokens that did more than a week ago: until then people see why a
    /// program is refused. To be called now and then.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`], [`AuthError::Damaged`].
    pub async fn sweep(&self, now: Timestamp) -> Result<u64, AuthError> {
        let mut swept = 0;
        for (key, stored) in all::<SessionRecord>(self.store(), "session").await? {
            if self.has_ended(&stored.value, now) {
                let change = Change::default()
                    .expect(&key, Some(stored.revision))
                    .delete(&key);
                match change.commit(self.store()).await {
                    Ok(_) => swept += 1,
                    Err(AuthError::Conflict(_)) => (),
                    Err(error) => return Err(error),
                }
            }
        }
        swept += self.sweep_tokens(now).await?;
        Ok(swept)
    }

    /// Writes what may be lost.
    pub(crate) fn in_background(&self, change: Change) {
        let auth = self.clone();
        tokio::spawn(async move {
            match change.commit(auth.store()).await {
                Ok(Revision(_)) | Err(AuthError::Conflict(_)) => (),
                Err(error) => {
                    log::warn!("the last use of a session or token is not stored: {error}")
                }
            }
        });
    }

    /// Writes down that a login was refused. A name that is no user's is not written: it may be a password.
    pub(crate) async fn refused(&self, user: Option<&str>, address: IpAddr, detail: Value) {
        metrics::counter!(LOGINS, "result" => "refused").increment(1);
        let name = user.unwrap_or("unknown");
        log::warn!(user = name, address:display = address; "login refused");
        let actor = Actor {
            name: name.to_owned(),
            role: Role::Viewer,
            origin: address.to_string(),
        };
        let object = format!("user/{name}");
        let change = Change::default().audit(&actor, "session.refused", &object, detail);
        if let Err(error) = change.commit(self.store()).await {
            log::warn!("a refused login is not in the audit log: {error}");
        }
    }
}

fn means(cookie: &Secret, must_change_password: bool) -> Means {
    Means::Session {
        digest: cookie.digest(),
        csrf: Secret::new(digest(&format!("csrf {}", cookie.reveal()))),
        must_change_password,
    }
}
