//! Sampled frames as a pcapng file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use jiff::Timestamp;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};

#[cfg(feature = "kernel")]
use crate::Event;

/// Writes sampled drops as a pcapng file, which Wireshark and tshark open.
///
/// Each frame carries a time in nanoseconds and, as its comment, what became of it and why:
/// `drop rule=block-bad reason=rule generation=7 queue=0`. Each interface is described when its
/// first frame is written.
///
/// ```no_run
/// # #[cfg(feature = "kernel")]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::fs::File;
/// use std::io::BufWriter;
///
/// use xdpgate::{EventOptions, Firewall, PcapngWriter};
///
/// let firewall = Firewall::loader().load()?;
/// let mut file = PcapngWriter::new(BufWriter::new(File::create("drops.pcapng")?))?;
/// for event in firewall.events(EventOptions::default())?.take(100) {
///     file.write(&event)?;
/// }
/// file.flush()?;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "kernel"))]
/// # fn main() {}
/// ```
pub struct PcapngWriter<W: Write> {
    writer: PcapNgWriter<W>,
    interfaces: HashMap<(u32, Option<String>), u32>,
}

/// A sampled frame that did not come as an event of this process: over an API, say.
#[derive(Debug, Clone)]
pub struct PcapngFrame<'a> {
    /// When it was judged.
    pub time: Timestamp,
    /// The number of the interface that it came in by.
    pub ifindex: u32,
    /// Its name; the number stands for it in the file if there is none.
    pub interface: Option<&'a str>,
    /// The length of the frame in bytes, from its Ethernet header on.
    pub length: u32,
    /// The beginning of the frame.
    pub data: &'a [u8],
    /// What is to be said about it: its comment in the file.
    pub comment: &'a str,
}

/// 10^-9 seconds.
const NANOSECONDS: u8 = 9;
/// So many bytes of a frame are sampled at most.
pub(crate) const SAMPLED: u32 = 128;
/// `epb_flags`: came in.
const INBOUND: u32 = 1;

impl<W: Write> PcapngWriter<W> {
    /// Writes the header of the file.
    ///
    /// # Errors
    /// The writer's.
    pub fn new(writer: W) -> io::Result<Self> {
        Ok(Self {
            writer: PcapNgWriter::new(writer).map_err(to_io)?,
            interfaces: HashMap::new(),
        })
    }

    /// Writes one frame.
    ///
    /// # Errors
    /// The writer's.
    #[cfg(feature = "kernel")]
    pub fn write(&mut self, event: &Event) -> io::Result<()> {
        self.write_frame(&PcapngFrame {
            time: event.time,
            ifindex: event.ifindex.get(),
            interface: event.interface.as_deref(),
            length: event.length,
            data: &event.data,
            comment: &Comment(event).to_string(),
        })
    }

    /// Writes one frame that is no event of this process.
    ///
    /// # Errors
    /// The writer's.
    pub fn write_frame(&mut self, frame: &PcapngFrame<'_>) -> io::Result<()> {
        let since_1970 = u64::try_from(frame.time.as_nanosecond())
            .map_err(|_| io::Error::other("the time of the event is before 1970"))?;
        let block = EnhancedPacketBlock {
            interface_id: self.interface(frame.ifindex, frame.interface)?,
            timestamp: Duration::from_nanos(since_1970),
            original_len: frame.length,
            data: Cow::Borrowed(frame.data),
            options: vec![
                EnhancedPacketOption::Comment(frame.comment.into()),
                EnhancedPacketOption::Flags(INBOUND),
            ],
        };
        self.writer.write_pcapng_block(block).map_err(to_io)?;
        Ok(())
    }

    /// Flushes the writer.
    ///
    /// # Errors
    /// The writer's.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.get_mut().flush()
    }

    /// Gives the writer back.
    pub fn into_inner(self) -> W {
        self.writer.into_inner()
    }

    /// The number of an interface in the file, which describes it if need be.
    fn interface(&mut self, ifindex: u32, name: Option<&str>) -> io::Result<u32> {
        let key = (ifindex, name.map(str::to_owned));
        if let Some(number) = self.interfaces.get(&key) {
            return Ok(*number);
        }
        let name = match name {
            Some(name) => name.to_owned(),
            None => format!("if{ifindex}"),
        };
        let block = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: SAMPLED,
            options: vec![
                InterfaceDescriptionOption::IfName(name.into()),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        self.writer.write_pcapng_block(block).map_err(to_io)?;
        let number = self.interfaces.len() as u32;
        self.interfaces.insert(key, number);
        Ok(number)
    }
}

impl<W: Write> fmt::Debug for PcapngWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PcapngWriter")
            .field("interfaces", &self.interfaces)
            .finish_non_exhaustive()
    }
}

/// What the packet comment says.
#[cfg(feature = "kernel")]
struct Comment<'e>(&'e Event);

#[cfg(feature = "kernel")]
impl fmt::Display for Comment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = self.0;
        f.write_str(event.disposition.as_str())?;
        if let Some(rule) = &event.rule {
            write!(f, " rule={rule}")?;
        }
        write!(
            f,
            " reason={} generation={} queue={}",
            event.reason, event.generation, event.queue
        )
    }
}

fn to_io(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other.to_string()),
    }
}
