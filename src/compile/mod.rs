//! The policy compiler: from a [`Policy`] to an [`Image`].
//!
//! Rules are numbered in evaluation order, so "first match" is "least number". A rule that one
//! address alone decides is folded into that address's *outcome*. The others are found by *rows* (one
//! bit each in the row that every field value leads to, and the AND of the rows leaves those that
//! match), or, where there are many, by *pairs* of a source and a destination, or by their exact
//! five-tuple. `docs/data-plane.md` has the picture and the reasons.

mod address;
mod allot;
mod axis;
mod class;
mod clock;
mod entries;
mod exact;
mod host_edit;
mod hosts;
mod limit;
mod management;
mod pairs;
mod recompile;
mod record;
mod rows;
mod trie;

use bytemuck::Zeroable;

use crate::abi::{self, AXIS_COUNT, AXIS_DST, AXIS_SRC, Shape};
use crate::image::{Image, ImageWriter, Names};
use crate::management::Management;
use crate::policy::{AddressMatch, Match, Policy, PolicyError, Rule, Verdict};
use address::{Form, Member, SweptAxis, What};
use allot::{Allotment, Place};
pub use clock::Clock;
use entries::CountedSets;
use pairs::Pairs;
pub(crate) use recompile::{Basis, Recompilation};
use rows::Row;

/// What the compiler needs beside the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileOptions {
    /// The seed of the hash tables. Attackers choose keys: derive it from a secret of the node.
    pub seed: [u64; 2],
    /// The counter slot of each active rule, in the order of [`active_rules`].
    pub counter_slots: Vec<u32>,
    /// The clock by which rules and entries expire.
    pub clock: Clock,
    /// Up to how many rules that need more than one address are found by rows of bits alone; see
    /// [`ROWS_UP_TO`].
    pub rows_up_to: usize,
    /// Management traffic of this host that passes before any rule, beside what the policy's
    /// failsafe names; nothing of it where the policy says `failsafe: none`. At most
    /// [`Management::MAX`].
    pub management: Vec<Management>,
}

impl Default for CompileOptions {
    fn default() -> Self {
        Self {
            seed: [0; 2],
            counter_slots: Vec::new(),
            clock: Clock::default(),
            rows_up_to: ROWS_UP_TO,
            management: Vec::new(),
        }
    }
}

/// Rows of bits find the right one of few rules fastest; beyond this number pairs of addresses do.
/// Measured on ClassBench sets: `docs/data-plane.md`.
pub const ROWS_UP_TO: usize = 1024;

/// The rules that take part: the enabled ones, in evaluation order.
pub fn active_rules(policy: &Policy) -> Vec<&Rule> {
    policy.rules().iter().filter(|r| r.enabled).collect()
}

