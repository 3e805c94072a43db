use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::Request as AxumRequest;
use axum::response::Redirect;
use axum::routing::{get, post};
use futures_util::stream;
use http::header::AUTHORIZATION;
use serde_json::json;

use super::*;
use crate::edge::{Bound, EdgeLimits, read_body};
use crate::shutdown::Shutdown;

const SHORT: Duration = Duration::from_millis(100);

async fn start(router: Router) -> (SocketAddr, Shutdown) {
    let limits = EdgeLimits {
        drain_timeout: SHORT,
        ..EdgeLimits::default()
    };
    let bound = Bound::bind("127.0.0.1:0".parse().unwrap(), limits).await.unwrap();
    let (addr, shutdown) = (bound.local_addr(), Shutdown::new());
    shutdown.spawn("edge", bound.serve(router, shutdown.clone()));
    (addr, shutdown)
}

fn fetcher(allow_loopback_http: bool) -> Fetcher {
    Fetcher::new(&FetchRules {
        allow_loopback_http,
        ..FetchRules::default()
    })
    .unwrap()
}

/// Answers the headers of interest and the body, to be looked at by the test.
async fn echo(request: AxumRequest) -> String {
    let (parts, body) = request.into_parts();
    let body = read_body(body, 1024, Duration::from_secs(5)).await.unwrap();
    let header = |name: &str| {
        parts
            .headers
            .get(name)
            .map_or("-", |v| v.to_str().unwrap())
            .to_owned()
    };
    format!(
        "{} {} {}",
        header("content-type"),
        header("authorization"),
        String::from_utf8_lossy(&body)
    )
}

#[test]
fn urls() {
    let hosts = |loopback| Hosts::new(&["10.0.0.5".to_owned()], loopback);
    let check = |url: &str, expected: Option<&str>| {
        let error = permitted(url, &hosts(true)).err().map(|e| e.to_string());
        match (&error, expected) {
            (None, None) => {}
            (Some(error), Some(part)) => assert!(error.contains(part), "{url}: {error}"),
            _ => panic!("{url}: {error:?}"),
        }
    };
    check("https://example.com/a?b=c", None);
    check("https://example.com:8443/", None);
    check("https://10.0.0.5/", None);
    check("http://127.0.0.1:8080/", None);
    check("http://localhost/", None);
    check("https://[::1]/", None);
    check("http://example.com/", Some("only https"));
    check("http://10.0.0.5/", Some("only https"));
    check("http://localhost.example.com/", Some("only https"));
    check("file:///etc/passwd", Some("no host"));
    check("ftp://example.com/", Some("only https"));
    check("https://user@example.com/", Some("user information"));
    check("https://user:pass@example.com/", Some("user information"));
    check("https://:pass@example.com/", Some("user information"));
    check(
        "https://169.254.169.254/latest",
        Some("no address of `169.254.169.254`"),
    );
    check("https://10.0.0.6/", Some("no address"));
    check("https://0x7f.1/", None);
    check("https://0x0a.6/", Some("no address of `10.0.0.6`"));
    check("https://[::ffff:10.0.0.6]/", Some("no address"));
    check("https://[fe80::1]/", Some("no address"));
    check("https://exam\tple.com/", Some("white space"));
    check(" https://example.com/", Some("white space"));
    check("https:\\\\example.com/", Some("backslash"));
    check("/relative", Some("not an absolute url"));
    check("", Some("not an absolute url"));
    check(
        &format!("https://example.com/{}", "a".repeat(9_000)),
        Some("too long"),
    );
    for url in ["http://127.0.0.1/", "http://localhost/"] {
        assert_eq!(
            permitted(url, &hosts(false)),
            Err(FetchError::Url("only https is allowed"))
        );
    }
    let refused = Err(FetchError::Address {
        host: "127.0.0.1".to_owned(),
    });
    assert_eq!(permitted("https://0x7f.1/", &hosts(false)), refused);
}

#[tokio::test]
async fn a_private_address_behind_a_name_is_refused() {
    let error = fetcher(false).get("https://localhost:1/", 10).await.unwrap_err();
    assert_eq!(
        error,
        FetchError::Address {
            host: "localhost".to_owned()
        }
    );
}

