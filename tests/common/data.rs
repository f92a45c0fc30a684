//! Rule sets and lists from outside of the project. Where they are missing, generated ones stand in
//! and their names say so.

use std::path::PathBuf;
use std::process::Command;

/// The text of a gzipped file of the data folder: `XDPGATE_DATA`, or `../shared/data` beside the
/// project. `None` if it is not there.
pub fn gunzip(path: &str) -> Option<String> {
    let output = Command::new("gzip")
        .arg("-dc")
        .arg(dir()?.join(path))
        .stderr(std::process::Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

/// `name`, marked if the file that it stands for is not there.
pub fn title(name: &str, path: &str) -> String {
    match dir() {
        Some(dir) if dir.join(path).is_file() => name.to_owned(),
        _ => format!("{name} (generated)"),
    }
}

fn dir() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let dir = std::env::var_os("XDPGATE_DATA").map_or(beside, PathBuf::from);
    dir.is_dir().then_some(dir)
}

/// Whether there is a data folder at all.
pub fn is_there() -> bool {
    dir().is_some()
}
