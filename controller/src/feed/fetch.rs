//! Reading of a feed from a web server, within bounds.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderName,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LOCATION, RETRY_AFTER,
};
use reqwest::{Client, Response, StatusCode, Url};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::guard::{Guard, UrlError, check};

/// How often a server may send elsewhere.
const MAX_REDIRECTS: usize = 5;
/// How long it may take until a connection stands.
const CONNECT: Duration = Duration::from_secs(10);
/// For how long a server may send nothing.
const SILENCE: Duration = Duration::from_secs(20);
/// What of a server's own marks is kept.
const MAX_MARK: usize = 512;

/// By what a server knows again what it sent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Validator {
    /// Its mark of the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// When it changed last, in the server's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<String>,
}

/// What a server answered.
#[derive(Debug)]
pub(super) enum Fetched {
    /// It is as it was.
    NotModified,
    /// The text.
    Text(String, Validator),
}

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It leads where the controller does not go.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The server sends from one place to the next.
    #[error("more than {MAX_REDIRECTS} redirects, the last one to {0}")]
    Redirects(String),
    /// The server sends to what is no URL.
    #[error("a redirect to {0:?}, which is no URL")]
    Redirect(String),
    /// The server answers otherwise.
    #[error("the server answered {status}")]
    Status {
        /// With what.
        status: u16,
        /// After how many seconds it may be asked again.
        retry_after: Option<u64>,
    },
    /// It is larger than it may be.
    #[error("it is larger than limits.max_bytes {0}")]
    TooLarge(u64),
    /// It did not come in time.
    #[error("it did not come within {} s", .0.as_secs())]
    Slow(Duration),
    /// It is packed in a way that is not known.
    #[error("the server packed it as {0:?}, which is not known here")]
    Encoding(String),
    /// It cannot be unpacked.
    #[error("it is not whole: {0}")]
    Packed(String),
    /// It is no text.
    #[error("it is not text: byte {0} is not UTF-8")]
    NoText(usize),
    /// It is a page for people.
    #[error("it is a page of HTML, not a list: look at the address")]
    Html,
    /// No connection, or it broke.
    #[error("{0}")]
    Connection(String),
    /// A file cannot be read.
    #[error("{0}")]
    File(String),
    /// The API server of Kubernetes does not give what is asked for.
    #[error("{0}")]
    Kubernetes(String),
}

impl FetchError {
    /// After how many seconds the server may be asked again, if it said so.
    pub(super) fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Reads from web servers.
#[derive(Debug, Clone)]
pub(super) struct Fetcher {
    client: Client,
    guard: Guard,
    timeout: Duration,
}

impl Fetcher {
    /// One that goes where the guard lets it. `roots` are authorities beside those that everybody trusts.
    pub(super) fn new(
        guard: Guard,
        roots: &[reqwest::Certificate],
        timeout: Duration,
    ) -> reqwest::Result<Self> {
        let mut client = builder().dns_resolver(Arc::new(guard.clone()));
        for root in roots {
            client = client.add_root_certificate(root.clone());
        }
        let client = client.build()?;
        Ok(Self {
            client,
            guard,
            timeout,
        })
    }

    /// Reads a text.
    pub(super) async fn get(
        &self,
        url: Url,
        known: Option<&Validator>,
        most: u64,
    ) -> Result<Fetched, FetchError> {
        match tokio::time::timeout(self.timeout, self.follow(url, known, most)).await {
            Ok(fetched) => fetched,
            Err(_) => Err(FetchError::Slow(self.timeout)),
        }
    }

    async fn follow(
        &self,
        mut url: Url,
        known: Option<&Validator>,
        most: u64,
    ) -> Result<Fetched, FetchError> {
        for _ in 0..=MAX_REDIRECTS {
            check(&url, &self.guard)?;
            let mut request = self.client.get(url.clone()).header(ACCEPT_ENCODING, "gzip");
            for (name, value) in conditions(known) {
                request = request.header(name, value);
            }
            let response = request.send().await.map_err(|error| connection(&error))?;
            let status = response.status();
            if status == StatusCode::NOT_MODIFIED && known.is_some() {
                return Ok(Fetched::NotModified);
            }
            if matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                let to = mark(response.headers(), LOCATION).unwrap_or_default();
                let next = url.join(&to).ok().filter(|_| !to.is_empty());
                url = next.ok_or(FetchError::Redirect(to))?;
                continue;
            }
            if status != StatusCode::OK {
                return Err(refused(&response));
            }
            return text(response, most).await;
        }
        Err(FetchError::Redirects(url.to_string()))
    }
}

