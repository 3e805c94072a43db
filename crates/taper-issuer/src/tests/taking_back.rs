//! Who may revoke what, and what ends with it: one tree of capabilities, and each form of `POST /revoke`
//! by everybody who might try.

use serde_json::{Value, json};
use taper_capability::{Delegation, Narrowing, Token};
use taper_dpop::{Algorithm, PrivateKey};
use taper_service::rng;

use super::support::{ADMIN, Answer, Ask, NOW, Rig, SECRET, send};

/// Everybody's keys, and their capabilities by name.
struct Tree {
    rig: Rig,
    keys: Vec<(&'static str, PrivateKey)>,
    tokens: Vec<(&'static str, String)>,
}

impl Tree {
    /// ```text
    /// a ── ab ── abc ── abcn (narrowed by c)      granted to the client web, for alice
    /// ├─── ad ── adc                              (c again, by another way)
    /// └─── an ── anb (narrowed by a, handed to b)
    /// a2                                          a second grant for alice at web
    /// bob                                         web, for bob
    /// batch                                       another client with a secret, for alice
    /// agent                                       a public client, for alice
    /// ```
    async fn grow() -> Self {
        let rig = Rig::new().await;
        let key = || PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
        let mut tree = Self {
            keys: vec![
                ("b", key()),
                ("c", key()),
                ("d", key()),
                ("stranger", key()),
                ("e", key()),
            ],
            tokens: Vec::new(),
            rig,
        };
        for (name, client, subject) in [
            ("a", "web", "alice"),
            ("a2", "web", "alice"),
            ("bob", "web", "bob"),
            ("batch", "batch", "alice"),
            ("agent", "agent", "alice"),
        ] {
            let token = tree.grant(client, subject, "e").await;
            tree.tokens.push((name, token));
        }
        tree.hand_on("ab", "a", "a", "b");
        tree.hand_on("abc", "ab", "b", "c");
        tree.narrow("abcn", "abc", "c", NOW + 500);
        tree.hand_on("ad", "a", "a", "d");
        tree.hand_on("adc", "ad", "d", "c");
        tree.narrow("an", "a", "a", NOW + 600);
        tree.hand_on("anb", "an", "a", "b");
        tree
    }

    /// The grant of `a` is held by the key `a`, all others by `other`.
    async fn grant(&self, client: &str, subject: &str, other: &str) -> String {
        let token = self.rig.token(|claims| claims["sub"] = subject.into());
        let ask = self.rig.ask().set("subject_token", token);
        let ask = match client {
            "agent" => ask,
            client => ask.basic(client, SECRET),
        };
        let first = self.tokens.is_empty();
        let key = if first { &self.rig.holder } else { self.key(other) };
        let answer = ask.change(|ask| ask.key = Some(key)).accepted("grant").await;
        answer.json["access_token"].as_str().unwrap().to_owned()
    }

    fn key(&self, name: &str) -> &PrivateKey {
        let known = self.keys.iter().find(|(known, _)| *known == name);
        known.map_or(&self.rig.holder, |(_, key)| key)
    }

    fn jkt(&self, name: &str) -> String {
        self.key(name).public().thumbprint().to_string()
    }

    fn token<'a>(&'a self, name: &'a str) -> &'a str {
        let known = self.tokens.iter().find(|(known, _)| *known == name);
        known.map_or(name, |(_, token)| token)
    }

    fn hand_on(&mut self, name: &'static str, parent: &str, from: &str, to: &str) {
        let parent = Token::parse(self.token(parent)).unwrap();
        let child = Delegation::to(self.key(to).public())
            .until(NOW + 900)
            .sign(&parent, self.key(from), &mut rng::os())
            .unwrap();
        self.tokens.push((name, child.as_str().to_owned()));
    }

    fn narrow(&mut self, name: &'static str, parent: &str, by: &str, until: i64) {
        let parent = Token::parse(self.token(parent)).unwrap();
        let narrowed = Narrowing::new().until(until);
        let narrowed = narrowed.sign(&parent, self.key(by), &mut rng::os()).unwrap();
        self.tokens.push((name, narrowed.as_str().to_owned()));
    }

    fn grant_id(&self, name: &str) -> String {
        self.rig.verify(self.token(name)).grant_id().to_owned()
    }

    /// The id of the last branch of a capability.
    fn branch(&self, name: &str) -> String {
        let chain = self.rig.verify(self.token(name));
        let id = chain.branch_ids().last().unwrap();
        id.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Parameters in words: `token=NAME`, `to=KEY`, `holder=KEY`, `grant_id=NAME`, `branch=NAME`; other
    /// values stand for themselves.
    fn asked(&self, words: &str) -> Vec<(&'static str, String)> {
        let value = |name: &str, value: &str| match name {
            "token" => ("token", self.token(value).to_owned()),
            "to" => ("to", self.jkt(value)),
            "holder" => ("holder", self.jkt(value)),
            "grant_id" if value.len() > 9 => ("grant_id", value.to_owned()),
            "grant_id" => ("grant_id", self.grant_id(value)),
            "branch" if value == "last" || value.len() > 9 => ("branch", value.to_owned()),
            "branch" => ("branch", self.branch(value)),
            "subject" => ("subject", value.to_owned()),
            "after" => ("after", value.to_owned()),
            "everything" => ("everything", value.to_owned()),
            "idp" => ("subject_issuer", self.rig.provider.issuer.clone()),
            "client_id" => ("client_id", value.to_owned()),
            other => panic!("{other}"),
        };
        words
            .split(' ')
            .map(|word| word.split_once('=').unwrap_or((word, "")))
            .map(|(name, given)| value(name, given))
            .collect()
    }

    /// An honest request. `who` is a key, or a client with its secret (`web:`), or both.
    fn ask(&self, who: &str, words: &str) -> Ask<'_> {
        let (client, key) = who.split_once(':').unwrap_or(("", who));
        let mut ask = Ask::new(&self.rig, "/revoke");
        for (name, value) in self.asked(words) {
            if name == "token" {
                ask = ask.ath(&value);
            }
            ask = ask.set(name, value);
        }
        if !client.is_empty() {
            ask = ask.basic(client, SECRET);
        }
        let proofs = usize::from(!key.is_empty());
        ask.change(|ask| {
            ask.key = Some(self.key(key));
            ask.digest = true;
            ask.proofs = proofs;
        })
    }

    /// The capabilities that count, by introspection.
    async fn alive(&self) -> Vec<&'static str> {
        let mut alive = Vec::new();
        for (name, token) in &self.tokens {
            let ask = Ask::new(&self.rig, "/introspect").set("token", token.as_str());
            let answer = ask.basic("proxy", SECRET).accepted("introspect").await;
            if answer.json["active"] == true {
                alive.push(*name);
            }
        }
        alive
    }

    async fn admin(&self, what: Value) -> Answer {
        let token = Some(format!("Bearer {ADMIN}"));
        send(
            &self.rig.admin,
            "POST",
            "/admin/v1/revocations",
            token,
            Some(what),
        )
        .await
    }

    async fn list(&self, query: &str) -> Answer {
        let (token, path) = (
            Some(format!("Bearer {ADMIN}")),
            format!("/admin/v1/revocations{query}"),
        );
        send(&self.rig.admin, "GET", &path, token, None).await
    }
}

const ALL: &str = "a a2 bob batch agent ab abc abcn ad adc an anb";

/// What is alive of [`ALL`] without `dead`.
fn without(dead: &str) -> Vec<&'static str> {
    let dead: Vec<&str> = dead.split(' ').collect();
    ALL.split(' ').filter(|name| !dead.contains(name)).collect()
}

