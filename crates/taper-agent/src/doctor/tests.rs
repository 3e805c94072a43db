use axum::Json;
use axum::response::IntoResponse as _;
use http::header::DATE;
use serde_json::json;
use taper_oauth::{AuthorizationServerMetadata, ProtectedResourceMetadata};

use super::*;
use crate::keyfile;
use crate::testing::{Chain, NOW, Server, clock};

/// Now, as HTTP writes it, less a minute.
const A_MINUTE_BEHIND: &str = "Sat, 31 Jan 2026 09:29:00 GMT";

/// One server that is issuer and proxy, with its clock at `date`.
async fn server(date: &'static str, kid: &'static str) -> Server {
    Server::answering(move |seen| {
        let base = format!("http://{}", seen.headers["host"].to_str().unwrap());
        let body = match seen.path.as_str() {
            "/.well-known/oauth-authorization-server" => {
                json!(AuthorizationServerMetadata::for_issuer(&base))
            }
            "/.well-known/jwks.json" => json!({"keys": [{"kid": kid}]}),
            "/.well-known/oauth-protected-resource/git/mcp" => {
                let url = format!("{base}/git/mcp");
                json!(ProtectedResourceMetadata::for_resource(&url, &[&base], &[], None))
            }
            _ => return http::StatusCode::NOT_FOUND.into_response(),
        };
        ([(DATE, date)], Json(body)).into_response()
    })
    .await
}

fn verdict(findings: &[Finding], check: &str) -> Option<Verdict> {
    findings
        .iter()
        .find(|finding| finding.check == check)
        .map(|finding| finding.verdict)
}

#[tokio::test]
async fn a_clock_that_is_off_is_found_at_both() {
    for (date, expected) in [
        ("Sat, 31 Jan 2026 09:30:00 GMT", Verdict::Ok),
        ("Sat, 31 Jan 2026 09:30:30 GMT", Verdict::Warn),
        (A_MINUTE_BEHIND, Verdict::Fail),
    ] {
        let server = server(date, "1").await;
        let patient = Patient {
            issuer: Some(server.url.clone()),
            url: Some(format!("{}/git/mcp", server.url)),
            ..Patient::default()
        };
        let findings = examine(&patient, clock()).await;
        for check in ["issuer-clock", "proxy-clock"] {
            assert_eq!(verdict(&findings, check), Some(expected), "{date}: {findings:?}");
        }
        for (check, expected) in [
            ("issuer", Verdict::Ok),
            ("proxy", Verdict::Ok),
            ("trust", Verdict::Ok),
            ("root-key", Verdict::Skipped),
            ("call", Verdict::Skipped),
        ] {
            assert_eq!(verdict(&findings, check), Some(expected), "{check}: {findings:?}");
        }
    }
}

#[tokio::test]
async fn a_root_key_that_is_gone_is_found() {
    for (kid, expected) in [("1", Verdict::Ok), ("2", Verdict::Fail), ("01", Verdict::Fail)] {
        let server = server("", kid).await;
        let folder = tempfile::tempdir().unwrap();
        let (key, token) = (folder.path().join("key"), folder.path().join("token"));
        let own =
            taper_dpop::PrivateKey::generate(taper_dpop::Algorithm::EdDsa, &mut taper_service::rng::os());
        let chain = Chain::of(&server.url, own);
        keyfile::create(&key, &chain.key).unwrap();
        std::fs::write(&token, chain.token.as_str()).unwrap();
        let patient = Patient {
            issuer: Some(server.url.clone()),
            token: Some(token),
            key: Some(KeySource::File(key)),
            ..Patient::default()
        };
        let findings = examine(&patient, clock()).await;
        assert_eq!(
            verdict(&findings, "root-key"),
            Some(expected),
            "{kid}: {findings:?}"
        );
        assert_eq!(verdict(&findings, "issuer-clock"), Some(Verdict::Skipped));
        assert_eq!(verdict(&findings, "holder"), Some(Verdict::Ok));
        assert_eq!(verdict(&findings, "proxy"), Some(Verdict::Skipped));
        assert_eq!(verdict(&findings, "expiry"), Some(Verdict::Ok), "{NOW}");
    }
}

#[tokio::test]
async fn nothing_known_is_nothing_found() {
    let findings = examine(&Patient::default(), clock()).await;
    assert!(
        findings.iter().all(|finding| finding.verdict == Verdict::Skipped),
        "{findings:?}"
    );
    assert!(!findings.is_empty());
}

