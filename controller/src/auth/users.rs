//! Users.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::external::Subject;
use super::records::{Change, TRIES, all, key, load};
use super::{Actor, Auth, AuthError, Role, Secret, Stored, password};
use crate::store::Key;

/// A user, without secrets.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct User {
    /// The name, for good.
    pub name: String,
    /// What the user may.
    #[schema(value_type = String, example = "operator")]
    pub role: Role,
    /// Whether the user is kept out.
    pub disabled: bool,
    /// Whether the user has to choose a password before anything else.
    pub must_change_password: bool,
    /// Who it is at the identity provider: then there is no password here, and the role is that of the last login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc: Option<Subject>,
    /// When the user was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// By whom.
    pub created_by: String,
    /// When the password was set.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub password_changed: Option<Timestamp>,
}

/// As it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct UserRecord {
    pub(crate) role: Role,
    pub(crate) disabled: bool,
    /// argon2id, in PHC form; empty for a user of an identity provider.
    pub(crate) password: String,
    /// Who it is at the identity provider, if one knows the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) oidc: Option<Subject>,
    /// A password that somebody else made up; good until this time, and only to choose another one.
    pub(crate) one_time_until: Option<Timestamp>,
    /// Sessions of another generation are dead.
    pub(crate) generation: u64,
    pub(crate) created: Timestamp,
    pub(crate) created_by: String,
    pub(crate) password_changed: Option<Timestamp>,
}

/// A user to be.
#[derive(Debug)]
pub struct NewUser {
    /// `[a-z0-9._-]{1,64}`.
    pub name: String,
    /// What the user may.
    pub role: Role,
    /// Without one a one-time password is made up.
    pub password: Option<Secret>,
}

/// What changes; `None` stays as it is.
#[derive(Debug, Default)]
pub struct UserPatch {
    /// What the user may.
    pub role: Option<Role>,
    /// Whether the user is kept out.
    pub disabled: Option<bool>,
}

impl Auth {
    /// All users by name.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`], [`AuthError::Damaged`].
    pub async fn users(&self) -> Result<Vec<Stored<User>>, AuthError> {
        let records = all::<UserRecord>(self.store(), "user").await?;
        Ok(records
            .into_iter()
            .map(|(key, s)| shown(name_of(&key), s))
            .collect())
    }

    /// One user.
    ///
    /// # Errors
    /// [`AuthError::NotFound`] and as above.
    pub async fn user(&self, name: &str) -> Result<Stored<User>, AuthError> {
        Ok(shown(name, self.user_record(name).await?))
    }

    /// Makes a user. Returns the one-time password, if none was given.
    ///
    /// # Errors
    /// [`AuthError::AlreadyExists`], [`AuthError::Invalid`], and as above.
    pub async fn create_user(
        &self,
        actor: &Actor,
        new: NewUser,
        now: Timestamp,
    ) -> Result<(Stored<User>, Option<Secret>), AuthError> {
        check_name(&new.name)?;
        let key = key("user", &new.name)?;
        let one_time = new.password.is_none().then(Secret::for_people);
        if let Some(chosen) = &new.password {
            password::check("password", &new.name, chosen)?;
        }
        let Some(password) = new.password.or_else(|| one_time.clone()) else {
            return Err(AuthError::invalid("password", "there is none"));
        };
        let record = UserRecord {
            role: new.role,
            disabled: false,
            password: self.0.passwords.hash(password).await?,
            oidc: None,
            one_time_until: one_time.is_some().then(|| now + self.0.options.one_time),
            generation: 1,
            created: now,
            created_by: actor.name.clone(),
            password_changed: one_time.is_none().then_some(now),
        };
        let change = Change::default()
            .expect(&key, None)
            .put(&key, &record)?
            .audit(
                actor,
                "user.create",
                key.as_str(),
                json!({ "role": record.role }),
            );
        let revision = change.commit(self.store()).await.map_err(|e| match e {
            AuthError::Conflict(_) => {
                AuthError::AlreadyExists(format!("there is a user {} already", new.name))
            }
            other => other,
        })?;
        let value = record;
        Ok((shown(&new.name, Stored { value, revision }), one_time))
    }

