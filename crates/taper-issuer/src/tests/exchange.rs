//! `POST /token`: forms, clients, proofs and tokens, each refusal beside the honest request that passes.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use taper_capability::Right;
use taper_dpop::{Algorithm, PrivateKey};
use taper_oauth::exchange::{TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_CAPABILITY};
use taper_service::rng;

use super::support::{Ask, GIT, ID_TOKEN, ISSUER, NOW, Rig, SECRET, send};

#[tokio::test]
async fn an_honest_exchange() {
    let rig = Rig::new().await;
    let answer = rig.ask().accepted("honest").await;
    assert_eq!(answer.headers["content-type"], "application/json");
    assert!(answer.headers.get("dpop-nonce").is_none());
    assert_eq!(answer.json["token_type"], "DPoP");
    assert_eq!(answer.json["issued_token_type"], TOKEN_TYPE_CAPABILITY);
    assert_eq!(
        answer.json["expires_in"], 1800,
        "no longer than the subject token"
    );
    assert_eq!(answer.json["scope"], "git:git_log git:git_show");
    assert!(answer.json.get("authorization_details").is_none());

    let chain = rig.verify(answer.json["access_token"].as_str().unwrap());
    assert_eq!(chain.issuer(), ISSUER);
    assert_eq!(chain.subject().sub, "alice");
    assert_eq!(chain.subject().iss, rig.provider.issuer);
    assert_eq!(chain.client(), "agent");
    assert_eq!(chain.actor(), None);
    assert_eq!(chain.audiences(), [GIT]);
    assert_eq!(chain.last_holder(), &rig.holder.public());
    assert_eq!(chain.expires_at(), NOW + 1800);
    assert_eq!(chain.max_depth(), 3);
    assert_eq!(
        chain.claims(),
        [("groups".to_owned(), "eng".to_owned())],
        "only the configured claims go out"
    );
    let tool = |tool: &str| Right::Tool {
        server: "git".to_owned(),
        tool: tool.to_owned(),
    };
    assert_eq!(chain.rights(), [tool("git_log"), tool("git_show")]);

    let path = format!("/admin/v1/grants/{}", chain.grant_id());
    let record = send(
        &rig.admin,
        "GET",
        &path,
        Some("Bearer the-admin-token".to_owned()),
        None,
    )
    .await;
    assert_eq!(
        record.json["subject"], "alice",
        "the grant is recorded: {}",
        record.text
    );
    assert_eq!(
        record.json["holder_jkt"],
        rig.holder.public().thumbprint().to_string()
    );
}

#[tokio::test]
async fn forms_clients_and_proofs() {
    let rig = Rig::new().await;
    let other = PrivateKey::generate(Algorithm::Es256, &mut rng::os());
    let ask = || rig.ask();
    ask()
        .change(|a| a.content_type = "text/plain")
        .refused("type", 400, "invalid_request")
        .await;
    ask()
        .add("scope", "git:*")
        .refused("repeated", 400, "invalid_request")
        .await;
    ask()
        .set("x", "y".repeat(200_000))
        .refused("size", 413, "invalid_request")
        .await;
    ask()
        .set("grant_type", "password")
        .refused("grant", 400, "unsupported_grant_type")
        .await;
    ask()
        .without("subject_token")
        .refused("no token", 400, "invalid_request")
        .await;
    ask()
        .set("requested_token_type", TOKEN_TYPE_ACCESS_TOKEN)
        .refused("wanted type", 400, "invalid_request")
        .await;

    let answer = ask()
        .without("client_id")
        .refused("no client", 401, "invalid_client")
        .await;
    assert!(answer.headers.contains_key("www-authenticate"));
    ask()
        .set("client_id", "nobody")
        .refused("unknown", 401, "invalid_client")
        .await;
    ask()
        .set("client_id", "web")
        .refused("no secret", 401, "invalid_client")
        .await;
    ask()
        .set("client_secret", "x")
        .refused("public with secret", 401, "invalid_client")
        .await;
    ask()
        .basic("web", "wrong")
        .refused("wrong secret", 401, "invalid_client")
        .await;
    ask().basic("web", SECRET).accepted("secret").await;
    ask()
        .set("client_id", "web")
        .set("client_secret", SECRET)
        .accepted("post")
        .await;

    ask()
        .change(|a| a.proofs = 0)
        .refused("no proof", 400, "invalid_dpop_proof")
        .await;
    ask()
        .change(|a| a.proofs = 2)
        .refused("two proofs", 400, "invalid_dpop_proof")
        .await;
    ask()
        .change(|a| a.claims.htu = format!("{ISSUER}/revoke"))
        .refused("htu", 400, "invalid_dpop_proof")
        .await;
    ask()
        .change(|a| a.claims.iat = NOW - 301)
        .refused("old", 400, "invalid_dpop_proof")
        .await;
    ask()
        .change(|a| a.claims = a.claims.clone().body(b"another body"))
        .refused("digest", 400, "invalid_dpop_proof")
        .await;
    let proof = ask().claims.sign(&rig.holder).unwrap();
    let with_proof = |proof: &str| ask().change(|a| a.proof = Some(proof.to_owned()));
    let (signed, signature) = proof.rsplit_once('.').unwrap();
    let reversed: String = signature
        .chars()
        .take(80)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect();
    with_proof(&format!("{signed}.{reversed}{}", &signature[80..]))
        .refused("signature", 400, "invalid_dpop_proof")
        .await;
    with_proof(&proof).accepted("once").await;
    with_proof(&proof)
        .refused("replay", 400, "invalid_dpop_proof")
        .await;
    ask().change(|a| a.key = Some(&other)).accepted("ES256").await;
}

