//! The admin listener.

use serde_json::{Value, json};

use super::support::{ADMIN, Answer, NEXT_SECRET, Rig, SECRET, basic, send};

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
        "taper_issuer_feed_sequence{issuer=\"https://issuer.example\"} 1",
        "taper_issuer_connections{listener=\"callers\"} 0",
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

/// Both listeners say it, as lines and in the form that the proxy has.
#[tokio::test]
async fn what_is_missing_is_said_on_both_listeners() {
    let rig = Rig::new().await;
    let check = async |status: u16, lines: &str, document: Value| {
        for router in [&rig.public, &rig.admin] {
            let get = async |path| send(router, "GET", path, None, None).await;
            let (plain, json) = (get("/readyz").await, get("/readyz?format=json").await);
            assert_eq!((plain.status.as_u16(), plain.text.as_str()), (status, lines));
            assert_eq!((json.status.as_u16(), json.json), (status, document.clone()));
            assert_eq!(get("/healthz").await.text, "ok\n");
        }
    };
    check(200, "ok\n", json!({ "ready": true, "missing": [] })).await;
    rig.store.upgrade().unwrap().close().await.unwrap();
    check(
        503,
        "not ready\nthe store: it has failed\n",
        json!({ "ready": false, "missing": [{ "name": "the store", "reason": "it has failed" }] }),
    )
    .await;
}

/// A secret is changed by a second client: both are answered until the first is taken out.
#[tokio::test]
async fn two_clients_follow_the_feed_while_a_secret_is_changed() {
    let rig = Rig::with(|text| {
        let proxy = "{ id = \"proxy\",";
        assert!(text.contains(proxy));
        let next = "{ id = \"proxy-2\", secret = { file = \"next-secret\" }, feed = true },";
        text.replace(proxy, &format!("{next}\n  {proxy}"))
    })
    .await;
    let check = async |id: &str, secret: &str, status: u16| {
        let answer = rig.get("/revocations?after=0", Some(basic(id, secret))).await;
        assert_eq!(answer.status.as_u16(), status, "{id}: {}", answer.text);
    };
    check("proxy", SECRET, 200).await;
    check("proxy-2", NEXT_SECRET, 200).await;
    check("proxy-2", SECRET, 401).await;
}

#[tokio::test]
async fn a_grant_whose_record_was_lost_is_revoked_when_it_is_said_so() {
    let rig = Rig::new().await;
    let ask = async |query: &str, what: &Value| {
        let (token, path) = (
            Some(format!("Bearer {ADMIN}")),
            format!("/admin/v1/revocations{query}"),
        );
        send(&rig.admin, "POST", &path, token, Some(what.clone())).await
    };
    let lost = json!({"grant": "lost"});
    let refused = ask("", &lost).await;
    assert_eq!(refused.status, 404);
    assert!(refused.text.contains("?unknown=true"), "{}", refused.text);
    assert_eq!(ask("?unknown=false", &lost).await.status, 404);
    for wrong in [
        "?unknown=1",
        "?unknown",
        "?known=true",
        "?unknown=true&unknown=true",
    ] {
        assert_eq!(ask(wrong, &lost).await.status, 400, "{wrong}");
    }
    let (from, to) = ("A".repeat(43), "B".repeat(42) + "A");
    let delegation = json!({"delegation": {"grant": "lost", "from": from, "to": to}});
    assert_eq!(ask("?unknown=true", &lost).await.json, json!({"seq": 1}));
    assert_eq!(ask("?unknown=true", &delegation).await.json, json!({"seq": 2}));
    // What is known has its end all the same.
    let grant = rig.verify(&rig.capability().await).grant_id().to_owned();
    assert_eq!(
        ask("?unknown=true", &json!({"grant": grant})).await.json,
        json!({"seq": 3})
    );
    let token = Some(format!("Bearer {ADMIN}"));
    let list = send(&rig.admin, "GET", "/admin/v1/revocations", token, None).await;
    let untils: Vec<bool> = (0..3)
        .map(|n| list.json["entries"][n]["until"].is_null())
        .collect();
    assert_eq!(untils, [true, true, false]);
}
