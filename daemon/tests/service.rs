//! The service over a firewall that only rehearses: no root, no kernel.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use xdpgate::{Firewall, Policy};
use xdpgate_api::v1::firewall_server::Firewall as _;
use xdpgate_api::v1::{
    ApplyPolicyRequest, ApplyPolicyResponse, EvaluateRequest, GetPolicyRequest, GetStatsRequest,
    GetStatusRequest, Plan, PlanPolicyRequest, PlanPolicyResponse, Verdict,
};
use xdpgated::agent::FirewallService;

const POLICY: &str = "
version: 1
sets: { bad-hosts: { entries: [203.0.113.7, 203.0.113.8] } }
rules:
  - { id: allow-eight, match: { src: 203.0.113.8 }, action: pass }
  - { id: block-bad, match: { src: '@bad-hosts' }, action: drop }
";

fn service() -> FirewallService {
    let (firewall, _) = Firewall::loader().max_rules(4).rehearse();
    FirewallService::new(Arc::new(firewall))
}

async fn apply(service: &FirewallService, yaml: &str) -> Result<ApplyPolicyResponse, Status> {
    let request = ApplyPolicyRequest {
        yaml: yaml.to_owned(),
        ..Default::default()
    };
    let done = service.apply_policy(Request::new(request)).await?;
    Ok(done.into_inner())
}

async fn plan(service: &FirewallService, yaml: &str) -> Result<PlanPolicyResponse, Status> {
    let yaml = yaml.to_owned();
    let planned = service.plan_policy(Request::new(PlanPolicyRequest { yaml }));
    Ok(planned.await?.into_inner())
}

fn text(plan: &Option<Plan>) -> &str {
    &plan.as_ref().expect("a plan").text
}

async fn generation(service: &FirewallService) -> Option<u64> {
    let status = service
        .get_status(Request::new(GetStatusRequest {}))
        .await
        .expect("a status");
    status.into_inner().policy.map(|policy| policy.generation)
}

#[tokio::test]
async fn a_plan_changes_nothing_and_an_apply_does() {
    let service = service();
    let planned = plan(&service, POLICY).await.expect("a plan");
    assert!(text(&planned.plan).contains("block-bad"), "{planned:?}");
    assert_eq!(generation(&service).await, None);
    let get = || service.get_policy(Request::new(GetPolicyRequest {}));
    assert_eq!(get().await.expect_err("none yet").code(), Code::NotFound);

    let applied = apply(&service, POLICY).await.expect("applied");
    let figures = applied.applied.clone().expect("figures");
    assert_eq!((figures.generation, figures.entries), (1, 3));
    assert_eq!(planned.plan, applied.plan);
    assert_eq!(planned.hash, applied.hash);

    let policy = get().await.expect("a policy").into_inner();
    assert_eq!((policy.generation, &policy.hash), (1, &applied.hash));
    let again = plan(&service, &policy.yaml).await.expect("a plan");
    assert_eq!(again.hash, applied.hash);

    let stats = service
        .get_stats(Request::new(GetStatsRequest {}))
        .await
        .expect("stats");
    let rules = stats.into_inner().rules;
    let ids: Vec<&str> = rules.iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(ids, ["allow-eight", "block-bad"]);
}

