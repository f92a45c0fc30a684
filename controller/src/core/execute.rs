//! Commands into transactions.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;
use xdpgate::Plan;
use xdpgate::policy::EntryCounters;

use super::contents::{save_entries, save_rules};
use super::draft::{Drafted, Ground, draft};
use super::profile::Profile;
use super::records::{
    Done, Kind, MODE, ModeRecord, PolicyRecord, SEQUENCE, SetRecord, decode, done_key, encode, key,
};
use super::{
    Actor, Command, CommandError, Core, Effect, ErrorKind, Options, Outcome, ProfilePlan, View,
    audit,
};
use crate::content::ContentError;
use crate::domain::{Name, Touch};
use crate::store::{CommitError, Key, Revision, Transaction};

/// The most commands that are made together.
pub const MAX_COMMANDS: usize = 1000;
/// How often a change is tried while others change what it read.
const ATTEMPTS: u32 = 24;
/// How long the view may take to see a transaction.
const CATCH_UP: Duration = Duration::from_secs(10);
/// How many words an audit entry and a version have.
const WORDS: usize = 20;
/// The longest idempotency key and reason, in bytes.
const MAX_TEXT: usize = 1024;

/// What commands did.
type Effects = Vec<Result<Effect, CommandError>>;

impl Core {
    /// Makes changes, as one transaction. When it returns, the [view](Core::view) has them.
    ///
    /// # Errors
    /// The first command that was refused, and nothing is changed; with `partial` those are in the outcome.
    pub async fn execute(
        &self,
        actor: &Actor,
        commands: Vec<Command>,
        options: &Options,
    ) -> Result<Outcome, CommandError> {
        self.execute_at(Timestamp::now(), actor, commands, options)
            .await
    }

