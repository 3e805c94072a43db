//! A chain that verified before is not believed any longer than one that comes for the first time.

use std::sync::Arc;

use taper_capability::{RootKey, VerifiedChain};
use taper_dpop::{Algorithm, PrivateKey};
use taper_service::rng;
use taper_store::RevocationKey;

use super::support::{Ask, ISSUER, NOW, Setup, URL, World, usual};
use crate::headers::Credentials;

const LOG: &str = r#"{"repo_path":"acme/web"}"#;

/// The chain of this request, or the rule that refuses it.
fn chain(world: &World, ask: &Ask<'_>, now: i64) -> Result<Arc<VerifiedChain>, String> {
    let credentials = Credentials::of(ask.request().headers()).unwrap();
    match world.shared.gate.authenticate(&credentials, "POST", URL, now) {
        Ok(presentation) => Ok(Arc::clone(presentation.chain())),
        Err(refusal) => Err(refusal.rule().to_string()),
    }
}

/// A proxy that knows what is revoked: nothing yet.
async fn following() -> World {
    let world = World::start(Setup {
        feed: true,
        ..usual()
    })
    .await;
    world.page(Vec::new(), 0);
    world
}

#[tokio::test]
async fn the_same_text_is_verified_once() {
    let world = World::start(usual()).await;
    let ask = world.call("git_log", LOG);
    let (first, second) = (
        chain(&world, &ask, NOW).unwrap(),
        chain(&world, &ask, NOW).unwrap(),
    );
    assert!(Arc::ptr_eq(&first, &second));
    let other = world.issue(&world.grant());
    let third = chain(&world, &world.call("git_log", LOG).token(other.as_str()), NOW).unwrap();
    assert!(!Arc::ptr_eq(&first, &third));
    world.end().await;
}

#[tokio::test]
async fn what_can_change_is_checked_each_time() {
    let world = following().await;
    let token = world.issue(&world.grant());
    let ask = || world.call("git_log", LOG).token(token.as_str());
    let known = chain(&world, &ask(), NOW).unwrap();
    let rule = |ask: &Ask<'_>, now: i64| chain(&world, ask, now).unwrap_err();

    let stranger = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
    assert_eq!(rule(&ask().key(&stranger), NOW), "R-14", "another key");
    let unsigned = ask().claims(|claims| claims.iat -= 3_600);
    assert_eq!(rule(&unsigned, NOW), "R-07", "an old proof");

    let end = known.expires_at();
    world.clock.set(end);
    assert_eq!(rule(&ask(), end), "P-15", "expired");
    world.clock.set(NOW);
    assert!(Arc::ptr_eq(&chain(&world, &ask(), NOW).unwrap(), &known));

    world.revoke(1, RevocationKey::Grant(known.grant_id().to_owned()));
    assert_eq!(rule(&ask(), NOW), "M-12", "revoked");
    world.end().await;
}

#[tokio::test]
async fn other_root_keys_verify_anew() {
    let world = following().await;
    let token = world.issue(&world.grant());
    let ask = || world.call("git_log", LOG).token(token.as_str());
    assert!(Arc::ptr_eq(
        &chain(&world, &ask(), NOW).unwrap(),
        &chain(&world, &ask(), NOW).unwrap()
    ));
    let other = RootKey::generate(1, &mut rng::os());
    let mut jwk = serde_json::to_value(other.public().to_jwk()).unwrap();
    jwk["kid"] = "1".into();
    let document = serde_json::json!({ "keys": [jwk] }).to_string();
    world
        .shared
        .gate
        .issuers
        .set_keys(ISSUER, document.as_bytes())
        .unwrap();
    assert_eq!(
        chain(&world, &ask(), NOW).unwrap_err(),
        "P-03",
        "no longer trusted"
    );
    world.end().await;
}
