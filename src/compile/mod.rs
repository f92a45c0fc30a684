//! The policy compiler: from a [`Policy`] to an [`Image`].
//!
//! Rules are numbered in evaluation order, so "first match" is "least number". A rule that one
//! address alone decides is folded into that address's *outcome*; the others are *structured*: one
//! bit each in the rows that every field value leads to, and the AND of the rows leaves those that
//! match. `docs/data-plane.md` has the picture and the reasons.

mod address;
mod axis;
mod clock;
mod hosts;
mod record;
mod rows;
mod trie;

use bytemuck::Zeroable;

use crate::abi::{self, AXIS_COUNT, AXIS_DST, AXIS_SRC, Shape, SshPrefix};
use crate::image::{Image, ImageWriter};
use crate::policy::{
    Action, AddressSet, EntryCounters, Family, Mode, Policy, PolicyError, PolicyErrorKind, Prefix,
    Rule, SetName, Verdict,
};
use address::AddressAxisBuilder;
pub use clock::Clock;

/// What the compiler needs beside the policy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CompileOptions {
    /// The seed of the hash tables. Attackers choose keys: derive it from a secret of the node.
    pub seed: [u64; 2],
    /// The counter slot of each active rule, in the order of [`active_rules`].
    pub counter_slots: Vec<u32>,
    /// The clock by which rules and entries expire.
    pub clock: Clock,
}

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
    for rule in &rules {
        check_supported(rule)?;
    }
    for (name, set) in policy.sets() {
        check_supported_set(name, set)?;
    }
    let kinds: Vec<Kind> = rules.iter().map(|r| Kind::of(r)).collect();
    let structured: Vec<u32> = (0..)
        .zip(&kinds)
        .filter(|(_, k)| **k == Kind::Structured)
        .map(|(n, _)| n)
        .collect();
    if rules.len() >= abi::NO_RULE as usize {
        return Err(PolicyError::limit(
            None,
            format!("{} rules, the limit is {}", rules.len(), abi::NO_RULE),
        )
        .into());
    }
    if structured.len() > abi::MAX_STRUCTURED {
        return Err(PolicyError::limit(
            None,
            format!(
                "{} rules need more than one address to be decided, the limit is {}",
                structured.len(),
                abi::MAX_STRUCTURED
            ),
        )
        .mend("merge rules that differ only in addresses by naming an address set")
        .into());
    }

    let structured_rules: Vec<&Rule> = structured.iter().map(|n| rules[*n as usize]).collect();
    let mut shape = Shape::zeroed();
    let mut image = ImageWriter::new();
    shape.seed = seed;
    shape.features = features(policy, &structured);
    shape.row_lines = rows::row_lines(structured.len());
    shape.structured_count = structured.len() as u32;
    shape.axes = axis::axes_in_use(&structured_rules);
    if shape.axes >> (AXIS_DST + 1) != 0 {
        shape.features |= abi::FEATURE_FIELDS;
    }
    for direction in [AXIS_SRC, AXIS_DST] {
        let builder = AddressAxisBuilder::new(policy, &rules, &kinds, &structured, direction);
        if builder.is_needed(shape.axes) {
            shape.features |= if direction == AXIS_SRC {
                abi::FEATURE_SRC
            } else {
                abi::FEATURE_DST
            };
            shape.address[direction] = builder.build(&mut image, seed)?;
        }
    }
    for number in AXIS_DST + 1..AXIS_COUNT {
        if shape.axes & 1 << number != 0 {
            shape.table[number] = axis::build(number, &structured_rules, &mut image)?;
        }
    }
    if !structured.is_empty() {
        shape.structured = image.section(&structured);
    }
    record::write(
        &rules,
        &options.counter_slots,
        &options.clock,
        &mut shape,
        &mut image,
    )?;
    write_ssh(policy, &mut shape, &mut image);
    Ok(image.finish(shape, rules.iter().map(|r| r.id.clone()).collect()))
}

/// How a rule is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// By the address of this direction alone.
    Address(usize),
    /// By more than that.
    Structured,
}

impl Kind {
    fn of(rule: &Rule) -> Self {
        let m = &rule.matches;
        let negated = [&m.src, &m.dst]
            .iter()
            .any(|a| a.as_ref().is_some_and(|a| a.negated));
        if axis::constrains_fields(m) || negated || (m.src.is_some() && m.dst.is_some()) {
            Self::Structured
        } else if m.dst.is_some() {
            Self::Address(AXIS_DST)
        } else {
            Self::Address(AXIS_SRC)
        }
    }
}

/// Whether a rule can match packets of a family at all by its `family` field.
fn allows(rule: &Rule, family: Family) -> bool {
    rule.matches.family.is_none_or(|f| f == family)
}

fn check_supported(rule: &Rule) -> Result<(), PolicyError> {
    let unsupported = |field: &str| Err(PolicyError::not_supported(&rule.id, field));
    match rule.action {
        Action::Drop | Action::Pass => {}
        Action::Count => return unsupported("action.count"),
        Action::RateLimit(_) => return unsupported("action.rate_limit"),
    }
    if rule.mode == Mode::Monitor {
        return unsupported("mode");
    }
    if rule.expires.is_some() {
        return unsupported("expires");
    }
    if !rule.interfaces.is_empty() {
        return unsupported("interfaces");
    }
    Ok(())
}

fn check_supported_set(name: &SetName, set: &AddressSet) -> Result<(), PolicyError> {
    match set.counters() {
        EntryCounters::None => Ok(()),
        EntryCounters::Entry => Err(PolicyError::new(
            PolicyErrorKind::NotSupported,
            "not supported yet: counters: entry",
        )
        .about(name)
        .in_field("counters")),
    }
}

fn features(policy: &Policy, structured: &[u32]) -> u32 {
    let flag = |on: bool, bit: u32| if on { bit } else { 0 };
    let failsafe = policy.failsafe();
    flag(
        policy.default_verdict() == Verdict::Drop,
        abi::FEATURE_DEFAULT_DROP,
    ) | flag(
        policy.malformed() == Verdict::Drop,
        abi::FEATURE_MALFORMED_DROP,
    ) | flag(failsafe.enabled, abi::FEATURE_FAILSAFE)
        | flag(
            failsafe.enabled && !failsafe.ssh_from.is_empty(),
            abi::FEATURE_SSH,
        )
        | flag(!structured.is_empty(), abi::FEATURE_STRUCTURED)
}

/// The SSH prefixes of the failsafe, IPv4 ones first.
fn write_ssh(policy: &Policy, shape: &mut Shape, image: &mut ImageWriter) {
    if shape.features & abi::FEATURE_SSH == 0 {
        return;
    }
    let (v4, v6): (Vec<Prefix>, Vec<Prefix>) = policy
        .failsafe()
        .ssh_from
        .iter()
        .partition(|p| p.family() == Family::Ipv4);
    shape.ssh_v4_count = v4.len() as u32;
    let prefixes: Vec<SshPrefix> = v4
        .iter()
        .chain(&v6)
        .map(|p| {
            let (address, mask) = match p.addr() {
                std::net::IpAddr::V4(a) => (
                    u128::from(a.to_bits()),
                    u128::from(crate::policy::mask32(p.len())),
                ),
                std::net::IpAddr::V6(a) => (a.to_bits(), crate::policy::mask128(p.len())),
            };
            SshPrefix {
                hi: (address >> 64) as u64,
                lo: address as u64,
                mask_hi: (mask >> 64) as u64,
                mask_lo: mask as u64,
            }
        })
        .collect();
    shape.ssh_count = prefixes.len() as u32;
    shape.ssh = image.section(&prefixes);
}