#[tokio::test]
async fn frames_are_judged_in_their_order() {
    let service = service();
    let arp = [&[0xff; 12][..], &[0x08, 0x06], &[0; 28]].concat();
    let evaluate = async |frames: Vec<Vec<u8>>| {
        let request = EvaluateRequest {
            frames,
            interface: None,
        };
        let response = service
            .evaluate(Request::new(request))
            .await
            .expect("results");
        let results = response.into_inner().results;
        results
            .iter()
            .map(|r| (r.verdict(), r.reason.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        evaluate(vec![arp.clone()]).await,
        [(Verdict::Pass, "no_policy".to_owned())]
    );
    apply(&service, POLICY).await.expect("applied");
    assert_eq!(
        evaluate(vec![arp, vec![0; 3]]).await,
        [
            (Verdict::Pass, "non_ip".to_owned()),
            (Verdict::Pass, "malformed".to_owned())
        ]
    );
    assert_eq!(evaluate(vec![]).await, []);
}

#[tokio::test]
async fn faults_name_their_field_and_change_nothing() {
    let service = service();
    apply(&service, POLICY).await.expect("applied");
    let rows = [
        (
            "version: 1\nrules: [{ id: r, match: { src: '@nowhere' }, action: drop }]",
            "rules[\"r\"].match.src",
            "there is no set",
        ),
        (
            "version: 1\nrules: [{ id: slow, action: { rate_limit: { packets_per_second: 1, burst: 1000000000000 } } }]",
            "rules[\"slow\"].action.rate_limit.burst",
            "let it be at most",
        ),
        ("version: 1\nrulez: []", "rulez", "unknown"),
        (
            "version: 1\nsets: { s: { file: /etc/passwd } }",
            "sets[\"s\"].file",
            "",
        ),
        ("version: [", "yaml", "not YAML"),
    ];
    for (yaml, field, description) in rows {
        let status = apply(&service, yaml).await.expect_err(yaml);
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert_eq!(status.message().lines().count(), 1, "{status}");
        let details = status.get_details_bad_request().expect("details");
        let [violation] = &details.field_violations[..] else {
            panic!("{details:?}")
        };
        assert_eq!(violation.field, field, "{violation:?}");
        assert!(violation.description.contains(description), "{violation:?}");
    }

    let rule = |n| format!("  - {{ id: r{n}, match: {{ src: 192.0.2.{n} }}, action: drop }}\n");
    let many: String = (0..5).map(rule).collect();
    let status = apply(&service, &format!("version: 1\nrules:\n{many}")).await;
    let status = status.expect_err("too many rules");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("--max-rules"), "{status}");
    assert_eq!(generation(&service).await, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn changes_come_one_after_the_other() {
    let service = service();
    let applying: Vec<_> = (0..32)
        .map(|n: u32| {
            let service = service.clone();
            let default = if n.is_multiple_of(2) { "pass" } else { "drop" };
            tokio::spawn(async move {
                let yaml = format!("version: 1\ndefault: {default}\n");
                apply(&service, &yaml).await.expect("applied")
            })
        })
        .collect();
    let mut applied = Vec::new();
    for task in applying {
        applied.push(task.await.expect("no panic"));
    }
    applied.sort_by_key(|response| response.applied.as_ref().map(|a| a.generation));
    // What each one planned is the change from the policy before it.
    for (n, response) in applied.iter().enumerate().skip(1) {
        let figures = response.applied.as_ref().expect("figures");
        assert_eq!(figures.generation, n as u64 + 1);
        let same = applied[n - 1].hash == response.hash;
        assert_eq!(
            text(&response.plan).contains("no changes"),
            same,
            "{n}: {response:?}"
        );
    }
}

/// Whatever changes say: they are made, or refused with their place and a reason, and none is a mistake
/// of ours.
mod any_changes {
    use super::*;
    use proptest::prelude::*;
    use xdpgate_api::v1::change::Change as Is;
    use xdpgate_api::v1::{AddressSet, Change, ChangePolicyRequest, EnableRule, SetEntry, effect};

    fn word() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("bad-hosts".to_owned()),
            Just("block-bad".to_owned()),
            Just("192.0.2.0/24".to_owned()),
            Just("{ id: r, match: { src: '@bad-hosts' }, action: drop }".to_owned()),
            "\\PC{0,12}",
        ]
    }

    fn set() -> impl Strategy<Value = AddressSet> {
        let time = (any::<i64>(), any::<i32>());
        let time = time.prop_map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos });
        let entry = (word(), proptest::option::of(time));
        let entry = entry.prop_map(|(prefix, expires)| SetEntry { prefix, expires });
        let entries = proptest::collection::vec(entry, 0..3);
        (word(), entries, any::<bool>()).prop_map(|(name, entries, count_entries)| AddressSet {
            name,
            entries,
            count_entries,
        })
    }

    fn change() -> impl Strategy<Value = Change> {
        let is = prop_oneof![
            word().prop_map(Is::CreateRule),
            word().prop_map(Is::PutRule),
            word().prop_map(Is::RemoveRule),
            set().prop_map(Is::CreateSet),
            set().prop_map(Is::PutSet),
            word().prop_map(Is::RemoveSet),
            set().prop_map(Is::AddEntries),
            set().prop_map(Is::RemoveEntries),
            any::<i32>().prop_map(Is::DefaultVerdict),
            any::<i32>().prop_map(Is::Malformed),
            (word(), any::<bool>())
                .prop_map(|(id, enabled)| Is::EnableRule(EnableRule { id, enabled })),
        ];
        proptest::option::of(is).prop_map(|change| Change { change })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(300)))]

        #[test]
        fn are_made_or_refused_by_name(
            changes in proptest::collection::vec(change(), 0..6),
            partial in any::<bool>(),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                let service = service();
                apply(&service, POLICY).await.expect("applied");
                let count = changes.len();
                let request = ChangePolicyRequest { changes, partial, ..Default::default() };
                match service.change_policy(Request::new(request)).await {
                    Ok(done) => {
                        let effects = done.into_inner().effects;
                        prop_assert_eq!(effects.len(), count);
                        for effect in effects {
                            prop_assert_ne!(effect.kind(), effect::Kind::Unspecified);
                            prop_assert_eq!(effect.kind() == effect::Kind::Refused, effect.error.is_some());
                        }
                    }
                    Err(status) => {
                        prop_assert!(status.code() != Code::Internal, "{}", status);
                        prop_assert_eq!(status.message().lines().count(), 1);
                        prop_assert!(status.get_details_error_info().is_some());
                        prop_assert!(!partial || status.code() == Code::ResourceExhausted, "{}", status);
                        if let Some(bad) = status.get_details_bad_request() {
                            for violation in bad.field_violations {
                                prop_assert!(violation.field.starts_with("changes["), "{}", violation.field);
                            }
                        }
                    }
                }
                Ok(())
            })?;
        }
    }
}

