//! The service `xdpgate.v1.Firewall`: each call is one of the library, on a thread that may block.

mod audit;
mod bans;
mod events;
#[cfg(any(fuzzing, test))]
pub mod hostile;
mod interfaces;
mod page;
mod policy;
mod reload;
mod safety;
mod sets;
mod stats;
mod stream;
mod system;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Semaphore, mpsc, watch};
use tonic::{Code, Request, Response, Status, Streaming};
use xdpgate::{AutoAttach, Enforcement, Firewall};
use xdpgate_api::v1::{self, firewall_server};

use super::convert;
use super::fault::{self, Fault};
use super::fleet::Node;
use audit::noted;
pub(in crate::agent) use events::EventSource;
use page::Tokens;
pub use reload::{Reload, Reloaded};
use stats::Recent;
use stream::{Answers, Streams};

/// A [`Firewall`] as the service `xdpgate.v1.Firewall`.
///
/// ```
/// use std::sync::Arc;
/// use xdpgate::Firewall;
/// use xdpgate_api::v1::{GetStatusRequest, firewall_server::Firewall as _};
/// use xdpgated::agent::FirewallService;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tonic::Status> {
/// let (firewall, _) = Firewall::loader().rehearse();
/// let service = FirewallService::new(Arc::new(firewall));
/// let status = service.get_status(tonic::Request::new(GetStatusRequest {})).await?;
/// assert!(status.into_inner().dry_run);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FirewallService(Arc<Shared>);

/// How a process ends that serves a firewall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_enums, reason = "there is no third way")]
pub enum Stop {
    /// What is pinned goes on.
    #[default]
    Leave,
    /// Everything is detached, and nothing is left.
    Detach,
}

#[derive(Debug)]
struct Shared {
    firewall: Arc<Firewall>,
    auto: Option<Arc<AutoAttach>>,
    /// Who ends the process.
    stop: Option<mpsc::Sender<Stop>>,
    reload: Option<Arc<dyn Reload>>,
    /// The fleet that the node may be in.
    fleet: Option<Arc<Node>>,
    /// Whether the configuration says to enforce.
    enforces: Arc<AtomicBool>,
    started: Instant,
    /// One change of the policy by a call at a time, so that what its answer says of the policy in force
    /// is of this change.
    change: Mutex<()>,
    recent: Recent,
    tokens: Tokens,
    streams: Streams,
    imports: Arc<Semaphore>,
    /// For the calls that read but compute for long.
    computing: Arc<Semaphore>,
}

/// Calls that compute for long, at one time; others wait. Anybody who may read may make them, and the
/// threads are everybody's.
const COMPUTING_AT_ONCE: usize = 2;

impl Shared {
    fn lock_changes(&self) -> MutexGuard<'_, ()> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a call may change the policy, or that is left to the fleet.
    fn check_changes(&self) -> Result<(), Status> {
        if !self
            .fleet
            .as_ref()
            .is_some_and(|fleet| fleet.refuses_changes())
        {
            return Ok(());
        }
        let message = "the policy of this node is its fleet's: change it at the controller, or set \
                       fleet.local_changes = \"repair\"";
        let fault = Fault::new(Code::FailedPrecondition, "FLEET", message);
        Err(fault.blocked_by("FLEET", "policy").into())
    }

    /// Whether dry run lasts only until the next start.
    fn next_start_enforces(&self) -> bool {
        self.enforces.load(Ordering::Relaxed)
            && self.firewall.enforcement() == Enforcement::DryRun
            && !self.firewall.enforcement_taken_back()
    }
}

impl FirewallService {
    /// Serves this firewall. Its uptime counts from now.
    pub fn new(firewall: Arc<Firewall>) -> Self {
        Self(Arc::new(Shared {
            firewall,
            auto: None,
            stop: None,
            reload: None,
            fleet: None,
            enforces: Arc::default(),
            started: Instant::now(),
            change: Mutex::new(()),
            recent: Recent::default(),
            tokens: Tokens::default(),
            streams: Streams::default(),
            imports: Arc::new(Semaphore::new(sets::AT_ONCE)),
            computing: Arc::new(Semaphore::new(COMPUTING_AT_ONCE)),
        }))
    }

    /// Says in `ListInterfaces` what is watched and why. To be called before the service is used.
    #[must_use]
    pub fn watching(mut self, auto: Arc<AutoAttach>) -> Self {
        self.shared_mut().auto = Some(auto);
        self
    }

