//! Keys, and capabilities from hand to hand.

mod restrictions;

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;
use taper_tests::{Up, taper, taper_reading};
use tempfile::TempDir;

use super::{ends, json, json_failure, stderr, stdout, succeeds};

#[test]
fn keygen() {
    let folder = TempDir::new().unwrap();
    let dir = folder.path();
    for (alg, kty) in [("ed25519", "OKP"), ("p256", "EC")] {
        let file = format!("{alg}.jwk");
        let made = taper(dir, &["keygen", "--alg", alg, "--out", &file]);
        let public: Value = serde_json::from_str(&succeeds(&made)).unwrap();
        assert_eq!((&public["kty"], public.get("d")), (&kty.into(), None));
        assert!(stderr(&made).contains("thumbprint"), "{made:?}");
        let private = std::fs::read_to_string(dir.join(&file)).unwrap();
        let private: Value = serde_json::from_str(&private).unwrap();
        assert_eq!(private["x"], public["x"]);
        assert!(private["d"].is_string());
        let mode = std::fs::metadata(dir.join(&file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = taper(dir, &["keygen", "--out", &file]);
        ends(&again, 1, &[&file, "next: "]);
        let kept: Value = serde_json::from_str(&std::fs::read_to_string(dir.join(&file)).unwrap()).unwrap();
        assert_eq!(kept, private, "the key was overwritten");
    }
    let made = json(&taper(dir, &["keygen", "--out", "json.jwk", "--format", "json"]));
    assert!(
        made["jwk"]["x"].is_string() && made["thumbprint"].is_string() && made["file"].is_string(),
        "{made}"
    );
    let lost = json_failure(
        &taper(
            dir,
            &["keygen", "--out", "no/such/folder.jwk", "--format", "json"],
        ),
        1,
    );
    assert_eq!(lost["kind"], "failure");
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let up = Up::start();
    up.capability("alice", "git:*");
    let key = up.dir().join("alice.jwk");
    let narrow = [
        "narrow",
        "alice.cap",
        "--key",
        "alice.jwk",
        "--tool",
        "git:git_log",
    ];
    succeeds(&taper(up.dir(), &narrow));
    for mode in [0o640, 0o604, 0o666] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        ends(&taper(up.dir(), &narrow), 1, &["alice.jwk", "chmod 600"]);
    }
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    succeeds(&taper(up.dir(), &narrow));
}

#[test]
fn commands_compose_through_pipes() {
    let up = Up::start();
    let dir = up.dir();
    let issuer = up.issuer();
    for name in ["alice", "bob", "carol"] {
        up.keygen(name);
    }
    let token = taper(
        dir,
        &["dev-token", "--dir", "up", "--subject", "alice", "--group", "eng"],
    );
    let exchange = [
        "exchange",
        "--issuer",
        &issuer,
        "--client-id",
        "dev",
        "--subject-token",
        "-",
        "--key",
        "alice.jwk",
        "--scope",
        "git:*",
    ];
    let top = taper_reading(dir, &exchange, &token.stdout);
    succeeds(&top);
    let narrowed = taper_reading(
        dir,
        &["narrow", "--key", "alice.jwk", "--repo", "acme/*", "--for", "30m"],
        &top.stdout,
    );
    succeeds(&narrowed);
    let to_bob = [
        "delegate",
        "--key",
        "alice.jwk",
        "--to",
        "bob.pub.jwk",
        "--tool",
        "git:git_log",
        "--repo",
        "acme/web",
        "--for",
        "10m",
        "--note",
        "for\u{1b}[2Jbob",
    ];
    let bob = taper_reading(dir, &to_bob, &narrowed.stdout);
    succeeds(&bob);
    let carols = std::fs::read_to_string(dir.join("carol.pub.jwk")).unwrap();
    let to_carol = [
        "delegate",
        "-",
        "--key",
        "bob.jwk",
        "--to",
        &carols,
        "--until",
        "2126-01-01T00:00:00Z",
        "--max-depth",
        "2",
    ];
    let carol = taper_reading(dir, &to_carol, &bob.stdout);
    succeeds(&carol);

    let shown = succeeds(&taper_reading(dir, &["inspect"], &carol.stdout));
    assert!(shown.starts_with("UNVERIFIED"), "{shown}");
    assert_eq!(shown.matches("hand-over").count(), 2, "{shown}");
    assert!(
        shown.contains("narrowing") && shown.contains("acme/web") && !shown.contains('\u{1b}'),
        "{shown}"
    );
    let verified = succeeds(&taper_reading(
        dir,
        &["verify", "--issuer", &issuer],
        &carol.stdout,
    ));
    assert!(verified.starts_with("verified"), "{verified}");
    let call = [
        "call",
        "--url",
        &up.mcp(),
        "--token",
        "-",
        "--key",
        "carol.jwk",
        "git_log",
        "repo_path=acme/web",
    ];
    let called = succeeds(&taper_reading(dir, &call, &carol.stdout));
    assert!(called.contains("Author: "), "{called}");

    // The wrong thing in a pipe is named, and nothing comes out at the other end.
    ends(
        &taper_reading(dir, &["inspect"], b"no token"),
        1,
        &["holds no capability"],
    );
    ends(
        &taper_reading(dir, &["narrow", "--key", "alice.jwk"], b""),
        1,
        &["holds no capability"],
    );
    ends(&taper_reading(dir, &["inspect"], &[0xff, 0xfe]), 1, &["UTF-8"]);
    ends(
        &taper_reading(dir, &["inspect"], &vec![b'A'; 2 * 1024 * 1024]),
        1,
        &["larger"],
    );
    ends(
        &taper_reading(
            dir,
            &["delegate", "-", "--to", "-", "--key", "alice.jwk", "--for", "1m"],
            &top.stdout,
        ),
        64,
        &["stdin"],
    );
    // Somebody else's key cannot hand on, and a third hand-over is one too many.
    let by_stranger = [
        "delegate",
        "-",
        "--key",
        "alice.jwk",
        "--to",
        &carols,
        "--for",
        "1m",
    ];
    ends(&taper_reading(dir, &by_stranger, &carol.stdout), 1, &[]);
    let once_more = [
        "delegate",
        "-",
        "--key",
        "carol.jwk",
        "--to",
        "bob.pub.jwk",
        "--for",
        "1m",
    ];
    ends(&taper_reading(dir, &once_more, &carol.stdout), 1, &[]);
}

#[test]
fn verify_denies_what_the_issuer_did_not_sign() {
    let (up, other) = (Up::start(), Up::start());
    up.capability("alice", "git:git_log");
    succeeds(&taper(
        up.dir(),
        &["verify", "alice.cap", "--issuer", &up.issuer()],
    ));
    let keys = format!("{}/.well-known/jwks.json", up.issuer());
    succeeds(&taper(
        up.dir(),
        &["verify", "alice.cap", "--issuer", &up.issuer(), "--jwks", &keys],
    ));
    ends(
        &taper(up.dir(), &["verify", "alice.cap", "--issuer", &other.issuer()]),
        2,
        &["rule P-"],
    );
    let keys = format!("{}/.well-known/jwks.json", other.issuer());
    ends(
        &taper(
            up.dir(),
            &["verify", "alice.cap", "--issuer", &up.issuer(), "--jwks", &keys],
        ),
        2,
        &["rule P-"],
    );
    let cap = std::fs::read_to_string(up.dir().join("alice.cap")).unwrap();
    let (head, tail) = cap.split_at(200);
    let changed = format!(
        "{head}{}{}",
        if tail.starts_with('A') { 'B' } else { 'A' },
        &tail[1..]
    );
    let output = taper_reading(
        up.dir(),
        &["verify", "--issuer", &up.issuer()],
        changed.as_bytes(),
    );
    assert!(matches!(output.status.code(), Some(1 | 2)), "{output:?}");
    assert_eq!(stdout(&output), "");
}
