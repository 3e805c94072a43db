//! When a proof may still be taken, and when one may have been taken before.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use taper_capability::{Grant, RootKey, VerifiedPresentation, issue};
use taper_dpop::{Algorithm, MAX_AGE, MAX_FUTURE, PrivateKey};
use taper_service::rng;
use taper_store::{Doubt, RevocationKey, Seen, SeenProofs, StoreError};

use super::support::{Answer, Ask, NOW, Setup, URL, World, usual};
use crate::account::Account;
use crate::chains::Chains;
use crate::config::NonceMode;
use crate::error::AnswerContext;
use crate::forward::Leaving;
use crate::gate::{self, Asked, Gate};
use crate::headers::Credentials;

const LOG: &str = r#"{"repo_path":"acme/web"}"#;

/// Remembers nothing, so that what the gate itself refuses shows.
struct Forgetful {
    doubt: Mutex<Doubt>,
    /// What is in doubt when the next proof is taken.
    then: Mutex<Option<Doubt>>,
}

impl Forgetful {
    fn new(complete_since: Option<i64>) -> Self {
        let doubt = Doubt {
            complete_since,
            forgotten_until: i64::MIN,
            setbacks: 0,
        };
        Self {
            doubt: Mutex::new(doubt),
            then: Mutex::default(),
        }
    }
}

impl SeenProofs for Forgetful {
    fn insert_once(&self, _: &str, _: [u8; 32], _: &str, _: i64, _: i64) -> Result<Seen, StoreError> {
        if let Some(then) = self.then.lock().unwrap().take() {
            *self.doubt.lock().unwrap() = then;
        }
        Ok(Seen::Fresh)
    }

    fn is_seen(&self, _: [u8; 32], _: &str, _: i64) -> bool {
        false
    }

    fn complete_since(&self) -> Option<i64> {
        self.doubt.lock().unwrap().complete_since
    }

    fn doubt(&self, _: i64) -> Doubt {
        *self.doubt.lock().unwrap()
    }
}

fn gate(world: &World, complete_since: Option<i64>) -> Gate {
    gate_over(world, Arc::new(Forgetful::new(complete_since)))
}

fn gate_over(world: &World, seen: Arc<Forgetful>) -> Gate {
    Gate {
        issuers: Arc::clone(&world.shared.gate.issuers),
        chains: Chains::new(1 << 20),
        policy: world.shared.gate.policy.clone(),
        proofs: gate::guard(seen, NonceMode::Off),
        counters: None,
    }
}

