//! The first admin. There is no default password.

use jiff::Timestamp;
use serde_json::json;

use super::records::{Change, all, key};
use super::users::UserRecord;
use super::{Actor, Auth, AuthError, Role, Secret, password};

/// The name of the first user.
const ADMIN: &str = "admin";

/// What became of the first admin at a start.
#[derive(Debug)]
#[non_exhaustive]
pub enum FirstAdmin {
    /// Somebody has chosen a password before: nothing was done.
    Exists,
    /// `admin` has the password that was given.
    Given,
    /// `admin` has this one-time password, to be printed once for whoever sets the fleet up. Until it is used, each
    /// start makes another one and the one before is dead.
    OneTime(Secret),
}

impl Auth {
    /// Sees to it that somebody can log in for the first time. `given` is a password that was
    /// configured, as by a file.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] if the given password is no good; [`AuthError::Unavailable`].
    pub async fn first_admin(
        &self,
        given: Option<Secret>,
        now: Timestamp,
    ) -> Result<FirstAdmin, AuthError> {
        let users = all::<UserRecord>(self.store(), "user").await?;
        let fresh =
            |user: &UserRecord| user.one_time_until.is_some() && user.password_changed.is_none();
        let key = key("user", ADMIN)?;
        let before = match &users[..] {
            [] => None,
            [(only, user)] if *only == key && fresh(&user.value) => Some(user),
            _ => return Ok(FirstAdmin::Exists),
        };
        if let Some(given) = &given {
            password::check("password", ADMIN, given)?;
        }
        let one_time = given.is_none().then(Secret::for_people);
        let Some(password) = given.or_else(|| one_time.clone()) else {
            return Ok(FirstAdmin::Exists);
        };
        let actor = Actor {
            name: "setup".to_owned(),
            role: Role::Admin,
            origin: "local".to_owned(),
        };
        let record = UserRecord {
            role: Role::Admin,
            disabled: false,
            password: self.0.passwords.hash(password).await?,
            oidc: None,
            one_time_until: one_time.is_some().then(|| now + self.0.options.one_time),
            generation: before.map_or(1, |user| user.value.generation + 1),
            created: before.map_or(now, |user| user.value.created),
            created_by: actor.name.clone(),
            password_changed: one_time.is_none().then_some(now),
        };
        let change = Change::default()
            .expect(&key, before.map(|user| user.revision))
            .put(&key, &record)?
            .audit(
                &actor,
                "user.create",
                key.as_str(),
                json!({ "role": record.role }),
            );
        match change.commit(self.store()).await {
            Ok(_) => Ok(one_time.map_or(FirstAdmin::Given, FirstAdmin::OneTime)),
            // Another controller of the fleet was faster, and has told its password.
            Err(AuthError::Conflict(_)) => Ok(FirstAdmin::Exists),
            Err(error) => Err(error),
        }
    }
}
