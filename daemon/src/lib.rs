//! The reference daemon of xdpgate and its command-line client: two binaries over one library.
//!
//! Both are thin. `xdpgated` ([`agent`]) keeps a [`Firewall`](xdpgate::Firewall) attached and
//! serves [the gRPC API](xdpgate_api); `xdpgate` ([`client`]) speaks that API, and does without a
//! daemon what needs none: `eval`, `load`, `unload`, `policy check`. They use nothing of the
//! library that is not public, so anything here can be done by another daemon as well.
#![deny(unsafe_code)]

pub mod agent;
pub mod client;
mod endpoint;
mod libbpf;

pub use endpoint::{Endpoint, EndpointError};
pub use xdpgate_service::Failure;

/// A policy file was read and then not applied.
fn not_applied(file: &std::path::Path, error: &xdpgate::ApplyError) -> Failure {
    match error {
        xdpgate::ApplyError::Policy(error) => Failure::policy(file, error),
        _ => Failure::operation(error),
    }
}
