//! Reads back a pcapng file that was written.

use std::process::Command;

use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};

use super::tools::has_tool;

/// What a file says of a frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    pub interface: String,
    pub comment: String,
    pub length: u32,
    pub data: Vec<u8>,
    pub nanoseconds: u128,
}

/// All frames, in order, by the crate that wrote them.
pub fn read(bytes: &[u8]) -> Vec<Record> {
    let mut reader = PcapNgReader::new(bytes).unwrap();
    let (mut interfaces, mut records) = (Vec::new(), Vec::new());
    while let Some(block) = reader.next_block() {
        match block.unwrap().into_owned() {
            Block::InterfaceDescription(interface) => {
                let options = interface.options;
                assert!(options.contains(&InterfaceDescriptionOption::IfTsResol(9)));
                let name = options.iter().find_map(|o| match o {
                    InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                    _ => None,
                });
                interfaces.push(name.unwrap());
            }
            Block::EnhancedPacket(frame) => {
                let comment = frame.options.iter().find_map(|o| match o {
                    EnhancedPacketOption::Comment(text) => Some(text.to_string()),
                    _ => None,
                });
                records.push(Record {
                    interface: interfaces[frame.interface_id as usize].clone(),
                    comment: comment.unwrap(),
                    length: frame.original_len,
                    data: frame.data.into_owned(),
                    nanoseconds: frame.timestamp.as_nanos(),
                });
            }
            _ => {}
        }
    }
    records
}

/// Fields of each frame of a file as tshark shows them, with `|` between; `None` without tshark.
pub fn tshark(path: &std::path::Path, fields: &[&str]) -> Option<Vec<String>> {
    if !has_tool("tshark", "--captures") {
        return None;
    }
    let mut command = Command::new("tshark");
    command
        .args(["-n", "-T", "fields", "-E", "separator=|", "-r"])
        .arg(path);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output().expect("tshark");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tshark: {error}");
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.lines().map(str::to_owned).collect())
}
