//! From the command line to a firewall that is attached, or to nothing at all.

use std::path::PathBuf;

use xdpgate::{Attachment, Firewall, IfIndex, ModePreference, Policy};

use super::args::Args;
use super::fault;
use crate::failure::Failure;

/// What is to be done, from arguments that were all checked.
#[derive(Debug)]
pub(super) struct Plan {
    policy: Option<(PathBuf, Policy)>,
    interfaces: Vec<IfIndex>,
    mode: ModePreference,
    enforce: bool,
    max_rules: u32,
}

impl Plan {
    /// Reads the policy and finds the interfaces. Changes nothing.
    pub(super) fn new(args: &Args) -> Result<Self, Failure> {
        let policy = match &args.policy {
            None => None,
            Some(file) => {
                let policy = Policy::from_file(file).map_err(|e| Failure::policy(file, &e))?;
                Some((file.clone(), policy))
            }
        };
        let mut interfaces = Vec::new();
        for name in &args.interfaces {
            let ifindex = IfIndex::from_name(name).map_err(Failure::operation)?;
            if interfaces.contains(&ifindex) {
                return Err(Failure::input(
                    "--interface",
                    format!("{name} is there twice"),
                ));
            }
            interfaces.push(ifindex);
        }
        Ok(Self {
            policy,
            interfaces,
            mode: args.mode.into(),
            enforce: args.enforce,
            max_rules: args.max_rules,
        })
    }

    /// Loads, applies and attaches. On error all of it is undone: dropping the firewall detaches.
    pub(super) fn carry_out(self) -> Result<Firewall, Failure> {
        let firewall = Firewall::loader()
            .dry_run(!self.enforce)
            .max_interfaces(INTERFACES.max(self.interfaces.len() as u16))
            .max_rules(self.max_rules)
            .load()
            .map_err(Failure::operation)?;
        let applied = match &self.policy {
            None => None,
            Some((file, policy)) => Some(firewall.apply(policy).map_err(|e| match e {
                xdpgate::ApplyError::Policy(e) => Failure::policy(file, &e),
                e => Failure::operation(fault::apply_message(&e)),
            })?),
        };
        let attachments = self
            .interfaces
            .iter()
            .map(|ifindex| firewall.attach(*ifindex, self.mode))
            .collect::<Result<Vec<Attachment>, _>>()
            .map_err(Failure::operation)?;

        match applied {
            Some(applied) => log::info!(
                "policy generation {}: {} entries, compiled in {:.1?}, published in {:.1?}",
                applied.generation,
                applied.entries,
                applied.compile,
                applied.publish
            ),
            None => log::info!("no policy yet: everything passes until one is applied"),
        }
        for attachment in &attachments {
            // Why it fell back, the library has said.
            log::info!("{}: attached in {} mode", attachment.name, attachment.mode);
        }
        if !self.enforce {
            log::info!("dry run: nothing is dropped; --enforce drops");
        }
        Ok(firewall)
    }
}

/// Room for this many interfaces at least.
const INTERFACES: u16 = 256;
