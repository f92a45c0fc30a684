//! A running controller: what it opens, in which order, and how it ends.

mod housekeeping;
mod nodes;
mod oidc;
mod tls;
mod watchdog;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::net::{TcpListener, TcpSocket, lookup_host};
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
use crate::feed::Feeds;
use crate::fleet::{self, Fleet};
use crate::http::{self, App};
use crate::metrics::{self, Measured, Metrics};
use crate::peers::{Peers, Presence};
use crate::store::{Store, backup};
use crate::{keep, open, rollout};

/// How long nodes have to be told, one after the other, that the controller stops, and then to go.
const DRAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));

/// Connections that wait to be taken, of a fleet that comes back at once; the kernel allows as many as net.core.somaxconn.
/// Those for which there is no room are tried again by their kernels after 1 s, 3 s, 7 s and so on.
const BACKLOG: u32 = 8192;

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

    let exporter = metrics::install().map_err(Failure::operation)?;
    let store = Measured::new(open::store(config).await?);
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

    let certificate = ServerCertificate::new(
        authority.clone(),
        hosts(&own_addresses(config)),
        Timestamp::now(),
    )
    .map_err(|e| Failure::input("nodes.advertise", e))?;
    let certificate = Arc::new(certificate);
    let joining = Joining::new(core.clone(), authority.clone(), signer.clone());
    let nodes = fleet(config, &core, signer);
    let me = config.peers.name(&config.nodes);
    let me = me.map_err(|e| Failure::input(e.key, e.reason))?;
    let peers = config.store.etcd.is_some().then(|| {
        let address = config.peers.address(&config.nodes);
        let presence = Presence::new(me.clone(), address, config.nodes.advertised());
        let store = Arc::clone(&store);
        Peers::start(presence, nodes.clone(), authority.clone(), store)
    });
    let (stop, stopping) = watch::channel(false);
    let serving = tokio::spawn(nodes::serve(
        nodes::Listener {
            listener,
            certificate: Arc::clone(&certificate),
            authority: authority.clone(),
            sessions: config.nodes.max_sessions.try_into().unwrap_or(usize::MAX),
        },
        fleet::FleetService::new(
            nodes.clone(),
            Arc::new(fleet::Certificates),
            Arc::new(joining.clone()),
        ),
        peers.as_ref().map(Peers::service),
        stopping.clone(),
    ));
    let looking = rollout::Executor::new(
        core.clone(),
        Arc::new(nodes.clone()),
        rollout::Config::new(me.clone()),
    );
    let looks = looking.looks();
    let looking = tokio::spawn(looking.run());
    let feeds = Feeds::new(
        core.clone(),
        config.feeds.settings(|name| std::env::var(name).ok()),
        me.as_str(),
    );
    let feeds = feeds.map_err(|e| Failure::input("feeds", e))?;
    let feeding = tokio::spawn(feeds.clone().run());
    let tls = tls::of_api(config, &authority)?;
    let metrics = Metrics::new(exporter, core.clone(), nodes.clone(), authority.clone());
    let exporting = tokio::spawn(metrics.clone().keep_up());
    let app = App::new(
        core.clone(),
        auth.clone(),
        joining.clone(),
        match &peers {
            Some(peers) => Arc::new(peers.clone()),
            None => Arc::new(nodes.clone()),
        },
        Some(metrics),
        http::Options {
            tls: tls.is_some(),
            dial: config.nodes.advertised(),
            proxies: config.api.proxies(),
            names: config.api.names(),
            ..http::Options::default()
        },
    )
    .with_feeds(feeds);
    let app = match oidc::of(&config.oidc)? {
        Some(oidc) => app.with_oidc(oidc),
        None => app,
    };
    app.watch_rollouts(looks);
    let answering = tokio::spawn(http::serve(api, app, tls, stopped(stopping)));
    let upkeep = tokio::spawn(housekeeping::run(housekeeping::Kept {
        store: Arc::clone(&store),
        core,
        authority,
        certificate,
        auth,
        joining,
        versions: config.store.keep_versions.into(),
        audit: Some(config.store.keep_audit_days)
            .filter(|days| *days > 0)
            .map(|days| SignedDuration::from_hours(24 * i64::from(days))),
    }));
    log::info!(
        "the API is served at {}, nodes at {}",
        config.api.listen,
        config.nodes.listen
    );
    notify::ready("serving");
    let watching = tokio::spawn(watchdog::run(watchdog::Watched {
        store,
        fleet: nodes.clone(),
        tasks: vec![
            ("serving nodes", serving.abort_handle()),
            ("serving the API", answering.abort_handle()),
            ("rollouts", looking.abort_handle()),
            ("feeds", feeding.abort_handle()),
            ("housekeeping", upkeep.abort_handle()),
        ],
    }));

    let signal = tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    };
    log::info!("{signal}: stopping; nodes go on by themselves");
    notify::stopping();
    for task in [upkeep, looking, feeding, exporting, watching] {
        task.abort();
    }
    nodes.drain(DRAIN.0, DRAIN.1).await;
    if let Some(peers) = &peers {
        peers.leave().await;
    }
    // An error means that the server is gone already.
    let _ = stop.send(true);
    let answered = answering.await.map_err(Failure::operation)?;
    answered.map_err(|e| Failure::operation(format!("serving the API: {e}")))?;
    let served = serving.await.map_err(Failure::operation)?;
    served.map_err(|e| Failure::operation(format!("serving nodes: {e}")))
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means that whoever could say it is gone.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Under which nodes and other controllers dial this one.
fn own_addresses(config: &Config) -> Vec<String> {
    let mut addresses = config.nodes.advertised();
    addresses.push(config.peers.address(&config.nodes));
    addresses
}

/// The first address of a name that can be listened on.
async fn bind(key: &str, address: &str) -> Result<TcpListener, Failure> {
    let failed = |e: io::Error| Failure::operation(format!("{key}: {address}: {e}"));
    let listen = |at: SocketAddr| {
        let socket = match at {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(at)?;
        socket.listen(BACKLOG)
    };
    let mut tried = Err(io::ErrorKind::AddrNotAvailable.into());
    for at in lookup_host(address).await.map_err(failed)? {
        tried = listen(at);
        if tried.is_ok() {
            break;
        }
    }
    tried.map_err(failed)
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

fn fleet(config: &Config, core: &Core, signer: Option<Signer>) -> Fleet {
    let every = Duration::from_secs(config.nodes.heartbeat_seconds.into());
    let mut options = fleet::Config {
        sessions: config.nodes.max_sessions.try_into().unwrap_or(usize::MAX),
        ..fleet::Config::default()
    };
    options.health.every = every;
    let signer = signer.map(|signer| Arc::new(signer) as Arc<dyn fleet::Signer>);
    let past = Arc::new(core.clone());
    Fleet::start(options, fleet::targets(core), Some(past), signer)
}

/// The hosts and addresses of `HOST:PORT`, for a certificate.
fn hosts(named: &[String]) -> Vec<String> {
    let mut hosts: Vec<String> = named
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
    hosts.sort();
    hosts.dedup();
    hosts
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
