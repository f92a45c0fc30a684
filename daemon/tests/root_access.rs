//! Who may use the API of the real daemon: certificates, tokens, users, and what is written down of it.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use common::certificates::{Authority, Pair, open_directory, private, token};
use common::daemon::{Daemon, daemon};
use common::host::{Host, SERVER, audited, status, with_token};
use common::{Ended, XDPGATE, XDPGATED, command, copy_program, is_root, text, wait_for};
use nix::sys::signal::Signal;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use xdpgate_api::v1::firewall_client::FirewallClient;
use xdpgate_api::v1::import_set_request::Part;
use xdpgate_api::v1::{
    ApplyPolicyRequest, GetPolicyRequest, GetStatusRequest, ImportSetHeader, ImportSetRequest,
    SetEntries,
};

#[test]
fn r69_certificates_say_who_it_is_and_what_they_may() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let clients = "[[api.clients]]\nname = 'ops'\nrole = 'admin'\n\
                   [[api.clients]]\nname = 'spiffe://view/*'\nrole = 'viewer'\n";
    let daemon = host.start(&format!("{}{clients}", host.mutual_tls()));
    let issue = |name| host.ca.issue(&host.scratch, name);
    let (admin, viewer, other) = (issue("ops"), issue("spiffe://view/1"), issue("opsy"));

    host.ask_as(&admin, &["policy", "apply", &host.policy(1)])
        .ok();
    let line = audited(&daemon, &["ApplyPolicy policy ", "outcome=\"ok\""]);
    for word in [
        "who=\"certificate ops\"",
        "role=\"admin\"",
        "from=\"127.0.0.1:",
        "generation=1",
    ] {
        assert!(line.contains(word), "no {word} in {line}");
    }

    let status = host.ask_as(&viewer, &["status"]).ok();
    assert!(status.contains("generation 1"), "{status}");
    let refused = host.ask_as(&viewer, &["policy", "apply", &host.policy(2)]);
    refused.refused(
        1,
        &["spiffe://view/1 is a viewer", "ApplyPolicy", "role admin"],
    );
    audited(
        &daemon,
        &[
            "who=\"certificate spiffe://view/1\"",
            "ApplyPolicy",
            "outcome=\"refused\"",
        ],
    );
    for change in [&["stop"][..], &["detach", "lo"]] {
        host.ask_as(&viewer, change).refused(1, &["is a viewer"]);
    }
    host.ask_as(&viewer, &["policy", "apply", &host.policy(1), "--plan"])
        .ok();
    let status = host.ask_as(&admin, &["status"]).ok();
    assert!(
        status.contains("generation 1"),
        "something was changed: {status}"
    );

    let refused = host.ask_as(&other, &["status"]);
    refused.refused(1, &["opsy", "no role", "api.clients"]);
    audited(
        &daemon,
        &[
            "who=\"certificate opsy\"",
            "GetStatus",
            "outcome=\"refused\"",
        ],
    );
    host.block_on(async || {
        let channel = host.connect(Some(&other)).await;
        HealthClient::new(channel)
            .check(HealthCheckRequest::default())
            .await
            .expect("the health of the server is open to whoever passes TLS");
    });
}

