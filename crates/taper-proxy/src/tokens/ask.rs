//! One request for a token, to the upstream's own authorization server, and the reading of its answer
//! (M-52). Nothing that the server says reaches a caller; of its words, the log has codes that are known.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use taper_dpop::{PrivateKey, PublicKey};
use taper_oauth::assertion::CLIENT_ASSERTION_TYPE;
use taper_oauth::exchange::{GRANT_TOKEN_EXCHANGE, TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_JWT};
use taper_oauth::{
    Assertion, AuthorizationServerMetadata, BearerResponse, ErrorBody, ErrorCode, Secret, WireError, bearer,
    metadata, uri,
};
use taper_service::fetch::{FetchError, Fetcher, Request};
use taper_service::rng;
use zeroize::Zeroize as _;

use super::slot::{LEAST_LIFE, Token, UNSAID_LIFE};
use super::{Cause, Whose};
use crate::rules;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the metadata of an authorization server counts, in seconds.
const METADATA_LIFE: i64 = 3600;
const GRANT_CLIENT_CREDENTIALS: &str = "client_credentials";

/// Where tokens come from, and what is said there.
pub(super) struct Source {
    pub(super) endpoint: Endpoint,
    pub(super) client_id: String,
    pub(super) proof: ClientProof,
    /// `scope`, `resource`, `audience`.
    pub(super) wanted: Vec<(&'static str, String)>,
    /// The `aud` of what is signed; the token endpoint unless it is set.
    pub(super) audience: Option<String>,
    pub(super) exchange: Option<Exchange>,
    pub(super) fetcher: Fetcher,
    /// Whether the authorization server may be on loopback without TLS.
    pub(super) allow_loopback_http: bool,
}

/// The token endpoint.
pub(super) enum Endpoint {
    /// As configured.
    Fixed(String),
    /// As the metadata of this issuer says, with when it was read.
    Of(String, Mutex<Option<(String, i64)>>),
}

/// By what the client proves that it is itself.
pub(super) enum ClientProof {
    /// `client_secret_basic`: the header.
    Basic(HeaderValue),
    /// `client_secret_post`.
    Post(Secret),
    /// `private_key_jwt`.
    Key(PrivateKey),
    /// `tls_client_auth`: the fetcher's certificate.
    Certificate,
}

/// How it is said on whose behalf a token is asked for.
pub(super) struct Exchange {
    /// The `iss` of the assertion.
    pub(super) issuer: String,
    pub(super) key: PrivateKey,
    /// Whose subjects the authorization server knows by the same names.
    pub(super) subject_issuer: String,
}

/// Why no token came.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) cause: Cause,
    /// For the log: words of our own.
    pub(super) reason: String,
    /// Whether the next one to ask would fare no better.
    pub(super) concerns_all: bool,
    /// How many seconds the server wants to be left alone.
    pub(super) retry_after: Option<u64>,
}

impl Failed {
    fn new(cause: Cause, concerns_all: bool, reason: impl ToString) -> Self {
        Self {
            cause,
            reason: reason.to_string(),
            concerns_all,
            retry_after: None,
        }
    }
}

impl Source {
    /// How tokens on behalf of subjects are asked for, where they are.
    pub(super) fn exchange(&self) -> Option<&Exchange> {
        self.exchange.as_ref()
    }

    /// The keys by which assertions are verified.
    pub(super) fn public_keys(&self) -> Vec<PublicKey> {
        let client = match &self.proof {
            ClientProof::Key(key) => Some(key.public()),
            _ => None,
        };
        let subject = self.exchange.as_ref().map(|exchange| exchange.key.public());
        client.into_iter().chain(subject).collect()
    }

