//! Base64url without padding (RFC 4648 section 5), one spelling for each byte string.

use crate::Error;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Base64url of `bytes`, without padding.
#[must_use]
pub fn base64url_encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of a base64url text; padding, white space, other alphabets and stray trailing bits
/// are refused, so that no two texts give the same bytes.
///
/// # Errors
/// [`Error::Base64`].
pub fn base64url_decode(text: &str) -> Result<Vec<u8>, Error> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Error::Base64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_only() {
        let check = |text: &str, ok: bool| assert_eq!(base64url_decode(text).is_ok(), ok, "{text:?}");
        check("", true);
        check("AA", true);
        check("AB", false);
        check("AA==", false);
        check("A", false);
        check("-_8", true);
        check("+/8", false);
        check("AA\n", false);
    }
}
