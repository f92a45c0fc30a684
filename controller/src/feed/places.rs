//! Reading of the places of a set, whatever they are.

use std::collections::BTreeMap;
use std::path::PathBuf;

use xdpgate::policy::AddressSet;

use super::entries::{Bad, join};
use super::fetch::{FetchError, Fetched, Validator};
use super::guard::check_url;
use super::record::{Part, Source};
use super::status::LastGood;
use super::{Feed, Feeds, file, kubernetes};

/// What the places of a set gave.
#[derive(Debug)]
pub(super) enum Brought {
    /// All of them say that nothing changed.
    NotModified,
    /// Addresses, and what the servers say of each place.
    Set(AddressSet, BTreeMap<String, Validator>),
}

/// Why they gave nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Nothing {
    /// A place could not be read.
    #[error("{place}: {error}")]
    Unread {
        /// Which.
        place: String,
        /// Why.
        error: FetchError,
    },
    /// What was read is no list.
    #[error(transparent)]
    Bad(#[from] Bad),
}

impl Feeds {
    /// The sets of a feed, and the places of each.
    pub(super) async fn parts(&self, feed: &Feed) -> Result<Vec<Part>, FetchError> {
        let content = &feed.content;
        let mut countries = content.countries.clone();
        if content.is_by_country() && countries.is_empty() {
            let folder = self.folder()?;
            let patterns = content.source.places().to_vec();
            countries = wait(move || file::countries(&folder, &patterns)).await?;
            if countries.is_empty() {
                let reason = "there is no file of any country".to_owned();
                return Err(FetchError::File(reason));
            }
        }
        Ok(content.parts(&feed.name, &countries))
    }

    /// Reads the places of a set. `known` is what they gave last, if it will do that nothing changed.
    pub(super) async fn read(
        &self,
        feed: &Feed,
        part: &Part,
        known: Option<&LastGood>,
    ) -> Result<Brought, Nothing> {
        let content = &feed.content;
        let most = content.limits.max_bytes;
        let mut validators = BTreeMap::new();
        let texts = match &content.source {
            Source::Kubernetes {} => {
                let server = self.0.settings.kubernetes.as_ref();
                let none =
                    || FetchError::Kubernetes("feeds.kubernetes is not configured".to_owned());
                let unread = |error| Nothing::Unread {
                    place: "kubernetes".to_owned(),
                    error,
                };
                let server = server.ok_or_else(none).map_err(unread)?;
                let nodes = kubernetes::nodes(server, self.0.settings.timeout).await;
                return Ok(Brought::Set(nodes.map_err(unread)?, validators));
            }
            Source::File { .. } => {
                let may_lack = content.is_by_country() && content.countries.is_empty();
                let unread = |(place, error)| Nothing::Unread { place, error };
                let folder = self
                    .folder()
                    .map_err(|error| unread(("files".to_owned(), error)))?;
                let places = part.places.clone();
                wait(move || read_files(&folder, &places, may_lack, most))
                    .await
                    .map_err(unread)?
            }
            Source::Url { .. } => {
                let mut texts = self
                    .read_urls(&part.places, known, most, &mut validators)
                    .await?;
                let lacks = texts.iter().filter(|text| text.is_none()).count();
                if lacks == texts.len() {
                    return Ok(Brought::NotModified);
                }
                if lacks > 0 {
                    // Some have news, so that what the others have is needed too.
                    validators.clear();
                    texts = self
                        .read_urls(&part.places, None, most, &mut validators)
                        .await?;
                }
                part.places
                    .iter()
                    .cloned()
                    .zip(texts.into_iter().flatten())
                    .collect()
            }
        };
        let (format, at_least) = (content.format, content.at_least);
        let set = wait(move || join(&texts, format, at_least)).await?;
        Ok(Brought::Set(set, validators))
    }

    /// The texts of URLs; `None` for those that have not changed. `most` is for all of them together.
    async fn read_urls(
        &self,
        places: &[String],
        known: Option<&LastGood>,
        most: u64,
        validators: &mut BTreeMap<String, Validator>,
    ) -> Result<Vec<Option<String>>, Nothing> {
        let mut texts = Vec::with_capacity(places.len());
        let mut left = most;
        for place in places {
            let unread = |error| {
                let error = match error {
                    FetchError::TooLarge(_) => FetchError::TooLarge(most),
                    other => other,
                };
                Nothing::Unread {
                    place: place.clone(),
                    error,
                }
            };
            let url = check_url(place, &self.0.guard).map_err(|error| unread(error.into()))?;
            let known = known.and_then(|good| good.validators.get(place));
            let known = known.filter(|known| **known != Validator::default());
            match self.0.fetcher.get(url, known, left).await.map_err(unread)? {
                Fetched::NotModified => texts.push(None),
                Fetched::Text(text, validator) => {
                    left = left.saturating_sub(text.len() as u64);
                    validators.insert(place.clone(), validator);
                    texts.push(Some(text));
                }
            }
        }
        Ok(texts)
    }

    fn folder(&self) -> Result<PathBuf, FetchError> {
        let folder = self.0.settings.directory.clone();
        let none = || "no folder of feeds is configured: feeds.directory".to_owned();
        folder.ok_or_else(|| FetchError::File(none()))
    }
}

/// The texts of files. `most` is for all of them together.
fn read_files(
    folder: &std::path::Path,
    places: &[String],
    may_lack: bool,
    most: u64,
) -> Result<Vec<(String, String)>, (String, FetchError)> {
    let mut texts = Vec::with_capacity(places.len());
    let mut left = most;
    for place in places {
        if may_lack && !file::is_there(folder, place) {
            continue;
        }
        let text = file::read(folder, place, left).map_err(|error| match error {
            FetchError::TooLarge(_) => (place.clone(), FetchError::TooLarge(most)),
            other => (place.clone(), other),
        })?;
        left = left.saturating_sub(text.len() as u64);
        texts.push((place.clone(), text));
    }
    Ok(texts)
}

/// Runs what takes long on a thread that may wait.
pub(super) async fn wait<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}
