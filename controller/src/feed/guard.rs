//! Which addresses the controller goes to when a feed says so. Who may make feeds could else have the controller read what
//! only it can reach: services on its own host, in its network, or those that give cloud machines their credentials.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use xdpgate::policy::Prefix;

/// Addresses that are on the internet, and those that were allowed.
#[derive(Debug, Clone, Default)]
pub(super) struct Guard {
    /// Prefixes that are not on the internet, and may be reached.
    pub allowed: Arc<[Prefix]>,
}

/// IPv4 prefixes that are not on the internet (IANA's special-purpose registry), and one that is, where Azure has
/// what its machines ask for credentials.
const NOT_PUBLIC_V4: [(Ipv4Addr, u8); 17] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 31, 196, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// What of 2000::/3, which is all of the IPv6 internet, is not on it, or is an IPv4 address in disguise.
const NOT_PUBLIC_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Why an address is not gone to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It is no URL.
    #[error("{0:?} is not a URL, as https://lists.example/bad.txt")]
    NoUrl(String),
    /// It has a user or a password, which everybody who sees the feed would see.
    #[error("a user or password in a URL is shown to everybody who sees the feed: leave it out")]
    Secret,
    /// It is not encrypted.
    #[error("{0}: only https://, and http:// from loopback")]
    Scheme(String),
    /// It is not on the internet.
    #[error(
        "{0} is not an address on the internet: allow it in the controller's configuration, feeds.allow_private, if it is right"
    )]
    Private(String),
}

impl Guard {
    /// Whether this address may be reached.
    pub(super) fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) || self.allowed.iter().any(|prefix| prefix.contains(address))
    }
}

fn is_public(address: IpAddr) -> bool {
    let within = |prefix: (IpAddr, u8)| {
        Prefix::new(prefix.0, prefix.1).is_none_or(|prefix| prefix.contains(address))
    };
    match address {
        IpAddr::V4(_) => !NOT_PUBLIC_V4.iter().any(|(a, l)| within(((*a).into(), *l))),
        IpAddr::V6(v6) => {
            v6.segments()[0] >> 13 == 1
                && !NOT_PUBLIC_V6.iter().any(|(a, l)| within(((*a).into(), *l)))
        }
    }
}

/// The URL of a text, if it may be gone to. Names are judged when they are [resolved](Resolve).
pub(super) fn check_url(text: &str, guard: &Guard) -> Result<Url, UrlError> {
    let url = Url::parse(text).map_err(|_| UrlError::NoUrl(text.to_owned()))?;
    check(&url, guard)?;
    Ok(url)
}

/// [`check_url`], of a URL.
pub(super) fn check(url: &Url, guard: &Guard) -> Result<(), UrlError> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlError::Secret);
    }
    let host = url
        .host_str()
        .ok_or_else(|| UrlError::NoUrl(url.to_string()))?;
    let literal = host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    let is_loopback =
        host == "localhost" || literal.is_some_and(|a| a.to_canonical().is_loopback());
    match url.scheme() {
        "https" => {}
        "http" if is_loopback => {}
        _ => return Err(UrlError::Scheme(url.to_string())),
    }
    match literal {
        Some(address) if !guard.allows(address) => Err(UrlError::Private(host.to_owned())),
        _ => Ok(()),
    }
}

/// Only the addresses of a name that may be reached: those are the ones that are connected to.
impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let host = name.as_str();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            let good: Vec<SocketAddr> = found
                .iter()
                .copied()
                .filter(|a| guard.allows(a.ip()))
                .collect();
            match found.first() {
                Some(first) if good.is_empty() => {
                    Err(UrlError::Private(format!("{host} ({})", first.ip())).into())
                }
                _ => Ok(Box::new(good.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r117_what_is_not_on_the_internet_is_not_reached() {
        let guard = Guard::default();
        for bad in [
            "127.0.0.1",
            "10.0.0.1",
            "169.254.169.254",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "0.0.0.0",
            "172.31.255.255",
            "192.168.1.1",
            "255.255.255.255",
            "224.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::",
            "2001:db8::1",
            "ff02::1",
        ] {
            assert!(!guard.allows(bad.parse().unwrap()), "{bad}");
        }
        for good in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "2a00::1",
            "::ffff:1.1.1.1",
        ] {
            assert!(guard.allows(good.parse().unwrap()), "{good}");
        }
    }

    #[test]
    fn r117_urls_are_judged_by_their_words() {
        let guard = Guard {
            allowed: ["127.0.0.0/8".parse().unwrap()].into(),
        };
        for (url, reason) in [
            ("https://lists.example/a", ""),
            ("http://127.0.0.1:8080/a", ""),
            ("http://lists.example/a", "only https"),
            ("http://127.0.0.1.example/a", "only https"),
            ("ftp://lists.example/a", "only https"),
            ("file:///etc/passwd", "not a URL"),
            ("https://u:p@lists.example/a", "user or password"),
            (
                "https://169.254.169.254/latest",
                "not an address on the internet",
            ),
            (
                "https://2852039166/latest",
                "not an address on the internet",
            ),
            (
                "https://[::ffff:10.0.0.1]/",
                "not an address on the internet",
            ),
            ("lists.example", "not a URL"),
        ] {
            match check_url(url, &guard) {
                Ok(_) => assert_eq!(reason, "", "{url}"),
                Err(error) => assert!(
                    !reason.is_empty() && error.to_string().contains(reason),
                    "{url}: {error}"
                ),
            }
        }
    }
}
