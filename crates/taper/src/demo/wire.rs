//! Requests as they go over the wire, so that each part of one can be made wrong on purpose.

use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::http::{HeaderName, HeaderValue, header};
use serde_json::{Value, json};
use taper_capability::Token;
use taper_dpop::{PrivateKey, ProofClaims};
use taper_oauth::Challenge;
use taper_service::fetch::{FetchRules, Fetched, Fetcher, Request};
use taper_service::rng;

/// One request: who presents what, and which bytes.
#[derive(Clone)]
pub(crate) struct Call {
    url: String,
    authorization: String,
    proof: String,
    body: String,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The `error` of the challenge.
    pub(crate) challenge: Option<String>,
    /// The JSON-RPC answer.
    pub(crate) body: Value,
    /// The rule that refused.
    pub(crate) rule: Option<String>,
}

impl Call {
    /// A `tools/call` with a sealed copy of `token`, proven with `key` at `now`.
    pub(crate) fn tool(
        url: &str,
        token: &Token,
        key: &PrivateKey,
        tool: &str,
        arguments: &Value,
        now: i64,
    ) -> Result<Self> {
        let params = json!({ "name": tool, "arguments": arguments });
        Self::message(url, token, key, "tools/call", &params, now)
    }

    /// Any message.
    pub(crate) fn message(
        url: &str,
        token: &Token,
        key: &PrivateKey,
        method: &str,
        params: &Value,
        now: i64,
    ) -> Result<Self> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let token = token.sealed()?;
        let claims = ProofClaims::new("POST", url, now, &mut rng::os())
            .token(token.as_str())
            .body(body.as_bytes());
        Ok(Self {
            url: url.to_owned(),
            authorization: format!("DPoP {}", token.as_str()),
            proof: claims.sign(key)?,
            body,
        })
    }

    /// The same request with other bytes in its body.
    pub(crate) fn with_body(mut self, from: &str, to: &str) -> Self {
        self.body = self.body.replace(from, to);
        self
    }

    /// The same request with the token as a bearer token.
    pub(crate) fn with_bearer_scheme(mut self) -> Self {
        self.authorization = self.authorization.replacen("DPoP ", "Bearer ", 1);
        self
    }

    /// Sends it.
    pub(crate) async fn send(&self) -> Result<Answer> {
        let rules = FetchRules {
            allow_loopback_http: true,
            total_timeout: Duration::from_secs(20),
            ..FetchRules::default()
        };
        let value = |text: &str| HeaderValue::from_str(text).context("a header value");
        let request = Request::post(
            &self.url,
            HeaderValue::from_static("application/json"),
            self.body.clone(),
        )
        .header(
            header::ACCEPT,
            HeaderValue::from_static("application/json, text/event-stream"),
        )
        .header(header::AUTHORIZATION, value(&self.authorization)?)
        .header(HeaderName::from_static("dpop"), value(&self.proof)?);
        Ok(Answer::read(&Fetcher::new(&rules)?.send(request).await?))
    }
}

impl Answer {
    fn read(fetched: &Fetched) -> Self {
        let body: Value = serde_json::from_slice(&fetched.body).unwrap_or(Value::Null);
        let challenge = fetched
            .headers
            .get(header::WWW_AUTHENTICATE)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| Challenge::parse_all(text).ok())
            .and_then(|challenges| challenges.into_iter().find(Challenge::is_dpop));
        let description = challenge.as_ref().and_then(|c| c.param("error_description"));
        let in_description = description
            .and_then(|text| text.strip_suffix(')')?.rsplit_once('('))
            .map(|(_, rule)| rule);
        let in_body = body.pointer("/error/data/rule").and_then(Value::as_str);
        Self {
            status: fetched.status.as_u16(),
            rule: in_body.or(in_description).map(str::to_owned),
            challenge: challenge
                .as_ref()
                .and_then(|c| c.param("error"))
                .map(str::to_owned),
            body,
        }
    }

    /// The text of a tool's result.
    pub(crate) fn text(&self) -> &str {
        self.body
            .pointer("/result/content/0/text")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The answer in a few words.
    pub(crate) fn summary(&self) -> String {
        let code = self
            .body
            .pointer("/error/code")
            .map(|code| format!(" code {code}"))
            .unwrap_or_default();
        let challenge = self
            .challenge
            .as_ref()
            .map(|error| format!(" {error}"))
            .unwrap_or_default();
        let rule = self
            .rule
            .as_ref()
            .map(|rule| format!(" rule {rule}"))
            .unwrap_or_default();
        format!("{}{challenge}{code}{rule}", self.status)
    }
}
