//! Those who take much and give nothing: time, connections, frames, bytes.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::controller::Controller;
use crate::peer::{self, rest, tcp, tls};

/// What comes until the other end closes, and after how long it does.
async fn until_closed(stream: &mut TcpStream) -> (String, Duration) {
    let (begin, mut bytes) = (Instant::now(), Vec::new());
    let read = timeout(Duration::from_secs(60), stream.read_to_end(&mut bytes)).await;
    let _ = read.expect("the connection ends");
    (
        String::from_utf8_lossy(&bytes).into_owned(),
        begin.elapsed(),
    )
}

/// Somebody at another address joins, in a time that people wait.
async fn others_are_served(controller: &Controller) {
    let served = async {
        let token = peer::join_token(controller, json!({})).await;
        let mut client = peer::client(controller, "127.0.0.2", None).await.unwrap();
        client.join(peer::request(&token, "a").0).await.unwrap();
    };
    timeout(Duration::from_secs(6), served)
        .await
        .expect("others are served");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_do_not_end_hold_up_nobody_else_and_end() {
    let controller = Controller::start();
    let mut silent = Vec::new();
    for i in 0..700 {
        let mut stream = tcp(&controller.nodes, "127.0.0.1").await.unwrap();
        if i % 2 == 0 {
            // The beginning of a record that says it has 16 KiB.
            stream.write_all(&[22, 3, 1, 64, 0, 1]).await.unwrap();
        }
        silent.push(stream);
    }
    others_are_served(&controller).await;
    // Those that wait for a place have as long as those that have one.
    for mut stream in silent {
        let (_, took) = until_closed(&mut stream).await;
        assert!(took < Duration::from_secs(25), "{took:?}");
    }
    others_are_served(&controller).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_does_not_stay_and_a_node_has_few_connections() {
    let controller = Controller::start();
    let (_, shown) = peer::join(&controller, json!({})).await;
    let mut stranger = tls(&controller.nodes, "127.0.0.1", None).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(
            tls(&controller.nodes, "127.0.0.1", Some(&shown))
                .await
                .unwrap(),
        );
    }
    let mut open = 0;
    for stream in &mut held {
        // The server's settings come at once, or the end does.
        let mut byte = [0];
        let read = timeout(Duration::from_secs(5), stream.read(&mut byte)).await;
        open += usize::from(matches!(read, Ok(Ok(1))));
    }
    assert_eq!(open, 16);
    others_are_served(&controller).await;
    let mut bytes = Vec::new();
    let ended = timeout(Duration::from_secs(45), stranger.read_to_end(&mut bytes)).await;
    assert!(ended.is_ok(), "it is still there");
}

/// The preface of HTTP/2 and settings that say nothing.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Sends as much of it as the other end takes within a time, and reads what comes; how much was sent.
async fn pour(controller: &Controller, frames: impl Iterator<Item = Vec<u8>>) -> usize {
    let stream = tls(&controller.nodes, "127.0.0.1", None).await.unwrap();
    let (mut from, mut to) = tokio::io::split(stream);
    let reading = tokio::spawn(async move {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(1..) = from.read(&mut bytes).await {}
    });
    let mut sent = 0;
    let pouring = async {
        to.write_all(PREFACE).await?;
        for frame in frames {
            to.write_all(&frame).await?;
            sent += 1;
        }
        to.flush().await
    };
    // That it ends the connection is what is hoped for.
    let _ = timeout(Duration::from_secs(10), pouring).await;
    reading.abort();
    sent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_cost_the_one_who_sends_them() {
    let controller = Controller::start();
    others_are_served(&controller).await;
    let before = controller.resident();
    // :method POST, :scheme https, :path /xdpgate.fleet.v1.Fleet/Fetch, :authority x.
    let mut head = vec![0x83, 0x87, 0x04, 29];
    head.extend(b"/xdpgate.fleet.v1.Fleet/Fetch");
    head.extend([0x41, 1, b'x']);
    let (head, streams) = (&head, || (0..100_000_u32).map(|i| 2 * i + 1));
    // Rapid reset (CVE-2023-44487).
    let resets = streams().map(|id| {
        let mut both = frame(1, 4, id, head);
        both.extend(frame(3, 0, id, &8_u32.to_be_bytes()));
        both
    });
    let sent = pour(&controller, resets).await;
    assert!(sent < 100_000, "100,000 streams were opened and reset");
    // More streams at once than the settings allow.
    pour(
        &controller,
        streams().take(20_000).map(|id| frame(1, 4, id, head)),
    )
    .await;
    // A head that does not end (CVE-2024-27316).
    let endless = std::iter::once(frame(1, 0, 1, head));
    let more = frame(
        9,
        0,
        1,
        &[b"\0\x01a\x7f\x81\x7f".as_slice(), &[b'x'; 254]].concat(),
    );
    let sent = pour(
        &controller,
        endless.chain(std::iter::repeat_n(more, 100_000)),
    )
    .await;
    assert!(sent < 100_000, "a head of 26 MB was taken");
    // Pings and settings, each of which wants an answer.
    pour(&controller, (0..200_000).map(|_| frame(6, 0, 0, &[0; 8]))).await;
    pour(&controller, (0..200_000).map(|_| frame(4, 0, 0, &[]))).await;
    others_are_served(&controller).await;
    let after = controller.resident();
    assert!(
        after < before + (64 << 10),
        "{before} KiB became {after} KiB"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_and_bodies_that_do_not_come_hold_up_nobody_else_and_end() {
    let controller = Controller::start();
    let address = controller.url.trim_start_matches("http://").to_owned();
    let before = controller.resident();
    let head =
        "POST /api/v1/session HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n";
    let mut slow = Vec::new();
    for i in 0..250 {
        let mut stream = tcp(&address, "127.0.0.3").await.unwrap();
        let text = match i % 3 {
            0 => format!("{head}content-length: 2000000\r\n\r\n{{\"user\": \""),
            1 => format!("{head}x-more: "),
            _ => String::new(),
        };
        stream.write_all(text.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    // One byte each second is no progress.
    let mut drip = tcp(&address, "127.0.0.3").await.unwrap();
    let dripping = async {
        let begin = Instant::now();
        while drip.write_all(b"G").await.is_ok() && begin.elapsed() < Duration::from_secs(60) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        begin.elapsed()
    };
    let ending = async {
        let (status, _) = rest(&controller, Method::GET, "/policies", Value::Null).await;
        assert_eq!(status, 200);
        let mut late = 0;
        for mut stream in slow {
            let (text, took) = until_closed(&mut stream).await;
            assert!(took < Duration::from_secs(45), "{took:?}");
            late += usize::from(text.starts_with("HTTP/1.1 408"));
        }
        // As many as one address may have under way.
        assert_eq!(late, 64);
    };
    let (dripped, ()) = tokio::join!(dripping, ending);
    assert!(dripped < Duration::from_secs(30), "{dripped:?}");
    let (status, _) = rest(&controller, Method::GET, "/policies", Value::Null).await;
    assert_eq!(status, 200);
    let after = controller.resident();
    assert!(
        after < before + (64 << 10),
        "{before} KiB became {after} KiB"
    );
}
