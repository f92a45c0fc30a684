//! Policies, sets, groups and nodes by commands, and what each node shall have.

mod common;

use std::sync::Arc;

use common::core::{Fleet, content, name, rule};
use xdpgate::Verdict;
use xdpgate::policy::{Failsafe, RuleId};
use xdpgate_controller::core::{
    ActionKind, Command, EffectKind, EntryFilter, ErrorKind, GroupContent, NodePatch, Options,
    Patch, RuleFilter, RuleOrder, SetContent, SettingsPatch, audit,
};
use xdpgate_controller::domain::{Mode, PolicyContent};

fn create(policy: &str, text: &str) -> Command {
    Command::CreateRule {
        policy: name(policy),
        rule: rule(text),
    }
}

fn mode(fleet: &Fleet, node: &str) -> Option<Mode> {
    fleet
        .core
        .view()
        .desired(&name(node))
        .expect("a desired state")
        .mode
}

#[tokio::test]
async fn r78_name_source_and_comment_come_back_and_are_found() {
    let fleet = Fleet::new().await;
    let text = "{ id: r, match: { src: 192.0.2.1 }, action: drop, name: 'Night shift', \
                comment: 'ticket 4711', labels: { source: detector } }";
    fleet
        .policy(
            "web",
            &[text, "{ id: other, match: { dport: 53 }, action: pass }"],
        )
        .await;
    let fleet = fleet.restart().await;
    let view = fleet.core.view();
    assert_eq!(
        view.policies()[&name("web")].rules.get("r").unwrap().rule,
        rule(text)
    );
    let found = |filter: RuleFilter| -> Vec<String> {
        let found = view.find_rules(&filter, RuleOrder::Id, None, 10);
        found
            .items
            .iter()
            .map(|found| found.state.rule.id.to_string())
            .collect()
    };
    for (text, ids) in [
        ("night", &["r"][..]),
        ("4711", &["r"]),
        ("DETECTOR", &["r"]),
        ("the", &["other"]),
        ("nothing", &[]),
    ] {
        let text = Some(text.to_owned());
        assert_eq!(
            found(RuleFilter {
                text,
                ..RuleFilter::default()
            }),
            ids
        );
    }
    let label = |value: Option<&str>| RuleFilter {
        labels: vec![("source".to_owned(), value.map(str::to_owned))],
        ..RuleFilter::default()
    };
    assert_eq!(found(label(None)), ["r"]);
    assert_eq!(found(label(Some("detector"))), ["r"]);
    assert!(found(label(Some("feed"))).is_empty());
    let action = Some(ActionKind::Pass);
    assert_eq!(
        found(RuleFilter {
            action,
            ..RuleFilter::default()
        }),
        ["other"]
    );
}

#[tokio::test]
async fn r81_a_rule_reaches_only_its_group() {
    let fleet = Fleet::new().await;
    fleet
        .policy("base", &["{ id: base, match: { dport: 1 }, action: drop }"])
        .await;
    fleet
        .policy("web", &["{ id: web, match: { dport: 2 }, action: drop }"])
        .await;
    fleet.group("all", "", &["base"]).await;
    fleet.group("web", "role=web,!old", &["web"]).await;
    fleet.node("n-web", &[("role", "web")]).await;
    fleet.node("n-db", &[("role", "db")]).await;
    fleet.node("n-web2", &[("role", "web")]).await;
    assert_eq!(fleet.rules_of("n-web"), ["base", "web"]);
    assert_eq!(fleet.rules_of("n-db"), ["base"]);
    let view = fleet.core.view();
    let (one, other) = (view.desired(&name("n-web")), view.desired(&name("n-web2")));
    assert!(
        Arc::ptr_eq(&one.unwrap(), &other.unwrap()),
        "nodes of one profile share their state"
    );

    // A change of web leaves db where it is.
    let hash = |node| fleet.core.view().desired(&name(node)).unwrap().hash;
    let before = (hash("n-web"), hash("n-db"));
    fleet
        .run(create(
            "web",
            "{ id: more, match: { dport: 3 }, action: drop }",
        ))
        .await
        .unwrap();
    assert_ne!(hash("n-web"), before.0);
    assert_eq!(hash("n-db"), before.1);

    // Labels move a node; those of operators win.
    let patch = |label: &str, value: Option<&str>| Command::PatchNode {
        node: name("n-db"),
        patch: NodePatch {
            set_labels: [(label.to_owned(), value.map(str::to_owned))].into(),
            ..NodePatch::default()
        },
    };
    fleet.run(patch("role", Some("web"))).await.unwrap();
    assert_eq!(fleet.rules_of("n-db"), ["base", "more", "web"]);
    fleet.run(patch("old", Some(""))).await.unwrap();
    assert_eq!(fleet.rules_of("n-db"), ["base"]);
    fleet.run(patch("old", None)).await.unwrap();
    fleet.run(patch("role", None)).await.unwrap();
    assert_eq!(fleet.rules_of("n-db"), ["base"]);
    let fleet = fleet.restart().await;
    assert_eq!(fleet.rules_of("n-web"), ["base", "more", "web"]);
    assert_eq!(fleet.rules_of("n-db"), ["base"]);
}

