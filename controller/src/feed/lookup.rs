//! Which country, and which sets, have an address.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::core::View;

/// What the sets of country feeds begin with, unless a feed says otherwise.
pub const COUNTRY: &str = "country-";

/// What has an address.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, ToSchema)]
pub struct Found {
    /// The codes of the countries, from the sets `country-CODE`. More than one where lists contradict each other.
    pub countries: Vec<String>,
    /// All sets, those of countries too.
    pub sets: Vec<String>,
}

/// The country and the sets that have an address at a time.
pub fn lookup(view: &View, address: IpAddr, now: Timestamp) -> Found {
    let sets = view.sets().iter();
    let having = sets.filter(|(_, set)| set.entries.contains_at(address, now));
    let sets: Vec<String> = having.map(|(name, _)| name.to_string()).collect();
    let code = |set: &String| set.strip_prefix(COUNTRY).map(str::to_owned);
    let is_code = |code: &String| code.len() == 2 && code.bytes().all(|b| b.is_ascii_alphabetic());
    let countries = sets.iter().filter_map(code).filter(is_code).collect();
    Found { countries, sets }
}
