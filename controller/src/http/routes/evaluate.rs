//! What a policy would say about a packet, by the oracle of the library.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use xdpgate::Policy;
use xdpgate::oracle::Oracle;
use xdpgate::packet::{Fragment, Packet, Parsed};
use xdpgate::policy::ProtocolName;

use super::policies::{found, waiting};
use crate::domain::Name;
use crate::http::App;
use crate::http::extract::Json;
use crate::http::problem::{Problem, Refusals};
use crate::http::rules::alone;

/// The longest frame.
const FRAME: usize = 9_216;
/// Rules that came close, that are told.
const NEAR: usize = 20;

/// What is judged by what.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Question {
    /// A policy, as if a node had only this one.
    #[schema(value_type = Option<String>)]
    policy: Option<Name>,
    /// Or what a node shall have.
    #[schema(value_type = Option<String>)]
    node: Option<Name>,
    /// A packet by its fields.
    packet: Option<Fields>,
    /// Or an Ethernet frame, in hexadecimal digits.
    frame: Option<String>,
    /// The interface that it comes by; without one rules that name any do not match.
    interface: Option<String>,
    /// When; now unless said.
    #[schema(value_type = Option<String>, format = DateTime)]
    at: Option<Timestamp>,
}

/// A packet. What is not named it does not have, but for what every packet has: a length of 60, a TTL of 64, DSCP 0.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Fields {
    /// The source.
    #[schema(value_type = String)]
    src: IpAddr,
    /// The destination, of the same family.
    #[schema(value_type = String)]
    dst: IpAddr,
    /// The protocol, by name or number.
    protocol: Option<Protocol>,
    /// The source port.
    sport: Option<u16>,
    /// The destination port.
    dport: Option<u16>,
    /// The TCP flags, as a number.
    tcp_flags: Option<u8>,
    /// The ICMP type.
    icmp_type: Option<u8>,
    /// The ICMP code.
    icmp_code: Option<u8>,
    /// The length of the IP packet.
    length: Option<u32>,
    /// TTL or hop limit.
    ttl: Option<u8>,
    /// 0 to 63.
    dscp: Option<u8>,
    /// The id of the outermost VLAN tag.
    vlan: Option<u16>,
    /// `none`, `first` or `later`.
    fragment: Option<Part>,
}

/// A protocol.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
enum Protocol {
    /// By number.
    Number(u8),
    /// By name, as `tcp`.
    Name(String),
}

/// A part of a fragmented packet.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum Part {
    /// Not a fragment.
    None,
    /// The first.
    First,
    /// A later one.
    Later,
}

/// What is said.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct Said {
    /// `pass` or `drop`.
    verdict: String,
    /// Why: `rule`, `default`, `failsafe`, ...
    reason: &'static str,
    /// The rule that decided.
    rule: Option<String>,
    /// Rules in monitor mode that matched on the way.
    monitored: Vec<String>,
    /// Rules that would match but for one thing, in the order in which they are asked.
    near: Vec<Near>,
}

/// A rule that came close.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::http) struct Near {
    /// The rule.
    rule: String,
    /// What did not hold: a part of its match, or `enabled`, `expires`, `interfaces`.
    but_for: &'static str,
}

/// What is judged.
enum Subject {
    Frame(Vec<u8>),
    Packet(Packet),
}

