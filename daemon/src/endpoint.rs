//! Where the API is: a Unix socket or a loopback address.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// A place where a daemon serves its API, as in `--listen` and `--server`.
///
/// ```
/// use xdpgated::Endpoint;
///
/// let endpoint: Endpoint = "unix:/run/xdpgate/xdpgated.sock".parse()?;
/// assert_eq!(endpoint.to_string(), Endpoint::DEFAULT);
/// let refused = "192.0.2.1:50051".parse::<Endpoint>().unwrap_err();
/// assert!(refused.to_string().contains("loopback"));
/// # Ok::<(), xdpgated::EndpointError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket: who may use it is decided by the file's permissions.
    Unix(PathBuf),
    /// A loopback address and port: every user of the host may use it.
    Tcp(SocketAddr),
}

/// Why a text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Neither of the forms.
    #[error("{0:?} is neither unix:PATH nor ADDRESS:PORT")]
    Form(String),
    /// An address that others than this host can reach.
    #[error(
        "{0} is not a loopback address: TLS comes in a later version, until then use a Unix socket \
         or 127.0.0.1, and ssh -L to reach it from afar"
    )]
    NotLoopback(SocketAddr),
}

impl Endpoint {
    /// What daemon and client use unless told otherwise.
    pub const DEFAULT: &'static str = "unix:/run/xdpgate/xdpgated.sock";

    /// The form that `tonic::transport::Endpoint` takes.
    pub(crate) fn uri(&self) -> String {
        match self {
            Self::Unix(path) => format!("unix:{}", path.display()),
            Self::Tcp(address) => format!("http://{address}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let form = || EndpointError::Form(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err(form()),
                path => Ok(Self::Unix(path.into())),
            };
        }
        let address = text.strip_prefix("http://").unwrap_or(text);
        let address = address.strip_suffix('/').unwrap_or(address);
        let address: SocketAddr = match address.strip_prefix("localhost:") {
            Some(port) => (
                std::net::Ipv4Addr::LOCALHOST,
                port.parse().map_err(|_| form())?,
            )
                .into(),
            None => address.parse().map_err(|_| form())?,
        };
        if !address.ip().is_loopback() {
            return Err(EndpointError::NotLoopback(address));
        }
        Ok(Self::Tcp(address))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, EndpointError};

    #[test]
    fn forms() {
        let parse = str::parse::<Endpoint>;
        assert_eq!(
            parse("unix:///run/x").unwrap(),
            Endpoint::Unix("/run/x".into())
        );
        assert_eq!(
            parse("unix:x.sock").unwrap(),
            Endpoint::Unix("x.sock".into())
        );
        for tcp in [
            "127.0.0.1:50051",
            "http://127.0.0.1:50051",
            "http://localhost:50051/",
        ] {
            assert_eq!(parse(tcp).unwrap().uri(), "http://127.0.0.1:50051");
        }
        assert_eq!(parse("[::1]:1").unwrap().to_string(), "[::1]:1");
        for wrong in [
            "",
            "unix:",
            "50051",
            "example.org:1",
            "127.0.0.1",
            "localhost:x",
        ] {
            assert_eq!(parse(wrong), Err(EndpointError::Form(wrong.to_owned())));
        }
        for open in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1"] {
            assert!(
                matches!(parse(open), Err(EndpointError::NotLoopback(_))),
                "{open}"
            );
        }
    }
}
