//! What a feed is, and how it is stored.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use xdpgate::policy::Prefix;

use super::guard::{Guard, check_url};
use super::{Format, Limits};
use crate::core::{CommandError, ErrorKind};
use crate::domain::{Name, Touch};

/// Where feeds are.
pub(super) const PREFIX: &str = "feed/";

/// The shortest time between two runs, in seconds.
pub const MIN_EVERY: u64 = 60;
/// The longest time between two runs, in seconds: 30 days.
pub const MAX_EVERY: u64 = 30 * 24 * 3600;
/// The longest that an entry lasts, in seconds: a year.
const MAX_EXPIRY: u64 = 366 * 24 * 3600;
/// The most places that one set is read from.
const MAX_PLACES: usize = 16;
/// The most countries; ISO 3166 has some 250.
const MAX_COUNTRIES: usize = 300;
/// The most bytes that a feed may be allowed.
const MAX_BYTES: u64 = 256 << 20;

/// A feed, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feed {
    /// The name.
    pub name: Name,
    /// Grows with each change; for `expect`.
    pub version: u64,
    /// What it is.
    pub content: FeedContent,
    /// Who made it.
    pub created: Touch,
    /// Who changed it last.
    pub updated: Touch,
}

/// What a feed is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FeedContent {
    /// Where it comes from.
    pub source: Source,
    /// Its form; a feed from Kubernetes has none.
    #[serde(default)]
    pub format: Format,
    /// With the format `ipsum`: on how many lists an address must be.
    #[serde(default)]
    pub at_least: u32,
    /// The set that it fills. Default: the name of the feed; `country-{country}` if its source has `{country}`;
    /// `kubernetes` for a feed from Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// Codes of two letters that `{country}` stands for. With files it may be empty: all that are there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub countries: Vec<String>,
    /// Seconds from one run to the next, give or take a tenth.
    #[serde(default = "every")]
    pub every: u64,
    /// What it may bring.
    #[serde(default)]
    pub limits: Limits,
    /// How many seconds an entry lasts since it was last seen in the feed. Absent: as the set says (`default_expiry`), or for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<u64>,
    /// After how many seconds without a good run it counts as stale. Absent: three times `every`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<u64>,
    /// Whether it is run.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// Where a feed comes from. What several places give is one list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    /// From web servers: `https://`; `http://` only from loopback. `{country}` stands for a code in lower case, `{COUNTRY}` in
    /// upper case.
    Url {
        /// The addresses.
        urls: Vec<String>,
    },
    /// From files below `[feeds] directory` of the controller, with the same two words for a country.
    File {
        /// Their paths, relative to it.
        paths: Vec<String>,
    },
    /// The addresses of a Kubernetes cluster's nodes and of their pods, from its API server, as `[feeds.kubernetes]` says.
    Kubernetes {},
}

/// One set that a feed fills, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// The set.
    pub set: Name,
    /// Addresses or paths; none for Kubernetes.
    pub places: Vec<String>,
}

fn every() -> u64 {
    3600
}

fn yes() -> bool {
    true
}

impl Source {
    /// Addresses or paths, with what stands for a country.
    pub(super) fn places(&self) -> &[String] {
        match self {
            Self::Url { urls } => urls,
            Self::File { paths } => paths,
            Self::Kubernetes {} => &[],
        }
    }
}

impl FeedContent {
    /// A feed of a source, with the defaults.
    pub fn new(source: Source) -> Self {
        Self {
            source,
            format: Format::default(),
            at_least: 0,
            set: None,
            countries: Vec::new(),
            every: every(),
            limits: Limits::default(),
            expiry: None,
            max_age: None,
            enabled: true,
            comment: None,
        }
    }

    /// Whether it fills a set for each country.
    pub fn is_by_country(&self) -> bool {
        self.source.places().iter().any(|place| has_country(place))
    }

    /// After how many seconds without a good run it is stale.
    pub fn max_age(&self) -> u64 {
        self.max_age.unwrap_or(self.every.saturating_mul(3))
    }

