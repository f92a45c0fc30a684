//! Users whom an identity provider knows: it says who they are and what they may, at each login.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::records::{Change, Stored, key, load};
use super::users::{UserRecord, check_name};
use super::{Auth, AuthError, Login, Role};
use crate::core::Actor;

/// Who somebody is at an identity provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Subject {
    /// The provider.
    pub issuer: String,
    /// Whom it means: unlike a name, never another one.
    pub subject: String,
}

/// What an identity provider says of whoever logs in.
#[derive(Debug, Clone)]
pub struct External {
    /// Who it is.
    pub subject: Subject,
    /// The name that he goes by here.
    pub name: String,
    /// What he may; `None`: nothing.
    pub role: Option<Role>,
}

const NOBODY: &str = "the identity provider knows you, but gives you no role here: ask your admin";

impl Auth {
    /// Begins a session of a user whom the provider knows, who is made if this is the first one. Another role than before ends
    /// the other sessions of the user.
    ///
    /// # Errors
    /// [`AuthError::Forbidden`] without a role, if the user is kept out here, or if the name is another user's; [`AuthError::Unavailable`].
    pub async fn external_login(
        &self,
        who: External,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<Login, AuthError> {
        let detail = json!({ "issuer": who.subject.issuer, "subject": who.subject.subject });
        let name = who.name.to_ascii_lowercase();
        let admitted = self.admit(&name, &who, address, now).await;
        match admitted {
            Ok(user) => self.begin_session(&name, &user, address, now, detail).await,
            Err(error) => {
                if matches!(error, AuthError::Forbidden(_)) {
                    let known = check_name(&name).is_ok().then_some(&*name);
                    self.refused(known, address, detail).await;
                }
                Err(error)
            }
        }
    }

    /// The record of the user, as the provider has it now.
    async fn admit(
        &self,
        name: &str,
        who: &External,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<Stored<UserRecord>, AuthError> {
        let forbidden = |text: String| AuthError::Forbidden(text);
        let role = who.role.ok_or_else(|| forbidden(NOBODY.to_owned()))?;
        if check_name(name).is_err() {
            let text = format!(
                "the identity provider calls you {name:?}, which is no name here: set oidc.user_claim"
            );
            return Err(forbidden(text));
        }
        let key = key("user", name)?;
        let stored = load::<UserRecord>(self.store(), &key).await?;
        let actor = Actor {
            name: name.to_owned(),
            role,
            origin: address.to_string(),
        };
        let (revision, mut user, action) = match stored {
            None => {
                let user = UserRecord {
                    role,
                    disabled: false,
                    password: String::new(),
                    oidc: Some(who.subject.clone()),
                    one_time_until: None,
                    generation: 1,
                    created: now,
                    created_by: who.subject.issuer.clone(),
                    password_changed: None,
                };
                (None, user, "user.create")
            }
            Some(Stored { value, revision }) => {
                if value.oidc.as_ref() != Some(&who.subject) {
                    let text = format!("another user is called {name} here: ask your admin");
                    return Err(forbidden(text));
                }
                if value.disabled {
                    return Err(forbidden(format!("{name} is kept out here")));
                }
                if value.role == role {
                    return Ok(Stored { value, revision });
                }
                (Some(revision), value, "user.update")
            }
        };
        if revision.is_some() {
            user.role = role;
            user.generation += 1;
        }
        let detail = json!({ "role": role, "issuer": who.subject.issuer });
        let change = Change::default()
            .expect(&key, revision)
            .put(&key, &user)?
            .audit(&actor, action, key.as_str(), detail);
        let revision = change.commit(self.store()).await?;
        Ok(Stored {
            value: user,
            revision,
        })
    }
}
