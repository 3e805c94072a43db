"""The verifier over presentations made with the Biscuit library."""

import unittest
from typing import Any

from taper_reference.vectors import Verdict, judge

from .kit import ALICE, BOB, EXPIRY, NOW, Case, authority_facts, hand_on, holder_fact, issue


class Verify(unittest.TestCase):
    def assert_rule(self, rule: str | None, case: Case) -> None:
        expected = Verdict("accepted", None) if rule is None else Verdict("refused", rule)
        self.assertEqual(judge(case.presentation()), expected)

    def test_good(self) -> None:
        self.assert_rule(None, Case())

    def test_chain(self) -> None:
        handed_on = hand_on(issue(authority_facts() + EXPIRY), ALICE, holder_fact(BOB) + EXPIRY)
        text = handed_on.to_base64().rstrip("=")
        self.assert_rule(None, Case(token=text, signer=BOB))
        self.assert_rule("R-14", Case(token=text, signer=ALICE))
        stranger = hand_on(issue(authority_facts() + EXPIRY), BOB, holder_fact(BOB) + EXPIRY)
        self.assert_rule("D-02", Case(token=stranger.to_base64().rstrip("="), signer=BOB))

    def test_block_0(self) -> None:
        facts = authority_facts()
        for rule, source in (
            ("P-05", facts + 'admin("x");' + EXPIRY),
            ("P-06", facts.replace("taper(1)", "taper(2)") + EXPIRY),
            ("P-07", facts + "claim($x, $y) <- subject($x, $y);" + EXPIRY),
            ("P-10", facts + EXPIRY + EXPIRY),
            ("P-10", facts),
            ("P-11", facts.replace('right("git",', 'right("*",') + EXPIRY),
            ("P-22", facts + 'client("other");' + EXPIRY),
            ("P-16", facts + "check if unknown($x);" + EXPIRY),
            ("P-16", facts + "check if depth($d), $d <= 1;" + EXPIRY),
            ("P-16", facts + 'check if calls("c", $n), $n <= 5;' + EXPIRY),
            ("P-17", facts + 'check if server($x), $x.matches("git");' + EXPIRY),
            ("P-18", facts + 'check if args($x), $x.get("a") === null;' + EXPIRY),
            ("P-19", facts + "check if claim($a, $b), claim($b, $c), $a === $c;" + EXPIRY),
            ("P-20", facts + 'check if server($x), $x.extern::shell("git");' + EXPIRY),
        ):
            with self.subTest(source=source):
                self.assert_rule(rule, Case(token=issue(source).to_base64().rstrip("=")))

    def test_proof(self) -> None:
        changes: list[tuple[str | None, dict[str, Any], dict[str, Any]]] = [
            ("R-02", {"typ": "jwt"}, {}),
            ("R-02", {"crit": []}, {}),
            ("R-03", {"alg": "ES256"}, {}),
            ("R-04", {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "AQ" + "A" * 41}}, {}),
            ("R-05", {}, {"htm": "post"}),
            ("R-06", {}, {"htu": "https://proxy.example/git/mcp/"}),
            (None, {}, {"htu": "HTTPS://Proxy.example/git/mcp?a#b"}),
            ("R-07", {}, {"iat": NOW - 301}),
            (None, {}, {"iat": NOW - 300}),
            ("R-07", {}, {"iat": NOW + 61}),
            ("R-08", {}, {"jti": ""}),
            ("R-09", {}, {"ath": "A"}),
            ("R-12", {}, {"content_digest": "sha-256=:AA==:"}),
        ]
        for rule, header, claims in changes:
            with self.subTest(header=header, claims=claims):
                self.assert_rule(rule, Case(header=header, claims=claims))

    def test_decision(self) -> None:
        self.assert_rule("R-20", Case(access={"audience": "https://other.example"}))
        self.assert_rule("R-21", Case(access={"tool": "git_show"}))
        self.assert_rule("R-27", Case(access={"arguments": '{"a":1,"\\u0061":2}'}))
        self.assert_rule("R-23", Case(policies=["allow if true;", "deny if true;"]))
        self.assert_rule("R-24", Case(policies=[]))
        self.assert_rule("P-15", Case(time=1_800_003_600, claims={"iat": 1_800_003_600}))

    def test_checks(self) -> None:
        for rule, check, arguments in (
            (None, 'check if args($a), $a.get("n") === 5', '{"n":5}'),
            ("R-22", 'check if args($a), $a.get("n") === 5', '{"n":6}'),
            ("R-25", 'check if args($a), $a.get("n") === 5', '{"n":5.0}'),
            ("R-25", 'check if args($a), $a.get("n") === 5', "{}"),
            (None, 'check if args($a), $a.get("p").extern::path_within("/srv")', '{"p":"/srv/x"}'),
            ("R-22", 'check if args($a), $a.get("p").extern::path_within("/srv")', '{"p":"/srvx"}'),
            ("R-22", 'check if client_ip($ip), $ip.extern::in_network({"10.0.0.0/8"})', "{}"),
            (None, 'reject if tool("git_show")', "{}"),
            ("R-22", 'reject if tool("git_log")', "{}"),
            (None, 'check all calls("c", $n), $n <= 5', "{}"),
            ("R-22", 'check all calls("d", $n), $n <= 5', "{}"),
            ("R-22", 'check all resource("repo", $r), $r.starts_with("acme/")', "{}"),
        ):
            with self.subTest(check=check, arguments=arguments):
                token = issue(authority_facts() + EXPIRY + check + ";").to_base64().rstrip("=")
                self.assert_rule(rule, Case(token=token, access={"arguments": arguments, "calls": (("c", 5),)}))


if __name__ == "__main__":
    unittest.main()
