//! What each node shall have, of one view, so that a session finds it by a few look-ups.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::core::{Core, Desired, Profile, Things, View};
use crate::domain::{NodeId, NodeRecord};

/// What all nodes shall have as of one view. Maps of nodes are those of the view, so that a change costs what its profiles
/// cost, however many nodes there are.
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
    /// Registered nodes.
    pub nodes: Things<NodeRecord>,
    /// The profile of each.
    pub profiles: Arc<HashMap<NodeId, Arc<Profile>>>,
    /// By profile; without those for which nothing could be made yet.
    pub desired: HashMap<Arc<Profile>, Arc<Desired>>,
}

/// A registered node and what it shall have.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The node as the store has it.
    pub record: &'a Arc<NodeRecord>,
    /// The same for all nodes of one profile; `None` if nothing could be made for it yet.
    pub desired: Option<&'a Arc<Desired>>,
}

impl Targets {
    /// Of a view that came at this time. It looks at profiles, not at nodes.
    pub fn new(view: Arc<View>, at: Instant) -> Self {
        let desired = view.desired_of_profiles();
        let desired = desired.map(|(profile, desired)| (Arc::clone(profile), Arc::clone(desired)));
        Self {
            epoch: view.epoch().into(),
            revision: view.revision().0,
            at: Some(at),
            nodes: Arc::clone(view.all_nodes()),
            profiles: Arc::clone(view.profiles()),
            desired: desired.collect(),
            view,
        }
    }

    /// What is known of a node; `None` if it is not registered.
    pub fn get(&self, node: &NodeId) -> Option<Target<'_>> {
        Some(self.entry(node)?.1)
    }

    /// As [`Targets::get`], and the node as it is kept here.
    pub(super) fn entry(&self, node: &NodeId) -> Option<(&NodeId, Target<'_>)> {
        let (node, record) = self.nodes.get_key_value(node)?;
        Some((node, self.target(node, record)))
    }

    /// All registered nodes.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, Target<'_>)> {
        let nodes = self.nodes.iter();
        nodes.map(|(node, record)| (node, self.target(node, record)))
    }

    fn target<'a>(&'a self, node: &NodeId, record: &'a Arc<NodeRecord>) -> Target<'a> {
        let profile = self.profiles.get(node);
        Target {
            record,
            desired: profile.and_then(|profile| self.desired.get(profile)),
        }
    }
}

/// Follows the views of a core, within a tokio runtime. It ends when the core does, or when nobody has the receiver any more.
pub fn targets(core: &Core) -> watch::Receiver<Arc<Targets>> {
    let mut views = core.watch();
    let first = views.borrow_and_update().clone();
    let (sender, receiver) = watch::channel(Arc::new(Targets::new(first, Instant::now())));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = sender.closed() => return,
                changed = views.changed() => if changed.is_err() { return },
            }
            let view = views.borrow_and_update().clone();
            sender.send_replace(Arc::new(Targets::new(view, Instant::now())));
        }
    });
    receiver
}
