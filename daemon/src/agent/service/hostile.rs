//! For the fuzz target `requests`: messages that no client of ours made. Each is decoded and converted as its
//! call does it, and what came out, written as a message and converted again, is the same.

use std::time::Duration;

use prost::Message;
use tonic::Status;
use xdpgate::policy::{AddressSet, Change, EntryCounters, Prefix, SetName, Verdict};
use xdpgate::{BanScope, ModePreference, Policy};
use xdpgate_api::v1;
use xdpgate_api::v1::change::Change as Is;
use xdpgate_api::v1::import_set_request::Part;

use super::page::{self, Tokens};
use super::safety::Guard;
use super::sets::Import;
use super::{bans, policy, stats};
use crate::agent::{convert, fault};

type Request = fn(&[u8]) -> Result<(), Status>;

/// The requests that have something to convert, by the number that picks them.
const REQUESTS: &[Request] = &[
    |bytes| apply(&decode(bytes)?),
    |bytes| change(&decode(bytes)?),
    |bytes| import(bytes),
    |bytes| list_rules(&decode(bytes)?),
    |bytes| list_entries(&decode(bytes)?),
    |bytes| ban(&decode(bytes)?),
    |bytes| unban(&decode(bytes)?),
    |bytes| list_bans(&decode(bytes)?),
    |bytes| set_mode(&decode(bytes)?),
    |bytes| attach(&decode(bytes)?),
    |bytes| stats::interval(&decode(bytes)?).map(drop),
    |bytes| entry_counters(&decode(bytes)?),
];

/// Handles bytes as the request that `which` picks; whether it is one that is right.
///
/// # Panics
///
/// What must hold does not.
pub fn request(which: u8, bytes: &[u8]) -> bool {
    let handle = REQUESTS[usize::from(which) % REQUESTS.len()];
    let Err(status) = handle(bytes) else {
        return true;
    };
    let message = status.message();
    assert!(!message.is_empty(), "an error without a word");
    assert!(!message.contains('\n'), "more than a line: {message:?}");
    false
}

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, Status> {
    M::decode(bytes).map_err(|e| Status::invalid_argument(e.to_string()))
}

fn apply(request: &v1::ApplyPolicyRequest) -> Result<(), Status> {
    Guard::new(
        request.expected_generation,
        &request.idempotency_key,
        request.confirm_within.as_ref(),
    )?;
    let policy = Policy::from_yaml(&request.yaml).map_err(|e| fault::policy(&e))?;
    assert_eq!(Policy::from_yaml(&policy.to_yaml()).as_ref(), Ok(&policy));
    Ok(())
}

fn change(request: &v1::ChangePolicyRequest) -> Result<(), Status> {
    let changes = policy::parse_changes(request);
    let wrong: Vec<_> = changes.iter().filter_map(|c| c.as_ref().err()).collect();
    if !wrong.is_empty() {
        return Err(policy::malformed(&wrong));
    }
    let changes: Vec<Change> = changes.into_iter().flatten().collect();
    let changes_back = changes.iter().map(message).collect();
    let again = v1::ChangePolicyRequest {
        changes: changes_back,
        ..request.clone()
    };
    let again: Result<Vec<Change>, _> = policy::parse_changes(&again).into_iter().collect();
    assert_eq!(again, Ok(changes));
    Ok(())
}

/// The message that stands for a change, in the words in which the API tells rules and entries.
fn message(change: &Change) -> v1::Change {
    let put = |name: &SetName, set: &AddressSet| v1::AddressSet {
        name: name.to_string(),
        entries: set.entries().map(entry).collect(),
        count_entries: set.counters() == EntryCounters::Entry,
    };
    let list = |name: &SetName, entries: Vec<v1::SetEntry>| v1::AddressSet {
        name: name.to_string(),
        entries,
        count_entries: false,
    };
    let verdict = |verdict: Verdict| match verdict {
        Verdict::Pass => v1::Verdict::Pass.into(),
        Verdict::Drop => v1::Verdict::Drop.into(),
    };
    let change = match change {
        Change::CreateRule(rule) => Is::CreateRule(rule.to_json()),
        Change::PutRule(rule) => Is::PutRule(rule.to_json()),
        Change::RemoveRule(id) => Is::RemoveRule(id.to_string()),
        Change::CreateSet(name, set) => Is::CreateSet(put(name, set)),
        Change::PutSet(name, set) => Is::PutSet(put(name, set)),
        Change::RemoveSet(name) => Is::RemoveSet(name.to_string()),
        Change::AddEntries(name, entries) => {
            Is::AddEntries(list(name, entries.iter().copied().map(entry).collect()))
        }
        Change::RemoveEntries(name, entries) => {
            let entries = entries.iter().map(|prefix| entry((*prefix, None)));
            Is::RemoveEntries(list(name, entries.collect()))
        }
        Change::DefaultVerdict(said) => Is::DefaultVerdict(verdict(*said)),
        Change::Malformed(said) => Is::Malformed(verdict(*said)),
        Change::EnableRule(id, enabled) => Is::EnableRule(v1::EnableRule {
            id: id.to_string(),
            enabled: *enabled,
        }),
        Change::Failsafe(said) => Is::Failsafe(v1::Failsafe {
            none: !said.enabled,
            ssh_from: said.ssh_from.iter().map(Prefix::to_string).collect(),
            no_ssh: false,
        }),
        Change::FailsafeWithoutSsh => Is::Failsafe(v1::Failsafe {
            no_ssh: true,
            ..Default::default()
        }),
        other => panic!("a change that the API does not have: {other:?}"),
    };
    v1::Change {
        change: Some(change),
    }
}