#[test]
fn r69_certificates_that_do_not_fit_are_refused_and_both_sides_say_why() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let clients = "[[api.clients]]\nname = 'ops'\nrole = 'admin'\n";
    let daemon = host.start(&format!("{}{clients}", host.mutual_tls()));
    let strange = Authority::new(&host.scratch, "strange");
    // As the right one but for its CA, and but for its time.
    let forged = strange.issue(&host.scratch, "ops");
    host.ask_as(&forged, &["status"])
        .refused(1, &["the daemon refused", "not of the CA"]);
    audited(
        &daemon,
        &["TLS handshake", "outcome=\"refused\"", "UnknownIssuer"],
    );
    // So many lines a second, the others are only counted.
    let pause = || std::thread::sleep(Duration::from_millis(1100));
    pause();
    let expired = host.ca.issue_expired(&host.scratch, "ops");
    host.ask_as(&expired, &["status"])
        .refused(1, &["the daemon refused", "has expired"]);
    audited(&daemon, &["TLS handshake", "outcome=\"refused\"", "xpired"]);
    pause();
    host.ask(&["status"])
        .refused(1, &["the daemon refused", "--cert"]);
    audited(
        &daemon,
        &["TLS handshake", "outcome=\"refused\"", "no certificates"],
    );
    // A token is not enough unless it says so.
    let (token, _) = token("a", "admin");
    let file = host.scratch.file("token", token);
    private(&file);
    host.ask(&["status", "--token-file", &file])
        .refused(1, &["the daemon refused", "--cert"]);

    let right = host.ca.issue(&host.scratch, "ops");
    let identity = ["--cert", &right.cert, "--key", &right.key];
    let ask = |server: &str, others: &[&str]| {
        let arguments = [&["status", "--server", server][..], &identity, others].concat();
        host.namespace.run(|| common::xdpgate(arguments))
    };
    ask(SERVER, &["--ca", &strange.cert])
        .refused(1, &["we refuse the daemon's certificate", "--ca"]);
    let elsewhere = ["--ca", &host.ca.cert, "--server-name", "other.test"];
    ask(SERVER, &elsewhere).refused(1, &["we refuse", "--server-name"]);
    ask(
        SERVER,
        &["--ca", &host.ca.cert, "--server-name", "node.test"],
    )
    .ok();
    ask(SERVER, &[]).refused(2, &["--ca"]);
    ask("http://127.0.0.1:50051", &["--ca", &host.ca.cert]).refused(2, &["there is no TLS"]);
    fs::set_permissions(&right.key, fs::Permissions::from_mode(0o640)).expect("ours");
    ask(SERVER, &["--ca", &host.ca.cert]).refused(2, &["--key", "chmod 600"]);
}

/// The CA of the clients is replaced: who has a certificate of the one before is out, also on a connection
/// that is open, and who has one of the new one is in.
#[test]
fn r69_certificates_are_read_again() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let before = host.ca.issue(&host.scratch, "ops");
    let config = format!(
        "{}[[api.clients]]\nname = 'ops'\nrole = 'admin'\n",
        host.mutual_tls()
    );
    let config = config.replace(
        &host.ca.cert,
        &host.scratch.file("clients.crt", ca_of(&host.ca)),
    );
    let daemon = host.start(&config);
    let next = Authority::new(&host.scratch, "next");
    let status = async |client: &mut FirewallClient<_>| {
        let asked = client.get_status(GetStatusRequest {}).await;
        asked.map(drop).map_err(|status| status.code())
    };
    host.block_on(async || {
        let mut old = FirewallClient::new(host.connect(Some(&before)).await);
        assert_eq!(status(&mut old).await, Ok(()));
        host.scratch
            .file("clients.crt", ca_of(&host.ca) + &ca_of(&next));
        reread(&daemon, 1);
        assert_eq!(
            status(&mut old).await,
            Ok(()),
            "its CA is still one of them"
        );
        host.scratch.file("clients.crt", ca_of(&next));
        reread(&daemon, 2);
        assert_eq!(status(&mut old).await, Err(Code::Unauthenticated));
        let after = next.issue(&host.scratch, "ops");
        let mut new = FirewallClient::new(host.connect(Some(&after)).await);
        assert_eq!(status(&mut new).await, Ok(()));
    });
    audited(
        &daemon,
        &["who=\"certificate ops\"", "not taken any more", "refused"],
    );
}

fn ca_of(authority: &Authority) -> String {
    fs::read_to_string(&authority.cert).expect("a file")
}

/// Lets the daemon read its files again, `time` counts how often it was.
fn reread(daemon: &Daemon, time: usize) {
    daemon.signal(Signal::SIGHUP);
    wait_for("the reload", || {
        (daemon.log().matches("read again").count() == time).then_some(())
    });
}

