//! Passwords: argon2id, a few at a time, away from the threads that answer.

use std::sync::{Arc, LazyLock};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use super::{AuthError, Secret};

/// The shortest password.
pub const MIN_PASSWORD: usize = 12;
/// The longest, in bytes.
pub const MAX_PASSWORD: usize = 256;
/// How many are worked on at once: each takes 19 MiB.
const AT_ONCE: usize = 2;
/// How many wait; more are told to come again.
const WAITING: usize = 64;

/// What is checked when there is no such user, so that it takes as long.
static NOBODY: LazyLock<Option<String>> = LazyLock::new(|| {
    hash(&Secret::random())
        .inspect_err(|e| log::error!("argon2: {e}"))
        .ok()
});

/// The workers.
#[derive(Debug)]
pub(crate) struct Passwords {
    working: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Default for Passwords {
    fn default() -> Self {
        Self {
            working: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Semaphore::new(AT_ONCE + WAITING),
        }
    }
}

impl Passwords {
    /// What is stored of a password.
    pub(crate) async fn hash(&self, password: Secret) -> Result<String, AuthError> {
        self.work(move || hash(&password)).await?
    }

    /// Whether the password is that of the hash. Without a hash the answer is no, after the same time.
    pub(crate) async fn verify(
        &self,
        password: Secret,
        stored: Option<String>,
    ) -> Result<bool, AuthError> {
        self.work(move || {
            let known = stored.is_some();
            let Some(stored) = stored.or_else(|| NOBODY.clone()) else {
                return Ok(false);
            };
            let parsed = PasswordHash::new(&stored).map_err(|e| {
                AuthError::Damaged(format!("the hash of a password is damaged: {e}"))
            })?;
            let right = argon2()?
                .verify_password(password.reveal().as_bytes(), &parsed)
                .is_ok();
            Ok(known && right)
        })
        .await?
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AuthError> {
        let _waiting = self.waiting.try_acquire().map_err(|_| AuthError::Busy)?;
        let working = Arc::clone(&self.working);
        let permit = working.acquire_owned().await.map_err(|_| AuthError::Busy)?;
        // The permit goes with the work: a caller that went away does not make room for one more.
        let task = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        task.await.map_err(|e| AuthError::Damaged(e.to_string()))
    }
}

/// Refuses passwords that are no good.
pub(crate) fn check(field: &str, user: &str, password: &Secret) -> Result<(), AuthError> {
    let text = password.reveal();
    if text.chars().count() < MIN_PASSWORD {
        let detail = format!("shorter than {MIN_PASSWORD} characters: take a longer one");
        return Err(AuthError::invalid(field, detail));
    }
    if text.len() > MAX_PASSWORD {
        let detail = format!("longer than {MAX_PASSWORD} bytes: take a shorter one");
        return Err(AuthError::invalid(field, detail));
    }
    let mut seen: Vec<char> = text.chars().collect();
    seen.sort_unstable();
    seen.dedup();
    if seen.len() < 5 || text.to_lowercase().contains(user) && text.len() < user.len() + 8 {
        return Err(AuthError::invalid(
            field,
            "too easy to guess: take another one",
        ));
    }
    Ok(())
}

/// 19 MiB, two passes, one lane: what OWASP's password storage page asks of argon2id at least.
fn argon2() -> Result<Argon2<'static>, AuthError> {
    let params =
        Params::new(19 * 1024, 2, 1, None).map_err(|e| AuthError::Damaged(e.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &Secret) -> Result<String, AuthError> {
    argon2()?
        .hash_password(password.reveal().as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|e| AuthError::Damaged(format!("a password cannot be hashed: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_password_is_known_again_and_no_more_than_a_few_wait() {
        let passwords = Arc::new(Passwords::default());
        let hash = passwords
            .hash(Secret::new("correct horse battery"))
            .await
            .unwrap();
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        let verify = |text: &str, hash: Option<&str>| {
            let (text, hash) = (Secret::new(text), hash.map(str::to_owned));
            let passwords = Arc::clone(&passwords);
            async move { passwords.verify(text, hash).await }
        };
        assert!(verify("correct horse battery", Some(&hash)).await.unwrap());
        assert!(!verify("correct horse batterz", Some(&hash)).await.unwrap());
        assert!(!verify("correct horse battery", None).await.unwrap());

        let many = (0..AT_ONCE + WAITING + 10).map(|_| verify("wrong", Some(&hash)));
        let answers = futures_util::future::join_all(many).await;
        let busy = answers
            .iter()
            .filter(|a| **a == Err(AuthError::Busy))
            .count();
        assert!(busy >= 10, "{busy}");
    }

    #[test]
    fn passwords_that_are_no_good_are_refused() {
        for bad in ["short", "aaaaaaaaaaaaaaaa", "margaret-1234"] {
            assert!(
                check("password", "margaret", &Secret::new(bad)).is_err(),
                "{bad}"
            );
        }
        assert!(check("password", "margaret", &Secret::new("x".repeat(257))).is_err());
        check(
            "password",
            "margaret",
            &Secret::new("correct horse battery"),
        )
        .unwrap();
    }
}
