//! What all answers have in common, and how the listener is opened.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;
use tokio::net::TcpListener;
use xdpgate_controller::auth::authority::{ServerCertificate, server_config};
use xdpgate_controller::auth::{Auth, Options as AuthOptions};
use xdpgate_controller::http::{App, Options, serve};

use crate::server::Api;

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_the_headers_of_a_careful_server() {
    let api = Api::start().await;
    let answers = [
        api.get("/policies").await,
        api.get("/nothing").await,
        api.get("/openapi.json").await,
        api.by("wrong", reqwest::Method::GET, "/users", json!(null))
            .await,
        api.by(&api.admin, reqwest::Method::TRACE, "/users", json!(null))
            .await,
    ];
    for answer in answers {
        let csp = answer.header("content-security-policy");
        assert!(csp.contains("default-src 'none'") && csp.contains("frame-ancestors 'none'"));
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(
            answer.header("strict-transport-security"),
            "",
            "not in the clear"
        );
        assert_eq!(answer.header("access-control-allow-origin"), "");
        assert!(!answer.header("x-request-id").is_empty());
    }
    let document = api.get("/openapi.json").await.is(200).json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    assert!(document["components"]["securitySchemes"]["token"].is_object());
    api.get("/ready").await.is(200);
    api.get("/stats").await.is(200);
    api.get("/stats/history?of=day").await.is(200);
    api.get("/stats/groups/none")
        .await
        .refused(404, "not_found");
}

fn app(api: &Api, tls: bool) -> App {
    let auth = Auth::new(Arc::clone(api.core.store()), AuthOptions::default());
    let options = Options {
        tls,
        ..Options::default()
    };
    App::new(
        api.core.clone(),
        auth,
        api.joining.clone(),
        Arc::new(api.fleet.clone()),
        None,
        options,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_loopback_it_takes_tls() {
    let api = Api::start().await;
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let refused = serve(listener, app(&api, false), None, std::future::pending())
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
    assert!(
        refused.to_string().contains("name api.certificate"),
        "{refused}"
    );

    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let authority = api.joining.authority().clone();
    let certificate = ServerCertificate::new(authority.clone(), names, Timestamp::now()).unwrap();
    let config = server_config(Arc::new(certificate), None, &[b"http/1.1"]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = Some(Arc::new(config));
    let served = tokio::spawn(serve(
        listener,
        app(&api, true),
        config,
        std::future::pending(),
    ));
    let root = reqwest::Certificate::from_der(&authority.certificates()[0]).unwrap();
    let client = reqwest::Client::builder()
        .tls_built_in_root_certs(false)
        .add_root_certificate(root);
    let client = client.build().unwrap();
    let url = format!("https://localhost:{port}/api/v1/health");
    let answer = client.get(&url).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(
        answer.headers()["strict-transport-security"]
            .to_str()
            .unwrap()
            .contains("max-age")
    );
    assert!(
        reqwest::Client::new().get(&url).send().await.is_err(),
        "who does not know the authority"
    );
    served.abort();
}