    /// [`Core::execute`], at a given time.
    ///
    /// # Errors
    /// Likewise.
    pub async fn execute_at(
        &self,
        now: Timestamp,
        actor: &Actor,
        commands: Vec<Command>,
        options: &Options,
    ) -> Result<Outcome, CommandError> {
        check(&commands, options)?;
        let request = Request {
            now,
            actor,
            digest: digest(&commands, options),
            commands: Arc::new(commands),
            options,
        };
        // One after the other: those of one controller need not get into each other's way.
        let _turn = self.0.turn.lock().await;
        let mut unsure: Vec<(Key, Effects)> = Vec::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                let most = 5_u64 << attempt.min(6);
                let pause = rand::random_range(0..=most);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            if let Some(outcome) = self.was_made(&unsure).await? {
                return Ok(outcome);
            }
            if let Some(outcome) = self.answered(&request).await? {
                return Ok(outcome);
            }
            let view = self.view();
            let drafted = match self.drafted(&view, &request).await {
                Ok(drafted) if drafted.effects.iter().all(Result::is_ok) => drafted,
                // What was refused may be right by what another controller changed a moment ago.
                _ if self.is_behind(&view).await? => {
                    self.catch_up(view.revision).await?;
                    continue;
                }
                drafted => drafted?,
            };
            if options.dry_run {
                return self.planned(view, drafted).await;
            }
            if drafted.is_empty() && options.idempotency_key.is_none() {
                return Ok(Outcome {
                    revision: view.revision,
                    effects: drafted.effects,
                    repeated: false,
                    plans: Vec::new(),
                });
            }
            let (transaction, entry) = self.transaction(&view, &drafted, &request).await?;
            match self.0.store.commit(transaction).await {
                Ok(revision) => return Ok(self.made(revision, drafted.effects).await),
                Err(CommitError::Conflict(key)) => {
                    if let Some((of, _)) = &options.on_behalf
                        && *of == key
                    {
                        let reason = "it was changed or deleted meanwhile";
                        return Err(CommandError::new(ErrorKind::Conflict, of.as_str(), reason));
                    }
                    self.catch_up(view.revision).await?;
                }
                Err(CommitError::Unknown(_)) => unsure.push((entry, drafted.effects)),
                Err(error @ CommitError::TooLarge(_)) => {
                    let error = CommandError::from(error);
                    return Err(
                        error.mend("change fewer policies, sets, groups and nodes at a time")
                    );
                }
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(outcome) = self.was_made(&unsure).await? {
            return Ok(outcome);
        }
        let reason = "others change what this change is about all the time";
        Err(CommandError::new(ErrorKind::Conflict, "", reason).mend("try it again"))
    }

    /// What became of transactions whose answers were lost: their audit entries tell.
    async fn was_made(&self, unsure: &[(Key, Effects)]) -> Result<Option<Outcome>, CommandError> {
        for (entry, effects) in unsure {
            let record = self.0.store.get(entry).await.map_err(|error| {
                let reason = format!("it is not known whether the change was made: {error}");
                let error = CommandError::new(ErrorKind::Unavailable, "", reason);
                error.mend("look at what is there now, or repeat it with the same idempotency key")
            })?;
            if let Some(record) = record {
                return Ok(Some(self.made(record.revision, effects.clone()).await));
            }
        }
        Ok(None)
    }

    /// The answer of an earlier request with the same idempotency key.
    async fn answered(&self, request: &Request<'_>) -> Result<Option<Outcome>, CommandError> {
        let Some(done) = request.done_key().filter(|_| !request.options.dry_run) else {
            return Ok(None);
        };
        let Some(record) = self.0.store.get(&done).await? else {
            return Ok(None);
        };
        let unreadable = |reason| CommandError::new(ErrorKind::Unavailable, done.as_str(), reason);
        let done: Done = decode(&record.value).map_err(unreadable)?;
        if done.request != request.digest {
            let reason = "this idempotency key was used for another request";
            let error = CommandError::new(ErrorKind::Conflict, "", reason);
            return Err(error
                .field("idempotency_key")
                .mend("use a new key for each request"));
        }
        Ok(Some(Outcome {
            revision: record.revision,
            effects: done.effects,
            repeated: true,
            plans: Vec::new(),
        }))
    }

    async fn drafted(
        &self,
        view: &Arc<View>,
        request: &Request<'_>,
    ) -> Result<Drafted, CommandError> {
        let past = self.past(view, &request.commands).await?;
        let (view, effectives) = (Arc::clone(view), Arc::clone(&self.0.effectives));
        let (commands, options) = (Arc::clone(&request.commands), request.options.clone());
        let (touch, now) = (request.touch(), request.now);
        let drafted = spawn_blocking(move || {
            let ground = Ground {
                view: &view,
                past: &past,
                now,
                touch,
            };
            draft(&ground, &commands, &options, &effectives)
        });
        drafted.await.map_err(stopped)?
    }

    /// Whether the store has changes of what nodes shall have that the view has not.
    async fn is_behind(&self, view: &View) -> Result<bool, CommandError> {
        let sequence = self.0.store.get(&key(SEQUENCE)).await?;
        Ok(sequence.is_some_and(|record| record.revision > view.sequence))
    }

    /// What would change at the nodes.
    async fn planned(&self, before: Arc<View>, drafted: Drafted) -> Result<Outcome, CommandError> {
        let planned = spawn_blocking(move || Outcome {
            revision: before.revision,
            plans: plans(&before, &drafted.after),
            effects: drafted.effects,
            repeated: false,
        });
        planned.await.map_err(stopped)
    }

    /// The outcome of a transaction, once the view has it.
    async fn made(&self, revision: Revision, effects: Effects) -> Outcome {
        let mut seen = self.0.seen.subscribe();
        let caught_up = seen.wait_for(|seen| *seen >= revision);
        if tokio::time::timeout(CATCH_UP, caught_up).await.is_err() {
            log::warn!(revision = revision.0; "a change is stored, but the view has not seen it yet");
        }
        Outcome {
            revision,
            effects,
            repeated: false,
            plans: Vec::new(),
        }
    }

    /// Waits until the view is newer.
    async fn catch_up(&self, than: Revision) -> Result<(), CommandError> {
        let mut seen = self.0.seen.subscribe();
        let newer = seen.wait_for(|seen| *seen > than);
        match tokio::time::timeout(CATCH_UP, newer).await {
            Ok(_) => Ok(()),
            Err(_) => {
                let reason = "the view does not follow the store";
                Err(CommandError::new(ErrorKind::Unavailable, "", reason)
                    .mend("try it again later"))
            }
        }
    }

    /// The transaction, and the key of its audit entry. Its chunks are stored when this returns.
    async fn transaction(
        &self,
        view: &View,
        drafted: &Drafted,
        request: &Request<'_>,
    ) -> Result<(Transaction, Key), CommandError> {
        let mut transaction = Transaction::default();
        let mut write = |key: Key, value: Option<Bytes>| transaction.write.push((key, value));
        for (name, policy) in &drafted.policies {
            let thing = (Kind::Policy, name.clone());
            let old = view.policies.get(name);
            let content = view.content(Kind::Policy, name);
            let kept = content.zip(old.map(|old| &old.rules));
            let (state, deleted) = match (policy, old) {
                (Some(policy), _) => (policy, false),
                (None, Some(old)) => (old, true),
                (None, None) => continue,
            };
            let saved = save_rules(&self.0.contents, kept, &state.rules).await;
            let record = PolicyRecord {
                version: state.version + u64::from(deleted),
                comment: state.comment.clone(),
                settings: state.settings.clone(),
                rules: saved.map_err(|error| unsaved(error, thing.0.key(name).as_str()))?,
                created: state.created.clone(),
                updated: request.touch(),
                changed: some(drafted.words.get(&thing)),
                deleted,
            };
            let value = encode(&record);
            write(
                Kind::Policy.version_key(name, record.version),
                Some(value.clone()),
            );
            write(Kind::Policy.key(name), Some(value).filter(|_| !deleted));
        }
        for (name, set) in &drafted.sets {
            let thing = (Kind::Set, name.clone());
            let old = view.sets.get(name);
            let content = view.content(Kind::Set, name);
            let kept = content.zip(old.map(|old| old.entries.as_ref()));
            let (state, deleted) = match (set, old) {
                (Some(set), _) => (set, false),
                (None, Some(old)) => (old, true),
                (None, None) => continue,
            };
            let saved = save_entries(&self.0.contents, kept, &state.entries).await;
            let record = SetRecord {
                version: state.version + u64::from(deleted),
                comment: state.comment.clone(),
                default_expiry: state.default_expiry,
                count_entries: state.counters() == EntryCounters::Entry,
                entries: saved.map_err(|error| unsaved(error, thing.0.key(name).as_str()))?,
                created: state.created.clone(),
                updated: request.touch(),
                changed: some(drafted.words.get(&thing)),
                deleted,
            };
            let value = encode(&record);
            write(
                Kind::Set.version_key(name, record.version),
                Some(value.clone()),
            );
            write(Kind::Set.key(name), Some(value).filter(|_| !deleted));
        }
        for (name, group) in &drafted.groups {
            write(Kind::Group.key(name), group.as_deref().map(encode));
        }
        for (name, node) in &drafted.nodes {
            write(Kind::Node.key(name), node.as_deref().map(encode));
        }
        for (name, rollout) in &drafted.rollouts {
            write(Kind::Rollout.key(name), rollout.as_deref().map(encode));
        }
        for (name, plan) in &drafted.plans {
            write(Kind::Plan.key(name), plan.as_deref().map(encode));
        }
        if let Some(mode) = drafted.mode {
            let updated = request.touch();
            write(key(MODE), Some(encode(&ModeRecord { mode, updated })));
        }
        if let Some(done) = request.done_key() {
            let answer = Done {
                request: request.digest.clone(),
                at: request.now,
                effects: drafted.effects.clone(),
            };
            write(done, Some(encode(&answer)));
        }
        if let Some((of, revision)) = &request.options.on_behalf {
            transaction.expect.push((of.clone(), Some(*revision)));
        }
        let (entry, value) = request.audit(drafted);
        write(entry.clone(), Some(value));
        if drafted.changes_state {
            write(key(SEQUENCE), Some("{}".into()));
            let was = Some(view.sequence).filter(|was| was.0 > 0);
            transaction.expect.push((key(SEQUENCE), was));
        }
        for name in drafted.plans.keys() {
            let was = view.heads.revisions.get(&(Kind::Plan, name.clone()));
            transaction
                .expect
                .push((Kind::Plan.key(name), was.copied()));
        }
        // Nodes are also changed by what does not touch the sequence.
        for name in drafted.nodes.keys() {
            let was = view.heads.revisions.get(&(Kind::Node, name.clone()));
            transaction
                .expect
                .push((Kind::Node.key(name), was.copied()));
        }
        transaction
            .expect
            .extend(request.done_key().map(|done| (done, None)));
        Ok((transaction, entry))
    }
}

/// What is asked for.
struct Request<'a> {
    now: Timestamp,
    actor: &'a Actor,
    digest: String,
    commands: Arc<Vec<Command>>,
    options: &'a Options,
}

