//! The parts of a policy that is put together from several.

use super::super::error::{PolicyError, PolicyErrorKind};
use super::super::names::VERDICTS;
use super::super::rule::Rule;
use super::super::{Failsafe, Verdict};
use super::read::Result;
use super::{failsafe, rules, tree, version};

/// What a policy file says, and what it leaves unsaid, for who makes one policy of several.
///
/// Its rules may name sets that come from elsewhere: what they must hold to beside the policy is left to
/// [`PolicyBuilder::build`](super::super::PolicyBuilder::build).
///
/// ```
/// use xdpgate::Verdict;
/// use xdpgate::policy::PolicyParts;
///
/// let parts = PolicyParts::from_yaml("
/// version: 1
/// default: drop
/// rules: [ { id: block, match: { src: '@bad' }, action: drop } ]
/// ")?;
/// assert_eq!((parts.default, parts.malformed), (Some(Verdict::Drop), None));
/// assert_eq!(parts.rules.len(), 1);
/// # Ok::<(), xdpgate::PolicyError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyParts {
    /// The verdict when no rule decides, if it is said.
    pub default: Option<Verdict>,
    /// The verdict for frames that cannot be parsed far enough, if it is said.
    pub malformed: Option<Verdict>,
    /// The management traffic that passes before any rule, if it is said.
    pub failsafe: Option<Failsafe>,
    /// The rules, in the order of the text.
    pub rules: Vec<Rule>,
}

impl PolicyParts {
    /// Parses a policy file without sets.
    ///
    /// # Errors
    /// As for [`Policy::from_yaml`](crate::Policy::from_yaml), but for what concerns the policy as a whole; and if the text has
    /// sets.
    pub fn from_yaml(text: &str) -> Result<Self> {
        let root = tree::parse(text)?;
        let fields = root.fields(super::KEYS)?;
        fields.require("version", "start with `version: 1`", version)?;
        if let Some(sets) = fields.get("sets") {
            let reason = "sets are not part of this policy";
            let error = PolicyError::new(PolicyErrorKind::NotSupported, reason)
                .mend("make them on their own; rules may name them")
                .at(sets.position);
            return Err(error.in_field("sets"));
        }
        Ok(Self {
            default: fields.read("default", |n| n.word(VERDICTS))?,
            malformed: fields.read("malformed", |n| n.word(VERDICTS))?,
            failsafe: fields.read("failsafe", failsafe)?,
            rules: rules(fields.get("rules"))?,
        })
    }
}