/// Compiles a policy. The same policy and options give the same bytes.
///
/// # Errors
/// A rule that uses something which the data plane cannot do yet, or a policy beyond a limit.
pub fn compile(policy: &Policy, options: &CompileOptions) -> Result<Image, PolicyError> {
    for attempt in 0..SEEDS {
        let seed = options
            .seed
            .map(|s| s.wrapping_add(attempt.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        match compile_with(policy, options, seed) {
            Ok(image) => return Ok(image),
            Err(Refusal::Policy(error)) => return Err(error),
            Err(Refusal::Crowded) => log::warn!("addresses collide in a hash table: next seed"),
        }
    }
    Err(PolicyError::limit(
        None,
        format!("its addresses collide in the hash table with each of {SEEDS} seeds"),
    ))
}

/// The image of a policy that differs from another only in hosts of its sets, by changing the image
/// of the other: a fraction of what [`compile`] takes, most of it for the copy and its checksum.
///
/// `None` if more differs, prefixes or entries that expire among them; if such hosts were not there
/// before, or so many changed that a new image is the better one. Then [`compile`] is to be used.
///
/// `image` is that of `before`, and `clock` the one by which it was made, as it stands now. Seed and
/// counter slots remain. The result judges every packet as that of [`compile`] does, but has other
/// bytes.
pub fn recompile(image: Image, before: &Policy, after: &Policy, clock: &Clock) -> Option<Image> {
    Recompilation::between(before, after)?.change(image, clock)
}

/// How many seeds are tried before a policy whose keys collide is refused.
const SEEDS: u64 = 4;

/// Why an image could not be made.
#[derive(Debug)]
enum Refusal {
    /// The policy cannot be compiled.
    Policy(PolicyError),
    /// With this seed too many keys fall into the same lines.
    Crowded,
}

impl From<PolicyError> for Refusal {
    fn from(error: PolicyError) -> Self {
        Self::Policy(error)
    }
}

fn compile_with(
    policy: &Policy,
    options: &CompileOptions,
    seed: [u64; 2],
) -> Result<Image, Refusal> {
    let rules = active_rules(policy);
    if rules.len() >= abi::NO_RULE as usize {
        let reason = format!("{} rules, the limit is {}", rules.len(), abi::NO_RULE);
        return Err(PolicyError::limit(None, reason).into());
    }
    let Arranged {
        allotment,
        pairs,
        swept,
    } = Arranged::new(policy, &rules, options)?;
    let rowed = allotment.rowed();
    let matches: Vec<&Match> = rowed.iter().map(|n| &rules[*n as usize].matches).collect();

    let mut shape = Shape::zeroed();
    let mut image = ImageWriter::new();
    shape.seed = seed;
    shape.features = features(policy) | limit::features(&rules);
    shape.row_lines = rows::row_lines(rowed.len());
    shape.rowed_count = rowed.len() as u32;
    shape.axes = axis::row_axes(&matches);
    let special = special(&rules, &rowed);
    // The most of them that one packet can meet.
    let mut walked = special.count();
    if form(&rowed, &pairs).records {
        shape.features |= abi::FEATURE_RECORDS;
    }
    let labels = pairs.records();
    let mut basis = Some([None, None]);
    for (direction, axis) in swept.into_iter().enumerate() {
        let Some(mut axis) = axis else { continue };
        basis = basis.zip(axis.take_basis()).map(|(mut axes, axis)| {
            axes[direction] = Some(axis);
            axes
        });
        shape.features |= if direction == AXIS_SRC {
            abi::FEATURE_SRC
        } else {
            abi::FEATURE_DST
        };
        shape.labels[direction] = axis.most_labels();
        if shape.axes & 1 << direction != 0 {
            walked = walked.min(axis.most_rows(&special));
        }
        let axis = axis.write(seed, &labels[direction], &mut image)?;
        if axis.timed != 0 {
            shape.features |= abi::FEATURE_TIMED;
        }
        shape.address[direction] = axis;
    }
    if !pairs.is_empty() {
        pairs.write(&labels, seed, &mut shape, &mut image)?;
        class::write(&allotment.classes, &mut shape, &mut image)?;
    }
    exact::write(&rules, &allotment.places, seed, &mut shape, &mut image)?;
    if !rowed.is_empty() {
        shape.features |= abi::FEATURE_ROWS;
        for number in AXIS_DST + 1..AXIS_COUNT {
            if shape.axes & 1 << number != 0 {
                let (table, most) = axis::build(number, &matches, &special, &mut image)?;
                shape.table[number] = table;
                walked = walked.min(most);
            }
        }
        shape.rowed = image.section(&rowed);
    }
    if walked > abi::MAX_WALK {
        return Err(PolicyError::limit(
            None,
            format!(
                "one packet may match {walked} rules that only count, are in monitor mode, expire or are \
                 for some interfaces only, the limit is {}",
                abi::MAX_WALK
            ),
        )
        .mend("use dry run to try a whole policy, or an address set in place of such rules")
        .into());
    }
    if (shape.axes | shape.class_axes) & !AXES_ALWAYS_PARSED != 0 {
        shape.features |= abi::FEATURE_FIELDS;
    }
    // One for each word, for each rule that is passed by, and for the rule that decides.
    shape.row_steps = (rowed.len().div_ceil(64) + walked + 1) as u32;
    shape.features |= conditions(&rules, &allotment.places);
    if special.count() > 0 {
        shape.features |= abi::FEATURE_WALK;
    }
    let counted = CountedSets::new(policy)?;
    let scopes = record::write(
        &rules,
        &counted,
        &options.counter_slots,
        &options.clock,
        &mut shape,
        &mut image,
    )?;
    if are_flows_worthwhile(&rules, &shape, scopes.len()) {
        shape.features |= abi::FEATURE_FLOWS;
    }
    management::write(policy, &options.management, &mut shape, &mut image)?;
    let entries = counted.write(&options.clock, seed, &mut shape, &mut image)?;
    let names = Names {
        rules: rules.iter().map(|r| r.id.clone()).collect(),
        scopes,
        entries,
    };
    let basis = basis.map(|axes| Basis {
        clock: options.clock,
        axes,
    });
    Ok(image.finish(shape, names, basis))
}

/// Axes whose fields the parser reads whatever the policy is.
const AXES_ALWAYS_PARSED: u32 = 1 << AXIS_SRC
    | 1 << AXIS_DST
    | 1 << abi::AXIS_PROTOCOL
    | 1 << abi::AXIS_SPORT
    | 1 << abi::AXIS_DPORT;

/// Whether to remember the rule of a flow. Not where rules only count, because a packet may have
/// several of them, nor where one look at the addresses finds the rule as fast.
fn are_flows_worthwhile(rules: &[&Rule], shape: &Shape, scopes: usize) -> bool {
    shape.features & (abi::FEATURE_ROWS | abi::FEATURE_PAIRS) != 0
        && scopes <= abi::FLOW_SCOPES
        && !rules.iter().any(|rule| allot::is_passive(rule))
}

/// Features for rules that do not simply decide.
fn conditions(rules: &[&Rule], places: &[Place]) -> u32 {
    let mut features = 0;
    for (rule, place) in rules.iter().zip(places) {
        if matches!(place, Place::Row | Place::Pair(_)) && allot::is_conditional(rule) {
            features |= abi::FEATURE_CONDITIONS;
        }
    }
    features
}

/// Those of the rules of the rows that do not always end the search.
fn special(rules: &[&Rule], rowed: &[u32]) -> Row {
    let mut row = Row::empty(rowed.len());
    for (bit, number) in rowed.iter().enumerate() {
        let rule = rules[*number as usize];
        if allot::is_conditional(rule) || allot::is_passive(rule) {
            row.set(bit);
        }
    }
    row
}

/// Every rule in its place, and the outcome of every address.
struct Arranged<'p> {
    allotment: Allotment,
    pairs: Pairs<'p>,
    swept: [Option<SweptAxis>; 2],
}

impl<'p> Arranged<'p> {
    /// Rules that turn out not to fit into their place go into the rows, until all fit.
    fn new(
        policy: &'p Policy,
        rules: &[&'p Rule],
        options: &CompileOptions,
    ) -> Result<Self, PolicyError> {
        let mut allotment = allot::allot(rules, options.rows_up_to);
        loop {
            let (pairs, surplus) = Pairs::new(rules, &allotment.places);
            if !surplus.is_empty() {
                allotment.move_to_rows(&surplus);
                continue;
            }
            allotment.check(rules)?;
            let swept = sweep(policy, rules, &allotment, &pairs, &options.clock);
            let mut surplus = Vec::new();
            for (direction, axis) in swept.iter().enumerate() {
                if let Some(axis) = axis {
                    let labels = axis.surplus_labels(pairs.weights(direction));
                    surplus.extend(pairs.rules_of(direction, &labels));
                }
            }
            if surplus.is_empty() {
                return Ok(Self {
                    allotment,
                    pairs,
                    swept,
                });
            }
            allotment.move_to_rows(&surplus);
        }
    }
}

/// How outcomes are written down.
fn form(rowed: &[u32], pairs: &Pairs<'_>) -> Form {
    Form {
        row_bits: rowed.len(),
        records: !rowed.is_empty() || !pairs.is_empty(),
        labels: !pairs.is_empty(),
    }
}

/// Finds the outcomes of all addresses, by direction; `None` where nothing depends on them.
fn sweep(
    policy: &Policy,
    rules: &[&Rule],
    allotment: &Allotment,
    pairs: &Pairs<'_>,
    clock: &Clock,
) -> [Option<SweptAxis>; 2] {
    let rowed = allotment.rowed();
    let form = form(&rowed, pairs);
    let matches: Vec<&Match> = rowed.iter().map(|n| &rules[*n as usize].matches).collect();
    let axes = axis::row_axes(&matches);
    [AXIS_SRC, AXIS_DST].map(|direction| {
        let mut members: Vec<Member<'_>> = Vec::new();
        for ((number, rule), place) in (0..).zip(rules).zip(&allotment.places) {
            if *place == Place::Address(direction) {
                let until = rule.expires.map_or(Clock::NEVER, |at| clock.ticks_at(at));
                members.push(member(direction, rule, What::Rule(number, until)));
            }
        }
        let is_needed = !members.is_empty() || !pairs.is_empty() || axes & 1 << direction != 0;
        for (bit, number) in rowed.iter().enumerate() {
            let rule = rules[*number as usize];
            members.push(member(direction, rule, What::Row(bit)));
        }
        members.extend(pairs.members(direction));
        is_needed.then(|| address::sweep(policy, &members, form, clock))
    })
}

fn address(direction: usize, m: &Match) -> Option<&AddressMatch> {
    match direction {
        AXIS_SRC => m.src.as_ref(),
        _ => m.dst.as_ref(),
    }
}

fn member(direction: usize, rule: &Rule, what: What) -> Member<'_> {
    Member {
        what,
        address: address(direction, &rule.matches),
        family: rule.matches.family,
    }
}

fn features(policy: &Policy) -> u32 {
    let flag = |on: bool, bit: u32| if on { bit } else { 0 };
    let failsafe = policy.failsafe();
    flag(
        policy.default_verdict() == Verdict::Drop,
        abi::FEATURE_DEFAULT_DROP,
    ) | flag(
        policy.malformed() == Verdict::Drop,
        abi::FEATURE_MALFORMED_DROP,
    ) | flag(failsafe.enabled, abi::FEATURE_FAILSAFE)
}
