//! Sampled drops: from the data path to those who listen.
//!
//! ```text
//! ring buffer -> thread of the Ring -> Hub: names rules and interfaces -> a queue per EventStream
//! ```

mod event;
mod hub;
mod options;
mod ring;
mod source;
mod stream;

pub use event::Event;
pub(super) use hub::Events;
pub use options::EventOptions;
pub(super) use ring::Ring;
pub use source::EventStats;
pub(super) use source::{EventSource, NoEvents};
pub use stream::{EventStream, NextError};
