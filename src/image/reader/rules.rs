//! From a packet to its rule: rows, pairs and exact five-tuples.

use super::{ImageReader, Surroundings, address};
use crate::abi::{
    self, AXIS_COUNT, AXIS_DST, AXIS_SRC, BOX_CONDITIONAL, BOX_LAST, BOX_PORTS, LABEL_BIT,
    LIST_BOXES, Label, MAX_WALK, NO_RULE, OUTCOME_BITS, OUTCOME_LABELS, PAIR_KEY, PAIR_SPLIT,
    PairOutcome, RuleBox, RuleExtra, RuleRecord, SPLIT_KEY, TableAxis,
};
use crate::packet::{Fragment, Packet};

/// What the addresses of a packet say.
#[derive(Debug, Clone, Copy)]
struct Addresses {
    /// The first rule that one of them alone decides.
    best: u32,
    rows: [u32; AXIS_COUNT],
    labels: [[Label; OUTCOME_LABELS]; 2],
}

impl ImageReader<'_> {
    /// The number of the rule that decides, and of those that the packet passed by on the way and
    /// that only count.
    pub(super) fn find_rule(&self, packet: &Packet, around: Surroundings) -> (u32, Vec<u32>) {
        let addresses = self.find_addresses(packet, around);
        let mut best = addresses.best;
        if self.shape.features & abi::FEATURE_EXACT != 0 {
            best = best.min(self.find_exact(packet));
        }
        if self.shape.features & abi::FEATURE_PAIRS != 0 {
            best = self.find_paired(packet, &addresses, best, around);
        }
        if self.shape.features & abi::FEATURE_ROWS != 0 {
            return self
                .find_rowed(packet, addresses.rows, best, around)
                .unwrap_or((best, Vec::new()));
        }
        (best, Vec::new())
    }

    fn find_addresses(&self, packet: &Packet, around: Surroundings) -> Addresses {
        let mut out = Addresses {
            best: NO_RULE,
            rows: [0; AXIS_COUNT],
            labels: bytemuck::Zeroable::zeroed(),
        };
        let directions = [
            (AXIS_SRC, abi::FEATURE_SRC, packet.src),
            (AXIS_DST, abi::FEATURE_DST, packet.dst),
        ];
        for (direction, feature, addr) in directions {
            if self.shape.features & feature == 0 {
                continue;
            }
            let axis = &self.shape.address[direction];
            let outcome = self.find_outcome(axis, address(addr), around.ticks);
            if self.shape.features & abi::FEATURE_RECORDS == 0 {
                out.best = out.best.min(outcome.wrapping_sub(1));
            } else if self.shape.features & abi::FEATURE_PAIRS != 0 {
                if let Some(found) = self.item::<PairOutcome>(axis.outcomes, outcome) {
                    out.best = out.best.min(found.outcome.best);
                    out.rows[direction] = found.outcome.row;
                    out.labels[direction] = found.labels;
                }
            } else if let Some(found) = self.item::<abi::Outcome>(axis.outcomes, outcome) {
                out.best = out.best.min(found.best);
                out.rows[direction] = found.row;
            }
        }
        out
    }

    fn find_exact(&self, packet: &Packet) -> u32 {
        let (std::net::IpAddr::V4(src), std::net::IpAddr::V4(dst)) = (packet.src, packet.dst)
        else {
            return NO_RULE;
        };
        let (Some((sport, dport)), Some(protocol)) = (packet.ports, packet.protocol) else {
            return NO_RULE;
        };
        let key = u128::from(src.to_bits()) << 96
            | u128::from(dst.to_bits()) << 64
            | u128::from(sport) << 48
            | u128::from(dport) << 32
            | u128::from(protocol);
        match self.find6(self.shape.exact, self.shape.exact_lines, key, 0) {
            0 => NO_RULE,
            rule => rule - 1,
        }
    }

    fn find_paired(
        &self,
        packet: &Packet,
        addresses: &Addresses,
        mut best: u32,
        around: Surroundings,
    ) -> u32 {
        let classes = self.classes(packet);
        let [srcs, dsts] = &addresses.labels;
        for src in &srcs[..(self.shape.labels[AXIS_SRC] as usize).min(OUTCOME_LABELS)] {
            for dst in &dsts[..(self.shape.labels[AXIS_DST] as usize).min(OUTCOME_LABELS)] {
                let known =
                    src.partners >> (dst.id >> LABEL_BIT) & dst.partners >> (src.id >> LABEL_BIT);
                if known & 1 == 0 {
                    continue;
                }
                let pair = u128::from(src.id) << 96 | u128::from(dst.id) << 64;
                let list = self.find_list(pair, PAIR_KEY);
                best = self.find_box(packet, list & !PAIR_SPLIT, classes, best, around);
                if self.shape.split_pairs == 0 || list & PAIR_SPLIT == 0 {
                    continue;
                }
                if let (Some((_, dport)), Some(protocol)) = (packet.ports, packet.protocol) {
                    let key = pair | u128::from(dport) << 32 | u128::from(protocol);
                    let list = self.find_list(key, SPLIT_KEY);
                    best = self.find_box(packet, list & !PAIR_SPLIT, classes, best, around);
                }
            }
        }
        best
    }

    fn find_list(&self, key: u128, kind: u32) -> u32 {
        self.find6(self.shape.pairs, self.shape.pair_lines, key, kind) & ((1 << OUTCOME_BITS) - 1)
    }

    /// The first rule of a list that the packet fits, if it comes before `best`.
    fn find_box(
        &self,
        packet: &Packet,
        list: u32,
        classes: u64,
        best: u32,
        around: Surroundings,
    ) -> u32 {
        if list == 0 {
            return best;
        }
        let (sport, dport) = packet.ports.map_or((0, 0), |(s, d)| (s.into(), d.into()));
        let protocol = packet
            .protocol
            .map_or(abi::AXIS_VALUES[abi::AXIS_PROTOCOL] - 1, u32::from);
        for number in (list..).take(LIST_BOXES) {
            let Some(b) = self.item::<RuleBox>(self.shape.boxes, number) else {
                break;
            };
            let rule = b.rule & !(BOX_LAST | BOX_CONDITIONAL);
            if rule >= best {
                break;
            }
            let within = |port: u32, range: u32| (range & 0xffff..=range >> 16).contains(&port);
            let fits = within(sport, b.sport)
                && within(dport, b.dport)
                && (protocol ^ b.rest) & (b.rest >> 9 & 0x1ff) == 0
                && (b.rest & BOX_PORTS == 0 || packet.ports.is_some())
                && classes >> (b.rest >> 19 & 63) & 1 != 0;
            if fits && (b.rule & BOX_CONDITIONAL == 0 || self.holds(rule, around)) {
                return rule;
            }
            if b.rule & BOX_LAST != 0 {
                break;
            }
        }
        best
    }

    /// The classes that the packet is of, one bit each.
    fn classes(&self, packet: &Packet) -> u64 {
        let axes = AXIS_DST + 1..AXIS_COUNT;
        axes.filter(|axis| self.shape.class_axes & 1 << axis != 0)
            .fold(u64::MAX, |all, axis| {
                let TableAxis { table, rows } = self.shape.class_table[axis];
                let row = self.item::<u16>(table, axis_value(axis, packet));
                all & row.and_then(|r| self.item(rows, r.into())).unwrap_or(0)
            })
    }

    /// Walks the rules of the rows in their order. Returns `None` where the image leads nowhere.
    fn find_rowed(
        &self,
        packet: &Packet,
        mut rows: [u32; AXIS_COUNT],
        best: u32,
        around: Surroundings,
    ) -> Option<(u32, Vec<u32>)> {
        let shape = &self.shape;
        for (axis, row) in rows.iter_mut().enumerate() {
            let first = if axis <= AXIS_DST {
                shape.address[axis].rows
            } else if shape.axes & 1 << axis != 0 {
                let table = shape.table[axis];
                *row = u32::from(self.item::<u16>(table.table, axis_value(axis, packet))?);
                table.rows
            } else {
                continue;
            };
            *row = first.wrapping_add(row.wrapping_mul(shape.row_lines));
        }
        let and_rows = |word: u32| {
            (0..AXIS_COUNT)
                .filter(|axis| shape.axes & 1 << axis != 0)
                .try_fold(u64::MAX, |all, axis| {
                    Some(all & self.item::<u64>(rows[axis], word)?)
                })
        };
        let mut passed = Vec::new();
        let mut summary = and_rows(0)?;
        let (mut word, mut bits) = (0, 0);
        for _ in 0..shape.row_steps.min(64 + MAX_WALK as u32 + 1) {
            if bits == 0 {
                if summary == 0 {
                    break;
                }
                word = summary.trailing_zeros();
                summary &= summary - 1;
                bits = and_rows(word + 1)?;
                continue;
            }
            let number: u32 = self.item(shape.rowed, word * 64 + bits.trailing_zeros())?;
            bits &= bits - 1;
            if number >= best {
                break;
            }
            if shape.features & abi::FEATURE_WALK == 0 {
                return Some((number, passed));
            }
            let record = self.record(number);
            if record.flags & abi::RULE_CONDITIONAL != 0 && !self.holds(number, around) {
                continue;
            }
            if record.flags & abi::RULE_PASSIVE == 0 {
                return Some((number, passed));
            }
            passed.push(number);
        }
        Some((best, passed))
    }

    /// Whether a rule is there at this time and interface.
    fn holds(&self, rule: u32, around: Surroundings) -> bool {
        let extra = self.record(rule).flags >> abi::RULE_EXTRA;
        let Some(extra) = self.item::<RuleExtra>(self.shape.extras, extra) else {
            return false;
        };
        around.ticks < extra.expires && (extra.scopes == 0 || extra.scopes & around.scopes != 0)
    }

    pub(super) fn record(&self, rule: u32) -> RuleRecord {
        let nothing = RuleRecord {
            flags: 0,
            counter: 0,
        };
        self.item(self.shape.rules, rule).unwrap_or(nothing)
    }
}