/// Who, what, and what ends with it.
#[tokio::test]
async fn whoever_is_entitled_takes_back_exactly_that() {
    const WHOLE: &str = "a ab abc abcn ad adc an anb";
    let rows = [
        // By its holder, RFC 7009; also with an own narrowed capability.
        ("web:a", "token=a", WHOLE, "holder", true),
        ("web:a", "token=an", WHOLE, "holder", true),
        ("e", "token=agent client_id=agent", "agent", "holder", true),
        // By a delegator: what it handed to a key, at every depth, with any chain in which it is a holder.
        ("a", "token=a to=b", "ab abc abcn anb", "holder", true),
        ("a", "token=an to=b", "ab abc abcn anb", "holder", true),
        ("a", "token=abc to=b", "ab abc abcn anb", "holder", true),
        ("a", "token=a to=d", "ad adc", "holder", true),
        ("b", "token=ab to=c", "abc abcn", "holder", true),
        ("d", "token=ad to=c", "adc", "holder", true),
        ("a", "token=a to=stranger", "none", "holder", true),
        ("c", "token=abc to=b", "none", "holder", true),
        // By a delegator: a branch that it signed.
        ("a", "token=ab branch=ab", "ab abc abcn", "holder", true),
        ("a", "token=abcn branch=ab", "ab abc abcn", "holder", true),
        ("a", "token=abc branch=last", "ab abc abcn", "holder", true),
        ("a", "token=anb branch=last", "anb", "holder", true),
        ("a", "token=anb branch=an", "an anb", "holder", true),
        ("b", "token=abcn branch=abc", "abc abcn", "holder", true),
        ("b", "token=abcn branch=last", "abc abcn", "holder", true),
        ("c", "token=abcn branch=abcn", "abcn", "holder", true),
        ("d", "token=adc branch=last", "adc", "holder", true),
        // By a key: itself, wherever it stands.
        ("a", "holder=a", WHOLE, "holder", false),
        ("b", "holder=b token=ab", "ab abc abcn anb", "holder", false),
        ("b", "holder=b token=abc", "ab abc abcn anb", "holder", false),
        ("c", "holder=c token=adc", "abc abcn adc", "holder", false),
        ("e", "holder=e", "a2 bob batch agent", "holder", false),
        // By a client with its secret: what was granted to it.
        ("web:", "grant_id=a", WHOLE, "client web", true),
        ("web:", "grant_id=a2", "a2", "client web", true),
        (
            "web:",
            "grant_id=a branch=ab token=abc",
            "ab abc abcn",
            "client web",
            true,
        ),
        (
            "web:",
            "grant_id=a branch=an token=anb",
            "an anb",
            "client web",
            true,
        ),
        ("web:", "grant_id=a branch=a token=ad", WHOLE, "client web", true),
        (
            "web:",
            "subject=alice idp",
            "a ab abc abcn ad adc an anb a2",
            "client web",
            true,
        ),
        ("web:", "subject=bob idp", "bob", "client web", true),
        ("batch:", "subject=alice idp", "batch", "client batch", true),
        (
            "web:",
            "everything=true",
            "a ab abc abcn ad adc an anb a2 bob",
            "client web",
            false,
        ),
        ("batch:", "everything=true", "batch", "client batch", false),
    ];
    for (who, words, dead, by, ends) in rows {
        let name = format!("{who}: {words}");
        let tree = Tree::grow().await;
        assert_eq!(tree.alive().await, without("none"), "{name}: before");
        let answer = tree.ask(who, words).accepted(&name).await;
        assert_eq!(tree.alive().await, without(dead), "{name}: after");
        // What is told is what is recorded, with who asked for it and until when.
        let list = tree.list("").await.json;
        let entries = list["entries"].as_array().unwrap();
        let told: Vec<Value> = entries
            .iter()
            .map(|entry| json!({"seq": entry["seq"], "what": entry["what"]}))
            .collect();
        assert!(!told.is_empty(), "{name}");
        assert_eq!(answer.json, json!({"entries": told}), "{name}");
        for entry in entries {
            let until = if ends {
                json!(NOW + 1800 + 300)
            } else {
                Value::Null
            };
            assert_eq!(entry["until"], until, "{name}");
            let asked_by = entry["by"].as_str().unwrap();
            match by {
                "holder" => {
                    let key = who.split(':').next_back().unwrap();
                    assert_eq!(asked_by, format!("holder {}", tree.jkt(key)), "{name}");
                }
                client => assert_eq!(asked_by, client, "{name}"),
            }
        }
        // Once more: the same numbers.
        let again = tree.ask(who, words).accepted(&name).await;
        assert_eq!(again.json, answer.json, "{name}");
        assert_eq!(tree.list("").await.json["head"], list["head"], "{name}");
    }
}

