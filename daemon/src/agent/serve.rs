//! Serving the API until a signal comes, or the call to stop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tonic_health::server::HealthReporter;
use xdpgate::{AutoAttach, Firewall, HealthError};
use xdpgate_api::v1::FILE_DESCRIPTOR_SET;
use xdpgate_api::v1::firewall_server::FirewallServer;

use super::access::{self, Access};
use super::deadline;
use super::fleet::Node;
use super::listen::Listener;
use super::look::Looks;
use super::monitor::Told;
use super::notify;
use super::reload::Reloader;
use super::service::{FirewallService, Reload, Stop};
use super::start::Started;
use super::stop;
use crate::Failure;
use xdpgate_service::logging::Control;

/// Where the API is served, to whom, and who is told how far the daemon is.
#[derive(Debug)]
pub(super) struct Front {
    pub listeners: Vec<Listener>,
    pub access: Access,
    pub told: Told,
    pub fleet: Arc<Node>,
}

/// Serves, says `ready`, and ends when SIGINT, SIGTERM or the call `Stop` comes. What is pinned goes on
/// then, unless that call said otherwise.
pub(super) fn until_stopped(
    signals: Signals,
    started: Started,
    front: Front,
    log: Control,
) -> Result<(), Failure> {
    let Signals { runtime, received } = signals;
    let Started {
        firewall,
        auto,
        reloader,
    } = started;
    deadline::audit(&firewall);
    let followed = front.access.clone();
    let node = Arc::clone(&front.fleet);
    let reloader = reloader
        .follow("fleet", &[], move |config| node.reload(&config.fleet))
        .follow("api", access::FIXED, move |config| {
            followed.reload(&config.api)
        })
        .follow("log", &[], move |config| {
            log.set(config.log);
            Ok(())
        });
    let reloader = Arc::new(reloader);
    let mut how = Stop::Leave;
    let served = runtime.block_on(serve(&firewall, auto, &reloader, front, received, &mut how));
    drop(reloader);
    // Before anything is taken back: a call that is cut may still put in force what waits for its
    // confirmation.
    runtime.shutdown_timeout(DRAIN);
    if how == Stop::Leave {
        stop::take_back(&firewall);
    }
    match firewall.pin_root().filter(|_| how == Stop::Leave) {
        Some(dir) => log::info!(
            "what is attached goes on being judged; `xdpgate unload --pin {}` detaches it",
            dir.display()
        ),
        None => {
            let attachments = firewall.attachments();
            if let Err(error) = firewall.uninstall() {
                log::error!("pins are left: {error}");
            }
            for attachment in attachments {
                log::info!(
                    interface = attachment.name.as_str(), ifindex = attachment.ifindex.get();
                    "{}: detached", attachment.name
                );
            }
        }
    }
    match served {
        Ok(_) => Ok(()),
        Err(e) => Err(Failure::operation(format!("serving the API: {e}"))),
    }
}

/// The signals that end the daemon, from a time on when nothing has been changed yet: one that comes
/// during the start ends it in good order after it.
#[derive(Debug)]
pub(super) struct Signals {
    runtime: Runtime,
    received: Received,
}

#[derive(Debug)]
struct Received {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn catch() -> io::Result<Self> {
        let runtime = Runtime::new()?;
        let entered = runtime.enter();
        let received = Received {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        };
        drop(entered);
        Ok(Self { runtime, received })
    }

