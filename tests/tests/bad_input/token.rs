//! What the issuer refuses at `/token`.

use serde_json::{Value, json};
use taper_dpop::{PrivateKey, base64url_encode};
use taper_tests::taper_ok;

use super::issuer::{Issuer, basic, encoded};
use super::{Spoil, bad_proofs, jws, spoil};

#[test]
fn token_requests() {
    let issuer = Issuer::start();
    let check = |name: &str, spoil: Spoil, status, says: &str| {
        issuer.pair(name, &issuer.exchange(), &spoil(issuer.exchange()), status, says);
    };
    let edit = |name: &str, from: &'static str, to: String, says: &str| {
        check(name, spoil(move |call| call.edit(from, &to)), 400, says);
    };
    let more =
        |name: &str, form: String, says: &str| edit(name, "grant_type=", format!("{form}&grant_type="), says);
    let header = |name: &'static str, value: &'static str| spoil(move |call| call.header(name, value));

    // Forms.
    check(
        "JSON",
        spoil(|call| call.instead("content-type", "application/json")),
        400,
        "invalid_request",
    );
    check(
        "no content type",
        spoil(|call| call.without("content-type")),
        400,
        "invalid_request",
    );
    check(
        "two content types",
        header("content-type", "application/x-www-form-urlencoded"),
        400,
        "invalid_request",
    );
    check(
        "an empty form",
        spoil(|call| call.body("")),
        401,
        "invalid_client",
    );
    check(
        "a form of 200,000 bytes",
        spoil(|call| {
            let mut call = call;
            call.body.extend(format!("&x={}", "a".repeat(200_000)).bytes());
            call
        }),
        413,
        "invalid_request",
    );
    for form in [
        "x=%zz", "x=%", "x=a b", "x=%00", "x=%ff", "=x", "%ff=x", "x=\u{fc}",
    ] {
        more(form, form.to_owned(), "invalid_request");
    }
    more(
        "a thousand parameters",
        (0..1_000)
            .map(|n| format!("x{n}=1"))
            .collect::<Vec<_>>()
            .join("&"),
        "invalid_request",
    );
    for parameter in [
        "grant_type=x",
        "client_id=dev",
        "scope=git%3A*",
        "subject_token=x",
        "subject_token_type=x",
    ] {
        more(
            &format!("{parameter} twice"),
            parameter.to_owned(),
            "invalid_request",
        );
    }
    more("an empty parameter twice", "scope=".to_owned(), "invalid_request");

    // Clients.
    check(
        "an unknown client",
        spoil(|call| call.edit("client_id=dev", "client_id=other")),
        401,
        "invalid_client",
    );
    check(
        "a client in capitals",
        spoil(|call| call.edit("client_id=dev", "client_id=DEV")),
        401,
        "invalid_client",
    );
    check(
        "a secret of a public client",
        spoil(|call| call.edit("client_id=dev", "client_id=dev&client_secret=x")),
        401,
        "invalid_client",
    );
    check(
        "a confidential client without its secret",
        spoil(|call| call.edit("client_id=dev", "client_id=proxy")),
        401,
        "invalid_client",
    );
    check(
        "two authorizations",
        spoil(|call| {
            call.header("authorization", basic("dev", ""))
                .header("authorization", basic("dev", ""))
        }),
        401,
        "invalid_client",
    );
    check(
        "a broken authorization",
        header("authorization", "Basic %%%"),
        401,
        "invalid_client",
    );
    check(
        "a bearer token",
        header("authorization", "Bearer x"),
        401,
        "invalid_client",
    );

    // Proofs.
    for (name, spoil, _) in bad_proofs() {
        check(name, spoil, 400, "invalid_dpop_proof");
    }
    check(
        "no proof",
        spoil(|call| call.proofs(&[])),
        400,
        "invalid_dpop_proof",
    );
    check(
        "two proofs",
        spoil(|call| {
            let (first, second) = (call.proof(), call.proof());
            call.proofs(&[&first, &second])
        }),
        400,
        "invalid_dpop_proof",
    );
    let call = issuer.exchange();
    let proof = call.proof();
    let same = call.proofs(&[&proof]);
    issuer.pair("a proof used before", &same, &same, 400, "invalid_dpop_proof");

    // What is asked for.
    edit("no grant type", "grant_type=", "x=".into(), "invalid_request");
    edit(
        "the password grant",
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange",
        "grant_type=password".into(),
        "unsupported_grant_type",
    );
    edit(
        "another subject token type",
        "token-type%3Aaccess_token",
        "token-type%3Aunknown".into(),
        "invalid_request",
    );
    more(
        "a requested refresh token",
        format!(
            "requested_token_type={}",
            encoded("urn:ietf:params:oauth:token-type:refresh_token")
        ),
        "invalid_request",
    );
    for scope in [
        "git",
        "git%3A",
        "%3Agit_log",
        "git%3A*%3A*%0a",
        "GIT%3Agit_log",
        "git%3A%2e%2e%20%00",
    ] {
        edit(scope, "scope=git%3A%2A", format!("scope={scope}"), "invalid_");
    }
    edit(
        "a scope of 20,000 letters",
        "scope=git%3A%2A",
        format!("scope=git%3A{}", "a".repeat(20_000)),
        "invalid_scope",
    );
    edit(
        "another server",
        "scope=git%3A%2A",
        "scope=hub%3Aread".into(),
        "invalid_target",
    );
    edit("nothing", "scope=git%3A%2A", "scope=".into(), "invalid_scope");
    for resource in ["x", "https%3A%2F%2Fother.example%2Fmcp", "javascript%3Aalert(1)"] {
        more(resource, format!("resource={resource}"), "invalid_target");
    }
    let nested = format!("{}{}", "[".repeat(15_000), "]".repeat(15_000));
    for details in [
        "[",
        "{}",
        "null",
        "[{}]",
        "[1]",
        r#"[{"type":"other"}]"#,
        r#"[{"type":"mcp","type":"mcp","server":"git"}]"#,
        &nested,
    ] {
        let name = &details[..details.len().min(60)];
        edit(
            name,
            "scope=git%3A%2A",
            format!("authorization_details={}", encoded(details)),
            "invalid_authorization_details",
        );
    }

    // Subject tokens.
    let token = |name: &str, token: String| {
        let bad = issuer
            .exchange()
            .edit(&encoded(&issuer.access_token), &encoded(&token));
        issuer.pair(name, &issuer.exchange(), &bad, 400, "invalid_request");
    };
    let good = &issuer.access_token;
    let parts: Vec<&str> = good.split('.').collect();
    let none = base64url_encode(br#"{"typ":"at+jwt","alg":"none"}"#);
    let claims: Value = serde_json::from_slice(&taper_dpop::base64url_decode(parts[1]).unwrap()).unwrap();
    let own_key = PrivateKey::from_jwk_str(&issuer.key).unwrap().public().to_jwk();
    token("no token", String::new());
    token("a token of one letter", "x".into());
    token("a token of three letters", "a.b.c".into());
    token("a token of 60,000 letters", "A".repeat(60_000));
    token("a token without signature", format!("{}.{}.", parts[0], parts[1]));
    token("alg none", format!("{none}.{}.", parts[1]));
    token(
        "changed claims",
        format!("{}.{}.{}", parts[0], base64url_encode(b"{}"), parts[2]),
    );
    token(
        "a token of the asker's own making",
        jws(
            &issuer.key,
            &json!({"typ": "at+jwt", "alg": "EdDSA", "jwk": own_key}),
            &claims,
        ),
    );
    token("a capability", issuer.capability());
    let other = taper_ok(
        issuer.up.dir(),
        &["dev-token", "--dir", "up", "--subject", "bob", "--group", "sales"],
    );
    let bad = issuer.exchange().edit(&encoded(good), &encoded(other.trim()));
    issuer.pair(
        "a token of somebody else",
        &issuer.exchange(),
        &bad,
        400,
        "invalid_scope",
    );

    // Paths and methods.
    for target in [
        "/",
        "/token/",
        "//token",
        "/Token",
        "/tok%65n",
        "/./token",
        "/x/../token",
        "/metrics",
        "/admin/v1/revocations",
        "/token/../admin/v1/revocations",
    ] {
        check(target, spoil(move |call| call.line("POST", target)), 404, "");
    }
    for method in ["GET", "PUT", "DELETE", "TRACE"] {
        check(method, spoil(move |call| call.line(method, "/token")), 405, "");
    }
    check(
        "a method override",
        spoil(|call| {
            call.header("x-http-method-override", "POST")
                .line("GET", "/token")
        }),
        405,
        "",
    );
    check(
        "a header of 20,000 bytes",
        spoil(|call| call.header("x-large", "a".repeat(20_000))),
        431,
        "",
    );
    check(
        "a content encoding",
        header("content-encoding", "gzip"),
        415,
        "invalid_request",
    );
    issuer.end();
}