#[tokio::test]
async fn rank_settings_and_modes_are_as_written() {
    let fleet = Fleet::new().await;
    let settings = |policy: &str, default, ssh: &str| Command::PatchPolicy {
        policy: name(policy),
        patch: SettingsPatch {
            default,
            failsafe: Patch::Set(Failsafe {
                enabled: true,
                ssh_from: vec![ssh.parse().unwrap()],
            }),
            ..SettingsPatch::default()
        },
    };
    fleet.policy("a", &[]).await;
    fleet.policy("b", &[]).await;
    fleet
        .run(settings("a", Patch::Keep, "192.0.2.0/24"))
        .await
        .unwrap();
    fleet
        .run(settings("b", Patch::Set(Verdict::Drop), "198.51.100.0/24"))
        .await
        .unwrap();
    let group = |group: &str, rank, policies: &[&str], mode| Command::PutGroup {
        group: name(group),
        content: GroupContent {
            rank,
            mode,
            policies: policies.iter().map(|policy| name(policy)).collect(),
            ..GroupContent::default()
        },
    };
    fleet.node("n", &[]).await;
    fleet
        .run(group("late", 9, &["b", "a"], Some(Mode::DryRun)))
        .await
        .unwrap();
    fleet.run(group("early", 1, &["a"], None)).await.unwrap();
    let policy = || {
        fleet
            .core
            .view()
            .desired(&name("n"))
            .unwrap()
            .policy
            .clone()
    };
    assert_eq!(
        policy().default_verdict(),
        Verdict::Drop,
        "the first that states it"
    );
    assert_eq!(
        policy().failsafe().ssh_from[0].to_string(),
        "192.0.2.0/24",
        "a comes first"
    );
    assert_eq!(mode(&fleet, "n"), Some(Mode::DryRun));
    fleet
        .run(group("early", 1, &["a"], Some(Mode::Enforce)))
        .await
        .unwrap();
    assert_eq!(mode(&fleet, "n"), Some(Mode::Enforce));
    let kill = |mode| Command::SetFleetMode { mode };
    fleet.run(kill(Some(Mode::DryRun))).await.unwrap();
    assert_eq!(
        mode(&fleet, "n"),
        Some(Mode::DryRun),
        "the kill switch beats groups"
    );
    fleet.run(kill(None)).await.unwrap();
    assert_eq!(mode(&fleet, "n"), Some(Mode::Enforce));

    // Cleared, the next policy says it; then the default of a policy file.
    let clear = |policy: &str| Command::PatchPolicy {
        policy: name(policy),
        patch: SettingsPatch {
            failsafe: Patch::Clear,
            default: Patch::Clear,
            ..SettingsPatch::default()
        },
    };
    fleet.run(clear("a")).await.unwrap();
    assert_eq!(
        policy().failsafe().ssh_from[0].to_string(),
        "198.51.100.0/24"
    );
    fleet.run(clear("b")).await.unwrap();
    assert_eq!(
        (policy().failsafe(), policy().default_verdict()),
        (&Failsafe::default(), Verdict::Pass)
    );
}

