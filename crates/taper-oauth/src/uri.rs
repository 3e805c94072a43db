//! Issuer and resource identifiers, and where their metadata lies.
//!
//! Identifiers are compared byte for byte, so they stay text; a parsed form is only used to check one and to
//! derive the address of its metadata (RFC 8414 §3, RFC 9728 §3, OpenID Connect Discovery §4).

use url::{Host, Url};

use crate::error::WireError;

/// The longest URL that is looked at, in bytes.
pub const MAX_URL: usize = 2048;

/// Checks a URL that keys or metadata may come from, or that stands for an issuer: https, or plain http to a
/// loopback host when `allow_loopback_http`; no user, no fragment.
///
/// # Errors
/// [`WireError::Url`].
pub fn secure(text: &str, allow_loopback_http: bool) -> Result<Url, WireError> {
    let url = absolute(text)?;
    let secure = match url.scheme() {
        "https" => true,
        "http" => allow_loopback_http && is_loopback(&url),
        _ => false,
    };
    if !secure {
        return Err(WireError::Url("https is required"));
    }
    if url.host().is_none() || !url.username().is_empty() || url.password().is_some() {
        return Err(WireError::Url("a host and no user is required"));
    }
    Ok(url)
}

/// Checks an issuer identifier: as [`secure`], and without a query (RFC 8414 §2).
///
/// # Errors
/// [`WireError::Url`].
pub fn issuer(text: &str, allow_loopback_http: bool) -> Result<Url, WireError> {
    let url = secure(text, allow_loopback_http)?;
    if url.query().is_some() {
        return Err(WireError::Url("an issuer has no query"));
    }
    Ok(url)
}

/// Checks a resource indicator: an absolute URI without a fragment (RFC 8707 §2).
///
/// # Errors
/// [`WireError::Url`].
pub fn absolute(text: &str) -> Result<Url, WireError> {
    if text.len() > MAX_URL {
        return Err(WireError::Url("too long"));
    }
    // The parser would trim or drop these silently, and the text is what gets compared later.
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(WireError::Url("a character that must be escaped"));
    }
    let url = Url::parse(text).map_err(|_| WireError::Url("not an absolute url"))?;
    if url.fragment().is_some() {
        return Err(WireError::Url("a fragment is not allowed"));
    }
    Ok(url)
}

/// `{issuer}/.well-known/openid-configuration` (OpenID Connect Discovery §4).
///
/// # Errors
/// [`WireError::Url`] when the issuer is not an absolute URL.
pub fn openid_configuration(issuer: &str) -> Result<Url, WireError> {
    let mut url = absolute(issuer)?;
    let path = format!(
        "{}/.well-known/openid-configuration",
        url.path().trim_end_matches('/')
    );
    url.set_path(&path);
    Ok(url)
}

/// The metadata of an authorization server: the well-known segment goes between host and path (RFC 8414 §3).
///
/// # Errors
/// [`WireError::Url`] when the issuer is not an absolute URL.
pub fn authorization_server_metadata(issuer: &str) -> Result<Url, WireError> {
    inserted(issuer, "/.well-known/oauth-authorization-server")
}

/// The metadata of a protected resource: the well-known segment goes between host and path (RFC 9728 §3).
///
/// # Errors
/// [`WireError::Url`] when the resource is not an absolute URL.
pub fn protected_resource_metadata(resource: &str) -> Result<Url, WireError> {
    inserted(resource, "/.well-known/oauth-protected-resource")
}

fn inserted(identifier: &str, well_known: &str) -> Result<Url, WireError> {
    let mut url = absolute(identifier)?;
    let path = format!("{well_known}{}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_over_https_or_from_loopback_when_allowed() {
        let check = |text: &str, loopback: bool, passes: bool| {
            assert_eq!(secure(text, loopback).is_ok(), passes, "{text}");
        };
        check("https://id.example/jwks", false, true);
        check("http://127.0.0.1:8080/jwks", true, true);
        check("http://[::1]/jwks", true, true);
        check("http://localhost:1/jwks", true, true);
        check("http://127.0.0.1:8080/jwks", false, false);
        check("http://id.example/jwks", true, false);
        check("http://127.0.0.1.example/jwks", true, false);
        check("http://localhost.example/jwks", true, false);
        check("https://user@id.example/jwks", false, false);
        check("https://id.example/jwks#a", false, false);
        check(" https://id.example/jwks", false, false);
        check("https://id.example/a\nb", false, false);
        check("file:///etc/passwd", true, false);
        check("/jwks", true, false);
        check(
            &format!("https://id.example/{}", "a".repeat(MAX_URL)),
            false,
            false,
        );
    }

    #[test]
    fn an_issuer_has_no_query() {
        assert!(issuer("https://id.example/t", false).is_ok());
        assert!(issuer("https://id.example/t?x=1", false).is_err());
    }

    #[test]
    fn metadata_lies_where_the_rfcs_say() {
        let check = |got: Result<Url, WireError>, expected: &str| assert_eq!(got.unwrap().as_str(), expected);
        check(
            openid_configuration("https://a.example"),
            "https://a.example/.well-known/openid-configuration",
        );
        check(
            openid_configuration("https://a.example/t/"),
            "https://a.example/t/.well-known/openid-configuration",
        );
        check(
            authorization_server_metadata("https://a.example"),
            "https://a.example/.well-known/oauth-authorization-server",
        );
        check(
            authorization_server_metadata("https://a.example/t"),
            "https://a.example/.well-known/oauth-authorization-server/t",
        );
        check(
            protected_resource_metadata("http://127.0.0.1:9/git/mcp"),
            "http://127.0.0.1:9/.well-known/oauth-protected-resource/git/mcp",
        );
    }
}