fn entry((prefix, expires): (Prefix, Option<jiff::Timestamp>)) -> v1::SetEntry {
    v1::SetEntry {
        prefix: prefix.to_string(),
        expires: expires.map(convert::timestamp),
    }
}

/// An import of one message behind a first byte, which says how long the header is.
fn import(bytes: &[u8]) -> Result<(), Status> {
    let missing = || Status::invalid_argument("there is no header");
    let (length, rest) = bytes.split_first().ok_or_else(missing)?;
    let parts = rest.split_at_checked(usize::from(*length));
    let (header, entries) = parts.ok_or_else(missing)?;
    let header: v1::ImportSetHeader = decode(header)?;
    let set = |part: v1::ImportSetRequest| {
        let import = Import::new(header.clone())?.add(part.part)?;
        import.check_whole()?;
        Ok::<AddressSet, Status>(import.entries.build(EntryCounters::None))
    };
    let all = set(decode(entries)?)?;
    // Packed or not, they are the same entries.
    let as_text = v1::SetEntries {
        entries: all.entries().map(entry).collect(),
        ..Default::default()
    };
    let header = v1::ImportSetHeader {
        expect_entries: None,
        ..header.clone()
    };
    let again = Import::new(header)?.add(Some(Part::Entries(as_text)))?;
    assert_eq!(again.entries.build(EntryCounters::None), all);
    Ok(())
}

fn list_rules(request: &v1::ListRulesRequest) -> Result<(), Status> {
    let size = page::size(request.page_size, 100, 1000)?;
    assert!((1..=1000).contains(&size));
    let _query = policy::query(request)?;
    let tokens = Tokens::default();
    let question = &request.search;
    let begin = tokens.offset(&request.page_token, 1, question)?;
    assert_eq!(begin, 0, "nobody can make up a token");
    let token = tokens.make(1, question, size);
    assert_eq!(tokens.offset(&token, 1, question).ok(), Some(size));
    Ok(())
}

fn list_entries(request: &v1::ListSetEntriesRequest) -> Result<(), Status> {
    let name = convert::set_name("set", &request.set)?;
    assert_eq!(name.as_str(), request.set);
    same_prefix("covering", &request.covering)
}

fn entry_counters(request: &v1::GetEntryCountersRequest) -> Result<(), Status> {
    let name = convert::set_name("set", &request.set)?;
    assert_eq!(name.as_str(), request.set);
    Ok(())
}

fn same_prefix(path: &str, text: &str) -> Result<(), Status> {
    let prefix = convert::prefix(path, text)?;
    assert_eq!(convert::prefix(path, &prefix.to_string()), Ok(prefix));
    Ok(())
}

fn ban(request: &v1::BanRequest) -> Result<(), Status> {
    same_prefix("prefix", &request.prefix)?;
    scope(request.scope)?;
    let ttl = bans::ttl(request)?;
    let told: prost_types::Duration = ttl.try_into().expect("it came as one");
    let again = v1::BanRequest {
        ttl: Some(told),
        ..request.clone()
    };
    assert_eq!(bans::ttl(&again).ok(), Some(ttl));
    assert!(ttl > Duration::ZERO);
    Ok(())
}

fn scope(scope: i32) -> Result<BanScope, Status> {
    Ok(convert::ban_scope(convert::known("scope", scope)?))
}

fn unban(request: &v1::UnbanRequest) -> Result<(), Status> {
    use v1::unban_request::Which;
    scope(request.scope)?;
    match &request.which {
        Some(Which::Prefix(prefix)) => same_prefix("prefix", prefix),
        Some(Which::All(_)) | None => Ok(()),
    }
}

fn list_bans(request: &v1::ListBansRequest) -> Result<(), Status> {
    page::size(request.page_size, 1000, 10_000)?;
    if let Some(last) = bans::parse(&request.page_token) {
        let token = bans::token(last);
        assert_eq!(bans::parse(&token), Some(last), "{token}");
    }
    Ok(())
}

fn set_mode(request: &v1::SetModeRequest) -> Result<(), Status> {
    let mode: v1::Mode = convert::known("mode", request.mode)?;
    assert_eq!(i32::from(mode), request.mode);
    Guard::new(None, "", request.confirm_within.as_ref()).map(drop)
}

