//! Key pairs and signed tokens for this crate's tests. The keys are in `tests/data`.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};

use crate::algorithm::SigningAlgorithm;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TestKey {
    Rsa,
    P256,
    P384,
    Ed,
    EdOther,
}

impl TestKey {
    pub(crate) fn default_algorithm(self) -> SigningAlgorithm {
        match self {
            Self::Rsa => SigningAlgorithm::Rs256,
            Self::P256 => SigningAlgorithm::Es256,
            Self::P384 => SigningAlgorithm::Es384,
            Self::Ed | Self::EdOther => SigningAlgorithm::EdDsa,
        }
    }

    fn encoding_key(self) -> EncodingKey {
        let text = match self {
            Self::Rsa => include_str!("../tests/data/rsa-2048.pkcs1.b64"),
            Self::P256 => include_str!("../tests/data/p256.pkcs8.b64"),
            Self::P384 => include_str!("../tests/data/p384.pkcs8.b64"),
            Self::Ed => include_str!("../tests/data/ed25519.pkcs8.b64"),
            Self::EdOther => include_str!("../tests/data/ed25519-other.pkcs8.b64"),
        };
        let der = STANDARD.decode(text.replace('\n', "")).unwrap();
        match self {
            Self::Rsa => EncodingKey::from_rsa_der(&der),
            Self::P256 | Self::P384 => EncodingKey::from_ec_der(&der),
            Self::Ed | Self::EdOther => EncodingKey::from_ed_der(&der),
        }
    }
}

/// The public key as a JWK without `kid` and `alg`.
pub(crate) fn jwk(key: TestKey) -> Value {
    let algorithm = key.default_algorithm().library();
    let public = jsonwebtoken::jwk::Jwk::from_encoding_key(&key.encoding_key(), algorithm).unwrap();
    let mut value = serde_json::to_value(public).unwrap();
    value.as_object_mut().unwrap().remove("alg");
    value
}

/// A JWK set of the given keys and one test key.
pub(crate) fn set(others: &[Value], key: TestKey) -> String {
    let mut keys = others.to_vec();
    keys.push(jwk(key));
    json!({"keys": keys}).to_string()
}

/// A compact JWS over exactly these texts.
pub(crate) fn sign(key: TestKey, algorithm: SigningAlgorithm, header: &str, claims: &str) -> String {
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &key.encoding_key(), algorithm.library()).unwrap();
    format!("{message}.{signature}")
}