#[tokio::test]
async fn what_a_node_would_refuse_is_refused_before_it_is_stored() {
    let fleet = Fleet::new().await;
    fleet.set("bad", &["192.0.2.1"]).await;
    fleet
        .policy("a", &["{ id: same, match: { src: '@bad' }, action: drop }"])
        .await;
    fleet
        .policy("b", &["{ id: other, match: { dport: 1 }, action: drop }"])
        .await;
    fleet.group("all", "", &["a", "b"]).await;
    fleet.node("n", &[]).await;
    let before = fleet.core.view();
    let desired = before.desired(&name("n")).unwrap();
    let set = name("bad");
    for (command, kind, words) in [
        (
            create("b", "{ id: same, match: { dport: 1 }, action: drop }"),
            ErrorKind::Invalid,
            "policies b and a both have a rule same",
        ),
        (
            create("b", "{ id: x, match: { src: '@gone' }, action: drop }"),
            ErrorKind::Invalid,
            "policy/b/rule/x: match.src: there is no set \"gone\"; create the set first",
        ),
        (
            Command::DeleteSet { set: set.clone() },
            ErrorKind::InUse,
            "rule same of policy a names it",
        ),
        (
            Command::RemoveEntries {
                set: set.clone(),
                entries: vec!["192.0.2.1".parse().unwrap()],
            },
            ErrorKind::Invalid,
            "",
        ),
        (
            Command::DeletePolicy { policy: name("a") },
            ErrorKind::InUse,
            "group all names it",
        ),
        (
            Command::PutGroup {
                group: name("g"),
                content: GroupContent {
                    policies: vec![name("c")],
                    ..GroupContent::default()
                },
            },
            ErrorKind::Invalid,
            "there is no policy c",
        ),
        (
            Command::RevertPolicy {
                policy: name("a"),
                version: 9,
            },
            ErrorKind::NotFound,
            "there is no version 9",
        ),
    ] {
        let error = fleet.run(command).await.expect_err(words);
        let shown = error.to_string();
        assert!(shown.contains(words), "{shown}");
        assert!(!shown.contains('\n'), "{shown}");
        if words.is_empty() {
            assert!(
                shown.contains("no entry") && shown.contains("rule same of policy a"),
                "{shown}"
            );
            continue;
        }
        assert_eq!(error.kind, kind, "{shown}");
    }
    let after = fleet.core.view();
    assert_eq!(after.sequence(), before.sequence(), "nothing was stored");
    assert!(Arc::ptr_eq(&after.desired(&name("n")).unwrap(), &desired));
}

#[tokio::test]
async fn a_change_is_made_once_and_at_the_version_that_was_expected() {
    let fleet = Fleet::new().await;
    fleet.policy("web", &[]).await;
    let once = Options {
        idempotency_key: Some("key 1/ä".to_owned()),
        why: "a test".to_owned(),
        ..Options::default()
    };
    let command = create("web", "{ id: r, match: { dport: 1 }, action: drop }");
    let first = fleet.with(vec![command.clone()], &once).await.unwrap();
    let second = fleet.with(vec![command.clone()], &once).await.unwrap();
    assert_eq!((first.repeated, second.repeated), (false, true));
    assert_eq!(
        (first.revision, &first.effects),
        (second.revision, &second.effects)
    );
    let other = create("web", "{ id: s, match: { dport: 1 }, action: drop }");
    let error = fleet.with(vec![other.clone()], &once).await.unwrap_err();
    assert_eq!(
        (error.kind, error.field.as_str()),
        (ErrorKind::Conflict, "idempotency_key")
    );

    let day = |hours| jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours);
    assert_eq!(fleet.core.forget_answers(day(23)).await.unwrap(), 0);
    assert!(
        fleet
            .with(vec![command.clone()], &once)
            .await
            .unwrap()
            .repeated
    );
    assert_eq!(fleet.core.forget_answers(day(25)).await.unwrap(), 1);
    let error = fleet.with(vec![command], &once).await.unwrap_err();
    assert_eq!(
        error.kind,
        ErrorKind::AlreadyExists,
        "the answer is forgotten"
    );

    let expecting = |version| Options {
        expect: Some(version),
        ..Options::default()
    };
    let settings = |verdict| Command::PatchPolicy {
        policy: name("web"),
        patch: SettingsPatch {
            default: Patch::Set(verdict),
            ..SettingsPatch::default()
        },
    };
    let error = fleet
        .with(vec![settings(Verdict::Drop)], &expecting(1))
        .await
        .unwrap_err();
    assert_eq!((error.kind, error.version), (ErrorKind::Conflict, Some(2)));
    let outcome = fleet
        .with(vec![settings(Verdict::Drop)], &expecting(2))
        .await
        .unwrap();
    assert_eq!(outcome.effects[0].as_ref().unwrap().version, 3);
    // The version of a rule is that of the change that touched it.
    let enable = Command::EnableRule {
        policy: name("web"),
        rule: RuleId::new("r").unwrap(),
        enabled: false,
    };
    fleet.with(vec![enable], &expecting(2)).await.unwrap();

    // One audit entry for each change that was made, and none for the others.
    let entries = fleet
        .core
        .store()
        .list(audit::PREFIX, None, 100, None)
        .await
        .unwrap()
        .records;
    let entries: Vec<audit::Entry> = entries
        .iter()
        .map(|(_, record)| serde_json::from_slice(&record.value).unwrap())
        .collect();
    let shown: Vec<_> = entries
        .iter()
        .map(|entry| (entry.action.as_str(), entry.object.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            ("policy.put", "policy/web"),
            ("rule.create", "policy/web/rule/r"),
            ("policy.patch", "policy/web"),
            ("rule.disable", "policy/web/rule/r"),
        ]
    );
    assert_eq!(entries[1].detail["why"], "a test");
}

