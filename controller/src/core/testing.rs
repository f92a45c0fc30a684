//! For tests of what reads views: a core that shows what it is given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;

use super::effective::Effectives;
use super::{Core, Inner, View};
use crate::domain::{Group, Mode, Name, NodeRecord, PolicyState, SetState};
use crate::store::{Revision, Store};

/// What is in a view.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "as the methods of View")]
pub struct Parts {
    pub revision: u64,
    pub sequence: u64,
    pub policies: Vec<PolicyState>,
    pub sets: Vec<SetState>,
    pub groups: Vec<Group>,
    pub nodes: Vec<NodeRecord>,
    pub mode: Option<Mode>,
}

impl Parts {
    /// The view.
    pub fn view(self, epoch: &str) -> Arc<View> {
        fn named<T>(all: Vec<T>, name: impl Fn(&T) -> &Name) -> Arc<BTreeMap<Name, Arc<T>>> {
            let named = all
                .into_iter()
                .map(|one| (name(&one).clone(), Arc::new(one)));
            Arc::new(named.collect())
        }
        let mut view = View {
            epoch: epoch.into(),
            revision: Revision(self.revision),
            sequence: Revision(self.sequence),
            policies: named(self.policies, |policy| &policy.name),
            sets: named(self.sets, |set| &set.name),
            groups: named(self.groups, |group| &group.name),
            nodes: named(self.nodes, |node| &node.id),
            mode: self.mode,
            ..View::default()
        };
        view.settle(&View::default(), &BTreeSet::new(), &Effectives::default());
        Arc::new(view)
    }
}

/// A core that shows the view that was sent last. It takes no commands.
pub fn core(store: Arc<dyn Store>, view: Arc<View>) -> (Core, watch::Sender<Arc<View>>) {
    let core = Core(Arc::new(Inner::new(store, view)));
    let views = core.0.views.clone();
    (core, views)
}
