//! JWTs that we sign for another authorization server: who the client is (RFC 7523 §2.2,
//! `private_key_jwt`), and on whose behalf it asks (the `subject_token` of RFC 8693).

use serde::Serialize;
use taper_dpop::{PrivateKey, sign_compact};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// `client_assertion_type` of RFC 7523 §2.2.
pub const CLIENT_ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// How long an assertion counts, in seconds: it is used at once, and once.
pub const LIFETIME: i64 = 60;

/// The claims of one assertion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Assertion {
    iss: String,
    sub: String,
    aud: String,
    iat: i64,
    exp: i64,
    jti: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub_id: Option<SubjectId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Acting>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant_id: Option<String>,
}

/// A subject that is named together with who knows it by that name (RFC 9493 §3.2.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct SubjectId {
    format: &'static str,
    iss: String,
    sub: String,
}

/// Who acts (RFC 8693 §4.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Acting {
    /// Who knows `sub` by that name.
    pub iss: String,
    /// The actor.
    pub sub: String,
}

/// On whose behalf something is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Behalf<'a> {
    /// Who knows the subject by its name.
    pub subject_issuer: &'a str,
    /// The subject.
    pub subject: &'a str,
    /// Who acts for it: who knows the actor by its name, and the name.
    pub actor: (&'a str, &'a str),
    /// The grant under which it acts.
    pub grant: &'a str,
}

impl Assertion {
    /// That the sender is the client `client_id`. `now` is in seconds since the Unix epoch; `jti` is used
    /// for no other.
    pub fn of_client(client_id: &str, audience: &str, jti: String, now: i64) -> Self {
        Self {
            iss: client_id.to_owned(),
            sub: client_id.to_owned(),
            aud: audience.to_owned(),
            iat: now,
            exp: now.saturating_add(LIFETIME),
            jti,
            sub_id: None,
            act: None,
            grant_id: None,
        }
    }

    /// That `issuer` has verified a grant of the subject to the actor. `sub` is the subject's name, and
    /// `sub_id` names it together with who knows it by that name.
    pub fn on_behalf(issuer: &str, behalf: &Behalf<'_>, audience: &str, jti: String, now: i64) -> Self {
        let (actor_issuer, actor) = behalf.actor;
        Self {
            iss: issuer.to_owned(),
            sub: behalf.subject.to_owned(),
            sub_id: Some(SubjectId {
                format: "iss_sub",
                iss: behalf.subject_issuer.to_owned(),
                sub: behalf.subject.to_owned(),
            }),
            act: Some(Acting {
                iss: actor_issuer.to_owned(),
                sub: actor.to_owned(),
            }),
            grant_id: Some(behalf.grant.to_owned()),
            ..Self::of_client(issuer, audience, jti, now)
        }
    }

    /// Signs it; `kid` is the thumbprint of the key (RFC 7638), as the published set names it. `None` should
    /// the claims not serialise, which no text causes.
    pub fn sign(&self, key: &PrivateKey) -> Option<Secret> {
        let kid = key.public().thumbprint().to_string();
        let claims = Zeroizing::new(serde_json::to_vec(self).ok()?);
        sign_compact(key, &kid, "JWT", &claims).ok().map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    use taper_dpop::Algorithm;

    use super::*;
    use crate::algorithm::SigningAlgorithm;
    use crate::{Expected, JwkSet, TrustedIssuer, UnverifiedJwt};

    fn key() -> PrivateKey {
        PrivateKey::from_bytes(Algorithm::EdDsa, &[7; 32]).unwrap()
    }

    #[test]
    fn what_is_signed_verifies_as_a_jwt_and_names_everybody() {
        for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
            let key = PrivateKey::from_bytes(algorithm, &[7; 32]).unwrap();
            let behalf = Behalf {
                subject_issuer: "https://idp.example",
                subject: "alice",
                actor: ("https://issuer.example", "dev"),
                grant: "g1",
            };
            let assertion = Assertion::on_behalf(
                "https://p.example",
                &behalf,
                "https://as.example",
                "j".into(),
                100,
            );
            let signed = assertion.sign(&key).unwrap();
            let jwt = UnverifiedJwt::parse(signed.expose()).unwrap();
            let kid = key.public().thumbprint().to_string();
            assert_eq!(jwt.kid(), Some(kid.as_str()));
            let mut jwk = serde_json::to_value(key.public().to_jwk()).unwrap();
            jwk["kid"] = kid.into();
            let set = serde_json::json!({ "keys": [jwk] }).to_string();
            let set = JwkSet::parse(set.as_bytes()).unwrap();
            let jwk = set.find(jwt.kid().unwrap()).unwrap();
            let mut trusted = TrustedIssuer::new("https://p.example", vec!["https://as.example".into()]);
            trusted.allow_plain_typ = true;
            trusted.algorithms = vec![SigningAlgorithm::EdDsa, SigningAlgorithm::Es256];
            let claims = jwt.verify(&trusted, jwk, Expected::Jwt, 159).unwrap();
            assert_eq!(claims.sub, "alice");
            assert!(
                jwt.verify(&trusted, jwk, Expected::Jwt, 160).is_err(),
                "it counts 60 s"
            );
        }
    }

    #[test]
    fn the_claims_are_these() {
        let client = Assertion::of_client("proxy", "https://as.example", "j".into(), 100);
        assert_eq!(
            serde_json::to_string(&client).unwrap(),
            r#"{"iss":"proxy","sub":"proxy","aud":"https://as.example","iat":100,"exp":160,"jti":"j"}"#
        );
        let behalf = Behalf {
            subject_issuer: "https://idp.example",
            subject: "alice",
            actor: ("https://issuer.example", "dev"),
            grant: "g1",
        };
        let assertion = Assertion::on_behalf(
            "https://p.example",
            &behalf,
            "https://as.example",
            "j".into(),
            100,
        );
        assert_eq!(
            serde_json::to_string(&assertion).unwrap(),
            concat!(
                r#"{"iss":"https://p.example","sub":"alice","aud":"https://as.example","iat":100,"exp":160,"jti":"j","#,
                r#""sub_id":{"format":"iss_sub","iss":"https://idp.example","sub":"alice"},"#,
                r#""act":{"iss":"https://issuer.example","sub":"dev"},"grant_id":"g1"}"#
            )
        );
        assert!(!format!("{:?}", assertion.sign(&key())).contains("ey"));
    }
}