    /// Who ends the process when `Stop` is called; without one that call is refused. To be called
    /// before the service is used.
    #[must_use]
    pub fn stopped_by(mut self, stop: mpsc::Sender<Stop>) -> Self {
        self.shared_mut().stop = Some(stop);
        self
    }

    /// Who reads the configuration again when `ReloadConfig` is called; without one that call is
    /// refused. To be called before the service is used.
    #[must_use]
    pub fn reloaded_by(mut self, reload: Arc<dyn Reload>) -> Self {
        self.shared_mut().reload = Some(reload);
        self
    }

    /// Says in the mode and the status whether a start enforces by its configuration. To be called before
    /// the service is used.
    #[must_use]
    pub fn started_by(mut self, enforces: Arc<AtomicBool>) -> Self {
        self.shared_mut().enforces = enforces;
        self
    }

    /// Says in the status how the node stands with its fleet, and leaves the policy to that if the configuration
    /// says so. To be called before the service is used.
    #[must_use]
    pub(in crate::agent) fn member_of(mut self, fleet: Arc<Node>) -> Self {
        self.shared_mut().fleet = Some(fleet);
        self
    }

    /// Ends the answers that stream as soon as this becomes true. To be called before the service is
    /// used.
    #[must_use]
    pub fn until(mut self, stopping: watch::Receiver<bool>) -> Self {
        self.shared_mut().streams = Streams::until(stopping);
        self
    }

    fn shared_mut(&mut self) -> &mut Shared {
        Arc::get_mut(&mut self.0).expect("the service is not used yet")
    }

    /// Runs a call where it may take its time.
    async fn run<R: Send + 'static>(
        &self,
        call: impl FnOnce(&Shared) -> Result<R, Status> + Send + 'static,
    ) -> Result<Response<R>, Status> {
        let shared = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || call(&shared))
            .await
            .map_err(|e| fault::internal(format!("the call did not end well: {e}")))?
            .map(Response::new)
    }

    /// Likewise, when it is its turn: for calls that compute for long. A client that does not wait that
    /// long leaves the row.
    async fn run_in_turn<R: Send + 'static>(
        &self,
        call: impl FnOnce(&Shared) -> Result<R, Status> + Send + 'static,
    ) -> Result<Response<R>, Status> {
        let turn = Arc::clone(&self.0.computing).acquire_owned().await;
        let turn = turn.map_err(|_| fault::stopping())?;
        self.run(move |shared| {
            // Also when nobody waits for it any more, it computes until it is done.
            let _turn = turn;
            call(shared)
        })
        .await
    }
}

#[tonic::async_trait]
impl firewall_server::Firewall for FirewallService {
    type ListSetEntriesStream = Answers<v1::ListSetEntriesResponse>;
    type WatchStatsStream = Answers<v1::WatchStatsResponse>;
    type WatchEventsStream = Answers<v1::WatchEventsResponse>;
    type WatchInterfacesStream = Answers<v1::WatchInterfacesResponse>;

    async fn get_status(
        &self,
        _: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        self.run(|shared| {
            let status = convert::status(&shared.firewall, shared.started.elapsed());
            Ok(v1::GetStatusResponse {
                next_start_enforces: shared.next_start_enforces(),
                fleet: shared.fleet.as_ref().and_then(|fleet| fleet.status()),
                ..status
            })
        })
        .await
    }

    async fn get_system(
        &self,
        _: Request<v1::GetSystemRequest>,
    ) -> Result<Response<v1::GetSystemResponse>, Status> {
        self.run(|shared| system::get(&shared.firewall)).await
    }

    async fn apply_policy(
        &self,
        request: Request<v1::ApplyPolicyRequest>,
    ) -> Result<Response<v1::ApplyPolicyResponse>, Status> {
        let request = request.into_inner();
        self.0.check_changes()?;
        let answer = self.run(move |shared| policy::apply(shared, &request));
        let answer = answer.await?;
        let what = format!("policy {}", answer.get_ref().hash);
        Ok(noted(answer, what))
    }

    async fn plan_policy(
        &self,
        request: Request<v1::PlanPolicyRequest>,
    ) -> Result<Response<v1::PlanPolicyResponse>, Status> {
        let request = request.into_inner();
        self.run_in_turn(move |shared| policy::plan(shared, &request))
            .await
    }

    async fn change_policy(
        &self,
        request: Request<v1::ChangePolicyRequest>,
    ) -> Result<Response<v1::ChangePolicyResponse>, Status> {
        let request = request.into_inner();
        let what = audit::changes(&request);
        self.0.check_changes()?;
        let answer = self.run(move |shared| policy::change(shared, &request));
        Ok(noted(answer.await?, what))
    }

