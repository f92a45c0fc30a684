//! The certificate of the API.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::ResolvesServerCert;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use xdpgate_service::Failure;

use super::hosts;
use crate::auth::authority::{Authority, ServerCertificate, server_config};
use crate::config::Config;
use crate::open;

/// What the API is served with: files, a certificate of the embedded authority, or nothing.
pub(super) fn of_api(
    config: &Config,
    authority: &Authority,
) -> Result<Option<Arc<ServerConfig>>, Failure> {
    let api = &config.api;
    let certificate: Arc<dyn ResolvesServerCert> = match (&api.certificate, &api.key) {
        (Some(certificate), Some(key)) => {
            let secret = open::secret(key, "api.key")?;
            Arc::new(files(certificate, key, &secret)?)
        }
        _ if api.embedded_certificate => {
            let mut named = config.nodes.advertised();
            named.push(api.listen.clone());
            let made = ServerCertificate::new(authority.clone(), hosts(&named), Timestamp::now());
            Arc::new(made.map_err(|e| Failure::input("api.listen", e))?)
        }
        _ => return Ok(None),
    };
    let made = server_config(certificate, None, &[b"http/1.1"]);
    made.map(|config| Some(Arc::new(config)))
        .map_err(Failure::operation)
}

fn files(certificate: &Path, key: &Path, secret: &str) -> Result<SingleCertAndKey, Failure> {
    let wrong = |name: &str, path: &Path, error: &dyn std::fmt::Display| {
        Failure::input(name, format!("{}: {error}", path.display()))
    };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(certificate).and_then(|found| found.collect());
    let chain = chain.map_err(|e| wrong("api.certificate", certificate, &e))?;
    let secret =
        PrivateKeyDer::from_pem_slice(secret.as_bytes()).map_err(|e| wrong("api.key", key, &e))?;
    let pair = CertifiedKey::from_der(chain, secret, &ring::default_provider());
    let pair = pair.map_err(|e| wrong("api.certificate", certificate, &e))?;
    Ok(SingleCertAndKey::from(pair))
}
