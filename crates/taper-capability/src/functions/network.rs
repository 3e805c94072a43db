//! `in_network(networks)`: an address in one of some networks.

use ipnet::IpNet;
use std::net::IpAddr;

/// One network in its one spelling, no bit set after its length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network(IpNet);

impl Network {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let network: IpNet = text.parse().ok()?;
        let canonical = network.to_string() == text && network.trunc() == network;
        (canonical && !is_mapped(network.addr())).then_some(Self(network))
    }
}

/// Whether `text` is an address in its one spelling and in some network of its own family.
pub(super) fn is_in(text: &str, networks: &[Network]) -> bool {
    address(text).is_some_and(|address| networks.iter().any(|network| network.0.contains(&address)))
}

/// An address: dotted decimal, or RFC 5952. An IPv4-mapped one has two readings and is none.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    (!is_mapped(address) && address.to_string() == text).then_some(address)
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_one_spelling() {
        let check = |network: &str, text: &str, expected: Option<bool>| {
            let got = Network::parse(network).map(|network| is_in(text, &[network]));
            assert_eq!(got, expected, "{network} {text}");
        };
        check("10.0.0.0/8", "10.255.0.1", Some(true));
        check("10.0.0.0/8", "11.0.0.1", Some(false));
        check("0.0.0.0/0", "255.255.255.255", Some(true));
        check("192.0.2.7/32", "192.0.2.7", Some(true));
        check("2001:db8::/32", "2001:db8::1", Some(true));
        check("::/0", "2001:db8::1", Some(true));
        check("::/0", "10.0.0.1", Some(false));
        check("0.0.0.0/0", "::1", Some(false));
        for text in [
            "",
            "10.0.0.1 ",
            "010.0.0.1",
            "10.1",
            "167772161",
            "0x0a000001",
            "::ffff:10.0.0.1",
            "10.0.0.1/8",
            "10.0.0.256",
        ] {
            check("10.0.0.0/8", text, Some(false));
        }
        for text in [
            "2001:DB8::1",
            "2001:db8:0::1",
            "2001:db8::0001",
            "[2001:db8::1]",
            "2001:db8::1%eth0",
        ] {
            check("2001:db8::/32", text, Some(false));
        }
        for network in [
            "10.0.0.0",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/08",
            "10/8",
            "2001:DB8::/32",
            "::ffff:10.0.0.0/104",
            "",
        ] {
            check(network, "10.0.0.1", None);
        }
    }
}