/// A plan in the answer is of the policy that was replaced, also where somebody beside the API changes it.
#[tokio::test]
async fn a_plan_of_an_apply_starts_from_what_it_replaced() {
    let (firewall, _) = Firewall::loader().rehearse();
    let firewall = Arc::new(firewall);
    let service = FirewallService::new(Arc::clone(&firewall));
    let watched = Arc::clone(&firewall);
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    let beside = std::thread::spawn(move || {
        let mut ids = HashMap::new();
        for n in 0.. {
            let id = format!("beside-{n}");
            let rule = format!("{{ id: {id}, match: {{ src: 203.0.113.9 }}, action: drop }}");
            let text = format!("version: 1\nrules: [{rule}]\n");
            let policy = Policy::from_yaml(&text).expect("a policy");
            let applied = firewall.apply(&policy).expect("room");
            ids.insert(applied.generation.get(), id);
            if end.load(Ordering::Relaxed) {
                break;
            }
        }
        ids
    });
    let mut plans = Vec::new();
    for _ in 0..200 {
        let done = apply(&service, POLICY).await.expect("applied");
        let generation = done.applied.expect("done").generation;
        plans.push((generation, text(&done.plan).to_owned()));
        // The other one has its turn.
        let started = Instant::now();
        while watched.generation().is_none_or(|g| g.get() == generation) {
            assert!(started.elapsed() < Duration::from_secs(20));
            std::thread::yield_now();
        }
    }
    ended.store(true, Ordering::Relaxed);
    let ids = beside.join().expect("no panic");
    for (generation, plan) in &plans[1..] {
        let id = &ids[&(generation - 1)];
        let words: Vec<&str> = plan.split_whitespace().collect();
        assert!(words.contains(&id.as_str()), "{id}: {plan}");
    }
}
