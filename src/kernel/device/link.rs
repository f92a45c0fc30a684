//! MTU, kind and the other end, over rtnetlink.

use neli::attr::Attribute;
use neli::consts::rtnl::{Ifla, IflaInfo};

use super::netlink;

/// What rtnetlink says of an interface.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub name: Option<String>,
    pub mtu: Option<u32>,
    pub kind: Option<String>,
    /// The interface that it hangs on, or its peer.
    pub linked_to: Option<u32>,
    /// The namespace of that, if it is another one.
    pub namespace: Option<i32>,
}

pub(super) fn of(ifindex: u32, namespace: Option<i32>) -> Link {
    let Ok(answer) = netlink::link(ifindex, namespace) else {
        return Link::default();
    };
    let attributes = answer.rtattrs().get_attr_handle();
    let number = |kind| attributes.get_attr_payload_as::<u32>(kind).ok();
    let info = attributes.get_nested_attributes::<IflaInfo>(Ifla::Linkinfo);
    let kind = info.ok().and_then(|info| {
        let kind = info.get_attribute(IflaInfo::Kind)?;
        kind.get_payload_as_with_len::<String>().ok()
    });
    Link {
        name: attributes
            .get_attr_payload_as_with_len::<String>(Ifla::Ifname)
            .ok(),
        mtu: number(Ifla::Mtu),
        kind,
        linked_to: number(Ifla::Link),
        namespace: attributes
            .get_attr_payload_as::<i32>(Ifla::LinkNetnsid)
            .ok(),
    }
}
