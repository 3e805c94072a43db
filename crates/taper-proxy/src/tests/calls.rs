//! What may pass, and what may not.

use http::Method;
use taper_capability::{
    ArgumentMatch, ArgumentValue, Caveat, Delegation, Grant, Narrowing, Party, ResourceMatch, Right, RootKey,
    Token,
};
use taper_dpop::{Algorithm, PrivateKey};
use taper_service::rng;
use taper_store::RevocationKey;

use super::support::{Ask, NOW, World, tool_call, usual};

const LOG: &str = r#"{"repo_path":"acme/web"}"#;
const PUSH: &str = "{}";

/// Refused with `status` and `told` somewhere in challenge or body, and the upstream saw nothing.
#[track_caller]
fn refused(ask: &Ask<'_>, status: u16, told: &str) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    let (request, before) = (ask.request(), ask.world.upstream.seen().len());
    let world = ask.world;
    async move {
        let answer = world.send(request).await;
        let text = format!(
            "{} {}",
            answer.header("www-authenticate"),
            String::from_utf8_lossy(&answer.body)
        );
        assert_eq!(answer.status.as_u16(), status, "{caller}: {text}");
        assert!(text.contains(told), "{caller}: {text}");
        assert_eq!(
            world.upstream.seen().len(),
            before,
            "{caller}: the upstream was called"
        );
    }
}

#[track_caller]
fn passes(ask: &Ask<'_>) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    let (request, before) = (ask.request(), ask.world.upstream.seen().len());
    let world = ask.world;
    async move {
        let answer = world.send(request).await;
        assert_eq!(answer.status.as_u16(), 200, "{caller}: {answer:?}");
        assert_eq!(world.upstream.seen().len(), before + 1, "{caller}");
    }
}

#[tokio::test]
async fn an_honest_call_passes_as_it_was_sent() {
    let world = World::start(usual()).await;
    let body = format!(" {}\n", tool_call("git_log", LOG));
    let ask = world
        .ask(body.clone())
        .header("content-type", "application/json; charset=\"UTF-8\"")
        .header("last-event-id", "9")
        .header("cookie", "a=b")
        .header("x-secret", "s")
        .header("mcp-protocol-version", "2025-11-25");
    passes(&ask).await;
    let seen = world.upstream.seen().pop().unwrap();
    assert_eq!(seen.body, body.as_bytes(), "the same bytes");
    assert_eq!(
        seen.headers["authorization"], "hunter2",
        "the proxy's own credentials"
    );
    for name in ["dpop", "cookie", "x-secret", "last-event-id"] {
        assert!(!seen.headers.contains_key(name), "{name}");
    }
    assert_eq!(seen.headers["mcp-protocol-version"], "2025-11-25");
    assert_eq!(
        seen.headers["content-type"], "application/json",
        "what was read here"
    );
    assert_eq!(world.decisions().await, [("allow".to_owned(), String::new())]);
    world.end().await;
}

