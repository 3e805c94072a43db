//! `url_host(hosts)`: a plain URL at one of some hosts.
//!
//! Parsers disagree about unusual URLs, and the one behind the boundary is not ours. So only URLs
//! that every parser reads alike are looked at: the grammar of RFC 3986 in lower case, without user
//! information, with a host that nobody takes for another.

use super::network::address;
use std::net::IpAddr;

const MAX_URL: usize = 2_048;
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// One entry, `[scheme://]host[:port]`.
#[derive(Clone, Debug)]
pub(crate) struct HostEntry {
    scheme: Option<Scheme>,
    /// The host; a name after `*.`, when `below` is set.
    host: String,
    below: bool,
    port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl HostEntry {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = match split_scheme(text) {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, text),
        };
        let (host, port) = host_and_port(rest)?;
        if scheme.is_some_and(|scheme| port == Some(scheme.default_port())) {
            return None;
        }
        let (host, below) = match host.strip_prefix("*.") {
            Some(name) if is_name(name) => (name, true),
            None if is_host(host) => (host, false),
            _ => return None,
        };
        Some(Self {
            scheme,
            host: host.to_owned(),
            below,
            port,
        })
    }

    fn matches(&self, scheme: Scheme, host: &str, port: u16) -> bool {
        let host_fits = if self.below {
            host.strip_suffix(self.host.as_str())
                .is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
        } else {
            host == self.host
        };
        self.scheme.is_none_or(|wanted| wanted == scheme)
            && host_fits
            && port == self.port.unwrap_or(scheme.default_port())
    }
}

/// Whether `text` is a plain URL whose scheme, host and port are those of an entry.
pub(super) fn is_at(text: &str, entries: &[HostEntry]) -> bool {
    plain(text)
        .is_some_and(|(scheme, host, port)| entries.iter().any(|entry| entry.matches(scheme, host, port)))
}

fn plain(text: &str) -> Option<(Scheme, &str, u16)> {
    if text.len() > MAX_URL {
        return None;
    }
    let (scheme, rest) = split_scheme(text)?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at_checked(end)?;
    let (host, port) = host_and_port(authority)?;
    let plain = is_host(host) && port != Some(scheme.default_port()) && is_rest(rest);
    plain.then(|| (scheme, host, port.unwrap_or(scheme.default_port())))
}

fn split_scheme(text: &str) -> Option<(Scheme, &str)> {
    let https = text.strip_prefix("https://").map(|rest| (Scheme::Https, rest));
    https.or_else(|| text.strip_prefix("http://").map(|rest| (Scheme::Http, rest)))
}

fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let after_bracket = authority.rfind(']').map_or(0, |at| at + 1);
    let Some(colon) = authority.get(after_bracket..)?.find(':') else {
        return Some((authority, None));
    };
    let (host, port) = authority.split_at_checked(after_bracket + colon)?;
    let port = port.strip_prefix(':')?;
    let number: u16 = port.parse().ok()?;
    // `parse` takes `+80` and `080`, too.
    (number > 0 && number.to_string() == port).then_some((host, Some(number)))
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(literal) => matches!(address(literal), Some(IpAddr::V6(_))),
        None => is_name(host) || matches!(address(host), Some(IpAddr::V4(_))),
    }
}

fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    // A last label that begins with a digit may be read as a number, and the name as an address.
    name.len() <= MAX_NAME && name.split('.').all(label) && last.starts_with(|c: char| c.is_ascii_lowercase())
}

/// Path, query and fragment: characters of RFC 3986 only, and no segment that is `.` or `..`.
fn is_rest(rest: &str) -> bool {
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let Some((path, tail)) = rest.split_at_checked(end) else {
        return false;
    };
    let (query, fragment) = tail.split_once('#').unwrap_or((tail, ""));
    let dots = |segment: &str| {
        let plain = segment.replace("%2e", ".").replace("%2E", ".");
        plain == "." || plain == ".."
    };
    is_chars(path, b"/") && is_chars(query, b"/?") && is_chars(fragment, b"/?") && !path.split('/').any(dots)
}

