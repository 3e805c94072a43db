//! `POST /revoke`, `POST /introspect` and the feed.

use serde_json::json;
use taper_capability::{Delegation, Narrowing, Token};
use taper_dpop::{Algorithm, DetachedJws, PrivateKey};
use taper_service::rng;
use taper_store::{FEED_PAGE_BYTES, FEED_SIGNATURE, FEED_TYP, FeedKnown, FeedPage, History};

use super::support::{ADMIN, Ask, ISSUER, NOW, Rig, SECRET, basic, send};

fn revoke<'a>(rig: &'a Rig, token: &str) -> Ask<'a> {
    Ask::new(rig, "/revoke")
        .set("client_id", "agent")
        .set("token", token)
        .ath(token)
}

#[tokio::test]
async fn a_client_revokes_its_own_grant() {
    let rig = Rig::new().await;
    let token = rig.capability().await;
    let other = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
    let ask = || revoke(&rig, &token);
    ask()
        .set("client_id", "nobody")
        .refused("client", 401, "invalid_client")
        .await;
    ask()
        .set("client_id", "other")
        .refused("not its own", 400, "invalid_grant")
        .await;
    ask()
        .change(|a| a.proofs = 0)
        .refused("no proof", 400, "invalid_dpop_proof")
        .await;
    ask()
        .change(|a| a.claims.ath = None)
        .refused("no ath", 400, "invalid_dpop_proof")
        .await;
    ask()
        .change(|a| a.key = Some(&other))
        .refused("not the holder", 400, "invalid_dpop_proof")
        .await;
    ask()
        .without("token")
        .refused("no token", 400, "invalid_request")
        .await;
    let before = rig.get("/revocations", Some(basic("proxy", SECRET))).await;
    let nothing = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    assert_eq!(
        before.json,
        json!({
            "issuer": ISSUER, "after": 0, "entries": [], "head": 0, "upto": 0, "history": nothing, "time": NOW,
        }),
        "nothing happened yet"
    );

    let answer = ask().accepted("honest").await;
    let grant = rig.verify(&token).grant_id().to_owned();
    let entries = json!([{"seq": 1, "what": {"grant": grant}}]);
    assert_eq!(answer.json, json!({"entries": entries}));
    let feed = rig
        .get("/revocations?after=0", Some(basic("proxy", SECRET)))
        .await;
    assert_eq!(feed.json["head"], 1);
    assert_eq!(feed.json["entries"][0]["what"], json!({"grant": grant}));
    assert_eq!(feed.json["entries"][0]["issuer"], ISSUER);
    let answer = ask().accepted("again").await;
    assert_eq!(answer.json, json!({"entries": entries}), "it keeps its number");
    let feed = rig
        .get("/revocations?after=0", Some(basic("proxy", SECRET)))
        .await;
    assert_eq!(feed.json["head"], 1, "revoking twice is one revocation");
}

#[tokio::test]
async fn what_is_no_live_capability_is_answered_as_revoked() {
    let rig = Rig::new().await;
    let nothing = json!({"entries": []});
    let answer = revoke(&rig, "garbage").accepted("garbage").await;
    assert_eq!(answer.json, nothing);
    revoke(&rig, "garbage")
        .set("client_id", "web")
        .refused("unknown client", 401, "invalid_client")
        .await;
    let token = rig.capability().await;
    rig.clock.advance(1800 + 300);
    let answer = revoke(&rig, &token).accepted("expired").await;
    assert_eq!(answer.json, nothing);
    let feed = rig.get("/revocations", Some(basic("proxy", SECRET))).await;
    assert_eq!(feed.json["head"], 0);
}

#[tokio::test]
async fn a_narrowed_capability_revokes_and_a_delegated_one_does_not() {
    let rig = Rig::new().await;
    let token = Token::parse(&rig.capability().await).unwrap();
    let child = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
    let delegated = Delegation::to(child.public())
        .until(NOW + 60)
        .sign(&token, &rig.holder, &mut rng::os())
        .unwrap();
    revoke(&rig, delegated.as_str())
        .change(|a| a.key = Some(&child))
        .refused("delegated", 400, "unsupported_token_type")
        .await;
    let narrowed = Narrowing::new()
        .until(NOW + 60)
        .sign(&token, &rig.holder, &mut rng::os())
        .unwrap();
    revoke(&rig, narrowed.as_str()).accepted("narrowed").await;
}

#[tokio::test]
async fn introspection() {
    let rig = Rig::new().await;
    let token = rig.capability().await;
    let ask = |token: &str| {
        Ask::new(&rig, "/introspect")
            .set("token", token)
            .basic("proxy", SECRET)
    };
    ask(&token)
        .basic("web", SECRET)
        .refused("not allowed", 400, "unauthorized_client")
        .await;
    ask(&token)
        .basic("proxy", "x")
        .refused("secret", 401, "invalid_client")
        .await;
    let answer = ask(&token).accepted("active").await;
    assert_eq!(answer.json["active"], true);
    assert_eq!(answer.json["sub"], "alice");
    assert_eq!(answer.json["client_id"], "agent");
    assert_eq!(answer.json["exp"], NOW + 1800);
    assert_eq!(
        answer.json["cnf"]["jkt"],
        rig.holder.public().thumbprint().to_string()
    );
    let none = ask("garbage").accepted("garbage").await;
    assert_eq!(none.json, json!({"active": false}));
    revoke(&rig, &token).accepted("revoke").await;
    let none = ask(&token).accepted("revoked").await;
    assert_eq!(none.json, json!({"active": false}));
}

