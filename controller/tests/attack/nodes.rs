//! A node's certificate in the wrong hands, and join tokens that were seen by somebody else.

use reqwest::Method;
use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tonic::Code;
use tower::ServiceExt as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use xdpgate_api::fleet::v1::{FetchRequest, FromNode, Hello, RenewRequest, from_node};

use crate::controller::Controller;
use crate::peer::{self, Certificate, audited, join, join_token, rest};

fn common_name(der: &[u8]) -> String {
    let (_, certificate) = X509Certificate::from_der(der).unwrap();
    let name = certificate.subject().iter_common_name().next().unwrap();
    name.as_str().unwrap().to_owned()
}

async fn state(controller: &Controller, node: &str) -> Value {
    let (_, node) = rest(
        controller,
        Method::GET,
        &format!("/nodes/{node}"),
        Value::Null,
    )
    .await;
    node["status"]["state"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_certificate_is_good_for_its_own_node_and_nothing_else() {
    let controller = Controller::start();
    let (thief, stolen) = join(&controller, json!({ "role": "thief" })).await;
    let (victim, _) = join(&controller, json!({ "role": "victim" })).await;
    let rule = json!({ "id": "secret", "match": { "src": "203.0.113.7" }, "action": "drop" });
    let policy = json!({ "name": "web", "rules": [rule] });
    assert_eq!(
        rest(&controller, Method::POST, "/policies", policy).await.0,
        201
    );
    let group = json!({ "name": "g", "selector": "role=victim", "policies": ["web"] });
    assert_eq!(
        rest(&controller, Method::POST, "/groups", group).await.0,
        201
    );
    let mut client = peer::client(&controller, "127.0.0.1", Some(stolen.clone()))
        .await
        .unwrap();

    // Whatever it says of itself, it is the one that the certificate names, and gets that one's policy.
    let hello = Hello {
        protocol: 1,
        ..Hello::default()
    };
    let hello = FromNode {
        message: Some(from_node::Message::Hello(hello)),
    };
    let (said, says) = tokio::sync::mpsc::channel(4);
    said.send(hello).await.unwrap();
    let mut call = tonic::Request::new(tokio_stream::wrappers::ReceiverStream::new(says));
    for name in ["x-node", "x-node-id", "node"] {
        call.metadata_mut()
            .insert(name, victim.node_id.parse().unwrap());
    }
    let mut session = client.session(call).await.unwrap().into_inner();
    let mut heard = String::new();
    while !heard.contains("State(") {
        let message = tokio::time::timeout(std::time::Duration::from_secs(20), session.message());
        let message = message
            .await
            .expect("a message")
            .unwrap()
            .expect("the session goes on");
        heard += &format!("{message:?}");
    }
    assert!(
        !heard.contains("203.0.113.7") && !heard.contains("secret"),
        "{heard}"
    );
    assert_eq!(state(&controller, &victim.node_id).await, "never_connected");
    assert_ne!(state(&controller, &thief.node_id).await, "never_connected");

    // Chunks are not had by guessing.
    let digests = vec![vec![7; 32]];
    let refused = client.fetch(FetchRequest { digests }).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
    // A renewal is of the same name, whatever the request asks for.
    let (request, _) = peer::request("", &victim.node_id);
    let renewed = client
        .renew(RenewRequest { csr: request.csr })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(common_name(&renewed.certificate_chain[0]), thief.node_id);
    // Nor is the certificate one of an authority.
    let (_, key) = peer::request("", "x");
    let forged = sign_by(&stolen, &victim.node_id, key);
    assert!(is_refused(&controller, forged).await, "signed by a node");
    // The port of nodes has no other service, and the other port asks for a token.
    let channel = peer::channel(&controller, "127.0.0.1", Some(stolen.clone()))
        .await
        .unwrap();
    let request = http::Request::get("http://localhost/api/v1/policies");
    let answer = channel
        .oneshot(request.body(tonic::body::Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(answer.headers()["grpc-status"], "12", "{answer:?}");
    let url = format!("{}/api/v1/policies", controller.url);
    assert_eq!(reqwest::get(url).await.unwrap().status(), 401);

    // Revoked: at once, and for what it has open.
    let path = format!("/nodes/{}/revoke", thief.node_id);
    assert_eq!(
        rest(&controller, Method::POST, &path, json!({})).await.0,
        204
    );
    let ended = async { while let Ok(Some(_)) = session.message().await {} };
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), ended);
    ended.await.expect("the session ends");
    for _ in 0..3 {
        let refused = client.fetch(FetchRequest::default()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
        let csr = Vec::new();
        let refused = client.renew(RenewRequest { csr }).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    }
    // Each kind once.
    let refusals = audited(&controller, "node.refused", 2).await;
    assert_eq!(refusals.len(), 2, "{refusals:?}");
    for entry in refusals {
        assert_eq!(entry["actor"], format!("node/{}", thief.node_id), "{entry}");
        assert_eq!(entry["origin"], "127.0.0.1", "{entry}");
    }
}

/// A certificate for another name, signed with the key of a node.
fn sign_by(signer: &Certificate, name: &str, key: Vec<u8>) -> Certificate {
    let pkcs8 = tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer::from(signer.key.clone());
    let issuer_key = rcgen::KeyPair::try_from(&pkcs8).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_der(&signer.chain[0], issuer_key).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    let own = tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer::from(key.clone());
    let own = rcgen::KeyPair::try_from(&own).unwrap();
    let leaf = params.signed_by(&own, &issuer).unwrap();
    let mut chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone()];
    chain.extend(signer.chain.clone());
    Certificate { chain, key }
}

/// Whether a certificate is not even let through the handshake.
async fn is_refused(controller: &Controller, shown: Certificate) -> bool {
    match peer::client(controller, "127.0.0.1", Some(shown)).await {
        Err(_) => true,
        // With TLS 1.3 a client learns of it at the first call.
        Ok(mut client) => {
            let refused = client.fetch(FetchRequest::default()).await.unwrap_err();
            assert_ne!(
                refused.code(),
                Code::Unauthenticated,
                "it came through: {refused}"
            );
            true
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_other_authorities_come_to_nothing() {
    let controller = Controller::start();
    let (victim, _) = join(&controller, json!({})).await;
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, &*victim.node_id);
    let own = params.self_signed(&key).unwrap();
    let forged = Certificate {
        chain: vec![own.der().clone()],
        key: key.serialize_der(),
    };
    assert!(is_refused(&controller, forged).await);
    // Without one, nobody is anybody.
    let mut nobody = peer::client(&controller, "127.0.0.1", None).await.unwrap();
    let refused = nobody.fetch(FetchRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let refused = nobody
        .renew(RenewRequest { csr: Vec::new() })
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(state(&controller, &victim.node_id).await, "never_connected");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_token_serves_once_for_its_node_and_in_its_time() {
    let controller = Controller::start();
    let mut client = peer::client(&controller, "127.0.0.1", None).await.unwrap();
    let token = join_token(&controller, json!({})).await;
    let (first, _) = peer::request(&token, "a");
    let member = client
        .join(first.clone())
        .await
        .unwrap()
        .into_inner()
        .node_id;
    // Again, and by somebody who has another key.
    for again in [first, peer::request(&token, "b").0] {
        let refused = client.join(again).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    }
    // As another one than it is for: as a member, where it is for a new one, and the other way round.
    let token = join_token(&controller, json!({})).await;
    let (mut other, _) = peer::request(&token, "a");
    other.node_id.clone_from(&member);
    let refused = client.join(other).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let token = join_token(&controller, json!({ "node": member })).await;
    let (mut other, _) = peer::request(&token, "a");
    other.node_id = "n-other".to_owned();
    let refused = client.join(other).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    // Too late.
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
    let token = join_token(&controller, json!({ "expires": soon })).await;
    tokio::time::sleep(std::time::Duration::from_millis(2_200)).await;
    let refused = client.join(peer::request(&token, "a").0).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    // Each by a token whose secret was known.
    assert_eq!(audited(&controller, "join_token.refused", 4).await.len(), 4);
    // Who knows no secret writes nothing.
    let guess = token.replace(&token[20..30], "AAAAAAAAAA");
    for _ in 0..20 {
        let refused = client.join(peer::request(&guess, "a").0).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    }
    assert_eq!(audited(&controller, "join_token.refused", 4).await.len(), 4);
    let (_, nodes) = rest(&controller, Method::GET, "/nodes", Value::Null).await;
    assert_eq!(nodes["total"], 1, "{nodes}");
}