/// What a policy, or the effective policy of a node, says about a packet: the verdict, the rule, and rules that came
/// close. Nothing is sent or counted anywhere.
#[utoipa::path(post, path = "/api/v1/evaluate", tag = "lookup", request_body = Question, responses((status = 200, body = Said), Refusals))]
pub(in crate::http) async fn evaluate(
    State(app): State<App>,
    Json(question): Json<Question>,
) -> Result<Answer<Said>, Problem> {
    let view = app.core().view();
    let subject = match (question.packet, question.frame) {
        (Some(fields), None) => Subject::Packet(fields.packet()?),
        (None, Some(frame)) => Subject::Frame(bytes(&frame)?),
        _ => return Err(Problem::invalid("packet", "give a packet or a frame")),
    };
    let (at, interface) = (
        question.at.unwrap_or_else(Timestamp::now),
        question.interface,
    );
    let said = match (question.policy, question.node) {
        (Some(name), None) => {
            let policy = Arc::clone(found(&view, &name)?);
            waiting(move || {
                Ok(judge(
                    &alone(&view, &policy)?,
                    &subject,
                    at,
                    interface.as_deref(),
                ))
            })
            .await?
        }
        (None, Some(node)) => {
            if !view.nodes().contains_key(&node) {
                return Err(Problem::not_found(format!("node/{node}")));
            }
            let desired = view.desired(&node);
            let desired =
                desired.ok_or_else(|| Problem::not_found(format!("node/{node}/policy")))?;
            waiting(move || Ok(judge(&desired.policy, &subject, at, interface.as_deref()))).await?
        }
        _ => return Err(Problem::invalid("policy", "give a policy or a node")),
    };
    Ok(Answer(said))
}

fn judge(policy: &Policy, subject: &Subject, at: Timestamp, interface: Option<&str>) -> Said {
    let mut oracle = Oracle::new(policy);
    let (parsed, length) = match subject {
        Subject::Frame(frame) => (Parsed::from_frame(frame), frame.len()),
        Subject::Packet(packet) => (Parsed::Ip(packet.clone()), packet.length as usize + 14),
    };
    let said = oracle.judge(&parsed, length, at, interface);
    let near = match &parsed {
        Parsed::Ip(packet) => oracle.near(packet, at, interface, NEAR),
        _ => Vec::new(),
    };
    let near = near.into_iter().map(|(rule, but_for)| Near {
        rule: rule.to_string(),
        but_for,
    });
    Said {
        verdict: said.verdict.to_string(),
        reason: said.reason.as_str(),
        rule: said.rule.map(|rule| rule.to_string()),
        monitored: said.monitored.iter().map(ToString::to_string).collect(),
        near: near.collect(),
    }
}

impl Fields {
    fn packet(self) -> Result<Packet, Problem> {
        let (src, dst) = (self.src, self.dst);
        if src.is_ipv4() != dst.is_ipv4() {
            return Err(Problem::invalid("packet.dst", "not of the family of src"));
        }
        if self.dscp.is_some_and(|dscp| dscp > 63) {
            return Err(Problem::invalid("packet.dscp", "0 to 63"));
        }
        let protocol = match self.protocol {
            None => None,
            Some(Protocol::Number(number)) => Some(number),
            Some(Protocol::Name(name)) => Some(ProtocolName::number(&name).ok_or_else(|| {
                Problem::invalid(
                    "packet.protocol",
                    format!("{name:?} is not the name of a protocol"),
                )
            })?),
        };
        let ports = match (self.sport, self.dport) {
            (None, None) => None,
            (sport, dport) => Some((sport.unwrap_or(0), dport.unwrap_or(0))),
        };
        Ok(Packet {
            vlan: self.vlan,
            src,
            dst,
            protocol,
            length: self.length.unwrap_or(60),
            ttl: self.ttl.unwrap_or(64),
            dscp: self.dscp.unwrap_or(0),
            fragment: match self.fragment {
                None | Some(Part::None) => Fragment::None,
                Some(Part::First) => Fragment::First,
                Some(Part::Later) => Fragment::Later,
            },
            ports,
            tcp_flags: self.tcp_flags,
            icmp: self
                .icmp_type
                .map(|kind| (kind, self.icmp_code.unwrap_or(0))),
            bad_fragment: false,
            invalid: false,
            malformed: false,
        })
    }
}

fn bytes(hex: &str) -> Result<Vec<u8>, Problem> {
    let bad = || {
        Problem::invalid(
            "frame",
            "an even number of hexadecimal digits, up to 9,216 bytes",
        )
    };
    let digits: Vec<u8> = hex
        .bytes()
        .filter(|b| !b.is_ascii_whitespace() && *b != b':')
        .collect();
    if digits.len() % 2 != 0 || digits.len() > 2 * FRAME {
        return Err(bad());
    }
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    let byte = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    digits
        .chunks(2)
        .map(|pair| byte(pair).ok_or_else(bad))
        .collect()
}
