//! What the watchdog of the service manager is told: that the controller is alive, if it is.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use xdpgate_service::notify;

use crate::fleet::Fleet;
use crate::store::{Key, Store};

/// Heartbeats are looked at each second; a machine that is busy may take longer.
const LOOKED_WITHIN: Duration = Duration::from_secs(10);

/// What has to go on.
pub(super) struct Watched {
    pub store: Arc<dyn Store>,
    pub fleet: Fleet,
    /// Each with its name. None of them ends by itself.
    pub tasks: Vec<(&'static str, AbortHandle)>,
}

/// Says as often as the service manager asks for it that the controller is alive. Goes on until it is aborted.
pub(super) async fn run(watched: Watched) {
    let Some(every) = notify::alive_every() else {
        return;
    };
    let mut told = String::new();
    loop {
        sleep(every).await;
        let found = watched.look(every / 2).await;
        let status = match &found {
            Ok(()) => format!("serving, sessions of nodes: {}", watched.fleet.sessions()),
            Err(reason) => {
                log::error!("not alive: {reason}");
                reason.clone()
            }
        };
        if found.is_ok() {
            notify::alive();
        }
        if status != told {
            notify::status(&status);
            told = status;
        }
    }
}

impl Watched {
    /// Whether all goes on; the error says what does not. A store that answers with an error is one that answers:
    /// etcd does not come back because the controller is started again.
    async fn look(&self, patience: Duration) -> Result<(), String> {
        if let Some((name, _)) = self.tasks.iter().find(|(_, task)| task.is_finished()) {
            return Err(format!("{name} has ended"));
        }
        let ago = self.fleet.looked();
        if ago > LOOKED_WITHIN {
            return Err(format!("nodes were not looked at for {ago:.0?}"));
        }
        match Key::new("setting/mode") {
            Some(key) => answered(patience, self.store.get(&key)).await,
            None => Ok(()),
        }
    }
}

/// Whether the store answers in time, whatever it says.
async fn answered(patience: Duration, answer: impl Future) -> Result<(), String> {
    let late = |_| format!("the store does not answer within {patience:.1?}");
    timeout(patience, answer).await.map(drop).map_err(late)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Core;
    use crate::fleet::{Config, targets};
    use crate::store::sqlite::Sqlite;

    #[tokio::test]
    async fn what_has_ended_or_hangs_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(Sqlite::open(folder.path().join("c.db")).unwrap());
        let core = Core::open(Arc::clone(&store)).await.unwrap();
        let fleet = Fleet::start(Config::default(), targets(&core), None, None);
        let task = tokio::spawn(std::future::pending::<()>());
        let watched = Watched {
            store,
            fleet,
            tasks: vec![("feeds", task.abort_handle())],
        };
        let patience = Duration::from_secs(5);
        assert_eq!(watched.look(patience).await, Ok(()));
        let hangs = std::future::pending::<()>();
        let late = answered(Duration::from_millis(20), hangs).await;
        let late = late.unwrap_err();
        assert!(late.contains("store does not answer"), "{late}");
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        let ended = watched.look(patience).await;
        assert_eq!(ended, Err("feeds has ended".to_owned()));
    }
}