fn is_chars(text: &str, more: &[u8]) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let ok = match byte {
            b'%' => {
                let hex = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_hexdigit());
                hex(bytes.next()) && hex(bytes.next())
            }
            _ => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) || more.contains(&byte),
        };
        if !ok {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(entry: &str, url: &str, expected: Option<bool>) {
        let got = HostEntry::parse(entry).map(|entry| is_at(url, &[entry]));
        assert_eq!(got, expected, "{entry} {url}");
    }

    #[test]
    fn plain_urls_match_by_scheme_host_and_port() {
        for url in [
            "https://example.com",
            "https://example.com/",
            "http://example.com/a/b?c=d/e?f#g/h",
            "https://example.com?q",
            "https://example.com#f",
            "https://example.com/a%20b/%2F",
            "https://example.com//x",
        ] {
            check("example.com", url, Some(true));
        }
        check("https://example.com", "http://example.com/", Some(false));
        check(
            "https://example.com:8443",
            "https://example.com:8443/",
            Some(true),
        );
        check("https://example.com:8443", "https://example.com/", Some(false));
        check("example.com:443", "https://example.com/", Some(true));
        check("example.com:443", "http://example.com:443/", Some(true));
        check("example.com:443", "http://example.com/", Some(false));
        check("*.example.com", "https://a.b.example.com/", Some(true));
        check("*.example.com", "https://example.com/", Some(false));
        check("*.example.com", "https://evilexample.com/", Some(false));
        check("*.example.com", "https://.example.com/", Some(false));
        check("192.0.2.1", "http://192.0.2.1/", Some(true));
        check("[2001:db8::1]:8080", "http://[2001:db8::1]:8080/x", Some(true));
        check(
            "xn--bcher-kva.example",
            "https://xn--bcher-kva.example/",
            Some(true),
        );
    }

    #[test]
    fn what_parsers_read_differently_is_denied() {
        for url in [
            "",
            "example.com",
            "//example.com",
            "https:/example.com",
            "HTTPS://example.com",
            "https://EXAMPLE.com/",
            "https://example.com.",
            "https://example.com:443/",
            "https://example.com:/",
            "https://example.com:0443/",
            "https://example.com:+443/",
            "https://example.com:0/",
            "https://example.com:65536/",
            "https://user@example.com/",
            "https://example.com@evil.example/",
            "https://example.com:x@evil.example/",
            "https://example.com\\@evil.example/",
            "https://example.com/\\evil",
            "https://example.com\t/",
            " https://example.com/",
            "https://example.com/ ",
            "https://example.com/../x",
            "https://example.com/a/%2e%2E/x",
            "https://example.com/.",
            "https://example.com/é",
            "https://example.com/%zz",
            "https://example.com/%2",
            "https://example.com/|",
            "https://example.com?a#b#c",
            "ftp://example.com/",
            "https://example.com\n",
            "https://ex\u{e4}mple.com/",
            "https://example。com/",
            "https://[example.com]/",
            "https://example_com/",
        ] {
            check("example.com", url, Some(false));
        }
        for url in [
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://127.0.0.1./",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://127.0.0.01/",
        ] {
            check("127.0.0.1", url, Some(false));
        }
        for url in [
            "http://[::1%25lo]/",
            "http://[0::1]/",
            "http://::1/",
            "http://[::1]x/",
            "http://[::1]:/",
        ] {
            check("[::1]", url, Some(false));
        }
        let long = format!("https://example.com/{}", "a".repeat(MAX_URL));
        check("example.com", &long, Some(false));
    }

    #[test]
    fn entries_have_one_spelling() {
        for entry in [
            "",
            "*",
            "*.",
            "*.*.example.com",
            "a.*.com",
            "Example.com",
            "example.com/",
            "https://example.com/",
            "https://example.com:443",
            "http://example.com:80",
            "example.com:",
            "example.com:080",
            "ftp://example.com",
            "user@example.com",
            "127.1",
            "1",
            "a.1",
            "-a.example",
            "a-.example",
            "a..b",
            ".a",
            "*.127.0.0.1",
            "::1",
            "[::1",
            "[127.0.0.1]",
            "example.com.",
            "exam ple.com",
        ] {
            check(entry, "https://example.com/", None);
        }
        check(
            &format!("{}.example", "a".repeat(MAX_LABEL + 1)),
            "https://example.com/",
            None,
        );
    }

    proptest! {
        /// What counts as plain here, a WHATWG parser reads as the same host and port, and writes
        /// back unchanged but for the `/` of an empty path.
        #[test]
        fn a_whatwg_parser_agrees(url in "https?://([a-z0-9.:@\\[\\]-]{1,12}|[a-z]{1,3}\\.[a-z]{2}|127\\.0\\.0\\.1|\\[::1\\])(:[0-9]{1,4})?[/?#]?[a-z./%2e?#:@~!-]{0,12}") {
            if let Some((_, host, port)) = plain(&url) {
                let parsed = ::url::Url::parse(&url).unwrap();
                prop_assert_eq!(parsed.host_str(), Some(host));
                prop_assert_eq!(parsed.port_or_known_default(), Some(port));
                prop_assert_eq!(parsed.username(), "");
                let start = url.find("//").unwrap() + 2;
                let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
                let slash = if url[end..].starts_with('/') { "" } else { "/" };
                prop_assert_eq!(parsed.as_str(), format!("{}{slash}{}", &url[..end], &url[end..]));
            }
        }
    }
}
