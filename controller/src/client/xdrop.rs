//! Rules and whitelist of xdrop's controller as a policy.
//!
//! What is read is what its API gives: `GET /api/v1/rules` (an object with `rules`) and `GET /api/v1/whitelist` (one with
//! `entries`), or a bare list of either. docs/from-xdrop.md says what becomes of each field.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use xdpgate::policy::{Policy, Prefix};

/// Where the whitelist is in the order of evaluation, then what drops, then what limits: in xdrop a whitelisted
/// packet passes before any rule, and a limit that a packet is under ends the search as well.
const WHITELIST: u32 = 1000;
const DROPS: u32 = 2000;
const LIMITS: u32 = 3000;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// The policy, as a policy file.
    pub text: String,
    /// How many rules it has.
    pub rules: usize,
    /// What is not quite as it was, a line each.
    pub notes: Vec<String>,
}

/// A rule, as xdrop's API gives it. What it has beside this is of no use here: statistics and times.
#[derive(Debug, Deserialize)]
struct Rule {
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    src_ip: String,
    #[serde(default)]
    dst_ip: String,
    #[serde(default)]
    src_cidr: String,
    #[serde(default)]
    dst_cidr: String,
    #[serde(default)]
    src_port: u16,
    #[serde(default)]
    dst_port: u16,
    #[serde(default)]
    protocol: String,
    #[serde(default)]
    action: Option<String>,
    #[serde(default)]
    rate_limit: u64,
    #[serde(default)]
    pkt_len_min: u32,
    #[serde(default)]
    pkt_len_max: u32,
    #[serde(default)]
    tcp_flags: String,
    #[serde(default)]
    match_anomaly: u32,
    #[serde(default)]
    source: String,
    #[serde(default)]
    comment: String,
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(default)]
    expires_at: Option<String>,
}

/// What may be in a file.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Export {
    Rules { rules: Vec<Value> },
    Whitelist { entries: Vec<Value> },
    List(Vec<Value>),
}

