//! Management traffic of the host, beside the policy.

use std::sync::{Arc, PoisonError};

use super::core::Core;
use super::error::ApplyError;
use super::firewall::{Firewall, lock};
use super::publish::Applied;
use crate::management::Management;

impl Firewall {
    /// Sets the management traffic of this host that passes before any ban and rule, in place of what
    /// was set before: the API of a daemon, the link to a controller. It belongs to the host, so the
    /// policy and its hash stay as they are, and it is not saved.
    ///
    /// If a policy is in force it is published anew, which takes as long as
    /// [`Firewall::apply`]; `None` if there is none, or nothing changed.
    ///
    /// ```no_run
    /// use xdpgate::{Firewall, Management, ManagementPort};
    ///
    /// let firewall = Firewall::loader().load()?;
    /// let controller = Management::new("198.51.100.7".parse()?, ManagementPort::Remote(443));
    /// firewall.set_management([controller])?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// More than [`Management::MAX`], a change waits for its confirmation, or what
    /// [`Firewall::apply`] gives. Then nothing changed.
    pub fn set_management(
        &self,
        of_host: impl Into<Vec<Management>>,
    ) -> Result<Option<Applied>, ApplyError> {
        let core = &self.core;
        let mut slots = lock(&core.slots);
        core.check_pending()?;
        let after: Arc<[Management]> = of_host.into().into();
        let before = core.exchange_management(Arc::clone(&after));
        if before == after {
            return Ok(None);
        }
        let Some(policy) = core.policy() else {
            return Ok(None);
        };
        match core.put_in_force(policy, &mut slots) {
            Ok(mut applied) => {
                applied.not_saved = core.save_or_note();
                Ok(Some(applied))
            }
            Err(error) => {
                core.exchange_management(before);
                Err(error)
            }
        }
    }

    /// The management traffic of this host that passes before any rule.
    pub fn management(&self) -> Arc<[Management]> {
        self.core.management()
    }

    pub(super) fn with_management(self, of_host: Vec<Management>) -> Self {
        self.core.exchange_management(of_host.into());
        self
    }
}

impl Core {
    pub(super) fn management(&self) -> Arc<[Management]> {
        let management = self.management.read();
        Arc::clone(&management.unwrap_or_else(PoisonError::into_inner))
    }

    fn exchange_management(&self, management: Arc<[Management]>) -> Arc<[Management]> {
        let current = self.management.write();
        let mut current = current.unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, management)
    }
}