    /// Changes a user. Another role, or being kept out, ends the user's sessions.
    ///
    /// # Errors
    /// [`AuthError::Conflict`] if the version is not the expected one or if no admin would be left.
    pub async fn update_user(
        &self,
        actor: &Actor,
        name: &str,
        patch: &UserPatch,
        expect: Option<u64>,
    ) -> Result<Stored<User>, AuthError> {
        if patch.role.is_some() && self.user_record(name).await?.value.oidc.is_some() {
            let detail = "the identity provider says it: change it there";
            return Err(AuthError::invalid("role", detail));
        }
        self.change_user(name, expect, |key, record, change| {
            let before = (record.role, record.disabled);
            record.role = patch.role.unwrap_or(record.role);
            record.disabled = patch.disabled.unwrap_or(record.disabled);
            if (record.role, record.disabled) == before {
                return None;
            }
            record.generation += 1;
            let detail = json!({ "role": record.role, "disabled": record.disabled });
            Some(change.audit(actor, "user.update", key.as_str(), detail))
        })
        .await
    }

    /// Removes a user, whose sessions and API tokens die with it.
    ///
    /// # Errors
    /// As for [`update_user`](Self::update_user).
    pub async fn remove_user(
        &self,
        actor: &Actor,
        name: &str,
        expect: Option<u64>,
    ) -> Result<(), AuthError> {
        let key = key("user", name)?;
        let tokens = self.tokens(Some(name)).await?;
        let stored = self.user_record(name).await?;
        expected(stored.revision.0, expect)?;
        let mut change = Change::default()
            .expect(&key, Some(stored.revision))
            .delete(&key);
        if is_admin_of((stored.value.role, stored.value.disabled)) {
            change = self.with_another_admin(name, change).await?;
        }
        // Those beyond what one transaction takes are dead too: they have no owner.
        for token in tokens.iter().take(90) {
            change = change.delete(&super::records::key("api-token", &token.value.id)?);
        }
        let change = change.audit(actor, "user.remove", key.as_str(), json!({}));
        change.commit(self.store()).await.map(drop)
    }

    /// Sets one's own password, which takes the current one. Ends all sessions of the user.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] names the field; attempts are throttled as logins are.
    pub async fn change_password(
        &self,
        actor: &Actor,
        address: std::net::IpAddr,
        current: Secret,
        new: Secret,
        now: Timestamp,
    ) -> Result<(), AuthError> {
        let name = &actor.name;
        password::check("new_password", name, &new)?;
        let begun = self.0.throttle.begin(name, address, now);
        begun.map_err(AuthError::Throttled)?;
        let stored = self.user_record(name).await?;
        has_password(&stored.value)?;
        let same = current == new;
        let right = self
            .0
            .passwords
            .verify(current, Some(stored.value.password))
            .await?;
        if !right {
            let detail = "this is not your password now";
            return Err(AuthError::invalid("current_password", detail));
        }
        self.0.throttle.succeeded(name, address);
        if same {
            let detail = "the same as before: take another one";
            return Err(AuthError::invalid("new_password", detail));
        }
        let hash = self.0.passwords.hash(new).await?;
        self.change_user(name, Some(stored.revision.0), |key, record, change| {
            record.password.clone_from(&hash);
            record.one_time_until = None;
            record.password_changed = Some(now);
            record.generation += 1;
            Some(change.audit(actor, "user.password", key.as_str(), json!({})))
        })
        .await
        .map(drop)
    }

    /// Gives a user a one-time password in place of the old one. Ends all sessions of the user.
    ///
    /// # Errors
    /// As for [`update_user`](Self::update_user).
    pub async fn reset_password(
        &self,
        actor: &Actor,
        name: &str,
        now: Timestamp,
    ) -> Result<Secret, AuthError> {
        has_password(&self.user_record(name).await?.value)?;
        let one_time = Secret::for_people();
        let hash = self.0.passwords.hash(one_time.clone()).await?;
        self.change_user(name, None, |key, record, change| {
            record.password.clone_from(&hash);
            record.one_time_until = Some(now + self.0.options.one_time);
            record.generation += 1;
            Some(change.audit(actor, "user.reset_password", key.as_str(), json!({})))
        })
        .await?;
        Ok(one_time)
    }

