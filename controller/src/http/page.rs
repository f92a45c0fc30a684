//! Pages of lists: `limit` and `cursor`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::problem::Problem;

/// Items of a page, unless said.
const LIMIT: usize = 100;
/// The most.
pub(super) const MAX_LIMIT: usize = 1_000;

/// One page of a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Page<T> {
    /// The items.
    pub(super) items: Vec<T>,
    /// To be given as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
    /// How many there are that meet the filters; absent where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) total: Option<usize>,
}

/// How many, or all that are allowed.
pub(super) fn limit(asked: Option<usize>) -> Result<usize, Problem> {
    match asked.unwrap_or(LIMIT) {
        limit if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
        _ => Err(Problem::invalid(
            "limit",
            format!("1 to {MAX_LIMIT} items make a page"),
        )),
    }
}

/// A cursor of the place after which the next page begins.
pub(super) fn cursor(place: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(place).unwrap_or_default())
}

/// The place that a cursor names.
pub(super) fn place<T: for<'de> Deserialize<'de>>(
    cursor: Option<&str>,
) -> Result<Option<T>, Problem> {
    let Some(cursor) = cursor else {
        return Ok(None);
    };
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
    let place = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let bad = || Problem::invalid("cursor", "not a cursor of this list: begin without one");
    place.map(Some).ok_or_else(bad)
}

/// Those items of a list that come after the cursor, one page of them. It sorts the list by the key, or the other way
/// round.
pub(super) fn page<T, K>(
    mut items: Vec<T>,
    after: Option<K>,
    limit: usize,
    descends: bool,
    key: impl Fn(&T) -> K,
) -> Page<T>
where
    K: Ord + Serialize,
{
    let order = |a: &K, b: &K| if descends { b.cmp(a) } else { a.cmp(b) };
    let total = items.len();
    if let Some(after) = after {
        items.retain(|item| order(&key(item), &after).is_gt());
    }
    let more = items.len() > limit;
    // Only what is shown is sorted.
    if more {
        items.select_nth_unstable_by(limit, |a, b| order(&key(a), &key(b)));
        items.truncate(limit);
    }
    items.sort_by(|a, b| order(&key(a), &key(b)));
    let next = items.last().filter(|_| more).map(|item| cursor(&key(item)));
    Page {
        items,
        next,
        total: Some(total),
    }
}

impl<T> Page<T> {
    /// With other items in the place of these.
    pub(super) fn map<U>(self, each: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(each).collect(),
            next: self.next,
            total: self.total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_one_another_whatever_comes_between() {
        let all: Vec<u32> = (0..10).map(|i| i * 2).collect();
        let first = page(all.clone(), None, 4, false, |i| *i);
        assert_eq!((first.items, first.total), (vec![0, 2, 4, 6], Some(10)));
        let after: Option<u32> = place(first.next.as_deref()).unwrap();
        let changed: Vec<u32> = all.into_iter().filter(|i| *i != 6).chain([99]).collect();
        let second = page(changed, after, 100, false, |i| *i);
        assert_eq!(second.items, [8, 10, 12, 14, 16, 18, 99]);
        assert!(second.next.is_none());
        let last = page(vec![1, 3, 2], Some(3), 1, true, |i| *i);
        assert_eq!((last.items, last.next.is_some()), (vec![2], true));
        assert!(place::<u32>(Some("%%")).is_err());
        assert!(limit(Some(0)).is_err() && limit(Some(1_001)).is_err());
    }
}