/// What all clients of feeds have: no redirects of their own, no proxy by the environment, bounds of time.
pub(super) fn builder() -> reqwest::ClientBuilder {
    Client::builder()
        .user_agent(concat!("xdpgate-controller/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .pool_max_idle_per_host(1)
        .pool_idle_timeout(Duration::from_secs(30))
}

/// The refusal of an answer.
pub(super) fn refused(response: &Response) -> FetchError {
    let seconds = mark(response.headers(), RETRY_AFTER).and_then(|text| text.parse().ok());
    FetchError::Status {
        status: response.status().as_u16(),
        retry_after: seconds,
    }
}

/// The words of an error with what is below it, in one line.
pub(super) fn connection(error: &reqwest::Error) -> FetchError {
    let mut source = std::error::Error::source(error);
    let mut last = error.to_string();
    while let Some(error) = source {
        if let Some(refused) = error.downcast_ref::<UrlError>() {
            return FetchError::Url(refused.clone());
        }
        last = error.to_string();
        source = error.source();
    }
    let what = if error.is_timeout() {
        "the server is silent"
    } else {
        "no connection"
    };
    FetchError::Connection(format!("{what}: {last}"))
}

/// The bytes of an answer, up to a limit.
pub(super) async fn body(mut response: Response, most: u64) -> Result<Vec<u8>, FetchError> {
    if response
        .content_length()
        .is_some_and(|length| length > most)
    {
        return Err(FetchError::TooLarge(most));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| connection(&error))? {
        if (bytes.len() + chunk.len()) as u64 > most {
            return Err(FetchError::TooLarge(most));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn text(response: Response, most: u64) -> Result<Fetched, FetchError> {
    let headers = response.headers();
    let kind = mark(headers, CONTENT_TYPE)
        .unwrap_or_default()
        .to_ascii_lowercase();
    if kind.starts_with("text/html") || kind.starts_with("application/xhtml") {
        return Err(FetchError::Html);
    }
    let packed = match mark(headers, CONTENT_ENCODING).as_deref() {
        None | Some("identity") => false,
        Some("gzip" | "x-gzip") => true,
        Some(other) => return Err(FetchError::Encoding(other.to_owned())),
    };
    let validator = Validator {
        etag: mark(headers, ETAG),
        last_modified: mark(headers, LAST_MODIFIED),
    };
    let bytes = body(response, most).await?;
    let text = tokio::task::spawn_blocking(move || unpacked(bytes, packed, most))
        .await
        .map_err(|error| FetchError::Packed(error.to_string()))??;
    Ok(Fetched::Text(text, validator))
}

/// The text, unpacked if it was packed for the way, or is a file that is packed.
pub(super) fn unpacked(mut bytes: Vec<u8>, packed: bool, most: u64) -> Result<String, FetchError> {
    if packed {
        bytes = gunzip(&bytes, most)?;
    }
    if bytes.starts_with(&[0x1f, 0x8b]) {
        bytes = gunzip(&bytes, most)?;
    }
    String::from_utf8(bytes).map_err(|error| FetchError::NoText(error.utf8_error().valid_up_to()))
}

fn gunzip(bytes: &[u8], most: u64) -> Result<Vec<u8>, FetchError> {
    let mut out = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes)
        .take(most.saturating_add(1))
        .read_to_end(&mut out)
        .map_err(|error| FetchError::Packed(error.to_string()))?;
    if out.len() as u64 > most {
        return Err(FetchError::TooLarge(most));
    }
    Ok(out)
}

fn conditions(known: Option<&Validator>) -> Vec<(HeaderName, &str)> {
    let Some(known) = known else {
        return Vec::new();
    };
    let etag = known.etag.as_deref().map(|etag| (IF_NONE_MATCH, etag));
    let since = known
        .last_modified
        .as_deref()
        .map(|at| (IF_MODIFIED_SINCE, at));
    etag.into_iter().chain(since).collect()
}

/// A header that is not too long.
fn mark(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let value = headers.get(&name)?.to_str().ok()?;
    let most = if name == LOCATION {
        8 * MAX_MARK
    } else {
        MAX_MARK
    };
    (value.len() <= most).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn r117_what_is_packed_is_bounded_by_what_comes_out() {
        let list = b"203.0.113.7\n".repeat(100);
        let text = String::from_utf8(list.clone()).unwrap();
        let once = gzip(&list);
        // A file that is packed; a text packed for the way; a packed file packed for the way.
        assert_eq!(unpacked(list.clone(), false, 2000).unwrap(), text);
        assert_eq!(unpacked(once.clone(), false, 2000).unwrap(), text);
        assert_eq!(unpacked(once.clone(), true, 2000).unwrap(), text);
        assert_eq!(unpacked(gzip(&once), true, 2000).unwrap(), text);
        let bomb = gzip(&vec![b'#'; 50 << 20]);
        assert!(bomb.len() < 100 << 10);
        let refused = unpacked(bomb, false, 1 << 20).unwrap_err();
        assert!(matches!(refused, FetchError::TooLarge(_)), "{refused}");
        let cut = unpacked(once[..once.len() - 9].to_vec(), true, 2000).unwrap_err();
        assert!(matches!(cut, FetchError::Packed(_)), "{cut}");
        let plain = unpacked(list, true, 2000).unwrap_err();
        assert!(matches!(plain, FetchError::Packed(_)), "{plain}");
        let binary = unpacked(vec![b'a', 0xff], false, 2000).unwrap_err();
        assert!(matches!(binary, FetchError::NoText(1)), "{binary}");
    }
}
