//! `backup` and `restore`.

use std::sync::Arc;

use tokio::runtime::Runtime;
use xdpgate_service::Failure;
use xdpgate_service::config::Problem;

use crate::args::Backup;
use crate::config::Config;
use crate::open;
use crate::store::backup::{self, Summary};
use crate::store::{Store, sqlite};

/// `xdpgate-controller backup FILE`.
pub(crate) fn backup(args: &Backup) -> Result<(), Failure> {
    let config = config(args)?;
    runtime()?.block_on(async {
        // What a running controller has open is copied first, as of one moment; the copy is read at leisure.
        let (store, _copy) = match &config.store.etcd {
            Some(_) => (open::store(&config).await?, None),
            None => {
                let (store, copy) = copied(&config)?;
                (store, Some(copy))
            }
        };
        let page = store.list("", None, 1, None).await;
        if page.map_err(Failure::operation)?.records.is_empty() {
            let reason =
                "the store is empty: is it the right one? See [store] of the configuration";
            return Err(Failure::operation(reason));
        }
        let summary = backup::backup(&store, &args.file).await;
        say("written", args, &summary.map_err(Failure::operation)?);
        Ok(())
    })
}

/// `xdpgate-controller restore FILE`.
pub(crate) fn restore(args: &Backup) -> Result<(), Failure> {
    let config = config(args)?;
    runtime()?.block_on(async {
        let store = open::store(&config).await?;
        let summary = backup::restore(&store, &args.file).await;
        say("restored", args, &summary.map_err(Failure::operation)?);
        eprintln!(
            "log in again, and make join tokens anew; what was revoked after the backup was made has to be revoked again"
        );
        Ok(())
    })
}

fn copied(config: &Config) -> Result<(Arc<dyn Store>, tempfile::TempDir), Failure> {
    let file = open::file(config);
    let folder = file.parent().unwrap_or(std::path::Path::new("."));
    let beside = tempfile::tempdir_in(folder)
        .map_err(|e| Failure::operation(format!("{}: {e}", folder.display())))?;
    let copy = beside.path().join("copy.db");
    sqlite::copy(&file, &copy).map_err(Failure::operation)?;
    let store = sqlite::Sqlite::open(copy).map_err(Failure::operation)?;
    Ok((Arc::new(store), beside))
}

fn say(what: &str, args: &Backup, summary: &Summary) {
    eprintln!(
        "{what}: {}: {} records and {} chunks, made at {}",
        args.file.display(),
        summary.records,
        summary.chunks,
        summary.header.made
    );
}

fn config(args: &Backup) -> Result<Config, Failure> {
    let loaded = args.args.load();
    let loaded = loaded.map_err(|problems| Problem::failure(&problems))?;
    Ok(loaded.config)
}

pub(crate) fn runtime() -> Result<Runtime, Failure> {
    Runtime::new().map_err(Failure::operation)
}
