//! The root keys: made, read, and published as a JWK set (RFC 7517).

use std::path::Path;

use rand_core::CryptoRngCore;
use serde_json::{Value, json};
use taper_capability::RootKey;
use taper_dpop::{Algorithm, PrivateKey};
use taper_service::config::resolve;
use taper_service::secret::{SecretError, read_secret_file, write_private_file};

use crate::config::RootKeyConfig;
use crate::error::OpenError;

/// Makes a root key and writes it to `path` as a private JWK with mode 0600. An existing file is replaced, so
/// ask first.
///
/// # Errors
/// [`SecretError::Write`].
pub fn generate_root_key(path: &Path, rng: &mut impl CryptoRngCore) -> Result<(), SecretError> {
    let key = PrivateKey::generate(Algorithm::EdDsa, rng);
    write_private_file(path, key.to_jwk_string().as_bytes())
}

/// Reads the configured root keys, the current one first.
pub(crate) fn load(folder: &Path, configured: &[RootKeyConfig]) -> Result<Vec<RootKey>, OpenError> {
    configured.iter().map(|key| load_one(folder, key)).collect()
}

fn load_one(folder: &Path, configured: &RootKeyConfig) -> Result<RootKey, OpenError> {
    let path = resolve(folder, &configured.file);
    let failed = |reason: String| OpenError::RootKey {
        path: path.clone(),
        reason,
    };
    let text = read_secret_file(&path).map_err(|error| failed(error.to_string()))?;
    let jwk = text.expose_str().map_err(|error| failed(error.to_string()))?;
    let key = PrivateKey::from_jwk_str(jwk).map_err(|error| failed(error.to_string()))?;
    if key.algorithm() != Algorithm::EdDsa {
        return Err(failed("a root key is Ed25519".to_owned()));
    }
    RootKey::from_seed(configured.id, &key.to_bytes()).map_err(|error| failed(error.to_string()))
}

/// The public keys, `kid` = decimal root key id, the current one first.
pub(crate) fn key_set(keys: &[RootKey]) -> Value {
    let jwk = |key: &RootKey| {
        let public = key.public().to_jwk();
        json!({
            "kty": public.kty,
            "crv": public.crv,
            "x": public.x,
            "kid": key.id().to_string(),
            "use": "sig",
            "alg": "EdDSA",
        })
    };
    json!({ "keys": keys.iter().map(jwk).collect::<Vec<_>>() })
}
