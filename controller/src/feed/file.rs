//! Files of feeds: only those below one folder.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use super::fetch::{FetchError, unpacked};
use super::record::{country_in, has_country};

/// Why a path is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a path below the folder of feeds: no slash at the beginning, no ..")]
pub(super) struct PathError(String);

/// Whether this is a path below a folder.
pub(super) fn check_path(path: &str) -> Result<(), PathError> {
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    let folder = Path::new(path)
        .parent()
        .and_then(Path::to_str)
        .unwrap_or("");
    let fine = !path.is_empty()
        && !path.ends_with('/')
        && path.len() <= 1024
        && !path.contains('\0')
        && !has_country(folder)
        && Path::new(path).components().all(plain);
    if fine {
        Ok(())
    } else {
        Err(PathError(path.to_owned()))
    }
}

/// The text of a file below a folder. Links that lead out of it are not followed.
pub(super) fn read(folder: &Path, path: &str, most: u64) -> Result<String, FetchError> {
    let failed = |error: &dyn std::fmt::Display| FetchError::File(format!("{path}: {error}"));
    let file = below(folder, path).map_err(|error| failed(&error))?;
    let is_file = file.metadata().is_ok_and(|meta| meta.is_file());
    if !is_file {
        return Err(failed(&"not a file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(&file).map_err(|error| failed(&error))?;
    file.take(most.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| failed(&error))?;
    if bytes.len() as u64 > most {
        return Err(FetchError::TooLarge(most));
    }
    unpacked(bytes, false, most)
}

/// The countries for which there is a file of these patterns.
pub(super) fn countries(folder: &Path, patterns: &[String]) -> Result<Vec<String>, FetchError> {
    let mut found = Vec::new();
    for pattern in patterns {
        let parent = Path::new(pattern)
            .parent()
            .and_then(Path::to_str)
            .unwrap_or("");
        let named = if parent.is_empty() { "." } else { parent };
        let failed = |error: io::Error| FetchError::File(format!("{named}: {error}"));
        let list = below(folder, parent)
            .and_then(std::fs::read_dir)
            .map_err(failed)?;
        let name = Path::new(pattern)
            .file_name()
            .and_then(|name| name.to_str());
        for entry in list {
            let entry = entry.map_err(failed)?.file_name();
            found.extend(
                name.zip(entry.to_str())
                    .and_then(|(name, entry)| country_in(name, entry)),
            );
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Whether there is such a file.
pub(super) fn is_there(folder: &Path, path: &str) -> bool {
    below(folder, path).is_ok()
}

fn below(folder: &Path, path: &str) -> io::Result<PathBuf> {
    let folder = folder.canonicalize()?;
    let path = folder.join(path).canonicalize()?;
    if path.starts_with(&folder) {
        Ok(path)
    } else {
        Err(io::Error::other("it leads out of the folder of feeds"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r117_files_are_below_their_folder() {
        for good in [
            "a",
            "a/b.txt",
            "country-{country}.cidr",
            "a/country-{country}.cidr",
        ] {
            check_path(good).unwrap();
        }
        for bad in [
            "",
            "/etc/passwd",
            "../a",
            "a/../../b",
            "a/",
            "{country}/a",
            "a\0",
        ] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "203.0.113.7\n").unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("list"), "203.0.113.7\n").unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), folder.path().join("out"))
            .unwrap();
        std::os::unix::fs::symlink("list", folder.path().join("in")).unwrap();
        assert_eq!(read(folder.path(), "in", 100).unwrap(), "203.0.113.7\n");
        let out = read(folder.path(), "out", 100).unwrap_err().to_string();
        assert!(out.contains("leads out"), "{out}");
        let large = read(folder.path(), "list", 11).unwrap_err();
        assert!(matches!(large, FetchError::TooLarge(11)), "{large}");
        let none = read(folder.path(), "none", 11).unwrap_err().to_string();
        assert!(none.starts_with("none: "), "{none}");
        assert!(read(folder.path(), "../list", 100).is_err());
    }

    #[test]
    fn r118_countries_are_found_by_their_files() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "country-de.ipv4.cidr",
            "country-de.ipv6.cidr",
            "country-nl.ipv4.cidr",
            "country-xyz.ipv4.cidr",
            "other",
        ] {
            std::fs::write(folder.path().join(name), "203.0.113.7\n").unwrap();
        }
        let patterns = ["ipv4", "ipv6"].map(|v| format!("country-{{country}}.{v}.cidr"));
        assert_eq!(countries(folder.path(), &patterns).unwrap(), ["de", "nl"]);
    }
}
