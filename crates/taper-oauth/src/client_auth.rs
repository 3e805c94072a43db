//! How a client names and authenticates itself at the token, revocation and introspection endpoints.
//!
//! `client_secret_basic` or `client_secret_post` (RFC 6749 §2.3.1), or only a `client_id` for a public
//! client; never two methods at once (§2.3). Whether the secret is right is decided by the caller, who knows
//! the client.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::error::{ErrorCode, OAuthError};
use crate::form::{self, Form};
use crate::secret::Secret;

/// The longest client id or secret, in bytes. A client id may be a URL.
pub const MAX_CREDENTIAL: usize = 2048;

/// What a request says about its client. Nothing of it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// A public client: only a `client_id`.
    None {
        /// The claimed client.
        client_id: String,
    },
    /// `client_secret_basic`.
    Basic {
        /// The claimed client.
        client_id: String,
        /// To be compared with the client's own.
        secret: Secret,
    },
    /// `client_secret_post`.
    Post {
        /// The claimed client.
        client_id: String,
        /// To be compared with the client's own.
        secret: Secret,
    },
}

impl ClientAuthentication {
    /// Reads the `Authorization` header and the form of a request. A `client_id` in the form beside a Basic
    /// header is accepted when it names the same client.
    ///
    /// # Errors
    /// `invalid_client`: no client, a malformed header, an unsupported method. `invalid_request`: two
    /// methods, two clients.
    pub fn from_request(authorization: Option<&str>, form: &Form) -> Result<Self, OAuthError> {
        if form.get("client_assertion").is_some() || form.get("client_assertion_type").is_some() {
            return Err(invalid_client("client assertions are not supported"));
        }
        let form_id = form.get("client_id").map(checked).transpose()?;
        let form_secret = form.get("client_secret").map(checked).transpose()?;
        let Some(header) = authorization else {
            let client_id = form_id
                .ok_or_else(|| invalid_client("the request names no client"))?
                .to_owned();
            return Ok(match form_secret {
                None => Self::None { client_id },
                Some(secret) => Self::Post {
                    client_id,
                    secret: Secret::new(secret),
                },
            });
        };
        let (client_id, secret) = parse_basic(header)?;
        if form_secret.is_some() {
            return Err(invalid_request("the client authenticates in two ways"));
        }
        if form_id.is_some_and(|id| id != client_id) {
            return Err(invalid_request("header and form name different clients"));
        }
        Ok(Self::Basic { client_id, secret })
    }

    /// The claimed client.
    pub fn client_id(&self) -> &str {
        match self {
            Self::None { client_id } | Self::Basic { client_id, .. } | Self::Post { client_id, .. } => {
                client_id
            }
        }
    }

    /// The secret, when one was sent.
    pub fn secret(&self) -> Option<&Secret> {
        match self {
            Self::None { .. } => None,
            Self::Basic { secret, .. } | Self::Post { secret, .. } => Some(secret),
        }
    }

    /// The method's name in the registry `token_endpoint_auth_method` (RFC 7591 §2).
    pub fn method(&self) -> &'static str {
        match self {
            Self::None { .. } => "none",
            Self::Basic { .. } => "client_secret_basic",
            Self::Post { .. } => "client_secret_post",
        }
    }
}

/// The `Authorization` header of `client_secret_basic`: id and secret are form-encoded first (RFC 6749
/// §2.3.1).
pub fn basic_header(client_id: &str, secret: &Secret) -> Secret {
    let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Zeroizing::new(format!(
        "{}:{}",
        encode(client_id),
        *Zeroizing::new(encode(secret.expose()))
    ));
    Secret::new(format!(
        "Basic {}",
        *Zeroizing::new(STANDARD.encode(pair.as_bytes()))
    ))
}

fn parse_basic(header: &str) -> Result<(String, Secret), OAuthError> {
    let malformed = || invalid_client("malformed basic credentials");
    let (scheme, encoded) = header.split_once(' ').ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(invalid_client("the authentication scheme is not supported"));
    }
    // Form-encoding triples a byte at most, base64 adds a third.
    if encoded.len() > MAX_CREDENTIAL * 8 {
        return Err(malformed());
    }
    let pair = Zeroizing::new(
        STANDARD
            .decode(encoded.trim_start_matches(' '))
            .map_err(|_| malformed())?,
    );
    let mut halves = pair.splitn(2, |&byte| byte == b':');
    let mut half = || {
        halves
            .next()
            .and_then(form::decode)
            .map(Zeroizing::new)
            .ok_or_else(malformed)
    };
    let (client_id, secret) = (half()?, half()?);
    if client_id.is_empty() || secret.is_empty() {
        return Err(malformed());
    }
    Ok((checked(&client_id)?.to_owned(), Secret::new(checked(&secret)?)))
}

