//! Taking back, from the command line to the refused call: for each kind of revocation, by everybody who
//! may, exactly the right capabilities end, and their siblings go on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeMap;

use rand_core::OsRng;
use serde_json::Value;
use taper_capability::{Delegation, Token, UnverifiedToken};
use taper_dpop::{Algorithm, PrivateKey};
use taper_tests::call::{Call, now};
use taper_tests::daemon::write_private;
use taper_tests::{Answer, Up, taper, taper_ok};

const LOG: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"git_log","arguments":{"repo_path":"acme/web","max_count":1}}}"#;

/// The confidential client, and the public one, of `taper up`.
const CLIENT: &str = "proxy";
const SECRET: &str = "up/feed-secret";
const PUBLIC: &str = "dev";

/// Capabilities of one subject, as files in the folder of `up`.
///
/// ```text
/// a ── ab ── abc    granted to the client with a secret: a hands on to b, b to c
/// └─── ad ── adc    and to d, d to c
/// a2                a second grant of that client, held by e
/// dev               a grant of the public client, held by e
/// ```
struct Tree<'a> {
    up: &'a Up,
    subject: String,
    keys: BTreeMap<&'static str, PrivateKey>,
    tokens: BTreeMap<&'static str, Token>,
}

impl<'a> Tree<'a> {
    fn grow(up: &'a Up, subject: &str) -> Self {
        let mut tree = Self {
            up,
            subject: subject.to_owned(),
            keys: BTreeMap::new(),
            tokens: BTreeMap::new(),
        };
        for name in ["a", "b", "c", "d", "e"] {
            let key = PrivateKey::generate(Algorithm::EdDsa, &mut OsRng);
            let jwk = key.to_jwk_string();
            write_private(&up.dir().join(format!("{name}.jwk")), &jwk);
            tree.keys.insert(name, key);
        }
        let who = ["dev-token", "--dir", "up", "--subject", subject, "--group", "eng"];
        let token = taper_ok(up.dir(), &who);
        std::fs::write(up.dir().join("access-token"), token).unwrap();
        tree.exchange("a", "a", &["--client-id", CLIENT, "--client-secret-file", SECRET]);
        tree.exchange(
            "a2",
            "e",
            &["--client-id", CLIENT, "--client-secret-file", SECRET],
        );
        tree.exchange("dev", "e", &["--client-id", PUBLIC]);
        tree.hand_on("ab", "a", "a", "b");
        tree.hand_on("abc", "ab", "b", "c");
        tree.hand_on("ad", "a", "a", "d");
        tree.hand_on("adc", "ad", "d", "c");
        tree
    }

    fn exchange(&mut self, name: &'static str, key: &str, client: &[&str]) {
        let (issuer, key, cap) = (self.up.issuer(), format!("{key}.jwk"), format!("{name}.cap"));
        let words = [
            &["exchange", "--issuer", &issuer, "--key", &key, "--out", &cap][..],
            &["--subject-token", "access-token", "--scope", "git:*"],
            client,
        ];
        taper_ok(self.up.dir(), &words.concat());
        let text = std::fs::read_to_string(self.up.dir().join(&cap)).unwrap();
        self.tokens.insert(name, Token::parse(text.trim()).unwrap());
    }

    fn hand_on(&mut self, name: &'static str, parent: &str, from: &str, to: &str) {
        let child = Delegation::to(self.keys[to].public())
            .until(now() + 900)
            .sign(&self.tokens[parent], &self.keys[from], &mut OsRng)
            .unwrap();
        write_private(&self.up.dir().join(format!("{name}.cap")), child.as_str());
        self.tokens.insert(name, child);
    }

    fn jkt(&self, key: &str) -> String {
        self.keys[key].public().thumbprint().to_string()
    }

    fn grant(&self) -> String {
        let chain = UnverifiedToken::decode(self.tokens["a"].as_str()).unwrap();
        chain.grant_id().to_owned()
    }

