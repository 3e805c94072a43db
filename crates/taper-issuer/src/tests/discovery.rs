//! Metadata, keys, health.

use serde_json::json;

use super::support::{ISSUER, Rig};

#[tokio::test]
async fn metadata_and_keys() {
    let rig = Rig::new().await;
    let metadata = rig.get("/.well-known/oauth-authorization-server", None).await;
    assert_eq!(metadata.json["issuer"], ISSUER);
    assert_eq!(metadata.json["token_endpoint"], format!("{ISSUER}/token"));
    assert_eq!(metadata.json["scopes_supported"], json!(["git:*", "wiki:*"]));
    let keys = rig.get("/.well-known/jwks.json", None).await;
    let jwk = rig.root.to_jwk();
    let expected =
        json!({"kty": "OKP", "crv": "Ed25519", "x": jwk.x, "kid": "7", "use": "sig", "alg": "EdDSA"});
    assert_eq!(keys.json, json!({ "keys": [expected] }));
    assert_eq!(rig.get("/healthz", None).await.status, 200);
    assert_eq!(rig.get("/readyz", None).await.status, 200);
}

#[tokio::test]
async fn an_issuer_with_a_path() {
    let rig = Rig::with(|text| text.replace(ISSUER, "https://example.com/auth/one")).await;
    let metadata = rig
        .get("/.well-known/oauth-authorization-server/auth/one", None)
        .await;
    assert_eq!(
        metadata.json["token_endpoint"],
        "https://example.com/auth/one/token"
    );
    assert_eq!(rig.get("/auth/one/.well-known/jwks.json", None).await.status, 200);
    assert_eq!(rig.get("/.well-known/jwks.json", None).await.status, 404);
}
