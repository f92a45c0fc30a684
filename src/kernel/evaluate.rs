//! From the numbers of the evaluating program to an [`Evaluation`].

use super::backend::Answer;
use super::error::EvaluateError;
use crate::abi::NO_RULE;
use crate::policy::{Mode, Policy, RuleId, Verdict};
use crate::verdict::{Evaluation, Reason};

/// The shortest frame that the kernel takes for a test run: an Ethernet header.
pub(super) const SHORTEST: usize = 14;

/// The longest frame that is evaluated.
pub(super) fn longest(takes_frags: bool) -> usize {
    if takes_frags {
        // The first page holds what is said below, 17 more hold a page each.
        64 << 10
    } else {
        // All kernels take it in one piece: a page of 4096 bytes less the headroom of 256 and what
        // `struct skb_shared_info` may take at the end. Newer kernels take longer ones too, but
        // would show the program only their beginning.
        3072
    }
}

/// Before the first policy every frame passes.
pub(super) fn no_policy() -> Evaluation {
    plain(Verdict::Pass, Reason::NoPolicy)
}

/// What the program says of a frame that is shorter than an Ethernet header.
pub(super) fn too_short(policy: &Policy) -> Evaluation {
    plain(policy.malformed(), Reason::Malformed)
}

fn plain(verdict: Verdict, reason: Reason) -> Evaluation {
    Evaluation {
        verdict,
        reason,
        rule: None,
        monitored: Vec::new(),
    }
}

/// `rule` names the rules by their numbers.
pub(super) fn evaluation<'r>(
    answer: Answer,
    policy: &Policy,
    rule: impl Fn(usize) -> Option<&'r RuleId>,
) -> Result<Evaluation, EvaluateError> {
    let nonsense = || EvaluateError::Answer {
        reason: answer.reason,
        rule: answer.rule,
    };
    let named = |number: &u32| rule(*number as usize).ok_or_else(nonsense);
    let passed: Vec<_> = answer.passed.iter().map(named).collect::<Result<_, _>>()?;
    let reason = Reason::ALL.into_iter().find(|r| *r as u32 == answer.reason);
    let verdict = if answer.drop {
        Verdict::Drop
    } else {
        Verdict::Pass
    };
    Ok(Evaluation {
        rule: match answer.rule {
            NO_RULE => None,
            number => Some(named(&number)?.clone()),
        },
        monitored: passed
            .into_iter()
            .filter(|id| {
                policy
                    .rule(id.as_str())
                    .is_some_and(|r| r.mode == Mode::Monitor)
            })
            .cloned()
            .collect(),
        ..plain(verdict, reason.ok_or_else(nonsense)?)
    })
}
