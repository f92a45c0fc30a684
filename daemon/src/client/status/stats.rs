//! `xdpgate stats`: the counters, once or again and again.

use std::time::Duration;

use clap::Args;
use xdpgate_api::v1::{
    GetStatsRequest, GetStatsResponse, Rates, VerdictCount, VerdictRates, WatchStatsRequest,
    WatchStatsResponse,
};

use crate::Failure;
use crate::client::args::Remote;
use crate::client::out::{BAD, GOOD, WARN, answer, print, print_json_line};
use crate::client::remote::Enough;
use crate::client::table::{Align, Cell, Table};
use crate::client::{duration, json, names, remote, units};

#[derive(Debug, Args)]
#[command(after_help = "\
Packets and bytes are counted from the Ethernet header on. `would_drop` passed because of dry run.

Examples:
  xdpgate stats
  xdpgate stats --watch --every 5s
  xdpgate stats --watch --json | jq -c '.rates.interfaces[] | [.name, .rates.dropped.packets]'")]
pub(in crate::client) struct Stats {
    /// Go on: rates per second, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// How often; at least 100ms
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "1s")]
    pub every: Duration,
    /// End after so many
    #[arg(long, value_name = "N", requires = "watch")]
    pub count: Option<u64>,
    /// Only the rules with the most hits a second, so many at most; 0: all
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub top: u32,
    #[command(flatten)]
    pub remote: Remote,
}

pub(in crate::client) fn stats(args: &Stats) -> Result<(), Failure> {
    if args.watch {
        return watch(args);
    }
    let stats = remote::call(&args.remote, async |mut client| {
        client.get_stats(GetStatsRequest {}).await
    })?;
    answer(args.remote.json, &stats, stats_text)
}

fn watch(args: &Stats) -> Result<(), Failure> {
    let request = WatchStatsRequest {
        interval: Some(duration::proto(args.every)),
        top_rules: args.top,
    };
    let mut left = args.count;
    remote::session(&args.remote, async |mut client| {
        let stream = client.watch_stats(request).await;
        let stream = stream.map_err(|status| remote::refused(&args.remote, &status))?;
        remote::each(&args.remote, stream.into_inner(), |message| {
            if left == Some(0) {
                return Ok(Enough::Yes);
            }
            match args.remote.json {
                true => print_json_line(&json::of(&message)?)?,
                false => print(&watch_text(&message))?,
            }
            left = left.map(|n| n - 1);
            Ok(match left {
                Some(0) => Enough::Yes,
                _ => Enough::No,
            })
        })
        .await
    })
}

pub(in crate::client) fn stats_text(stats: &GetStatsResponse) -> String {
    let mut verdicts = Table::new(&[
        ("INTERFACE", Align::Left),
        ("VERDICT", Align::Left),
        ("REASON", Align::Left),
        ("PACKETS", Align::Right),
        ("BYTES", Align::Right),
    ]);
    let mut rows = |name: &str, counts: &[VerdictCount]| {
        for count in counts {
            let style = names::disposition_style(count.disposition());
            verdicts.row([
                Cell::from(name),
                Cell::styled(style, names::disposition(count.disposition())),
                count.reason.clone().into(),
                count.packets.to_string().into(),
                units::bytes(count.bytes).into(),
            ]);
        }
    };
    for interface in &stats.interfaces {
        match interface.attached {
            true => rows(&interface.name, &interface.verdicts),
            false => rows(
                &format!("{} (detached)", interface.name),
                &interface.verdicts,
            ),
        }
    }
    rows("(other)", &stats.other);

    let mut rules = Table::new(&[
        ("RULE", Align::Left),
        ("PACKETS", Align::Right),
        ("BYTES", Align::Right),
        ("DROPPED", Align::Right),
        ("WOULD DROP", Align::Right),
        ("OVERFLOW", Align::Right),
    ]);
    for rule in &stats.rules {
        rules.row([
            rule.id.clone(),
            rule.packets.to_string(),
            units::bytes(rule.bytes),
            rule.dropped_packets.to_string(),
            rule.would_drop_packets.to_string(),
            rule.rate_overflow_packets.to_string(),
        ]);
    }
    format!("{verdicts}\n{rules}")
}

fn watch_text(message: &WatchStatsResponse) -> String {
    let time = duration::time_text(message.time);
    let lost = match message.lost {
        0 => String::new(),
        lost => format!(", {lost} left out before"),
    };
    match &message.rates {
        None => format!("{time}  no rates yet: they need two samples{lost}\n"),
        Some(rates) => format!("{time}{lost}\n{}\n", rates_text(rates)),
    }
}

fn is_zero(rates: &VerdictRates) -> bool {
    let all = [rates.passed, rates.dropped, rates.would_drop];
    all.iter().flatten().all(|rate| rate.packets == 0.0)
}

/// Rates of interfaces and of the rules that were hit.
pub(in crate::client) fn rates_text(rates: &Rates) -> String {
    let mut interfaces = Table::new(&[
        ("INTERFACE", Align::Left),
        ("PASS", Align::Right),
        ("", Align::Right),
        ("DROP", Align::Right),
        ("", Align::Right),
        ("WOULD DROP", Align::Right),
        ("", Align::Right),
    ]);
    let none = VerdictRates::default();
    let other = rates.other.as_ref().map(|rates| ("(other)", rates));
    let listed = rates
        .interfaces
        .iter()
        .map(|i| (i.name.as_str(), i.rates.as_ref().unwrap_or(&none)));
    for (name, rates) in listed.chain(other.filter(|(_, rates)| !is_zero(rates))) {
        let [passed, dropped, would_drop] =
            [&rates.passed, &rates.dropped, &rates.would_drop].map(|r| r.unwrap_or_default());
        interfaces.row([
            Cell::from(name),
            Cell::styled(GOOD, units::rate(passed.packets)),
            units::bits(passed.bits).into(),
            Cell::styled(BAD, units::rate(dropped.packets)),
            units::bits(dropped.bits).into(),
            Cell::styled(WARN, units::rate(would_drop.packets)),
            units::bits(would_drop.bits).into(),
        ]);
    }
    let mut rules = Table::new(&[
        ("RULE", Align::Left),
        ("MATCHED", Align::Right),
        ("", Align::Right),
        ("DROPPED", Align::Right),
        ("WOULD DROP", Align::Right),
    ]);
    for rule in &rates.rules {
        let matched = rule.matched.unwrap_or_default();
        if matched.packets > 0.0 {
            rules.row([
                rule.id.clone(),
                units::rate(matched.packets),
                units::bits(matched.bits),
                units::rate(rule.dropped),
                units::rate(rule.would_drop),
            ]);
        }
    }
    match rules.is_empty() {
        true => interfaces.to_string(),
        false => format!("{interfaces}\n{rules}"),
    }
}