#[test]
fn r69_tokens_and_their_rotation() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let (admin, admin_entry) = token("deploy", "admin");
    let (viewer, viewer_entry) = token("grafana", "viewer");
    let file = host
        .scratch
        .file("tokens.toml", admin_entry.clone() + &viewer_entry);
    let config = format!(
        "[api]\ntokens_file = '{file}'\nallow_tokens_without_client_certificate = true\n{}",
        host.server_tls()
    );
    let daemon = host.start(&config);

    host.ask(&["status"])
        .refused(1, &["a token is needed", "--token-file"]);
    let viewer_file = host.scratch.file("viewer", &viewer);
    host.ask(&["status", "--token-file", &viewer_file])
        .refused(2, &["chmod 600"]);
    private(&viewer_file);
    host.ask(&["status", "--token-file", &viewer_file]).ok();
    let refused = host.ask(&["stop", "--token-file", &viewer_file]);
    refused.refused(1, &["token grafana is a viewer"]);
    let placeholder = host.scratch.file("placeholder", "changeme\n");
    private(&placeholder);
    host.ask(&["status", "--token-file", &placeholder])
        .refused(2, &["placeholder"]);

    host.block_on(async || {
        let channel = host.connect(None).await;
        status(&channel, &admin).await.expect("it is right");
        let wrong = status(&channel, &admin[..admin.len() - 1])
            .await
            .expect_err("it is wrong");
        assert_eq!(wrong.code(), Code::Unauthenticated, "{wrong}");
        assert!(
            wrong.message().contains("not one that the daemon knows"),
            "{wrong}"
        );
        // Certificates are not asked for: health is open, and nothing else.
        HealthClient::new(channel.clone())
            .check(HealthCheckRequest::default())
            .await
            .expect("health");
        let asked = HealthClient::new(channel.clone())
            .watch(HealthCheckRequest::default())
            .await;
        assert_eq!(asked.expect_err("no token").code(), Code::Unauthenticated);

        // A stream and a connection that were there before the token was replaced.
        let (ask, asks) = tokio::sync::mpsc::channel(1);
        let asks = tokio_stream::wrappers::ReceiverStream::new(asks);
        let mut answers = ServerReflectionClient::new(channel.clone())
            .server_reflection_info(with_token(asks, &viewer))
            .await
            .expect("a stream")
            .into_inner();
        let question = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        ask.send(question.clone()).await.expect("sent");
        answers
            .next()
            .await
            .expect("an answer")
            .expect("it is right");

        // One that has nothing to say.
        let mut health = HealthClient::new(channel.clone())
            .watch(with_token(HealthCheckRequest::default(), &viewer))
            .await
            .expect("a stream")
            .into_inner();
        health.message().await.expect("a message");

        let (fresh, fresh_entry) = token("grafana", "viewer");
        host.scratch
            .file("tokens.toml", admin_entry.clone() + &fresh_entry);
        reread(&daemon, 1);
        let replayed = status(&channel, &viewer)
            .await
            .expect_err("it was replaced");
        assert_eq!(replayed.code(), Code::Unauthenticated, "{replayed}");
        let silent = tokio::time::timeout(Duration::from_secs(10), health.message());
        let cut = silent.await.expect("it does not wait for a message");
        let cut = cut.expect_err("it was replaced");
        assert_eq!(cut.code(), Code::Unauthenticated, "{cut}");
        // It may be gone already.
        let _ = ask.send(question).await;
        let cut = answers
            .next()
            .await
            .expect("an answer")
            .expect_err("it was replaced");
        assert_eq!(cut.code(), Code::Unauthenticated, "{cut}");
        status(&channel, &fresh)
            .await
            .expect("the new one, on the same connection");
        status(&channel, &admin).await.expect("it was left alone");

        // A file that is wrong changes nothing.
        host.scratch.file("tokens.toml", "[[token]]\nname = 'x'\n");
        daemon.signal(Signal::SIGHUP);
        wait_for("the reload", || {
            daemon.log().contains("stays in force").then_some(())
        });
        status(&channel, &fresh)
            .await
            .expect("what was in force is");
    });
    assert!(
        !daemon.log().contains(&admin) && !daemon.log().contains(&viewer),
        "a token in the log"
    );
    audited(
        &daemon,
        &["who=\"token grafana\"", "Stop", "outcome=\"refused\""],
    );
}

