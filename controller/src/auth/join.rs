//! Joining: a token that an operator made becomes a member with a certificate.
//!
//! A token is `xgj1.ID.SECRET.FINGERPRINT`; the last part is the SHA-256 of the authority's certificate, so that a node knows the
//! controller before it tells it the secret.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use xdpgate_api::fleet::v1;

use super::authority::{Authority, Issued, is_node_id, issued, issued_key, new_node_id};
use super::records::{Change, Stored, TRIES, all, key, load};
use super::refusals::Refusals;
use super::secret::{base32, same};
use super::{Actor, AuthError, Role, Secret, Signer};
use crate::core::{Command, Core, ErrorKind, Options};
use crate::domain::{Labels, Name, NodeRecord, Touch, check_labels};
use crate::store::Key;

/// What every token begins with: its kind and version.
const PREFIX: &str = "xgj1";
/// How long a token is good, unless said.
pub const LIFETIME: SignedDuration = SignedDuration::from_hours(1);
/// The longest that one may be asked for.
pub const MAX_LIFETIME: SignedDuration = SignedDuration::from_hours(24 * 30);
/// The most nodes that one token may bring in.
pub const MAX_USES: u32 = 10_000;

const WRONG: AuthError =
    AuthError::Credentials("the join token is wrong, expired or used up: ask for a new one");

/// Lets nodes in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Joining {
    core: Core,
    authority: Authority,
    signer: Option<Signer>,
    pub(super) refusals: Refusals,
}

/// A token to be.
#[derive(Debug, Clone, Default)]
pub struct NewJoinToken {
    /// What it is for.
    pub comment: String,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// How many nodes it brings in; 1 unless said.
    pub uses: Option<u32>,
    /// Labels that each node gets, as if an operator had set them: they win over what the node brings.
    pub labels: Labels,
    /// The labels that nodes may bring; `None`: any.
    pub allowed: Option<Vec<String>>,
    /// The group that it is for, for people; the labels must be such that the group holds.
    pub group: Option<Name>,
    /// A node that was a member before and gets its identity back. Its certificates are revoked.
    pub node: Option<Name>,
}

/// A token, without its secret.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct JoinToken {
    /// What it is called by.
    pub id: String,
    /// What it is for.
    pub comment: String,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// By whom.
    pub created_by: String,
    /// When it ends.
    #[schema(value_type = String, format = DateTime)]
    pub expires: Timestamp,
    /// How many nodes it was for.
    pub uses: u32,
    /// How many of these are left.
    pub uses_left: u32,
    /// Labels that each node gets.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub labels: Labels,
    /// The labels that nodes may bring; absent: any.
    pub allowed: Option<Vec<String>>,
    /// The group that it is for.
    #[schema(value_type = Option<String>)]
    pub group: Option<Name>,
    /// The node that it is for.
    #[schema(value_type = Option<String>)]
    pub node: Option<Name>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct TokenRecord {
    digest: String,
    comment: String,
    created: Timestamp,
    created_by: String,
    expires: Timestamp,
    uses: u32,
    uses_left: u32,
    labels: Labels,
    allowed: Option<Vec<String>>,
    group: Option<Name>,
    node: Option<Name>,
}

