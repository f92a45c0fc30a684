//! The screen on a terminal.

use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::keys::{self, Key};
use super::state::{Feed, State, Update};
use super::{Top, view};
use crate::Failure;
use crate::client::remote;

pub(super) fn run(args: &Top) -> Result<(), Failure> {
    remote::run(async {
        // Before the terminal is taken: a daemon that is not there is an error as any other.
        let (feed, no_events) = Feed::open(args).await?;
        let mut signals = Signals::catch().map_err(Failure::operation)?;
        let mut screen = Screen::take()?;
        let mut keys = keys::read();
        let mut state = State {
            no_events,
            ..Default::default()
        };
        let mut feed = Some(feed);
        let mut drawn = None::<Instant>;
        let mut only_events = false;
        loop {
            // Events may come by the thousand; the next sample draws them in any case.
            let at_once = !only_events || drawn.is_none_or(|at| at.elapsed() >= SHORT);
            if at_once {
                screen.draw(&state)?;
                drawn = Some(Instant::now());
            }
            only_events = false;
            let stay = match &mut feed {
                Some(open) => tokio::select! {
                    update = open.next() => match update {
                        Ok(update) => {
                            only_events = matches!(update, Update::Events(_));
                            if !state.paused {
                                state.take(update);
                            }
                            true
                        }
                        Err(status) => {
                            state.problem = Some(remote::refused(&args.remote, &status).to_string());
                            feed = None;
                            true
                        }
                    },
                    go_on = typed(&mut keys, &mut state) => go_on,
                    () = signals.any() => false,
                },
                // The daemon may be starting anew.
                None => tokio::select! {
                    () = tokio::time::sleep(RETRY) => {
                        match Feed::open(args).await {
                            Ok((open, no_events)) => {
                                state.no_events = no_events;
                                feed = Some(open);
                            }
                            Err(failure) => state.problem = Some(failure.to_string()),
                        }
                        true
                    }
                    go_on = typed(&mut keys, &mut state) => go_on,
                    () = signals.any() => false,
                },
            };
            if !stay {
                return Ok(());
            }
        }
    })
}

/// Between two times at which events alone are drawn.
const SHORT: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_secs(1);

/// Waits for a key and does what it asks for; `false` ends it.
async fn typed(keys: &mut mpsc::Receiver<Key>, state: &mut State) -> bool {
    match keys.recv().await {
        None | Some(Key::Quit) => return false,
        Some(Key::Pause) => state.paused = !state.paused,
        Some(Key::Sort) => state.sort = state.sort.next(),
        Some(Key::Up) => state.scrolled = state.scrolled.saturating_sub(1),
        Some(Key::Down) => {
            let last = state.rules().len().saturating_sub(1);
            state.scrolled = (state.scrolled + 1).min(last);
        }
        Some(Key::Resized) => {}
    }
    true
}

/// The terminal, given back however this ends: a panic restores it by the hook that ratatui sets.
struct Screen(DefaultTerminal);

impl Screen {
    fn take() -> Result<Self, Failure> {
        let terminal = ratatui::try_init();
        let terminal = terminal.map_err(|e| Failure::operation(format!("the terminal: {e}")))?;
        Ok(Self(terminal))
    }

    fn draw(&mut self, state: &State) -> Result<(), Failure> {
        let drawn = self.0.draw(|frame| view::render(frame, state));
        drawn.map(|_| ()).map_err(|e| Failure::output(&e))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing is left to be done where this fails: the terminal is gone.
        let _ = ratatui::try_restore();
    }
}

/// What ends it from outside; Ctrl-C comes as a key here.
struct Signals([Signal; 3]);

impl Signals {
    fn catch() -> std::io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn any(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
