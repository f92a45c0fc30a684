//! What keeps a store from growing for ever.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{MAX_PAGE, Revision, Store};
use crate::content::{ContentError, Contents, named_in};

/// Which revision was the newest when, so that the history of a store is kept for a time.
///
/// ```
/// use std::time::Duration;
/// use tokio::time::Instant;
/// use xdpgate_controller::store::Revision;
/// use xdpgate_controller::store::keeping::History;
///
/// let mut history = History::new(Duration::from_secs(600));
/// let start = Instant::now();
/// assert_eq!(history.seen(Revision(7), start), None);
/// assert_eq!(history.seen(Revision(9), start + Duration::from_secs(300)), None);
/// // 7 was the newest 600 seconds ago: what was before may go.
/// assert_eq!(history.seen(Revision(9), start + Duration::from_secs(600)), Some(Revision(7)));
/// ```
#[derive(Debug)]
pub struct History {
    keep: Duration,
    seen: VecDeque<(Instant, Revision)>,
}

impl History {
    /// Keeps what is younger than this.
    pub fn new(keep: Duration) -> Self {
        let seen = VecDeque::new();
        Self { keep, seen }
    }

    /// Takes note of the revision of now. Returns the one for [`Store::compact`], if there is a newer one than before.
    pub fn seen(&mut self, revision: Revision, now: Instant) -> Option<Revision> {
        self.seen.push_back((now, revision));
        let mut compact = None;
        while let Some((at, revision)) = self.seen.front()
            && now.duration_since(*at) >= self.keep
        {
            compact = Some(*revision);
            self.seen.pop_front();
        }
        compact
    }
}

/// Deletes the chunks that no record needs, and that were put longer ago than `older_than`: longer than
/// anybody takes from putting chunks to naming them in a record. Returns how many.
///
/// # Errors
/// [`ContentError::Store`]; chunks of records that could not be read are never deleted.
pub async fn sweep(store: &Arc<dyn Store>, older_than: Duration) -> Result<u64, ContentError> {
    let contents = Contents::new(Arc::clone(store), 0);
    let mut keep = HashSet::new();
    let (mut at, mut after) = (None, None);
    loop {
        let page = store.list("", after.as_ref(), MAX_PAGE, at).await?;
        at = Some(page.revision);
        after = page.records.last().map(|(key, _)| key.clone());
        for (_, record) in page.records {
            for content in named_in(&record.value) {
                contents.reach(&content, &mut keep).await?;
            }
        }
        if !page.more {
            break;
        }
    }
    Ok(store.sweep(&keep, older_than).await?)
}
