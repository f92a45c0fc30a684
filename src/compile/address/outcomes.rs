//! The distinct outcomes of a direction.

use std::collections::{HashMap, HashSet};

use super::Form;
use super::effect::Effect;
use crate::abi::{
    Label, NO_RULE, OUTCOME_LABELS, OUTCOME_TIMED, Outcome, PairOutcome, TIMED_STEPS, TimedOutcome,
};
use crate::compile::Clock;
use crate::compile::rows::{Row, RowPool};
use crate::image::ImageWriter;
use crate::policy::PolicyError;
use bytemuck::Zeroable;

/// Labels that the sweep follows for one address. Beyond them it is clear that most must go, and to
/// follow them all would take time and memory with the square of their number.
const FOLLOWED_LABELS: usize = 64;

/// What is known from one address at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Plain {
    best: u32,
    row: u32,
    /// Number of a set of labels.
    labels: u32,
}

/// Outcomes by number. Number 0 means "no entry" and is never handed out. Where outcomes are not
/// records an outcome is its rule's number + 1. With `OUTCOME_TIMED` a number is that of a change
/// with time.
#[derive(Debug)]
pub(super) struct Outcomes {
    form: Form,
    /// Times before this tick are of no interest.
    now: u64,
    list: Vec<Plain>,
    numbers: HashMap<Plain, u32>,
    rows: RowPool,
    label_sets: Vec<Box<[u32]>>,
    label_numbers: HashMap<Box<[u32]>, u32>,
    /// Labels that were not followed everywhere.
    lost_labels: HashSet<u32>,
    timed: Vec<TimedOutcome>,
    timed_numbers: HashMap<TimedOutcome, u32>,
    /// The longest way through `timed`.
    longest: usize,
}

impl Outcomes {
    pub(super) fn new(form: Form, now: u64) -> Self {
        Self {
            form,
            now,
            list: vec![Plain {
                best: NO_RULE,
                row: 0,
                labels: 0,
            }],
            numbers: HashMap::new(),
            rows: RowPool::new(form.row_bits),
            label_sets: vec![Box::default()],
            label_numbers: HashMap::from([(Box::default(), 0)]),
            lost_labels: HashSet::new(),
            timed: Vec::new(),
            timed_numbers: HashMap::new(),
            longest: 0,
        }
    }

    /// The outcome that nothing depends on.
    pub(super) fn nothing(&mut self) -> u32 {
        let row = self.rows.intern(&Row::empty(self.form.row_bits));
        self.intern(Plain {
            best: NO_RULE,
            row,
            labels: 0,
        })
    }

    fn get(&self, number: u32) -> Plain {
        if self.form.records {
            return self.list[number as usize];
        }
        Plain {
            best: number - 1,
            row: 0,
            labels: 0,
        }
    }

    fn intern(&mut self, plain: Plain) -> u32 {
        if !self.form.records {
            return plain.best + 1;
        }
        *self.numbers.entry(plain).or_insert_with(|| {
            self.list.push(plain);
            self.list.len() as u32 - 1
        })
    }

    /// The outcome inside of a source's entries that hold up to a tick.
    pub(super) fn apply(&mut self, from: u32, effect: &Effect, until: u64) -> u32 {
        if from & OUTCOME_TIMED == 0 && until == Clock::NEVER && effect.is_constant() {
            return self.step(from, effect, self.now);
        }
        let line = self.timeline(from);
        let mut changes: Vec<u64> = line
            .iter()
            .map(|(end, _)| *end)
            .chain(effect.rules.iter().map(|(_, end)| *end))
            .chain([until, Clock::NEVER])
            .filter(|tick| *tick > self.now)
            .collect();
        changes.sort_unstable();
        changes.dedup();
        let mut begin = self.now;
        let mut next: Vec<(u64, u32)> = Vec::new();
        for end in changes {
            let held = line.iter().find(|(end, _)| begin < *end);
            let held = held.map_or(from, |(_, number)| *number);
            let number = if begin < until {
                self.step(held, effect, begin)
            } else {
                held
            };
            match next.last_mut() {
                Some((last, same)) if *same == number => *last = end,
                _ => next.push((end, number)),
            }
            begin = end;
        }
        self.intern_timeline(&next)
    }

    /// The effect on an outcome that does not change, at a tick.
    fn step(&mut self, from: u32, effect: &Effect, tick: u64) -> u32 {
        let Plain {
            mut best,
            mut row,
            mut labels,
        } = self.get(from);
        if let Some(rule) = effect.rule_at(tick) {
            best = best.min(rule);
        }
        if !(effect.set_rows.is_empty() && effect.clear_rows.is_empty()) {
            let mut bits = self.rows.get(row).clone();
            effect.set_rows.iter().for_each(|bit| bits.set(*bit));
            effect.clear_rows.iter().for_each(|bit| bits.clear(*bit));
            row = self.rows.intern(&bits);
        }
        if !effect.labels.is_empty() {
            labels = self.add_labels(labels, &effect.labels);
        }
        self.intern(Plain { best, row, labels })
    }

