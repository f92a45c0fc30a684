//! The two ports, as somebody calls them who keeps to no rules.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime,
};
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, SignatureScheme};
use tonic::transport::{Channel, Endpoint};
use xdpgate_api::fleet::v1::fleet_client::FleetClient;
use xdpgate_api::fleet::v1::{JoinRequest, JoinResponse};

use crate::controller::Controller;

/// What a node shows.
#[derive(Clone)]
pub(crate) struct Certificate {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: Vec<u8>,
}

/// Takes any certificate: it is the other end that is tried.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = ring::default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// A connection from an address of loopback.
pub(crate) async fn tcp(to: &str, from: &str) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("{from}:0").parse::<SocketAddr>().unwrap())?;
    socket.connect(to.parse().unwrap()).await
}

/// TLS to the port of nodes.
pub(crate) async fn tls(
    to: &str,
    from: &str,
    certificate: Option<&Certificate>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match certificate {
        None => config.with_no_client_auth(),
        Some(shown) => {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(shown.key.clone()));
            config
                .with_client_auth_cert(shown.chain.clone(), key)
                .unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    let stream = tcp(to, from).await?;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// HTTP/2 to the port of nodes.
pub(crate) async fn channel(
    controller: &Controller,
    from: &'static str,
    certificate: Option<Certificate>,
) -> Result<Channel, tonic::transport::Error> {
    let to = controller.nodes.clone();
    let connector = tower::service_fn(move |_| {
        let (to, certificate) = (to.clone(), certificate.clone());
        async move {
            let stream = tls(&to, from, certificate.as_ref()).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_static("http://localhost").timeout(Duration::from_secs(60));
    endpoint.connect_with_connector(connector).await
}

/// A client of the service for nodes.
pub(crate) async fn client(
    controller: &Controller,
    from: &'static str,
    certificate: Option<Certificate>,
) -> Result<FleetClient<Channel>, tonic::transport::Error> {
    channel(controller, from, certificate)
        .await
        .map(FleetClient::new)
}

/// A call of the API by its first user.
pub(crate) async fn rest(
    controller: &Controller,
    method: Method,
    path: &str,
    body: Value,
) -> (StatusCode, Value) {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(20));
    let url = format!("{}/api/v1{path}", controller.url);
    let mut request = client.build().unwrap().request(method, url);
    if !body.is_null() {
        request = request.json(&body);
    }
    let answer = request
        .bearer_auth(controller.token())
        .send()
        .await
        .unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    (
        status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

/// A new join token.
pub(crate) async fn join_token(controller: &Controller, body: Value) -> String {
    let (status, made) = rest(controller, Method::POST, "/join-tokens", body).await;
    assert_eq!(status, 201, "{made}");
    made["secret"].as_str().unwrap().to_owned()
}

/// A request to join by a token, and the key of it.
pub(crate) fn request(token: &str, name: &str) -> (JoinRequest, Vec<u8>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    // Whoever signs it does not have to believe it.
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    let csr = params.serialize_request(&key).unwrap();
    let request = JoinRequest {
        token: token.to_owned(),
        csr: csr.der().to_vec(),
        ..JoinRequest::default()
    };
    (request, key.serialize_der())
}

/// A new member.
pub(crate) async fn join(controller: &Controller, labels: Value) -> (JoinResponse, Certificate) {
    let token = join_token(controller, serde_json::json!({ "labels": labels })).await;
    let mut client = client(controller, "127.0.0.1", None).await.unwrap();
    let (request, key) = request(&token, "somebody");
    let joined = client.join(request).await.unwrap().into_inner();
    let chain = joined
        .certificate_chain
        .iter()
        .cloned()
        .map(CertificateDer::from);
    let chain = chain.collect();
    (joined, Certificate { chain, key })
}

/// The entries of the audit log of one action, once there are so many.
pub(crate) async fn audited(controller: &Controller, action: &str, many: usize) -> Vec<Value> {
    let path = format!("/audit?action={action}&limit=100");
    for _ in 0..100 {
        let (_, page) = rest(controller, Method::GET, &path, Value::Null).await;
        let items = page["items"].as_array().unwrap().clone();
        if items.len() >= many {
            return items;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not {many} of {action} in the audit log");
}
