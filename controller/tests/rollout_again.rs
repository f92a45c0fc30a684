//! Row 120: rollouts after one that ended badly, and what must not stand in the way of going back.

mod common;

use std::sync::Arc;

use common::core::{Fleet, actor, name, rule};
use common::rollout::{Clock, Nodes, at, plan, rollout, start, versions};
use xdpgate::policy::RuleId;
use xdpgate_controller::core::{
    Command, CommandError, Core, ErrorKind, Options, Outcome, PlanChoice,
};
use xdpgate_controller::rollout::{Change, Planned, State};

const NODES: [&str; 4] = ["n-0", "n-1", "n-2", "n-3"];

async fn fleet() -> (Fleet, Arc<Nodes>) {
    let fleet = Fleet::new().await;
    fleet.set("bad", &["203.0.113.7"]).await;
    let base = "{ id: base, match: { src: '@bad' }, action: drop }";
    fleet.policy("web", &[base]).await;
    fleet.policy("mail", &[]).await;
    fleet.group("all", "", &["web", "mail"]).await;
    for node in NODES {
        fleet.node(node, &[]).await;
    }
    let nodes = Nodes::new(&fleet.core, NODES.map(str::to_owned));
    (fleet, nodes)
}

fn canary() -> Planned {
    Planned::Nodes(vec!["n-3".to_owned()])
}

async fn make(core: &Core, seconds: u64, commands: Vec<Command>) -> Result<Outcome, CommandError> {
    let (actor, options) = (actor(), Options::default());
    core.execute_at(at(seconds), &actor, commands, &options)
        .await
}

fn change(id: &str, change: Change) -> Vec<Command> {
    vec![Command::ChangeRollout {
        rollout: name(id),
        change,
    }]
}

fn goes_out(id: &str) -> Command {
    Command::StartRollout {
        rollout: name(id),
        policy: name("web"),
        plan: PlanChoice::Given(plan(&[canary()], 60)),
    }
}

/// What was rolled back reaches nobody by the rollout of what is put in its place.
#[tokio::test]
async fn r120_a_rollout_after_an_abort_goes_on_from_what_nodes_have() {
    let (fleet, nodes) = fleet().await;
    let core = &fleet.core;
    let mut clock = Clock::new(core, &nodes, "c-1");
    clock.pass(10).await;
    let plan = plan(&[canary()], 60);
    start(core, clock.seconds, "r-1", "bad-rule", plan).await;
    let done = make(core, clock.seconds, change("r-1", Change::Abort)).await;
    done.expect("it is aborted");
    assert_eq!(versions(core, NODES), [1; 4]);

    let back = Command::RevertPolicy {
        policy: name("web"),
        version: 1,
    };
    let done = make(core, clock.seconds, vec![back, goes_out("r-2")]).await;
    done.expect("it starts");
    let second = rollout(core, "r-2");
    assert_eq!((second.from, second.to), (1, 3));
    assert_eq!(versions(core, NODES), [1, 1, 1, 3]);
    assert!(!rollout(core, "r-1").in_force);
    // Rolled back, they have again what they had.
    let done = make(core, clock.seconds, change("r-2", Change::Abort)).await;
    done.expect("it is aborted");
    assert_eq!(versions(core, NODES), [1; 4]);
}

/// A pause of any length is no loss of the nodes of other controllers.
#[tokio::test]
async fn r120_a_rollout_goes_on_after_a_long_pause() {
    let (fleet, _) = fleet().await;
    let one = &fleet.core;
    let two = Core::open(one.store().clone()).await;
    let two = &two.expect("a second controller");
    let half = |from: usize| NODES[from..from + 2].iter().map(|node| (*node).to_owned());
    let (left, right) = (Nodes::new(one, half(0)), Nodes::new(two, half(2)));
    let mut a = Clock::new(one, &left, "c-1");
    let mut b = Clock::new(two, &right, "c-2");
    a.pass(100).await;
    b.pass(100).await;
    start(one, 100, "r-1", "new", plan(&[canary()], 4)).await;
    let both = async |a: &mut Clock, b: &mut Clock, seconds: u64| {
        for _ in 0..seconds / 2 {
            a.seconds += 2;
            b.seconds += 2;
            tokio::join!(a.look(), b.look());
        }
    };
    both(&mut a, &mut b, 2).await;
    make(one, a.seconds, change("r-1", Change::Pause))
        .await
        .expect("it waits");
    both(&mut a, &mut b, 300).await;
    make(one, a.seconds, change("r-1", Change::Resume))
        .await
        .expect("it goes on");
    // The one that looks first after the resume has only old words of the other.
    a.look().await;
    assert_eq!(rollout(one, "r-1").state, State::Running);
    both(&mut a, &mut b, 60).await;
    let done = rollout(one, "r-1");
    assert_eq!(done.state, State::Done, "{done:?}");
}

/// What the former version needs stays, also where no node has it any more.
#[tokio::test]
async fn r120_nothing_stands_in_the_way_of_going_back() {
    let (fleet, nodes) = fleet().await;
    let core = &fleet.core;
    let mut clock = Clock::new(core, &nodes, "c-1");
    clock.pass(10).await;
    let without = Command::DeleteRule {
        policy: name("web"),
        rule: RuleId::new("base").expect("an id"),
    };
    let out = Command::StartRollout {
        rollout: name("r-1"),
        policy: name("web"),
        plan: PlanChoice::Given(plan(&[], 0)),
    };
    make(core, clock.seconds, vec![without, out])
        .await
        .expect("it starts");
    assert_eq!(versions(core, NODES), [2; 4], "all are reached at once");

    let gone = vec![Command::DeleteSet { set: name("bad") }];
    let error = make(core, clock.seconds, gone).await.expect_err("in use");
    assert_eq!(error.kind, ErrorKind::InUse);
    assert!(error.reason.contains("rule base of policy web"), "{error}");
    let same_id = vec![Command::CreateRule {
        policy: name("mail"),
        rule: rule("{ id: base, match: { dport: 25 }, action: pass }"),
    }];
    let error = make(core, clock.seconds, same_id).await.expect_err("taken");
    assert!(error.to_string().contains("base"), "{error}");

    let done = make(core, clock.seconds, change("r-1", Change::Abort)).await;
    done.expect("it goes back");
    assert_eq!(versions(core, NODES), [1; 4]);
}
