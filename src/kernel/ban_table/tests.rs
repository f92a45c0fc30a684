use std::cell::RefCell;
use std::collections::BTreeMap;

use super::*;

const SEED: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

/// A table in memory of this process.
struct Bans {
    table: Vec<AtomicU64>,
    lengths: [AtomicU64; BAN_KINDS],
    writer: BanTable,
}

impl Bans {
    fn new(limit: u32) -> Self {
        Self::with_seed(limit, SEED)
    }

    fn with_seed(limit: u32, seed: [u64; 2]) -> Self {
        let words = lines(limit) as usize * BAN_SLOTS * WORDS;
        Self {
            table: (0..words).map(|_| AtomicU64::new(0)).collect(),
            lengths: Default::default(),
            writer: BanTable::new(limit, seed),
        }
    }

    fn split(&mut self) -> (BanMemory<'_>, &mut BanTable) {
        let memory = BanMemory {
            table: &self.table,
            lengths: &self.lengths,
        };
        (memory, &mut self.writer)
    }

    fn ban(&mut self, prefix: &str, expires: u64, now: u64) -> Result<Found, Refused> {
        let (memory, writer) = self.split();
        writer.insert(memory, key(prefix), expires, now)
    }

    fn drops(&mut self, address: &str, now: u64) -> bool {
        is_banned(self.split().0, SEED, address.parse().unwrap(), false, now)
    }

    /// Every count is that of the table, and every key is where a reader looks for it.
    fn check(&mut self) {
        let (memory, writer) = self.split();
        let (mut count, mut elsewhere) = (0, HashMap::<u32, u32>::new());
        let mut lengths: [HashMap<u8, u32>; BAN_KINDS] = Default::default();
        for place in writer.places() {
            let Some(found) = memory.read(place) else {
                continue;
            };
            let (home, other) = writer.home_and_other(found.key);
            assert!([home, other].contains(&place.0));
            count += 1;
            *lengths[found.key.kind]
                .entry(found.key.host_bits)
                .or_default() += 1;
            if place.0 != home {
                *elsewhere.entry(home).or_default() += 1;
            }
        }
        assert_eq!(
            (count, &lengths, &elsewhere),
            (writer.count, &writer.lengths, &writer.elsewhere)
        );
        for line in 0..writer.lines {
            let marked = memory.state((line, 0)) & BAN_ELSEWHERE != 0;
            assert_eq!(marked, elsewhere.contains_key(&line), "line {line}");
        }
    }
}

fn key(prefix: &str) -> BanKey {
    BanKey::new(prefix.parse().unwrap(), false)
}

fn host(number: u32) -> BanKey {
    BanKey::new(Prefix::host(Ipv4Addr::from_bits(number).into()), false)
}

#[test]
fn a_key_is_its_prefix() {
    for text in [
        "203.0.113.7",
        "203.0.113.0/24",
        "0.0.0.0/0",
        "2001:db8::1",
        "2001:db8::/33",
        "::/0",
    ] {
        for destination in [false, true] {
            let prefix: Prefix = text.parse().unwrap();
            let key = BanKey::new(prefix, destination);
            assert_eq!((key.prefix(), key.is_destination()), (prefix, destination));
        }
    }
}

#[test]
fn a_ban_holds_until_its_tick_and_not_for_others() {
    let mut bans = Bans::new(100);
    bans.ban("203.0.113.7", 1000, 10).unwrap();
    bans.ban("2001:db8::/33", 500, 10).unwrap();
    assert!(bans.drops("203.0.113.7", 10) && bans.drops("203.0.113.7", 999));
    assert!(!bans.drops("203.0.113.7", 1000));
    assert!(!bans.drops("203.0.113.6", 10));
    assert!(bans.drops("2001:db8:7fff::1", 499) && !bans.drops("2001:db8:8000::1", 499));
    assert!(!bans.drops("2001:db8:7fff::1", 500));
    // The low half of the IPv6 address is that of the IPv4 one.
    bans.ban("::cb00:7108", 1000, 10).unwrap();
    assert!(!bans.drops("203.0.113.8", 10) && bans.drops("::cb00:7108", 10));
    let (memory, _) = bans.split();
    let to = |destination| {
        is_banned(
            memory,
            SEED,
            "203.0.113.7".parse().unwrap(),
            destination,
            10,
        )
    };
    assert_eq!((to(false), to(true)), (true, false));
}

