//! The one key type: Ed25519 and P-256 holder keys, as JWK (RFC 7517, 8037), with their RFC 7638
//! thumbprint. Each key has exactly one accepted encoding, and weak keys are refused on parse.

use crate::rule::r;
use crate::{Error, base64url_decode, base64url_encode};
use ed25519_dalek::{Signer as _, SigningKey as EdSigningKey, VerifyingKey as EdVerifyingKey};
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature as EcSignature, SigningKey as EcSigningKey, VerifyingKey as EcVerifyingKey};
use rand_core::CryptoRngCore;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::hash::{Hash, Hasher};
use zeroize::{Zeroize, Zeroizing};

/// The signature algorithms of a holder key, by their JOSE names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Ed25519 (RFC 8037).
    EdDsa,
    /// ECDSA on P-256 with SHA-256 (RFC 7518 section 3.4).
    Es256,
}

impl Algorithm {
    /// The value of a JOSE `alg`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
        }
    }

    /// The algorithm of a JOSE `alg`, if it is one of ours.
    #[must_use]
    pub fn parse(alg: &str) -> Option<Self> {
        match alg {
            "EdDSA" => Some(Self::EdDsa),
            "ES256" => Some(Self::Es256),
            _ => None,
        }
    }
}

/// The RFC 7638 SHA-256 thumbprint of a public key: how a holder is named everywhere (`jkt`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Thumbprint([u8; 32]);

impl Thumbprint {
    /// The 32 bytes of the hash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads the base64url form.
    ///
    /// # Errors
    /// [`Error::Base64`] or [`Error::Key`] when it is not 32 bytes.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bytes = base64url_decode(text)?;
        Ok(Self(
            bytes
                .try_into()
                .map_err(|_| Error::Key("a thumbprint has 32 bytes"))?,
        ))
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64url_encode(&self.0))
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A public key as a JSON Web Key: `OKP`/`Ed25519` or `EC`/`P-256`. Members that say nothing about
/// the key itself (`kid`, `use`, `alg`, …) are ignored on reading; a private member is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    /// Key type, `OKP` or `EC`.
    pub kty: String,
    /// Curve, `Ed25519` or `P-256`.
    pub crv: String,
    /// The x coordinate or the Ed25519 key, base64url.
    pub x: String,
    /// The y coordinate of an `EC` key, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
    #[serde(default, rename = "d", skip_serializing, deserialize_with = "present")]
    private: bool,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// A holder's public key.
#[derive(Clone)]
pub struct PublicKey {
    material: PublicMaterial,
    thumbprint: Thumbprint,
}

#[derive(Clone)]
enum PublicMaterial {
    Ed25519(EdVerifyingKey),
    P256(EcVerifyingKey),
}

impl PublicKey {
    /// An Ed25519 key from its 32 bytes.
    ///
    /// # Errors
    /// [`Error::Key`] for another length, a point that is not on the curve, a second spelling of
    /// one that is, or a key of small order.
    pub fn ed25519(bytes: &[u8]) -> Result<Self, Error> {
        let bytes: &[u8; 32] = bytes
            .try_into()
            .map_err(|_| Error::Key("an Ed25519 key has 32 bytes"))?;
        let key = EdVerifyingKey::from_bytes(bytes).map_err(|_| Error::Key("not a point of Ed25519"))?;
        if key.is_weak() {
            return Err(Error::Key("an Ed25519 key of small order"));
        }
        if !is_canonical(bytes) {
            return Err(Error::Key("not the canonical spelling of an Ed25519 key"));
        }
        Ok(Self::new(PublicMaterial::Ed25519(key)))
    }

    /// A P-256 key from its 33 bytes in compressed form, the only spelling accepted in a token.
    ///
    /// # Errors
    /// [`Error::Key`] for another length or a point that is not on the curve.
    pub fn p256(bytes: &[u8]) -> Result<Self, Error> {
        // A tag of 5 has 33 bytes, too, and is a second spelling of some keys.
        if bytes.len() != 33 || !matches!(bytes, [2 | 3, ..]) {
            return Err(Error::Key("a P-256 key has 33 bytes, compressed"));
        }
        let key = EcVerifyingKey::from_sec1_bytes(bytes).map_err(|_| Error::Key("not a point of P-256"))?;
        Ok(Self::new(PublicMaterial::P256(key)))
    }

