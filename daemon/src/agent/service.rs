//! The service `xdpgate.v1.Firewall`: each call is one of the library, on a thread that may block.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use xdpgate::{AutoAttach, Firewall, Generation, Policy};
use xdpgate_api::v1::{self, firewall_server};

use super::access::AuditNote;
use super::{convert, fault, interfaces};

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

/// The answers of a call that streams.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Debug)]
struct Shared {
    firewall: Arc<Firewall>,
    auto: Option<Arc<AutoAttach>>,
    /// Who ends the process.
    stop: Option<mpsc::Sender<Stop>>,
    started: Instant,
    /// Held from plan to apply, so that what was planned is what is applied.
    change: Mutex<()>,
}

impl Shared {
    fn plan(&self, policy: &Policy) -> Result<v1::Plan, Status> {
        let plan = self.firewall.plan(policy);
        plan.map(convert::plan).map_err(|e| fault::apply(&e))
    }
}

impl FirewallService {
    /// Serves this firewall. Its uptime counts from now.
    pub fn new(firewall: Arc<Firewall>) -> Self {
        Self(Arc::new(Shared {
            firewall,
            auto: None,
            stop: None,
            started: Instant::now(),
            change: Mutex::new(()),
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
            .map_err(|e| Status::internal(format!("the call did not end well: {e}")))?
            .map(Response::new)
    }
}

/// An answer with what it changed, for the audit line of the call.
fn noted<R>(
    mut response: Response<R>,
    what: impl Into<String>,
    generation: Option<u64>,
) -> Response<R> {
    let what = what.into();
    let note = AuditNote { what, generation };
    response.extensions_mut().insert(note);
    response
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
        self.run(|shared| Ok(convert::status(&shared.firewall, shared.started.elapsed())))
            .await
    }

    async fn apply_policy(
        &self,
        request: Request<v1::ApplyPolicyRequest>,
    ) -> Result<Response<v1::ApplyPolicyResponse>, Status> {
        let request = request.into_inner();
        let answer = self.run(move |shared| {
            let policy = Policy::from_yaml(&request.yaml).map_err(|e| fault::policy(&e))?;
            let _change = shared.change.lock().unwrap_or_else(PoisonError::into_inner);
            let plan = shared.plan(&policy)?;
            let applied = shared
                .firewall
                .apply(&policy)
                .map_err(|e| fault::apply(&e))?;
            super::log_applied(&applied);
            Ok(v1::ApplyPolicyResponse {
                plan: Some(plan),
                hash: policy.hash().to_string(),
                applied: Some(convert::applied(&applied)),
                ..Default::default()
            })
        });
        let answer = answer.await?;
        let v1::ApplyPolicyResponse { hash, applied, .. } = answer.get_ref();
        let what = format!("policy {hash}");
        let generation = applied.as_ref().map(|a| a.generation);
        Ok(noted(answer, what, generation))
    }

    async fn plan_policy(
        &self,
        request: Request<v1::PlanPolicyRequest>,
    ) -> Result<Response<v1::PlanPolicyResponse>, Status> {
        let request = request.into_inner();
        self.run(move |shared| {
            let policy = Policy::from_yaml(&request.yaml).map_err(|e| fault::policy(&e))?;
            let _change = shared.change.lock().unwrap_or_else(PoisonError::into_inner);
            let generation = shared.firewall.generation();
            Ok(v1::PlanPolicyResponse {
                plan: Some(shared.plan(&policy)?),
                hash: policy.hash().to_string(),
                generation: generation.map_or(0, Generation::get),
                estimate: None,
            })
        })
        .await
    }

    async fn get_policy(
        &self,
        _: Request<v1::GetPolicyRequest>,
    ) -> Result<Response<v1::GetPolicyResponse>, Status> {
        self.run(|shared| {
            // Not between the two: a policy and its generation belong together.
            let _change = shared.change.lock().unwrap_or_else(PoisonError::into_inner);
            let in_force = shared.firewall.policy().zip(shared.firewall.generation());
            let (policy, generation) = in_force.ok_or_else(|| {
                Status::not_found("there is no policy yet; `xdpgate policy apply FILE` brings one")
            })?;
            Ok(v1::GetPolicyResponse {
                yaml: policy.to_yaml(),
                hash: policy.hash().to_string(),
                generation: generation.get(),
            })
        })
        .await
    }

    async fn list_interfaces(
        &self,
        _: Request<v1::ListInterfacesRequest>,
    ) -> Result<Response<v1::ListInterfacesResponse>, Status> {
        self.run(|shared| interfaces::list(&shared.firewall, shared.auto.as_deref()))
            .await
    }

    async fn attach_interface(
        &self,
        request: Request<v1::AttachInterfaceRequest>,
    ) -> Result<Response<v1::AttachInterfaceResponse>, Status> {
        let request = request.into_inner();
        let what = format!("interface {}", request.name);
        let answer = self.run(move |shared| interfaces::attach(&shared.firewall, &request));
        Ok(noted(answer.await?, what, None))
    }

    async fn detach_interface(
        &self,
        request: Request<v1::DetachInterfaceRequest>,
    ) -> Result<Response<v1::DetachInterfaceResponse>, Status> {
        let name = request.into_inner().name;
        let what = format!("interface {name}");
        let answer = self.run(move |shared| interfaces::detach(&shared.firewall, &name));
        Ok(noted(answer.await?, what, None))
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

    async fn stop(
        &self,
        request: Request<v1::StopRequest>,
    ) -> Result<Response<v1::StopResponse>, Status> {
        let detach = request.into_inner().detach;
        let refused = || Status::failed_precondition("this process is not ended over the API");
        let stop = self.0.stop.as_ref().ok_or_else(refused)?;
        log::info!("asked to stop{}", if detach { " and detach" } else { "" });
        let how = if detach { Stop::Detach } else { Stop::Leave };
        stop.send(how)
            .await
            .map_err(|_| Status::unavailable("it is stopping already"))?;
        let goes_on = !detach && self.0.firewall.pin_root().is_some();
        let what = if detach { "and detach" } else { "" };
        let answer = Response::new(v1::StopResponse { goes_on });
        Ok(noted(answer, what, None))
    }

    async fn get_stats(
        &self,
        _: Request<v1::GetStatsRequest>,
    ) -> Result<Response<v1::GetStatsResponse>, Status> {
        self.run(|shared| Ok(convert::stats(shared.firewall.stats())))
            .await
    }

    async fn evaluate(
        &self,
        request: Request<v1::EvaluateRequest>,
    ) -> Result<Response<v1::EvaluateResponse>, Status> {
        let v1::EvaluateRequest { frames, interface } = request.into_inner();
        self.run(move |shared| {
            let judge = |(index, frame): (usize, &Vec<u8>)| {
                let said = match &interface {
                    None => shared.firewall.evaluate(frame),
                    Some(name) => shared.firewall.evaluate_on(name, frame),
                };
                said.map(convert::evaluation)
                    .map_err(|e| fault::evaluate(index, &e))
            };
            let results = frames
                .iter()
                .enumerate()
                .map(judge)
                .collect::<Result<_, _>>()?;
            Ok(v1::EvaluateResponse { results })
        })
        .await
    }

    async fn get_system(
        &self,
        _: Request<v1::GetSystemRequest>,
    ) -> Result<Response<v1::GetSystemResponse>, Status> {
        Err(Status::unimplemented("not in this version yet"))
    }

    async fn change_policy(
        &self,
        _: Request<v1::ChangePolicyRequest>,
    ) -> Result<Response<v1::ChangePolicyResponse>, Status> {
        Err(Status::unimplemented("not in this version yet"))
    }

    async fn import_set(
        &self,
        _: Request<tonic::Streaming<v1::ImportSetRequest>>,
    ) -> Result<Response<v1::ImportSetResponse>, Status> {
        Err(Status::unimplemented("not in this version yet"))
    }

    async fn confirm_policy(
        &self,
        _: Request<v1::ConfirmPolicyRequest>,
    ) -> Result<Response<v1::ConfirmPolicyResponse>, Status> {
        Err(Status::unimplemented("not in this version yet"))
    }

    async fn rollback_policy(
        &self,
        _: Request<v1::RollbackPolicyRequest>,
    ) -> Result<Response<v1::RollbackPolicyResponse>, Status> {
        Err(Status::unimplemented("not in this version yet"))
    }

    async fn list_rules(
        &self,
        _: Request<v1::ListRulesRequest>,
    ) -> Result<Response<v1::ListRulesResponse>, Status> {
        Err(Status::unimplemented("not in this version yet"))
    }

    async fn list_set_entries(
        &self,
        _: Request<v1::ListSetEntriesRequest>,
    ) -> Result<Response<Self::ListSetEntriesStream>, Status> {
        Err(Status::unimplemented("not in this version yet"))
    }

    async fn ban(&self, _: Request<v1::BanRequest>) -> Result<Response<v1::BanResponse>, Status> {
        Err(Status::unimplemented("not in this version yet"))
    }

    async fn unban(
        &self,
        _: Request<v1::UnbanRequest>,
    ) -> Result<Response<v1::UnbanResponse>, Status> {
        Err(Status::unimplemented("not in this version yet"))
    }

    async fn list_bans(
        &self,
        _: Request<v1::ListBansRequest>,
    ) -> Result<Response<v1::ListBansResponse>, Status> {
        Err(Status::unimplemented("not in this version yet"))
    }

    async fn watch_stats(
        &self,
        _: Request<v1::WatchStatsRequest>,
    ) -> Result<Response<Self::WatchStatsStream>, Status> {
        Err(Status::unimplemented("not in this version yet"))
    }

    async fn get_entry_counters(
        &self,
        _: Request<v1::GetEntryCountersRequest>,
    ) -> Result<Response<v1::GetEntryCountersResponse>, Status> {
        Err(Status::unimplemented("not in this version yet"))
    }

    async fn watch_events(
        &self,
        _: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        Err(Status::unimplemented("not in this version yet"))
    }

    async fn watch_interfaces(
        &self,
        _: Request<v1::WatchInterfacesRequest>,
    ) -> Result<Response<Self::WatchInterfacesStream>, Status> {
        Err(Status::unimplemented("not in this version yet"))
    }

    async fn set_mode(
        &self,
        _: Request<v1::SetModeRequest>,
    ) -> Result<Response<v1::SetModeResponse>, Status> {
        Err(Status::unimplemented("not in this version yet"))
    }

    async fn reload_config(
        &self,
        _: Request<v1::ReloadConfigRequest>,
    ) -> Result<Response<v1::ReloadConfigResponse>, Status> {
        Err(Status::unimplemented("not in this version yet"))
    }
}
