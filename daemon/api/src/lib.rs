//! The gRPC API of `xdpgated`: messages, client and server, generated from
//! `proto/xdpgate/v1/xdpgate.proto`, which is where everything is documented.
//!
//! A client in any language can be made from that file, or from a running daemon by server
//! reflection. In Rust, with the default feature `transport`:
//!
//! ```no_run
//! use xdpgate_api::v1::{GetStatusRequest, firewall_client::FirewallClient};
//!
//! # async fn status() -> Result<(), Box<dyn std::error::Error>> {
//! let mut client = FirewallClient::connect("unix:/run/xdpgate/xdpgated.sock").await?;
//! let status = client.get_status(GetStatusRequest {}).await?.into_inner();
//! println!("xdpgated {}, dry run: {}", status.version, status.dry_run);
//! # Ok(())
//! # }
//! ```

/// Version 1 of the API: package `xdpgate.v1`. It is extended, never broken.
pub mod v1 {
    tonic::include_proto!("xdpgate.v1");

    /// The encoded `FileDescriptorSet` of this package, for server reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("xdpgate.v1");

    /// The full name of the service, as reflection and health know it.
    pub const SERVICE: &str = "xdpgate.v1.Firewall";
}

pub mod fleet;

/// The largest message that server and client take, in bytes: a policy of some millions of entries.
pub const MAX_MESSAGE: usize = 128 << 20;
