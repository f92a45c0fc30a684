//! The calls about interfaces.

use tonic::Status;
use xdpgate::{Attachment, AutoAttach, AutoInterface, Decision, Firewall, IfIndex, Interface};
use xdpgate_api::v1;

use crate::agent::{convert, fault};

/// All interfaces, and what is made of them.
pub(super) fn list(
    firewall: &Firewall,
    auto: Option<&AutoAttach>,
) -> Result<v1::ListInterfacesResponse, Status> {
    let interfaces = match auto {
        Some(auto) => auto.interfaces().into_iter().map(watched).collect(),
        None => {
            let attachments = firewall.attachments();
            let all = firewall.interfaces();
            let all = all.map_err(fault::internal)?;
            let found = |interface: &Interface| {
                let mut here = attachments.iter();
                here.find(|a| a.ifindex == interface.ifindex).cloned()
            };
            all.into_iter()
                .map(|interface| {
                    let attachment = found(&interface);
                    described(interface, attachment)
                })
                .collect()
        }
    };
    Ok(v1::ListInterfacesResponse {
        interfaces,
        bridges: firewall
            .bridges()
            .into_iter()
            .map(convert::bridge)
            .collect(),
        watch: auto.map(|auto| convert::watch(auto.stats())),
    })
}

fn watched(auto: AutoInterface) -> v1::Interface {
    let skipped = match &auto.decision {
        Decision::Attach => None,
        Decision::Skip(reason) => Some(reason.to_string()),
    };
    v1::Interface {
        selected: Some(skipped.is_none()),
        skipped,
        error: auto.error.map(|error| error.to_string()),
        ..described(auto.interface, auto.attachment)
    }
}

fn described(interface: Interface, attachment: Option<Attachment>) -> v1::Interface {
    v1::Interface {
        ifindex: interface.ifindex.get(),
        name: interface.name,
        kind: interface.kind,
        driver: interface.driver,
        up: interface.up,
        oper_state: interface.oper_state.as_str().to_owned(),
        mtu: interface.mtu,
        selected: None,
        skipped: None,
        attachment: attachment.map(convert::attachment),
        error: None,
    }
}

pub(super) fn attach(
    firewall: &Firewall,
    request: &v1::AttachInterfaceRequest,
) -> Result<v1::AttachInterfaceResponse, Status> {
    let preference = convert::preference(convert::known("mode", request.mode)?);
    let attached = firewall
        .ifindex(&request.name)
        .and_then(|ifindex| firewall.attach(ifindex, preference))
        .map_err(|e| fault::attach(&e))?;
    log::info!("{}: attached, as asked", attached.name);
    Ok(v1::AttachInterfaceResponse {
        attachment: Some(convert::attachment(attached)),
    })
}

pub(super) fn detach(
    firewall: &Firewall,
    name: &str,
) -> Result<v1::DetachInterfaceResponse, Status> {
    let detached = firewall
        .ifindex(name)
        .and_then(|ifindex| firewall.detach(ifindex))
        .map_err(|e| fault::attach_request(&e, Some(name)))?;
    log::info!("{}: detached, as asked", detached.name);
    Ok(v1::DetachInterfaceResponse {
        attachment: Some(convert::attachment(detached)),
    })
}

pub(super) fn preflight(
    firewall: &Firewall,
    auto: Option<&AutoAttach>,
    request: &v1::PreflightRequest,
) -> Result<v1::PreflightResponse, Status> {
    let preference = convert::preference(convert::known("mode", request.mode)?);
    let named = request.names.iter().map(|name| firewall.ifindex(name));
    let mut wanted: Vec<IfIndex> = named
        .collect::<Result<_, _>>()
        .map_err(|e| fault::attach(&e))?;
    if request.names.is_empty() {
        wanted.extend(firewall.attachments().iter().map(|a| a.ifindex));
        let selected = auto.map(AutoAttach::interfaces).unwrap_or_default();
        let selected = selected.iter().filter(|i| i.decision == Decision::Attach);
        wanted.extend(selected.map(|i| i.interface.ifindex));
        wanted.sort_unstable();
        wanted.dedup();
    }
    let reports = wanted.into_iter().map(|ifindex| {
        let report = firewall.preflight(ifindex, preference);
        report
            .map(convert::preflight)
            .map_err(|e| fault::attach(&e))
    });
    Ok(v1::PreflightResponse {
        interfaces: reports.collect::<Result<_, _>>()?,
    })
}
