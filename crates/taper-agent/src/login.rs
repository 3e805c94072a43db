//! Logging in: the OAuth client that obtains an access token bound to a key of ours.
//!
//! The token is what an exchange starts from (a *subject token*), or what any MCP server takes that
//! asks for plain DPoP. The flow is the authorization code with PKCE in a browser:
//!
//! ```text
//! Login::to_resource ─ RFC 9728, RFC 8414     what the server asks for, and who can give it
//!   or Login::at_server
//! Login::register ──── RFC 7591               unless a client id is known
//! Login::authorize ─── RFC 7636, 8707, 9449   the URL for the browser
//! Redirect::answer ─── RFC 8252               the browser comes back to loopback
//! Pending::redeem ──── RFC 9207, 9449         state and issuer are checked, the code becomes a token
//! ```
//!
//! Nothing is accepted that is not bound: an answer that is no DPoP token is refused.

mod redirect;
mod refresh;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use taper_capability::escaped;
use taper_dpop::{ContentDigest, base64url_encode};
use taper_oauth::{
    AuthorizationServerMetadata, ErrorBody, ProtectedResourceMetadata, Secret, json, metadata, response, uri,
};
use taper_service::clock::Clock;
use taper_service::fetch::{FetchError, Fetched, Fetcher, Request};
use taper_service::rng;
use url::Url;

pub use self::redirect::{Answered, Redirect};
use crate::exchange::{Claims, bound_to};
use crate::issuer::{refusal, unusable};
use crate::proven::{self, Outgoing, Prover};
use crate::{Client, Credential, Error, HolderKey};

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";
/// Something that a server without a login answers, and that does nothing.
const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

/// An authorization server that can be logged in at, and for what.
#[derive(Clone, Debug)]
pub struct Login {
    server: AuthorizationServerMetadata,
    resource: Option<String>,
    scopes: Vec<String>,
    fetcher: Fetcher,
}

/// A login that waits for the browser.
pub struct Pending<'a> {
    login: &'a Login,
    client: Client,
    key: HolderKey,
    redirect_uri: String,
    state: Secret,
    verifier: Secret,
    url: Url,
}

/// An access token that is bound to the key of the login.
#[derive(Clone, Debug)]
pub struct LoggedIn {
    /// The token, opaque to a client.
    pub access_token: Secret,
    /// When it ends, in seconds since the Unix epoch, if the server says so.
    pub expires_at: Option<i64>,
    /// What was granted, if that is not what was asked for.
    pub scope: Option<String>,
    /// What gets another one without a browser ([`Login::refresh`]), if the server gives one.
    pub refresh_token: Option<Secret>,
    key: HolderKey,
}

impl Login {
    /// Asks the protected resource at `url` what it wants (RFC 9728) and its authorization server how to
    /// get it (RFC 8414). Plain HTTP is accepted on loopback.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Fetch`], or [`Error::Answer`] when a document is missing, names something
    /// else than it was fetched for, or the server cannot do what a login needs.
    pub async fn to_resource(url: &str) -> Result<Self, Error> {
        let fetcher = proven::fetcher_for(url)?;
        let (asked, scope) = challenge(&fetcher, url).await?;
        let (at, resource) = resource_metadata(&fetcher, url, asked).await?;
        let Some(issuer) = resource.authorization_servers.first() else {
            return Err(unusable(&at, "it names no authorization server".to_owned()));
        };
        secure(issuer, url, "authorization_servers")?;
        let scopes = match scope {
            Some(scope) => scope.split(' ').map(str::to_owned).collect(),
            None => resource.scopes_supported,
        };
        // Whom the resource names is not whom the user named: of the machine's own network it may only be
        // the resource's host.
        Self::discover(issuer, fetcher, Some(resource.resource), scopes).await
    }

    /// A login at an authorization server that the user names, for a token that is used at `resource`,
    /// if that is to be said.
    ///
    /// # Errors
    /// As [`Self::to_resource`].
    pub async fn at_server(issuer: &str, resource: Option<&str>) -> Result<Self, Error> {
        let refused = |reason: String| Error::Url {
            url: issuer.to_owned(),
            reason,
        };
        uri::issuer(issuer, true).map_err(|e| refused(e.to_string()))?;
        let fetcher = proven::fetcher_for(issuer)?;
        Self::discover(issuer, fetcher, resource.map(str::to_owned), Vec::new()).await
    }