/// An import is let in once and goes on for long: whoever may not change anything any more does not end it.
#[test]
fn r69_an_import_ends_with_the_token_it_began_with() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let (_, viewer_entry) = token("keep", "viewer");
    let (mut now, entry) = token("deploy", "admin");
    let file = host
        .scratch
        .file("tokens.toml", viewer_entry.clone() + &entry);
    let daemon = host.start(&format!(
        "[api]\ntokens_file = '{file}'\nallow_tokens_without_client_certificate = true\n{}",
        host.server_tls()
    ));
    let part = |part| ImportSetRequest { part: Some(part) };
    let header = || {
        part(Part::Header(ImportSetHeader {
            set: "bad".to_owned(),
            ..Default::default()
        }))
    };
    let hosts = |last| {
        part(Part::Entries(SetEntries {
            packed_ipv4: vec![203, 0, 113, last, 32],
            ..Default::default()
        }))
    };
    host.block_on(async || {
        let channel = host.connect(None).await;
        let policy = async |token: &str| {
            let mut client = FirewallClient::new(channel.clone());
            let asked = client.get_policy(with_token(GetPolicyRequest {}, token));
            asked.await.expect("a policy").into_inner()
        };
        let request = ApplyPolicyRequest {
            yaml: "version: 1\nsets: { bad: { entries: [192.0.2.1] } }".to_owned(),
            ..Default::default()
        };
        let mut client = FirewallClient::new(channel.clone());
        let applied = client.apply_policy(with_token(request, &now)).await;
        applied.expect("applied");
        let before = policy(&now).await;
        // What comes after the change: another message, or the end; a new token, or the same as a viewer's.
        for (time, (another, role)) in [(true, None), (false, None), (true, Some("viewer"))]
            .into_iter()
            .enumerate()
        {
            let (send, parts) = tokio::sync::mpsc::channel(4);
            let parts = tokio_stream::wrappers::ReceiverStream::new(parts);
            let (mut client, first) = (FirewallClient::new(channel.clone()), now.clone());
            let import =
                tokio::spawn(async move { client.import_set(with_token(parts, &first)).await });
            send.send(header()).await.expect("sent");
            send.send(hosts(7)).await.expect("sent");
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert!(!import.is_finished(), "it was let in, and waits");
            let entry = match role {
                None => {
                    let (fresh, entry) = token("deploy", "admin");
                    now = fresh;
                    entry
                }
                Some(role) => {
                    let file = fs::read_to_string(&file).expect("tokens");
                    let (_, entry) = file.split_once(&viewer_entry).expect("both");
                    entry.replace("admin", role)
                }
            };
            host.scratch
                .file("tokens.toml", viewer_entry.clone() + &entry);
            reread(&daemon, time + 1);
            if another {
                send.send(hosts(8)).await.expect("sent");
            }
            drop(send);
            let ended = import.await.expect("a task").expect_err("it may not");
            let code = match role {
                None => Code::Unauthenticated,
                Some(_) => Code::PermissionDenied,
            };
            assert_eq!(ended.code(), code, "{ended}");
            let after = policy(&now).await;
            assert_eq!(
                (after.generation, after.hash),
                (before.generation, before.hash.clone())
            );
            // Of a call that was let in, and why it ended.
            let outcome = format!("outcome=\"{code:?}\"");
            audited(&daemon, &["who=\"token deploy\"", "ImportSet", &outcome]);
        }
    });
    for why in ["not one that the daemon knows", "deploy is a viewer"] {
        audited(&daemon, &["ImportSet", "outcome=\"refused\"", why]);
    }
}

/// A token that nobody should have.
const WEAK: &str = "correct horse";

