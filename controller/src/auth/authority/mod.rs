//! The authority of the fleet's certificates: for nodes, so that the controllers know them, and for controllers, so that
//! nodes know those.
//!
//! There may be several at once: a [rotation](Authority::rotate) makes a new one beside the old, and both are trusted until
//! the old one is [retired](Authority::retire). Nodes get their certificates of the newest. Controllers show one of the oldest, which every
//! node knows, until it is retired; by then each node has renewed its certificate and learnt the new one.

mod issue;
pub(crate) mod seal;
mod tls;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use rcgen::{Issuer, KeyPair};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::records::{Change, Stored, all, key, load};
use super::secret::{base32, hex};
use super::{Actor, AuthError};
use crate::store::{Key, Revision, Store};
use issue::damaged;
pub use seal::KeyFile;
pub(crate) use seal::{Sealed, open, seal};
pub use tls::{ServerCertificate, client_config, server_config};

/// How long the certificate of a node is good, unless configured.
pub const NODE_LIFETIME: SignedDuration = SignedDuration::from_hours(24 * 90);
/// How long that of a controller is; it is renewed in memory.
const SERVER_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3_600);
const RECORD: &str = "authority/nodes";
/// Before the name of a controller in a certificate. No identity of a node has a colon.
const CONTROLLER: &str = "controller:";

/// The authorities that are trusted. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Authority(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<dyn Store>,
    key_file: Option<KeyFile>,
    node_lifetime: SignedDuration,
    /// The oldest first; never empty.
    trusted: RwLock<Trusted>,
}

#[derive(Debug, Clone)]
struct Trusted {
    revision: Revision,
    authorities: Vec<Arc<One>>,
}

#[derive(Debug)]
struct One {
    id: String,
    certificate: CertificateDer<'static>,
    key: KeyPair,
    created: Timestamp,
    expires: Timestamp,
}

#[derive(Debug, Serialize, Deserialize)]
struct OneRecord {
    certificate: String,
    key: Sealed,
    created: Timestamp,
    expires: Timestamp,
}

/// The certificate of a node that was issued last.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Issued {
    /// Its serial number, hexadecimal digits.
    pub serial: String,
    /// The id of the authority.
    pub authority: String,
    /// When it ends.
    pub expires: Timestamp,
}

/// One authority, for people.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct AuthorityInfo {
    /// The SHA-256 of its certificate, hexadecimal digits.
    pub id: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// Until when.
    #[schema(value_type = String, format = DateTime)]
    pub expires: Timestamp,
    /// Whether it signs the certificates of nodes.
    pub signs_nodes: bool,
    /// Whether it signs those of controllers.
    pub signs_controllers: bool,
    /// The certificate, PEM.
    pub certificate: String,
}

/// What a node gets.
#[derive(Debug, Clone)]
pub struct NodeCertificate {
    /// Its own and what stands between it and the authority, DER.
    pub chain: Vec<Vec<u8>>,
    /// The trusted authorities, DER.
    pub authorities: Vec<Vec<u8>>,
    /// What is remembered of it.
    pub issued: Issued,
}

impl Authority {
    /// The authority that the store holds, made if there is none.
    ///
    /// # Errors
    /// [`AuthError::Damaged`] if the keys cannot be opened, with the mend; [`AuthError::Unavailable`].
    pub async fn open(
        store: Arc<dyn Store>,
        key_file: Option<KeyFile>,
        node_lifetime: Option<SignedDuration>,
        now: Timestamp,
    ) -> Result<Self, AuthError> {
        let trusted = match read(&*store, key_file.as_ref()).await? {
            Some(trusted) => trusted,
            None => {
                let one = make(now)?;
                let written = write(&*store, key_file.as_ref(), None, &[one], None).await;
                match written {
                    // Another controller was faster.
                    Ok(_) | Err(AuthError::Conflict(_)) => (),
                    Err(error) => return Err(error),
                }
                let trusted = read(&*store, key_file.as_ref()).await?;
                trusted.ok_or_else(|| AuthError::Damaged(format!("there is no {RECORD}")))?
            }
        };
        Ok(Self(Arc::new(Inner {
            store,
            key_file,
            node_lifetime: node_lifetime.unwrap_or(NODE_LIFETIME),
            trusted: RwLock::new(trusted),
        })))
    }

