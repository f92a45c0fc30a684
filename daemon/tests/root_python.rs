//! Every method of the API from a client that is not ours: Python, with code that is generated from
//! the `.proto` file, against a real daemon and real packets.

mod common;

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::daemon::Daemon;
use common::namespace::Namespace;
use common::{Ended, Scratch, XDPGATED, is_root, run, text};

/// The interpreter that has grpcio and the generated code.
fn python_client(root: &Path) -> String {
    let script = text(&root.join("scripts/python-client"));
    let python = run(&script, [""; 0]);
    assert_eq!(python.code, Some(0), "scripts/python-client: {python}");
    python.stdout.trim().to_owned()
}

#[test]
fn r70_every_method_from_python() {
    if !is_root() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let python = python_client(&root);
    let scratch = Scratch::new();
    let host = Namespace::new();
    let peer = host.neighbour(("xg0", "10.9.0.1/24"), ("xg1", "10.9.0.2/24"));
    let config = scratch.file(
        "xdpgated.toml",
        "enforce = true\n[interfaces]\nclass = \"none\"\ninclude = [\"xg0\"]\n",
    );
    let daemon = Daemon::start(&host, &scratch, &["--config", &config]);

    let done = AtomicBool::new(false);
    let ended: Ended = std::thread::scope(|scope| {
        scope.spawn(|| {
            peer.run(|| {
                let socket = UdpSocket::bind("10.9.0.2:0").expect("a socket");
                while !done.load(Ordering::Relaxed) {
                    // Nobody listens, which the socket may tell.
                    let _ = socket.send_to(b"payload", "10.9.0.1:9");
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        });
        let mut command = Command::new(&python);
        command
            .arg(root.join("daemon/tests/python/conformance.py"))
            .arg(&daemon.server)
            .arg(root.join("target/python/generated"))
            .arg("xg0");
        let ended = host.run(|| command.output()).expect("python").into();
        done.store(true, Ordering::Relaxed);
        ended
    });
    assert_eq!(ended.code, Some(0), "{ended}\n{}", daemon.log());
    assert!(ended.stdout.contains("methods called"), "{ended}");
}

/// By each way into the daemon; the bounds are in the script. Memory only: time is of the machine.
#[test]
fn r104_a_million_entries_through_the_api_stay_within_memory() {
    if !is_root() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut command = Command::new(python_client(&root));
    command
        .arg(root.join("daemon/tests/python/measure_import.py"))
        .arg(XDPGATED);
    let host = Namespace::new();
    let ended: Ended = host.run(|| command.output()).expect("python").into();
    println!("{}", ended.stdout);
    assert_eq!(ended.code, Some(0), "{ended}");
    assert_eq!(ended.stdout.matches("VmHWM").count(), 3, "{ended}");
}
