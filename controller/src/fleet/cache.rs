//! Things that are made once, however many ask for them at once, and kept as long as there is room.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

/// A cache bounded by weight. Who asks for what is being made waits for that.
pub(super) struct Cache<K, V: Clone> {
    inner: Mutex<Inner<K, V>>,
    most: usize,
    weigh: fn(&V) -> usize,
}

struct Inner<K, V: Clone> {
    slots: HashMap<K, Slot<V>>,
    weight: usize,
    clock: u64,
    made: u64,
}

struct Slot<V: Clone> {
    value: Shared<BoxFuture<'static, V>>,
    /// 0 while it is being made.
    weight: usize,
    used: u64,
}

impl<K: Eq + Hash + Clone, V: Clone + Send + Sync + 'static> Cache<K, V> {
    /// One that keeps values up to a weight; the newest stays whatever it weighs.
    pub(super) fn new(most: usize, weigh: fn(&V) -> usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                slots: HashMap::new(),
                weight: 0,
                clock: 0,
                made: 0,
            }),
            most,
            weigh,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K, V>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value, made by `make` if it is not there.
    pub(super) async fn get<F>(&self, key: K, make: impl FnOnce() -> F) -> V
    where
        F: Future<Output = V> + Send + 'static,
    {
        let value = {
            let mut inner = self.lock();
            inner.clock += 1;
            let clock = inner.clock;
            match inner.slots.get_mut(&key) {
                Some(slot) => {
                    slot.used = clock;
                    slot.value.clone()
                }
                None => {
                    inner.made += 1;
                    let value = make().boxed().shared();
                    let slot = Slot {
                        value: value.clone(),
                        weight: 0,
                        used: clock,
                    };
                    inner.slots.insert(key.clone(), slot);
                    value
                }
            }
        };
        let made = value.await;
        self.settle(&key, &made);
        made
    }

    fn settle(&self, key: &K, made: &V) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        match inner.slots.get_mut(key) {
            Some(slot) if slot.weight == 0 => slot.weight = (self.weigh)(made).max(1),
            _ => return,
        }
        inner.weight += inner.slots[key].weight;
        while inner.weight > self.most {
            let kept = inner
                .slots
                .iter()
                .filter(|(k, slot)| slot.weight > 0 && *k != key);
            let Some(oldest) = kept
                .min_by_key(|(_, slot)| slot.used)
                .map(|(k, _)| k.clone())
            else {
                return;
            };
            if let Some(slot) = inner.slots.remove(&oldest) {
                inner.weight -= slot.weight;
            }
        }
    }

    /// What is there already, whoever asked for it.
    #[cfg(test)]
    pub(super) fn ready(&self, key: &K) -> Option<V> {
        let inner = self.lock();
        inner.slots.get(key)?.value.peek().cloned()
    }

    /// How many were made.
    pub(super) fn made(&self) -> u64 {
        self.lock().made
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn ten_thousand_that_ask_at_once_cause_one_computation() {
        let cache = Arc::new(Cache::new(1 << 20, |_: &u64| 8));
        let asked = (0..10_000).map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move {
                let slow = || async {
                    tokio::task::yield_now().await;
                    7
                };
                cache.get("key", slow).await
            })
        });
        for answer in futures_util::future::join_all(asked).await {
            assert_eq!(answer.unwrap(), 7);
        }
        assert_eq!(cache.made(), 1);
    }

    #[tokio::test]
    async fn what_was_not_used_for_longest_goes() {
        let cache = Cache::new(20, |_: &u64| 8);
        for key in [1, 2, 1, 3] {
            cache.get(key, || async move { key }).await;
        }
        assert_eq!(cache.ready(&1), Some(1));
        assert_eq!(cache.ready(&2), None);
        assert_eq!(cache.ready(&3), Some(3));
    }
}
