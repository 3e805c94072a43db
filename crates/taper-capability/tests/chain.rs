//! Chains made, broken and verified.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use biscuit_auth::builder::{BlockBuilder, Fact, Term};
use biscuit_auth::{KeyPair, UnverifiedBiscuit};
use rand_core::OsRng;
use taper_capability::*;
use taper_dpop::{Algorithm, PrivateKey, PublicKey, base64url_decode, base64url_encode};

const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://issuer.example";

struct World {
    root: RootKey,
    holder: PrivateKey,
    grant: Grant,
    token: Token,
}

fn key() -> PrivateKey {
    PrivateKey::generate(Algorithm::EdDsa, &mut OsRng)
}

fn world() -> World {
    let root = RootKey::generate(7, &mut OsRng);
    let holder = key();
    let grant = Grant {
        issuer: ISSUER.into(),
        id: Grant::new_id(&mut OsRng),
        subject: Party {
            iss: "https://idp.example".into(),
            sub: "alice".into(),
        },
        client: "dev".into(),
        actor: None,
        holder: holder.public(),
        audiences: vec!["https://proxy.example/git/mcp".into()],
        rights: vec![Right::AnyTool { server: "git".into() }],
        claims: vec![("groups".into(), "eng".into())],
        issued_at: NOW,
        expires_at: NOW + 3600,
        max_depth: 3,
        caveats: vec![],
    };
    let token = issue(&grant, &root, &mut OsRng).unwrap();
    World {
        root,
        holder,
        grant,
        token,
    }
}

impl World {
    fn verifier(&self) -> Verifier {
        Verifier::new(Roots::new().trust(ISSUER, 7, self.root.public(), None).unwrap())
    }

    fn verify(&self, token: &Token) -> Result<VerifiedChain, Error> {
        self.verifier()
            .verify(UnverifiedToken::decode(token.as_str())?, NOW)
    }

    #[track_caller]
    fn refused(&self, token: &Token, rule: &str) {
        let result = self.verify(token);
        assert_eq!(
            result.as_ref().err().map(|e| e.rule().as_str()),
            Some(rule),
            "{result:?}"
        );
    }
}

fn biscuit(token: &Token) -> UnverifiedBiscuit {
    UnverifiedBiscuit::from(base64url_decode(token.as_str()).unwrap().as_slice()).unwrap()
}

fn text(biscuit: &UnverifiedBiscuit) -> Token {
    Token::parse(&base64url_encode(&biscuit.to_vec().unwrap())).unwrap()
}

/// Appends whatever block `source` makes, signed by `signer`.
fn forge(token: &Token, signer: &PrivateKey, holders: &[&PublicKey], source: &str) -> Token {
    let algorithm = match signer.algorithm() {
        Algorithm::EdDsa => biscuit_auth::builder::Algorithm::Ed25519,
        Algorithm::Es256 => biscuit_auth::builder::Algorithm::Secp256r1,
    };
    let signer = biscuit_auth::PrivateKey::from_bytes(&signer.to_bytes(), algorithm).unwrap();
    let mut block = BlockBuilder::new().code(source).unwrap();
    for holder in holders {
        let terms = vec![Term::Str("ed25519".into()), Term::Bytes(holder.to_bytes())];
        block = block.fact(Fact::new("holder".into(), terms)).unwrap();
    }
    let biscuit = biscuit(token);
    let signed = biscuit
        .third_party_request()
        .unwrap()
        .create_block(&signer, block)
        .unwrap();
    text(&biscuit.append_third_party(&signed.serialize().unwrap()).unwrap())
}

const EXPIRY: &str = "check if time($t), $t < 2027-01-15T08:10:00Z;";

