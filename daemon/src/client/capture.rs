//! Capture files: classic pcap in both byte orders and resolutions, and pcapng.

use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use pcap_parser::pcapng::Block;
use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{InterfaceDescriptionBlock, Linktype, PcapBlockOwned, PcapError, create_reader};

use crate::Failure;

/// A capture file that was read to its end once, so that it is known to be whole.
#[derive(Debug)]
pub(super) struct Capture {
    path: PathBuf,
    /// What came out of something that can be read only once, as a pipe.
    bytes: Option<Vec<u8>>,
}

/// A frame of a capture file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    /// Its place in the file, from 0.
    pub index: u64,
    /// When it was captured; the epoch if the file does not say.
    pub at: Timestamp,
    /// What was captured of it.
    pub bytes: &'a [u8],
}

impl Capture {
    /// Opens a file and checks all of it.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let unreadable = |e| Failure::input(path.display(), e);
        let bytes = match fs::metadata(path).map_err(unreadable)?.is_file() {
            true => None,
            false => Some(fs::read(path).map_err(unreadable)?),
        };
        let capture = Self {
            path: path.to_owned(),
            bytes,
        };
        capture.for_each(|_| Ok(()))?;
        Ok(capture)
    }

    /// Hands over every frame, in the order of the file.
    pub(super) fn for_each(
        &self,
        mut visit: impl FnMut(Frame<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let source: Box<dyn Read + Send + '_> = match &self.bytes {
            Some(bytes) => Box::new(Cursor::new(bytes)),
            None => Box::new(
                File::open(&self.path).map_err(|e| Failure::input(self.path.display(), e))?,
            ),
        };
        let fault = |fault: Fault, index: u64| {
            let file = self.path.display();
            match fault {
                Fault::File(reason) => Failure::input(file, reason),
                Fault::Frame(reason) => Failure::input(format!("{file}: frame {index}"), reason),
            }
        };
        let mut reader = create_reader(FIRST_BUFFER, source).map_err(|e| fault(e.into(), 0))?;
        let mut reading = Reading::default();
        let mut index = 0;
        loop {
            let (length, block) = match next(&mut *reader) {
                Ok(Some(next)) => next,
                Ok(None) => return Ok(()),
                Err(e) => return Err(fault(e, index)),
            };
            if let Some((at, bytes)) = reading.block(&block).map_err(|e| fault(e, index))? {
                visit(Frame { index, at, bytes })?;
                index += 1;
            }
            reader.consume(length);
        }
    }

    /// Names the file and a frame in it, for errors.
    pub(super) fn place(&self, index: u64) -> String {
        format!("{}: frame {index}", self.path.display())
    }
}

/// What is wrong with a capture file.
enum Fault {
    /// With the file as such.
    File(String),
    /// With the frame that is being read.
    Frame(String),
}

impl<I> From<PcapError<I>> for Fault {
    fn from(error: PcapError<I>) -> Self {
        let file = |reason: &str| Self::File(reason.to_owned());
        match error {
            PcapError::Eof => file("the file is empty, not a pcap or pcapng file"),
            PcapError::HeaderNotRecognized | PcapError::Incomplete(_) => {
                file("not a pcap or pcapng file")
            }
            PcapError::UnexpectedEof => Self::Frame("the file ends in the middle of it".into()),
            PcapError::BufferTooSmall => Self::Frame(format!(
                "claims to be longer than {} MiB: the file is damaged",
                LARGEST_BUFFER >> 20
            )),
            PcapError::ReadError => file("cannot be read"),
            PcapError::NomError(..) | PcapError::OwnedNomError(..) => {
                Self::Frame("the file is damaged there".into())
            }
        }
    }
}

