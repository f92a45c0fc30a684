//! Which nodes are at other controllers.
//!
//! Each session that begins is a claim, which controllers tell each other: the node, and a number that is higher than that of its
//! claim before. So of two sessions of a node all know which is the newer, whatever their clocks say. Who hears of a
//! newer one forgets its own: a node is counted once.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::broadcast;
use tonic::Status;

use super::node::{About, Held, Link, Node};
use super::session::Control;
use super::{Fleet, Inner, NodeId, Target, Targets};

/// So many claims wait for a controller that reads slowly. It begins anew after that.
const WAITING: usize = 16 << 10;
/// A claim of a node that is not registered is forgotten after this: the view of the fleet may be behind.
const UNREGISTERED: Duration = Duration::from_secs(60);

/// A session has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Of which node.
    pub node: NodeId,
    /// The time in milliseconds since 1970, or one more than in the claim before.
    pub at: u64,
}

/// The controllers that are asked for their nodes.
#[derive(Debug, Clone, Default)]
pub struct Others {
    /// They have answered, so their nodes are left out here.
    pub answered: HashSet<Arc<str>>,
    /// They have not, so of their nodes it is not known how they are.
    pub silent: HashSet<Arc<str>>,
}

/// Which nodes a sum or a list is of.
#[derive(Debug, Clone)]
pub enum Part {
    /// Those that have their session here, or had the last one here.
    Own,
    /// All but those of controllers that have answered for theirs.
    Rest(Others),
}

/// Where a node is.
pub(super) enum Place {
    Here(Arc<Node>),
    /// At a controller that answers for it.
    Answered,
    /// At a controller that does not answer.
    Silent,
    /// It was at a controller that is gone, and has not come to another one.
    Gone,
    /// It was never anywhere, as far as is known.
    Nowhere,
}

struct Known {
    at: u64,
    /// The name of the controller; empty if that one does not know it any more.
    by: Arc<str>,
}

pub(super) struct Elsewhere {
    claims: RwLock<HashMap<NodeId, Known>>,
    news: broadcast::Sender<Claim>,
}

impl Default for Elsewhere {
    fn default() -> Self {
        Self {
            claims: RwLock::default(),
            news: broadcast::Sender::new(WAITING),
        }
    }
}

impl Elsewhere {
    fn write(&self) -> RwLockWriteGuard<'_, HashMap<NodeId, Known>> {
        self.claims.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn by(&self, node: &NodeId) -> Option<Arc<str>> {
        let claims = self.claims.read().unwrap_or_else(PoisonError::into_inner);
        claims.get(node).map(|known| Arc::clone(&known.by))
    }

    /// Forgets nodes that are registered no more.
    pub(super) fn forget(&self, targets: &Targets) {
        let least = now().saturating_sub(UNREGISTERED.as_millis() as u64);
        self.write()
            .retain(|node, known| targets.nodes.contains_key(node) || known.at > least);
    }
}

fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}

fn over() -> Control {
    Control::End(Status::aborted("another session of this node has begun"))
}

impl Default for Part {
    fn default() -> Self {
        Self::Rest(Others::default())
    }
}

impl Inner {
    /// A session of a node begins here.
    pub(super) fn begin(&self, node: &Arc<Node>, link: Link, about: About, held: Held) {
        // As long as this is held, nothing is heard of it.
        let mut claims = self.elsewhere.write();
        let other = claims.remove(&node.id);
        let mut inner = node.lock();
        let last = other.as_ref().map_or(0, |known| known.at).max(inner.claim);
        inner.claim = now().max(last + 1);
        // What it has counted was counted there.
        inner.moved = other.is_some();
        let before = inner.open(link, about, held);
        let claim = Claim {
            node: node.id.clone(),
            at: inner.claim,
        };
        drop(inner);
        // It may have been forgotten since it dialled.
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        let there = nodes.insert(node.id.clone(), Arc::clone(node));
        drop(nodes);
        let there = there.filter(|there| !Arc::ptr_eq(there, node));
        let there = there.and_then(|there| there.lock().link.take());
        for link in before.into_iter().chain(there) {
            let _ = link.control.try_send(over());
        }
        // Nobody needs to listen.
        let _ = self.elsewhere.news.send(claim);
    }

