//! Nodes by what is said and known of them: filtered, sorted, one page of them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::elsewhere::{Part, Place};
use super::stats::Delivery;
use super::{Fleet, Inner, Node, NodeId, State, Targets};
use crate::core::View;
use crate::domain::{Group, Labels, Name, NodeRecord, Selector};

/// Which nodes, and in which order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Text in the id, name or a label, in upper or lower case.
    pub text: Option<String>,
    /// By their labels.
    pub selector: Option<Selector>,
    /// Those of a group.
    pub group: Option<Name>,
    /// Those in a state.
    pub state: Option<String>,
    /// Those whose daemon has this version.
    pub version: Option<String>,
    /// Those that are in maintenance, or not.
    pub maintenance: Option<bool>,
    /// By name, then by id; otherwise by id.
    pub by_name: bool,
    /// The other way round.
    pub descends: bool,
    /// Those that come after this place.
    pub after: Option<Spot>,
    /// So many at most.
    pub limit: usize,
}

/// A place in the order: the name, empty where it does not count, and the id.
pub type Spot = (String, String);

/// One page.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// In order; each with its place, its state and what became of what it shall have.
    pub nodes: Vec<(Spot, Value)>,
    /// Whether there are more after these.
    pub more: bool,
    /// How many meet the filter, on all pages.
    pub total: usize,
}

/// For lists.
#[derive(Serialize)]
struct Short {
    state: State,
    #[serde(flatten)]
    delivery: Delivery,
    panic_off: bool,
}

impl Filter {
    fn holds(&self, node: &NodeRecord, group: Option<&Group>) -> bool {
        let labels = node.labels();
        let contains = |text: &String| {
            let text = text.to_lowercase();
            let has = |of: &str| of.to_lowercase().contains(&text);
            let has_label = |labels: &Labels| labels.iter().any(|(k, v)| has(&format!("{k}={v}")));
            has(node.id.as_str()) || has(&node.name) || has_label(&labels)
        };
        let selected = |selector: &Selector| selector.holds(&labels);
        self.text.as_ref().is_none_or(contains)
            && self.selector.as_ref().is_none_or(selected)
            && group.is_none_or(|group| selected(&group.selector))
            && self.maintenance.is_none_or(|is| is == node.maintenance)
    }

    fn spot(&self, node: &NodeRecord) -> Spot {
        let name = match self.by_name {
            true => node.name.clone(),
            false => String::new(),
        };
        (name, node.id.to_string())
    }

    fn order(&self, a: &Spot, b: &Spot) -> std::cmp::Ordering {
        if self.descends { b.cmp(a) } else { a.cmp(b) }
    }

    /// The page of several parts, whose pages these are.
    pub fn join(&self, pages: impl IntoIterator<Item = Found>) -> Found {
        let mut all = Found::default();
        for page in pages {
            all.nodes.extend(page.nodes);
            all.more |= page.more;
            all.total += page.total;
        }
        all.more |= all.nodes.len() > self.limit;
        all.nodes.sort_by(|(a, _), (b, _)| self.order(a, b));
        // A node that moved while they were asked may be on two pages.
        all.nodes.dedup_by(|(a, _), (b, _)| a == b);
        all.nodes.truncate(self.limit);
        all
    }
}

impl Fleet {
    /// Nodes as a view has them. Looks at every node of the part.
    pub fn find(&self, view: &View, filter: &Filter, part: &Part) -> Found {
        let group = match &filter.group {
            None => None,
            Some(name) => match view.groups().get(name) {
                None => return Found::default(),
                group => group,
            },
        };
        let group = group.map(AsRef::as_ref);
        let targets = self.0.targets();
        let mut found: Vec<(Spot, Place)> = Vec::new();
        let mut total = 0;
        let mut look = |record: &NodeRecord, place: Place| {
            if !filter.holds(record, group) || !self.0.meets(&targets, record, &place, filter) {
                return;
            }
            total += 1;
            let spot = filter.spot(record);
            let after = filter.after.as_ref();
            if after.is_none_or(|after| filter.order(&spot, after).is_gt()) {
                found.push((spot, place));
            }
        };
        match part {
            Part::Own => {
                for node in self.0.own() {
                    if let Some(record) = view.nodes().get(&node.id) {
                        look(record, Place::Here(node));
                    }
                }
            }
            Part::Rest(others) => {
                for (id, record) in view.nodes() {
                    match self.0.place(id, others) {
                        Place::Answered => {}
                        place => look(record, place),
                    }
                }
            }
        }
        let more = found.len() > filter.limit;
        // Only what is shown is sorted.
        if more {
            found.select_nth_unstable_by(filter.limit, |(a, _), (b, _)| filter.order(a, b));
            found.truncate(filter.limit);
        }
        found.sort_by(|(a, _), (b, _)| filter.order(a, b));
        let nodes = found.into_iter().filter_map(|(spot, place)| {
            let id = NodeId::new(&spot.1).ok()?;
            let short = self.0.short(&targets, &id, &place);
            Some((spot, short))
        });
        Found {
            nodes: nodes.collect(),
            more,
            total,
        }
    }
}

impl Inner {
    /// Whether a node has the state and version that are asked for. Those of a controller that does not answer have none.
    fn meets(
        &self,
        targets: &Targets,
        record: &NodeRecord,
        place: &Place,
        filter: &Filter,
    ) -> bool {
        let state = |state: &String| {
            self.short(targets, &record.id, place).get("state") == Some(&json!(state))
        };
        let version = |version: &String| match place {
            Place::Here(node) => {
                let node = node.lock();
                let about = node.about.as_ref();
                about.is_some_and(|about| *about.version == **version)
            }
            _ => false,
        };
        filter.state.as_ref().is_none_or(state) && filter.version.as_ref().is_none_or(version)
    }

    /// The state of a node in one word, and what became of what it shall have.
    fn short(&self, targets: &Targets, id: &NodeId, place: &Place) -> Value {
        let Some(target) = targets.get(id) else {
            return json!({ "state": State::NeverConnected });
        };
        let short = |state, node: &Node| {
            let node = node.lock();
            let short = Short {
                state,
                delivery: Delivery::of(&node, target.desired.map(Arc::as_ref)),
                panic_off: node.panic_off,
            };
            serde_json::to_value(short).unwrap_or_default()
        };
        match place {
            Place::Here(node) => {
                let state = self.state(&node.lock(), &target).0;
                short(state, node)
            }
            Place::Silent | Place::Answered => json!({ "state": "unknown" }),
            Place::Gone | Place::Nowhere => {
                let was_there = matches!(place, Place::Gone);
                let state = State::absent(target.record, was_there);
                short(state, &Node::new(id.clone()))
            }
        }
    }
}