/// The next block; `None` at the end of the file. The buffer grows as far as a block needs it.
fn next<'r>(
    reader: &'r mut (dyn PcapReaderIterator + Send + '_),
) -> Result<Option<(usize, PcapBlockOwned<'r>)>, Fault> {
    let mut capacity = FIRST_BUFFER;
    loop {
        match reader.next() {
            Ok(_) => break,
            Err(PcapError::Eof) => return Ok(None),
            Err(PcapError::Incomplete(_)) => reader.refill()?,
            Err(PcapError::BufferTooSmall) if capacity < LARGEST_BUFFER => {
                capacity *= 2;
                reader.grow(capacity);
                reader.refill()?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    // Asked again because the borrow checker cannot follow a borrow that leaves a loop.
    Ok(Some(reader.next()?))
}

/// What is known so far of the file being read.
#[derive(Default)]
struct Reading {
    /// Of a classic file: nanoseconds in a unit of the fraction of a second.
    fraction: u32,
    /// Of the current section of a pcapng file.
    big_endian: bool,
    interfaces: Vec<Interface>,
}

/// An interface of a pcapng section.
struct Interface {
    linktype: Linktype,
    snaplen: u32,
    units_per_second: u128,
    offset_seconds: i64,
}

impl Reading {
    fn block<'a>(
        &mut self,
        block: &'a PcapBlockOwned<'_>,
    ) -> Result<Option<(Timestamp, &'a [u8])>, Fault> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                // The upper bits say whether frames end in a check sequence.
                only_ethernet(Linktype(header.network.0 & 0xffff)).map_err(Fault::File)?;
                self.fraction = if header.is_nanosecond_precision() {
                    1
                } else {
                    1000
                };
                Ok(None)
            }
            PcapBlockOwned::Legacy(frame) => {
                let nanoseconds = i128::from(frame.ts_sec) * NANOSECONDS
                    + i128::from(frame.ts_usec) * i128::from(self.fraction);
                Ok(Some((timestamp(nanoseconds)?, frame.data)))
            }
            PcapBlockOwned::NG(block) => self.section_block(block),
        }
    }

    fn section_block<'a>(
        &mut self,
        block: &'a Block<'_>,
    ) -> Result<Option<(Timestamp, &'a [u8])>, Fault> {
        match block {
            Block::SectionHeader(header) => {
                self.big_endian = header.big_endian();
                self.interfaces.clear();
                Ok(None)
            }
            Block::InterfaceDescription(description) => {
                let interface = self.describe(description)?;
                self.interfaces.push(interface);
                Ok(None)
            }
            Block::EnhancedPacket(frame) => {
                let interface = self.interface(frame.if_id)?;
                let units = u128::from(frame.ts_high) << 32 | u128::from(frame.ts_low);
                let since = units * NANOSECONDS as u128 / interface.units_per_second;
                let nanoseconds =
                    since as i128 + i128::from(interface.offset_seconds) * NANOSECONDS;
                Ok(Some((timestamp(nanoseconds)?, frame.packet_data())))
            }
            Block::SimplePacket(frame) => {
                let interface = self.interface(0)?;
                let bytes = frame.packet_data();
                let captured = match interface.snaplen {
                    0 => bytes.len(),
                    snaplen => bytes.len().min(snaplen as usize),
                };
                Ok(Some((Timestamp::UNIX_EPOCH, &bytes[..captured])))
            }
            Block::Unknown(block) if block.block_type == OBSOLETE_PACKET_BLOCK => {
                Err(Fault::Frame(
                    "an obsolete packet block; rewrite the file with `editcap -F pcapng`".into(),
                ))
            }
            _ => Ok(None),
        }
    }

    fn describe(&self, description: &InterfaceDescriptionBlock<'_>) -> Result<Interface, Fault> {
        let resolution = description.if_tsresol;
        let units_per_second = match (resolution & 0x80 != 0, u32::from(resolution & 0x7f)) {
            (true, power @ 0..=63) => 1 << power,
            (false, power @ 0..=19) => 10u128.pow(power),
            _ => {
                return Err(Fault::File(format!(
                    "time resolution {resolution} is out of range"
                )));
            }
        };
        // pcap-parser 0.17 reads this option as little-endian in every file.
        let offset = description.if_tsoffset;
        Ok(Interface {
            linktype: description.linktype,
            snaplen: description.snaplen,
            units_per_second,
            offset_seconds: if self.big_endian {
                offset.swap_bytes()
            } else {
                offset
            },
        })
    }

    /// The interface of a frame, which must be an Ethernet one; others may be there without frames.
    fn interface(&self, number: u32) -> Result<&Interface, Fault> {
        let interface = self.interfaces.get(number as usize).ok_or_else(|| {
            Fault::Frame(format!(
                "comes from interface {number}, which the file does not describe"
            ))
        })?;
        only_ethernet(interface.linktype).map_err(Fault::Frame)?;
        Ok(interface)
    }
}

fn only_ethernet(linktype: Linktype) -> Result<(), String> {
    match linktype {
        Linktype::ETHERNET => Ok(()),
        other => Err(format!(
            "link type {} is not Ethernet (1), the only one that XDP sees; capture on an Ethernet \
             interface, not on `any`",
            other.0
        )),
    }
}

fn timestamp(nanoseconds: i128) -> Result<Timestamp, Fault> {
    Timestamp::from_nanosecond(nanoseconds)
        .map_err(|_| Fault::Frame("its time is out of range: the file is damaged".into()))
}

const NANOSECONDS: i128 = 1_000_000_000;
const OBSOLETE_PACKET_BLOCK: u32 = 2;
const FIRST_BUFFER: usize = 1 << 16;
const LARGEST_BUFFER: usize = 1 << 24;