/// Who may not, and by which rule. Nothing is recorded.
#[tokio::test]
async fn nobody_else_takes_anything_back() {
    let tree = Tree::grow().await;
    let proof = ("invalid_dpop_proof", 400);
    let rows = [
        // X-20 to X-22: a capability alone, by its last holder, not handed on, own client.
        ("web:b", "token=a", proof, "not made with the key of"),
        (
            "web:b",
            "token=ab",
            ("unsupported_token_type", 400),
            "handed on does not revoke",
        ),
        ("batch:a", "token=a", ("invalid_grant", 400), "another client"),
        (":a", "token=a", ("invalid_client", 401), "names no client"),
        ("a", "token=a client_id=web", ("invalid_client", 401), "failed"),
        // X-30: `to` by a holder of the chain.
        ("b", "token=a to=c", proof, "no holder"),
        ("stranger", "token=abc to=c", proof, "no holder"),
        ("c", "token=ab to=b", proof, "no holder"),
        ("d", "token=abc to=c", proof, "no holder"),
        // X-30: a branch by its signer.
        ("b", "token=ab branch=ab", proof, "did not sign"),
        ("a", "token=abc branch=abc", proof, "did not sign"),
        ("a", "token=a branch=a", proof, "did not sign"),
        ("c", "token=abc branch=abc", proof, "did not sign"),
        ("d", "token=abc branch=ab", proof, "did not sign"),
        ("b", "token=ab branch=last", proof, "handed nothing on"),
        ("c", "token=abcn branch=last", proof, "handed nothing on"),
        ("a", "token=an branch=last", proof, "handed nothing on"),
        ("a", "token=ab branch=ad", proof, "no such branch"),
        ("a", "token=ab branch=nothing-like-it", proof, "no such branch"),
        // X-31, X-32: a key that is known, and only by itself.
        ("a", "holder=b token=ab", proof, "only an administrator"),
        ("stranger", "holder=a", proof, "only an administrator"),
        (
            "stranger",
            "holder=stranger",
            ("invalid_grant", 400),
            "does not know the key",
        ),
        ("b", "holder=b", ("invalid_grant", 400), "does not know the key"),
        (
            "stranger",
            "holder=stranger token=a",
            ("invalid_grant", 400),
            "does not know the key",
        ),
        (
            "b",
            "holder=b token=a",
            ("invalid_grant", 400),
            "does not know the key",
        ),
        (
            "b",
            "holder=b token=nonsense",
            ("invalid_grant", 400),
            "does not know the key",
        ),
        // X-33: a client with a secret, not one that is only named, and not a key.
        (
            "",
            "grant_id=agent client_id=agent",
            ("unauthorized_client", 400),
            "a client with a secret",
        ),
        (
            "a",
            "grant_id=agent client_id=agent",
            ("unauthorized_client", 400),
            "a client with a secret",
        ),
        (
            "",
            "subject=alice idp client_id=agent",
            ("unauthorized_client", 400),
            "a client with a secret",
        ),
        (
            "",
            "everything=true client_id=agent",
            ("unauthorized_client", 400),
            "a client with a secret",
        ),
        (
            "",
            "everything=true client_id=web",
            ("invalid_client", 401),
            "failed",
        ),
        ("a", "grant_id=a", ("invalid_client", 401), "names no client"),
        // X-21: its own grants. One that is another's is one that does not exist.
        (
            "web:",
            "grant_id=batch",
            ("invalid_grant", 400),
            "has no grant with this id",
        ),
        (
            "web:a",
            "grant_id=agent",
            ("invalid_grant", 400),
            "has no grant with this id",
        ),
        (
            "web:",
            "grant_id=AAAAAAAAAAAAAAAAAAAAAA",
            ("invalid_grant", 400),
            "has no grant with this id",
        ),
        (
            "batch:",
            "grant_id=a branch=ab token=ab",
            ("invalid_grant", 400),
            "has no grant with this id",
        ),
        // X-34: a branch that is shown to be of this grant.
        (
            "web:",
            "grant_id=a2 branch=ab token=ab",
            ("invalid_grant", 400),
            "that has this branch",
        ),
        (
            "batch:",
            "grant_id=batch branch=ab token=ab",
            ("invalid_grant", 400),
            "that has this branch",
        ),
        (
            "web:",
            "grant_id=a branch=ab token=ad",
            ("invalid_grant", 400),
            "that has this branch",
        ),
        (
            "web:",
            "grant_id=a branch=ab token=nonsense",
            ("invalid_grant", 400),
            "that has this branch",
        ),
        // X-28: one thing at a time, and a value that can be one.
        (
            "a",
            "token=a to=a",
            ("invalid_request", 400),
            "from one key to another",
        ),
        (
            "a",
            "token=a to=b branch=last",
            ("invalid_request", 400),
            "`branch` does not go with `token`, `to`",
        ),
        (
            "web:a",
            "token=a everything=true",
            ("invalid_request", 400),
            "`token` does not go with",
        ),
        (
            "web:a",
            "grant_id=a token=a",
            ("invalid_request", 400),
            "`token` does not go with",
        ),
        (
            "web:",
            "grant_id=a branch=ab",
            ("invalid_request", 400),
            "`token` is missing",
        ),
        (
            "web:",
            "subject=alice",
            ("invalid_request", 400),
            "`subject_issuer` is missing",
        ),
        ("web:", "everything=yes", ("invalid_request", 400), "`everything`"),
        ("web:a", "to=b", ("invalid_request", 400), "`token` is missing"),
    ];
    for (who, words, (code, status), says) in rows {
        let name = format!("{who}: {words}");
        let answer = tree.ask(who, words).refused(&name, status, code).await;
        assert!(answer.text.contains(says), "{name}: {}", answer.text);
    }
    // X-29: a proof that is not bound to the body could be used with another one.
    for (who, words) in [
        ("a", "token=a to=b"),
        ("a", "token=ab branch=last"),
        ("a", "holder=a"),
        ("b", "holder=b token=ab"),
    ] {
        let unbound = tree.ask(who, words).change(|ask| ask.digest = false);
        let answer = unbound.refused(words, 400, proof.0).await;
        assert!(answer.text.contains("content_digest"), "{words}: {}", answer.text);
        let other = tree.ask(who, words).change(|ask| ask.digest = false);
        let other = other.change(|ask| ask.claims = ask.claims.clone().body(b"another"));
        other.refused(words, 400, proof.0).await;
        let missing = tree.ask(who, words).change(|ask| ask.proofs = 0);
        missing.refused(words, 400, proof.0).await;
        if words.contains("token") {
            let elsewhere = tree.ask(who, words).ath("another");
            elsewhere.refused(words, 400, proof.0).await;
        }
    }
    // Credentials of a client that are not needed are true all the same.
    let lies = tree.ask("a", "token=a to=b client_id=web");
    lies.refused("named without its secret", 401, "invalid_client")
        .await;
    assert_eq!(tree.alive().await, without("none"));
    assert_eq!(tree.list("").await.json, json!({"entries": [], "head": 0}));
}

