//! One request for a token, to the upstream's own authorization server, and the reading of its answer
//! (M-52). Nothing that the server says reaches a caller; of its words, the log has codes that are known.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use taper_dpop::{PrivateKey, PublicKey};
use taper_oauth::assertion::CLIENT_ASSERTION_TYPE;
use taper_oauth::exchange::{GRANT_TOKEN_EXCHANGE, TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_JWT};
use taper_oauth::{Assertion, BearerResponse, ErrorBody, ErrorCode, Secret, bearer};
use taper_service::fetch::{FetchError, Fetcher, Request};
use taper_service::rng;
use zeroize::Zeroize as _;

use super::endpoint::Endpoint;
use super::slot::{LEAST_LIFE, Token, UNSAID_LIFE};
use super::{Cause, Whose};
use crate::rules;

/// How long one request may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
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
}

/// By what the client proves that it is itself.
pub(super) enum ClientProof {
    /// `client_secret_basic`: the header.
    Basic(HeaderValue),
    /// `client_secret_post`.
    Post(Secret),
    /// `private_key_jwt`.
    Key(PrivateKey),
    /// `tls_client_auth`, `self_signed_tls_client_auth`: the fetcher's certificate.
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
#[derive(Clone, Debug)]
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
    pub(super) fn new(cause: Cause, concerns_all: bool, reason: impl ToString) -> Self {
        Self {
            cause,
            reason: reason.to_string(),
            concerns_all,
            retry_after: None,
        }
    }

    /// That there is no answer.
    pub(super) fn unanswered(error: &FetchError) -> Self {
        let cause = match error {
            FetchError::Redirect { .. } | FetchError::TooLarge { .. } => Cause::Malformed,
            _ => Cause::Unreachable,
        };
        Self::new(cause, true, error)
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
        let endpoint = self.endpoint.get(&self.fetcher, now).await?;
        let request = self.request(&endpoint, whose, now)?;
        let answer = self.fetcher.send(request).await.map_err(|error| {
            // Its address may have changed since.
            self.endpoint.forget();
            Failed::unanswered(&error)
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

/// Wipes a body that held a token, where nobody else holds it.
fn wipe(body: Bytes) {
    if let Ok(mut body) = body.try_into_mut() {
        body.as_mut().zeroize();
    }
}
