//! The view follows the store, and a change is made once, whatever goes wrong between them.

mod common;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::core::{Place, actor, name, rule};
use futures_util::StreamExt;
use tokio::sync::Notify;
use xdpgate_controller::core::{Command, Core, EffectKind, ErrorKind, Options};
use xdpgate_controller::domain::PolicyContent;
use xdpgate_controller::store::{
    CommitError, Digest, Key, Page, Record, Revision, Store, StoreError, Transaction, Watch,
};

/// A real store behind a connection that breaks.
#[derive(Debug)]
struct Breaking {
    store: Arc<dyn Store>,
    /// Ends the watches that go on.
    end: Arc<Notify>,
    /// How many of the next watches are refused.
    refuse: AtomicU32,
    /// How many of the next commits are made, but their answer is lost.
    lose_answer: AtomicU32,
    /// How many of the next commits are lost.
    lose_commit: AtomicU32,
}

fn one_of(counter: &AtomicU32) -> bool {
    let less = |left: u32| left.checked_sub(1);
    counter
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
        .is_ok()
}

#[async_trait]
impl Store for Breaking {
    fn epoch(&self) -> &str {
        self.store.epoch()
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        self.store.get(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        self.store.list(prefix, after, limit, at).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        let unknown = || CommitError::Unknown("the connection broke".to_owned());
        if one_of(&self.lose_commit) {
            return Err(unknown());
        }
        let revision = self.store.commit(transaction).await?;
        if one_of(&self.lose_answer) {
            return Err(unknown());
        }
        Ok(revision)
    }

    async fn watch(&self, after: Revision) -> Result<Watch, StoreError> {
        if one_of(&self.refuse) {
            return Err(StoreError::Unavailable("it is away".to_owned()));
        }
        let watch = self.store.watch(after).await?;
        let end = Arc::clone(&self.end);
        let ended = async move { end.notified().await };
        let error = futures_util::stream::once(async { Err(StoreError::Compacted(Revision(1))) });
        Ok(Box::pin(watch.take_until(Box::pin(ended)).chain(error)))
    }

    async fn put_chunks(&self, chunks: Vec<Bytes>) -> Result<Vec<Digest>, StoreError> {
        self.store.put_chunks(chunks).await
    }

    async fn chunk(&self, digest: Digest) -> Result<Option<Bytes>, StoreError> {
        self.store.chunk(digest).await
    }

    async fn sweep(&self, keep: &HashSet<Digest>, older: Duration) -> Result<u64, StoreError> {
        self.store.sweep(keep, older).await
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.store.compact(before).await
    }
}

/// A core whose connection breaks, one whose does not, over the same store, and what breaks it.
async fn pair() -> (Core, Core, Arc<Breaking>, Place) {
    let place = Place::new().await;
    let store = place.open().await;
    let breaking = Arc::new(Breaking {
        store: Arc::clone(&store),
        end: Arc::default(),
        refuse: AtomicU32::new(0),
        lose_answer: AtomicU32::new(0),
        lose_commit: AtomicU32::new(0),
    });
    let core = Core::open(Arc::clone(&breaking) as Arc<dyn Store>)
        .await
        .unwrap();
    let other = Core::open(store).await.unwrap();
    let content = PolicyContent::default();
    run(
        &other,
        Command::CreatePolicy {
            policy: name("web"),
            content,
        },
    )
    .await;
    (core, other, breaking, place)
}

async fn run(core: &Core, command: Command) -> EffectKind {
    let outcome = core
        .execute(&actor(), vec![command], &Options::default())
        .await
        .unwrap();
    outcome.effects.into_iter().next().unwrap().unwrap().kind
}

fn create(id: &str) -> Command {
    Command::CreateRule {
        policy: name("web"),
        rule: rule(&format!(
            "{{ id: {id}, match: {{ dport: 1 }}, action: drop }}"
        )),
    }
}

async fn has(core: &Core, rules: usize) {
    let mut views = core.watch();
    let seen = views.wait_for(|view| {
        view.policies()
            .get("web")
            .is_some_and(|policy| policy.rules.len() == rules)
    });
    tokio::time::timeout(Duration::from_secs(20), seen)
        .await
        .expect("in time")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_was_too_slow_begins_again_with_a_list() {
    let (core, other, breaking, _folder) = pair().await;
    has(&core, 0).await;
    run(&other, create("a")).await;
    has(&core, 1).await;
    breaking.refuse.store(3, Ordering::SeqCst);
    breaking.end.notify_waiters();
    run(&other, create("b")).await;
    let gone = Command::DeleteRule {
        policy: name("web"),
        rule: xdpgate::policy::RuleId::new("a").unwrap(),
    };
    run(&other, gone).await;
    run(&other, create("c")).await;
    has(&core, 2).await;
    let wanted = |core: &Core| core.view().policies()[&name("web")].clone();
    assert_eq!(wanted(&core), wanted(&other));
    // What is deleted while nobody looks is gone afterwards.
    breaking.refuse.store(2, Ordering::SeqCst);
    breaking.end.notify_waiters();
    run(
        &other,
        Command::DeletePolicy {
            policy: name("web"),
        },
    )
    .await;
    let mut views = core.watch();
    let gone = views.wait_for(|view| view.policies().is_empty());
    tokio::time::timeout(Duration::from_secs(20), gone)
        .await
        .expect("in time")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_whose_answer_was_lost_is_made_once() {
    let (core, other, breaking, _folder) = pair().await;
    breaking.lose_answer.store(1, Ordering::SeqCst);
    assert_eq!(
        run(&core, create("a")).await,
        EffectKind::Created,
        "it was made"
    );
    breaking.lose_commit.store(2, Ordering::SeqCst);
    assert_eq!(
        run(&core, create("b")).await,
        EffectKind::Created,
        "it was tried again"
    );
    has(&other, 2).await;
    assert_eq!(
        core.policy_versions(&name("web"), None, 10)
            .await
            .unwrap()
            .len(),
        3
    );
    let error = core
        .execute(&actor(), vec![create("a")], &Options::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::AlreadyExists);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_made_at_one_controller_is_there_at_the_next() {
    let (core, other, _, _folder) = pair().await;
    for i in 0..30 {
        let policy = name(&format!("p{i}"));
        let content = PolicyContent::default();
        run(
            &core,
            Command::CreatePolicy {
                policy: policy.clone(),
                content,
            },
        )
        .await;
        let rule = rule("{ id: r, match: { dport: 1 }, action: drop }");
        assert_eq!(
            run(&other, Command::CreateRule { policy, rule }).await,
            EffectKind::Created
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_changes_at_two_controllers_none_is_lost() {
    let (core, other, _, _folder) = pair().await;
    let mut tasks = Vec::new();
    for i in 0..40 {
        let core = if i % 2 == 0 {
            core.clone()
        } else {
            other.clone()
        };
        tasks.push(tokio::spawn(async move {
            run(&core, create(&format!("r{i}"))).await
        }));
    }
    for task in tasks {
        assert_eq!(task.await.unwrap(), EffectKind::Created);
    }
    has(&core, 40).await;
    has(&other, 40).await;
    let versions = core.policy_versions(&name("web"), None, 100).await.unwrap();
    assert_eq!(versions.len(), 41, "each is a version");
}
