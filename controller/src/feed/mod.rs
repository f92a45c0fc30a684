//! Feeds: address sets that somebody else keeps, read from a URL or a file now and then.
//!
//! What a feed brings is judged before it replaces what the set has: a page of errors, a list that lost most of its
//! entries, or one that would block half the internet is refused, and the last good one stays. So a feed that is broken or
//! taken over does limited harm, and it shows.

mod judge;
mod parse;

pub use judge::{Limits, Refusal, judge};
pub use parse::{FeedError, Format, parse};
