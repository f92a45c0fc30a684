//! The daemon's side of TLS 1.3: its certificate, and whose clients it takes.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig, version};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use xdpgate_service::files::{self, Others};

use crate::agent::config::Tls;

/// What a connection is accepted with.
#[derive(Debug, Clone)]
pub(super) struct ServerTls {
    pub config: Arc<ServerConfig>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

/// A client certificate that was verified when the connection began.
#[derive(Debug)]
pub(super) struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    /// The common name first.
    pub names: Vec<String>,
    not_after: i64,
}

impl ServerTls {
    /// Reads and checks the files; `optional` says whether clients may come without a certificate. At the
    /// start of the daemon a certificate whose time is not now is no error: the filter has to be there
    /// whatever the clock says. Clients see that the daemon's own is not good; what an authority issued
    /// whose time is over is not taken.
    ///
    /// # Errors
    ///
    /// Key, file and reason, in one line.
    pub(super) fn new(tls: &Tls, optional: bool, at_start: bool) -> Result<Self, String> {
        let chain = certificates(&tls.certificate)
            .map_err(|reason| format!("api.tls.certificate: {reason}"))?;
        let own = check_time(&chain[0], &tls.certificate);
        let own = own.map_err(|reason| format!("api.tls.certificate: {reason}"));
        if at_start && let Err(reason) = &own {
            log::error!("{reason}");
        } else {
            own?;
        }
        let key = key(&tls.key).map_err(|reason| format!("api.tls.key: {reason}"))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|e| format!("api.tls: {e}"))?;
        let verifier = match &tls.client_ca {
            None => None,
            Some(file) => verifier(file, optional, at_start, provider)
                .map_err(|reason| format!("api.tls.client_ca: {reason}"))?,
        };
        let builder = match &verifier {
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => format!(
                "api.tls.key: {} does not belong to the certificate in {}",
                tls.key.display(),
                tls.certificate.display()
            ),
            e => format!("api.tls.key: {}: {e}", tls.key.display()),
        })?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A session that goes on would go on without the certificate being looked at again.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            config: Arc::new(config),
            verifier,
        })
    }

    /// Whether a certificate would be taken now.
    ///
    /// # Errors
    ///
    /// Why not.
    pub(super) fn verify(&self, certificate: &Certificate) -> Result<(), String> {
        let verifier = self
            .verifier
            .as_ref()
            .ok_or("client certificates are not taken")?;
        let (first, others) = certificate.chain.split_first().ok_or("it is empty")?;
        let verified = verifier.verify_client_cert(first, others, UnixTime::now());
        verified.map(drop).map_err(|e| e.to_string())
    }
}

impl Certificate {
    /// What the certificate at the head of a chain says.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub(super) fn new(chain: &[CertificateDer<'_>]) -> Result<Self, String> {
        let first = chain.first().ok_or("it is empty")?;
        let parsed = parse(first)?;
        let common = parsed
            .subject()
            .iter_common_name()
            .filter_map(|n| n.as_str().ok());
        let mut names: Vec<String> = common.map(str::to_owned).collect();
        if let Ok(Some(alternative)) = parsed.subject_alternative_name() {
            names.extend(
                alternative
                    .value
                    .general_names
                    .iter()
                    .filter_map(|n| match n {
                        GeneralName::DNSName(name) | GeneralName::URI(name) => {
                            Some((*name).to_owned())
                        }
                        _ => None,
                    }),
            );
        }
        Ok(Self {
            names,
            not_after: parsed.validity().not_after.timestamp(),
            chain: chain.iter().map(|c| c.clone().into_owned()).collect(),
        })
    }

    /// Whether its time is up.
    pub(super) fn has_expired(&self) -> bool {
        self.not_after < seconds_now()
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    let parsed = x509_parser::parse_x509_certificate(certificate);
    parsed.map(|(_, parsed)| parsed).map_err(|e| e.to_string())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = files::public(path)?;
    let of = |reason: &dyn std::fmt::Display| format!("{}: {reason}", path.display());
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|e| of(&e))?;
    match certificates.is_empty() {
        true => Err(of(&"there is no certificate in it; it must be PEM")),
        false => Ok(certificates),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let pem = files::read(path, Others::MayNothing)?;
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|e| format!("{}: there is no key in it: {e}", path.display()))
}

/// `None` if there is no authority whose time is now.
fn verifier(
    path: &Path,
    optional: bool,
    at_start: bool,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    let of = |reason: &dyn std::fmt::Display| format!("{}: {reason}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        match check_time(&certificate, path) {
            Err(reason) if at_start => log::error!("api.tls.client_ca: {reason}"),
            timely => {
                timely?;
                roots.add(certificate).map_err(|e| of(&e))?;
            }
        }
    }
    if roots.is_empty() && at_start {
        return Ok(None);
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if optional {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map(Some).map_err(|e| of(&e))
}

/// Refuses a certificate whose time is not now, and warns of one that ends soon.
fn check_time(certificate: &CertificateDer<'_>, path: &Path) -> Result<(), String> {
    let of = |reason: String| format!("{}: {reason}", path.display());
    let parsed = parse(certificate).map_err(of)?;
    let validity = parsed.validity();
    let now = seconds_now();
    if validity.not_after.timestamp() < now {
        return Err(of(format!(
            "it has expired on {}: renew it",
            validity.not_after
        )));
    }
    if validity.not_before.timestamp() > now {
        return Err(of(format!(
            "it is not valid before {}: is the clock right?",
            validity.not_before
        )));
    }
    if validity.not_after.timestamp() < now + SOON {
        log::warn!("{}: it expires on {}", path.display(), validity.not_after);
    }
    Ok(())
}

fn seconds_now() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// Two weeks.
const SOON: i64 = 14 * 24 * 3600;