#[tokio::test]
async fn a_dry_run_says_what_would_change_and_changes_nothing() {
    let fleet = Fleet::new().await;
    fleet
        .policy("web", &["{ id: r, match: { dport: 1 }, action: drop }"])
        .await;
    fleet.group("all", "", &["web"]).await;
    fleet.node("n-1", &[]).await;
    fleet.node("n-2", &[]).await;
    let options = Options {
        dry_run: true,
        ..Options::default()
    };
    let before = fleet.core.view().revision();
    let command = create("web", "{ id: more, match: { dport: 3 }, action: drop }");
    let outcome = fleet.with(vec![command], &options).await.unwrap();
    let [plan] = &outcome.plans[..] else {
        panic!("one profile: {:?}", outcome.plans);
    };
    assert_eq!(
        (plan.nodes, plan.policies.as_slice()),
        (2, &[name("web")][..])
    );
    assert!(plan.plan.to_string().contains("more"), "{}", plan.plan);
    assert_eq!(fleet.core.view().revision(), before);
    assert_eq!(fleet.rules_of("n-1"), ["r"]);
}

#[tokio::test]
async fn sets_grow_and_shrink_with_expiries_and_are_paged() {
    let fleet = Fleet::new().await;
    let set = name("bad");
    let put = SetContent {
        default_expiry: Some(600),
        ..content(&["192.0.2.1", "2001:db8::/32"])
    };
    let now: jiff::Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
    let run = async |now, command| {
        let actor = common::core::actor();
        let outcome = fleet
            .core
            .execute_at(now, &actor, vec![command], &Options::default())
            .await;
        outcome.unwrap().effects.remove(0).unwrap().kind
    };
    let add = |entries: &[(&str, Option<&str>)]| Command::AddEntries {
        set: set.clone(),
        entries: entries
            .iter()
            .map(|(prefix, at)| (prefix.parse().unwrap(), at.map(|at| at.parse().unwrap())))
            .collect(),
    };
    let command = Command::CreateSet {
        set: set.clone(),
        content: put,
    };
    assert_eq!(run(now, command).await, EffectKind::Created);
    let more = add(&[
        ("192.0.2.2", None),
        ("192.0.2.3", Some("2031-01-01T00:00:00Z")),
    ]);
    assert_eq!(run(now, more).await, EffectKind::Entries(2));
    let gone = Command::RemoveEntries {
        set: set.clone(),
        entries: vec!["192.0.2.1".parse().unwrap(), "192.0.2.9".parse().unwrap()],
    };
    assert_eq!(run(now, gone.clone()).await, EffectKind::Entries(1));
    assert_eq!(run(now, gone).await, EffectKind::Unchanged);
    let fleet = fleet.restart().await;
    let view = fleet.core.view();
    let page = |after, limit| {
        let found = view
            .find_entries(&set, &EntryFilter::default(), after, limit)
            .unwrap();
        let shown = found
            .items
            .iter()
            .map(|e| format!("{} {:?}", e.prefix, e.expires.map(|at| at.to_string())));
        (shown.collect::<Vec<_>>(), found.total, found.next)
    };
    let (first, total, next) = page(None, 2);
    assert_eq!(total, 3);
    assert_eq!(
        first,
        [
            "192.0.2.2 Some(\"2030-01-01T00:10:00Z\")",
            "192.0.2.3 Some(\"2031-01-01T00:00:00Z\")"
        ]
    );
    let (rest, _, end) = page(next, 2);
    assert_eq!(
        (rest.as_slice(), end),
        (
            &["2001:db8::/32 Some(\"2030-01-01T00:10:00Z\")".to_owned()][..],
            None
        )
    );

    fleet
        .policy(
            "web",
            &[
                "{ id: r, match: { src: '@bad' }, action: drop }",
                "{ id: s, match: { src: 192.0.2.0/24 }, action: drop }",
            ],
        )
        .await;
    let touching = fleet.core.view().touching("192.0.2.2".parse().unwrap(), 10);
    let rules: Vec<_> = touching
        .rules
        .iter()
        .map(|found| found.state.rule.id.as_str())
        .collect();
    assert_eq!((touching.sets.len(), rules), (1, vec!["r", "s"]));
    let touching = fleet.core.view().touching("192.0.2.1".parse().unwrap(), 10);
    assert_eq!((touching.sets.len(), touching.rules.len()), (0, 1));
}