/// The value of a packet on a table axis.
fn axis_value(axis: usize, packet: &Packet) -> u32 {
    let none = abi::AXIS_VALUES[axis] - 1;
    match axis {
        abi::AXIS_PROTOCOL => packet.protocol.map_or(none, u32::from),
        abi::AXIS_SPORT => packet.ports.map_or(none, |p| u32::from(p.0)),
        abi::AXIS_DPORT => packet.ports.map_or(none, |p| u32::from(p.1)),
        abi::AXIS_TCP_FLAGS => packet.tcp_flags.map_or(none, u32::from),
        abi::AXIS_ICMP => packet
            .icmp
            .map_or(none, |(t, c)| u32::from(t) << 8 | u32::from(c)),
        abi::AXIS_LENGTH => packet.length,
        abi::AXIS_STATE => {
            let fragment = match packet.fragment {
                Fragment::None => 0,
                Fragment::First => 1,
                Fragment::Later => 2,
            };
            fragment | u32::from(packet.bad_fragment) << 2 | u32::from(packet.invalid) << 3
        }
        abi::AXIS_VLAN => packet.vlan.map_or(none, u32::from),
        abi::AXIS_TTL => u32::from(packet.ttl),
        abi::AXIS_DSCP => u32::from(packet.dscp),
        _ => 0,
    }
}
