//! What is done to a controller and its nodes, and what is measured.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::controller::{Controller, Usage, usage};
use crate::crowd::{Crowd, Report, Wire};
use crate::fetcher;
use crate::figures::{Figures, median, millis, spread};
use crate::ground::{self, Ground, Kind, address, rule};

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    pub nodes: usize,
    /// Rules of the three policies.
    pub rules: [usize; 3],
    /// Entries of the set that changes.
    pub entries: u32,
    /// Entries of the set that is fetched, and by how many nodes.
    pub snapshot: (u32, usize),
    pub idle: Duration,
    pub changes: usize,
}

/// Nothing takes longer, however slow the machine,
const LIMIT: Duration = Duration::from_secs(120);
/// and all of it not much longer than this: what comes after it fails at once.
const WHOLE: Duration = Duration::from_secs(480);
/// Nodes that have the policies of other sizes.
const FEW: usize = 10;

/// A controller, its nodes, and how large all is.
struct Run {
    scale: Scale,
    controller: Controller,
    crowd: Crowd,
    main: Vec<usize>,
    figures: Figures,
    /// A port for each change.
    port: u16,
    end: Instant,
}

/// Runs all scenarios. Returns what was wrong; speed is not judged.
pub async fn run(program: &Path, scale: Scale) -> Vec<String> {
    let folder = TempDir::new().expect("a folder");
    let kinds = kinds(&scale);
    let began = Instant::now();
    let end = began + WHOLE;
    let ground = ground::lay(&folder.path().join("controller.db"), &kinds).await;
    eprintln!(
        "{} members registered in {:.1?}",
        ground.members.len(),
        began.elapsed()
    );
    let controller = Controller::start(program, folder.path(), &ground.token).await;
    let empty = controller.usage();
    // Nodes that fetch the large set dial later.
    let (late, now): (Vec<_>, Vec<_>) = ground.members.into_iter().partition(|m| m.kind == "late");
    let ground = Ground {
        members: now,
        ..ground
    };
    let began = Instant::now();
    let crowd = Crowd::start(&ground.members, controller.nodes);
    let mut run = Run {
        scale,
        main: crowd.of("small"),
        controller,
        crowd,
        figures: Figures::default(),
        port: 1000,
        end,
    };
    let mut wrong = Vec::new();
    wrong.extend(run.storm("connect_storm", began, empty).await);
    run.idle(empty).await;
    wrong.extend(run.one_rule().await);
    wrong.extend(run.sizes().await);
    wrong.extend(run.slow().await);
    wrong.extend(run.set().await);
    wrong.extend(run.snapshots(&late).await);
    wrong.extend(run.crash().await);
    run.figures.table();
    wrong
}

fn kinds(scale: &Scale) -> [Kind; 4] {
    let [small, middle, large] = scale.rules;
    let kind = |name, nodes, rules, set| Kind {
        name,
        nodes,
        rules,
        set,
    };
    [
        kind("small", scale.nodes, small, Some(("listed", 1_000))),
        kind("middle", FEW, middle, None),
        kind("large", FEW, large, None),
        kind(
            "late",
            scale.snapshot.1,
            10,
            Some(("millions", scale.snapshot.0)),
        ),
    ]
}

/// What is wrong if not all nodes have one and the same.
fn agree(what: &str, reports: &[Report], expected: usize) -> Option<String> {
    let hashes: BTreeSet<_> = reports
        .iter()
        .map(|report| report.hash.map(|h| h.to_string()))
        .collect();
    let all = reports.len() == expected && hashes.len() == 1 && !hashes.contains(&None);
    (!all).then(|| {
        format!(
            "{what}: {} of {expected} nodes, {} hashes",
            reports.len(),
            hashes.len()
        )
    })
}

fn moments(reports: &[Report]) -> Vec<Instant> {
    reports.iter().map(|report| report.at).collect()
}

fn seconds(from: Usage, to: Usage) -> f64 {
    (to.cpu.saturating_sub(from.cpu)).as_secs_f64()
}

impl Run {
    /// How long one more thing may take.
    fn limit(&self) -> Duration {
        LIMIT.min(self.end.saturating_duration_since(Instant::now()))
    }

