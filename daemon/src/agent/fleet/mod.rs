//! The node's half of a fleet: docs/fleet.md.
//!
//! [`Node`] dials the controllers one after the other ([`dial`]), joins with a token if it is no member
//! ([`join`]), and holds one [`session`]. What comes by it is looked at ([`decide`]) and put in force as a whole
//! or not at all ([`target`]). The library keeps and enforces the last policy, whether a controller is there or
//! not: nothing here ever takes it away.

mod asks;
mod beat;
mod chunks;
mod decide;
mod dial;
mod files;
mod join;
mod memory;
mod section;
mod session;
mod status;
mod target;
mod tls;
mod token;

pub(in crate::agent) use section::{Fleet as Section, LocalChanges};
pub(in crate::agent) use status::describe_metrics;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ed25519_dalek::VerifyingKey;
use tokio::sync::watch;
use xdpgate::{Firewall, Management};
use xdpgate_api::fleet::v1::Welcome;
use xdpgate_api::v1::FleetStatus;

use decide::Next;
use dial::Client;
use files::{Addresses, Files, Identity};
use section::{Controller, Settings};
use session::Ended;
use status::Status;
use target::Target;

/// A session that lasted so long was a good one: the next wait is a short one again.
const GOOD: Duration = Duration::from_secs(30);

/// How often it is looked whether somebody has made a token.
const LOOK_FOR_TOKEN: Duration = Duration::from_secs(60);

/// A node, member of a fleet or on its way to it.
#[derive(Debug)]
pub(in crate::agent) struct Node {
    settings: watch::Sender<Arc<Settings>>,
    section: Mutex<Section>,
    files: Files,
    /// What passes whatever the policy is, that of the fleet aside.
    own: Vec<Management>,
    status: Status,
    identity: Mutex<Option<Identity>>,
    addresses: Mutex<Addresses>,
    /// Controllers that a controller named.
    named: Mutex<Vec<Controller>>,
    /// Set as soon as there is a firewall.
    target: OnceLock<Arc<Target>>,
}

impl Node {
    /// Reads what an earlier daemon left. What is wrong with that is said and is no reason not to filter.
    ///
    /// # Errors
    /// The section is wrong, or a file that it names: with the key and the mend.
    pub(in crate::agent) fn open(
        section: &Section,
        state_dir: &Path,
        own: Vec<Management>,
    ) -> Result<Arc<Self>, String> {
        let settings = section.settings()?;
        let files = Files::new(state_dir);
        let status = Status::default();
        let said = |reason: String| log::error!("fleet: {reason}");
        let identity = files.identity().map_err(said).ok().flatten();
        let addresses = files.addresses().map_err(said).unwrap_or_default();
        let node = Self {
            settings: watch::Sender::new(Arc::new(settings)),
            section: Mutex::new(section.clone()),
            files,
            own,
            status,
            identity: Mutex::new(identity),
            addresses: Mutex::new(addresses),
            named: Mutex::default(),
            target: OnceLock::new(),
        };
        node.tell_member();
        Ok(Arc::new(node))
    }

    /// What passes whatever the policy is: the API, and what the controllers answer as far as their addresses are
    /// known.
    pub(in crate::agent) fn management(&self) -> Vec<Management> {
        dial::management(&self.own, &self.controllers(), &lock(&self.addresses))
    }

    /// Goes on with another section. On error with the former one.
    pub(in crate::agent) fn reload(&self, section: &Section) -> Result<(), String> {
        let settings = Arc::new(section.settings()?);
        *lock(&self.section) = section.clone();
        // The same does not cut the session.
        self.settings.send_if_modified(|current| {
            let is_new = **current != *settings;
            *current = settings;
            is_new
        });
        self.tell_member();
        Ok(())
    }

    /// How the node stands with its fleet; `None` if it has none.
    pub(in crate::agent) fn status(&self) -> Option<FleetStatus> {
        let target = self.target.get()?;
        if self.settings.borrow().controllers.is_empty() {
            return None;
        }
        let hash = target.hash().map(|hash| hash.to_string());
        let panic_off = target.is_panic_off();
        Some(self.status.message(&target.held(), hash, panic_off))
    }

    /// Whether changes of the policy by the API of the node are refused.
    pub(in crate::agent) fn refuses_changes(&self) -> bool {
        let settings = self.settings.borrow();
        !settings.controllers.is_empty() && settings.local_changes == LocalChanges::Refuse
    }

    /// Lives as a member of the fleet until it is dropped.
    pub(in crate::agent) async fn live(self: Arc<Self>, firewall: Arc<Firewall>) {
        let held = self.files.held().unwrap_or_else(|reason| {
            log::error!("fleet: {reason}; it begins without what it had before");
            decide::Held::default()
        });
        let target = Arc::new(Target::new(firewall, self.files.clone(), held));
        // Said once.
        let _ = self.target.set(target);
        tokio::join!(self.stay_connected(), memory::watch(&self));
    }

    fn target(&self) -> Arc<Target> {
        Arc::clone(self.target.get().expect("set before it lives"))
    }

