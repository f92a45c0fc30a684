//! What the library shows of single frames, through the API: policies are applied by `ApplyPolicy`, and
//! each frame is judged by the program in the kernel that the daemon loaded, by `Evaluate`. Cases and
//! rows are the library's own. Needs root.

mod common;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the library's tests use all of it"
)]
#[path = "../../tests/common"]
mod library {
    pub mod corpus;
    pub mod packet;
    pub mod rows;
    pub mod tuple;
}

use std::collections::BTreeMap;

use common::api::{Client, Scene, apply};
use common::is_root;
use library::corpus::{self, Case};
use library::packet::ip;
use library::rows;
use tokio::runtime::Runtime;
use xdpgate::policy::{Policy, RuleId};
use xdpgate::{Evaluation, Reason, Verdict};
use xdpgate_api::v1;

/// A daemon and its client, from where nothing is asynchronous.
struct Api {
    runtime: Runtime,
    client: Client,
    _scene: Scene,
}

impl Api {
    fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let scene = Scene::with("api.limits.requests_per_second = 100000");
        let client = runtime.block_on(scene.client());
        Self {
            runtime,
            client,
            _scene: scene,
        }
    }

    fn apply(&mut self, policy: &Policy) {
        let yaml = policy.to_yaml();
        self.runtime.block_on(apply(&mut self.client, &yaml));
    }

    fn evaluate(&mut self, interface: Option<&str>, frame: &[u8]) -> Evaluation {
        let request = v1::EvaluateRequest {
            frames: vec![frame.to_vec()],
            interface: interface.map(str::to_owned),
        };
        let said = self.runtime.block_on(self.client.evaluate(request));
        let said = said.expect("judged").into_inner().results.remove(0);
        let id = |id: &String| RuleId::new(id).expect("an id");
        Evaluation {
            verdict: match said.verdict() {
                v1::Verdict::Pass => Verdict::Pass,
                v1::Verdict::Drop => Verdict::Drop,
                other => panic!("{other:?}"),
            },
            reason: Reason::ALL
                .into_iter()
                .find(|reason| reason.as_str() == said.reason)
                .unwrap_or_else(|| panic!("{}: no such reason", said.reason)),
            rule: said.rule.as_ref().map(id),
            monitored: said.monitored.iter().map(id).collect(),
        }
    }
}

/// Judges over the API; applies a policy only when it differs from the last one.
fn with_api(test: impl FnOnce(rows::Judge<'_>)) {
    if !is_root() {
        return;
    }
    let mut api = Api::start();
    let mut last: Option<Policy> = None;
    test(&mut |policy, frame| {
        if last.as_ref() != Some(policy) {
            api.apply(policy);
            last = Some(policy.clone());
        }
        api.evaluate(None, frame)
    });
}

#[test]
fn the_corpus_through_the_api() {
    if !is_root() {
        return;
    }
    let mut by_policy: BTreeMap<_, Vec<Case>> = BTreeMap::new();
    for case in corpus::load() {
        let key = (case.policy.clone(), case.at);
        by_policy.entry(key).or_default().push(case);
    }
    let mut api = Api::start();
    let mut judged = 0;
    for cases in by_policy.values() {
        api.apply(&cases[0].policy_as_of_now());
        for case in cases {
            case.check(&api.evaluate(case.interface.as_deref(), &case.frame));
            judged += 1;
        }
    }
    println!("corpus: {judged} frames judged");
    assert!(judged >= 250, "only {judged} frames of the corpus");
}

/// A rule for each; each frame is decided by the rule of its number.
#[test]
fn r04_every_protocol_number() {
    with_api(|judge| {
        let rule =
            |n: u8| format!("  - {{ id: p{n}, match: {{ protocol: {n} }}, action: drop }}\n");
        let rules: String = (0..=255).map(rule).collect();
        let yaml = format!("version: 1\nfailsafe: none\nrules:\n{rules}");
        let policy = Policy::from_yaml(&yaml).expect("a policy");
        for n in 0..=255 {
            let frame = ip("192.0.2.1", "192.0.2.2").protocol(n).payload(&[0; 60]);
            let said = judge(&policy, &frame.build());
            assert_eq!(said.rule.expect("a rule").as_str(), format!("p{n}"));
        }
    });
}

#[test]
fn r05_any_subset_of_the_5_tuple() {
    with_api(|judge| rows::five_tuple_shapes(judge));
}

#[test]
fn r06_the_edges_of_every_prefix() {
    with_api(|judge| rows::prefix_edges(judge));
}

#[test]
fn r21_a_whitelist_of_all_subsets_of_the_5_tuple() {
    with_api(|judge| rows::allowed_shapes_at_once(judge));
}