fn asked(world: &World, presentation: Arc<VerifiedPresentation>, headers: HeaderMap, body: String) -> Asked {
    let server = world.shared.servers.get("git").unwrap();
    Asked {
        presentation,
        profile: Arc::clone(&server.profile),
        sessions: Arc::clone(&server.sessions),
        tasks: Arc::clone(&server.tasks),
        limiter: Arc::clone(&server.limiter),
        catalogue: Arc::clone(&server.catalogue),
        method: Method::POST,
        headers,
        body: Bytes::from(body),
        client_ip: None,
        decision_id: "d".into(),
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
        let asked = asked(&world, Arc::new(presentation), headers, ask.body);
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
    let nonce = gate.nonce(NOW);
    let with_nonce = dated(NOW).claims(move |c| c.nonce = Some(nonce.clone()));
    assert_eq!(refused(with_nonce, NOW), None);
    world.end().await;
}

#[tokio::test]
async fn after_a_setback_of_the_clock_a_proof_that_may_be_forgotten_needs_a_new_nonce() {
    let world = World::start(usual()).await;
    let seen = Arc::new(Forgetful::new(None));
    let mut gate = gate_over(&world, Arc::clone(&seen));
    let before = gate.nonce(NOW);
    let dated = |iat: i64, nonce: Option<&str>| {
        let nonce = nonce.map(str::to_owned);
        world
            .call("git_log", LOG)
            .claims(move |c| (c.iat, c.nonce) = (iat, nonce.clone()))
    };
    let refused = |gate: &Gate, iat: i64, nonce: Option<&str>| {
        let ask = dated(iat, nonce);
        let credentials = Credentials::of(ask.request().headers()).unwrap();
        let refusal = gate.authenticate(&credentials, "POST", URL, NOW).err();
        refusal.map(|refusal| refusal.rule().to_string())
    };
    assert_eq!(refused(&gate, NOW, None), None);
    // The clock was ahead, and what could be accepted until now was forgotten.
    *seen.doubt.lock().unwrap() = Doubt {
        complete_since: None,
        forgotten_until: NOW + MAX_AGE + MAX_FUTURE - 1,
        setbacks: 1,
    };
    assert_eq!(refused(&gate, NOW - 1, None).as_deref(), Some("M-28"));
    assert_eq!(
        refused(&gate, NOW, None),
        None,
        "what is younger was not forgotten"
    );
    assert_eq!(
        refused(&gate, NOW - 1, Some(&before)).as_deref(),
        Some("M-28"),
        "a nonce from before shows nothing"
    );
    let after = gate.nonce(NOW);
    assert_eq!(refused(&gate, NOW - 1, Some(&after)), None);
    gate.proofs = gate.proofs.demanding(true);
    assert_eq!(refused(&gate, NOW, Some(&before)).as_deref(), Some("R-10"));
    assert_eq!(refused(&gate, NOW, Some(&after)), None);
    world.end().await;
}

#[tokio::test]
async fn a_proof_that_was_forgotten_while_its_body_arrived_is_not_taken() {
    let world = World::start(usual()).await;
    let seen = Arc::new(Forgetful::new(None));
    let mut gate = gate_over(&world, Arc::clone(&seen));
    // A proof that was in order when its head came, and what came in doubt before it was taken.
    let judged = |gate: &Gate, nonce: Option<String>, until: i64, setbacks: u64| {
        let ask = world
            .call("git_log", LOG)
            .claims(move |c| c.nonce = nonce.clone());
        let headers = ask.request().headers().clone();
        let credentials = Credentials::of(&headers).unwrap();
        let presentation = gate.authenticate(&credentials, "POST", URL, NOW).unwrap();
        *seen.then.lock().unwrap() = Some(Doubt {
            complete_since: None,
            forgotten_until: until,
            setbacks,
        });
        let asked = asked(&world, Arc::new(presentation), headers, ask.body);
        let refusal = gate.judge(asked, NOW).verdict.err();
        refusal.map(|refusal| refusal.rule().to_string())
    };
    let end = NOW + MAX_AGE + MAX_FUTURE;
    assert_eq!(judged(&gate, None, end - 1, 1), None, "what is younger is known");
    gate.proofs = gate.proofs.demanding(true);
    let nonce = Some(gate.nonce(NOW));
    assert_eq!(
        judged(&gate, nonce.clone(), end, 1),
        None,
        "it is from after that"
    );
    assert_eq!(judged(&gate, nonce, end, 2).as_deref(), Some("M-28"));
    gate.proofs = gate.proofs.demanding(false);
    seen.doubt.lock().unwrap().forgotten_until = i64::MIN;
    assert_eq!(judged(&gate, None, end, 2).as_deref(), Some("M-28"));
    world.end().await;
}

/// All that an answer says but when it was given.
fn said(answer: Answer) -> (StatusCode, HeaderMap, Bytes) {
    let mut headers = answer.headers;
    headers.remove("date");
    (answer.status, headers, answer.body)
}

#[tokio::test]
async fn who_has_no_capability_learns_nothing_of_what_is_revoked() {
    let world = World::start(Setup {
        feed: true,
        ..usual()
    })
    .await;
    let honest = world.grant();
    let key = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
    let keys = [
        RevocationKey::Subject {
            iss: honest.subject.iss.clone(),
            sub: "mallory".into(),
        },
        RevocationKey::Client("taken-over".into()),
        RevocationKey::Holder(key.public().thumbprint().to_string()),
        RevocationKey::Grant(honest.id.clone()),
    ];
    for (n, what) in (1..).zip(keys) {
        world.revoke(n, what);
    }
    let ask = async |root: &RootKey, key: &PrivateKey, grant: &Grant| {
        let grant = Grant {
            holder: key.public(),
            ..grant.clone()
        };
        let token = issue(&grant, root, &mut rng::os()).unwrap();
        let answer = world.call("git_log", LOG).token(token.as_str()).key(key);
        said(answer.send().await)
    };
    // A root key of one's own, with the number of the real one.
    let forged = RootKey::generate(world.root.id(), &mut rng::os());
    let other = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
    let unrevoked = ask(&forged, &other, &world.grant()).await;
    assert_eq!(unrevoked.0.as_u16(), 401);
    let mut subject = world.grant();
    subject.subject.sub = "mallory".into();
    let client = Grant {
        client: "taken-over".into(),
        ..world.grant()
    };
    let holder = world.grant();
    for (key, grant) in [
        (&other, subject),
        (&other, client),
        (&key, holder),
        (&other, honest),
    ] {
        assert_eq!(ask(&forged, key, &grant).await, unrevoked);
        // Whose token is good is told.
        let told = ask(&world.root, key, &grant).await;
        let told = told.1.get("www-authenticate").unwrap().to_str().unwrap();
        assert!(told.contains("revoked (M-12)"), "{told}");
    }
    assert!(world.upstream.seen().is_empty());
    world.end().await;
}

#[tokio::test]
async fn what_ended_while_its_record_waited_for_the_disk_is_not_forwarded() {
    let world = World::start(Setup {
        feed: true,
        ..usual()
    })
    .await;
    world.page(Vec::new(), 0);
    let shared = &world.shared;
    let server = shared.servers.get("git").unwrap();
    let passed = async |ask: Ask<'_>, meanwhile: &dyn Fn()| {
        let headers = ask.request().headers().clone();
        let credentials = Credentials::of(&headers).unwrap();
        let presentation = shared.gate.authenticate(&credentials, "POST", URL, NOW);
        let presentation = Arc::new(presentation.unwrap());
        let asked = asked(&world, Arc::clone(&presentation), headers, ask.body);
        let judgement = shared.gate.judge(asked, NOW);
        let mut context = AnswerContext::default();
        let settled = shared.settle(judgement, &server.profile, &mut context).await;
        let permitted = settled.unwrap();
        meanwhile();
        let mut account = Account::open(&shared.measured, "d", false);
        let leaving = Leaving {
            permitted,
            decision_id: "d",
            place: None,
        };
        let answer = shared.forward(server, presentation, leaving, &mut account, &world.shutdown);
        answer.await.err().map(|refusal| refusal.rule().to_string())
    };
    let pushes = |grant: &Grant| {
        let token = world.issue(grant);
        world.call("git_push", "{}").token(token.as_str())
    };
    let (one, two) = (world.grant(), world.grant());
    assert_eq!(passed(pushes(&one), &|| {}).await, None);
    assert_eq!(world.upstream.seen().len(), 1);
    let revoke = || world.revoke(1, RevocationKey::Grant(one.id.clone()));
    assert_eq!(passed(pushes(&one), &revoke).await.as_deref(), Some("M-12"));
    let expire = || {
        world.clock.set(NOW + 3600);
        world.page(Vec::new(), 1);
    };
    assert_eq!(passed(pushes(&two), &expire).await.as_deref(), Some("P-15"));
    assert_eq!(world.upstream.seen().len(), 1);
    world.end().await;
}
