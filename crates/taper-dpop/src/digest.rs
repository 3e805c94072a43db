//! Digests that a proof carries: of the request body (RFC 9530) and of the token (RFC 9449).

use crate::{Error, base64url_encode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;
use subtle::ConstantTimeEq;

/// The SHA-256 of a body's exact bytes, written `sha-256=:BASE64:` (RFC 9530, one member).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ContentDigest([u8; 32]);

impl ContentDigest {
    /// The digest of `body` as it is sent or was received.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        Self(sha256(body))
    }

    /// Reads `sha-256=:…:`; several members, other algorithms and loose base64 are refused.
    ///
    /// # Errors
    /// [`Error::Digest`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let inner = text
            .strip_prefix("sha-256=:")
            .and_then(|rest| rest.strip_suffix(':'))
            .ok_or(Error::Digest)?;
        let bytes = STANDARD.decode(inner).map_err(|_| Error::Digest)?;
        Ok(Self(bytes.try_into().map_err(|_| Error::Digest)?))
    }

    /// The 32 bytes of the hash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha-256=:{}:", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The SHA-256 of the exact token text, the `ath` of RFC 9449 section 4.2.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of the token as it stands in the `Authorization` header.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(sha256(token.as_bytes()))
    }

    /// The 32 bytes of the hash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `ath` is this hash in base64url, compared in constant time.
    #[must_use]
    pub fn matches(&self, ath: &str) -> bool {
        self.to_string().as_bytes().ct_eq(ath.as_bytes()).into()
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64url_encode(&self.0))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Of what may be long. The C library takes half the time where the processor has no instructions for it.
#[cfg(feature = "aws-lc")]
fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    for (to, from) in out.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    out
}

#[cfg(not(feature = "aws-lc"))]
fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_computes_it_it_is_sha_256() {
        // By a third program: so many times `a`, around the ends of blocks.
        let check = |times: usize, expected: &str| {
            let hash = sha256(&vec![b'a'; times]);
            let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hash, expected, "{times}");
        };
        check(
            0,
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        );
        check(
            1,
            "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
        );
        check(
            55,
            "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318",
        );
        check(
            56,
            "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a",
        );
        check(
            64,
            "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb",
        );
        check(
            1_000,
            "41edece42d63e8d9bf515a9ba6932e1c20cbc9f5a5d134645adb5db1b9737ea3",
        );
        check(
            100_000,
            "6d1cf22d7cc09b085dfc25ee1a1f3ae0265804c607bc2074ad253bcc82fd81ee",
        );
    }

    #[test]
    fn the_example_of_rfc_9530() {
        // RFC 9530, appendix B.1: the JSON body {"hello": "world"} with a final newline.
        let digest = ContentDigest::of(b"{\"hello\": \"world\"}\n");
        assert_eq!(
            digest.to_string(),
            "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
        );
        assert_eq!(ContentDigest::parse(&digest.to_string()), Ok(digest));
    }

    #[test]
    fn only_one_spelling() {
        let good = ContentDigest::of(b"").to_string();
        for bad in [
            good.replace("sha-256", "SHA-256"),
            good.replace("sha-256", "sha-512"),
            format!("{good}, {good}"),
            good.replace("=:", "="),
            good.trim_end_matches(':').to_owned(),
            "sha-256=:AAAA:".to_owned(),
        ] {
            assert_eq!(ContentDigest::parse(&bad), Err(Error::Digest), "{bad}");
        }
    }

    #[test]
    fn the_ath_of_rfc_9449() {
        // RFC 9449, section 7.1.
        let token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
        assert!(TokenHash::of(token).matches("fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"));
        assert!(!TokenHash::of(token).matches("fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEp"));
    }
}