    /// Reads a JWK.
    ///
    /// # Errors
    /// [`Error::Jwk`] for another key type, private members, or a bad coordinate; [`Error::Key`]
    /// for a key that is not usable.
    pub fn from_jwk(jwk: &Jwk) -> Result<Self, Error> {
        if !r::JWK.holds(!jwk.private) {
            return Err(Error::Jwk("it holds a private key"));
        }
        let x = base64url_decode(&jwk.x).map_err(|_| Error::Jwk("`x` is not base64url"))?;
        match (jwk.kty.as_str(), jwk.crv.as_str(), &jwk.y) {
            ("OKP", "Ed25519", None) => Self::ed25519(&x),
            ("EC", "P-256", Some(y)) => {
                let y = base64url_decode(y).map_err(|_| Error::Jwk("`y` is not base64url"))?;
                if x.len() != 32 || y.len() != 32 {
                    return Err(Error::Jwk("a P-256 coordinate has 32 bytes"));
                }
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                let key = EcVerifyingKey::from_sec1_bytes(&point)
                    .map_err(|_| Error::Key("not a point of P-256"))?;
                Ok(Self::new(PublicMaterial::P256(key)))
            }
            _ => Err(Error::Jwk("neither OKP/Ed25519 nor EC/P-256")),
        }
    }

    /// Reads a JWK, or takes `known` if that is the key in it: the point need not be found again.
    pub(crate) fn from_jwk_or(jwk: &Jwk, known: Option<&Self>) -> Result<Self, Error> {
        // A key has one JWK, so what equals it would be read as that key.
        match known {
            Some(known) if known.to_jwk() == *jwk => Ok(known.clone()),
            _ => Self::from_jwk(jwk),
        }
    }

    /// Reads a JWK from JSON text.
    ///
    /// # Errors
    /// [`Error::Json`] when it is not a JWK, else as [`Self::from_jwk`].
    pub fn from_jwk_str(json: &str) -> Result<Self, Error> {
        let jwk: Jwk = serde_json::from_str(json).map_err(|e| Error::Json {
            part: "JWK",
            reason: position(&e),
        })?;
        Self::from_jwk(&jwk)
    }

    /// The key as a JWK with its required members only.
    #[must_use]
    pub fn to_jwk(&self) -> Jwk {
        let (kty, crv, x, y) = match &self.material {
            PublicMaterial::Ed25519(key) => ("OKP", "Ed25519", base64url_encode(key.as_bytes()), None),
            PublicMaterial::P256(key) => {
                let point = key.to_encoded_point(false);
                let coordinate =
                    |c: Option<&p256::FieldBytes>| c.map(|c| base64url_encode(c)).unwrap_or_default();
                ("EC", "P-256", coordinate(point.x()), Some(coordinate(point.y())))
            }
        };
        Jwk {
            kty: kty.to_owned(),
            crv: crv.to_owned(),
            x,
            y,
            private: false,
        }
    }

    /// The RFC 7638 thumbprint.
    #[must_use]
    pub fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }

    /// The algorithm that this key verifies.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self.material {
            PublicMaterial::Ed25519(_) => Algorithm::EdDsa,
            PublicMaterial::P256(_) => Algorithm::Es256,
        }
    }

    /// The key's one byte form: 32 bytes of Ed25519, or 33 of P-256 (compressed).
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.material {
            PublicMaterial::Ed25519(key) => key.as_bytes().to_vec(),
            PublicMaterial::P256(key) => key.to_encoded_point(true).as_bytes().to_vec(),
        }
    }

    /// Verifies a JOSE signature (64 bytes; `r ‖ s` for P-256), strictly.
    ///
    /// # Errors
    /// [`Error::Signature`].
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        match &self.material {
            PublicMaterial::Ed25519(key) => {
                let signature =
                    ed25519_dalek::Signature::from_slice(signature).map_err(|_| Error::Signature)?;
                key.verify_strict(message, &signature)
                    .map_err(|_| Error::Signature)
            }
            PublicMaterial::P256(key) => {
                let signature = EcSignature::from_slice(signature).map_err(|_| Error::Signature)?;
                key.verify(message, &signature).map_err(|_| Error::Signature)
            }
        }
    }

    fn new(material: PublicMaterial) -> Self {
        let mut key = Self {
            material,
            thumbprint: Thumbprint([0; 32]),
        };
        let Jwk { kty, crv, x, y, .. } = key.to_jwk();
        // RFC 7638 section 3: required members only, in lexicographic order, no white space. The
        // values are of the base64url alphabet and need no escape.
        let canonical = match y {
            Some(y) => format!(r#"{{"crv":"{crv}","kty":"{kty}","x":"{x}","y":"{y}"}}"#),
            None => format!(r#"{{"crv":"{crv}","kty":"{kty}","x":"{x}"}}"#),
        };
        key.thumbprint = Thumbprint(Sha256::digest(canonical.as_bytes()).into());
        key
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.thumbprint == other.thumbprint
    }
}

impl Eq for PublicKey {}

impl Hash for PublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.thumbprint.hash(state);
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.algorithm().as_str(), self.thumbprint)
    }
}