#[test]
fn a_ban_of_the_same_prefix_changes_its_time_and_keeps_its_hits() {
    let mut bans = Bans::new(100);
    bans.ban("203.0.113.7", 1000, 10).unwrap();
    let (memory, writer) = bans.split();
    let place = writer.find(memory, key("203.0.113.7")).unwrap();
    memory.word(place, HITS).store(5, Ordering::SeqCst);
    let version = memory.state(place) & BAN_VERSION_MASK;
    assert_eq!(bans.ban("203.0.113.7", 50, 10).unwrap().hits, 5);
    assert!(!bans.drops("203.0.113.7", 50));
    assert_eq!(
        bans.ban("203.0.113.7", 90, 51).unwrap().hits,
        5,
        "hardly over"
    );
    assert_eq!(
        bans.ban("203.0.113.7", 200, 150).unwrap().hits,
        0,
        "another ban"
    );
    let (memory, writer) = bans.split();
    assert_eq!(memory.state(place) & BAN_VERSION_MASK, version);
    assert_eq!((writer.count, writer.all(memory, 0).len()), (1, 1));
    assert_eq!(
        bans.ban("203.0.113.7", u64::MAX, 150).unwrap().expires,
        LAST_TICK
    );
    assert!(bans.drops("203.0.113.7", LAST_TICK - 1));
}

#[test]
fn lengths_are_few_and_given_back() {
    let mut bans = Bans::new(100);
    for length in 17..25 {
        bans.ban(&format!("10.0.0.0/{length}"), 100 + length, 10)
            .unwrap();
    }
    let refused = bans.ban("10.0.0.0/16", 1000, 10);
    assert_eq!(
        refused,
        Err(Refused::Lengths {
            in_use: (8..16).collect()
        })
    );
    bans.ban("10.1.0.0/24", 1000, 10).unwrap();
    bans.ban("2001:db8::/32", 1000, 10).unwrap();
    let (memory, writer) = bans.split();
    let to = BanKey::new("10.0.0.0/16".parse().unwrap(), true);
    writer.insert(memory, to, 1000, 10).unwrap();
    // /17 is over at 117, and nobody asks before its place is needed.
    bans.ban("10.0.0.0/16", 1000, 117 + SLACK).unwrap();
    assert!(!bans.drops("10.0.127.1", 5000) && bans.drops("10.0.127.1", 118));
    bans.check();
    let (memory, writer) = bans.split();
    writer.sweep(memory, u64::MAX);
    assert!(
        bans.lengths
            .iter()
            .all(|word| word.load(Ordering::SeqCst) == 0)
    );
}

#[test]
fn a_table_holds_as_many_as_it_says() {
    // Smallest tables are crowded soonest, if the seed is unlucky.
    for limit in [1, 2, 5, 20, 50, 100] {
        for seed in 1..300u64 {
            let mut bans = Bans::with_seed(limit, [seed.wrapping_mul(SEED[0]), SEED[1]]);
            let (memory, writer) = bans.split();
            for number in 0..limit {
                writer.insert(memory, host(number), 100, 10).unwrap();
            }
        }
    }
    for limit in [1, 2, 5, 100, 1000, 65_536] {
        let mut bans = Bans::new(limit);
        let (memory, writer) = bans.split();
        for number in 0..limit {
            writer.insert(memory, host(number), 100, 10).unwrap();
        }
        let refused = writer.insert(memory, host(limit), 200, 10);
        assert_eq!(refused, Err(Refused::Full { count: limit }));
        let moved: u32 = writer.elsewhere.values().sum();
        println!("{limit}: {moved} elsewhere");
        for number in 0..limit {
            let address = Ipv4Addr::from_bits(number).into();
            assert!(is_banned(memory, SEED, address, false, 99), "{number}");
        }
        // All are over: room for others.
        for number in limit..2 * limit {
            writer
                .insert(memory, host(number), 300, 100 + SLACK)
                .unwrap();
        }
        assert_eq!(writer.all(memory, 110).len(), limit as usize);
        bans.check();
    }
    let mut none = Bans::new(0);
    assert_eq!(
        none.ban("10.0.0.1", 100, 10),
        Err(Refused::Full { count: 0 })
    );
    let (memory, writer) = none.split();
    assert_eq!(writer.remove(memory, key("10.0.0.1"), 10), None);
}