    /// Asks for a token once. `now` is in seconds since the Unix epoch.
    pub(super) async fn ask(&self, whose: &Whose, now: i64) -> Result<Token, Failed> {
        let endpoint = self.endpoint(now).await?;
        let request = self.request(&endpoint, whose, now)?;
        let answer = self.fetcher.send(request).await.map_err(|error| {
            // Its address may have changed since.
            self.forget_endpoint();
            unanswered(&error)
        })?;
        if answer.status != StatusCode::OK {
            return Err(self.refused(whose, answer.status, &answer.headers, &answer.body));
        }
        let read = match whose {
            Whose::Of(_) => BearerResponse::parse_exchanged(&answer.body),
            Whose::Own => BearerResponse::parse(&answer.body),
        };
        wipe(answer.body);
        // What the parser says could quote the answer.
        let malformed = |reason: &str| Failed::new(Cause::Malformed, self.concerns_all(whose), reason);
        let response = read
            .map_err(|_| malformed("it is no answer with a bearer token of the kind that was asked for"))?;
        let life = response.expires_in.unwrap_or(UNSAID_LIFE);
        if !rules::TOKEN_ANSWER.holds(life >= LEAST_LIFE) {
            return Err(malformed("its token ends at once"));
        }
        Ok(Token::new(response.access_token, now, life))
    }

    /// Whether what is said of one token holds for all of the upstream: where there is one for all. What one
    /// subject causes, or the proxy for itself beside them, is in nobody else's way.
    fn concerns_all(&self, whose: &Whose) -> bool {
        *whose == Whose::Own && self.exchange.is_none()
    }

    async fn endpoint(&self, now: i64) -> Result<String, Failed> {
        let (issuer, found) = match &self.endpoint {
            Endpoint::Fixed(endpoint) => return Ok(endpoint.clone()),
            Endpoint::Of(issuer, found) => (issuer, found),
        };
        let known = found.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((endpoint, read)) = known
            && (0..METADATA_LIFE).contains(&now.saturating_sub(read))
        {
            return Ok(endpoint);
        }
        // What a parser says could quote the document.
        let malformed = |reason: &str| Failed::new(Cause::Malformed, true, reason);
        let places = [
            uri::authorization_server_metadata(issuer).map_err(|_| malformed("the issuer is no url"))?,
            uri::openid_configuration(issuer).map_err(|_| malformed("the issuer is no url"))?,
        ];
        let mut document = None;
        for place in places {
            let request = Request::get(place.as_str())
                .timeout(TIMEOUT)
                .max_bytes(metadata::MAX_DOCUMENT);
            let answer = self
                .fetcher
                .send(request)
                .await
                .map_err(|error| unanswered(&error))?;
            if answer.status == StatusCode::OK {
                document = Some(answer.body);
                break;
            }
            if answer.status.is_server_error() {
                let reason = format!("its metadata: status {}", answer.status.as_u16());
                return Err(Failed::new(Cause::Unreachable, true, reason));
            }
        }
        let document = document.ok_or_else(|| malformed("it has no metadata"))?;
        let document =
            AuthorizationServerMetadata::parse(&document, issuer).map_err(|error| match error {
                WireError::Identity { .. } => malformed("its metadata names another issuer"),
                _ => malformed("its metadata cannot be read"),
            })?;
        let endpoint = document
            .token_endpoint
            .ok_or_else(|| malformed("its metadata names no token endpoint"))?;
        uri::secure(&endpoint, self.allow_loopback_http)
            .map_err(|_| malformed("its metadata names a token endpoint that is not called"))?;
        *found.lock().unwrap_or_else(PoisonError::into_inner) = Some((endpoint.clone(), now));
        Ok(endpoint)
    }