    async fn stay_connected(self: &Arc<Self>) {
        let mut changes = self.settings.subscribe();
        let (mut place, mut attempt, mut refused) = (0, 0, false);
        loop {
            let settings = Arc::clone(&changes.borrow_and_update());
            if settings.controllers.is_empty() {
                if changes.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let controllers = self.controllers();
            let controller = &controllers[place % controllers.len()];
            let began = std::time::Instant::now();
            let ended = tokio::select! {
                ended = self.attempt(&settings, controller, refused) => ended,
                _ = changes.changed() => {
                    self.status.lost("the configuration was changed");
                    (place, attempt) = (0, 0);
                    continue;
                }
            };
            if began.elapsed() > GOOD {
                attempt = 0;
            }
            refused = matches!(&ended, Attempt::Ended(Ended::Refused(_)));
            let chance = rand::random::<f64>();
            let jitter = decide::wait(attempt, settings.first_wait, settings.most_wait, chance);
            let wait = match &ended {
                Attempt::Ended(Ended::Renewed) | Attempt::Joined => Duration::ZERO,
                Attempt::Ended(Ended::Drained(after)) if controllers.len() == 1 => {
                    *after + after.mul_f64(chance)
                }
                Attempt::Waits(_) => LOOK_FOR_TOKEN,
                _ => jitter,
            };
            match ended {
                // With the same one.
                Attempt::Joined => attempt = 0,
                Attempt::Ended(Ended::Renewed) => attempt = 0,
                Attempt::Waits(why) => self.status.lost(&why),
                Attempt::Failed(why) | Attempt::Ended(Ended::Lost(why) | Ended::Refused(why)) => {
                    self.status
                        .lost(&format!("{controller}: {}", without(&why, controller)));
                    attempt = attempt.saturating_add(1);
                    place = place.wrapping_add(1);
                }
                Attempt::Ended(Ended::Drained(_)) => {
                    self.status
                        .lost(&format!("{controller}: it is about to stop"));
                    place = place.wrapping_add(1);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = changes.changed() => (place, attempt) = (0, 0),
            }
        }
    }

    /// One connection, whatever for.
    async fn attempt(
        self: &Arc<Self>,
        settings: &Arc<Settings>,
        controller: &Controller,
        refused: bool,
    ) -> Attempt {
        self.let_through().await;
        let addresses = match controller.host.parse() {
            Ok(address) => vec![address],
            Err(_) => lock(&self.addresses)
                .get(&controller.host)
                .cloned()
                .unwrap_or_default(),
        };
        // A token file may have been made since the configuration was read.
        let token = lock(&self.section).settings().ok();
        let token = token.map_or_else(|| settings.token.clone(), |settings| settings.token);
        let identity = lock(&self.identity).clone();
        let now = jiff::Timestamp::now().as_second();
        let former = match decide::next(identity.as_ref(), token.as_ref(), now, refused) {
            Next::Wait(why) => return Attempt::Waits(why),
            Next::Join { former } => former,
            Next::Dial => {
                let Some(identity) = identity else {
                    return Attempt::Failed("it is no member".to_owned());
                };
                let tls = match tls::member(&identity) {
                    Ok(tls) => tls,
                    Err(reason) => return Attempt::Failed(reason),
                };
                return match dial::dial(controller, addresses, tls).await {
                    Ok(client) => {
                        let name = controller.to_string();
                        let began = |_: &Welcome| self.status.connected(&name);
                        Attempt::Ended(session::run(self, settings, client, began).await)
                    }
                    Err(reason) => Attempt::Failed(reason),
                };
            }
        };
        let Some(token) = token else {
            return Attempt::Failed("there is no token".to_owned());
        };
        let is_new = former.is_none();
        let at = (controller, addresses);
        match join::join(&self.files, settings, at, &token, former).await {
            Ok(identity) => match self.joined(identity, is_new) {
                Ok(()) => Attempt::Joined,
                Err(reason) => Attempt::Failed(reason),
            },
            Err(reason) => Attempt::Failed(format!("joining: {reason}")),
        }
    }

    /// Keeps the identity that was given, and uses up the token.
    fn joined(&self, identity: Identity, is_new: bool) -> Result<(), String> {
        let saved = self.files.save_identity(&identity);
        saved.map_err(|e| format!("the identity cannot be saved: {e}; make room or mend it"))?;
        self.files.joined();
        if is_new {
            self.target().forget();
        }
        log::info!("fleet: joined as {}", identity.node_id);
        *lock(&self.identity) = Some(identity);
        self.tell_member();
        let file = lock(&self.section).token_file.clone();
        if let Some(file) = file
            && let Err(error) = std::fs::remove_file(&file)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            log::warn!(
                "fleet.token_file: {}: it is used up and cannot be removed: {error}; remove it",
                file.display()
            );
        }
        Ok(())
    }

    async fn renew(&self, client: &mut Client) -> Result<(), String> {
        let present = lock(&self.identity).clone();
        let present = present.ok_or("it is no member")?;
        let renewed = join::renew(client, &present).await?;
        let saved = self.files.save_identity(&renewed);
        saved.map_err(|e| format!("it cannot be saved: {e}"))?;
        *lock(&self.identity) = Some(renewed);
        self.tell_member();
        log::info!("fleet: the certificate is renewed");
        Ok(())
    }

    /// Returns when the certificate is to be renewed, at the earliest in a moment.
    async fn until_renewal(&self) {
        let validity = lock(&self.identity).as_ref().map(Identity::validity);
        let Some(Ok(validity)) = validity else {
            return std::future::pending().await;
        };
        let at = decide::renew_at(validity, rand::random());
        let life = (validity.1 - validity.0).max(0) as u64;
        // Often enough to be tried several times before it expires, and not all the time.
        let least = Duration::from_secs((life / 50).clamp(1, 3600));
        loop {
            let left = at - jiff::Timestamp::now().as_second();
            // The clock may be set meanwhile.
            let left = Duration::from_secs(u64::try_from(left).unwrap_or(0));
            tokio::time::sleep(left.max(least).min(Duration::from_secs(3600))).await;
            if left <= Duration::from_secs(3600) {
                return;
            }
        }
    }

    /// Takes over what a welcome says that lasts.
    fn welcomed(&self, welcome: &Welcome) {
        let named = welcome.controllers.iter().take(16);
        *lock(&self.named) = named
            .filter_map(|text| Controller::parse(text).ok())
            .collect();
        let mut identity = lock(&self.identity);
        if let Some(member) = identity.as_mut()
            && member.signing_key.is_none()
            && !welcome.signing_key.is_empty()
        {
            // Trust on first use: from now on it takes no other, and nothing that is not signed.
            member.set_signing_key(&welcome.signing_key);
            match self.files.save_identity(member) {
                Ok(()) => {
                    log::info!("fleet: from now on states have to be signed by the key that came")
                }
                Err(error) => log::error!("fleet: the key of the fleet is not saved: {error}"),
            }
        }
        drop(identity);
        self.tell_member();
    }

    /// The key by which states have to be signed.
    fn trusted(&self, settings: &Settings) -> Option<VerifyingKey> {
        if settings.trusted.is_some() {
            return settings.trusted;
        }
        let key = lock(&self.identity).as_ref()?.signing_key()?;
        let key: [u8; 32] = key.as_slice().try_into().unwrap_or([0; 32]);
        // One that is none verifies nothing.
        VerifyingKey::from_bytes(&key)
            .or_else(|_| VerifyingKey::from_bytes(&[0; 32]))
            .ok()
    }

    fn tell_member(&self) {
        let identity = lock(&self.identity);
        let settings = self.settings.borrow();
        let expires = identity.as_ref().and_then(|i| Some(i.validity().ok()?.1));
        let has_key = identity.as_ref().is_some_and(|i| i.signing_key.is_some());
        let id = identity.as_ref().map_or("", |i| i.node_id.as_str());
        self.status
            .member(id, expires, has_key || settings.trusted.is_some());
    }

    /// Those of the configuration first.
    fn controllers(&self) -> Vec<Controller> {
        let mut all = self.settings.borrow().controllers.clone();
        for named in lock(&self.named).iter() {
            if !all.contains(named) {
                all.push(named.clone());
            }
        }
        all
    }

    /// Lets what the controllers answer pass the filter, whatever the policy is.
    async fn let_through(self: &Arc<Self>) {
        let known = lock(&self.addresses).clone();
        let found = dial::resolve(&self.controllers(), &known).await;
        if found != known {
            if let Err(error) = self.files.save_addresses(&found) {
                log::error!("fleet: the addresses of the controllers are not saved: {error}");
            }
            *lock(&self.addresses) = found;
        }
        let wanted = self.management();
        let target = self.target();
        if *target.firewall.management() == *wanted {
            return;
        }
        let set = tokio::task::spawn_blocking(move || target.firewall.set_management(wanted));
        match set.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => log::warn!("fleet: controllers are not let through: {error}"),
            Err(error) => {
                log::error!("fleet: letting controllers through did not end well: {error}")
            }
        }
    }
}

/// How an attempt ended.
#[derive(Debug)]
enum Attempt {
    Joined,
    Ended(Ended),
    /// There was no session.
    Failed(String),
    /// Somebody has to act first.
    Waits(String),
}

/// A reason without the controller in front of it.
fn without<'a>(why: &'a str, controller: &Controller) -> &'a str {
    why.strip_prefix(&format!("{controller}: ")).unwrap_or(why)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The host, for people.
struct Host {
    name: String,
    kernel: String,
    machine: String,
}

fn host() -> Host {
    match nix::sys::utsname::uname() {
        Ok(said) => Host {
            name: said.nodename().to_string_lossy().into_owned(),
            kernel: said.release().to_string_lossy().into_owned(),
            machine: said.machine().to_string_lossy().into_owned(),
        },
        Err(_) => Host {
            name: String::new(),
            kernel: String::new(),
            machine: String::new(),
        },
    }
}

fn host_name() -> String {
    host().name
}
