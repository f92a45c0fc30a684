//! Row 120: a controller that is killed at any point of a rollout, and started again.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::core::{actor, name, rule};
use common::rollout::{Nodes, rollout, versions};
use xdpgate_controller::core::{Command, Core, GroupContent, Options, PlanChoice, audit};
use xdpgate_controller::domain::{Labels, PolicyContent};
use xdpgate_controller::rollout::{
    Config, Executor, Gates, Observer, Plan, Planned, PlannedStage, State, What,
};
use xdpgate_controller::store::sqlite::Sqlite;

/// In the environment of the process that is killed: the file of its store.
const FILE: &str = "XDPGATE_TEST_ROLLOUT_STORE";
const KILLS: usize = 100;
const NODES: usize = 40;
const STAGES: usize = 12;

fn nodes() -> impl Iterator<Item = String> {
    (0..NODES).map(|n| format!("n-{n}"))
}

async fn open(path: &Path) -> Core {
    // The file of a process that was killed, or of a core that was dropped a moment ago, is free soon.
    for _ in 0..1000 {
        if let Ok(store) = Sqlite::open(path) {
            return Core::open(Arc::new(store)).await.expect("a core");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} stays in use", path.display());
}

/// Not a test but the controller that is killed: it takes what runs further until nothing runs any more.
#[tokio::test]
async fn controller_that_is_killed() {
    let Ok(path) = std::env::var(FILE) else {
        return;
    };
    let core = open(Path::new(&path)).await;
    let observer: Arc<dyn Observer> = Nodes::new(&core, nodes());
    let config = Config {
        every: Duration::from_millis(2),
        look: Duration::ZERO,
        settle: Duration::ZERO,
        ..Config::new(name("c-1"))
    };
    let executor = Executor::new(core.clone(), observer, config);
    println!("it begins");
    let mut views = core.watch();
    let over = views.wait_for(|view| !view.rollouts().values().any(|one| one.is_active()));
    tokio::select! {
        () = executor.run() => panic!("it runs until it is dropped"),
        over = over => drop(over.expect("a view")),
    }
}

/// The controller, once it has begun.
fn spawn(path: &Path) -> Child {
    let mut child = Process::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "controller_that_is_killed", "--nocapture"])
        .env(FILE, path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let mut lines = BufReader::new(child.stdout.as_mut().expect("its output")).lines();
    let begins =
        |line: &std::io::Result<String>| line.as_ref().is_ok_and(|l| l.ends_with("it begins"));
    assert!(lines.any(|line| begins(&line)), "it does not begin");
    child
}

/// A fleet in which nothing runs.
async fn prepare(path: &Path) {
    let core = open(path).await;
    let base = rule("{ id: base, match: { src: 192.0.2.1 }, action: drop }");
    let content = PolicyContent {
        rules: vec![base],
        ..PolicyContent::default()
    };
    let group = GroupContent {
        policies: vec![name("web")],
        ..GroupContent::default()
    };
    let mut commands = vec![
        Command::CreatePolicy {
            policy: name("web"),
            content,
        },
        Command::CreateGroup {
            group: name("all"),
            content: group,
        },
    ];
    commands.extend(nodes().map(|node| Command::RegisterNode {
        node: name(&node),
        name: node,
        own_labels: Labels::new(),
    }));
    let made = core.execute(&actor(), commands, &Options::default()).await;
    made.expect("a fleet");
}

async fn start(path: &Path, round: usize) {
    let core = open(path).await;
    let stage = |reach| PlannedStage {
        reach,
        bake_seconds: 0,
    };
    let mut stages = vec![stage(Planned::Count(1))];
    stages.extend((1..STAGES as u8 - 1).map(|n| stage(Planned::Percent(9 * n))));
    stages.push(stage(Planned::All));
    let plan = Plan {
        stages,
        gates: Gates::default(),
    };
    let text = format!("{{ id: r-{round}, match: {{ src: 192.0.2.2 }}, action: drop }}");
    let commands = vec![
        Command::PutRule {
            policy: name("web"),
            rule: rule(&text),
        },
        Command::StartRollout {
            rollout: name(&format!("round-{round}")),
            policy: name("web"),
            plan: PlanChoice::Given(plan),
        },
    ];
    let started = core.execute(&actor(), commands, &Options::default()).await;
    started.expect("it starts");
}

/// Everything is where it belongs: each stage was entered once and in order, and the audit log has each step.
async fn verify(path: &Path, round: usize) {
    let core = open(path).await;
    let id = format!("round-{round}");
    let done = rollout(&core, &id);
    assert_eq!(done.state, State::Done, "{done:?}");
    let to = done.to;
    let all: Vec<String> = nodes().collect();
    let has = versions(&core, all.iter().map(String::as_str));
    assert_eq!(has, vec![to; NODES]);
    let history: Vec<(What, usize)> = done.events.iter().map(|e| (e.what, e.stage)).collect();
    let mut wanted = vec![(What::Started, 0)];
    wanted.extend((1..STAGES).map(|stage| (What::Advanced, stage)));
    wanted.push((What::Finished, STAGES - 1));
    assert_eq!(history, wanted);
    let page = core.store().list(audit::PREFIX, None, 1000, None).await;
    let entries = page.expect("the audit log").records;
    let entries = entries.iter().map(|(_, record)| {
        serde_json::from_slice::<audit::Entry>(&record.value).expect("an entry")
    });
    let object = format!("rollout/{id}");
    let mut steps: Vec<_> = entries.filter(|entry| entry.object == object).collect();
    steps.sort_by_key(|entry| entry.at);
    assert!(steps.iter().all(|entry| entry.actor == "rollout"));
    let actions: Vec<&str> = steps.iter().map(|entry| entry.action.as_str()).collect();
    let mut wanted = vec!["rollout.advance"; STAGES - 1];
    wanted.push("rollout.finish");
    assert_eq!(actions, wanted);
}

#[tokio::test]
async fn r120_a_controller_killed_at_a_hundred_points_goes_on_where_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("controller.db");
    prepare(&path).await;
    let (mut kills, mut round, mut between) = (0, 0, 0);
    while kills < KILLS {
        round += 1;
        assert!(
            round < 500,
            "{kills} kills only: it is done too soon each time"
        );
        start(&path, round).await;
        loop {
            let mut child = spawn(&path);
            // A whole rollout takes longer than this, a step does not.
            let some = Duration::from_micros(rand::random_range(0..60_000));
            tokio::time::sleep(some).await;
            if let Some(status) = child.try_wait().expect("its state") {
                assert!(status.success());
                break;
            }
            child.kill().expect("it is killed");
            child.wait().expect("it is gone");
            kills += 1;
            let core = open(&path).await;
            let now = rollout(&core, &format!("round-{round}"));
            if !now.is_active() {
                break;
            }
            between += usize::from(now.stage > 0);
        }
        verify(&path, round).await;
    }
    assert!(
        between >= KILLS / 10,
        "{between} of {kills} within a rollout"
    );
}
