use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use taper_dpop::{Algorithm, PrivateKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::testing::{NOW, Seen, Server, clock};

fn key(algorithm: Algorithm) -> HolderKey {
    PrivateKey::generate(algorithm, &mut rng::os()).into()
}

fn origin(seen: &Seen) -> String {
    format!("http://{}", seen.headers["host"].to_str().unwrap())
}

/// A resource and its authorization server, which gives out a token bound to nobody in particular.
fn world(seen: &Seen) -> Response {
    let at = origin(seen);
    match (seen.method.as_str(), seen.path.as_str()) {
        ("POST", "/git/mcp") => {
            let challenge =
                format!("DPoP resource_metadata=\"{at}/meta\", scope=\"git:git_log git:git_show\"");
            (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response()
        }
        ("GET", "/meta" | "/.well-known/oauth-protected-resource/quiet") => {
            let resource = if seen.path == "/meta" {
                "/git/mcp"
            } else {
                "/quiet"
            };
            Json(json!({"resource": format!("{at}{resource}"), "authorization_servers": [at], "scopes_supported": ["all"]}))
                .into_response()
        }
        ("GET", "/.well-known/oauth-authorization-server") => Json(server(&at)).into_response(),
        ("POST", "/register") => (
            StatusCode::CREATED,
            Json(json!({"client_id": "c1", "client_secret": "unwanted"})),
        )
            .into_response(),
        ("POST", "/token") => token("DPoP", "opaque"),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn server(at: &str) -> Value {
    json!({"issuer": at, "authorization_endpoint": format!("{at}/authorize?tenant=1"), "token_endpoint": format!("{at}/token"),
        "registration_endpoint": format!("{at}/register"), "code_challenge_methods_supported": ["S256"], "token_endpoint_auth_methods_supported": ["none"],
        "authorization_response_iss_parameter_supported": true, "dpop_signing_alg_values_supported": ["ES256"]})
}

fn token(kind: &str, text: &str) -> Response {
    Json(json!({"access_token": text, "token_type": kind, "expires_in": 300})).into_response()
}

fn parameter(pending: &Pending<'_>, name: &str) -> Option<String> {
    let found = pending.url().query_pairs().find(|(n, _)| n == name);
    found.map(|(_, value)| value.into_owned())
}

/// The answer that a browser brings, with the state of the login unless it is said otherwise.
fn answered(pending: &Pending<'_>, parameters: &[(&str, &str)]) -> Answered {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters);
    if parameters.iter().all(|(name, _)| *name != "state") {
        query.append_pair("state", &parameter(pending, "state").unwrap());
    }
    Answered::of_head(&format!("GET /callback?{} HTTP/1.1\r\n\r\n", query.finish())).unwrap()
}

/// What a browser is told.
async fn browse(redirect: &str, target: &str) -> String {
    let port = Url::parse(redirect).unwrap().port().unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("{target} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_login_from_a_resource_to_a_bound_token() {
    let server = Server::answering(world).await;
    let url = format!("{}/git/mcp", server.url);
    let login = Login::to_resource(&url).await.unwrap();
    assert_eq!(login.issuer(), server.url);
    assert_eq!(login.scopes(), ["git:git_log", "git:git_show"]);
    let redirect = Redirect::listen().await.unwrap();
    let client = login.register("a test", &redirect).await.unwrap();
    assert_eq!((client.id.as_str(), client.secret.is_some()), ("c1", false));
    let key = key(Algorithm::Es256);
    let pending = login.authorize(client, &redirect, login.scopes(), &key).unwrap();

    let (uri, state) = (redirect.uri().to_owned(), parameter(&pending, "state").unwrap());
    let iss: String = url::form_urlencoded::byte_serialize(server.url.as_bytes()).collect();
    let browser = async {
        // What is not the answer is turned away, and the login goes on.
        for other in [
            "GET /callback?code=evil&state=x",
            "GET /favicon.ico",
            "POST /callback?state=x",
            "nonsense",
        ] {
            assert!(browse(&uri, other).await.starts_with("HTTP/1.1 400"), "{other}");
        }
        let silent = TcpStream::connect(Url::parse(&uri).unwrap().socket_addrs(|| None).unwrap()[0])
            .await
            .unwrap();
        let said = browse(&uri, &format!("GET /callback?code=c0de&state={state}&iss={iss}")).await;
        drop(silent);
        said
    };
    let (answer, said) = tokio::join!(redirect.answer(&pending), browser);
    assert!(said.contains("You are logged in"), "{said}");
    let answer = answer.unwrap();
    assert!(!format!("{answer:?}").contains("c0de"));
    let challenge = parameter(&pending, "code_challenge").unwrap();
    assert_eq!(
        parameter(&pending, "dpop_jkt").unwrap(),
        key.thumbprint().to_string()
    );
    for (name, value) in [
        ("tenant", "1"),
        ("response_type", "code"),
        ("client_id", "c1"),
        ("redirect_uri", &uri),
        ("code_challenge_method", "S256"),
        ("scope", "git:git_log git:git_show"),
        ("resource", &url),
    ] {
        assert_eq!(parameter(&pending, name).as_deref(), Some(value), "{name}");
    }

    server.will_answer((
        StatusCode::BAD_REQUEST,
        [("dpop-nonce", "n1")],
        Json(json!({"error": "use_dpop_nonce"})),
    ));
    let logged_in = pending.redeem(&answer, clock().as_ref()).await.unwrap();
    assert_eq!(logged_in.access_token.expose(), "opaque");
    assert_eq!(logged_in.expires_at, Some(NOW + 300));
    assert!(!format!("{logged_in:?}").contains("opaque"));

    let seen = server.seen();
    let registered = seen.iter().find(|seen| seen.path == "/register").unwrap();
    let registered: Value = serde_json::from_slice(&registered.body).unwrap();
    assert_eq!(registered["application_type"], "native");
    assert_eq!(registered["dpop_bound_access_tokens"], true);
    let tokens: Vec<_> = seen.iter().filter(|seen| seen.path == "/token").collect();
    assert_eq!(tokens.len(), 2);
    assert_eq!(crate::testing::nonce_of(tokens[1]).as_deref(), Some("n1"));
    let form: std::collections::BTreeMap<_, _> = url::form_urlencoded::parse(&tokens[1].body)
        .into_owned()
        .collect();
    let digest = ContentDigest::of(form["code_verifier"].as_bytes());
    assert_eq!(base64url_encode(digest.as_bytes()), challenge);
    assert_eq!(
        (form["code"].as_str(), form["resource"].as_str()),
        ("c0de", url.as_str())
    );
    assert_eq!(
        (form["client_id"].as_str(), form["redirect_uri"].as_str()),
        ("c1", uri.as_str())
    );
}

#[tokio::test]
async fn answers_of_others_and_refusals_are_told_apart() {
    let server = Server::answering(world).await;
    let login = Login::at_server(&server.url, None).await.unwrap();
    let iss = server.url.as_str();
    let cases: [(&[(&str, &str)], &str); 8] = [
        (&[("code", "c"), ("iss", iss), ("state", "x")], "another login"),
        (
            &[("code", "c"), ("iss", iss), ("state", "x"), ("state", "y")],
            "another login",
        ),
        (
            &[("code", "c"), ("iss", "https://evil.example")],
            "another server",
        ),
        (&[("code", "c"), ("iss", &format!("{iss}/"))], "another server"),
        (&[("code", "c")], "does not say whose"),
        (&[("iss", iss)], "no code"),
        (&[("code", "c"), ("code", "d"), ("iss", iss)], "no code"),
        (
            &[
                ("iss", iss),
                ("error", "access_denied"),
                ("error_description", "no\u{1b}[2J"),
            ],
            "access_denied (no\\u{1b}[2J)",
        ),
    ];
    for (parameters, expected) in cases {
        let redirect = Redirect::listen().await.unwrap();
        let client = Client {
            id: "c1".to_owned(),
            secret: None,
        };
        let pending = login
            .authorize(client, &redirect, &[], &key(Algorithm::Es256))
            .unwrap();
        assert_eq!(parameter(&pending, "scope"), None);
        let answer = answered(&pending, parameters);
        let error = pending.redeem(&answer, clock().as_ref()).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(
            matches!(error, Error::Issuer { .. }),
            expected.starts_with("access_denied")
        );
    }
    assert!(server.seen().iter().all(|seen| seen.path != "/token"));
}

#[tokio::test]
async fn a_token_that_is_not_bound_to_the_key_is_refused() {
    let server = Server::answering(world).await;
    let login = Login::at_server(&server.url, None).await.unwrap();
    let key = key(Algorithm::Es256);
    let jwt = |jkt: &str| {
        format!(
            "e30.{}.e30",
            base64url_encode(format!("{{\"cnf\":{{\"jkt\":\"{jkt}\"}}}}").as_bytes())
        )
    };
    let own = jwt(&key.thumbprint().to_string());
    for (kind, text, expected) in [
        ("dpop", own.as_str(), Ok(())),
        ("Bearer", "t", Err("of type `Bearer`")),
        ("DPoP", &jwt("stranger"), Err("bound to another key")),
    ] {
        let redirect = Redirect::listen().await.unwrap();
        let client = Client {
            id: "c1".to_owned(),
            secret: None,
        };
        let pending = login.authorize(client, &redirect, &[], &key).unwrap();
        let answer = answered(&pending, &[("code", "c"), ("iss", &server.url)]);
        server.will_answer(token(kind, text));
        match (pending.redeem(&answer, clock().as_ref()).await, expected) {
            (Ok(_), Ok(())) => {}
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (outcome, _) => panic!("{kind} {text}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn what_a_resource_or_a_server_says_of_itself_is_checked() {
    // Without a challenge the metadata lie where the RFC says.
    let quiet = Server::answering(world).await;
    let login = Login::to_resource(&format!("{}/quiet", quiet.url)).await.unwrap();
    assert_eq!(login.scopes(), ["all"]);
    let ed25519 = key(Algorithm::EdDsa);
    let redirect = Redirect::listen().await.unwrap();
    let client = Client {
        id: "c1".to_owned(),
        secret: None,
    };
    let refused = login
        .authorize(client, &redirect, &[], &ed25519)
        .unwrap_err()
        .to_string();
    assert!(refused.contains("takes proofs by ES256"), "{refused}");

    type Change = fn(&str, &mut Value, &mut Value);
    let cases: [(Change, &str); 7] = [
        (
            |_, _, server| server["authorization_endpoint"] = Value::Null,
            "nobody logs in",
        ),
        (
            |_, resource, _| resource["resource"] = json!("http://127.0.0.1:1/other"),
            "other",
        ),
        (
            |_, resource, _| resource["authorization_servers"] = json!([]),
            "no authorization server",
        ),
        (
            |_, resource, _| resource["authorization_servers"] = json!(["http://10.0.0.1/"]),
            "https is required",
        ),
        (
            |at, _, server| server["issuer"] = json!(format!("{at}/")),
            "was asked",
        ),
        (
            |_, _, server| server["code_challenge_methods_supported"] = json!(["plain"]),
            "PKCE",
        ),
        (
            |_, _, server| server["token_endpoint"] = json!("http://token.example/"),
            "",
        ),
    ];
    for (change, expected) in cases {
        let server = Server::start().await;
        let at = server.url.clone();
        let mut resource = json!({"resource": format!("{at}/mcp"), "authorization_servers": [at]});
        let mut metadata = self::server(&at);
        change(&at, &mut resource, &mut metadata);
        server.will_answer(StatusCode::UNAUTHORIZED);
        server.will_answer(Json(resource));
        server.will_answer(Json(metadata));
        match Login::to_resource(&format!("{at}/mcp")).await {
            Err(error) => assert!(
                !expected.is_empty() && error.to_string().contains(expected),
                "{error}"
            ),
            Ok(login) => {
                // An endpoint is looked at when it is needed.
                assert_eq!(expected, "");
                let redirect = Redirect::listen().await.unwrap();
                let client = Client {
                    id: "c1".to_owned(),
                    secret: None,
                };
                let pending = login
                    .authorize(client, &redirect, &[], &key(Algorithm::Es256))
                    .unwrap();
                let answer = answered(&pending, &[("code", "c"), ("iss", &at)]);
                let error = pending
                    .redeem(&answer, clock().as_ref())
                    .await
                    .unwrap_err()
                    .to_string();
                assert!(
                    error.contains("`token_endpoint`") && error.contains("https is required"),
                    "{error}"
                );
            }
        }
    }
}

#[tokio::test]
async fn discovery_looks_in_each_place_and_a_secret_without_a_method_is_basic() {
    // Metadata of the whole host at its root, an issuer with a path that speaks OpenID in the inserted place.
    let server = Server::answering(|seen: &Seen| {
        let at = origin(seen);
        match (seen.method.as_str(), seen.path.as_str()) {
            ("GET", "/.well-known/oauth-protected-resource") => {
                Json(json!({"resource": at, "authorization_servers": [format!("{at}/tenant")]}))
                    .into_response()
            }
            ("GET", "/.well-known/openid-configuration/tenant") => {
                let mut metadata = server(&at);
                metadata["issuer"] = json!(format!("{at}/tenant"));
                metadata
                    .as_object_mut()
                    .unwrap()
                    .remove("token_endpoint_auth_methods_supported");
                Json(metadata).into_response()
            }
            ("POST", "/register" | "/token") => world(seen),
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    })
    .await;
    let login = Login::to_resource(&format!("{}/git/mcp", server.url))
        .await
        .unwrap();
    assert_eq!(login.issuer(), format!("{}/tenant", server.url));
    let redirect = Redirect::listen().await.unwrap();
    let taken = Url::parse(redirect.uri()).unwrap().port().unwrap();
    assert!(Redirect::listen_on(taken).await.is_err());
    let client = login.register("a test", &redirect).await.unwrap();
    let pending = login
        .authorize(client, &redirect, &[], &key(Algorithm::Es256))
        .unwrap();
    assert_eq!(parameter(&pending, "resource"), Some(server.url.clone()));
    let answer = answered(&pending, &[("code", "c"), ("iss", login.issuer())]);
    pending.redeem(&answer, clock().as_ref()).await.unwrap();
    let seen = server.seen();
    let asked = seen.iter().find(|seen| seen.path == "/token").unwrap();
    assert!(
        asked.headers["authorization"]
            .to_str()
            .unwrap()
            .starts_with("Basic ")
    );
    let places = seen
        .iter()
        .filter(|seen| seen.method == "GET")
        .map(|seen| seen.path.as_str());
    assert_eq!(
        places.collect::<Vec<_>>(),
        [
            "/.well-known/oauth-protected-resource/git/mcp",
            "/.well-known/oauth-protected-resource",
            "/.well-known/oauth-authorization-server/tenant",
            "/.well-known/openid-configuration/tenant",
        ]
    );
}
