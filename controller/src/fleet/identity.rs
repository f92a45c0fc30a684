//! Who calls.

use tonic::Status;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};

use super::NodeId;

/// Who a node is, before it is known whether it may be here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// The serial number of its certificate, in lower-case hexadecimal without leading zeros.
    pub serial: Option<String>,
}

/// Says who calls.
pub trait Identify: std::fmt::Debug + Send + Sync + 'static {
    /// Who it is. Whether the node is a member and not revoked is asked afterwards.
    ///
    /// # Errors
    /// UNAUTHENTICATED: that is not known.
    fn identify(
        &self,
        extensions: &http::Extensions,
        headers: &http::HeaderMap,
    ) -> Result<Identity, Status>;
}

/// By the subject of the client certificate, which TLS has checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Certificates;

impl Identify for Certificates {
    fn identify(
        &self,
        extensions: &http::Extensions,
        _: &http::HeaderMap,
    ) -> Result<Identity, Status> {
        let info = extensions.get::<TlsConnectInfo<TcpConnectInfo>>();
        let chain = info.and_then(TlsConnectInfo::peer_certs);
        let first = chain.as_ref().and_then(|chain| chain.first());
        let first = first.ok_or_else(|| {
            Status::unauthenticated(
                "this call takes the certificate of a node: join the fleet first",
            )
        })?;
        of_certificate(first).ok_or_else(|| {
            Status::unauthenticated(
                "the certificate names no node: join the fleet with a new token",
            )
        })
    }
}

fn of_certificate(der: &[u8]) -> Option<Identity> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?;
    // Two names are none.
    if names.next().is_some() {
        return None;
    }
    Some(Identity {
        node: NodeId::new(name).ok()?,
        serial: Some(certificate.tbs_certificate.serial.to_str_radix(16)),
    })
}
