//! The connections of one listener, of which there are only so many.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::peer::Activity;

/// The connections that are open, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    next: u64,
    by_age: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    activity: Arc<Activity>,
    /// Dropped to cut the connection.
    _cut: oneshot::Sender<()>,
}

/// A place among them, given back when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    number: u64,
}

impl Connections {
    /// A place for one more, if need be that of the oldest that has not shown who it is. The second value
    /// resolves when the connection is to be cut.
    ///
    /// `None`: all who are there have shown who they are.
    pub(super) fn admit(
        self: &Arc<Self>,
        activity: &Arc<Activity>,
        most: usize,
    ) -> Option<(Place, oneshot::Receiver<()>)> {
        let mut open = self.lock();
        while open.by_age.len() >= most {
            let unknown = open.by_age.iter().find(|(_, e)| !e.activity.is_known());
            let number = *unknown?.0;
            open.by_age.remove(&number);
        }
        let (cut, is_cut) = oneshot::channel();
        let number = open.next;
        open.next += 1;
        let activity = Arc::clone(activity);
        open.by_age.insert(
            number,
            Entry {
                activity,
                _cut: cut,
            },
        );
        let connections = Arc::clone(self);
        Some((
            Place {
                connections,
                number,
            },
            is_cut,
        ))
    }

    /// Cuts those that have not shown who they are within `handshake`, and those that have made no call
    /// for `idle`.
    pub(super) fn cut_quiet(&self, handshake: Duration, idle: Duration) {
        self.lock()
            .by_age
            .retain(|_, Entry { activity, .. }| match activity.is_known() {
                true => activity.quiet_for() < idle,
                false => activity.age() < handshake,
            });
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().by_age.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_unknown_one_makes_room() {
        let connections = Arc::new(Connections::default());
        let activity = || Arc::new(Activity::new());
        let admit = |activity: &Arc<Activity>| connections.admit(activity, 2);
        let (first, second, third) = (activity(), activity(), activity());
        first.set_known();
        let (_first, mut first_cut) = admit(&first).unwrap();
        let (second_place, mut second_cut) = admit(&second).unwrap();
        let (third_place, mut third_cut) = admit(&third).unwrap();
        let is_cut = |cut: &mut oneshot::Receiver<()>| {
            cut.try_recv() == Err(oneshot::error::TryRecvError::Closed)
        };
        assert!(!is_cut(&mut first_cut), "who is known stays");
        assert!(is_cut(&mut second_cut));
        assert!(!is_cut(&mut third_cut));
        // Its place is somebody else's by now.
        drop(second_place);
        third.set_known();
        assert!(admit(&activity()).is_none(), "all are known");
        drop(third_place);
        assert!(admit(&activity()).is_some());
    }

    #[test]
    fn quiet_ones_are_cut() {
        let connections = Arc::new(Connections::default());
        let activity = Arc::new(Activity::new());
        let (_place, mut cut) = connections.admit(&activity, 1).unwrap();
        let (none, hour) = (Duration::ZERO, Duration::from_secs(3600));
        let mut is_cut = || cut.try_recv() == Err(oneshot::error::TryRecvError::Closed);
        connections.cut_quiet(hour, none);
        assert!(!is_cut(), "it has time to show who it is");
        activity.set_known();
        activity.begin();
        std::thread::sleep(Duration::from_millis(5));
        connections.cut_quiet(none, Duration::from_millis(1));
        assert!(!is_cut(), "there is a call");
        activity.end();
        connections.cut_quiet(none, hour);
        assert!(!is_cut());
        connections.cut_quiet(hour, none);
        assert!(is_cut());

        let unknown = Arc::new(Activity::new());
        let (_place, mut cut) = connections.admit(&unknown, 1).unwrap();
        unknown.begin();
        connections.cut_quiet(none, hour);
        assert!(cut.try_recv() == Err(oneshot::error::TryRecvError::Closed));
    }
}
