//! What the service of nodes asks of the authority.

use std::net::SocketAddr;

use async_trait::async_trait;
use jiff::Timestamp;
use tonic::{Code, Status};
use xdpgate_api::fleet::v1::{JoinRequest, JoinResponse, RenewRequest, RenewResponse};

use crate::auth::join::Joining;
use crate::auth::{self, AuthError};
use crate::domain::NodeId;
use crate::fleet::{Certificates, Identify, Identity, Members, Signer};

/// Certificates of members that are not revoked.
#[derive(Debug)]
pub(super) struct Valid(pub Joining);

/// Joining and renewing.
#[derive(Debug)]
pub(super) struct Joins(pub Joining);

/// The key of the fleet.
#[derive(Debug)]
pub(super) struct Signs(pub auth::Signer);

impl Signer for Signs {
    fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.0.sign(bytes)
    }

    fn public_key(&self) -> [u8; 32] {
        self.0.public()
    }
}

impl Identify for Valid {
    fn identify(
        &self,
        extensions: &http::Extensions,
        headers: &http::HeaderMap,
    ) -> Result<Identity, Status> {
        let identity = Certificates.identify(extensions, headers)?;
        let serial = identity.serial.as_deref().unwrap_or_default();
        let allowed = self.0.authorize(identity.node.as_str(), serial);
        allowed.map_err(|error| status(&error))?;
        Ok(identity)
    }
}

#[async_trait]
impl Members for Joins {
    async fn join(
        &self,
        request: JoinRequest,
        origin: Option<SocketAddr>,
    ) -> Result<JoinResponse, Status> {
        let origin = origin.map_or_else(|| "unknown".to_owned(), |from| from.ip().to_string());
        let joined = self.0.join(&request, &origin, Timestamp::now()).await;
        joined.map_err(|error| status(&error))
    }

    async fn renew(&self, node: &NodeId, request: RenewRequest) -> Result<RenewResponse, Status> {
        let renewed = self
            .0
            .renew(node.as_str(), &request.csr, "node", Timestamp::now());
        renewed.await.map_err(|error| status(&error))
    }
}

fn status(error: &AuthError) -> Status {
    let code = match error {
        AuthError::NotFound(_) => Code::NotFound,
        AuthError::AlreadyExists(_) => Code::AlreadyExists,
        AuthError::Conflict(_) => Code::Aborted,
        AuthError::Invalid { .. } => Code::InvalidArgument,
        AuthError::Credentials(_) => Code::Unauthenticated,
        AuthError::Forbidden(_) => Code::PermissionDenied,
        AuthError::Throttled(_) | AuthError::Busy => Code::ResourceExhausted,
        AuthError::Unavailable(_) => Code::Unavailable,
        AuthError::Damaged(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}
