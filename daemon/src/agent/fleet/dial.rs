//! Connections to controllers, and what lets them through the filter.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;
use xdpgate::policy::Prefix;
use xdpgate::{Management, ManagementPort};
use xdpgate_api::fleet::v1::fleet_client::FleetClient;

use super::files::Addresses;
use super::section::Controller;

pub(super) type Client = FleetClient<Channel>;

/// A link that is lost is seen within twice this.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// How long a name, a connection and a handshake may each take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The largest message: a delta, or one chunk of a snapshot.
pub(super) const MOST_MESSAGE: usize = 64 << 20;

/// Connects to the first of these addresses that answers. The certificate has to be for the host.
pub(super) async fn dial(
    controller: &Controller,
    addresses: Vec<IpAddr>,
    tls: Arc<ClientConfig>,
) -> Result<Client, String> {
    if addresses.is_empty() {
        return Err(format!(
            "{}: no address is known for this name",
            controller.host
        ));
    }
    let name = ServerName::try_from(controller.host.clone())
        .map_err(|e| format!("{}: {e}", controller.host))?;
    let port = controller.port;
    let connect = move |_| {
        let (addresses, tls, name) = (addresses.clone(), Arc::clone(&tls), name.clone());
        async move { connect(&addresses, port, tls, name).await.map(TokioIo::new) }
    };
    // TLS is done by what connects: to this library it is a plain connection.
    let of = |e: &dyn std::fmt::Display| format!("{controller}: {e}");
    let origin = controller.to_string().parse().map_err(|e| of(&e))?;
    let endpoint = Endpoint::from_shared(controller.to_string().replacen("https", "http", 1))
        .map_err(|e| of(&e))?
        .origin(origin)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true);
    let channel = endpoint.connect_with_connector(service_fn(connect)).await;
    let channel = channel.map_err(|e| format!("{controller}: {}", with_causes(&e)))?;
    Ok(FleetClient::new(channel)
        .send_compressed(CompressionEncoding::Zstd)
        .accept_compressed(CompressionEncoding::Zstd)
        .max_decoding_message_size(MOST_MESSAGE)
        .max_encoding_message_size(MOST_MESSAGE))
}

async fn connect(
    addresses: &[IpAddr],
    port: u16,
    tls: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let mut problem = String::new();
    for address in addresses {
        let address = SocketAddr::new(*address, port);
        let stream = match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                problem = format!("{address}: {error}");
                continue;
            }
            Err(_) => {
                problem = format!("{address}: no answer in {PATIENCE:?}");
                continue;
            }
        };
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let handshake = TlsConnector::from(tls).connect(name, stream);
        return match timeout(PATIENCE, handshake).await {
            Ok(done) => done.map_err(|e| format!("TLS with {address}: {e}")),
            Err(_) => Err(format!("TLS with {address}: no answer in {PATIENCE:?}")),
        };
    }
    Err(problem)
}

/// An error with what it comes from, in one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Asks for the addresses of all controllers anew. A name that has no answer keeps those that it had.
pub(super) async fn resolve(controllers: &[Controller], known: &Addresses) -> Addresses {
    let mut resolved = BTreeMap::new();
    for controller in controllers {
        let host = &controller.host;
        let asked = timeout(PATIENCE, lookup_host((host.as_str(), controller.port))).await;
        let mut found: Vec<IpAddr> = match asked {
            Ok(Ok(addresses)) => addresses.map(|address| address.ip()).collect(),
            _ => known.get(host).cloned().unwrap_or_default(),
        };
        found.dedup();
        resolved.insert(host.clone(), found);
    }
    resolved
}

/// What passes the filter whatever the policy is: that of the daemon's own, and what controllers answer. As many as
/// there may be.
pub(super) fn management(
    own: &[Management],
    controllers: &[Controller],
    addresses: &Addresses,
) -> Vec<Management> {
    let mut all = own.to_vec();
    for controller in controllers {
        let literal = controller.host.parse::<IpAddr>().ok();
        let found = addresses
            .get(&controller.host)
            .into_iter()
            .flatten()
            .copied();
        for address in literal.into_iter().chain(found) {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            let Some(peer) = Prefix::new(address, bits) else {
                continue;
            };
            let flow = Management::new(peer, ManagementPort::Remote(controller.port));
            if !all.contains(&flow) && all.len() < Management::MAX {
                all.push(flow);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_pass_by_their_addresses_and_after_the_api() {
        let own = Management::new("10.0.0.0/8".parse().expect("one"), ManagementPort::Local(1));
        let controllers = ["https://192.0.2.10:7443", "https://c.example:7444"];
        let mut controllers: Vec<Controller> = controllers
            .iter()
            .map(|text| Controller::parse(text).expect("one"))
            .collect();
        let address = |text: &str| text.parse().expect("an address");
        let mut known = Addresses::new();
        known.insert(
            "c.example".to_owned(),
            vec![address("192.0.2.11"), address("2001:db8::1")],
        );
        let text = |all: Vec<Management>| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            text(management(&[own], &controllers, &known)),
            [
                "TCP from 10.0.0.0/8 to port 1",
                "TCP from 192.0.2.10 port 7443",
                "TCP from 192.0.2.11 port 7444",
                "TCP from 2001:db8::1 port 7444",
            ]
        );
        let many = (0..99).map(|n| Controller {
            host: format!("192.0.2.{n}"),
            port: 1,
        });
        controllers.extend(many);
        let all = management(&[own], &controllers, &known);
        assert_eq!((all.len(), all[0]), (Management::MAX, own));
    }
}