/// X-05: a proof revokes once.
#[tokio::test]
async fn a_proof_is_spent() {
    let tree = Tree::grow().await;
    for (who, words) in [
        ("a", "token=a to=b"),
        ("a", "token=ad branch=last"),
        ("b", "holder=b token=ab"),
    ] {
        let ask = || tree.ask(who, words);
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&tree.asked(words))
            .finish();
        let claims = ask().claims.body(body.as_bytes());
        let signed = claims.sign(tree.key(who)).unwrap();
        let again = || ask().change(|ask| ask.proof = Some(signed.clone()));
        again().accepted(words).await;
        let refused = again().refused(words, 400, "invalid_dpop_proof").await;
        assert!(refused.text.contains("used before"), "{words}: {}", refused.text);
    }
}

/// R-07: a proof counts by the time at which it is taken, not by that at which its request began.
#[tokio::test]
async fn a_proof_that_became_too_old_on_the_way_takes_nothing_back() {
    let tree = Tree::grow().await;
    let check = async |who: &str, words: &str, seconds: i64, counts: bool| {
        tree.rig.clock.set(NOW);
        let ask = tree.ask(who, words);
        tree.rig.seen_clock.goes_on(seconds);
        if counts {
            ask.accepted(words).await;
        } else {
            let refused = ask.refused(words, 400, "invalid_dpop_proof").await;
            assert!(refused.text.contains("too old"), "{words}: {}", refused.text);
        }
    };
    for (who, words) in [
        ("a", "token=a to=b"),
        ("a", "token=ad branch=last"),
        ("b", "holder=b token=ab"),
        ("e", "holder=e"),
        ("web:a", "token=a"),
    ] {
        check(who, words, 361, false).await;
    }
    check("a", "token=a to=b", 360, true).await;
}