#[tokio::test]
async fn requests_arrive_as_they_were_meant() {
    let (addr, shutdown) = start(Router::new().route("/", post(echo).get(echo))).await;
    let (fetch, url) = (fetcher(true), format!("http://{addr}/"));
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_static("DPoP x"));
    let form = fetch
        .post_form(&url, &[("a", "1 &"), ("b", "é")], headers.clone(), 1024)
        .await
        .unwrap();
    assert_eq!(
        form.body,
        "application/x-www-form-urlencoded DPoP x a=1+%26&b=%C3%A9"
    );
    let json = fetch
        .post_json(&url, &json!({"a": [1]}), headers, 1024)
        .await
        .unwrap();
    assert_eq!(json.body, "application/json DPoP x {\"a\":[1]}");
    let plain = fetch
        .get(format!("http://localhost:{}/", addr.port()), 1024)
        .await
        .unwrap();
    assert_eq!(plain.body, "- - ");
    let absent = fetch.get(format!("{url}absent"), 1024).await.unwrap();
    assert_eq!(absent.status, StatusCode::NOT_FOUND);
    shutdown.trigger();
    shutdown.drain(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let router = Router::new()
        .route("/from", get(|| async { Redirect::temporary("/to") }))
        .route("/to", get(|| async { "reached" }));
    let (addr, _shutdown) = start(router).await;
    let url = format!("http://{addr}/from");
    let error = fetcher(true).get(&url, 1024).await.unwrap_err();
    let expected = FetchError::Redirect {
        host: "127.0.0.1".to_owned(),
        status: StatusCode::TEMPORARY_REDIRECT,
    };
    assert_eq!(error, expected);
    let answer = fetcher(true)
        .send(Request::get(&url).returning_redirects())
        .await
        .unwrap();
    assert_eq!(answer.headers["location"], "/to");
}

#[tokio::test]
async fn answers_are_bounded() {
    let parts = || stream::iter(["abc", "def"].map(Ok::<_, std::convert::Infallible>));
    let router = Router::new()
        .route("/announced", get(|| async { "abcdef" }))
        .route("/chunked", get(async move || Body::from_stream(parts())));
    let (addr, _shutdown) = start(router).await;
    let fetch = fetcher(true);
    for path in ["announced", "chunked"] {
        let url = format!("http://{addr}/{path}");
        assert_eq!(fetch.get(&url, 6).await.unwrap().body, "abcdef", "{path}");
        assert_eq!(
            fetch.get(&url, 5).await.unwrap_err(),
            FetchError::TooLarge { max_bytes: 5 },
            "{path}"
        );
    }
}

#[tokio::test]
async fn time_is_bounded_in_head_and_body() {
    let endless = || Body::from_stream(stream::pending::<Result<&str, std::convert::Infallible>>());
    let router = Router::new()
        .route("/head", get(std::future::pending::<&str>))
        .route("/body", get(async move || endless()));
    let (addr, _shutdown) = start(router).await;
    for path in ["head", "body"] {
        let request = Request::get(format!("http://{addr}/{path}")).timeout(SHORT);
        let error = fetcher(true).send(request).await.unwrap_err();
        assert_eq!(
            error,
            FetchError::TimedOut {
                host: "127.0.0.1".to_owned()
            },
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_failure_does_not_show_the_query() {
    let bound = Bound::bind("127.0.0.1:0".parse().unwrap(), EdgeLimits::default())
        .await
        .unwrap();
    let url = format!("http://{}/?token=hunter2", bound.local_addr());
    drop(bound);
    let message = fetcher(true).get(&url, 10).await.unwrap_err().to_string();
    assert!(
        message.starts_with("cannot connect to `127.0.0.1`: "),
        "{message}"
    );
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn roots_must_be_readable() {
    let broken = b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n".to_vec();
    let rules = FetchRules {
        extra_roots: vec![broken],
        ..FetchRules::default()
    };
    assert!(matches!(Fetcher::new(&rules), Err(FetchError::Setup(_))));
}
