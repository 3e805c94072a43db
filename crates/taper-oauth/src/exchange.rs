//! Token requests: RFC 8693, with `resource` (RFC 8707) and `authorization_details`
//! (RFC 9396).
//!
//! A [`TokenRequest`] says what is asked, nothing of it is verified. Who asks is in
//! [`crate::client_auth`], read from the same form.

use crate::details::{self, McpDetail};
use crate::error::{ErrorCode, OAuthError, WireError};
use crate::form::Form;
use crate::scope::{self, Scope};
use crate::secret::Secret;
use crate::uri;

/// `grant_type` of the token exchange (RFC 8693 §2.1).
pub const GRANT_TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// An OAuth access token (RFC 8693 §3).
pub const TOKEN_TYPE_ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// An OpenID Connect ID token (RFC 8693 §3).
pub const TOKEN_TYPE_ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
/// Any JWT (RFC 8693 §3).
pub const TOKEN_TYPE_JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// Our capability.
pub const TOKEN_TYPE_CAPABILITY: &str = "urn:taper:params:oauth:token-type:capability";

/// How many `resource` and how many `audience` parameters a request may have.
pub const MAX_TARGETS: usize = 16;
/// The longest `audience`, in bytes.
pub const MAX_AUDIENCE: usize = 512;

/// A request to the token endpoint, by `grant_type`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenRequest {
    /// RFC 8693.
    TokenExchange(Box<ExchangeRequest>),
}

/// The parameters of a token exchange (RFC 8693 §2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExchangeRequest {
    /// On whose behalf.
    pub subject_token: Secret,
    /// What `subject_token` is.
    pub subject_token_type: TokenType,
    /// Who acts, with the type; both or none.
    pub actor_token: Option<(Secret, TokenType)>,
    /// What is wanted back.
    pub requested_token_type: Option<TokenType>,
    /// Where the token is to be used: absolute URIs without fragment, compared byte for byte.
    pub resources: Vec<String>,
    /// Where the token is to be used, as logical names.
    pub audiences: Vec<String>,
    /// What is wanted, in short form.
    pub scope: Vec<Scope>,
    /// What is wanted, in long form.
    pub authorization_details: Vec<McpDetail>,
    /// The client, as the form names it.
    pub client_id: Option<String>,
    /// The client's secret, as the form has it.
    pub client_secret: Option<Secret>,
}

/// The token types that are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenType {
    /// [`TOKEN_TYPE_ACCESS_TOKEN`].
    AccessToken,
    /// [`TOKEN_TYPE_ID_TOKEN`].
    IdToken,
    /// [`TOKEN_TYPE_JWT`].
    Jwt,
    /// [`TOKEN_TYPE_CAPABILITY`].
    Capability,
}

impl TokenType {
    const ALL: [Self; 4] = [Self::AccessToken, Self::IdToken, Self::Jwt, Self::Capability];

    /// The URN on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AccessToken => TOKEN_TYPE_ACCESS_TOKEN,
            Self::IdToken => TOKEN_TYPE_ID_TOKEN,
            Self::Jwt => TOKEN_TYPE_JWT,
            Self::Capability => TOKEN_TYPE_CAPABILITY,
        }
    }

    /// The type of this URN, when it is understood.
    pub fn from_urn(urn: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == urn)
    }
}

impl TokenRequest {
    /// Reads a request body of at most `max_bytes` bytes. An endpoint that also authenticates the client
    /// parses the [`Form`] itself and uses [`TokenRequest::from_form`].
    ///
    /// # Errors
    /// As [`Form::parse`] and [`TokenRequest::from_form`].
    pub fn parse(body: &[u8], max_bytes: usize) -> Result<Self, OAuthError> {
        Self::from_form(&Form::parse(body, max_bytes)?)
    }

    /// Reads a request out of its form.
    ///
    /// # Errors
    /// `unsupported_grant_type`, or what the grant's parameters deserve: `invalid_request`,
    /// `invalid_target`, `invalid_scope`, `invalid_authorization_details`.
    pub fn from_form(form: &Form) -> Result<Self, OAuthError> {
        match form.require("grant_type")? {
            GRANT_TOKEN_EXCHANGE => Ok(Self::TokenExchange(Box::new(ExchangeRequest::from_form(form)?))),
            _ => Err(OAuthError::new(
                ErrorCode::UnsupportedGrantType,
                "this grant type is not supported",
            )),
        }
    }
}

impl ExchangeRequest {
    /// A request with nothing but a subject token, for a client to add to.
    pub fn new(subject_token: Secret, subject_token_type: TokenType) -> Self {
        Self {
            subject_token,
            subject_token_type,
            actor_token: None,
            requested_token_type: None,
            resources: Vec::new(),
            audiences: Vec::new(),
            scope: Vec::new(),
            authorization_details: Vec::new(),
            client_id: None,
            client_secret: None,
        }
    }

