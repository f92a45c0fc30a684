//! `xdpgate load` and `unload`: the program with a policy, pinned, attached to nothing.

use xdpgate::Frags;

use super::args::{Load, Unload};
use super::policy;
use crate::failure::Failure;

pub(super) fn load(args: &Load) -> Result<(), Failure> {
    let policy = policy::read(&args.policy)?;
    let frags = match args.no_frags {
        true => Frags::Off,
        false => Frags::Auto,
    };
    let firewall = policy::loader(&policy)
        .dry_run(args.dry_run)
        .frags(frags)
        .load()
        .map_err(Failure::operation)?;
    firewall
        .apply(&policy)
        .map_err(|e| Failure::apply(&args.policy, &e))?;
    firewall.pin(&args.pin).map_err(Failure::operation)
}

pub(super) fn unload(args: &Unload) -> Result<(), Failure> {
    xdpgate::unpin(&args.pin).map_err(Failure::operation)
}
