//! Mistakes that need no proxy: the agents see them, and the issuer does.

use taper_tests::{Up, taper_ok};

use super::{BOTH, obtain};
use crate::language::refused;

#[test]
fn nonsense_is_refused_where_it_is_said() {
    let up = Up::start();
    let dir = up.dir();
    let write = |file: &str, text: &str| std::fs::write(dir.join(file), text).unwrap();
    for agent in BOTH {
        let name = agent.name();
        obtain(agent, &up, name);
        let (key, cap) = (format!("{name}.jwk"), format!("{name}.cap"));
        let roots = std::fs::read_to_string(dir.join("roots.json")).unwrap();
        write("no-roots.json", r#"{"keys":[]}"#);
        write(
            "other-roots.json",
            &roots.replace("\"kid\":\"1\"", "\"kid\":\"2\""),
        );
        let token = std::fs::read_to_string(dir.join(&cap)).unwrap();
        // One character of block 0, which a root key signed.
        let at = token.len() / 2;
        let other = if &token[at..=at] == "A" { "B" } else { "A" };
        write(
            "changed.cap",
            &format!("{}{other}{}", &token[..at], &token[at + 1..]),
        );
        write("padded.cap", &format!("{}=", token.trim()));
        let open = dir.join("open.jwk");
        std::fs::copy(dir.join(&key), &open).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(&open, mode).unwrap();

        let narrow = |token: &str, key: &str, roots: &str, words: &[&str]| {
            let common = ["narrow", token, "--key", key, "--roots", roots];
            agent.run(dir, &[&common[..], words].concat())
        };
        let for_5m = ["--for", "5m"];
        for (token, roots) in [
            ("changed.cap", "roots.json"),
            ("padded.cap", "roots.json"),
            (&cap, "no-roots.json"),
            (&cap, "other-roots.json"),
            (&cap, "access-token"),
        ] {
            agent.fails(&narrow(token, &key, roots, &for_5m), 1);
        }
        agent.fails(&narrow(&cap, "open.jwk", "roots.json", &for_5m), 1);
        agent.fails(&narrow(&cap, &cap, "roots.json", &for_5m), 1);
        for (words, code) in [
            (&[][..], 64),
            (&["--for", "5m", "--until", "2030-01-01T00:00:00Z"], 64),
            (&["--for", "soon"], 64),
            (&["--until", "2020-01-01T00:00:00Z"], 1),
            (&["--until", "2030-02-31T00:00:00Z"], 64),
            (&["--until", "2030-01-01T24:00:00Z"], 64),
            (&["--until", "2030-01-31T09:30:00"], 64),
            (&["--for", "5m", "--resource", "repo=acme*"], 1),
            (
                &[
                    "--for",
                    "5m",
                    "--resource",
                    "repo=acme/*",
                    "--resource",
                    "repo=b/c",
                ],
                1,
            ),
            (
                &["--for", "5m", "--tool", "git:git_log", "--tool", "files:read"],
                1,
            ),
            (&["--for", "5m", "--tool", "git:*"], 1),
            (&["--for", "5m", "--arg", "n=1.5"], 1),
            (&["--for", "5m", "--arg", "n=9007199254740992"], 1),
            (&["--for", "5m", "--arg", "n=[9007199254740993]"], 1),
            (&["--for", "5m", "--arg", "n=1", "--arg", "n=true"], 1),
            (&["--for", "5m", "--arg-range", "n=5..1"], 1),
            (&["--for", "5m", "--arg-range", "n=.."], 1),
        ] {
            agent.fails(&narrow(&cap, &key, "roots.json", words), code);
        }
        let delegate = |to: &str| {
            let common = ["delegate", &cap, "--key", &key, "--roots", "roots.json"];
            agent.run(dir, &[&common[..], &for_5m, &["--to", to]].concat())
        };
        agent.fails(&delegate(&format!("{name}.pub.jwk")), 1);
        agent.fails(&delegate(&key), 1);
        agent.fails(&delegate("{}"), 1);
        agent.fails(&delegate(r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#), 1);
        // A key is never overwritten.
        let before = std::fs::read(dir.join(&key)).unwrap();
        agent.fails(&agent.run(dir, &["keygen", "--out", &key]), 1);
        assert_eq!(std::fs::read(dir.join(&key)).unwrap(), before);
        // What nobody granted: the issuer says no.
        let token = taper_ok(dir, &["dev-token", "--dir", "up", "--subject", "bob"]);
        write("access-token", &token);
        let issuer = up.issuer();
        let words = [
            "obtain",
            "--issuer",
            &issuer,
            "--client-id",
            "dev",
            "--subject-token",
        ];
        let rest = ["access-token", "--key", &key, "--scope", "git:*"];
        let refusal = refused(&agent.run(dir, &[&words[..], &rest].concat()));
        assert_eq!((refusal.status, refusal.said), (400, "invalid_scope".to_owned()));
    }
}
