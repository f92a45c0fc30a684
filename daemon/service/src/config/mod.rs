//! The configuration of a server: flags before the environment before a file before the defaults, and all that
//! is wrong said at once, with file, line, key and reason.
//!
//! What the keys mean, and their defaults, is said once: in the docs and the `Default` of the structs of the
//! server. The file with all of them, and its JSON Schema, are printed from these ([`default_file`], [`json_schema`]), and
//! what is read is checked against them before a section checks itself.

mod check;
mod document;
mod problem;
mod schema;
mod sources;

pub use document::{default_file, effective};
pub use problem::{Invalid, Problem, Source};
pub use schema::{json_schema, schema_of};
pub use sources::{Loaded, Override, Said, differences, environment, keep, load};

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// All keys of a server. A section is a struct with `#[serde(default, deny_unknown_fields)]`.
pub trait Configuration: Default + Serialize + DeserializeOwned + JsonSchema + 'static {
    /// Variables of the environment with this prefix are of it, as `XDPGATED_`.
    const PREFIX: &'static str;
    /// The variable that names the file and is no key of it.
    const FILE_VARIABLE: &'static str;

    /// [`schema_of`] this type, made once.
    fn schema() -> &'static Value;

    /// What no type says, of all sections. Looks at nothing outside of the configuration.
    fn invalid(&self) -> Vec<Invalid>;
}
