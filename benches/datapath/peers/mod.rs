//! Other filters, as Debian packages them.

pub mod nftables;
pub mod xdp_filter;

use std::path::PathBuf;

/// What a row says of a filter that is not there.
const MISSING: &str = "not installed: scripts/setup --bench";

/// Where a command is, with the directories that a plain user's path lacks.
fn command(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut candidates = std::env::split_paths(&path)
        .chain(usual)
        .map(|dir| dir.join(name));
    candidates.find(|path| path.is_file())
}
