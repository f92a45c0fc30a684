//! Commands that change rules.

use serde_json::{Map, Value};
use xdpgate::policy::{AddressMatch, Rule, RuleId};

use super::{Draft, Made, already_there, invalid, not_found};
use crate::core::CommandError;
use crate::core::effective::about;
use crate::domain::Name;

impl Draft<'_> {
    pub(super) fn put_rule(&mut self, policy: &Name, rule: &Rule, create: bool) -> Made {
        let draft = self.policy(policy)?;
        if create && draft.rule(&rule.id).is_some() {
            return Err(already_there(object(policy, &rule.id), "rule"));
        }
        draft.edit(rule.id.clone(), Some(canonical(rule.clone())))
    }

    pub(super) fn patch_rule(
        &mut self,
        policy: &Name,
        id: &RuleId,
        patch: &Map<String, Value>,
    ) -> Made {
        let draft = self.policy(policy)?;
        let rule = draft
            .rule(id)
            .ok_or_else(|| not_found(object(policy, id), "rule"))?;
        let rule = patched(policy, rule, patch)?;
        draft.edit(id.clone(), Some(rule))
    }

    pub(super) fn enable_rule(&mut self, policy: &Name, id: &RuleId, enabled: bool) -> Made {
        let draft = self.policy(policy)?;
        let rule = draft
            .rule(id)
            .ok_or_else(|| not_found(object(policy, id), "rule"))?;
        let rule = Rule {
            enabled,
            ..rule.clone()
        };
        draft.edit(id.clone(), Some(rule))
    }

    pub(super) fn delete_rule(&mut self, policy: &Name, id: &RuleId) -> Made {
        self.policy(policy)?.edit(id.clone(), None)
    }
}

/// A rule after a merge patch over its JSON.
fn patched(policy: &Name, rule: &Rule, patch: &Map<String, Value>) -> Result<Rule, CommandError> {
    let object = object(policy, &rule.id);
    if patch.get("id").is_some_and(|id| *id != rule.id.as_str()) {
        let error = invalid(object, "id", "the id of a rule stays");
        return Err(error.mend("create a rule with the other id, and delete this one"));
    }
    let mut json = serde_json::from_str(&rule.to_json())
        .map_err(|error| invalid(object.clone(), "", error.to_string()))?;
    merge(&mut json, &Value::Object(patch.clone()));
    let rule = Rule::from_yaml(&json.to_string()).map_err(|error| about(&error, object))?;
    Ok(canonical(rule))
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(target) = target {
        for (name, value) in patch {
            if value.is_null() {
                target.remove(name);
            } else {
                merge(target.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

/// As the library has it: lists sorted and without repeats, so that equal rules are equal.
pub(super) fn canonical(mut rule: Rule) -> Rule {
    rule.interfaces.sort_unstable();
    rule.interfaces.dedup();
    let addresses = [&mut rule.matches.src, &mut rule.matches.dst];
    for AddressMatch { items, .. } in addresses.into_iter().flatten() {
        items.sort_unstable();
        items.dedup();
    }
    rule
}

fn object(policy: &Name, rule: &RuleId) -> String {
    format!("policy/{policy}/rule/{rule}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7396, section 3, and its appendix.
    #[test]
    fn merge_patches_are_those_of_the_rfc() {
        for (target, patch, result) in [
            (
                r#"{"a":"b","c":{"d":"e","f":"g"}}"#,
                r#"{"a":"z","c":{"f":null}}"#,
                r#"{"a":"z","c":{"d":"e"}}"#,
            ),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (
                r#"{"a":{"b":"c"}}"#,
                r#"{"a":{"b":"d","c":null}}"#,
                r#"{"a":{"b":"d"}}"#,
            ),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
        ] {
            let mut merged: Value = serde_json::from_str(target).unwrap();
            merge(&mut merged, &serde_json::from_str(patch).unwrap());
            assert_eq!(
                merged,
                serde_json::from_str::<Value>(result).unwrap(),
                "{target} {patch}"
            );
        }
    }
}
