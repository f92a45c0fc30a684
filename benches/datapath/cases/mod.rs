//! All cases: the rows of the table that is aimed for.

mod block_lists;
mod classbench;
mod combinations;
#[path = "../../../tests/common/data.rs"]
pub mod data;
#[path = "../../../tests/common/classbench.rs"]
mod filters;
mod limits;
mod tuples;

use crate::case::Case;
use crate::numbers::random;

/// A case that is made when its turn comes.
pub struct Recipe {
    pub name: String,
    make: Box<dyn Fn() -> Result<Case, String>>,
}

impl Recipe {
    fn new(name: impl Into<String>, make: impl Fn() -> Result<Case, String> + 'static) -> Self {
        Self {
            name: name.into(),
            make: Box::new(make),
        }
    }

    /// The case, or why there is none.
    pub fn make(&self) -> Result<Case, String> {
        (self.make)()
    }
}

/// All cases, in the order of the table.
pub fn all() -> Vec<Recipe> {
    let mut all = block_lists::recipes();
    all.extend(tuples::recipes());
    all.extend(combinations::recipes());
    all.extend(classbench::recipes());
    all.extend(limits::recipes());
    all
}

/// The case whose name starts so: rule sets that stand in for others have a mark behind it.
pub fn starting_with(name: &str) -> Result<Case, String> {
    let recipe = all()
        .into_iter()
        .find(|recipe| recipe.name.starts_with(name));
    recipe.expect("a case of the list").make()
}
