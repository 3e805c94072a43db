//! Restrictions: how they are said, what is said about them, and what they leave allowed.

use serde_json::{Value, json};
use taper_tests::{Up, taper, taper_reading};

use super::super::{ends, json, stderr, stdout, succeeds};

/// What `inspect` shows of the last link.
fn last_caveats(up: &Up, capability: &[u8]) -> Value {
    let shown = json(&taper_reading(
        up.dir(),
        &["inspect", "--format", "json"],
        capability,
    ));
    shown["links"].as_array().unwrap().last().unwrap()["caveats"].clone()
}

#[test]
fn every_restriction_has_words() {
    let up = Up::start();
    up.capability("alice", "git:*");
    for (words, expected) in [
        (
            &["--tool", "git:git_log", "--tool", "git:git_show"][..],
            json!({"tool": {"server": "git", "tools": ["git_log", "git_show"]}}),
        ),
        (
            &["--method", "tools/call"],
            json!({"method": {"methods": ["tools/call"]}}),
        ),
        (
            &["--audience", &up.mcp()],
            json!({"audience": {"audiences": [up.mcp()]}}),
        ),
        (
            &["--repo", "acme/*"],
            json!({"resource": {"kind": "repo", "matches": {"prefix": "acme/"}}}),
        ),
        (
            &["--arg", "branch=feature-*"],
            json!({"argument": {"pointer": "/branch", "matches": {"prefix": "feature-"}}}),
        ),
        (
            &["--arg-range", "max_count=1..10"],
            json!({"argument": {"pointer": "/max_count", "matches": {"range": {"min": 1, "max": 10}}}}),
        ),
        (
            &["--arg-path", "/path=/srv/data"],
            json!({"argument": {"pointer": "/path", "matches": {"path_within": "/srv/data"}}}),
        ),
        (
            &[
                "--arg-url",
                "url=https://example.com",
                "--arg-url",
                "url=*.example.org",
            ],
            json!({"argument": {"pointer": "/url", "matches": {"url_host": ["*.example.org", "https://example.com"]}}}),
        ),
        (
            &["--arg-net", "ip=10.0.0.0/8"],
            json!({"argument": {"pointer": "/ip", "matches": {"network": ["10.0.0.0/8"]}}}),
        ),
        (
            &["--arg-match", "ref=v[0-9]+"],
            json!({"argument": {"pointer": "/ref", "matches": {"matches": "v[0-9]+"}}}),
        ),
        (
            &["--from", "127.0.0.1"],
            json!({"client_address": {"networks": ["127.0.0.1/32"]}}),
        ),
        (
            &["--hours", "09:00-17:30 +02:00 mon-fri"],
            json!({"hours": {"from": "09:00", "to": "17:30", "offset": "+02:00", "days": [1, 2, 3, 4, 5]}}),
        ),
        (
            &["--caveat", r#"{"max_calls":{"counter":"c1","calls":5}}"#],
            json!({"max_calls": {"counter": "c1", "calls": 5}}),
        ),
    ] {
        let narrow = [&["narrow", "alice.cap", "--key", "alice.jwk"][..], words].concat();
        let narrowed = taper(up.dir(), &narrow);
        succeeds(&narrowed);
        // It counts for this audience only.
        let warns = words.contains(&"--audience");
        assert_eq!(
            stderr(&narrowed).contains("warning"),
            warns,
            "{words:?}: {narrowed:?}"
        );
        assert_eq!(
            last_caveats(&up, &narrowed.stdout),
            json!([expected]),
            "{words:?}"
        );
    }
    let narrowed = taper(
        up.dir(),
        &["narrow", "alice.cap", "--key", "alice.jwk", "--max-calls", "5"],
    );
    let counted = last_caveats(&up, succeeds(&narrowed).as_bytes());
    assert_eq!(counted[0]["max_calls"]["calls"], 5);
    assert_eq!(counted[0]["max_calls"]["counter"].as_str().unwrap().len(), 11);
    for (wrong, code) in [
        (&["--hours", "9-17"][..], 64),
        (&["--arg-range", "n=5"], 64),
        (&["--max-calls", "0"], 64),
        (&["--caveat", "{}"], 64),
        (&["--from", "10.0.0.1/8"], 1),
        (&["--arg-path", "path=/srv/../etc"], 1),
        (&["--arg-match", "ref=(a"], 1),
        (&["--repo", "acme*"], 1),
    ] {
        let narrow = [&["narrow", "alice.cap", "--key", "alice.jwk"][..], wrong].concat();
        let refused = taper(up.dir(), &narrow);
        assert_eq!(refused.status.code(), Some(code), "{wrong:?}: {refused:?}");
        assert_eq!(stdout(&refused), "", "{wrong:?}");
    }
}

#[test]
fn what_does_nothing_or_too_much_is_said_before_it_is_signed() {
    let up = Up::start();
    let dir = up.dir();
    up.capability("alice", "git:*");
    up.keygen("bob");
    let narrow = [
        "narrow",
        "alice.cap",
        "--key",
        "alice.jwk",
        "--tool",
        "git:git_log",
        "--repo",
        "acme/web",
        "--arg-range",
        "max_count=1..10",
        "--strict",
    ];
    let held = taper(dir, &narrow);
    succeeds(&held);
    assert!(!stderr(&held).contains("warning"), "{held:?}");
    for (words, effect) in [
        (
            &["--tool", "git:git_log", "--tool", "git:git_show"][..],
            "changes_nothing",
        ),
        (&["--server", "git"], "changes_nothing"),
        (&["--repo", "acme/*"], "changes_nothing"),
        (&["--arg", "max_count=11"], "allows_nothing"),
        (&["--arg-range", "max_count=0..20"], "changes_nothing"),
        (&["--until", "2126-01-01T00:00:00Z"], "changes_nothing"),
        (&["--max-depth", "99"], "changes_nothing"),
        (&["--tool", "git:git_show"], "allows_nothing"),
        (&["--server", "hub"], "allows_nothing"),
        (&["--repo", "acme/payroll"], "allows_nothing"),
        (&["--not-before", "2126-01-01T00:00:00Z"], "allows_nothing"),
        (
            &[
                "--from",
                "10.0.0.0/8",
                "--caveat",
                r#"{"client_address":{"networks":["192.0.2.0/24"]}}"#,
            ],
            "allows_nothing",
        ),
    ] {
        let command = [&["narrow", "--key", "alice.jwk"][..], words].concat();
        let warned = taper_reading(dir, &command, &held.stdout);
        succeeds(&warned);
        let says = if effect == "changes_nothing" {
            "changes nothing"
        } else {
            "leaves nothing allowed"
        };
        let said = stderr(&warned);
        assert!(
            said.starts_with("warning: ") && said.contains(says),
            "{words:?}: {said}"
        );
        let for_programs = [&command[..], &["--format", "json"]].concat();
        let result = json(&taper_reading(dir, &for_programs, &held.stdout));
        assert_eq!(result["warnings"][0]["effect"], effect, "{words:?}: {result}");
        assert!(
            result["warnings"][0]["reason"].is_string() && result["token"].is_string(),
            "{result}"
        );
        let strict = [&command[..], &["--strict"]].concat();
        ends(
            &taper_reading(dir, &strict, &held.stdout),
            1,
            &[says, "nothing is signed", "next: "],
        );
    }
    // Once nothing is allowed, there is nothing more to say.
    let both = [
        "narrow",
        "--key",
        "alice.jwk",
        "--server",
        "hub",
        "--not-before",
        "2126-01-01T00:00:00Z",
    ];
    let warned = taper_reading(dir, &both, &held.stdout);
    assert_eq!(stderr(&warned).matches("warning").count(), 1, "{warned:?}");
    // A hand-over counts before its depth does.
    let to_bob = [
        "delegate",
        "--key",
        "alice.jwk",
        "--to",
        "bob.pub.jwk",
        "--for",
        "1m",
    ];
    let too_deep = [&to_bob[..], &["--max-depth", "0"]].concat();
    // Nobody could present it, so it is not signed in any case.
    let warned = taper_reading(dir, &too_deep, &held.stdout);
    ends(&warned, 1, &["leaves nothing allowed", "at most 0 are allowed"]);
    let strict = [&too_deep[..], &["--strict"]].concat();
    ends(
        &taper_reading(dir, &strict, &held.stdout),
        1,
        &["nothing is signed"],
    );
    let last = [&to_bob[..], &["--max-depth", "1", "--strict", "--format", "json"]].concat();
    let result = json(&taper_reading(dir, &last, &held.stdout));
    assert_eq!(result["warnings"], json!([]));
}

#[test]
fn the_whole_chain_is_shown_as_what_it_still_allows() {
    let up = Up::start();
    let dir = up.dir();
    let issuer = up.issuer();
    up.capability("alice", "git:*");
    up.keygen("bob");
    let narrowed = taper(
        dir,
        &[
            "narrow",
            "alice.cap",
            "--key",
            "alice.jwk",
            "--tool",
            "git:git_log",
            "--tool",
            "git:git_show",
            "--repo",
            "acme/*",
        ],
    );
    let to_bob = [
        "delegate",
        "--key",
        "alice.jwk",
        "--to",
        "bob.pub.jwk",
        "--for",
        "10m",
        "--tool",
        "git:git_log",
        "--repo",
        "acme/web",
        "--max-depth",
        "1",
    ];
    let bob = taper_reading(dir, &to_bob, succeeds(&narrowed).as_bytes());
    let bob = succeeds(&bob);
    let shown = succeeds(&taper_reading(dir, &["inspect", "--effective"], bob.as_bytes()));
    assert!(shown.starts_with("UNVERIFIED"), "{shown}");
    let verify = ["verify", "--effective", "--issuer", &issuer];
    let verified = succeeds(&taper_reading(dir, &verify, bob.as_bytes()));
    assert!(verified.starts_with("verified"), "{verified}");
    for text in [&shown, &verified] {
        for line in [
            "tools       git: git_log",
            "resource    repo: \"acme/web\"",
            "hand on     0 more, 1 so far",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
    let unverified = json(&taper_reading(
        dir,
        &["inspect", "--effective", "--format", "json"],
        bob.as_bytes(),
    ));
    let as_json = [&verify[..], &["--format", "json"]].concat();
    let verified = json(&taper_reading(dir, &as_json, bob.as_bytes()));
    assert_eq!(
        (&unverified["verified"], &verified["verified"]),
        (&false.into(), &true.into())
    );
    assert_eq!(unverified["effective"], verified["effective"]);
    assert_eq!(
        verified["effective"]["servers"],
        json!({"git": {"tools": ["git_log"], "resources": [], "prompts": []}})
    );
    // Somebody else's keys do not make it verified.
    let other = Up::start();
    let verify = [
        "verify",
        "--effective",
        "--issuer",
        &issuer,
        "--jwks",
        &format!("{}/.well-known/jwks.json", other.issuer()),
    ];
    ends(&taper_reading(dir, &verify, bob.as_bytes()), 2, &["rule P-"]);
}

#[test]
fn no_text_in_a_capability_forges_output() {
    let up = Up::start();
    let dir = up.dir();
    up.capability("alice", "git:*");
    let evil = "x\u{1b}[31m\n  9 narrowing\r\u{9b}2J\u{202e}\u{2066}\u{200b}\u{2060}\u{feff}\u{2028}";
    let with = |words: &[&str]| {
        let command = [&["narrow", "alice.cap", "--key", "alice.jwk"][..], words].concat();
        let narrowed = taper(dir, &command);
        succeeds(&narrowed);
        narrowed
    };
    let plain = with(&[]);
    let lines = |arguments: &[&str], capability: &[u8]| {
        let shown = succeeds(&taper_reading(dir, arguments, capability));
        let deceives = |c: char| {
            (c.is_control() && c != '\n')
                || matches!(
                    c,
                    '\u{200b}' | '\u{2028}' | '\u{202e}' | '\u{2060}' | '\u{2066}' | '\u{feff}'
                )
        };
        assert!(!shown.contains(deceives), "{shown:?}");
        assert!(!shown.lines().any(|line| line.starts_with("  9 ")), "{shown}");
        shown.lines().count()
    };
    let (issuer, argument) = (up.issuer(), format!("{evil}={evil}"));
    let (resource, below) = (format!("repo={evil}"), format!("repo={evil}/*"));
    let network = format!("/{evil}={evil}*");
    for words in [
        &["--note", evil][..],
        &["--method", evil],
        &["--audience", evil],
        &["--resource", &resource],
        &["--resource", &below],
        &["--arg", &argument],
        &["--arg", &network],
    ] {
        let narrowed = with(words);
        assert!(
            !stderr(&narrowed).contains(['\u{1b}', '\r', '\u{202e}', '\u{200b}']),
            "{narrowed:?}"
        );
        for command in [&["inspect"][..], &["verify", "--issuer", &issuer]] {
            let more = lines(command, &narrowed.stdout) - lines(command, &plain.stdout);
            assert_eq!(more, 1, "{words:?}: one restriction is one line");
            lines(&[command, &["--effective"]].concat(), &narrowed.stdout);
        }
    }
}
