//! Takes the steps of rollouts. It runs on every controller; whichever is first makes a step, by one
//! compare-and-swap of the record, and for the others there is nothing left to do.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::change::short;
use super::status::{Status, Statuses, Times, Together};
use super::tracker::{Glance, Observer, Tracker};
use super::{Change, Observed, Rollout, Step, is_taken, step};
use crate::core::{Actor, Command, CommandError, Core, ErrorKind, Options, Things, View};
use crate::domain::{Name, NodeId, Role};
use crate::store::{CommitError, Key, Transaction};

const PREFIX: &str = "rollout-status/";
/// The least time between two looks, however often the view changes.
const PAUSE: Duration = Duration::from_millis(50);

/// How rollouts are taken further.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name of this controller, the same one after a restart, and of no other controller.
    pub controller: Name,
    /// How often the nodes are looked at.
    pub every: Duration,
    /// How often the record of what was seen is renewed, where nothing changes.
    pub renew: Duration,
    /// A record of another controller that does not change for this time is of one that is gone.
    pub expire: Duration,
    /// A node whose link is gone for this time is lost.
    pub lost_after: Duration,
    /// No stage ends before a new rollout was looked at for this time, so that all controllers have.
    pub look: Duration,
    /// The same for rollouts that run when the controller starts: its nodes are on their way back to it. Nodes of a controller
    /// that is gone have this time too.
    pub settle: Duration,
}

impl Config {
    /// What serves a fleet well.
    pub fn new(controller: Name) -> Self {
        Self {
            controller,
            every: Duration::from_secs(2),
            renew: Duration::from_secs(5),
            expire: Duration::from_secs(15),
            lost_after: Duration::from_secs(20),
            look: Duration::from_secs(5),
            settle: Duration::from_secs(60),
        }
    }
}

/// What is seen of a rollout that goes on.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Look {
    /// The nodes, as all controllers see them together.
    pub observed: Observed,
    /// What it waits for; for people.
    pub waits: String,
}

/// What is seen of the rollouts that go on, by their ids.
pub type Looks = Arc<BTreeMap<String, Look>>;

/// Takes rollouts further.
pub struct Executor {
    core: Core,
    observer: Arc<dyn Observer>,
    config: Config,
    rollouts: HashMap<String, One>,
    looks: watch::Sender<Looks>,
    started: Instant,
    /// Records of rollouts that are over may be left.
    litter: bool,
    /// Records of rollouts that the view did not have at the last look: it may have been behind.
    unknown: HashSet<Key>,
}

/// What is remembered of a rollout that goes on.
struct One {
    tracker: Tracker,
    statuses: Statuses,
    published: Option<(Status, Instant)>,
    beat: u64,
    /// The stage and since when all of its nodes that are here have it.
    taken: Option<(usize, Timestamp)>,
    /// The nodes that have the new version as theirs, as of this sequence.
    reached: HashSet<NodeId>,
    as_of: Option<u64>,
}

impl Executor {
    /// Begins with nothing seen yet.
    pub fn new(core: Core, observer: Arc<dyn Observer>, config: Config) -> Self {
        Self {
            core,
            observer,
            config,
            rollouts: HashMap::new(),
            looks: watch::Sender::default(),
            started: Instant::now(),
            litter: true,
            unknown: HashSet::new(),
        }
    }

    /// What is seen, as it changes.
    pub fn looks(&self) -> watch::Receiver<Looks> {
        self.looks.subscribe()
    }