    async fn import_set(
        &self,
        request: Request<Streaming<v1::ImportSetRequest>>,
    ) -> Result<Response<v1::ImportSetResponse>, Status> {
        self.0.check_changes()?;
        sets::import(self, request).await
    }

    async fn confirm_policy(
        &self,
        request: Request<v1::ConfirmPolicyRequest>,
    ) -> Result<Response<v1::ConfirmPolicyResponse>, Status> {
        let request = request.into_inner();
        let answer = self.run(move |shared| safety::confirm(&shared.firewall, request));
        Ok(noted(answer.await?, "what waited"))
    }

    async fn rollback_policy(
        &self,
        request: Request<v1::RollbackPolicyRequest>,
    ) -> Result<Response<v1::RollbackPolicyResponse>, Status> {
        let request = request.into_inner();
        self.0.check_changes()?;
        let answer = self.run(move |shared| safety::rollback(shared, request));
        let answer = answer.await?;
        let what = format!("policy {}", answer.get_ref().hash);
        Ok(noted(answer, what))
    }

    async fn get_policy(
        &self,
        _: Request<v1::GetPolicyRequest>,
    ) -> Result<Response<v1::GetPolicyResponse>, Status> {
        self.run(policy::get).await
    }

    async fn list_rules(
        &self,
        request: Request<v1::ListRulesRequest>,
    ) -> Result<Response<v1::ListRulesResponse>, Status> {
        let request = request.into_inner();
        self.run(move |shared| policy::list_rules(shared, &request))
            .await
    }

    async fn list_set_entries(
        &self,
        request: Request<v1::ListSetEntriesRequest>,
    ) -> Result<Response<Self::ListSetEntriesStream>, Status> {
        let list = sets::find(&self.0, &request.into_inner())?;
        let answers = self.0.streams.open(move |sink| drop(list.send(sink)))?;
        Ok(Response::new(answers))
    }

    async fn ban(
        &self,
        request: Request<v1::BanRequest>,
    ) -> Result<Response<v1::BanResponse>, Status> {
        let request = request.into_inner();
        let seconds = request.ttl.as_ref().map_or(0, |ttl| ttl.seconds);
        let what = format!("{} for {seconds} s", request.prefix);
        let answer = self.run(move |shared| bans::ban(&shared.firewall, &request));
        Ok(noted(answer.await?, what))
    }

    async fn unban(
        &self,
        request: Request<v1::UnbanRequest>,
    ) -> Result<Response<v1::UnbanResponse>, Status> {
        let request = request.into_inner();
        let what = match &request.which {
            Some(v1::unban_request::Which::Prefix(prefix)) => prefix.clone(),
            _ => "all".to_owned(),
        };
        let answer = self.run(move |shared| bans::unban(&shared.firewall, &request));
        Ok(noted(answer.await?, what))
    }

    async fn list_bans(
        &self,
        request: Request<v1::ListBansRequest>,
    ) -> Result<Response<v1::ListBansResponse>, Status> {
        let request = request.into_inner();
        self.run(move |shared| bans::list(&shared.firewall, &request))
            .await
    }

    async fn get_stats(
        &self,
        _: Request<v1::GetStatsRequest>,
    ) -> Result<Response<v1::GetStatsResponse>, Status> {
        self.run(|shared| Ok(convert::stats(shared.firewall.stats())))
            .await
    }

    async fn watch_stats(
        &self,
        request: Request<v1::WatchStatsRequest>,
    ) -> Result<Response<Self::WatchStatsStream>, Status> {
        let request = request.into_inner();
        let every = stats::interval(&request)?;
        let top = request.top_rules as usize;
        let shared = Arc::clone(&self.0);
        let watch = move |sink| drop(stats::watch(&shared, every, top, sink));
        Ok(Response::new(self.0.streams.open(watch)?))
    }

