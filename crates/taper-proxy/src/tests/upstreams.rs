//! What of an upstream's answer may pass, upstreams over TLS, and the proxy's own headers.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use http::{HeaderValue, Method, Response, StatusCode, Version};
use hyper::body::Incoming;
use rcgen::{CertificateParams, KeyPair};
use taper_capability::RootKey;
use taper_dpop::{Algorithm, PrivateKey};
use taper_service::edge::{Bound, CallerCertificate, EdgeLimits, Tls};
use taper_service::rng;
use taper_service::secret::write_private_file;
use taper_service::shutdown::Shutdown;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tower::service_fn;

use super::accounts::{page, sum};
use super::support::{Answer, NOW, Setup, World, config, json, usual};
use crate::body::{Body, full};

const LOG: &str = r#"{"repo_path":"acme/web"}"#;
const RESULT: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"x":1.50}}"#;
const ERROR: &str = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32001,"message":"m"},"y":1.0}"#;
const SECRET: &str = "Traceback: hunter2";

fn answer(status: u16, kind: &'static str, body: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    let headers = response.headers_mut();
    if !kind.is_empty() {
        headers.insert("content-type", HeaderValue::from_static(kind));
    }
    for name in ["server", "x-powered-by", "mcp-internal", "set-cookie", "x-trace"] {
        headers.insert(name, HeaderValue::from_static("hunter2"));
    }
    response
}

/// Nothing of the upstream but its status; the error is the proxy's own.
fn is_own(answer: &Answer, status: u16) -> bool {
    answer.status.as_u16() == status
        && answer.json()["error"]["code"] == -32603
        && answer.json()["id"] == 1
        && !String::from_utf8_lossy(&answer.body).contains("hunter2")
}

#[tokio::test]
async fn only_the_protocols_kinds_of_answer_pass() {
    const JSON: &str = "application/json";
    const PAGE: &str = "text/html; charset=utf-8";
    let world = World::start(usual()).await;
    let ask = async |status: u16, kind: &'static str, body: &str| {
        let body = body.to_owned();
        world
            .upstream
            .answers(move |_| answer(status, kind, body.clone()));
        let answer = world.call("git_log", LOG).send().await;
        for value in answer.headers.values() {
            assert_ne!(value, "hunter2", "{status} {kind}");
        }
        answer
    };
    let passes = async |status: u16, kind: &'static str, body: &str, told: (&str, &str)| {
        let got = ask(status, kind, body).await;
        assert_eq!(got.status.as_u16(), status, "{kind}");
        assert_eq!(
            (got.header("content-type"), &got.body[..]),
            (told.0, told.1.as_bytes()),
            "{status} {kind}"
        );
    };
    passes(200, JSON, RESULT, (JSON, RESULT)).await;
    passes(
        200,
        "Application/JSON; charset=UTF-8",
        RESULT,
        ("Application/JSON; charset=UTF-8", RESULT),
    )
    .await;
    passes(
        200,
        "text/event-stream",
        ": c\n\n",
        ("text/event-stream", ": c\n\n"),
    )
    .await;
    passes(200, "", "", ("", "")).await;
    passes(200, "text/plain", "", ("", "")).await;
    passes(202, "", "", ("", "")).await;
    passes(202, "text/plain", SECRET, ("", "")).await;
    passes(202, JSON, RESULT, ("", "")).await;
    passes(204, "", "", ("", "")).await;
    for status in [400, 403, 404, 500, 503] {
        passes(status, JSON, ERROR, (JSON, ERROR)).await;
    }
    passes(404, "", ERROR, (JSON, ERROR)).await;

    let page = format!("<html>{SECRET}</html>");
    let refused = async |status: u16, kind: &'static str, body: &str, expected: u16| {
        let got = ask(status, kind, body).await;
        assert!(is_own(&got, expected), "{status} {kind}: {got:?}");
        got
    };
    refused(200, PAGE, &page, 502).await;
    refused(200, "", &page, 502).await;
    refused(200, "application/json; charset=utf-16", RESULT, 502).await;
    refused(200, "text/event-stream; charset=utf-7", ": c\n\n", 502).await;
    refused(200, "application/octet-stream", RESULT, 502).await;
    refused(206, JSON, RESULT, 502).await;
    refused(299, JSON, RESULT, 502).await;
    refused(300, JSON, RESULT, 502).await;
    refused(404, PAGE, &page, 404).await;
    refused(404, PAGE, ERROR, 404).await;
    refused(404, JSON, r#"{"error":"hunter2"}"#, 404).await;
    let both = r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"hunter2"},"result":{"tools":[]}}"#;
    refused(400, JSON, both, 400).await;
    assert_eq!(refused(405, PAGE, &page, 405).await.header("allow"), "POST");
    assert_ne!(refused(429, PAGE, &page, 429).await.header("retry-after"), "");
    refused(418, PAGE, &page, 502).await;
    refused(431, PAGE, &page, 502).await;
    refused(500, PAGE, &page, 502).await;
    refused(503, "", "", 502).await;
    let large = ERROR.replace("\"m\"", &format!("\"hunter2{}\"", " ".repeat(64 * 1024)));
    refused(500, JSON, &large, 502).await;
    refused(400, JSON, &large, 400).await;
    refused(600, JSON, ERROR, 502).await;
    world.end().await;
}

