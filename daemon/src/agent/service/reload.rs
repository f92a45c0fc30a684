//! Reading the configuration again.

use std::fmt::Debug;

use tonic::{Code, Status};
use xdpgate_api::v1;

use crate::agent::fault::{self, Fault};

/// Who reads the configuration of the process again.
pub trait Reload: Debug + Send + Sync {
    /// Reads it and puts it in force. May take its time.
    ///
    /// # Errors
    /// Each key that is wrong, with the reason and the mend. Then the configuration before stays in
    /// force.
    fn reload(&self) -> Result<Reloaded, Vec<(String, String)>>;
}

/// What a configuration that was read again brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reloaded {
    /// Keys that have another value than before and are in force.
    pub changed: Vec<String>,
    /// Keys that have another value and take effect with the next start.
    pub needs_restart: Vec<String>,
}

pub(super) fn reload(who: Option<&dyn Reload>) -> Result<v1::ReloadConfigResponse, Status> {
    let who = who.ok_or_else(|| {
        let message = "the daemon was started without a configuration file: start it with --config";
        let fault = Fault::new(Code::FailedPrecondition, "NO_CONFIG_FILE", message);
        Status::from(fault.blocked_by("NO_CONFIG_FILE", "config"))
    })?;
    match who.reload() {
        Ok(Reloaded {
            changed,
            needs_restart,
        }) => Ok(v1::ReloadConfigResponse {
            changed,
            needs_restart,
        }),
        Err(wrong) => {
            let first = wrong.first().map(|(key, what)| format!("{key}: {what}"));
            let message = first.unwrap_or_default() + &fault::more(wrong.len());
            let fault = Fault::new(Code::InvalidArgument, "CONFIG_INVALID", message);
            let add = |fault: Fault, (key, what): (String, String)| fault.violation(key, what);
            Err(wrong.into_iter().fold(fault, add).into())
        }
    }
}
