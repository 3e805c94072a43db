//! `taper revoke`: what it says, and what to type next when it is refused.

use serde_json::Value;
use taper_tests::{Up, taper, taper_ok};

use super::{ends, json, json_failure, stderr, succeeds};

/// A tree of three holders: alice handed on to bob, bob to carol.
fn handed_on() -> Up {
    let up = Up::start();
    up.capability("alice", "git:*");
    for (from, to) in [("alice", "bob"), ("bob", "carol")] {
        up.keygen(to);
        let (cap, key) = (format!("{from}.cap"), format!("{from}.jwk"));
        let (public, out) = (format!("{to}.pub.jwk"), format!("{to}.cap"));
        let words = [
            "delegate", &cap, "--key", &key, "--to", &public, "--for", "10m", "--out", &out,
        ];
        taper_ok(up.dir(), &words);
    }
    up
}

#[test]
fn a_delegator_takes_back_and_is_told_what() {
    let up = handed_on();
    let issuer = up.issuer();
    let revoke = |words: &str| {
        let words: Vec<&str> = ["revoke", "--issuer", &issuer]
            .into_iter()
            .chain(words.split(' '))
            .collect();
        taper(up.dir(), &words)
    };
    // By the public key, by the thumbprint that `taper inspect` shows, and as a branch.
    let by_file = json(&revoke(
        "--token alice.cap --key alice.jwk --to bob.pub.jwk --format json",
    ));
    let shown = taper_ok(up.dir(), &["inspect", "carol.cap", "--format", "json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let holder = |at: usize| shown["links"][at]["holder"].as_str().unwrap();
    let what = serde_json::json!({"grant": shown["grant"], "from": holder(0), "to": holder(1)});
    assert_eq!(by_file["entries"][0]["what"]["delegation"], what);
    assert_eq!(
        (&by_file["revoked"], &by_file["entries"][0]["seq"]),
        (&true.into(), &1.into())
    );
    let text = succeeds(&revoke(&format!(
        "--token alice.cap --key alice.jwk --to {}",
        holder(1)
    )));
    assert!(
        text.starts_with("revoked what ") && text.ends_with(": number 1\n"),
        "{text}"
    );
    let branch = shown["links"][2]["branch"].as_str().unwrap();
    let text = succeeds(&revoke(&format!(
        "--token carol.cap --key bob.jwk --branch {branch}"
    )));
    assert_eq!(text, format!("revoked the branch {branch}: number 2\n"));
    let text = succeeds(&revoke("--token carol.cap --key bob.jwk --last-hand-over"));
    assert_eq!(text, format!("revoked the branch {branch}: number 2\n"));
    let text = succeeds(&revoke("--this-key --key carol.jwk --token carol.cap"));
    assert_eq!(text, format!("revoked the key {}: number 3\n", holder(2)));
    assert!(taper_ok(up.dir(), &["inspect", "carol.cap"]).contains(&format!("branch {branch}")));

    // When the whole grant is gone there is nothing left to take back.
    succeeds(&revoke("--token alice.cap --key alice.jwk --client-id dev"));
    let nothing = json(&revoke(
        "--token bob.cap --key bob.jwk --to carol.pub.jwk --format json",
    ));
    assert_eq!(nothing, serde_json::json!({"revoked": false, "entries": []}));
    let text = succeeds(&revoke("--token bob.cap --key bob.jwk --to carol.pub.jwk"));
    assert!(text.starts_with("nothing to revoke"), "{text}");
}

#[test]
fn a_refusal_says_what_to_type_next() {
    let up = handed_on();
    let issuer = up.issuer();
    let revoke = |words: &str| {
        let words: Vec<&str> = ["revoke", "--issuer", &issuer]
            .into_iter()
            .chain(words.split(' '))
            .collect();
        taper(up.dir(), &words)
    };
    let whole = revoke("--token bob.cap --key bob.jwk --client-id dev");
    ends(
        &whole,
        2,
        &["unsupported_token_type", "next: ", "--last-hand-over"],
    );
    let not_its_own = revoke("--token carol.cap --key carol.jwk --last-hand-over");
    ends(
        &not_its_own,
        2,
        &[
            "invalid_dpop_proof",
            "handed nothing on",
            "next: ",
            "taper inspect",
        ],
    );
    let stranger = revoke("--token alice.cap --key bob.jwk --to carol.pub.jwk");
    ends(&stranger, 2, &["no holder", "next: "]);
    let unknown = revoke("--this-key --key carol.jwk");
    ends(&unknown, 2, &["invalid_grant", "next: ", "add `--token`"]);
    let public = revoke("--client-id dev --client-secret-file up/feed-secret --everything");
    ends(&public, 2, &["invalid_client", "next: ", "--client-id"]);
    let foreign = revoke("--client-id proxy --client-secret-file up/feed-secret --grant AAAA");
    ends(&foreign, 2, &["no grant with this id", "next: "]);
    let no_key = revoke("--token alice.cap --key alice.jwk --to nothing");
    ends(&no_key, 1, &["cannot read `nothing`"]);
    let failure = json_failure(&revoke("--this-key --key carol.jwk --format json"), 2);
    assert!(failure["next"].as_str().unwrap().contains("--token"), "{failure}");
    let half = revoke("--token alice.cap");
    assert_eq!(half.status.code(), Some(64));
    assert!(stderr(&half).contains("next: `taper revoke --token"), "{half:?}");
    let admin = (up.process.text("/admin"), up.process.text("/admin_token_file"));
    let by_admin = |token: &str, what: &[&str]| {
        let first = ["revoke", "--admin-url", &admin.0, "--admin-token-file", token];
        taper(up.dir(), &[&first[..], what].concat())
    };
    ends(
        &by_admin("up/feed-secret", &["--client", "x"]),
        2,
        &["next: ", "--admin-token-file"],
    );
    let delegation = [
        "--delegation",
        "AAAA",
        &"A".repeat(43),
        &format!("{}E", "A".repeat(42)),
    ];
    ends(&by_admin(&admin.1, &delegation), 2, &["no such grant"]);
    let subject = ["--subject", "alice", "--subject-issuer", "https://idp.example"];
    let text = succeeds(&by_admin(&admin.1, &subject));
    assert_eq!(
        text,
        "revoked the subject alice at https://idp.example: number 1\n"
    );
}