/// A generator of numbers that is the same everywhere (Marsaglia's xorshift).
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn any_sequence_is_that_of_a_map() {
    let mut bans = Bans::new(60);
    let (mut model, mut state) = (BTreeMap::<u32, u64>::new(), 1);
    for now in 100..20_000 {
        let number = (next(&mut state) % 90) as u32;
        let (memory, writer) = bans.split();
        model.retain(|_, expires| *expires + SLACK > now);
        if next(&mut state).is_multiple_of(3) {
            let was = model.remove(&number).is_some_and(|expires| expires > now);
            assert_eq!(writer.remove(memory, host(number), now).is_some(), was);
        } else {
            let expires = now + next(&mut state) % 200;
            match writer.insert(memory, host(number), expires, now) {
                Ok(_) => drop(model.insert(number, expires)),
                Err(_) => assert!(model.len() >= 60 && !model.contains_key(&number)),
            }
        }
        for number in 0..90 {
            let address = Ipv4Addr::from_bits(number).into();
            let banned = model.get(&number).is_some_and(|expires| *expires > now);
            assert_eq!(is_banned(memory, SEED, address, false, now), banned);
        }
        if now.is_multiple_of(100) {
            bans.check();
        }
    }
}

/// What happens at the loads and stores of this thread.
#[derive(Default)]
struct Steps {
    /// The stores of the writer: the address of a word and its value.
    written: Option<Vec<(usize, u64)>>,
    /// How far the stores have come before which load of a reader, both counted from 0.
    schedule: Vec<(usize, usize)>,
    loads: usize,
    replayed: usize,
    log: Vec<(usize, u64)>,
}

thread_local! {
    static STEPS: RefCell<Steps> = RefCell::default();
}

pub(super) fn after_store(word: &AtomicU64, value: u64) {
    STEPS.with_borrow_mut(|steps| {
        if let Some(written) = &mut steps.written {
            written.push((std::ptr::from_ref(word).addr(), value));
        }
    });
}

pub(super) fn before_load(memory: &BanMemory<'_>) {
    STEPS.with_borrow_mut(|steps| {
        let load = steps.loads;
        steps.loads += 1;
        while let Some((_, upto)) = steps
            .schedule
            .first()
            .filter(|(at, _)| *at == load)
            .copied()
        {
            steps.schedule.remove(0);
            for (address, value) in &steps.log[steps.replayed..upto] {
                let words = memory.table.iter().chain(memory.lengths);
                let mut same = words.filter(|word| std::ptr::from_ref(*word).addr() == *address);
                same.next().expect("a word").store(*value, Ordering::SeqCst);
            }
            steps.replayed = upto;
        }
    });
}

