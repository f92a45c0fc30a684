//! Signatures of states: a node that trusts the fleet's key takes no state without one.

use xdpgate_api::fleet::{signed_bytes, v1};

/// What signs states.
pub trait Signer: std::fmt::Debug + Send + Sync + 'static {
    /// The ed25519 signature of some bytes.
    fn sign(&self, bytes: &[u8]) -> [u8; 64];
    /// The public key, by which nodes check it.
    fn public_key(&self) -> [u8; 32];
}

impl Signer for ed25519_dalek::SigningKey {
    fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        ed25519_dalek::Signer::sign(self, bytes).to_bytes()
    }

    fn public_key(&self) -> [u8; 32] {
        self.verifying_key().to_bytes()
    }
}

/// Signs a state, if there is a key.
pub(super) fn sign(state: &mut v1::State, signer: Option<&dyn Signer>) {
    if let Some(signer) = signer {
        state.signature = signer.sign(&signed_bytes(state)).to_vec();
    }
}