    async fn get_entry_counters(
        &self,
        request: Request<v1::GetEntryCountersRequest>,
    ) -> Result<Response<v1::GetEntryCountersResponse>, Status> {
        let request = request.into_inner();
        self.run(move |shared| stats::entry_counters(&shared.firewall, &request))
            .await
    }

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let shared = &self.0;
        let answers = events::stream(&shared.firewall, &shared.streams, request.into_inner())?;
        Ok(Response::new(answers))
    }

    async fn list_interfaces(
        &self,
        _: Request<v1::ListInterfacesRequest>,
    ) -> Result<Response<v1::ListInterfacesResponse>, Status> {
        self.run(|shared| interfaces::list(&shared.firewall, shared.auto.as_deref()))
            .await
    }

    async fn watch_interfaces(
        &self,
        _: Request<v1::WatchInterfacesRequest>,
    ) -> Result<Response<Self::WatchInterfacesStream>, Status> {
        let auto = self.0.auto.as_ref().ok_or_else(|| {
            let message = "the daemon was started with named interfaces and watches none: select them \
                           in its configuration, and start it without --interface";
            let fault = Fault::new(Code::FailedPrecondition, "NOT_WATCHING", message);
            Status::from(fault.blocked_by("NOT_WATCHING", "interfaces"))
        })?;
        let events = auto.events();
        let watch = move |sink| drop(events::watch_interfaces(events, sink));
        Ok(Response::new(self.0.streams.open(watch)?))
    }

    async fn attach_interface(
        &self,
        request: Request<v1::AttachInterfaceRequest>,
    ) -> Result<Response<v1::AttachInterfaceResponse>, Status> {
        let request = request.into_inner();
        let what = format!("interface {}", request.name);
        let answer = self.run(move |shared| interfaces::attach(&shared.firewall, &request));
        Ok(noted(answer.await?, what))
    }

    async fn detach_interface(
        &self,
        request: Request<v1::DetachInterfaceRequest>,
    ) -> Result<Response<v1::DetachInterfaceResponse>, Status> {
        let request = request.into_inner();
        let what = format!("interface {}", request.name);
        let answer = self.run(move |shared| interfaces::detach(&shared.firewall, &request.name));
        Ok(noted(answer.await?, what))
    }

    async fn preflight(
        &self,
        request: Request<v1::PreflightRequest>,
    ) -> Result<Response<v1::PreflightResponse>, Status> {
        let request = request.into_inner();
        self.run(move |shared| {
            interfaces::preflight(&shared.firewall, shared.auto.as_deref(), &request)
        })
        .await
    }

    async fn set_mode(
        &self,
        request: Request<v1::SetModeRequest>,
    ) -> Result<Response<v1::SetModeResponse>, Status> {
        let request = request.into_inner();
        let mode = request
            .mode()
            .as_str_name()
            .to_lowercase()
            .replace('_', " ");
        let what = match &request.interface {
            Some(name) => format!("interface {name}: {mode}"),
            None => mode,
        };
        let answer = self.run(move |shared| safety::set_mode(shared, &request));
        Ok(noted(answer.await?, what))
    }

    async fn evaluate(
        &self,
        request: Request<v1::EvaluateRequest>,
    ) -> Result<Response<v1::EvaluateResponse>, Status> {
        let request = request.into_inner();
        self.run_in_turn(move |shared| evaluate(&shared.firewall, &request))
            .await
    }

    async fn reload_config(
        &self,
        _: Request<v1::ReloadConfigRequest>,
    ) -> Result<Response<v1::ReloadConfigResponse>, Status> {
        let answer = self.run(|shared| reload::reload(shared.reload.as_deref()));
        let answer = answer.await?;
        let what = format!("changed: {}", answer.get_ref().changed.join(", "));
        Ok(noted(answer, what))
    }

    async fn stop(
        &self,
        request: Request<v1::StopRequest>,
    ) -> Result<Response<v1::StopResponse>, Status> {
        let detach = request.into_inner().detach;
        let refused = || {
            let message = "this process is not ended over the API: end it where it was started";
            let fault = Fault::new(Code::FailedPrecondition, "NOT_STOPPABLE", message);
            Status::from(fault.blocked_by("NOT_STOPPABLE", "process"))
        };
        let stop = self.0.stop.as_ref().ok_or_else(refused)?;
        log::info!("asked to stop{}", if detach { " and detach" } else { "" });
        let how = if detach { Stop::Detach } else { Stop::Leave };
        stop.send(how).await.map_err(|_| fault::stopping())?;
        let goes_on = !detach && self.0.firewall.pin_root().is_some();
        let what = if detach { "and detach" } else { "" };
        Ok(noted(Response::new(v1::StopResponse { goes_on }), what))
    }
}

fn evaluate(
    firewall: &Firewall,
    request: &v1::EvaluateRequest,
) -> Result<v1::EvaluateResponse, Status> {
    let judge = |(index, frame): (usize, &Vec<u8>)| {
        let said = match &request.interface {
            None => firewall.evaluate(frame),
            Some(name) => firewall.evaluate_on(name, frame),
        };
        said.map(convert::evaluation)
            .map_err(|e| fault::evaluate(index, &e))
    };
    let frames = request.frames.iter().enumerate();
    Ok(v1::EvaluateResponse {
        results: frames.map(judge).collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests;
