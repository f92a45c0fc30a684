//! Reads an image the way the XDP program does.

mod address;
mod rules;

use bytemuck::Pod;

use super::checksum;
use super::writer::header_lines;
use crate::abi::{self, Line, NO_RULE, Shape};
use crate::packet::{Packet, Parsed};
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

/// What is not in a frame but has a say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Surroundings {
    /// The time, in ticks of the [clock](crate::compile::Clock) that the image was made with.
    pub ticks: u64,
    /// The interface scopes that the frame came in by, one bit each.
    pub scopes: u64,
}

/// What an image says of a frame. Rules go by their number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// What happens to the frame.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The rule that decided.
    pub rule: Option<u32>,
    /// Rules that matched before it and only count, or are in monitor mode.
    pub passed: Vec<u32>,
}

impl Judgement {
    fn new(verdict: Verdict, reason: Reason) -> Self {
        Self {
            verdict,
            reason,
            rule: None,
            passed: Vec::new(),
        }
    }
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
        Ok(Self::trusted(lines, shape))
    }

    /// Reads lines that this process made, without looking at them first.
    pub(crate) fn trusted(lines: &'i [Line], shape: Shape) -> Self {
        Self { lines, shape }
    }

    /// Judges a parsed frame.
    pub fn judge(&self, parsed: &Parsed, around: Surroundings) -> Judgement {
        self.judge_with(parsed, around, |_| false)
    }

    /// Likewise, with bans, which lie outside of any image.
    pub(crate) fn judge_with(
        &self,
        parsed: &Parsed,
        around: Surroundings,
        is_banned: impl FnOnce(&Packet) -> bool,
    ) -> Judgement {
        let malformed = self.verdict_if(abi::FEATURE_MALFORMED_DROP);
        let packet = match parsed {
            Parsed::NonIp => return Judgement::new(Verdict::Pass, Reason::NonIp),
            Parsed::VlanDepth => return Judgement::new(malformed, Reason::VlanDepth),
            Parsed::Malformed => return Judgement::new(malformed, Reason::Malformed),
            Parsed::Ip(packet) => packet,
        };
        if self.shape.features & abi::FEATURE_FAILSAFE != 0 && self.is_failsafe(packet) {
            return Judgement::new(Verdict::Pass, Reason::Failsafe);
        }
        if is_banned(packet) {
            return Judgement::new(Verdict::Drop, Reason::Ban);
        }
        let (rule, passed) = self.find_rule(packet, around);
        let judgement = if rule != NO_RULE {
            let drop = self.record(rule).flags & abi::RULE_DROP != 0;
            Judgement {
                rule: Some(rule),
                ..Judgement::new(
                    if drop { Verdict::Drop } else { Verdict::Pass },
                    Reason::Rule,
                )
            }
        } else if packet.malformed {
            Judgement::new(malformed, Reason::Malformed)
        } else {
            Judgement::new(self.verdict_if(abi::FEATURE_DEFAULT_DROP), Reason::Default)
        };
        Judgement {
            passed,
            ..judgement
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
            (Some(6), Some((sport, dport)))
                if self.shape.features & abi::FEATURE_MANAGEMENT != 0 =>
            {
                let ports = u64::from(sport) | u64::from(dport) << 16;
                let local = self.shape.local_ports >> (dport & 63);
                let remote = self.shape.remote_ports >> (sport & 63);
                let count = self.shape.management_count.min(abi::MAX_MANAGEMENT);
                (local | remote) & 1 != 0
                    && (0..count).any(|i| {
                        let listed = self.item::<abi::Management>(self.shape.management, i);
                        listed.is_some_and(|m| {
                            u64::from(v6) == m.v6
                                && (src >> 64) as u64 & m.mask_hi == m.hi
                                && src as u64 & m.mask_lo == m.lo
                                && ports & m.port_mask == m.ports
                        })
                    })
            }
            _ => false,
        }
    }
}

/// Whether IPv6, and the address as a number.
fn address(addr: std::net::IpAddr) -> (bool, u128) {
    match addr {
        std::net::IpAddr::V4(a) => (false, u128::from(a.to_bits())),
        std::net::IpAddr::V6(a) => (true, a.to_bits()),
    }
}
