"""The extern functions, value by value."""

import ipaddress
import time
import unittest

from taper_reference import functions
from taper_reference.functions import in_hours, parse_address, parse_host_entry, parse_hours, parse_network
from taper_reference.pattern import parse_pattern


class Paths(unittest.TestCase):
    def test_canonical(self) -> None:
        for path in ("/", "a", "/a", "a/b", "/srv/..data", "/srv/.hidden", "/ä", "/" + "a" * 4_095, "a~", "/~"):
            self.assertTrue(functions.is_canonical_path(path), path)
        for path in (
            "",
            "//",
            "/a/",
            "a//b",
            ".",
            "..",
            "/a/..",
            "/a/.",
            "a/../b",
            "a.",
            "/a /b",
            "~",
            "~root",
            "a\\b",
        ):
            self.assertFalse(functions.is_canonical_path(path), path)
        for path in ("a%2e", "%", "a\0", "a\nb", "a\x7f", "/" + "a" * 4_096, "/" + "ä" * 2_048, "a/ ", "..."):
            self.assertFalse(functions.is_canonical_path(path), path)

    def test_within(self) -> None:
        for path in ("/srv", "/srv/a", "/srv/a/b"):
            self.assertTrue(functions.path_within(path, "/srv"), path)
        for path in ("/srvx", "srv/a", "/SRV/a", "/", "/srv/../etc", "/srv/", "/srv//a", "/etc"):
            self.assertFalse(functions.path_within(path, "/srv"), path)
        self.assertTrue(functions.path_within("/", "/"))
        self.assertTrue(functions.path_within("/etc", "/"))
        self.assertFalse(functions.path_within("etc", "/"))
        self.assertTrue(functions.path_within("src/a", "src"))
        self.assertFalse(functions.path_within("/src/a", "src"))
        self.assertFalse(functions.is_root("/" + "a" * 1_024))


class Urls(unittest.TestCase):
    def test_entries(self) -> None:
        for text in (
            "example.com", "https://example.com", "http://example.com:8080", "*.example.com", "localhost", "1.2.3.4",
            "[::1]", "https://[2001:db8::1]:8443", "example.com:443", "http://example.com:443", "xn--bcher-kva.example",
            "a-b.c1", "https://*.example.com:1",
        ):  # fmt: skip
            self.assertIsNotNone(parse_host_entry(text), text)
        for text in (
            "", "https://", "EXAMPLE.com", "https://example.com:443", "http://example.com:80", "ftp://example.com", "*",
            "*.1.2.3.4", "*.[::1]", "a.*.b", "*.*.b", "example.com.", "example.com/", "user@example.com", "-a.b", "a-.b", "a..b",
            "1.2.3", "01.2.3.4", "256.2.3.4", "0x7f.1", "2130706433", "example.1", "::1", "[::1", "[::ffff:1.2.3.4]",
            "[::ffff:102:304]", "[0:0::1]", "[::1%1]", "[1.2.3.4]", "example.com:", "example.com:0", "example.com:080",
            "example.com:65536", "bücher.example", "a" * 64 + ".b", "a_b.c", " a", "a\n", "https://https://a",
        ):  # fmt: skip
            self.assertIsNone(parse_host_entry(text), text)

    def fits(self, url: str, *entries: str) -> bool:
        parsed = [parse_host_entry(entry) for entry in entries]
        return functions.url_host(url, [entry for entry in parsed if entry is not None])

    def test_fits(self) -> None:
        for url, entry in (
            ("https://example.com", "https://example.com"),
            ("https://example.com/", "example.com"),
            ("http://example.com/a//b;c=d?x=/?#y", "example.com"),
            ("https://example.com/%41%2F", "https://example.com"),
            ("https://a.b.example.com/", "*.example.com"),
            ("http://example.com:443/", "example.com:443"),
            ("https://example.com/", "example.com:443"),
            ("https://[::1]/", "[::1]"),
            ("http://1.2.3.4:8080/", "http://1.2.3.4:8080"),
            ("https://example.com/.../..a", "example.com"),
        ):
            self.assertTrue(self.fits(url, entry), (url, entry))

    def test_does_not_fit(self) -> None:
        for url, entry in (
            ("http://example.com/", "https://example.com"),
            ("https://example.com:8443/", "https://example.com"),
            ("https://example.com/", "example.com:8443"),
            ("https://example.com/", "*.example.com"),
            ("https://badexample.com/", "*.example.com"),
            ("https://example.com.evil/", "example.com"),
        ):
            self.assertFalse(self.fits(url, entry), (url, entry))

    def test_not_plain(self) -> None:
        for url in (
            "https://example.com:443/", "http://example.com:80/", "HTTPS://example.com/", "https://EXAMPLE.com/",
            "https://a@example.com/", "https://example.com@evil.example/", "https:/example.com/", "https:example.com",
            "//example.com/", "https://example.com/a/../b", "https://example.com/.", "https://example.com/%2e%2E/",
            "https://example.com/.%2e", "https://example.com/\\", "https://example.com/a b", "https://example.com/%zz",
            "https://example.com/ä", "https://example.com./", "https://example.com\n", "https://example.com/\n", " https://example.com/",
            "https://example.com:/", "https://example.com#a#b", "https://example.com\\@evil/", "https://example.com/" + "a" * 2_048,
            "https://2130706433/", "https://example.com/[", "",
        ):  # fmt: skip
            self.assertFalse(self.fits(url, "example.com", "*.example", "*.com", "evil.example"), url)


