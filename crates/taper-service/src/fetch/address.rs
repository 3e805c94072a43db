//! Which hosts and addresses may be called: the public internet, and what the operator names.
//!
//! A URL that came from outside (a client's metadata document, a key set named in a token) must not
//! reach the machine's own network. The check is made on the addresses that are then connected to,
//! after name resolution, so a name cannot answer differently to the check and to the call.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Host;

/// Which addresses one host may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Any: the operator trusts the host.
    Any,
    /// This machine's loopback only.
    Loopback,
    /// Globally reachable ones only.
    Public,
}

/// The operator's rules for hosts.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    trusted: BTreeSet<String>,
    loopback: bool,
}

/// No address of a host may be called.
#[derive(Debug, thiserror::Error)]
#[error("no address of `{host}` may be called")]
pub(super) struct Refused {
    pub(super) host: String,
}

impl Reach {
    pub(super) fn covers(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Loopback => address.is_loopback(),
            Self::Public => is_public(address),
        }
    }
}

impl Hosts {
    pub(super) fn new(trusted: &[String], loopback: bool) -> Self {
        let plain = |host: &String| {
            host.trim_start_matches('[')
                .trim_end_matches(']')
                .to_ascii_lowercase()
        };
        Self {
            trusted: trusted.iter().map(plain).collect(),
            loopback,
        }
    }

    /// How far a call to `host` may reach.
    pub(super) fn reach<S: AsRef<str>>(&self, host: &Host<S>) -> Reach {
        let name = match host {
            Host::Domain(name) => name.as_ref().to_ascii_lowercase(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        if self.trusted.contains(&name) {
            Reach::Any
        } else if self.allows_clear_text(host) {
            Reach::Loopback
        } else {
            Reach::Public
        }
    }

    /// Whether `host` is this machine and may be called without TLS.
    pub(super) fn allows_clear_text<S: AsRef<str>>(&self, host: &Host<S>) -> bool {
        let is_loopback = match host {
            Host::Domain(name) => name.as_ref() == "localhost",
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        };
        is_loopback && self.loopback
    }
}

/// Resolves names with the operating system and lets only permitted addresses through.
pub(super) struct GuardedResolver(pub(super) Arc<Hosts>);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let reach = self.0.reach(&Host::Domain(host.as_str()));
        Box::pin(async move {
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            let permitted: Vec<SocketAddr> = found.filter(|address| reach.covers(address.ip())).collect();
            if permitted.is_empty() {
                return Err(Refused { host }.into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

/// Whether `address` is globally reachable unicast, after the IANA special-purpose registries
/// (RFC 6890 and its successors). An IPv6 address that carries an IPv4 one is judged by that.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = match (a, b, c) {
        // This network, private, loopback, multicast and above.
        (0 | 10 | 127 | 224.., ..) => true,
        // Shared address space (carrier NAT).
        (100, 64..=127, _) => true,
        // Link-local, where cloud machines keep their credentials.
        (169, 254, _) => true,
        (172, 16..=31, _) | (192, 168, _) => true,
        // Protocol assignments, documentation, 6to4 relays.
        (192, 0, 0 | 2) | (192, 88, 99) => true,
        // Benchmarks, documentation.
        (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) => true,
        _ => false,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let carried = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        // IPv4-mapped; NAT64.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => carried(high, low),
        // 6to4.
        [0x2002, high, low, ..] => carried(high, low),
        // Protocol assignments with Teredo, documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Global unicast is 2000::/3; everything else is special.
        [first, ..] => (0x2000..=0x3fff).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |text: &str, public: bool| {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(is_public(address), public, "{text}");
            assert_eq!(Reach::Public.covers(address), public, "{text}");
            assert!(Reach::Any.covers(address), "{text}");
        };
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            check(public, true);
        }
        for special in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.1.2.3",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "2002:a00:1::",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "100::1",
            "5f00::1",
        ] {
            check(special, false);
        }
    }

    #[test]
    fn hosts() {
        let trusted = [
            "Idp.Internal".to_owned(),
            "10.0.0.5".to_owned(),
            "[fd00::5]".to_owned(),
        ];
        let check = |host: &str, loopback: bool, reach: Reach, clear_text: bool| {
            let hosts = Hosts::new(&trusted, loopback);
            let host = Host::parse(host).unwrap();
            assert_eq!(hosts.reach(&host), reach, "{host}");
            assert_eq!(hosts.allows_clear_text(&host), clear_text, "{host}");
        };
        check("idp.internal", false, Reach::Any, false);
        check("10.0.0.5", true, Reach::Any, false);
        check("[fd00::5]", true, Reach::Any, false);
        check("sub.idp.internal", true, Reach::Public, false);
        check("example.com", true, Reach::Public, false);
        check("localhost", true, Reach::Loopback, true);
        check("127.0.0.9", true, Reach::Loopback, true);
        check("[::1]", true, Reach::Loopback, true);
        check("localhost", false, Reach::Public, false);
        check("127.0.0.1", false, Reach::Public, false);
        check("localhost.example.com", true, Reach::Public, false);
        check("10.0.0.1", true, Reach::Public, false);
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_this_machine_is_refused() {
        let resolved = async |loopback: bool| {
            let resolver = GuardedResolver(Arc::new(Hosts::new(&[], loopback)));
            resolver
                .resolve("localhost".parse().unwrap())
                .await
                .map(|found| found.count())
        };
        assert!(resolved(false).await.err().is_some_and(|e| e.is::<Refused>()));
        assert!(resolved(true).await.is_ok_and(|count| count > 0));
    }
}
