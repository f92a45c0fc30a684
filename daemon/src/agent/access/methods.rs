//! Which calls read and which change something: what a viewer may call is written down here, one by
//! one, so that a new call is an admin's until somebody decides otherwise.

/// What a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: whoever gets a connection may ask.
    Nothing,
    /// To be a viewer or an admin.
    Read,
    /// To be an admin.
    Change,
}

/// What the call with this HTTP path needs.
pub(super) fn need(path: &str) -> Need {
    match path.strip_prefix("/xdpgate.v1.Firewall/") {
        Some(method) if READ.contains(&method) => Need::Read,
        Some(_) => Need::Change,
        None if path == "/grpc.health.v1.Health/Check" => Need::Nothing,
        None if path.starts_with("/grpc.health.v1.Health/") => Need::Read,
        None if path.starts_with("/grpc.reflection.v1.ServerReflection/") => Need::Read,
        // The same under its former name, by which many tools still ask.
        None if path.starts_with("/grpc.reflection.v1alpha.ServerReflection/") => Need::Read,
        None => Need::Change,
    }
}

/// The calls of `xdpgate.v1.Firewall` that a viewer may make.
const READ: &[&str] = &[
    "Evaluate",
    "GetEntryCounters",
    "GetPolicy",
    "GetStats",
    "GetStatus",
    "GetSystem",
    "ListBans",
    "ListInterfaces",
    "ListRules",
    "ListSetEntries",
    "PlanPolicy",
    "Preflight",
    "WatchEvents",
    "WatchInterfaces",
    "WatchStats",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use prost_types::FileDescriptorSet;
    use xdpgate_api::v1::FILE_DESCRIPTOR_SET;

    use super::*;

    /// The calls that only an admin may make; that the two lists are whole is what this test is for.
    const CHANGE: &[&str] = &[
        "ApplyPolicy",
        "AttachInterface",
        "Ban",
        "ChangePolicy",
        "ConfirmPolicy",
        "DetachInterface",
        "ImportSet",
        "ReloadConfig",
        "RollbackPolicy",
        "SetMode",
        "Stop",
        "Unban",
    ];

    #[test]
    fn every_call_is_one_or_the_other() {
        let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
        let services = files.file.iter().flat_map(|file| &file.service);
        let methods: BTreeSet<&str> = services.flat_map(|s| &s.method).map(|m| m.name()).collect();
        let listed: BTreeSet<&str> = READ.iter().chain(CHANGE).copied().collect();
        assert_eq!(
            listed.len(),
            READ.len() + CHANGE.len(),
            "a call is in both lists"
        );
        assert_eq!(
            methods, listed,
            "a new call: decide whether a viewer may make it"
        );
        for method in CHANGE {
            assert_eq!(
                need(&format!("/xdpgate.v1.Firewall/{method}")),
                Need::Change
            );
        }
        let reads = ["Get", "List", "Watch", "Plan", "Evaluate", "Preflight"];
        for method in READ {
            assert!(
                reads.iter().any(|verb| method.starts_with(verb)),
                "{method}"
            );
            assert_eq!(need(&format!("/xdpgate.v1.Firewall/{method}")), Need::Read);
        }
    }

    #[test]
    fn what_is_not_known_is_an_admins() {
        for path in [
            "",
            "/",
            "/xdpgate.v1.Firewall/",
            "/xdpgate.v1.Firewall/getstatus",
            "/xdpgate.v1.Firewall/GetStatus/",
            "/xdpgate.v1.Firewall//GetStatus",
            "/xdpgate.v2.Firewall/GetStatus",
            "/grpc.health.v1.Healthy/Check",
        ] {
            assert_eq!(need(path), Need::Change, "{path}");
        }
        assert_eq!(need("/grpc.health.v1.Health/Check"), Need::Nothing);
        assert_eq!(need("/grpc.health.v1.Health/Watch"), Need::Read);
    }
}
