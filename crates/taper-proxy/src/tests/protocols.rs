//! The same requests over HTTP/1.1 and HTTP/2, in clear text and over TLS, get the same answers.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Uri, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use taper_capability::RootKey;
use taper_dpop::{Algorithm, PrivateKey};
use taper_service::clock::{ManualClock, SharedClock};
use taper_service::rng;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::support::{Answer, Ask, NOW, Setup, World, config, tool_call, usual};
use crate::Proxy;

const LOG: &str = r#"{"repo_path":"acme/web"}"#;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Http {
    One,
    Two,
}

/// A proxy, and the certificate when it speaks TLS.
struct Edge {
    world: World,
    certificate: Option<CertificateDer<'static>>,
}

impl Edge {
    async fn start(tls: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(["proxy.test".to_owned()]).unwrap();
        std::fs::write(folder.path().join("cert.pem"), pair.cert.pem()).unwrap();
        let key = pair.signing_key.serialize_pem();
        taper_service::secret::write_private_file(&folder.path().join("key.pem"), key.as_bytes()).unwrap();
        let setup = Setup {
            top: if tls {
                "tls = { certificate = 'cert.pem', key = 'key.pem' }"
            } else {
                ""
            },
            ..usual()
        };
        let root = RootKey::generate(7, &mut rng::os());
        let holder = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
        Self {
            world: World::start_in(setup, folder, root, holder).await,
            certificate: tls.then(|| pair.cert.der().clone()),
        }
    }

    /// Sends a request on a connection of its own; `None` when there is no answer.
    async fn send(&self, http: Http, request: Request<Full<Bytes>>) -> Option<Answer> {
        let stream = TcpStream::connect(self.world.addr).await.unwrap();
        let Some(certificate) = &self.certificate else {
            return self.speak(http, stream, request).await;
        };
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = match http {
            Http::One => vec![b"http/1.1".to_vec()],
            Http::Two => vec![b"h2".to_vec()],
        };
        let name = ServerName::try_from("proxy.test").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        self.speak(http, stream.unwrap(), request).await
    }

    async fn speak<IO>(&self, http: Http, stream: IO, request: Request<Full<Bytes>>) -> Option<Answer>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        let sent = match http {
            Http::One => {
                let (mut sender, connection) = http1::handshake(io).await.unwrap();
                self.world.shutdown.spawn("client", async move {
                    let _ = connection.await;
                });
                sender.send_request(request).await
            }
            Http::Two => {
                let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
                self.world.shutdown.spawn("client", async move {
                    let _ = connection.await;
                });
                sender.send_request(request).await
            }
        };
        let (parts, body) = sent.ok()?.into_parts();
        Some(Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.ok()?.to_bytes(),
        })
    }
}

/// The request as `http` writes it: HTTP/1.1 with `Host`, HTTP/2 with `:authority`.
fn written(http: Http, ask: &Ask<'_>) -> Request<Full<Bytes>> {
    let mut request = ask.request();
    let path = request.uri().path_and_query().unwrap().clone();
    let host = request.headers().get(header::HOST).cloned();
    *request.uri_mut() = match (http, host) {
        (Http::Two, Some(host)) => {
            request.headers_mut().remove(header::HOST);
            let authority = host.to_str().unwrap();
            Uri::builder()
                .scheme("https")
                .authority(authority)
                .path_and_query(path)
                .build()
                .unwrap()
        }
        _ => path.into(),
    };
    request
}

/// What does not depend on the time or the connection.
fn told(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let mut headers: Vec<(String, String)> = of_interest(&answer.headers).collect();
    headers.sort();
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    let body = match answer.json()["error"]["data"]["decision_id"].as_str() {
        Some(id) => body.replace(id, "…"),
        None => body,
    };
    (answer.status.as_u16(), headers, body)
}

