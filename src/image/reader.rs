//! Reads an image the way the XDP program does.

use bytemuck::Pod;

use super::writer::header_lines;
use super::{checksum, hash4, hash6, home_line, other_line};
use crate::abi::{
    self, AXIS_COUNT, AXIS_DST, AXIS_SRC, AddressAxis, AddressIndex, BLOCK_LINES, ENTRY_BLOCK,
    HOST4_SLOTS, HOST6_SLOTS, LENGTH_STEPS, Line, NO_RULE, OUTCOME_BITS, RuleRecord, Shape,
    SshPrefix,
};
use crate::packet::{Fragment, Packet, Parsed};
use crate::policy::Verdict;
use crate::verdict::Reason;

/// Why bytes are not an image that this version can read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Not a multiple of 64 bytes, or shorter than the header says.
    #[error("an image of {bytes} bytes was cut off: its header says {lines} lines of 64 bytes")]
    Length {
        /// How many bytes there are.
        bytes: usize,
        /// How many lines the header names.
        lines: u32,
    },
    /// The bytes do not begin as an image.
    #[error("not a policy image: it begins with {0:#010x}")]
    Magic(u32),
    /// The image is of another version of the library.
    #[error("image layout {0}, this version reads layout {expected}", expected = abi::IMAGE_LAYOUT)]
    Layout(u32),
    /// The content does not fit its checksum.
    #[error("the image was altered: its checksum does not fit")]
    Checksum,
}

/// Judges packets by an image: the exact mirror of `bpf/lookup.h`, in Rust.
///
/// Where an image leads outside of itself the answer is "not found", as in the kernel, where every
/// line is fetched by a bounds-checked array lookup.
#[derive(Debug, Clone, Copy)]
pub struct ImageReader<'i> {
    lines: &'i [Line],
    shape: Shape,
}

impl<'i> ImageReader<'i> {
    /// Checks the header and the checksum.
    ///
    /// # Errors
    /// The bytes are not a whole image of this layout.
    pub fn new(image: &'i super::Image) -> Result<Self, ImageError> {
        Self::from_lines(&image.lines)
    }

    pub(crate) fn from_lines(lines: &'i [Line]) -> Result<Self, ImageError> {
        let bytes = size_of_val(lines);
        if lines.len() < header_lines() {
            return Err(ImageError::Length { bytes, lines: 0 });
        }
        let header: &[u8] = bytemuck::cast_slice(&lines[..header_lines()]);
        let shape: Shape = bytemuck::pod_read_unaligned(&header[..size_of::<Shape>()]);
        if shape.magic != abi::IMAGE_MAGIC {
            return Err(ImageError::Magic(shape.magic));
        }
        if shape.layout != abi::IMAGE_LAYOUT {
            return Err(ImageError::Layout(shape.layout));
        }
        if shape.lines as usize != lines.len() {
            return Err(ImageError::Length {
                bytes,
                lines: shape.lines,
            });
        }
        if shape.checksum != checksum(&lines[header_lines()..]) {
            return Err(ImageError::Checksum);
        }
        Ok(Self { lines, shape })
    }

    /// The verdict on a parsed frame, why, and the number of the rule that decided.
    pub fn judge(&self, parsed: &Parsed) -> (Verdict, Reason, Option<u32>) {
        let malformed = self.verdict_if(abi::FEATURE_MALFORMED_DROP);
        let packet = match parsed {
            Parsed::NonIp => return (Verdict::Pass, Reason::NonIp, None),
            Parsed::VlanDepth => return (malformed, Reason::VlanDepth, None),
            Parsed::Malformed => return (malformed, Reason::Malformed, None),
            Parsed::Ip(packet) => packet,
        };
        if self.shape.features & abi::FEATURE_FAILSAFE != 0 && self.is_failsafe(packet) {
            return (Verdict::Pass, Reason::Failsafe, None);
        }
        let rule = self.find_rule(packet);
        if rule != NO_RULE {
            let record: RuleRecord = self.item(self.shape.rules, rule).unwrap_or(RuleRecord {
                flags: 0,
                counter: 0,
            });
            let drop = record.flags & abi::RULE_DROP != 0;
            return (
                if drop { Verdict::Drop } else { Verdict::Pass },
                Reason::Rule,
                Some(rule),
            );
        }
        if packet.malformed {
            (malformed, Reason::Malformed, None)
        } else {
            (
                self.verdict_if(abi::FEATURE_DEFAULT_DROP),
                Reason::Default,
                None,
            )
        }
    }

    fn verdict_if(&self, feature: u32) -> Verdict {
        if self.shape.features & feature != 0 {
            Verdict::Drop
        } else {
            Verdict::Pass
        }
    }