impl Request<'_> {
    fn touch(&self) -> Touch {
        Touch {
            by: self.actor.name.clone(),
            at: self.now,
            why: self.options.why.clone(),
        }
    }

    fn done_key(&self) -> Option<Key> {
        let key = self.options.idempotency_key.as_ref()?;
        Some(done_key(&self.actor.name, key))
    }

    /// The audit entry.
    fn audit(&self, drafted: &Drafted) -> (Key, Bytes) {
        let first = self.commands.first();
        let action = first.map_or("", Command::action);
        let same_action = self
            .commands
            .iter()
            .all(|command| command.action() == action);
        let mut object = first.map(Command::object).unwrap_or_default();
        if self
            .commands
            .iter()
            .any(|command| command.object() != object)
        {
            let owner = first.and_then(Command::owner);
            let same_owner = self.commands.iter().all(|command| command.owner() == owner);
            let owner = owner.filter(|_| same_owner);
            object = owner.map_or(String::new(), |(kind, name)| {
                format!("{}/{name}", kind.word())
            });
        }
        let words = drafted.words.iter().flat_map(|((kind, name), words)| {
            words
                .iter()
                .map(move |word| format!("{} {name}: {word}", kind.word()))
        });
        let mode = drafted.mode.map(|mode| match mode {
            Some(mode) => format!("all nodes: {mode}"),
            None => "all nodes: as their groups say".to_owned(),
        });
        let words: Vec<String> = words.chain(mode).collect();
        let refused = drafted
            .effects
            .iter()
            .filter(|effect| effect.is_err())
            .count();
        let detail = json!({
            "changed": some(Some(&words)),
            "refused": refused,
            "why": self.options.why,
        });
        let action = if same_action { action } else { "batch" };
        audit::entry_at(self.now, self.actor, action, &object, detail)
    }
}