/// A holder's private key. It never prints, and is wiped when dropped.
pub struct PrivateKey(PrivateMaterial);

enum PrivateMaterial {
    Ed25519(EdSigningKey),
    P256(EcSigningKey),
}

#[derive(Serialize, Deserialize, Zeroize)]
#[zeroize(drop)]
struct PrivateJwk {
    kty: String,
    crv: String,
    x: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    d: String,
}

impl PrivateKey {
    /// A fresh key.
    #[must_use]
    pub fn generate(algorithm: Algorithm, rng: &mut impl CryptoRngCore) -> Self {
        Self(match algorithm {
            Algorithm::EdDsa => PrivateMaterial::Ed25519(EdSigningKey::generate(rng)),
            Algorithm::Es256 => PrivateMaterial::P256(EcSigningKey::random(rng)),
        })
    }

    /// A key from its 32 secret bytes.
    ///
    /// # Errors
    /// [`Error::Key`] for another length, or a P-256 scalar out of range.
    pub fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, Error> {
        Ok(Self(match algorithm {
            Algorithm::EdDsa => {
                let mut seed: [u8; 32] = bytes
                    .try_into()
                    .map_err(|_| Error::Key("an Ed25519 private key has 32 bytes"))?;
                let key = EdSigningKey::from_bytes(&seed);
                seed.zeroize();
                PrivateMaterial::Ed25519(key)
            }
            Algorithm::Es256 => PrivateMaterial::P256(
                EcSigningKey::from_slice(bytes).map_err(|_| Error::Key("not a P-256 private key"))?,
            ),
        }))
    }

    /// The 32 secret bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(match &self.0 {
            PrivateMaterial::Ed25519(key) => key.as_bytes().to_vec(),
            PrivateMaterial::P256(key) => key.to_bytes().to_vec(),
        })
    }

    /// Reads a private JWK (RFC 7517, 8037); its public part must belong to its private one.
    ///
    /// # Errors
    /// [`Error::Json`], [`Error::Jwk`] or [`Error::Key`].
    pub fn from_jwk_str(json: &str) -> Result<Self, Error> {
        let jwk: PrivateJwk = serde_json::from_str(json).map_err(|e| Error::Json {
            part: "private JWK",
            reason: position(&e),
        })?;
        let algorithm = match (jwk.kty.as_str(), jwk.crv.as_str()) {
            ("OKP", "Ed25519") => Algorithm::EdDsa,
            ("EC", "P-256") => Algorithm::Es256,
            _ => return Err(Error::Jwk("neither OKP/Ed25519 nor EC/P-256")),
        };
        let secret =
            Zeroizing::new(base64url_decode(&jwk.d).map_err(|_| Error::Jwk("`d` is not base64url"))?);
        let key = Self::from_bytes(algorithm, &secret)?;
        let public = key.public().to_jwk();
        if public.x != jwk.x || public.y != jwk.y {
            return Err(Error::Jwk("its public part belongs to another key"));
        }
        Ok(key)
    }

    /// The key as a private JWK, wiped when dropped.
    #[must_use]
    pub fn to_jwk_string(&self) -> Zeroizing<String> {
        let public = self.public().to_jwk();
        let y = public
            .y
            .as_ref()
            .map(|y| format!(r#","y":"{y}""#))
            .unwrap_or_default();
        let d = Zeroizing::new(base64url_encode(&self.to_bytes()));
        let (kty, crv, x) = (&public.kty, &public.crv, &public.x);
        Zeroizing::new(format!(
            r#"{{"kty":"{kty}","crv":"{crv}","x":"{x}"{y},"d":"{}"}}"#,
            *d
        ))
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey::new(match &self.0 {
            PrivateMaterial::Ed25519(key) => PublicMaterial::Ed25519(key.verifying_key()),
            PrivateMaterial::P256(key) => PublicMaterial::P256(*key.verifying_key()),
        })
    }

    /// The algorithm that this key signs with.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            PrivateMaterial::Ed25519(_) => Algorithm::EdDsa,
            PrivateMaterial::P256(_) => Algorithm::Es256,
        }
    }

    /// Signs deterministically (RFC 8032, RFC 6979) in JOSE form, 64 bytes.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        match &self.0 {
            PrivateMaterial::Ed25519(key) => key.sign(message).to_bytes(),
            PrivateMaterial::P256(key) => {
                let signature: EcSignature = key.sign(message);
                signature.to_bytes().into()
            }
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(… {})", self.public().thumbprint())
    }
}

