//! When a proof may still be taken, and when one may have been taken before.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use taper_dpop::{MAX_AGE, MAX_FUTURE, NonceKey};
use taper_service::rng;
use taper_store::{Seen, SeenProofs, StoreError};

use super::support::{Ask, NOW, URL, World, usual};
use crate::config::NonceMode;
use crate::gate::{Asked, Gate};
use crate::headers::Credentials;
use crate::session::Owners;

const LOG: &str = r#"{"repo_path":"acme/web"}"#;

/// Remembers nothing, so that what the gate itself refuses shows.
struct Forgetful {
    complete_since: Option<i64>,
}

impl SeenProofs for Forgetful {
    fn insert_once(&self, _: &str, _: [u8; 32], _: &str, _: i64, _: i64) -> Result<Seen, StoreError> {
        Ok(Seen::Fresh)
    }

    fn complete_since(&self) -> Option<i64> {
        self.complete_since
    }
}

fn gate(world: &World, complete_since: Option<i64>) -> Gate {
    Gate {
        issuers: Arc::clone(&world.shared.gate.issuers),
        policy: world.shared.gate.policy.clone(),
        seen: Arc::new(Forgetful { complete_since }),
        counters: None,
        nonces: NonceKey::generate(&mut rng::os()),
        nonce_mode: NonceMode::Off,
    }
}

#[tokio::test]
async fn a_proof_that_may_be_forgotten_is_not_taken() {
    let world = World::start(usual()).await;
    let gate = gate(&world, None);
    let judged = |now: i64| {
        let ask = world.call("git_log", LOG);
        let headers = ask.request().headers().clone();
        let credentials = Credentials::of(&headers).unwrap();
        let presentation = gate.authenticate(&credentials, "POST", URL, NOW).unwrap();
        let asked = Asked {
            presentation: Arc::new(presentation),
            profile: Arc::clone(&world.shared.servers.get("git").unwrap().profile),
            sessions: Arc::new(Owners::new(1)),
            method: Method::POST,
            headers,
            body: Bytes::from(ask.body),
            client_ip: None,
            decision_id: "d".into(),
        };
        // The body took until `now`.
        let refusal = gate.judge(asked, now).verdict.err();
        refusal.map(|refusal| refusal.rule().to_string())
    };
    let last = NOW + MAX_AGE + MAX_FUTURE;
    assert_eq!(judged(NOW), None);
    assert_eq!(judged(last), None);
    assert_eq!(judged(last + 1).as_deref(), Some("R-07"));
    world.end().await;
}

#[tokio::test]
async fn after_a_restart_a_proof_that_may_be_older_needs_a_nonce() {
    let world = World::start(usual()).await;
    let gate = gate(&world, Some(NOW));
    let refused = |ask: Ask<'_>, now: i64| {
        let credentials = Credentials::of(ask.request().headers()).unwrap();
        let refusal = gate.authenticate(&credentials, "POST", URL, now).err();
        refusal.map(|refusal| refusal.rule().to_string())
    };
    let dated = |iat: i64| world.call("git_log", LOG).claims(move |c| c.iat = iat);
    assert_eq!(refused(dated(NOW), NOW).as_deref(), Some("M-28"));
    // Signed before the restart, dated after it.
    assert_eq!(refused(dated(NOW + MAX_FUTURE), NOW).as_deref(), Some("M-28"));
    assert_eq!(refused(dated(NOW + MAX_FUTURE + 1), NOW + 1), None);
    let nonce = gate.nonces.mint(NOW);
    let with_nonce = dated(NOW).claims(move |c| c.nonce = Some(nonce.clone()));
    assert_eq!(refused(with_nonce, NOW), None);
    world.end().await;
}