/// A chain that ended, or of which something is revoked, still says what its keys signed. Its grant has to
/// live: after that, and when the whole of it is revoked, there is nothing to stop and nothing is stored.
#[tokio::test]
async fn taking_back_outlives_the_chain_but_not_the_grant() {
    let tree = Tree::grow().await;
    let nothing = json!({"entries": []});
    let recorded = async || tree.list("").await.json["head"].clone();
    tree.ask("a", "token=a to=b").accepted("first").await;
    let answer = tree
        .ask("b", "token=ab to=c")
        .accepted("by one that was shut out")
        .await;
    assert_eq!(answer.json["entries"][0]["seq"], 2);
    tree.rig.clock.advance(700);
    assert_eq!(tree.alive().await, without("ab abc abcn anb an"));
    let answer = tree
        .ask("a", "token=anb branch=last")
        .accepted("an expired chain")
        .await;
    assert_eq!(answer.json["entries"][0]["seq"], 3);

    tree.admin(json!({"subject": {"iss": tree.rig.provider.issuer, "sub": "alice"}}))
        .await;
    assert_eq!(recorded().await, 4);
    for (who, words) in [("a", "token=a to=d"), ("a", "token=ad branch=last")] {
        let answer = tree.ask(who, words).accepted("stopped already").await;
        assert_eq!(answer.json, nothing, "{words}");
    }
    let shut_out = tree.ask("d", "holder=d token=ad");
    shut_out
        .refused("no key of a dead grant", 400, "invalid_grant")
        .await;
    assert_eq!(recorded().await, 4);
    tree.ask("web:a", "token=a").accepted("the grant itself").await;
    assert_eq!(recorded().await, 5);

    // At its end some proxy takes a capability for live, and the revocation is kept for it.
    tree.rig.clock.advance(1100);
    let late = tree.ask("e", "token=bob to=b").accepted("just ended").await;
    assert_eq!(late.json["entries"][0]["seq"], 6);
    tree.rig.clock.advance(299);
    for (who, words, seq) in [
        ("web:", "grant_id=bob branch=bob token=bob", 7),
        ("web:", "grant_id=bob", 8),
        ("web:", "subject=bob idp", 8),
        ("web:e", "token=bob", 8),
    ] {
        let late = tree.ask(who, words).accepted(words).await;
        assert_eq!(late.json["entries"][0]["seq"], seq, "{words}");
    }
    let last = tree.list("?after=7").await.json;
    assert_eq!(last["entries"][0]["until"], NOW + 1800 + 300);
    tree.rig.clock.advance(1);
    for (who, words) in [
        ("web:e", "token=bob"),
        ("e", "token=bob to=b"),
        ("web:", "grant_id=bob"),
        ("web:", "subject=bob idp"),
        ("web:", "grant_id=bob branch=bob token=bob"),
    ] {
        let answer = tree.ask(who, words).accepted(words).await;
        assert_eq!(answer.json, nothing, "{words}: it has ended");
    }
    assert_eq!(recorded().await, 8);
}