class Networks(unittest.TestCase):
    def test_addresses(self) -> None:
        for text in ("0.0.0.0", "255.255.255.255", "::", "::1", "2001:db8::1:0:0:1", "2001:db8:0:1:1:1:1:1", "fe80::1"):
            self.assertEqual(str(parse_address(text)), text)
        for text in (
            "", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.256", "0x1.2.3.4", "1.2.3.4 ", "1.2.3.4\n", "::FFFF", "0::1", "::0",
            "2001:db8:0::1:1:1:1:1", "::1%lo", "[::1]", "::ffff:1.2.3.4", "::ffff:102:304", "::1.2.3.4", "1:2:3:4:5:6:7::", "١.2.3.4",
        ):  # fmt: skip
            self.assertIsNone(parse_address(text), text)

    def test_networks(self) -> None:
        for text in ("0.0.0.0/0", "10.0.0.0/8", "10.1.2.3/32", "::/0", "2001:db8::/32", "::1/128"):
            self.assertEqual(parse_network(text), ipaddress.ip_network(text))
        for text in ("10.0.0.0", "10.0.0.1/8", "10.0.0.0/08", "10.0.0.0/33", "10.0.0.0/255.0.0.0", "10.0.0.0/", "10/8",
                     "10.0.0.0/8/8", "2001:db8::1/32", "::/129", "::ffff:0:0/96", "10.0.0.0/-1", "10.0.0.0/+8"):  # fmt: skip
            self.assertIsNone(parse_network(text), text)

    def test_in(self) -> None:
        networks = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32")]
        for text in ("10.0.0.0", "10.255.255.255", "2001:db8::", "2001:db8:ffff::1"):
            self.assertTrue(functions.in_network(text, networks), text)
        for text in (
            "9.255.255.255",
            "11.0.0.0",
            "2001:db9::",
            "::ffff:10.0.0.1",
            "::ffff:a00:1",
            "010.0.0.1",
            "167772161",
            "",
        ):
            self.assertFalse(functions.in_network(text, networks), text)


