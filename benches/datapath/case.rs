//! A policy that is measured, the packets that it judges, and what they are compared with.

use xdpgate::oracle::Oracle;
use xdpgate::policy::{
    Action, AddressItem, AddressMatch, AddressSet, Policy, Prefix, Rule, RuleId, SetName,
};
use xdpgate::{PolicyError, Verdict};

use crate::flow::{FRAME, Flow, Headers, frame};

/// One policy with the packets that it judges.
pub struct Case {
    pub v6: bool,
    pub policy: Policy,
    pub floor: Floor,
    pub tables: Vec<Table>,
    /// The length of the frames.
    pub frame: usize,
    /// Whether the rules of flows are remembered, as usual.
    pub remembers: bool,
    /// The sources that the policy blocks, where it is a mere list of hosts: other filters have
    /// such lists too.
    pub block_list: Option<Vec<Prefix>>,
    /// How much one entry or rule is: what `per entry` divides by.
    pub entries: usize,
}

/// What a case is compared with: one lookup in a map of the kernel's own.
pub enum Floor {
    /// The source address in a hash.
    Hash(Vec<Prefix>),
    /// The source address in an LPM trie.
    Lpm(Vec<Prefix>),
    /// The five-tuple in a hash.
    Tuples(Vec<Flow>),
}

/// A table of flows of one kind.
pub struct Table {
    /// What its packets have in common: `hit`, `miss`, `trace`, `under`, `over`.
    pub packets: &'static str,
    pub flows: Vec<Headers>,
    pub expected: Expected,
    pub target: Target,
}

/// What the verdicts of a table must be.
pub enum Expected {
    All(Verdict),
    /// What the oracle says of each flow.
    Oracle,
}

/// The net nanoseconds that are aimed for.
#[derive(Clone, Copy, Default)]
pub struct Target {
    pub hot: Option<f64>,
    pub rnd: Option<f64>,
}

impl Target {
    pub fn new(hot: f64, rnd: f64) -> Self {
        Self {
            hot: Some(hot),
            rnd: Some(rnd),
        }
    }
}

impl Case {
    /// A case of IPv4 packets of the usual length, with no entries to speak of.
    pub fn new(policy: Policy, floor: Floor, tables: Vec<Table>) -> Self {
        Self {
            v6: false,
            entries: policy.rules().len(),
            policy,
            floor,
            tables,
            frame: FRAME,
            remembers: true,
            block_list: None,
        }
    }

    /// The expected verdict of each of the first `count` flows of a table.
    pub fn expected(&self, table: &Table, count: usize) -> Vec<Verdict> {
        let flows = &table.flows[..count.min(table.flows.len())];
        match table.expected {
            Expected::All(verdict) => vec![verdict; flows.len()],
            Expected::Oracle => {
                let mut oracle = Oracle::new(&self.policy);
                let judge = |headers| {
                    let frame = frame(Some(headers), self.v6, self.frame);
                    oracle
                        .evaluate(&frame, jiff::Timestamp::UNIX_EPOCH, None)
                        .verdict
                };
                flows.iter().map(judge).collect()
            }
        }
    }

    /// How many flows are worth a check: the oracle is naive.
    pub fn sample(&self, table: &Table) -> usize {
        match table.expected {
            Expected::All(_) => 500,
            Expected::Oracle => (20_000_000 / self.policy.rules().len().max(1)).clamp(100, 500),
        }
    }
}

impl Table {
    pub fn hit(flows: Vec<Headers>, target: Target) -> Self {
        Self {
            packets: "hit",
            flows,
            expected: Expected::All(Verdict::Drop),
            target,
        }
    }

    pub fn miss(flows: Vec<Headers>, target: Target) -> Self {
        Self {
            packets: "miss",
            flows,
            expected: Expected::All(Verdict::Pass),
            target,
        }
    }
}

/// One rule: drop what comes from the set.
pub fn block_list(entries: &[Prefix]) -> Result<Policy, PolicyError> {
    let set = SetName::new("block").expect("a name");
    let mut rule = Rule::new(RuleId::new("block").expect("an id"), 10, Action::Drop);
    rule.matches.src = Some(AddressMatch {
        negated: false,
        items: vec![AddressItem::Set(set.clone())],
    });
    Policy::builder()
        .set(set, AddressSet::from_prefixes(entries.iter().copied()))
        .rule(rule)
        .build()
}

/// The `i`-th rule, asked in the order of `priority`.
pub fn rule(i: usize, priority: u32, action: Action) -> Rule {
    let id = RuleId::new(&format!("r{i:07}")).expect("an id");
    Rule::new(id, priority, action)
}

/// A match of one prefix.
pub fn within(prefix: Prefix) -> Option<AddressMatch> {
    Some(AddressMatch {
        negated: false,
        items: vec![AddressItem::Prefix(prefix)],
    })
}

/// A power of two of flows: enough to leave the caches at this many entries.
pub fn flow_count(entries: usize) -> u32 {
    match entries {
        0..=1024 => 1 << 16,
        1025..=131_072 => 1 << 18,
        _ => 1 << 20,
    }
}
