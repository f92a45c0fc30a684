//! The store that the configuration names.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xdpgate_service::Failure;
use xdpgate_service::files::{self, Others};

use crate::config::{Config, Etcd};
use crate::store::{Store, etcd, sqlite};

/// Opens it, and makes it if it is not there yet.
pub(crate) async fn store(config: &Config) -> Result<Arc<dyn Store>, Failure> {
    match &config.store.etcd {
        Some(section) => {
            let store = etcd::Etcd::open(options(section)?).await;
            Ok(Arc::new(store.map_err(Failure::operation)?))
        }
        None => {
            let file = file(config);
            if let Some(folder) = file.parent() {
                folder_of_its_own(folder)?;
            }
            let opened = tokio::task::spawn_blocking(move || sqlite::Sqlite::open(file)).await;
            let opened = opened.map_err(Failure::operation)?;
            Ok(Arc::new(opened.map_err(Failure::operation)?))
        }
    }
}

/// The SQLite file.
pub(crate) fn file(config: &Config) -> PathBuf {
    let default = || config.state_dir.join("controller.db");
    config.store.file.clone().unwrap_or_else(default)
}

/// Makes a folder that only its owner can look into, if it is not there.
fn folder_of_its_own(folder: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::operation(format!("state_dir: {}: {error}", folder.display()));
    if folder.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(folder).map_err(failed)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(failed)
}

fn options(section: &Etcd) -> Result<etcd::Options, Failure> {
    let read = |key: &str, path: &Path| {
        fs::read(path).map_err(|e| {
            Failure::input(
                format!("store.etcd.{key}"),
                format!("{}: {e}", path.display()),
            )
        })
    };
    let mut options = etcd::Options::new(section.endpoints.clone());
    options.prefix.clone_from(&section.prefix);
    if let (Some(user), Some(path)) = (&section.user, &section.password_file) {
        let password = secret(path, "store.etcd.password_file")?;
        options.user = Some((user.clone(), password.trim_end().to_owned()));
    }
    let identity = match (&section.certificate, &section.key) {
        (Some(certificate), Some(key)) => {
            let key = secret(key, "store.etcd.key")?.into_bytes();
            Some((read("certificate", certificate)?, key))
        }
        _ => None,
    };
    let authority = section.ca.as_deref().map(|ca| read("ca", ca)).transpose()?;
    if authority.is_some() || identity.is_some() {
        options.tls = Some(etcd::Tls {
            authority: authority.unwrap_or_default(),
            identity,
        });
    }
    Ok(options)
}

/// The secret in the file that a key of the configuration names.
pub(crate) fn secret(path: &Path, key: &str) -> Result<String, Failure> {
    files::read(path, Others::MayNothing).map_err(|e| Failure::input(key, e))
}