    /// Reads again what another controller may have changed. To be called each minute or so.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub async fn refresh(&self) -> Result<(), AuthError> {
        let record = self.0.store.get(&record()?).await?;
        if record.is_some_and(|record| record.revision == self.trusted().revision) {
            return Ok(());
        }
        if let Some(trusted) = read(&*self.0.store, self.0.key_file.as_ref()).await? {
            *self
                .0
                .trusted
                .write()
                .unwrap_or_else(PoisonError::into_inner) = trusted;
        }
        Ok(())
    }

    /// The trusted authorities.
    pub fn list(&self) -> Vec<AuthorityInfo> {
        let trusted = self.trusted().authorities;
        let last = trusted.len() - 1;
        let info = |(i, one): (usize, &Arc<One>)| AuthorityInfo {
            id: one.id.clone(),
            created: one.created,
            expires: one.expires,
            signs_nodes: i == last,
            signs_controllers: i == 0,
            certificate: pem(&one.certificate),
        };
        trusted.iter().enumerate().map(info).collect()
    }

    /// Their certificates.
    pub fn certificates(&self) -> Vec<CertificateDer<'static>> {
        let trusted = self.trusted().authorities;
        trusted.iter().map(|one| one.certificate.clone()).collect()
    }

    /// What a join token names, so that a node knows the controller at its first call: the SHA-256 of the certificate of the
    /// authority that signs controllers, base64url.
    pub fn fingerprint(&self) -> String {
        let trusted = self.trusted().authorities;
        URL_SAFE_NO_PAD.encode(Sha256::digest(&trusted[0].certificate))
    }

    /// Makes a new authority, by which nodes get their certificates from now on.
    ///
    /// # Errors
    /// [`AuthError::Conflict`] while a rotation is under way.
    pub async fn rotate(&self, actor: &Actor, now: Timestamp) -> Result<(), AuthError> {
        self.refresh().await?;
        let Trusted {
            revision,
            mut authorities,
        } = self.trusted();
        if authorities.len() > 1 {
            let text = "a rotation is under way: retire the old authority first";
            return Err(AuthError::Conflict(text.to_owned()));
        }
        authorities.push(make(now)?);
        let detail = ("authority.rotate", &*authorities[1].id);
        let (store, file) = (&*self.0.store, self.0.key_file.as_ref());
        write(
            store,
            file,
            Some(revision),
            &authorities,
            Some((actor, detail)),
        )
        .await?;
        self.refresh().await
    }

    /// Ends the trust in the oldest authority. Refused while nodes have certificates of it, unless `force`: those nodes
    /// then have to join anew.
    ///
    /// # Errors
    /// [`AuthError::Conflict`] says how many nodes are left.
    pub async fn retire(&self, actor: &Actor, force: bool) -> Result<(), AuthError> {
        self.refresh().await?;
        let Trusted {
            revision,
            mut authorities,
        } = self.trusted();
        if authorities.len() < 2 {
            let text = "there is one authority only: rotate first";
            return Err(AuthError::Conflict(text.to_owned()));
        }
        let old = authorities.remove(0);
        let issued = all::<Issued>(&*self.0.store, "issued").await?;
        let left = issued
            .iter()
            .filter(|(_, i)| i.value.authority == old.id)
            .count();
        if left > 0 && !force {
            return Err(AuthError::Conflict(format!(
                "{left} nodes have certificates of it: wait until they have renewed them, or force it"
            )));
        }
        let detail = ("authority.retire", &*old.id);
        let (store, file) = (&*self.0.store, self.0.key_file.as_ref());
        write(
            store,
            file,
            Some(revision),
            &authorities,
            Some((actor, detail)),
        )
        .await?;
        self.refresh().await
    }

    /// A certificate for a node, of a signing request of which only the public key is taken. Nothing is stored:
    /// the caller remembers it in its own transaction.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] names `csr`.
    pub fn issue_node(
        &self,
        node: &str,
        request: &[u8],
        now: Timestamp,
    ) -> Result<NodeCertificate, AuthError> {
        let trusted = self.trusted().authorities;
        let Some(newest) = trusted.last() else {
            return Err(AuthError::Damaged("there is no authority".to_owned()));
        };
        let until = (now + self.0.node_lifetime).min(newest.expires);
        let made = issue::node(&newest.issuer()?, node, request, until, now)?;
        Ok(NodeCertificate {
            chain: vec![made.der.to_vec()],
            authorities: trusted.iter().map(|one| one.certificate.to_vec()).collect(),
            issued: Issued {
                serial: made.serial,
                authority: newest.id.clone(),
                expires: made.expires,
            },
        })
    }

    /// A certificate for a controller, with its key: its own and the authority's, so that who knows only the
    /// fingerprint can check it.
    fn issue_server(
        &self,
        names: &[String],
        now: Timestamp,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), AuthError> {
        self.by_oldest(|issuer| issue::server(issuer, names, now + SERVER_LIFETIME, now))
    }

    /// A certificate for a controller that dials another one, with its key.
    fn issue_peer(
        &self,
        controller: &str,
        now: Timestamp,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), AuthError> {
        let subject = format!("{CONTROLLER}{controller}");
        self.by_oldest(|issuer| issue::peer(issuer, &subject, now + SERVER_LIFETIME, now))
    }

    fn by_oldest(
        &self,
        make: impl FnOnce(&Issuer<'_, &KeyPair>) -> Result<(issue::Made, KeyPair), AuthError>,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), AuthError> {
        let trusted = self.trusted().authorities;
        let oldest = &trusted[0];
        let (made, key) = make(&oldest.issuer()?)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok((vec![made.der, oldest.certificate.clone()], key))
    }

    pub(super) fn key_file(&self) -> Option<&KeyFile> {
        self.0.key_file.as_ref()
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.0.store
    }

    fn trusted(&self) -> Trusted {
        self.0
            .trusted
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl One {
    fn issuer(&self) -> Result<Issuer<'static, &KeyPair>, AuthError> {
        Issuer::from_ca_cert_der(&self.certificate, &self.key).map_err(damaged)
    }
}

/// The node and the serial number that a certificate names, which TLS has checked before.
///
/// # Errors
/// [`AuthError::Credentials`] if it is not that of a node.
pub fn identify(certificate: &[u8]) -> Result<(String, String), AuthError> {
    const OTHER: AuthError = AuthError::Credentials("the certificate is not that of a node");
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| OTHER)?;
    let mut names = parsed.subject().iter_common_name();
    let name = names
        .next()
        .and_then(|name| name.as_str().ok())
        .ok_or(OTHER)?;
    if names.next().is_some() || !is_node_id(name) {
        return Err(OTHER);
    }
    Ok((name.to_owned(), hex(parsed.raw_serial())))
}

