//! What calls changed, in words, for the audit log.

use tonic::Response;
use xdpgate_api::v1;

use crate::agent::access::AuditNote;

/// The answer of a call that changes something.
pub(super) trait Changed {
    /// The generation in force after it, if it has to do with the policy.
    fn generation(&self) -> Option<u64> {
        None
    }
}

/// An answer with what it is about, for the audit line of the call.
pub(super) fn noted<R: Changed>(mut response: Response<R>, what: impl Into<String>) -> Response<R> {
    let generation = response.get_ref().generation();
    let what = what.into();
    let note = AuditNote { what, generation };
    response.extensions_mut().insert(note);
    response
}

/// What a change of the policy is about, without rules and entries themselves. Names are told as far as
/// they can be right: with `partial`, wrong ones come here too, of any length.
pub(super) fn changes(request: &v1::ChangePolicyRequest) -> String {
    use v1::change::Change;
    const MOST: usize = 5;
    let named = |change: &v1::Change| match &change.change {
        Some(Change::CreateRule(_) | Change::PutRule(_)) => "a rule".to_owned(),
        Some(Change::RemoveRule(id)) => format!("rule {} removed", cut(id)),
        Some(Change::EnableRule(rule)) if rule.enabled => format!("rule {} on", cut(&rule.id)),
        Some(Change::EnableRule(rule)) => format!("rule {} off", cut(&rule.id)),
        Some(Change::CreateSet(set) | Change::PutSet(set)) => format!("set {}", cut(&set.name)),
        Some(Change::RemoveSet(name)) => format!("set {} removed", cut(name)),
        Some(Change::AddEntries(set)) => format!("set {}: +{}", cut(&set.name), set.entries.len()),
        Some(Change::RemoveEntries(set)) => {
            format!("set {}: -{}", cut(&set.name), set.entries.len())
        }
        Some(Change::DefaultVerdict(_)) => "default".to_owned(),
        Some(Change::Malformed(_)) => "malformed".to_owned(),
        Some(Change::Failsafe(failsafe)) if failsafe.none => "failsafe none".to_owned(),
        Some(Change::Failsafe(failsafe)) if failsafe.no_ssh => "failsafe without SSH".to_owned(),
        Some(Change::Failsafe(_)) => "failsafe".to_owned(),
        None => "nothing".to_owned(),
    };
    let mut words: Vec<String> = request.changes.iter().take(MOST).map(named).collect();
    if request.changes.len() > MOST {
        words.push(format!("{} more", request.changes.len() - MOST));
    }
    words.join(", ")
}

fn cut(name: &str) -> &str {
    const LONGEST: usize = 64;
    let end = name.char_indices().nth(LONGEST);
    end.map_or(name, |(end, _)| &name[..end])
}

impl Changed for v1::ApplyPolicyResponse {
    fn generation(&self) -> Option<u64> {
        self.applied.as_ref().map(|applied| applied.generation)
    }
}

impl Changed for v1::ChangePolicyResponse {
    fn generation(&self) -> Option<u64> {
        Some(self.generation)
    }
}

impl Changed for v1::ImportSetResponse {
    fn generation(&self) -> Option<u64> {
        Some(self.generation)
    }
}

impl Changed for v1::ConfirmPolicyResponse {
    fn generation(&self) -> Option<u64> {
        Some(self.generation)
    }
}

impl Changed for v1::RollbackPolicyResponse {
    fn generation(&self) -> Option<u64> {
        self.applied.as_ref().map(|applied| applied.generation)
    }
}

impl Changed for v1::BanResponse {}
impl Changed for v1::UnbanResponse {}
impl Changed for v1::AttachInterfaceResponse {}
impl Changed for v1::DetachInterfaceResponse {}
impl Changed for v1::SetModeResponse {}
impl Changed for v1::ReloadConfigResponse {}
impl Changed for v1::StopResponse {}

#[cfg(test)]
mod tests {
    use xdpgate_api::v1::change::Change as Is;

    use super::*;

    #[test]
    fn names_of_any_length_make_a_short_line() {
        let long = "é".repeat(100_000);
        let set = || v1::AddressSet {
            name: long.clone(),
            ..Default::default()
        };
        let rule = |enabled| v1::EnableRule {
            id: long.clone(),
            enabled,
        };
        for change in [
            Is::RemoveRule(long.clone()),
            Is::EnableRule(rule(true)),
            Is::EnableRule(rule(false)),
            Is::CreateSet(set()),
            Is::PutSet(set()),
            Is::RemoveSet(long.clone()),
            Is::AddEntries(set()),
            Is::RemoveEntries(set()),
        ] {
            let change = v1::Change {
                change: Some(change),
            };
            let request = v1::ChangePolicyRequest {
                changes: vec![change],
                ..Default::default()
            };
            let line = changes(&request);
            assert!(line.contains(&"é".repeat(64)), "{line}");
            assert!(line.chars().count() < 64 + 20, "{line}");
        }
    }
}
