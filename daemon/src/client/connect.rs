//! Connecting to a daemon: TLS, tokens, and why it did not work.

use std::env;
use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, AlertDescription, CertificateError, ClientConfig, RootCertStore};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint as Transport, Identity};
use tonic::{Request, Status};
use xdpgate_api::MAX_MESSAGE;
use xdpgate_api::v1::firewall_client::FirewallClient;
use xdpgate_service::files::{self, Others};

use super::args::Remote;
use crate::Failure;
use crate::agent::access::is_placeholder_text;
use crate::endpoint::Endpoint;

/// The client of the service.
pub(super) type Client = FirewallClient<InterceptedService<Channel, Bearer>>;

/// Sends the token along, if there is one.
#[derive(Debug, Clone)]
pub(super) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            let metadata = request.metadata_mut();
            metadata.insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// Connects as the options say.
pub(super) async fn connect(remote: &Remote) -> Result<Client, Failure> {
    let server = &remote.server;
    let mut transport = Transport::from_shared(server.uri())
        .map_err(|e| Failure::input(server, e))?
        .connect_timeout(CONNECT_TIMEOUT);
    if let Some(tls) = tls(remote)? {
        transport = transport
            .tls_config(tls)
            .map_err(|e| Failure::input("--ca, --cert, --key", root_cause(&e)))?;
    }
    let bearer = Bearer(token(remote)?);
    let channel = match transport.connect().await {
        Ok(channel) => channel,
        Err(error) => {
            let said = match tls_reason(&error) {
                None if is_broken_off(&error) => broken_off(remote).await,
                said => said,
            };
            return Err(match said {
                Some(said) => Failure::operation(format!("{server}: {said}")),
                None => unreachable(server, &error),
            });
        }
    };
    Ok(FirewallClient::with_interceptor(channel, bearer)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE))
}

fn tls(remote: &Remote) -> Result<Option<ClientTlsConfig>, Failure> {
    let Endpoint::Tls { host, .. } = &remote.server else {
        let given = remote.cert.is_some() || remote.ca.is_some() || remote.server_name.is_some();
        return match given {
            true => Err(Failure::input(
                "--ca, --cert, --server-name",
                format!(
                    "there is no TLS with {}: write https://HOST:PORT",
                    remote.server
                ),
            )),
            false => Ok(None),
        };
    };
    let ca = remote.ca.as_ref().ok_or_else(|| {
        Failure::input(
            "--ca",
            "it is missing: the CA of the daemon's certificate, in PEM",
        )
    })?;
    let name = remote.server_name.as_ref().unwrap_or(host);
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(pem("--ca", ca)?))
        .domain_name(name);
    // clap takes both or neither.
    if let (Some(cert), Some(key)) = (&remote.cert, &remote.key) {
        let key = files::read(key, Others::MayNothing).map_err(|e| Failure::input("--key", e))?;
        tls = tls.identity(Identity::from_pem(pem("--cert", cert)?, key));
    }
    Ok(Some(tls))
}

fn pem(option: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|e| Failure::input(option, format!("{}: {e}", path.display())))
}

/// From the file, or from the environment; never from the command line, which others can read.
fn token(remote: &Remote) -> Result<Option<MetadataValue<Ascii>>, Failure> {
    let (source, token) = match (&remote.token_file, env::var(TOKEN)) {
        (Some(file), _) => {
            let token = files::read(file, Others::MayNothing);
            (
                "--token-file",
                token.map_err(|e| Failure::input("--token-file", e))?,
            )
        }
        (None, Ok(token)) => (TOKEN, token),
        (None, Err(_)) => return Ok(None),
    };
    let token = token.trim();
    if is_placeholder_text(token) {
        return Err(Failure::input(
            source,
            "it is empty or a placeholder; `xdpgated token new` makes a token",
        ));
    }
    let header = format!("Bearer {token}").parse();
    let mut header: MetadataValue<Ascii> =
        header.map_err(|_| Failure::input(source, "it is not one line of ASCII"))?;
    header.set_sensitive(true);
    Ok(Some(header))
}