#[tokio::test]
async fn subject_tokens() {
    let rig = Rig::new().await;
    let stranger = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
    let header = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "k1"});
    let unknown_kid = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "k2"});
    let claims = rig.claims();
    let bad = [
        ("garbage", "garbage".to_owned()),
        (
            "issuer",
            rig.token(|c| c["iss"] = json!("https://elsewhere.example")),
        ),
        (
            "audience",
            rig.token(|c| c["aud"] = json!("https://another.example")),
        ),
        ("expired", rig.token(|c| c["exp"] = json!(NOW))),
        (
            "no subject",
            rig.token(|c| drop(c.as_object_mut().unwrap().remove("sub"))),
        ),
        ("typ", rig.provider.sign("JWT", &claims)),
        ("signature", rig.provider.sign_with(&stranger, &header, &claims)),
        (
            "key id",
            rig.provider.sign_with(&rig.provider.key, &unknown_kid, &claims),
        ),
    ];
    for (name, token) in bad {
        rig.ask()
            .set("subject_token", token)
            .refused(name, 400, "invalid_request")
            .await;
    }
    let capability = rig.capability().await;
    rig.ask()
        .set("subject_token", capability)
        .set("subject_token_type", TOKEN_TYPE_CAPABILITY)
        .refused("capability", 400, "invalid_request")
        .await;
    assert_eq!(
        rig.provider.fetches.load(Ordering::SeqCst),
        1,
        "one fetch serves all"
    );
}

#[tokio::test]
async fn id_tokens_come_from_their_confidential_client() {
    let rig = Rig::new().await;
    let id_token = |aud: Value| {
        let mut claims = rig.claims();
        claims["aud"] = aud;
        claims.as_object_mut().unwrap().remove("client_id");
        rig.provider.sign("JWT", &claims)
    };
    let ask = |aud: Value| {
        rig.ask()
            .set("subject_token", id_token(aud))
            .set("subject_token_type", ID_TOKEN)
    };
    ask(json!("web"))
        .basic("web", SECRET)
        .accepted("its client")
        .await;
    ask(json!("agent"))
        .refused("public client", 400, "invalid_request")
        .await;
    ask(json!("proxy"))
        .basic("web", SECRET)
        .refused("of another", 400, "invalid_request")
        .await;
    ask(json!("proxy"))
        .basic("proxy", SECRET)
        .refused("not listed", 400, "invalid_request")
        .await;
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_are_an_outage_and_fetched_once() {
    let rig = Rig::new().await;
    rig.provider.broken.store(true, Ordering::SeqCst);
    let answers = tokio::join!(rig.ask().send(), rig.ask().send(), rig.ask().send());
    for answer in [answers.0, answers.1, answers.2] {
        assert_eq!(answer.status, 503, "{}", answer.text);
        assert_eq!(answer.json["error"], "temporarily_unavailable");
    }
    assert_eq!(rig.provider.fetches.load(Ordering::SeqCst), 1);
    rig.provider.broken.store(false, Ordering::SeqCst);
    rig.clock.advance(31);
    let answers = tokio::join!(rig.ask().send(), rig.ask().send());
    assert_eq!((answers.0.status.as_u16(), answers.1.status.as_u16()), (200, 200));
    assert_eq!(rig.provider.fetches.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn actors_and_bound_tokens() {
    let rig = Rig::new().await;
    let other = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
    let jkt = rig.holder.public().thumbprint().to_string();
    let actor = || rig.token(|c| c["sub"] = json!("robot"));
    let acting = |subject: &str, actor: &str| -> Ask<'_> {
        rig.ask()
            .set("subject_token", subject)
            .set("actor_token", actor)
            .set("actor_token_type", TOKEN_TYPE_ACCESS_TOKEN)
    };
    let may_act = rig.token(|c| c["may_act"] = json!({"sub": "robot"}));
    let answer = acting(&may_act, &actor()).accepted("named actor").await;
    let chain = rig.verify(answer.json["access_token"].as_str().unwrap());
    assert_eq!(chain.actor().unwrap().sub, "robot");
    let ending = rig.token(|c| {
        c["sub"] = json!("robot");
        c["exp"] = json!(NOW + 60);
    });
    let answer = acting(&may_act, &ending).accepted("actor ends first").await;
    assert_eq!(answer.json["expires_in"], 60);
    rig.ask()
        .set("subject_token", &may_act)
        .refused("actor left out", 400, "invalid_request")
        .await;
    acting(&may_act, &rig.token(|_| {}))
        .refused("another actor", 400, "invalid_request")
        .await;
    acting(&rig.token(|_| {}), &actor())
        .refused("no may_act", 400, "invalid_request")
        .await;
    let acted = rig.token(|c| c["act"] = json!({"sub": "robot"}));
    rig.ask()
        .set("subject_token", acted)
        .refused("act dropped", 400, "invalid_request")
        .await;
    let chained = rig.token(|c| {
        c["may_act"] = json!({"sub": "robot"});
        c["act"] = json!({"sub": "earlier"});
    });
    acting(&chained, &actor())
        .refused("two actors", 400, "invalid_request")
        .await;

    let bound = rig.token(|c| c["cnf"] = json!({"jkt": jkt}));
    rig.ask()
        .set("subject_token", &bound)
        .ath(&bound)
        .accepted("bound")
        .await;
    rig.ask()
        .set("subject_token", &bound)
        .refused("no ath", 400, "invalid_dpop_proof")
        .await;
    rig.ask()
        .set("subject_token", &bound)
        .ath("another")
        .refused("ath", 400, "invalid_dpop_proof")
        .await;
    rig.ask()
        .set("subject_token", &bound)
        .ath(&bound)
        .change(|a| a.key = Some(&other))
        .refused("another key", 400, "invalid_request")
        .await;
}
