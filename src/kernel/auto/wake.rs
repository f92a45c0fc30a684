//! How the thread that watches is asked for something.

use std::io;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::AutoAttachOptions;
use super::selector::Rules;
use crate::kernel::firewall::lock;

/// What wakes the thread, and what it is asked then.
#[derive(Debug)]
pub(super) struct Wake {
    pub event: EventFd,
    asked: Mutex<Mail>,
}

#[derive(Debug, Default)]
struct Mail {
    stop: bool,
    select: Option<Box<Request>>,
}

/// To select by other rules.
#[derive(Debug)]
pub(super) struct Request {
    pub rules: Rules,
    pub options: AutoAttachOptions,
    pub done: SyncSender<io::Result<()>>,
}

/// What the thread is asked for.
#[derive(Debug)]
pub(super) enum Asked {
    Nothing,
    Stop,
    Select(Box<Request>),
}

impl Wake {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            event: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            asked: Mutex::default(),
        })
    }

    /// Asks the thread to end.
    pub(super) fn stop(&self) -> io::Result<()> {
        lock(&self.asked).stop = true;
        self.wake()
    }

    /// Asks it to select by other rules. Who asked before and got no answer gets none.
    pub(super) fn select(&self, request: Request) -> io::Result<()> {
        lock(&self.asked).select = Some(Box::new(request));
        self.wake()
    }

    /// What is asked, once; to stop comes first and stays.
    pub(super) fn asked(&self) -> Asked {
        // Before the look: what is asked after it wakes again.
        let _ = self.event.read();
        let mut mail = lock(&self.asked);
        match mail.select.take() {
            _ if mail.stop => Asked::Stop,
            Some(request) => Asked::Select(request),
            None => Asked::Nothing,
        }
    }

    /// Waits, or until something is asked.
    pub(super) fn pause(&self, pause: Duration) {
        let mut files = [PollFd::new(self.event.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX);
        // Whatever ends it, the thread goes on.
        let _ = poll(&mut files, timeout);
    }

    fn wake(&self) -> io::Result<()> {
        self.event.write(1)?;
        Ok(())
    }
}
