//! What is to be known about where the API is reached from, before it is.

use xdpgate::policy::{Action, Mode};
use xdpgate::{Policy, Verdict};

use super::Access;
use crate::agent::config::Api;
use crate::agent::listen::{Listener, open_port};
use crate::endpoint::Endpoint;

impl Access {
    /// Says in the log who may do what by a listener where that is more than one would think, and where
    /// the policy in force is in the way of the API itself.
    pub(in crate::agent) fn warn_of_reach(&self, listeners: &[Listener], policy: Option<&Policy>) {
        let endpoints: Vec<Endpoint> = listeners.iter().map(Listener::endpoint).collect();
        for warning in warnings(&self.rules().api, &endpoints, policy) {
            log::warn!("{warning}");
        }
    }
}

/// The same, a line each, for an API that is served at these endpoints.
pub(in crate::agent) fn warnings(
    api: &Api,
    endpoints: &[Endpoint],
    policy: Option<&Policy>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    for endpoint in endpoints {
        if let (Endpoint::Tcp(address), true) = (endpoint, api.insecure_loopback) {
            warnings.push(format!(
                "{address}: every user of this host may change the policy through it"
            ));
        }
        let Some(port) = open_port(endpoint) else {
            continue;
        };
        if api.is_reachable_from_anywhere() {
            warnings.push(format!(
                "{endpoint}: port {port} passes from everywhere, bans and rules do not keep a flood off it; name \
                 the prefixes of those who manage this node in api.reachable_from"
            ));
        }
        if let Some(policy) = policy
            && (!policy.failsafe().enabled || api.reachable_from.is_empty())
            && !lets_in(policy, port)
        {
            warnings.push(format!(
                "{endpoint}: the policy in force drops it: its failsafe is off or api.reachable_from is empty, and \
                 no rule lets TCP port {port} in; add {{id: allow-api, priority: 0, match: {{src: PREFIX, protocol: \
                 tcp, dport: {port}}}, action: pass}}"
            ));
        }
    }
    if api.tls.is_some() && api.clients.is_empty() && api.tokens_file.is_none() {
        warnings.push("api.clients is empty: nobody has a role over https".to_owned());
    }
    warnings
}

/// Whether somebody at least can reach a port by the default verdict or a rule. Which sources that are is
/// the policy's to say.
fn lets_in(policy: &Policy, port: u16) -> bool {
    const TCP: u8 = 6;
    let by_rule = || {
        policy.rules().iter().any(|rule| {
            let asked = &rule.matches;
            rule.enabled
                && rule.mode == Mode::Enforce
                && matches!(rule.action, Action::Pass | Action::RateLimit(_))
                && asked.protocol.as_ref().is_none_or(|p| p.contains(TCP))
                && asked.dport.as_ref().is_none_or(|p| p.contains(port))
                && asked.icmp.is_none()
        })
    };
    policy.default_verdict() == Verdict::Pass || by_rule()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_drops_the_api_is_found() {
        for (policy, expected) in [
            ("version: 1", true),
            ("version: 1\ndefault: drop", false),
            (
                "version: 1\ndefault: drop\nfailsafe: { ssh_from: [10.0.0.0/8] }",
                false,
            ),
            (
                "version: 1\ndefault: drop\nrules: [{ id: a, match: { src: 10.0.0.0/8, protocol: tcp, dport: \
                 50000-50100 }, action: pass }]",
                true,
            ),
            (
                "version: 1\ndefault: drop\nrules: [{ id: a, match: { protocol: udp, dport: 50051 }, action: \
                 pass }]",
                false,
            ),
            (
                "version: 1\ndefault: drop\nrules: [{ id: a, match: { dport: 50051 }, action: pass, mode: \
                 monitor }]",
                false,
            ),
            (
                "version: 1\ndefault: drop\nrules: [{ id: a, match: { src: 10.0.0.1 }, action: pass }]",
                true,
            ),
        ] {
            let policy = Policy::from_yaml(policy).expect(policy);
            assert_eq!(lets_in(&policy, 50051), expected, "{policy:?}");
        }
    }
}