#[tokio::test]
async fn the_feed_waits_for_a_revocation() {
    let rig = Rig::new().await;
    let feed = |path: &'static str, who: Option<String>| rig.get(path, who);
    assert_eq!(feed("/revocations", None).await.status, 401);
    assert_eq!(feed("/revocations", Some(basic("proxy", "x"))).await.status, 401);
    let forbidden = feed("/revocations", Some(basic("web", SECRET))).await;
    assert_eq!(forbidden.json["error"], "unauthorized_client");
    let malformed = feed("/revocations?wait=61", Some(basic("proxy", SECRET))).await;
    assert_eq!(malformed.json["error"], "invalid_request");

    let token = rig.capability().await;
    let waiting = feed("/revocations?after=0&wait=60", Some(basic("proxy", SECRET)));
    let mut waiting = std::pin::pin!(waiting);
    // Polled first, so that it waits when the revocation comes.
    let early = tokio::time::timeout(std::time::Duration::from_millis(50), waiting.as_mut()).await;
    assert!(early.is_err(), "there is nothing to answer yet");
    revoke(&rig, &token).accepted("revoke").await;
    let answer = waiting.await;
    assert_eq!(answer.json["head"], 1);
    assert_eq!(answer.json["entries"].as_array().unwrap().len(), 1);
    assert_eq!(answer.headers["cache-control"], "no-store");
    let ahead = feed("/revocations?after=9&wait=60", Some(basic("proxy", SECRET))).await;
    assert_eq!(
        (
            ahead.json["head"].as_u64(),
            ahead.json["entries"].as_array().unwrap().len()
        ),
        (Some(1), 0)
    );
}

/// Revokes something as an admin.
async fn revoked(rig: &Rig, what: serde_json::Value) {
    let bearer = Some(format!("Bearer {ADMIN}"));
    let answer = send(&rig.admin, "POST", "/admin/v1/revocations", bearer, Some(what)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn a_page_is_signed_by_the_current_root_key() {
    let rig = Rig::new().await;
    revoked(&rig, json!({"client": "web"})).await;
    let feed = rig.get("/revocations", Some(basic("proxy", SECRET))).await;
    let signature = feed.headers[FEED_SIGNATURE].to_str().unwrap();
    let signature = DetachedJws::parse(signature, FEED_TYP).unwrap();
    assert_eq!(signature.kid(), "7");
    signature.verify(&rig.root, feed.text.as_bytes()).unwrap();
    let other = feed.text.replace("web", "wep");
    assert!(signature.verify(&rig.root, other.as_bytes()).is_err());
}

#[tokio::test]
async fn the_feed_says_again_what_it_said() {
    let rig = Rig::new().await;
    for client in ["web", "agent"] {
        revoked(&rig, json!({"client": client})).await;
    }
    let page = async |query: &str| -> FeedPage {
        let feed = rig
            .get(&format!("/revocations?{query}"), Some(basic("proxy", SECRET)))
            .await;
        serde_json::from_value(feed.json).unwrap()
    };
    let all = page("after=0").await;
    assert_eq!((all.head, all.upto, all.known), (2, 2, None));
    let first = all.entries[0].history(History::default());
    let second = all.entries[1].history(first);
    assert_eq!(all.history, second);
    for (seq, history) in [
        (0, Some(History::default())),
        (1, Some(first)),
        (2, Some(second)),
        (3, None),
    ] {
        let rest = page(&format!("after=1&known={seq}")).await;
        assert_eq!(rest.known, Some(FeedKnown { seq, history }));
        assert_eq!((rest.after, rest.entries.len(), rest.history), (1, 1, second));
    }
}

#[tokio::test]
async fn a_page_is_bounded_in_bytes() {
    let rig = Rig::new().await;
    let long = "x".repeat(100_000);
    for n in 0..25 {
        revoked(&rig, json!({"subject": {"iss": long, "sub": n.to_string()}})).await;
    }
    let (mut after, mut pages, mut history) = (0, 0, History::default());
    while after < 25 {
        let feed = rig
            .get(
                &format!("/revocations?after={after}"),
                Some(basic("proxy", SECRET)),
            )
            .await;
        assert!(feed.text.len() <= FEED_PAGE_BYTES, "{} bytes", feed.text.len());
        let page: FeedPage = serde_json::from_value(feed.json).unwrap();
        assert_eq!((page.after, page.head), (after, 25));
        history = page
            .entries
            .iter()
            .fold(history, |before, entry| entry.history(before));
        assert_eq!(page.history, history);
        (after, pages) = (page.upto, pages + 1);
    }
    assert_eq!(pages, 3, "ten entries fit into a page");
}
