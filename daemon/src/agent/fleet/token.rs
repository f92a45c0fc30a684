//! What lets a node into a fleet, once.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// A join token: `xgj1.ID.SECRET.DIGEST`. The digest is that of the authority whose certificate the
/// controller shows, so that a node knows the fleet before it says the secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct JoinToken {
    text: String,
    /// SHA-256 of the certificate of the authority, DER.
    pub authority: [u8; 32],
}

impl JoinToken {
    /// # Errors
    /// It is none; the text itself is not in the reason, because it is a secret.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = "it is no join token, xgj1.ID.SECRET.DIGEST: make one at the controller";
        let parts: Vec<&str> = text.split('.').collect();
        let ["xgj1", id, secret, digest] = parts[..] else {
            return Err(wrong.to_owned());
        };
        let digest = URL_SAFE_NO_PAD.decode(digest).ok();
        let authority = digest.and_then(|digest| digest.try_into().ok());
        match authority {
            Some(authority) if !id.is_empty() && !secret.is_empty() => Ok(Self {
                text: text.to_owned(),
                authority,
            }),
            _ => Err(wrong.to_owned()),
        }
    }

    /// As the controller wants it.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// By which it is known again once it was used.
    pub(super) fn digest(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(&self.text))
    }

    /// Whether it is of the fleet with this authority.
    pub(super) fn is_of(&self, authority: &[u8]) -> bool {
        Sha256::digest(authority).as_slice() == self.authority
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_authority_and_is_not_shown() {
        let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(b"der"));
        let text = format!("xgj1.id.secret.{digest}");
        let token = JoinToken::parse(&text).expect("a token");
        assert!(token.is_of(b"der") && !token.is_of(b"other"));
        assert!(!format!("{token:?}").contains("secret"));
        for wrong in [
            "",
            "xgj1.id.secret",
            "xgj1..secret.AAAA",
            &text.replace("xgj1", "xgj9"),
            &format!("{text}A"),
            &format!("{text}.x"),
        ] {
            let refused = JoinToken::parse(wrong).expect_err(wrong);
            assert!(
                refused.contains("xgj1.ID") && !refused.contains("secret"),
                "{refused}"
            );
        }
    }
}