#[tokio::test]
async fn what_a_capability_says_calls_nobody_and_commands_no_terminal() {
    let server = server("", "1").await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    for issuer in [server.url.clone(), "https://x\u{1b}]52;c;$(id)\u{7}".to_owned()] {
        let own =
            taper_dpop::PrivateKey::generate(taper_dpop::Algorithm::EdDsa, &mut taper_service::rng::os());
        std::fs::write(&token, Chain::of(&issuer, own).token.as_str()).unwrap();
        let mut patient = Patient {
            token: Some(token.clone()),
            ..Patient::default()
        };
        let findings = examine(&patient, clock()).await;
        assert_eq!(
            verdict(&findings, "issuer"),
            Some(Verdict::Skipped),
            "{findings:?}"
        );
        assert!(server.seen().is_empty(), "{:?}", server.seen());
        patient.issuer = Some("http://127.0.0.1:1".to_owned());
        let findings = examine(&patient, clock()).await;
        assert_eq!(verdict(&findings, "capability-issuer"), Some(Verdict::Fail));
        for finding in &findings {
            let next = finding.next.clone().unwrap_or_default();
            assert!(!next.contains("$(") && !next.contains('\u{1b}'), "{next}");
            assert!(!finding.what.contains('\u{1b}'), "{finding:?}");
        }
    }
}

#[tokio::test]
async fn what_a_renewal_needs_is_looked_at() {
    let answer = |status: http::StatusCode| {
        Server::answering(move |seen| {
            let base = format!("http://{}", seen.headers["host"].to_str().unwrap());
            match seen.path.as_str() {
                "/.well-known/oauth-authorization-server" => {
                    Json(AuthorizationServerMetadata::for_issuer(&base)).into_response()
                }
                "/token" => {
                    assert_eq!(seen.body, "");
                    (status, Json(json!({"error": "invalid_request"}))).into_response()
                }
                _ => http::StatusCode::NOT_FOUND.into_response(),
            }
        })
    };
    for (status, expected) in [
        (http::StatusCode::BAD_REQUEST, Verdict::Ok),
        (http::StatusCode::BAD_GATEWAY, Verdict::Fail),
        (http::StatusCode::NOT_FOUND, Verdict::Fail),
    ] {
        let server = answer(status).await;
        let patient = Patient {
            issuer: Some(server.url.clone()),
            ..Patient::default()
        };
        let findings = examine(&patient, clock()).await;
        assert_eq!(
            verdict(&findings, "token-endpoint"),
            Some(expected),
            "{findings:?}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("subject");
    let key = folder.path().join("key");
    keyfile::create(&key, &Chain::new().key).unwrap();
    let check = async |claims: serde_json::Value, expected: Verdict| {
        let payload = taper_dpop::base64url_encode(claims.to_string().as_bytes());
        std::fs::write(&file, format!("e30.{payload}.AA")).unwrap();
        let patient = Patient {
            key: Some(KeySource::File(key.clone())),
            subject: Some(SubjectToken::File(file.clone())),
            ..Patient::default()
        };
        let findings = examine(&patient, clock()).await;
        assert_eq!(
            verdict(&findings, "subject-token"),
            Some(expected),
            "{claims}: {findings:?}"
        );
    };
    check(json!({"exp": NOW + 600}), Verdict::Ok).await;
    check(json!({"exp": NOW + 59}), Verdict::Warn).await;
    check(json!({"exp": NOW}), Verdict::Fail).await;
    check(json!({}), Verdict::Ok).await;
    check(
        json!({"exp": NOW + 600, "cnf": {"jkt": "another"}}),
        Verdict::Fail,
    )
    .await;
    let patient = Patient {
        subject: Some(SubjectToken::Command("exit 3".into())),
        client_secret_file: Some(folder.path().join("absent")),
        ..Patient::default()
    };
    let findings = examine(&patient, clock()).await;
    for check in ["subject-token", "client-secret"] {
        assert_eq!(verdict(&findings, check), Some(Verdict::Fail), "{findings:?}");
    }
    let secret = folder.path().join("secret");
    taper_service::secret::write_private_file(&secret, b"s3cret").unwrap();
    let patient = Patient {
        client_secret_file: Some(secret),
        ..Patient::default()
    };
    let findings = examine(&patient, clock()).await;
    assert_eq!(
        verdict(&findings, "client-secret"),
        Some(Verdict::Ok),
        "{findings:?}"
    );
    assert!(!format!("{findings:?}").contains("s3cret"));
}

#[tokio::test]
async fn a_wallet_that_only_has_to_renew_is_well() {
    let server = Server::issuer(clock()).await;
    let folder = tempfile::tempdir().unwrap();
    let subject = folder.path().join("subject");
    std::fs::write(&subject, "a.b.c").unwrap();
    let purpose = crate::wallet::Purpose {
        issuer: server.url.clone(),
        client: crate::Client {
            id: "dev".into(),
            secret: None,
        },
        subject: crate::wallet::SubjectToken::File(subject),
        scope: vec!["git:*".parse().unwrap()],
        details: Vec::new(),
        resources: Vec::new(),
    };
    let dir = folder.path().join("wallet");
    let wallet = crate::Wallet::open(&dir, None, purpose, clock()).await.unwrap();
    let held = wallet.capability(NOW).await.unwrap();
    let later = clock();
    later.set(held.expires_at + 1);
    let patient = Patient {
        wallet: Some(dir),
        ..Patient::default()
    };
    let findings = examine(&patient, later).await;
    for check in ["wallet", "capability", "expiry", "key", "holder"] {
        assert_eq!(
            verdict(&findings, check),
            Some(Verdict::Ok),
            "{check}: {findings:?}"
        );
    }
}
