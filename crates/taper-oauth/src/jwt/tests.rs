//! Every refusal on its own, beside a twin that passes.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::WireError;
use crate::jwk::JwkSet;
use crate::testing::{TestKey, jwk, sign};

const ISS: &str = "https://id.example";
const NOW: i64 = 1_000;

/// A token and everything it is checked against; each test changes one thing.
struct Case {
    key: TestKey,
    algorithm: SigningAlgorithm,
    header: Value,
    claims: Value,
    issuer: TrustedIssuer,
    jwk: Value,
    expected: Expected<'static>,
    now: i64,
}

impl Case {
    fn new(key: TestKey) -> Self {
        let mut public = jwk(key);
        public["kid"] = json!("k1");
        let algorithm = key.default_algorithm();
        Self {
            key,
            algorithm,
            header: json!({"alg": algorithm.as_str(), "typ": "at+jwt", "kid": "k1"}),
            claims: json!({
                "iss": ISS, "sub": "alice", "aud": "https://taper.example", "client_id": "web",
                "exp": NOW + 60, "iat": NOW - 5, "groups": ["eng"],
            }),
            issuer: TrustedIssuer::new(ISS, vec!["https://taper.example".to_owned()]),
            jwk: public,
            expected: Expected::AccessToken,
            now: NOW,
        }
    }

    fn text(&self) -> String {
        sign(
            self.key,
            self.algorithm,
            &self.header.to_string(),
            &self.claims.to_string(),
        )
    }

    fn verify_text(&self, text: &str) -> Result<SubjectClaims, JwtError> {
        let set = JwkSet::parse(json!({"keys": [self.jwk]}).to_string().as_bytes())?;
        UnverifiedJwt::parse(text)?.verify(&self.issuer, &set.keys()[0], self.expected, self.now)
    }
}

#[track_caller]
fn check(change: impl FnOnce(&mut Case), expected: Result<(), JwtError>) {
    let mut case = Case::new(TestKey::Ed);
    change(&mut case);
    assert_eq!(case.verify_text(&case.text()).map(|_| ()), expected);
}

#[test]
fn every_algorithm_verifies_and_a_changed_token_does_not() {
    for algorithm in SigningAlgorithm::ALL {
        let key = match algorithm {
            SigningAlgorithm::Es256 => TestKey::P256,
            SigningAlgorithm::Es384 => TestKey::P384,
            SigningAlgorithm::EdDsa => TestKey::Ed,
            _ => TestKey::Rsa,
        };
        let mut case = Case::new(key);
        case.algorithm = algorithm;
        case.header["alg"] = json!(algorithm.as_str());
        case.issuer.algorithms = vec![algorithm];
        let text = case.text();
        let claims = case
            .verify_text(&text)
            .unwrap_or_else(|error| panic!("{algorithm}: {error}"));
        assert_eq!(
            (claims.sub.as_str(), claims.client_id.as_deref()),
            ("alice", Some("web"))
        );

        let mut changed = case.claims.clone();
        changed["sub"] = json!("mallory");
        let payload = URL_SAFE_NO_PAD.encode(changed.to_string());
        let parts: Vec<&str> = text.split('.').collect();
        let forged = format!("{}.{payload}.{}", parts[0], parts[2]);
        assert_eq!(case.verify_text(&forged), Err(JwtError::Signature), "{algorithm}");
        assert_eq!(
            case.verify_text(&format!("{}.{}.", parts[0], parts[1])),
            Err(JwtError::Signature)
        );
    }
}

