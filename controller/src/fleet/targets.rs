//! What each node shall have, of one view, so that a session finds it by one look-up.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::core::{Core, Desired, View};
use crate::domain::{NodeId, NodeRecord};

/// What all nodes shall have as of one view.
#[derive(Debug, Clone, Default)]
pub struct Targets {
    /// The store.
    pub epoch: Arc<str>,
    /// The view.
    pub view: Arc<View>,
    /// The last transaction that is in it.
    pub revision: u64,
    /// When this controller had the view; absent if nobody says.
    pub at: Option<Instant>,
    /// By node.
    pub nodes: HashMap<NodeId, Target>,
}

/// A registered node and what it shall have.
#[derive(Debug, Clone)]
pub struct Target {
    /// The node as the store has it.
    pub record: Arc<NodeRecord>,
    /// The same for all nodes of one profile; `None` if nothing could be made for it yet.
    pub desired: Option<Arc<Desired>>,
}

impl Targets {
    /// Of a view. Not for async threads.
    pub fn new(view: Arc<View>, at: Instant) -> Self {
        let nodes = view.nodes().iter().map(|(id, record)| {
            let target = Target {
                record: record.clone(),
                desired: view.desired(id),
            };
            (id.clone(), target)
        });
        Self {
            epoch: view.epoch().into(),
            revision: view.revision().0,
            at: Some(at),
            nodes: nodes.collect(),
            view,
        }
    }
}

/// Follows the views of a core, within a tokio runtime. While one is made ready, those that come are passed over but for
/// the newest. It ends when the core does, or when nobody has the receiver any more.
pub async fn targets(core: &Core) -> watch::Receiver<Arc<Targets>> {
    let mut views = core.watch();
    let ready = |view: Arc<View>| {
        let at = Instant::now();
        tokio::task::spawn_blocking(move || Arc::new(Targets::new(view, at)))
    };
    let first = views.borrow_and_update().clone();
    let epoch = first.epoch().into();
    let empty = || {
        Arc::new(Targets {
            epoch,
            ..Targets::default()
        })
    };
    let (sender, receiver) = watch::channel(ready(first).await.unwrap_or_else(|_| empty()));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = sender.closed() => return,
                changed = views.changed() => if changed.is_err() { return },
            }
            let view = views.borrow_and_update().clone();
            match ready(view).await {
                Ok(targets) => {
                    sender.send_replace(targets);
                }
                Err(error) => log::error!("what nodes shall have could not be made: {error}"),
            }
        }
    });
    receiver
}
