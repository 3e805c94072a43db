//! The extern functions: values that fit, values that do not, and look-alikes (R-22, R-25).

use crate::book::Book;

pub(crate) fn vectors(book: &mut Book) {
    paths(book);
    hosts(book);
    networks(book);
    patterns(book);
    hours(book);
}

/// Calls with one argument `v`, under one check on it.
struct Function<'a> {
    book: &'a mut Book,
    folder: &'static str,
    check: String,
}

impl<'a> Function<'a> {
    fn new(book: &'a mut Book, folder: &'static str, call: &str) -> Self {
        let check = format!("check if args($args), $args.get(\"v\").extern::{call}");
        Self { book, folder, check }
    }

    fn fits(&mut self, name: &str, value: &str) {
        let description = format!("`{value}` fits `{}`.", self.call());
        self.book
            .accept(&format!("{}/{name}", self.folder), &description, |s| {
                s.check(&self.check);
                s.arguments(&argument(value));
            });
    }

    fn not(&mut self, name: &str, value: &str) {
        let description = format!("`{}` does not fit `{}`.", value.escape_debug(), self.call());
        let name = format!("{}/{name}", self.folder);
        self.book.refuse(&name, &description, "R-22", "accepted", |s| {
            s.check(&self.check);
            s.arguments(&argument(value));
        });
    }

    fn error(&mut self, name: &str, arguments: &str) {
        let description = format!(
            "The arguments `{arguments}` end in an error under `{}`.",
            self.call()
        );
        let name = format!("{}/{name}", self.folder);
        self.book.refuse(&name, &description, "R-25", "accepted", |s| {
            s.check(&self.check);
            s.arguments(arguments);
        });
    }

    fn call(&self) -> &str {
        self.check.split("extern::").nth(1).unwrap_or_default()
    }
}

fn argument(value: &str) -> String {
    serde_json::json!({ "v": value }).to_string()
}

