//! Joining and renewal, as the service for nodes asks for them.

use std::net::SocketAddr;

use async_trait::async_trait;
use jiff::Timestamp;
use tonic::Status;
use xdpgate_api::fleet::v1::{JoinRequest, JoinResponse, RenewRequest, RenewResponse};

use super::join::Joining;
use super::{Actor, AuthError, Role, Signer};
use crate::domain::NodeId;
use crate::fleet;

#[async_trait]
impl fleet::Members for Joining {
    async fn join(
        &self,
        request: JoinRequest,
        origin: Option<SocketAddr>,
    ) -> Result<JoinResponse, Status> {
        let joined = Self::join(self, &request, &of(origin), Timestamp::now()).await;
        joined.map_err(|error| {
            log::warn!(origin:display = of(origin); "a node was not let in: {error}");
            status(&error)
        })
    }

    async fn renew(
        &self,
        node: &NodeId,
        request: RenewRequest,
        origin: Option<SocketAddr>,
    ) -> Result<RenewResponse, Status> {
        let (origin, now) = (of(origin), Timestamp::now());
        let renewed = Self::renew(self, node.as_str(), &request.csr, &origin, now).await;
        renewed.map_err(|error| status(&error))
    }

    async fn refused(&self, node: &NodeId, origin: Option<SocketAddr>, why: &str) {
        let actor = Actor {
            name: format!("node/{node}"),
            role: Role::Viewer,
            origin: of(origin),
        };
        let (store, now) = (&**self.core().store(), Timestamp::now());
        let told = self.refusals.write(store, &actor, "node.refused", why, now);
        told.await;
    }
}

impl fleet::Signer for Signer {
    fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        Self::sign(self, bytes)
    }

    fn public_key(&self) -> [u8; 32] {
        self.public()
    }
}

fn of(origin: Option<SocketAddr>) -> String {
    origin.map_or_else(|| "unknown".to_owned(), |origin| origin.ip().to_string())
}

fn status(error: &AuthError) -> Status {
    let text = error.to_string();
    match error {
        AuthError::Credentials(_) => Status::unauthenticated(text),
        AuthError::Invalid { .. } => Status::invalid_argument(text),
        AuthError::NotFound(_) => Status::not_found(text),
        AuthError::AlreadyExists(_) => Status::already_exists(text),
        AuthError::Forbidden(_) => Status::permission_denied(text),
        AuthError::Conflict(_) => Status::aborted(text),
        AuthError::Throttled(_) => Status::resource_exhausted(text),
        AuthError::Busy | AuthError::Unavailable(_) => Status::unavailable(text),
        AuthError::Damaged(_) => Status::internal(text),
    }
}