    fn add_labels(&mut self, to: u32, labels: &[u32]) -> u32 {
        let mut set = self.label_sets[to as usize].to_vec();
        let room = FOLLOWED_LABELS.saturating_sub(set.len());
        let (followed, lost) = labels.split_at(labels.len().min(room));
        set.extend(followed);
        self.lost_labels.extend(lost);
        set.sort_unstable();
        set.dedup();
        let set: Box<[u32]> = set.into();
        if let Some(number) = self.label_numbers.get(&set) {
            return *number;
        }
        let number = self.label_sets.len() as u32;
        self.label_sets.push(set.clone());
        self.label_numbers.insert(set, number);
        number
    }

    /// When an outcome ends and which plain one it is until then, to the end of time.
    fn timeline(&self, mut number: u32) -> Vec<(u64, u32)> {
        let mut line = Vec::new();
        while number & OUTCOME_TIMED != 0 {
            let timed = self.timed[(number & !OUTCOME_TIMED) as usize];
            line.push((timed.until, timed.now));
            number = timed.then;
        }
        line.push((Clock::NEVER, number));
        line
    }

    fn intern_timeline(&mut self, line: &[(u64, u32)]) -> u32 {
        self.longest = self.longest.max(line.len() - 1);
        let (last, changes) = line.split_last().expect("it lasts to the end of time");
        changes.iter().rev().fold(last.1, |then, (until, now)| {
            let timed = TimedOutcome {
                until: *until,
                now: *now,
                then,
            };
            let number = self.timed.len() as u32;
            let number = *self.timed_numbers.entry(timed).or_insert(number);
            if number as usize == self.timed.len() {
                self.timed.push(timed);
            }
            number | OUTCOME_TIMED
        })
    }

    /// Labels to do without so that no outcome has more than its record holds.
    pub(super) fn surplus_labels(&self, weights: &[u32]) -> Vec<u32> {
        let mut gone = self.lost_labels.clone();
        for set in self.label_sets.iter().filter(|s| s.len() > OUTCOME_LABELS) {
            let mut left: Vec<u32> = set.iter().copied().filter(|l| !gone.contains(l)).collect();
            left.sort_by_key(|label| weights.get(*label as usize));
            let surplus = left.len().saturating_sub(OUTCOME_LABELS);
            gone.extend(&left[..surplus]);
        }
        gone.into_iter().collect()
    }

    pub(super) fn most_labels(&self) -> u32 {
        self.label_sets.iter().map(|s| s.len()).max().unwrap_or(0) as u32
    }

    pub(super) fn most_rows(&self, which: &Row) -> usize {
        self.rows.most(which)
    }

    /// Whether the program can follow it all.
    pub(super) fn check(&self) -> Result<(), PolicyError> {
        let most = self.list.len().max(self.timed.len());
        if most >= OUTCOME_TIMED as usize {
            return Err(PolicyError::limit(
                None,
                format!("addresses fall into {most} classes, the limit is {OUTCOME_TIMED}"),
            )
            .mend("use fewer rules with nested or overlapping prefixes"));
        }
        if self.longest > TIMED_STEPS {
            return Err(PolicyError::limit(
                None,
                format!(
                    "what holds for one address changes {} times by expiry, the limit is {TIMED_STEPS}",
                    self.longest
                ),
            )
            .mend("let nested prefixes and rules about the same addresses expire together"));
        }
        Ok(())
    }

    /// Writes the records and returns the first line.
    pub(super) fn write(&self, records: &[Label], image: &mut ImageWriter) -> u32 {
        let plain = |p: &Plain| Outcome {
            best: p.best,
            row: p.row,
        };
        if !self.form.labels {
            return image.section(&self.list.iter().map(plain).collect::<Vec<_>>());
        }
        let outcomes = self.list.iter().map(|p| {
            let mut labels = [Label::zeroed(); OUTCOME_LABELS];
            for (label, number) in labels.iter_mut().zip(&self.label_sets[p.labels as usize]) {
                *label = records[*number as usize];
            }
            PairOutcome {
                outcome: plain(p),
                labels,
            }
        });
        image.section(&outcomes.collect::<Vec<_>>())
    }

    pub(super) fn write_rows(&self, image: &mut ImageWriter) -> u32 {
        self.rows.write(image)
    }

    /// Writes what changes with time. Returns the first line, 0 if nothing does, and the most changes
    /// that one outcome goes through.
    pub(super) fn write_timed(&self, image: &mut ImageWriter) -> (u32, u32) {
        match self.timed.is_empty() {
            true => (0, 0),
            false => (image.section(&self.timed), self.longest as u32),
        }
    }
}
