//! Public keys of other issuers: a JWK set (RFC 7517), read for signature verification only.
//!
//! A set that publishes a secret (a symmetric key, a private part) or two usable keys with one `kid` is
//! refused as a whole. Keys that cannot be used here (another type or curve, too small, for encryption,
//! malformed) are skipped with a reason, as RFC 7517 §5 asks.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use crate::algorithm::SigningAlgorithm;
use crate::error::JwtError;
use crate::json;

/// The largest set that is read, in bytes.
pub const MAX_SET: usize = 256 * 1024;
/// How many keys a set may have.
pub const MAX_KEYS: usize = 64;
/// The longest key id, in bytes.
pub const MAX_KID: usize = 256;
/// RSA moduli, in bits: below is weak, above is a way to make verification slow.
pub const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A public key that can verify signatures.
#[derive(Clone)]
pub struct Jwk {
    kid: Option<String>,
    algorithm: Option<SigningAlgorithm>,
    kind: KeyKind,
    key: DecodingKey,
}

/// The type of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA with a modulus of at least 2048 bits.
    Rsa,
    /// The curve P-256.
    P256,
    /// The curve P-384.
    P384,
    /// Ed25519.
    Ed25519,
}

/// A set of keys. Usable keys have distinct `kid`s.
#[derive(Clone, Debug)]
pub struct JwkSet {
    keys: Vec<Arc<Jwk>>,
    skipped: Vec<&'static str>,
}

impl Jwk {
    /// The key id.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The type of the key.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Whether the key may verify signatures of this algorithm: its type fits, and its own `alg` if it has
    /// one.
    pub fn supports(&self, algorithm: SigningAlgorithm) -> bool {
        use SigningAlgorithm::{EdDsa, Es256, Es384, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        let fits = match self.kind {
            KeyKind::Rsa => matches!(algorithm, Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512),
            KeyKind::P256 => algorithm == Es256,
            KeyKind::P384 => algorithm == Es384,
            KeyKind::Ed25519 => algorithm == EdDsa,
        };
        fits && self.algorithm.is_none_or(|own| own == algorithm)
    }

    /// Checks a JWS signature, given in base64url.
    pub(crate) fn verify(
        &self,
        algorithm: SigningAlgorithm,
        message: &[u8],
        signature: &str,
    ) -> Result<(), JwtError> {
        if !self.supports(algorithm) {
            return Err(JwtError::KeyMismatch);
        }
        match jsonwebtoken::crypto::verify(signature, message, &self.key, algorithm.library()) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(JwtError::Signature),
        }
    }
}

impl fmt::Debug for Jwk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwk")
            .field("kid", &self.kid)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl JwkSet {
    /// Reads a JWK set of at most [`MAX_SET`] bytes.
    ///
    /// # Errors
    /// [`JwtError::Wire`] when it cannot be read, [`JwtError::KeySet`] when it must not be used: a secret is
    /// published, a `kid` is ambiguous, there are too many keys or no usable one.
    pub fn parse(bytes: &[u8]) -> Result<Self, JwtError> {
        let mut document = json::parse_object(bytes, MAX_SET)?;
        let Some(Value::Array(members)) = document.remove("keys") else {
            return Err(JwtError::KeySet("there is no array `keys`"));
        };
        if members.len() > MAX_KEYS {
            return Err(JwtError::KeySet("too many keys"));
        }
        let mut set = Self {
            keys: Vec::new(),
            skipped: Vec::new(),
        };
        for member in members {
            let Value::Object(member) = member else {
                return Err(JwtError::KeySet("a key is not an object"));
            };
            if member.get("kty").and_then(Value::as_str) == Some("oct") || member.contains_key("d") {
                return Err(JwtError::KeySet("a secret key is published"));
            }
            match read_key(&member) {
                Ok(key) => set.add(key)?,
                Err(reason) => set.skipped.push(reason),
            }
        }
        if set.keys.is_empty() {
            return Err(JwtError::KeySet("there is no usable key"));
        }
        Ok(set)
    }

    /// The usable keys.
    pub fn keys(&self) -> &[Arc<Jwk>] {
        &self.keys
    }

    /// Why each of the other keys is not used; for the operator.
    pub fn skipped(&self) -> &[&'static str] {
        &self.skipped
    }

    /// The key with this id.
    pub fn find(&self, kid: &str) -> Option<&Arc<Jwk>> {
        self.keys.iter().find(|key| key.kid() == Some(kid))
    }

    /// The keys that may verify this algorithm, for a token without `kid`.
    pub fn supporting(&self, algorithm: SigningAlgorithm) -> impl Iterator<Item = &Arc<Jwk>> {
        self.keys.iter().filter(move |key| key.supports(algorithm))
    }

    fn add(&mut self, key: Jwk) -> Result<(), JwtError> {
        if key.kid().is_some_and(|kid| self.find(kid).is_some()) {
            return Err(JwtError::KeySet("a `kid` is used twice"));
        }
        self.keys.push(Arc::new(key));
        Ok(())
    }
}