#[test]
fn r69_guessing_tokens_is_slow_and_does_not_fill_the_log() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let (right, entry) = token("a", "admin");
    // The hash of WEAK.
    let weak = "[[token]]\nname = 'weak'\nrole = 'viewer'\n\
        sha256 = '4104d36f8da2c254349f85836793ebe029e0c957063a34c91c2e9203187b5631'\n";
    let file = host.scratch.file("tokens.toml", entry + weak);
    let config = format!(
        "[api]\ntokens_file = '{file}'\nallow_tokens_without_client_certificate = true\n{}",
        host.server_tls()
    );
    let daemon = host.start(&config);
    host.block_on(async || {
        let channel = host.connect(None).await;
        let mut codes = Vec::new();
        let mut last = None;
        for guess in 0..300 {
            let refused = status(&channel, &format!("guess-{guess}"))
                .await
                .expect_err("wrong");
            codes.push(refused.code());
            last = Some(refused);
        }
        let looked_at = codes
            .iter()
            .filter(|code| **code == Code::Unauthenticated)
            .count();
        assert!(
            (10..50).contains(&looked_at),
            "{looked_at} of {} were looked at",
            codes.len()
        );
        let details = tonic_types::StatusExt::get_details_retry_info(&last.expect("some"));
        assert!(details.expect("RetryInfo").retry_delay.is_some());
        // Guesses that look like tokens are refused in the same way, and do not keep a right one waiting that
        // comes from where they do.
        let alike = format!("xdpgate_{}", "0".repeat(64));
        for _ in 0..20 {
            status(&channel, &alike).await.expect_err("wrong");
            status(&channel, &right).await.expect("it is right");
        }
        // One that a human made up could be guessed: it waits until guesses are looked at again. That is a
        // second after the last one that was: if a busy machine takes longer to ask, it is tried again.
        let too_early = async {
            loop {
                for code in [Code::ResourceExhausted, Code::Unauthenticated] {
                    while status(&channel, &alike).await.expect_err("wrong").code() != code {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
                if let Err(refused) = status(&channel, WEAK).await {
                    return refused;
                }
            }
        };
        let refused = tokio::time::timeout(Duration::from_secs(20), too_early)
            .await
            .expect("sooner or later it comes within a second");
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        let retried = async {
            while let Err(refused) = status(&channel, WEAK).await {
                assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), retried)
            .await
            .expect("in a second");
    });
    audited(&daemon, &["more="]);
    let lines = daemon
        .log()
        .lines()
        .filter(|line| line.contains("outcome=\"refused\""))
        .count();
    assert!(lines < 150, "{lines} lines");
}

/// Row 69 on the Unix socket: the mode says who may open it, the user what they may do.
#[test]
fn r69_users_of_the_socket_have_roles() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    // Where a user without rights can get at it.
    let program = host.scratch.path("xdpgate");
    copy_program(XDPGATE, &program);
    open_directory(host.scratch.path("x").parent().expect("a directory"));
    let socket = host.scratch.path("s.sock");
    let server = format!("unix:{}", text(&socket));
    let policy = host.policy(1);
    let nobody = |arguments: &[&str]| -> Ended {
        let mut command = command(&program);
        command
            .args(arguments)
            .args(["--server", &server])
            .uid(65534)
            .gid(65534);
        host.namespace
            .run(|| command.output())
            .expect("the client")
            .into()
    };
    let mode = || {
        fs::metadata(&socket)
            .expect("a socket")
            .permissions()
            .mode()
            & 0o777
    };

    let daemon = host.start_with(&server, "", &[]);
    assert_eq!(mode(), 0o600);
    nobody(&["status"]).refused(1, &["ermission denied"]);
    daemon.ask(&["policy", "apply", &policy]).ok();
    audited(
        &daemon,
        &["who=\"user 0\"", "from=\"unix uid 0 pid", "generation=1"],
    );
    drop(daemon);

    let daemon = host.start_with(&server, "[api]\nsocket_mode = '0666'\n", &[]);
    assert_eq!(mode(), 0o666);
    nobody(&["status"]).ok();
    nobody(&["policy", "apply", &policy]).refused(1, &["user 65534 is a viewer"]);
    audited(
        &daemon,
        &["who=\"user 65534\"", "ApplyPolicy", "outcome=\"refused\""],
    );
    drop(daemon);

    let group = "[api]\nsocket_mode = '0660'\nsocket_group = 'nogroup'\nsocket_role = 'admin'\n";
    let daemon = host.start_with(&server, group, &[]);
    assert_eq!(mode(), 0o660);
    nobody(&["policy", "apply", &policy]).ok();
    audited(
        &daemon,
        &["who=\"user 65534\"", "role=\"admin\"", "outcome=\"ok\""],
    );
}

