//! Faults under a running daemon, with real packets: a state directory that is full or read-only, and the end
//! by SIGKILL at random moments of `ApplyPolicy`.

mod common;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use common::api::{Client, apply};
use common::daemon::Daemon;
use common::pinned::Scene;
use common::random::Random;
use common::scrape::{Scrape, get};
use common::{is_root, text};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use tonic::transport::Endpoint;
use tonic_types::StatusExt;
use xdpgate_api::v1::ApplyPolicyRequest;
use xdpgate_api::v1::firewall_client::FirewallClient;

/// What the daemon keeps, seen from the test.
fn state(scene: &Scene) -> PathBuf {
    scene.scratch.path("xdpgated-state")
}

/// Does something with a client of the daemon.
fn with_client<R>(server: &str, work: impl AsyncFnOnce(Client) -> R) -> R {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let endpoint = Endpoint::from_shared(server.to_owned()).expect("an endpoint");
        let channel = endpoint.connect().await.expect("a connection");
        work(FirewallClient::new(channel)).await
    })
}

/// Asks for a policy that must be confirmed, which is refused: the reason and the words.
fn refused(daemon: &Daemon, yaml: &str) -> (String, String) {
    let request = ApplyPolicyRequest {
        yaml: yaml.to_owned(),
        confirm_within: Some(prost_types::Duration {
            seconds: 60,
            nanos: 0,
        }),
        ..Default::default()
    };
    let status = with_client(&daemon.server, async |mut client| {
        client.apply_policy(request).await.expect_err("not saved")
    });
    let info = status.get_details_error_info().expect("a reason");
    (info.reason, status.message().to_owned())
}

#[test]
fn r129_a_state_directory_that_is_full_or_read_only() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let (state, tmpfs) = (state(&scene), Some("tmpfs"));
    scene.host.run(|| {
        fs::create_dir(&state).expect("a directory");
        let size = Some("size=64k,mode=700");
        mount(tmpfs, &state, tmpfs, MsFlags::empty(), size).expect("root may");
    });
    let remount = |flags| {
        let (none, options) = (None::<&str>, Some("size=64k"));
        let flags = MsFlags::MS_REMOUNT | flags;
        scene
            .host
            .run(|| mount(none, &state, none, flags, options))
            .expect("root may");
    };
    let full = state.join("full");
    let page = scene.scratch.path("metrics.sock");
    let listen = format!("unix:{}", text(&page));
    let arguments = ["--enforce", "--metrics-listen", &listen];
    let daemon = scene.start(&arguments);
    let open = scene.policy("open.yaml", 1, false);
    let shut = scene.policy("shut.yaml", 1, true);
    let yaml = fs::read_to_string(&shut).expect("a policy");
    let saved = || Scrape::of(&page).get("xdpgate_policy_saved", &[]);
    daemon.ask(&["policy", "apply", &open]).ok();
    assert!(scene.arrives());
    assert_eq!(saved(), 1.0);

    for (why, lack) in [("No space left", true), ("Read-only file system", false)] {
        match lack {
            // As much as fits.
            true => scene.host.run(|| drop(fs::write(&full, vec![1; 1 << 20]))),
            false => remount(MsFlags::MS_RDONLY),
        }
        // A deadline that would be forgotten is refused, and nothing changed.
        let (reason, message) = refused(&daemon, &yaml);
        assert_eq!(reason, "NOT_SAVED", "{message}");
        assert!(message.contains(why), "{message}");
        assert!(scene.arrives(), "{why}");
        assert!(daemon.json(&["status"])["pending"].is_null(), "{why}");
        // Without one the filter goes on with what is new, and it is told from all sides that it would not last.
        let said = daemon.ask(&["policy", "apply", &shut]).ok();
        assert!(said.contains(why), "{said}");
        assert!(!scene.arrives(), "{why}");
        let status = daemon.json(&["status"]);
        let not_saved = status["not_saved"].as_str().expect("a reason");
        assert!(not_saved.contains(why), "{not_saved}");
        let shown = daemon.ask(&["status"]).ok();
        assert!(shown.contains("NOT SAVED"), "{shown}");
        assert_eq!(saved(), 0.0, "{why}");
        for path in ["/healthz", "/readyz"] {
            let answer = get(&page, path);
            assert_eq!(answer.status, 200, "the filter is up: {path} {answer:?}");
        }
        let on_disk = scene
            .host
            .run(|| fs::read_to_string(state.join("policy.yaml")));
        let on_disk = on_disk.expect("the one before, whole");
        assert!(on_disk.contains("count"), "{on_disk}");

        // Room again: saved by itself or with the next change.
        if lack {
            scene
                .host
                .run(|| fs::remove_file(&full))
                .expect("it is there");
            let begun = Instant::now();
            while saved() != 1.0 {
                assert!(begun.elapsed() < Duration::from_secs(60), "not tried again");
                sleep(Duration::from_millis(200));
            }
        } else {
            remount(MsFlags::empty());
        }
        daemon.ask(&["policy", "apply", &open]).ok();
        assert_eq!(saved(), 1.0, "{why}");
        assert!(daemon.json(&["status"])["not_saved"].is_null(), "{why}");
        assert!(scene.arrives(), "{why}");
    }
    let generation = daemon.json(&["status"])["policy"]["generation"].clone();
    daemon.stop(Signal::SIGKILL);
    let daemon = scene.start(&arguments);
    assert!(scene.arrives());
    let after = &daemon.json(&["status"])["policy"]["generation"];
    assert!(
        after.as_u64() >= generation.as_u64(),
        "{after} after {generation}"
    );
}

