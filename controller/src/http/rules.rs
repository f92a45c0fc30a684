//! Rules and policies as JSON and as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use xdpgate::policy::{Failsafe, Prefix, Rule};
use xdpgate::{Policy, PolicyError, Verdict};

use super::problem::Problem;
use crate::core::View;
use crate::domain::{Name, PolicyState, RuleState, Settings, Touch};

/// Who changed a thing, when and why.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Touched {
    /// Who.
    by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
}

impl From<&Touch> for Touched {
    fn from(touch: &Touch) -> Self {
        Self {
            by: touch.by.clone(),
            at: touch.at,
            why: touch.why.clone(),
        }
    }
}

/// A verdict.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    /// It passes.
    Pass,
    /// It is dropped.
    Drop,
}

impl From<Word> for Verdict {
    fn from(word: Word) -> Self {
        match word {
            Word::Pass => Self::Pass,
            Word::Drop => Self::Drop,
        }
    }
}

/// Management traffic that passes before any rule.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FailsafeBody {
    /// `false` only where it is to be off.
    #[serde(default = "yes")]
    enabled: bool,
    /// Sources from which SSH passes.
    #[serde(default)]
    ssh_from: Vec<String>,
}

fn yes() -> bool {
    true
}

impl FailsafeBody {
    pub(super) fn read(self) -> Result<Failsafe, Problem> {
        let prefix = |(i, text): (usize, String)| {
            text.parse::<Prefix>()
                .map_err(|e| Problem::invalid(format!("failsafe.ssh_from[{i}]"), e.to_string()))
        };
        Ok(Failsafe {
            enabled: self.enabled,
            ssh_from: self
                .ssh_from
                .into_iter()
                .enumerate()
                .map(prefix)
                .collect::<Result<_, _>>()?,
        })
    }
}

/// What the library says about a policy or rule.
pub(super) fn refused(error: &PolicyError) -> Problem {
    let mut field = error.field().unwrap_or_default().to_owned();
    // Here a rule is the whole body.
    if let Some(rest) = field.strip_prefix("rules[0].") {
        field = rest.to_owned();
    }
    let problem = Problem::invalid(field, error.reason());
    let problem = problem.mend(error.suggestion().unwrap_or_default());
    match error.rule() {
        Some(rule) => problem.of(format!("rule/{rule}")),
        None => problem,
    }
}

/// A rule of JSON, with the id of the path if there is one.
pub(super) fn rule(mut fields: Map<String, Value>, id: Option<&str>) -> Result<Rule, Problem> {
    if let Some(id) = id {
        match fields.get("id") {
            Some(Value::String(own)) if own == id => (),
            None => _ = fields.insert("id".to_owned(), id.into()),
            Some(_) => {
                let detail = format!("the id in the body is not that of the path, {id:?}");
                return Err(Problem::invalid("id", detail).mend("leave it out"));
            }
        }
    }
    if let Some((name, _)) = fields.iter().find(|(_, value)| value.is_null()) {
        let problem = Problem::invalid(name.clone(), "null clears a field of a PATCH");
        return Err(problem.mend("leave it out"));
    }
    Rule::from_yaml(&Value::Object(fields).to_string()).map_err(|error| refused(&error))
}

/// A rule as JSON: its own fields, in canonical form.
pub(super) fn shown(state: &RuleState) -> Value {
    let mut value: Value = serde_json::from_str(&state.rule.to_json()).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        fields.insert("version".to_owned(), state.version.into());
    }
    value
}

/// A policy without its rules.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct PolicyInfo {
    /// The name.
    name: String,
    /// 1, 2, ...; also the ETag.
    version: u64,
    /// Free text.
    comment: Option<String>,
    /// What it says beside its rules; what is absent another policy of the node says, or the default of a policy file.
    #[schema(value_type = Object)]
    settings: Settings,
    /// How many rules it has.
    rules: usize,
    /// Groups that name it.
    groups: Vec<String>,
    /// Who made it.
    created: Touched,
    /// Who made this version.
    updated: Touched,
}

impl PolicyInfo {
    pub(super) fn new(view: &View, policy: &PolicyState) -> Self {
        let groups = view.groups().values();
        let groups = groups.filter(|group| group.policies.contains(&policy.name));
        Self {
            name: policy.name.to_string(),
            version: policy.version,
            comment: policy.comment.clone(),
            settings: policy.settings.clone(),
            rules: policy.rules.len(),
            groups: groups.map(|group| group.name.to_string()).collect(),
            created: (&policy.created).into(),
            updated: (&policy.updated).into(),
        }
    }
}

/// A policy as the text of a policy file: without sets, which are the fleet's.
pub(super) fn text(policy: &PolicyState) -> String {
    let mut out = String::from("version: 1\n");
    let settings = &policy.settings;
    // Writing to a string does not fail.
    if let Some(default) = settings.default {
        let _ = writeln!(out, "default: {default}");
    }
    if let Some(malformed) = settings.malformed {
        let _ = writeln!(out, "malformed: {malformed}");
    }
    match &settings.failsafe {
        None => (),
        Some(Failsafe { enabled: false, .. }) => out.push_str("failsafe: none\n"),
        Some(Failsafe { ssh_from, .. }) if ssh_from.is_empty() => out.push_str("failsafe: {}\n"),
        Some(Failsafe { ssh_from, .. }) => {
            let from: Vec<String> = ssh_from.iter().map(Prefix::to_string).collect();
            let _ = writeln!(out, "failsafe: {{ ssh_from: [{}] }}", quoted(&from));
        }
    }
    let mut rules: Vec<_> = policy.rules.iter().collect();
    if rules.is_empty() {
        return out;
    }
    rules.sort_by(|a, b| (a.rule.priority, &a.rule.id).cmp(&(b.rule.priority, &b.rule.id)));
    out.push_str("rules:\n");
    for state in rules {
        let _ = writeln!(out, "  - {}", state.rule.to_json());
    }
    out
}

fn quoted(items: &[String]) -> String {
    items
        .iter()
        .map(|item| format!("\"{item}\""))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A policy alone, with the sets that it names: what a node would have that has only this one. Takes as long as
/// it is large.
pub(super) fn alone(view: &View, policy: &PolicyState) -> Result<Policy, Problem> {
    let mut builder = Policy::builder();
    let settings = &policy.settings;
    builder = builder.default_verdict(settings.default.unwrap_or_default());
    if let Some(malformed) = settings.malformed {
        builder = builder.malformed(malformed);
    }
    builder = builder.failsafe(settings.failsafe.clone().unwrap_or_default());
    let mut sets = BTreeMap::new();
    for state in policy.rules.iter() {
        for name in super::find::sets_of(&state.rule) {
            let set = Name::new(name.as_str())
                .ok()
                .and_then(|name| view.sets().get(&name));
            if let Some(set) = set {
                sets.entry(name.clone())
                    .or_insert_with(|| (*set.entries).clone());
            }
        }
        builder = builder.rule(state.rule.clone());
    }
    for (name, set) in sets {
        builder = builder.set(name, set);
    }
    builder.build().map_err(|error| refused(&error))
}
