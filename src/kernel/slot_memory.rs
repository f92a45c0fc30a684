//! Which rule and which interface counts in which slot, kept where the counters are kept.
//!
//! Counters are numbers without names. A process that takes over the pins of one that is gone must
//! know whose they are, so the names stand in a map beside them, which the data path never sees.
//!
//! Whoever writes may be killed between any two stores. So a record is taken out of use, written,
//! and put into use again; and the record of a slot is written before the data path counts in it,
//! and freed when it no longer does.

use std::sync::atomic::{AtomicU64, Ordering};

use super::backend::VerdictCounters;
use super::ifindex::IfIndex;
use super::layout::{COUNTERS_PER_INTERFACE, RuleCounter, VerdictCounter};
use crate::policy::RuleId;

/// The words, and how many slots they describe.
#[derive(Debug, Clone, Copy)]
pub(super) struct SlotMemory<'m> {
    pub words: &'m [AtomicU64],
    pub rules: u32,
    pub interfaces: u16,
}

/// Who counts in an interface slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InterfaceRecord {
    pub ifindex: IfIndex,
    pub name: String,
    /// Its place in the table from number to slot.
    pub position: u32,
    pub baseline: VerdictCounters,
    /// `INTERFACE_PORT` and the like.
    pub flags: u16,
    /// Whether auto-attach attached it.
    pub automatic: bool,
    /// The number of the mode that was asked for.
    pub requested: u8,
}

/// What a rule slot was used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RuleRecord {
    Unused,
    /// By a rule that is gone.
    Rests,
    /// By a rule, and what was counted there before.
    Taken(RuleId, RuleCounter),
}

/// The version of what stands here. Another one is not understood.
pub(super) const VERSION: u32 = 1;

const HEADER_WORDS: usize = 16;
const GENERATION: usize = 0;
/// Twice: a generation and the hash of its policy.
const POLICIES: usize = 1;
const HASH_WORDS: usize = 4;

const RULE_WORDS: usize = 16;
const RULE_ID: usize = 1;
const RULE_ID_WORDS: usize = 8;
const RULE_BASELINE: usize = RULE_ID + RULE_ID_WORDS;

const INTERFACE_WORDS: usize = 8 + 2 * COUNTERS_PER_INTERFACE;
const INTERFACE_NUMBER: usize = 1;
const INTERFACE_NAME: usize = 2;
const INTERFACE_NAME_WORDS: usize = 2;
const INTERFACE_AUTOMATIC: usize = INTERFACE_NAME + INTERFACE_NAME_WORDS;
const INTERFACE_FLAGS: usize = INTERFACE_AUTOMATIC + 1;
const INTERFACE_REQUESTED: usize = INTERFACE_FLAGS + 1;
const INTERFACE_BASELINE: usize = 8;

const UNUSED: u64 = 0;
const TAKEN: u64 = 1;
const RESTS: u64 = 2;

/// How many words there must be.
pub(super) fn words(rules: u32, interfaces: u16) -> usize {
    HEADER_WORDS + rules as usize * RULE_WORDS + (usize::from(interfaces) + 1) * INTERFACE_WORDS
}

