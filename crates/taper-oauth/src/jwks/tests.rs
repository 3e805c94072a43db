//! The cache as a table of steps.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::testing::{TestKey, jwk};

const ISS: &str = "https://id.example/t";
const JWKS: &str = "https://keys.example/jwks";
const ALG: SigningAlgorithm = SigningAlgorithm::EdDsa;

fn cache(jwks_uri: Option<&str>) -> JwksCache {
    let source = KeySource {
        issuer: ISS.to_owned(),
        jwks_uri: jwks_uri.map(str::to_owned),
    };
    JwksCache::new(JwksLimits::default(), [source]).unwrap()
}

fn keys(kids: &[(&str, TestKey)]) -> Vec<u8> {
    let key = |(kid, key): &(&str, TestKey)| {
        let mut public = jwk(*key);
        public["kid"] = json!(kid);
        public
    };
    json!({"keys": kids.iter().map(key).collect::<Vec<Value>>()})
        .to_string()
        .into_bytes()
}

fn discovery(issuer: &str, jwks_uri: &str) -> Vec<u8> {
    json!({"issuer": issuer, "jwks_uri": jwks_uri, "token_endpoint": "x"})
        .to_string()
        .into_bytes()
}

/// The answer in one word, with the address of a fetch.
fn say(lookup: Lookup) -> String {
    match lookup {
        Lookup::Key(key) => format!("key {}", key.kid().unwrap_or("-")),
        Lookup::Fetch(FetchPlan::Jwks { url }) => format!("fetch {url}"),
        Lookup::Fetch(FetchPlan::Discovery { urls }) => format!("discover {}", urls.join(" ")),
        Lookup::Wait => "wait".to_owned(),
        Lookup::Refuse(reason) => format!("refuse: {reason}"),
    }
}

#[track_caller]
fn check(cache: &mut JwksCache, kid: &str, now: i64, expected: &str) {
    assert_eq!(say(cache.lookup(ISS, Some(kid), ALG, now)), expected);
}

/// A cache whose keys `a` were fetched at 0.
fn filled() -> JwksCache {
    let mut cache = cache(Some(JWKS));
    check(&mut cache, "a", 0, "fetch https://keys.example/jwks");
    assert_eq!(cache.apply_jwks(ISS, &keys(&[("a", TestKey::Ed)]), 0), Ok(vec![]));
    check(&mut cache, "a", 0, "key a");
    cache
}

const FETCH: &str = "fetch https://keys.example/jwks";
const DISCOVER: &str = "discover https://id.example/t/.well-known/openid-configuration \
                        https://id.example/.well-known/oauth-authorization-server/t";
const UNKNOWN: &str = "refuse: the issuer has no such key";
const UNAVAILABLE: &str = "refuse: the issuer's keys are not available";

#[test]
fn discovery_comes_first_and_others_wait() {
    let mut cache = cache(None);
    check(&mut cache, "a", 0, DISCOVER);
    check(&mut cache, "a", 1, "wait");
    cache.apply_discovery(ISS, &discovery(ISS, JWKS), 2).unwrap();
    check(&mut cache, "a", 2, FETCH);
    check(&mut cache, "a", 3, "wait");
    cache.apply_jwks(ISS, &keys(&[("a", TestKey::Ed)]), 4).unwrap();
    check(&mut cache, "a", 4, "key a");
}

#[test]
fn a_second_document_may_help() {
    let mut cache = cache(None);
    check(&mut cache, "a", 0, DISCOVER);
    assert!(cache.apply_discovery(ISS, b"<html>", 1).is_err());
    assert_eq!(cache.apply_discovery(ISS, &discovery(ISS, JWKS), 1), Ok(()));
}

