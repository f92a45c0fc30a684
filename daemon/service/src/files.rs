//! Files with secrets, or that decide who gets in: refused if others could read or write them.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What others than the owner may do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// Read it, but not write it.
    MayRead,
    /// Nothing.
    MayNothing,
}

/// The content of a text file that is as it should be, of up to 1 MiB.
///
/// # Errors
///
/// The file and the reason, with the mend, in one line.
pub fn read(path: &Path, others: Others) -> Result<String, String> {
    let of = |reason: &dyn std::fmt::Display| format!("{}: {reason}", path.display());
    let mut file = File::open(path).map_err(|e| of(&e))?;
    // Of the file that is open: the path may lead elsewhere by now.
    let metadata = file.metadata().map_err(|e| of(&e))?;
    if !metadata.is_file() {
        return Err(of(&"it is not a file"));
    }
    let mode = metadata.mode() & 0o777;
    let (wrong, verb, mend) = match others {
        Others::MayRead => (mode & 0o022, "write", "go-w"),
        Others::MayNothing => (mode & 0o077, "read", "600"),
    };
    if wrong != 0 {
        return Err(of(&format!(
            "others can {verb} it (mode {mode:03o}): chmod {mend} {}",
            path.display()
        )));
    }
    let user = nix::unistd::geteuid().as_raw();
    if metadata.uid() != user && metadata.uid() != 0 {
        return Err(of(&format!(
            "it belongs to user {}, who could change it: chown {user} {}",
            metadata.uid(),
            path.display()
        )));
    }
    let mut text = String::new();
    file.by_ref()
        .take(MOST)
        .read_to_string(&mut text)
        .map_err(|e| of(&e))?;
    match text.len() as u64 == MOST {
        true => Err(of(&format!("it has {MOST} bytes or more"))),
        false => Ok(text),
    }
}

/// The content of a file that is public.
///
/// # Errors
///
/// The file and the reason, in one line.
pub fn public(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}

const MOST: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_that_others_may_read_or_write_is_refused_with_the_mend() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "text\n").unwrap();
        let mode = |mode| fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        for (bits, others, mend) in [
            (0o640, Others::MayNothing, Some("chmod 600")),
            (0o604, Others::MayNothing, Some("chmod 600")),
            (0o600, Others::MayNothing, None),
            (0o646, Others::MayRead, Some("chmod go-w")),
            (0o644, Others::MayRead, None),
        ] {
            mode(bits);
            let found = read(&path, others);
            match mend {
                None => assert_eq!(found.as_deref(), Ok("text\n"), "{bits:o}"),
                Some(mend) => assert!(found.unwrap_err().contains(mend), "{bits:o}"),
            }
        }
        let refused = read(folder.path(), Others::MayRead).unwrap_err();
        assert!(refused.contains("not a file"), "{refused}");
        mode(0o600);
        fs::write(&path, vec![b' '; 1 << 20]).unwrap();
        assert!(
            read(&path, Others::MayNothing)
                .unwrap_err()
                .contains("bytes or more")
        );
    }
}
