//! A running controller: what it opens, in which order, and how it ends.

mod housekeeping;
mod members;
mod nodes;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use xdpgate_service::config::Problem;
use xdpgate_service::{Failure, logging, notify};

use crate::args::Args;
use crate::auth::authority::{Authority, KeyFile, ServerCertificate};
use crate::auth::join::Joining;
use crate::auth::{self, Actor, Auth, FirstAdmin, Role, Signer};
use crate::config::Config;
use crate::core::Core;
use crate::fleet::{self, Fleet};
use crate::http;
use crate::store::{Store, backup};
use crate::{keep, open};

/// How long nodes have to be told, one after the other, that the controller stops, and then to go.
const DRAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));

/// `xdpgate-controller serve`.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let log = logging::install(logging::Log::default());
    let loaded = args.load();
    let loaded = loaded.map_err(|problems| Problem::failure(&problems))?;
    log.set(loaded.config.log);
    for warning in &loaded.warnings {
        log::warn!("{warning}");
    }
    keep::runtime()?.block_on(serve(&loaded.config))
}

async fn serve(config: &Config) -> Result<(), Failure> {
    // Before anything is opened: a signal during the start ends it in good order.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::operation)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::operation)?;
    let listener = bind("nodes.listen", &config.nodes.listen).await?;
    let api = bind("api.listen", &config.api.listen).await?;

    let store = open::store(config).await?;
    if let Some(reason) = backup::unfinished(&*store)
        .await
        .map_err(Failure::operation)?
    {
        return Err(Failure::operation(reason));
    }
    let core = Core::open(Arc::clone(&store)).await;
    let core = core.map_err(Failure::operation)?;
    let (authority, signer) = authority(config, &store).await?;
    let auth = Auth::new(Arc::clone(&store), auth::Options::default());
    first_admin(&auth).await?;

    let certificate = ServerCertificate::new(authority.clone(), names(config), Timestamp::now())
        .map_err(|e| Failure::input("nodes.advertise", e))?;
    let certificate = Arc::new(certificate);
    let joining = Joining::new(core.clone(), authority.clone(), signer.clone());
    let nodes = fleet(config, &core, signer).await;
    let (stop, stopping) = watch::channel(false);
    let serving = tokio::spawn(nodes::serve(
        nodes::Listener {
            listener,
            certificate: Arc::clone(&certificate),
            authority: authority.clone(),
        },
        fleet::FleetService::new(
            nodes.clone(),
            Arc::new(members::Valid(joining.clone())),
            Arc::new(members::Joins(joining.clone())),
        ),
        stopping,
    ));
    // TLS and what is known of sessions come with the rest of the wiring.
    let app = http::App::new(
        core.clone(),
        auth.clone(),
        joining.clone(),
        Arc::new(http::NoFleet),
        None,
        http::Options::default(),
    );
    let answering = tokio::spawn(http::serve(api, app, None, std::future::pending()));
    let upkeep = tokio::spawn(housekeeping::run(housekeeping::Kept {
        store,
        core,
        authority,
        certificate,
        auth,
        joining,
    }));
    log::info!("nodes are served at {}", config.nodes.listen);
    notify::ready("serving");

    let signal = tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    };
    log::info!("{signal}: stopping; nodes go on by themselves");
    notify::stopping();
    upkeep.abort();
    answering.abort();
    nodes.drain(DRAIN.0, DRAIN.1).await;
    // An error means that the server is gone already.
    let _ = stop.send(true);
    match serving.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::operation(format!("serving nodes: {error}"))),
        Err(error) => Err(Failure::operation(error)),
    }
}

async fn bind(key: &str, address: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|e| Failure::operation(format!("{key}: {address}: {e}")))
}

async fn authority(
    config: &Config,
    store: &Arc<dyn Store>,
) -> Result<(Authority, Option<Signer>), Failure> {
    let key_file = match &config.authority.key_file {
        Some(path) => {
            let read = KeyFile::read(path);
            Some(read.map_err(|e| Failure::input("authority.key_file", e))?)
        }
        None => None,
    };
    let days = i64::from(config.authority.node_days);
    let lifetime = SignedDuration::from_hours(24 * days);
    let opened = Authority::open(
        Arc::clone(store),
        key_file,
        Some(lifetime),
        Timestamp::now(),
    );
    let authority = opened.await.map_err(Failure::operation)?;
    let signer = match config.authority.sign {
        true => Signer::create(&authority, &local()).await.map(Some),
        // Nodes that know the key take nothing without it.
        false => Signer::load(&authority).await,
    };
    Ok((authority, signer.map_err(Failure::operation)?))
}

/// The controller itself, in the audit log.
fn local() -> Actor {
    Actor {
        name: "controller".to_owned(),
        role: Role::Admin,
        origin: "local".to_owned(),
    }
}

async fn fleet(config: &Config, core: &Core, signer: Option<Signer>) -> Fleet {
    let every = Duration::from_secs(config.nodes.heartbeat_seconds.into());
    let mut options = fleet::Config {
        sessions: config.nodes.max_sessions.try_into().unwrap_or(usize::MAX),
        ..fleet::Config::default()
    };
    options.health.every = every;
    let signer = signer.map(|signer| Arc::new(members::Signs(signer)) as Arc<dyn fleet::Signer>);
    Fleet::start(options, fleet::targets(core).await, signer)
}

/// Hosts and addresses by which nodes dial, without ports.
fn names(config: &Config) -> Vec<String> {
    let mut names: Vec<String> = config
        .nodes
        .advertised()
        .iter()
        .map(|named| {
            let host = named
                .rsplit_once(':')
                .map_or(named.as_str(), |(host, _)| host);
            host.trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned()
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Says once how to log in for the first time: on stdout, not in the log, which others may read.
async fn first_admin(auth: &Auth) -> Result<(), Failure> {
    let made = auth.first_admin(None, Timestamp::now()).await;
    if let FirstAdmin::OneTime(password) = made.map_err(Failure::operation)? {
        println!(
            "log in as admin with this password, which is good once and for a day: {}",
            password.reveal()
        );
    }
    Ok(())
}