class Patterns(unittest.TestCase):
    def assert_matches(self, pattern: str, good: tuple[str, ...], bad: tuple[str, ...]) -> None:
        parsed = parse_pattern(pattern)
        assert parsed is not None, pattern
        for text in good:
            self.assertTrue(parsed.matches(text), (pattern, text))
        for text in bad:
            self.assertFalse(parsed.matches(text), (pattern, text))

    def test_matches(self) -> None:
        self.assert_matches("[a-z0-9]+", ("a", "z9"), ("", "A", "a ", "a\n", "ä"))
        self.assert_matches("a|bc", ("a", "bc"), ("ab", "abc", "ac", ""))
        self.assert_matches("(a|b)*c", ("c", "abac"), ("ab", "ca"))
        self.assert_matches("x{2}", ("xx",), ("x", "xxx"))
        self.assert_matches("x{2,}", ("xx", "x" * 100), ("x",))
        self.assert_matches("x{0,2}", ("", "x", "xx"), ("xxx",))
        self.assert_matches("x{0}", ("",), ("x",))
        self.assert_matches(".", ("a", "ä", "😀"), ("\n", "", "ab"))
        self.assert_matches("[^a]", ("b", "\n"), ("a", ""))
        self.assert_matches(r"\.\*[\]\-\\]", (".*]", ".*-", ".*\\"), ("a*]",))
        self.assert_matches("[.$|(){}*+?]", (".", "$", "?"), ("a",))
        self.assert_matches("a~b&c-d", ("a~b&c-d",), ())
        self.assert_matches("(a*)*", ("", "aaa"), ("b",))
        self.assert_matches("a*", ("a" * 1_024,), ("a" * 1_025,))

    def test_refused(self) -> None:
        for pattern in (
            "", "a**", "a*?", "*", "a|", "|a", "()", "(a", "a)", "[", "[]", "[^]", "[]a]", "[a-]", "[-a]", "[z-a]", "^a", "a$", "a{",
            "a{}", "a{,2}", "a{3,2}", "a{65}", "a{1,65}", "a}", "]", r"\d", r"\n", "\\", "a\n", "[\x7f]", "[a&&b]", "[~]", "(?:a)",
            "(?i)a", "a" * 257, "(" * 9 + "a" + ")" * 9, "(a{32}){17}", "((a{8}){8}){9}", "a{02}", r"\a", "[[a]]",
        ):  # fmt: skip
            self.assertIsNone(parse_pattern(pattern), pattern)

    def test_bounds(self) -> None:
        for pattern in (
            "a" * 256,
            "(" * 8 + "a" + ")" * 8,
            "(a{32}){8}",
            "((a{8}){8}){4}",
            "a{64}",
            "a{0,64}",
            "a{63,}",
        ):
            self.assertIsNotNone(parse_pattern(pattern), pattern)

    def test_no_pattern_is_slow(self) -> None:
        begin = time.monotonic()
        self.assert_matches("(" * 7 + "a*" + ")*" * 7 + "b", (), ("a" * 1_024,))
        self.assert_matches("(((((((a{0}){64}){64}){64}){64}){64}){64}){64}", ("",), ("a",))
        self.assertLess(time.monotonic() - begin, 10)


class Hours(unittest.TestCase):
    MONDAY = 1_800_230_400  # 2027-01-18T00:00:00Z

    def test_literals(self) -> None:
        for text in (
            "00:00/24:00/Z/1234567",
            "09:00/17:30/+02:00/12345",
            "22:00/06:00/-14:00/7",
            "23:59/00:01/+00:01/1",
        ):
            self.assertIsNotNone(parse_hours(text), text)
        for text in (
            "", "9:00/17:00/Z/1", "24:00/17:00/Z/1", "09:00/00:00/Z/1", "09:00/24:01/Z/1", "09:00/09:00/Z/1", "09:60/17:00/Z/1",
            "09:00/17:00/z/1", "09:00/17:00/+00:00/1", "09:00/17:00/+14:01/1", "09:00/17:00/02:00/1", "09:00/17:00/Z/", "09:00/17:00/Z/0",
            "09:00/17:00/Z/8", "09:00/17:00/Z/11", "09:00/17:00/Z/21", "09:00/17:00/Z", "09:00/17:00/Z/1\n", "٠9:00/17:00/Z/1",
        ):  # fmt: skip
            self.assertIsNone(parse_hours(text), text)

    def assert_in(self, text: str, good: tuple[int, ...], bad: tuple[int, ...]) -> None:
        hours = parse_hours(text)
        assert hours is not None
        for minute in good:
            self.assertTrue(in_hours(self.MONDAY + minute * 60, hours), (text, minute))
        for minute in bad:
            self.assertFalse(in_hours(self.MONDAY + minute * 60, hours), (text, minute))

    def test_in(self) -> None:
        day = 1_440
        self.assert_in("09:00/17:30/Z/1", (540, 1_049), (539, 1_050, 540 + day, 540 - day))
        self.assert_in("09:00/17:30/+02:00/1", (420, 929), (419, 930))
        self.assert_in("22:00/06:00/Z/1", (1_320, day, day + 359), (1_319, day + 360, 0, 359, 1_320 + day))
        self.assert_in("00:00/24:00/Z/1", (0, 1_439), (-1, 1_440))
        self.assert_in("00:00/24:00/-05:00/7", (0, 299, 300 - day), (300, 299 - day))
        self.assertFalse(in_hours(self.MONDAY - 1, functions.Hours(0, 86_400, 0, frozenset({1}))))


if __name__ == "__main__":
    unittest.main()
