//! `user` and `token`: who may do what.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Value, json};
use xdpgate_service::{Failure, duration};

use super::node::done;
use super::out::{answer, list};
use super::remote::Api;
use super::secret;

#[derive(Debug, Clone, Subcommand)]
#[command(after_help = "\
Roles: viewer looks, operator changes policies, sets, groups and nodes, admin also users and the authority.

Examples:
  xdpgate-controller user add anna --role operator
  xdpgate-controller user disable anna
  xdpgate-controller user reset-password anna")]
pub enum User {
    /// List the users
    #[command(after_help = "Example:\n  xdpgate-controller user list")]
    List,
    /// Make a user; a password that is good once is made up and told, unless a file has one
    #[command(after_help = "\
Examples:
  xdpgate-controller user add anna --role operator
  xdpgate-controller user add ci --role operator --password-file ci.password")]
    Add {
        /// The user
        name: String,
        /// viewer, operator or admin
        #[arg(long, value_name = "ROLE", value_parser = ["viewer", "operator", "admin"], hide_possible_values = true)]
        role: String,
        /// A file with the password
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Give a user another role
    #[command(after_help = "Example:\n  xdpgate-controller user role anna viewer")]
    Role {
        /// The user
        name: String,
        /// viewer, operator or admin
        #[arg(value_parser = ["viewer", "operator", "admin"], hide_possible_values = true)]
        role: String,
    },
    /// Keep a user out; sessions end
    #[command(after_help = "Example:\n  xdpgate-controller user disable anna")]
    Disable {
        /// The user
        name: String,
    },
    /// Let a user in again
    #[command(after_help = "Example:\n  xdpgate-controller user enable anna")]
    Enable {
        /// The user
        name: String,
    },
    /// Give a user a password that is good once
    #[command(after_help = "Example:\n  xdpgate-controller user reset-password anna")]
    ResetPassword {
        /// The user
        name: String,
    },
    /// End all sessions of a user
    #[command(after_help = "Example:\n  xdpgate-controller user end-sessions anna")]
    EndSessions {
        /// The user
        name: String,
    },
    /// Remove a user, whose sessions and tokens die too
    #[command(after_help = "Example:\n  xdpgate-controller user remove anna")]
    Remove {
        /// The user
        name: String,
    },
}

#[derive(Debug, Clone, Subcommand)]
#[command(after_help = "\
`login` makes one for you and keeps it.

Examples:
  xdpgate-controller token list
  xdpgate-controller token remove 3f2a")]
pub enum Token {
    /// List your tokens, as an admin all
    #[command(after_help = "Example:\n  xdpgate-controller token list")]
    List,
    /// Make a token; it takes your password, and is told this once
    #[command(
        after_help = "Example:\n  xdpgate-controller token new --user anna --name ci --role operator --for 30d"
    )]
    New(New),
    /// Revoke a token
    #[command(after_help = "Example:\n  xdpgate-controller token remove 3f2a")]
    Remove {
        /// What it is called by
        id: String,
    },
}

/// A token to be.
#[derive(Debug, Clone, clap::Args)]
pub struct New {
    /// Whose it is
    #[arg(long, value_name = "USER")]
    pub user: String,
    /// A file with the password; without one it is asked for
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    pub name: String,
    /// What it may: viewer, operator or admin
    #[arg(long, value_name = "ROLE", value_parser = ["viewer", "operator", "admin"], hide_possible_values = true)]
    pub role: String,
    /// How long it is good [default: for good]
    #[arg(long = "for", id = "lifetime", value_name = "DURATION", value_parser = duration::parse)]
    pub lifetime: Option<Duration>,
}

pub(super) async fn run(api: &Api, command: &User) -> Result<(), Failure> {
    match command {
        User::List => {
            let page = api.get(&["users"]).json().await?;
            let columns = [
                ("USER", "/name"),
                ("ROLE", "/role"),
                ("DISABLED", "/disabled"),
                ("MUST CHANGE PASSWORD", "/must_change_password"),
                ("CREATED", "/created"),
                ("BY", "/created_by"),
            ];
            list(api.json, &page, &columns)
        }
        User::Add {
            name,
            role,
            password_file,
        } => {
            let mut body = json!({ "name": name, "role": role });
            if let Some(file) = password_file {
                body["password"] = secret::read(file)?.into();
            }
            let made = api.post(&["users"]).value(&body).json().await?;
            answer(api.json, &made, |made| told(name, "made", made))
        }
        User::Role { name, role } => patch(api, name, json!({ "role": role }), role).await,
        User::Disable { name } => patch(api, name, json!({ "disabled": true }), "disabled").await,
        User::Enable { name } => patch(api, name, json!({ "disabled": false }), "enabled").await,
        User::ResetPassword { name } => {
            let made = api.post(&["users", name, "reset-password"]).json().await?;
            answer(api.json, &made, |made| {
                told(name, "the old password is dead", made)
            })
        }
        User::EndSessions { name } => {
            api.delete(&["users", name, "sessions"]).json().await?;
            done(api, &format!("{name}: all sessions ended\n"))
        }
        User::Remove { name } => {
            api.delete(&["users", name]).json().await?;
            done(api, &format!("{name}: removed\n"))
        }
    }
}

async fn patch(api: &Api, name: &str, body: Value, what: &str) -> Result<(), Failure> {
    let user = api.patch(&["users", name]).value(&body).json().await?;
    answer(api.json, &user, |_| format!("{name}: {what}\n"))
}

fn told(name: &str, what: &str, made: &Value) -> String {
    match made.get("one_time_password").and_then(Value::as_str) {
        Some(password) => {
            format!("{name}: {what}\npassword, good once, not told again: {password}\n")
        }
        None => format!("{name}: {what}\n"),
    }
}

pub(super) async fn token(api: &Api, nobody: &Api, command: &Token) -> Result<(), Failure> {
    match command {
        Token::List => {
            let page = api.get(&["tokens"]).json().await?;
            let columns = [
                ("TOKEN", "/id"),
                ("NAME", "/name"),
                ("OWNER", "/owner"),
                ("ROLE", "/role"),
                ("EXPIRES", "/expires"),
                ("LAST USED", "/last_used"),
            ];
            list(api.json, &page, &columns)
        }
        Token::New(args) => new(nobody, args).await,
        Token::Remove { id } => {
            api.delete(&["tokens", id]).json().await?;
            done(api, &format!("{id}: revoked\n"))
        }
    }
}

async fn new(api: &Api, args: &New) -> Result<(), Failure> {
    let password = match &args.password_file {
        Some(file) => secret::read(file)?,
        None => secret::ask(&format!("password of {}", args.user))?,
    };
    let session = super::login::Session::begin(api, &args.user, &password).await?;
    let body = json!({
        "name": args.name,
        "role": args.role,
        "expires": args.lifetime.map(|time| Timestamp::now() + time),
    });
    let made = session.on(api.post(&["tokens"])).value(&body).json().await;
    // It was for this one call.
    let _ = session.on(api.delete(&["session"])).json().await;
    answer(api.json, &made?, |made| {
        let secret = made
            .get("secret")
            .and_then(Value::as_str)
            .unwrap_or_default();
        format!("{secret}\n")
    })
}
