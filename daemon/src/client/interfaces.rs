//! The commands about interfaces.

use serde_json::{Value, json};
use xdpgate_api::v1::{
    AttachInterfaceRequest, Bridge, DetachInterfaceRequest, Direction, InterfacePreflight,
    ListInterfacesRequest, ListInterfacesResponse, ModePreference, PreflightRequest, Severity,
    StopRequest,
};

use super::args::{Attach, Detach, Preflight, Remote, Stop};
use super::show::{attachment_json, mode_name};
use super::table::{Align, Table};
use super::{print, print_json, remote};
use crate::failure::Failure;

pub(super) fn list(server: &Remote) -> Result<(), Failure> {
    let found = remote::call(server, async |mut client| {
        client.list_interfaces(ListInterfacesRequest {}).await
    })?;
    match server.json {
        true => print_json(&list_json(&found)),
        false => print(&list_text(&found)),
    }
}

pub(super) fn attach(args: &Attach) -> Result<(), Failure> {
    let request = AttachInterfaceRequest {
        name: args.name.clone(),
        mode: ModePreference::from(args.mode).into(),
    };
    let attached = remote::call(&args.remote, async |mut client| {
        client.attach_interface(request).await
    })?;
    let attachment = attached.attachment.unwrap_or_default();
    if args.remote.json {
        return print_json(&attachment_json(&attachment));
    }
    let mut text = format!(
        "{}: attached in {} mode\n",
        attachment.name,
        mode_name(attachment.mode())
    );
    if let Some(why) = &attachment.fell_back {
        text += &format!("  {why}\n");
    }
    print(&text)
}

pub(super) fn detach(args: &Detach) -> Result<(), Failure> {
    let request = DetachInterfaceRequest {
        name: args.name.clone(),
    };
    let detached = remote::call(&args.remote, async |mut client| {
        client.detach_interface(request).await
    })?;
    let attachment = detached.attachment.unwrap_or_default();
    match args.remote.json {
        true => print_json(&attachment_json(&attachment)),
        false => print(&format!(
            "{}: detached; its frames pass unseen\n",
            attachment.name
        )),
    }
}

pub(super) fn preflight(args: &Preflight) -> Result<(), Failure> {
    let request = PreflightRequest {
        names: args.names.clone(),
        mode: ModePreference::from(args.mode).into(),
    };
    let said = remote::call(&args.remote, async |mut client| {
        client.preflight(request).await
    })?;
    if args.remote.json {
        let all: Vec<Value> = said.interfaces.iter().map(preflight_json).collect();
        return print_json(&all);
    }
    if said.interfaces.is_empty() {
        return print("no interface is attached or selected; name one\n");
    }
    print(
        &said
            .interfaces
            .iter()
            .map(preflight_text)
            .collect::<String>(),
    )
}

pub(super) fn stop(args: &Stop) -> Result<(), Failure> {
    let request = StopRequest {
        detach: args.detach,
    };
    let stopped = remote::call(&args.remote, async |mut client| client.stop(request).await)?;
    if args.remote.json {
        return print_json(&json!({ "goes_on": stopped.goes_on }));
    }
    print(match stopped.goes_on {
        true => "stopping; what is attached goes on being judged\n",
        false => "stopping; everything is detached\n",
    })
}