    /// The set that it fills, perhaps with `{country}`.
    pub(super) fn set_pattern<'a>(&'a self, name: &'a Name) -> &'a str {
        match (&self.set, &self.source) {
            (Some(set), _) => set,
            (None, Source::Kubernetes {}) => "kubernetes",
            (None, _) if self.is_by_country() => "country-{country}",
            (None, _) => name.as_str(),
        }
    }

    /// The sets that it fills from these countries; from one place without any.
    pub(super) fn parts(&self, name: &Name, countries: &[String]) -> Vec<Part> {
        let pattern = self.set_pattern(name);
        let places = self.source.places();
        if !self.is_by_country() {
            let set = Name::new(pattern).into_iter();
            let places = || places.to_vec();
            return set
                .map(|set| Part {
                    set,
                    places: places(),
                })
                .collect();
        }
        let part = |country: &String| {
            let set = Name::new(for_country(pattern, country)).ok()?;
            let places = places.iter().map(|place| for_country(place, country));
            let places = places.collect();
            Some(Part { set, places })
        };
        countries.iter().filter_map(part).collect()
    }

    /// Whether both may fill one set.
    pub(super) fn shares_a_set(&self, name: &Name, other: &Self, other_name: &Name) -> bool {
        let (one, two) = (self.set_pattern(name), other.set_pattern(other_name));
        match (has_country(one), has_country(two)) {
            (false, false) => one == two,
            (true, false) => country_in(one, two).is_some_and(|code| self.may_be(&code)),
            (false, true) => country_in(two, one).is_some_and(|code| other.may_be(&code)),
            (true, true) => {
                one == two
                    && (self.countries.is_empty()
                        || other.countries.is_empty()
                        || self.countries.iter().any(|code| other.may_be(code)))
            }
        }
    }

    /// Whether it fills the set of a country.
    fn may_be(&self, code: &str) -> bool {
        let same = |one: &String| one.eq_ignore_ascii_case(code);
        self.countries.is_empty() || self.countries.iter().any(same)
    }

