//! Each claim on its own, and the limits.

use super::*;
use serde_json::json;

const JKT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";

fn read(changes: Value) -> Result<SubjectClaims, JwtError> {
    let mut claims = json!({"iss": "https://id.example", "sub": "alice", "aud": "taper", "exp": 100});
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    SubjectClaims::read(claims.as_object().unwrap())
}

#[track_caller]
fn check(changes: Value, expected: Result<(), JwtError>) {
    assert_eq!(read(changes.clone()).map(|_| ()), expected, "{changes}");
}

#[test]
fn each_claim_is_checked_on_its_own() {
    use JwtError::{Confirmation, MalformedClaim, MissingClaim};
    check(json!({}), Ok(()));
    check(json!({"iss": null}), Err(MissingClaim("iss")));
    check(json!({"iss": 1}), Err(MalformedClaim("iss")));
    check(json!({"sub": null}), Err(MissingClaim("sub")));
    check(json!({"sub": ""}), Err(MalformedClaim("sub")));
    check(json!({"sub": "a\nb"}), Err(MalformedClaim("sub")));
    check(json!({"sub": "a".repeat(MAX_IDENTIFIER)}), Ok(()));
    check(
        json!({"sub": "a".repeat(MAX_IDENTIFIER + 1)}),
        Err(MalformedClaim("sub")),
    );
    check(json!({"aud": null}), Err(MissingClaim("aud")));
    check(json!({"aud": []}), Err(MalformedClaim("aud")));
    check(json!({"aud": ["a", 1]}), Err(MalformedClaim("aud")));
    check(json!({"exp": null}), Err(MissingClaim("exp")));
    check(json!({"exp": "100"}), Err(MalformedClaim("exp")));
    check(json!({"exp": -1}), Err(MalformedClaim("exp")));
    check(json!({"exp": 1e300}), Err(MalformedClaim("exp")));
    check(json!({"exp": u64::MAX}), Err(MalformedClaim("exp")));
    check(json!({"iat": true}), Err(MalformedClaim("iat")));
    check(json!({"client_id": 1}), Err(MalformedClaim("client_id")));
    check(json!({"act": {"sub": "agent"}}), Ok(()));
    check(
        json!({"act": {"iss": "https://id.example"}}),
        Err(MalformedClaim("act")),
    );
    check(json!({"act": "agent"}), Err(MalformedClaim("act")));
    check(
        json!({"act": {"sub": "a", "act": {}}}),
        Err(MalformedClaim("act")),
    );
    check(json!({"may_act": {"sub": "agent"}}), Ok(()));
    check(json!({"may_act": {"client_id": "agent"}}), Ok(()));
    check(
        json!({"may_act": {"iss": "https://id.example"}}),
        Err(MalformedClaim("may_act")),
    );
    check(
        json!({"may_act": {"sub": "agent", "device": "x"}}),
        Err(MalformedClaim("may_act")),
    );
    check(
        json!({"may_act": [{"sub": "agent"}]}),
        Err(MalformedClaim("may_act")),
    );
    check(json!({"cnf": {"jkt": JKT}}), Ok(()));
    check(json!({"cnf": {"jkt": "short"}}), Err(Confirmation));
    check(json!({"cnf": {"x5t#S256": JKT}}), Err(Confirmation));
    check(json!({"cnf": {"jkt": JKT, "x5t#S256": JKT}}), Err(Confirmation));
    check(json!({"cnf": {}}), Err(Confirmation));
    check(json!({"cnf": "x"}), Err(Confirmation));
}

#[test]
fn act_nests_to_a_limit_and_inherits_the_issuer() {
    let nested = |levels: usize| {
        (0..levels).fold(Value::Null, |inner, level| {
            let mut act = json!({"sub": format!("a{level}")});
            if !inner.is_null() {
                act["act"] = inner;
            }
            act
        })
    };
    check(json!({"act": nested(MAX_ACTORS)}), Ok(()));
    check(
        json!({"act": nested(MAX_ACTORS + 1)}),
        Err(JwtError::MalformedClaim("act")),
    );
    let act = read(json!({"act": {"iss": "https://b.example", "sub": "b", "act": {"sub": "a"}}}))
        .unwrap()
        .act;
    let inner = Actor {
        iss: "https://id.example".into(),
        sub: "a".into(),
        act: None,
    };
    assert_eq!(
        act,
        Some(Actor {
            iss: "https://b.example".into(),
            sub: "b".into(),
            act: Some(Box::new(inner))
        })
    );
}

#[test]
fn values_are_read() {
    let claims = read(json!({"azp": "web", "aud": ["a", "b"], "exp": 100.9, "iat": 7, "jti": "x"})).unwrap();
    assert_eq!(claims.client_id.as_deref(), Some("web"));
    assert_eq!(claims.aud, ["a", "b"]);
    assert_eq!(
        (claims.exp, claims.iat, claims.jti.as_deref()),
        (100, Some(7), Some("x"))
    );
    let claims = read(json!({"azp": "web", "client_id": "cli"})).unwrap();
    assert_eq!(claims.client_id.as_deref(), Some("cli"));
}

#[test]
fn policies_see_strings_and_arrays_of_strings() {
    let claims = read(json!({
        "groups": ["eng", "ops"], "email": "a@b.example", "admin": true, "level": 3,
        "mixed": ["a", 1], "address": {"country": "AT"}, "nonce": "n"
    }));
    let expected = BTreeMap::from([
        ("email".to_owned(), vec!["a@b.example".to_owned()]),
        ("groups".to_owned(), vec!["eng".to_owned(), "ops".to_owned()]),
    ]);
    assert_eq!(claims.unwrap().claims, expected);
}

#[test]
fn too_many_claims_refuse_instead_of_being_dropped() {
    let many = |n: usize| {
        (0..n)
            .map(|i| (format!("c{i}"), json!("v")))
            .collect::<Map<_, _>>()
    };
    check(Value::Object(many(MAX_CLAIMS)), Ok(()));
    check(Value::Object(many(MAX_CLAIMS + 1)), Err(JwtError::TooManyClaims));
    check(json!({"groups": vec!["g"; MAX_VALUES]}), Ok(()));
    check(
        json!({"groups": vec!["g"; MAX_VALUES + 1]}),
        Err(JwtError::TooManyClaims),
    );
}