#[tokio::test]
async fn versions_tell_who_changed_what_and_can_be_gone_back_to() {
    let fleet = Fleet::new().await;
    let policy = name("web");
    fleet
        .policy(
            "web",
            &["{ id: a, priority: 5, match: { dport: 1 }, action: drop }"],
        )
        .await;
    fleet
        .run(create(
            "web",
            "{ id: b, match: { dport: 2 }, action: drop }",
        ))
        .await
        .unwrap();
    let text = "{ id: a, priority: 7, match: { dport: 1 }, action: drop, name: x }";
    fleet
        .run(Command::PutRule {
            policy: policy.clone(),
            rule: rule(text),
        })
        .await
        .unwrap();
    let versions = fleet.core.policy_versions(&policy, None, 10).await.unwrap();
    let shown: Vec<_> = versions
        .iter()
        .map(|v| (v.version, v.changed.join("; "), v.updated.by.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            (3, "rule a changed".to_owned(), "ann"),
            (2, "rule b created".to_owned(), "ann"),
            (1, "created".to_owned(), "ann"),
        ]
    );
    let diff = fleet.core.policy_diff(&policy, 1, 3).await.unwrap();
    assert_eq!(
        diff.to_string(),
        "rule b added\nrule a changed: name: \"x\", priority: 5 -> 7\n"
    );
    let blame = async |id: &str| {
        fleet
            .core
            .blame(&policy, &RuleId::new(id).unwrap())
            .await
            .unwrap()
            .version
    };
    assert_eq!((blame("a").await, blame("b").await), (3, 2));

    fleet
        .run(Command::RevertPolicy {
            policy: policy.clone(),
            version: 1,
        })
        .await
        .unwrap();
    let now = fleet.core.view().policies()[&policy].clone();
    assert_eq!((now.version, now.rules.len()), (4, 1));
    assert_eq!(
        fleet.core.policy_diff(&policy, 1, 4).await.unwrap(),
        Default::default()
    );

    // A policy that is gone and comes again goes on with its versions.
    fleet
        .run(Command::DeletePolicy {
            policy: policy.clone(),
        })
        .await
        .unwrap();
    assert!(fleet.core.view().policies().is_empty());
    let content = PolicyContent::default();
    let effect = fleet
        .run(Command::CreatePolicy {
            policy: policy.clone(),
            content,
        })
        .await
        .unwrap();
    assert_eq!(effect.version, 6);
    let versions = fleet.core.policy_versions(&policy, None, 2).await.unwrap();
    assert_eq!((versions[0].version, versions[1].deleted), (6, true));
    let effect = fleet
        .run(Command::RevertPolicy {
            policy: policy.clone(),
            version: 3,
        })
        .await
        .unwrap();
    assert_eq!(
        (
            effect.version,
            fleet.core.view().policies()[&policy].rules.len()
        ),
        (7, 2)
    );
}

