//! The connections of one listener, of which there are only so many.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::peer::{Activity, Source};

/// The connections that are open, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Mutex<Open>,
    /// Told when a place is given back.
    gone: Notify,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    /// Those that are in the table, and those that were cut and are not closed yet.
    places: usize,
    by_age: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    source: Source,
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
    /// A place for one more, if need be that of another that has not shown who it is: the oldest of the
    /// source that has the most of these, so that nobody shuts out others by many connections. The second
    /// value resolves when the connection is to be cut.
    ///
    /// `None`: all who are there have shown who they are.
    pub(super) fn admit(
        self: &Arc<Self>,
        source: Source,
        activity: &Arc<Activity>,
        most: usize,
    ) -> Option<(Place, oneshot::Receiver<()>)> {
        let mut open = self.lock();
        while open.by_age.len() >= most {
            let number = open.to_give_way()?;
            open.by_age.remove(&number);
        }
        let (cut, is_cut) = oneshot::channel();
        let number = open.next;
        open.next += 1;
        open.places += 1;
        let activity = Arc::clone(activity);
        open.by_age.insert(
            number,
            Entry {
                source,
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

    /// Waits while more that were cut are not closed yet than a few: they have files as well.
    pub(super) async fn settle(&self, most: usize) {
        // It must go on even if one of them does not end.
        let settled = async {
            while self.lock().places > most + UNSETTLED {
                self.gone.notified().await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(100), settled).await;
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn to_give_way(&self) -> Option<u64> {
        let unknown = || self.by_age.iter().filter(|(_, e)| !e.activity.is_known());
        let mut by_source: HashMap<Source, usize> = HashMap::new();
        for (_, entry) in unknown() {
            *by_source.entry(entry.source).or_default() += 1;
        }
        let most = *by_source.values().max()?;
        unknown()
            .find(|(_, entry)| by_source.get(&entry.source) == Some(&most))
            .map(|(number, _)| *number)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.lock();
        open.by_age.remove(&self.number);
        open.places -= 1;
        drop(open);
        self.connections.gone.notify_one();
    }
}

const UNSETTLED: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_unknown_one_makes_room() {
        let connections = Arc::new(Connections::default());
        let activity = || Arc::new(Activity::new());
        let admit = |activity: &Arc<Activity>| connections.admit(Source::User(None), activity, 2);
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
    fn who_has_many_gives_way_first() {
        let connections = Arc::new(Connections::default());
        let admit = |user: u32| {
            let admitted =
                connections.admit(Source::User(Some(user)), &Arc::new(Activity::new()), 8);
            admitted.expect("somebody gives way")
        };
        let mut single = admit(1);
        let flood: Vec<_> = (0..100).map(|_| admit(2)).collect();
        let cut = |(_, cut): &mut (Place, oneshot::Receiver<()>)| {
            cut.try_recv() == Err(oneshot::error::TryRecvError::Closed)
        };
        assert!(!cut(&mut single));
        let left = flood
            .into_iter()
            .filter_map(|mut place| (!cut(&mut place)).then_some(place));
        assert_eq!(left.count(), 7);
    }

    #[test]
    fn quiet_ones_are_cut() {
        let connections = Arc::new(Connections::default());
        let activity = Arc::new(Activity::new());
        let (_place, mut cut) = connections.admit(Source::User(None), &activity, 1).unwrap();
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
        let (_place, mut cut) = connections.admit(Source::User(None), &unknown, 1).unwrap();
        unknown.begin();
        connections.cut_quiet(none, hour);
        assert!(cut.try_recv() == Err(oneshot::error::TryRecvError::Closed));
    }
}
