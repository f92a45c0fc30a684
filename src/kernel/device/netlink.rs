//! One question and its answer over netlink, on a socket of its own.
//!
//! A router of neli would start a thread for each; this is the plain socket.

use std::fmt::Debug;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use neli::consts::genl::{CtrlAttr, CtrlCmd};
use neli::consts::nl::{GenlId, NlType, NlmF};
use neli::consts::rtnl::{Ifla, RtAddrFamily, Rtm};
use neli::consts::socket::NlFamily;
use neli::genl::{AttrTypeBuilder, Genlmsghdr, GenlmsghdrBuilder, Nlattr, NlattrBuilder};
use neli::nl::{NlPayload, NlmsghdrBuilder};
use neli::rtnl::{Ifinfomsg, IfinfomsgBuilder, RtattrBuilder};
use neli::socket::synchronous::NlSocketHandle;
use neli::types::{Buffer, GenlBuffer, RtBuffer};
use neli::utils::Groups;
use neli::{FromBytesWithInput, Size, ToBytes};

use crate::kernel::sys::netlink_error;

/// An answer of generic netlink.
pub(super) type Answer = Genlmsghdr<u8, u16>;

/// Generic netlink, in the network namespace of the calling thread.
pub(super) struct Generic(NlSocketHandle);

/// A family of generic netlink that the kernel has.
pub(super) struct Family<'g> {
    socket: &'g Generic,
    id: u16,
}

impl Generic {
    pub(super) fn open() -> io::Result<Self> {
        connect(NlFamily::Generic).map(Self)
    }

    /// An error of kind `NotFound` if the kernel has no such family.
    pub(super) fn family(&self, name: &str) -> io::Result<Family<'_>> {
        let attribute = NlattrBuilder::default()
            .nla_type(attribute_type(u16::from(CtrlAttr::FamilyName), false)?)
            .nla_payload(name)
            .build()
            .map_err(io::Error::other)?;
        let message = message(u8::from(CtrlCmd::Getfamily), 2, attribute)?;
        let answer: Answer = ask(&self.0, u16::from(GenlId::Ctrl), message)?;
        let id = number::<u16>(&answer, u16::from(CtrlAttr::FamilyId));
        let id = id.ok_or_else(|| io::Error::other("a family without a number"))?;
        Ok(Family { socket: self, id })
    }
}

impl Family<'_> {
    /// Asks with one attribute.
    pub(super) fn ask(&self, command: u8, attribute: Nlattr<u16, Buffer>) -> io::Result<Answer> {
        ask(&self.socket.0, self.id, message(command, 1, attribute)?)
    }
}

/// What rtnetlink says of one interface; `namespace` is the number of another namespace, as known
/// in that of the calling thread.
pub(super) fn link(ifindex: u32, namespace: Option<i32>) -> io::Result<Ifinfomsg> {
    let socket = connect(NlFamily::Route)?;
    let mut attributes = RtBuffer::new();
    if let Some(namespace) = namespace {
        let attribute = RtattrBuilder::default()
            .rta_type(Ifla::IfNetnsid)
            .rta_payload(namespace)
            .build()
            .map_err(io::Error::other)?;
        attributes.push(attribute);
    }
    let message = IfinfomsgBuilder::default()
        .ifi_family(RtAddrFamily::Unspecified)
        .ifi_index(ifindex as i32)
        .rtattrs(attributes)
        .build()
        .map_err(io::Error::other)?;
    ask(&socket, Rtm::Getlink, message)
}

/// The number that another network namespace has in that of the calling thread, if it has one.
pub(super) fn namespace_id(namespace: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    /// `NETNSA_NSID`, `NETNSA_FD` of `include/uapi/linux/net_namespace.h`.
    const NSID: u16 = 1;
    const FD: u16 = 3;
    let socket = connect(NlFamily::Route)?;
    // `struct rtgenmsg`, which is padded to four bytes, then one attribute. neli does not pad it.
    let mut request = vec![0; 4];
    request.extend(8u16.to_ne_bytes());
    request.extend(FD.to_ne_bytes());
    request.extend(namespace.as_raw_fd().to_ne_bytes());
    let answer = ask(&socket, Rtm::Getnsid, Buffer::from(request))?;
    let is_id =
        |attribute: &&[u8]| attribute[..4] == [8u16.to_ne_bytes(), NSID.to_ne_bytes()].concat();
    let attributes = answer.as_ref().get(4..).unwrap_or_default();
    let id = attributes.chunks_exact(8).find(is_id);
    let id = id.map(|attribute| i32::from_ne_bytes(attribute[4..].try_into().expect("four bytes")));
    // NETNSA_NSID_NOT_ASSIGNED is -1.
    Ok(id.filter(|id| *id >= 0))
}

/// An attribute with a number of four bytes.
pub(super) fn attribute(kind: u16, value: u32) -> io::Result<Nlattr<u16, Buffer>> {
    NlattrBuilder::default()
        .nla_type(attribute_type(kind, false)?)
        .nla_payload(value)
        .build()
        .map_err(io::Error::other)
}

/// An attribute that holds another one.
pub(super) fn nest(kind: u16, inner: &Nlattr<u16, Buffer>) -> io::Result<Nlattr<u16, Buffer>> {
    NlattrBuilder::default()
        .nla_type(attribute_type(kind, true)?)
        .nla_payload(Buffer::new())
        .build()
        .map_err(io::Error::other)?
        .nest(inner)
        .map_err(io::Error::other)
}

/// A number among the attributes of an answer.
pub(super) fn number<T: neli::FromBytes>(answer: &Answer, kind: u16) -> Option<T> {
    let attributes = answer.attrs().get_attr_handle();
    attributes.get_attr_payload_as(kind).ok()
}

fn attribute_type(kind: u16, nested: bool) -> io::Result<neli::genl::AttrType<u16>> {
    AttrTypeBuilder::default()
        .nla_type(kind)
        .nla_nested(nested)
        .build()
        .map_err(io::Error::other)
}

fn message(command: u8, version: u8, attribute: Nlattr<u16, Buffer>) -> io::Result<Answer> {
    GenlmsghdrBuilder::default()
        .cmd(command)
        .version(version)
        .attrs([attribute].into_iter().collect::<GenlBuffer<_, _>>())
        .build()
        .map_err(io::Error::other)
}

fn connect(family: NlFamily) -> io::Result<NlSocketHandle> {
    NlSocketHandle::connect(family, None, Groups::empty()).map_err(|e| netlink_error(&e))
}

/// Sends a request and returns its answer: the kernel gives one, or an error, to each.
fn ask<T, P>(socket: &NlSocketHandle, kind: T, payload: P) -> io::Result<P>
where
    T: NlType + Debug,
    P: Size + ToBytes + FromBytesWithInput<Input = usize> + Clone + Debug,
{
    let request = NlmsghdrBuilder::default()
        .nl_type(kind)
        .nl_flags(NlmF::REQUEST)
        .nl_payload(NlPayload::Payload(payload))
        .build()
        .map_err(io::Error::other)?;
    socket.send(&request).map_err(|e| netlink_error(&e))?;
    let (mut answers, _) = socket.recv::<T, P>().map_err(|e| netlink_error(&e))?;
    let none = || io::Error::other("no answer over netlink");
    let mut answer = answers
        .next()
        .ok_or_else(none)?
        .map_err(|e| netlink_error(&e))?;
    if let Some(error) = answer.get_err() {
        return Err(io::Error::from_raw_os_error(-error.error()));
    }
    answer.get_payload().cloned().ok_or_else(none)
}
