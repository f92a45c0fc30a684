//! Bans: prefixes that are dropped for some time, beside the policy.

use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::ban_table::{BanKey, BanTable, Found, Refused};
use super::error::BanError;
use super::firewall::{Firewall, lock};
use super::layout::BAN_LENGTHS;
use crate::policy::{Family, Prefix};

/// Which address of a packet a ban looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum BanScope {
    /// Packets from the prefix.
    #[default]
    Source,
    /// Packets to the prefix.
    Destination,
    /// Either. This is a short form for two bans, one of each scope.
    Both,
}

impl BanScope {
    /// The name used in output and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Both => "both",
        }
    }

    fn destinations(self) -> &'static [bool] {
        match self {
            Self::Source => &[false],
            Self::Destination => &[true],
            Self::Both => &[false, true],
        }
    }
}

/// A ban in force.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ban {
    /// What is banned.
    pub prefix: Prefix,
    /// In which direction; [`Firewall::bans`] lists [`BanScope::Both`] as two bans.
    pub scope: BanScope,
    /// Until when, by the wall clock as it is now, to a tick of the kernel (1 to 10 ms).
    pub expires: Timestamp,
    /// The packets that it decided. In dry run they passed all the same.
    pub packets: u64,
}

impl Firewall {
    /// Drops what comes from or goes to a prefix for some time, whatever the rules say: a ban
    /// overrides every rule, `pass` as well, and is overridden only by the policy's failsafe. Dry run
    /// lets banned packets pass and counts them as such.
    ///
    /// A ban is in force when the call returns, which takes microseconds, and expires in the kernel,
    /// with nothing running here: not before `ttl` has passed, and at most four ticks (of 1 to 10 ms)
    /// after. It stays over [`Firewall::apply`]. To ban again what is banned sets the time that is
    /// left to `ttl` and keeps the count. A `ttl` beyond some hundred years is cut to that.
    ///
    /// Before the first policy is applied all packets pass; bans made then are in force from its
    /// first packet on.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use xdpgate::{BanScope, Firewall};
    ///
    /// # let firewall = Firewall::loader().load()?;
    /// let ten_minutes = Duration::from_secs(600);
    /// firewall.ban("203.0.113.7".parse()?, BanScope::Source, ten_minutes)?;
    /// for ban in firewall.bans() {
    ///     println!("{} until {}: {} packets", ban.prefix, ban.expires, ban.packets);
    /// }
    /// firewall.unban("203.0.113.7".parse()?, BanScope::Source);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The prefix is a whole family ([`Firewall::ban_whole_family`] does that), there are as many bans
    /// as [`Loader::max_bans`](crate::Loader::max_bans) allows, or bans of eight other prefix lengths
    /// are in force for this family and direction. Then nothing changed.
    pub fn ban(&self, prefix: Prefix, scope: BanScope, ttl: Duration) -> Result<Ban, BanError> {
        if prefix.len() == 0 {
            return Err(BanError::WholeFamily { prefix });
        }
        self.ban_any(prefix, scope, ttl)
    }

