//! Issuer and proxy, with everything logged.

use serde_json::Value;
use taper_tests::call::Call;
use taper_tests::{Up, taper, taper_ok};

use crate::{MESSAGE, Search, WINDOW, private_keys, spellings};

#[test]
fn the_log_has_no_secret() {
    let up = Up::start();
    let dir = up.dir();
    up.capability("alice", "git:*");
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap().trim().to_owned();
    let public = taper_ok(dir, &["keygen", "--out", "bob.jwk"]);
    taper_ok(
        dir,
        &[
            "delegate",
            "alice.cap",
            "--key",
            "alice.jwk",
            "--to",
            &public,
            "--tool",
            "git:git_log",
            "--for",
            "5m",
            "--out",
            "bob.cap",
        ],
    );
    let (alice, bob, access_token) = (read("alice.cap"), read("bob.cap"), read("access-token"));
    let (alice_key, bob_key) = (read("alice.jwk"), read("bob.jwk"));

    // Calls that pass, by both programs and eras.
    let mcp = up.mcp();
    for era in ["modern", "legacy"] {
        taper_ok(
            dir,
            &[
                "call",
                "--url",
                &mcp,
                "--token",
                "bob.cap",
                "--key",
                "bob.jwk",
                "--era",
                era,
                "git_log",
                "repo_path=acme/web",
            ],
        );
    }
    let good = Call::mcp(&mcp, &bob, &bob_key, MESSAGE);
    let proof = good.proof();
    let good = good.proofs(&[&proof]);
    assert_eq!(good.send().status, 200);

    // And those that do not: credentials lie in whatever is wrong.
    assert_eq!(good.send().status, 401, "a replay");
    let show = MESSAGE.replace("git_log", "git_show");
    assert_eq!(Call::mcp(&mcp, &bob, &bob_key, &show).send().status, 403);
    assert_eq!(Call::mcp(&mcp, &bob, &alice_key, MESSAGE).send().status, 401);
    let as_bearer =
        Call::mcp(&mcp, &bob, &bob_key, MESSAGE).instead("authorization", format!("Bearer {bob}"));
    assert_eq!(as_bearer.send().status, 401);
    for target in [
        format!("/git/mcp?access_token={bob}"),
        format!("/{bob}/mcp"),
        format!("/git/mcp/{bob}"),
    ] {
        assert!(
            Call::mcp(&mcp, &bob, &bob_key, MESSAGE)
                .line("POST", &target)
                .send()
                .status
                >= 400
        );
    }
    let as_header = Call::mcp(&mcp, &bob, &bob_key, MESSAGE).header("mcp-session-id", &bob);
    assert_eq!(as_header.send().status, 404);
    let as_argument = MESSAGE.replace("acme/web", &access_token);
    assert!(Call::mcp(&mcp, &alice, &alice_key, &as_argument).send().status > 0);
    assert_eq!(
        Call::mcp(&mcp, &bob, &bob_key, &format!("{MESSAGE}{bob}"))
            .send()
            .status,
        400
    );
    let cut = &access_token[..access_token.len() - 6];
    assert_eq!(Call::mcp(&mcp, cut, &bob_key, MESSAGE).send().status, 401);
    for wrong in [access_token.as_str(), cut, &alice] {
        std::fs::write(dir.join("wrong"), wrong).unwrap();
        let issuer = up.issuer();
        let asked = [
            "exchange",
            "--issuer",
            &issuer,
            "--client-id",
            "dev",
            "--key",
            "bob.jwk",
            "--subject-token",
            "wrong",
            "--scope",
            "git:*",
        ];
        assert_eq!(taper(dir, &asked).status.success(), wrong == access_token);
    }
    let admin_token = read("up/admin-token");
    let feed_secret = read("up/feed-secret");
    let admin = up.process.text("/admin");
    let wrong = Call::new("POST", &format!("{admin}/admin/v1/revocations"))
        .header("authorization", format!("Basic {admin_token}"));
    assert_eq!(wrong.send().status, 401);
    let path = Call::new("GET", &format!("{admin}/admin/v1/grants/{admin_token}"))
        .header("authorization", format!("Bearer {admin_token}"));
    assert_eq!(path.send().status, 404);
    let feed = Call::new("GET", &format!("{}/revocations?after={feed_secret}", up.issuer()))
        .header("authorization", format!("Bearer {feed_secret}"));
    assert!(feed.send().status >= 400);
    let chain: Value =
        serde_json::from_str(&taper_ok(dir, &["inspect", "bob.cap", "--format", "json"])).unwrap();
    let grant = chain["grant"].as_str().unwrap();
    taper_ok(
        dir,
        &[
            "revoke",
            "--issuer",
            &up.issuer(),
            "--client-id",
            "dev",
            "--token",
            "alice.cap",
            "--key",
            "alice.jwk",
        ],
    );
    taper_ok(
        dir,
        &[
            "revoke",
            "--admin-url",
            &admin,
            "--admin-token-file",
            "up/admin-token",
            "--client",
            "nobody",
        ],
    );

    let mut keys = Vec::new();
    private_keys(dir, &mut keys);
    for file in ["alice.jwk", "bob.jwk", "root-1.jwk"] {
        assert!(
            keys.iter().any(|(path, _)| path.ends_with(file)),
            "{file} is not among {keys:?}"
        );
    }
    assert!(
        keys.len() >= 4,
        "the identity provider's key is not among {keys:?}"
    );
    let mut secrets: Vec<(String, String)> = keys;
    for (name, secret) in [
        ("the access token", &access_token),
        ("alice's capability", &alice),
        ("bob's capability", &bob),
        ("the proof", &proof),
        ("the admin token", &admin_token),
        ("the feed secret", &feed_secret),
    ] {
        secrets.push((name.to_owned(), secret.clone()));
    }
    let Up { process, folder } = up;
    let (success, log) = process.stop_for_log();
    assert!(success, "{log}");

    // The log is a log, and the search finds what there is.
    for told in [
        grant,
        "granted",
        "denied",
        "refused",
        "revoked revocation.kind=\"grant\" revocation.seq=1 revocation.by=\"holder ",
        "revocation.by=\"admin\"",
        "DEBUG",
    ] {
        assert!(log.contains(told), "{told} is not in the log:\n{log}");
    }
    let known = &grant.repeat(2);
    assert!(
        Search::of(&log.replace(grant, known)).finds(known),
        "the search does not find what is there"
    );
    for (name, secret) in &secrets {
        for spelling in spellings(secret) {
            let planted = format!("DEBUG planted{} DEBUG", &spelling[spelling.len() - WINDOW..]);
            assert!(
                Search::of(&planted).finds(secret),
                "{name} as {spelling} is not found"
            );
        }
    }
    let search = Search::of(&log);
    let found: Vec<_> = secrets
        .iter()
        .filter(|(_, secret)| search.finds(secret))
        .map(|(name, _)| name)
        .collect();
    assert!(
        found.is_empty(),
        "the log of {} holds {found:?}:\n{log}",
        folder.path().display()
    );
    assert!(!log.contains("panicked"), "{log}");
}
