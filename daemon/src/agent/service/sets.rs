//! The calls about address sets: imports and lists, both as streams.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Status, Streaming};
use xdpgate::policy::{AddressSet, AddressSetBuilder, Change, ChangeErrorKind, Prefix, SetName};
use xdpgate::{Generation, TransactionError};
use xdpgate_api::v1;
use xdpgate_api::v1::import_set_header::Operation;
use xdpgate_api::v1::import_set_request::Part;

use super::safety::{Guard, confirm_by};
use super::stream::{Over, Sink};
use super::{FirewallService, Shared, audit};
use crate::agent::access::Standing;
use crate::agent::convert::{self, Wrong};
use crate::agent::fault::{self, Fault};

/// Entries of one import: some 64 MiB of IPv4 hosts, and what the policy takes.
const MOST_ENTRIES: usize = 16 << 20;

/// Imports whose entries are held at one time; others wait.
pub(super) const AT_ONCE: usize = 2;

/// How long the next message of an import is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long an import may take from its turn to its last message: others wait for it.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Entries of a message of a list.
const TOGETHER: usize = 4096;

/// An import of which the header came.
#[derive(Debug)]
pub(super) struct Import {
    header: v1::ImportSetHeader,
    operation: Operation,
    guard: Guard,
    set: SetName,
    pub(super) entries: AddressSetBuilder,
}

impl Import {
    pub(super) fn new(header: v1::ImportSetHeader) -> Result<Self, Status> {
        let operation = match convert::known("header.operation", header.operation)? {
            Operation::Unspecified => Operation::Replace,
            operation => operation,
        };
        if header.count_entries && operation != Operation::Replace {
            let what = "only with OPERATION_REPLACE: leave it out";
            return Err(Wrong::new("header.count_entries", what).into());
        }
        if header
            .expect_entries
            .is_some_and(|n| n > MOST_ENTRIES as u64)
        {
            return Err(too_many());
        }
        let guard = Guard::new(
            header.expected_generation,
            &header.idempotency_key,
            header.confirm_within.as_ref(),
        )?;
        Ok(Self {
            guard,
            set: convert::set_name("header.set", &header.set)?,
            operation,
            header,
            entries: AddressSetBuilder::default(),
        })
    }

    pub(super) fn add(mut self, part: Option<Part>) -> Result<Self, Status> {
        let part = match part {
            Some(Part::Entries(part)) => part,
            Some(Part::Header(_)) => {
                return Err(Wrong::new("header", "only in the first message").into());
            }
            None => return Err(Wrong::new("part", "it is missing: send entries").into()),
        };
        let more = part.entries.len() + part.packed_ipv4.len() / 5 + part.packed_ipv6.len() / 17;
        if self.entries.pushed() + more > MOST_ENTRIES {
            return Err(too_many());
        }
        convert::add_entries(&mut self.entries, &part)?;
        Ok(self)
    }

    /// Refuses an import of which not all came that the header announces: the end of a stream alone may be that of
    /// a client that died.
    pub(super) fn check_whole(&self) -> Result<(), Wrong> {
        let came = self.entries.pushed();
        match self.header.expect_entries {
            Some(expected) if expected != came as u64 => {
                let what =
                    format!("{expected} entries were to come and {came} did: send all again");
                Err(Wrong::new("header.expect_entries", what))
            }
            _ => Ok(()),
        }
    }

    /// Changes the policy, if whoever sent it still may.
    fn finish(
        self,
        shared: &Shared,
        mut standing: Option<Standing>,
    ) -> Result<v1::ImportSetResponse, Status> {
        let received = self.entries.pushed() as u64;
        let set = self
            .entries
            .build(convert::counters(self.header.count_entries));
        let name = self.set;
        let change = match self.operation {
            Operation::Add => Change::AddEntries(name, set.entries().collect()),
            Operation::Remove => Change::RemoveEntries(name, set.iter().collect()),
            _ => Change::PutSet(name, set),
        };
        let _change = shared.lock_changes();
        still_may(&mut standing)?;
        let done = shared
            .firewall
            .transact(&[change], self.guard.transaction());
        let done = done.map_err(|e| not_imported(&e, &self.header.set))?;
        if let Some(applied) = &done.applied {
            crate::agent::log_applied(applied);
        }
        let effect = done.effects.first();
        let effect = effect
            .map(|effect| convert::effect(effect, |error| fault::change(error, "header.set")));
        Ok(v1::ImportSetResponse {
            received,
            effect,
            generation: done.generation.map_or(0, Generation::get),
            applied: done.applied.as_ref().map(convert::applied),
            confirm_by: done
                .generation
                .and_then(|g| confirm_by(&shared.firewall, g)),
            repeated: done.repeated,
        })
    }
}

fn too_many() -> Status {
    let message =
        format!("the import has more than {MOST_ENTRIES} entries: spread them over several sets");
    let fault = Fault::new(Code::ResourceExhausted, "TOO_MANY_ENTRIES", message);
    fault.with("limit", MOST_ENTRIES).into()
}

fn not_imported(error: &TransactionError, set: &str) -> Status {
    if let TransactionError::Changes(errors) = error
        && errors.iter().any(|e| e.kind() == ChangeErrorKind::NotFound)
    {
        let mend = "import it with OPERATION_REPLACE, which makes it";
        return fault::not_found("set", set, mend);
    }
    fault::transaction(error, |_| "entries".to_owned())
}

