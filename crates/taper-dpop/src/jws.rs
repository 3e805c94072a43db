//! A JWS of our own keys: detached (RFC 7515 appendix F), a signature that travels beside the bytes it
//! covers, and compact, for assertions that other servers read.
//!
//! ```text
//! BASE64URL(header) ".." BASE64URL(signature)      over  BASE64URL(header) "." BASE64URL(payload)
//! ```
//!
//! The protected header has exactly `alg`, `kid` and `typ`, so that a signature made for one purpose
//! is none for another. A signing input is ASCII and begins with `eyJ`; what a Biscuit's signature
//! covers has zero bytes. A root key can therefore sign both, and neither is ever the other.

use serde::{Deserialize, Serialize};

use crate::{Algorithm, Error, PrivateKey, PublicKey, base64url_decode, base64url_encode, json};

/// The largest signature text that is looked at, in bytes. One of ours has about 180.
pub const MAX_JWS_BYTES: usize = 1024;

/// Why a detached JWS was refused. No message carries what was signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwsError {
    /// Not two base64url segments around an empty one, or too long.
    #[error("the signature is not a detached JWS of at most {MAX_JWS_BYTES} bytes")]
    Form,
    /// The header is not one JSON object of the three texts.
    #[error("the signature's header does not have exactly `alg`, `kid` and `typ`")]
    Header,
    /// `alg` is not one of ours, or not the key's.
    #[error("the signature's `alg` is not its key's")]
    Alg,
    /// It was made for something else.
    #[error("the signature's `typ` is not `{expected}`")]
    Typ {
        /// What is wanted.
        expected: &'static str,
    },
    /// It does not verify.
    #[error("the signature does not verify")]
    Signature,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    typ: String,
}

/// A parsed detached JWS; nothing about it is known to be true.
#[derive(Debug)]
pub struct DetachedJws<'a> {
    /// The header as it was sent, since that is what was signed.
    header: &'a str,
    alg: Algorithm,
    kid: String,
    signature: Vec<u8>,
}

/// Signs `payload` for the purpose `typ` with the key that its readers know as `kid`.
///
/// # Errors
/// [`JwsError::Header`] should the header not serialise, which no text causes.
pub fn sign_detached(key: &PrivateKey, kid: &str, typ: &str, payload: &[u8]) -> Result<String, JwsError> {
    let header = Header {
        alg: key.algorithm().as_str().to_owned(),
        kid: kid.to_owned(),
        typ: typ.to_owned(),
    };
    let header = base64url_encode(&serde_json::to_vec(&header).map_err(|_| JwsError::Header)?);
    let signature = key.sign(&signing_input(&header, payload));
    Ok(format!("{header}..{}", base64url_encode(&signature)))
}

/// Signs `payload` in compact form (RFC 7515 §7.1), for readers that know the key as `kid`.
///
/// # Errors
/// [`JwsError::Header`] should the header not serialise, which no text causes.
pub fn sign_compact(key: &PrivateKey, kid: &str, typ: &str, payload: &[u8]) -> Result<String, JwsError> {
    let header = Header {
        alg: key.algorithm().as_str().to_owned(),
        kid: kid.to_owned(),
        typ: typ.to_owned(),
    };
    let header = base64url_encode(&serde_json::to_vec(&header).map_err(|_| JwsError::Header)?);
    let mut text = signing_input(&header, payload);
    let signature = key.sign(&text);
    text.push(b'.');
    text.extend_from_slice(base64url_encode(&signature).as_bytes());
    String::from_utf8(text).map_err(|_| JwsError::Form)
}

impl<'a> DetachedJws<'a> {
    /// Parses a signature that was made for the purpose `typ`.
    ///
    /// # Errors
    /// [`JwsError`], but not for the signature itself.
    pub fn parse(text: &'a str, typ: &'static str) -> Result<Self, JwsError> {
        if text.len() > MAX_JWS_BYTES {
            return Err(JwsError::Form);
        }
        let (header, signature) = text.split_once("..").ok_or(JwsError::Form)?;
        let decode = |segment: &str| base64url_decode(segment).map_err(|_| JwsError::Form);
        let (decoded, signature) = (decode(header)?, decode(signature)?);
        let read = json::parse(&decoded).and_then(serde_json::from_value);
        let Header { alg, kid, typ: sent } = read.map_err(|_| JwsError::Header)?;
        if sent != typ {
            return Err(JwsError::Typ { expected: typ });
        }
        Ok(Self {
            header,
            alg: Algorithm::parse(&alg).ok_or(JwsError::Alg)?,
            kid,
            signature,
        })
    }

