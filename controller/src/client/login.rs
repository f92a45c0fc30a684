//! `login`, `logout`, `whoami`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use reqwest::header::SET_COOKIE;
use serde_json::{Value, json};
use xdpgate_service::{Failure, duration};

use super::node::done;
use super::out::{answer, at_text, fields, print};
use super::remote::{Api, Call, Remote};
use super::saved::{Login as Kept, Saved};
use super::secret;

/// Who logs in, and for how long.
#[derive(Debug, Clone, Args)]
pub struct Login {
    /// The user
    #[arg(default_value = "admin")]
    pub user: String,
    /// A file with the password; without one it is asked for
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// A file with the password to be, where the one that is given is good once; without one it is asked for
    #[arg(long, value_name = "FILE")]
    pub new_password_file: Option<PathBuf>,
    /// How long the login lasts
    #[arg(long = "for", id = "lifetime", value_name = "DURATION", value_parser = duration::parse, default_value = "12h")]
    pub lifetime: Duration,
    /// What it may at most: viewer, operator or admin [default: as the user]
    #[arg(long, value_name = "ROLE", value_parser = ["viewer", "operator", "admin"], hide_possible_values = true)]
    pub role: Option<String>,
}

pub(super) const LOGIN_HELP: &str = "\
It keeps an API token in $XDG_CONFIG_HOME/xdpgate/controller.toml, which only you may read, for this controller and none
other. The first password, which `serve` prints, is good once: it asks for one of your own, of 12 characters or more.

Examples:
  xdpgate-controller login
  xdpgate-controller login anna --server https://controller.example:8480 --ca authority.pem
  xdpgate-controller login ci --password-file /run/secrets/xdpgate --role operator --for 1h";

/// A session: what requests of it carry.
pub(super) struct Session {
    cookie: String,
    csrf: String,
    me: Value,
}

impl Session {
    pub(super) async fn begin(api: &Api, user: &str, password: &str) -> Result<Self, Failure> {
        let call = api
            .post(&["session"])
            .value(&json!({ "user": user, "password": password }));
        let answer = call.send().await?;
        let cookies = answer.headers().get_all(SET_COOKIE).iter();
        let cookie = cookies
            .filter_map(|value| value.to_str().ok()?.split(';').next())
            .collect::<Vec<_>>()
            .join("; ");
        let me: Value = answer.json().await.map_err(|e| api.unreachable(&e))?;
        let csrf = me
            .get("csrf_token")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        Ok(Self { cookie, csrf, me })
    }

    pub(super) fn on<'a>(&self, call: Call<'a>) -> Call<'a> {
        call.header("cookie", self.cookie.clone())
            .header("x-csrf-token", self.csrf.clone())
    }
}

pub(super) async fn login(remote: &Remote, args: &Login) -> Result<(), Failure> {
    let api = remote.open_as_nobody()?;
    let mut saved = Saved::load()?;
    let password = match &args.password_file {
        Some(file) => secret::read(file)?,
        None => secret::ask(&format!("password of {}", args.user))?,
    };
    let mut session = Session::begin(&api, &args.user, &password).await?;
    if session.me.get("must_change_password") == Some(&Value::Bool(true)) {
        let new = new_password(args)?;
        let body = json!({ "current_password": password, "new_password": new });
        session
            .on(api.put(&["session", "password"]))
            .value(&body)
            .json()
            .await?;
        session = Session::begin(&api, &args.user, &new).await?;
    }
    let host = host_name();
    let body = json!({
        "name": format!("login at {host}"),
        "role": args.role.clone().unwrap_or_else(|| at_text(&session.me, "/role")),
        "expires": Timestamp::now() + args.lifetime,
    });
    let made = session.on(api.post(&["tokens"])).value(&body).json().await;
    // The token is what is kept; that the session ends too is no matter.
    let _ = session.on(api.delete(&["session"])).json().await;
    let made = made?;
    let text = |name: &str| {
        made.get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let kept = Kept {
        user: args.user.clone(),
        id: text("id"),
        token: text("secret"),
    };
    let path = saved.keep(api.server(), kept)?;
    let role = at_text(&made, "/role");
    let text = format!(
        "logged in to {} as {} ({role}) until {}; kept in {}\n",
        api.server(),
        args.user,
        at_text(&made, "/expires"),
        path.display()
    );
    done(&api, &text)
}

fn new_password(args: &Login) -> Result<String, Failure> {
    if let Some(file) = &args.new_password_file {
        return secret::read(file);
    }
    if args.password_file.is_some() {
        let reason =
            "the password is good once: name a file with one of your own, of 12 characters or more";
        return Err(Failure::input("--new-password-file", reason));
    }
    print("This password is good once. Choose one of 12 characters or more.\n")?;
    let new = secret::ask("new password")?;
    match secret::ask("once more")? == new {
        true => Ok(new),
        false => Err(Failure::input(
            "the new password",
            "these are two different ones: log in again",
        )),
    }
}

/// Where the token is kept, for people who look through the list of tokens.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "an unknown host".to_owned(),
        name => name.to_owned(),
    }
}

pub(super) async fn logout(remote: &Remote) -> Result<(), Failure> {
    let api = remote.open()?;
    let mut saved = Saved::load()?;
    let Some(login) = saved.token(api.server()).cloned() else {
        return Err(Failure::operation(format!(
            "{}: nobody is logged in there",
            api.server()
        )));
    };
    // One that the controller does not take any more is as good as revoked.
    let revoked = api.delete(&["tokens", &login.id]).json().await;
    saved.forget(api.server())?;
    match revoked {
        Ok(_) => done(
            &api,
            &format!("{} is logged out of {}\n", login.user, api.server()),
        ),
        Err(failure) => Err(Failure::operation(format!(
            "the token is not kept here any more, but it was not revoked: {failure}"
        ))),
    }
}

pub(super) async fn whoami(api: &Api) -> Result<(), Failure> {
    let me = api.get(&["session"]).json().await?;
    answer(api.json, &me, |me| {
        let text = fields(
            me,
            &[("user", "/user"), ("role", "/role"), ("token", "/token")],
        );
        format!("{text}server: {}\n", api.server())
    })
}
