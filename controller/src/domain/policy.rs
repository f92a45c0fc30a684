//! Policies of the fleet.

use serde::{Deserialize, Serialize};
use xdpgate::policy::{Failsafe, Prefix, Rule};
use xdpgate::{PolicyError, Verdict};

use super::{Name, Rules, Touch};

/// What a policy says beside its rules; each may be absent, and then another policy of the node or the default of a policy
/// file says it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// The verdict when no rule decides.
    pub default: Option<Verdict>,
    /// The verdict for frames that cannot be parsed far enough.
    pub malformed: Option<Verdict>,
    /// Management traffic that passes before any rule.
    pub failsafe: Option<Failsafe>,
}

/// What a policy is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyContent {
    /// The settings.
    pub settings: Settings,
    /// The rules, in any order.
    pub rules: Vec<Rule>,
}

/// A policy as it is now, or as it was in one of its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyState {
    /// The name.
    pub name: Name,
    /// 1, 2, ... It goes on where it ended if a policy is deleted and created again.
    pub version: u64,
    /// Free text.
    pub comment: Option<String>,
    /// The settings.
    pub settings: Settings,
    /// The rules.
    pub rules: Rules,
    /// Who made it.
    pub created: Touch,
    /// Who made this version.
    pub updated: Touch,
}

/// [`Settings`] as they are stored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Plain {
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<Word>,
    #[serde(skip_serializing_if = "Option::is_none")]
    malformed: Option<Word>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failsafe: Option<PlainFailsafe>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Pass,
    Drop,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct PlainFailsafe {
    enabled: bool,
    #[serde(default)]
    ssh_from: Vec<String>,
}

impl Word {
    fn of(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass => Self::Pass,
            Verdict::Drop => Self::Drop,
        }
    }

    fn verdict(self) -> Verdict {
        match self {
            Self::Pass => Verdict::Pass,
            Self::Drop => Verdict::Drop,
        }
    }
}

impl Serialize for Settings {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let plain = Plain {
            default: self.default.map(Word::of),
            malformed: self.malformed.map(Word::of),
            failsafe: self.failsafe.as_ref().map(|failsafe| PlainFailsafe {
                enabled: failsafe.enabled,
                ssh_from: failsafe.ssh_from.iter().map(Prefix::to_string).collect(),
            }),
        };
        plain.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let plain = Plain::deserialize(deserializer)?;
        let failsafe = plain.failsafe.map(|failsafe| {
            let prefixes = failsafe.ssh_from.iter().map(|text| text.parse());
            Ok(Failsafe {
                enabled: failsafe.enabled,
                ssh_from: prefixes.collect::<Result<_, _>>()?,
            })
        });
        let failed = |error: xdpgate::policy::PrefixParseError| serde::de::Error::custom(error);
        Ok(Self {
            default: plain.default.map(Word::verdict),
            malformed: plain.malformed.map(Word::verdict),
            failsafe: failsafe.transpose().map_err(failed)?,
        })
    }
}

impl PolicyContent {
    /// From the text of a policy file. Its sets are those of the fleet, so it may name sets and has none of its own.
    ///
    /// # Errors
    /// As [`xdpgate::Policy::from_yaml`], but that the sets are there is asked when the policy is stored.
    pub fn from_yaml(text: &str) -> Result<Self, PolicyError> {
        let parts = xdpgate::policy::PolicyParts::from_yaml(text)?;
        Ok(Self {
            settings: Settings {
                default: parts.default,
                malformed: parts.malformed,
                failsafe: parts.failsafe,
            },
            rules: parts.rules,
        })
    }
}
