//! Looking at the health of the firewall on a thread of its own: the threads for calls may all be busy with
//! them, and the service manager would take a late look for a dead daemon.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use tokio::sync::{mpsc, oneshot};

/// A look that is made whenever it is asked for. The thread ends with this.
#[derive(Debug)]
pub(super) struct Looks<T>(mpsc::Sender<oneshot::Sender<T>>);

impl<T: Send + 'static> Looks<T> {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The system has no thread left.
    pub(super) fn start(look: impl Fn() -> T + Send + 'static) -> io::Result<Self> {
        let (ask, mut asks) = mpsc::channel::<oneshot::Sender<T>>(1);
        thread::Builder::new()
            .name("health".to_owned())
            .spawn(move || {
                while let Some(answer) = asks.blocking_recv() {
                    // Like a task that panics: this look is lost, and the next one is made.
                    if let Ok(found) = catch_unwind(AssertUnwindSafe(&look)) {
                        let _ = answer.send(found);
                    }
                }
            })?;
        Ok(Self(ask))
    }

    /// What is seen now; nothing if the look panicked.
    pub(super) async fn look(&self) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.0.send(answer).await.ok()?;
        answered.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// With every thread for calls busy.
    #[test]
    fn a_look_waits_for_no_call_and_outlives_a_panic() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .expect("a runtime");
        let (end, ends) = std::sync::mpsc::channel::<()>();
        runtime.block_on(async {
            let busy = tokio::task::spawn_blocking(move || ends.recv());
            let count = AtomicU32::new(0);
            let looks = Looks::start(move || match count.fetch_add(1, Ordering::Relaxed) {
                1 => panic!("a look that panics is part of this test"),
                look => look,
            })
            .expect("a thread");
            let mut seen = Vec::new();
            for _ in 0..3 {
                let look = timeout(Duration::from_secs(10), looks.look()).await;
                seen.push(look.expect("it waits for nothing"));
            }
            assert_eq!(seen, [Some(0), None, Some(2)]);
            assert!(
                !busy.is_finished(),
                "the other thread was busy all the time"
            );
            drop(end);
        });
    }
}
