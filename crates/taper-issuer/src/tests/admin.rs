//! The admin listener.

use serde_json::{Value, json};

use super::support::{ADMIN, Answer, Rig, send};

async fn revoke(rig: &Rig, token: Option<&str>, what: Value) -> Answer {
    let token = token.map(|token| format!("Bearer {token}"));
    send(&rig.admin, "POST", "/admin/v1/revocations", token, Some(what)).await
}

#[tokio::test]
async fn only_with_the_admin_token() {
    let rig = Rig::new().await;
    let what = || json!({"client": "agent"});
    for token in [None, Some("wrong"), Some("")] {
        let answer = revoke(&rig, token, what()).await;
        assert_eq!(answer.status, 401, "{token:?}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    let answer = send(&rig.admin, "GET", "/admin/v1/grants/x", None, None).await;
    assert_eq!(answer.status, 401);
    rig.ask().accepted("nothing was revoked").await;
    assert_eq!(revoke(&rig, Some(ADMIN), what()).await.json, json!({"seq": 1}));
    rig.ask().refused("revoked", 400, "unauthorized_client").await;
    let public = send(&rig.public, "POST", "/admin/v1/revocations", None, Some(what())).await;
    assert_eq!(public.status, 404, "it is not on the public listener");
}

#[tokio::test]
async fn revocations_by_key() {
    let rig = Rig::new().await;
    let check = async |what: Value, status: u16| {
        let answer = revoke(&rig, Some(ADMIN), what.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.text);
    };
    let grant = rig.verify(&rig.capability().await).grant_id().to_owned();
    check(json!({"grant": "mistyped"}), 404).await;
    check(json!({"grant": grant}), 200).await;
    check(json!({"branch": "ab".repeat(32)}), 200).await;
    check(json!({"branch": "AB".repeat(32)}), 400).await;
    check(json!({"holder": "short"}), 400).await;
    check(
        json!({"subject": {"iss": "https://x.example", "sub": "alice"}}),
        200,
    )
    .await;
    check(json!({"subject": "alice"}), 400).await;
    check(json!({"client": ""}), 400).await;
    check(json!({"everything": true}), 400).await;
    check(json!([]), 400).await;
}

#[tokio::test]
async fn metrics_count_grants_refusals_and_revocations() {
    let rig = Rig::new().await;
    rig.ask().accepted("grant").await;
    rig.ask()
        .set("scope", "mail:*")
        .refused("refusal", 400, "invalid_target")
        .await;
    revoke(&rig, Some(ADMIN), json!({"client": "other"})).await;
    let metrics = send(&rig.admin, "GET", "/metrics", None, None).await;
    for line in [
        "taper_issuer_grants_total 1",
        "taper_issuer_revocations_total 1",
        "taper_issuer_refusals_total{code=\"invalid_target\"} 1",
    ] {
        assert!(
            metrics.text.lines().any(|found| found == line),
            "{line}: {}",
            metrics.text
        );
    }
    assert_eq!(send(&rig.public, "GET", "/metrics", None, None).await.status, 404);
}
