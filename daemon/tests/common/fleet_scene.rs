//! A host whose daemon is a member of a fleet, and the neighbour on which its controller runs.

use std::fs;
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use xdpgate::Policy;

use super::controller::{ADDRESS, Controller, Fleets};
use super::daemon::Daemon;
use super::neighbours::Neighbours;
use super::{text, wait_for};

/// Drops what comes from the bad address.
pub const BAD: &str =
    "{ version: 1, rules: [{ id: bad, match: { src: 203.0.113.7 }, action: drop }] }";
/// Nothing passes, and SSH from nowhere.
pub const CLOSED: &str = "{ version: 1, default: drop }";

pub fn policy(text: &str) -> Policy {
    Policy::from_yaml(text).unwrap_or_else(|e| panic!("{e}"))
}

/// Neighbours, and a fleet whose controller is to run on the other one.
pub struct Scene {
    neighbours: Neighbours,
    pub fleet: Fleets,
}

impl Deref for Scene {
    type Target = Neighbours;

    fn deref(&self) -> &Neighbours {
        &self.neighbours
    }
}

impl Scene {
    pub fn new() -> Self {
        Self {
            neighbours: Neighbours::new(),
            fleet: Fleets::new(),
        }
    }

    pub fn serve(&self) -> Controller {
        self.fleet.serve(&self.neighbour)
    }

    /// Puts a new token where the configuration looks for it.
    pub fn put_token(&self) -> PathBuf {
        let path = self.scratch.path("token");
        fs::write(&path, self.fleet.token() + "\n").expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        path
    }

    /// The configuration, with more keys of `[fleet]`.
    pub fn configure(&self, more: &str) -> String {
        let token = self.scratch.path("token");
        let config = format!(
            "[fleet]\ncontrollers = ['https://{ADDRESS}']\ntoken_file = {token:?}\nname = 'edge'\n\
             labels = ['env=test']\nreconnect_most_seconds = 2\n{more}\n"
        );
        self.scratch.file("xdpgated.toml", config)
    }

    /// Starts the daemon as it was configured.
    #[track_caller]
    pub fn start_member(&self) -> Daemon {
        let config = text(&self.scratch.path("xdpgated.toml"));
        self.daemon(&["--config", &config])
    }

    /// A controller, and a node that has joined and is connected.
    #[track_caller]
    pub fn member(&self, more: &str) -> (Controller, Daemon) {
        let controller = self.serve();
        self.put_token();
        self.configure(more);
        let daemon = self.start_member();
        self.fleet.hello(1);
        (controller, daemon)
    }

    /// What the daemon keeps of the fleet.
    pub fn kept(&self, name: &str) -> PathBuf {
        self.scratch.path("xdpgated-state").join("fleet").join(name)
    }

    #[track_caller]
    pub fn assert_private(&self, name: &str) {
        let mode = fs::metadata(self.kept(name)).expect("it is there").mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

/// The hash of the policy in force.
#[track_caller]
pub fn in_force(daemon: &Daemon) -> Option<String> {
    let status = daemon.json(&["status"]);
    status["policy"]["hash"].as_str().map(str::to_owned)
}

/// Waits until this policy is in force.
#[track_caller]
pub fn wait_in_force(daemon: &Daemon, policy: &Policy) {
    let hash = policy.hash().to_string();
    wait_for("the policy", || {
        (in_force(daemon) == Some(hash.clone())).then_some(())
    });
}
