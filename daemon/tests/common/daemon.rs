//! A running `xdpgated`.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::namespace::Namespace;
use super::{Ended, Scratch, XDPGATED, command, text, wait_for, xdpgate};

/// A daemon in a namespace; killed when the test ends, if it still runs.
pub struct Daemon {
    child: Child,
    /// Where it serves, as `--server` wants it.
    pub server: String,
    log: Arc<Mutex<String>>,
}

impl Daemon {
    /// Starts it at a socket in `scratch` and waits until it says `ready`.
    #[track_caller]
    pub fn start(namespace: &Namespace, scratch: &Scratch, arguments: &[&str]) -> Self {
        let server = format!("unix:{}", text(&scratch.path("xdpgated.sock")));
        Self::start_at(namespace, &server, arguments)
    }

    /// Likewise, at an endpoint.
    #[track_caller]
    pub fn start_at(namespace: &Namespace, server: &str, arguments: &[&str]) -> Self {
        Self::start_with(namespace, server, daemon(server, arguments))
    }

    /// Likewise, by a command that comes from [`daemon`].
    #[track_caller]
    pub fn start_with(namespace: &Namespace, server: &str, mut command: Command) -> Self {
        command.stderr(Stdio::piped());
        let mut child = namespace.run(|| command.spawn()).expect("the daemon");
        let stderr = child.stderr.take().expect("piped");
        let log = Arc::new(Mutex::new(String::new()));
        let copy = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                copy.lock().expect("no panic").push_str(&(line + "\n"));
            }
        });
        let server = server.to_owned();
        let mut daemon = Self { child, server, log };
        wait_for("ready", || {
            if let Some(status) = daemon.child.try_wait().expect("a child") {
                panic!("{status}: {}", daemon.log());
            }
            daemon.log().contains("ready").then_some(())
        });
        daemon
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    pub fn log(&self) -> String {
        self.log.lock().expect("no panic").clone()
    }

    /// Sends a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it runs");
    }

    /// Runs the client against it.
    pub fn ask(&self, arguments: &[&str]) -> Ended {
        xdpgate([arguments, &["--server", &self.server]].concat())
    }

    /// Likewise, for what it prints as JSON.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let said = self.ask(&[arguments, &["--json"]].concat()).ok();
        serde_json::from_str(&said).expect("JSON")
    }

    /// Sends a signal and waits for the end; gives the exit code and the log.
    #[track_caller]
    pub fn stop(mut self, signal: Signal) -> (Option<i32>, String) {
        kill(self.pid(), signal).expect("it runs");
        let status = wait_for("its end", || self.child.try_wait().expect("a child"));
        (status.code(), self.log())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command that starts a daemon. What outlives it is in the directory of its socket, and it pins
/// nothing unless told to. `XDPGATE_TEST_DAEMON` names another program, for figures of a release build.
pub fn daemon(server: &str, arguments: &[&str]) -> Command {
    let program = env::var_os("XDPGATE_TEST_DAEMON").unwrap_or_else(|| XDPGATED.into());
    let mut command = command(program);
    let socket = server.strip_prefix("unix:").map(Path::new);
    let dir = match socket.and_then(Path::parent) {
        Some(dir) => dir.to_owned(),
        None => env::temp_dir().join(format!("xdpgate-state-{}", std::process::id())),
    };
    // Of this socket: two daemons do not share what they keep.
    let name = socket.and_then(Path::file_stem).unwrap_or_default();
    let kept = |what: &str| dir.join(format!("{}-{what}", name.to_string_lossy()));
    command
        .env_remove("XDPGATED_CONFIG")
        .env("XDPGATED_PINS_PINNING", "off")
        .env("XDPGATED_PINS_ROOT", kept("pins"))
        .env("XDPGATED_STATE_DIR", kept("state"))
        .args(["--listen", server])
        .args(arguments);
    command
}

/// Starts a daemon that is expected to fail at once.
pub fn attempt(namespace: &Namespace, scratch: &Scratch, arguments: &[&str]) -> Ended {
    let server = format!("unix:{}", text(&scratch.path("attempt.sock")));
    let mut command = daemon(&server, arguments);
    let ended: Ended = namespace
        .run(|| command.output())
        .expect("the daemon")
        .into();
    assert!(
        !scratch.path("attempt.sock").exists(),
        "a socket was left behind: {ended}"
    );
    ended
}
