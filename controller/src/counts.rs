//! How much each client has going on at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Held<K> = Arc<Mutex<HashMap<K, usize>>>;

/// Counts what each client has, and lets none have more than so many.
#[derive(Debug)]
pub(crate) struct Counts<K> {
    most: usize,
    held: Held<K>,
}

/// One of those, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted<K: Eq + Hash> {
    client: K,
    held: Held<K>,
}

impl<K: Eq + Hash + Clone> Counts<K> {
    pub(crate) fn new(most: usize) -> Self {
        let held = Held::default();
        Self { most, held }
    }

    /// One more, if the client may have it.
    pub(crate) fn enter(&self, client: K) -> Option<Counted<K>> {
        let mut held = lock(&self.held);
        let count = held.get(&client).copied().unwrap_or(0);
        if count >= self.most {
            return None;
        }
        held.insert(client.clone(), count + 1);
        Some(Counted {
            client,
            held: Arc::clone(&self.held),
        })
    }
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        if let Some(count) = held.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.client);
            }
        }
    }
}

fn lock<K>(held: &Held<K>) -> MutexGuard<'_, HashMap<K, usize>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_and_what_is_given_back_leaves_nothing() {
        let counts = Counts::new(2);
        let held = [counts.enter("a"), counts.enter("a"), counts.enter("b")];
        assert!(held.iter().all(Option::is_some));
        assert!(counts.enter("a").is_none());
        drop(held);
        assert!(lock(&counts.held).is_empty());
        assert!(counts.enter("a").is_some());
    }
}