    /// The request as a form body. It holds the tokens, so it is a secret as a whole.
    ///
    /// # Errors
    /// [`WireError::Json`], never for details made by [`McpDetail::new`].
    pub fn to_form(&self) -> Result<Secret, WireError> {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        let mut add = |name: &str, value: &str| {
            form.append_pair(name, value);
        };
        add("grant_type", GRANT_TOKEN_EXCHANGE);
        add("subject_token", self.subject_token.expose());
        add("subject_token_type", self.subject_token_type.as_str());
        if let Some((token, kind)) = &self.actor_token {
            add("actor_token", token.expose());
            add("actor_token_type", kind.as_str());
        }
        if let Some(kind) = self.requested_token_type {
            add("requested_token_type", kind.as_str());
        }
        for resource in &self.resources {
            add("resource", resource);
        }
        for audience in &self.audiences {
            add("audience", audience);
        }
        if !self.scope.is_empty() {
            add("scope", &scope::format_list(&self.scope));
        }
        if !self.authorization_details.is_empty() {
            add(
                "authorization_details",
                &details::format_list(&self.authorization_details)?,
            );
        }
        if let Some(client_id) = &self.client_id {
            add("client_id", client_id);
        }
        if let Some(secret) = &self.client_secret {
            add("client_secret", secret.expose());
        }
        Ok(Secret::new(form.finish()))
    }

    fn from_form(form: &Form) -> Result<Self, OAuthError> {
        let actor_token = match (form.get("actor_token"), token_type(form, "actor_token_type")?) {
            (Some(token), Some(kind)) => Some((Secret::new(token), kind)),
            (None, None) => None,
            (Some(_), None) => return Err(invalid_request("`actor_token_type` is missing")),
            (None, Some(_)) => return Err(invalid_request("`actor_token_type` without `actor_token`")),
        };
        let scope = form.get("scope").map(scope::parse_list).transpose();
        let details = form
            .get("authorization_details")
            .map(details::parse_list)
            .transpose();
        Ok(Self {
            subject_token: Secret::new(form.require("subject_token")?),
            subject_token_type: token_type(form, "subject_token_type")?
                .ok_or_else(|| invalid_request("`subject_token_type` is missing"))?,
            actor_token,
            requested_token_type: token_type(form, "requested_token_type")?,
            resources: targets(form, "resource", |text| uri::absolute(text).is_ok())?,
            audiences: targets(form, "audience", is_audience)?,
            scope: scope
                .map_err(|error| answer(ErrorCode::InvalidScope, &error))?
                .unwrap_or_default(),
            authorization_details: details
                .map_err(|error| answer(ErrorCode::InvalidAuthorizationDetails, &error))?
                .unwrap_or_default(),
            client_id: form.get("client_id").map(str::to_owned),
            client_secret: form.get("client_secret").map(Secret::new),
        })
    }
}

fn token_type(form: &Form, name: &str) -> Result<Option<TokenType>, OAuthError> {
    let understood = |urn| {
        TokenType::from_urn(urn).ok_or_else(|| invalid_request(&format!("`{name}` is not a supported type")))
    };
    form.get(name).map(understood).transpose()
}

fn targets(form: &Form, name: &str, valid: impl Fn(&str) -> bool) -> Result<Vec<String>, OAuthError> {
    let values: Vec<String> = form.get_all(name).map(str::to_owned).collect();
    if values.len() > MAX_TARGETS {
        return Err(OAuthError::new(
            ErrorCode::InvalidTarget,
            format!("too many `{name}` parameters"),
        ));
    }
    if !values.iter().all(|value| valid(value)) {
        return Err(OAuthError::new(
            ErrorCode::InvalidTarget,
            format!("a `{name}` is malformed"),
        ));
    }
    Ok(values)
}

