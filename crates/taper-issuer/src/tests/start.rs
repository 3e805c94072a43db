//! Configuration, opening, serving on real ports, opening again.

use std::time::Duration;

use taper_service::clock::{ManualClock, SharedClock};
use taper_service::config::parse;
use taper_service::fetch::{FetchRules, Fetcher};
use taper_service::shutdown::Shutdown;
use taper_store::RecordKind;

use super::support::{ISSUER, NOW, config_text, write_files};
use crate::{Config, Issuer, check};

const PROVIDER: &str = "http://127.0.0.1:1";

fn clock() -> SharedClock {
    ManualClock::shared(NOW) as SharedClock
}

#[test]
fn configurations() {
    let check = |from: &str, to: &str, expected: Option<&str>| {
        let folder = tempfile::tempdir().unwrap();
        write_files(folder.path());
        let text = config_text(PROVIDER);
        assert!(text.contains(from), "{from}");
        let outcome = parse::<Config>(&text.replace(from, to), "issuer.toml")
            .map_err(|error| error.to_string())
            .and_then(|config| check(&config, folder.path(), &clock()).map_err(|error| error.to_string()));
        match expected {
            None => assert_eq!(outcome, Ok(()), "{to}"),
            Some(part) => {
                let message = outcome.unwrap_err();
                assert!(message.contains(part), "{to}: {message}");
            }
        }
        assert!(!folder.path().join("state").exists(), "a check opens no state");
    };
    check("nonce", "nonce", None);
    check("nonce = ", "nonse = ", Some("did you mean `nonce`"));
    check(ISSUER, "https://issuer.example/", Some("slash"));
    check(ISSUER, "http://issuer.example", Some("https is required"));
    check(ISSUER, "https://issuer.example/a{b}", Some("`issuer`"));
    check(
        "development = true",
        "development = false",
        Some("development provider"),
    );
    check(
        "insecure_loopback = true",
        "insecure_loopback = false",
        Some("https is required"),
    );
    check("id = 7", "id = 7, file = \"root.jwk\" }, { id = 7", Some("twice"));
    check("\"root.jwk\"", "\"absent.jwk\"", Some("absent.jwk"));
    check("\"root.jwk\"", "\"admin-token\"", Some("admin-token"));
    check("\"grant.datalog\"", "\"absent.datalog\"", Some("absent.datalog"));
    check("\"grant.datalog\"", "", Some("policies"));
    check(
        "{ file = \"admin-token\" }",
        "\"secret\"",
        Some("a secret is not written here"),
    );
    check(
        "{ file = \"admin-token\" }",
        "{ file = \"absent\" }",
        Some("admin_token"),
    );
    check(
        "id_token_clients = [\"web\"]",
        "id_token_clients = [\"agent\"]",
        Some("with a secret"),
    );
    check(
        "{ id = \"agent\" }",
        "{ id = \"agent\", feed = true }",
        Some("need a `secret`"),
    );
    check("{ id = \"agent\" }", "{ id = \"other\" }", Some("twice"));
    check("id = \"git\"", "id = \"Git\"", Some("server id"));
    check("id = \"wiki\"", "id = \"git\"", Some("twice"));
    check("nonce = \"off\"", "default_ttl = \"2d\"", Some("default_ttl"));
}

#[test]
fn a_policy_that_does_not_load_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path());
    std::fs::write(folder.path().join("grant.datalog"), "grant_ttl(").unwrap();
    let config: Config = parse(&config_text(PROVIDER), "issuer.toml").unwrap();
    let message = check(&config, folder.path(), &clock()).unwrap_err().to_string();
    assert!(message.contains("grant.datalog:1:"), "{message}");
}

#[tokio::test]
async fn it_serves_on_its_ports_ends_and_opens_again() {
    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path());
    let fetcher = Fetcher::new(&FetchRules {
        allow_loopback_http: true,
        ..FetchRules::default()
    })
    .unwrap();
    for _ in 0..2 {
        let config: Config = parse(&config_text(PROVIDER), "issuer.toml").unwrap();
        let issuer = Issuer::open(config.clone(), folder.path(), clock()).unwrap();
        assert!(
            Issuer::open(config, folder.path(), clock()).is_err(),
            "the state has one owner"
        );
        let bound = issuer.bind().await.unwrap();
        let (public, admin) = (bound.public_addr(), bound.admin_addr());
        let shutdown = Shutdown::new();
        shutdown.spawn("issuer", bound.serve(shutdown.clone()));
        for url in [
            format!("http://{public}/readyz"),
            format!("http://{admin}/metrics"),
        ] {
            let answer = fetcher.get(&url, 65_536).await.unwrap();
            assert_eq!(answer.status, 200, "{url}");
        }
        shutdown.trigger();
        shutdown.drain(Duration::from_secs(20)).await.unwrap();
        assert!(
            fetcher
                .get(format!("http://{public}/readyz"), 65_536)
                .await
                .is_err()
        );
    }
    let verified = taper_store::verify_dir(&folder.path().join("state"));
    assert!(verified.is_ok(), "{verified:?}");
}