/// Whether a policy lets the neighbour in: two do, two do not. So a packet can tell two that follow each other
/// from the others, be they alike.
fn lets_in(number: u64) -> bool {
    number % 4 >= 2
}

/// A policy of some size that tells its number.
fn numbered(number: u64) -> String {
    let action = if lets_in(number) { "count" } else { "drop" };
    let mut yaml = format!(
        "version: 1\nfailsafe: none\nrules:\n  - {{ id: n{number}, match: {{ src: 10.9.0.2 }}, action: {action} }}\n"
    );
    for n in 0..200 {
        let (high, low) = (n / 100, n % 100);
        yaml += &format!(
            "  - {{ id: r{n}, match: {{ src: 203.0.{high}.{low}, dport: {n} }}, action: drop }}\n"
        );
    }
    yaml
}

/// The number of a policy that is whole.
#[track_caller]
fn number_of(yaml: &str) -> u64 {
    let policy = xdpgate::Policy::from_yaml(yaml).expect("a whole policy");
    assert_eq!(policy.rules().len(), 201);
    let mut ids = policy.rules().iter().map(|rule| rule.id.as_str());
    let number = ids.find_map(|id| id.strip_prefix('n'));
    number.and_then(|n| n.parse().ok()).expect("a number")
}

/// What judges, what is saved and what the next daemon begins with is the last policy that was answered or
/// the one that was under way, and no third.
#[test]
fn r129_killed_at_random_moments_of_an_apply() {
    if !is_root() {
        return;
    }
    const KILLS: u32 = 30;
    let begun = Instant::now();
    let scene = Scene::new();
    let mut random = Random::new(129);
    let mut daemon = scene.start(&["--enforce"]);
    let (mut last, mut generation) = (0, 0);
    with_client(&daemon.server, async |mut client| {
        apply(&mut client, &numbered(0)).await;
    });
    let (mut kills, mut under_way) = (0, 0);
    // On a slow machine fewer.
    while kills < KILLS && (kills < 5 || begun.elapsed() < Duration::from_secs(60)) {
        let answered = AtomicU64::new(last);
        let told = AtomicU64::new(generation);
        let (server, pid) = (daemon.server.clone(), daemon.pid());
        scope(|scope| {
            let (connected, wait) = channel();
            let (answered, told, server) = (&answered, &told, &server);
            scope.spawn(move || {
                with_client(server, async |mut client| {
                    connected.send(()).expect("somebody waits");
                    for number in last + 1.. {
                        let yaml = numbered(number);
                        let request = ApplyPolicyRequest {
                            yaml,
                            ..Default::default()
                        };
                        let Ok(response) = client.apply_policy(request).await else {
                            return;
                        };
                        let applied = response.into_inner().applied.expect("applied");
                        assert_eq!(applied.not_saved, None);
                        told.store(applied.generation, Ordering::SeqCst);
                        answered.store(number, Ordering::SeqCst);
                    }
                });
            });
            wait.recv().expect("a connection");
            // So that all moments come: of the first change, and after some.
            sleep(Duration::from_micros(random.below(400_000).into()));
            kill(pid, Signal::SIGKILL).expect("it runs");
        });
        drop(daemon);
        kills += 1;
        let (answered, told) = (answered.into_inner(), told.into_inner());
        let allowed = [answered, answered + 1];
        let context = format!("kill {kills}: {answered} was answered");
        let on_disk = fs::read_to_string(state(&scene).join("policy.yaml"));
        let on_disk = number_of(&on_disk.expect("a policy"));
        assert!(allowed.contains(&on_disk), "{context}, {on_disk} is saved");
        let judges = allowed.map(lets_in);
        assert!(judges.contains(&scene.arrives()), "{context}");

        daemon = scene.start(&["--enforce"]);
        let in_force = number_of(&daemon.ask(&["policy", "get"]).ok());
        assert!(allowed.contains(&in_force), "{context}, then {in_force}");
        let saved = fs::read_to_string(state(&scene).join("policy.yaml")).expect("a policy");
        assert_eq!(
            number_of(&saved),
            in_force,
            "{context}: saved after the start"
        );
        assert_eq!(scene.arrives(), lets_in(in_force), "{context}: {in_force}");
        let status = daemon.json(&["status"]);
        assert!(status["not_saved"].is_null(), "{context}: {status}");
        let now = status["policy"]["generation"].as_u64();
        let now = now.unwrap_or_else(|| panic!("{context}: {status}"));
        assert!(now >= told, "{context}: generation {now} after {told}");
        if in_force > answered {
            under_way += 1;
        }
        (last, generation) = (in_force, now);
    }
    println!("{kills} kills, {last} changes, {under_way} of them in force without an answer");
    assert!(
        last > u64::from(kills) / 2,
        "{last} changes at {kills} kills"
    );
}