/// Every way in which two groups of the writer's stores can fall between the loads of a lookup, for
/// every operation on a crowded table: what is banned before and after is found, what is banned
/// neither before nor after is not. The keys are such that halves of two of them are a third.
#[test]
fn a_reader_misses_no_ban_and_invents_none() {
    let universe: Vec<BanKey> = (0..24u128)
        .map(|n| {
            let address = (n / 4) << 64 | (n % 4);
            BanKey::new(Prefix::host(Ipv6Addr::from_bits(address).into()), false)
        })
        .collect();
    let mut bans = Bans::new(12);
    bans.writer.lines = 7;
    bans.table.truncate(7 * BAN_SLOTS * WORDS);
    let (memory, writer) = bans.split();
    let found = |key: &BanKey| is_banned(memory, SEED, key.prefix().addr(), false, 20);
    let words = || memory.table.iter().chain(memory.lengths);
    let (mut state, mut moves, mut lookups) = (3, 0, 0u64);
    for turn in 0..120 {
        let key = universe[next(&mut state) as usize % universe.len()];
        let before: Vec<u64> = words().map(|w| w.load(Ordering::SeqCst)).collect();
        let banned_before: Vec<bool> = universe.iter().map(found).collect();
        let homes = writer.elsewhere.clone();
        STEPS.with_borrow_mut(|steps| steps.written = Some(Vec::new()));
        if next(&mut state).is_multiple_of(3) {
            writer.remove(memory, key, 20);
        } else {
            // Now and then there is no room in a table this full.
            let _ = writer.insert(memory, key, 100 + turn, 20);
            moves += usize::from(writer.elsewhere != homes);
        }
        let log = STEPS.take().written.expect("recorded");
        let after: Vec<u64> = words().map(|w| w.load(Ordering::SeqCst)).collect();
        let banned_after: Vec<bool> = universe.iter().map(found).collect();

        for (number, key) in universe.iter().enumerate() {
            if banned_before[number] != banned_after[number] {
                continue;
            }
            // A lookup of one length loads at most 14 words.
            let schedules =
                (0..14).flat_map(|first| (first..14).map(move |second| (first, second)));
            for (first, second) in schedules {
                for some in 0..=log.len() {
                    for (word, value) in words().zip(&before) {
                        word.store(*value, Ordering::SeqCst);
                    }
                    STEPS.set(Steps {
                        schedule: vec![(first, some), (second, log.len())],
                        log: log.clone(),
                        ..Steps::default()
                    });
                    let banned = found(key);
                    STEPS.take();
                    lookups += 1;
                    assert_eq!(
                        banned, banned_before[number],
                        "{key:?}: {first} {some} {second}"
                    );
                }
            }
        }
        for (word, value) in words().zip(&after) {
            word.store(*value, Ordering::SeqCst);
        }
    }
    println!("{moves} operations moved keys, {lookups} lookups");
    assert!(moves > 5);
    bans.check();
}

/// Whoever writes may be killed after any store. The next process counts what is there, and finds
/// every ban that was not just being made or lifted.
#[test]
fn what_was_cut_off_is_recovered() {
    let mut bans = Bans::new(12);
    bans.writer.lines = 7;
    bans.table.truncate(7 * BAN_SLOTS * WORDS);
    let empty = || {
        let mut table = BanTable::new(12, SEED);
        table.lines = 7;
        table
    };
    let (mut state, mut cut_off, mut moves) = (7, 0, 0);
    for turn in 0..400 {
        let (memory, writer) = bans.split();
        let words = || memory.table.iter().chain(memory.lengths);
        let found = |number: &u32| {
            let address = Ipv4Addr::from_bits(*number).into();
            is_banned(memory, SEED, address, false, 20)
        };
        let all: Vec<u32> = (0..20).collect();
        let before: Vec<u64> = words().map(|w| w.load(Ordering::SeqCst)).collect();
        let banned_before: Vec<bool> = all.iter().map(found).collect();
        let homes = writer.elsewhere.clone();
        let key = host((next(&mut state) % 20) as u32);
        STEPS.with_borrow_mut(|steps| steps.written = Some(Vec::new()));
        if next(&mut state).is_multiple_of(3) {
            writer.remove(memory, key, 20);
        } else {
            let _ = writer.insert(memory, key, 100 + turn, 20);
        }
        moves += usize::from(writer.elsewhere != homes);
        let log = STEPS.take().written.expect("recorded");
        let after: Vec<u64> = words().map(|w| w.load(Ordering::SeqCst)).collect();
        let banned_after: Vec<bool> = all.iter().map(found).collect();
        for some in 0..=log.len() {
            for (word, value) in words().zip(&before) {
                word.store(*value, Ordering::SeqCst);
            }
            for (address, value) in &log[..some] {
                let mut same = words().filter(|w| std::ptr::from_ref(*w).addr() == *address);
                same.next().expect("a word").store(*value, Ordering::SeqCst);
            }
            let mut recovered = empty().recovered(memory);
            for (place, number) in all.iter().enumerate() {
                if banned_before[place] == banned_after[place] {
                    assert_eq!(found(number), banned_before[place], "{number} at {some}");
                }
            }
            let _ = recovered.insert(memory, host(99), 100, 20);
            cut_off += 1;
        }
        for (word, value) in words().zip(&after) {
            word.store(*value, Ordering::SeqCst);
        }
    }
    println!("{cut_off} cuts, {moves} operations moved keys");
    assert!(moves > 5);
    bans.writer = empty().recovered(bans.split().0);
    bans.check();
}