#[tokio::test]
async fn a_session_that_the_upstream_forgot_is_unknown() {
    let world = World::start(usual()).await;
    world.upstream.answers(|_| {
        let mut response = json(RESULT);
        response
            .headers_mut()
            .insert("mcp-session-id", HeaderValue::from_static("s"));
        response
    });
    let token = world.issue(&world.grant());
    let initialize =
        r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
    let opened = world.ask(initialize).token(token.as_str()).send().await;
    assert_eq!(opened.header("mcp-session-id"), "s");
    let ping = || {
        let ping = world.ask(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
        ping.token(token.as_str()).header("mcp-session-id", "s")
    };
    assert_eq!(ping().send().await.status.as_u16(), 200);
    world.upstream.answers(|_| answer(404, "text/html", SECRET));
    assert!(is_own(&ping().send().await, 404), "clients open another on it");
    let seen = world.upstream.seen().len();
    assert_eq!(ping().send().await.status.as_u16(), 404);
    assert_eq!(world.upstream.seen().len(), seen, "it is forgotten here too");

    // An end is an end, whatever is said of it.
    world.upstream.answers(|_| {
        let mut response = json(RESULT);
        response
            .headers_mut()
            .insert("mcp-session-id", HeaderValue::from_static("s"));
        response
    });
    world.ask(initialize).token(token.as_str()).send().await;
    world.upstream.answers(|_| answer(200, "text/plain", "OK"));
    let delete = world.ask("").token(token.as_str()).method(Method::DELETE);
    let ended = delete.header("mcp-session-id", "s").send().await;
    assert_eq!((ended.status.as_u16(), &ended.body[..]), (200, &b""[..]));
    world.end().await;
}

/// An upstream that answers each request with these very bytes and closes the connection.
async fn raw(shutdown: &Shutdown) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let bytes = Arc::<Mutex<Vec<u8>>>::default();
    let (script, stop) = (Arc::clone(&bytes), shutdown.clone());
    shutdown.spawn("raw-upstream", async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let (mut stream, _) = accepted.unwrap();
            let mut request = Vec::new();
            // The calls of these tests end so.
            while !request.ends_with(b"}}}") {
                if stream.read_buf(&mut request).await.unwrap() == 0 {
                    break;
                }
            }
            let answer = script.lock().unwrap().clone();
            stream.write_all(&answer).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (addr, bytes)
}

#[tokio::test]
async fn what_is_not_a_plain_answer_is_none() {
    let shutdown = Shutdown::new();
    let (addr, bytes) = raw(&shutdown).await;
    let world = World::start(Setup {
        upstream: Some(format!("{{ http = 'http://{addr}/mcp' }}")),
        ..usual()
    })
    .await;
    let ask = async |answer: String| {
        *bytes.lock().unwrap() = answer.into_bytes();
        world.call("git_log", LOG).send().await
    };
    let length = RESULT.len();
    let whole =
        |more: &str| format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{more}\r\n{RESULT}");
    let plain = whole(&format!("content-length: {length}\r\n"));
    // Without a length the end of the connection is the end of the body, whatever was done to it.
    let answer = ask(whole("transfer-encoding: gzip, identity\r\n")).await;
    assert!(is_own(&answer, 502), "{answer:?}");
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
    let answer = ask(interim.repeat(10) + &plain).await;
    assert_eq!(&answer.body[..], RESULT.as_bytes());
    assert!(answer.header("link").is_empty(), "{answer:?}");
    let answer = ask(interim.repeat(1_000)).await;
    assert!(is_own(&answer, 502), "{answer:?}");
    shutdown.trigger();
    world.end().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_has_no_clean_end() {
    let shutdown = Shutdown::new();
    let (addr, bytes) = raw(&shutdown).await;
    let world = World::start(Setup {
        upstream: Some(format!("{{ http = 'http://{addr}/mcp' }}")),
        ..usual()
    })
    .await;
    let ask = async |answer: &str| {
        *bytes.lock().unwrap() = answer.as_bytes().to_vec();
        world.whole(world.call("git_log", LOG).request()).await
    };
    let json = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let events = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
    let whole = |body: &str| Some(bytes::Bytes::from(body.to_owned()));
    assert_eq!(
        ask(&format!("{json}content-length: 2\r\n\r\n{{}}")).await,
        whole("{}")
    );
    let long = |length: usize| format!("{json}content-length: {length}\r\n\r\n{{}}");
    assert_eq!(ask(&long(1 << 20)).await, None);
    let chunked = format!("{json}transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n");
    assert_eq!(ask(&format!("{chunked}0\r\n\r\n")).await, whole("{}"));
    assert_eq!(ask(&chunked).await, None);
    assert_eq!(
        ask(&format!("{json}transfer-encoding: chunked\r\n\r\n5\r\n{{}}")).await,
        None
    );
    let event = format!("{events}transfer-encoding: chunked\r\n\r\n5\r\n: c\n\n\r\n");
    assert_eq!(ask(&format!("{event}0\r\n\r\n")).await, whole(": c\n\n"));
    assert_eq!(ask(&event).await, None);
    // A short answer and a list are read whole: here it is the proxy that notices.
    *bytes.lock().unwrap() = long(3).into_bytes();
    let short = world.call("git_log", LOG).send().await;
    assert_eq!(
        (short.status.as_u16(), &short.json()["error"]["data"]["rule"]),
        (502, &"M-30".into())
    );
    let list = world.ask(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"a":{"b":{}}}}"#);
    assert_eq!(list.send().await.status.as_u16(), 502);
    shutdown.trigger();
    world.end().await;
}

#[tokio::test]
async fn what_stands_around_an_answer_stays_here() {
    let shutdown = Shutdown::new();
    let (addr, bytes) = raw(&shutdown).await;
    let world = World::start(Setup {
        upstream: Some(format!("{{ http = 'http://{addr}/mcp' }}")),
        ..usual()
    })
    .await;
    let ask = async |answer: &str| {
        *bytes.lock().unwrap() = answer.as_bytes().to_vec();
        world.call("git_log", LOG).send().await
    };
    let fields = "content-type: application/json\r\n";
    let early = "HTTP/1.1 103 Early Hints\r\nlink: <hunter2>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
    let got = ask(&format!(
        "{early}HTTP/1.1 200 OK\r\n{fields}content-length: 2\r\n\r\n{{}}"
    ))
    .await;
    assert_eq!((got.status.as_u16(), &got.body[..]), (200, &b"{}"[..]));
    assert_eq!(got.header("link"), "");
    let trailed = format!(
        "HTTP/1.1 200 OK\r\n{fields}trailer: x-t\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\nx-t: hunter2\r\n\r\n"
    );
    *bytes.lock().unwrap() = trailed.into_bytes();
    let mut request = world.call("git_log", LOG).request();
    request
        .headers_mut()
        .insert("te", HeaderValue::from_static("trailers"));
    let response = world.open(request).await;
    assert!(!response.headers().contains_key("trailer"));
    let collected = http_body_util::BodyExt::collect(response.into_body())
        .await
        .unwrap();
    assert!(collected.trailers().is_none());
    assert_eq!(collected.to_bytes(), "{}");
    let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
    assert!(is_own(&ask(switch).await, 502));
    for broken in ["hunter2\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-le", ""] {
        assert!(is_own(&ask(broken).await, 502), "{broken}");
    }
    shutdown.trigger();
    world.end().await;
}

/// Certificate and key of `host`, and the authority in PEM, in `folder`.
fn certify(folder: &Path, host: &str, ended: bool) {
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = rcgen::CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new([host.to_owned()]).unwrap();
    if ended {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    std::fs::write(folder.join("up.pem"), certificate.pem()).unwrap();
    write_private_file(&folder.join("up-key.pem"), key.serialize_pem().as_bytes()).unwrap();
}

#[tokio::test]
async fn an_upstream_over_tls_shows_a_certificate_of_its_authority() {
    let check = async |host: &str, ended: bool, trust: &str, expected: u16| {
        let folder = tempfile::tempdir().unwrap();
        certify(folder.path(), host, ended);
        let pair = taper_service::config::parse("certificate = 'up.pem'\nkey = 'up-key.pem'", "x").unwrap();
        let when_it_was_valid = if ended { 1_500_000_000 } else { NOW };
        let tls = Tls::load(&pair, folder.path(), when_it_was_valid).unwrap();
        if trust == "another" {
            certify(folder.path(), host, ended);
        }
        let shutdown = Shutdown::new();
        let bound = Bound::bind("127.0.0.1:0".parse().unwrap(), EdgeLimits::default())
            .await
            .unwrap();
        let addr = bound.local_addr();
        let versions = Arc::<Mutex<Vec<Version>>>::default();
        let seen = Arc::clone(&versions);
        let service = service_fn(move |request: http::Request<Incoming>| {
            seen.lock().unwrap().push(request.version());
            std::future::ready(Ok::<_, std::convert::Infallible>(json(RESULT)))
        });
        shutdown.spawn(
            "upstream",
            bound.over(Some(&tls)).serve(service, shutdown.clone()),
        );
        let ca_file = if trust == "public" {
            ""
        } else {
            ", ca_file = 'ca.pem'"
        };
        let setup = Setup {
            upstream: Some(format!("{{ http = 'https://{addr}/mcp'{ca_file} }}")),
            ..usual()
        };
        let root = RootKey::generate(7, &mut rng::os());
        let holder = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
        let world = World::start_in(setup, folder, root, holder).await;
        let got = world.call("git_log", LOG).send().await;
        assert_eq!(got.status.as_u16(), expected, "{host} {ended} {trust}: {got:?}");
        let calls = usize::from(expected == 200);
        assert_eq!(
            *versions.lock().unwrap(),
            vec![Version::HTTP_11; calls],
            "{host} {ended} {trust}"
        );
        assert!(expected == 200 || is_own(&got, 502));
        shutdown.trigger();
        world.end().await;
    };
    check("127.0.0.1", false, "own", 200).await;
    check("127.0.0.1", false, "public", 502).await;
    check("127.0.0.1", false, "another", 502).await;
    check("other.test", false, "own", 502).await;
    check("127.0.0.1", true, "own", 502).await;
}

#[tokio::test]
async fn an_upstream_that_asks_for_a_certificate_is_shown_the_proxys() {
    let check = async |shown: &str, status: u16| {
        let folder = tempfile::tempdir().unwrap();
        certify(folder.path(), "127.0.0.1", false);
        let pair = "certificate = 'up.pem'\nkey = 'up-key.pem'\nclient_ca = 'ca.pem'";
        let pair = taper_service::config::parse(pair, "x").unwrap();
        let tls = Tls::load(&pair, folder.path(), NOW).unwrap();
        let shutdown = Shutdown::new();
        let bound = Bound::bind("127.0.0.1:0".parse().unwrap(), EdgeLimits::default())
            .await
            .unwrap();
        let addr = bound.local_addr();
        let service = service_fn(|request: http::Request<Incoming>| {
            let certificate = request.extensions().get::<CallerCertificate>();
            assert_eq!(certificate.unwrap().to_string().len(), 64);
            std::future::ready(Ok::<_, std::convert::Infallible>(json(RESULT)))
        });
        shutdown.spawn(
            "upstream",
            bound.over(Some(&tls)).serve(service, shutdown.clone()),
        );
        let setup = Setup {
            upstream: Some(format!(
                "{{ http = 'https://{addr}/mcp', ca_file = 'ca.pem'{shown} }}"
            )),
            ..usual()
        };
        let root = RootKey::generate(7, &mut rng::os());
        let holder = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
        let world = World::start_in(setup, folder, root, holder).await;
        for _ in 0..2 {
            let got = world.call("git_log", LOG).send().await;
            assert_eq!(got.status.as_u16(), status, "{shown}: {got:?}");
        }
        let page = page(&world);
        let shown_one = page.contains("taper_proxy_upstream_certificate_end_seconds{server=\"git\"}");
        assert_eq!(shown_one, !shown.is_empty(), "{page}");
        assert!(sum(&page, "taper_proxy_upstream_certificate_end_seconds", "") > NOW as u64 || !shown_one);
        shutdown.trigger();
        world.end().await;
    };
    check(", tls = { certificate = 'up.pem', key = 'up-key.pem' }", 200).await;
    check("", 502).await;
}

#[tokio::test]
async fn an_upstreams_own_headers_are_the_proxys() {
    let shutdown = Shutdown::new();
    let bound = Bound::bind("127.0.0.1:0".parse().unwrap(), EdgeLimits::default())
        .await
        .unwrap();
    let addr = bound.local_addr();
    let seen = Arc::<Mutex<Vec<http::HeaderMap>>>::default();
    let heads = Arc::clone(&seen);
    let service = service_fn(move |request: http::Request<Incoming>| {
        heads.lock().unwrap().push(request.headers().clone());
        std::future::ready(Ok::<_, std::convert::Infallible>(json(RESULT)))
    });
    shutdown.spawn("upstream", bound.serve(service, shutdown.clone()));
    let world = World::start(Setup {
        upstream: Some(format!(
            "{{ http = 'http://{addr}/mcp', forward_headers = ['x-key', 'x_key', 'x-tenant'], headers = {{ \
             authorization = {{ file = 'secret', prefix = 'Bearer ' }}, x-key = {{ file = 'secret' }} }} }}"
        )),
        ..usual()
    })
    .await;
    let mut ask = world
        .call("git_log", LOG)
        .header("x-tenant", "t")
        .header("proxy-authorization", "evil");
    ask.headers.push(("x-key", "evil".into()));
    ask.headers.push(("x-key", "evil-too".into()));
    ask.headers.push(("x_key", "evil".into()));
    assert_eq!(ask.send().await.status.as_u16(), 200);
    let head = seen.lock().unwrap().pop().unwrap();
    let all = |name: &str| {
        head.get_all(name)
            .iter()
            .map(|v| v.to_str().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(all("authorization"), ["Bearer hunter2"]);
    assert_eq!(all("x-key"), ["hunter2"]);
    assert!(all("x_key").is_empty(), "a server may read it as the same");
    assert_eq!(all("x-tenant"), ["t"]);
    assert!(all("proxy-authorization").is_empty() && all("dpop").is_empty());
    assert_eq!(all("host"), [addr.to_string()]);
    shutdown.trigger();
    world.end().await;
}

#[test]
fn an_upstream_is_checked_before_the_start() {
    let folder = tempfile::tempdir().unwrap();
    certify(folder.path(), "127.0.0.1", false);
    let root = RootKey::generate(1, &mut rng::os());
    let check = |secret: &[u8], upstream: &str, expected: Option<&str>| {
        let setup = Setup {
            upstream: Some(upstream.into()),
            ..usual()
        };
        let config = config(&setup, &root, "127.0.0.1:1".parse().unwrap(), folder.path());
        write_private_file(&folder.path().join("secret"), secret).unwrap();
        let clock = taper_service::clock::ManualClock::shared(NOW) as taper_service::clock::SharedClock;
        let checked = crate::Proxy::check(&config, folder.path(), &clock).map_err(|e| e.to_string());
        match (checked, expected) {
            (Ok(()), None) => {}
            (Err(message), Some(part)) => {
                assert!(message.contains(part), "{message}");
                assert!(!message.contains("hunter2"), "{message}");
            }
            (checked, _) => panic!("{upstream}: {checked:?}"),
        }
    };
    let header =
        "{ http = 'http://a.test/', headers = { authorization = { file = 'secret', prefix = 'Bearer ' } } }";
    check(b"hunter2", header, None);
    check(b"hunter2\n", header, None);
    check(b"hunter2\nx: y", header, Some("`authorization` is not one"));
    check(b"hunter2\n\n", header, Some("`authorization` is not one"));
    check(b"\n", header, Some("is empty"));
    let host = "{ http = 'http://a.test/', headers = { host = { file = 'secret' } } }";
    check(b"hunter2", host, Some("`host` cannot be forwarded"));
    check(b"", "{ http = 'https://a.test/', ca_file = 'ca.pem' }", None);
    check(
        b"",
        "{ http = 'http://a.test/', ca_file = 'ca.pem' }",
        Some("https url"),
    );
    check(
        b"",
        "{ http = 'https://a.test/', ca_file = 'absent' }",
        Some("absent"),
    );
    check(
        b"",
        "{ http = 'https://a.test/', ca_file = 'up-key.pem' }",
        Some("no certificate in PEM"),
    );
}

#[tokio::test]
async fn a_handshake_that_stalls_is_given_up_like_a_connection() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::start(Setup {
        upstream: Some(format!(
            "{{ http = 'https://{}/mcp' }}",
            silent.local_addr().unwrap()
        )),
        server: "limits.connect_timeout = '1s'",
        ..usual()
    })
    .await;
    let patience = std::time::Duration::from_secs(20);
    let answer = tokio::time::timeout(patience, world.call("git_log", LOG).send()).await;
    assert!(is_own(&answer.unwrap(), 502));
    world.end().await;
}