/// Reads an import to its end, part by part: what was read is held as a set is, and no message longer
/// than it takes. With each message it is looked anew whether the caller may still do this.
pub(super) async fn import(
    service: &FirewallService,
    mut request: Request<Streaming<v1::ImportSetRequest>>,
) -> Result<tonic::Response<v1::ImportSetResponse>, Status> {
    let mut standing = request.extensions_mut().remove::<Standing>();
    let mut parts = request.into_inner();
    let first = next(&mut parts, Instant::now() + LONGEST).await?;
    let header = match first.and_then(|message| message.part) {
        Some(Part::Header(header)) => header,
        _ => return Err(Wrong::new("header", "the first message must be the header").into()),
    };
    let set = header.set.clone();
    let mut import = Import::new(header)?;
    let turn = Arc::clone(&service.0.imports).acquire_owned().await;
    let turn = turn.map_err(|_| fault::stopping())?;
    let until = Instant::now() + LONGEST;
    while let Some(message) = next(&mut parts, until).await? {
        still_may(&mut standing)?;
        let add = move || import.add(message.part);
        let added = tokio::task::spawn_blocking(add).await;
        import = added.map_err(|e| fault::internal(format!("the import broke off: {e}")))??;
    }
    import.check_whole()?;
    // tonic takes a stream that the client has cancelled for one that has ended. hyper drops the call
    // then, but only while it waits: let it.
    tokio::task::yield_now().await;
    let finish = service.run(move |shared| import.finish(shared, standing));
    let done = finish.await;
    drop(turn);
    let done = done?;
    let what = format!("set {set}: {} entries", done.get_ref().received);
    Ok(audit::noted(done, what))
}

/// Whether the caller may still do this; a service without rules of access has nobody to ask.
fn still_may(standing: &mut Option<Standing>) -> Result<(), Status> {
    standing.as_mut().map_or(Ok(()), Standing::check)
}

/// The next message, if it comes soon and the import is not to be over by now.
async fn next<M>(
    parts: &mut (impl Stream<Item = Result<M, Status>> + Unpin),
    until: Instant,
) -> Result<Option<M>, Status> {
    let left = until.saturating_duration_since(Instant::now());
    // A timeout alone would never come up for a client that always has a message ready.
    if !left.is_zero()
        && let Ok(message) = tokio::time::timeout(left.min(PATIENCE), parts.next()).await
    {
        return message.transpose();
    }
    let (reason, why, mend) = match left > PATIENCE {
        true => {
            let why = format!("no message for {} s", PATIENCE.as_secs());
            ("IMPORT_STALLED", why, "begin anew")
        }
        false => {
            let why = format!("not all came within {} minutes", LONGEST.as_secs() / 60);
            let mend = "send it faster, or in several imports with OPERATION_ADD";
            ("IMPORT_TOO_LONG", why, mend)
        }
    };
    let message = format!("{why}: the import is broken off and changed nothing; {mend}");
    Err(Fault::new(Code::DeadlineExceeded, reason, message).into())
}

/// The set that is asked for, of the policy in force.
pub(super) fn find(shared: &Shared, request: &v1::ListSetEntriesRequest) -> Result<List, Status> {
    let covering = match request.covering.as_str() {
        "" => None,
        text => Some(convert::prefix("covering", text)?),
    };
    let name = convert::set_name("set", &request.set)?;
    let policy = shared.firewall.policy();
    let policy = policy.filter(|policy| policy.sets().contains_key(&name));
    let policy = policy.ok_or_else(|| {
        fault::not_found(
            "set",
            &request.set,
            "`xdpgate policy get` shows which there are",
        )
    })?;
    Ok(List {
        policy,
        name,
        covering,
    })
}

/// A list of the entries of a set.
#[derive(Debug)]
pub(super) struct List {
    policy: Arc<xdpgate::Policy>,
    name: SetName,
    covering: Option<Prefix>,
}

impl List {
    /// Sends the entries; one message at least, so that an empty list is one too.
    pub(super) fn send(self, mut sink: Sink<v1::ListSetEntriesResponse>) -> Result<(), Over> {
        let set: &AddressSet = &self.policy.sets()[&self.name];
        let covers = |entry: &Prefix| {
            self.covering
                .is_none_or(|asked| entry.len() <= asked.len() && entry.contains(asked.addr()))
        };
        let mut message = v1::ListSetEntriesResponse::default();
        for (prefix, expires) in set.entries().filter(|(prefix, _)| covers(prefix)) {
            if message.entries.len() == TOGETHER {
                sink.send(std::mem::take(&mut message))?;
            }
            message.entries.push(v1::SetEntry {
                prefix: prefix.to_string(),
                expires: expires.map(convert::timestamp),
            });
        }
        sink.send(message)
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;

    #[tokio::test]
    async fn an_import_is_over_at_some_time_however_busy_it_is() {
        let mut busy = tokio_stream::iter(std::iter::repeat_with(|| Ok(())));
        let later = Instant::now() + LONGEST;
        assert_eq!(
            next(&mut busy, later).await.expect("time is left"),
            Some(())
        );
        let over = next(&mut busy, Instant::now()).await;
        let mut silent = tokio_stream::pending::<Result<(), Status>>();
        let soon = Instant::now() + Duration::from_millis(50);
        for status in [over, next(&mut silent, soon).await].map(|ended| ended.expect_err("over")) {
            assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
            let info = status.get_details_error_info().expect("details");
            assert_eq!(info.reason, "IMPORT_TOO_LONG");
            assert!(status.message().contains("15 minutes"), "{status}");
        }
    }
}
