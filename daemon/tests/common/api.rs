//! A daemon on one end of a veth pair, its neighbour, and a client of its API.

use std::net::UdpSocket;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use xdpgate_api::MAX_MESSAGE;
use xdpgate_api::v1::firewall_client::FirewallClient;
use xdpgate_api::v1::{ApplyPolicyRequest, ApplyPolicyResponse};

use super::Scratch;
use super::daemon::Daemon;
use super::namespace::Namespace;

pub type Client = FirewallClient<Channel>;

/// The daemon's interface is `xg0` with 10.9.0.1, the neighbour's `xg1` with 10.9.0.2.
pub struct Scene {
    pub daemon: Daemon,
    pub host: Namespace,
    pub peer: Namespace,
    pub scratch: Scratch,
}

impl Scene {
    /// Enforces, and attaches `xg0` and what else has a name like `xg*` by itself.
    #[track_caller]
    pub fn new() -> Self {
        Self::with("")
    }

    /// Likewise, with more keys at the top of the configuration.
    #[track_caller]
    pub fn with(more: &str) -> Self {
        let scratch = Scratch::new();
        let host = Namespace::new();
        let peer = host.neighbour(("xg0", "10.9.0.1/24"), ("xg1", "10.9.0.2/24"));
        let config = scratch.file(
            "xdpgated.toml",
            format!(
                "enforce = true\n{more}\n[interfaces]\nclass = \"none\"\ninclude = [\"xg*\"]\n"
            ),
        );
        let daemon = Daemon::start(&host, &scratch, &["--config", &config]);
        Self {
            daemon,
            host,
            peer,
            scratch,
        }
    }

    pub async fn client(&self) -> Client {
        let endpoint = Endpoint::from_shared(self.daemon.server.clone()).expect("an endpoint");
        FirewallClient::new(endpoint.connect().await.expect("a connection"))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    /// A socket of the neighbour.
    pub fn sender(&self) -> UdpSocket {
        self.peer
            .run(|| UdpSocket::bind("10.9.0.2:0"))
            .expect("a socket")
    }

    /// A socket of the host at port 9 that does not wait long.
    pub fn receiver(&self) -> UdpSocket {
        let socket = self.host.receiver("10.9.0.1:9");
        socket
            .set_read_timeout(Some(Duration::from_millis(300)))
            .expect("a timeout");
        socket
    }
}

/// Whether a datagram that is sent now arrives.
pub fn arrives(sender: &UdpSocket, receiver: &UdpSocket) -> bool {
    sender.send_to(b"payload", "10.9.0.1:9").expect("sent");
    receiver.recv(&mut [0; 64]).is_ok()
}

pub async fn apply(client: &mut Client, yaml: &str) -> ApplyPolicyResponse {
    let request = ApplyPolicyRequest {
        yaml: yaml.to_owned(),
        ..Default::default()
    };
    let applied = client.apply_policy(request).await;
    applied.expect("applied").into_inner()
}