    async fn discover(
        issuer: &str,
        fetcher: Fetcher,
        resource: Option<String>,
        scopes: Vec<String>,
    ) -> Result<Self, Error> {
        let mut places = Vec::new();
        // The order of MCP: OAuth's place, then OpenID's two.
        let inserted =
            uri::authorization_server_metadata(issuer).map_err(|e| unusable(issuer, e.to_string()))?;
        let openid = uri::openid_configuration(issuer).map_err(|e| unusable(issuer, e.to_string()))?;
        let mut openid_inserted = inserted.clone();
        let path = inserted
            .path()
            .replacen("oauth-authorization-server", "openid-configuration", 1);
        openid_inserted.set_path(&path);
        places.extend([inserted, openid_inserted, openid]);
        places.dedup();
        let mut found = None;
        for place in places {
            match fetched(&fetcher, place.as_str()).await {
                Ok(document) => {
                    found = Some(
                        AuthorizationServerMetadata::parse(&document, issuer)
                            .map_err(|e| unusable(place.as_str(), e.to_string()))?,
                    );
                    break;
                }
                Err(Error::Answer { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let server = found.ok_or_else(|| unusable(issuer, "it publishes no metadata".to_owned()))?;
        if server.authorization_endpoint.is_none() {
            let reason = "it has no `authorization_endpoint`: nobody logs in there";
            return Err(unusable(issuer, reason.to_owned()));
        }
        // Without PKCE somebody else's code could be redeemed in our name, and MCP forbids to go on.
        if !server
            .code_challenge_methods_supported
            .iter()
            .any(|m| m == "S256")
        {
            return Err(unusable(issuer, "it does not support PKCE with S256".to_owned()));
        }
        Ok(Self {
            server,
            resource,
            scopes,
            fetcher,
        })
    }

    /// The authorization server.
    pub fn issuer(&self) -> &str {
        &self.server.issuer
    }

    /// Where the token is to be used, if that is said.
    pub fn resource(&self) -> Option<&str> {
        self.resource.as_deref()
    }

    /// What the resource asks for, in order; none when it does not say.
    pub fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// The algorithms of proofs that the server takes; none when it does not say.
    pub fn algorithms(&self) -> &[String] {
        &self.server.dpop_signing_alg_values_supported
    }

    /// Registers a public client of this machine under `name` (RFC 7591).
    ///
    /// # Errors
    /// [`Error::Issuer`], [`Error::Answer`], [`Error::Fetch`].
    pub async fn register(&self, name: &str, redirect: &Redirect) -> Result<Client, Error> {
        #[derive(Serialize)]
        struct Registration<'a> {
            client_name: &'a str,
            application_type: &'a str,
            redirect_uris: [&'a str; 1],
            grant_types: &'a [&'a str],
            response_types: [&'a str; 1],
            token_endpoint_auth_method: &'a str,
            dpop_bound_access_tokens: bool,
        }
        #[derive(Deserialize)]
        struct Registered {
            client_id: String,
            client_secret: Option<String>,
            token_endpoint_auth_method: Option<String>,
        }
        let url = self.endpoint(
            "registration_endpoint",
            self.server.registration_endpoint.as_deref(),
        )?;
        let body = Registration {
            client_name: name,
            application_type: "native",
            redirect_uris: [redirect.uri()],
            grant_types: if self.refreshes() {
                &["authorization_code", "refresh_token"]
            } else {
                &["authorization_code"]
            },
            response_types: ["code"],
            token_endpoint_auth_method: "none",
            dpop_bound_access_tokens: true,
        };
        let max = metadata::MAX_DOCUMENT;
        let answer = self.fetcher.post_json(url, &body, HeaderMap::new(), max).await?;
        if !matches!(answer.status, StatusCode::CREATED | StatusCode::OK) {
            return Err(refusal(url, &answer));
        }
        let registered: Registered =
            json::read(&answer.body, max).map_err(|e| unusable(url, e.to_string()))?;
        let methods = &self.server.token_endpoint_auth_methods_supported;
        let basic = "client_secret_basic";
        let secret = match registered.token_endpoint_auth_method.as_deref() {
            Some("none") => None,
            // What is left out is `client_secret_basic` (RFC 7591 section 2), where the server has that.
            None if methods.is_empty() || methods.iter().any(|m| m == basic) => registered.client_secret,
            None => None,
            Some(method) if method == basic => registered.client_secret,
            Some(other) => {
                let reason = format!(
                    "it registered a client that authenticates by `{}`",
                    escaped(other)
                );
                return Err(unusable(url, reason));
            }
        };
        Ok(Client {
            id: registered.client_id,
            secret: secret.map(Secret::new),
        })
    }

    /// Begins a login of `client` that comes back to `redirect`, for a token with `scopes` that is bound to
    /// `key`.
    ///
    /// # Errors
    /// [`Error::Answer`] when the server has no place for it, or takes no proofs of such a key.
    pub fn authorize(
        &self,
        client: Client,
        redirect: &Redirect,
        scopes: &[String],
        key: &HolderKey,
    ) -> Result<Pending<'_>, Error> {
        let algorithm = key.public().algorithm().as_str();
        if !self.algorithms().is_empty() && !self.algorithms().iter().any(|a| a == algorithm) {
            let reason = format!(
                "it takes proofs by {}, and the key is for {algorithm}",
                escaped(&self.algorithms().join(", "))
            );
            return Err(unusable(self.issuer(), reason));
        }
        let endpoint = self.endpoint(
            "authorization_endpoint",
            self.server.authorization_endpoint.as_deref(),
        )?;
        let mut url = Url::parse(endpoint).map_err(|e| unusable(endpoint, e.to_string()))?;
        let [state, verifier] = [(); 2].map(|()| {
            let secret = rng::random_secret_256(&mut rng::os());
            Secret::new(base64url_encode(secret.expose()))
        });
        let digest = ContentDigest::of(verifier.expose().as_bytes());
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &client.id)
            .append_pair("redirect_uri", redirect.uri())
            .append_pair("state", state.expose())
            .append_pair("code_challenge", &base64url_encode(digest.as_bytes()))
            .append_pair("code_challenge_method", "S256")
            .append_pair("dpop_jkt", &key.thumbprint().to_string());
        if !scopes.is_empty() {
            url.query_pairs_mut().append_pair("scope", &scopes.join(" "));
        }
        if let Some(resource) = &self.resource {
            url.query_pairs_mut().append_pair("resource", resource);
        }
        Ok(Pending {
            login: self,
            client,
            key: key.clone(),
            redirect_uri: redirect.uri().to_owned(),
            state,
            verifier,
            url,
        })
    }

    /// Whether the server says that it gives refresh tokens.
    fn refreshes(&self) -> bool {
        let mut grants = self.server.grant_types_supported.iter();
        grants.any(|grant| grant == "refresh_token")
    }

    fn endpoint<'a>(&'a self, name: &str, url: Option<&'a str>) -> Result<&'a str, Error> {
        let url = url.ok_or_else(|| unusable(self.issuer(), format!("its metadata has no `{name}`")))?;
        secure(url, self.issuer(), name)?;
        Ok(url)
    }
}

impl Pending<'_> {
    /// What the user opens in a browser.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Whether an answer is one to this login. Any other is somebody else's, or an attack.
    pub fn is_answered_by(&self, answer: &Answered) -> bool {
        answer.get("state").is_some_and(|state| self.state.matches(state))
    }

    /// Redeems what the browser brought back for a token.
    ///
    /// # Errors
    /// [`Error::Answer`] when the answer belongs to another login or another server (RFC 9207), or the
    /// token is not bound to the key; [`Error::Issuer`] when the user or the server said no;
    /// [`Error::Fetch`].
    pub async fn redeem(self, answer: &Answered, clock: &dyn Clock) -> Result<LoggedIn, Error> {
        let (login, server) = (self.login, &self.login.server);
        let foreign = |reason: &str| Err(unusable(&server.issuer, reason.to_owned()));
        if !self.is_answered_by(answer) {
            return foreign("the browser brought the answer to another login");
        }
        match answer.get("iss") {
            Some(iss) if iss == server.issuer => {}
            Some(_) => return foreign("the browser brought the answer of another server"),
            None if server.authorization_response_iss_parameter_supported => {
                return foreign("the browser brought an answer that does not say whose it is");
            }
            None => {}
        }
        if let Some(error) = answer.get("error") {
            return Err(Error::Issuer {
                status: StatusCode::FOUND.as_u16(),
                body: ErrorBody {
                    error: escaped(error),
                    error_description: answer.get("error_description").map(escaped),
                },
            });
        }
        let Some(code) = answer.get("code") else {
            return foreign("the browser brought no code");
        };
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("redirect_uri", &self.redirect_uri)
            .append_pair("client_id", &self.client.id)
            .append_pair("code_verifier", self.verifier.expose());
        if let Some(resource) = &login.resource {
            form.append_pair("resource", resource);
        }
        let url = login.endpoint("token_endpoint", server.token_endpoint.as_deref())?;
        let mut outgoing = Outgoing::post(url, FORM, form.finish());
        outgoing.headers = self.client.headers()?;
        outgoing.max_bytes = response::MAX_ANSWER;
        let prover = Prover {
            key: &self.key,
            token: None,
            presents: false,
        };
        let now = clock.unix();
        let answer = proven::send(&login.fetcher, clock, prover, outgoing, &mut None).await?;
        if answer.status != StatusCode::OK {
            return Err(refusal(url, &answer));
        }
        LoggedIn::parse(&answer, self.key, now).map_err(|reason| unusable(url, reason))
    }
}

impl std::fmt::Debug for Pending<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pending({})", self.login.issuer())
    }
}

