//! A controller of its own for a test: the real program, on loopback, with a scratch directory.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_xdpgate-controller");
/// The password that the first user chooses.
pub const PASSWORD: &str = "correct horse battery staple";

/// A running controller, to which its first user is logged in. It ends with the test.
pub struct Controller {
    /// Where it is.
    pub url: String,
    /// Where nodes dial it.
    pub nodes: String,
    dir: tempfile::TempDir,
    child: Child,
}

impl Controller {
    /// Starts one and logs in to it.
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// As [`start`](Self::start), with more said to the program.
    pub fn start_with(more: impl Fn(&mut Command)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Both at once, so that they are two. Somebody else may take one of them before the controller does.
        let (mut controller, password) = (0..5)
            .find_map(|_| Self::serve(&dir, &more))
            .map(|(child, url, nodes, password)| {
                (
                    Self {
                        url,
                        nodes,
                        dir,
                        child,
                    },
                    password,
                )
            })
            .expect("the controller starts");
        controller.file("first.password", &password);
        controller.file("password", PASSWORD);
        controller.wait();
        let first = controller.path("first.password");
        let own = controller.path("password");
        let args = [
            "login",
            "--password-file",
            &first,
            "--new-password-file",
            &own,
        ];
        controller.ok(&args);
        controller
    }

    fn serve(
        dir: &tempfile::TempDir,
        more: impl Fn(&mut Command),
    ) -> Option<(Child, String, String, String)> {
        let ports = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let [api, nodes] = ports.map(|port| port.local_addr().unwrap().to_string());
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new(PROGRAM);
        command
            .args([
                "serve",
                "--listen",
                &api,
                "--nodes-listen",
                &nodes,
                "--state-dir",
            ])
            .arg(dir.path().join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .env(
                "XDPGATE_CONTROLLER_FEEDS_DIRECTORY",
                dir.path().join("lists"),
            )
            .stderr(log);
        more(&mut command);
        let mut child = command.spawn().unwrap();
        let mut said = String::new();
        let out = child.stdout.take().unwrap();
        // Ends also if the program does.
        BufReader::new(out).read_line(&mut said).unwrap();
        match said.rsplit_once(": ") {
            Some((_, password)) => Some((
                child,
                format!("http://{api}"),
                nodes,
                password.trim().to_owned(),
            )),
            None => {
                child.wait().unwrap();
                None
            }
        }
    }

    /// Waits until it answers.
    fn wait(&mut self) {
        let until = Instant::now() + Duration::from_secs(30);
        let address = self.url.trim_start_matches("http://").to_owned();
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(
                self.child.try_wait().unwrap().is_none(),
                "it ended: {}",
                self.log()
            );
            assert!(Instant::now() < until, "it does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        let mut text = String::new();
        let file = std::fs::File::open(self.dir.path().join("log"));
        file.unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// The directory of the test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The token of its first user.
    pub fn token(&self) -> String {
        let kept = std::fs::read_to_string(self.path("config/xdpgate/controller.toml")).unwrap();
        let line = kept
            .lines()
            .find(|line| line.starts_with("token = "))
            .unwrap();
        line.split('"').nth(1).unwrap().to_owned()
    }

    /// Memory of the process that is in use, in KiB.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Writes a file there that only its owner may read.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// A command of the client of this controller; others of the user's logins and variables are out of its sight.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("XDPGATE_CONTROLLER_") {
                command.env_remove(name);
            }
        }
        command
            .args(args)
            .env("XDG_CONFIG_HOME", self.dir.path().join("config"))
            .env("XDPGATE_CONTROLLER_SERVER", &self.url)
            .stdin(Stdio::null());
        command
    }

    /// Runs one.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What one prints that has to work.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let (out, error) = texts(&output);
        assert!(
            output.status.success(),
            "{args:?}: {out}{error}{}",
            self.log()
        );
        out
    }

    /// What one prints as JSON.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let mut all = args.to_vec();
        all.push("--json");
        let text = self.ok(&all);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?}: {e}: {text}"))
    }

    /// The one line of error with which one ends, and its exit code.
    pub fn fails(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args);
        let (out, error) = texts(&output);
        assert!(!output.status.success(), "{args:?} works: {out}");
        assert_eq!(
            error.lines().filter(|l| l.starts_with("error: ")).count(),
            1,
            "{args:?}: {error}"
        );
        (output.status.code().unwrap(), error)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}
