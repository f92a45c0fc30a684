//! What is sent, and what must become of it.

use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;

use crate::Result;
use crate::frame;
use crate::net::{Link, Namespace};

/// Traffic of one kind.
pub(crate) struct Flow {
    /// In words.
    pub(crate) what: &'static str,
    pub(crate) traffic: Traffic,
    /// The rule that decides; without one it is the default verdict, which is pass.
    pub(crate) rule: Option<&'static str>,
    /// Whether that rule drops.
    pub(crate) drops: bool,
}

pub(crate) enum Traffic {
    /// Datagrams from a socket, from and to these addresses.
    Udp { from: IpAddr, to: SocketAddr },
    /// Echo requests by `ping`.
    Ping { from: IpAddr },
    /// A connection.
    Tcp { from: IpAddr },
    /// Frames as they are.
    Frames(Vec<Vec<u8>>),
}

/// What was sent and what came through: datagrams, replies, connections, frames.
pub(crate) struct Seen {
    pub(crate) sent: u64,
    pub(crate) arrived: u64,
}

/// The protected host and the source, as `scripts/demo` sets them up.
const HOST: &str = "192.0.2.1";
const SOURCE: &str = "192.0.2.2";
const HOST_V6: &str = "2001:db8:1::1";
const SOURCE_V6: &str = "2001:db8:1::2";
const LISTED_V6: &str = "2001:db8:bad::1";

const DATAGRAMS: u64 = 100;
const PINGS: u64 = 5;
const SPOOFED: usize = 1000;
const PORT: u16 = 9000;
const DNS: u16 = 53;
const HTTP: u16 = 8080;

impl Flow {
    /// All of them, in the order of the table.
    pub(crate) fn all(list: &str, listed: &str, partner: &str) -> Result<Vec<Self>> {
        let udp = |from: &str, to: &str, port: u16| -> Result<Traffic> {
            Ok(Traffic::Udp {
                from: from.parse()?,
                to: (to.parse::<IpAddr>()?, port).into(),
            })
        };
        let ping = |from: &str| -> Result<Traffic> {
            Ok(Traffic::Ping {
                from: from.parse()?,
            })
        };
        let tcp = |from: &str| -> Result<Traffic> {
            Ok(Traffic::Tcp {
                from: from.parse()?,
            })
        };
        let many = |frame: Vec<u8>| vec![frame; DATAGRAMS as usize];
        let pass = |what, traffic| Self {
            what,
            traffic,
            rule: None,
            drops: false,
        };
        let by = |rule, what, traffic| Self {
            what,
            traffic,
            rule: Some(rule),
            drops: true,
        };
        let bad = "block-list";

        let spoofed = spread(list, SPOOFED, partner)
            .into_iter()
            .map(|from| frame::udp(from, HOST, PORT))
            .collect::<Result<Vec<_>>>()?;
        Ok(vec![
            pass("UDP, unlisted source", udp(SOURCE, HOST, PORT)?),
            by(bad, "UDP, listed source", udp(listed, HOST, PORT)?),
            Self {
                drops: false,
                ..by(
                    "allow-partner",
                    "UDP, listed, but a partner",
                    udp(partner, HOST, PORT)?,
                )
            },
            by(
                "block-dns",
                "UDP to port 53, unlisted",
                udp(SOURCE, HOST, DNS)?,
            ),
            pass("ping, unlisted", ping(SOURCE)?),
            by(bad, "ping, listed", ping(listed)?),
            pass("TCP connection, unlisted", tcp(SOURCE)?),
            by(bad, "TCP connection, listed", tcp(listed)?),
            pass("IPv6 UDP, unlisted", udp(SOURCE_V6, HOST_V6, PORT)?),
            by(
                "block-v6",
                "IPv6 UDP, listed /48",
                udp(LISTED_V6, HOST_V6, PORT)?,
            ),
            pass(
                "VLAN-tagged frames, unlisted",
                Traffic::Frames(many(frame::tagged(SOURCE, HOST, PORT)?)),
            ),
            by(
                bad,
                "VLAN-tagged frames, listed",
                Traffic::Frames(many(frame::tagged(listed, HOST, PORT)?)),
            ),
            by(
                bad,
                "fragments, listed",
                Traffic::Frames(frame::fragments(listed, HOST, DATAGRAMS / 2)?),
            ),
            by(
                bad,
                "1,000 listed sources, spoofed",
                Traffic::Frames(spoofed),
            ),
        ])
    }

