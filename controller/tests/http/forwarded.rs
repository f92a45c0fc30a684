//! Callers behind proxies, and names that are none of ours.

use reqwest::Method;
use serde_json::json;
use xdpgate_controller::http::Options;

use crate::server::{Answer, Api, PASSWORD};

async fn login_for(api: &Api, header: (&str, &str), password: &str) -> Answer {
    let body = json!({ "user": "vera", "password": password });
    let request = api.request(Method::POST, "/session").json(&body);
    api.send(request.header(header.0, header.1)).await
}

async fn origins(api: &Api, action: &str) -> Vec<String> {
    let page = format!("/audit?action={action}");
    let page = api.get(&page).await.is(200).json();
    let items = page["items"].as_array().unwrap();
    let origin = |item: &serde_json::Value| item["origin"].as_str().unwrap().to_owned();
    items.iter().map(origin).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_trusted_proxy_the_client_is_who_waits_and_who_is_written_down() {
    let options = Options {
        proxies: vec!["127.0.0.0/8".parse().unwrap()],
        ..Options::default()
    };
    let api = Api::with(options).await;
    // What stands before the address that the proxy has seen, the client made up: each time another one.
    let mut waits = false;
    for i in 0..12 {
        let said = format!("198.51.100.{i}, 203.0.113.7, 127.0.0.9");
        let answer = login_for(&api, ("x-forwarded-for", &said), "wrong wrong wrong").await;
        waits |= answer.status == 429;
    }
    assert!(waits, "made-up addresses get around the wait");
    let origins = origins(&api, "session.refused").await;
    assert!(
        !origins.is_empty() && origins.iter().all(|o| o == "203.0.113.7"),
        "{origins:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_trusted_proxy_is_not_believed() {
    let api = Api::start().await;
    let mut waits = false;
    for i in 0..12 {
        let (plain, standard) = (format!("198.51.100.{i}"), format!("for=198.51.100.{i}"));
        let header = match i % 2 {
            0 => ("x-forwarded-for", &*plain),
            _ => ("forwarded", &*standard),
        };
        waits |= login_for(&api, header, "wrong wrong wrong").await.status == 429;
    }
    assert!(waits, "made-up addresses get around the wait");
    let origins = origins(&api, "session.refused").await;
    assert!(
        !origins.is_empty() && origins.iter().all(|o| o == "127.0.0.1"),
        "{origins:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_by_a_name_that_is_not_ours_are_refused() {
    let options = Options {
        names: Some(vec!["fleet.example".to_owned()]),
        ..Options::default()
    };
    let api = Api::with(options).await;
    let call = async |host: &str| {
        let request = api.request(Method::GET, "/health");
        api.send(request.header("host", host)).await
    };
    call("fleet.example:8480").await.is(200);
    call("127.0.0.1:8480").await.is(200);
    call("evil.example:8480").await.refused(421, "host");
    // Before anybody is asked who he is.
    let login = api
        .request(Method::POST, "/session")
        .header("host", "evil.example");
    let body = json!({ "user": "vera", "password": PASSWORD });
    api.send(login.json(&body)).await.refused(421, "host");
}
