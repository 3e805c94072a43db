//! Randomness: programs take it here and pass it down; libraries take `rng` as an argument.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand_core::{CryptoRngCore, OsRng};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The operating system's generator.
pub fn os() -> OsRng {
    OsRng
}

/// A fresh identifier of 128 random bits: 22 characters of base64url without padding.
pub fn random_id_128(rng: &mut impl CryptoRngCore) -> String {
    let mut bytes = [0_u8; 16];
    rng.fill_bytes(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A fresh secret of 256 random bits, such as an admin token: 43 characters of base64url without
/// padding.
pub fn random_secret_256(rng: &mut impl CryptoRngCore) -> Secret {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    rng.fill_bytes(bytes.as_mut());
    Secret::new(URL_SAFE_NO_PAD.encode(bytes.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_their_length_and_differ() {
        let (a, b) = (random_id_128(&mut os()), random_id_128(&mut os()));
        assert_eq!(URL_SAFE_NO_PAD.decode(&a).map(|bytes| bytes.len()), Ok(16));
        assert_ne!(a, b);
        let secret = random_secret_256(&mut os());
        assert_eq!(
            URL_SAFE_NO_PAD.decode(secret.expose()).map(|bytes| bytes.len()),
            Ok(32)
        );
        assert!(secret != random_secret_256(&mut os()));
    }
}