impl SlotMemory<'_> {
    /// The number of the last generation that was about to be put in force.
    pub(super) fn generation(&self) -> u64 {
        self.words[GENERATION].load(Ordering::SeqCst)
    }

    /// To be called before a generation is put in force in place of another one, whose hash stays; if
    /// that is not known it was the last one.
    pub(super) fn announce(&self, generation: u64, policy: [u8; 32], in_force: Option<u64>) {
        let in_force = in_force.or(Some(self.generation())).filter(|g| *g != 0);
        let mut places = self.policies();
        let is_free = |words: &&[AtomicU64]| {
            let there = words[0].load(Ordering::SeqCst);
            Some(there) != in_force
        };
        let words = places.find(is_free).expect("there are two places");
        words[0].store(0, Ordering::SeqCst);
        store_bytes(&words[1..], &policy);
        words[0].store(generation, Ordering::SeqCst);
        self.words[GENERATION].store(generation, Ordering::SeqCst);
    }

    /// The hash of the policy of the generation in force, or that was announced last.
    pub(super) fn policy(&self, generation: u64) -> Option<[u8; 32]> {
        let mut places = self.policies();
        let words = places.find(|w| w[0].load(Ordering::SeqCst) == generation)?;
        let bytes = load_bytes(&words[1..]);
        bytes.try_into().ok().filter(|_| generation != 0)
    }

    fn policies(&self) -> impl Iterator<Item = &[AtomicU64]> {
        self.words[POLICIES..].chunks(1 + HASH_WORDS).take(2)
    }

    pub(super) fn rule(&self, slot: u32) -> RuleRecord {
        let words = self.rule_words(slot);
        match words[0].load(Ordering::SeqCst) {
            UNUSED => RuleRecord::Unused,
            TAKEN => {
                let baseline = |i: usize| words[RULE_BASELINE + i].load(Ordering::SeqCst);
                let id = text(&words[RULE_ID..][..RULE_ID_WORDS]);
                let taken = |id| {
                    RuleRecord::Taken(
                        id,
                        RuleCounter {
                            packets: baseline(0),
                            bytes: baseline(1),
                            dropped_packets: baseline(2),
                            would_drop_packets: baseline(3),
                        },
                    )
                };
                RuleId::new(&id).map_or(RuleRecord::Rests, taken)
            }
            _ => RuleRecord::Rests,
        }
    }

    pub(super) fn take_rule(&self, slot: u32, id: &RuleId, baseline: RuleCounter) {
        let words = self.rule_words(slot);
        words[0].store(RESTS, Ordering::SeqCst);
        store_bytes(&words[RULE_ID..][..RULE_ID_WORDS], id.as_str().as_bytes());
        let numbers = [
            baseline.packets,
            baseline.bytes,
            baseline.dropped_packets,
            baseline.would_drop_packets,
        ];
        for (word, number) in words[RULE_BASELINE..].iter().zip(numbers) {
            word.store(number, Ordering::SeqCst);
        }
        words[0].store(TAKEN, Ordering::SeqCst);
    }

    pub(super) fn free_rule(&self, slot: u32) {
        self.rule_words(slot)[0].store(RESTS, Ordering::SeqCst);
    }

    pub(super) fn interface(&self, slot: u16) -> Option<InterfaceRecord> {
        let words = self.interface_words(slot);
        if words[0].load(Ordering::SeqCst) != TAKEN {
            return None;
        }
        let number = words[INTERFACE_NUMBER].load(Ordering::SeqCst);
        let mut baseline = [VerdictCounter::default(); COUNTERS_PER_INTERFACE];
        let pairs = words[INTERFACE_BASELINE..].chunks_exact(2);
        for (counter, pair) in baseline.iter_mut().zip(pairs) {
            counter.packets = pair[0].load(Ordering::SeqCst);
            counter.bytes = pair[1].load(Ordering::SeqCst);
        }
        Some(InterfaceRecord {
            ifindex: IfIndex::new(number as u32)?,
            name: text(&words[INTERFACE_NAME..][..INTERFACE_NAME_WORDS]),
            position: (number >> 32) as u32,
            baseline,
            flags: words[INTERFACE_FLAGS].load(Ordering::SeqCst) as u16,
            automatic: words[INTERFACE_AUTOMATIC].load(Ordering::SeqCst) != 0,
            requested: words[INTERFACE_REQUESTED].load(Ordering::SeqCst) as u8,
        })
    }

    /// Changes what may change while an interface is in its slot, by a store each.
    pub(super) fn mark_interface(&self, slot: u16, flags: u16, automatic: bool, requested: u8) {
        let words = self.interface_words(slot);
        words[INTERFACE_FLAGS].store(flags.into(), Ordering::SeqCst);
        words[INTERFACE_AUTOMATIC].store(automatic.into(), Ordering::SeqCst);
        words[INTERFACE_REQUESTED].store(requested.into(), Ordering::SeqCst);
    }

    pub(super) fn set_interface(&self, slot: u16, record: Option<&InterfaceRecord>) {
        let words = self.interface_words(slot);
        words[0].store(UNUSED, Ordering::SeqCst);
        let Some(record) = record else { return };
        let number = u64::from(record.position) << 32 | u64::from(record.ifindex.get());
        words[INTERFACE_NUMBER].store(number, Ordering::SeqCst);
        let name = &words[INTERFACE_NAME..][..INTERFACE_NAME_WORDS];
        store_bytes(name, record.name.as_bytes());
        self.mark_interface(slot, record.flags, record.automatic, record.requested);
        let pairs = words[INTERFACE_BASELINE..].chunks_exact(2);
        for (counter, pair) in record.baseline.iter().zip(pairs) {
            pair[0].store(counter.packets, Ordering::SeqCst);
            pair[1].store(counter.bytes, Ordering::SeqCst);
        }
        words[0].store(TAKEN, Ordering::SeqCst);
    }

    fn rule_words(&self, slot: u32) -> &[AtomicU64] {
        &self.words[HEADER_WORDS + slot as usize * RULE_WORDS..][..RULE_WORDS]
    }

    fn interface_words(&self, slot: u16) -> &[AtomicU64] {
        let first = HEADER_WORDS + self.rules as usize * RULE_WORDS;
        &self.words[first + usize::from(slot) * INTERFACE_WORDS..][..INTERFACE_WORDS]
    }
}

