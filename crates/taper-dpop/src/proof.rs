//! DPoP proofs (RFC 9449 sections 4.2 and 4.3), with `content_digest` over the body.

use crate::json;
use crate::key::position;
use crate::rule::r;
use crate::{
    Algorithm, ContentDigest, Error, Jwk, NonceKey, PrivateKey, PublicKey, Thumbprint, TokenHash,
    base64url_decode, base64url_encode,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The largest proof that is looked at, in bytes. A proof of ours has about 600.
pub const MAX_PROOF_BYTES: usize = 4096;
/// How old a proof may be, in seconds (RFC 9449 section 11.1: "a relatively brief period").
pub const MAX_AGE: i64 = 300;
/// How far a proof's `iat` may lie ahead of the verifier's clock, in seconds.
pub const MAX_FUTURE: i64 = 60;

const MAX_JTI_BYTES: usize = 256;

/// The claims of a proof, as they are signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofClaims {
    /// A unique id; our own are 128 random bits.
    pub jti: String,
    /// The request's method.
    pub htm: String,
    /// The request's URI without query and fragment.
    pub htu: String,
    /// When the proof was made, in seconds since the Unix epoch.
    pub iat: i64,
    /// The hash of the token, where one is presented.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "text")]
    pub ath: Option<String>,
    /// The server's nonce, where it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "text")]
    pub nonce: Option<String>,
    /// The digest of the body, `sha-256=:…:`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "text")]
    pub content_digest: Option<String>,
}

/// A member that is there is a text: `null` is none.
fn text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

impl ProofClaims {
    /// The claims of a proof for one request made at `now`; the optional ones are added by
    /// [`Self::token`], [`Self::nonce`] and [`Self::body`].
    #[must_use]
    pub fn new(method: &str, url: &str, now: i64, rng: &mut impl rand_core::CryptoRngCore) -> Self {
        let mut id = [0; 16];
        rng.fill_bytes(&mut id);
        let htu = url.split(['?', '#']).next().unwrap_or(url).to_owned();
        Self {
            jti: base64url_encode(&id),
            htm: method.to_owned(),
            htu,
            iat: now,
            ath: None,
            nonce: None,
            content_digest: None,
        }
    }

    /// Binds the proof to a token.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.ath = Some(TokenHash::of(token).to_string());
        self
    }

    /// Binds the proof to the exact bytes of the body.
    #[must_use]
    pub fn body(mut self, body: &[u8]) -> Self {
        self.content_digest = Some(ContentDigest::of(body).to_string());
        self
    }

    /// Adds the server's nonce, if there is one.
    #[must_use]
    pub fn nonce(mut self, nonce: Option<&str>) -> Self {
        self.nonce = nonce.map(str::to_owned);
        self
    }

    /// Signs the claims: the value of a `DPoP` header.
    ///
    /// # Errors
    /// [`Error::Json`] should the claims not serialise, which no value of theirs causes.
    pub fn sign(&self, key: &PrivateKey) -> Result<String, Error> {
        #[derive(Serialize)]
        struct Header {
            typ: &'static str,
            alg: &'static str,
            jwk: Jwk,
        }
        let json_error = |e: serde_json::Error| Error::Json {
            part: "claims",
            reason: position(&e),
        };
        let header = Header {
            typ: "dpop+jwt",
            alg: key.algorithm().as_str(),
            jwk: key.public().to_jwk(),
        };
        let header = serde_json::to_vec(&header).map_err(json_error)?;
        let claims = serde_json::to_vec(self).map_err(json_error)?;
        let signing_input = format!("{}.{}", base64url_encode(&header), base64url_encode(&claims));
        let signature = base64url_encode(&key.sign(signing_input.as_bytes()));
        Ok(format!("{signing_input}.{signature}"))
    }
}

/// Whether a proof must carry a nonce of ours.
#[derive(Clone, Copy, Debug)]
pub enum NonceRule<'a> {
    /// None is demanded; one that is sent is ignored.
    Unused,
    /// One of ours, fresh, is demanded.
    Demanded(&'a NonceKey),
}

