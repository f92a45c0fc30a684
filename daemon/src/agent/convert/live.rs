//! What changes by itself: bans, rates, events.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use xdpgate as lib;
use xdpgate::packet::Parsed;
use xdpgate_api::v1;

pub(in crate::agent) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.as_nanosecond().div_euclid(1_000_000_000) as i64,
        nanos: at.as_nanosecond().rem_euclid(1_000_000_000) as i32,
    }
}

pub(in crate::agent) fn now() -> prost_types::Timestamp {
    SystemTime::now().into()
}

fn duration(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}

pub(in crate::agent) fn ban(ban: &lib::Ban) -> v1::BanInfo {
    let scope = match ban.scope {
        lib::BanScope::Source => v1::BanScope::Source,
        lib::BanScope::Destination => v1::BanScope::Destination,
        lib::BanScope::Both => v1::BanScope::Both,
    };
    v1::BanInfo {
        prefix: ban.prefix.to_string(),
        scope: scope.into(),
        expires: Some(timestamp(ban.expires)),
        packets: ban.packets,
    }
}

pub(in crate::agent) fn rates(rates: &lib::Rates) -> v1::Rates {
    let interface = |interface: &lib::InterfaceRates| v1::InterfaceRates {
        ifindex: interface.ifindex.get(),
        name: interface.name.clone(),
        rates: Some(verdict_rates(&interface.rates)),
    };
    let rule = |rule: &lib::RuleRates| v1::RuleRates {
        id: rule.id.to_string(),
        matched: Some(rate(rule.matched)),
        dropped: rule.dropped,
        would_drop: rule.would_drop,
    };
    v1::Rates {
        sample: rates.sample,
        interval: duration(rates.interval),
        interfaces: rates.interfaces.iter().map(interface).collect(),
        other: Some(verdict_rates(&rates.other)),
        rules: rates.rules.iter().map(rule).collect(),
    }
}

fn verdict_rates(rates: &lib::VerdictRates) -> v1::VerdictRates {
    v1::VerdictRates {
        passed: Some(rate(rates.passed)),
        dropped: Some(rate(rates.dropped)),
        would_drop: Some(rate(rates.would_drop)),
    }
}

fn rate(rate: lib::Rate) -> v1::Rate {
    v1::Rate {
        packets: rate.packets,
        bits: rate.bits,
    }
}

pub(in crate::agent) fn event(event: lib::Event) -> v1::Event {
    let packet = match event.packet() {
        Parsed::Ip(packet) => Some(packet),
        _ => None,
    };
    let ports = packet.as_ref().and_then(|packet| packet.ports);
    let address = |address: std::net::IpAddr| address.to_string();
    v1::Event {
        time: Some(timestamp(event.time)),
        ifindex: event.ifindex.get(),
        interface: event.interface.unwrap_or_default(),
        queue: event.queue,
        disposition: super::disposition(event.disposition).into(),
        reason: event.reason.to_string(),
        rule: event.rule.map(|id| id.to_string()),
        generation: event.generation.get(),
        length: event.length,
        data: event.data,
        source: packet.as_ref().map_or_else(String::new, |p| address(p.src)),
        destination: packet.as_ref().map_or_else(String::new, |p| address(p.dst)),
        protocol: packet.as_ref().and_then(|p| p.protocol).map(u32::from),
        source_port: ports.map(|(source, _)| source.into()),
        destination_port: ports.map(|(_, destination)| destination.into()),
    }
}

pub(in crate::agent) fn auto_event(event: lib::AutoEvent) -> v1::WatchInterfacesResponse {
    use v1::watch_interfaces_response::Kind;
    let about = |kind: Kind, ifindex: lib::IfIndex, name: String, detail: String| {
        v1::WatchInterfacesResponse {
            kind: kind.into(),
            ifindex: ifindex.get(),
            name,
            detail,
            ..Default::default()
        }
    };
    let with = |kind: Kind, attachment: lib::Attachment, detail: String| {
        let told = about(kind, attachment.ifindex, attachment.name.clone(), detail);
        v1::WatchInterfacesResponse {
            attachment: Some(super::attachment(attachment)),
            ..told
        }
    };
    match event {
        lib::AutoEvent::Attached { attachment, took } => {
            with(Kind::Attached, attachment, format!("after {took:.1?}"))
        }
        lib::AutoEvent::Detached { attachment, why } => {
            let why = match why {
                lib::DetachReason::Gone => "it is gone".to_owned(),
                lib::DetachReason::Deselected(reason) => reason.to_string(),
                _ => String::new(),
            };
            with(Kind::Detached, attachment, why)
        }
        lib::AutoEvent::Failed {
            ifindex,
            interface,
            error,
        } => about(Kind::Failed, ifindex, interface, error.to_string()),
        lib::AutoEvent::Skipped {
            ifindex,
            interface,
            reason,
        } => about(Kind::Skipped, ifindex, interface, reason.to_string()),
        lib::AutoEvent::Renamed { ifindex, from, to } => about(Kind::Renamed, ifindex, to, from),
        lib::AutoEvent::Resynced { why } => v1::WatchInterfacesResponse {
            kind: Kind::Resynced.into(),
            detail: match why {
                lib::Resync::Overrun => "messages of the kernel were lost".to_owned(),
                _ => "it was time".to_owned(),
            },
            ..Default::default()
        },
        _ => v1::WatchInterfacesResponse::default(),
    }
}
