//! Network namespaces that live beside each other, each with a thread that stays in it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use super::netns::sh;

type Task = Box<dyn FnOnce() + Send>;

/// A namespace and its thread. It is gone when this is dropped.
pub struct Place {
    tasks: Option<Sender<Task>>,
    thread: Option<JoinHandle<()>>,
    /// The number of the thread, by which commands know the namespace.
    tid: i32,
}

impl Place {
    pub fn new() -> Self {
        let (tasks, todo) = channel::<Task>();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            super::netns::run(|| {
                tell.send(nix::unistd::gettid().as_raw()).unwrap();
                todo.into_iter().for_each(|task| task());
            });
        });
        Self {
            tasks: Some(tasks),
            thread: Some(thread),
            tid: told.recv().expect("a namespace"),
        }
    }

    /// Does something in this namespace; fails if it fails.
    pub fn within<T: Send + 'static>(&self, task: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, answered) = channel::<Result<T, Box<dyn Any + Send>>>();
        let task = Box::new(move || {
            let _ = answer.send(catch_unwind(AssertUnwindSafe(task)));
        });
        self.tasks.as_ref().unwrap().send(task).expect("its thread");
        match answered.recv().expect("an answer") {
            Ok(done) => done,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Runs a command in it.
    pub fn sh(&self, command: &str) -> String {
        let command = command.to_owned();
        self.within(move || sh(&command))
    }

    /// Moves an interface of the calling thread's namespace into it.
    pub fn take(&self, interface: &str) {
        sh(&format!("ip link set {interface} netns {}", self.tid));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.tasks.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