#[tokio::test]
async fn credentials() {
    let world = World::start(usual()).await;
    let honest = || world.call("git_log", LOG);
    passes(&honest()).await;

    let mut ask = honest();
    (ask.scheme, ask.proof) = ("", false);
    refused(
        &ask,
        401,
        "resource_metadata=\"https://proxy.test/.well-known/oauth-protected-resource/git/mcp\"",
    )
    .await;
    let mut ask = honest();
    ask.scheme = "Bearer";
    refused(&ask, 401, "bearer").await;
    let mut ask = honest();
    ask.proof = false;
    refused(&ask, 401, "invalid_request").await;

    let thief = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
    refused(&honest().key(&thief), 401, "invalid_dpop_proof").await;
    refused(
        &honest().claims(|c| c.htm = "GET".into()),
        401,
        "invalid_dpop_proof",
    )
    .await;
    refused(
        &honest().claims(|c| c.htu = "https://proxy.test/other/mcp".into()),
        401,
        "invalid_dpop_proof",
    )
    .await;
    refused(&honest().claims(|c| c.iat = NOW - 301), 401, "invalid_dpop_proof").await;
    refused(&honest().claims(|c| c.ath = None), 401, "invalid_dpop_proof").await;
    refused(&honest().token("AAAA"), 401, "invalid_token").await;

    let expired = Grant {
        issued_at: NOW - 9,
        expires_at: NOW,
        ..world.grant()
    };
    refused(
        &honest().token(world.issue(&expired).as_str()),
        401,
        "invalid_token",
    )
    .await;
    let elsewhere = Grant {
        audiences: vec!["https://other.test/git/mcp".into()],
        ..world.grant()
    };
    refused(
        &honest().token(world.issue(&elsewhere).as_str()),
        401,
        "invalid_token",
    )
    .await;
    let stranger = Grant {
        issuer: "https://evil.test".into(),
        ..world.grant()
    };
    refused(
        &honest().token(world.issue(&stranger).as_str()),
        401,
        "invalid_token",
    )
    .await;
    let forged = RootKey::generate(7, &mut rng::os());
    let forged = taper_capability::issue(&world.grant(), &forged, &mut rng::os()).unwrap();
    refused(&honest().token(forged.as_str()), 401, "invalid_token").await;
    passes(&honest()).await;
    world.end().await;
}

