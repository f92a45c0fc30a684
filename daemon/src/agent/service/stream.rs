//! Answers that stream: a thread makes each, and a slow reader holds up only itself.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::agent::fault::{self, Fault};

/// The answers of a call that streams.
pub(in crate::agent) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Messages that wait for the reader of one stream.
const QUEUE: usize = 2;

/// Streams that may be open at one time: each is a thread.
const MOST: usize = 256;

/// What all streams share.
#[derive(Debug)]
pub(super) struct Streams {
    room: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
    /// Kept where nobody says when it stops.
    _never: Option<watch::Sender<bool>>,
}

impl Default for Streams {
    fn default() -> Self {
        let (never, stopping) = watch::channel(false);
        Self {
            _never: Some(never),
            ..Self::until(stopping)
        }
    }
}

impl Streams {
    /// They end when this says so.
    pub(super) fn until(stopping: watch::Receiver<bool>) -> Self {
        Self {
            room: Arc::new(Semaphore::new(MOST)),
            stopping,
            _never: None,
        }
    }

    /// A stream whose messages `work` sends, on a thread of its own that ends with it.
    pub(super) fn open<T: Send + 'static>(
        &self,
        work: impl FnOnce(Sink<T>) + Send + 'static,
    ) -> Result<Answers<T>, Status> {
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            let message = format!("{MOST} streams are open, which is all there may be: close some");
            let fault = Fault::new(Code::ResourceExhausted, "TOO_MANY_STREAMS", message);
            return Err(fault
                .with("limit", MOST)
                .retry_after(Duration::from_secs(10))
                .into());
        };
        let (sender, messages) = mpsc::channel(QUEUE);
        let sink = Sink {
            sender,
            stopping: self.stopping.clone(),
            runtime: Handle::current(),
            _permit: permit,
        };
        std::thread::Builder::new()
            .name("api-stream".to_owned())
            .spawn(move || work(sink))
            .map_err(|e| fault::internal(format!("starting a thread: {e}; try again later")))?;
        Ok(Box::pin(ReceiverStream::new(messages)))
    }
}

/// Where the messages of one stream go.
#[derive(Debug)]
pub(super) struct Sink<T> {
    sender: mpsc::Sender<Result<T, Status>>,
    stopping: watch::Receiver<bool>,
    runtime: Handle,
    _permit: OwnedSemaphorePermit,
}

/// The stream is over: the client is gone, or the daemon stops, of which the client was told.
#[derive(Debug)]
pub(super) struct Over;

impl<T> Sink<T> {
    /// Sends a message as soon as the client has taken those before it.
    pub(super) fn send(&mut self, message: T) -> Result<(), Over> {
        let Self {
            sender, stopping, ..
        } = self;
        let sent = self.runtime.block_on(async {
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => None,
                sent = sender.send(Ok(message)) => Some(sent.is_ok()),
            }
        });
        self.go_on(sent)
    }

    /// Whether a message would be taken at once.
    pub(super) fn has_room(&self) -> bool {
        self.sender.capacity() > 0
    }

    /// Waits, unless the stream is over first.
    pub(super) fn sleep(&mut self, time: Duration) -> Result<(), Over> {
        let Self {
            sender, stopping, ..
        } = self;
        let slept = self.runtime.block_on(async {
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => None,
                () = sender.closed() => Some(false),
                () = tokio::time::sleep(time) => Some(true),
            }
        });
        self.go_on(slept)
    }

    /// `None`: the daemon stops; `false`: the client is gone.
    fn go_on(&self, result: Option<bool>) -> Result<(), Over> {
        match result {
            Some(true) => Ok(()),
            Some(false) => Err(Over),
            None => {
                // A client that does not read is not waited for.
                drop(self.sender.try_send(Err(fault::stopping())));
                Err(Over)
            }
        }
    }
}