/// What a proof has to fit.
#[derive(Clone, Copy, Debug)]
pub struct Expectation<'a> {
    /// The request's method.
    pub method: &'a str,
    /// The URL of the endpoint as its operator configured it, never from the request.
    pub url: &'a str,
    /// The token that is presented with the proof, if any: its exact text's hash.
    pub token: Option<TokenHash>,
    /// Whether a nonce is demanded.
    pub nonce: NonceRule<'a>,
    /// The time of the check, in seconds since the Unix epoch.
    pub now: i64,
}

/// A parsed proof; nothing about it is known to be true.
#[derive(Debug)]
pub struct Proof<'a> {
    signing_input: &'a str,
    signature: Vec<u8>,
    key: PublicKey,
    claims: ProofClaims,
}

/// A proof whose claims fit the request; its signature has not been looked at.
#[derive(Debug)]
pub struct CheckedProof<'a>(Proof<'a>);

/// A proof that was made for this request by the holder of its key. Obtainable only from
/// [`CheckedProof::verify`].
///
/// ```compile_fail
/// fn forge(key: taper_dpop::PublicKey) -> taper_dpop::VerifiedProof {
///     taper_dpop::VerifiedProof { key, jti_hash: [0; 32], iat: 0, content_digest: None }
/// }
/// ```
/// while its parts can be read:
/// ```
/// fn iat(proof: &taper_dpop::VerifiedProof) -> i64 { proof.iat() }
/// ```
#[derive(Clone, Debug)]
pub struct VerifiedProof {
    key: PublicKey,
    jti_hash: [u8; 32],
    iat: i64,
    nonce: Option<String>,
    content_digest: Option<ContentDigest>,
}

/// What is known of who should have made a proof.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The key. If a proof has it, its point need not be found again.
    pub holder: &'a PublicKey,
    /// The first segment of a proof of that key that [`CheckedProof::verify`] took ([`head_of`]). What has the same text
    /// says the same: R-02 to R-04 hold.
    pub head: Option<&'a str>,
}

/// The first segment of a proof, its header: a holder writes the same each time.
#[must_use]
pub fn head_of(header: &str) -> Option<&str> {
    header.split_once('.').map(|(head, _)| head)
}

impl<'a> Proof<'a> {
    /// Parses the value of a `DPoP` header (R-01 to R-04, R-08).
    ///
    /// # Errors
    /// The first of those rules that it breaks.
    pub fn parse(header: &'a str) -> Result<Self, Error> {
        Self::parse_by(header, None)
    }

