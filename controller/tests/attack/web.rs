//! Requests that no honest client makes, byte by byte.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::controller::Controller;
use crate::peer::{audited, rest, tcp};

/// What is answered; nothing, if the connection is closed instead.
async fn raw(controller: &Controller, request: &[u8]) -> String {
    let address = controller.url.trim_start_matches("http://");
    let mut stream = tcp(address, "127.0.0.1").await.unwrap();
    // The answer may come, and the end, before all of it is sent.
    let _ = stream.write_all(request).await;
    let mut bytes = Vec::new();
    let read = timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await;
    let _ = read.expect("the connection ends");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn status(answer: &str) -> u16 {
    let status = answer.split_whitespace().nth(1).map(str::parse);
    status.map_or(0, |status| status.expect(answer))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_mean_two_things_or_lead_out_are_refused() {
    let controller = Controller::start();
    let bearer = format!("authorization: Bearer {}\r\n", controller.token());
    let end = "host: 127.0.0.1\r\nconnection: close\r\n";
    let api = |line: &str, more: &str| format!("{line} HTTP/1.1\r\n{end}{bearer}{more}\r\n");
    let many = (0..100)
        .map(|i| format!("x-{i}: y\r\n"))
        .collect::<String>();
    let large = format!("x: {}\r\n", "y".repeat(64 << 10));
    let both =
        "content-type: application/json\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n";
    let two = "content-type: application/json\r\ncontent-length: 2\r\ncontent-length: 3\r\n";
    let get = |path: &str| api(&format!("GET {path}"), "");
    for (request, expected) in [
        // Out of the tree, and to another record than the path says.
        (get("/../../../etc/passwd"), &[404][..]),
        (get("/api/v1/%2e%2e/%2e%2e/etc/passwd"), &[404]),
        (get("/api/v1/policies/..%2f..%2fuser%2fadmin"), &[404]),
        (get("/api/v1/users/..%2fuser%2fadmin"), &[404]),
        (get("/api/v1/users/%2e%2e"), &[404]),
        (get("/api/v1/sets/a%00b"), &[404]),
        (get("/api/v1//policies"), &[404]),
        (get("/api/v1/policies\0"), &[400]),
        // By another name; in the form for proxies, too.
        (
            "GET /api/v1/health HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n"
                .to_owned(),
            &[421],
        ),
        (
            format!("GET /api/v1/health HTTP/1.1\r\n{end}host: evil.example\r\n\r\n"),
            &[400],
        ),
        // Two lengths.
        (api("POST /api/v1/policies", two) + "{}", &[400]),
        (
            api("POST /api/v1/policies", both) + "0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            &[400],
        ),
        // Too many, too large.
        (api("GET /api/v1/health", &many), &[431]),
        (api("GET /api/v1/health", &large), &[431]),
        (
            get(&format!("/api/v1/policies?q={}", "x".repeat(64 << 10))),
            &[414, 431],
        ),
        // Headers that are none.
        (api("GET /api/v1/health", "x: a\r\n b\r\n"), &[400, 200]),
        (api("GET /api/v1/health", "x y: a\r\n"), &[400]),
        (
            api("GET /api/v1/policies", "if-none-match: \u{1}\r\n"),
            &[400],
        ),
        ("\u{16}\u{3}\u{1}\u{2}".repeat(50), &[400, 0]),
    ] {
        let answer = raw(&controller, request.as_bytes()).await;
        let shown: String = request.chars().take(120).collect();
        assert!(expected.contains(&status(&answer)), "{shown:?}: {answer}");
        assert!(!answer.contains("root:"), "{answer}");
    }
    assert_eq!(
        rest(&controller, Method::GET, "/health", Value::Null)
            .await
            .0,
        200
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_into_headers_is_checked_and_what_is_packed_stays_packed() {
    let controller = Controller::start();
    for name in [
        "a\r\nset-cookie: x=y",
        "a/../b",
        "..",
        "a b",
        "",
        "a\u{202e}b",
    ] {
        let body = json!({ "name": name });
        let (status, problem) = rest(&controller, Method::POST, "/policies", body).await;
        assert_eq!(status, 422, "{name:?}: {problem}");
    }
    // A bomb: 64 MiB of one letter, in 64 KiB. It is not unpacked.
    assert_eq!(
        rest(&controller, Method::POST, "/sets", json!({ "name": "s" }))
            .await
            .0,
        201
    );
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut bomb, &vec![b'\n'; 64 << 20]).unwrap();
    let bomb = bomb.finish().unwrap();
    let before = controller.resident();
    let put = reqwest::Client::new().put(format!("{}/api/v1/sets/s/entries", controller.url));
    let put = put
        .bearer_auth(controller.token())
        .header("content-type", "text/plain");
    let answer = put
        .header("content-encoding", "gzip")
        .body(bomb)
        .send()
        .await
        .unwrap();
    let status = answer.status();
    assert!(
        status.is_client_error(),
        "{status}: {}",
        answer.text().await.unwrap()
    );
    let after = controller.resident();
    assert!(
        after < before + (32 << 10),
        "{before} KiB became {after} KiB"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_guesses_passwords_waits_longer_each_time_and_is_written_down() {
    let controller = Controller::start();
    let client = reqwest::Client::new();
    let url = format!("{}/api/v1/session", controller.url);
    let mut statuses = Vec::new();
    for i in 0..30 {
        let body = json!({ "user": "admin", "password": format!("a guess of mine {i}") });
        let answer = client.post(&url).json(&body).send().await.unwrap();
        if answer.status() == 429 {
            assert!(answer.headers().contains_key("retry-after"));
        }
        statuses.push(answer.status().as_u16());
    }
    let tried = statuses.iter().filter(|s| **s == 401).count();
    assert!((5..=12).contains(&tried), "{statuses:?}");
    let refused = audited(&controller, "session.refused", tried).await;
    assert_eq!(refused.len(), tried);
    assert!(
        refused.iter().all(|entry| entry["actor"] == "admin"),
        "{refused:?}"
    );
}
