//! What differs between two contents.

use std::collections::HashSet;
use std::pin::pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};

use super::list::Part;
use super::{Content, ContentError, Contents};
use crate::store::Digest;

/// A key whose value is not the same, or that only one of both has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key.
    pub key: Bytes,
    /// The value in the first.
    pub from: Option<Bytes>,
    /// The value in the second.
    pub to: Option<Bytes>,
}

impl Contents {
    /// What makes `to` of `from`, in the order of the keys. Only chunks that both do not share are read.
    ///
    /// # Errors
    /// [`ContentError::Store`].
    pub async fn diff(
        &self,
        from: &Content,
        to: &Content,
    ) -> Result<Vec<Difference>, ContentError> {
        if from == to {
            return Ok(Vec::new());
        }
        let (from, to) = (self.parts(from).await?, self.parts(to).await?);
        // A chunk of both is the same entries in both; whatever else has one of its keys, has it in neither.
        let mut old = pin!(self.only_in(&from, &to));
        let mut new = pin!(self.only_in(&to, &from));
        let mut differences = Vec::new();
        let (mut a, mut b) = (old.next().await.transpose()?, new.next().await.transpose()?);
        loop {
            let order = match (&a, &b) {
                (None, None) => return Ok(differences),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            let from = if order.is_le() { a.take() } else { None };
            let to = if order.is_ge() { b.take() } else { None };
            if from != to {
                let key = from.as_ref().or(to.as_ref()).map(|(key, _)| key.clone());
                differences.push(Difference {
                    key: key.unwrap_or_default(),
                    from: from.map(|(_, value)| value),
                    to: to.map(|(_, value)| value),
                });
            }
            if order.is_le() {
                a = old.next().await.transpose()?;
            }
            if order.is_ge() {
                b = new.next().await.transpose()?;
            }
        }
    }

    fn only_in(
        &self,
        one: &[Part],
        other: &[Part],
    ) -> impl Stream<Item = Result<(Bytes, Bytes), ContentError>> + Send + use<> {
        let other: HashSet<Digest> = other.iter().map(|part| part.digest).collect();
        let digests = one.iter().map(|part| part.digest);
        let only = digests.filter(|digest| !other.contains(digest)).collect();
        let entries = self.clone().entries_of(only);
        entries
            .map_ok(|entries| futures_util::stream::iter(entries.into_iter().map(Ok)))
            .try_flatten()
    }
}
