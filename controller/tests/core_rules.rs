//! Rules by commands: what is stored is what nodes shall have.

mod common;

use std::sync::Arc;

use common::core::{Fleet, actor, content, name, rule};
use serde_json::{Value, json};
use xdpgate::policy::RuleId;
use xdpgate_controller::core::{Command, CommandError, EffectKind, ErrorKind, Options};
use xdpgate_controller::domain::PolicyContent;

fn patch(rule: &str, patch: Value) -> Command {
    let Value::Object(patch) = patch else {
        panic!("a patch is an object");
    };
    Command::PatchRule {
        policy: name("web"),
        rule: id(rule),
        patch,
    }
}

fn id(text: &str) -> RuleId {
    RuleId::new(text).expect(text)
}

async fn one_node(rules: &[&str]) -> Fleet {
    let fleet = Fleet::new().await;
    fleet.policy("web", rules).await;
    fleet.group("all", "", &["web"]).await;
    fleet.node("n-1", &[]).await;
    fleet
}

#[tokio::test]
async fn r44_of_two_identical_creates_one_wins() {
    let fleet = Fleet::new().await;
    fleet.policy("web", &[]).await;
    let policy = |policy: &str| Command::CreatePolicy {
        policy: name(policy),
        content: PolicyContent::default(),
    };
    let group = |group: &str| Command::CreateGroup {
        group: name(group),
        content: Default::default(),
    };
    for i in 0..20 {
        let rule = Command::CreateRule {
            policy: name("web"),
            rule: rule(&format!(
                "{{ id: r{i}, match: {{ dport: 1 }}, action: drop }}"
            )),
        };
        let set = Command::CreateSet {
            set: name(&format!("s{i}")),
            content: content(&["192.0.2.1"]),
        };
        for command in [rule, set, policy(&format!("p{i}")), group(&format!("g{i}"))] {
            let (a, b) = tokio::join!(fleet.run(command.clone()), fleet.run(command.clone()));
            let (won, lost) = if a.is_ok() { (a, b) } else { (b, a) };
            assert_eq!(won.expect("one wins").kind, EffectKind::Created);
            let lost = lost.expect_err("one loses");
            assert_eq!(lost.kind, ErrorKind::AlreadyExists, "{lost}");
        }
    }
    assert_eq!(fleet.core.view().policies()[&name("web")].rules.len(), 20);
}

/// Two controllers over one store, as over etcd.
#[tokio::test]
async fn r44_of_two_identical_creates_at_two_controllers_one_wins() {
    let fleet = Fleet::new().await;
    fleet.policy("web", &[]).await;
    let other = xdpgate_controller::core::Core::open(Arc::clone(fleet.core.store()))
        .await
        .unwrap();
    for i in 0..30 {
        let command = Command::CreateRule {
            policy: name("web"),
            rule: rule(&format!(
                "{{ id: r{i}, match: {{ dport: 1 }}, action: drop }}"
            )),
        };
        let options = Options::default();
        let actor = actor();
        let (a, b) = tokio::join!(
            fleet.core.execute(&actor, vec![command.clone()], &options),
            other.execute(&actor, vec![command.clone()], &options)
        );
        assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
        let lost: CommandError = a.err().or(b.err()).expect("one loses");
        assert_eq!(lost.kind, ErrorKind::AlreadyExists, "{lost}");
    }
    // What both did is in both views, and one rule each.
    let store = fleet.core.store();
    let now = store.list("policy/", None, 1, None).await.unwrap().revision;
    for core in [&fleet.core, &other] {
        let mut views = core.watch();
        let seen = views.wait_for(|view| view.policies()[&name("web")].rules.len() == 30);
        tokio::time::timeout(std::time::Duration::from_secs(10), seen)
            .await
            .unwrap()
            .unwrap();
        assert!(core.view().revision() <= now);
    }
}

