//! What `login` keeps: a token for each controller, in a file that only its owner may read.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

use serde::Deserialize;
use xdpgate_service::Failure;
use xdpgate_service::files::{self, Others};

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Saved {
    /// Which controller is meant if none is named.
    server: Option<String>,
    logins: BTreeMap<String, Login>,
}

/// What one controller gave.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    pub(super) user: String,
    /// What the token is called by, to revoke it.
    pub(super) id: String,
    pub(super) token: String,
}

impl Saved {
    /// `$XDG_CONFIG_HOME/xdpgate/controller.toml`.
    pub(super) fn path() -> Option<PathBuf> {
        let set = |name: &str| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let base = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
        Some(base.join("xdpgate").join("controller.toml"))
    }

    /// What is kept; nothing, if there is no file.
    pub(super) fn load() -> Result<Self, Failure> {
        let Some(path) = Self::path() else {
            return Ok(Self::default());
        };
        let wrong = |e: &dyn std::fmt::Display| Failure::input(path.display(), e);
        if let Err(error) = fs::metadata(&path)
            && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
        {
            return Ok(Self::default());
        }
        let text = files::read(&path, Others::MayNothing).map_err(Failure::Input)?;
        toml::from_str(&text).map_err(|e| {
            wrong(&format!(
                "{}: log in again after you removed it",
                e.message()
            ))
        })
    }

    pub(super) fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    /// What a controller gave.
    pub(super) fn token(&self, server: &str) -> Option<&Login> {
        self.logins.get(server)
    }

    /// With what a controller gave; it is also the one that is meant from now on.
    pub(super) fn keep(&mut self, server: &str, login: Login) -> Result<PathBuf, Failure> {
        self.server = Some(server.to_owned());
        self.logins.insert(server.to_owned(), login);
        self.write()
    }

    /// Without it.
    pub(super) fn forget(&mut self, server: &str) -> Result<(), Failure> {
        self.logins.remove(server);
        self.write().map(drop)
    }

    /// As a whole or not at all.
    fn write(&self) -> Result<PathBuf, Failure> {
        let path = Self::path().ok_or_else(|| {
            Failure::operation("set HOME or XDG_CONFIG_HOME: there the token is kept")
        })?;
        let failed =
            |e: &dyn std::fmt::Display| Failure::operation(format!("{}: {e}", path.display()));
        let dir = path
            .parent()
            .ok_or_else(|| failed(&"it has no directory"))?;
        fs::create_dir_all(dir).map_err(|e| failed(&e))?;
        // Made with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(dir).map_err(|e| failed(&e))?;
        file.write_all(self.text().as_bytes())
            .map_err(|e| failed(&e))?;
        file.persist(&path).map_err(|e| failed(&e))?;
        Ok(path)
    }

    fn text(&self) -> String {
        // A string of JSON is one of TOML.
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut text =
            String::from("# Written by `xdpgate-controller login`; `logout` takes out of it.\n");
        // Writing to a string does not fail.
        if let Some(server) = &self.server {
            let _ = writeln!(text, "server = {}", quoted(server));
        }
        for (server, login) in &self.logins {
            let _ = writeln!(text, "\n[logins.{}]", quoted(server));
            for (key, value) in [
                ("user", &login.user),
                ("id", &login.id),
                ("token", &login.token),
            ] {
                let _ = writeln!(text, "{key} = {}", quoted(value));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{Login, Saved};

    #[test]
    fn what_is_written_is_read() {
        let login = Login {
            user: "a\"b\\c".to_owned(),
            id: "7".to_owned(),
            token: "xgt_1\n".to_owned(),
        };
        let mut saved = Saved {
            server: Some("https://x/".to_owned()),
            ..Saved::default()
        };
        saved.logins.insert("https://x/".to_owned(), login.clone());
        let read: Saved = toml::from_str(&saved.text()).unwrap();
        assert_eq!(read.server(), Some("https://x/"));
        let read = read.token("https://x/").unwrap();
        assert_eq!(
            (&read.user, &read.id, &read.token),
            (&login.user, &login.id, &login.token)
        );
    }
}
