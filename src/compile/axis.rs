//! The fields other than addresses: a table from every value of a field to a row.

use super::rows::{Row, RowPool};
use crate::abi::{
    AXIS_DPORT, AXIS_DSCP, AXIS_DST, AXIS_ICMP, AXIS_LENGTH, AXIS_PROTOCOL, AXIS_SPORT, AXIS_SRC,
    AXIS_STATE, AXIS_TCP_FLAGS, AXIS_TTL, AXIS_VALUES, AXIS_VLAN, TableAxis,
};
use crate::image::ImageWriter;
use crate::policy::{FragmentMatch, Match, PolicyError, Ranges, VlanMatch};

/// Whether a match looks at anything but addresses and family.
pub(super) fn constrains_fields(m: &Match) -> bool {
    (AXIS_DST + 1..AXIS_VALUES.len()).any(|axis| values(axis, m).is_some())
}

/// The axes of rows about these matches: there must be one, if only to say that all match.
pub(super) fn row_axes(matches: &[&Match]) -> u32 {
    match axes_in_use(matches.iter().copied()) {
        0 if !matches.is_empty() => 1 << AXIS_SRC,
        axes => axes,
    }
}

/// The bit set of axes that these matches use.
pub(super) fn axes_in_use<'m>(matches: impl IntoIterator<Item = &'m Match>) -> u32 {
    let mut axes = 0;
    for m in matches {
        axes |= u32::from(m.src.is_some() || m.family.is_some()) << AXIS_SRC;
        axes |= u32::from(m.dst.is_some()) << AXIS_DST;
        for axis in AXIS_DST + 1..AXIS_VALUES.len() {
            axes |= u32::from(values(axis, m).is_some()) << axis;
        }
    }
    axes
}

/// Writes the table and the rows of one axis for these matches. Returns, too, the most rules of
/// `which` that one value allows.
pub(super) fn build(
    axis: usize,
    matches: &[&Match],
    which: &Row,
    image: &mut ImageWriter,
) -> Result<(TableAxis, usize), PolicyError> {
    let (table, pool) = classify(axis, matches)?;
    let axis = TableAxis {
        table: image.section(&table),
        rows: pool.write(image),
    };
    Ok((axis, pool.most(which)))
}

/// The same for at most 64 matches: a row is one word.
pub(super) fn build_words(
    axis: usize,
    matches: &[&Match],
    image: &mut ImageWriter,
) -> Result<TableAxis, PolicyError> {
    let (table, pool) = classify(axis, matches)?;
    Ok(TableAxis {
        table: image.section(&table),
        rows: image.section(&pool.words()),
    })
}

/// The row of every value.
fn classify(axis: usize, matches: &[&Match]) -> Result<(Vec<u16>, RowPool), PolicyError> {
    let mut row = Row::empty(matches.len());
    let mut events: Vec<(u32, bool, usize)> = Vec::new();
    for (bit, m) in matches.iter().enumerate() {
        match values(axis, m) {
            None => row.set(bit),
            Some(ranges) => {
                for (lo, hi) in ranges.as_slice() {
                    events.push((*lo, true, bit));
                    events.push((hi + 1, false, bit));
                }
            }
        }
    }
    // At one value, ranges end (false) before others begin (true).
    events.sort_unstable();
    let mut pool = RowPool::new(matches.len());
    let mut table: Vec<u16> = Vec::with_capacity(AXIS_VALUES[axis] as usize);
    let mut events = events.into_iter().peekable();
    while (table.len() as u32) < AXIS_VALUES[axis] {
        while let Some((_, begins, bit)) = events.next_if(|e| e.0 <= table.len() as u32) {
            if begins { row.set(bit) } else { row.clear(bit) }
        }
        let number = u16::try_from(pool.intern(&row)).map_err(|_| {
            PolicyError::limit(
                None,
                "the values of one field fall into more than 65,536 classes",
            )
            .mend("use ranges in place of lists of single ports or lengths")
        })?;
        let until = events
            .peek()
            .map_or(AXIS_VALUES[axis], |e| e.0.min(AXIS_VALUES[axis]));
        table.resize(until as usize, number);
    }
    Ok((table, pool))
}

/// Which values of an axis a match allows; `None`: all, also "the packet has no such field".
fn values(axis: usize, m: &Match) -> Option<Ranges<u32>> {
    let last = AXIS_VALUES[axis].saturating_sub(1);
    match axis {
        AXIS_PROTOCOL => m.protocol.as_ref().map(widen),
        AXIS_SPORT => m.sport.as_ref().map(widen),
        AXIS_DPORT => m.dport.as_ref().map(widen),
        AXIS_TCP_FLAGS => m
            .tcp_flags
            .map(|f| filter(0..256, |v| v as u8 & f.mask == f.value)),
        AXIS_ICMP => m.icmp.map(|i| {
            let first = u32::from(i.icmp_type) << 8;
            Ranges::new([match i.code {
                Some(code) => (first + u32::from(code), first + u32::from(code)),
                None => (first, first + 255),
            }])
        }),
        AXIS_LENGTH => m.length.as_ref().map(|r| {
            Ranges::new(
                r.as_slice()
                    .iter()
                    .filter(|r| r.0 <= last)
                    .map(|(lo, hi)| (*lo, *hi.min(&last))),
            )
        }),
        AXIS_STATE => (m.fragment.is_some() || m.anomaly.is_some())
            .then(|| filter(0..last + 1, |v| state_allowed(m, v))),
        AXIS_VLAN => m.vlan.as_ref().map(|v| match v {
            VlanMatch::None => Ranges::single(last),
            VlanMatch::Any => Ranges::new([(0, last - 1)]),
            VlanMatch::Ids(ids) => widen(ids),
        }),
        AXIS_TTL => m.ttl.as_ref().map(widen),
        AXIS_DSCP => m.dscp.as_ref().map(widen),
        _ => None,
    }
}

/// State value: fragment state | bad_fragment << 2 | invalid << 3, as in `bpf/lookup.h`.
fn state_allowed(m: &Match, value: u32) -> bool {
    let (fragment, bad_fragment, invalid) = (value & 3, value & 4 != 0, value & 8 != 0);
    let fragment_holds = match m.fragment {
        None => true,
        Some(FragmentMatch::None) => fragment == 0,
        Some(FragmentMatch::First) => fragment == 1,
        Some(FragmentMatch::Later) => fragment == 2,
        Some(FragmentMatch::Any) => fragment == 1 || fragment == 2,
    };
    let anomaly_holds = m
        .anomaly
        .is_none_or(|a| (a.bad_fragment && bad_fragment) || (a.invalid && invalid));
    fragment_holds && anomaly_holds
}

fn widen<T: Copy + Ord + Into<u32> + TryFrom<u32>>(ranges: &Ranges<T>) -> Ranges<u32> {
    Ranges::new(
        ranges
            .as_slice()
            .iter()
            .map(|(lo, hi)| ((*lo).into(), (*hi).into())),
    )
}

fn filter(values: std::ops::Range<u32>, holds: impl Fn(u32) -> bool) -> Ranges<u32> {
    Ranges::new(values.filter(|v| holds(*v)).map(|v| (v, v)))
}