impl LoggedIn {
    /// The token and its key, to call servers with.
    pub fn into_credential(self) -> Credential {
        Credential::bound(self.access_token, self.expires_at, self.key)
    }

    /// A token that others could use is not what was asked for.
    fn parse(answer: &Fetched, key: HolderKey, now: i64) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Answer {
            access_token: String,
            token_type: String,
            expires_in: Option<u64>,
            scope: Option<String>,
            refresh_token: Option<String>,
        }
        let parsed: Answer = json::read(&answer.body, response::MAX_ANSWER).map_err(|e| e.to_string())?;
        if !parsed.token_type.eq_ignore_ascii_case(response::TOKEN_TYPE_DPOP) {
            return Err(format!(
                "it gave a token of type `{}`, which is not bound to the key",
                escaped(&parsed.token_type)
            ));
        }
        if bound_to(&parsed.access_token).is_some_and(|jkt| jkt != key.thumbprint().to_string()) {
            return Err("it gave a token that is bound to another key".to_owned());
        }
        // `expires_in` is only recommended (RFC 6749 section 5.1).
        let expires_at = match parsed.expires_in {
            Some(seconds) => Some(now.saturating_add_unsigned(seconds)),
            None => Claims::of(&parsed.access_token).exp,
        };
        Ok(Self {
            access_token: Secret::new(parsed.access_token),
            expires_at,
            scope: parsed.scope,
            refresh_token: parsed.refresh_token.map(Secret::new),
            key,
        })
    }
}

