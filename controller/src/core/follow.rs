//! The view follows the store.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::task::spawn_blocking;

use super::load::{self, Changes, LoadError};
use super::{Inner, View};
use crate::store::{Batch, Revision, StoreError, Watch};

/// How many transactions are shown as one, when many come at once.
const TOGETHER: usize = 500;
/// The pauses between tries while the store does not answer.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// Lists, watches and publishes, until the last [`super::Core`] is gone.
pub(super) async fn follow(inner: Weak<Inner>, mut watch: Option<Watch>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let failed = match &mut watch {
            Some(watch) => match next(watch).await {
                Ok((changes, revision)) => {
                    let Some(inner) = inner.upgrade() else {
                        return;
                    };
                    inner.advance(changes, revision).await.err()
                }
                Err(error) => Some(error),
            },
            None => {
                let Some(inner) = inner.upgrade() else {
                    return;
                };
                match inner.again().await {
                    Ok(again) => {
                        watch = Some(again);
                        None
                    }
                    Err(error) => Some(error),
                }
            }
        };
        let Some(error) = failed else {
            pause = FIRST_PAUSE;
            continue;
        };
        watch = None;
        if inner.strong_count() == 0 {
            return;
        }
        if !matches!(error, StoreError::Compacted(_)) {
            log::warn!(error:% = error; "the view of the fleet stands still until the store answers");
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(LAST_PAUSE);
        }
    }
}

/// The next transactions: one, and those that are there already.
async fn next(watch: &mut Watch) -> Result<(Changes, Revision), StoreError> {
    let ended = || StoreError::Unavailable("it ended the watch".to_owned());
    let mut changes = Changes::new();
    let mut revision = Revision::default();
    let mut take = |batch: Batch| {
        revision = batch.revision;
        for (key, value) in batch.changes {
            if load::is_of_views(&key) {
                changes.insert(key, (value, batch.revision));
            }
        }
    };
    take(watch.next().await.ok_or_else(ended)??);
    for _ in 0..TOGETHER {
        match watch.next().now_or_never() {
            Some(Some(Ok(batch))) => take(batch),
            // An error comes again, or as the end.
            _ => break,
        }
    }
    Ok((changes, revision))
}

impl Inner {
    /// Lists, publishes and watches anew.
    pub(super) async fn again(&self) -> Result<Watch, StoreError> {
        let view = self.views.borrow().clone();
        let (changes, revision) = load::list(&self.store, &view).await?;
        self.advance(changes, revision).await?;
        self.store.watch(revision).await
    }

    /// Publishes the view after changes.
    async fn advance(&self, changes: Changes, revision: Revision) -> Result<(), StoreError> {
        let before = self.views.borrow().clone();
        let is_news = !changes.is_empty();
        let view = match self.after(&before, changes, revision).await {
            Ok(view) => view,
            Err(LoadError::Store(error)) => return Err(error),
            Err(LoadError::Record(error)) => {
                log::error!(error:% = error; "this version does not understand what another one stored: upgrade it");
                return Err(StoreError::Damaged(error.to_string()));
            }
        };
        self.views.send_if_modified(|shown| {
            *shown = view;
            is_news
        });
        self.seen.send_replace(revision);
        Ok(())
    }

    /// The view after changes.
    pub(super) async fn after(
        &self,
        before: &Arc<View>,
        changes: Changes,
        revision: Revision,
    ) -> Result<Arc<View>, LoadError> {
        if changes.is_empty() {
            let mut view = View::clone(before);
            view.revision = revision;
            return Ok(Arc::new(view));
        }
        let (mut view, nodes) =
            load::apply(&self.store, &self.contents, before, changes, revision).await?;
        let (before, effectives) = (Arc::clone(before), Arc::clone(&self.effectives));
        let settled = spawn_blocking(move || {
            view.settle(&before, &nodes, &effectives);
            for wanted in view.wanted.values() {
                if let Some(fault) = &wanted.fault {
                    log::error!(error:% = fault; "nodes stay at their last state");
                }
            }
            Arc::new(view)
        });
        settled
            .await
            .map_err(|error| LoadError::Store(StoreError::Unavailable(error.to_string())))
    }
}