fn read_key(member: &Map<String, Value>) -> Result<Jwk, &'static str> {
    if text(member, "use")?.is_some_and(|usage| usage != "sig") {
        return Err("the key is not for signatures");
    }
    let verifies = |operations: &Value| {
        operations
            .as_array()
            .is_some_and(|list| list.iter().any(|operation| operation == "verify"))
    };
    if member
        .get("key_ops")
        .is_some_and(|operations| !verifies(operations))
    {
        return Err("the key is not for verification");
    }
    let kid = text(member, "kid")?;
    if kid.is_some_and(|kid| kid.len() > MAX_KID) {
        return Err("the `kid` is too long");
    }
    let algorithm = match text(member, "alg")? {
        None => None,
        Some(name) => Some(
            name.parse()
                .map_err(|_| "the `alg` of the key is not supported")?,
        ),
    };
    let (kind, key) = match text(member, "kty")? {
        Some("RSA") => (KeyKind::Rsa, rsa(member)?),
        Some("EC") => ec(member)?,
        Some("OKP") => (KeyKind::Ed25519, ed25519(member)?),
        _ => return Err("the key type is not supported"),
    };
    Ok(Jwk {
        kid: kid.map(str::to_owned),
        algorithm,
        kind,
        key,
    })
}

fn rsa(member: &Map<String, Value>) -> Result<DecodingKey, &'static str> {
    let (n, e) = (bytes(member, "n")?, bytes(member, "e")?);
    let n = without_leading_zeros(&n);
    let e = without_leading_zeros(&e);
    let bits = n
        .first()
        .map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
    if !RSA_BITS.contains(&bits) {
        return Err("the rsa modulus is too small or too large");
    }
    // Exponents of up to 32 bits, odd and not 1: what verification is fast and sound for.
    if e.len() > 4 || e.last().is_none_or(|last| last % 2 == 0) || e == [1] {
        return Err("the rsa exponent is not usable");
    }
    Ok(DecodingKey::from_rsa_raw_components(n, e))
}

fn ec(member: &Map<String, Value>) -> Result<(KeyKind, DecodingKey), &'static str> {
    let (kind, size) = match text(member, "crv")? {
        Some("P-256") => (KeyKind::P256, 32),
        Some("P-384") => (KeyKind::P384, 48),
        _ => return Err("the curve is not supported"),
    };
    let (x, y) = (bytes(member, "x")?, bytes(member, "y")?);
    if x.len() != size || y.len() != size {
        return Err("a coordinate has the wrong length");
    }
    let mut point = vec![0x04];
    point.extend_from_slice(&x);
    point.extend_from_slice(&y);
    Ok((kind, DecodingKey::from_ec_der(&point)))
}

fn ed25519(member: &Map<String, Value>) -> Result<DecodingKey, &'static str> {
    if text(member, "crv")? != Some("Ed25519") {
        return Err("the curve is not supported");
    }
    let x = bytes(member, "x")?;
    if x.len() != 32 {
        return Err("a coordinate has the wrong length");
    }
    Ok(DecodingKey::from_ed_der(&x))
}

fn text<'a>(member: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, &'static str> {
    match member.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err("a parameter of the key is not a string"),
    }
}

fn bytes(member: &Map<String, Value>, name: &str) -> Result<Vec<u8>, &'static str> {
    let text = text(member, name)?.ok_or("a parameter of the key is missing")?;
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| "a parameter of the key is not base64url")
}

fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestKey, jwk, set};
    use proptest::prelude::*;
    use serde_json::json;

    /// The given key beside one that is surely usable.
    #[track_caller]
    fn check(key: Value, expected: Result<KeyKind, &str>) {
        let mut good = jwk(TestKey::EdOther);
        good["kid"] = json!("good");
        let seen = match JwkSet::parse(json!({"keys": [good, key]}).to_string().as_bytes()) {
            Ok(set) => match set.skipped().first() {
                Some(reason) => Err((*reason).to_owned()),
                None => Ok(set.keys()[1].kind()),
            },
            Err(error) => Err(error.to_string()),
        };
        match (seen, expected) {
            (Ok(got), Ok(kind)) => assert_eq!(got, kind),
            (Err(got), Err(part)) => assert!(got.contains(part), "{got}"),
            (got, _) => panic!("{key}: {got:?}"),
        }
    }

    fn with(key: TestKey, member: &str, value: Value) -> Value {
        let mut key = jwk(key);
        key[member] = value;
        key
    }

    #[test]
    fn usable_keys_pass_and_others_are_skipped_or_condemn_the_set() {
        use TestKey::{Ed, P256, P384, Rsa};
        check(jwk(Rsa), Ok(KeyKind::Rsa));
        check(jwk(P256), Ok(KeyKind::P256));
        check(jwk(P384), Ok(KeyKind::P384));
        check(jwk(Ed), Ok(KeyKind::Ed25519));
        check(with(Ed, "use", json!("sig")), Ok(KeyKind::Ed25519));
        check(with(Ed, "use", json!("enc")), Err("not for signatures"));
        check(with(Ed, "key_ops", json!(["verify"])), Ok(KeyKind::Ed25519));
        check(
            with(Ed, "key_ops", json!(["encrypt"])),
            Err("not for verification"),
        );
        check(with(Ed, "alg", json!("EdDSA")), Ok(KeyKind::Ed25519));
        check(with(Ed, "alg", json!("RSA-OAEP")), Err("`alg`"));
        check(with(Ed, "crv", json!("X25519")), Err("curve"));
        check(with(Ed, "x", json!("AAAA")), Err("length"));
        check(with(Ed, "x", json!("=")), Err("base64url"));
        check(with(Ed, "x", json!(1)), Err("not a string"));
        check(with(Ed, "kid", json!("k".repeat(MAX_KID + 1))), Err("too long"));
        check(with(Ed, "kid", json!("good")), Err("used twice"));
        check(with(Ed, "d", json!("AAAA")), Err("secret"));
        check(with(P256, "crv", json!("P-521")), Err("curve"));
        check(with(P256, "y", json!("AAAA")), Err("length"));
        check(
            with(Rsa, "n", json!(URL_SAFE_NO_PAD.encode([0xff; 255]))),
            Err("modulus"),
        );
        check(
            with(Rsa, "n", json!(URL_SAFE_NO_PAD.encode([0xff; 1025]))),
            Err("modulus"),
        );
        check(with(Rsa, "e", json!("AQ")), Err("exponent"));
        check(with(Rsa, "e", json!("AQAA")), Err("exponent"));
        check(with(Rsa, "e", json!("AQAAAAE")), Err("exponent"));
        check(json!({"kty": "oct", "k": "AAAA"}), Err("secret"));
        check(json!({"kty": "future"}), Err("type"));
    }

    #[test]
    fn leading_zeros_do_not_count_as_bits() {
        let padded = |ones: usize| {
            let mut n = vec![0; 2];
            n.extend(vec![0xff; ones]);
            with(TestKey::Rsa, "n", json!(URL_SAFE_NO_PAD.encode(n)))
        };
        check(padded(256), Ok(KeyKind::Rsa));
        check(padded(255), Err("modulus"));
    }

    #[test]
    fn a_set_is_bounded_and_not_empty() {
        let keys = |n: usize| set(&vec![json!({"kty": "future"}); n - 1], TestKey::Ed);
        assert!(JwkSet::parse(keys(MAX_KEYS).as_bytes()).is_ok());
        assert!(JwkSet::parse(keys(MAX_KEYS + 1).as_bytes()).is_err());
        assert!(JwkSet::parse(br#"{"keys":[]}"#).is_err());
        assert!(JwkSet::parse(br#"{"keys":[1]}"#).is_err());
        assert!(JwkSet::parse(b"{}").is_err());
        assert!(JwkSet::parse(&[b' '; MAX_SET + 1]).is_err());
    }

    #[test]
    fn a_keys_own_algorithm_binds() {
        let any = jwk(TestKey::Rsa);
        let own = with(TestKey::Rsa, "alg", json!("PS256"));
        let supports = |key: Value, algorithm| {
            let set = JwkSet::parse(json!({"keys": [key]}).to_string().as_bytes()).unwrap();
            set.supporting(algorithm).count() == 1
        };
        assert!(supports(any.clone(), SigningAlgorithm::Rs256));
        assert!(supports(own.clone(), SigningAlgorithm::Ps256));
        assert!(!supports(own, SigningAlgorithm::Rs256));
        assert!(!supports(any, SigningAlgorithm::Es256));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = JwkSet::parse(&bytes);
        }
    }
}