/// Whether the y coordinate is below p = 2^255 − 19. (The one other second spelling, a sign on x = 0,
/// belongs to points of small order.)
fn is_canonical(bytes: &[u8; 32]) -> bool {
    let [low, middle @ .., high] = bytes;
    *low < 0xed || high & 0x7f != 0x7f || middle.iter().any(|byte| *byte != 0xff)
}

/// Where a JSON parser stopped, without the text that it read.
pub(crate) fn position(error: &serde_json::Error) -> String {
    let kind = match error.classify() {
        serde_json::error::Category::Data => "a member is missing, twice there or of the wrong type",
        serde_json::error::Category::Syntax => "not JSON",
        serde_json::error::Category::Eof => "it ends early",
        serde_json::error::Category::Io => "unreadable",
    };
    format!("{kind} (line {}, column {})", error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::OsRng;

    #[test]
    fn the_thumbprint_of_rfc_8037() {
        // RFC 8037, appendix A.2 and A.3.
        let jwk = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let key = PublicKey::from_jwk_str(jwk).unwrap();
        assert_eq!(
            key.thumbprint().to_string(),
            "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
        );
        assert_eq!(
            Thumbprint::parse("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"),
            Ok(key.thumbprint())
        );
    }

    #[test]
    fn keys_go_through_all_their_forms() {
        for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
            let key = PrivateKey::generate(algorithm, &mut OsRng);
            let public = key.public();
            let again = PrivateKey::from_jwk_str(&key.to_jwk_string()).unwrap();
            assert_eq!(again.public(), public);
            assert_eq!(PublicKey::from_jwk(&public.to_jwk()), Ok(public.clone()));
            let bytes = public.to_bytes();
            let from_bytes = match algorithm {
                Algorithm::EdDsa => PublicKey::ed25519(&bytes),
                Algorithm::Es256 => PublicKey::p256(&bytes),
            };
            assert_eq!(from_bytes, Ok(public.clone()));
            let mut signature = key.sign(b"message");
            assert_eq!(public.verify(b"message", &signature), Ok(()));
            assert_eq!(public.verify(b"massage", &signature), Err(Error::Signature));
            signature[10] ^= 1;
            assert_eq!(public.verify(b"message", &signature), Err(Error::Signature));
            assert_eq!(public.verify(b"message", &signature[..63]), Err(Error::Signature));
        }
    }

    #[test]
    fn unusable_keys_are_refused() {
        let check = |result: Result<PublicKey, Error>| assert!(result.is_err(), "{result:?}");
        let small_order = [0u8; 32];
        check(PublicKey::ed25519(&small_order));
        let mut identity = [0u8; 32];
        identity[0] = 1;
        check(PublicKey::ed25519(&identity));
        // y = p + 3, a second spelling of y = 3, which is a point of the curve.
        let mut second_spelling = [0xffu8; 32];
        second_spelling[0] = 0xf0;
        second_spelling[31] = 0x7f;
        check(PublicKey::ed25519(&second_spelling));
        check(PublicKey::ed25519(&[1; 31]));
        let p256 = PrivateKey::generate(Algorithm::Es256, &mut OsRng).public();
        check(PublicKey::p256(&[&[4], [7u8; 64].as_slice()].concat()));
        check(PublicKey::p256(&[2; 33][..32]));
        // The compact form, 33 bytes too.
        check(PublicKey::p256(&[&[5], &p256.to_bytes()[1..]].concat()));
        let jwk = serde_json::to_value(p256.to_jwk()).unwrap();
        for (member, value) in [
            ("d", serde_json::json!("AA")),
            ("d", serde_json::Value::Null),
            ("kty", "OKP".into()),
            ("crv", "P-384".into()),
            ("x", "AA".into()),
            ("y", "AB==".into()),
            ("kty", "oct".into()),
        ] {
            let mut changed = jwk.clone();
            changed[member] = value;
            check(PublicKey::from_jwk_str(&changed.to_string()));
        }
    }

    #[test]
    fn a_private_jwk_with_another_public_part_is_refused() {
        let (a, b) = (
            PrivateKey::generate(Algorithm::EdDsa, &mut OsRng),
            PrivateKey::generate(Algorithm::EdDsa, &mut OsRng),
        );
        let mixed = a
            .to_jwk_string()
            .replace(&a.public().to_jwk().x, &b.public().to_jwk().x);
        assert_eq!(
            PrivateKey::from_jwk_str(&mixed).err(),
            Some(Error::Jwk("its public part belongs to another key"))
        );
    }

    #[test]
    fn private_keys_do_not_print() {
        for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
            let key = PrivateKey::from_bytes(algorithm, &[7; 32]).unwrap();
            assert_eq!(
                format!("{key:?}"),
                format!("PrivateKey(… {})", key.public().thumbprint())
            );
        }
    }
}
