use std::fs;
use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::clock::ManualClock;
use crate::edge::certificate::read_chain;
use crate::edge::{Bound, EdgeLimits, Listeners};
use crate::metrics::Registry;
use crate::secret::write_private_file;

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 24 * 3600;
const SHORT: Duration = Duration::from_millis(60);
/// Far beyond what a passing test takes.
const PATIENCE: Duration = Duration::from_secs(20);

async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.unwrap()
}

/// An authority, and a folder with what it issued.
struct World {
    authority: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let this = Self {
            authority,
            folder: tempfile::tempdir().unwrap(),
        };
        this.issue("localhost", NOW - DAY, NOW + 90 * DAY);
        this
    }

    /// A pair as PEM, valid from and until.
    fn pair(&self, host: &str, from: i64, until: i64) -> (String, String) {
        let time = |unix| time::OffsetDateTime::from_unix_timestamp(unix).unwrap();
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (time(from), time(until));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        (
            format!("{}{}", certificate.pem(), self.authority.pem()),
            key.serialize_pem(),
        )
    }

    /// Writes a new pair into the folder.
    fn issue(&self, host: &str, from: i64, until: i64) {
        let (certificate, key) = self.pair(host, from, until);
        self.write("cert.pem", &certificate);
        self.write("key.pem", &key);
    }

    fn write(&self, name: &str, text: &str) {
        write_private_file(&self.folder.path().join(name), text.as_bytes()).unwrap();
    }

    fn config(&self) -> TlsConfig {
        crate::config::parse("certificate = 'cert.pem'\nkey = 'key.pem'", "x").unwrap()
    }

    fn load(&self) -> Result<Tls, TlsError> {
        Tls::load(&self.config(), self.folder.path(), NOW)
    }

    async fn serve(&self, tls: &Tls, limits: EdgeLimits) -> (SocketAddr, Shutdown) {
        let bound = Bound::bind("127.0.0.1:0".parse().unwrap(), limits).await.unwrap();
        let (addr, shutdown) = (bound.local_addr(), Shutdown::new());
        let router = Router::new().route("/", get(|| async { "hello" }));
        shutdown.spawn("edge", bound.over(Some(tls)).serve(router, shutdown.clone()));
        (addr, shutdown)
    }

    /// A handshake of a client that trusts the authority, on 2027-01-15.
    async fn connect(
        &self,
        addr: SocketAddr,
        version: &'static rustls::SupportedProtocolVersion,
        protocols: &[&[u8]],
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(Then))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let stream = TcpStream::connect(addr).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        in_time(TlsConnector::from(Arc::new(config)).connect(name, stream)).await
    }
}

#[derive(Debug)]
struct Then;

impl rustls::time_provider::TimeProvider for Then {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(NOW as u64)))
    }
}

async fn end(shutdown: &Shutdown) {
    shutdown.trigger();
    assert_eq!(shutdown.drain(PATIENCE).await, Ok(()));
}

