//! Tools that are not ours, which some tests ask: whether what we made is right by another's word.

use std::env;

/// Whether this command is here. If not the test says that it is skipped, as the word to `tally`; where
/// `CI` is set it fails, since nobody would see there that something was not tested.
///
/// `option` is the one of `scripts/setup` that installs it; empty for what it always installs.
#[track_caller]
pub fn has_tool(name: &str, option: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    if env::split_paths(&path).any(|dir| dir.join(name).is_file()) {
        return true;
    }
    let mend = format!("scripts/setup {option}");
    let mend = mend.trim_end();
    let ci = env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false");
    assert!(!ci, "CI is set and {name} is not here: {mend} installs it");
    println!("skipped: {name} is not here: {mend} installs it");
    false
}