    /// All nodes dial at once and have nothing.
    async fn storm(&mut self, what: &str, began: Instant, before: Usage) -> Option<String> {
        let all: Vec<usize> = (0..self.crowd.kinds.len()).collect();
        let limit = self.limit();
        let found = self.crowd.have(&all, 1, limit).await;
        let main: Vec<_> = found
            .iter()
            .filter(|r| self.crowd.kinds[r.place] == "small")
            .copied()
            .collect();
        let (p50, p99, last) = spread(began, moments(&main));
        let after = self.controller.usage();
        let wrong = agree(what, &main, self.main.len());
        // Who is not here is missed once, and not waited for by all that follows.
        let here: BTreeSet<usize> = found.iter().map(|report| report.place).collect();
        self.main.retain(|place| here.contains(place));
        self.figures.add(
            what,
            json!({
                "nodes": found.len(), "p50_ms": p50, "p99_ms": p99, "last_ms": last,
                "controller_cpu_s": seconds(before, after), "controller_rss_kib": after.rss_kib,
            }),
        );
        wrong
    }

    /// Heartbeats only.
    async fn idle(&mut self, empty: Usage) {
        let all: Vec<usize> = (0..self.crowd.kinds.len()).collect();
        let (before, bytes) = (self.controller.usage(), self.crowd.bytes(&all));
        tokio::time::sleep(self.scale.idle).await;
        let (after, then) = (self.controller.usage(), self.crowd.bytes(&all));
        let (nodes, time) = (all.len() as f64, self.scale.idle.as_secs_f64());
        let rate = |bytes: u64| (bytes as f64 / nodes / time * 10.0).round() / 10.0;
        self.figures.add("idle", json!({
            "seconds": time, "cpu_percent_of_a_core": seconds(before, after) / time * 100.0,
            "rss_kib": after.rss_kib, "rss_kib_without_nodes": empty.rss_kib,
            "kib_per_node": after.rss_kib.saturating_sub(empty.rss_kib) as f64 / nodes,
            "bytes_up_per_node_second": rate(then.1 - bytes.1), "bytes_down_per_node_second": rate(then.0 - bytes.0),
            "simulator_kib_per_node": usage("self").rss_kib as f64 / nodes,
        }));
    }

    /// Changes a rule of a policy; returns when it was asked for, when that was answered, and its transaction.
    async fn change(&mut self, policy: &str, id: usize) -> (Instant, Instant, u64) {
        self.port += 1;
        let asked = Instant::now();
        let path = format!("/policies/{policy}/rules/rule-{id}");
        let revision = self
            .controller
            .put(&path, "application/json", rule(id, self.port))
            .await;
        (asked, Instant::now(), revision)
    }

    /// Changes of one rule of all nodes, but for some places: medians of p50, p99 and last since the commit.
    async fn changes(&mut self, what: &str, places: &[usize]) -> ([f64; 4], Option<String>) {
        let mut all: [Vec<f64>; 4] = Default::default();
        let mut wrong = None;
        for _ in 0..self.scale.changes {
            let (asked, answered, revision) = self.change("small", 7).await;
            let limit = self.limit();
            let found = self.crowd.have(places, revision, limit).await;
            let (p50, p99, last) = spread(asked, moments(&found));
            for (numbers, number) in all
                .iter_mut()
                .zip([millis(answered - asked), p50, p99, last])
            {
                numbers.push(number);
            }
            wrong = wrong.or(agree(what, &found, places.len()));
        }
        (all.map(median), wrong)
    }

    async fn one_rule(&mut self) -> Option<String> {
        let before = self.controller.usage();
        let places = self.main.clone();
        let ([rest, p50, p99, last], wrong) = self.changes("one_rule", &places).await;
        let cpu = seconds(before, self.controller.usage()) / self.scale.changes as f64;
        self.figures.add(
            "one_rule",
            json!({
                "nodes": places.len(), "changes": self.scale.changes, "rest_answered_ms": rest,
                "p50_ms": p50, "p99_ms": p99, "last_ms": last, "controller_cpu_s_per_change": cpu,
            }),
        );
        wrong
    }

    /// One rule in policies of other sizes: the bytes must not depend on the size.
    async fn sizes(&mut self) -> Option<String> {
        let mut wrong = None;
        let mut bytes = Vec::new();
        for (kind, rules) in ["small", "middle", "large"]
            .into_iter()
            .zip(self.scale.rules)
        {
            let places: Vec<_> = self.crowd.of(kind).into_iter().take(FEW).collect();
            let before = self.crowd.bytes(&places);
            let (asked, answered, revision) = self.change(kind, 7).await;
            let limit = self.limit();
            let found = self.crowd.have(&places, revision, limit).await;
            // What is on its way arrives.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let after = self.crowd.bytes(&places);
            let down = (after.0 - before.0) as f64 / places.len() as f64;
            bytes.push(down);
            wrong = wrong.or(agree(kind, &found, places.len()));
            self.figures.add("one_rule_bytes", json!({
                "rules": rules, "bytes_down_per_node": down,
                "bytes_up_per_node": (after.1 - before.1) as f64 / places.len() as f64,
                "rest_answered_ms": millis(answered - asked), "last_ms": spread(asked, moments(&found)).2,
            }));
        }
        let apart = bytes.iter().copied().fold(0.0, f64::max)
            - bytes.iter().copied().fold(f64::MAX, f64::min);
        wrong.or((apart > 200.0)
            .then(|| format!("bytes of a one-rule change grow with the policy: {bytes:?}")))
    }