    fn forget_endpoint(&self) {
        if let Endpoint::Of(_, found) = &self.endpoint {
            *found.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    fn request(&self, endpoint: &str, whose: &Whose, now: i64) -> Result<Request, Failed> {
        let audience = self.audience.as_deref().unwrap_or(endpoint);
        let jti = || rng::random_id_128(&mut rng::os());
        let signed = |assertion: Assertion, key: &PrivateKey| {
            let unsigned = || Failed::new(Cause::Malformed, true, "an assertion cannot be written");
            assertion.sign(key).ok_or_else(unsigned)
        };
        let subject = match (whose, &self.exchange) {
            (Whose::Of(principal), Some(exchange)) => {
                let behalf = principal.behalf();
                let assertion = Assertion::on_behalf(&exchange.issuer, &behalf, audience, jti(), now);
                Some(signed(assertion, &exchange.key)?)
            }
            _ => None,
        };
        let client = match &self.proof {
            ClientProof::Key(key) => {
                let assertion = Assertion::of_client(&self.client_id, audience, jti(), now);
                Some(signed(assertion, key)?)
            }
            _ => None,
        };
        let mut fields: Vec<(&str, &str)> = match &subject {
            None => vec![("grant_type", GRANT_CLIENT_CREDENTIALS)],
            Some(subject) => vec![
                ("grant_type", GRANT_TOKEN_EXCHANGE),
                ("subject_token", subject.expose()),
                ("subject_token_type", TOKEN_TYPE_JWT),
                ("requested_token_type", TOKEN_TYPE_ACCESS_TOKEN),
            ],
        };
        fields.extend(self.wanted.iter().map(|(name, value)| (*name, value.as_str())));
        match &self.proof {
            ClientProof::Basic(_) => {}
            ClientProof::Post(secret) => {
                fields.push(("client_id", &self.client_id));
                fields.push(("client_secret", secret.expose()));
            }
            ClientProof::Key(_) => {
                fields.push(("client_id", &self.client_id));
                fields.push(("client_assertion_type", CLIENT_ASSERTION_TYPE));
                fields.extend(
                    client
                        .as_ref()
                        .map(|signed| ("client_assertion", signed.expose())),
                );
            }
            ClientProof::Certificate => fields.push(("client_id", &self.client_id)),
        }
        let request = Request::form(endpoint, &fields)
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .max_bytes(bearer::MAX_ANSWER)
            .timeout(TIMEOUT);
        Ok(match &self.proof {
            ClientProof::Basic(header) => request.header(AUTHORIZATION, header.clone()),
            _ => request,
        })
    }

    /// An answer that is an error.
    fn refused(&self, whose: &Whose, status: StatusCode, headers: &HeaderMap, body: &Bytes) -> Failed {
        let retry_after = headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let code = ErrorBody::parse(body).ok().and_then(|body| body.code());
        let told = code.map_or("no code that is known", ErrorCode::as_str);
        let reason = format!("status {}, {told}", status.as_u16());
        let busy = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        let of_client = matches!(
            code,
            Some(ErrorCode::InvalidClient | ErrorCode::UnauthorizedClient | ErrorCode::UnsupportedGrantType)
        );
        let is_oauth = ErrorBody::parse(body).is_ok();
        let cause = match whose {
            _ if busy => Cause::Unreachable,
            // A code that is not known here is one of the server's own, of consent for example.
            Whose::Of(_) if (is_oauth || status == StatusCode::FORBIDDEN) && !of_client => {
                Cause::RefusedSubject
            }
            _ if is_oauth => Cause::Refused,
            _ => Cause::Malformed,
        };
        let is_of_client = of_client && matches!(whose, Whose::Of(_));
        let concerns_all = is_of_client || self.concerns_all(whose);
        Failed {
            retry_after,
            ..Failed::new(cause, concerns_all, reason)
        }
    }
}

fn unanswered(error: &FetchError) -> Failed {
    let cause = match error {
        FetchError::Redirect { .. } | FetchError::TooLarge { .. } => Cause::Malformed,
        _ => Cause::Unreachable,
    };
    Failed::new(cause, true, error)
}

/// Wipes a body that held a token, where nobody else holds it.
fn wipe(body: Bytes) {
    if let Ok(mut body) = body.try_into_mut() {
        body.as_mut().zeroize();
    }
}