    /// Works until it is dropped.
    pub async fn run(mut self) {
        let mut views = self.core.watch();
        let mut ticks = interval(self.config.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen: Things<Rollout> = Arc::default();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                changed = views.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // Of other changes the next tick is soon enough.
                    if Arc::ptr_eq(views.borrow_and_update().shared_rollouts(), &seen) {
                        continue;
                    }
                    tokio::time::sleep(PAUSE).await;
                    views.mark_unchanged();
                }
            }
            seen = Arc::clone(self.core.view().shared_rollouts());
            if let Err(error) = self.look(Timestamp::now(), Instant::now()).await {
                log::warn!(error:% = error; "rollouts stand still until the store answers");
            }
        }
    }

    /// Looks at the nodes once, says what is seen, and makes the steps that are due.
    ///
    /// One that cannot be taken further holds up no other: it says why.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn look(&mut self, time: Timestamp, now: Instant) -> Result<(), CommandError> {
        let view = self.core.view();
        let all = view.rollouts().values();
        let active: Vec<Arc<Rollout>> = all.filter(|one| one.is_active()).cloned().collect();
        self.rollouts
            .retain(|id, _| active.iter().any(|rollout| rollout.id == *id));
        self.looks.send_if_modified(|looks| {
            let over = |id: &String| !active.iter().any(|rollout| rollout.id == *id);
            let any = looks.keys().any(over);
            if any {
                Arc::make_mut(looks).retain(|id, _| !over(id));
            }
            any
        });
        if active.is_empty() && !self.litter {
            return Ok(());
        }
        self.hear(&view, &active, now).await?;
        for rollout in &active {
            if let Err(error) = self.take_further(&view, rollout, time, now).await {
                log::warn!(rollout = rollout.id.as_str(); "it cannot be taken further: {error}");
                self.looks.send_modify(|looks| {
                    let look = Arc::make_mut(looks).entry(rollout.id.clone());
                    look.or_default().waits = format!("it cannot be taken further: {error}");
                });
            }
        }
        Ok(())
    }

    /// Reads what all controllers saw, and deletes what is of rollouts that are over.
    async fn hear(
        &mut self,
        view: &View,
        active: &[Arc<Rollout>],
        now: Instant,
    ) -> Result<(), CommandError> {
        let mut heard: HashMap<String, Vec<_>> = HashMap::new();
        let mut litter = Vec::new();
        let mut unknown = HashSet::new();
        let mut after: Option<Key> = None;
        loop {
            let store = self.core.store();
            let page = store.list(PREFIX, after.as_ref(), 1000, None).await?;
            after = page.records.last().map(|(key, _)| key.clone());
            for (key, record) in page.records {
                let parts = key.as_str().strip_prefix(PREFIX);
                let Some((id, controller)) = parts.and_then(|parts| parts.split_once('/')) else {
                    continue;
                };
                if !active.iter().any(|rollout| rollout.id == id) {
                    // One that is not in the view may be newer than the view.
                    match view.rollouts().contains_key(id) || self.unknown.contains(&key) {
                        true => litter.push((key, record.revision)),
                        false => drop(unknown.insert(key)),
                    }
                    continue;
                }
                // Another version of this program may write another form: then it counts as not having looked.
                let status = serde_json::from_slice(&record.value).unwrap_or_default();
                let one = (controller.to_owned(), record.revision, status);
                heard.entry(id.to_owned()).or_default().push(one);
            }
            if !page.more {
                break;
            }
        }
        for rollout in active {
            let records = heard.remove(&rollout.id).unwrap_or_default();
            let one = self
                .rollouts
                .entry(rollout.id.clone())
                .or_insert_with(|| One {
                    tracker: Tracker::new(now),
                    statuses: Statuses::default(),
                    published: None,
                    beat: 0,
                    taken: None,
                    reached: HashSet::new(),
                    as_of: None,
                });
            one.statuses.hear(records, now);
        }
        self.litter = !active.is_empty() || !unknown.is_empty();
        self.unknown = unknown;
        for records in litter.chunks(crate::store::MAX_OPERATIONS) {
            let expect = records.iter().map(|(key, at)| (key.clone(), Some(*at)));
            let transaction = Transaction {
                expect: expect.collect(),
                write: records.iter().map(|(key, _)| (key.clone(), None)).collect(),
            };
            match self.core.store().commit(transaction).await {
                // Whoever wrote it meanwhile deletes it, or the next look does.
                Ok(_) | Err(CommitError::Conflict(_) | CommitError::Unknown(_)) => (),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn take_further(
        &mut self,
        view: &View,
        rollout: &Rollout,
        time: Timestamp,
        now: Instant,
    ) -> Result<(), CommandError> {
        let Some(one) = self.rollouts.get_mut(&rollout.id) else {
            return Ok(());
        };
        let config = &self.config;
        let me = config.controller.as_str();
        if one.as_of != Some(view.sequence()) {
            one.reached = reached(view, rollout);
            one.as_of = Some(view.sequence());
        }
        let asked = one.statuses.asked(me, now, config.expire);
        let glance = Glance {
            rollout,
            reached: &one.reached,
            records: view.nodes(),
            asked: &asked,
            shares: &one.statuses.shares(),
            now,
        };
        let sights = self.observer.sights(&rollout.policy);
        let mut status = one.tracker.look(sights, &glance);
        let times = Times {
            now,
            expire: config.expire,
            settle: config.settle,
            lost_after: config.lost_after,
        };
        one.statuses
            .returning(me, &mut status, &one.tracker, &times);
        let counts = |id: &NodeId| {
            let node = view.nodes().get(id);
            one.reached.contains(id) && node.is_some_and(|node| !node.maintenance)
        };
        let Together {
            mut observed,
            waits,
        } = one.statuses.together(me, &status, rollout, &times, counts);
        let all = one.reached.len() as u64;
        observed.offline = all.saturating_sub(observed.reached);

        // Paused, too: others would take this controller for gone at the resume.
        let (due, unlike) = match &one.published {
            Some((last, at)) => (now.duration_since(*at) >= config.renew, !last.says(&status)),
            None => (true, true),
        };
        if due || unlike {
            one.beat += 1;
            status.beat = one.beat;
            publish(&self.core, &rollout.id, me, &status).await?;
            one.published = Some((status, now));
        }

        // A rollout that ran before this controller did may have nodes that are on their way back.
        let ran_before = one.tracker.began.duration_since(self.started) < config.look;
        let least = if ran_before {
            config.settle
        } else {
            config.look
        };
        let looked = now.duration_since(one.tracker.began);
        let wait = match looked < least {
            true => Some("the nodes are looked at for a moment first".to_owned()),
            false => waits,
        };
        let text = |step: &Step| match (step, &wait) {
            (Step::Wait(text), _) => text.clone(),
            (_, Some(text)) => text.clone(),
            _ => String::new(),
        };
        one.taken = match (is_taken(rollout, &observed), one.taken) {
            (false, _) => None,
            (true, Some(taken)) if taken.0 == rollout.stage => Some(taken),
            (true, _) => Some((rollout.stage, time)),
        };
        let next = step(rollout, &observed, one.taken.map(|(_, since)| since), time);
        let look = Look {
            waits: text(&next),
            observed: observed.clone(),
        };
        self.looks.send_if_modified(|looks| {
            let same = looks.get(&rollout.id) == Some(&look);
            if !same {
                Arc::make_mut(looks).insert(rollout.id.clone(), look);
            }
            !same
        });
        let change = match next {
            Step::RollBack(trouble) => Change::RollBack(trouble, observed),
            Step::Advance if wait.is_none() => Change::Advance(rollout.stage, observed),
            Step::Finish if wait.is_none() => Change::Finish(rollout.stage, observed),
            Step::Wait(_) | Step::Advance | Step::Finish => return Ok(()),
        };
        make(&self.core, rollout, change, time).await
    }
}

/// Makes a step, if nobody else made one since this one looked.
async fn make(
    core: &Core,
    rollout: &Rollout,
    change: Change,
    time: Timestamp,
) -> Result<(), CommandError> {
    let Ok(name) = Name::new(&rollout.id) else {
        return Ok(());
    };
    let why = match &change {
        Change::RollBack(trouble, _) => trouble.to_string(),
        Change::Advance(_, o) | Change::Finish(_, o) => {
            let Observed {
                applied, reached, ..
            } = o;
            format!("{applied} of {reached} nodes have it and are well")
        }
        _ => String::new(),
    };
    let why = short(&why);
    let options = Options {
        expect: Some(rollout.version),
        why: why.clone(),
        ..Options::default()
    };
    let actor = Actor {
        name: "rollout".to_owned(),
        role: Role::Operator,
        origin: "local".to_owned(),
    };
    let word = format!("{change:?}");
    let word = word.split('(').next().unwrap_or_default().to_lowercase();
    let rolls_back = matches!(change, Change::RollBack(..));
    let command = Command::ChangeRollout {
        rollout: name,
        change,
    };
    match core.execute_at(time, &actor, vec![command], &options).await {
        Ok(_) if rolls_back => {
            log::warn!(rollout = rollout.id.as_str(); "rolled back to version {}: {why}", rollout.from);
            Ok(())
        }
        Ok(_) => {
            log::info!(rollout = rollout.id.as_str(); "{word} from stage {}: {why}", rollout.stage + 1);
            Ok(())
        }
        // Another controller was first, or somebody paused or aborted it.
        Err(error) if error.kind == ErrorKind::Conflict => Ok(()),
        Err(error) => Err(error),
    }
}

/// The nodes that have the new version as theirs.
fn reached(view: &View, rollout: &Rollout) -> HashSet<NodeId> {
    let has_it = |id: &NodeId| {
        let profile = view.profile(id)?;
        let mut policies = profile.policies.iter();
        let (_, version) = policies.find(|(name, _)| name.as_str() == rollout.policy)?;
        (*version == Some(rollout.to)).then_some(())
    };
    let nodes = view.nodes().iter().filter(|(_, node)| !node.revoked);
    nodes
        .filter(|(id, _)| has_it(id).is_some())
        .map(|(id, _)| id.clone())
        .collect()
}

async fn publish(core: &Core, id: &str, me: &str, status: &Status) -> Result<(), CommandError> {
    let Some(key) = Key::new(format!("{PREFIX}{id}/{me}")) else {
        return Ok(());
    };
    let value = serde_json::to_vec(status).map_err(|error| {
        CommandError::new(
            ErrorKind::Invalid,
            format!("rollout/{id}"),
            error.to_string(),
        )
    })?;
    let transaction = Transaction {
        expect: Vec::new(),
        write: vec![(key, Some(value.into()))],
    };
    match core.store().commit(transaction).await {
        // If it is there after all, the next one is told apart by its beat.
        Ok(_) | Err(CommitError::Unknown(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Executor");
        debug.field("config", &self.config).finish_non_exhaustive()
    }
}
