//! Requests of the API that no client of ours made: each is refused with a line, or converted to what converts
//! back to the same.
//!
//! The first byte picks the message, the rest is its encoding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xdpgated::agent::hostile;

fuzz_target!(|input: &[u8]| {
    if let Some((which, message)) = input.split_first() {
        hostile::request(*which, message);
    }
});