/// Where a resource says that its metadata lie, and the scope that it asks for.
async fn challenge(fetcher: &Fetcher, url: &str) -> Result<(Option<String>, Option<String>), Error> {
    let both = HeaderValue::from_static("application/json, text/event-stream");
    let request = Request::post(url, HeaderValue::from_static(JSON), PING).header(ACCEPT, both);
    let answer = match fetcher.send(request.max_bytes(metadata::MAX_DOCUMENT)).await {
        Ok(answer) => answer,
        // What it would say is of no interest.
        Err(FetchError::TooLarge { .. }) => return Ok((None, None)),
        Err(error) => return Err(error.into()),
    };
    let challenge = proven::challenge(&answer.headers).filter(|_| answer.status == StatusCode::UNAUTHORIZED);
    let param = |name| challenge.as_ref().and_then(|c| c.param(name)).map(str::to_owned);
    Ok((param("resource_metadata"), param("scope")))
}

/// The metadata of the resource at `url`, and where they lie: where it says, or else at its path or at the
/// root of its host, which then speak of the whole host (MCP 2025-11-25, protected resource metadata).
async fn resource_metadata(
    fetcher: &Fetcher,
    url: &str,
    asked: Option<String>,
) -> Result<(String, ProtectedResourceMetadata), Error> {
    let parse = |at: &str, document: &[u8], of: &str| {
        ProtectedResourceMetadata::parse(document, of).map_err(|e| unusable(at, e.to_string()))
    };
    if let Some(at) = asked {
        let at = secure(&at, url, "resource_metadata")?;
        let document = fetched(fetcher, &at).await?;
        let resource = parse(&at, &document, url)?;
        return Ok((at, resource));
    }
    let place = |of: &str| uri::protected_resource_metadata(of).map_err(|e| unusable(url, e.to_string()));
    let at = place(url)?;
    match fetched(fetcher, at.as_str()).await {
        Ok(document) => {
            let resource = parse(at.as_str(), &document, url)?;
            return Ok((at.into(), resource));
        }
        Err(Error::Answer { .. }) => {}
        Err(error) => return Err(error),
    }
    let host = at.origin().ascii_serialization();
    let root = place(&host)?;
    let document = fetched(fetcher, root.as_str()).await?;
    let resource = parse(root.as_str(), &document, url)
        .or_else(|_| parse(root.as_str(), &document, &format!("{host}/")))
        .or_else(|_| parse(root.as_str(), &document, &host))?;
    Ok((root.into(), resource))
}

/// A URL that another party named, which must be as safe to call as that party itself.
fn secure(url: &str, party: &str, name: &str) -> Result<String, Error> {
    let plain = party.starts_with("http:");
    uri::secure(url, plain)
        .map(|_| url.to_owned())
        .map_err(|e| unusable(party, format!("`{name}`: {e}")))
}

async fn fetched(fetcher: &Fetcher, url: &str) -> Result<bytes::Bytes, Error> {
    let answer = fetcher.get(url, metadata::MAX_DOCUMENT).await?;
    if answer.status != StatusCode::OK {
        return Err(unusable(url, format!("status {}", answer.status)));
    }
    let kind = answer
        .headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with(JSON)) {
        return Err(unusable(url, "it is not JSON".to_owned()));
    }
    Ok(answer.body)
}

#[cfg(test)]
mod tests;
