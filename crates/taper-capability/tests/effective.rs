//! What a chain still allows, and what a new caveat would do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use biscuit_auth::UnverifiedBiscuit;
use biscuit_auth::builder::{BlockBuilder, Fact, Term};
use rand_core::OsRng;
use serde_json::{Value, json};
use taper_capability::*;
use taper_dpop::{Algorithm, PrivateKey, base64url_decode, base64url_encode};

const NOW: i64 = 1_800_000_000;

fn key() -> PrivateKey {
    PrivateKey::generate(Algorithm::EdDsa, &mut OsRng)
}

fn grant(rights: Vec<Right>, caveats: Vec<Caveat>) -> (Token, PrivateKey, RootKey) {
    let (root, holder) = (RootKey::generate(1, &mut OsRng), key());
    let party = |sub: &str| Party {
        iss: "https://idp.example".into(),
        sub: sub.into(),
    };
    let grant = Grant {
        issuer: "https://issuer.example".into(),
        id: Grant::new_id(&mut OsRng),
        subject: party("alice"),
        client: "dev".into(),
        actor: None,
        holder: holder.public(),
        audiences: vec!["https://a.example/mcp".into(), "https://b.example/mcp".into()],
        rights,
        claims: vec![],
        issued_at: NOW,
        expires_at: NOW + 3_600,
        max_depth: 3,
        caveats,
    };
    (issue(&grant, &root, &mut OsRng).unwrap(), holder, root)
}

fn rights() -> Vec<Right> {
    let right = |tool: &str| Right::Tool {
        server: "git".into(),
        tool: tool.into(),
    };
    vec![
        right("log"),
        right("show"),
        Right::AnyTool { server: "hub".into() },
        Right::Resource {
            server: "git".into(),
            uri_prefix: "file:///srv/".into(),
        },
        Right::Prompt {
            server: "git".into(),
            name: "review".into(),
        },
    ]
}

fn effective(rights: Vec<Right>, caveats: Vec<Caveat>) -> Effective {
    Effective::of_unverified(&UnverifiedToken::decode(grant(rights, caveats).0.as_str()).unwrap())
}

fn caveat(json: Value) -> Caveat {
    serde_json::from_value(json).unwrap()
}

