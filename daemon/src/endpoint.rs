//! Where the API is: a Unix socket, an address with TLS, or a loopback address.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// A place where a daemon serves its API, as in `--listen` and `--server`.
///
/// ```
/// use xdpgated::Endpoint;
///
/// let endpoint: Endpoint = "unix:/run/xdpgate/xdpgated.sock".parse()?;
/// assert_eq!(endpoint.to_string(), Endpoint::DEFAULT);
/// let _with_tls: Endpoint = "https://node1.example.org:50051".parse()?;
/// let refused = "192.0.2.1:50051".parse::<Endpoint>().unwrap_err();
/// assert!(refused.to_string().contains("loopback"));
/// # Ok::<(), xdpgated::EndpointError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Endpoint {
    /// A Unix socket: who may use it is decided by the file's permissions.
    Unix(PathBuf),
    /// A loopback address and port, in the clear.
    Tcp(SocketAddr),
    /// An address or name and a port, with TLS.
    Tls {
        /// A name or an address; IPv6 without brackets.
        host: String,
        /// The TCP port.
        port: u16,
    },
}

/// Why a text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// None of the forms.
    #[error("{0:?} is neither unix:PATH nor https://HOST:PORT nor a loopback ADDRESS:PORT")]
    Form(String),
    /// An address that others than this host can reach, without TLS.
    #[error(
        "{0} is not a loopback address: write https://{0} for TLS, or use a Unix socket or 127.0.0.1 and \
         ssh -L to reach it from afar"
    )]
    NotLoopback(SocketAddr),
    /// To listen takes an address.
    #[error("{0:?} is not an address: write https://ADDRESS:PORT, as https://0.0.0.0:50051")]
    NotAnAddress(String),
}

impl Endpoint {
    /// What daemon and client use unless told otherwise.
    pub const DEFAULT: &'static str = "unix:/run/xdpgate/xdpgated.sock";

    /// The form that `tonic::transport::Endpoint` takes.
    pub(crate) fn uri(&self) -> String {
        match self {
            Self::Tcp(address) => format!("http://{address}"),
            other => other.to_string(),
        }
    }

    /// Where to listen, if it is with TLS.
    pub(crate) fn address(&self) -> Result<Option<SocketAddr>, EndpointError> {
        match self {
            Self::Unix(_) => Ok(None),
            Self::Tcp(address) => Ok(Some(*address)),
            Self::Tls { host, port } => match host.parse::<IpAddr>() {
                Ok(address) => Ok(Some((address, *port).into())),
                Err(_) => Err(EndpointError::NotAnAddress(host.clone())),
            },
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
        if let Some(authority) = text.strip_prefix("https://") {
            let authority = authority.strip_suffix('/').unwrap_or(authority);
            return tls(authority).ok_or_else(form);
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

/// `HOST:PORT`, `[IPV6]:PORT`.
fn tls(authority: &str) -> Option<Endpoint> {
    let (host, port) = authority.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host = match bare {
        Some(address) => address.parse::<Ipv6Addr>().ok()?.to_string(),
        None => host.to_owned(),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let fits = bare.is_some() || (!host.is_empty() && host.chars().all(is_name));
    fits.then_some(Endpoint::Tls { host, port })
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => address.fmt(f),
            Self::Tls { host, port } if host.contains(':') => write!(f, "https://[{host}]:{port}"),
            Self::Tls { host, port } => write!(f, "https://{host}:{port}"),
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
            "https://",
            "https://a",
            "https://a b:1",
            "https://[::1:1",
            "https://::1:1",
            "https://u@a:1",
            "https://a/b:1",
            "https://a:65536",
        ] {
            assert_eq!(parse(wrong), Err(EndpointError::Form(wrong.to_owned())));
        }
        for open in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "http://192.0.2.1:1"] {
            assert!(
                matches!(parse(open), Err(EndpointError::NotLoopback(_))),
                "{open}"
            );
        }
    }

    #[test]
    fn with_tls() {
        for text in [
            "https://node-1.example.org:50051",
            "https://192.0.2.1:50051",
            "https://[2001:db8::1]:50051",
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.uri(), text);
            assert_eq!(endpoint.address().is_ok(), !text.contains("node"), "{text}");
        }
    }
}
