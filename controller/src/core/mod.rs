//! What the fleet shall have: commands that change it, and a view of it that follows the store.

mod answers;
pub mod audit;
mod command;
mod contents;
mod desired;
mod draft;
mod effective;
mod error;
mod execute;
mod follow;
mod history;
mod load;
mod past;
mod profile;
mod records;
mod retention;
mod search;
#[doc(hidden)]
pub mod testing;
mod view;

use std::sync::{Arc, OnceLock};

use tokio::sync::{Mutex, watch};
use tokio::task::AbortHandle;

pub use command::{
    Actor, Command, Effect, EffectKind, GroupContent, NodePatch, Options, Outcome, Patch,
    PlanChoice, ProfilePlan, SetContent, SetPatch, SettingsPatch,
};
pub use desired::Desired;
pub use draft::{MAX_ENTRIES, MAX_RULES};
pub use error::{CommandError, ErrorKind};
pub use execute::MAX_COMMANDS;
pub use history::{FieldDiff, PolicyDiff, RuleDiff, SetDiff, VersionInfo};
pub use profile::{Hold, Profile, held_version};
pub use search::{
    ActionKind, EntryFilter, Found, FoundEntry, FoundRule, RuleCursor, RuleFilter, RuleOrder,
    Touching,
};
pub use view::{Things, View, Work};

use crate::content::Contents;
use crate::store::{Revision, Store, StoreError, Watch};
use effective::Effectives;
use load::LoadError;

/// Bytes of chunks that are kept in memory.
const CACHE: usize = 32 << 20;

/// What the fleet shall have. A copy is the same one.
#[derive(Debug, Clone)]
pub struct Core(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<dyn Store>,
    contents: Contents,
    effectives: Arc<Effectives>,
    views: watch::Sender<Arc<View>>,
    /// The last transaction that the view has, also of those that it has nothing of.
    seen: watch::Sender<Revision>,
    /// Whose turn it is to change something.
    turn: Mutex<()>,
    follower: OnceLock<AbortHandle>,
}

/// Why the core cannot begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record is not what this version understands.
    #[error("record {key}: {reason}")]
    Record {
        /// Its key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Core {
    /// Reads all that is stored, and follows what comes.
    ///
    /// # Errors
    /// The store does not answer, or has a record that this version does not understand.
    pub async fn open(store: Arc<dyn Store>) -> Result<Self, OpenError> {
        let view = View {
            epoch: store.epoch().into(),
            ..View::default()
        };
        let inner = Arc::new(Inner::new(store, Arc::new(view)));
        let watch = inner.first().await?;
        let follower = tokio::spawn(follow::follow(Arc::downgrade(&inner), Some(watch)));
        // Nobody else sets it.
        let _ = inner.follower.set(follower.abort_handle());
        Ok(Self(inner))
    }

    /// The newest view.
    pub fn view(&self) -> Arc<View> {
        self.0.views.borrow().clone()
    }

    /// Every change of the view; who is slow sees the newest only.
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.0.views.subscribe()
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }
}

impl Inner {
    fn new(store: Arc<dyn Store>, view: Arc<View>) -> Self {
        Self {
            contents: Contents::new(Arc::clone(&store), CACHE),
            store,
            effectives: Arc::default(),
            seen: watch::Sender::new(view.revision),
            views: watch::Sender::new(view),
            turn: Mutex::new(()),
            follower: OnceLock::new(),
        }
    }

    /// The first view, and what comes after it.
    async fn first(&self) -> Result<Watch, OpenError> {
        let view = self.views.borrow().clone();
        let (changes, revision) = load::list(&self.store, &view).await?;
        let view = match self.after(&view, changes, revision).await {
            Ok(view) => view,
            Err(LoadError::Store(error)) => return Err(error.into()),
            Err(LoadError::Record(error)) => return Err(error),
        };
        self.views.send_replace(view);
        self.seen.send_replace(revision);
        Ok(self.store.watch(revision).await?)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(follower) = self.follower.get() {
            follower.abort();
        }
    }
}