    /// The same; what is `known` is not read anew.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_by(header: &'a str, known: Option<Known<'_>>) -> Result<Self, Error> {
        let form = || Error::Form { max: MAX_PROOF_BYTES };
        if !r::FORM.holds(header.len() <= MAX_PROOF_BYTES) {
            return Err(form());
        }
        let (signing_input, signature) = header.rsplit_once('.').ok_or_else(form)?;
        let (head, claims) = signing_input.split_once('.').ok_or_else(form)?;
        if claims.contains('.') {
            return Err(form());
        }
        let taken = known.filter(|known| known.head == Some(head));
        let head = match taken {
            Some(known) => Head::Known(known.holder),
            None => Head::Text(base64url_decode(head).map_err(|_| form())?),
        };
        let claims = base64url_decode(claims).map_err(|_| form())?;
        let signature = base64url_decode(signature).map_err(|_| form())?;
        let head = head.read()?;
        let claims = object(&claims, "claims")?;
        let key = head.key(known.map(|known| known.holder))?;
        let claims: ProofClaims = typed(claims, "claims")?;
        if !r::JTI.holds(!claims.jti.is_empty() && claims.jti.len() <= MAX_JTI_BYTES) {
            return Err(Error::Jti);
        }
        Ok(Self {
            signing_input,
            signature,
            key,
            claims,
        })
    }

    /// The key that the proof claims to be made with; unverified.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Checks the claims against the request (R-05 to R-07, R-09, R-10), cheap work before any
    /// signature. The nonce comes last, so that a client is not sent for one in vain.
    ///
    /// # Errors
    /// The first of those rules that it breaks.
    pub fn check(self, expected: &Expectation<'_>) -> Result<CheckedProof<'a>, Error> {
        let claims = &self.claims;
        if !r::HTM.holds(claims.htm == expected.method) {
            return Err(Error::Htm);
        }
        let is_htu = claims.htu == expected.url || htu_of(&claims.htu) == htu_of(expected.url);
        if !r::HTU.holds(is_htu) {
            return Err(Error::Htu {
                expected: expected.url.to_owned(),
            });
        }
        let age = expected.now.saturating_sub(claims.iat);
        if !r::IAT.holds(age <= MAX_AGE) {
            return Err(Error::Iat("too old"));
        }
        if !r::IAT.holds(age >= -MAX_FUTURE) {
            return Err(Error::Iat("in the future"));
        }
        if let Some(token) = expected.token {
            let fits = claims.ath.as_deref().is_some_and(|ath| token.matches(ath));
            if !r::ATH.holds(fits) {
                return Err(Error::Ath);
            }
        }
        match (expected.nonce, &claims.nonce) {
            (NonceRule::Unused, _) => {}
            (NonceRule::Demanded(key), Some(nonce)) => key.check(nonce, expected.now)?,
            (NonceRule::Demanded(_), None) if r::NONCE.holds(false) => {}
            (NonceRule::Demanded(_), None) => return Err(Error::Nonce),
        }
        Ok(CheckedProof(self))
    }
}

impl CheckedProof<'_> {
    /// The key that the proof claims to be made with; unverified.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.0.key
    }

    /// When the proof says it was made; unverified.
    #[must_use]
    pub fn iat(&self) -> i64 {
        self.0.claims.iat
    }

    /// Until when a replay of the proof could be accepted; unverified.
    #[must_use]
    pub fn replayable_until(&self) -> i64 {
        replayable_until(self.iat())
    }

    /// Whether the proof carries a nonce that counts at `now`; unverified.
    #[must_use]
    pub fn has_nonce(&self, key: &NonceKey, now: i64) -> bool {
        has_nonce(self.0.claims.nonce.as_deref(), key, now)
    }

    /// Verifies the signature (R-11): one signature check, good or bad.
    ///
    /// # Errors
    /// [`Error::Signature`], or [`Error::Digest`] for a `content_digest` that is none.
    pub fn verify(self) -> Result<VerifiedProof, Error> {
        let Self(proof) = self;
        let verified = proof.key.verify(proof.signing_input.as_bytes(), &proof.signature);
        if !r::SIGNATURE.holds(verified.is_ok()) {
            return Err(Error::Signature);
        }
        let content_digest = match proof.claims.content_digest.as_deref().map(ContentDigest::parse) {
            Some(Err(_)) if r::CONTENT_DIGEST.holds(false) => None,
            other => other.transpose()?,
        };
        Ok(VerifiedProof {
            key: proof.key,
            jti_hash: Sha256::digest(proof.claims.jti.as_bytes()).into(),
            iat: proof.claims.iat,
            nonce: proof.claims.nonce,
            content_digest,
        })
    }
}

impl VerifiedProof {
    /// The key that made the proof.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The thumbprint of that key.
    #[must_use]
    pub fn thumbprint(&self) -> Thumbprint {
        self.key.thumbprint()
    }

    /// SHA-256 of the `jti`, which with the thumbprint is the replay entry.
    #[must_use]
    pub fn jti_hash(&self) -> &[u8; 32] {
        &self.jti_hash
    }

    /// When the proof was made, in seconds since the Unix epoch.
    #[must_use]
    pub fn iat(&self) -> i64 {
        self.iat
    }

    /// Until when a replay of the proof could be accepted, in seconds since the Unix epoch.
    #[must_use]
    pub fn replayable_until(&self) -> i64 {
        replayable_until(self.iat)
    }