fn of_interest(headers: &HeaderMap) -> impl Iterator<Item = (String, String)> {
    let ignored = [
        "date",
        "connection",
        "transfer-encoding",
        "content-length",
        "dpop-nonce",
    ];
    headers
        .iter()
        .filter(move |(name, _)| !ignored.contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
}

#[tokio::test]
async fn every_protocol_gets_the_same_answers() {
    type Change = for<'a> fn(Ask<'a>) -> Ask<'a>;
    let cases: [(&str, u16, Change); 15] = [
        ("honest", 200, |ask| ask),
        ("replayed body", 401, |mut ask| {
            ask.sent_body = Some(tool_call("git_log", r#"{"repo_path":"acme/payroll"}"#));
            ask
        }),
        ("bearer", 401, |mut ask| {
            ask.scheme = "Bearer";
            ask
        }),
        ("no proof", 401, |mut ask| {
            ask.proof = false;
            ask
        }),
        ("other scheme", 401, |mut ask| {
            ask.scheme = "Basic";
            ask
        }),
        ("query", 400, |ask| ask.path("/git/mcp?x=1")),
        ("path", 404, |ask| ask.path("/git/mcp/")),
        ("other host", 421, |ask| ask.header("host", "evil.test")),
        ("user in the host", 421, |ask| ask.header("host", "a@proxy.test")),
        ("other origin", 403, |ask| {
            ask.header("origin", "https://evil.test")
        }),
        ("encoded", 400, |ask| ask.header("content-encoding", "gzip")),
        ("not json", 415, |ask| ask.header("content-type", "text/plain")),
        ("other method in a header", 400, |ask| {
            ask.header("mcp-method", "ping")
        }),
        ("no such right", 403, |mut ask| {
            ask.body = tool_call("git_rm", "{}");
            ask
        }),
        ("no such method", 405, |ask| ask.method(http::Method::OPTIONS)),
    ];
    let (clear, secure) = (Edge::start(false).await, Edge::start(true).await);
    for (name, status, change) in cases {
        let mut first = None;
        for (edge, http) in [
            (&clear, Http::One),
            (&clear, Http::Two),
            (&secure, Http::One),
            (&secure, Http::Two),
        ] {
            let before = edge.world.upstream.seen().len();
            let ask = change(edge.world.call("git_log", LOG));
            let answer = edge.send(http, written(http, &ask)).await;
            let answer = told(&answer.unwrap_or_else(|| panic!("{name}: no answer")));
            assert_eq!(answer.0, status, "{name}, {http:?}: {answer:?}");
            let reached = edge.world.upstream.seen().len() - before;
            assert_eq!(reached, usize::from(status == 200), "{name}, {http:?}");
            let first = first.get_or_insert_with(|| answer.clone());
            assert_eq!(*first, answer, "{name}, {http:?}");
        }
    }
    let seen = |edge: &Edge| {
        let seen = edge.world.upstream.seen();
        seen.iter().map(|seen| seen.body.clone()).collect::<Vec<_>>()
    };
    assert_eq!(seen(&clear), vec![Bytes::from(tool_call("git_log", LOG)); 2]);
    assert_eq!(seen(&secure), seen(&clear));
    clear.world.end().await;
    secure.world.end().await;
}

#[tokio::test]
async fn a_host_said_twice_is_the_same_host() {
    let edge = Edge::start(true).await;
    let twice = |http: Http, host: &str| {
        let mut request = written(Http::Two, &edge.world.call("git_log", LOG));
        request.headers_mut().insert(header::HOST, host.parse().unwrap());
        (http, request)
    };
    for http in [Http::One, Http::Two] {
        for (host, status) in [
            ("proxy.test", 200),
            ("PROXY.test", 200),
            ("evil.test", 421),
            ("", 421),
        ] {
            let (http, request) = twice(http, host);
            let answer = edge.send(http, request).await.unwrap();
            assert_eq!(answer.status.as_u16(), status, "{http:?} {host}");
        }
    }
    let mut request = written(Http::Two, &edge.world.call("git_log", LOG));
    request
        .headers_mut()
        .append(header::HOST, "proxy.test".parse().unwrap());
    request
        .headers_mut()
        .append(header::HOST, "proxy.test".parse().unwrap());
    assert_eq!(edge.send(Http::Two, request).await.unwrap().status.as_u16(), 421);
    edge.world.end().await;
}

#[test]
fn a_certificate_is_checked_before_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let root = RootKey::generate(7, &mut rng::os());
    let write = |name: &str, text: &str| {
        taper_service::secret::write_private_file(&folder.path().join(name), text.as_bytes()).unwrap();
    };
    let pair = || rcgen::generate_simple_self_signed(["proxy.test".to_owned()]).unwrap();
    let (first, second) = (pair(), pair());
    write("cert.pem", &first.cert.pem());
    write("key.pem", &first.signing_key.serialize_pem());
    write("other.pem", &second.signing_key.serialize_pem());
    let check = |tls: &'static str, public_url: &str, expected: &str| {
        let setup = Setup { top: tls, ..usual() };
        let mut config = config(&setup, &root, "127.0.0.1:1".parse().unwrap(), folder.path());
        config.public_url = public_url.to_owned();
        let checked = Proxy::check(&config, folder.path(), &(ManualClock::shared(NOW) as SharedClock));
        let message = checked.map_or_else(|error| error.to_string(), |()| "ok".to_owned());
        assert!(message.contains(expected), "{tls}: {message}");
    };
    let fits = "tls = { certificate = 'cert.pem', key = { file = 'key.pem' }, reload = '10s', admin = true }";
    check(fits, "https://proxy.test", "ok");
    check(fits, "https://other.test", "ok");
    check(fits, "http://127.0.0.1:1", "with `tls` it is an https url");
    let another = "tls = { certificate = 'cert.pem', key = 'other.pem' }";
    check(another, "https://proxy.test", "`tls`: the key does not belong");
    check(
        "tls = { certificate = 'cert.pem', key = 'absent' }",
        "https://proxy.test",
        "absent",
    );
    let outbound = |path: &str, expected: &str| {
        let mut config = config(&usual(), &root, "127.0.0.1:1".parse().unwrap(), folder.path());
        config.outbound.ca_files = vec![path.into()];
        let checked = Proxy::check(&config, folder.path(), &(ManualClock::shared(NOW) as SharedClock));
        let message = checked.map_or_else(|error| error.to_string(), |()| "ok".to_owned());
        assert!(message.contains(expected), "{message}");
    };
    outbound("cert.pem", "ok");
    outbound("absent.pem", "absent.pem");
}

#[tokio::test]
async fn a_refusal_over_http2_arrives_before_the_body() {
    let edge = Edge::start(false).await;
    for strip in [header::AUTHORIZATION, header::CONTENT_TYPE] {
        let mut request = written(Http::Two, &edge.world.call("git_log", LOG));
        request.headers_mut().remove(&strip);
        let expected = if strip == header::AUTHORIZATION { 401 } else { 415 };
        let body = stream::pending::<Result<Frame<Bytes>, Infallible>>();
        let request = request.map(|_| StreamBody::new(body));
        let io = TokioIo::new(TcpStream::connect(edge.world.addr).await.unwrap());
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        edge.world.shutdown.spawn("client", async move {
            let _ = connection.await;
        });
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), expected, "without {strip}");
        let answer = response.into_body().collect().await;
        assert!(answer.is_ok(), "without {strip}: {answer:?}");
    }
    edge.world.end().await;
}
