//! What several test binaries share; each uses a part of it.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test binary compiles all of it"
)]

#[path = "../../../tests/common/altered.rs"]
pub mod altered;
pub mod api;
pub mod captures;
pub mod certificates;
pub mod controller;
pub mod daemon;
pub mod fleet_scene;
pub mod frames;
pub mod host;
pub mod namespace;
pub mod neighbours;
pub mod pinned;
#[path = "../../../tests/common/random.rs"]
pub mod random;
pub mod scrape;
#[path = "../../../tests/common/tools.rs"]
pub mod tools;

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

pub const XDPGATE: &str = env!("CARGO_BIN_EXE_xdpgate");
pub const XDPGATED: &str = env!("CARGO_BIN_EXE_xdpgated");

/// A policy that is well formed and that the compiler refuses: its burst takes too long to earn.
pub const TOO_SLOW: &str = "version: 1\nrules: [{ id: slow, action: { rate_limit: { packets_per_second: 1, burst: 1000000000000 } } }]\n";

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Asserts that all went well and gives what was printed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self}");
        self.stdout
    }

    /// Asserts that nothing was printed but one line of error that holds these words.
    #[track_caller]
    pub fn refused(self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self}");
        assert_eq!(self.stdout, "", "{self}");
        assert!(self.stderr.starts_with("error: "), "{self}");
        assert_eq!(self.stderr.lines().count(), 1, "{self}");
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in: {self}");
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            code,
            stdout,
            stderr,
        } = self;
        write!(f, "exit {code:?}\nstdout: {stdout}\nstderr: {stderr}")
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

/// A command with an environment that does not change what it does.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env_remove("XDPGATE_SERVER")
        .env_remove("XDPGATE_TOKEN")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    command
}

/// Runs a program to its end.
pub fn run<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> Ended {
    let output = command(program).args(arguments).output();
    output.unwrap_or_else(|e| panic!("{program}: {e}")).into()
}

/// Copies a program. By another process: a child that another test starts meanwhile would hold the file
/// open for writing, and nobody could run it.
pub fn copy_program(program: &str, to: &Path) {
    run("cp", [OsStr::new(program), to.as_os_str()]).ok();
}

/// Runs the client to its end.
pub fn xdpgate<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Ended {
    run(XDPGATE, arguments)
}

/// A directory that goes with the test.
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn new() -> Self {
        Self(
            tempfile::Builder::new()
                .prefix("xdpgate-test-")
                .tempdir()
                .expect("a directory"),
        )
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file and gives its path.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).expect("a file");
        text(&path)
    }
}

pub fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// Waits until something is there, ten seconds at most.
#[track_caller]
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_up_to(Duration::from_secs(10), what, look)
}

/// Likewise, for as long as is said.
#[track_caller]
pub fn wait_up_to<T>(longest: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < longest, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether the test may go on; says so if not.
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}