#[test]
fn pairs_are_checked_before_they_are_used() {
    let world = World::new();
    world.load().unwrap();
    let check = |expected: &str, change: &dyn Fn()| {
        world.issue("localhost", NOW - DAY, NOW + DAY);
        world.load().unwrap();
        change();
        let message = world.load().unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    };
    check("does not belong to the first certificate", &|| {
        let (_, other) = world.pair("localhost", NOW - DAY, NOW + DAY);
        world.write("key.pem", &other);
    });
    check("valid until 2027-01-15T07:59:59Z only", &|| {
        world.issue("localhost", NOW - DAY, NOW - 1);
    });
    check("not valid before 2027-01-15T08:00:01Z", &|| {
        world.issue("localhost", NOW + 1, NOW + DAY);
    });
    check("no certificate in PEM", &|| world.write("cert.pem", "hunter2"));
    check("no certificate in PEM", &|| {
        let key = fs::read_to_string(world.folder.path().join("key.pem")).unwrap();
        world.write("cert.pem", &key);
    });
    check("not PEM throughout", &|| {
        world.write("cert.pem", "-----BEGIN CERTIFICATE-----\nhunter2");
    });
    check("not a certificate", &|| {
        world.write(
            "cert.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        );
    });
    check("no private key in PEM", &|| world.write("key.pem", "hunter2"));
    check("no private key in PEM", &|| {
        world.write("key.pem", "-----BEGIN PRIVATE KEY-----\nhunter2");
    });
    check("damaged or of a kind", &|| {
        world.write(
            "key.pem",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        );
    });
    check("cert.pem`", &|| {
        fs::remove_file(world.folder.path().join("cert.pem")).unwrap()
    });
    check("is empty", &|| world.write("key.pem", ""));
    check("No such file", &|| {
        fs::remove_file(world.folder.path().join("key.pem")).unwrap();
    });
    #[cfg(unix)]
    check("open to other users", &|| {
        use std::os::unix::fs::PermissionsExt as _;
        let key = world.folder.path().join("key.pem");
        fs::set_permissions(key, fs::Permissions::from_mode(0o640)).unwrap();
    });
}

#[test]
fn the_last_second_counts_and_names_are_known() {
    let world = World::new();
    world.issue("localhost", NOW, NOW);
    let tls = world.load().unwrap();
    assert!(tls.names("localhost"));
    assert!(!tls.names("proxy.test") && !tls.names("127.0.0.1") && !tls.names(""));
    world.issue("127.0.0.1", NOW, NOW);
    assert!(world.load().unwrap().names("127.0.0.1"));
    assert!(!format!("{tls:?}").contains("PRIVATE"));
}

#[tokio::test]
async fn both_protocols_over_both_versions() {
    let world = World::new();
    let (addr, shutdown) = world.serve(&world.load().unwrap(), EdgeLimits::default()).await;
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        for protocols in [&[][..], &[HTTP1], &[HTTP1, b"h3"]] {
            let mut stream = world.connect(addr, version, protocols).await.unwrap();
            let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut answer = String::new();
            in_time(stream.read_to_string(&mut answer)).await.unwrap();
            assert!(answer.ends_with("hello"), "{protocols:?}: {answer}");
        }
        let stream = world.connect(addr, version, &[H2, HTTP1]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(H2));
        let http2 = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = http2.await.unwrap();
        let client = Shutdown::new();
        client.spawn("client", async move {
            let _ = connection.await;
        });
        let request = http::Request::get("https://localhost/").body(Empty::<bytes::Bytes>::new());
        let answer = in_time(sender.send_request(request.unwrap())).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hello");
        drop(sender);
        assert_eq!(client.drain(PATIENCE).await, Ok(()));
    }
    let other = world.connect(addr, &rustls::version::TLS13, &[b"h3"]).await;
    assert!(other.is_err(), "a protocol that is not spoken here");
    // HTTP/2 that ALPN did not choose.
    let mut stream = world
        .connect(addr, &rustls::version::TLS13, &[HTTP1])
        .await
        .unwrap();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = in_time(stream.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"\0"), "no frame: {answer:?}");
    end(&shutdown).await;
}