#[tokio::test]
async fn a_request_passes_once_and_with_its_own_body() {
    let world = World::start(usual()).await;
    let ask = world.call("git_push", PUSH);
    let request = ask.request();
    let copy = {
        let mut copy = ask.request();
        *copy.headers_mut() = request.headers().clone();
        copy
    };
    assert_eq!(world.send(request).await.status.as_u16(), 200);
    let replayed = world.send(copy).await;
    assert_eq!(replayed.status.as_u16(), 401);
    assert!(replayed.header("www-authenticate").contains("used before"));
    assert_eq!(world.upstream.seen().len(), 1);

    let mut ask = world.call("git_push", PUSH);
    ask.sent_body = Some(tool_call("git_push", r#"{"force":true}"#));
    refused(&ask, 401, "invalid_dpop_proof").await;
    refused(&world.call("git_push", PUSH).unbound(), 401, "digest").await;
    passes(&world.call("git_log", LOG).unbound()).await;
    passes(&world.call("git_push", PUSH)).await;
    world.end().await;
}

#[tokio::test]
async fn bodies() {
    let world = World::start(usual()).await;
    let body = |text: &str| world.ask(text);
    refused(&body("not json"), 400, "-32700").await;
    refused(
        &body(&format!("\u{feff}{}", tool_call("git_log", LOG))),
        400,
        "-32700",
    )
    .await;
    refused(&body(&format!("[{}]", tool_call("git_log", LOG))), 400, "-32600").await;
    let twice = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"git_log","name":"git_rm","arguments":{"repo_path":"acme/web"}}}"#;
    refused(&body(twice), 400, "-32700").await;
    refused(
        &world.call("git_log", r#"{"repo_path":"acme/web","Repo_Path":"x"}"#),
        400,
        "-32600",
    )
    .await;
    refused(
        &body(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#),
        400,
        "outstanding",
    )
    .await;
    let mut anonymous = body("not json");
    (anonymous.scheme, anonymous.proof) = ("", false);
    refused(&anonymous, 401, "").await;
    refused(
        &body(r#"{"jsonrpc":"2.0","id":1,"method":"tools/Call","params":{}}"#),
        403,
        "M-19",
    )
    .await;
    passes(&body(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#)).await;
    world.end().await;
}

#[tokio::test]
async fn heads() {
    let world = World::start(usual()).await;
    let honest = || world.call("git_log", LOG);
    refused(&honest().path("/git/mcp?x=1"), 400, "query").await;
    refused(&honest().path("/git/mcp/"), 404, "").await;
    refused(&honest().path("/other/mcp"), 404, "").await;
    refused(&honest().path("/metrics"), 404, "").await;
    refused(&honest().header("host", "evil.test"), 421, "").await;
    refused(&honest().header("origin", "https://evil.test"), 403, "origin").await;
    passes(&honest().header("origin", "https://proxy.test")).await;
    refused(&honest().header("content-encoding", "gzip"), 400, "encoding").await;
    refused(&honest().header("content-type", "text/plain"), 415, "").await;
    refused(&honest().header("content-type", ""), 415, "").await;
    let utf7 = "application/json; charset=utf-7";
    refused(&honest().header("content-type", utf7), 415, "").await;
    refused(
        &honest().header("x-http-method-override", "DELETE"),
        400,
        "method",
    )
    .await;
    refused(&honest().header("mcp-method", "ping"), 400, "-32020").await;
    refused(&honest().header("mcp-name", "git_push"), 400, "-32020").await;
    passes(
        &honest()
            .header("mcp-method", "tools/call")
            .header("mcp-name", "git_log"),
    )
    .await;
    refused(&honest().method(Method::PUT), 405, "").await;
    let mut large = honest();
    large.body = " ".repeat(1024 * 1024 + 1);
    refused(&large, 413, "").await;
    let mut with_body = honest().method(Method::GET);
    with_body.body = "x".into();
    refused(&with_body, 400, "body").await;
    world.end().await;
}

#[tokio::test]
async fn rights_caveats_profile_and_policy() {
    let setup = super::support::Setup {
        policy: Some("deny if tool(\"git_push\");\nallow if true;"),
        ..usual()
    };
    let world = World::start(setup).await;
    passes(&world.call("git_log", LOG)).await;
    refused(&world.call("git_show", "{}"), 403, "insufficient_scope").await;
    let read = |uri: &str| {
        world.ask(format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{{"uri":"{uri}"}}}}"#
        ))
    };
    passes(&read("repo://acme/web")).await;
    refused(&read("repo://other/web"), 403, "insufficient_scope").await;
    refused(&read("repo://acme/../other"), 403, "M-22").await;

    refused(&world.call("git_log", "{}"), 403, "M-21").await;
    refused(
        &world.call("git_log", r#"{"repo_path":["acme/web"]}"#),
        403,
        "M-21",
    )
    .await;
    refused(
        &world.call("git_log", r#"{"repo_path":"acme/../x"}"#),
        403,
        "M-22",
    )
    .await;
    refused(
        &world.call("git_log", r#"{"repo_path":"acme/web","path":"/etc"}"#),
        403,
        "M-23",
    )
    .await;
    passes(&world.call("git_log", r#"{"repo_path":"acme/web","max_count":3}"#)).await;
    refused(&world.call("git_push", PUSH), 403, "R-23").await;

    let narrow = |repo: &str| {
        let caveat = Caveat::Resource {
            kind: "repo".into(),
            matches: ResourceMatch::OneOf(vec![repo.into()]),
        };
        let token = world.issue(&world.grant());
        let narrowed = Narrowing::new()
            .only(caveat)
            .sign(&token, &world.holder, &mut rng::os());
        narrowed.unwrap()
    };
    passes(&world.call("git_log", LOG).token(narrow("acme/web").as_str())).await;
    let denied = world.call("git_log", LOG).token(narrow("acme/payroll").as_str());
    refused(&denied, 403, "4403").await;
    let answer = denied.send().await.json();
    let data = &answer["error"]["data"];
    assert_eq!((&data["rule"], &data["link"]), (&"R-22".into(), &1.into()));
    assert_eq!(data["caveat"]["resource"]["kind"], "repo");
    let decisions = world.decisions().await;
    assert!(
        decisions.contains(&("deny".into(), "R-22".into())),
        "{decisions:?}"
    );
    assert!(
        decisions.contains(&("deny".into(), "M-23".into())),
        "{decisions:?}"
    );
    world.end().await;
}

fn argument(pointer: &str) -> Caveat {
    Caveat::Argument {
        pointer: pointer.into(),
        matches: ArgumentMatch::Equals(ArgumentValue::String("x".into())),
    }
}

#[tokio::test]
async fn a_narrowing_never_turns_a_denial_into_a_pass() {
    let setup = super::support::Setup {
        policy: Some("allow if true;"),
        server: "read_only = ['git_log']\nextra_methods = ['x/own']\n\
                 tools.git_log = { resources = { repo = '{repo_path}' } }",
        ..super::support::Setup::default()
    };
    let world = World::start(setup).await;
    let token = world.issue(&world.grant());
    let narrowed = |token: &Token, caveat: Caveat| {
        let narrowing = Narrowing::new().only(caveat);
        narrowing.sign(token, &world.holder, &mut rng::os()).unwrap()
    };
    // With templates the profile alone lists arguments.
    let unlisted = || world.call("git_log", r#"{"repo_path":"acme/web","path":"x"}"#);
    refused(&unlisted().token(token.as_str()), 403, "M-23").await;
    let own = narrowed(&token, argument("/path"));
    refused(&unlisted().token(own.as_str()), 403, "M-23").await;

    // Without templates the first link that speaks of arguments does.
    let both = || world.call("git_push", r#"{"a":"x","b":"x"}"#);
    passes(&both().token(token.as_str())).await;
    let first = narrowed(&token, argument("/a"));
    refused(&both().token(first.as_str()), 403, "M-23").await;
    let second = narrowed(&first, argument("/b"));
    refused(&both().token(second.as_str()), 403, "M-23").await;
    let one = || world.call("git_push", r#"{"a":"x"}"#);
    passes(&one().token(first.as_str())).await;
    world.end().await;
}

#[tokio::test]
async fn a_configured_method_needs_a_right_and_every_check() {
    let setup = super::support::Setup {
        server: "extra_methods = ['x/own']",
        ..usual()
    };
    let world = World::start(setup).await;
    let own = || world.ask(r#"{"jsonrpc":"2.0","id":1,"method":"x/own"}"#);
    passes(&own()).await;
    let none = Grant {
        rights: vec![Right::AnyTool {
            server: "other".into(),
        }],
        ..world.grant()
    };
    refused(
        &own().token(world.issue(&none).as_str()),
        403,
        "insufficient_scope",
    )
    .await;
    let checked = Narrowing::new()
        .only(argument("/a"))
        .sign(&world.issue(&world.grant()), &world.holder, &mut rng::os())
        .unwrap();
    refused(&own().token(checked.as_str()), 403, "R-22").await;
    world.end().await;
}

#[tokio::test]
async fn a_delegate_passes_with_its_own_key_only() {
    let world = World::start(usual()).await;
    let child = PrivateKey::generate(Algorithm::Es256, &mut rng::os());
    let token = world.issue(&world.grant());
    let handed: Token = Delegation::to(child.public())
        .until(NOW + 60)
        .sign(&token, &world.holder, &mut rng::os())
        .unwrap();
    passes(&world.call("git_log", LOG).token(handed.as_str()).key(&child)).await;
    passes(
        &world
            .call("git_log", LOG)
            .token(handed.sealed().unwrap().as_str())
            .key(&child),
    )
    .await;
    refused(
        &world.call("git_log", LOG).token(handed.as_str()),
        401,
        "last holder",
    )
    .await;
    world.clock.advance(60);
    refused(
        &world.call("git_log", LOG).token(handed.as_str()).key(&child),
        401,
        "invalid_token",
    )
    .await;
    passes(&world.call("git_log", LOG).token(token.as_str())).await;
    world.end().await;
}

#[tokio::test]
async fn without_a_policy_nothing_passes() {
    let setup = super::support::Setup {
        policy: None,
        ..usual()
    };
    let world = World::start(setup).await;
    refused(&world.call("git_log", LOG), 403, "4403").await;
    refused(
        &world.ask(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#),
        403,
        "4403",
    )
    .await;
    world.end().await;
}

#[tokio::test]
async fn revocation_and_staleness() {
    let setup = super::support::Setup {
        feed: true,
        ..usual()
    };
    let world = World::start(setup).await;
    refused(&world.call("git_log", LOG), 503, "4503").await;
    let ready = world.ask("").method(Method::GET).path("/readyz");
    let answer = ready.send().await;
    assert_eq!(answer.status.as_u16(), 503);
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let expected = "not ready\nhttps://issuer.test: its revocation feed is not complete yet";
    assert!(text.starts_with(expected), "{text}");
    let head = world.ask("").method(Method::HEAD).path("/readyz").send().await;
    assert_eq!((head.status.as_u16(), head.body.len()), (503, 0));
    let posted = world.ask("").path("/readyz").send().await;
    assert_eq!(
        (posted.status.as_u16(), posted.header("allow")),
        (405, "GET, HEAD")
    );
    world.page(Vec::new(), 0);
    let answer = ready.send().await;
    assert_eq!(
        (answer.status.as_u16(), answer.body.as_ref()),
        (200, b"ok\n".as_slice())
    );

    let (one, two) = (world.grant(), world.grant());
    let (first, second) = (world.issue(&one), world.issue(&two));
    passes(&world.call("git_log", LOG).token(first.as_str())).await;
    world.revoke(1, RevocationKey::Grant(one.id));
    refused(&world.call("git_log", LOG).token(first.as_str()), 401, "revoked").await;
    passes(&world.call("git_log", LOG).token(second.as_str())).await;
    world.revoke(
        2,
        RevocationKey::Holder(world.holder.public().thumbprint().to_string()),
    );
    refused(&world.call("git_log", LOG).token(second.as_str()), 401, "revoked").await;
    world.end().await;
}

#[tokio::test]
async fn an_actor_can_be_revoked() {
    let setup = super::support::Setup {
        feed: true,
        ..usual()
    };
    let world = World::start(setup).await;
    world.page(Vec::new(), 0);
    let actor = Party {
        iss: "https://idp.test".into(),
        sub: "agent".into(),
    };
    let grant = Grant {
        actor: Some(actor.clone()),
        ..world.grant()
    };
    let (acted, own) = (world.issue(&grant), world.issue(&world.grant()));
    passes(&world.call("git_log", LOG).token(acted.as_str())).await;
    world.revoke(
        1,
        RevocationKey::Subject {
            iss: actor.iss,
            sub: actor.sub,
        },
    );
    refused(&world.call("git_log", LOG).token(acted.as_str()), 401, "revoked").await;
    passes(&world.call("git_log", LOG).token(own.as_str())).await;
    world.end().await;
}

#[tokio::test]
async fn a_stale_feed_denies() {
    let setup = super::support::Setup {
        feed: true,
        ..usual()
    };
    let world = World::start(setup).await;
    world.page(Vec::new(), 0);
    world.clock.advance(30);
    passes(&world.call("git_log", LOG)).await;
    world.clock.advance(1);
    refused(&world.call("git_log", LOG), 503, "M-13").await;
    world.page(Vec::new(), 0);
    passes(&world.call("git_log", LOG)).await;
    world.end().await;
}

#[tokio::test]
async fn a_nonce_is_given_and_taken() {
    let setup = super::support::Setup {
        top: "nonce = 'demand'",
        ..usual()
    };
    let world = World::start(setup).await;
    let ask = world.call("git_log", LOG);
    refused(&ask, 401, "use_dpop_nonce").await;
    let nonce = ask.send().await.header("dpop-nonce").to_owned();
    assert!(!nonce.is_empty());
    passes(
        &world
            .call("git_log", LOG)
            .claims(move |c| c.nonce = Some(nonce.clone())),
    )
    .await;
    refused(
        &world
            .call("git_log", LOG)
            .claims(|c| c.nonce = Some("AAAA".into())),
        401,
        "use_dpop_nonce",
    )
    .await;
    world.end().await;
}