/// Row 73: with a configuration that is not safe it does not start, and says file, key, reason and mend.
#[test]
fn r73_what_is_not_safe_is_refused_at_the_start() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let attempt = |config: &str, server: &str| {
        let config = host.scratch.file("bad.toml", config);
        let state = text(&host.scratch.path("state"));
        let arguments = [
            "--config",
            &config,
            "--state-dir",
            &state,
            "--interface",
            "lo",
        ];
        // One that starts after all would run for ever.
        let command = daemon(server, &arguments);
        let bounded = ["-s", "KILL", "20", XDPGATED].map(OsStr::new);
        let mut timeout = Command::new("timeout");
        timeout.args(bounded).args(command.get_args()).envs(
            command
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        );
        let ended: Ended = host
            .namespace
            .run(|| timeout.output())
            .expect("it ran")
            .into();
        assert!(
            !host.scratch.path("state").exists(),
            "something was begun: {ended}"
        );
        ended
    };
    let entry = |sha256: &str| {
        let text = format!("[[token]]\nname = 'a'\nrole = 'admin'\nsha256 = '{sha256}'\n");
        host.scratch.file("tokens.toml", text)
    };
    // sha256sum of `changeme`.
    let placeholder = entry("057ba03d6c44104863dc7361fe4578965d1887360f90a0895882e58a6248fc86");
    let tokens = format!("[api]\ntokens_file = '{placeholder}'\n");
    attempt(&tokens, SERVER).refused(2, &["--listen: ", "api.listen", "api.tls is missing"]);
    let unix = format!("unix:{}", text(&host.scratch.path("a.sock")));
    let refused = attempt(&tokens, &unix);
    refused.refused(
        2,
        &[
            "bad.toml",
            "api.tokens_file",
            "tokens.toml",
            "\"a\"",
            "placeholder",
        ],
    );
    fs::set_permissions(&placeholder, fs::Permissions::from_mode(0o666)).expect("ours");
    attempt(&tokens, &unix).refused(2, &["bad.toml", "api.tokens_file", "chmod go-w"]);

    let plain = "127.0.0.1:50051";
    attempt("", plain).refused(2, &["--listen: ", "api.listen", "insecure_loopback"]);
    attempt("", "https://0.0.0.0:50051").refused(2, &["--listen: ", "api.listen", "api.tls"]);

    let tls = |pair: &Pair, ca: &str| {
        let Pair { cert, key } = pair;
        format!("[api.tls]\ncertificate = '{cert}'\nkey = '{key}'\nclient_ca = '{ca}'\n")
    };
    let other = host.ca.issue(&host.scratch, "other");
    let mixed = Pair {
        cert: host.node.cert.clone(),
        key: other.key.clone(),
    };
    let refused = attempt(&tls(&mixed, &host.ca.cert), SERVER);
    refused.refused(
        2,
        &["bad.toml", "api.tls.key", "other.key", "does not belong"],
    );
    let refused = attempt(&tls(&host.node, &host.node.key), SERVER);
    refused.refused(2, &["bad.toml", "api.tls.client_ca", "no certificate"]);
    fs::set_permissions(&other.key, fs::Permissions::from_mode(0o644)).expect("ours");
    let refused = attempt(&tls(&other, &host.ca.cert), SERVER);
    refused.refused(
        2,
        &["bad.toml", "api.tls.key", "others can read", "chmod 600"],
    );
    let refused = attempt(
        &format!("{}\nclient_ca = '/nowhere'", host.server_tls()),
        SERVER,
    );
    refused.refused(2, &["bad.toml", "api.tls.client_ca", "/nowhere"]);
}

/// Row 107: a policy that drops by default, and the API beyond this host.
#[test]
fn r107_the_api_is_reached_through_the_policy_or_the_start_says_that_it_is_not() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let client = host
        .namespace
        .neighbour(("xg0", "192.0.2.1/24"), ("xg1", "192.0.2.2/24"));
    let config = format!(
        "{}[[api.clients]]\nname = 'ops'\nrole = 'admin'\n",
        host.mutual_tls()
    );
    let ops = host.ca.issue(&host.scratch, "ops");
    let ask = || {
        let server = [
            "status",
            "--server",
            "https://192.0.2.1:50051",
            "--ca",
            &host.ca.cert,
        ];
        let identity = ["--cert", &ops.cert, "--key", &ops.key];
        client.run(|| common::xdpgate([&server[..], &identity].concat()))
    };
    let start = |policy: &str| {
        let policy = host.scratch.file("policy.yaml", policy);
        let _ = fs::remove_dir_all(host.scratch.path("state"));
        let arguments = ["--policy", &policy, "--enforce", "--interface", "xg0"];
        host.start_with("https://192.0.2.1:50051", &config, &arguments)
    };
    let open = start("version: 1\ndefault: drop\n");
    assert!(!open.log().contains("TCP port 50051"), "{}", open.log());
    ask().ok();
    drop(open);

    let closed = start("version: 1\ndefault: drop\nfailsafe: none\n");
    let log = closed.log();
    assert!(
        log.contains("TCP port 50051") && log.contains("id: allow-api"),
        "{log}"
    );
    ask().refused(1, &["no daemon answers", "192.0.2.1"]);
    drop(closed);

    // The rule that the warning proposes.
    let rule = "{id: allow-api, priority: 0, match: {src: 192.0.2.0/24, protocol: tcp, dport: 50051}, \
                action: pass}";
    let open = start(&format!(
        "version: 1\ndefault: drop\nfailsafe: none\nrules: [{rule}]\n"
    ));
    assert!(!open.log().contains("TCP port 50051"), "{}", open.log());
    ask().ok();
}

