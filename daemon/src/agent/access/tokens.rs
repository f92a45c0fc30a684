//! Bearer tokens: kept as SHA-256, compared in constant time, made by `xdpgated token new`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use xdpgate_service::files;

use super::Role;

/// The tokens that let somebody in.
#[derive(Debug, Default)]
pub(super) struct Tokens(Vec<Token>);

#[derive(Debug)]
pub(super) struct Token {
    pub name: String,
    pub role: Role,
    sha256: [u8; 32],
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    token: Vec<WrittenToken>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenToken {
    name: String,
    role: Role,
    sha256: String,
}

impl Tokens {
    /// Reads a file that nobody but its owner may write.
    ///
    /// # Errors
    ///
    /// File, key and reason, in one line.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let text = files::read(path, files::Others::MayRead)
            .map_err(|reason| format!("api.tokens_file: {reason}"))?;
        Self::parse(&text)
            .map_err(|reason| format!("api.tokens_file: {}: {reason}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let written: Written = toml::from_str(text).map_err(|e| {
            let line = e
                .span()
                .map(|at| 1 + text[..at.start].matches('\n').count());
            let place = line.map_or_else(String::new, |line| format!("line {line}: "));
            format!("{place}{}", e.message().replace('\n', ", "))
        })?;
        if written.token.is_empty() {
            return Err("it has no tokens; `xdpgated token new` makes one".to_owned());
        }
        let mut tokens: Vec<Token> = Vec::new();
        for WrittenToken { name, role, sha256 } in written.token {
            let of = |reason: &str| format!("token {name:?}: {reason}");
            if name.is_empty() || name.len() > 64 || name.contains(char::is_control) {
                return Err(of("name: it must have 1 to 64 bytes, none of control"));
            }
            let sha256 = digest(&sha256).ok_or_else(|| {
                of("sha256: it must be 64 hexadecimal digits, and not the token itself")
            })?;
            if is_placeholder(&sha256) {
                return Err(of(
                    "sha256: it is that of a placeholder; `xdpgated token new` makes a token",
                ));
            }
            if tokens.iter().any(|t| t.name == name) {
                return Err(of("the name is there twice"));
            }
            if let Some(other) = tokens.iter().find(|t| t.sha256 == sha256) {
                return Err(of(&format!("it is the same token as {:?}", other.name)));
            }
            tokens.push(Token { name, role, sha256 });
        }
        Ok(Self(tokens))
    }

    /// Whose token it is. How long it takes does not depend on how much of a token is right, or on which
    /// one it is: what is compared are hashes, all of them to their ends.
    pub(super) fn find(&self, presented: &[u8]) -> Option<&Token> {
        let hash: [u8; 32] = Sha256::digest(presented).into();
        let mut found = None;
        for token in &self.0 {
            if bool::from(token.sha256.ct_eq(&hash)) {
                found = Some(token);
            }
        }
        found
    }
}

/// Whether a token has the form of [`fresh`]: 256 random bits, which nobody guesses however fast. One that was
/// made up by a human may be short or a word.
pub(super) fn is_unguessable(token: &[u8]) -> bool {
    let digits = token.strip_prefix(PREFIX.as_bytes());
    digits.is_some_and(|d| d.len() == 64 && d.iter().all(u8::is_ascii_hexdigit))
}

/// A token that nobody can guess, and its entry in the file.
///
/// # Errors
///
/// There is no randomness to be had.
pub(super) fn fresh(name: &str, role: Role) -> std::io::Result<(String, String)> {
    let mut random = [0u8; 32];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let token = format!("{PREFIX}{}", hex(&random));
    let sha256 = hex(&Sha256::digest(&token));
    // A basic string of TOML takes what JSON takes.
    let name = serde_json::to_string(name)?;
    let entry = format!("[[token]]\nname = {name}\nrole = \"{role}\"\nsha256 = \"{sha256}\"\n");
    Ok((token, entry))
}

/// Whether it is the hash of something that stands for a secret in examples, or of nothing.
fn is_placeholder(hash: &[u8; 32]) -> bool {
    let is_of = |text: &str| {
        let cases = [text.to_owned(), text.to_uppercase(), format!("{text}\n")];
        cases.iter().any(|t| Sha256::digest(t).as_slice() == hash)
    };
    hash.iter().all(|byte| *byte == hash[0]) || PLACEHOLDERS.iter().any(|text| is_of(text))
}

