//! What the service manager is told of the firewall.

use xdpgate::Firewall;
pub(super) use xdpgate_service::notify::{alive, alive_every, ready, reloading, status, stopping};

/// What is in force, in one line.
pub(super) fn status_line(firewall: &Firewall) -> String {
    let policy = match firewall.generation() {
        Some(generation) => format!("policy generation {generation}"),
        None => "no policy yet".to_owned(),
    };
    let interfaces = match firewall.attachments().len() {
        1 => "1 interface".to_owned(),
        count => format!("{count} interfaces"),
    };
    let mode = if firewall.dry_run() { ", dry run" } else { "" };
    format!("{policy}, {interfaces}{mode}")
}
