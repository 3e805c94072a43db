//! The renewal of a grant (X-12, X-37 to X-39).

use axum::http::StatusCode;
use serde_json::json;
use taper_capability::{Caveat, Delegation, Narrowing, Token, UnverifiedToken};
use taper_dpop::{Algorithm, PrivateKey};
use taper_oauth::exchange::{GRANT_TOKEN_EXCHANGE, TOKEN_TYPE_CAPABILITY};
use taper_service::rng;

use super::support::{ADMIN, Ask, NOW, Rig, SECRET, send};

/// How long a capability of the tests' policy lives, and how long the subject token does, in seconds.
const LIFE: i64 = 3_600;
const END: i64 = NOW + 7_200;

/// A capability that ends before its subject token.
async fn granted(rig: &Rig) -> String {
    let subject = rig.token(|claims| claims["exp"] = json!(END));
    let answer = rig.ask().set("subject_token", subject).accepted("exchange").await;
    answer.json["access_token"].as_str().unwrap().to_owned()
}

fn renewal<'a>(rig: &'a Rig, capability: &str) -> Ask<'a> {
    Ask::new(rig, "/token")
        .set("grant_type", GRANT_TOKEN_EXCHANGE)
        .set("client_id", "agent")
        .set("subject_token", capability)
        .set("subject_token_type", TOKEN_TYPE_CAPABILITY)
        .set("requested_token_type", TOKEN_TYPE_CAPABILITY)
        .ath(capability)
}

async fn renewed(rig: &Rig, capability: &str, name: &str) -> String {
    let answer = renewal(rig, capability).accepted(name).await;
    assert_eq!(answer.json["issued_token_type"], TOKEN_TYPE_CAPABILITY, "{name}");
    answer.json["access_token"].as_str().unwrap().to_owned()
}

fn end(capability: &str) -> i64 {
    UnverifiedToken::decode(capability).unwrap().expires_at()
}