#[tokio::test]
async fn a_set_of_half_a_million_entries_and_a_change_of_one() {
    let fleet = Fleet::new().await;
    let entries = (0..500_000_u32).map(|i| {
        let [_, a, b, c] = i.to_be_bytes();
        (xdpgate::policy::Prefix::host([10, a, b, c].into()), None)
    });
    let content = SetContent {
        entries: Arc::new(xdpgate::policy::AddressSet::from_entries(entries)),
        ..SetContent::default()
    };
    let set = name("many");
    let began = std::time::Instant::now();
    fleet
        .run(Command::PutSet {
            set: set.clone(),
            content,
        })
        .await
        .unwrap();
    println!("500,000 entries put: {:?}", began.elapsed());
    fleet
        .policy("web", &["{ id: r, match: { src: '@many' }, action: drop }"])
        .await;
    fleet.group("all", "", &["web"]).await;
    fleet.node("n", &[]).await;
    let entries = || {
        let desired = fleet.core.view().desired(&name("n")).unwrap();
        desired.policy.sets().values().next().unwrap().len()
    };
    assert_eq!(entries(), 500_000);
    let began = std::time::Instant::now();
    let more = vec![("192.0.2.1".parse().unwrap(), None)];
    fleet
        .run(Command::AddEntries {
            set: set.clone(),
            entries: more,
        })
        .await
        .unwrap();
    println!("one entry more: {:?}", began.elapsed());
    assert_eq!(entries(), 500_001);
    let diff = fleet.core.set_diff(&set, 1, 2).await.unwrap();
    assert_eq!(diff.to_string(), "1 entries added, 0 removed");
    let fleet = fleet.restart().await;
    assert_eq!(fleet.core.view().sets()[&set].entries.len(), 500_001);
}

/// xdrop cannot do this: its ids collide.
#[tokio::test]
async fn seventy_seven_thousand_rules_and_a_change_of_one() {
    let fleet = Fleet::new().await;
    let rules = (0..77_000_u32).map(|i| {
        let [_, a, b, c] = i.to_be_bytes();
        rule(&format!(
            "{{ id: r{i}, match: {{ src: 10.{a}.{b}.{c} }}, action: drop }}"
        ))
    });
    let content = PolicyContent {
        rules: rules.collect(),
        ..PolicyContent::default()
    };
    let put = Command::PutPolicy {
        policy: name("big"),
        content,
    };
    fleet.run(put).await.unwrap();
    fleet.group("all", "", &["big"]).await;
    fleet.node("n", &[]).await;
    let desired = fleet.core.view().desired(&name("n")).unwrap();
    assert_eq!(desired.policy.rules().len(), 77_000);

    let before = fleet.core.view().policies()[&name("big")].clone();
    let began = std::time::Instant::now();
    fleet
        .run(create(
            "big",
            "{ id: one-more, match: { src: 192.0.2.1 }, action: drop }",
        ))
        .await
        .unwrap();
    println!("one rule more of 77,000: {:?}", began.elapsed());
    let after = fleet.core.view().policies()[&name("big")].clone();
    let decoded = before.rules.iter().filter(|state| {
        let same = after.rules.get(state.rule.id.as_str());
        !same.is_some_and(|same| Arc::ptr_eq(same, state))
    });
    assert_eq!(decoded.count(), 0, "the others are not read again");
    assert_eq!(
        fleet
            .core
            .view()
            .desired(&name("n"))
            .unwrap()
            .policy
            .rules()
            .len(),
        77_001
    );
}

#[tokio::test]
async fn a_policy_file_makes_a_policy_and_leaves_unsaid_what_it_does_not_say() {
    let fleet = Fleet::new().await;
    fleet.set("bad", &["192.0.2.1"]).await;
    let text =
        "version: 1\ndefault: drop\nrules:\n  - { id: r, match: { src: '@bad' }, action: drop }\n";
    let content = PolicyContent::from_yaml(text).unwrap();
    assert_eq!(content.settings.default, Some(Verdict::Drop));
    assert_eq!(
        (content.settings.malformed, &content.settings.failsafe),
        (None, &None)
    );
    let policy = name("web");
    fleet
        .run(Command::CreatePolicy {
            policy: policy.clone(),
            content: content.clone(),
        })
        .await
        .unwrap();
    let effect = fleet
        .run(Command::PutPolicy { policy, content })
        .await
        .unwrap();
    assert_eq!((effect.kind, effect.version), (EffectKind::Unchanged, 1));
    let error = PolicyContent::from_yaml("version: 1\nsets: { bad: { entries: [192.0.2.1] } }\n")
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("sets are not part of this policy"),
        "{error}"
    );
    let error =
        PolicyContent::from_yaml("version: 1\nrules:\n  - { id: r, action: dropp }\n").unwrap_err();
    assert!(
        error.to_string().starts_with("3:"),
        "the place is named: {error}"
    );
}
