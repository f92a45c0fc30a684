//! What the library shows with traffic, through the API: swaps, changes in place, limits, expiry, and
//! two clients that want the same. Needs root.

mod common;

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::api::{Client, Scene, apply, arrives};
use common::is_root;
use jiff::Timestamp;
use nix::sys::socket::{setsockopt, sockopt};
use tonic::Code;
use tonic_types::StatusExt;
use xdpgate_api::v1::change::Change as Is;
use xdpgate_api::v1::{
    Change, ChangePolicyRequest, ChangePolicyResponse, EvaluateRequest, GetStatsRequest, RuleStats,
    Verdict, effect,
};

fn changes(what: Is) -> ChangePolicyRequest {
    ChangePolicyRequest {
        changes: vec![Change { change: Some(what) }],
        ..Default::default()
    }
}

async fn change(client: &mut Client, what: Is) -> ChangePolicyResponse {
    let done = client.change_policy(changes(what)).await;
    done.expect("changed").into_inner()
}

async fn rule(client: &mut Client, id: &str) -> RuleStats {
    let stats = client.get_stats(GetStatsRequest {}).await;
    let rules = stats.expect("counters").into_inner().rules;
    rules.into_iter().find(|r| r.id == id).expect("the rule")
}

/// How many of so many datagrams arrive.
fn arriving(sender: &UdpSocket, receiver: &UdpSocket, count: usize) -> usize {
    for _ in 0..count {
        sender.send_to(b"payload", "10.9.0.1:9").expect("sent");
    }
    let mut arrived = 0;
    while receiver.recv(&mut [0; 64]).is_ok() {
        arrived += 1;
    }
    arrived
}

/// Both drop the bad one and pass the good one, by other rules.
const SWAPPED: [&str; 2] = [
    "version: 1\nfailsafe: none\ndefault: drop\nsets: { friends: { entries: [10.9.0.2] } }\nrules: [{ id: in, match: { src: '@friends' }, action: pass }]\n",
    "version: 1\nfailsafe: none\nrules: [{ id: out, match: { src: 10.9.0.3/32 }, action: drop }]\n",
];

/// No packet sees neither policy.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r38_r40_swaps_under_traffic_misjudge_no_packet() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    scene.peer.ip("address add 10.9.0.3/24 dev xg1");
    let mut client = scene.client().await;
    apply(&mut client, SWAPPED[0]).await;
    let receiver = scene.receiver();
    // Room for what comes while this machine does something else.
    setsockopt(&receiver, sockopt::RcvBufForce, &(4 << 20)).expect("root may");
    let bad = scene.peer.run(|| UdpSocket::bind("10.9.0.3:0"));
    let (good, bad) = (scene.sender(), bad.expect("a socket"));
    assert!(arrives(&good, &receiver) && !arrives(&bad, &receiver));

    for _ in 0..RUNS {
        let before = scene.peer.unsent("xg1");
        let (sent, arrived) = swaps(&mut client, [&good, &bad], &receiver).await;
        let unsent = scene.peer.unsent("xg1") - before;
        assert!(sent > 100, "{sent} of each sent during 100 swaps");
        println!("{sent} of each sent, {arrived:?} arrived, {unsent} were not judged");
        assert_eq!(arrived[1], 0, "of the bad ones");
        assert!(
            (sent - unsent.min(sent)..=sent).contains(&arrived[0]),
            "{} of {sent} good ones, and {unsent} frames were not judged",
            arrived[0]
        );
        if unsent == 0 {
            return;
        }
    }
    panic!("the veth pair lost frames in each of {RUNS} runs");
}

/// How often traffic is tried again of which the veth pair lost some.
const RUNS: u32 = 8;

/// A hundred swaps under traffic: how many of each were sent, and how many of the good and the bad ones arrived.
async fn swaps(
    client: &mut Client,
    senders: [&UdpSocket; 2],
    receiver: &UdpSocket,
) -> (u64, [u64; 2]) {
    let copy = |socket: &UdpSocket| socket.try_clone().expect("a copy");
    let (senders, receiver) = (senders.map(copy), copy(receiver));
    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let stopped = Arc::clone(&stop);
    let traffic = tokio::task::spawn_blocking(move || {
        let mut sent = 0;
        while !stopped.load(Ordering::Relaxed) {
            for sender in &senders {
                sender.send_to(b"payload", "10.9.0.1:9").expect("sent");
            }
            sent += 1;
            std::thread::sleep(Duration::from_micros(500));
        }
        sent
    });
    let all = Arc::clone(&done);
    let counting = tokio::task::spawn_blocking(move || {
        let (mut arrived, mut buffer) = ([0; 2], [0; 64]);
        loop {
            match receiver.recv_from(&mut buffer) {
                Ok((_, from)) => arrived[usize::from(from.ip().to_string() == "10.9.0.3")] += 1,
                Err(_) if all.load(Ordering::Relaxed) => return arrived,
                Err(_) => {}
            }
        }
    });
    for n in 1..=100 {
        apply(client, SWAPPED[n % 2]).await;
    }
    stop.store(true, Ordering::Relaxed);
    let sent = traffic.await.expect("no panic");
    done.store(true, Ordering::Relaxed);
    (sent, counting.await.expect("no panic"))
}

