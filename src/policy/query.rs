//! Finding rules of a policy.

use std::net::IpAddr;

use super::Policy;
use super::address::{AddressItem, AddressMatch};
use super::canonical::write_match;
use super::rule::Rule;

/// Which rules are looked for: those that meet all that is asked.
///
/// ```
/// use xdpgate::Policy;
/// use xdpgate::policy::RuleQuery;
///
/// let policy = Policy::from_yaml("
/// version: 1
/// sets: { bad: { entries: [203.0.113.0/24] } }
/// rules:
///   - { id: block, match: { src: '@bad' }, action: drop, labels: { owner: web } }
///   - { id: dns, match: { dport: 53 }, action: pass, comment: For the resolvers }
/// ")?;
/// let found = |query: RuleQuery| {
///     let ids = policy.find_rules(&query).map(|rule| rule.id.to_string());
///     ids.collect::<Vec<_>>()
/// };
/// assert_eq!(found(RuleQuery::default().text("RESOLVER")), ["dns"]);
/// assert_eq!(found(RuleQuery::default().address("203.0.113.9".parse().unwrap())), ["block"]);
/// assert_eq!(found(RuleQuery::default().label("owner", Some("web"))), ["block"]);
/// assert_eq!(found(RuleQuery::default()), ["block", "dns"]);
/// # Ok::<(), xdpgate::PolicyError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use = "a query does nothing before `Policy::find_rules`"]
pub struct RuleQuery {
    /// In lower case.
    text: String,
    address: Option<IpAddr>,
    labels: Vec<(String, Option<String>)>,
}

impl RuleQuery {
    /// Rules whose id, name, comment or match, in the words of the canonical form, has this text in it,
    /// in upper or lower case. The empty text is in all of them.
    pub fn text(self, text: &str) -> Self {
        Self {
            text: text.to_lowercase(),
            ..self
        }
    }

    /// Rules that ask for a source or destination and for which this address is one, by whatever prefix
    /// or set; entries that have expired count. With `not`: for which it is none of those named.
    pub fn address(self, address: IpAddr) -> Self {
        Self {
            address: Some(address),
            ..self
        }
    }

    /// Rules with a label of this name and, if one is given, of this value. May be asked for several
    /// labels.
    pub fn label(mut self, name: &str, value: Option<&str>) -> Self {
        self.labels
            .push((name.to_owned(), value.map(str::to_owned)));
        self
    }

    fn fits(&self, policy: &Policy, rule: &Rule) -> bool {
        let labels = self.labels.iter().all(|(name, value)| {
            let found = rule.labels.get(name);
            found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        });
        labels
            && self
                .address
                .is_none_or(|address| looks_for(policy, rule, address))
            && (self.text.is_empty() || self.is_in_words(rule))
    }

    fn is_in_words(&self, rule: &Rule) -> bool {
        let has = |text: &str| text.to_lowercase().contains(&self.text);
        let named = [&rule.name, &rule.comment];
        if has(rule.id.as_str()) || named.into_iter().flatten().any(|text| has(text)) {
            return true;
        }
        let mut words = String::new();
        // Writing to a string does not fail.
        let _ = write_match(&mut words, &rule.matches);
        has(&words)
    }
}

fn looks_for(policy: &Policy, rule: &Rule, address: IpAddr) -> bool {
    let is_in = |item: &AddressItem| match item {
        AddressItem::Prefix(prefix) => prefix.contains(address),
        AddressItem::Set(name) => policy.sets.get(name).is_some_and(|s| s.contains(address)),
    };
    let meets = |wanted: &AddressMatch| wanted.items.iter().any(is_in) != wanted.negated;
    let asked = [&rule.matches.src, &rule.matches.dst];
    asked.into_iter().flatten().any(meets)
}

impl Policy {
    /// The rules that a query asks for, in evaluation order; those that are switched off too.
    pub fn find_rules<'p>(&'p self, query: &'p RuleQuery) -> impl Iterator<Item = &'p Rule> {
        self.rules.iter().filter(|rule| query.fits(self, rule))
    }
}