#[tokio::test]
async fn r75_every_field_is_kept_cleared_or_set() {
    let full = "{ id: r, priority: 7, match: { src: 192.0.2.1, dport: 80, protocol: tcp }, action: drop, \
                mode: monitor, enabled: false, expires: 2040-01-01T00:00:00Z, interfaces: [eth0], \
                name: a name, comment: a comment, labels: { owner: ann } }";
    // Each field: what it is set to, and what it is when it is cleared.
    let fields = [
        ("priority", json!(8), json!(10)),
        ("match", json!({"src": "192.0.2.2"}), Value::Null),
        ("action", json!("pass"), Value::Null),
        ("mode", json!("monitor"), Value::Null),
        ("enabled", json!(false), Value::Null),
        ("expires", json!("2041-01-01T00:00:00Z"), Value::Null),
        ("interfaces", json!(["eth1"]), Value::Null),
        ("name", json!("another"), Value::Null),
        ("comment", json!("other words"), Value::Null),
        ("labels", json!({"owner": "bob", "more": "x"}), Value::Null),
    ];
    let fleet = one_node(&[full]).await;
    let json_of = || -> Value {
        let view = fleet.core.view();
        let desired = view.desired(&name("n-1")).unwrap();
        serde_json::from_str(&desired.policy.rule("r").unwrap().to_json()).unwrap()
    };
    let before = json_of();
    fleet.run(patch("r", json!({}))).await.unwrap();
    assert_eq!(json_of(), before, "what is not named stays");

    for (field, set, cleared) in fields {
        fleet
            .run(Command::PutRule {
                policy: name("web"),
                rule: rule(full),
            })
            .await
            .unwrap();
        fleet
            .run(patch("r", json!({ field: set.clone() })))
            .await
            .unwrap();
        let now = json_of();
        let mut expected = before.clone();
        match (field, &set) {
            // Objects are merged, as RFC 7396 says.
            ("match" | "labels", Value::Object(set)) => {
                for (key, value) in set {
                    expected[field][key] = value.clone();
                }
            }
            _ => expected[field] = set,
        }
        assert_eq!(now, expected, "{field} set, and nothing else");

        if field == "action" {
            let error = fleet
                .run(patch("r", json!({ "action": null })))
                .await
                .unwrap_err();
            assert_eq!(
                (error.kind, error.field.as_str()),
                (ErrorKind::Invalid, "action"),
                "{error}"
            );
            continue;
        }
        fleet.run(patch("r", json!({ field: null }))).await.unwrap();
        let mut expected = expected.as_object().unwrap().clone();
        expected.remove(field);
        if !cleared.is_null() {
            expected.insert(field.to_owned(), cleared);
        }
        assert_eq!(
            json_of(),
            Value::Object(expected),
            "{field} cleared, and nothing else"
        );
    }
    for (wrong, field) in [
        (json!({ "prioritty": 3 }), "prioritty"),
        (json!({ "id": "other" }), "id"),
        (json!({ "priority": "high" }), "priority"),
        (json!({ "match": { "dport": 70000 } }), "match.dport"),
        (json!({ "match": { "src": "@nowhere" } }), "match.src"),
    ] {
        let before = json_of();
        let error = fleet.run(patch("r", wrong.clone())).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{wrong}");
        assert_eq!(error.object, "policy/web/rule/r", "{error}");
        assert!(error.to_string().contains(field), "{wrong}: {error}");
        assert!(!error.to_string().contains('\n'), "{error}");
        assert_eq!(json_of(), before);
    }
}

#[tokio::test]
async fn r76_a_disabled_rule_matches_nothing_at_any_node_also_after_a_restart() {
    let fleet = one_node(&["{ id: r, match: { src: 192.0.2.1 }, action: drop }"]).await;
    let enabled = |fleet: &Fleet| {
        let desired = fleet.core.view().desired(&name("n-1")).unwrap();
        desired.policy.rule("r").map(|rule| rule.enabled)
    };
    let hash = |fleet: &Fleet| fleet.core.view().desired(&name("n-1")).unwrap().hash;
    let enable = |enabled| Command::EnableRule {
        policy: name("web"),
        rule: id("r"),
        enabled,
    };
    let on = hash(&fleet);
    assert_eq!(
        fleet.run(enable(false)).await.unwrap().kind,
        EffectKind::Replaced
    );
    assert_eq!(
        fleet.run(enable(false)).await.unwrap().kind,
        EffectKind::Unchanged
    );
    assert_eq!(enabled(&fleet), Some(false));
    let off = hash(&fleet);
    assert_ne!(on, off);
    let fleet = fleet.restart().await;
    assert_eq!((enabled(&fleet), hash(&fleet)), (Some(false), off));
    fleet.run(enable(true)).await.unwrap();
    assert_eq!((enabled(&fleet), hash(&fleet)), (Some(true), on));
}