fn paths(book: &mut Book) {
    let mut within = Function::new(book, "path", "path_within(\"/srv/data\")");
    within.fits("below", "/srv/data/a/b.txt");
    within.fits("itself", "/srv/data");
    within.fits("dots-in-a-name", "/srv/data/..a/b..c");
    within.not("look-alike", "/srv/data-evil/a");
    within.not("above", "/srv");
    within.not("parent", "/srv/data/../secret");
    within.not("parent-at-the-end", "/srv/data/a/..");
    within.not("current", "/srv/data/./a");
    within.not("empty-segment", "/srv/data//a");
    within.not("slash-at-the-end", "/srv/data/a/");
    within.not("two-slashes", "//srv/data/a");
    within.not("relative", "srv/data/a");
    within.not("backslash", "/srv/data\\..\\secret");
    within.not("escaped", "/srv/data/%2e%2e/secret");
    within.not("home", "~/srv/data");
    within.not("control", "/srv/data/a\u{1}b");
    within.not("newline", "/srv/data/a\n");
    within.not("space-at-the-end", "/srv/data/.. /secret");
    within.not("dot-at-the-end", "/srv/data/a./b");
    within.not("capitals", "/SRV/data/a");
    within.not("empty", "");
    within.not("too-long", &format!("/srv/data/{}", "a/".repeat(2050)));
    within.error("missing", "{}");
    within.error("number", r#"{"v":1}"#);
    within.error("array", r#"{"v":["/srv/data/a"]}"#);
    let mut relative = Function::new(book, "path", "path_within(\"docs\")");
    relative.fits("relative-below", "docs/a");
    relative.not("relative-absolute", "/docs/a");
    relative.not("relative-home", "~docs/a");
    let mut all = Function::new(book, "path", "path_within(\"/\")");
    all.fits("below-the-root", "/etc/passwd");
    all.fits("the-root", "/");
    all.not("not-below-the-root", "etc/passwd");
}

fn hosts(book: &mut Book) {
    let mut host = Function::new(book, "url", "url_host({\"https://example.com\"})");
    host.fits("host", "https://example.com/a?b=c#d");
    host.fits("bare", "https://example.com");
    host.not("other-scheme", "http://example.com/");
    host.not("other-host", "https://example.org/");
    host.not("longer-host", "https://example.com.evil.example/");
    host.not("sub-host", "https://www.example.com/");
    host.not("user", "https://example.com@evil.example/");
    host.not("user-before", "https://evil@example.com/");
    host.not("password", "https://a:b@example.com/");
    host.not("capitals", "https://EXAMPLE.com/");
    host.not("scheme-in-capitals", "HTTPS://example.com/");
    host.not("dot-at-the-end", "https://example.com./");
    host.not("other-port", "https://example.com:8443/");
    host.not("default-port", "https://example.com:443/");
    host.not("no-port", "https://example.com:/");
    host.not("backslash", "https://example.com\\@evil.example/");
    host.not("parent", "https://example.com/a/../b");
    host.not("parent-escaped", "https://example.com/a/%2E%2e/b");
    host.not("bad-escape", "https://example.com/%zz");
    host.not("space", " https://example.com/");
    host.not("newline", "https://example.com/\n");
    host.not("tab-in-the-host", "https://exam\tple.com/");
    host.not("three-slashes", "https:///example.com/");
    host.not("no-slashes", "https:example.com/");
    host.not("script-letter", "https://exаmple.com/");
    host.not("empty", "");
    host.not("too-long", &format!("https://example.com/{}", "a".repeat(2048)));
    host.error("missing", "{}");
    host.error("number", r#"{"v":1}"#);
    let mut any = Function::new(
        book,
        "url",
        "url_host({\"127.0.0.1\", \"[::1]\", \"*.example.com\"})",
    );
    any.fits("either-scheme", "http://127.0.0.1/");
    any.fits("ipv6", "https://[::1]/");
    any.fits("star", "https://a.b.example.com/");
    any.not("star-needs-a-label", "https://example.com/");
    any.not("star-look-alike", "https://evilexample.com/");
    any.not("decimal", "http://2130706433/");
    any.not("hexadecimal", "http://0x7f.0.0.1/");
    any.not("octal", "http://0177.0.0.1/");
    any.not("short", "http://127.1/");
    any.not("ipv6-long", "https://[0:0:0:0:0:0:0:1]/");
    any.not("ipv6-mapped", "https://[::ffff:127.0.0.1]/");
    any.not("ipv6-zone", "https://[::1%25lo]/");
    let mut port = Function::new(book, "url", "url_host({\"https://example.com:8443\"})");
    port.fits("port", "https://example.com:8443/");
    port.not("port-missing", "https://example.com/");
    port.not("port-leading-zero", "https://example.com:08443/");
}

fn networks(book: &mut Book) {
    let mut network = Function::new(book, "network", "in_network({\"10.0.0.0/8\", \"2001:db8::/32\"})");
    network.fits("first", "10.0.0.0");
    network.fits("last", "10.255.255.255");
    network.fits("ipv6", "2001:db8::1");
    network.not("next", "11.0.0.0");
    network.not("octal", "010.0.0.1");
    network.not("hexadecimal", "0xa.0.0.1");
    network.not("decimal", "167772161");
    network.not("short", "10.1");
    network.not("mapped", "::ffff:10.0.0.1");
    network.not("ipv6-long", "2001:0db8::1");
    network.not("ipv6-capitals", "2001:DB8::1");
    network.not("ipv6-zone", "2001:db8::1%eth0");
    network.not("with-port", "10.0.0.1:80");
    network.not("with-length", "10.0.0.1/32");
    network.not("space", "10.0.0.1 ");
    network.not("empty", "");
    network.error("missing", "{}");
    network.error("number", r#"{"v":167772161}"#);
    const CLIENT: &str = "check if client_ip($client_ip), $client_ip.extern::in_network({\"10.0.0.0/8\"})";
    book.accept("network/client", "The client's address is in the network.", |s| {
        s.check(CLIENT);
        s.access.client_ip = Some("10.1.2.3");
    });
    for (name, description, address) in [
        (
            "client-elsewhere",
            "The client's address is not in the network.",
            Some("192.0.2.1"),
        ),
        (
            "client-ipv6",
            "The client's address is of the other family.",
            Some("2001:db8::1"),
        ),
        ("client-unknown", "The client's address is not known.", None),
    ] {
        book.refuse(&format!("network/{name}"), description, "R-22", "accepted", |s| {
            s.check(CLIENT);
            s.access.client_ip = address;
        });
    }
}

fn patterns(book: &mut Book) {
    let mut matching = Function::new(book, "pattern", "full_match(\"v[0-9]+\\\\.[0-9]{1,3}\")");
    matching.fits("whole", "v1.20");
    matching.not("part-at-the-start", "v1.20-evil");
    matching.not("part-at-the-end", "evil-v1.20");
    matching.not("newline", "v1.20\n");
    matching.not("lines", "v1.20\nv1.20");
    matching.not("dot-is-no-dot", "v1x20");
    matching.not("digit-of-another-script", "v١.20");
    matching.not("too-often", "v1.2000");
    matching.not("empty", "");
    matching.not("too-long", &format!("v{}.1", "1".repeat(1023)));
    matching.error("missing", "{}");
    matching.error("number", r#"{"v":1.20}"#);
    let mut either = Function::new(book, "pattern", "full_match(\"main|release-.*\")");
    either.fits("branch", "release-é");
    either.not("branch-anchored", "main2");
    either.not("dot-and-newline", "release-\n");
}

fn hours(book: &mut Book) {
    let mut at = |name: &str, hours: &str, time: &str, unix: i64, fits: bool| {
        let check = format!("check if time($time), $time.extern::in_hours(\"{hours}\")");
        // The token lives for a day around.
        let bend = |s: &mut crate::scene::Scene| {
            s.time = unix;
            s.grant.ends("2027-02-01T00:00:00Z");
            s.narrow().ends("2027-02-01T00:00:00Z").add(&check);
        };
        if fits {
            book.accept(
                &format!("hours/{name}"),
                &format!("{time} is within `{hours}`."),
                bend,
            );
        } else {
            let description = format!("{time} is not within `{hours}`.");
            book.refuse(&format!("hours/{name}"), &description, "R-22", "accepted", bend);
        }
    };
    // 2027-01-15 is a Friday, and began at this second.
    let friday = 1_799_971_200;
    let (hour, minute, day) = (3600, 60, 86_400);
    let work = "09:00/17:30/Z/12345";
    at("first-second", work, "Friday 09:00:00", friday + 9 * hour, true);
    at(
        "before-the-first",
        work,
        "Friday 08:59:59",
        friday + 9 * hour - 1,
        false,
    );
    at(
        "last-second",
        work,
        "Friday 17:29:59",
        friday + 17 * hour + 30 * minute - 1,
        true,
    );
    at(
        "after-the-last",
        work,
        "Friday 17:30:00",
        friday + 17 * hour + 30 * minute,
        false,
    );
    at(
        "another-day",
        work,
        "Saturday 10:00:00",
        friday + day + 10 * hour,
        false,
    );
    let night = "22:00/06:00/Z/5";
    at("night-begins", night, "Friday 22:00:00", friday + 22 * hour, true);
    at(
        "night-goes-on",
        night,
        "Saturday 05:59:59",
        friday + day + 6 * hour - 1,
        true,
    );
    at(
        "night-ends",
        night,
        "Saturday 06:00:00",
        friday + day + 6 * hour,
        false,
    );
    at(
        "night-of-the-day-before",
        night,
        "Friday 05:00:00",
        friday + 5 * hour,
        false,
    );
    at(
        "night-of-the-day-after",
        night,
        "Saturday 22:00:00",
        friday + day + 22 * hour,
        false,
    );
    let east = "00:00/24:00/+02:00/6";
    at(
        "east-of-midnight",
        east,
        "Friday 22:00:00 UTC",
        friday + 22 * hour,
        true,
    );
    at(
        "east-before-midnight",
        east,
        "Friday 21:59:59 UTC",
        friday + 22 * hour - 1,
        false,
    );
    let west = "20:00/24:00/-05:30/4";
    at(
        "west-of-midnight",
        west,
        "Friday 05:29:59 UTC",
        friday + 5 * hour + 30 * minute - 1,
        true,
    );
    at(
        "west-after-midnight",
        west,
        "Friday 05:30:00 UTC",
        friday + 5 * hour + 30 * minute,
        false,
    );
    at(
        "sunday-is-seven",
        "00:00/24:00/Z/7",
        "Sunday 12:00:00",
        friday + 2 * day + 12 * hour,
        true,
    );
    at(
        "week-wraps",
        "22:00/06:00/Z/7",
        "Monday 05:00:00",
        friday + 3 * day + 5 * hour,
        true,
    );
}