    /// Whether it can be a feed. Names are not resolved for it.
    pub(super) fn check(&self, name: &Name, guard: &Guard) -> Result<(), CommandError> {
        let object = format!("feed/{name}");
        let invalid = |field: &str, reason: String, mend: &str| {
            let error = CommandError::new(ErrorKind::Invalid, object.as_str(), reason);
            Err(error.field(field).mend(mend))
        };
        let (field, places) = match &self.source {
            Source::Url { urls } => ("source.urls", urls.as_slice()),
            Source::File { paths } => ("source.paths", paths.as_slice()),
            Source::Kubernetes {} => ("source", [].as_slice()),
        };
        let is_kubernetes = matches!(self.source, Source::Kubernetes {});
        if !is_kubernetes && !(1..=MAX_PLACES).contains(&places.len()) {
            let reason = format!("{} places", places.len());
            return invalid(field, reason, &format!("name 1 to {MAX_PLACES}"));
        }
        for (index, place) in places.iter().enumerate() {
            let field = format!("{field}[{index}]");
            let refused = match &self.source {
                Source::Url { .. } => {
                    let url = check_url(&for_country(place, "xx"), guard);
                    url.err().map(|error| error.to_string())
                }
                _ => {
                    let path = super::file::check_path(place);
                    path.err().map(|error| error.to_string())
                }
            };
            if let Some(reason) = refused {
                return invalid(&field, reason, "");
            }
            if self.is_by_country() && !has_country(place) {
                let reason = format!("{place} has no {{country}}, and another place has");
                return invalid(&field, reason, "make two feeds of it");
            }
        }
        let pattern = self.set_pattern(name);
        if has_country(pattern) != self.is_by_country() {
            let reason =
                format!("{pattern}: the set and the places have {{country}}, or neither has");
            return invalid("set", reason, "write it into both");
        }
        if let Err(error) = Name::new(for_country(pattern, "xx")) {
            return invalid("set", error.to_string(), "");
        }
        let is_code =
            |code: &String| code.len() == 2 && code.bytes().all(|b| b.is_ascii_alphabetic());
        if let Some(code) = self.countries.iter().find(|code| !is_code(code)) {
            let reason = format!("{code:?} is not the code of a country");
            return invalid("countries", reason, "write two letters, as de");
        }
        let distinct: BTreeSet<String> = self.countries.iter().map(|c| c.to_lowercase()).collect();
        if distinct.len() != self.countries.len() || distinct.len() > MAX_COUNTRIES {
            let reason = format!(
                "{} countries, {} of them distinct",
                self.countries.len(),
                distinct.len()
            );
            return invalid(
                "countries",
                reason,
                &format!("name each once, up to {MAX_COUNTRIES}"),
            );
        }
        if !self.is_by_country() && !self.countries.is_empty() {
            let reason = "no place has {country}".to_owned();
            return invalid(
                "countries",
                reason,
                "leave them out, or write {country} into the places",
            );
        }
        let is_url = matches!(self.source, Source::Url { .. });
        if is_url && self.is_by_country() && self.countries.is_empty() {
            let reason = "none is named".to_owned();
            return invalid(
                "countries",
                reason,
                "a web server does not say which it has: name them",
            );
        }
        if !(MIN_EVERY..=MAX_EVERY).contains(&self.every) {
            let reason = format!("{} is not {MIN_EVERY} to {MAX_EVERY} seconds", self.every);
            return invalid("every", reason, "");
        }
        if let Some(expiry) = self
            .expiry
            .filter(|expiry| *expiry < self.every.saturating_mul(2))
        {
            let reason = format!("{expiry} is less than twice every ({})", self.every);
            return invalid("expiry", reason, "else entries go between two runs");
        }
        if let Some(expiry) = self.expiry.filter(|expiry| *expiry > MAX_EXPIRY) {
            let reason = format!("{expiry} is more than {MAX_EXPIRY} seconds");
            return invalid("expiry", reason, "leave it out for good");
        }
        if self.max_age.is_some_and(|age| age < self.every) {
            let reason = format!("less than every ({})", self.every);
            return invalid("max_age", reason, "");
        }
        if !(1..=MAX_BYTES).contains(&self.limits.max_bytes) {
            let reason = format!("{} is not 1 to {MAX_BYTES}", self.limits.max_bytes);
            return invalid("limits.max_bytes", reason, "");
        }
        if self.limits.max_shrink_percent > 100 {
            let reason = format!("{} is not 0 to 100", self.limits.max_shrink_percent);
            return invalid("limits.max_shrink_percent", reason, "");
        }
        for (index, text) in self.limits.protect.iter().enumerate() {
            if let Err(error) = text.parse::<Prefix>() {
                let field = format!("limits.protect[{index}]");
                return invalid(&field, format!("{text:?}: {error}"), "");
            }
        }
        if self.comment.as_ref().is_some_and(|text| text.len() > 1024) {
            return invalid("comment", "longer than 1024 bytes".to_owned(), "");
        }
        Ok(())
    }
}

/// Whether a text has what stands for a country.
pub(super) fn has_country(text: &str) -> bool {
    text.contains("{country}") || text.contains("{COUNTRY}")
}

/// A place or set of a country.
pub(super) fn for_country(text: &str, code: &str) -> String {
    text.replace("{country}", &code.to_lowercase())
        .replace("{COUNTRY}", &code.to_uppercase())
}

/// The country whose name this is by a pattern.
pub(super) fn country_in(pattern: &str, name: &str) -> Option<String> {
    let place = ["{country}", "{COUNTRY}"]
        .iter()
        .filter_map(|word| pattern.find(word))
        .min()?;
    let code = name.get(place..place + 2)?;
    let is_code = code.bytes().all(|b| b.is_ascii_alphabetic());
    (is_code && for_country(pattern, code) == name).then(|| code.to_lowercase())
}
