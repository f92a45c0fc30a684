//! TLS by the embedded authority, or by files: what follows a rotation without a restart.

use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    ServerConfig, SignatureScheme,
};

use super::{Authority, SERVER_LIFETIME};
use crate::auth::AuthError;

/// The certificate that a controller shows, of the embedded authority, for some names and addresses.
#[derive(Debug)]
pub struct ServerCertificate {
    authority: Authority,
    names: Vec<String>,
    now: RwLock<Held>,
}

#[derive(Debug, Clone)]
struct Held {
    key: Arc<CertifiedKey>,
    since: Timestamp,
    by: String,
}

impl ServerCertificate {
    /// For these names and addresses.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] names `names`.
    pub fn new(
        authority: Authority,
        names: Vec<String>,
        now: Timestamp,
    ) -> Result<Self, AuthError> {
        let held = make(&authority, &names, now)?;
        Ok(Self {
            authority,
            names,
            now: RwLock::new(held),
        })
    }

    /// Makes a new one if half of its time is over, or if another authority signs controllers now. To be called each hour or so, and after
    /// [`Authority::refresh`]. Returns whether there is a new one.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn renew(&self, now: Timestamp) -> Result<bool, AuthError> {
        let held = self.held();
        let due = now >= held.since + SERVER_LIFETIME / 2;
        if !due && held.by == self.authority.fingerprint() {
            return Ok(false);
        }
        let new = make(&self.authority, &self.names, now)?;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(true)
    }

    fn held(&self) -> Held {
        self.now
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.held().key)
    }
}

fn make(authority: &Authority, names: &[String], now: Timestamp) -> Result<Held, AuthError> {
    let by = authority.fingerprint();
    let (chain, key) = authority.issue_server(names, now)?;
    let key = CertifiedKey::from_der(chain, key, &provider())
        .map_err(|e| AuthError::Damaged(format!("the certificate of the controller: {e}")))?;
    Ok(Held {
        key: Arc::new(key),
        since: now,
        by,
    })
}

/// What a listener needs: a certificate to show, and with `nodes` the authority whose certificates clients may show (they need
/// not: a node that joins has none yet).
///
/// # Errors
/// One line.
pub fn server_config(
    certificate: Arc<dyn ResolvesServerCert>,
    nodes: Option<&Authority>,
    protocols: &[&[u8]],
) -> Result<ServerConfig, String> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = match nodes {
        Some(authority) => builder.with_client_cert_verifier(Arc::new(Nodes(authority.clone()))),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(certificate);
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    Ok(config)
}

/// What a controller dials another one with: a new certificate that names it, and the authorities that are trusted now.
///
/// # Errors
/// [`AuthError::Damaged`].
pub fn client_config(
    authority: &Authority,
    controller: &str,
    now: Timestamp,
) -> Result<ClientConfig, AuthError> {
    let damaged = |e: Error| AuthError::Damaged(format!("the certificate for others: {e}"));
    let mut roots = RootCertStore::empty();
    for certificate in authority.certificates() {
        roots.add(certificate).map_err(damaged)?;
    }
    let (chain, key) = authority.issue_peer(controller, now)?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(damaged)?;
    let builder = builder.with_root_certificates(roots);
    let mut config = builder.with_client_auth_cert(chain, key).map_err(damaged)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Takes certificates of whatever authorities are trusted at the time. Whether a node is revoked is asked at each call,
/// not here.
#[derive(Debug)]
struct Nodes(Authority);

impl ClientCertVerifier for Nodes {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in self.0.certificates() {
            roots.add(certificate)?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let verifier = verifier
            .build()
            .map_err(|e| Error::Other(OtherError(Arc::new(e))))?;
        verifier.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
