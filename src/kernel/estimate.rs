//! How recent traffic would fare under another policy.
//!
//! A thread keeps the latest sampled drops; an estimate judges these by the image of the new policy, in
//! Rust and without the kernel.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;

use super::error::{ApplyError, EventError};
use super::events::{Event, EventOptions};
use super::firewall::{Firewall, lock};
use super::scopes::Scopes;
use crate::compile::active_rules;
use crate::image::{ImageReader, Surroundings};
use crate::policy::{Action, Policy, RuleId, Verdict};
use crate::verdict::Reason;

/// How frames that were sampled of late would fare under a policy. All of them were dropped, or would
/// have been but for dry run; those that a ban dropped are left out, because a policy has no say in it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Estimate {
    /// How many frames were tried.
    pub samples: usize,
    /// When the oldest was judged.
    pub since: Timestamp,
    /// How many would pass. What a rate limit decides passes, unless a rate limit has dropped it.
    pub would_pass: usize,
    /// How many would be dropped.
    pub would_drop: usize,
    /// The rules of the policy that would decide, with the number of frames, the most first.
    pub rules: Vec<(RuleId, usize)>,
}

/// The latest samples, oldest first.
#[derive(Debug, Default)]
pub(super) struct Samples(Mutex<Option<Arc<Mutex<VecDeque<Event>>>>>);

impl Firewall {
    /// Keeps the latest 4,096 sampled drops from now on, for [`Firewall::estimate`]: some 2 MB, and a
    /// thread that ends with the firewall. Called again it changes nothing.
    ///
    /// # Errors
    /// As for [`Firewall::events`].
    pub fn keep_samples(&self, options: EventOptions) -> Result<(), EventError> {
        let mut samples = lock(&self.samples.0);
        if samples.is_some() {
            return Ok(());
        }
        let events = self.events(options)?;
        let ring = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&ring);
        std::thread::Builder::new()
            .name("xdpgate-samples".to_owned())
            .spawn(move || {
                for event in events {
                    let mut kept = lock(&kept);
                    if kept.len() == KEPT {
                        kept.pop_front();
                    }
                    kept.push_back(event);
                }
            })
            .map_err(|source| EventError::Syscall {
                call: "starting a thread",
                source,
            })?;
        *samples = Some(ring);
        Ok(())
    }

    /// How the frames that [`Firewall::keep_samples`] keeps would fare under a policy. Touches nothing.
    /// `None` if there are none yet.
    ///
    /// Frames are judged by their first 128 bytes: of one whose headers are longer only the addresses
    /// are seen. What is sampled is bounded for each rule, so the figures say what kinds of frames would
    /// fare how, not how many.
    ///
    /// ```no_run
    /// use xdpgate::{EventOptions, Firewall, Policy};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let firewall = Firewall::loader().load()?;
    /// firewall.keep_samples(EventOptions::default())?;
    /// // ... and after a while:
    /// let policy = Policy::from_file("policy.yaml")?;
    /// if let Some(estimate) = firewall.estimate(&policy)? {
    ///     println!("{} of {} would pass", estimate.would_pass, estimate.samples);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The policy cannot be compiled.
    pub fn estimate(&self, policy: &Policy) -> Result<Option<Estimate>, ApplyError> {
        let samples = lock(&self.samples.0).clone();
        let events: Vec<Event> = match samples {
            Some(samples) => lock(&samples).iter().cloned().collect(),
            None => Vec::new(),
        };
        let Some(since) = events.iter().map(|event| event.time).min() else {
            return Ok(None);
        };
        let rules = active_rules(policy);
        let slots = vec![0; rules.len()];
        let (image, _) = self.core.compile(policy, slots, &self.core.management())?;
        let clock = self.core.clock()?;
        let reader = ImageReader::trusted(&image.lines, image.shape);
        let scopes = Scopes::new(image.scopes());
        let mut estimate = Estimate {
            samples: 0,
            since,
            would_pass: 0,
            would_drop: 0,
            rules: Vec::new(),
        };
        let mut decided: HashMap<u32, usize> = HashMap::new();
        for event in events.iter().filter(|event| event.reason != Reason::Ban) {
            let around = Surroundings {
                ticks: clock.ticks,
                scopes: event.interface.as_deref().map_or(0, |name| scopes.of(name)),
            };
            let judged = reader.judge(&event.packet(), around);
            let limited = event.reason == Reason::RateLimit
                && judged.rule.is_some_and(|rule| {
                    let rule = rules.get(rule as usize);
                    rule.is_some_and(|rule| matches!(rule.action, Action::RateLimit(_)))
                });
            estimate.samples += 1;
            match judged.verdict {
                Verdict::Pass if !limited => estimate.would_pass += 1,
                _ => estimate.would_drop += 1,
            }
            if let Some(rule) = judged.rule {
                *decided.entry(rule).or_default() += 1;
            }
        }
        let mut decided: Vec<(u32, usize)> = decided.into_iter().collect();
        decided.sort_unstable_by_key(|(rule, frames)| (std::cmp::Reverse(*frames), *rule));
        let named =
            |(rule, frames): (u32, usize)| Some((rules.get(rule as usize)?.id.clone(), frames));
        estimate.rules = decided.into_iter().filter_map(named).collect();
        Ok((estimate.samples > 0).then_some(estimate))
    }
}

/// How many samples are kept.
const KEPT: usize = 4096;