    /// A node that reads nothing does not delay the others.
    async fn slow(&mut self) -> Option<String> {
        let (slow, others) = (self.main[0], self.main[1..].to_vec());
        self.crowd.wires[slow]
            .stalled
            .store(true, Ordering::Relaxed);
        let ([_, p50, p99, last], wrong) = self.changes("slow_node", &others).await;
        self.crowd.wires[slow]
            .stalled
            .store(false, Ordering::Relaxed);
        self.figures.add(
            "beside_a_slow_node",
            json!({ "nodes": others.len(), "p50_ms": p50, "p99_ms": p99, "last_ms": last }),
        );
        // The connection that was stalled is given up by the controller; the node is counted no more.
        self.main = others;
        wrong
    }

    /// Many entries of a set change at once.
    async fn set(&mut self) -> Option<String> {
        let lines = |from: u32| -> String {
            (from..from + self.scale.entries)
                .map(|n| format!("{}\n", address(n)))
                .collect()
        };
        let body = lines(5_000_000);
        let places = self.main.clone();
        let (before, bytes) = (self.controller.usage(), self.crowd.bytes(&places));
        let asked = Instant::now();
        let revision = self
            .controller
            .put("/sets/listed/entries", "text/plain", body)
            .await;
        let answered = Instant::now();
        let limit = self.limit();
        let found = self.crowd.have(&places, revision, limit).await;
        let (p50, p99, last) = spread(asked, moments(&found));
        let (after, then) = (self.controller.usage(), self.crowd.bytes(&places));
        self.figures.add("set_change", json!({
            "nodes": places.len(), "entries": self.scale.entries, "rest_answered_ms": millis(answered - asked),
            "p50_ms": p50, "p99_ms": p99, "last_ms": last,
            "bytes_down_per_node": (then.0 - bytes.0) as f64 / places.len() as f64,
            "controller_cpu_s": seconds(before, after), "controller_rss_kib": after.rss_kib,
        }));
        agree("set_change", &found, places.len())
    }

    /// New nodes fetch a large set.
    async fn snapshots(&mut self, late: &[ground::Member]) -> Option<String> {
        let before = self.controller.usage();
        let to = self.controller.nodes;
        let wires: Vec<Arc<Wire>> = late.iter().map(|_| Arc::default()).collect();
        let began = Instant::now();
        let all = late.iter().zip(&wires).enumerate();
        let all =
            all.map(|(place, (member, wire))| fetcher::fetch(place, member, to, wire.clone()));
        let done = tokio::time::timeout(self.limit(), futures_util::future::join_all(all))
            .await
            .unwrap_or_default();
        let good: Vec<_> = done.iter().filter_map(|one| one.as_ref().ok()).collect();
        let (p50, p99, last) = spread(began, good.iter().map(|(at, _)| *at).collect());
        let received: u64 = wires
            .iter()
            .map(|wire| wire.received.load(Ordering::Relaxed))
            .sum();
        let after = self.controller.usage();
        self.figures.add("snapshot", json!({
            "nodes": good.len(), "entries": self.scale.snapshot.0, "p50_ms": p50, "p99_ms": p99, "last_ms": last,
            "bytes_of_chunks": good.first().map(|one| one.1), "bytes_down_per_node": received as f64 / late.len() as f64,
            "controller_cpu_s": seconds(before, after), "controller_rss_kib": after.rss_kib,
        }));
        let first = done.iter().find_map(|one| one.as_ref().err());
        (good.len() != late.len())
            .then(|| format!("snapshot: {} of {}: {first:?}", good.len(), late.len()))
    }

    /// The controller dies, comes back, and something has changed.
    async fn crash(&mut self) -> Option<String> {
        let began = Instant::now();
        let ready = self.controller.crash().await;
        let (_, _, revision) = self.change("small", 7).await;
        let places = self.main.clone();
        let limit = self.limit();
        let found = self.crowd.have(&places, revision, limit).await;
        let (p50, p99, last) = spread(began, moments(&found));
        let after = self.controller.usage();
        self.figures.add("reconnect_storm", json!({
            "nodes": found.len(), "controller_answers_ms": millis(ready), "p50_ms": p50, "p99_ms": p99, "last_ms": last,
            "controller_cpu_s": after.cpu.as_secs_f64(), "controller_rss_kib": after.rss_kib,
        }));
        agree("reconnect_storm", &found, places.len())
    }
}