/// Whether a token in the clear is one of these.
pub(crate) fn is_placeholder_text(token: &str) -> bool {
    PLACEHOLDERS.contains(&token.trim().to_lowercase().as_str())
}

/// What tokens begin with, so that they are found where they should not be.
const PREFIX: &str = "xdpgate_";

const PLACEHOLDERS: &[&str] = &[
    "",
    "0",
    "1234",
    "12345",
    "123456",
    "12345678",
    "123456789",
    "abc123",
    "admin",
    "api-key",
    "apikey",
    "bearer",
    "change-me",
    "change_me",
    "change-this",
    "changeit",
    "changeme",
    "changethis",
    "default",
    "dummy",
    "example",
    "foo",
    "foobar",
    "insecure",
    "key",
    "letmein",
    "my-secret",
    "my-token",
    "mysecret",
    "mytoken",
    "none",
    "null",
    "pass",
    "passw0rd",
    "password",
    "placeholder",
    "qwerty",
    "replace-me",
    "replaceme",
    "root",
    "s3cret",
    "sample",
    "secret",
    "secret-token",
    "test",
    "test-token",
    "testing",
    "todo",
    "token",
    "viewer",
    "xdpgate",
    "xdpgate_",
    "xdpgated",
    "xxx",
    "xxxx",
    "xxxxxxxx",
    "your-secret",
    "your-token",
    "your-token-here",
    "yoursecret",
    "yourtoken",
    "<token>",
    "${token}",
    "token_here",
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, at) in hash.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_token_is_found_and_no_other() {
        let (token, entry) = fresh("ops \"1\"", Role::Admin).unwrap();
        let (other, second) = fresh("grafana", Role::Viewer).unwrap();
        assert!(token.len() >= 64 && token != other);
        assert!(is_unguessable(token.as_bytes()));
        for other in [
            &token[1..],
            &format!("{token}0"),
            &format!("{}x", &token[..token.len() - 1]),
        ] {
            assert!(!is_unguessable(other.as_bytes()), "{other:?}");
        }
        assert!(!entry.contains(&token), "a token in the clear: {entry}");
        let tokens = Tokens::parse(&(entry + &second)).unwrap();
        let found = tokens.find(token.as_bytes()).unwrap();
        assert_eq!(
            (found.name.as_str(), found.role),
            ("ops \"1\"", Role::Admin)
        );
        assert_eq!(tokens.find(other.as_bytes()).unwrap().role, Role::Viewer);
        for wrong in [
            "",
            "xdpgate_",
            &token[1..],
            &token.to_uppercase(),
            &format!("{token} "),
        ] {
            assert!(tokens.find(wrong.as_bytes()).is_none(), "{wrong:?}");
        }
    }

    /// Row 73: what stands for a secret is none.
    #[test]
    fn r73_placeholders_are_refused() {
        let entry =
            |sha256: &str| format!("[[token]]\nname = 'a'\nrole = 'admin'\nsha256 = '{sha256}'\n");
        for secret in [
            "", "changeme", "CHANGEME", "secret", "secret\n", "token", "password",
        ] {
            let refused = Tokens::parse(&entry(&hex(&Sha256::digest(secret)))).unwrap_err();
            assert!(refused.contains("placeholder"), "{secret:?}: {refused}");
            assert!(refused.contains("xdpgated token new"), "{refused}");
        }
        for (text, reason) in [
            (entry(&"0".repeat(64)), "placeholder"),
            (entry("changeme"), "64 hexadecimal digits"),
            (entry(&"g".repeat(64)), "64 hexadecimal digits"),
            (entry(&"é".repeat(32)), "64 hexadecimal digits"),
            (String::new(), "no tokens"),
            (
                "[[token]]\nname = 'a'\nrole = 'root'\n".to_owned(),
                "line 3",
            ),
            (
                "[[token]]\nname = 'a'\ntoken = 'x'\n".to_owned(),
                "unknown field",
            ),
            (
                entry(&hex(&Sha256::digest("x1"))) + &entry(&hex(&Sha256::digest("x2"))),
                "twice",
            ),
            (
                entry(&hex(&Sha256::digest("x1")))
                    + &entry(&hex(&Sha256::digest("x1"))).replace("'a'", "'b'"),
                "same token",
            ),
        ] {
            let refused = Tokens::parse(&text).unwrap_err();
            assert!(refused.contains(reason), "no {reason:?} in {refused:?}");
            assert!(!refused.contains('\n'), "{refused:?}");
        }
    }
}