    fn line(&self, number: u32) -> Option<&'i Line> {
        self.lines.get(number as usize)
    }

    /// Item `index` of a section that begins at line `first`.
    fn item<T: Pod>(&self, first: u32, index: u32) -> Option<T> {
        let per_line = (size_of::<Line>() / size_of::<T>()) as u32;
        let line = self.line(first.wrapping_add(index / per_line))?;
        let items: &[T] = bytemuck::cast_slice(&line.0);
        items.get((index % per_line) as usize).copied()
    }

    fn is_failsafe(&self, packet: &Packet) -> bool {
        let (v6, src) = address(packet.src);
        match (packet.protocol, packet.ports) {
            (Some(17), Some((sport, dport))) => {
                let dhcp4 = |port| port == 67 || port == 68;
                if v6 {
                    (dport == 546 || dport == 547) && src >> 118 == 0xfe80 >> 6
                } else {
                    dhcp4(sport) && dhcp4(dport)
                }
            }
            (Some(58), _) if v6 => {
                packet.icmp.is_some_and(|(t, _)| (133..=137).contains(&t)) && packet.ttl == 255
            }
            (Some(6), Some((_, 22))) if self.shape.features & abi::FEATURE_SSH != 0 => {
                (0..self.shape.ssh_count.min(16)).any(|i| {
                    self.item::<SshPrefix>(self.shape.ssh, i).is_some_and(|p| {
                        v6 == (i >= self.shape.ssh_v4_count)
                            && (src >> 64) as u64 & p.mask_hi == p.hi
                            && src as u64 & p.mask_lo == p.lo
                    })
                })
            }
            _ => false,
        }
    }

    fn find_rule(&self, packet: &Packet) -> u32 {
        let mut rule = NO_RULE;
        let mut rows = [0; AXIS_COUNT];
        let directions = [
            (AXIS_SRC, abi::FEATURE_SRC, packet.src),
            (AXIS_DST, abi::FEATURE_DST, packet.dst),
        ];
        let structured = self.shape.features & abi::FEATURE_STRUCTURED != 0;
        for (direction, feature, addr) in directions {
            if self.shape.features & feature == 0 {
                continue;
            }
            let axis = &self.shape.address[direction];
            let outcome = self.find_outcome(axis, address(addr));
            if !structured {
                rule = rule.min(outcome.wrapping_sub(1));
            } else if let Some(found) = self.item::<abi::Outcome>(axis.outcomes, outcome) {
                rule = rule.min(found.best);
                rows[direction] = found.row;
            }
        }
        if self.shape.features & abi::FEATURE_STRUCTURED != 0 {
            rule = rule.min(self.find_structured(packet, rows).unwrap_or(NO_RULE));
        }
        rule
    }

    fn find_outcome(&self, axis: &AddressAxis, (v6, address): (bool, u128)) -> u32 {
        let index = if v6 { &axis.v6 } else { &axis.v4 };
        let mut outcome = 0;
        if index.host_lines != 0 {
            outcome = if v6 {
                self.find6(index.hosts, index.host_lines, address, 0)
            } else {
                self.find_host4(index, address as u32)
            };
        }
        if outcome == 0 && index.root != 0 {
            outcome = if v6 {
                self.find_prefix6(index, address)
            } else {
                self.find_prefix4(index, address as u32)
            };
        }
        if outcome == 0 { index.miss } else { outcome }
    }

    fn find_host4(&self, index: &AddressIndex, address: u32) -> u32 {
        let hash = hash4(self.shape.seed, address);
        let mark = 1u64 << (hash & 63);
        let lines = index.host_lines;
        for number in [home_line(hash, lines), other_line(hash, lines)] {
            let Some(Line(w)) = self.line(index.hosts.wrapping_add(number)) else {
                return 0;
            };
            let slots = w[2..2 + 2 * HOST4_SLOTS].chunks_exact(2);
            if let Some(slot) = slots.into_iter().find(|s| s[0] == address) {
                return slot[1];
            }
            if (u64::from(w[1]) << 32 | u64::from(w[0])) & mark == 0 {
                return 0;
            }
        }
        0
    }

    fn find6(&self, first: u32, lines: u32, address: u128, length: u32) -> u32 {
        let hash = hash6(self.shape.seed, address, length);
        let key: [u32; 4] = bytemuck::cast([(address >> 64) as u64, address as u64]);
        for number in [home_line(hash, lines), other_line(hash, lines)] {
            let Some(Line(w)) = self.line(first.wrapping_add(number)) else {
                return 0;
            };
            let found = (0..HOST6_SLOTS)
                .filter(|i| w[4 + 4 * i..8 + 4 * i] == key && w[1 + i] >> OUTCOME_BITS == length)
                .fold(0, |found, i| found | w[1 + i]);
            if found != 0 || w[0] & 1 << (hash & 31) == 0 {
                return found;
            }
        }
        0
    }

    fn find_prefix4(&self, index: &AddressIndex, address: u32) -> u32 {
        let mut entry: u32 = self.item(index.root, address >> 16).unwrap_or(0);
        for shift in [8, 0] {
            if entry & ENTRY_BLOCK == 0 {
                break;
            }
            let block = (entry & !ENTRY_BLOCK).wrapping_mul(BLOCK_LINES);
            entry = self
                .item(index.blocks.wrapping_add(block), address >> shift & 255)
                .unwrap_or(0);
        }
        entry
    }

    fn find_prefix6(&self, index: &AddressIndex, address: u128) -> u32 {
        let (mut node, mut best) = (1, 0);
        for _ in 0..LENGTH_STEPS {
            let Some(at) = self.item::<abi::LengthNode>(index.root, node) else {
                break;
            };
            let mask = u128::from(at.mask_hi) << 64 | u128::from(at.mask_lo);
            let found = self.find6(index.blocks, index.block_count, address & mask, at.length);
            if found != 0 {
                best = found & ((1 << OUTCOME_BITS) - 1);
                node = at.after_hit;
            } else {
                node = at.after_miss;
            }
            if node == 0 {
                break;
            }
        }
        best
    }

    fn find_structured(&self, packet: &Packet, mut rows: [u32; AXIS_COUNT]) -> Option<u32> {
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
        let mut summary = and_rows(0)?;
        while summary != 0 {
            let word = summary.trailing_zeros();
            summary &= summary - 1;
            let all = and_rows(word + 1)?;
            if all != 0 {
                return self.item(shape.structured, word * 64 + all.trailing_zeros());
            }
        }
        None
    }
}

/// Whether IPv6, and the address as a number.
fn address(addr: std::net::IpAddr) -> (bool, u128) {
    match addr {
        std::net::IpAddr::V4(a) => (false, u128::from(a.to_bits())),
        std::net::IpAddr::V6(a) => (true, a.to_bits()),
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
