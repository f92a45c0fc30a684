//! Attempts in vain make the next one wait, for an account and for an address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// How many accounts, and how many addresses, are remembered.
const CAPACITY: usize = 16_384;
/// Attempts that do not wait.
const FREE: u32 = 5;
/// After this long without an attempt nothing is held against anybody.
const FORGET: SignedDuration = SignedDuration::from_hours(1);

/// Counts attempts. An attempt counts from its start, so that many at once do not slip through; a success
/// takes back what its own account and address have against them.
///
/// An account never waits longer than a minute, so that nobody is kept out for long by somebody else's guesses; an
/// address (a /64 of IPv6) waits up to 15 minutes.
#[derive(Debug)]
pub(crate) struct Throttle {
    accounts: Mutex<Table<String>>,
    addresses: Mutex<Table<IpAddr>>,
}

#[derive(Debug)]
struct Table<K> {
    held: HashMap<K, Held>,
    longest: SignedDuration,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    attempts: u32,
    until: Timestamp,
    last: Timestamp,
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            accounts: Mutex::new(Table::new(SignedDuration::from_secs(60))),
            addresses: Mutex::new(Table::new(SignedDuration::from_mins(15))),
        }
    }
}

impl Throttle {
    /// Counts an attempt, or says how long to wait.
    pub(crate) fn begin(
        &self,
        account: &str,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<(), Duration> {
        let address = network(address);
        let mut addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let account = account.to_owned();
        let wait = addresses
            .wait(&address, now)
            .max(accounts.wait(&account, now));
        if !wait.is_zero() {
            return Err(wait);
        }
        addresses.count(address, now);
        accounts.count(account, now);
        Ok(())
    }

    /// The attempt was right.
    pub(crate) fn succeeded(&self, account: &str, address: IpAddr) {
        let mut addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        addresses.held.remove(&network(address));
        drop(addresses);
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.held.remove(account);
    }

    /// How many entries are held, of accounts and of addresses.
    #[cfg(test)]
    fn sizes(&self) -> (usize, usize) {
        let accounts = self.accounts.lock().unwrap().held.len();
        (accounts, self.addresses.lock().unwrap().held.len())
    }
}

/// What counts as one address.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !0 << 64).into(),
        v4 => v4,
    }
}

impl<K: Eq + std::hash::Hash + Clone> Table<K> {
    fn new(longest: SignedDuration) -> Self {
        let held = HashMap::new();
        Self { held, longest }
    }

    fn wait(&self, key: &K, now: Timestamp) -> Duration {
        let until = self.held.get(key).map_or(now, |held| held.until);
        Duration::try_from(until.duration_since(now)).unwrap_or_default()
    }

    fn count(&mut self, key: K, now: Timestamp) {
        self.make_room(&key, now);
        let held = self.held.entry(key).or_insert(Held {
            attempts: 0,
            until: now,
            last: now,
        });
        if now.duration_since(held.last) > FORGET {
            held.attempts = 0;
        }
        held.attempts = held.attempts.saturating_add(1);
        held.last = now;
        let doublings = held.attempts.saturating_sub(FREE);
        if doublings > 0 {
            let wait = SignedDuration::from_secs(1 << (doublings - 1).min(20));
            held.until = now + wait.min(self.longest);
        }
    }

    /// Forgets what is old, else whoever has waited longest.
    fn make_room(&mut self, key: &K, now: Timestamp) {
        if self.held.len() < CAPACITY || self.held.contains_key(key) {
            return;
        }
        self.held
            .retain(|_, held| now.duration_since(held.last) <= FORGET);
        if self.held.len() >= CAPACITY {
            let oldest = self
                .held
                .iter()
                .min_by_key(|(_, held)| (held.until, held.last));
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                self.held.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn waits_grow_by_account_and_by_address_and_end() {
        let throttle = Throttle::default();
        let here: IpAddr = "203.0.113.7".parse().unwrap();
        for _ in 0..FREE {
            throttle.begin("ann", here, at(0)).unwrap();
        }
        throttle.begin("ann", here, at(0)).unwrap();
        assert_eq!(
            throttle.begin("ann", here, at(0)),
            Err(Duration::from_secs(1))
        );
        // The address waits for other accounts too, and the account from other addresses.
        assert!(throttle.begin("bob", here, at(0)).is_err());
        assert!(
            throttle
                .begin("ann", "203.0.113.8".parse().unwrap(), at(0))
                .is_err()
        );
        let mut now = 1;
        for wait in [2, 4, 8, 16, 32, 60, 60] {
            throttle
                .begin("ann", "198.51.100.1".parse().unwrap(), at(now))
                .unwrap();
            let next = IpAddr::from([192, 0, 2, wait as u8]);
            assert_eq!(
                throttle.begin("ann", next, at(now)),
                Err(Duration::from_secs(wait))
            );
            now += 900;
        }
        throttle.begin("ann", here, at(now + 4_000)).unwrap();
        throttle.succeeded("ann", here);
        for _ in 0..FREE {
            throttle.begin("ann", here, at(now + 4_000)).unwrap();
        }
    }

    #[test]
    fn its_memory_is_bounded_and_a_slash_64_is_one_address() {
        let throttle = Throttle::default();
        for i in 0..CAPACITY as u32 + 50 {
            let address = IpAddr::from(i.to_be_bytes());
            throttle
                .begin(&format!("user-{i}"), address, at(0))
                .unwrap();
        }
        assert_eq!(throttle.sizes(), (CAPACITY, CAPACITY));
        let a = network("2001:db8::1".parse().unwrap());
        assert_eq!(a, network("2001:db8::ffff:1".parse().unwrap()));
        assert_ne!(a, network("2001:db8:0:1::1".parse().unwrap()));
        assert_eq!(
            network("::ffff:203.0.113.7".parse().unwrap()),
            IpAddr::from([203, 0, 113, 7])
        );
    }
}