    /// A branch id, as `taper inspect` shows it.
    fn branch(&self, name: &str) -> String {
        let cap = format!("{name}.cap");
        let shown = taper_ok(self.up.dir(), &["inspect", &cap, "--format", "json"]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let links = shown["links"].as_array().unwrap();
        links.last().unwrap()["branch"].as_str().unwrap().to_owned()
    }

    /// Calls a tool as the last holder.
    fn call(&self, name: &str) -> Answer {
        let token = self.tokens[name].sealed().unwrap();
        let holder = name.strip_suffix('2').map_or(name, |_| "e");
        let holder = if holder == "dev" {
            "e"
        } else {
            &holder[holder.len() - 1..]
        };
        let key = self.keys[holder].to_jwk_string();
        Call::mcp(&self.up.mcp(), token.as_str(), &key, LOG).send()
    }

    /// `taper revoke`, and what it said.
    fn revoke(&self, words: &str) -> Value {
        let (issuer, admin) = (self.up.issuer(), self.up.process.text("/admin"));
        let admin_token = self.up.process.text("/admin_token_file");
        let mut all: Vec<String> = ["revoke", "--format", "json"].map(str::to_owned).into();
        for word in words.split(' ') {
            match word.split_once(':').unwrap_or((word, "")) {
                ("HOLDER", key) => {
                    all.extend(["--issuer", &issuer, "--key", &format!("{key}.jwk")].map(str::to_owned))
                }
                ("CLIENT", "") => all.extend(
                    [
                        "--issuer",
                        &issuer,
                        "--client-id",
                        CLIENT,
                        "--client-secret-file",
                        SECRET,
                    ]
                    .map(str::to_owned),
                ),
                ("ADMIN", "") => {
                    all.extend(["--admin-url", &admin, "--admin-token-file", &admin_token].map(str::to_owned))
                }
                ("JKT", key) => all.push(self.jkt(key)),
                ("BRANCH", name) => all.push(self.branch(name)),
                ("GRANT", "") => all.push(self.grant()),
                ("SUBJECT", "") => all.push(self.subject.clone()),
                ("IDP", "") => {
                    let chain = UnverifiedToken::decode(self.tokens["a"].as_str()).unwrap();
                    all.push(chain.subject().iss.clone());
                }
                _ => all.push(word.to_owned()),
            }
        }
        let words: Vec<&str> = all.iter().map(String::as_str).collect();
        let output = taper(self.up.dir(), &words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

const ALL: [&str; 7] = ["a", "ab", "abc", "ad", "adc", "a2", "dev"];

#[test]
fn each_kind_by_whoever_may_ends_exactly_what_it_says() {
    let up = Up::start();
    // Clients last: what they ask for later is refused as well.
    let rows = [
        (
            "grant",
            "HOLDER:a --token a.cap --client-id proxy --client-secret-file up/feed-secret",
            "a ab abc ad adc",
        ),
        ("grant", "CLIENT --grant GRANT", "a ab abc ad adc"),
        ("grant", "ADMIN --grant GRANT", "a ab abc ad adc"),
        ("branch", "HOLDER:a --token abc.cap --branch BRANCH:ab", "ab abc"),
        ("branch", "HOLDER:b --token abc.cap --last-hand-over", "abc"),
        ("branch", "HOLDER:a --token adc.cap --last-hand-over", "ad adc"),
        (
            "branch",
            "CLIENT --grant GRANT --branch BRANCH:abc --token abc.cap",
            "abc",
        ),
        ("branch", "ADMIN --branch BRANCH:ab", "ab abc"),
        ("holder", "HOLDER:a --this-key", "a ab abc ad adc"),
        ("holder", "HOLDER:b --this-key --token ab.cap", "ab abc"),
        ("holder", "HOLDER:c --this-key --token adc.cap", "abc adc"),
        ("holder", "ADMIN --holder JKT:d", "ad adc"),
        ("delegation", "HOLDER:a --token a.cap --to JKT:b", "ab abc"),
        ("delegation", "HOLDER:b --token ab.cap --to JKT:c", "abc"),
        ("delegation", "HOLDER:d --token adc.cap --to JKT:c", "adc"),
        ("delegation", "ADMIN --delegation GRANT JKT:a JKT:d", "ad adc"),
        (
            "grant",
            "CLIENT --subject SUBJECT --subject-issuer IDP",
            "a ab abc ad adc a2",
        ),
        (
            "subject",
            "ADMIN --subject SUBJECT --subject-issuer IDP",
            "a ab abc ad adc a2 dev",
        ),
        ("client", "CLIENT --everything", "a ab abc ad adc a2"),
    ];
    for (number, (kind, words, dead)) in rows.into_iter().enumerate() {
        let tree = Tree::grow(&up, &format!("subject-{number}"));
        for name in ALL {
            let answer = tree.call(name);
            assert_eq!(answer.status, 200, "{words}: {name} before: {answer:?}");
        }
        let told = tree.revoke(words);
        assert_eq!(told["revoked"], true, "{words}: {told}");
        for entry in told["entries"].as_array().unwrap() {
            assert!(
                entry["what"][kind] != Value::Null && entry["seq"].is_u64(),
                "{words}: {told}"
            );
        }
        let dead: Vec<&str> = dead.split(' ').collect();
        // The entries of one answer arrive one after the other; the last one ends the last of these.
        for name in &dead {
            // A call that is under way when the revocation arrives is cut off without an answer.
            let refused = (0..2_000)
                .map(|_| tree.call(name))
                .find(|answer| !matches!(answer.status, 0 | 200));
            let refused = refused.unwrap_or_else(|| panic!("{words}: {name} is never refused"));
            assert_eq!(refused.status, 401, "{words}: {name}: {refused:?}");
            assert!(refused.head.contains("M-12"), "{words}: {name}: {refused:?}");
        }
        for name in ALL.iter().filter(|name| !dead.contains(name)) {
            let answer = tree.call(name);
            assert_eq!(answer.status, 200, "{words}: {name} goes on: {answer:?}");
        }
        assert_eq!(tree.revoke(words), told, "{words}: the same numbers again");
    }
    // What was revoked stays so over a crash, with its number, and the public client goes on.
    let Up { process, folder } = up;
    process.crash();
    let up = Up {
        process: Up::start_in(folder.path()),
        folder,
    };
    let list = [
        "exchange",
        "--issuer",
        &up.issuer(),
        "--key",
        "a.jwk",
        "--subject-token",
        "access-token",
    ];
    let client = [
        "--scope",
        "git:*",
        "--client-id",
        CLIENT,
        "--client-secret-file",
        SECRET,
    ];
    let refused = taper(up.dir(), &[&list[..], &client].concat());
    assert_eq!(refused.status.code(), Some(2), "X-10: {refused:?}");
    let admin_token = up.process.text("/admin_token_file");
    let again = taper_ok(
        up.dir(),
        &[
            "revoke",
            "--client",
            CLIENT,
            "--admin-url",
            &up.process.text("/admin"),
            "--admin-token-file",
            &admin_token,
            "--format",
            "json",
        ],
    );
    let again: Value = serde_json::from_str(&again).unwrap();
    // Every row but the subject's by its client has one entry; that one has two.
    assert_eq!(again["entries"][0]["seq"], rows.len() + 1, "{again}");
}