/// Why there is no connection: what the system or TLS said, and what to do.
fn unreachable(server: &Endpoint, error: &tonic::transport::Error) -> Failure {
    let cause = root_cause(error);
    let mend = match cause.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::PermissionDenied) => "use sudo, or a socket that you may open",
        _ => "is xdpgated running? --server or XDPGATE_SERVER says where",
    };
    Failure::operation(format!("no daemon answers at {server}: {cause}; {mend}"))
}

/// Whether there was a connection.
fn is_broken_off(error: &tonic::transport::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let kind = root_cause(error)
        .downcast_ref::<io::Error>()
        .map(io::Error::kind);
    kind.is_none_or(|kind| {
        [
            BrokenPipe,
            ConnectionAborted,
            ConnectionReset,
            UnexpectedEof,
        ]
        .contains(&kind)
    })
}

fn root_cause<'e>(error: &'e (dyn Error + 'static)) -> &'e (dyn Error + 'static) {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}

/// Which of the two sides broke off a TLS handshake, and why, if that is what happened.
fn tls_reason(error: &(dyn Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // One that is wrapped by an io::Error is not among its sources.
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        let inner = inner.and_then(|e| e.downcast_ref::<rustls::Error>());
        if let Some(said) = error.downcast_ref::<rustls::Error>().or(inner) {
            return Some(tls_text(said));
        }
        cause = error.source();
    }
    None
}

/// What the daemon says of a connection that it took and broke off: in TLS 1.3 a client has ended its
/// handshake before the server looks at its certificate, and by then nobody listens. So it is done once
/// more, and waited for.
pub(super) async fn broken_off(remote: &Remote) -> Option<String> {
    let Endpoint::Tls { host, port } = &remote.server else {
        return None;
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(remote.ca.as_ref()?).ok()? {
        roots.add(certificate.ok()?).ok()?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        .with_root_certificates(roots);
    let mut config = match (&remote.cert, &remote.key) {
        (Some(cert), Some(key)) => {
            let chain: Result<_, _> = CertificateDer::pem_file_iter(cert).ok()?.collect();
            let key = PrivateKeyDer::from_pem_file(key).ok()?;
            config.with_client_auth_cert(chain.ok()?, key).ok()?
        }
        _ => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = remote.server_name.as_ref().unwrap_or(host).clone();
    let name = ServerName::try_from(name).ok()?;
    let said = async {
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        let mut stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await?;
        stream.read_u8().await
    };
    let said = tokio::time::timeout(CONNECT_TIMEOUT, said).await.ok()?;
    tls_reason(&said.err()?)
}

fn tls_text(error: &rustls::Error) -> String {
    use rustls::Error;
    match error {
        Error::AlertReceived(alert) => {
            let why = match alert {
                AlertDescription::CertificateRequired => {
                    "it wants a client certificate: give --cert and --key"
                }
                AlertDescription::CertificateExpired => "our certificate (--cert) has expired",
                AlertDescription::UnknownCA | AlertDescription::DecryptError => {
                    "our certificate (--cert) is not of the CA that it takes (api.tls.client_ca)"
                }
                AlertDescription::ProtocolVersion => "it does not speak TLS 1.3",
                other => return format!("the daemon refused the connection: TLS alert {other:?}"),
            };
            format!("the daemon refused the connection: {why}")
        }
        Error::InvalidCertificate(e) => {
            let why = match e {
                CertificateError::UnknownIssuer => {
                    "it is not of the CA in --ca; is it the right one?".to_owned()
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "it has expired: renew it on the node".to_owned()
                }
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => {
                    format!("{e}; --server-name says which name it has")
                }
                e => e.to_string(),
            };
            format!("we refuse the daemon's certificate: {why}")
        }
        Error::InvalidMessage(_) => {
            "what answers there does not speak TLS: is it http://, or another port?".to_owned()
        }
        other => format!("TLS: {other}"),
    }
}

const TOKEN: &str = "XDPGATE_TOKEN";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