    /// Ends all sessions of a user.
    ///
    /// # Errors
    /// As for [`update_user`](Self::update_user).
    pub async fn end_sessions(&self, actor: &Actor, name: &str) -> Result<(), AuthError> {
        self.change_user(name, None, |key, record, change| {
            record.generation += 1;
            Some(change.audit(actor, "user.end_sessions", key.as_str(), json!({})))
        })
        .await
        .map(drop)
    }

    pub(crate) async fn user_record(&self, name: &str) -> Result<Stored<UserRecord>, AuthError> {
        let missing = || AuthError::NotFound(format!("there is no user {name:?}"));
        let key = key("user", name).map_err(|_| missing())?;
        load(self.store(), &key).await?.ok_or_else(missing)
    }

    /// Reads, changes and writes, again when somebody else was faster; `None` of `edit` changes nothing.
    pub(crate) async fn change_user(
        &self,
        name: &str,
        expect: Option<u64>,
        edit: impl Fn(&Key, &mut UserRecord, Change) -> Option<Change>,
    ) -> Result<Stored<User>, AuthError> {
        let key = key("user", name)?;
        let mut tries = 0;
        loop {
            let mut stored = self.user_record(name).await?;
            expected(stored.revision.0, expect)?;
            let was_admin = is_admin_of((stored.value.role, stored.value.disabled));
            let change = Change::default().expect(&key, Some(stored.revision));
            let Some(mut change) = edit(&key, &mut stored.value, change) else {
                return Ok(shown(name, stored));
            };
            if was_admin && !is_admin_of((stored.value.role, stored.value.disabled)) {
                change = self.with_another_admin(name, change).await?;
            }
            match change.put(&key, &stored.value)?.commit(self.store()).await {
                Err(AuthError::Conflict(_)) if expect.is_none() && tries < TRIES => tries += 1,
                Err(error) => return Err(error),
                Ok(revision) => {
                    let value = stored.value;
                    return Ok(shown(name, Stored { value, revision }));
                }
            }
        }
    }

    /// Expects that another admin stays as it is, so that two who demote each other do not both succeed.
    async fn with_another_admin(&self, name: &str, change: Change) -> Result<Change, AuthError> {
        let users = all::<UserRecord>(self.store(), "user").await?;
        let another = users.iter().find(|(key, user)| {
            name_of(key) != name
                && is_admin_of((user.value.role, user.value.disabled))
                && user.value.one_time_until.is_none()
                && user.value.oidc.is_none()
        });
        let Some((key, user)) = another else {
            return Err(AuthError::Conflict(format!(
                "{name} is the last admin with a password: make another one first"
            )));
        };
        Ok(change.expect(key, Some(user.revision)))
    }
}

fn has_password(user: &UserRecord) -> Result<(), AuthError> {
    match user.oidc {
        None => Ok(()),
        Some(_) => Err(AuthError::Forbidden(
            "the password of this user is at the identity provider".to_owned(),
        )),
    }
}

/// Refuses another version than the expected one.
pub(crate) fn expected(revision: u64, expect: Option<u64>) -> Result<(), AuthError> {
    match expect {
        Some(expect) if expect != revision => Err(AuthError::Conflict(
            "it was changed meanwhile: read it again".to_owned(),
        )),
        _ => Ok(()),
    }
}

fn is_admin_of((role, disabled): (Role, bool)) -> bool {
    role == Role::Admin && !disabled
}

pub(crate) fn check_name(name: &str) -> Result<(), AuthError> {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(ok) {
        let detail = "a name has 1 to 64 of a-z, 0-9, '.', '_' and '-'";
        return Err(AuthError::invalid("name", detail));
    }
    Ok(())
}

pub(crate) fn name_of(key: &Key) -> &str {
    key.as_str().split_once('/').map_or("", |(_, name)| name)
}

fn shown(name: &str, stored: Stored<UserRecord>) -> Stored<User> {
    let user = stored.value;
    Stored {
        value: User {
            name: name.to_owned(),
            role: user.role,
            disabled: user.disabled,
            must_change_password: user.one_time_until.is_some(),
            oidc: user.oidc,
            created: user.created,
            created_by: user.created_by,
            password_changed: user.password_changed,
        },
        revision: stored.revision,
    }
}