    /// Sends it and counts what arrives, until `settled` or for two seconds.
    pub(crate) fn send(
        &self,
        source: &Namespace,
        host: &Namespace,
        link: &Link,
        settled: impl Fn() -> Result<bool>,
    ) -> Result<Seen> {
        match &self.traffic {
            Traffic::Udp { from, to } => {
                let receiver = host.udp(*to)?;
                let sender = source.udp((*from, 0).into())?;
                for _ in 0..DATAGRAMS {
                    sender.send_to(frame::MARK, to)?;
                }
                wait(&settled)?;
                let mut arrived = 0;
                receiver.set_read_timeout(Some(SILENCE))?;
                while receiver.recv(&mut [0; 64]).is_ok() {
                    arrived += 1;
                }
                Ok(Seen {
                    sent: DATAGRAMS,
                    arrived,
                })
            }
            Traffic::Ping { from } => {
                let arrived = source.run(|| ping(*from))?;
                wait(&settled)?;
                Ok(Seen {
                    sent: PINGS,
                    arrived,
                })
            }
            Traffic::Tcp { from } => {
                let _listener = host.listen((HOST.parse::<IpAddr>()?, HTTP).into())?;
                let connected = source.run(|| connect(*from))?;
                wait(&settled)?;
                Ok(Seen {
                    sent: 1,
                    arrived: connected.into(),
                })
            }
            Traffic::Frames(frames) => {
                let sniffer = link.sniff()?;
                for bytes in frames {
                    link.send(bytes)?;
                }
                wait(&settled)?;
                Ok(Seen {
                    sent: frames.len() as u64,
                    arrived: sniffer.stop(),
                })
            }
        }
    }

    /// How many packets its rule must have seen. A connection that is let in has several.
    pub(crate) fn packets(&self) -> std::ops::RangeInclusive<u64> {
        match &self.traffic {
            Traffic::Udp { .. } => DATAGRAMS..=DATAGRAMS,
            Traffic::Ping { .. } => PINGS..=PINGS,
            Traffic::Tcp { .. } => 1..=10,
            Traffic::Frames(frames) => frames.len() as u64..=frames.len() as u64,
        }
    }
}

/// How many replies came.
fn ping(from: IpAddr) -> Result<u64> {
    let count = PINGS.to_string();
    let output = Command::new("ping")
        .args([
            "-n",
            "-q",
            "-i",
            "0.01",
            "-W",
            "1",
            "-c",
            &count,
            "-I",
            &from.to_string(),
            HOST,
        ])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let received = words
        .windows(2)
        .find(|pair| pair[1] == "received,")
        .map(|pair| pair[0]);
    Ok(received.ok_or(format!("ping says {text:?}"))?.parse()?)
}

/// Whether a connection came to be before its first packet would be sent again.
fn connect(from: IpAddr) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let connecting = socket.connect((HOST.parse::<IpAddr>()?, HTTP).into());
        Ok(tokio::time::timeout(Duration::from_millis(500), connecting)
            .await
            .is_ok_and(|c| c.is_ok()))
    })
}

fn wait(settled: impl Fn() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !settled()? && start.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Addresses from all over the list, but for one.
fn spread<'l>(list: &'l str, count: usize, but: &str) -> Vec<&'l str> {
    let addresses: Vec<&str> = list
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|address| *address != but)
        .collect();
    let step = (addresses.len() / count).max(1);
    addresses.into_iter().step_by(step).take(count).collect()
}

/// Nothing more comes when nothing came for so long.
const SILENCE: Duration = Duration::from_millis(50);