/// X-35: keys and branches cost nothing, so what is kept of those below a grant is bounded; those above
/// have room that those below cannot use up, and the grant itself can always be revoked.
#[tokio::test]
async fn what_is_revoked_below_a_grant_is_bounded() {
    let tree = Tree::grow().await;
    let parent = Token::parse(tree.token("ab")).unwrap();
    // A key of b's that revokes itself; it is never forgotten.
    let throwaway = async || {
        let key = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
        let child = Delegation::to(key.public()).until(NOW + 900);
        let child = child.sign(&parent, tree.key("b"), &mut rng::os()).unwrap();
        Ask::new(&tree.rig, "/revoke")
            .set("holder", key.public().thumbprint().to_string())
            .set("token", child.as_str())
            .ath(child.as_str())
            .change(|ask| {
                ask.key = Some(&key);
                ask.digest = true;
            })
            .send()
            .await
    };
    let to = |n: usize| tree.ask("b", "token=ab").set("to", format!("{n:0>42}A"));
    let head = async || tree.list("?limit=1").await.json["head"].clone();
    assert_eq!(throwaway().await.status, 200);
    for n in 1..900 {
        to(n).accepted("b takes back from anybody").await;
    }
    let full = |answer: &Answer| {
        assert_eq!(answer.status, 429, "{}", answer.text);
        assert_eq!(answer.json["error"], "temporarily_unavailable");
        assert!(answer.text.contains("revoke the grant itself"), "{}", answer.text);
        assert!(answer.text.contains("administrator"), "{}", answer.text);
    };
    full(&throwaway().await);
    for n in 900..950 {
        to(n).accepted("b has more room than what it handed on").await;
    }
    for words in ["token=ab to=c", "token=abc branch=last", "holder=b token=ab"] {
        full(&tree.ask("b", words).send().await);
    }
    assert_eq!(head().await, 950, "nothing more is stored");
    let again = to(1).accepted("it is there").await;
    assert_eq!(again.json["entries"][0]["seq"], 2);
    // Another grant, those above, the client: there is room.
    tree.ask("e", "token=a2 to=b").accepted("another grant").await;
    tree.ask("a", "token=a to=b").accepted("its delegator").await;
    let branch = "grant_id=a branch=ad token=ad";
    tree.ask("web:", branch).accepted("the client").await;
    assert_eq!(tree.alive().await, without("ab abc abcn anb ad adc"));
    for n in 952..1000 {
        let ask = tree.ask("a", "token=a").set("to", format!("{n:0>42}A"));
        ask.accepted("to the limit").await;
    }
    full(&tree.ask("a", "token=a to=c").send().await);
    full(&tree.ask("web:", "grant_id=a branch=an token=an").send().await);
    // The ways out.
    tree.ask("a", "holder=a").accepted("a first holder").await;
    let delegation = json!({"grant": tree.grant_id("a"), "from": tree.jkt("a"), "to": tree.jkt("c")});
    assert_eq!(tree.admin(json!({ "delegation": delegation })).await.status, 200);
    tree.ask("web:", "grant_id=a").accepted("the grant").await;
    assert_eq!(tree.alive().await, ["a2", "bob", "batch", "agent"]);
}