/// Ids and secrets are `*VSCHAR` (RFC 6749 appendix A.1, A.2).
fn checked(text: &str) -> Result<&str, OAuthError> {
    if text.len() <= MAX_CREDENTIAL && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        Ok(text)
    } else {
        Err(invalid_client("malformed client id or secret"))
    }
}

fn invalid_client(description: &str) -> OAuthError {
    OAuthError::new(ErrorCode::InvalidClient, description)
}

fn invalid_request(description: &str) -> OAuthError {
    OAuthError::new(ErrorCode::InvalidRequest, description)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(header: Option<&str>, body: &str, expected: Result<(&str, &str, Option<&str>), ErrorCode>) {
        let form = Form::parse(body.as_bytes(), 16 * 1024).unwrap();
        let got = ClientAuthentication::from_request(header, &form);
        let seen = got.as_ref().map(|client| {
            (
                client.method(),
                client.client_id(),
                client.secret().map(Secret::expose),
            )
        });
        assert_eq!(seen.map_err(OAuthError::code), expected);
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[test]
    fn exactly_one_method() {
        use ErrorCode::{InvalidClient, InvalidRequest};
        check(None, "client_id=a", Ok(("none", "a", None)));
        check(
            None,
            "client_id=a&client_secret=s",
            Ok(("client_secret_post", "a", Some("s"))),
        );
        check(
            Some(&basic("a:s")),
            "",
            Ok(("client_secret_basic", "a", Some("s"))),
        );
        check(
            Some(&basic("a:s")),
            "client_id=a",
            Ok(("client_secret_basic", "a", Some("s"))),
        );
        check(
            Some(&basic("a:s").replace("Basic", "bAsIc")),
            "",
            Ok(("client_secret_basic", "a", Some("s"))),
        );
        check(Some(&basic("a:s")), "client_id=b", Err(InvalidRequest));
        check(
            Some(&basic("a:s")),
            "client_id=a&client_secret=s",
            Err(InvalidRequest),
        );
        check(None, "", Err(InvalidClient));
        check(None, "client_secret=s", Err(InvalidClient));
        check(None, "client_id=a&client_assertion=x", Err(InvalidClient));
        check(None, "client_id=a%0A", Err(InvalidClient));
        check(Some("DPoP abc"), "client_id=a", Err(InvalidClient));
        check(Some("Basic"), "", Err(InvalidClient));
        check(Some("Basic !"), "", Err(InvalidClient));
        check(Some(&basic("a")), "", Err(InvalidClient));
        check(Some(&basic(":s")), "", Err(InvalidClient));
        check(Some(&basic("a:")), "", Err(InvalidClient));
        check(Some(&basic("a:%zz")), "", Err(InvalidClient));
        check(Some(&basic("a:s\n")), "", Err(InvalidClient));
        check(
            None,
            &format!("client_id={}", "a".repeat(MAX_CREDENTIAL + 1)),
            Err(InvalidClient),
        );
        check(
            Some(&basic(&format!("a:{}", "s".repeat(MAX_CREDENTIAL + 1)))),
            "",
            Err(InvalidClient),
        );
    }

    #[test]
    fn basic_credentials_are_form_decoded_and_split_once() {
        check(
            Some(&basic("a%3Ab:c:d+e%2B")),
            "",
            Ok(("client_secret_basic", "a:b", Some("c:d e+"))),
        );
    }

    #[test]
    fn a_secret_does_not_print() {
        let form = Form::parse(b"client_id=a&client_secret=hunter2", 64).unwrap();
        let client = ClientAuthentication::from_request(None, &form).unwrap();
        assert_eq!(
            format!("{client:?}"),
            r#"Post { client_id: "a", secret: Secret([hidden]) }"#
        );
    }

    proptest! {
        #[test]
        fn our_own_header_reads_back(id in "[ -~]{1,40}", secret in "[ -~]{1,40}") {
            let header = basic_header(&id, &Secret::new(secret.as_str()));
            let form = Form::parse(b"", 0).unwrap();
            let got = ClientAuthentication::from_request(Some(header.expose()), &form).unwrap();
            prop_assert_eq!(got, ClientAuthentication::Basic { client_id: id, secret: Secret::new(secret) });
        }

        #[test]
        fn any_header_is_answered(header in any::<String>()) {
            let form = Form::parse(b"", 0).unwrap();
            let _ = ClientAuthentication::from_request(Some(&header), &form);
        }
    }
}
