//! Commands that change nodes.

use super::{Draft, Made, invalid, not_found};
use crate::core::{CommandError, EffectKind, NodePatch};
use crate::domain::{Labels, NodeId, NodeRecord, check_labels};

impl Draft<'_> {
    fn node(&self, id: &NodeId) -> Option<&NodeRecord> {
        match self.nodes.get(id) {
            Some(drafted) => drafted.as_ref(),
            None => self.ground.view.nodes.get(id).map(AsRef::as_ref),
        }
    }

    pub(super) fn register_node(&mut self, id: &NodeId, name: &str, own_labels: &Labels) -> Made {
        if self.node(id).is_some() {
            let patch = NodePatch {
                name: Some(name.to_owned()),
                own_labels: Some(own_labels.clone()),
                ..NodePatch::default()
            };
            return self.patch_node(id, &patch);
        }
        let ground = self.ground;
        let node = NodeRecord {
            id: id.clone(),
            version: 1,
            name: name.to_owned(),
            own_labels: own_labels.clone(),
            set_labels: Labels::new(),
            maintenance: false,
            revoked: false,
            revoked_serials: Vec::new(),
            created: ground.touch.clone(),
            updated: ground.touch.clone(),
        };
        check(&node)?;
        self.nodes.insert(id.clone(), Some(node));
        Ok(EffectKind::Created)
    }

    pub(super) fn patch_node(&mut self, id: &NodeId, patch: &NodePatch) -> Made {
        let before = self.node(id).ok_or_else(|| not_found(object(id), "node"))?;
        let mut node = before.clone();
        if let Some(name) = &patch.name {
            node.name.clone_from(name);
        }
        if let Some(labels) = &patch.own_labels {
            node.own_labels.clone_from(labels);
        }
        for (label, value) in &patch.set_labels {
            match value {
                Some(value) => node.set_labels.insert(label.clone(), value.clone()),
                None => node.set_labels.remove(label),
            };
        }
        node.maintenance = patch.maintenance.unwrap_or(node.maintenance);
        node.revoked = patch.revoked.unwrap_or(node.revoked);
        check(&node)?;
        if node == *before {
            return Ok(EffectKind::Unchanged);
        }
        let last = self
            .ground
            .view
            .nodes
            .get(id)
            .map_or(0, |node| node.version);
        node.version = last + 1;
        node.updated = self.ground.touch.clone();
        self.nodes.insert(id.clone(), Some(node));
        Ok(EffectKind::Replaced)
    }

    pub(super) fn delete_node(&mut self, id: &NodeId) -> Made {
        if self.node(id).is_none() {
            return Ok(EffectKind::Unchanged);
        }
        self.nodes.insert(id.clone(), None);
        Ok(EffectKind::Removed)
    }
}

/// The node; each command looked for itself whether anything differs.
pub(super) fn finish(node: NodeRecord, _: Option<&NodeRecord>) -> Option<NodeRecord> {
    Some(node)
}

fn check(node: &NodeRecord) -> Result<(), CommandError> {
    let name = &node.name;
    if name.is_empty() || name.len() > 253 || name.chars().any(char::is_control) {
        let reason = "names of nodes are 1 to 253 bytes without control characters";
        return Err(invalid(object(&node.id), "name", reason));
    }
    for (field, labels) in [
        ("labels", &node.own_labels),
        ("set_labels", &node.set_labels),
    ] {
        let refuse =
            |error: crate::domain::LabelsError| invalid(object(&node.id), field, error.to_string());
        check_labels(labels).map_err(refuse)?;
    }
    Ok(())
}

fn object(id: &NodeId) -> String {
    format!("node/{id}")
}