#[tokio::test]
async fn it_speaks_tls_with_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path());
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.path().join("cert.pem"), pair.cert.pem()).unwrap();
    let key = pair.signing_key.serialize_pem();
    taper_service::secret::write_private_file(&folder.path().join("key.pem"), key.as_bytes()).unwrap();
    let with = |tls: &str| format!("{}[tls]\ncertificate = 'cert.pem'\n{tls}", config_text(PROVIDER));
    let refused = |text: &str, expected: &str| {
        let config: Config = parse(text, "issuer.toml").unwrap();
        let message = check(&config, folder.path(), &clock()).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    refused(&with("key = 'absent'"), "`tls`: the key");
    let in_clear = with("key = 'key.pem'").replace(ISSUER, "http://127.0.0.1:1");
    refused(&in_clear, "with `tls` it is an https url");

    let fetcher = Fetcher::new(&FetchRules {
        allow_loopback_http: true,
        extra_roots: vec![pair.cert.pem().into_bytes()],
        ..FetchRules::default()
    })
    .unwrap();
    let status = async |url: String| {
        fetcher
            .get(url, 65_536)
            .await
            .map(|answer| answer.status.as_u16())
            .ok()
    };
    for (admin, admin_scheme) in [("false", "http"), ("true", "https")] {
        let text = with(&format!("key = 'key.pem'\nadmin = {admin}"));
        let issuer = Issuer::open(parse(&text, "issuer.toml").unwrap(), folder.path(), clock()).unwrap();
        let bound = issuer.bind().await.unwrap();
        let (public, admin) = (bound.public_addr().port(), bound.admin_addr().port());
        let shutdown = Shutdown::new();
        shutdown.spawn("issuer", bound.serve(shutdown.clone()));
        assert_eq!(
            status(format!("https://localhost:{public}/readyz")).await,
            Some(200)
        );
        assert_eq!(status(format!("http://localhost:{public}/readyz")).await, None);
        let metrics = format!("{admin_scheme}://localhost:{admin}/metrics");
        let metrics = fetcher.get(metrics, 65_536).await.unwrap();
        let page = String::from_utf8(metrics.body.to_vec()).unwrap();
        // What rcgen says unless it is told: the year 4096.
        let ends = "taper_issuer_certificate_end_seconds{listener=\"callers\"} 67090118400";
        assert!(page.lines().any(|line| line == ends), "{page}");
        shutdown.trigger();
        shutdown.drain(Duration::from_secs(20)).await.unwrap();
    }
}

#[tokio::test]
async fn the_log_says_which_clients_and_keys_are_new_changed_or_gone() {
    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path());
    let start = async |change: (&str, &str)| {
        let text = config_text(PROVIDER);
        assert!(text.contains(change.0), "{}", change.0);
        let config: Config = parse(&text.replace(change.0, change.1), "issuer.toml").unwrap();
        let before = said(folder.path()).len();
        let bound = Issuer::open(config, folder.path(), clock()).unwrap().bind().await;
        let shutdown = Shutdown::new();
        shutdown.spawn("issuer", bound.unwrap().serve(shutdown.clone()));
        shutdown.trigger();
        shutdown.drain(Duration::from_secs(20)).await.unwrap();
        said(folder.path()).split_off(before)
    };
    let all = start(("nonce", "nonce")).await;
    assert!(all.contains(&"client agent".to_owned()), "{all:?}");
    assert_eq!(all.last().map(String::as_str), Some("root keys 7"));
    assert_eq!(
        start(("nonce", "nonce")).await,
        Vec::<String>::new(),
        "nothing differs"
    );
    let renamed = ("{ id = \"agent\" }", "{ id = \"agent-2\" }");
    assert_eq!(start(renamed).await, ["client agent removed", "client agent-2"]);
    assert_eq!(
        start(("nonce", "nonce")).await,
        ["client agent-2 removed", "client agent"]
    );
    assert_eq!(start(("id = 7", "id = 8")).await, ["root keys 8"]);
}

/// What the journal says of clients and root keys.
fn said(folder: &std::path::Path) -> Vec<String> {
    let Ok(records) = taper_store::read_records(&folder.join("state")) else {
        return Vec::new();
    };
    let said = |kind: RecordKind| match kind {
        RecordKind::Client(client) if client.removed => Some(format!("client {} removed", client.client)),
        RecordKind::Client(client) => Some(format!("client {}", client.client)),
        RecordKind::RootKeys(record) => Some(format!("root keys {}", record.keys[0].id)),
        _ => None,
    };
    records
        .filter_map(|stored| said(stored.unwrap().record.kind))
        .collect()
}