#[test]
fn a_chain_of_two_hand_overs_and_a_narrowing_verifies() {
    let w = world();
    for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
        let (a, b) = (
            PrivateKey::generate(algorithm, &mut OsRng),
            PrivateKey::generate(algorithm, &mut OsRng),
        );
        let only = Caveat::Tool {
            server: "git".into(),
            tools: vec!["git_log".into(), "git_show".into()],
        };
        let one = Delegation::to(a.public())
            .until(NOW + 600)
            .only(only.clone())
            .note("hi")
            .sign(&w.token, &w.holder, &mut OsRng)
            .unwrap();
        let two = Narrowing::new().max_depth(2).sign(&one, &a, &mut OsRng).unwrap();
        let three = Delegation::to(b.public())
            .until(NOW + 9999)
            .sign(&two, &a, &mut OsRng)
            .unwrap();
        let sealed = three.sealed().unwrap();
        assert_eq!(sealed.sealed().unwrap(), sealed);
        assert_eq!(Narrowing::new().sign(&sealed, &b, &mut OsRng), Err(Error::Sealed));
        for token in [&three, &sealed] {
            let chain = w.verify(token).unwrap();
            assert_eq!(chain.depth(), 2);
            assert_eq!(chain.max_depth(), 2);
            assert_eq!(chain.expires_at(), NOW + 600);
            assert_eq!(chain.last_holder(), &b.public());
            assert_eq!(chain.links()[1].caveats[0].caveat(), Some(&only));
            assert_eq!(chain.links()[1].note.as_deref(), Some("hi"));
            let kinds: Vec<_> = chain.links().iter().map(|l| l.kind).collect();
            assert_eq!(
                kinds,
                [
                    LinkKind::Grant,
                    LinkKind::HandOver,
                    LinkKind::Narrowing,
                    LinkKind::HandOver
                ]
            );
            assert_eq!(chain.branch_ids().len(), 4);
            assert_eq!(chain.grant_id(), w.grant.id);
            assert_eq!(chain.claims(), w.grant.claims);
        }
        assert!(matches!(
            Delegation::to(key().public())
                .until(NOW + 1)
                .sign(&three, &b, &mut OsRng),
            Err(Error::Depth { depth: 3, max: 2 })
        ));
        assert!(matches!(
            Narrowing::new().sign(&three, &a, &mut OsRng),
            Err(Error::Signer { .. })
        ));
    }
}

