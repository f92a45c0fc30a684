//! Nodes that do as they are told by a test, seen by executors over a real core and store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use xdpgate_controller::core::{Command, Core, EffectKind, Options, PlanChoice};
use xdpgate_controller::rollout::{
    Answer, Config, Executor, Observer, Plan, Planned, PlannedStage, Rollout, Sight, What,
};

use super::core::{actor, name, rule};

/// How a node behaves.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    pub away: bool,
    /// It does not answer.
    pub hangs: bool,
    /// It refuses this version.
    pub refuses: Option<u64>,
    /// It breaks with this version.
    pub breaks: Option<u64>,
    /// Percent of frames that it drops, and with which version another share.
    pub drops: u64,
    pub drops_with: Option<(u64, u64)>,
    frames: u64,
    dropped: u64,
}

/// Nodes of one controller. Each look lets 10,000 frames pass each.
#[derive(Debug)]
pub struct Nodes {
    core: Core,
    all: Mutex<BTreeMap<String, Behaviour>>,
}

impl Nodes {
    pub fn new(core: &Core, names: impl IntoIterator<Item = String>) -> Arc<Self> {
        let all = names.into_iter().map(|one| (one, Behaviour::default()));
        Arc::new(Self {
            core: core.clone(),
            all: Mutex::new(all.collect()),
        })
    }

    pub fn set(&self, node: &str, change: impl FnOnce(&mut Behaviour)) {
        let mut all = self.all.lock().expect("no test holds it");
        change(all.entry(node.to_owned()).or_default());
    }

    pub fn take(&self, node: &str) {
        self.all.lock().expect("no test holds it").remove(node);
    }
}

impl Observer for Nodes {
    fn sights(&self, policy: &str) -> Vec<Sight> {
        let view = self.core.view();
        let mut all = self.all.lock().expect("no test holds it");
        let sights = all.iter_mut().map(|(id, node)| {
            let desired = view.desired(&name(id));
            let mut policies = desired.iter().flat_map(|desired| &desired.policies);
            let version = policies.find(|(name, _)| name.as_str() == policy);
            let version = version.map(|(_, version)| *version);
            let percent = match node.drops_with {
                Some((with, percent)) if version == Some(with) => percent,
                _ => node.drops,
            };
            if !node.away {
                node.frames += 10_000;
                node.dropped += 100 * percent;
            }
            let has = |which: Option<u64>| which.is_some() && which == version;
            Sight {
                node: name(id),
                online: !node.away,
                version,
                answer: match () {
                    () if node.hangs => Answer::Pending,
                    () if has(node.refuses) => Answer::Refused("no such thing here".to_owned()),
                    () => Answer::Applied,
                },
                broken: has(node.breaks).then(|| "the program is not attached".to_owned()),
                frames: node.frames,
                dropped: node.dropped,
            }
        });
        sights.collect()
    }
}

/// An executor whose time is what the test says.
pub struct Clock {
    pub executor: Executor,
    began: Instant,
    pub seconds: u64,
}

impl Clock {
    pub fn new(core: &Core, nodes: &Arc<Nodes>, controller: &str) -> Self {
        let config = Config::new(name(controller));
        let observer: Arc<dyn Observer> = nodes.clone();
        Self {
            executor: Executor::new(core.clone(), observer, config),
            began: Instant::now(),
            seconds: 0,
        }
    }

    /// Looks every 2 s for so long.
    pub async fn pass(&mut self, seconds: u64) {
        let end = self.seconds + seconds;
        loop {
            self.look().await;
            if self.seconds >= end {
                return;
            }
            self.seconds += 2;
        }
    }

    pub async fn look(&mut self) {
        let now = self.began + Duration::from_secs(self.seconds);
        let time = at(self.seconds);
        let looked = self.executor.look(time, now).await;
        looked.expect("the store is there");
    }
}

pub fn at(seconds: u64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_000_000 + seconds as i64)
}

/// Stages that bake this long each but the last one, which reaches all.
pub fn plan(stages: &[Planned], bake_seconds: u32) -> Plan {
    let stage = |reach: &Planned| PlannedStage {
        reach: reach.clone(),
        bake_seconds,
    };
    let mut stages: Vec<_> = stages.iter().map(stage).collect();
    stages.push(PlannedStage {
        reach: Planned::All,
        bake_seconds: 0,
    });
    Plan {
        stages,
        gates: Default::default(),
    }
}

/// Puts a rule into policy `web`, and rolls that out, in one transaction.
pub async fn start(core: &Core, seconds: u64, id: &str, rule_id: &str, plan: Plan) {
    let text = format!("{{ id: {rule_id}, match: {{ src: 192.0.2.7 }}, action: drop }}");
    let commands = vec![
        Command::PutRule {
            policy: name("web"),
            rule: rule(&text),
        },
        Command::StartRollout {
            rollout: name(id),
            policy: name("web"),
            plan: PlanChoice::Given(plan),
        },
    ];
    let options = Options::default();
    let outcome = core
        .execute_at(at(seconds), &actor(), commands, &options)
        .await;
    let effects = outcome.expect("it starts").effects;
    assert_eq!(effects[1].as_ref().unwrap().kind, EffectKind::Created);
}

pub fn rollout(core: &Core, id: &str) -> Arc<Rollout> {
    core.view().rollouts()[&name(id)].clone()
}

pub fn history(rollout: &Rollout) -> Vec<What> {
    rollout.events.iter().map(|event| event.what).collect()
}

/// The versions of `web` that these nodes shall have.
pub fn versions<'a>(core: &Core, nodes: impl IntoIterator<Item = &'a str>) -> Vec<u64> {
    let view = core.view();
    let version = |node| {
        let desired = view.desired(&name(node)).expect("a desired state");
        let mut policies = desired.policies.iter();
        policies
            .find(|(policy, _)| policy.as_str() == "web")
            .expect("web")
            .1
    };
    nodes.into_iter().map(version).collect()
}
