//! Who is behind a proxy, and by which name it was called.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, StatusCode, header};
use xdpgate::policy::Prefix;

use super::problem::Problem;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The address of the client: that of the connection, unless that is of a proxy that is believed. Then it is the last
/// address of X-Forwarded-For or Forwarded that is of no such proxy: what stands before it, anybody can write.
///
/// Where both headers come, one of them is the client's own invention: neither is believed.
pub(super) fn client(peer: IpAddr, headers: &HeaderMap, proxies: &[Prefix]) -> IpAddr {
    let peer = peer.to_canonical();
    let trusted = |address: IpAddr| proxies.iter().any(|proxy| proxy.contains(address));
    let (plain, standard) = (
        headers.contains_key(X_FORWARDED_FOR),
        headers.contains_key(header::FORWARDED),
    );
    let name = match (plain, standard) {
        (true, false) => X_FORWARDED_FOR,
        (false, true) => header::FORWARDED.as_str(),
        _ => return peer,
    };
    // Lines of the same name are one list.
    let lines: Vec<&str> = headers
        .get_all(name)
        .iter()
        .map(|line| line.to_str().unwrap_or_default())
        .collect();
    let mut hops = lines.iter().rev().flat_map(|line| line.rsplit(','));
    let mut client = peer;
    while trusted(client) {
        let hop = hops.next().and_then(|hop| match standard {
            true => address(node(hop)?),
            false => address(hop),
        });
        match hop {
            Some(hop) => client = hop,
            None => break,
        }
    }
    client
}

/// `for` of an element of Forwarded (RFC 7239).
fn node(element: &str) -> Option<&str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    Some(value.trim().trim_matches('"'))
}

/// An address, with a port or without one.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse::<IpAddr>().ok();
    let address = address.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address| address.to_canonical())
}

/// Refuses calls by a name that is none of ours; `None` takes any. Addresses are always taken: a web site that makes its own
/// name lead here (DNS rebinding) cannot make a browser call by an address.
pub(super) fn check_host(headers: &HeaderMap, names: Option<&[String]>) -> Result<(), Problem> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (host, more) = (hosts.next(), hosts.next());
    if more.is_some() {
        let detail = "the header host comes more than once";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid", detail));
    }
    // No browser leaves it out.
    let (Some(host), Some(names)) = (host, names) else {
        return Ok(());
    };
    let host = host.to_str().unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let ours = |name: &str| names.iter().any(|own| own.eq_ignore_ascii_case(name));
    if address(host).is_some() || name.eq_ignore_ascii_case("localhost") || ours(name) {
        return Ok(());
    }
    let detail = "it is not called so";
    Err(
        Problem::new(StatusCode::MISDIRECTED_REQUEST, "host", detail)
            .mend("call it by its address, or name it in api.hosts"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, lines: &[(&'static str, &'static str)]) -> String {
        let proxies = ["10.0.0.0/8", "2001:db8::/32"].map(|proxy| proxy.parse().unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        client(peer.parse().unwrap(), &headers, &proxies).to_string()
    }

    #[test]
    fn the_client_is_the_last_address_that_no_trusted_proxy_has() {
        const XFF: &str = X_FORWARDED_FOR;
        let long = "198.51.100.9, 203.0.113.7, 10.9.9.9";
        assert_eq!(seen("10.0.0.1", &[(XFF, "203.0.113.7")]), "203.0.113.7");
        assert_eq!(seen("10.0.0.1", &[(XFF, long)]), "203.0.113.7");
        assert_eq!(
            seen("10.0.0.1", &[(XFF, "1.1.1.1"), (XFF, "203.0.113.7:4711")]),
            "203.0.113.7"
        );
        let standard = "for=1.1.1.1, For=\"[2001:db9::7]:4711\";proto=https;by=10.0.0.1";
        assert_eq!(
            seen("2001:db8::1", &[("forwarded", standard)]),
            "2001:db9::7"
        );
        assert_eq!(
            seen("::ffff:10.0.0.1", &[(XFF, "203.0.113.7")]),
            "203.0.113.7"
        );
        // All of them are proxies: the first one is the client.
        assert_eq!(seen("10.0.0.1", &[(XFF, "10.0.0.3, 10.0.0.2")]), "10.0.0.3");
    }

    #[test]
    fn what_is_not_known_is_not_believed() {
        const XFF: &str = X_FORWARDED_FOR;
        for (peer, lines, expected) in [
            ("203.0.113.9", &[(XFF, "1.1.1.1")][..], "203.0.113.9"),
            (
                "203.0.113.9",
                &[("forwarded", "for=1.1.1.1")],
                "203.0.113.9",
            ),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[(XFF, "1.1.1.1, unknown")], "10.0.0.1"),
            ("10.0.0.1", &[(XFF, "1.1.1.1, x, 10.0.0.2")], "10.0.0.2"),
            ("10.0.0.1", &[("forwarded", "for=_hidden")], "10.0.0.1"),
            // A quote that is not closed hides nothing of what the proxy adds.
            (
                "10.0.0.1",
                &[("forwarded", "for=\"1.1.1.1, for=203.0.113.7")],
                "203.0.113.7",
            ),
            (
                "10.0.0.1",
                &[(XFF, "203.0.113.7"), ("forwarded", "for=1.1.1.1")],
                "10.0.0.1",
            ),
        ] {
            assert_eq!(seen(peer, lines), expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn it_is_called_by_its_names_and_by_addresses() {
        let check = |host: &'static str, names: Option<&[String]>| {
            let mut headers = HeaderMap::new();
            headers.append(header::HOST, host.parse().unwrap());
            check_host(&headers, names).is_ok()
        };
        let names = ["fleet.example".to_owned()];
        for host in [
            "127.0.0.1:8480",
            "[::1]:8480",
            "::1",
            "localhost:1",
            "Fleet.Example",
            "fleet.example:443",
        ] {
            assert!(check(host, Some(&names)), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8480",
            "127.0.0.1.evil.example",
            "fleet.example.",
            "",
            "fleet.example:x",
        ] {
            assert!(!check(host, Some(&names)), "{host}");
        }
        assert!(check("evil.example", None));
        assert!(!check("fleet.example", Some(&[])));
    }
}