    /// Where tasks run until the daemon ends.
    pub(super) fn runtime(&self) -> &Runtime {
        &self.runtime
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

async fn serve(
    firewall: &Arc<Firewall>,
    auto: Option<Arc<AutoAttach>>,
    reloader: &Arc<Reloader>,
    front: Front,
    mut received: Received,
    how: &mut Stop,
) -> Result<(), Error> {
    let Front {
        listeners,
        access,
        told,
        fleet,
    } = front;
    let (stop, stopped) = watch::channel(false);
    let streaming = stopped.clone();
    let stopped = async move {
        let mut stopped = stopped;
        // An error means that the sender is gone, which is a stop too.
        let _ = stopped.wait_for(|stop| *stop).await;
    };

    let (health, health_server) = tonic_health::server::health_reporter();
    let (asked, mut asks) = mpsc::channel(1);
    let mut service = FirewallService::new(Arc::clone(firewall))
        .stopped_by(asked)
        .started_by(reloader.enforces())
        .member_of(Arc::clone(&fleet))
        .until(streaming);
    if let Some(auto) = auto {
        service = service.watching(auto);
    }
    if reloader.has_file() {
        service = service.reloaded_by(Arc::clone(reloader) as Arc<dyn Reload>);
    }
    let service = FirewallServer::new(service)
        .max_decoding_message_size(access.max_message_bytes())
        .max_encoding_message_size(access.max_message_bytes());
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    health
        .set_serving::<FirewallServer<FirewallService>>()
        .await;
    let router = access
        .server()
        .add_service(service)
        .add_service(health_server)
        .add_service(reflection().build_v1()?)
        // Under its former name, by which many tools still ask.
        .add_service(reflection().build_v1alpha()?);

    let endpoints: Vec<String> = listeners.iter().map(|l| l.endpoint().to_string()).collect();
    access.warn_of_reach(&listeners, firewall.policy().as_deref());
    // Kept until all is drained: the files of the sockets go with it.
    let (incoming, _accepting) = access.accept(listeners)?;
    let looked = Arc::clone(firewall);
    let looks = Looks::start(move || (looked.health(), notify::status_line(&looked)))?;
    let endpoints = endpoints.join(", ");
    told.serving(firewall);
    log::info!(endpoint = endpoints.as_str(); "ready: serving at {endpoints}");
    notify::ready(&notify::status_line(firewall));
    let serving = router.serve_with_incoming_shutdown(incoming, stopped);
    tokio::pin!(serving);
    let watch = watch_health(firewall, looks, health.clone());
    // Its session ends with this future, when the daemon stops.
    let living = fleet.live(Arc::clone(firewall));
    let name = tokio::select! {
        ended = &mut serving => return Ok(ended?),
        () = watch => unreachable!("health is watched for ever"),
        () = living => unreachable!("a node lives as long as its daemon"),
        () = reload_at(&mut received.hangup, reloader, firewall) => "the signals ended",
        _ = received.interrupt.recv() => "SIGINT",
        _ = received.terminate.recv() => "SIGTERM",
        asked = asks.recv() => {
            *how = asked.unwrap_or_default();
            "asked to"
        }
    };
    // Who asks from now on is told that it is stopping already.
    asks.close();
    told.stopping();
    log::info!(reason = name; "stopping: {name}");
    notify::stopping();
    health
        .set_not_serving::<FirewallServer<FirewallService>>()
        .await;
    stop.send(true).map_err(io::Error::other)?;
    match tokio::time::timeout(DRAIN, serving).await {
        Ok(ended) => ended?,
        Err(_) => log::warn!("connections that were still open after {DRAIN:?} are cut"),
    }
    Ok(())
}

/// Reads the configuration again at each SIGHUP.
async fn reload_at(hangup: &mut Signal, reloader: &Arc<Reloader>, firewall: &Arc<Firewall>) {
    while hangup.recv().await.is_some() {
        notify::reloading();
        let (reloader, firewall) = (Arc::clone(reloader), Arc::clone(firewall));
        let reloaded = tokio::task::spawn_blocking(move || {
            // What is wrong, it has logged.
            let outcome = match reloader.reload() {
                Ok(_) => "ok",
                Err(_) => "refused",
            };
            let (who, what) = ("SIGHUP", "ReloadConfig");
            log::info!(target: access::AUDIT, who, what, outcome; "called");
            notify::ready(&notify::status_line(&firewall));
        });
        if let Err(error) = reloaded.await {
            log::error!("the reload did not end well: {error}");
        }
    }
}

/// Says in the health service, in the log and to the service manager when packets pass unjudged.
///
/// It tells the service manager also that the daemon is alive, which is so when a call of the library
/// comes back, whatever it says: to be killed would mend nothing, and would close the API by which an
/// operator can.
async fn watch_health(
    firewall: &Firewall,
    looks: Looks<(Result<(), HealthError>, String)>,
    health: HealthReporter,
) {
    let mut was_well = true;
    let alive_every = notify::alive_every();
    let every = alive_every.map_or(HEALTH_EVERY, |alive| alive.min(HEALTH_EVERY));
    let mut told = notify::status_line(firewall);
    loop {
        tokio::time::sleep(every).await;
        let Some((found, status)) = looks.look().await else {
            continue;
        };
        let status = match &found {
            Ok(()) => status,
            Err(error) => format!("{error}; {status}"),
        };
        if status != told {
            notify::status(&status);
            told = status;
        }
        if alive_every.is_some() {
            notify::alive();
        }
        match found {
            Err(error) if was_well => {
                let generation = firewall.generation().map(|g| g.get());
                log::error!(generation; "{error}");
                health
                    .set_not_serving::<FirewallServer<FirewallService>>()
                    .await;
                was_well = false;
            }
            Ok(()) if !was_well => {
                log::info!("the policy judges again");
                health
                    .set_serving::<FirewallServer<FirewallService>>()
                    .await;
                was_well = true;
            }
            _ => {}
        }
    }
}

const HEALTH_EVERY: Duration = Duration::from_secs(1);

/// How long running calls may take to end.
const DRAIN: Duration = Duration::from_secs(3);