#[test]
fn a_discovery_document_is_for_this_issuer_and_names_https() {
    let apply = |limits: JwksLimits, document: &[u8]| {
        let source = KeySource {
            issuer: ISS.to_owned(),
            jwks_uri: None,
        };
        let mut cache = JwksCache::new(limits, [source]).unwrap();
        check(&mut cache, "a", 0, DISCOVER);
        cache.apply_discovery(ISS, document, 0).is_ok()
    };
    let strict = JwksLimits::default();
    let development = JwksLimits {
        allow_loopback_http: true,
        ..strict
    };
    assert!(apply(strict, &discovery(ISS, JWKS)));
    assert!(!apply(strict, &discovery("https://id.example/t/", JWKS)));
    assert!(!apply(strict, &discovery("https://id.example", JWKS)));
    assert!(!apply(strict, &discovery(ISS, "http://keys.example/jwks")));
    assert!(!apply(strict, &discovery(ISS, "http://127.0.0.1:1/jwks")));
    assert!(apply(development, &discovery(ISS, "http://127.0.0.1:1/jwks")));
    assert!(!apply(development, &discovery(ISS, "http://keys.example/jwks")));
    assert!(!apply(strict, br#"{"issuer":"https://id.example/t"}"#));
    assert!(!apply(strict, &vec![b' '; metadata::MAX_DOCUMENT + 1]));
}

#[test]
fn a_configured_source_is_https_too() {
    let new = |issuer: &str, jwks_uri: Option<&str>, allow_loopback_http: bool| {
        let limits = JwksLimits {
            allow_loopback_http,
            ..JwksLimits::default()
        };
        let source = KeySource {
            issuer: issuer.to_owned(),
            jwks_uri: jwks_uri.map(str::to_owned),
        };
        JwksCache::new(limits, [source]).is_ok()
    };
    assert!(new(ISS, Some(JWKS), false));
    assert!(!new("http://127.0.0.1:1", None, false));
    assert!(new("http://127.0.0.1:1", None, true));
    assert!(!new(ISS, Some("http://127.0.0.1:1/jwks"), false));
    assert!(new(ISS, Some("http://127.0.0.1:1/jwks"), true));
}

#[test]
fn keys_are_refreshed_after_their_age() {
    let mut cache = filled();
    check(&mut cache, "a", 599, "key a");
    check(&mut cache, "a", 600, FETCH);
    // While one caller refreshes, the others go on with the old keys.
    check(&mut cache, "a", 600, "key a");
    cache
        .apply_jwks(ISS, &keys(&[("b", TestKey::EdOther)]), 601)
        .unwrap();
    check(&mut cache, "b", 601, "key b");
    check(&mut cache, "a", 601, UNKNOWN);
}

#[test]
fn an_unknown_kid_refreshes_once_per_floor_whatever_is_asked() {
    let mut cache = filled();
    for kid in ["x", "y", "z"] {
        check(&mut cache, kid, 29, UNKNOWN);
    }
    check(&mut cache, "x", 30, FETCH);
    check(&mut cache, "b", 31, "wait");
    check(&mut cache, "a", 31, "key a");
    cache
        .apply_jwks(ISS, &keys(&[("a", TestKey::Ed), ("b", TestKey::EdOther)]), 32)
        .unwrap();
    check(&mut cache, "b", 32, "key b");
    for kid in ["x", "y", "z"] {
        check(&mut cache, kid, 59, UNKNOWN);
    }
    check(&mut cache, "x", 60, FETCH);
}

#[test]
fn old_keys_serve_for_a_bounded_time_when_the_issuer_fails() {
    let mut cache = filled();
    check(&mut cache, "a", 600, FETCH);
    cache.fetch_failed(ISS, 605);
    check(&mut cache, "a", 606, "key a");
    check(&mut cache, "x", 606, UNKNOWN);
    check(&mut cache, "a", 630, FETCH);
    cache.fetch_failed(ISS, 630);
    check(&mut cache, "a", 4190, FETCH);
    cache.fetch_failed(ISS, 4190);
    check(&mut cache, "a", 4199, "key a");
    check(&mut cache, "a", 4200, UNAVAILABLE);
    check(&mut cache, "a", 4220, FETCH);
}

#[test]
fn a_set_that_must_not_be_used_counts_as_a_failure() {
    let mut cache = filled();
    check(&mut cache, "x", 100, FETCH);
    assert!(
        cache
            .apply_jwks(ISS, br#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#, 100)
            .is_err()
    );
    check(&mut cache, "a", 101, "key a");
    check(&mut cache, "x", 101, UNKNOWN);
}

#[test]
fn a_failed_first_fetch_is_not_repeated_within_the_floor() {
    let mut cache = cache(None);
    check(&mut cache, "a", 0, DISCOVER);
    cache.fetch_failed(ISS, 5);
    check(&mut cache, "a", 29, UNAVAILABLE);
    check(&mut cache, "a", 30, DISCOVER);
}

#[test]
fn a_fetch_that_never_reports_is_taken_over() {
    let mut cache = cache(Some(JWKS));
    check(&mut cache, "a", 0, FETCH);
    check(&mut cache, "a", 29, "wait");
    check(&mut cache, "a", 30, FETCH);
}

#[test]
fn discovery_is_repeated_after_its_age() {
    let mut cache = cache(None);
    check(&mut cache, "a", 0, DISCOVER);
    cache.apply_discovery(ISS, &discovery(ISS, JWKS), 0).unwrap();
    check(&mut cache, "a", 0, FETCH);
    cache.apply_jwks(ISS, &keys(&[("a", TestKey::Ed)]), 0).unwrap();
    check(&mut cache, "a", 3599, FETCH);
    cache.apply_jwks(ISS, &keys(&[("a", TestKey::Ed)]), 3599).unwrap();
    check(&mut cache, "a", 4300, DISCOVER);
}

#[test]
fn nothing_is_taken_that_nobody_asked_for() {
    let mut cache = filled();
    assert_eq!(
        cache.apply_jwks(ISS, &keys(&[("b", TestKey::Ed)]), 1),
        Err(JwtError::NotFetching)
    );
    assert_eq!(
        cache.apply_discovery(ISS, &discovery(ISS, JWKS), 1),
        Err(JwtError::NotFetching)
    );
    assert_eq!(
        cache.apply_jwks("https://x.example", b"{}", 1),
        Err(JwtError::UnknownIssuer)
    );
    assert_eq!(
        say(cache.lookup("https://x.example", Some("a"), ALG, 1)),
        "refuse: the issuer is not trusted"
    );
}

#[test]
fn without_a_kid_the_only_fitting_key_is_meant() {
    let lookup = |kids: &[(&str, TestKey)]| {
        let mut cache = filled();
        check(&mut cache, "x", 100, FETCH);
        cache.apply_jwks(ISS, &keys(kids), 100).unwrap();
        say(cache.lookup(ISS, None, ALG, 101))
    };
    assert_eq!(lookup(&[("a", TestKey::Ed), ("r", TestKey::Rsa)]), "key a");
    assert_eq!(
        lookup(&[("a", TestKey::Ed), ("b", TestKey::EdOther)]),
        "refuse: the token names no key and several fit"
    );
    assert_eq!(lookup(&[("r", TestKey::Rsa)]), UNKNOWN);
}

#[test]
fn a_clock_that_is_set_back_does_not_keep_keys_alive() {
    let mut cache = filled();
    check(&mut cache, "a", -10, FETCH);
    cache.fetch_failed(ISS, -10);
    check(&mut cache, "a", -5, UNAVAILABLE);
}

proptest! {
    /// Whatever is asked and reported, one issuer is not asked for twice within the floor.
    #[test]
    fn fetches_keep_their_distance(steps in proptest::collection::vec((0_u8..6, 0_i64..40), 1..80)) {
        let mut cache = cache(Some(JWKS));
        let (mut now, mut last_fetch) = (0, None);
        for (step, wait) in steps {
            now += wait;
            match step {
                0 => drop(cache.apply_jwks(ISS, &keys(&[("a", TestKey::Ed)]), now)),
                1 => drop(cache.apply_jwks(ISS, b"broken", now)),
                2 => cache.fetch_failed(ISS, now),
                kid => {
                    if let Lookup::Fetch(_) = cache.lookup(ISS, Some(["a", "b", "c"][usize::from(kid - 3)]), ALG, now) {
                        prop_assert!(last_fetch.is_none_or(|last| now - last >= 30));
                        last_fetch = Some(now);
                    }
                }
            }
        }
    }
}
