//! The daemon's counters, and whether they say what must be.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Result;
use crate::flow::{Flow, Seen};

/// Where counters come from: `xdpgate stats --json`.
pub(crate) struct Counters {
    client: PathBuf,
    server: String,
}

/// All counters at one moment, or how far they moved.
pub(crate) struct Reading(Vec<(String, u64)>);

impl Counters {
    pub(crate) fn new(client: &Path, server: &str) -> Self {
        Self {
            client: client.to_owned(),
            server: server.to_owned(),
        }
    }

    pub(crate) fn read(&self) -> Result<Reading> {
        let output = Command::new(&self.client)
            .args(["stats", "--json", "--server", &self.server])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            return Err("`xdpgate stats` failed".into());
        }
        let stats: Value = serde_json::from_slice(&output.stdout)?;
        let mut counters = Vec::new();
        let number = |value: &Value| value.as_u64().ok_or("not a number");
        let list = |value: &Value| value.as_array().cloned().ok_or("not a list");
        for count in list(&stats["interfaces"][0]["verdicts"])? {
            let name = format!("{}/{}", count["disposition"], count["reason"]).replace('"', "");
            counters.push((name, number(&count["packets"])?));
        }
        for rule in list(&stats["rules"])? {
            let id = rule["id"].as_str().ok_or("not a name")?;
            counters.push((format!("rule {id}"), number(&rule["packets"])?));
            counters.push((
                format!("rule {id} dropped"),
                number(&rule["dropped_packets"])?,
            ));
        }
        Ok(Reading(counters))
    }
}

impl Reading {
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self(
            self.0
                .iter()
                .map(|(name, n)| (name.clone(), n - before.get(name)))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> u64 {
        self.0
            .iter()
            .find(|(found, _)| found == name)
            .map_or(0, |(_, n)| *n)
    }

    /// Whether the packets of a flow are all counted.
    pub(crate) fn has(&self, flow: &Flow, enforced: bool) -> bool {
        self.get(&expected(flow, enforced)) >= *flow.packets().start()
    }

    /// What became of a flow by the counters that moved, and by what: two fields with a tab between.
    pub(crate) fn verdict(&self, flow: &Flow) -> String {
        let by = match flow.rule {
            Some(rule) if self.get(&format!("rule {rule}")) > 0 => rule,
            _ => "(default)",
        };
        let reason = if by == "(default)" { "default" } else { "rule" };
        let moved = |verdict: &str| self.get(&format!("{verdict}/{reason}")) > 0;
        let verdict = match (moved("drop"), moved("would_drop")) {
            (true, false) => "drop",
            (false, true) => "would drop",
            (false, false) => "pass",
            (true, true) => "both",
        };
        format!("{verdict}\t{by}")
    }
}

/// The counter of verdict and reason that a flow must move.
fn expected(flow: &Flow, enforced: bool) -> String {
    let verdict = match (flow.drops, enforced) {
        (false, _) => "pass",
        (true, false) => "would_drop",
        (true, true) => "drop",
    };
    format!(
        "{verdict}/{}",
        if flow.rule.is_some() {
            "rule"
        } else {
            "default"
        }
    )
}

/// All that is not as it must be.
pub(crate) fn faults(flow: &Flow, seen: &Seen, moved: &Reading, enforced: bool) -> Vec<String> {
    let mut faults = Vec::new();
    let mut claim = |holds: bool, fault: String| {
        if !holds {
            faults.push(format!("{}: {fault}", flow.what));
        }
    };
    let arrive = if flow.drops && enforced { 0 } else { seen.sent };
    claim(
        seen.arrived == arrive,
        format!("{} arrived in place of {arrive}", seen.arrived),
    );

    let name = expected(flow, enforced);
    let count = moved.get(&name);
    let packets = flow.packets();
    match flow.rule {
        // Others speak on the link too, and fall to the default.
        None => claim(
            count >= *packets.start(),
            format!("{name} moved by {count}"),
        ),
        Some(rule) => {
            claim(packets.contains(&count), format!("{name} moved by {count}"));
            let ruled = moved.get(&format!("rule {rule}"));
            claim(
                ruled == count,
                format!("{rule} counted {ruled} packets, {name} {count}"),
            );
            let dropped = moved.get(&format!("rule {rule} dropped"));
            let must = if flow.drops && enforced { count } else { 0 };
            claim(
                dropped == must,
                format!("{rule} dropped {dropped} packets in place of {must}"),
            );
        }
    }
    for other in [
        "drop/rule",
        "would_drop/rule",
        "drop/default",
        "would_drop/default",
    ] {
        let count = moved.get(other);
        claim(
            other == name || count == 0,
            format!("{other} moved by {count}"),
        );
    }
    faults
}
