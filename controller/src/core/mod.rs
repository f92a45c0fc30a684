//! What the fleet shall have: commands that change it, and a view of it that follows the store.

pub mod audit;
mod command;
mod desired;
mod error;
#[doc(hidden)]
pub mod testing;
mod view;

use std::sync::Arc;

use tokio::sync::watch;

pub use command::{
    Actor, Command, Effect, EffectKind, GroupContent, NodePatch, Options, Outcome, Patch,
    ProfilePlan, SetContent, SetPatch, SettingsPatch,
};
pub use desired::Desired;
pub use error::{CommandError, ErrorKind};
pub use view::{Things, View};

use crate::store::{Store, StoreError};

/// What the fleet shall have. A copy is the same one.
#[derive(Debug, Clone)]
pub struct Core(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<dyn Store>,
    views: watch::Sender<Arc<View>>,
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
        let (views, _) = watch::channel(Arc::new(view));
        Ok(Self(Arc::new(Inner { store, views })))
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

    /// Makes changes, as one transaction. When it returns, the [view](Core::view) has them.
    ///
    /// # Errors
    /// The first command that was refused, and nothing is changed; with `partial` those are in the outcome.
    pub async fn execute(
        &self,
        actor: &Actor,
        commands: Vec<Command>,
        options: &Options,
    ) -> Result<Outcome, CommandError> {
        let _ = (actor, commands, options);
        Err(CommandError::new(
            ErrorKind::Unavailable,
            "",
            "this version takes no commands yet",
        ))
    }
}