/// Fills the words with bytes, and the rest with zeros.
fn store_bytes(words: &[AtomicU64], bytes: &[u8]) {
    let mut chunks = bytes.chunks(size_of::<u64>());
    for word in words {
        let mut value = [0; size_of::<u64>()];
        let chunk = chunks.next().unwrap_or_default();
        value[..chunk.len()].copy_from_slice(chunk);
        word.store(u64::from_ne_bytes(value), Ordering::SeqCst);
    }
}

fn load_bytes(words: &[AtomicU64]) -> Vec<u8> {
    let bytes = words.iter().map(|w| w.load(Ordering::SeqCst).to_ne_bytes());
    bytes.flatten().collect()
}

/// The text that the words hold, up to the first zero.
fn text(words: &[AtomicU64]) -> String {
    let bytes = load_bytes(words);
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(words: &[AtomicU64]) -> SlotMemory<'_> {
        SlotMemory {
            words,
            rules: 3,
            interfaces: 2,
        }
    }

    #[test]
    fn what_was_written_is_read_back() {
        let words: Vec<AtomicU64> = (0..words(3, 2)).map(|_| AtomicU64::new(0)).collect();
        let memory = memory(&words);
        assert_eq!((memory.generation(), memory.policy(0)), (0, None));
        for generation in 1..=3u64 {
            memory.announce(
                generation,
                [generation as u8; 32],
                generation.checked_sub(1),
            );
        }
        assert_eq!(memory.generation(), 3);
        assert_eq!(memory.policy(3), Some([3; 32]));
        assert_eq!(memory.policy(2), Some([2; 32]));
        assert_eq!(memory.policy(1), None);
        // Refused ones do not push out the one in force.
        for generation in 4..=6 {
            memory.announce(generation, [generation as u8; 32], Some(3));
        }
        assert_eq!(
            (memory.policy(3), memory.policy(6)),
            (Some([3; 32]), Some([6; 32]))
        );
        assert_eq!((memory.policy(5), memory.policy(0)), (None, None));

        let id = RuleId::new(&"r".repeat(64)).unwrap();
        let baseline = RuleCounter {
            packets: 1,
            bytes: 2,
            dropped_packets: 3,
            would_drop_packets: u64::MAX,
        };
        memory.take_rule(2, &id, baseline);
        memory.free_rule(0);
        let rules = [0, 1, 2].map(|slot| memory.rule(slot));
        let taken = RuleRecord::Taken(id, baseline);
        assert_eq!(rules, [RuleRecord::Rests, RuleRecord::Unused, taken]);

        let mut record = InterfaceRecord {
            ifindex: IfIndex::new(u32::MAX).unwrap(),
            name: "abcdefghijklmno".to_owned(),
            position: 4095,
            baseline: [VerdictCounter::default(); COUNTERS_PER_INTERFACE],
            flags: 3,
            automatic: true,
            requested: 3,
        };
        record.baseline[COUNTERS_PER_INTERFACE - 1].bytes = 9;
        memory.set_interface(2, Some(&record));
        memory.set_interface(1, Some(&record));
        memory.set_interface(1, None);
        assert_eq!(memory.interface(2), Some(record));
        assert_eq!(memory.interface(1), None);
        assert_eq!(memory.rule(2), rules[2], "untouched");
    }
}
