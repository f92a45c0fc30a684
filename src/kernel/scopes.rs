//! Interface scopes: which rules are for which interfaces.
//!
//! A rule may name interfaces. Every distinct list of names is a *scope*, a bit; the program knows by
//! interface slot the bits of the scopes that the interface's name fits. The bits belong to one
//! generation of the policy, so each has its own table of them.

use globset::GlobMatcher;

/// The scopes of a policy, by bit.
#[derive(Debug, Default)]
pub(super) struct Scopes(Vec<Vec<GlobMatcher>>);

impl Scopes {
    /// The scopes with these lists of names and globs.
    pub(super) fn new(lists: &[Vec<String>]) -> Self {
        let matcher = |glob: &String| {
            let glob = globset::Glob::new(glob).expect("validated with the policy");
            glob.compile_matcher()
        };
        Self(
            lists
                .iter()
                .map(|l| l.iter().map(matcher).collect())
                .collect(),
        )
    }

    /// The bits of the scopes that an interface of this name is in.
    pub(super) fn of(&self, name: &str) -> u64 {
        let fits = |list: &Vec<GlobMatcher>| list.iter().any(|g| g.is_match(name));
        let scopes = (0..).zip(&self.0).filter(|(_, list)| fits(list));
        scopes.fold(0, |bits, (bit, _)| bits | 1 << bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_in_the_scopes_that_it_fits() {
        let lists = [vec!["eth0", "wan*"], vec!["eth?"], vec!["lo"]];
        let scopes = Scopes::new(&lists.map(|l| l.into_iter().map(str::to_owned).collect()));
        for (name, bits) in [
            ("eth0", 3),
            ("wan7", 1),
            ("eth1", 2),
            ("lo", 4),
            ("veth0", 0),
        ] {
            assert_eq!(scopes.of(name), bits, "{name}");
        }
    }
}
