//! The commands about interfaces.

use clap::Args;
use xdpgate_api::v1::{
    AttachInterfaceRequest, AttachInterfaceResponse, Attachment, DetachInterfaceRequest,
    InterfacePreflight, ListInterfacesRequest, ListInterfacesResponse, ModePreference,
    PreflightRequest, WatchInterfacesRequest, WatchInterfacesResponse, watch_interfaces_response,
};

use super::args::{Mode, Remote};
use super::out::{BAD, GOOD, WARN, answer, print, print_json_line, styled};
use super::remote::Enough;
use super::table::{Align, Cell, Table};
use super::{duration, json, names, remote};
use crate::Failure;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xdpgate interfaces
  xdpgate interfaces --watch              what is attached and detached, as it happens
  xdpgate interfaces --json | jq -r '.interfaces[] | select(.error) | .name'")]
pub(super) struct List {
    /// Print what is done about interfaces, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xdpgate attach eth7
  xdpgate attach eth7 --mode native")]
pub(super) struct Attach {
    /// The interface
    pub name: String,
    /// Which modes it may have
    #[arg(long, value_enum, default_value_t = Mode::Best)]
    pub mode: Mode,
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  xdpgate detach eth7")]
pub(super) struct Detach {
    /// The interface
    pub name: String,
    #[command(flatten)]
    pub remote: Remote,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xdpgate preflight                       those that are attached or selected
  xdpgate preflight eth0 --mode native")]
pub(super) struct Preflight {
    /// Interfaces; without any those that are attached or selected
    pub names: Vec<String>,
    /// Which modes they may have
    #[arg(long, value_enum, default_value_t = Mode::Best)]
    pub mode: Mode,
    #[command(flatten)]
    pub remote: Remote,
}

pub(super) fn list(args: &List) -> Result<(), Failure> {
    if args.watch {
        return watch(&args.remote);
    }
    let found = remote::call(&args.remote, async |mut client| {
        client.list_interfaces(ListInterfacesRequest {}).await
    })?;
    answer(args.remote.json, &found, list_text)
}

fn watch(server: &Remote) -> Result<(), Failure> {
    remote::session(server, async |mut client| {
        let stream = client.watch_interfaces(WatchInterfacesRequest {}).await;
        let stream = stream.map_err(|status| remote::refused(server, &status))?;
        remote::each(server, stream.into_inner(), |message| {
            match server.json {
                true => print_json_line(&json::of(&message)?)?,
                false => print(&watch_text(&message))?,
            }
            Ok(Enough::No)
        })
        .await
    })
}

fn watch_text(message: &WatchInterfacesResponse) -> String {
    use watch_interfaces_response::Kind;
    let (what, style) = match message.kind() {
        Kind::Unspecified => ("unknown", WARN),
        Kind::Started => ("started", GOOD),
        Kind::Attached => ("attached", GOOD),
        Kind::Detached => ("detached", WARN),
        Kind::Failed => ("failed", BAD),
        Kind::Skipped => ("skipped", WARN),
        Kind::Renamed => ("renamed", GOOD),
        Kind::Resynced => ("resynced", WARN),
    };
    let mut text = duration::time_text(message.time);
    if message.lost > 0 {
        text += &format!("  ({} messages lost)", message.lost);
    }
    if !message.name.is_empty() {
        text += &format!("  {}", message.name);
    }
    text += &format!("  {}", styled(style, what));
    if let Some(attachment) = &message.attachment {
        text += &format!("  {}", names::attach_mode(attachment.mode()));
    }
    if !message.detail.is_empty() {
        text += &format!("  {}", message.detail);
    }
    text + "\n"
}

pub(super) fn attach(args: &Attach) -> Result<(), Failure> {
    let request = AttachInterfaceRequest {
        name: args.name.clone(),
        mode: ModePreference::from(args.mode).into(),
    };
    let attached = remote::call(&args.remote, async |mut client| {
        client.attach_interface(request).await
    })?;
    answer(args.remote.json, &attached, attach_text)
}

fn attach_text(done: &AttachInterfaceResponse) -> String {
    let attachment = done.attachment.clone().unwrap_or_default();
    let mut text = format!(
        "{}: attached in {} mode\n",
        attachment.name,
        names::attach_mode(attachment.mode())
    );
    if let Some(why) = &attachment.fell_back {
        text += &format!("  {why}\n");
    }
    text
}

pub(super) fn detach(args: &Detach) -> Result<(), Failure> {
    let request = DetachInterfaceRequest {
        name: args.name.clone(),
    };
    let detached = remote::call(&args.remote, async |mut client| {
        client.detach_interface(request).await
    })?;
    answer(args.remote.json, &detached, |done| {
        let attachment = done.attachment.clone().unwrap_or_default();
        format!("{}: detached; its frames pass unseen\n", attachment.name)
    })
}

pub(super) fn preflight(args: &Preflight) -> Result<(), Failure> {
    let request = PreflightRequest {
        names: args.names.clone(),
        mode: ModePreference::from(args.mode).into(),
    };
    let said = remote::call(&args.remote, async |mut client| {
        client.preflight(request).await
    })?;
    answer(args.remote.json, &said, |said| {
        match said.interfaces.is_empty() {
            true => "no interface is attached or selected; name one\n".to_owned(),
            false => said.interfaces.iter().map(preflight_text).collect(),
        }
    })
}

/// What is worth a word about an attachment, in a table of them.
pub(super) fn attachment_note(attachment: &Attachment) -> String {
    let dry_run = attachment.dry_run.then_some("dry run here");
    let notes = dry_run.into_iter().chain(attachment.fell_back.as_deref());
    notes.collect::<Vec<_>>().join("; ")
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
        let note = interface.error.clone().or(match attached {
            Some(attached) => Some(attachment_note(attached)),
            None => interface.skipped.clone(),
        });
        let style = match (&interface.error, attached) {
            (Some(_), _) => BAD,
            (None, Some(_)) => GOOD,
            (None, None) => anstyle::Style::new(),
        };
        let mode = attached.map_or("-", |a| names::attach_mode(a.mode()));
        table.row([
            interface.name.clone().into(),
            interface.ifindex.to_string().into(),
            Cell::from(interface.kind.as_deref().unwrap_or("-")),
            interface.oper_state.clone().into(),
            interface.mtu.to_string().into(),
            Cell::styled(style, mode),
            note.unwrap_or_default().into(),
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

fn preflight_text(report: &InterfacePreflight) -> String {
    let mut text = match report.expected_mode.is_some() {
        true => format!(
            "{}: would be attached in {} mode\n",
            report.name,
            names::attach_mode(report.expected_mode())
        ),
        false => format!("{}: would not be attached\n", report.name),
    };
    for finding in &report.findings {
        let severity = names::severity(finding.severity());
        text += &format!("  {severity}: {}\n", finding.message);
        if let Some(command) = &finding.mend {
            text += &format!("      {command}\n");
        }
    }
    text
}