/// Makes one policy of all that is in these texts, each with the name of its file.
///
/// # Errors
/// All that cannot be taken over, a line each, with file, position and id.
pub fn convert<'a>(
    files: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Converted, Vec<String>> {
    let mut errors = Vec::new();
    let mut notes = Vec::new();
    let mut rules = Vec::new();
    for (file, text) in files {
        let export: Export = match serde_json::from_str(text) {
            Ok(export) => export,
            Err(error) => {
                errors.push(format!(
                    "{file}: {error}: it is not what xdrop's API gives for rules or whitelist"
                ));
                continue;
            }
        };
        let (Export::Rules { rules: items }
        | Export::Whitelist { entries: items }
        | Export::List(items)) = export;
        for (index, item) in items.into_iter().enumerate() {
            let rule: Rule = match serde_json::from_value(item) {
                Ok(rule) => rule,
                Err(error) => {
                    errors.push(format!("{file}: [{index}]: {error}"));
                    continue;
                }
            };
            match rule.convert(&mut notes) {
                Ok(converted) => match check(&converted) {
                    Ok(()) => rules.push(converted),
                    Err(reason) => errors.push(format!("{file}: [{index}]: {reason}")),
                },
                Err(reason) => errors.push(format!("{file}: [{index}]: {}: {reason}", rule.id)),
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let count = rules.len();
    let whole = json!({ "version": 1, "default": "pass", "rules": rules }).to_string();
    let policy = Policy::from_yaml(&whole).map_err(|error| vec![error.to_string()])?;
    Ok(Converted {
        text: policy.to_yaml(),
        rules: count,
        notes,
    })
}

/// By the library, so that the error is the rule's: of its field, since the text that it was made of is ours.
fn check(rule: &Value) -> Result<(), String> {
    let alone = json!({ "version": 1, "rules": [rule] }).to_string();
    Policy::from_yaml(&alone).map(drop).map_err(|error| {
        let id = rule.get("id").and_then(Value::as_str).unwrap_or_default();
        let field = error.field().map_or_else(String::new, |f| format!("{f}: "));
        format!("{id}: {field}{}", error.reason())
    })
}

impl Rule {
    fn convert(&self, notes: &mut Vec<String>) -> Result<Value, String> {
        let mut rule = Map::new();
        rule.insert("id".to_owned(), json!(self.id));
        let (priority, action) = match self.action.as_deref() {
            None | Some("pass") => (WHITELIST, json!("pass")),
            Some("drop") => (DROPS, json!("drop")),
            Some("rate_limit") => {
                if self.rate_limit == 0 {
                    return Err(
                        "rate_limit: it is 0, so nothing would pass: say how many packets a second"
                            .to_owned(),
                    );
                }
                let limit = json!({
                    "packets_per_second": self.rate_limit,
                    "burst": self.rate_limit.saturating_mul(2),
                });
                (LIMITS, json!({ "rate_limit": limit }))
            }
            Some(other) => return Err(format!("action: there is no {other:?}")),
        };
        rule.insert("priority".to_owned(), json!(priority));
        rule.insert("match".to_owned(), Value::Object(self.matches(notes)?));
        rule.insert("action".to_owned(), action);
        if self.enabled == Some(false) {
            rule.insert("enabled".to_owned(), json!(false));
        }
        let texts = [("name", &self.name), ("comment", &self.comment)];
        for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            rule.insert(key.to_owned(), json!(text));
        }
        if let Some(at) = &self.expires_at {
            rule.insert("expires".to_owned(), json!(at));
        }
        if !self.source.is_empty() {
            rule.insert("labels".to_owned(), json!({ "source": self.source }));
        }
        Ok(Value::Object(rule))
    }

    fn matches(&self, notes: &mut Vec<String>) -> Result<Map<String, Value>, String> {
        let mut out = Map::new();
        for (key, ip, cidr) in [
            ("src", &self.src_ip, &self.src_cidr),
            ("dst", &self.dst_ip, &self.dst_cidr),
        ] {
            match (ip.as_str(), cidr.as_str()) {
                ("", "") => {}
                (ip, "") => drop(out.insert(key.to_owned(), json!(ip))),
                ("", cidr) => {
                    let prefix = without_host_bits(cidr)?;
                    if prefix != cidr {
                        notes.push(format!("{}: {key}: {cidr} is written as {prefix}", self.id));
                    }
                    out.insert(key.to_owned(), json!(prefix));
                }
                _ => return Err(format!("{key}_ip and {key}_cidr: choose one")),
            }
        }
        let ports = [("sport", self.src_port), ("dport", self.dst_port)];
        let with_ports = ports.iter().any(|(_, port)| *port != 0);
        for (key, port) in ports.into_iter().filter(|(_, port)| *port != 0) {
            out.insert(key.to_owned(), json!(port));
        }
        match self.protocol.as_str() {
            // xdrop reads ports of TCP and UDP only.
            "" | "all" if with_ports => {
                drop(out.insert("protocol".to_owned(), json!(["tcp", "udp"])))
            }
            "" | "all" => {}
            named => drop(out.insert("protocol".to_owned(), json!(named))),
        }
        if self.pkt_len_min != 0 || self.pkt_len_max != 0 {
            let most = if self.pkt_len_max == 0 {
                65_535
            } else {
                self.pkt_len_max
            };
            out.insert(
                "length".to_owned(),
                json!(format!("{}-{most}", self.pkt_len_min)),
            );
        }
        if !self.tcp_flags.is_empty() {
            out.insert("tcp_flags".to_owned(), json!(self.tcp_flags));
        }
        let named = [(1, "bad_fragment"), (2, "invalid")];
        let known: u32 = named.iter().map(|(bit, _)| bit).sum();
        if self.match_anomaly & !known != 0 {
            return Err(format!(
                "match_anomaly: {} has bits that are not known",
                self.match_anomaly
            ));
        }
        let anomalies: Vec<&str> = named
            .iter()
            .filter(|(bit, _)| self.match_anomaly & bit != 0)
            .map(|(_, name)| *name)
            .collect();
        if !anomalies.is_empty() {
            out.insert("anomaly".to_owned(), json!(anomalies));
        }
        if self.action.is_none() && out.is_empty() {
            return Err("it is a whitelist entry that lets everything pass".to_owned());
        }
        Ok(out)
    }
}

/// xdrop takes 10.1.2.3/8 for 10.0.0.0/8; a policy file has only the latter.
fn without_host_bits(cidr: &str) -> Result<String, String> {
    let wrong = || format!("{cidr:?} is no prefix");
    let (address, length) = cidr.split_once('/').ok_or_else(wrong)?;
    let address: std::net::IpAddr = address.parse().map_err(|_| wrong())?;
    let length: u8 = length.parse().map_err(|_| wrong())?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    if length > bits {
        return Err(wrong());
    }
    let masked = match address {
        std::net::IpAddr::V4(a) => {
            let mask = u32::MAX.checked_shl(u32::from(32 - length)).unwrap_or(0);
            std::net::IpAddr::V4((a.to_bits() & mask).into())
        }
        std::net::IpAddr::V6(a) => {
            let mask = u128::MAX.checked_shl(u32::from(128 - length)).unwrap_or(0);
            std::net::IpAddr::V6((a.to_bits() & mask).into())
        }
    };
    Prefix::new(masked, length)
        .map(|prefix| format!("{}/{length}", prefix.addr()))
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = r#"{ "count": 5, "rules": [
      { "id": "0d1f9c1e-aaaa-4bbb-8ccc-000000000001", "name": "syn", "dst_ip": "192.0.2.10", "dst_port": 443,
        "protocol": "tcp", "action": "rate_limit", "rate_limit": 5000, "tcp_flags": "SYN,!ACK", "enabled": true,
        "source": "ui", "stats": { "match_count": 3 } },
      { "id": "r2", "src_cidr": "203.0.113.77/24", "action": "drop", "enabled": false, "comment": "noisy" },
      { "id": "r3", "dst_port": 53, "protocol": "all", "action": "drop", "pkt_len_min": 512,
        "enabled": true, "expires_at": "2030-01-01T00:00:00Z" },
      { "id": "r4", "dst_ip": "192.0.2.10", "match_anomaly": 3, "action": "drop", "enabled": true },
      { "id": "r5", "src_ip": "2001:db8::7", "protocol": "icmpv6", "action": "drop" }
    ] }"#;
    const WHITELISTED: &str = r#"{ "count": 1, "entries": [
      { "id": "w1", "src_ip": "198.51.100.5", "dst_ip": "192.0.2.10", "dst_port": 22, "protocol": "tcp",
        "name": "ops", "created_at": "2026-01-01T00:00:00Z" } ] }"#;

    #[test]
    fn each_field_becomes_what_it_means() {
        let done = convert([("rules.json", RULES), ("whitelist.json", WHITELISTED)]).unwrap();
        assert_eq!(done.rules, 6);
        assert_eq!(
            done.notes,
            ["r2: src: 203.0.113.77/24 is written as 203.0.113.0/24"]
        );
        let expected = Policy::from_yaml(
            "
version: 1
default: pass
rules:
  - { id: w1, priority: 1000, match: { src: 198.51.100.5, dst: 192.0.2.10, dport: 22, protocol: tcp }, action: pass,
      name: ops }
  - { id: r2, priority: 2000, match: { src: 203.0.113.0/24 }, action: drop, enabled: false, comment: noisy }
  - { id: r3, priority: 2000, match: { dport: 53, protocol: [tcp, udp], length: 512-65535 }, action: drop,
      expires: 2030-01-01T00:00:00Z }
  - { id: r4, priority: 2000, match: { dst: 192.0.2.10, anomaly: [bad_fragment, invalid] }, action: drop }
  - { id: r5, priority: 2000, match: { src: '2001:db8::7', protocol: icmpv6 }, action: drop }
  - { id: 0d1f9c1e-aaaa-4bbb-8ccc-000000000001, priority: 3000, name: syn, labels: { source: ui },
      match: { dst: 192.0.2.10, dport: 443, protocol: tcp, tcp_flags: 'SYN,!ACK' },
      action: { rate_limit: { packets_per_second: 5000, burst: 10000 } } }
",
        )
        .unwrap();
        assert_eq!(Policy::from_yaml(&done.text).unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_taken_over_is_named() {
        let refused = |text: &str| convert([("f", text)]).unwrap_err().join("\n");
        for (text, said) in [
            (r#"{"nodes": []}"#, "f: "),
            (
                r#"[{"id": "a", "action": "allow"}]"#,
                "f: [0]: a: action: there is no \"allow\"",
            ),
            (
                r#"[{"id": "a", "action": "rate_limit"}]"#,
                "f: [0]: a: rate_limit: it is 0",
            ),
            (r#"[{"id": "a"}]"#, "lets everything pass"),
            (
                r#"[{"id": "a", "action": "drop", "src_ip": "1.2.3.4", "src_cidr": "1.0.0.0/8"}]"#,
                "choose one",
            ),
            (
                r#"[{"id": "a", "action": "drop", "src_cidr": "1.0.0.0/33"}]"#,
                "is no prefix",
            ),
            (
                r#"[{"id": "a", "action": "drop", "match_anomaly": 4}]"#,
                "bits that are not known",
            ),
            (
                r#"[{"id": "a", "action": "drop", "protocol": "icmp", "dst_port": 7}]"#,
                "f: [0]: a: match.dport: the protocol has no ports",
            ),
            (
                r#"[{"id": "a", "action": "drop", "dst_port": 70000}]"#,
                "f: [0]: ",
            ),
        ] {
            let errors = refused(text);
            assert!(errors.contains(said), "{errors}");
        }
        let both = refused(r#"[{"id": "a", "action": "x"}, {"id": "b", "action": "y"}]"#);
        assert_eq!(both.lines().count(), 2, "{both}");
    }
}
