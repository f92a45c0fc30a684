//! Answers to requests with idempotency keys are kept for a day.

use jiff::{SignedDuration, Timestamp};

use super::records::{DONE, Done, decode};
use super::{CommandError, Core};
use crate::store::{CommitError, Key, MAX_OPERATIONS, Transaction};

/// How long the answer to a request with an idempotency key is known.
const ANSWERS_LAST: SignedDuration = SignedDuration::from_hours(24);

impl Core {
    /// Deletes the answers to requests with idempotency keys that are older than a day. Returns how many; to be called now
    /// and then.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn forget_answers(&self, now: Timestamp) -> Result<usize, CommandError> {
        let mut after: Option<Key> = None;
        let mut forgotten = 0;
        loop {
            let page = self
                .0
                .store
                .list(DONE, after.as_ref(), MAX_OPERATIONS / 2, None)
                .await?;
            after = page.records.last().map(|(key, _)| key.clone());
            let mut transaction = Transaction::default();
            for (key, record) in page.records {
                let done: Result<Done, _> = decode(&record.value);
                let old = |done: Done| now.duration_since(done.at) >= ANSWERS_LAST;
                if done.is_ok_and(old) {
                    transaction
                        .expect
                        .push((key.clone(), Some(record.revision)));
                    transaction.write.push((key, None));
                }
            }
            let count = transaction.write.len();
            if count > 0 {
                match self.0.store.commit(transaction).await {
                    Ok(_) => forgotten += count,
                    // Another controller does the same.
                    Err(CommitError::Conflict(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if !page.more {
                return Ok(forgotten);
            }
        }
    }
}