    /// Another controller has a session of a node.
    fn hear(&self, by: &Arc<str>, claim: Claim) {
        let mut claims = self.elsewhere.write();
        if let Some(node) = self.known(&claim.node) {
            let mut inner = node.lock();
            if inner.claim >= claim.at {
                return;
            }
            if let Some(link) = inner.link.take() {
                let _ = link.control.try_send(over());
            }
            let has_begun = inner.claim > 0;
            drop(inner);
            if has_begun {
                let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
                nodes.remove(&claim.node);
            }
        }
        let known = claims.get(&claim.node);
        if known.is_none_or(|known| known.at <= claim.at) {
            let by = Arc::clone(by);
            claims.insert(claim.node, Known { at: claim.at, by });
        }
    }

    /// The nodes that have their session here, or had the last one here.
    pub(super) fn own(&self) -> Vec<Arc<Node>> {
        let mut own = self.all();
        own.retain(|node| node.lock().claim > 0);
        own
    }

    /// The nodes of a part, but for those that nothing is to be told of.
    pub(super) fn nodes_of<'a>(
        &'a self,
        targets: &'a Targets,
        part: &'a Part,
    ) -> Box<dyn Iterator<Item = (&'a NodeId, Target<'a>, Place)> + 'a> {
        match part {
            Part::Own => Box::new(self.own().into_iter().filter_map(|node| {
                let (id, target) = targets.entry(&node.id)?;
                Some((id, target, Place::Here(node)))
            })),
            Part::Rest(others) => {
                let place = |(id, target)| (id, target, self.place(id, others));
                Box::new(targets.iter().map(place))
            }
        }
    }

    pub(super) fn place(&self, node: &NodeId, others: &Others) -> Place {
        if let Some(known) = self.known(node)
            && known.lock().claim > 0
        {
            return Place::Here(known);
        }
        match self.elsewhere.by(node) {
            None => Place::Nowhere,
            Some(by) if others.answered.contains(&by) => Place::Answered,
            Some(by) if others.silent.contains(&by) => Place::Silent,
            Some(_) => Place::Gone,
        }
    }
}

impl Fleet {
    /// The sessions that begin from now on, and one claim for each node that is known here already.
    pub fn claims(&self) -> (Vec<Claim>, broadcast::Receiver<Claim>) {
        let news = self.0.elsewhere.news.subscribe();
        let own = self.0.own().into_iter().map(|node| Claim {
            at: node.lock().claim,
            node: node.id.clone(),
        });
        (own.collect(), news)
    }

    /// Another controller has begun these sessions.
    pub fn hear(&self, controller: &Arc<str>, claims: Vec<Claim>) {
        for claim in claims {
            self.0.hear(controller, claim);
        }
    }

    /// These are all nodes that another controller has: what else it had before is nowhere.
    pub fn hear_all(&self, controller: &Arc<str>, claims: Vec<Claim>) {
        let named: HashSet<NodeId> = claims.iter().map(|claim| claim.node.clone()).collect();
        self.hear(controller, claims);
        let nobody: Arc<str> = "".into();
        for (node, known) in self.0.elsewhere.write().iter_mut() {
            if known.by == *controller && !named.contains(node) {
                known.by = Arc::clone(&nobody);
            }
        }
    }

    /// The name of the controller that a node is at; `None` if that is this one, or if it is nowhere.
    pub fn whereabouts(&self, node: &NodeId) -> Option<Arc<str>> {
        let here = self.0.known(node);
        if here.is_some_and(|here| here.lock().claim > 0) {
            return None;
        }
        self.0.elsewhere.by(node).filter(|by| !by.is_empty())
    }
}