impl Joining {
    /// With the core's nodes, an authority, and the key by which states are signed if there is one.
    pub fn new(core: Core, authority: Authority, signer: Option<Signer>) -> Self {
        Self {
            core,
            authority,
            signer,
            refusals: Refusals::default(),
        }
    }

    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    /// The authority.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Makes a token. The whole of it is told this once.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] names the field.
    pub async fn create_token(
        &self,
        actor: &Actor,
        new: NewJoinToken,
        now: Timestamp,
    ) -> Result<(JoinToken, Secret), AuthError> {
        let expires = new.expires.unwrap_or(now + LIFETIME);
        if expires <= now || expires > now + MAX_LIFETIME {
            return Err(AuthError::invalid(
                "expires",
                "give a time to come, 30 days from now at most",
            ));
        }
        let uses = new.uses.unwrap_or(1);
        if !(1..=MAX_USES).contains(&uses) || uses > 1 && new.node.is_some() {
            let detail = format!("1 to {MAX_USES}; 1 for a token of one node");
            return Err(AuthError::invalid("uses", detail));
        }
        check_labels(&new.labels).map_err(|e| AuthError::invalid("labels", e.to_string()))?;
        self.check_targets(&new)?;
        if new.comment.chars().count() > 256 {
            return Err(AuthError::invalid("comment", "longer than 256 characters"));
        }
        let (id, secret) = (base32(&rand::random::<[u8; 10]>()), Secret::random());
        let record = TokenRecord {
            digest: secret.digest(),
            comment: new.comment,
            created: now,
            created_by: actor.name.clone(),
            expires,
            uses,
            uses_left: uses,
            labels: new.labels,
            allowed: new.allowed,
            group: new.group,
            node: new.node,
        };
        let key = key("join-token", &id)?;
        let detail = json!({ "uses": uses, "expires": expires, "labels": record.labels, "node": record.node });
        Change::default()
            .expect(&key, None)
            .put(&key, &record)?
            .audit(actor, "join_token.create", key.as_str(), detail)
            .commit(&**self.core.store())
            .await?;
        let text = format!(
            "{PREFIX}.{id}.{}.{}",
            secret.reveal(),
            self.authority.fingerprint()
        );
        Ok((shown(&id, record), Secret::new(text)))
    }

    /// The group and the node of a token have to be there.
    fn check_targets(&self, new: &NewJoinToken) -> Result<(), AuthError> {
        let view = self.core.view();
        if let Some(name) = &new.group {
            let Some(group) = view.groups().get(name) else {
                return Err(AuthError::invalid(
                    "group",
                    format!("there is no group {name}"),
                ));
            };
            if !group.selector.holds(&new.labels) {
                let detail = format!(
                    "nodes with these labels are not in {name}: give labels for which `{}` holds",
                    group.selector
                );
                return Err(AuthError::invalid("labels", detail));
            }
        }
        match &new.node {
            Some(node) if !view.nodes().contains_key(node) => Err(AuthError::invalid(
                "node",
                format!("there is no node {node}"),
            )),
            _ => Ok(()),
        }
    }

