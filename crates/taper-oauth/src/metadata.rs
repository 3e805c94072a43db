//! Metadata documents: of the authorization server (RFC 8414) and of a protected resource (RFC 9728).
//!
//! Identifiers are text and are compared byte for byte. Reading ignores members that are not known here, as
//! the RFCs demand.

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::WireError;
use crate::{details, exchange, json};

/// The largest document that is read, in bytes.
pub const MAX_DOCUMENT: usize = 64 * 1024;
/// The proof algorithms that are accepted everywhere.
pub const DPOP_ALGORITHMS: [&str; 2] = ["EdDSA", "ES256"];

/// Authorization server metadata (RFC 8414 §2). What is `None` or empty is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthorizationServerMetadata {
    /// The issuer identifier, exactly as tokens name it.
    pub issuer: String,
    /// Where a browser is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization_endpoint: Option<String>,
    /// Where tokens are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_endpoint: Option<String>,
    /// Where the public keys lie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<String>,
    /// RFC 7591.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registration_endpoint: Option<String>,
    /// RFC 7009.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revocation_endpoint: Option<String>,
    /// RFC 7662.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub introspection_endpoint: Option<String>,
    /// RFC 9126.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pushed_authorization_request_endpoint: Option<String>,
    /// Scopes that can be asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes_supported: Vec<String>,
    /// Required by the RFC, so written even when empty: then there is no authorization endpoint.
    pub response_types_supported: Vec<String>,
    /// Absent would mean `authorization_code` and `implicit`, so it is always written.
    pub grant_types_supported: Vec<String>,
    /// How a client authenticates at the token endpoint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub token_endpoint_auth_methods_supported: Vec<String>,
    /// How a client authenticates at the revocation endpoint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub revocation_endpoint_auth_methods_supported: Vec<String>,
    /// How a client authenticates at the introspection endpoint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub introspection_endpoint_auth_methods_supported: Vec<String>,
    /// RFC 9449 §5.1.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dpop_signing_alg_values_supported: Vec<String>,
    /// RFC 9396 §10.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub authorization_details_types_supported: Vec<String>,
    /// RFC 7636; clients demand `S256` where there is an authorization endpoint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub code_challenge_methods_supported: Vec<String>,
    /// RFC 9207.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub authorization_response_iss_parameter_supported: bool,
    /// Client ID metadata documents.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub client_id_metadata_document_supported: bool,
    /// Endpoints for clients that show a certificate, where they are others (RFC 8705 §5).
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub mtls_endpoint_aliases: Option<EndpointAliases>,
}

/// Endpoints of which each stands instead of the one of the same name (RFC 8705 §5).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointAliases {
    /// Where tokens are asked for with a certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_endpoint: Option<String>,
}

impl AuthorizationServerMetadata {
    /// The document of an issuer that exchanges and revokes tokens, with its endpoints at their usual paths
    /// below `issuer`. Endpoints that a deployment adds are filled in by the caller.
    pub fn for_issuer(issuer: &str) -> Self {
        let at = |path: &str| Some(format!("{}{path}", issuer.trim_end_matches('/')));
        let methods = || texts(&["client_secret_basic", "client_secret_post", "none"]);
        Self {
            issuer: issuer.to_owned(),
            token_endpoint: at("/token"),
            jwks_uri: at("/.well-known/jwks.json"),
            revocation_endpoint: at("/revoke"),
            grant_types_supported: texts(&[exchange::GRANT_TOKEN_EXCHANGE]),
            token_endpoint_auth_methods_supported: methods(),
            revocation_endpoint_auth_methods_supported: methods(),
            dpop_signing_alg_values_supported: texts(&DPOP_ALGORITHMS),
            authorization_details_types_supported: texts(&[details::DETAIL_TYPE]),
            ..Self::default()
        }
    }

    /// Where a client asks for tokens that shows a certificate, or not (RFC 8705 §5).
    pub fn token_endpoint_for(&self, shows_certificate: bool) -> Option<&str> {
        let alias = self.mtls_endpoint_aliases.as_ref().filter(|_| shows_certificate);
        let alias = alias.and_then(|aliases| aliases.token_endpoint.as_deref());
        alias.or(self.token_endpoint.as_deref())
    }

    /// Reads the document that was fetched for `issuer`.
    ///
    /// # Errors
    /// [`WireError`]: too large, not strict JSON; [`WireError::Identity`] when it names another issuer
    /// (RFC 8414 §3.3).
    pub fn parse(bytes: &[u8], issuer: &str) -> Result<Self, WireError> {
        let document: Self = json::read(bytes, MAX_DOCUMENT)?;
        same(issuer, &document.issuer)?;
        Ok(document)
    }
}

/// Protected resource metadata (RFC 9728 §2). What is `None` is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProtectedResourceMetadata {
    /// The resource identifier, exactly as capabilities name their audience.
    pub resource: String,
    /// The issuers whose capabilities count here.
    pub authorization_servers: Vec<String>,
    /// Scopes to ask for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes_supported: Vec<String>,
    /// Written even when empty: no way of sending a bearer token is accepted.
    pub bearer_methods_supported: Vec<String>,
    /// RFC 9449.
    pub dpop_bound_access_tokens_required: bool,
    /// RFC 9449.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dpop_signing_alg_values_supported: Vec<String>,
    /// RFC 9396.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub authorization_details_types_supported: Vec<String>,
    /// A name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_name: Option<String>,
}

