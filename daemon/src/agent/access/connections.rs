//! The connections of one listener, of which there are only so many.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::peer::{Activity, Shown, Source};

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
    /// A place for one more of `most`, if need be that of another. Of those that have not shown who they
    /// are the oldest gives way of the source that has the most of these, so that nobody shuts out others by
    /// many connections. Viewers give way in the same way, if they have more than three quarters of the
    /// places or nobody else can: the others are for whoever has still to show that he is an admin, who
    /// never gives way; what calls have shown counts by the rules of this epoch. The second value resolves when the connection is to be cut.
    ///
    /// `None`: all who are there are admins.
    pub(super) fn admit(
        self: &Arc<Self>,
        source: Source,
        activity: &Arc<Activity>,
        most: usize,
        epoch: u64,
    ) -> Option<(Place, oneshot::Receiver<()>)> {
        let mut open = self.lock();
        while open.by_age.len() >= most {
            let number = open.to_give_way(most, epoch)?;
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
            .retain(|_, Entry { activity, .. }| match activity.shown(0) {
                Shown::Nobody => activity.age() < handshake,
                Shown::Viewer | Shown::Admin => activity.quiet_for() < idle,
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
    fn to_give_way(&self, most: usize, epoch: u64) -> Option<u64> {
        let have_shown = |shown| {
            let all = self.by_age.values();
            all.filter(|e| e.activity.shown(epoch) == shown).count()
        };
        let (nobodies, viewers) = (have_shown(Shown::Nobody), have_shown(Shown::Viewer));
        let viewers_first = nobodies == 0 || viewers > places_of_viewers(most);
        let shown = match viewers_first && viewers > 0 {
            true => Shown::Viewer,
            false => Shown::Nobody,
        };
        self.oldest_of_the_greediest(shown, epoch)
    }

    /// Of those who have shown this, the oldest of the source that has the most of them.
    fn oldest_of_the_greediest(&self, shown: Shown, epoch: u64) -> Option<u64> {
        let those = || {
            let all = self.by_age.iter();
            all.filter(|(_, e)| e.activity.shown(epoch) == shown)
        };
        let mut by_source: HashMap<Source, usize> = HashMap::new();
        for (_, entry) in those() {
            *by_source.entry(entry.source).or_default() += 1;
        }
        let most = *by_source.values().max()?;
        those()
            .find(|(_, entry)| by_source.get(&entry.source) == Some(&most))
            .map(|(number, _)| *number)
    }
}

/// How many of the places viewers can hold against those who are not known yet.
fn places_of_viewers(most: usize) -> usize {
    most - most.div_ceil(4)
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
    use crate::agent::access::Role;

    #[test]
    fn the_oldest_unknown_one_makes_room() {
        let connections = Arc::new(Connections::default());
        let activity = || Arc::new(Activity::new());
        let admit =
            |activity: &Arc<Activity>| connections.admit(Source::User(None), activity, 2, 0);
        let (first, second, third) = (activity(), activity(), activity());
        first.show(Role::Admin, 0);
        let (_first, mut first_cut) = admit(&first).unwrap();
        let (second_place, mut second_cut) = admit(&second).unwrap();
        let (third_place, mut third_cut) = admit(&third).unwrap();
        let is_cut = |cut: &mut oneshot::Receiver<()>| {
            cut.try_recv() == Err(oneshot::error::TryRecvError::Closed)
        };
        assert!(!is_cut(&mut first_cut), "an admin stays");
        assert!(is_cut(&mut second_cut));
        assert!(!is_cut(&mut third_cut));
        // Its place is somebody else's by now.
        drop(second_place);
        third.show(Role::Admin, 0);
        assert!(admit(&activity()).is_none(), "all are admins");
        drop(third_place);
        assert!(admit(&activity()).is_some());
    }

    #[test]
    fn who_has_many_gives_way_first() {
        let connections = Arc::new(Connections::default());
        let admit = |user: u32| {
            let admitted =
                connections.admit(Source::User(Some(user)), &Arc::new(Activity::new()), 8, 0);
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

    /// A viewer that takes all places, and goes on: an admin of the same source gets in and stays, and so does
    /// a viewer of another one.
    #[test]
    fn viewers_do_not_shut_out_admins() {
        const MOST: usize = 64;
        let connections = Arc::new(Connections::default());
        let admit = |user: u32| {
            let activity = Arc::new(Activity::new());
            let admitted = connections.admit(Source::User(Some(user)), &activity, MOST, 1);
            let (place, cut) = admitted.expect("somebody gives way");
            (activity, place, cut)
        };
        let cut = |cut: &mut oneshot::Receiver<()>| {
            cut.try_recv() == Err(oneshot::error::TryRecvError::Closed)
        };
        let mut other = admit(2);
        other.0.show(Role::Viewer, 0);
        let mut flood = Vec::new();
        let mut more = |role: Option<Role>, times: usize| {
            for _ in 0..times {
                let one = admit(1);
                if let Some(role) = role {
                    one.0.show(role, 1);
                }
                flood.push(one);
            }
        };
        more(Some(Role::Viewer), 3 * MOST);
        let mut admin = admit(1);
        // There are places left for those who are not known.
        more(None, MOST / 4 - 2);
        more(Some(Role::Viewer), MOST);
        assert!(!cut(&mut admin.2), "it had no time to show who it is");
        admin.0.show(Role::Admin, 1);
        more(Some(Role::Viewer), 3 * MOST);
        more(None, 3 * MOST);
        assert!(!cut(&mut admin.2), "an admin never gives way");
        assert!(!cut(&mut other.2), "another source had fewer");

        // Whose token was taken away has no place of an admin any more.
        admin.0.doubt();
        let mut by_other_rules = admit(1);
        by_other_rules.0.show(Role::Admin, 0);
        more(Some(Role::Admin), MOST);
        assert!(cut(&mut admin.2));
        assert!(cut(&mut by_other_rules.2));
        assert!(!cut(&mut flood.last_mut().expect("many").2));
    }

    #[test]
    fn quiet_ones_are_cut() {
        let connections = Arc::new(Connections::default());
        let activity = Arc::new(Activity::new());
        let (_place, mut cut) = connections
            .admit(Source::User(None), &activity, 1, 0)
            .unwrap();
        let (none, hour) = (Duration::ZERO, Duration::from_secs(3600));
        let mut is_cut = || cut.try_recv() == Err(oneshot::error::TryRecvError::Closed);
        connections.cut_quiet(hour, none);
        assert!(!is_cut(), "it has time to show who it is");
        activity.show(Role::Viewer, 0);
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
        let (_place, mut cut) = connections
            .admit(Source::User(None), &unknown, 1, 0)
            .unwrap();
        unknown.begin();
        connections.cut_quiet(none, hour);
        assert!(cut.try_recv() == Err(oneshot::error::TryRecvError::Closed));
    }
}