#[test]
fn forged_blocks_are_refused_each_for_its_reason() {
    let w = world();
    let (child, stranger) = (key(), key());
    let c = &child.public();
    let good = forge(&w.token, &w.holder, &[c], EXPIRY);
    assert!(w.verify(&good).is_ok());
    w.refused(&forge(&w.token, &stranger, &[c], EXPIRY), "D-02");
    w.refused(&forge(&good, &w.holder, &[c], EXPIRY), "D-02");
    w.refused(&forge(&w.token, &w.holder, &[], EXPIRY), "D-03");
    w.refused(
        &forge(&w.token, &w.holder, &[c, &stranger.public()], EXPIRY),
        "D-03",
    );
    w.refused(&forge(&w.token, &w.holder, &[c], ""), "P-10");
    w.refused(
        &forge(
            &w.token,
            &w.holder,
            &[c],
            &format!("{EXPIRY}{}", EXPIRY.replace("10", "11")),
        ),
        "P-10",
    );
    w.refused(
        &forge(
            &w.token,
            &w.holder,
            &[c],
            "check if time($t), $t < 2027-01-15T08:10:00Z or true;",
        ),
        "P-10",
    );
    w.refused(
        &forge(
            &w.token,
            &w.holder,
            &[c],
            &format!("{EXPIRY} check if tool(\"git_log\") or tool(\"git_show\");"),
        ),
        "P-16",
    );
    w.refused(
        &forge(
            &w.token,
            &w.holder,
            &[c],
            &format!("{EXPIRY} right(\"git\", \"git_log\");"),
        ),
        "D-04",
    );
    w.refused(
        &forge(
            &w.token,
            &w.holder,
            &[c],
            &format!("{EXPIRY} note(\"a\"); note(\"b\");"),
        ),
        "D-06",
    );
    w.refused(
        &forge(
            &w.token,
            &w.holder,
            &[c],
            &format!("{EXPIRY} max_depth(1); max_depth(2);"),
        ),
        "D-06",
    );
    w.refused(
        &forge(&w.token, &w.holder, &[c], &format!("{EXPIRY} max_depth(0);")),
        "D-05",
    );
    w.refused(
        &forge(
            &w.token,
            &w.holder,
            &[c],
            &format!("{EXPIRY} note($x) <- tool($x);"),
        ),
        "P-07",
    );
    let signer =
        biscuit_auth::PrivateKey::from_bytes(&w.holder.to_bytes(), biscuit_auth::builder::Algorithm::Ed25519);
    let holder = Fact::new(
        "holder".into(),
        vec![Term::Str("ed25519".into()), Term::Bytes(c.to_bytes())],
    );
    let scoped = BlockBuilder::new().code(EXPIRY).unwrap().fact(holder).unwrap();
    let scoped = scoped.scope(biscuit_auth::builder::Scope::Previous);
    let request = biscuit(&w.token).third_party_request().unwrap();
    let signed = request
        .create_block(&signer.unwrap(), scoped)
        .unwrap()
        .serialize()
        .unwrap();
    w.refused(
        &text(&biscuit(&w.token).append_third_party(&signed).unwrap()),
        "P-07",
    );
    w.refused(
        &forge(
            &w.token,
            &w.holder,
            &[c],
            &format!("{EXPIRY} check if tool($a), $a.matches(\"x\");"),
        ),
        "P-17",
    );
    w.refused(
        &forge(
            &w.token,
            &w.holder,
            &[c],
            "check if time($t), $t < 2026-01-15T08:10:00Z;",
        ),
        "P-15",
    );
    let plain = biscuit(&w.token)
        .append(BlockBuilder::new().code(EXPIRY).unwrap())
        .unwrap();
    w.refused(&text(&plain), "D-01");
}

#[test]
fn tokens_of_other_roots_and_issuers_are_refused() {
    let w = world();
    let other = world();
    w.refused(&other.token, "P-04");
    let unknown = Verifier::new(Roots::new());
    let verify = |v: &Verifier| {
        v.verify(UnverifiedToken::decode(w.token.as_str()).unwrap(), NOW)
            .unwrap_err()
            .rule()
            .as_str()
    };
    assert_eq!(verify(&unknown), "P-03");
    let elsewhere = Verifier::new(
        Roots::new()
            .trust("https://other.example", 7, w.root.public(), None)
            .unwrap(),
    );
    assert_eq!(verify(&elsewhere), "P-09");
    let narrow = |server: &str| {
        let roots = Roots::new()
            .trust(ISSUER, 7, w.root.public(), Some(vec![server.into()]))
            .unwrap();
        Verifier::new(roots).verify(UnverifiedToken::decode(w.token.as_str()).unwrap(), NOW)
    };
    assert_eq!(narrow("mail").unwrap_err().rule().as_str(), "P-13");
    assert!(narrow("git").is_ok());
}

#[test]
fn expiry_has_no_tolerance() {
    let w = world();
    let at = |now: i64| {
        w.verifier()
            .verify(UnverifiedToken::decode(w.token.as_str()).unwrap(), now)
            .is_ok()
    };
    assert!(at(NOW + 3599));
    assert!(!at(NOW + 3600));
}

