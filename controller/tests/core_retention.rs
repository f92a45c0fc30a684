//! A store does not grow for ever: old versions and old entries of the audit log go, and what is needed stays.

mod common;

use common::core::{Fleet, actor, name, rule};
use common::rollout::{at, plan};
use jiff::{SignedDuration, Timestamp};
use xdpgate_controller::core::{Command, Core, ErrorKind, Options, PlanChoice, audit};
use xdpgate_controller::rollout::Change;

async fn versions(core: &Core, policy: &str) -> Vec<u64> {
    let found = core.policy_versions(&name(policy), None, 1_000).await;
    let found = found.expect("versions");
    found.iter().map(|version| version.version).collect()
}

async fn records(core: &Core, prefix: &str) -> usize {
    let page = core.store().list(prefix, None, 1_000, None).await;
    page.expect("the store").records.len()
}

async fn edit(fleet: &Fleet, port: u16) {
    let text = format!("{{ id: one, match: {{ dport: {port} }}, action: pass }}");
    let command = Command::PutRule {
        policy: name("web"),
        rule: rule(&text),
    };
    fleet.run(command).await.expect("a change");
}

#[tokio::test]
async fn only_so_many_versions_are_kept_and_history_goes_on() {
    let fleet = Fleet::new().await;
    fleet.policy("web", &[]).await;
    for port in 1..250 {
        edit(&fleet, port).await;
    }
    for entry in 1..=30 {
        fleet.set("bad", &[&format!("192.0.2.{entry}")]).await;
    }
    let core = &fleet.core;
    assert_eq!(versions(core, "web").await.len(), 250);
    assert_eq!(core.forget_versions(10).await.expect("the store"), 240 + 20);
    assert_eq!(core.forget_versions(10).await.expect("the store"), 0);
    assert_eq!(
        versions(core, "web").await,
        (241..=250).rev().collect::<Vec<_>>()
    );
    assert_eq!(records(core, "policy-version/").await, 10);
    assert_eq!(records(core, "set-version/").await, 10);
    // What is kept can be read, compared and gone back to; what is not is told.
    let differs = core.policy_diff(&name("web"), 241, 250).await;
    assert_eq!(differs.expect("a difference").changed.len(), 1);
    let error = core.policy_at(&name("web"), 3).await.expect_err("it went");
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(
        error.mend.contains("version 241 is the oldest"),
        "{error:?}"
    );
    let back = |version| Command::RevertPolicy {
        policy: name("web"),
        version,
    };
    fleet.run(back(240)).await.expect_err("it went");
    assert_eq!(fleet.run(back(241)).await.expect("a change").version, 251);

    // Numbers go on, also over a restart and after the policy was deleted.
    let fleet = fleet.restart().await;
    let delete = Command::DeletePolicy {
        policy: name("web"),
    };
    fleet.run(delete).await.expect("a change");
    assert_eq!(fleet.policy("web", &[]).await.version, 253);
    assert_eq!(versions(&fleet.core, "web").await.len(), 13);
}

#[tokio::test]
async fn what_a_rollout_needs_is_kept() {
    let fleet = Fleet::new().await;
    fleet.policy("web", &[]).await;
    fleet.group("all", "", &["web"]).await;
    fleet.node("n-1", &[]).await;
    edit(&fleet, 1).await;
    let text = "{ id: two, match: { dport: 2 }, action: drop }";
    let commands = vec![
        Command::PutRule {
            policy: name("web"),
            rule: rule(text),
        },
        Command::StartRollout {
            rollout: name("r-1"),
            policy: name("web"),
            plan: PlanChoice::Given(plan(&[], 0)),
        },
    ];
    fleet
        .with(commands, &Options::default())
        .await
        .expect("it starts");
    for port in 10..40 {
        edit(&fleet, port).await;
    }
    fleet.core.forget_versions(5).await.expect("the store");
    assert_eq!(versions(&fleet.core, "web").await.last(), Some(&2), "from");
    let abort = vec![Command::ChangeRollout {
        rollout: name("r-1"),
        change: Change::Abort,
    }];
    let (actor, options) = (actor(), Options::default());
    let done = fleet.core.execute_at(at(10), &actor, abort, &options).await;
    done.expect("it goes back");
    let fleet = fleet.restart().await;
    assert_eq!(fleet.rules_of("n-1"), ["one"]);
}

#[tokio::test]
async fn the_audit_log_is_kept_for_a_time() {
    let fleet = Fleet::new().await;
    for policy in 0..230 {
        let command = Command::CreatePolicy {
            policy: name(&format!("p-{policy}")),
            content: Default::default(),
        };
        let (actor, options) = (actor(), Options::default());
        let done = fleet
            .core
            .execute_at(at(policy), &actor, vec![command], &options);
        done.await.expect("a change");
    }
    let before = records(&fleet.core, audit::PREFIX).await;
    assert!(before >= 230);
    let kept = at(220) - SignedDuration::from_millis(1);
    assert_eq!(fleet.core.forget_audit(kept).await.expect("the store"), 220);
    assert_eq!(records(&fleet.core, audit::PREFIX).await, before - 220);
    assert_eq!(fleet.core.forget_audit(kept).await.expect("the store"), 0);
    let all = Timestamp::now() + SignedDuration::from_hours(1);
    fleet.core.forget_audit(all).await.expect("the store");
    assert_eq!(records(&fleet.core, audit::PREFIX).await, 0);
}