#[test]
fn a_chain_allows_what_all_its_links_allow() {
    let (token, holder, root) = grant(rights(), vec![]);
    let child = key();
    let token = Delegation::to(child.public())
        .until(NOW + 600)
        .only(caveat(json!({"server": {"servers": ["git"]}})))
        .only(caveat(
            json!({"resource": {"kind": "repo", "matches": {"prefix": "acme/"}}}),
        ))
        .max_depth(2)
        .sign(&token, &holder, &mut OsRng)
        .unwrap();
    let token = Narrowing::new()
        .only(caveat(
            json!({"tool": {"server": "git", "tools": ["log", "gone"]}}),
        ))
        .only(caveat(
            json!({"resource": {"kind": "repo", "matches": {"one_of": ["acme/web", "other/x"]}}}),
        ))
        .only(caveat(
            json!({"argument": {"pointer": "/n", "matches": {"range": {"max": 5}}}}),
        ))
        .only(caveat(
            json!({"audience": {"audiences": ["https://a.example/mcp"]}}),
        ))
        .only(caveat(json!({"not_before": NOW + 10})))
        .only(caveat(json!({"client_address": {"networks": ["10.0.0.0/8"]}})))
        .only(caveat(json!({"max_calls": {"counter": "c", "calls": 5}})))
        .only(caveat(
            json!({"hours": {"from": "09:00", "to": "17:00", "offset": "Z", "days": [1, 2]}}),
        ))
        .only(caveat(json!({"method": {"methods": ["tools/call"]}})))
        .sign(&token, &child, &mut OsRng)
        .unwrap();
    let decoded = UnverifiedToken::decode(token.as_str()).unwrap();
    let unverified = Effective::of_unverified(&decoded);
    let roots = Roots::new()
        .trust("https://issuer.example", 1, root.public(), None)
        .unwrap();
    let verified = Verifier::new(roots).verify(decoded, NOW).unwrap();
    assert_eq!(Effective::of_verified(&verified), unverified);
    assert_eq!(
        serde_json::to_value(&unverified).unwrap(),
        json!({
            "servers": {"git": {"tools": ["log"], "resources": [], "prompts": []}},
            "resources": {"repo": {"one_of": ["acme/web"]}},
            "arguments": {"/n": {"max": 5}},
            "methods": ["tools/call"],
            "audiences": ["https://a.example/mcp"],
            "networks": ["10.0.0.0/8"],
            "not_before": NOW + 10,
            "expires_at": NOW + 600,
            "hours": [{"from": "09:00", "to": "17:00", "offset": "Z", "days": [1, 2]}],
            "max_calls": [{"counter": "c", "calls": 5}],
            "depth": 1,
            "max_depth": 2,
            "hand_overs_left": 1,
        })
    );
    let text = unverified.to_string();
    for line in [
        "tools       git: log",
        "resource    repo: \"acme/web\"",
        "argument    /n: of 5 or less",
        "until       2027-01-15T08:10:00Z",
        "hours       only from 09:00 to 17:00 UTC on Mon, Tue",
        "hand on     1 more, 1 so far",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn what_a_caveat_would_do_is_said_when_it_is_certain() {
    let parent = effective(
        rights(),
        vec![
            caveat(json!({"tool": {"server": "git", "tools": ["log", "show"]}})),
            caveat(json!({"resource": {"kind": "repo", "matches": {"prefix": "acme/"}}})),
            caveat(json!({"argument": {"pointer": "/n", "matches": {"range": {"min": 1, "max": 5}}}})),
            caveat(json!({"client_address": {"networks": ["10.0.0.0/8"]}})),
            caveat(json!({"not_before": NOW})),
            caveat(json!({"hours": {"from": "09:00", "to": "17:00", "offset": "Z", "days": [1, 2]}})),
            caveat(json!({"max_calls": {"counter": "c", "calls": 5}})),
            caveat(json!({"method": {"methods": ["tools/call", "ping"]}})),
        ],
    );
    assert_eq!(parent.nothing, None);
    let said = |review: Review| match review {
        Review::Narrows => "narrows",
        Review::ChangesNothing(_) => "changes nothing",
        Review::AllowsNothing(_) => "allows nothing",
    };
    for (json, expected) in [
        (json!({"tool": {"server": "git", "tools": ["log"]}}), "narrows"),
        (
            json!({"tool": {"server": "git", "tools": ["show", "log", "other"]}}),
            "changes nothing",
        ),
        (
            json!({"tool": {"server": "git", "tools": ["other"]}}),
            "allows nothing",
        ),
        (
            json!({"tool": {"server": "hub", "tools": ["log"]}}),
            "allows nothing",
        ),
        (json!({"server": {"servers": ["git"]}}), "changes nothing"),
        (json!({"server": {"servers": ["hub"]}}), "allows nothing"),
        (json!({"method": {"methods": ["tools/call"]}}), "narrows"),
        (
            json!({"method": {"methods": ["ping", "tools/call", "x"]}}),
            "changes nothing",
        ),
        (json!({"method": {"methods": ["x"]}}), "allows nothing"),
        (
            json!({"audience": {"audiences": ["https://a.example/mcp"]}}),
            "narrows",
        ),
        (
            json!({"audience": {"audiences": ["https://c.example/mcp"]}}),
            "allows nothing",
        ),
        (
            json!({"resource": {"kind": "repo", "matches": {"prefix": "acme/web/"}}}),
            "narrows",
        ),
        (
            json!({"resource": {"kind": "repo", "matches": {"prefix": "acme/"}}}),
            "changes nothing",
        ),
        (
            json!({"resource": {"kind": "repo", "matches": {"prefix": "other/"}}}),
            "allows nothing",
        ),
        (
            json!({"resource": {"kind": "repo", "matches": {"one_of": ["other/a"]}}}),
            "allows nothing",
        ),
        (
            json!({"resource": {"kind": "file", "matches": {"one_of": ["other/a"]}}}),
            "narrows",
        ),
        (
            json!({"argument": {"pointer": "/n", "matches": {"range": {"max": 7}}}}),
            "changes nothing",
        ),
        (
            json!({"argument": {"pointer": "/n", "matches": {"range": {"max": 4}}}}),
            "narrows",
        ),
        (
            json!({"argument": {"pointer": "/n", "matches": {"equals": 6}}}),
            "allows nothing",
        ),
        (
            json!({"argument": {"pointer": "/n", "matches": {"equals": "5"}}}),
            "allows nothing",
        ),
        (
            json!({"argument": {"pointer": "/n", "matches": {"path_within": "/srv"}}}),
            "allows nothing",
        ),
        (json!({"client_address": {"networks": ["10.0.0.1/8"]}}), "narrows"),
        (
            json!({"client_address": {"networks": ["10.0.0.0/8", "fd00::/8"]}}),
            "changes nothing",
        ),
        (
            json!({"client_address": {"networks": ["192.0.2.0/24"]}}),
            "allows nothing",
        ),
        (json!({"not_before": NOW}), "changes nothing"),
        (json!({"not_before": NOW + 1}), "narrows"),
        (json!({"not_before": NOW + 3_600}), "allows nothing"),
        (
            json!({"hours": {"from": "11:00", "to": "20:00", "offset": "+02:00", "days": [1, 2, 3]}}),
            "changes nothing",
        ),
        (
            json!({"hours": {"from": "11:01", "to": "20:00", "offset": "+02:00", "days": [1, 2, 3]}}),
            "narrows",
        ),
        (
            json!({"hours": {"from": "17:00", "to": "09:00", "offset": "Z", "days": [1, 2]}}),
            "allows nothing",
        ),
        (
            json!({"max_calls": {"counter": "d", "calls": 5}}),
            "changes nothing",
        ),
        (json!({"max_calls": {"counter": "c", "calls": 4}}), "narrows"),
        (json!({"max_calls": {"counter": "d", "calls": 0}}), "narrows"),
    ] {
        // A network with bits after its length and a limit of no calls cannot be signed.
        let review = parent.review(&caveat(json.clone()));
        assert_eq!(said(review.clone()), expected, "{json}: {review:?}");
    }
    assert_eq!(said(parent.review_until(NOW + 3_599)), "narrows");
    assert_eq!(said(parent.review_until(NOW + 3_600)), "changes nothing");
    assert_eq!(said(parent.review_until(NOW)), "allows nothing");
    assert_eq!(said(parent.review_max_depth(3)), "changes nothing");
    assert_eq!(said(parent.review_max_depth(0)), "narrows");
    assert_eq!(
        said(parent.clone().handed_on().review_max_depth(0)),
        "allows nothing"
    );
    let mut dead = parent;
    dead.only(&caveat(json!({"server": {"servers": ["hub"]}})));
    let review = dead.review(&caveat(json!({"tool": {"server": "git", "tools": ["log"]}})));
    assert_eq!(said(review), "changes nothing");
}

#[test]
fn a_name_that_is_taken_counts_what_was_counted_before() {
    let calls =
        |counter: &str, calls: i64| caveat(json!({"max_calls": {"counter": counter, "calls": calls}}));
    let parent = effective(rights(), vec![calls("a", 20), calls("b", 5)]);
    assert!(matches!(
        parent.review(&calls("new", 10)),
        Review::ChangesNothing(_)
    ));
    // The counter `a` may stand at 15, for others share it.
    assert_eq!(parent.review(&calls("a", 10)), Review::Narrows);
    assert!(matches!(
        parent.review(&calls("a", 20)),
        Review::ChangesNothing(_)
    ));
}

#[test]
fn a_caveat_about_calls_ends_resources_and_prompts() {
    let only = vec![Right::Prompt {
        server: "git".into(),
        name: "review".into(),
    }];
    let parent = effective(only, vec![]);
    let argument = caveat(json!({"argument": {"pointer": "/n", "matches": {"equals": 1}}}));
    assert!(matches!(parent.review(&argument), Review::AllowsNothing(_)));
    let parent = effective(rights(), vec![]);
    let listed = caveat(json!({"server": {"servers": ["git", "hub"]}}));
    assert!(matches!(parent.review(&listed), Review::ChangesNothing(_)));
    let tools = caveat(json!({"tool": {"server": "git", "tools": ["log", "show"]}}));
    assert_eq!(parent.review(&tools), Review::Narrows);
}

#[test]
fn nothing_that_a_chain_says_forges_a_line() {
    let evil = "x\ntools       hub: any\u{1b}[31m\u{202e}\u{200b}\u{feff}\u{9b}\r";
    let (token, holder, _) = grant(rights(), vec![]);
    let pointer = format!("/{evil}");
    let text = |caveats: Vec<Caveat>| {
        let narrowing = caveats.into_iter().fold(Narrowing::new(), Narrowing::only);
        let token = narrowing.sign(&token, &holder, &mut OsRng).unwrap();
        Effective::of_unverified(&UnverifiedToken::decode(token.as_str()).unwrap()).to_string()
    };
    let plain = text(vec![]).lines().count();
    for (caveat, lines) in [
        (caveat(json!({"method": {"methods": [evil]}})), plain + 1),
        (caveat(json!({"audience": {"audiences": [evil]}})), plain + 1),
        (
            caveat(json!({"resource": {"kind": "repo", "matches": {"one_of": [evil]}}})),
            plain - 1,
        ),
        (
            caveat(json!({"resource": {"kind": "repo", "matches": {"prefix": format!("{evil}/")}}})),
            plain - 1,
        ),
        (
            caveat(json!({"argument": {"pointer": pointer, "matches": {"equals": evil}}})),
            plain - 1,
        ),
        (
            caveat(json!({"argument": {"pointer": "/a", "matches": {"prefix": evil}}})),
            plain - 1,
        ),
    ] {
        let shown = text(vec![caveat.clone()]);
        assert_eq!(shown.lines().count(), lines, "{caveat:?}\n{shown}");
        assert!(
            !shown.contains(['\u{1b}', '\u{202e}', '\u{200b}', '\u{feff}', '\u{9b}', '\r']),
            "{shown:?}"
        );
    }
}

#[test]
fn a_raw_check_stays_on_its_line() {
    let evil = "git\"), tool(\"log\u{a}\u{1b}[31m\u{202e}\u{200b}";
    let (token, holder, root) = grant(rights(), vec![]);
    let signer =
        biscuit_auth::PrivateKey::from_bytes(&holder.to_bytes(), biscuit_auth::builder::Algorithm::Ed25519)
            .unwrap();
    // A kind that no profile has, so that it does not read back as a caveat.
    let mut check: biscuit_auth::builder::Check =
        r#"check all resource("Kind", $value), {"x"}.contains($value)"#
            .parse()
            .unwrap();
    check.queries[0].body[0].terms[0] = Term::Str(evil.into());
    let block = BlockBuilder::new()
        .code("check if time($t), $t < 2027-01-15T08:10:00Z;")
        .unwrap()
        .check(check)
        .unwrap()
        .fact(Fact::new(
            "holder".into(),
            vec![
                Term::Str("ed25519".into()),
                Term::Bytes(holder.public().to_bytes()),
            ],
        ))
        .unwrap();
    let biscuit = UnverifiedBiscuit::from(base64url_decode(token.as_str()).unwrap().as_slice()).unwrap();
    let signed = biscuit
        .third_party_request()
        .unwrap()
        .create_block(&signer, block)
        .unwrap();
    let biscuit = biscuit.append_third_party(&signed.serialize().unwrap()).unwrap();
    let token = base64url_encode(&biscuit.to_vec().unwrap());
    let decoded = UnverifiedToken::decode(&token).unwrap();
    let shown = r#"check all resource("git\"), tool(\"log\u{a}\u{1b}[31m\u{202e}\u{200b}", $value), {"x"}.contains($value)"#;
    assert_eq!(decoded.links()[1].other_checks(), [shown]);
    let unverified = Effective::of_unverified(&decoded);
    assert!(
        unverified
            .to_string()
            .ends_with(&format!("\nalso        {shown}")),
        "{unverified}"
    );
    let roots = Roots::new()
        .trust("https://issuer.example", 1, root.public(), None)
        .unwrap();
    let chain = Verifier::new(roots).verify(decoded, NOW).unwrap();
    assert_eq!(chain.links()[1].caveats[0].datalog(), shown);
    assert_eq!(Effective::of_verified(&chain), unverified);
}