    /// All tokens that are kept, also those that are used up or expired.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`], [`AuthError::Damaged`].
    pub async fn tokens(&self) -> Result<Vec<JoinToken>, AuthError> {
        let records = all::<TokenRecord>(&**self.core.store(), "join-token").await?;
        let shown = |(key, stored): (Key, Stored<TokenRecord>)| {
            shown(super::users::name_of(&key), stored.value)
        };
        Ok(records.into_iter().map(shown).collect())
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// [`AuthError::NotFound`].
    pub async fn remove_token(&self, actor: &Actor, id: &str) -> Result<(), AuthError> {
        let missing = || AuthError::NotFound(format!("there is no join token {id:?}"));
        let key = key("join-token", id).map_err(|_| missing())?;
        let store = &**self.core.store();
        load::<TokenRecord>(store, &key)
            .await?
            .ok_or_else(missing)?;
        let change = Change::default().delete(&key);
        let change = change.audit(actor, "join_token.remove", key.as_str(), json!({}));
        change.commit(store).await.map(drop)
    }

    /// Deletes tokens that ended more than a week ago, and what is known of certificates of nodes that were removed: it would
    /// hold up [`Authority::retire`]. To be called now and then.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`], [`AuthError::Damaged`].
    pub async fn sweep(&self, now: Timestamp) -> Result<(), AuthError> {
        let store = &**self.core.store();
        for (key, stored) in all::<TokenRecord>(store, "join-token").await? {
            if now > stored.value.expires + SignedDuration::from_hours(24 * 7) {
                Change::default().delete(&key).commit(store).await?;
            }
        }
        let view = self.core.view();
        for (key, stored) in all::<Issued>(store, "issued").await? {
            let node = super::users::name_of(&key);
            // A node is registered before its certificate is written, so a view of then or later has it.
            if stored.revision > view.revision() || view.nodes().contains_key(node) {
                continue;
            }
            let change = Change::default().expect(&key, Some(stored.revision));
            match change.delete(&key).commit(store).await {
                Ok(_) | Err(AuthError::Conflict(_)) => (),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A node without a certificate becomes a member. A use of the token is one compare-and-swap, so of two at once with a
    /// token for one node one gets in.
    ///
    /// # Errors
    /// [`AuthError::Credentials`] whatever is wrong with the token, [`AuthError::Invalid`] names the field.
    pub async fn join(
        &self,
        request: &v1::JoinRequest,
        origin: &str,
        now: Timestamp,
    ) -> Result<v1::JoinResponse, AuthError> {
        let (token, actor) = self.token(request, origin).await?;
        let joined = self.join_by(token, &actor, request, now).await;
        if let Err(error @ (AuthError::Credentials(_) | AuthError::Invalid { .. })) = &joined {
            // Who says this has the secret of a token.
            let (store, why) = (&**self.core.store(), error.to_string());
            let told = self
                .refusals
                .write(store, &actor, "join_token.refused", &why, now);
            told.await;
        }
        joined
    }

    /// The token of a request, and as who its use is written down.
    async fn token(
        &self,
        request: &v1::JoinRequest,
        origin: &str,
    ) -> Result<(TokenRecord, Actor), AuthError> {
        let (id, secret) = parse(&request.token).ok_or(WRONG)?;
        let key = key("join-token", id).map_err(|_| WRONG)?;
        let store = &**self.core.store();
        let actor = Actor {
            name: format!("join-token/{id}"),
            role: Role::Operator,
            origin: origin.to_owned(),
        };
        let token = load::<TokenRecord>(store, &key).await?.ok_or(WRONG)?.value;
        if !same(&token.digest, &secret.digest()) {
            return Err(WRONG);
        }
        Ok((token, actor))
    }

    async fn join_by(
        &self,
        token: TokenRecord,
        actor: &Actor,
        request: &v1::JoinRequest,
        now: Timestamp,
    ) -> Result<v1::JoinResponse, AuthError> {
        let store = &**self.core.store();
        let (id, _) = parse(&request.token).ok_or(WRONG)?;
        let key = key("join-token", id)?;
        let own_labels = self.own_labels(&token, request)?;
        let node = match (&token.node, &*request.node_id) {
            (Some(node), asked) if asked.is_empty() || asked == node.as_str() => node.clone(),
            (None, "") => {
                Name::new(new_node_id()).map_err(|e| AuthError::Damaged(e.to_string()))?
            }
            _ => {
                let detail = "the token is not for this node: ask for one that is, or join without an identity";
                return Err(AuthError::invalid("node_id", detail));
            }
        };
        // Refused before the use is counted, if the request is no good.
        let certificate = self
            .authority
            .issue_node(node.as_str(), &request.csr, now)?;
        let before = issued(store, node.as_str()).await?;

        self.count_use(&key, actor, &node, now).await?;
        let registered = self
            .register(actor, &token, &node, &request.name, own_labels)
            .await;
        if let Err(error) = registered {
            self.give_back(&key).await;
            return Err(error);
        }
        let issued_key = issued_key(node.as_str())?;
        Change::default()
            .expect(&issued_key, before.as_ref().map(|issued| issued.revision))
            .put(&issued_key, &certificate.issued)?
            .commit(store)
            .await?;
        if let Some(before) = before {
            let serial = before.value.serial;
            self.revoke_serial(actor, &node, &serial, now).await?;
        }
        Ok(v1::JoinResponse {
            node_id: node.to_string(),
            certificate_chain: certificate.chain,
            authorities: certificate.authorities,
            signing_key: self
                .signer
                .as_ref()
                .map(|s| s.public().to_vec())
                .unwrap_or_default(),
        })
    }

    /// A certificate in place of a node's own, by which it called and which was [checked](Self::authorize).
    ///
    /// # Errors
    /// [`AuthError::Invalid`] names `csr`.
    pub async fn renew(
        &self,
        node: &str,
        csr: &[u8],
        origin: &str,
        now: Timestamp,
    ) -> Result<v1::RenewResponse, AuthError> {
        self.authority.refresh().await?;
        let certificate = self.authority.issue_node(node, csr, now)?;
        let store = &**self.core.store();
        let key = issued_key(node)?;
        let before = issued(store, node).await?;
        let actor = Actor {
            name: format!("node/{node}"),
            role: Role::Viewer,
            origin: origin.to_owned(),
        };
        let detail =
            json!({ "serial": certificate.issued.serial, "expires": certificate.issued.expires });
        Change::default()
            .expect(&key, before.map(|issued| issued.revision))
            .put(&key, &certificate.issued)?
            .audit(&actor, "node.renew", &format!("node/{node}"), detail)
            .commit(store)
            .await?;
        Ok(v1::RenewResponse {
            certificate_chain: certificate.chain,
            authorities: certificate.authorities,
        })
    }

    /// Whether a certificate of this serial number lets this node in, by the newest view. Costs a look-up.
    ///
    /// # Errors
    /// [`AuthError::Credentials`].
    pub fn authorize(&self, node: &str, serial: &str) -> Result<(), AuthError> {
        let view = self.core.view();
        let Some(record) = view.nodes().get(node) else {
            return Err(AuthError::Credentials(
                "this node is not a member: join anew",
            ));
        };
        if record.revoked
            || record
                .revoked_serials
                .iter()
                .any(|revoked| revoked == serial)
        {
            return Err(AuthError::Credentials(
                "the certificate of this node is revoked: join anew",
            ));
        }
        Ok(())
    }

    /// Revokes one certificate of a node; the node stays a member.
    ///
    /// # Errors
    /// [`AuthError::NotFound`].
    pub async fn revoke_serial(
        &self,
        actor: &Actor,
        node: &Name,
        serial: &str,
        now: Timestamp,
    ) -> Result<(), AuthError> {
        if serial.is_empty() || serial.len() > 64 || !serial.bytes().all(|b| b.is_ascii_hexdigit())
        {
            return Err(AuthError::invalid(
                "serial",
                "a serial number in hexadecimal digits",
            ));
        }
        let serial = serial.to_ascii_lowercase();
        let (key, store) = (key("node", node.as_str())?, &**self.core.store());
        for _ in 0..TRIES {
            let stored = load::<NodeRecord>(store, &key).await?;
            let missing = || AuthError::NotFound(format!("there is no node {node}"));
            let Stored {
                value: mut record,
                revision,
            } = stored.ok_or_else(missing)?;
            if record.revoked_serials.contains(&serial) {
                return Ok(());
            }
            record.revoked_serials.push(serial.clone());
            // Certificates live for months, so the last of them are all that can still be good.
            let many = record.revoked_serials.len().saturating_sub(64);
            record.revoked_serials.drain(..many);
            record.version += 1;
            record.updated = Touch {
                by: actor.name.clone(),
                at: now,
                why: String::new(),
            };
            let change = Change::default()
                .expect(&key, Some(revision))
                .put(&key, &record)?
                .audit(
                    actor,
                    "node.revoke_certificate",
                    key.as_str(),
                    json!({ "serial": serial }),
                );
            match change.commit(store).await {
                Err(AuthError::Conflict(_)) => (),
                other => return other.map(drop),
            }
        }
        Err(AuthError::Conflict(
            "the node is being changed all the time: try again".to_owned(),
        ))
    }

    fn own_labels(
        &self,
        token: &TokenRecord,
        request: &v1::JoinRequest,
    ) -> Result<Labels, AuthError> {
        let labels: Labels = request.labels.clone().into_iter().collect();
        check_labels(&labels).map_err(|e| AuthError::invalid("labels", e.to_string()))?;
        if let Some(allowed) = &token.allowed
            && let Some(name) = labels.keys().find(|name| !allowed.contains(name))
        {
            let detail = format!("the token does not let a node bring {name:?}: leave it out");
            return Err(AuthError::invalid("labels", detail));
        }
        Ok(labels)
    }

    /// Counts a use, if one is left.
    async fn count_use(
        &self,
        key: &Key,
        actor: &Actor,
        node: &Name,
        now: Timestamp,
    ) -> Result<(), AuthError> {
        let store = &**self.core.store();
        for _ in 0..4 * TRIES {
            let stored = load::<TokenRecord>(store, key).await?.ok_or(WRONG)?;
            let mut token = stored.value;
            if now >= token.expires || token.uses_left == 0 {
                return Err(WRONG);
            }
            token.uses_left -= 1;
            let change = Change::default()
                .expect(key, Some(stored.revision))
                .put(key, &token)?
                .audit(
                    actor,
                    "join_token.use",
                    key.as_str(),
                    json!({ "node": node }),
                );
            match change.commit(store).await {
                Err(AuthError::Conflict(_)) => {
                    let jitter = rand::random_range(0..10);
                    tokio::time::sleep(std::time::Duration::from_millis(jitter)).await;
                }
                other => return other.map(drop),
            }
        }
        Err(AuthError::Conflict(
            "many nodes join by this token at once: try again".to_owned(),
        ))
    }

    async fn register(
        &self,
        actor: &Actor,
        token: &TokenRecord,
        node: &Name,
        name: &str,
        own_labels: Labels,
    ) -> Result<(), AuthError> {
        let name: String = name.chars().filter(|c| !c.is_control()).take(128).collect();
        let name = if name.is_empty() {
            node.to_string()
        } else {
            name
        };
        let mut commands = vec![Command::RegisterNode {
            node: node.clone(),
            name,
            own_labels,
        }];
        let mut patch = crate::core::NodePatch {
            set_labels: token
                .labels
                .iter()
                .map(|(k, v)| (k.clone(), Some(v.clone())))
                .collect(),
            ..Default::default()
        };
        if token.node.is_some() {
            patch.revoked = Some(false);
        }
        if patch != crate::core::NodePatch::default() {
            commands.push(Command::PatchNode {
                node: node.clone(),
                patch,
            });
        }
        let done = self
            .core
            .execute(actor, commands, &Options::default())
            .await;
        done.map(drop).map_err(|error| match error.kind {
            ErrorKind::Unavailable => AuthError::Unavailable(error.to_string()),
            ErrorKind::Conflict => AuthError::Conflict(error.to_string()),
            _ => AuthError::invalid(error.field.clone(), error.to_string()),
        })
    }

    /// The node was refused after the use was counted.
    async fn give_back(&self, key: &Key) {
        let store = &**self.core.store();
        for _ in 0..TRIES {
            let Ok(Some(stored)) = load::<TokenRecord>(store, key).await else {
                return;
            };
            let mut token = stored.value;
            token.uses_left = (token.uses_left + 1).min(token.uses);
            let change = Change::default()
                .expect(key, Some(stored.revision))
                .put(key, &token);
            let Ok(change) = change else { return };
            match change.commit(store).await {
                Err(AuthError::Conflict(_)) => (),
                Err(error) => return log::warn!("a use of {} is lost: {error}", key.as_str()),
                Ok(_) => return,
            }
        }
    }
}

/// The id and the secret of a token.
fn parse(token: &str) -> Option<(&str, Secret)> {
    let mut parts = token.trim().split('.');
    let (prefix, id, secret) = (parts.next()?, parts.next()?, parts.next()?);
    let fine = prefix == PREFIX && token.len() < 256 && is_node_id(&format!("n-{id}"));
    fine.then(|| (id, Secret::new(secret)))
}

fn shown(id: &str, token: TokenRecord) -> JoinToken {
    JoinToken {
        id: id.to_owned(),
        comment: token.comment,
        created: token.created,
        created_by: token.created_by,
        expires: token.expires,
        uses: token.uses,
        uses_left: token.uses_left,
        labels: token.labels,
        allowed: token.allowed,
        group: token.group,
        node: token.node,
    }
}