    /// The key that it claims to be made with; unverified.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Verifies it over the exact bytes of `payload`, strictly ([`PublicKey::verify`]).
    ///
    /// # Errors
    /// [`JwsError::Alg`], [`JwsError::Signature`].
    pub fn verify(&self, key: &PublicKey, payload: &[u8]) -> Result<(), JwsError> {
        if self.alg != key.algorithm() {
            return Err(JwsError::Alg);
        }
        key.verify(&signing_input(self.header, payload), &self.signature)
            .map_err(|_: Error| JwsError::Signature)
    }
}

fn signing_input(header: &str, payload: &[u8]) -> Vec<u8> {
    format!("{header}.{}", base64url_encode(payload)).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::OsRng;

    const TYP: &str = "example+jws";

    fn key(algorithm: Algorithm) -> PrivateKey {
        PrivateKey::generate(algorithm, &mut OsRng)
    }

    /// A signature over `payload` with a header of this text.
    fn made(key: &PrivateKey, header: &str, payload: &[u8]) -> String {
        let header = base64url_encode(header.as_bytes());
        let signature = key.sign(&signing_input(&header, payload));
        format!("{header}..{}", base64url_encode(&signature))
    }

    #[test]
    fn signs_and_verifies_exact_bytes() {
        for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
            let (one, other) = (key(algorithm), key(algorithm));
            let text = sign_detached(&one, "7", TYP, b"payload").unwrap();
            assert!(text.starts_with("eyJ"), "{text}");
            let jws = DetachedJws::parse(&text, TYP).unwrap();
            assert_eq!(jws.kid(), "7");
            assert_eq!(jws.verify(&one.public(), b"payload"), Ok(()));
            assert_eq!(jws.verify(&one.public(), b"Payload"), Err(JwsError::Signature));
            assert_eq!(jws.verify(&other.public(), b"payload"), Err(JwsError::Signature));
        }
    }

    #[test]
    fn the_example_of_rfc_8037_with_its_payload_detached() {
        // Appendix A.4: `alg` alone in the header, which is not one of ours.
        let text = "eyJhbGciOiJFZERTQSJ9..hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        assert_eq!(DetachedJws::parse(text, TYP).err(), Some(JwsError::Header));
        // Appendix A.1 and A.2.
        let key = PublicKey::from_jwk_str(
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        )
        .unwrap();
        let (header, signature) = text.split_once("..").unwrap();
        let jws = DetachedJws {
            header,
            alg: Algorithm::EdDsa,
            kid: String::new(),
            signature: base64url_decode(signature).unwrap(),
        };
        assert_eq!(jws.verify(&key, b"Example of Ed25519 signing"), Ok(()));
    }

    #[test]
    fn another_form_or_header_is_refused() {
        let key = key(Algorithm::EdDsa);
        let check = |text: &str, expected: JwsError| {
            assert_eq!(DetachedJws::parse(text, TYP).err(), Some(expected), "{text}");
        };
        let good = r#"{"alg":"EdDSA","kid":"7","typ":"example+jws"}"#;
        assert!(DetachedJws::parse(&made(&key, good, b""), TYP).is_ok());
        let text = made(&key, good, b"");
        check(&text.replace("..", "."), JwsError::Form);
        check(&text.replace("..", ".cGF5bG9hZA."), JwsError::Form);
        check(&format!("{text}="), JwsError::Form);
        check(&format!("{text}."), JwsError::Form);
        check(&format!("{text}{}", "A".repeat(MAX_JWS_BYTES)), JwsError::Form);
        check("", JwsError::Form);
        for header in [
            r#"{"alg":"EdDSA","kid":"7"}"#,
            r#"{"alg":"EdDSA","kid":7,"typ":"example+jws"}"#,
            r#"{"alg":"EdDSA","kid":"7","typ":"example+jws","crit":[]}"#,
            r#"{"alg":"EdDSA","kid":"7","typ":"example+jws","b64":false}"#,
            r#"{"alg":"EdDSA","kid":"7","kid":"8","typ":"example+jws"}"#,
            r#"{"alg":"EdDSA","kid":"7","typ":"example+jws"} {}"#,
            "[]",
            "",
        ] {
            check(&made(&key, header, b""), JwsError::Header);
        }
        let with = |from: &str, to: &str| made(&key, &good.replace(from, to), b"");
        check(&with("EdDSA", "none"), JwsError::Alg);
        check(&with("example+jws", "dpop+jwt"), JwsError::Typ { expected: TYP });
    }

    #[test]
    fn alg_and_key_belong_together() {
        let (ed, ec) = (key(Algorithm::EdDsa), key(Algorithm::Es256));
        let text = made(&ec, r#"{"alg":"EdDSA","kid":"7","typ":"example+jws"}"#, b"");
        let jws = DetachedJws::parse(&text, TYP).unwrap();
        assert_eq!(jws.verify(&ec.public(), b""), Err(JwsError::Alg));
        assert_eq!(jws.verify(&ed.public(), b""), Err(JwsError::Signature));
    }
}