#[test]
fn the_key_and_the_algorithm_must_fit() {
    check(|c| c.key = TestKey::EdOther, Err(JwtError::Signature));
    check(
        |c| c.issuer.algorithms = vec![SigningAlgorithm::Rs256],
        Err(JwtError::AlgorithmNotAccepted(SigningAlgorithm::EdDsa)),
    );
    check(|c| c.header["kid"] = json!("k2"), Err(JwtError::KeyMismatch));
    check(|c| drop(c.header.as_object_mut().unwrap().remove("kid")), Ok(()));
    check(|c| c.jwk["alg"] = json!("EdDSA"), Ok(()));
    let mut case = Case::new(TestKey::Rsa);
    assert!(case.verify_text(&case.text()).is_ok());
    case.jwk["alg"] = json!("PS256");
    assert_eq!(case.verify_text(&case.text()), Err(JwtError::KeyMismatch));
    // An algorithm of another key type, accepted from this issuer, against this key.
    check(|c| c.header["alg"] = json!("ES256"), Err(JwtError::KeyMismatch));
    // The header names PS256, the signature is RS256.
    let mut case = Case::new(TestKey::Rsa);
    case.header["alg"] = json!("PS256");
    assert_eq!(case.verify_text(&case.text()), Err(JwtError::Signature));
}

#[test]
fn symmetric_and_absent_algorithms_do_not_parse() {
    for alg in ["none", "HS256", "NONE", ""] {
        check(
            |c| c.header["alg"] = json!(alg),
            Err(JwtError::Wire(WireError::Algorithm(alg.to_owned()))),
        );
    }
    check(
        |c| c.header["alg"] = json!(["EdDSA"]),
        Err(JwtError::Malformed("a header parameter is not a string")),
    );
    check(
        |c| drop(c.header.as_object_mut().unwrap().remove("alg")),
        Err(JwtError::Malformed("`alg` is missing")),
    );
}

#[test]
fn header_extensions_refuse_and_foreign_keys_are_not_looked_at() {
    check(
        |c| c.header["crit"] = json!(["exp"]),
        Err(JwtError::CriticalHeader),
    );
    check(|c| c.header["crit"] = json!([]), Err(JwtError::CriticalHeader));
    check(|c| c.header["b64"] = json!(false), Err(JwtError::CriticalHeader));
    check(
        |c| c.header["kid"] = json!("k".repeat(MAX_KID + 1)),
        Err(JwtError::Malformed("`kid` is too long")),
    );
    let add_foreign = |c: &mut Case| {
        c.header["jwk"] = jwk(TestKey::EdOther);
        c.header["jku"] = json!("https://evil.example/jwks");
        c.header["x5u"] = json!("https://evil.example/x5u");
        c.header["x5c"] = json!(["AAAA"]);
    };
    check(add_foreign, Ok(()));
    check(
        |c| {
            add_foreign(c);
            c.key = TestKey::EdOther;
        },
        Err(JwtError::Signature),
    );
}

#[test]
fn the_issuer_is_exact() {
    check(
        |c| c.claims["iss"] = json!("https://id.example/"),
        Err(JwtError::Issuer),
    );
    check(
        |c| c.claims["iss"] = json!("https://ID.example"),
        Err(JwtError::Issuer),
    );
    check(
        |c| drop(c.claims.as_object_mut().unwrap().remove("iss")),
        Err(JwtError::MissingClaim("iss")),
    );
}

#[test]
fn the_audience_names_this_server() {
    check(
        |c| c.claims["aud"] = json!(["x", "https://taper.example"]),
        Ok(()),
    );
    check(
        |c| c.claims["aud"] = json!("https://other.example"),
        Err(JwtError::Audience),
    );
    check(
        |c| c.claims["aud"] = json!("https://taper.example/"),
        Err(JwtError::Audience),
    );
    check(|c| c.issuer.audiences.clear(), Err(JwtError::Audience));
    check(|c| c.issuer.audiences.push("b".to_owned()), Ok(()));
    check(
        |c| drop(c.claims.as_object_mut().unwrap().remove("aud")),
        Err(JwtError::MissingClaim("aud")),
    );
}

