//! What the API tells and does while packets flow: bans, streams of counters, frames and interfaces.

mod common;

use std::time::{Duration, Instant};

use common::api::{Scene, apply, arrives};
use common::is_root;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_types::StatusExt;
use xdpgate_api::v1::firewall_client::FirewallClient;
use xdpgate_api::v1::unban_request::Which;
use xdpgate_api::v1::watch_interfaces_response::Kind;
use xdpgate_api::v1::{
    BanRequest, BanScope, Disposition, GetStatsRequest, GetSystemRequest, ListBansRequest,
    PlanPolicyRequest, UnbanRequest, WatchEventsRequest, WatchInterfacesRequest, WatchStatsRequest,
};

const PASS: &str = "version: 1\n";
const DROP: &str = "
version: 1
rules: [{ id: block, match: { src: 10.9.0.2, dport: 9 }, action: drop }]
";

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn ban(prefix: &str, ttl: i64) -> BanRequest {
    BanRequest {
        prefix: prefix.to_owned(),
        ttl: seconds(ttl),
        ..Default::default()
    }
}

/// The daemon is stopped meanwhile: the kernel ends the ban.
#[tokio::test(flavor = "multi_thread")]
async fn r106_a_ban_is_there_at_once_and_ends_without_the_daemon() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let mut client = scene.client().await;
    apply(&mut client, PASS).await;
    let (sender, receiver) = (scene.sender(), scene.receiver());
    assert!(arrives(&sender, &receiver));
    let system = client
        .get_system(GetSystemRequest {})
        .await
        .expect("a system");
    let daemon = Pid::from_raw(system.into_inner().pid as i32);

    client.ban(ban("10.9.0.2", 2)).await.expect("banned");
    let start = Instant::now();
    // In force when the answer comes: the very next packet is dropped.
    assert!(!arrives(&sender, &receiver));
    kill(daemon, Signal::SIGSTOP).expect("it runs");
    while start.elapsed() < Duration::from_millis(1500) {
        // The test itself may have been held up until the ban was over.
        let arrived = arrives(&sender, &receiver);
        let after = start.elapsed();
        assert!(!arrived || after > Duration::from_millis(1900), "{after:?}");
    }
    std::thread::sleep(Duration::from_millis(2100).saturating_sub(start.elapsed()));
    let ended = arrives(&sender, &receiver);
    kill(daemon, Signal::SIGCONT).expect("it is there");
    assert!(ended, "still banned after its time");
    let bans = client.list_bans(ListBansRequest::default()).await;
    assert_eq!(bans.expect("bans").into_inner().total, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bans_are_listed_by_pages_and_lifted() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let mut client = scene.client().await;
    for n in 1..=5 {
        client
            .ban(ban(&format!("198.51.100.{n}"), 600))
            .await
            .expect("banned");
    }
    let both = BanRequest {
        scope: BanScope::Both.into(),
        ..ban("203.0.113.0/24", 600)
    };
    client.ban(both).await.expect("banned");
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListBansRequest {
            page_size: 2,
            page_token,
        };
        let page = client
            .list_bans(request)
            .await
            .expect("a page")
            .into_inner();
        assert_eq!(page.total, 7);
        assert!((1..=2).contains(&page.bans.len()));
        seen.extend(page.bans.iter().map(|b| (b.prefix.clone(), b.scope())));
        // One that comes meanwhile before what was seen shifts nothing.
        client.ban(ban("192.0.2.1", 600)).await.expect("banned");
        let lift = UnbanRequest {
            which: Some(Which::Prefix("192.0.2.1".to_owned())),
            ..Default::default()
        };
        assert_eq!(
            client
                .unban(lift)
                .await
                .expect("lifted")
                .into_inner()
                .lifted,
            1
        );
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 7);
    assert!(seen.is_sorted_by(|a, b| a <= b), "{seen:?}");
    let all = UnbanRequest {
        which: Some(Which::All(true)),
        ..Default::default()
    };
    assert_eq!(
        client.unban(all).await.expect("lifted").into_inner().lifted,
        7
    );

    for (request, field) in [
        (ban("10.0.0.1/8", 1), "prefix"),
        (ban("0.0.0.0/0", 1), "prefix"),
        (ban("10.0.0.1", 0), "ttl"),
        (ban("10.0.0.1", 11 * 365 * 86_400), "ttl"),
        (
            BanRequest {
                ttl: None,
                ..ban("10.0.0.1", 1)
            },
            "ttl",
        ),
        (
            BanRequest {
                scope: 9,
                ..ban("10.0.0.1", 1)
            },
            "scope",
        ),
    ] {
        let status = client.ban(request).await.expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        let details = status.get_details_bad_request().expect("a violation");
        assert_eq!(details.field_violations[0].field, field, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r109_r111_dropped_frames_are_told_and_tried_by_a_plan() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let mut client = scene.client().await;
    apply(&mut client, DROP).await;
    let watch = |rule: &str| WatchEventsRequest {
        rule: Some(rule.to_owned()),
        ..Default::default()
    };
    let events = client.watch_events(watch("block")).await.expect("a stream");
    let others = client
        .watch_events(watch("another"))
        .await
        .expect("a stream");
    let (mut events, mut others) = (events.into_inner(), others.into_inner());
    let sender = scene.sender();
    for _ in 0..5 {
        sender.send_to(b"payload", "10.9.0.1:9").expect("sent");
        sender.send_to(b"payload", "10.9.0.1:10").expect("sent");
    }
    let mut got = Vec::new();
    while got.len() < 5 {
        let message = tokio::time::timeout(Duration::from_secs(10), events.message()).await;
        let message = message
            .expect("in time")
            .expect("a message")
            .expect("no end");
        assert_eq!(message.lost, 0);
        got.extend(message.events);
    }
    for event in &got {
        assert_eq!(event.rule.as_deref(), Some("block"));
        assert_eq!(
            (&*event.source, &*event.destination),
            ("10.9.0.2", "10.9.0.1")
        );
        assert_eq!(
            (event.protocol, event.destination_port),
            (Some(17), Some(9))
        );
        assert_eq!(event.disposition(), Disposition::Drop);
        assert_eq!((&*event.interface, event.length), ("xg0", 14 + 20 + 8 + 7));
    }
    let silent = tokio::time::timeout(Duration::from_millis(500), others.message()).await;
    assert!(silent.is_err(), "{silent:?}");

    let plan = async |mut client: common::api::Client, yaml: &str| {
        let yaml = yaml.to_owned();
        let planned = client.plan_policy(PlanPolicyRequest { yaml }).await;
        planned.expect("a plan").into_inner()
    };
    let planned = plan(client.clone(), PASS).await;
    assert_eq!(planned.plan.expect("a plan").removed_rules, ["block"]);
    let estimate = planned.estimate.expect("samples");
    assert_eq!(
        (estimate.would_pass, estimate.would_drop),
        (estimate.samples, 0)
    );
    assert!(estimate.samples >= 5, "{estimate:?}");
    // Rules that are for other interfaces do not count.
    let yaml = "
version: 1
rules:
  - { id: elsewhere, match: { dport: 9 }, interfaces: [eth0], action: pass }
  - { id: here, match: { dport: 9 }, interfaces: [xg0], action: drop }
";
    let planned = plan(client.clone(), yaml).await;
    let estimate = planned.estimate.expect("samples");
    assert_eq!(
        (estimate.would_pass, estimate.would_drop),
        (0, estimate.samples)
    );
    assert_eq!(estimate.rules[0].id, "here");
    assert_eq!(estimate.rules.len(), 1);
}

/// Messages of some 100 KB: the window of the connection is full after the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_loses_messages_and_holds_up_nobody() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let mut client = scene.client().await;
    let rules: String = (0..3000)
        .map(|n| {
            format!(
                "  - {{ id: rule-{n}, match: {{ dport: {} }}, action: count }}\n",
                n + 1
            )
        })
        .collect();
    apply(&mut client, &format!("version: 1\nrules:\n{rules}")).await;
    let interval = Some(prost_types::Duration {
        seconds: 0,
        nanos: 100_000_000,
    });
    let request = |top_rules| WatchStatsRequest {
        interval,
        top_rules,
    };
    // On a connection of its own, so that nobody shares its window.
    let endpoint = Endpoint::from_shared(scene.daemon.server.clone()).expect("an endpoint");
    let endpoint = endpoint.initial_stream_window_size(65_535).connect().await;
    let mut slow = FirewallClient::new(endpoint.expect("a connection"));
    let slow = slow.watch_stats(request(0)).await.expect("a stream");
    let mut slow = slow.into_inner();
    let fast = client.watch_stats(request(3)).await.expect("a stream");
    let mut fast = fast.into_inner();
    let start = Instant::now();
    let (mut count, mut lost, mut sample) = (0, 0, 0);
    while start.elapsed() < Duration::from_secs(4) {
        let message = fast.message().await.expect("a message").expect("no end");
        (count, lost) = (count + 1, lost + message.lost);
        assert!(message.stats.expect("counters").rules.len() <= 3);
        if let Some(rates) = message.rates {
            assert!(rates.rules.len() <= 3 && rates.sample >= sample);
            sample = rates.sample;
        }
    }
    assert!(count + lost >= 10, "{count} {lost}");
    let mut missed = 0;
    for _ in 0..20 {
        let message = slow.message().await.expect("a message").expect("no end");
        missed += message.lost;
        if missed > 0 {
            break;
        }
    }
    assert!(missed >= 5, "{missed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_the_streams_in_good_order() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let mut client = scene.client().await;
    apply(&mut client, PASS).await;
    let mut stats = client
        .watch_stats(WatchStatsRequest::default())
        .await
        .expect("a stream")
        .into_inner();
    let mut events = client
        .watch_events(WatchEventsRequest::default())
        .await
        .expect("a stream")
        .into_inner();
    let mut interfaces = client
        .watch_interfaces(WatchInterfacesRequest {})
        .await
        .expect("a stream")
        .into_inner();
    let started = interfaces
        .message()
        .await
        .expect("a message")
        .expect("no end");
    assert_eq!(started.kind(), Kind::Started);
    let daemon = scene.daemon;
    let stopping = tokio::task::spawn_blocking(move || daemon.stop(Signal::SIGTERM));
    let reasons = [
        loop {
            if let Err(status) = stats.message().await {
                break status;
            }
        },
        events.message().await.expect_err("the end"),
        interfaces.message().await.expect_err("the end"),
    ];
    for status in reasons {
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        let info = status.get_details_error_info().expect("why");
        assert_eq!(info.reason, "STOPPING");
        assert!(status.get_details_retry_info().is_some());
    }
    let (code, log) = stopping.await.expect("no panic");
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("are cut"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_about_interfaces_is_told() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let mut client = scene.client().await;
    let watch = client.watch_interfaces(WatchInterfacesRequest {}).await;
    let mut watch = watch.expect("a stream").into_inner();
    let mut next = async || {
        let message = tokio::time::timeout(Duration::from_secs(10), watch.message()).await;
        message
            .expect("in time")
            .expect("a message")
            .expect("no end")
    };
    assert_eq!(next().await.kind(), Kind::Started);
    scene.host.ip("link add xg7 type veth peer name other");
    let attached = loop {
        let message = next().await;
        if message.name == "xg7" && message.kind() != Kind::Skipped {
            break message;
        }
    };
    assert_eq!(attached.kind(), Kind::Attached, "{attached:?}");
    assert_eq!(attached.attachment.expect("how").ifindex, attached.ifindex);
    scene.host.ip("link delete xg7");
    let gone = loop {
        let message = next().await;
        if message.ifindex == attached.ifindex {
            break message;
        }
    };
    assert_eq!((gone.kind(), &*gone.detail), (Kind::Detached, "it is gone"));
    assert!(client.get_stats(GetStatsRequest {}).await.is_ok());
}