async fn admin(rig: &Rig, what: serde_json::Value) {
    let token = Some(format!("Bearer {ADMIN}"));
    let answer = send(&rig.admin, "POST", "/admin/v1/revocations", token, Some(what)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
}

#[tokio::test]
async fn a_renewal_is_the_same_grant_with_a_later_end() {
    let rig = Rig::new().await;
    let detail = json!([{"type": "mcp", "server": "git", "tools": ["git_log", "git_show"],
        "uris": ["repo://acme/web/"], "resources": {"repo": ["acme/web", "acme/x"]}}]);
    let subject = rig.token(|claims| claims["exp"] = json!(END));
    let ask = rig.ask().set("subject_token", subject).without("scope");
    let answer = ask
        .set("authorization_details", detail.to_string())
        .accepted("details")
        .await;
    let first = answer.json["access_token"].as_str().unwrap().to_owned();
    rig.clock.set(NOW + 3_000);
    let second = renewed(&rig, &first, "once").await;
    assert_eq!((end(&first), end(&second)), (NOW + LIFE, NOW + 3_000 + LIFE));
    let (old, new) = (rig.verify(&first), rig.verify(&second));
    assert_eq!(
        (
            new.grant_id(),
            new.subject(),
            new.client(),
            new.actor(),
            new.rights()
        ),
        (
            old.grant_id(),
            old.subject(),
            old.client(),
            old.actor(),
            old.rights()
        )
    );
    assert_eq!(
        (new.claims(), new.audiences(), new.max_depth(), new.branch_ids()),
        (old.claims(), old.audiences(), old.max_depth(), old.branch_ids())
    );
    let caveats = |text: &str| UnverifiedToken::decode(text).unwrap().links()[0].caveats();
    assert_eq!(caveats(&second), caveats(&first));
    assert_eq!((caveats(&first).0.len(), caveats(&first).1), (1, 0));
    assert_eq!(new.links()[0].holder, rig.holder.public());
    // The old one can be renewed as well, and the last renewal ends with the grant.
    assert_eq!(end(&renewed(&rig, &first, "the old one").await), end(&second));
    rig.clock.set(NOW + 6_000);
    let last = renewed(&rig, &second, "to the end").await;
    assert_eq!(end(&last), END);
    renewal(&rig, &last)
        .refused("nothing is left", 400, "invalid_scope")
        .await;
    let metrics = send(
        &rig.admin,
        "GET",
        "/metrics",
        Some(format!("Bearer {ADMIN}")),
        None,
    )
    .await;
    for line in ["taper_issuer_grants_total 1", "taper_issuer_renewals_total 3"] {
        assert!(metrics.text.lines().any(|told| told == line), "{}", metrics.text);
    }
    let path = format!("/admin/v1/grants/{}", new.grant_id());
    let record = send(&rig.admin, "GET", &path, Some(format!("Bearer {ADMIN}")), None).await;
    assert_eq!(
        (&record.json["renewal"], &record.json["ends_at"]),
        (&json!(true), &json!(END)),
        "{}",
        record.text
    );
}

#[tokio::test]
async fn until_bounds_renewals_too() {
    let rig = Rig::new().await;
    let entry =
        json!([{"type": "mcp", "server": "git", "tools": ["git_log"], "until": "2027-01-15T09:50:00Z"}]);
    let until = NOW + 6_600;
    let subject = rig.token(|claims| claims["exp"] = json!(END));
    let ask = rig.ask().set("subject_token", subject).without("scope");
    let answer = ask
        .set("authorization_details", entry.to_string())
        .accepted("until")
        .await;
    let first = answer.json["access_token"].as_str().unwrap().to_owned();
    assert_eq!(end(&first), NOW + LIFE);
    rig.clock.set(NOW + LIFE - 1);
    assert_eq!(end(&renewed(&rig, &first, "until").await), until);
}

#[tokio::test]
async fn a_capability_is_not_exchanged_for_another_one() {
    let rig = Rig::new().await;
    let capability = granted(&rig).await;
    let more: [(&'static str, &str); 4] = [
        ("scope", "git:git_log"),
        ("resource", super::support::GIT),
        ("audience", "git"),
        (
            "authorization_details",
            r#"[{"type":"mcp","server":"git","tools":["git_log"]}]"#,
        ),
    ];
    for (name, value) in more {
        let ask = renewal(&rig, &capability).set(name, value);
        let answer = ask.refused(name, 400, "invalid_request").await;
        assert!(answer.text.contains("not exchanged"), "{name}: {}", answer.text);
    }
    let actor = rig.token(|_| {});
    let ask = renewal(&rig, &capability).set("actor_token", actor);
    ask.set("actor_token_type", super::support::ID_TOKEN)
        .refused("actor", 400, "invalid_request")
        .await;
}

#[tokio::test]
async fn only_its_holder_and_client_renew_what_was_granted() {
    let rig = Rig::new().await;
    let capability = granted(&rig).await;
    let token = Token::parse(&capability).unwrap();
    let other = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
    let ask = |text: &str| renewal(&rig, text);
    ask(&capability)
        .change(|ask| ask.key = Some(&other))
        .refused("a thief", 400, "invalid_request")
        .await;
    ask(&capability)
        .change(|ask| ask.claims.ath = None)
        .refused("a proof without the capability", 400, "invalid_dpop_proof")
        .await;
    ask(&capability)
        .set("client_id", "other")
        .refused("another client", 400, "invalid_request")
        .await;
    ask(&capability)
        .basic("batch", SECRET)
        .refused("another confidential client", 400, "invalid_request")
        .await;
    ask("no capability")
        .refused("nonsense", 400, "invalid_request")
        .await;
    let mut rng = rng::os();
    let handed = Delegation::to(other.public()).until(NOW + 60);
    let handed = handed.sign(&token, &rig.holder, &mut rng).unwrap();
    ask(handed.as_str())
        .change(|ask| ask.key = Some(&other))
        .refused("a delegate", 400, "invalid_request")
        .await;
    let caveat = Caveat::Server {
        servers: vec!["git".into()],
    };
    let narrowed = Narrowing::new()
        .only(caveat)
        .sign(&token, &rig.holder, &mut rng)
        .unwrap();
    ask(narrowed.as_str())
        .refused("a narrowed one", 400, "invalid_request")
        .await;
    let once = ask(&capability).change(|ask| ask.claims.jti = "only-once-0123456789".into());
    once.accepted("the proof, once").await;
    let again = ask(&capability).change(|ask| ask.claims.jti = "only-once-0123456789".into());
    again.refused("the proof, twice", 400, "invalid_dpop_proof").await;
}

#[tokio::test]
async fn what_is_revoked_is_not_renewed() {
    let rig = Rig::new().await;
    let capability = granted(&rig).await;
    let grant = rig.verify(&capability).grant_id().to_owned();
    let spared = granted(&rig).await;
    admin(&rig, json!({"grant": grant})).await;
    let answer = renewal(&rig, &capability)
        .refused("grant", 400, "invalid_grant")
        .await;
    assert!(answer.text.contains("revoked"), "{}", answer.text);
    renewed(&rig, &spared, "another grant").await;
    admin(
        &rig,
        json!({"subject": {"iss": rig.provider.issuer, "sub": "alice"}}),
    )
    .await;
    renewal(&rig, &spared)
        .refused("subject", 400, "invalid_request")
        .await;
    admin(
        &rig,
        json!({"holder": rig.holder.public().thumbprint().to_string()}),
    )
    .await;
    renewal(&rig, &spared)
        .refused("key", 400, "invalid_dpop_proof")
        .await;
    admin(&rig, json!({"client": "agent"})).await;
    renewal(&rig, &spared)
        .refused("client", 400, "unauthorized_client")
        .await;
}

#[tokio::test]
async fn of_what_is_revoked_and_has_ended_it_is_said_that_it_is_revoked() {
    let rig = Rig::new().await;
    let (revoked, spared) = (granted(&rig).await, granted(&rig).await);
    let grant = rig.verify(&revoked).grant_id().to_owned();
    admin(&rig, json!({"grant": grant})).await;
    rig.clock.set(NOW + LIFE);
    renewal(&rig, &revoked)
        .refused("ended", 400, "invalid_grant")
        .await;
    renewal(&rig, &spared)
        .refused("only ended", 400, "invalid_scope")
        .await;
}

#[tokio::test]
async fn the_branch_of_the_grant_itself_is_the_grant() {
    let rig = Rig::new().await;
    let capability = granted(&rig).await;
    let branch: String = rig.verify(&capability).branch_ids()[0]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    admin(&rig, json!({"branch": branch})).await;
    renewal(&rig, &capability)
        .refused("branch", 400, "invalid_grant")
        .await;
}

#[tokio::test]
async fn a_policy_that_says_nothing_of_it_renews_nothing() {
    let rig = Rig::new().await;
    let subject = rig.token(|claims| claims["exp"] = json!(END));
    let ask = rig.ask().set("subject_token", subject).set("client_id", "other");
    let answer = ask.accepted("exchange").await;
    let capability = answer.json["access_token"].as_str().unwrap();
    assert_eq!(end(capability), NOW + LIFE);
    let ask = renewal(&rig, capability).set("client_id", "other");
    ask.refused("no `renew_for`", 400, "invalid_scope").await;
}

#[tokio::test]
async fn bounds_that_were_narrowed_bound_renewals() {
    let rig = Rig::new().await;
    let capability = granted(&rig).await;
    let narrower = |text| format!("default_ttl = \"10m\"\nmax_ttl = \"10m\"\nmax_depth = 1\n{text}");
    let rig = rig.reopened(|_| {}, narrower);
    rig.clock.set(NOW + LIFE - 100);
    let renewed = renewed(&rig, &capability, "shorter").await;
    assert_eq!(end(&renewed), NOW + LIFE + 500);
    assert_eq!(
        (
            rig.verify(&capability).max_depth(),
            rig.verify(&renewed).max_depth()
        ),
        (3, 1)
    );
}

#[tokio::test]
async fn another_policy_or_configuration_renews_nothing_of_the_old() {
    let rig = Rig::new().await;
    let capability = granted(&rig).await;
    let rig = rig.reopened(|_| {}, |text| text);
    let capability = renewed(&rig, &capability, "the same policy").await;
    let moved = |text: String| text.replace("mcp.example/git/mcp", "mcp.example/moved/mcp");
    let rig = rig.reopened(|_| {}, moved);
    renewal(&rig, &capability)
        .refused("another server", 400, "invalid_scope")
        .await;
    let rig = rig.reopened(
        |_| {},
        |text| text.replace("issuer = \"http://127.0.0.1:", "issuer = \"http://127.0.0.2:"),
    );
    renewal(&rig, &capability)
        .refused("another provider", 400, "invalid_scope")
        .await;
    let rig = rig.reopened(|_| {}, |text| text);
    renewed(&rig, &capability, "as it was").await;
    let stricter = |folder: &std::path::Path| {
        let path = folder.join("grant.datalog");
        let policy = std::fs::read_to_string(&path).unwrap();
        std::fs::write(
            &path,
            format!("{policy}\ndeny(\"no more\") <- client(\"agent\");\n"),
        )
        .unwrap();
    };
    let rig = rig.reopened(stricter, |text| text);
    renewal(&rig, &capability)
        .refused("another policy", 400, "invalid_scope")
        .await;
}