#[tokio::test]
async fn r77_expiry_reaches_the_node_and_is_editable() {
    let fleet = one_node(&[
        "{ id: r, match: { src: 192.0.2.1 }, action: drop, expires: 2040-01-01T00:00:00Z }",
    ])
    .await;
    let expires = || {
        let desired = fleet.core.view().desired(&name("n-1")).unwrap();
        desired
            .policy
            .rule("r")
            .unwrap()
            .expires
            .map(|at| at.to_string())
    };
    assert_eq!(expires().as_deref(), Some("2040-01-01T00:00:00Z"));
    fleet
        .run(patch("r", json!({ "expires": "2050-06-01T00:00:00Z" })))
        .await
        .unwrap();
    assert_eq!(expires().as_deref(), Some("2050-06-01T00:00:00Z"));
    fleet
        .run(patch("r", json!({ "comment": "still" })))
        .await
        .unwrap();
    assert_eq!(expires().as_deref(), Some("2050-06-01T00:00:00Z"));
    fleet
        .run(patch("r", json!({ "expires": null })))
        .await
        .unwrap();
    assert_eq!(expires(), None);
}

#[tokio::test]
async fn r79_over_limit_is_a_clear_error() {
    let fleet = one_node(&[]).await;
    let create = |i: usize| Command::CreateRule {
        policy: name("web"),
        rule: rule(&format!(
            "{{ id: r{i}, match: {{ dport: 1 }}, action: drop }}"
        )),
    };
    let error = fleet
        .with((0..1001).map(create).collect(), &Options::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooLarge);
    assert!(
        error.to_string().starts_with("1001 changes: at most 1000"),
        "{error}"
    );
    assert!(fleet.rules_of("n-1").is_empty());
    let outcome = fleet
        .with((0..1000).map(create).collect(), &Options::default())
        .await
        .unwrap();
    assert_eq!(outcome.effects.len(), 1000);
    assert_eq!(fleet.rules_of("n-1").len(), 1000);

    let rules = (0..100_001).map(|i| {
        let mut rule = rule("{ id: r, match: { dport: 1 }, action: drop }");
        rule.id = id(&format!("r{i}"));
        rule
    });
    let content = PolicyContent {
        rules: rules.collect(),
        ..PolicyContent::default()
    };
    let error = fleet
        .run(Command::PutPolicy {
            policy: name("web"),
            content,
        })
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooLarge);
    assert!(
        error.to_string().contains("a policy may have 100000"),
        "{error}"
    );
    assert_eq!(fleet.rules_of("n-1").len(), 1000);
}

#[tokio::test]
async fn of_a_batch_each_command_gets_its_own_error_or_none_is_made() {
    let fleet = one_node(&["{ id: there, match: { dport: 9 }, action: drop }"]).await;
    fleet.set("six", &["2001:db8::1"]).await;
    let create = |text: &str| Command::CreateRule {
        policy: name("web"),
        rule: rule(text),
    };
    let commands = vec![
        create("{ id: a, match: { dport: 1 }, action: drop }"),
        create("{ id: there, match: { dport: 2 }, action: drop }"),
        create("{ id: b, match: { src: '@nowhere' }, action: drop }"),
        create("{ id: c, match: { src: '@six', family: ipv4 }, action: drop }"),
        Command::DeleteRule {
            policy: name("web"),
            rule: id("gone"),
        },
        Command::DeleteRule {
            policy: name("nowhere"),
            rule: id("gone"),
        },
        create("{ id: d, match: { src: '@six' }, action: drop }"),
    ];
    let error = fleet
        .with(commands.clone(), &Options::default())
        .await
        .unwrap_err();
    assert_eq!(error.object, "policy/web/rule/there", "{error}");
    assert_eq!(fleet.rules_of("n-1"), ["there"]);

    let partial = Options {
        partial: true,
        ..Options::default()
    };
    let outcome = fleet.with(commands, &partial).await.unwrap();
    let shown: Vec<String> = outcome
        .effects
        .iter()
        .map(|effect| match effect {
            Ok(effect) => format!("{:?}", effect.kind),
            Err(error) => format!("{:?} {}", error.kind, error.object),
        })
        .collect();
    assert_eq!(
        shown,
        [
            "Created",
            "AlreadyExists policy/web/rule/there",
            "Invalid policy/web/rule/b",
            "Invalid policy/web/rule/c",
            "Unchanged",
            "NotFound policy/nowhere",
            "Created",
        ]
    );
    assert_eq!(fleet.rules_of("n-1"), ["a", "d", "there"]);
}