fn attach(request: &v1::AttachInterfaceRequest) -> Result<(), Status> {
    let asked: v1::ModePreference = convert::known("mode", request.mode)?;
    let preference = convert::preference(asked);
    let any = matches!(
        asked,
        v1::ModePreference::Unspecified | v1::ModePreference::BestAvailable
    );
    assert_eq!(preference == ModePreference::BestAvailable, any);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(which: u8, message: &impl Message) -> bool {
        request(which, &message.encode_to_vec())
    }

    /// One of each, as `fuzz/seed` has them too: what the target looks at is reached.
    #[test]
    fn what_is_right_is_taken() {
        let within = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let set = |count_entries| v1::AddressSet {
            name: "bad".to_owned(),
            entries: vec![v1::SetEntry {
                prefix: "2001:db8::/32".to_owned(),
                expires: Some(prost_types::Timestamp {
                    seconds: 4_000_000_000,
                    nanos: 7,
                }),
            }],
            count_entries,
        };
        let failsafe = |none, ssh_from: &[&str], no_ssh| {
            let ssh_from = ssh_from.iter().map(|prefix| (*prefix).to_owned()).collect();
            Is::Failsafe(v1::Failsafe {
                none,
                ssh_from,
                no_ssh,
            })
        };
        let rule = "{ id: web, match: { dport: [80, 443], src: '@bad' }, action: pass }".to_owned();
        let changes = [
            Is::CreateRule(rule.clone()),
            Is::PutRule(rule),
            Is::RemoveRule("web".to_owned()),
            Is::CreateSet(set(true)),
            Is::PutSet(set(false)),
            Is::RemoveSet("bad".to_owned()),
            Is::AddEntries(set(false)),
            Is::RemoveEntries(set(false)),
            Is::DefaultVerdict(v1::Verdict::Drop.into()),
            Is::Malformed(v1::Verdict::Pass.into()),
            Is::EnableRule(v1::EnableRule {
                id: "web".to_owned(),
                enabled: true,
            }),
            failsafe(false, &["192.0.2.0/24", "2001:db8::/32"], false),
            failsafe(true, &[], false),
            failsafe(false, &[], true),
        ];
        let change = |change| v1::Change {
            change: Some(change),
        };
        let yaml = "version: 1\nrules: [{ id: r, match: { src: 192.0.2.1 }, action: drop }]";
        assert!(taken(
            0,
            &v1::ApplyPolicyRequest {
                yaml: yaml.to_owned(),
                confirm_within: within(60),
                ..Default::default()
            }
        ));
        assert!(taken(
            1,
            &v1::ChangePolicyRequest {
                changes: changes.map(change).to_vec(),
                ..Default::default()
            }
        ));
        let header = v1::ImportSetHeader {
            set: "bad".to_owned(),
            expect_entries: Some(3),
            ..Default::default()
        };
        let entries = v1::SetEntries {
            entries: set(false).entries,
            packed_ipv4: vec![192, 0, 2, 0, 24],
            packed_ipv6: [&[0x20, 1, 0xd, 0xb8][..], &[0; 12], &[128]].concat(),
        };
        let entries = v1::ImportSetRequest {
            part: Some(Part::Entries(entries)),
        };
        let header = header.encode_to_vec();
        let length = u8::try_from(header.len()).expect("short");
        let import = [&[length][..], &header, &entries.encode_to_vec()].concat();
        assert!(request(2, &import));
        assert!(taken(
            3,
            &v1::ListRulesRequest {
                search: "web".to_owned(),
                address: "192.0.2.1".to_owned(),
                labels: vec!["owner=web".to_owned()],
                ..Default::default()
            }
        ));
        assert!(taken(
            4,
            &v1::ListSetEntriesRequest {
                set: "bad".to_owned(),
                covering: "192.0.2.0/24".to_owned(),
            }
        ));
        let prefix = "203.0.113.0/24".to_owned();
        assert!(taken(
            5,
            &v1::BanRequest {
                prefix: prefix.clone(),
                scope: v1::BanScope::Both.into(),
                ttl: within(600),
            }
        ));
        assert!(taken(
            6,
            &v1::UnbanRequest {
                which: Some(v1::unban_request::Which::Prefix(prefix)),
                ..Default::default()
            }
        ));
        assert!(taken(
            7,
            &v1::ListBansRequest {
                page_token: "source 192.0.2.1".to_owned(),
                ..Default::default()
            }
        ));
        assert!(taken(
            8,
            &v1::SetModeRequest {
                mode: v1::Mode::Enforce.into(),
                confirm_within: within(60),
                ..Default::default()
            }
        ));
        assert!(taken(
            9,
            &v1::AttachInterfaceRequest {
                name: "eth0".to_owned(),
                mode: v1::ModePreference::Native.into(),
            }
        ));
        assert!(taken(
            10,
            &v1::WatchStatsRequest {
                interval: within(1),
                ..Default::default()
            }
        ));
        let set = "bad".to_owned();
        assert!(taken(11, &v1::GetEntryCountersRequest { set, limit: 9 }));
        assert!(!request(5, b"\xff"));
    }
}