/// The controller that a certificate names, which TLS has checked before; `None` if it is not that of a controller.
pub fn identify_controller(certificate: &[u8]) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let mut names = parsed.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?.strip_prefix(CONTROLLER)?;
    names.next().is_none().then(|| name.to_owned())
}

/// A new identity: `n-` and 16 letters and digits.
pub fn new_node_id() -> String {
    format!("n-{}", base32(&rand::random::<[u8; 10]>()))
}

/// Whether it is one.
pub fn is_node_id(text: &str) -> bool {
    let digit = |b: u8| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b);
    text.strip_prefix("n-")
        .is_some_and(|rest| rest.len() == 16 && rest.bytes().all(digit))
}

/// The key under which the last certificate of a node is remembered.
pub(super) fn issued_key(node: &str) -> Result<Key, AuthError> {
    key("issued", node)
}

/// The last certificate of a node.
pub(super) async fn issued(
    store: &dyn Store,
    node: &str,
) -> Result<Option<Stored<Issued>>, AuthError> {
    load(store, &issued_key(node)?).await
}

fn record() -> Result<Key, AuthError> {
    Key::new(RECORD).ok_or_else(|| AuthError::Damaged(RECORD.to_owned()))
}

fn make(now: Timestamp) -> Result<Arc<One>, AuthError> {
    let name = format!("xdpgate fleet {}", base32(&rand::random::<[u8; 5]>()));
    let (made, key) = issue::authority(&name, now)?;
    Ok(Arc::new(One {
        id: id(&made.der),
        certificate: made.der,
        key,
        created: now,
        expires: made.expires,
    }))
}

fn id(certificate: &[u8]) -> String {
    hex(&Sha256::digest(certificate))
}

async fn read(store: &dyn Store, file: Option<&KeyFile>) -> Result<Option<Trusted>, AuthError> {
    let Some(stored) = load::<Vec<OneRecord>>(store, &record()?).await? else {
        return Ok(None);
    };
    let damaged =
        |e: &dyn std::fmt::Display| AuthError::Damaged(format!("{RECORD} is damaged: {e}"));
    let mut authorities = Vec::new();
    for one in &stored.value {
        let certificate = STANDARD.decode(&one.certificate).map_err(|e| damaged(&e))?;
        let key = open(file, RECORD, &one.key)?;
        authorities.push(Arc::new(One {
            id: id(&certificate),
            certificate: certificate.into(),
            key: KeyPair::try_from(key).map_err(|e| damaged(&e))?,
            created: one.created,
            expires: one.expires,
        }));
    }
    if authorities.is_empty() {
        return Err(damaged(&"there is no authority in it"));
    }
    let revision = stored.revision;
    Ok(Some(Trusted {
        revision,
        authorities,
    }))
}

async fn write(
    store: &dyn Store,
    file: Option<&KeyFile>,
    expect: Option<Revision>,
    authorities: &[Arc<One>],
    audit: Option<(&Actor, (&str, &str))>,
) -> Result<Revision, AuthError> {
    let mut records = Vec::new();
    for one in authorities {
        records.push(OneRecord {
            certificate: STANDARD.encode(&one.certificate),
            key: seal(file, RECORD, one.key.serialized_der())?,
            created: one.created,
            expires: one.expires,
        });
    }
    let key = record()?;
    let mut change = Change::default().expect(&key, expect).put(&key, &records)?;
    if let Some((actor, (action, authority))) = audit {
        change = change.audit(actor, action, RECORD, json!({ "authority": authority }));
    }
    change.commit(store).await
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len())
        .step_by(64)
        .map(|i| &text[i..text.len().min(i + 64)])
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}