#[test]
fn forged_authorities_are_refused_each_for_its_reason() {
    let w = world();
    let root =
        biscuit_auth::PrivateKey::from_bytes(&w.root.seed(), biscuit_auth::builder::Algorithm::Ed25519)
            .unwrap();
    let forge = |change: &dyn Fn(String) -> String, id: Option<u32>| {
        let key = w
            .holder
            .public()
            .to_bytes()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect::<String>();
        let source = format!(
            r#"taper(1); issuer("{ISSUER}"); grant("{}"); subject("i", "s"); client("c"); holder("ed25519", hex:{key});
               for_audience("a"); right("git", "git_log"); issued_at(2027-01-15T08:00:00Z); max_depth(1); {EXPIRY}"#,
            w.grant.id
        );
        let mut builder = biscuit_auth::Biscuit::builder().code(change(source)).unwrap();
        if let Some(id) = id {
            builder = builder.root_key_id(id);
        }
        let token = builder.build(&KeyPair::from(&root)).unwrap();
        Token::parse(&base64url_encode(&token.to_vec().unwrap())).unwrap()
    };
    assert!(w.verify(&forge(&|s| s, Some(7))).is_ok());
    w.refused(&forge(&|s| s, None), "P-03");
    w.refused(&forge(&|s| s, Some(8)), "P-03");
    w.refused(&forge(&|s| s.replace("taper(1)", "taper(2)"), Some(7)), "P-06");
    w.refused(&forge(&|s| s + "unknown(1);", Some(7)), "P-05");
    w.refused(&forge(&|s| s + "client(\"d\");", Some(7)), "P-22");
    w.refused(&forge(&|s| s + "client(1);", Some(7)), "P-05");
    for fact in [
        "issuer",
        "grant",
        "subject",
        "client",
        "holder",
        "for_audience",
        "issued_at",
        "max_depth",
    ] {
        w.refused(
            &forge(
                &|s| {
                    s.split(';')
                        .filter(|p| !p.trim().starts_with(&format!("{fact}(")))
                        .collect::<Vec<_>>()
                        .join(";")
                },
                Some(7),
            ),
            "P-22",
        );
    }
    w.refused(
        &forge(&|s| s.replace("\"git_log\"", "\"git log\""), Some(7)),
        "P-11",
    );
    w.refused(
        &forge(&|s| s.replace("right(\"git\"", "right(\"*\""), Some(7)),
        "P-11",
    );
    w.refused(
        &forge(&|s| s + "right($a, $b) <- client($a), client($b);", Some(7)),
        "P-07",
    );
    w.refused(
        &forge(
            &|s| s.replace("holder(\"ed25519\"", "holder(\"secp256r1\""),
            Some(7),
        ),
        "P-12",
    );
    w.refused(&forge(&|s| s.replace(EXPIRY, ""), Some(7)), "P-10");
    w.refused(&forge(&|s| s + "check if true;", Some(7)), "P-16");
}

#[test]
fn one_text_per_token() {
    let w = world();
    let bytes = base64url_decode(w.token.as_str()).unwrap();
    let refused = |text: &str, rule: &str| {
        assert_eq!(
            UnverifiedToken::decode(text).err().map(|e| e.rule().as_str()),
            Some(rule)
        );
    };
    refused(&format!("{}=", w.token.as_str()), "P-01");
    refused("", "P-01");
    refused(&"A".repeat(MAX_TOKEN_BYTES + 4), "P-01");
    refused("AAAA", "P-02");
    let mut unknown_field = bytes.clone();
    unknown_field.extend([0x98, 0x06, 0x01]);
    refused(&base64url_encode(&unknown_field), "P-02");
    for i in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[i] ^= 1;
        if let Ok(token) = Token::parse(&base64url_encode(&changed)) {
            assert!(w.verify(&token).is_err(), "byte {i}");
        }
    }
}

#[test]
fn nothing_prints_a_token_or_a_key() {
    let w = world();
    let secret = w.token.as_str();
    let decoded = UnverifiedToken::decode(secret).unwrap();
    for printed in [
        format!("{:?}", w.token),
        format!("{decoded:?}"),
        format!("{:?}", w.root),
    ] {
        assert!(
            printed.len() < 120 && !printed.contains(&secret[..16]),
            "{printed}"
        );
    }
}