#[test]
fn times_are_checked_against_now() {
    check(|c| c.now = NOW + 59, Ok(()));
    check(|c| c.now = NOW + 60, Err(JwtError::Expired));
    check(
        |c| drop(c.claims.as_object_mut().unwrap().remove("exp")),
        Err(JwtError::MissingClaim("exp")),
    );
    check(|c| c.claims["nbf"] = json!(NOW + 60), Ok(()));
    check(|c| c.claims["nbf"] = json!(NOW + 61), Err(JwtError::NotYetValid));
    check(|c| c.claims["iat"] = json!(NOW + 60), Ok(()));
    check(
        |c| c.claims["iat"] = json!(NOW + 61),
        Err(JwtError::IssuedInFuture),
    );
    check(
        |c| c.claims["nbf"] = json!("soon"),
        Err(JwtError::MalformedClaim("nbf")),
    );
    check(
        |c| {
            c.issuer.skew = 0;
            c.claims["iat"] = json!(NOW + 1);
        },
        Err(JwtError::IssuedInFuture),
    );
}

#[test]
fn typ_fits_what_is_declared() {
    let typ = |typ: Option<&str>, expected: Expected<'static>, plain: bool, result: Result<(), JwtError>| {
        check(
            |c| {
                c.expected = expected;
                c.issuer.allow_plain_typ = plain;
                if let Expected::IdToken {
                    confidential_client: Some(client),
                } = expected
                {
                    c.issuer.id_token_clients = vec![client.to_owned()];
                    c.claims["aud"] = json!(client);
                }
                match typ {
                    Some(typ) => c.header["typ"] = json!(typ),
                    None => drop(c.header.as_object_mut().unwrap().remove("typ")),
                }
            },
            result,
        );
    };
    let id_token = Expected::IdToken {
        confidential_client: Some("web"),
    };
    for expected in [Expected::AccessToken, Expected::Jwt] {
        typ(Some("at+jwt"), expected, false, Ok(()));
        typ(Some("application/at+jwt"), expected, false, Ok(()));
        typ(Some("AT+JWT"), expected, false, Ok(()));
        typ(Some("JWT"), expected, true, Ok(()));
        typ(None, expected, true, Ok(()));
        typ(Some("JWT"), expected, false, Err(JwtError::WrongType));
        typ(None, expected, false, Err(JwtError::WrongType));
        for other in ["dpop+jwt", "logout+jwt", "oauth-id-jag+jwt", "jwt+jwt", ""] {
            typ(Some(other), expected, true, Err(JwtError::WrongType));
        }
    }
    typ(Some("JWT"), id_token, false, Ok(()));
    typ(None, id_token, false, Ok(()));
    typ(Some("at+jwt"), id_token, true, Err(JwtError::WrongType));
    typ(Some("logout+jwt"), id_token, true, Err(JwtError::WrongType));
}

#[test]
fn an_id_token_does_not_pass_as_an_access_token() {
    let plain = |c: &mut Case| {
        c.header["typ"] = json!("JWT");
        c.issuer.allow_plain_typ = true;
    };
    check(plain, Ok(()));
    for hash in ["at_hash", "c_hash", "s_hash"] {
        check(
            |c| {
                plain(c);
                c.claims[hash] = json!("x");
            },
            Err(JwtError::WrongType),
        );
    }
}

