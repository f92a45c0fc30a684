//! Lists that are read page by page.

use std::hash::{BuildHasher, Hash, RandomState};

use tonic::{Code, Status};

use crate::agent::convert::Wrong;
use crate::agent::fault::Fault;

/// How many items a page has.
pub(super) fn size(asked: u32, default: usize, most: usize) -> Result<usize, Wrong> {
    match asked as usize {
        0 => Ok(default),
        asked if asked <= most => Ok(asked),
        asked => {
            let what = format!("{asked} is too large: it must be at most {most}");
            Err(Wrong::new("page_size", what))
        }
    }
}

/// Tokens of pages of what changes as a whole: they are good for one version and one question.
#[derive(Debug, Default)]
pub(super) struct Tokens(RandomState);

impl Tokens {
    /// The token of the page that begins at `offset`.
    pub(super) fn make(&self, version: u64, question: impl Hash, offset: usize) -> String {
        let check = self.0.hash_one((version, &question));
        let question = self.0.hash_one(question);
        format!("{question:x}.{check:x}.{offset}")
    }

    /// Where the page begins that a token is for; the first one if there is no token.
    pub(super) fn offset(
        &self,
        token: &str,
        version: u64,
        question: impl Hash,
    ) -> Result<usize, Status> {
        if token.is_empty() {
            return Ok(0);
        }
        let wrong = |what: &str| Status::from(Wrong::new("page_token", what));
        let mut parts = token.split('.');
        let parts = [parts.next(), parts.next(), parts.next(), parts.next()];
        let [Some(asked), Some(check), Some(offset), None] = parts else {
            return Err(wrong(
                "no token of this call: leave it empty for the first page",
            ));
        };
        let number = |text| u64::from_str_radix(text, 16).ok();
        let (Some(asked), Some(check), Ok(offset)) =
            (number(asked), number(check), offset.parse::<usize>())
        else {
            return Err(wrong(
                "no token of this call: leave it empty for the first page",
            ));
        };
        if asked != self.0.hash_one(&question) {
            let what = "of another question, or of before a restart: ask as for the page before, or \
                        leave it empty";
            return Err(wrong(what));
        }
        if check != self.0.hash_one((version, &question)) {
            let message =
                "the policy has changed since the page before: begin anew, without page_token";
            return Err(Fault::new(Code::Aborted, "POLICY_CHANGED", message).into());
        }
        Ok(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_question_and_version_only() {
        let tokens = Tokens::default();
        let token = tokens.make(7, "q", 100);
        assert_eq!(tokens.offset(&token, 7, "q").ok(), Some(100));
        assert_eq!(tokens.offset("", 7, "q").ok(), Some(0));
        let code = |token: &str, version, question| {
            tokens.offset(token, version, question).unwrap_err().code()
        };
        assert_eq!(code(&token, 8, "q"), Code::Aborted);
        assert_eq!(code(&token, 7, "r"), Code::InvalidArgument);
        for bad in [
            "x",
            "1.2",
            "1.2.3.4",
            "1.2.-3",
            "..",
            &Tokens::default().make(7, "q", 100),
        ] {
            assert_eq!(code(bad, 7, "q"), Code::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn pages_have_a_limit() {
        assert_eq!(size(0, 10, 20), Ok(10));
        assert_eq!(size(20, 10, 20), Ok(20));
        assert_eq!(size(21, 10, 20).unwrap_err().path, "page_size");
    }
}