    /// Bans every address of a family: only the policy's failsafe is left. It shuts this machine off
    /// from whoever manages it over the network, unless the failsafe lets them in.
    ///
    /// # Errors
    /// As for [`Firewall::ban`].
    pub fn ban_whole_family(
        &self,
        family: Family,
        scope: BanScope,
        ttl: Duration,
    ) -> Result<Ban, BanError> {
        let address = match family {
            Family::Ipv4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
            Family::Ipv6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let prefix = Prefix::new(address, 0).expect("an address without bits");
        self.ban_any(prefix, scope, ttl)
    }

    fn ban_any(&self, prefix: Prefix, scope: BanScope, ttl: Duration) -> Result<Ban, BanError> {
        let (mut bans, now) = self.lock_bans();
        let memory = self.backend.bans();
        let tick_ns = u128::from(self.backend.tick_ns());
        let ticks = u64::try_from(ttl.as_nanos().div_ceil(tick_ns)).unwrap_or(u64::MAX);
        let expires = now.saturating_add(ticks).saturating_add(MARGIN);
        let mut done: Vec<(Found, Option<Found>)> = Vec::new();
        for destination in scope.destinations() {
            let key = BanKey::new(prefix, *destination);
            let before = bans.get(memory, key, now);
            match bans.insert(memory, key, expires, now) {
                Ok(found) => done.push((found, before)),
                Err(refused) => {
                    for (found, before) in done {
                        match before {
                            // It has its place already, so this cannot fail.
                            Some(before) => {
                                drop(bans.insert(memory, before.key, before.expires, now))
                            }
                            None => drop(bans.remove(memory, found.key, now)),
                        }
                    }
                    return Err(self.refused(prefix, refused, &bans));
                }
            }
        }
        let made = done.iter().filter(|(_, before)| before.is_none()).count();
        let made_so_far = &self.core.telemetry.bans_made;
        made_so_far.fetch_add(made as u64, Ordering::Relaxed);
        Ok(Ban {
            prefix,
            scope,
            expires: self.wall_at(done[0].0.expires, now),
            packets: done.iter().map(|(found, _)| found.hits).sum(),
        })
    }

    /// Lifts a ban at once; returns whether there was one. Only the ban of exactly this prefix goes:
    /// an address may still be banned by another prefix that covers it. Of a prefix that is banned in
    /// both directions [`BanScope::Source`] lifts the one and leaves the other.
    pub fn unban(&self, prefix: Prefix, scope: BanScope) -> bool {
        let (mut bans, now) = self.lock_bans();
        let memory = self.backend.bans();
        let keys = scope.destinations().iter().map(|d| BanKey::new(prefix, *d));
        let lifted = keys.filter(|key| bans.remove(memory, *key, now).is_some());
        let lifted = lifted.count();
        self.count_lifted(lifted);
        lifted > 0
    }

    /// Lifts all bans; returns how many were in force, [`BanScope::Both`] counted as two.
    pub fn unban_all(&self) -> usize {
        let (mut bans, now) = self.lock_bans();
        let memory = self.backend.bans();
        let all = bans.all(memory, now);
        for found in &all {
            bans.remove(memory, found.key, now);
        }
        self.count_lifted(all.len());
        all.len()
    }

    /// For whoever holds the lock on bans.
    fn count_lifted(&self, bans: usize) {
        let lifted = &self.core.telemetry.bans_lifted;
        lifted.fetch_add(bans as u64, Ordering::Relaxed);
    }

    /// How many bans are in force, and were made and lifted by this process, at one moment.
    pub(super) fn count_bans(&self) -> (u64, u64, u64) {
        let (mut bans, now) = self.lock_bans();
        let in_force = bans.all(self.backend.bans(), now).len() as u64;
        let telemetry = &self.core.telemetry;
        let made = telemetry.bans_made.load(Ordering::Relaxed);
        (
            in_force,
            made,
            telemetry.bans_lifted.load(Ordering::Relaxed),
        )
    }

    /// The bans in force, by prefix and scope.
    pub fn bans(&self) -> Vec<Ban> {
        let (mut bans, now) = self.lock_bans();
        let found = bans.all(self.backend.bans(), now);
        drop(bans);
        let as_ban = |found: Found| Ban {
            prefix: found.key.prefix(),
            scope: match found.key.is_destination() {
                false => BanScope::Source,
                true => BanScope::Destination,
            },
            expires: self.wall_at(found.expires, now),
            packets: found.hits,
        };
        let mut bans: Vec<Ban> = found.into_iter().map(as_ban).collect();
        bans.sort_by_key(|ban| (ban.prefix, ban.scope));
        bans
    }

    fn lock_bans(&self) -> (MutexGuard<'_, BanTable>, u64) {
        let bans = lock(&self.bans);
        (bans, self.backend.ticks())
    }

    /// Wall time at a tick, as it looks now.
    fn wall_at(&self, tick: u64, now: u64) -> Timestamp {
        let ticks = u128::from(tick.saturating_sub(now));
        let nanoseconds = ticks * u128::from(self.backend.tick_ns());
        let seconds = i64::try_from(nanoseconds / 1_000_000_000).unwrap_or(i64::MAX);
        let left = SignedDuration::new(seconds, (nanoseconds % 1_000_000_000) as i32);
        Timestamp::now()
            .saturating_add(left)
            .unwrap_or(Timestamp::MAX)
    }

    fn refused(&self, prefix: Prefix, refused: Refused, bans: &BanTable) -> BanError {
        let limit = bans.limit();
        match refused {
            Refused::Full { count } => BanError::Full {
                prefix,
                count,
                limit,
                knob: "max_bans",
            },
            Refused::Lengths { in_use } => {
                let width = Prefix::host(prefix.addr()).len();
                BanError::Lengths {
                    prefix,
                    in_use: in_use.iter().rev().map(|bits| width - bits).collect(),
                    limit: BAN_LENGTHS,
                }
            }
        }
    }
}

/// Ticks that a ban lasts beyond its time: one because the first is under way, one because the
/// reading may be one behind. A ban never ends early.
const MARGIN: u64 = 2;