/// Whatever else is to be logged, who changed what is.
#[test]
fn audit_lines_do_not_depend_on_the_log_level() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let server = format!("unix:{}", text(&host.scratch.path("s.sock")));
    let log = host.scratch.path("log");
    let mut command = daemon(&server, &["--interface", "lo", "--log-level", "off"]);
    command.stderr(fs::File::create(&log).expect("a file"));
    let mut child = host.namespace.run(|| command.spawn()).expect("the daemon");
    let ask = |arguments: &[&str]| common::xdpgate([arguments, &["--server", &server]].concat());
    wait_for("it", || (ask(&["status"]).code == Some(0)).then_some(()));
    ask(&["policy", "apply", &host.policy(1)]).ok();
    let log = fs::read_to_string(&log).expect("a log");
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.contains("audit: called who=\"user 0\""), "{log}");
}

/// What is not awaited is written down too.
#[test]
fn a_call_that_is_given_up_is_audited() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let server = format!("unix:{}", text(&host.scratch.path("s.sock")));
    let daemon = host.start_with(&server, "", &[]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let endpoint = Endpoint::from_shared(server.clone()).expect("an endpoint");
        let client = FirewallClient::new(endpoint.connect().await.expect("a connection"));
        let list: String = (0..20_000u32)
            .map(|n| format!("{}, ", std::net::Ipv4Addr::from(0x0b00_0000 + 7 * n)))
            .collect();
        let yaml = format!(
            "version: 1\nsets: {{ large: {{ entries: [{list}] }} }}\nrules: [{{ id: a, match: {{ src: \
             '@large' }}, action: drop }}]\n"
        );
        // One after the other they take longer than anybody waits here.
        let asked: Vec<_> = (0..60)
            .map(|_| {
                let mut client = client.clone();
                let request = ApplyPolicyRequest {
                    yaml: yaml.clone(),
                    ..Default::default()
                };
                tokio::spawn(async move { client.apply_policy(request).await })
            })
            .collect();
        // On a busy machine it takes its time until they are there: the first answer says so.
        let first = async {
            while !asked.iter().any(|asked| asked.is_finished()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(20), first).await;
        in_time.expect("an answer");
        for asked in asked {
            asked.abort();
        }
    });
    audited(
        &daemon,
        &["who=\"user 0\"", "ApplyPolicy", "outcome=\"not awaited\""],
    );
}

/// What the clock or a certificate says does not keep the filter from being there.
#[test]
fn an_expired_certificate_does_not_keep_the_daemon_from_its_start() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let ops = host.ca.issue(&host.scratch, "ops");
    let old = host.ca.issue_expired(&host.scratch, "old");
    let (cert, key, ca) = (&old.cert, &old.key, &host.ca.cert);
    let config = format!(
        "[api.tls]\ncertificate = '{cert}'\nkey = '{key}'\nclient_ca = '{ca}'\n\
         [[api.clients]]\nname = 'ops'\nrole = 'admin'\n"
    );
    let daemon = host.start_with(SERVER, &config, &[]);
    let log = daemon.log();
    for word in [
        "ERROR",
        "api.tls.certificate",
        "old.crt",
        "expired",
        "renew",
    ] {
        assert!(log.contains(word), "no {word:?} in {log}");
    }
    // Clients do not take it.
    host.ask_as(&ops, &["status"]).refused(1, &["expired"]);
    // While it runs, what is in force is kept.
    daemon.signal(Signal::SIGHUP);
    wait_for("the refusal", || {
        daemon.log().contains("stays in force").then_some(())
    });
}
