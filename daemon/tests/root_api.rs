//! The API of the real daemon as any gRPC client sees it: reflection, health, errors, frames.

mod common;

use common::daemon::Daemon;
use common::namespace::Namespace;
use common::{Scratch, frames, is_root};
use tokio_stream::StreamExt;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
use xdpgate_api::v1::firewall_client::FirewallClient;
use xdpgate_api::v1::{EvaluateRequest, GetStatsRequest, SERVICE, Verdict};

const POLICY: &str = "
version: 1
rules: [{ id: block-bad, match: { src: 203.0.113.7 }, action: drop }]
";

/// A daemon on one end of a veth pair.
fn start(scratch: &Scratch, listen: &[&str]) -> (Namespace, Daemon) {
    let host = Namespace::new();
    host.ip("link add xg0 type veth peer name xg1");
    host.ip("link set xg0 up");
    host.ip("link set lo up");
    let policy = scratch.file("policy.yaml", POLICY);
    let arguments = ["--interface", "xg0", "--policy", &policy];
    let daemon = Daemon::start(&host, scratch, &[&arguments, listen].concat());
    (host, daemon)
}

async fn connect(server: &str) -> Channel {
    let endpoint = Endpoint::from_shared(server.to_owned()).expect("an endpoint");
    endpoint.connect().await.expect("a connection")
}

#[tokio::test]
async fn reflection_and_health() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (_host, daemon) = start(&scratch, &[]);
    let channel = connect(&daemon.server).await;

    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let describe = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol(SERVICE.to_owned())),
    };
    let answers: Vec<ServerReflectionResponse> = ServerReflectionClient::new(channel.clone())
        .server_reflection_info(tokio_stream::iter([list, describe]))
        .await
        .expect("reflection")
        .into_inner()
        .map(|answer| answer.expect("an answer"))
        .collect()
        .await;
    let [services, file] = &answers[..] else {
        panic!("{answers:?}")
    };
    let Some(MessageResponse::ListServicesResponse(services)) = &services.message_response else {
        panic!("{services:?}")
    };
    let names: Vec<&str> = services.service.iter().map(|s| s.name.as_str()).collect();
    for name in [
        SERVICE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
    ] {
        assert!(names.contains(&name), "no {name} in {names:?}");
    }
    assert!(matches!(
        file.message_response,
        Some(MessageResponse::FileDescriptorResponse(ref file)) if !file.file_descriptor_proto.is_empty()
    ));

    for service in ["", SERVICE] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let health = HealthClient::new(channel.clone())
            .check(request)
            .await
            .expect("health");
        assert_eq!(health.into_inner().status().as_str_name(), "SERVING");
    }
}

#[tokio::test]
async fn frames_are_judged_and_not_counted() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (_host, daemon) = start(&scratch, &[]);
    let mut client = FirewallClient::new(connect(&daemon.server).await);
    let request = EvaluateRequest {
        frames: vec![
            frames::udp("203.0.113.7", "192.0.2.1", 80),
            frames::udp("203.0.113.8", "192.0.2.1", 80),
            frames::arp(),
            vec![0; 3],
        ],
        interface: None,
    };
    let stats = async |mut client: FirewallClient<Channel>| {
        client
            .get_stats(GetStatsRequest {})
            .await
            .expect("stats")
            .into_inner()
    };
    let before = stats(client.clone()).await;
    let results = client
        .evaluate(request)
        .await
        .expect("results")
        .into_inner()
        .results;
    let said: Vec<(Verdict, &str, Option<&str>)> = results
        .iter()
        .map(|r| (r.verdict(), r.reason.as_str(), r.rule.as_deref()))
        .collect();
    assert_eq!(
        said,
        [
            (Verdict::Drop, "rule", Some("block-bad")),
            (Verdict::Pass, "default", None),
            (Verdict::Pass, "non_ip", None),
            (Verdict::Pass, "malformed", None),
        ]
    );
    let after = stats(client.clone()).await;
    assert_eq!(before.rules, after.rules);

    let long = EvaluateRequest {
        frames: vec![frames::arp(), vec![0; 100_000]],
        interface: None,
    };
    let refused = client.evaluate(long).await.expect_err("too long");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("frames[1]: "), "{refused}");
}

/// Half a million entries in one message: beyond the 4 MiB that gRPC takes by default.
#[tokio::test]
async fn large_policies_fit() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let (_host, daemon) = start(&scratch, &[]);
    let list: String = (0..500_000u32)
        .map(|n| format!("{}\n", std::net::Ipv4Addr::from(0x0b00_0000 + 7 * n)))
        .collect();
    scratch.file("list.txt", list);
    let policy = scratch.file(
        "large.yaml",
        "
version: 1
sets: { large: { file: list.txt } }
rules: [{ id: block, match: { src: '@large' }, action: drop }]
",
    );
    let applied = daemon.json(&["policy", "apply", &policy]);
    assert_eq!(applied["applied"]["entries"], 500_000);
    assert!(daemon.ask(&["policy", "get"]).ok().len() > 5_000_000);
}

/// Over loopback TCP: the namespace is the daemon's, so the client must be in it.
#[test]
fn loopback_tcp() {
    if !is_root() {
        return;
    }
    let host = Namespace::new();
    host.ip("link set lo up");
    let daemon = Daemon::start_at(
        &host,
        "127.0.0.1:50051",
        &["--insecure-loopback", "--interface", "lo"],
    );
    assert!(
        daemon.log().contains("every user of this host"),
        "{}",
        daemon.log()
    );
    let said = host.run(|| daemon.ask(&["status", "--json"]));
    assert!(said.ok().contains("\"lo\""));
}
