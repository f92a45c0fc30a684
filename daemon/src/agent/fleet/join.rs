//! Becoming a member of a fleet, and staying one.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use tokio::time::timeout;
use tonic::{Code, Status};
use xdpgate_api::fleet::v1::{JoinRequest, RenewRequest};

use super::dial::{Client, dial};
use super::files::{Files, Identity};
use super::section::{Controller, Settings};
use super::tls;
use super::token::JoinToken;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks a controller to be let in. What comes of it is not saved yet.
pub(super) async fn join(
    files: &Files,
    settings: &Settings,
    (controller, addresses): (&Controller, Vec<IpAddr>),
    token: &JoinToken,
    former: Option<String>,
) -> Result<Identity, String> {
    // Before anything is said the controller has shown that it is of the authority in the token.
    let mut client = dial(controller, addresses, tls::joining(token)?).await?;
    let pem = files.joining_key()?;
    let request = JoinRequest {
        token: token.text().to_owned(),
        csr: csr(&pem)?,
        name: settings.name.clone(),
        labels: settings.labels.clone().into_iter().collect(),
        node_id: former.unwrap_or_default(),
    };
    let answer = timeout(PATIENCE, client.join(request)).await;
    let answer = answer.map_err(|_| format!("{controller}: no answer in {PATIENCE:?}"))?;
    let answer = answer.map_err(|status| format!("{controller}: {}", in_words(&status)))?;
    let answer = answer.into_inner();
    if !answer.authorities.iter().any(|der| token.is_of(der)) {
        return Err(format!(
            "{controller}: its authorities do not include the one in the token: make another token"
        ));
    }
    let mut identity = Identity::new(answer.node_id, pem, token.digest());
    identity.issued(&answer.certificate_chain, &answer.authorities);
    identity.set_signing_key(&answer.signing_key);
    check(&identity).map_err(|reason| format!("{controller}: {reason}"))?;
    Ok(identity)
}

/// A certificate for a new key in place of the present one. Not saved yet.
pub(super) async fn renew(client: &mut Client, present: &Identity) -> Result<Identity, String> {
    let key = KeyPair::generate().map_err(|e| format!("making a key: {e}"))?;
    let pem = key.serialize_pem();
    let request = RenewRequest { csr: csr(&pem)? };
    let answer = timeout(PATIENCE, client.renew(request)).await;
    let answer = answer.map_err(|_| format!("no answer in {PATIENCE:?}"))?;
    let answer = answer.map_err(|status| in_words(&status))?.into_inner();
    let mut identity = Identity {
        key: pem,
        ..present.clone()
    };
    identity.issued(&answer.certificate_chain, &answer.authorities);
    check(&identity)?;
    Ok(identity)
}

fn csr(pem: &str) -> Result<Vec<u8>, String> {
    let key = KeyPair::from_pem(pem).map_err(|e| format!("its key cannot be read: {e}"))?;
    let params = CertificateParams::new([]).map_err(|e| e.to_string())?;
    let request = params.serialize_request(&key);
    Ok(request.map_err(|e| e.to_string())?.der().to_vec())
}

/// Whether what came can be used: it is for our key, and there are authorities.
fn check(identity: &Identity) -> Result<(), String> {
    if identity.node_id.is_empty() || identity.node_id.len() > 128 {
        return Err("the answer has no node_id".to_owned());
    }
    identity.validity()?;
    if identity.authorities()?.is_empty() {
        return Err("the answer has no authorities".to_owned());
    }
    tls::member(identity).map(drop)
}

/// What a controller says, in one line.
pub(super) fn in_words(status: &Status) -> String {
    let message = status.message().replace(['\n', '\r'], "; ");
    match status.code() {
        Code::Unauthenticated => format!("it does not know this node or token: {message}"),
        code => format!("{code:?}: {message}"),
    }
}
