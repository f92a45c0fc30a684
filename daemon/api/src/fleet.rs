//! What a node of a fleet and its controller say to each other: `proto/xdpgate/fleet/v1/fleet.proto`.

/// Version 1 of the protocol: package `xdpgate.fleet.v1`. It is extended, never broken.
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/importing/xdpgate.fleet.v1.rs"));

    /// The encoded `FileDescriptorSet` of this package.
    pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("xdpgate.fleet.v1");
}

/// Named in what is signed; another encoding takes another name.
const SIGNED: &[u8] = b"xdpgate-fleet-state-1\n";

/// The bytes of a state that the fleet's key signs: every field but the signature, each of fixed width
/// or behind its length, big-endian.
pub fn signed_bytes(state: &v1::State) -> Vec<u8> {
    let mut out = SIGNED.to_vec();
    for part in [state.epoch.as_bytes(), &state.hash] {
        out.extend_from_slice(&(part.len() as u64).to_be_bytes());
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&state.sequence.to_be_bytes());
    out.extend_from_slice(&state.mode.to_be_bytes());
    out
}