    /// Whether the proof carries a nonce that counts at `now`. What [`Proof::check`] found may be over: the nonce may
    /// be too old, or another key in force.
    #[must_use]
    pub fn has_nonce(&self, key: &NonceKey, now: i64) -> bool {
        has_nonce(self.nonce.as_deref(), key, now)
    }

    /// Checks the body against the proof (R-12): a digest that is there must be this body's.
    /// Whether one has to be there is the caller's to decide from the answer.
    ///
    /// # Errors
    /// [`Error::ContentDigest`] when the proof carries the digest of another body.
    pub fn binds(&self, body: &[u8]) -> Result<bool, Error> {
        match self.content_digest {
            None => Ok(false),
            Some(digest) if r::CONTENT_DIGEST.holds(digest == ContentDigest::of(body)) => Ok(true),
            Some(_) => Err(Error::ContentDigest),
        }
    }
}

/// The first segment of a proof, as far as it was read.
enum Head<'a, T> {
    /// It is known to say this.
    Known(&'a PublicKey),
    Text(T),
}

impl<'a> Head<'a, Vec<u8>> {
    fn read(self) -> Result<Head<'a, serde_json::Value>, Error> {
        Ok(match self {
            Self::Known(holder) => Head::Known(holder),
            Self::Text(text) => Head::Text(object(&text, "header")?),
        })
    }
}

impl Head<'_, serde_json::Value> {
    /// The key in it (R-02 to R-04), or `holder` if it is that.
    fn key(self, holder: Option<&PublicKey>) -> Result<PublicKey, Error> {
        #[derive(Deserialize)]
        struct Header {
            typ: Option<String>,
            alg: Option<String>,
            jwk: Option<serde_json::Value>,
        }
        let head = match self {
            Self::Known(holder) => return Ok(holder.clone()),
            Self::Text(head) => head,
        };
        let crit = head.get("crit").is_some();
        let head: Header = typed(head, "header")?;
        if !r::TYP.holds(head.typ.as_deref() == Some("dpop+jwt") && !crit) {
            return Err(Error::Typ);
        }
        let key = match head.jwk {
            Some(jwk) => jwk_of(jwk)
                .and_then(|jwk| PublicKey::from_jwk_or(&jwk, holder))
                .map_err(|e| match e {
                    Error::Key(reason) => Error::Jwk(reason),
                    other => other,
                })?,
            None => return Err(Error::Jwk("it is missing")),
        };
        let alg = head.alg.as_deref().and_then(Algorithm::parse);
        if !r::ALG.holds(alg == Some(key.algorithm())) {
            return Err(Error::Alg);
        }
        Ok(key)
    }
}

/// The strict JSON of a segment (R-01).
fn object(bytes: &[u8], part: &'static str) -> Result<serde_json::Value, Error> {
    let reason = match json::parse(bytes) {
        Ok(value) if value.is_object() => return Ok(value),
        Ok(_) => "not an object".to_owned(),
        Err(error) => position(&error),
    };
    Err(Error::Json { part, reason })
}

fn typed<T: serde::de::DeserializeOwned>(value: serde_json::Value, part: &'static str) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|_| Error::Json {
        part,
        reason: "a member is missing or of the wrong type".to_owned(),
    })
}

/// A key of another kind lacks members that ours have; that is a matter of R-04.
fn jwk_of(value: serde_json::Value) -> Result<Jwk, Error> {
    if !(value.is_object() || value.is_null()) {
        return Err(Error::Json {
            part: "header",
            reason: "`jwk` is not an object".to_owned(),
        });
    }
    serde_json::from_value(value).map_err(|_| Error::Jwk("neither OKP/Ed25519 nor EC/P-256"))
}

/// A URL as `htu` is compared (RFC 9449 section 4.3, RFC 3986 sections 6.2.2 and 6.2.3): without
/// query and fragment, scheme and host in lower case, no default port, at least the path `/`.
#[must_use]
pub fn htu_of(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let scheme = scheme.to_ascii_lowercase();
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let authority = authority.to_ascii_lowercase();
    let default_port = match scheme.as_str() {
        "https" => ":443",
        "http" => ":80",
        _ => "",
    };
    let authority = authority.strip_suffix(default_port).unwrap_or(&authority);
    format!("{scheme}://{authority}{path}")
}