#[test]
fn an_id_token_comes_from_its_own_confidential_client() {
    let id_token = |c: &mut Case| {
        c.header["typ"] = json!("JWT");
        c.claims["aud"] = json!("web");
        c.issuer.id_token_clients = vec!["web".to_owned(), "other".to_owned()];
        c.expected = Expected::IdToken {
            confidential_client: Some("web"),
        };
    };
    let with = |change: fn(&mut Case), expected| {
        check(
            |c| {
                id_token(c);
                change(c);
            },
            expected,
        );
    };
    with(|_| {}, Ok(()));
    with(
        |c| {
            c.expected = Expected::IdToken {
                confidential_client: None,
            }
        },
        Err(JwtError::Client),
    );
    with(
        |c| {
            c.expected = Expected::IdToken {
                confidential_client: Some("other"),
            }
        },
        Err(JwtError::Client),
    );
    with(|c| c.issuer.id_token_clients.clear(), Err(JwtError::Client));
    with(
        |c| c.claims["aud"] = json!("https://taper.example"),
        Err(JwtError::Client),
    );
    with(|c| c.claims["azp"] = json!("web"), Ok(()));
    with(|c| c.claims["azp"] = json!("other"), Err(JwtError::Client));
    with(|c| c.claims["aud"] = json!(["web", "x"]), Err(JwtError::Client));
    with(
        |c| {
            c.claims["aud"] = json!(["web", "x"]);
            c.claims["azp"] = json!("web");
        },
        Ok(()),
    );
}

#[test]
fn claims_that_bind_are_read() {
    check(
        |c| c.claims["cnf"] = json!({"x5t#S256": "x"}),
        Err(JwtError::Confirmation),
    );
    check(
        |c| c.claims["act"] = json!("x"),
        Err(JwtError::MalformedClaim("act")),
    );
}

#[test]
fn claims_with_duplicate_members_are_refused() {
    let case = Case::new(TestKey::Ed);
    let claims = case.claims.to_string();
    let signed = |claims: &str| sign(case.key, case.algorithm, &case.header.to_string(), claims);
    assert!(case.verify_text(&signed(&claims)).is_ok());
    let doubled = claims.replacen('{', r#"{"sub":"mallory","#, 1);
    assert!(matches!(
        case.verify_text(&signed(&doubled)),
        Err(JwtError::Wire(WireError::Json(_)))
    ));
    let header = r#"{"alg":"EdDSA","alg":"EdDSA","typ":"at+jwt","kid":"k1"}"#;
    let text = sign(case.key, case.algorithm, header, &claims);
    assert!(matches!(
        case.verify_text(&text),
        Err(JwtError::Wire(WireError::Json(_)))
    ));
}

#[test]
fn a_token_has_three_parts_and_a_limit() {
    let case = Case::new(TestKey::Ed);
    let text = case.text();
    assert_eq!(UnverifiedJwt::parse(&text).unwrap().claimed_issuer(), ISS);
    let two_parts = text.rsplit_once('.').unwrap().0;
    for malformed in [
        two_parts,
        &format!("{text}.x"),
        &format!(" {text}"),
        &text.replacen('.', "=.", 1),
        "",
    ] {
        assert!(
            matches!(UnverifiedJwt::parse(malformed), Err(JwtError::Malformed(_))),
            "{malformed}"
        );
    }
    let long = "a".repeat(MAX_JWT + 1);
    assert_eq!(
        UnverifiedJwt::parse(&long).map(|_| ()),
        Err(JwtError::Wire(WireError::TooLarge { limit: MAX_JWT }))
    );
}

#[test]
fn a_token_does_not_print() {
    let text = Case::new(TestKey::Ed).text();
    let shown = format!("{:?}", UnverifiedJwt::parse(&text).unwrap());
    assert_eq!(
        shown,
        r#"UnverifiedJwt { algorithm: EdDsa, kid: Some("k1"), typ: Some("at+jwt"), .. }"#
    );
}

proptest! {
    #[test]
    fn any_text_is_answered(text in "[a-zA-Z0-9_.=-]{0,200}") {
        let _ = UnverifiedJwt::parse(&text);
    }

    #[test]
    fn any_changed_byte_is_refused(position in any::<proptest::sample::Index>(), byte in b'!'..=b'~') {
        let case = Case::new(TestKey::Ed);
        let text = case.text();
        let mut changed = text.clone().into_bytes();
        let at = position.index(changed.len());
        changed[at] = byte;
        let changed = String::from_utf8(changed).unwrap();
        prop_assume!(changed != text);
        prop_assert!(case.verify_text(&changed).is_err());
    }
}