/// All grants of a subject, a hundred at a time.
#[tokio::test]
async fn the_grants_of_a_subject_are_revoked_in_parts() {
    let mut tree = Tree::grow().await;
    for _ in 0..100 {
        let token = tree.grant("web", "alice", "e").await;
        tree.tokens.push(("more", token));
    }
    let words = "subject=alice idp";
    let first = tree.ask("web:", words).accepted("first").await.json;
    assert_eq!(first["entries"].as_array().unwrap().len(), 100);
    let next = first["next"].as_str().unwrap();
    let rest = format!("{words} after={next}");
    let rest = tree.ask("web:", &rest).accepted("rest").await.json;
    assert_eq!(rest["entries"].as_array().unwrap().len(), 2);
    assert_eq!(rest.get("next"), None);
    assert_eq!(tree.alive().await, ["bob", "batch", "agent"]);
}

/// All six kinds by an administrator, and the list of them.
#[tokio::test]
async fn an_administrator_revokes_all_six_kinds() {
    type What = fn(&Tree) -> Value;
    let rows: [(What, &str, bool); 6] = [
        (
            |tree| json!({"grant": tree.grant_id("a")}),
            "a ab abc abcn ad adc an anb",
            true,
        ),
        (|tree| json!({"branch": tree.branch("ab")}), "ab abc abcn", false),
        (|tree| json!({"holder": tree.jkt("c")}), "abc abcn adc", false),
        (
            |_| json!({"client": "web"}),
            "a a2 bob ab abc abcn ad adc an anb",
            false,
        ),
        (
            |tree| json!({"subject": {"iss": tree.rig.provider.issuer, "sub": "bob"}}),
            "bob",
            false,
        ),
        (
            |tree| json!({"delegation": {"grant": tree.grant_id("a"), "from": tree.jkt("a"), "to": tree.jkt("b")}}),
            "ab abc abcn anb",
            true,
        ),
    ];
    for (what, dead, ends) in rows {
        let tree = Tree::grow().await;
        let what = what(&tree);
        assert_eq!(tree.admin(what.clone()).await.json, json!({"seq": 1}), "{what}");
        assert_eq!(
            tree.admin(what.clone()).await.json,
            json!({"seq": 1}),
            "{what}: again"
        );
        assert_eq!(tree.alive().await, without(dead), "{what}");
        let until = if ends { json!(NOW + 2100) } else { Value::Null };
        let entry = json!({"seq": 1, "at": NOW, "what": what, "until": until, "by": "admin"});
        assert_eq!(tree.list("").await.json, json!({"entries": [entry], "head": 1}));
    }
    let tree = Tree::grow().await;
    let delegation = |grant: &str, to: &str| json!({"delegation": {"grant": grant, "from": tree.jkt("a"), "to": tree.jkt(to)}});
    assert_eq!(tree.admin(delegation("mistyped", "b")).await.status, 404);
    assert_eq!(tree.admin(delegation(&tree.grant_id("a"), "a")).await.status, 400);
    for n in 1..4 {
        tree.admin(json!({"client": format!("c{n}")})).await;
    }
    let page = tree.list("?after=1&limit=1").await.json;
    assert_eq!(
        (&page["head"], &page["entries"][0]["seq"]),
        (&json!(3), &json!(2))
    );
    assert_eq!(page["entries"].as_array().unwrap().len(), 1);
    for wrong in ["?limit=0", "?limit=1001", "?after=-1", "?before=1"] {
        assert_eq!(tree.list(wrong).await.status, 400, "{wrong}");
    }
    let nobody = send(&tree.rig.admin, "GET", "/admin/v1/revocations", None, None).await;
    assert_eq!(nobody.status, 401);
}
