//! What is wrong with a policy, and where.

use std::borrow::Cow;
use std::fmt;

use super::address::SetName;
use super::rule::RuleId;

/// A place in a policy text; both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// What sort of fault a [`PolicyError`] reports, for callers that map it to a status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PolicyErrorKind {
    /// The text is not YAML.
    Syntax,
    /// A key that the format does not have.
    UnknownKey,
    /// A key that must be there is not.
    MissingKey,
    /// A mapping where a list is wanted, text where a number is wanted, and the like.
    WrongType,
    /// A value of the right type that is not allowed.
    InvalidValue,
    /// Parts that are each allowed but that no packet can meet together.
    Contradiction,
    /// An id, name or key that is there twice.
    Duplicate,
    /// A rule names a set that the policy does not have.
    UnknownSet,
    /// A change names a rule that the policy does not have.
    UnknownRule,
    /// A policy or list file cannot be read.
    File,
    /// The policy is well formed but larger than what can be held.
    Limit,
    /// Well formed, but this version cannot do it.
    NotSupported,
}

/// Why a policy was refused: the place, the rule or set, the field, the reason and the mend.
///
/// Displayed on one line, each part only if known:
///
/// ```
/// use xdpgate::Policy;
///
/// let text = "
/// version: 1
/// sets: { bad-hosts: { entries: [203.0.113.7] } }
/// rules:
///   - id: block-bad
///     match: { src: '@bad-host' }
///     action: drop
/// ";
/// let error = Policy::from_yaml(text).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "6:19: rule block-bad: match.src: there is no set \"bad-host\"; did you mean \"bad-hosts\"?",
/// );
/// assert_eq!(error.rule().unwrap().as_str(), "block-bad");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct PolicyError(Box<Inner>);

#[derive(Clone, PartialEq, Eq)]
struct Inner {
    kind: PolicyErrorKind,
    position: Option<Position>,
    subject: Option<Subject>,
    field: String,
    reason: Cow<'static, str>,
    mend: Option<Cow<'static, str>>,
}

/// What an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A rule.
    Rule(RuleId),
    /// A rule without a usable id: its place in the list, from 1.
    RuleAt(usize),
    /// An address set.
    Set(SetName),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(id) => write!(f, "rule {id}"),
            Self::RuleAt(n) => write!(f, "rule number {n}"),
            Self::Set(name) => write!(f, "set {name}"),
        }
    }
}

impl From<&RuleId> for Subject {
    fn from(id: &RuleId) -> Self {
        Self::Rule(id.clone())
    }
}

impl From<&SetName> for Subject {
    fn from(name: &SetName) -> Self {
        Self::Set(name.clone())
    }
}

impl PolicyError {
    pub(crate) fn new(kind: PolicyErrorKind, reason: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            position: None,
            subject: None,
            field: String::new(),
            reason: reason.into(),
            mend: None,
        }))
    }

    /// A policy is larger than what can be held; `subject` is a rule, a set, or `None`.
    pub(crate) fn limit(
        subject: impl Into<Option<Subject>>,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        let mut error = Self::new(PolicyErrorKind::Limit, reason);
        error.0.subject = subject.into();
        error
    }

    /// Says what to do about it.
    pub(crate) fn mend(mut self, mend: impl Into<Cow<'static, str>>) -> Self {
        self.0.mend = Some(mend.into());
        self
    }

    /// Says which rule or set it is about, unless that is known.
    pub(crate) fn about(mut self, subject: impl Into<Subject>) -> Self {
        self.0.subject.get_or_insert(subject.into());
        self
    }

    /// Puts `outer` in front of the field's path.
    pub(crate) fn in_field(mut self, outer: &str) -> Self {
        let field = &mut self.0.field;
        *field = if field.is_empty() {
            outer.to_owned()
        } else {
            format!("{outer}.{field}")
        };
        self
    }

    /// Says where it is, unless that is known.
    pub(crate) fn at(mut self, position: Position) -> Self {
        self.0.position.get_or_insert(position);
        self
    }

    /// What sort of fault it is.
    pub fn kind(&self) -> PolicyErrorKind {
        self.0.kind
    }

    /// Where in the policy text; `None` for a policy that was built in code.
    pub fn position(&self) -> Option<Position> {
        self.0.position
    }

    /// The rule at fault.
    pub fn rule(&self) -> Option<&RuleId> {
        match &self.0.subject {
            Some(Subject::Rule(id)) => Some(id),
            _ => None,
        }
    }

    /// The set at fault.
    pub fn set(&self) -> Option<&SetName> {
        match &self.0.subject {
            Some(Subject::Set(name)) => Some(name),
            _ => None,
        }
    }

    /// The field at fault, as a dotted path below the rule, the set or the policy: `match.src`.
    pub fn field(&self) -> Option<&str> {
        Some(self.0.field.as_str()).filter(|f| !f.is_empty())
    }

    /// What is wrong.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// What to do about it, if there is more to say than the reason does.
    pub fn suggestion(&self) -> Option<&str> {
        self.0.mend.as_deref()
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            position,
            subject,
            field,
            reason,
            mend,
            ..
        } = &*self.0;
        if let Some(position) = position {
            write!(f, "{position}: ")?;
        }
        if let Some(subject) = subject {
            write!(f, "{subject}: ")?;
        }
        if !field.is_empty() {
            write!(f, "{field}: ")?;
        }
        f.write_str(reason)?;
        if let Some(mend) = mend {
            write!(f, "; {mend}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PolicyError({:?}, {:?})", self.0.kind, self.to_string())
    }
}

impl std::error::Error for PolicyError {}