#[tokio::test]
async fn what_is_no_handshake_ends_alone() {
    let world = World::new();
    let limits = EdgeLimits {
        header_read_timeout: SHORT * 4,
        max_connections: 2,
        ..EdgeLimits::default()
    };
    let (addr, shutdown) = world.serve(&world.load().unwrap(), limits).await;
    // A record that says that 512 bytes come, and none of them.
    let record: &[u8] = b"\x16\x03\x01\x02\x00";
    for beginning in [
        &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0xff; 300],
        record,
        b"",
    ] {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(beginning).await.unwrap();
        let mut answer = Vec::new();
        let _ = in_time(stream.read_to_end(&mut answer)).await;
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
    // Two that say nothing have both places, for as long as a head may take.
    let held = [
        TcpStream::connect(addr).await.unwrap(),
        TcpStream::connect(addr).await.unwrap(),
    ];
    world.connect(addr, &rustls::version::TLS13, &[]).await.unwrap();
    drop(held);
    // Done with the handshake, and silent then.
    let mut silent = world.connect(addr, &rustls::version::TLS13, &[]).await.unwrap();
    let mut answer = Vec::new();
    let _ = in_time(silent.read_to_end(&mut answer)).await;
    assert_eq!(answer, b"");
    end(&shutdown).await;
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_handshakes() {
    let world = World::new();
    let (addr, shutdown) = world.serve(&world.load().unwrap(), EdgeLimits::default()).await;
    let mut half = TcpStream::connect(addr).await.unwrap();
    half.write_all(b"\x16").await.unwrap();
    // Whoever comes next was accepted after it.
    world.connect(addr, &rustls::version::TLS13, &[]).await.unwrap();
    end(&shutdown).await;
    assert!(TcpStream::connect(addr).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn a_changed_pair_is_taken_and_a_broken_one_is_not() {
    let world = World::new();
    let tls = world.load().unwrap();
    let (addr, shutdown) = world.serve(&tls, EdgeLimits::default()).await;
    let served = async || {
        let stream = world.connect(addr, &rustls::version::TLS13, &[]).await.unwrap();
        stream
            .get_ref()
            .1
            .peer_certificates()
            .unwrap()
            .first()
            .unwrap()
            .clone()
    };
    let written = || {
        read_chain(&world.folder.path().join("cert.pem"))
            .unwrap()
            .remove(0)
    };
    let first = written();
    assert_eq!(served().await, first);
    let known = tls.pair.look(tls.pair.known(), NOW);
    assert_eq!(served().await, first, "nothing has changed");

    // First the certificate, then the key: between them they do not fit.
    let (certificate, key) = world.pair("localhost", NOW - DAY, NOW + DAY);
    world.write("cert.pem", &certificate);
    let known = tls.pair.look(known, NOW);
    assert!(known.refused);
    assert_eq!(served().await, first, "the one before stays");
    world.write("key.pem", &key);
    let known = tls.pair.look(known, NOW);
    assert!(!known.refused);
    assert_ne!(served().await, first);
    assert_eq!(served().await, written());

    let second = written();
    fs::remove_file(world.folder.path().join("cert.pem")).unwrap();
    let known = tls.pair.look(known, NOW);
    assert!(known.refused);
    assert_eq!(served().await, second);

    world.issue("localhost", NOW - DAY, NOW - 1);
    let known = tls.pair.look(known, NOW);
    assert!(known.refused, "it has ended");
    assert_eq!(served().await, second);
    world.issue("localhost", NOW - DAY, NOW + 90 * DAY);
    let known = tls.pair.look(known, NOW);
    assert!(!known.refused);
    assert_eq!(served().await, written());
    end(&shutdown).await;
}

#[test]
fn the_end_of_a_certificate_is_spoken_of_once_a_day() {
    let world = World::new();
    world.issue("localhost", NOW - DAY, NOW + 20 * DAY);
    let tls = world.load().unwrap();
    assert_eq!(tls.ends(), Some(NOW + 20 * DAY));
    let known = tls.pair.look(tls.pair.known(), NOW);
    assert_eq!(known.notice_at, i64::MIN, "it lasts");
    let known = tls.pair.look(known, NOW + 7 * DAY);
    assert_eq!(known.notice_at, NOW + 8 * DAY);
    let known = tls.pair.look(known, NOW + 8 * DAY - 1);
    assert_eq!(known.notice_at, NOW + 8 * DAY);
    let known = tls.pair.look(known, NOW + 30 * DAY);
    assert_eq!(known.notice_at, NOW + 31 * DAY, "also when it has ended");
    world.issue("localhost", NOW - DAY, NOW + 90 * DAY);
    assert_eq!(tls.pair.look(known, NOW + 30 * DAY).notice_at, i64::MIN);
    assert_eq!(tls.ends(), Some(NOW + 90 * DAY));
}

#[tokio::test(start_paused = true)]
async fn following_looks_again_and_ends_with_the_daemon() {
    let world = World::new();
    let tls = world.load().unwrap();
    let shutdown = Shutdown::new();
    let follow = tls.clone().follow(ManualClock::shared(NOW), shutdown.clone());
    shutdown.spawn("tls", follow);
    world.issue("proxy.test", NOW - DAY, NOW + 90 * DAY);
    while !tls.names("proxy.test") {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    end(&shutdown).await;
}

#[tokio::test]
async fn callers_show_certificates_of_the_authorities() {
    let world = World::new();
    let (ours, stranger) = (World::new(), World::new());
    world.write("callers.pem", &ours.authority.pem());
    let load = |more: &str| {
        let text = format!("certificate = 'cert.pem'\nkey = 'key.pem'\n{more}");
        Tls::load(
            &crate::config::parse(&text, "x").unwrap(),
            world.folder.path(),
            NOW,
        )
    };
    let shown = |of: &World| {
        let (certificate, key) = of.pair("agent", 0, 4_000_000_000);
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
        let chain: Vec<_> = chain.map(Result::unwrap).collect();
        (chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
    };
    let ask = async |addr: SocketAddr, version, of: Option<&World>| -> Option<String> {
        let mut roots = RootCertStore::empty();
        roots.add(world.authority.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_details(provider, Arc::new(Then))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let config = match of.map(shown) {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        };
        let stream = TcpStream::connect(addr).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = in_time(TlsConnector::from(Arc::new(config)).connect(name, stream))
            .await
            .ok()?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .ok()?;
        let tasks = Shutdown::new();
        tasks.spawn("client", async {
            let _ = connection.await;
        });
        let request = http::Request::get("/").header("host", "localhost");
        let answer = in_time(sender.send_request(request.body(Empty::<bytes::Bytes>::new()).unwrap()))
            .await
            .ok()?;
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        Some(String::from_utf8(body.to_vec()).unwrap())
    };
    let mut registry = Registry::new();
    let listeners = Listeners::new(&mut registry, "x", &["callers"]);
    let refused = |reason: &str| {
        let start = format!("x_connections_refused_total{{listener=\"callers\",reason=\"{reason}\"}} ");
        let page = registry.render();
        let line = page.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap().parse::<u64>().unwrap()
    };
    let serve = async |tls: &Tls| {
        let bound = Bound::bind("127.0.0.1:0".parse().unwrap(), EdgeLimits::default())
            .await
            .unwrap()
            .counted(listeners.of(0));
        let (addr, shutdown) = (bound.local_addr(), Shutdown::new());
        let who = |request: http::Request<axum::body::Body>| {
            let shown = request.extensions().get::<crate::edge::CallerCertificate>();
            std::future::ready(shown.map_or("nobody".to_owned(), ToString::to_string))
        };
        let router = Router::new().route("/", get(who));
        shutdown.spawn("edge", bound.over(Some(tls)).serve(router, shutdown.clone()));
        (addr, shutdown)
    };
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let tls = load("client_ca = 'callers.pem'").unwrap();
        let (addr, shutdown) = serve(&tls).await;
        let before = refused("certificate");
        assert_eq!(ask(addr, version, None).await, None);
        assert_eq!(ask(addr, version, Some(&stranger)).await, None);
        assert_eq!((refused("certificate") - before, refused("handshake")), (2, 0));
        let thumbprint = ask(addr, version, Some(&ours)).await.unwrap();
        assert!(thumbprint.len() == 64 && thumbprint.bytes().all(|byte| byte.is_ascii_hexdigit()));

        // Other authorities count from now on, and a file that is none changes nothing.
        let callers = tls.callers.as_ref().unwrap();
        world.write("callers.pem", "nothing\n");
        let known = callers.look(callers.known());
        assert!(known.1 && ask(addr, version, Some(&ours)).await.is_some());
        world.write("callers.pem", &format!("{}\n\n", stranger.authority.pem()));
        assert!(!callers.look(known).1);
        assert_eq!(ask(addr, version, Some(&ours)).await, None);
        assert!(ask(addr, version, Some(&stranger)).await.is_some());
        world.write("callers.pem", &ours.authority.pem());
        end(&shutdown).await;

        let tls = load("client_ca = 'callers.pem'\nclient_auth = 'optional'").unwrap();
        let (addr, shutdown) = serve(&tls).await;
        assert_eq!(ask(addr, version, None).await.as_deref(), Some("nobody"));
        assert_eq!(ask(addr, version, Some(&stranger)).await, None);
        assert_eq!(
            ask(addr, version, Some(&ours)).await.map(|shown| shown.len()),
            Some(64)
        );
        end(&shutdown).await;
    }
    let told = |more: &str| load(more).unwrap_err().to_string();
    assert!(told("client_auth = 'required'").contains("needs `client_ca`"));
    assert!(told("client_ca = 'absent.pem'").contains("absent.pem"));
    assert!(told("client_ca = 'key.pem'").contains("no certificate in PEM"));
}
