//! Batches as etcd tells them, through all that breaks on the way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{EventType, GetOptions, WatchOptions, WatchResponse, WatchStream};
use futures_util::StreamExt;
use tokio::sync::mpsc::{self, Sender};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::{Place, compacted, signed, unsigned};
use crate::store::{Batch, Key, Revision, StoreError, Watch};

/// Batches that wait for a slow reader; then etcd keeps them.
const AHEAD: usize = 64;
/// etcd sends up to a thousand revisions in one message to who is behind.
const LARGEST: usize = 1 << 30;
/// How long to wait for a member, and between attempts.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(200);

pub(super) async fn watch(
    place: Arc<Place>,
    epoch: String,
    after: Revision,
) -> Result<Watch, StoreError> {
    check(&place, after).await?;
    let (batches, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let gone = batches.clone();
        tokio::select! {
            error = run(&place, &epoch, after, &batches) => {
                // Nobody may be left to tell.
                let _ = batches.send(Err(error)).await;
            }
            () = gone.closed() => {}
        }
    });
    Ok(ReceiverStream::new(receiver).boxed())
}

/// Whether all after a revision is still there. etcd itself would begin a watch at the very revision to which it
/// was compacted, of which it has forgotten the deletions.
async fn check(place: &Place, after: Revision) -> Result<(), StoreError> {
    if after == Revision(0) {
        return Ok(());
    }
    let options = GetOptions::new()
        .with_count_only()
        .with_revision(signed(after));
    let found = place.get(place.key("epoch"), options).await;
    found
        .map(drop)
        .map_err(|error| compacted(error, Some(after)))
}

/// Until it cannot go on.
async fn run(
    place: &Place,
    epoch: &str,
    mut after: Revision,
    batches: &Sender<Result<Batch, StoreError>>,
) -> StoreError {
    loop {
        match follow(place, &mut after, batches).await {
            End::Stop(error) => return error,
            End::Again(member) => {
                if let Some(member) = member {
                    place.members.next_after(member);
                }
                sleep(PAUSE).await;
            }
        }
        match place.epoch().await {
            Ok(now) if now == epoch => {}
            Ok(_) => return StoreError::Damaged("etcd has another store now".to_owned()),
            Err(error @ StoreError::Damaged(_)) => return error,
            Err(_) => {}
        }
    }
}

/// How a stream of a member ends.
enum End {
    Stop(StoreError),
    Again(Option<usize>),
}

async fn follow(
    place: &Place,
    after: &mut Revision,
    batches: &Sender<Result<Batch, StoreError>>,
) -> End {
    let Ok((member, client)) = place.members.current().await else {
        return End::Again(None);
    };
    let options = WatchOptions::new()
        .with_prefix()
        .with_progress_notify()
        .with_start_revision(signed(*after).saturating_add(1));
    let mut watch = client.watch_client().max_decoding_message_size(LARGEST);
    let watch = watch.watch(place.record(""), Some(options));
    let Ok(Ok(mut stream)) = timeout(PATIENCE, watch).await else {
        return End::Again(Some(member));
    };
    let created = match timeout(PATIENCE, stream.message()).await {
        Ok(Ok(Some(message))) => message,
        _ => return End::Again(Some(member)),
    };
    // It may have been compacted between the first check and the watch.
    match check(place, *after).await {
        Err(error @ StoreError::Compacted(_)) => return End::Stop(error),
        Err(_) => return End::Again(Some(member)),
        Ok(()) => {}
    }
    let mut message = created;
    loop {
        if message.canceled() {
            if message.compact_revision() != 0 {
                return End::Stop(StoreError::Compacted(unsigned(message.compact_revision())));
            }
            return End::Again(Some(member));
        }
        for batch in batches_of(&message, place.record("").len()) {
            *after = batch.revision;
            if batches.send(Ok(batch)).await.is_err() {
                return End::Stop(StoreError::Unavailable("nobody reads the watch".to_owned()));
            }
        }
        if message.events().is_empty()
            && !message.created()
            && let Some(header) = message.header()
        {
            // Progress: there is nothing of this prefix up to here.
            *after = (*after).max(unsigned(header.revision()));
        }
        message = match next(&mut stream).await {
            Some(message) => message,
            None => return End::Again(Some(member)),
        };
    }
}

async fn next(stream: &mut WatchStream) -> Option<WatchResponse> {
    stream.message().await.ok().flatten()
}

/// A message has whole transactions, of which those are told together that have one revision.
fn batches_of(message: &WatchResponse, base: usize) -> Vec<Batch> {
    let mut batches = BTreeMap::<Revision, BTreeMap<Key, Option<Bytes>>>::new();
    for event in message.events() {
        let Some(kv) = event.kv() else {
            continue;
        };
        let name = String::from_utf8_lossy(&kv.key()[base..]).into_owned();
        let put = event.event_type() == EventType::Put;
        let value = put.then(|| Bytes::copy_from_slice(kv.value()));
        let changes = batches.entry(unsigned(kv.mod_revision())).or_default();
        changes.insert(Key(name), value);
    }
    let batch = |(revision, changes): (Revision, BTreeMap<Key, Option<Bytes>>)| Batch {
        revision,
        changes: changes.into_iter().collect(),
    };
    batches.into_iter().map(batch).collect()
}