/// A rule becomes another one under its name: what it counted stays, and what it does is new at once.
#[tokio::test(flavor = "multi_thread")]
async fn r16_r41_r42_r112_a_rule_changes_in_place() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let mut client = scene.client().await;
    apply(
        &mut client,
        "version: 1\nrules: [{ id: nine, match: { dport: 9, protocol: udp }, action: count }]\n",
    )
    .await;
    let (sender, receiver) = (scene.sender(), scene.receiver());
    assert!(arrives(&sender, &receiver));
    assert_eq!(rule(&mut client, "nine").await.packets, 1);
    let put = |action: &str| {
        Is::PutRule(format!(
            "{{ id: nine, match: {{ dport: 9, protocol: udp }}, {action} }}"
        ))
    };
    let drop = put("action: drop");
    let done = change(&mut client, drop.clone()).await;
    assert_eq!(done.effects[0].kind(), effect::Kind::Replaced);
    assert!(!arrives(&sender, &receiver));
    let monitored = change(&mut client, put("action: drop, mode: monitor")).await;
    assert!(monitored.generation > done.generation);
    assert!(arrives(&sender, &receiver));
    let stats = rule(&mut client, "nine").await;
    assert_eq!(
        (
            stats.packets,
            stats.dropped_packets,
            stats.would_drop_packets
        ),
        (3, 1, 1),
        "{stats:?}"
    );
    // Said again it is what it is, and taken away twice it is away.
    change(&mut client, drop.clone()).await;
    let again = change(&mut client, drop).await;
    assert_eq!(again.effects[0].kind(), effect::Kind::Unchanged);
    assert_eq!(rule(&mut client, "nine").await.packets, 3);
    for kind in [effect::Kind::Removed, effect::Kind::Unchanged] {
        let done = change(&mut client, Is::RemoveRule("nine".into())).await;
        assert_eq!(done.effects[0].kind(), kind);
        assert!(arrives(&sender, &receiver));
    }
}

/// The burst passes of what comes at once, and one more for each second that it takes.
#[tokio::test(flavor = "multi_thread")]
async fn r16_r18_a_limit_passes_its_burst() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let mut client = scene.client().await;
    apply(
        &mut client,
        "version: 1\nrules: [{ id: slow, match: { dport: 9, protocol: udp }, action: { rate_limit: { packets_per_second: 1, burst: 20 } } }]\n",
    )
    .await;
    let (sender, receiver) = (scene.sender(), scene.receiver());
    let passed = arriving(&sender, &receiver, 200);
    assert!((20..=22).contains(&passed), "{passed}");
    let stats = rule(&mut client, "slow").await;
    let dropped = 200 - passed as u64;
    assert_eq!(
        (stats.packets, stats.dropped_packets),
        (200, dropped),
        "{stats:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r44_of_two_creations_one_wins() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let mut client = scene.client().await;
    apply(&mut client, "version: 1\n").await;
    for round in 0..10 {
        let create = format!("{{ id: r{round}, match: {{ dport: 9 }}, action: drop }}");
        let mut both = Vec::new();
        for _ in 0..2 {
            let (mut client, create) = (scene.client().await, create.clone());
            both.push(tokio::spawn(async move {
                client.change_policy(changes(Is::CreateRule(create))).await
            }));
        }
        let (mut won, mut lost) = (0, 0);
        for one in both {
            match one.await.expect("no panic") {
                Ok(_) => won += 1,
                Err(status) => {
                    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
                    let info = status.get_details_error_info().expect("a reason");
                    assert_eq!(info.reason, "CHANGE_ALREADY_EXISTS", "{status}");
                    lost += 1;
                }
            }
        }
        assert_eq!((won, lost), (1, 1), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r77_a_rule_ends_on_time() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let mut client = scene.client().await;
    let expires = Timestamp::now() + Duration::from_secs(5);
    let rule = format!(
        "{{ id: r, match: {{ dport: 9, protocol: udp }}, action: drop, expires: '{expires}' }}"
    );
    apply(&mut client, &format!("version: 1\nrules: [{rule}]\n")).await;
    let (sender, receiver) = (scene.sender(), scene.receiver());
    assert!(!arrives(&sender, &receiver));
    while !arrives(&sender, &receiver) {
        assert!(Timestamp::now() < expires + Duration::from_secs(5));
    }
    assert!(Timestamp::now() >= expires);
}

/// A frame of 9,000 bytes is judged as any other.
#[tokio::test(flavor = "multi_thread")]
async fn r30_large_frames_are_judged() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let mut client = scene.client().await;
    apply(
        &mut client,
        "version: 1\nrules: [{ id: large, match: { length: 9000-65535 }, action: drop }]\n",
    )
    .await;
    let frame = |length: u16| {
        let mut frame = common::frames::udp("203.0.113.7", "192.0.2.1", 80);
        frame.resize(14 + usize::from(length), 0);
        frame[16..18].copy_from_slice(&length.to_be_bytes());
        frame[38..40].copy_from_slice(&(length - 20).to_be_bytes());
        frame
    };
    let request = EvaluateRequest {
        frames: vec![frame(8999), frame(9000)],
        interface: None,
    };
    let results = client.evaluate(request).await.expect("judged").into_inner();
    let verdicts: Vec<_> = results.results.iter().map(|r| r.verdict()).collect();
    assert_eq!(verdicts, [Verdict::Pass, Verdict::Drop]);
}
