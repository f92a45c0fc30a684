//! What happens in the fleet, told to who listens. Who reads too slowly misses some and is told how many.

use futures_util::{Stream, StreamExt as _};
use serde::Serialize;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use super::{NodeId, Reason};

/// So many are kept for who reads slowly.
const KEPT: usize = 1024;

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// A node is there.
    Online {
        /// Which.
        node: NodeId,
    },
    /// Too many heartbeats of a node did not come.
    Offline {
        /// Which.
        node: NodeId,
    },
    /// A state is in force at a node.
    Applied {
        /// Where.
        node: NodeId,
        /// The number of the state.
        sequence: u64,
    },
    /// A node has refused a state.
    Refused {
        /// Which.
        node: NodeId,
        /// The number of the state.
        sequence: u64,
        /// Why.
        reason: Reason,
        /// In one line.
        error: String,
    },
    /// A node does not answer a state.
    Silent {
        /// Which.
        node: NodeId,
        /// The number of the state.
        sequence: u64,
    },
    /// A node has something else in force than it acknowledged.
    Drift {
        /// Which.
        node: NodeId,
    },
    /// Pass mode was set at a node (`xdpgate panic-off`), or is taken back there.
    PanicOff {
        /// Which.
        node: NodeId,
        /// Whether nothing is dropped there now.
        on: bool,
    },
    /// How far the newest change has come.
    Progress {
        /// The number of the change.
        revision: u64,
        /// Nodes that have it in force.
        applied: usize,
        /// Nodes that refused it.
        refused: usize,
        /// Nodes that have not answered.
        pending: usize,
        /// Nodes that are not there.
        offline: usize,
    },
    /// So many events were left out here.
    Lost {
        /// How many.
        events: u64,
    },
}

#[derive(Debug)]
pub(super) struct Events(broadcast::Sender<Event>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::Sender::new(KEPT))
    }
}

impl Events {
    pub(super) fn tell(&self, event: Event) {
        // Nobody needs to listen.
        let _ = self.0.send(event);
    }

    pub(super) fn listen(&self) -> impl Stream<Item = Event> + Send + Unpin + use<> {
        BroadcastStream::new(self.0.subscribe()).map(|event| match event {
            Ok(event) => event,
            Err(BroadcastStreamRecvError::Lagged(events)) => Event::Lost { events },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_reads_too_slowly_is_told_how_many_it_missed() {
        let events = Events::default();
        let mut slow = events.listen();
        let online = |i: usize| Event::Online {
            node: NodeId::new(format!("n-{i}")).unwrap(),
        };
        for i in 0..KEPT + 10 {
            events.tell(online(i));
        }
        assert_eq!(slow.next().await, Some(Event::Lost { events: 10 }));
        assert_eq!(slow.next().await, Some(online(10)));
    }
}