impl ProtectedResourceMetadata {
    /// The document of a resource that accepts only capabilities bound by DPoP.
    pub fn for_resource(resource: &str, issuers: &[&str], scopes: &[&str], name: Option<&str>) -> Self {
        Self {
            resource: resource.to_owned(),
            authorization_servers: texts(issuers),
            scopes_supported: texts(scopes),
            bearer_methods_supported: Vec::new(),
            dpop_bound_access_tokens_required: true,
            dpop_signing_alg_values_supported: texts(&DPOP_ALGORITHMS),
            authorization_details_types_supported: texts(&[details::DETAIL_TYPE]),
            resource_name: name.map(str::to_owned),
        }
    }

    /// Reads the document that was fetched for `resource`.
    ///
    /// # Errors
    /// [`WireError`]: too large, not strict JSON; [`WireError::Identity`] when it names another resource
    /// (RFC 9728 §3.3).
    pub fn parse(bytes: &[u8], resource: &str) -> Result<Self, WireError> {
        let document: Self = json::read(bytes, MAX_DOCUMENT)?;
        same(resource, &document.resource)?;
        Ok(document)
    }
}

/// What is of another form is none: it concerns few of those who read the document.
fn lenient<'de, D: Deserializer<'de>>(from: D) -> Result<Option<EndpointAliases>, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    let object = Some(value).filter(serde_json::Value::is_object);
    Ok(object.and_then(|object| serde_json::from_value(object).ok()))
}

pub(crate) fn same(expected: &str, found: &str) -> Result<(), WireError> {
    if expected == found {
        return Ok(());
    }
    let found = found.chars().take(256).filter(|c| !c.is_control()).collect();
    Err(WireError::Identity {
        expected: expected.to_owned(),
        found,
    })
}

fn texts(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_issuers_document() {
        let document = AuthorizationServerMetadata::for_issuer("https://a.example");
        let json = serde_json::to_string(&document).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"issuer":"https://a.example","token_endpoint":"https://a.example/token","#,
                r#""jwks_uri":"https://a.example/.well-known/jwks.json","#,
                r#""revocation_endpoint":"https://a.example/revoke","response_types_supported":[],"#,
                r#""grant_types_supported":["urn:ietf:params:oauth:grant-type:token-exchange"],"#,
                r#""token_endpoint_auth_methods_supported":["client_secret_basic","client_secret_post","none"],"#,
                r#""revocation_endpoint_auth_methods_supported":["client_secret_basic","client_secret_post","none"],"#,
                r#""dpop_signing_alg_values_supported":["EdDSA","ES256"],"#,
                r#""authorization_details_types_supported":["mcp"]}"#
            )
        );
        assert_eq!(
            AuthorizationServerMetadata::parse(json.as_bytes(), "https://a.example"),
            Ok(document)
        );
    }

    #[test]
    fn who_shows_a_certificate_has_an_endpoint_of_its_own_where_it_is_named() {
        let check = |members: &str, with: Option<&str>, without: Option<&str>| {
            let json = format!(r#"{{"issuer":"https://a.example"{members}}}"#);
            let document = AuthorizationServerMetadata::parse(json.as_bytes(), "https://a.example").unwrap();
            let got = [true, false].map(|shows| document.token_endpoint_for(shows));
            assert_eq!(got, [with, without], "{json}");
        };
        check("", None, None);
        check(r#","token_endpoint":"t""#, Some("t"), Some("t"));
        check(
            r#","token_endpoint":"t","mtls_endpoint_aliases":{"token_endpoint":"m","revocation_endpoint":"r"}"#,
            Some("m"),
            Some("t"),
        );
        check(
            r#","token_endpoint":"t","mtls_endpoint_aliases":{"revocation_endpoint":"r"}"#,
            Some("t"),
            Some("t"),
        );
        check(
            r#","mtls_endpoint_aliases":{"token_endpoint":"m"}"#,
            Some("m"),
            None,
        );
        for other in ["null", "\"m\"", "7", r#"{"token_endpoint":7}"#, r#"["m"]"#] {
            let members = format!(r#","token_endpoint":"t","mtls_endpoint_aliases":{other}"#);
            check(&members, Some("t"), Some("t"));
        }
    }

    #[test]
    fn the_resources_document() {
        let document = ProtectedResourceMetadata::for_resource(
            "https://p.example/git/mcp",
            &["https://a.example"],
            &["git:*"],
            Some("git"),
        );
        let json = serde_json::to_string(&document).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"resource":"https://p.example/git/mcp","authorization_servers":["https://a.example"],"#,
                r#""scopes_supported":["git:*"],"bearer_methods_supported":[],"#,
                r#""dpop_bound_access_tokens_required":true,"dpop_signing_alg_values_supported":["EdDSA","ES256"],"#,
                r#""authorization_details_types_supported":["mcp"],"resource_name":"git"}"#
            )
        );
        assert_eq!(
            ProtectedResourceMetadata::parse(json.as_bytes(), "https://p.example/git/mcp"),
            Ok(document)
        );
    }

    #[test]
    fn another_identity_is_refused_byte_for_byte() {
        let check = |issuer: &str| {
            let document = br#"{"issuer":"https://a.example","unknown":1}"#;
            AuthorizationServerMetadata::parse(document, issuer).is_ok()
        };
        assert!(check("https://a.example"));
        assert!(!check("https://a.example/"));
        assert!(!check("https://A.example"));
        let resource =
            ProtectedResourceMetadata::parse(br#"{"resource":"https://p.example"}"#, "https://q.example");
        assert!(matches!(resource, Err(WireError::Identity { .. })));
    }

    #[test]
    fn documents_are_strict_json_of_bounded_size() {
        let check = |text: &str| AuthorizationServerMetadata::parse(text.as_bytes(), "https://a.example");
        assert!(check(r#"{"issuer":"https://a.example"}"#).is_ok());
        assert!(check(r#"{"issuer":"https://b.example","issuer":"https://a.example"}"#).is_err());
        assert!(check("{}").is_err());
        assert!(check(&" ".repeat(MAX_DOCUMENT + 1)).is_err());
    }
}