fn has_nonce(nonce: Option<&str>, key: &NonceKey, now: i64) -> bool {
    nonce.is_some_and(|nonce| key.check(nonce, now).is_ok())
}

const fn replayable_until(iat: i64) -> i64 {
    iat.saturating_add(MAX_AGE).saturating_add(MAX_FUTURE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::OsRng;

    const URL: &str = "https://proxy.example/git/mcp";
    const NOW: i64 = 1_800_000_000;
    const TOKEN: &str = "token";

    fn expectation<'a>(nonce: NonceRule<'a>) -> Expectation<'a> {
        Expectation {
            method: "POST",
            url: URL,
            token: Some(TokenHash::of(TOKEN)),
            nonce,
            now: NOW,
        }
    }

    fn claims() -> ProofClaims {
        ProofClaims::new("POST", URL, NOW, &mut OsRng)
            .token(TOKEN)
            .body(b"body")
    }

    fn verify(header: &str, expected: &Expectation<'_>) -> Result<VerifiedProof, Error> {
        Proof::parse(header)?.check(expected)?.verify()
    }

    fn check(change: impl Fn(&mut ProofClaims), rule: Option<&str>) {
        for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
            let key = PrivateKey::generate(algorithm, &mut OsRng);
            let mut claims = claims();
            change(&mut claims);
            let header = claims.sign(&key).unwrap();
            let result = verify(&header, &expectation(NonceRule::Unused));
            assert_eq!(
                result.as_ref().err().map(|e| e.rule().as_str()),
                rule,
                "{result:?}"
            );
            if let Ok(proof) = result {
                assert_eq!(proof.thumbprint(), key.public().thumbprint());
            }
        }
    }

    #[test]
    fn each_claim_is_checked() {
        check(|_| {}, None);
        check(|c| c.htm = "post".into(), Some("R-05"));
        check(|c| c.htu = "https://proxy.example/git/mcp/".into(), Some("R-06"));
        check(|c| c.htu = "https://proxy.example/other/mcp".into(), Some("R-06"));
        check(|c| c.htu = "HTTPS://Proxy.Example:443/git/mcp?x#y".into(), None);
        check(|c| c.iat = NOW - MAX_AGE, None);
        check(|c| c.iat = NOW - MAX_AGE - 1, Some("R-07"));
        check(|c| c.iat = NOW + MAX_FUTURE, None);
        check(|c| c.iat = NOW + MAX_FUTURE + 1, Some("R-07"));
        check(|c| c.iat = i64::MIN, Some("R-07"));
        check(|c| c.iat = i64::MAX, Some("R-07"));
        check(|c| c.jti = String::new(), Some("R-08"));
        check(|c| c.jti = "j".repeat(257), Some("R-08"));
        check(|c| c.ath = None, Some("R-09"));
        check(|c| c.ath = Some(TokenHash::of("other").to_string()), Some("R-09"));
        check(|c| c.content_digest = Some("sha-256=::".into()), Some("R-12"));
    }

    #[test]
    fn the_header_is_checked() {
        let key = PrivateKey::generate(Algorithm::EdDsa, &mut OsRng);
        let jwk = serde_json::to_value(key.public().to_jwk()).unwrap();
        let payload = serde_json::to_vec(&claims()).unwrap();
        let sign = |header: &serde_json::Value| {
            let input = format!(
                "{}.{}",
                base64url_encode(header.to_string().as_bytes()),
                base64url_encode(&payload)
            );
            format!("{input}.{}", base64url_encode(&key.sign(input.as_bytes())))
        };
        let check = |header: serde_json::Value, rule: Option<&str>| {
            let result = verify(&sign(&header), &expectation(NonceRule::Unused));
            assert_eq!(result.err().map(|e| e.rule().as_str()), rule, "{header}");
        };
        let good = serde_json::json!({"typ": "dpop+jwt", "alg": "EdDSA", "jwk": jwk, "kid": "ignored"});
        let with = |member: &str, value: serde_json::Value| {
            let mut header = good.clone();
            header[member] = value;
            header
        };
        check(good.clone(), None);
        check(with("typ", "jwt".into()), Some("R-02"));
        check(with("typ", serde_json::Value::Null), Some("R-02"));
        check(with("crit", serde_json::json!(["b64"])), Some("R-02"));
        check(with("crit", serde_json::Value::Null), Some("R-02"));
        check(with("alg", "ES256".into()), Some("R-03"));
        check(with("alg", "none".into()), Some("R-03"));
        check(with("alg", "HS256".into()), Some("R-03"));
        check(with("jwk", serde_json::Value::Null), Some("R-04"));
        check(with("jwk", "x".into()), Some("R-01"));
        let mut private = jwk.clone();
        private["d"] = "AA".into();
        check(with("jwk", private), Some("R-04"));
    }

    #[test]
    fn a_signature_by_another_key_or_over_other_bytes_is_refused() {
        let (key, other) = (
            PrivateKey::generate(Algorithm::EdDsa, &mut OsRng),
            PrivateKey::generate(Algorithm::EdDsa, &mut OsRng),
        );
        let good = claims().sign(&key).unwrap();
        let (input, _) = good.rsplit_once('.').unwrap();
        let forged = format!("{input}.{}", base64url_encode(&other.sign(input.as_bytes())));
        assert_eq!(
            verify(&forged, &expectation(NonceRule::Unused)).err(),
            Some(Error::Signature)
        );
        let (head, _) = input.split_once('.').unwrap();
        let mut changed = claims();
        changed.content_digest = Some(ContentDigest::of(b"other").to_string());
        let payload = base64url_encode(&serde_json::to_vec(&changed).unwrap());
        let swapped = format!("{head}.{payload}.{}", good.rsplit_once('.').unwrap().1);
        assert_eq!(
            verify(&swapped, &expectation(NonceRule::Unused)).err(),
            Some(Error::Signature)
        );
    }

    #[test]
    fn what_is_known_of_a_holder_changes_no_answer() {
        for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
            let [key, other] = [(); 2].map(|()| PrivateKey::generate(algorithm, &mut OsRng));
            let [good, stranger] = [&key, &other].map(|key| claims().sign(key).unwrap());
            let (holder, head) = (key.public(), head_of(&good).unwrap());
            let signature = good.rsplit_once('.').unwrap().1;
            let claims = |text: &str| format!("{head}.{}.{signature}", base64url_encode(text.as_bytes()));
            let headers = [
                good.clone(),
                stranger.clone(),
                good.replacen(head, head_of(&stranger).unwrap(), 1),
                stranger.replacen(head_of(&stranger).unwrap(), head, 1),
                claims("{}"),
                claims("[]"),
                claims(r#"{"jti":"a","jti":"b"}"#),
                format!("{head}.*.{signature}"),
                format!("{head}.e30.*"),
                format!("{head}=.e30.{signature}"),
                format!("{head}.{head}.e30.{signature}"),
                head.to_owned(),
                format!("{}.{good}", &head[..4]),
            ];
            let verified = |proof: Result<Proof<'_>, Error>| {
                proof
                    .and_then(|proof| proof.check(&expectation(NonceRule::Unused)))
                    .and_then(CheckedProof::verify)
                    .map(|proof| proof.thumbprint())
            };
            for header in &headers {
                let plain = verified(Proof::parse(header));
                for head in [None, Some(head)] {
                    let known = Known {
                        holder: &holder,
                        head,
                    };
                    let by = verified(Proof::parse_by(header, Some(known)));
                    assert_eq!(by, plain, "{header}");
                }
            }
            assert!(verified(Proof::parse(&good)).is_ok());
        }
    }

    #[test]
    fn malformed_texts_are_refused() {
        let good = claims()
            .sign(&PrivateKey::generate(Algorithm::EdDsa, &mut OsRng))
            .unwrap();
        let padded = format!("{good}=");
        let four = format!("{good}.AAAA");
        let huge = format!("{}{good}", "A".repeat(MAX_PROOF_BYTES));
        for bad in [
            "",
            ".",
            "..",
            "a.b",
            "e30.e30.",
            &padded,
            &four,
            &huge,
            &good[1..],
        ] {
            assert!(Proof::parse(bad).is_err(), "{bad}");
        }
        for twice in [
            r#"{"typ":"dpop+jwt","typ":"dpop+jwt"}"#,
            r#"{"typ":"dpop+jwt","other":1,"other":1}"#,
            r#"{"typ":"dpop+jwt","jwk":{"kid":1,"kid":1}}"#,
        ] {
            let text = format!("{}.e30.AA", base64url_encode(twice.as_bytes()));
            assert_eq!(
                Proof::parse(&text).err().map(|e| e.rule().as_str()),
                Some("R-01"),
                "{twice}"
            );
        }
    }

    #[test]
    fn a_member_of_null_is_malformed() {
        let key = PrivateKey::generate(Algorithm::EdDsa, &mut OsRng);
        for member in ["ath", "nonce", "content_digest"] {
            let good = claims().sign(&key).unwrap();
            let (input, _) = good.rsplit_once('.').unwrap();
            let (head, payload) = input.split_once('.').unwrap();
            let mut payload: serde_json::Value =
                serde_json::from_slice(&base64url_decode(payload).unwrap()).unwrap();
            payload[member] = serde_json::Value::Null;
            let input = format!("{head}.{}", base64url_encode(payload.to_string().as_bytes()));
            let proof = format!("{input}.{}", base64url_encode(&key.sign(input.as_bytes())));
            let rule = Proof::parse(&proof).err().map(|e| e.rule().as_str());
            assert_eq!(rule, Some("R-01"), "{member}");
        }
    }

    #[test]
    fn a_nonce_is_demanded_where_asked_for() {
        let ours = NonceKey::generate(&mut OsRng);
        let theirs = NonceKey::generate(&mut OsRng);
        let key = PrivateKey::generate(Algorithm::EdDsa, &mut OsRng);
        let check = |nonce: Option<String>, rule: NonceRule<'_>, ok: bool| {
            let header = claims().nonce(nonce.as_deref()).sign(&key).unwrap();
            assert_eq!(verify(&header, &expectation(rule)).is_ok(), ok);
        };
        check(None, NonceRule::Unused, true);
        check(None, NonceRule::Demanded(&ours), false);
        check(Some(ours.mint(NOW)), NonceRule::Demanded(&ours), true);
        check(Some(theirs.mint(NOW)), NonceRule::Unused, true);
        check(Some(theirs.mint(NOW)), NonceRule::Demanded(&ours), false);
        check(
            Some(ours.mint(NOW - NONCE_AGE)),
            NonceRule::Demanded(&ours),
            false,
        );
    }
    const NONCE_AGE: i64 = crate::NONCE_LIFETIME + 1;

    #[test]
    fn a_proof_binds_its_body_only() {
        let key = PrivateKey::generate(Algorithm::Es256, &mut OsRng);
        let proof = verify(&claims().sign(&key).unwrap(), &expectation(NonceRule::Unused)).unwrap();
        assert_eq!(proof.binds(b"body"), Ok(true));
        assert_eq!(proof.binds(b"bodY"), Err(Error::ContentDigest));
        let mut plain = claims();
        plain.content_digest = None;
        let proof = verify(&plain.sign(&key).unwrap(), &expectation(NonceRule::Unused)).unwrap();
        assert_eq!(proof.binds(b"body"), Ok(false));
        assert_eq!(proof.replayable_until(), NOW + MAX_AGE + MAX_FUTURE);
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(text in "[ -~]{0,200}") {
            let _ = Proof::parse(&text);
        }
    }
}
