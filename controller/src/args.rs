//! The command line of `xdpgate-controller`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use serde_json::Value;
use xdpgate_service::config::{Configuration, Loaded, Override, Problem, environment, load};
use xdpgate_service::logging;
use xdpgate_service::shell::Shell;

use crate::client::{ClientCommand, Remote};
use crate::config::Config;

/// One desired state for a fleet of xdpgate nodes.
#[derive(Debug, Clone, Parser)]
#[command(name = "xdpgate-controller", version, after_help = HELP)]
pub struct Cli {
    /// Which controller client commands ask.
    #[command(flatten)]
    pub remote: Remote,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program does.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run a controller until a signal ends it
    #[command(after_help = SERVE_HELP)]
    Serve(Args),
    /// Say all that is wrong in the configuration, and touch nothing
    #[command(after_help = CHECK_HELP)]
    Check(Args),
    /// Print the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Write all that the store has to one file, also while a controller runs
    #[command(after_help = BACKUP_HELP)]
    Backup(Backup),
    /// Fill an empty store from such a file
    #[command(after_help = RESTORE_HELP)]
    Restore(Backup),
    /// Print the completion script of a shell
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the manual pages
    #[command(after_help = "Example:\n  xdpgate-controller man /usr/local/share/man")]
    Man {
        /// The directory that holds man8; what is not there is made
        dir: PathBuf,
    },
    /// What asks a controller.
    #[command(flatten)]
    Client(ClientCommand),
}

/// What is printed of the configuration.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// The file with every key, its default and what it is
    #[command(after_help = "Example:\n  xdpgate-controller config print-default > controller.toml")]
    PrintDefault,
    /// The JSON Schema of the file
    Schema,
    /// What is in force, and where it comes from
    Show(Args),
}

/// A file of a backup, and the store.
#[derive(Debug, Clone, clap::Args)]
pub struct Backup {
    /// The file
    pub file: PathBuf,
    /// Where the store is.
    #[command(flatten)]
    pub args: Args,
}

/// The flags that say where things are.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The configuration file; without one all is as its defaults have it
    #[arg(long, value_name = "FILE", env = Config::FILE_VARIABLE)]
    pub config: Option<PathBuf>,
    /// Where the controller keeps what is its own [default: /var/lib/xdpgate-controller]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where to serve REST and the web interface [default: 127.0.0.1:8480]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Where to serve nodes [default: 127.0.0.1:8443]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub nodes_listen: Option<String>,
    /// How nodes dial this controller; repeat it for more [default: as --nodes-listen]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Vec<String>,
    /// A member of an etcd cluster, in place of a SQLite file; repeat it for more
    #[arg(long, value_name = "URL")]
    pub etcd: Vec<String>,
    /// How it logs.
    #[command(flatten)]
    pub log: logging::Flags,
}

impl Args {
    /// The configuration with these flags, the environment and the file.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn load(&self) -> Result<Loaded<Config>, Vec<Problem>> {
        // These are of the client commands of the same program.
        let client = ["SERVER", "TOKEN", "TOKEN_FILE", "CA"];
        let client = client.map(|name| format!("{}{name}", Config::PREFIX));
        let mut environment = environment::<Config>();
        environment.retain(|(name, _)| !client.contains(name));
        load(self.config.as_deref(), &environment, &self.overrides())
    }

    fn overrides(&self) -> Vec<Override> {
        let list = |all: &[String]| (!all.is_empty()).then(|| Value::from(all));
        let text = |text: &Option<String>| text.clone().map(Value::from);
        let said = [
            (
                "--state-dir",
                "state_dir",
                self.state_dir
                    .as_ref()
                    .map(|path| Value::from(path.to_string_lossy())),
            ),
            ("--listen", "api.listen", text(&self.listen)),
            ("--nodes-listen", "nodes.listen", text(&self.nodes_listen)),
            ("--advertise", "nodes.advertise", list(&self.advertise)),
            ("--etcd", "store.etcd.endpoints", list(&self.etcd)),
        ];
        Override::of(said.into_iter().chain(self.log.said()))
    }
}

const HELP: &str = "\
Begin with `xdpgate-controller serve`: it makes a SQLite file, an authority for certificates and a first user,
and says how to log in. `login` keeps a token, and then the other commands ask the controller: docs/controller-cli.md.
Exit codes: 0 done, 1 it did not work (`diff`: they differ), 2 wrong use or bad input.

Examples:
  xdpgate-controller serve
  xdpgate-controller login
  xdpgate-controller policy apply web web.yaml --plan
  xdpgate-controller apply -f fleet/ --diff";

const SERVE_HELP: &str = "\
For each key of the file counts, the first that has it: flags, the environment (XDPGATE_CONTROLLER_ and the key,
as XDPGATE_CONTROLLER_NODES_LISTEN), the file, the default. It runs until SIGINT or SIGTERM; nodes go on without it.
Exit codes: 0 stopped, 1 it did not work, 2 wrong use or bad configuration.

Examples:
  xdpgate-controller serve                                    all on loopback, one SQLite file
  xdpgate-controller serve --nodes-listen 0.0.0.0:8443 --advertise controller.example:8443
  xdpgate-controller serve --etcd https://etcd-1.example:2379 --config controller.toml";

const COMPLETIONS_HELP: &str = "\
Examples:
  xdpgate-controller completions bash > /etc/bash_completion.d/xdpgate-controller
  xdpgate-controller completions zsh > /usr/local/share/zsh/site-functions/_xdpgate-controller";

const CHECK_HELP: &str = "\
Exit codes: 0 all is well, 2 something is wrong: a line for each, with file, line, key and reason.";

const BACKUP_HELP: &str = "\
The file has everything: policies, sets, their history, nodes, users, the audit log and the keys of the authority. Keep
it as you keep the keys. An SQLite file of a running controller is read as of one moment.

Example:
  xdpgate-controller backup fleet.backup";

const RESTORE_HELP: &str = "\
The store must be empty; it need not be of the same kind. Nodes take what was restored for a new beginning, and are put
right where they differ.

Example:
  xdpgate-controller restore fleet.backup --state-dir /var/lib/xdpgate-controller";
