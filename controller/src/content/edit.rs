//! A content made of another one by changes of some entries.

use std::collections::{BTreeMap, HashSet};
use std::iter::Peekable;

use bytes::Bytes;

use super::chunker::Chunker;
use super::list::Part;
use super::{Content, ContentError, Contents, PUT, Shape, coding, list};
use crate::store::Digest;

type Changes = BTreeMap<Bytes, Option<Bytes>>;

impl Contents {
    /// The content after changes: what is put (`Some`) and what is deleted (`None`; it need not be there). Reads and
    /// writes the chunks of the keys that change; the result is the same as if it were built anew.
    ///
    /// # Errors
    /// [`ContentError`].
    pub async fn edit(
        &self,
        shape: Shape,
        content: &Content,
        changes: Changes,
    ) -> Result<Content, ContentError> {
        let old = self.parts(content).await?;
        let from: HashSet<Digest> = old.iter().map(|part| part.digest).collect();
        let pieces = list::pieces(&self.read(content.root).await?)?
            .into_iter()
            .collect();
        let mut chunker = Chunker::new(shape);
        let mut parts = Vec::new();
        let mut changes = changes.into_iter().peekable();
        // The last key that was changed.
        let mut changed: Option<Bytes> = None;
        let mut i = 0;
        while i < old.len() {
            let next = changes.peek().map(|(key, _)| key);
            if chunker.pending().is_none() && is_untouched(&old, i, next, shape) {
                self.keep(chunker.take(), &mut parts, Some(&from)).await?;
                parts.push(old[i].clone());
                i += 1;
                continue;
            }
            let end = old.get(i + 1).map(|part| part.first_key.clone());
            for entry in coding::entries(self.read(old[i].digest).await?)? {
                let (key, value) = entry?;
                merge(&mut chunker, &mut changes, &mut changed, Some(&key))?;
                match changes.next_if(|(changing, _)| *changing == key) {
                    Some((key, value)) => {
                        changed = Some(key.clone());
                        if let Some(value) = value {
                            chunker.push(key, value)?;
                        }
                    }
                    None => chunker.push(key, value)?,
                }
            }
            merge(&mut chunker, &mut changes, &mut changed, end.as_ref())?;
            i += 1;
            // In step again: here a chunk began before, and all that changed so far is in front of it.
            let first = chunker
                .pending()
                .filter(|first| changed.as_ref() < Some(first));
            let first = first.and_then(|first| {
                old.binary_search_by_key(&first, |part| &part.first_key)
                    .ok()
            });
            let next = changes.peek().map(|(key, _)| key);
            if let Some(first) = first
                && is_untouched(&old, first, next, shape)
            {
                chunker.forget_pending();
                i = first;
            }
            if chunker.made_bytes() >= PUT {
                self.keep(chunker.take(), &mut parts, Some(&from)).await?;
            }
        }
        merge(&mut chunker, &mut changes, &mut changed, None)?;
        chunker.finish();
        self.keep(chunker.take(), &mut parts, Some(&from)).await?;
        self.name(&parts, &pieces).await
    }
}

/// Makes the changes before a key, none of which is of an entry that is there.
fn merge(
    chunker: &mut Chunker,
    changes: &mut Peekable<impl Iterator<Item = (Bytes, Option<Bytes>)>>,
    changed: &mut Option<Bytes>,
    before: Option<&Bytes>,
) -> Result<(), ContentError> {
    while let Some((key, value)) = changes.next_if(|(key, _)| before.is_none_or(|end| key < end)) {
        *changed = Some(key.clone());
        if let Some(value) = value {
            chunker.push(key, value)?;
        }
    }
    Ok(())
}

/// Whether a chunk that begins where it began before also ends there, if `next` is the next key that changes.
fn is_untouched(old: &[Part], i: usize, next: Option<&Bytes>, shape: Shape) -> bool {
    let Some(next) = next else {
        return true;
    };
    let mut last = i;
    if old[i].for_size {
        // It was cut when an entry came that was too much: that is in the chunk where so many bytes are passed.
        let mut size = old[i].size;
        while size <= shape.max as u64 && last + 1 < old.len() {
            last += 1;
            size += old[last].size;
        }
    }
    old.get(last + 1)
        .is_some_and(|after| *next >= after.first_key)
}
