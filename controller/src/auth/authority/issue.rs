//! Certificates: what is in them.

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ED25519, PublicKeyData as _, SerialNumber,
};
use time::OffsetDateTime;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};

use crate::auth::AuthError;
use crate::auth::secret::hex;

/// How long an authority lives.
const AUTHORITY: SignedDuration = SignedDuration::from_hours(24 * 3_650);
/// Certificates are good from a little before they are made, for clocks that are behind.
const BEFORE: SignedDuration = SignedDuration::from_mins(10);
/// The largest signing request.
const MAX_REQUEST: usize = 8 << 10;

/// A certificate with what is to be remembered of it.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) der: CertificateDer<'static>,
    pub(super) serial: String,
    pub(super) expires: Timestamp,
}

/// A new authority, which signs itself.
pub(super) fn authority(name: &str, now: Timestamp) -> Result<(Made, KeyPair), AuthError> {
    let key = KeyPair::generate().map_err(damaged)?;
    let (mut params, serial) = params(name, now, now + AUTHORITY)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let der = params.self_signed(&key).map_err(damaged)?.into();
    let expires = now + AUTHORITY;
    Ok((
        Made {
            der,
            serial,
            expires,
        },
        key,
    ))
}

/// A certificate for a node: of the request only the public key is taken.
pub(super) fn node(
    issuer: &Issuer<'_, &KeyPair>,
    node: &str,
    request: &[u8],
    until: Timestamp,
    now: Timestamp,
) -> Result<Made, AuthError> {
    let bad = |detail: &str| AuthError::invalid("csr", detail);
    if request.len() > MAX_REQUEST {
        return Err(bad(
            "larger than 8 KiB: send a signing request of one key, DER",
        ));
    }
    let request = CertificateSigningRequestDer::from(request);
    let request = CertificateSigningRequestParams::from_der(&request)
        .map_err(|_| bad("not a signing request in DER that its own key has signed"))?;
    let key = request.public_key;
    let algorithm = key.algorithm();
    let fits = algorithm == &PKCS_ECDSA_P256_SHA256 && key.der_bytes().len() == 65
        || algorithm == &PKCS_ED25519 && key.der_bytes().len() == 32;
    if !fits {
        return Err(bad(
            "a key of this kind is not taken: make one of ECDSA P-256 or Ed25519",
        ));
    }
    let (mut params, serial) = params(node, now, until)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let der = params.signed_by(&key, issuer).map_err(damaged)?.into();
    let expires = until;
    Ok(Made {
        der,
        serial,
        expires,
    })
}

/// A certificate for a controller as nodes dial it, with a new key.
pub(super) fn server(
    issuer: &Issuer<'_, &KeyPair>,
    names: &[String],
    until: Timestamp,
    now: Timestamp,
) -> Result<(Made, KeyPair), AuthError> {
    let (mut params, serial) = params("xdpgate-controller", now, until)?;
    params.subject_alt_names = CertificateParams::new(names)
        .map_err(|e| AuthError::invalid("names", format!("not a name or address: {e}")))?
        .subject_alt_names;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    of_controller(issuer, params, serial, until)
}

/// A certificate for a controller that dials another one, with a new key.
pub(super) fn peer(
    issuer: &Issuer<'_, &KeyPair>,
    subject: &str,
    until: Timestamp,
    now: Timestamp,
) -> Result<(Made, KeyPair), AuthError> {
    let (mut params, serial) = params(subject, now, until)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    of_controller(issuer, params, serial, until)
}

fn of_controller(
    issuer: &Issuer<'_, &KeyPair>,
    mut params: CertificateParams,
    serial: String,
    expires: Timestamp,
) -> Result<(Made, KeyPair), AuthError> {
    let key = KeyPair::generate().map_err(damaged)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let der = params.signed_by(&key, issuer).map_err(damaged)?.into();
    Ok((
        Made {
            der,
            serial,
            expires,
        },
        key,
    ))
}

fn params(
    name: &str,
    now: Timestamp,
    until: Timestamp,
) -> Result<(CertificateParams, String), AuthError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date(now - BEFORE)?;
    params.not_after = date(until)?;
    // Positive and without a leading zero byte, as DER wants it and as it is read back.
    let mut serial: [u8; 16] = rand::random();
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok((params, hex(&serial)))
}

fn date(at: Timestamp) -> Result<OffsetDateTime, AuthError> {
    OffsetDateTime::from_unix_timestamp(at.as_second())
        .map_err(|e| AuthError::Damaged(e.to_string()))
}

pub(super) fn damaged(error: rcgen::Error) -> AuthError {
    AuthError::Damaged(format!("a certificate cannot be made: {error}"))
}