fn is_audience(text: &str) -> bool {
    text.len() <= MAX_AUDIENCE && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn answer(code: ErrorCode, error: &WireError) -> OAuthError {
    OAuthError::new(code, error.to_string())
}

fn invalid_request(description: &str) -> OAuthError {
    OAuthError::new(ErrorCode::InvalidRequest, description)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: [(&str, &str); 3] = [
        ("grant_type", GRANT_TOKEN_EXCHANGE),
        ("subject_token", "t"),
        ("subject_token_type", TOKEN_TYPE_ACCESS_TOKEN),
    ];

    fn read(pairs: &[(&str, &str)]) -> Result<ExchangeRequest, OAuthError> {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .finish();
        TokenRequest::parse(body.as_bytes(), 64 * 1024).map(|TokenRequest::TokenExchange(request)| *request)
    }

    /// The base request with the given parameters added; an empty value takes one away.
    #[track_caller]
    fn check(changes: &[(&str, &str)], expected: Result<(), ErrorCode>) {
        let kept = BASE
            .iter()
            .filter(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        let pairs: Vec<_> = kept.chain(changes).copied().collect();
        assert_eq!(
            read(&pairs).map(|_| ()).map_err(|error| error.code()),
            expected,
            "{changes:?}"
        );
    }

    #[test]
    fn each_parameter_is_checked_on_its_own() {
        use ErrorCode::*;
        check(&[], Ok(()));
        check(&[("grant_type", "")], Err(InvalidRequest));
        check(&[("grant_type", "client_credentials")], Err(UnsupportedGrantType));
        check(&[("subject_token", "")], Err(InvalidRequest));
        check(&[("subject_token_type", "")], Err(InvalidRequest));
        check(
            &[("subject_token_type", "urn:ietf:params:oauth:token-type:saml2")],
            Err(InvalidRequest),
        );
        check(&[("subject_token_type", TOKEN_TYPE_ID_TOKEN)], Ok(()));
        check(&[("subject_token_type", TOKEN_TYPE_JWT)], Ok(()));
        check(
            &[("actor_token", "a"), ("actor_token_type", TOKEN_TYPE_JWT)],
            Ok(()),
        );
        check(&[("actor_token", "a")], Err(InvalidRequest));
        check(&[("actor_token_type", TOKEN_TYPE_JWT)], Err(InvalidRequest));
        check(&[("requested_token_type", TOKEN_TYPE_CAPABILITY)], Ok(()));
        check(&[("requested_token_type", "x")], Err(InvalidRequest));
        check(
            &[
                ("resource", "https://a.example/git/mcp"),
                ("resource", "https://a.example/b"),
            ],
            Ok(()),
        );
        check(&[("resource", "/git/mcp")], Err(InvalidTarget));
        check(&[("resource", "https://a.example/#x")], Err(InvalidTarget));
        check(&[("audience", "git"), ("audience", "hub")], Ok(()));
        check(&[("audience", "a b")], Err(InvalidTarget));
        check(&[("audience", "a"); MAX_TARGETS], Ok(()));
        check(&[("audience", "a"); MAX_TARGETS + 1], Err(InvalidTarget));
        check(&[("scope", "git:git_log git:*")], Ok(()));
        check(&[("scope", "openid")], Err(InvalidScope));
        check(
            &[(
                "authorization_details",
                r#"[{"type":"mcp","server":"git","tools":["*"]}]"#,
            )],
            Ok(()),
        );
        check(
            &[("authorization_details", r#"[{"type":"mcp"}]"#)],
            Err(InvalidAuthorizationDetails),
        );
        check(
            &[("authorization_details", "[]")],
            Err(InvalidAuthorizationDetails),
        );
        check(&[("something_else", "x")], Ok(()));
        check(&[("scope", "git:a"), ("scope", "git:a")], Err(InvalidRequest));
    }

    #[test]
    fn tokens_and_secrets_do_not_print() {
        let mut request = ExchangeRequest::new(Secret::new("hunter2"), TokenType::AccessToken);
        request.actor_token = Some((Secret::new("hunter2"), TokenType::Jwt));
        request.client_secret = Some(Secret::new("hunter2"));
        let shown = format!("{:?} {request:?}", request.to_form().unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    proptest! {
        #[test]
        fn a_request_reads_back(
            subject in "[!-~]{1,60}",
            actor in proptest::option::of("[!-~]{1,60}"),
            resources in proptest::collection::vec("https://[a-z]{1,8}\\.example/[a-z/?=&]{0,10}", 0..3),
            audiences in proptest::collection::vec("[!-~]{1,20}", 0..3),
            scopes in proptest::collection::btree_set("[a-z0-9-]{1,8}:[a-z_]{1,8}", 0..4),
            client in proptest::option::of("[ -~]{1,20}"),
        ) {
            let mut request = ExchangeRequest::new(Secret::new(subject), TokenType::IdToken);
            request.actor_token = actor.map(|token| (Secret::new(token), TokenType::Jwt));
            request.requested_token_type = Some(TokenType::Capability);
            request.resources = resources;
            request.audiences = audiences;
            request.scope = scopes.iter().map(|scope| scope.parse().unwrap()).collect();
            request.client_id = client.clone();
            request.client_secret = client.map(Secret::new);
            let body = request.to_form().unwrap();
            let read = TokenRequest::parse(body.expose().as_bytes(), 64 * 1024).unwrap();
            prop_assert_eq!(read, TokenRequest::TokenExchange(Box::new(request)));
        }
    }
}