fn check(commands: &[Command], options: &Options) -> Result<(), CommandError> {
    let count = commands.len();
    if count > MAX_COMMANDS {
        let reason = format!("{count} changes: at most {MAX_COMMANDS} are made together");
        let mend = "send several batches; a policy can be put whole, and entries of a set be added by the million at once";
        return Err(CommandError::new(ErrorKind::TooLarge, "", reason).mend(mend));
    }
    if count == 0 {
        return Err(CommandError::new(
            ErrorKind::Invalid,
            "",
            "there is nothing to do",
        ));
    }
    let key = options.idempotency_key.as_deref().unwrap_or("-");
    for (field, text, least) in [("idempotency_key", key, 1), ("why", &options.why, 0)] {
        if !(least..=MAX_TEXT).contains(&text.len()) {
            let reason = format!("{} bytes: {least} to {MAX_TEXT} are allowed", text.len());
            return Err(CommandError::new(ErrorKind::Invalid, "", reason).field(field));
        }
    }
    Ok(())
}

/// Of all that a request says.
fn digest(commands: &[Command], options: &Options) -> String {
    struct Hashed(Sha256);
    impl std::fmt::Write for Hashed {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.update(text);
            Ok(())
        }
    }
    if options.idempotency_key.is_none() {
        return String::new();
    }
    let mut hashed = Hashed(Sha256::new());
    // Hashing does not fail.
    let _ = write!(
        hashed,
        "{commands:?} {:?} {}",
        options.expect, options.partial
    );
    let digest: [u8; 32] = hashed.0.finalize().into();
    crate::store::Digest(digest).to_string()
}

/// The first of many words.
fn some(words: Option<&Vec<String>>) -> Vec<String> {
    let words = words.map(Vec::as_slice).unwrap_or_default();
    let mut some = words[..words.len().min(WORDS)].to_vec();
    if words.len() > WORDS {
        some.push(format!("and {} more", words.len() - WORDS));
    }
    some
}

/// What changes for nodes, by the profile that they had and the one that they get.
fn plans(before: &View, after: &View) -> Vec<ProfilePlan> {
    let mut nodes: HashMap<(Option<&Arc<Profile>>, &Arc<Profile>), usize> = HashMap::new();
    if Arc::ptr_eq(&before.profiles, &after.profiles) {
        let same = after.profiles.nodes.iter();
        nodes.extend(same.map(|(profile, many)| ((Some(profile), profile), *many)));
    } else {
        for (node, profile) in after.profiles.of_node.iter() {
            *nodes
                .entry((before.profiles.of_node.get(node), profile))
                .or_default() += 1;
        }
    }
    let mut plans: Vec<_> = nodes
        .into_iter()
        .filter_map(|((old, new), nodes)| {
            let desired = |view: &View, profile| view.wanted.get(profile)?.good.clone();
            let old = old.and_then(|profile| desired(before, profile));
            let new = desired(after, new)?;
            let same = old
                .as_ref()
                .is_some_and(|old| old.hash == new.hash && old.mode == new.mode);
            let policies: Vec<Name> = new.policies.iter().map(|(name, _)| name.clone()).collect();
            (!same).then(|| ProfilePlan {
                policies,
                nodes,
                plan: Plan::between(old.as_ref().map(|old| old.policy.as_ref()), &new.policy),
                mode: (old.and_then(|old| old.mode), new.mode),
            })
        })
        .collect();
    plans.sort_by(|a, b| (b.nodes, &a.policies).cmp(&(a.nodes, &b.policies)));
    plans
}

fn unsaved(error: ContentError, object: &str) -> CommandError {
    match error {
        ContentError::Store(error) => error.into(),
        error => CommandError::new(ErrorKind::TooLarge, object, error.to_string()),
    }
}

fn stopped(error: tokio::task::JoinError) -> CommandError {
    CommandError::new(ErrorKind::Unavailable, "", error.to_string())
}