fn list_text(found: &ListInterfacesResponse) -> String {
    let mut table = Table::new(&[
        ("INTERFACE", Align::Left),
        ("IFINDEX", Align::Right),
        ("KIND", Align::Left),
        ("STATE", Align::Left),
        ("MTU", Align::Right),
        ("MODE", Align::Left),
        ("NOTE", Align::Left),
    ]);
    for interface in &found.interfaces {
        let attached = interface.attachment.as_ref();
        let fell_back = attached.and_then(|a| a.fell_back.clone());
        let note = interface.error.clone().or(fell_back);
        let note = note.or(match attached {
            Some(_) => None,
            None => interface.skipped.clone(),
        });
        table.row([
            interface.name.clone(),
            interface.ifindex.to_string(),
            interface.kind.clone().unwrap_or_else(|| "-".to_owned()),
            interface.oper_state.clone(),
            interface.mtu.to_string(),
            attached.map_or("-", |a| mode_name(a.mode())).to_owned(),
            note.unwrap_or_default(),
        ]);
    }
    let mut text = table.to_string();
    if !found.bridges.is_empty() {
        let mut bridges = Table::new(&[
            ("OUTER", Align::Left),
            ("INNER", Align::Left),
            ("FILTER", Align::Left),
            ("IN FORWARDED", Align::Right),
            ("IN DROPPED", Align::Right),
            ("OUT FORWARDED", Align::Right),
            ("OUT DROPPED", Align::Right),
        ]);
        for bridge in &found.bridges {
            let inbound = bridge.inbound.unwrap_or_default();
            let outbound = bridge.outbound.unwrap_or_default();
            bridges.row([
                bridge.outer.clone(),
                bridge.inner.clone(),
                bridge.filter.clone(),
                inbound.forwarded_packets.to_string(),
                inbound.dropped_packets.to_string(),
                outbound.forwarded_packets.to_string(),
                outbound.dropped_packets.to_string(),
            ]);
        }
        text += &format!("\n{bridges}");
    }
    text
}

fn list_json(found: &ListInterfacesResponse) -> Value {
    let direction = |direction: &Option<Direction>| {
        let direction = direction.unwrap_or_default();
        json!({
            "forwarded_packets": direction.forwarded_packets,
            "forwarded_bytes": direction.forwarded_bytes,
            "dropped_packets": direction.dropped_packets,
            "dropped_bytes": direction.dropped_bytes,
        })
    };
    let bridge = |bridge: &Bridge| {
        json!({
            "outer": bridge.outer,
            "inner": bridge.inner,
            "filter": bridge.filter,
            "inbound": direction(&bridge.inbound),
            "outbound": direction(&bridge.outbound),
        })
    };
    json!({
        "interfaces": found.interfaces.iter().map(|i| json!({
            "ifindex": i.ifindex,
            "name": i.name,
            "kind": i.kind,
            "driver": i.driver,
            "up": i.up,
            "oper_state": i.oper_state,
            "mtu": i.mtu,
            "selected": i.selected,
            "skipped": i.skipped,
            "attachment": i.attachment.as_ref().map(attachment_json),
            "error": i.error,
        })).collect::<Vec<_>>(),
        "bridges": found.bridges.iter().map(bridge).collect::<Vec<_>>(),
        "watch": found.watch.map(|watch| json!({
            "messages": watch.messages,
            "overruns": watch.overruns,
            "rescans": watch.rescans,
            "attached": watch.attached,
            "detached": watch.detached,
            "failed": watch.failed,
        })),
    })
}

fn preflight_text(report: &InterfacePreflight) -> String {
    let mut text = match report.expected_mode.is_some() {
        true => format!(
            "{}: would be attached in {} mode\n",
            report.name,
            mode_name(report.expected_mode())
        ),
        false => format!("{}: would not be attached\n", report.name),
    };
    for finding in &report.findings {
        let severity = severity_name(finding.severity());
        text += &format!("  {severity}: {}\n", finding.message);
        if let Some(command) = &finding.mend {
            text += &format!("      {command}\n");
        }
    }
    text
}

fn preflight_json(report: &InterfacePreflight) -> Value {
    json!({
        "ifindex": report.ifindex,
        "name": report.name,
        "expected_mode": report.expected_mode.map(|_| mode_name(report.expected_mode())),
        "findings": report.findings.iter().map(|finding| json!({
            "kind": finding.kind,
            "severity": severity_name(finding.severity()),
            "message": finding.message,
            "mend": finding.mend,
        })).collect::<Vec<_>>(),
    })
}

fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Unspecified => "unknown",
        Severity::Hint => "hint",
        Severity::Degrades => "degrades",
        Severity::MayBlockNative => "may block native mode",
        Severity::BlocksNative => "blocks native mode",
        Severity::BlocksAttach => "blocks",
    }
}
