//! Tokens on behalf of a grant's subject (M-51): whose they are, who signs for them, when they end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use taper_capability::{Grant, Party};
use taper_dpop::{Algorithm, PrivateKey, PublicKey};
use taper_service::shutdown::Shutdown;
use taper_store::RevocationKey;

use super::support::{ISSUER, Setup, World, json, usual};
use super::tokens::{Asked, LOG, Server, refused, shown, token, verified};

const URN: &str = "urn:ietf:params:oauth:token-type:";
const AUDIENCE: &str = "https://as.test";

fn key() -> PrivateKey {
    PrivateKey::from_bytes(Algorithm::EdDsa, &[7; 32]).unwrap()
}

/// An authorization server that answers for the subjects that were signed for, and the proxy before it.
async fn start(shutdown: &Shutdown, more: &str, feed: bool) -> (Server, World, tempfile::TempDir) {
    let server = Server::start(shutdown).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("assertion.jwk");
    taper_service::secret::write_private_file(&path, key().to_jwk_string().as_bytes()).unwrap();
    let oauth = format!(
        "grant = 'token_exchange'\nsubject_issuer = 'https://idp.test'\nassertion_key = '{}'\n\
         assertion_audience = '{AUDIENCE}'\n{}",
        path.display(),
        more.replace("SERVER", &server.addr.to_string())
    );
    server.answers(|asked, number| match asked.form.contains_key("subject_token") {
        true => {
            let claims = verified(&asked.form["subject_token"], &key().public(), AUDIENCE);
            let whose = claims["sub"].as_str().unwrap().to_owned();
            let answer = token(
                number,
                &format!(r#","issued_token_type":"{URN}access_token","sub":"{whose}""#),
            );
            named(answer, &format!("{whose}-{number}"))
        }
        false => token(number, ""),
    });
    let world = World::start(Setup {
        upstream: server.upstream(&oauth),
        feed,
        ..usual()
    })
    .await;
    world
        .upstream
        .answers(|_| json(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#));
    (server, world, folder)
}

/// The same answer with this token.
fn named(_: http::Response<crate::body::Body>, name: &str) -> http::Response<crate::body::Body> {
    json(format!(
        r#"{{"access_token":"{name}","token_type":"Bearer","expires_in":3600,"issued_token_type":"{URN}access_token"}}"#
    ))
}

fn grant_of(world: &World, sub: &str) -> Grant {
    let mut grant = world.grant();
    grant.subject.sub = sub.into();
    grant
}

async fn call(world: &World, grant: &Grant) -> super::support::Answer {
    let token = world.issue(grant);
    world.call("git_log", LOG).token(token.as_str()).send().await
}

fn claims(asked: &Asked) -> Value {
    verified(&asked.form["subject_token"], &key().public(), AUDIENCE)
}

#[tokio::test]
async fn a_token_is_asked_for_on_behalf_of_the_grants_subject() {
    let shutdown = Shutdown::new();
    let (server, world, _folder) = start(&shutdown, "scope = 'files'", false).await;
    let mut grant = grant_of(&world, "alice");
    let capability = world.issue(&grant);
    assert_eq!(call(&world, &grant).await.status.as_u16(), 200);
    assert_eq!(shown(&world), ["Bearer alice-1"]);
    let asked = server.asked();
    let mut form: BTreeMap<&str, &str> = asked[0]
        .form
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    let subject_token = form.remove("subject_token").unwrap();
    let expected = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        (
            "requested_token_type",
            "urn:ietf:params:oauth:token-type:access_token",
        ),
        ("scope", "files"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
    ];
    assert_eq!(form, BTreeMap::from(expected));
    assert!(
        !subject_token.contains(capability.as_str()),
        "the capability stays here"
    );
    let told = claims(&asked[0]);
    assert_eq!(told["iss"], "https://proxy.test");
    assert_eq!(
        told["sub_id"],
        serde_json::json!({ "format": "iss_sub", "iss": "https://idp.test", "sub": "alice" })
    );
    assert_eq!(told["act"], serde_json::json!({ "iss": ISSUER, "sub": "dev" }));
    assert_eq!(told["grant_id"], grant.id.as_str());

    // Who acts by the grant's own word is named instead of its client.
    grant.id = world.grant().id;
    grant.actor = Some(Party {
        iss: "https://agents.test".into(),
        sub: "agent-7".into(),
    });
    assert_eq!(call(&world, &grant).await.status.as_u16(), 200);
    let told = claims(&server.asked()[1]);
    assert_eq!(
        told["act"],
        serde_json::json!({ "iss": "https://agents.test", "sub": "agent-7" })
    );

    // What verifies it is published.
    let set = world
        .ask("")
        .method(http::Method::GET)
        .path("/.well-known/jwks.json")
        .send()
        .await;
    let keys = set.json()["keys"].clone();
    let [published] = keys.as_array().unwrap().as_slice() else {
        panic!("{keys}");
    };
    assert_eq!(
        PublicKey::from_jwk_str(&public_part(published)).unwrap(),
        key().public()
    );
    assert_eq!(published["kid"], key().public().thumbprint().to_string());
    assert!(!keys.to_string().contains("\"d\""));
    shutdown.trigger();
    world.end().await;
}

fn public_part(jwk: &Value) -> String {
    serde_json::json!({ "kty": jwk["kty"], "crv": jwk["crv"], "x": jwk["x"] }).to_string()
}

#[tokio::test]
async fn two_who_are_not_the_same_never_share_a_token() {
    let shutdown = Shutdown::new();
    let (server, world, _folder) = start(&shutdown, "", false).await;
    let (alice, bob) = (grant_of(&world, "alice"), grant_of(&world, "bob"));
    // The same id by mistake or by malice of an issuer, and each part that tells apart.
    let mut twins = vec![alice.clone(), bob.clone(), grant_of(&world, "alice")];
    let changed = |change: &dyn Fn(&mut Grant)| {
        let mut grant = alice.clone();
        change(&mut grant);
        grant
    };
    twins.push(changed(&|grant| grant.subject.sub = "bob".into()));
    twins.push(changed(&|grant| grant.client = "other".into()));
    twins.push(changed(&|grant| {
        grant.actor = Some(Party {
            iss: ISSUER.into(),
            sub: "dev".into(),
        });
    }));
    for round in 0..2 {
        for grant in &twins {
            assert_eq!(call(&world, grant).await.status.as_u16(), 200, "{round}");
        }
    }
    let shown = shown(&world);
    let (first, again) = shown.split_at(twins.len());
    assert_eq!(first, again, "each is kept");
    assert_eq!(server.asked().len(), twins.len());
    for (n, (grant, token)) in twins.iter().zip(first).enumerate() {
        let number = n + 1;
        assert_eq!(*token, format!("Bearer {}-{number}", grant.subject.sub));
    }
    // A renewed capability of one grant is the same.
    let mut renewed = alice.clone();
    renewed.expires_at += 10;
    assert_eq!(call(&world, &renewed).await.status.as_u16(), 200);
    assert_eq!(server.asked().len(), twins.len());
    shutdown.trigger();
    world.end().await;
}

#[tokio::test]
async fn a_subject_of_another_provider_gets_no_token_by_the_same_name() {
    let shutdown = Shutdown::new();
    let (server, world, _folder) = start(&shutdown, "", false).await;
    let mut grant = grant_of(&world, "alice");
    grant.subject.iss = "https://other-idp.test".into();
    refused(&call(&world, &grant).await, 502, "M-51");
    assert!(server.asked().is_empty() && shown(&world).is_empty());
    assert_eq!(
        call(&world, &grant_of(&world, "alice")).await.status.as_u16(),
        200
    );
    shutdown.trigger();
    world.end().await;
}

#[tokio::test]
async fn a_subject_that_is_refused_is_in_nobodys_way() {
    let shutdown = Shutdown::new();
    let (server, world, _folder) = start(&shutdown, "", false).await;
    let answer = |status: u16, body: &'static str| {
        let mut answer = json(body);
        *answer.status_mut() = http::StatusCode::from_u16(status).unwrap();
        answer
    };
    server.answers(move |asked, number| match claims(asked)["sub"].as_str() {
        Some("mallory") => answer(
            400,
            r#"{"error":"invalid_request","error_description":"hunter2"}"#,
        ),
        Some("consent") => answer(400, r#"{"error":"interaction_required"}"#),
        Some("often") => {
            let mut often = answer(429, "{}");
            often.headers_mut().insert("retry-after", "300".parse().unwrap());
            often
        }
        Some("crash") => answer(500, "<html>"),
        Some("page") => answer(400, "<html>"),
        Some("odd") => token(number, ""),
        Some("id") => token(number, &format!(r#","issued_token_type":"{URN}id_token""#)),
        _ => token(number, &format!(r#","issued_token_type":"{URN}access_token""#)),
    });
    let refusals = [
        ("mallory", 502, "M-50"),
        ("consent", 502, "M-50"),
        ("often", 503, "M-50"),
        ("crash", 503, "M-50"),
        ("page", 503, "M-52"),
        ("odd", 503, "M-52"),
        ("id", 503, "M-52"),
    ];
    for (n, (sub, status, rule)) in refusals.into_iter().enumerate() {
        let grant = grant_of(&world, sub);
        refused(&call(&world, &grant).await, status, rule);
        refused(&call(&world, &grant).await, status, "M-53");
        let alice = call(&world, &grant_of(&world, "alice")).await;
        assert_eq!(alice.status.as_u16(), 200, "{sub}");
        assert_eq!(
            (server.asked().len(), shown(&world).len()),
            (2 * (n + 1), n + 1),
            "{sub}"
        );
    }
    assert!(
        world.shared.servers["git"]
            .upstream
            .tokens()
            .unwrap()
            .trouble()
            .is_none()
    );
    shutdown.trigger();
    world.end().await;
}

#[tokio::test]
async fn metadata_is_read_once_for_all_who_wait() {
    const MANY: usize = 20;
    let shutdown = Shutdown::new();
    let (server, world, _folder) = start(&shutdown, "issuer = 'http://SERVER'", false).await;
    let grant = |n: usize| {
        let mut grant = grant_of(&world, &n.to_string());
        grant.expires_at += 3600;
        grant
    };
    let grants: Vec<Grant> = (0..MANY).map(grant).collect();
    let read = || server.asked().len() - server.asked_for_tokens().len();
    let all = async |before: usize| {
        server.may.forget_permits(1000);
        let calls = futures_util::future::join_all(grants.iter().map(|grant| call(&world, grant)));
        let asked = async {
            server.was_asked(before + 1).await;
            server.may.add_permits(1000);
            std::future::pending::<Vec<super::support::Answer>>().await
        };
        tokio::select! {
            answers = calls => answers,
            none = asked => none,
        }
    };
    let addr = server.addr;
    server.answers(move |asked, number| match asked.path.as_str() {
        "/token" => token(number, &format!(r#","issued_token_type":"{URN}jwt""#)),
        _ => json(format!(
            r#"{{"issuer":"http://{addr}","token_endpoint":"http://{addr}/token"}}"#
        )),
    });
    for answer in all(0).await {
        assert_eq!(answer.status.as_u16(), 200, "{answer:?}");
    }
    assert_eq!((read(), server.asked_for_tokens().len()), (1, MANY));

    // It is old, and so are the tokens. That there is none is told to all who wait, and is one failure.
    world.clock.advance(3600);
    server.answers(|_, _| {
        let mut answer = json("{}");
        *answer.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        answer
    });
    for answer in all(1 + MANY).await {
        let told = (answer.status.as_u16(), answer.header("retry-after"));
        assert_eq!(told, (503, "1"), "{answer:?}");
    }
    assert_eq!((read(), server.asked_for_tokens().len()), (2, MANY));
    shutdown.trigger();
    world.end().await;
}

#[tokio::test]
async fn what_is_revoked_while_it_waits_for_a_token_is_not_sent() {
    let shutdown = Shutdown::new();
    let (server, world, _folder) = start(&shutdown, "", true).await;
    world.page(Vec::new(), 0);
    let [alice, bob] = ["alice", "bob"].map(|sub| grant_of(&world, sub));
    server.may.forget_permits(1000);
    let revoked = async {
        server.was_asked(1).await;
        world.revoke(1, RevocationKey::Grant(alice.id.clone()));
        server.may.add_permits(1000);
    };
    let (answer, ()) = futures_util::future::join(call(&world, &alice), revoked).await;
    assert_eq!(answer.status.as_u16(), 401, "{answer:?}");
    assert!(shown(&world).is_empty());
    // Nor does what became of its request for a token concern anybody else.
    assert_eq!(call(&world, &bob).await.status.as_u16(), 200);
    shutdown.trigger();
    world.end().await;
}

#[tokio::test]
async fn tokens_are_bounded_and_the_least_recently_used_leaves() {
    let shutdown = Shutdown::new();
    let (server, world, _folder) = start(&shutdown, "max_tokens = 2", false).await;
    let [a, b, c] = ["a", "b", "c"].map(|sub| grant_of(&world, sub));
    let tokens = Arc::clone(world.shared.servers["git"].upstream.tokens().unwrap());
    // The own one has its place beside them.
    tokens.get(&crate::tokens::Whose::Own).await.unwrap();
    for grant in [&a, &b, &a, &c, &a, &c] {
        assert_eq!(call(&world, grant).await.status.as_u16(), 200);
    }
    assert_eq!(server.asked().len(), 4);
    assert_eq!(tokens.len(), 3);
    for (grant, asked) in [(&a, 4), (&c, 4), (&b, 5), (&c, 5), (&a, 6)] {
        assert_eq!(call(&world, grant).await.status.as_u16(), 200);
        assert_eq!(server.asked().len(), asked);
    }
    tokens.get(&crate::tokens::Whose::Own).await.unwrap();
    assert_eq!((tokens.len(), server.asked().len()), (3, 6));
    shutdown.trigger();
    world.end().await;
}

#[tokio::test]
async fn what_is_revoked_leaves_no_token() {
    let shutdown = Shutdown::new();
    let (server, world, _folder) = start(&shutdown, "", true).await;
    world.page(Vec::new(), 0);
    let [alice, bob] = ["alice", "bob"].map(|sub| grant_of(&world, sub));
    for grant in [&alice, &bob] {
        assert_eq!(call(&world, grant).await.status.as_u16(), 200);
    }
    let tokens = Arc::clone(world.shared.servers["git"].upstream.tokens().unwrap());
    assert_eq!(tokens.len(), 2);
    world.revoke(1, RevocationKey::Grant(alice.id.clone()));
    let left = async {
        while tokens.len() != 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), left).await.unwrap();
    assert_eq!(call(&world, &alice).await.status.as_u16(), 401);
    assert_eq!(call(&world, &bob).await.status.as_u16(), 200);
    assert_eq!(server.asked().len(), 2);
    shutdown.trigger();
    world.end().await;
}

#[tokio::test]
async fn what_the_proxy_asks_by_itself_is_in_nobodys_name() {
    let shutdown = Shutdown::new();
    let (server, world, _folder) = start(&shutdown, "", false).await;
    let tokens = Arc::clone(world.shared.servers["git"].upstream.tokens().unwrap());
    assert_eq!(
        call(&world, &grant_of(&world, "alice")).await.status.as_u16(),
        200
    );
    let own = tokens.get(&crate::tokens::Whose::Own).await.unwrap();
    assert_eq!(own.value().expose(), "t2");
    let asked = &server.asked()[1];
    assert_eq!(asked.form["grant_type"], "client_credentials");
    assert!(!asked.form.contains_key("subject_token"));
    // That the server gives the client none of its own is in no caller's way.
    server.answers(|asked, number| match asked.form.contains_key("subject_token") {
        true => token(number, &format!(r#","issued_token_type":"{URN}jwt""#)),
        false => {
            let mut answer = json(r#"{"error":"unauthorized_client"}"#);
            *answer.status_mut() = http::StatusCode::BAD_REQUEST;
            answer
        }
    });
    world.clock.advance(-1);
    assert!(tokens.get(&crate::tokens::Whose::Own).await.is_err());
    world.clock.advance(1);
    assert_eq!(call(&world, &grant_of(&world, "bob")).await.status.as_u16(), 200);
    shutdown.trigger();
    world.end().await;
}
