//! A transport for rmcp's client that signs: each request carries the capability and a proof over its
//! body.
//!
//! rmcp's own HTTP client can send a fixed token. It shows neither the bytes that it sends nor the
//! nonces that it is sent, so this one does the whole exchange. A denial of the proxy comes back as the
//! JSON-RPC error that it is (code 4403, with the rule), whatever its HTTP status.
//!
//! ```
//! # use taper_agent::HolderKey;
//! # mod testing { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/testing.rs")); }
//! use rmcp::ServiceExt as _;
//! use rmcp::model::CallToolRequestParams;
//! use taper_agent::rmcp::SigningClient;
//! use taper_agent::{Credential, Signer};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use axum::response::IntoResponse as _;
//! # let chain = testing::Chain::new();
//! # let (token, key, clock) = (&chain.token, chain.holder(), testing::clock());
//! # let server = testing::Server::answering(|seen| {
//! #     let message: serde_json::Value = serde_json::from_slice(&seen.body).unwrap_or_default();
//! #     let result = match message["method"].as_str() {
//! #         Some("initialize") => serde_json::json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
//! #             "serverInfo": {"name": "git", "version": "1"}}),
//! #         Some("tools/call") => serde_json::json!({"content": [{"type": "text", "text": "commit"}]}),
//! #         Some(_) => return http::StatusCode::ACCEPTED.into_response(),
//! #         None => return http::StatusCode::METHOD_NOT_ALLOWED.into_response(),
//! #     };
//! #     axum::Json(serde_json::json!({"jsonrpc": "2.0", "id": message["id"], "result": result})).into_response()
//! # }).await;
//! # let url = format!("{}/git/mcp", server.url);
//! let signer = Signer::new(&url, Credential::new(token, key)?, clock)?;
//! let client = ().serve(SigningClient::new(signer)?.transport()).await?;
//! let result = client.call_tool(CallToolRequestParams::new("git_log")).await?;
//! assert_eq!(result.content.len(), 1);
//! client.cancel().await?;
//! # Ok(())
//! # }
//! ```

mod answer;

use std::collections::HashMap;
use std::sync::Arc;

use ::rmcp::model::ClientJsonRpcMessage;
use ::rmcp::transport::StreamableHttpClientTransport;
use ::rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpClientTransportConfig, StreamableHttpError,
    StreamableHttpPostResponse,
};
use futures_util::stream::BoxStream;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use reqwest::{Client, Response};
use sse_stream::Sse;
use url::Url;

use self::answer::Posted;
use crate::proven::DPOP;
use crate::{Error, Signer};

/// The largest event of a stream when rmcp states no other limit, in bytes. It is rmcp's own default.
const MAX_EVENT: usize = 16 * 1024 * 1024;
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
const BOTH: &str = "text/event-stream, application/json";

/// What rmcp's transport fails with, in the end.
type Failure = StreamableHttpError<ClientError>;

/// Why a request was not sent or not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// It cannot be signed.
    #[error(transparent)]
    Sign(#[from] Error),
    /// It cannot be written as JSON.
    #[error("the message cannot be written: {0}")]
    Json(#[from] serde_json::Error),
    /// There is no answer.
    #[error("the exchange failed: {0}")]
    Http(#[source] reqwest::Error),
}

/// An HTTP client for rmcp that signs. It sends to the URL of its [`Signer`] and nowhere else.
#[derive(Clone, Debug)]
pub struct SigningClient {
    http: Client,
    signer: Arc<Signer>,
}

impl SigningClient {
    /// Signs with `signer`, sends with its HTTP client.
    ///
    /// # Errors
    /// [`Error::Request`], see [`Signer::http_client`].
    pub fn new(signer: Arc<Signer>) -> Result<Self, Error> {
        Ok(Self::with_client(signer.http_client()?, signer))
    }

    /// Sends with `http`, which should follow no redirects.
    pub fn with_client(http: Client, signer: Arc<Signer>) -> Self {
        Self { http, signer }
    }

    /// A transport to the URL of the signer, with rmcp's defaults.
    pub fn transport(self) -> StreamableHttpClientTransport<Self> {
        let config = StreamableHttpClientTransportConfig::with_uri(self.signer.url().as_str());
        StreamableHttpClientTransport::with_client(self, config)
    }

    /// Signs, sends, and sends once more when the server asks for a nonce.
    async fn send(
        &self,
        uri: &str,
        method: Method,
        headers: HeaderMap,
        body: Option<Vec<u8>>,
    ) -> Result<Response, Failure> {
        let url = Url::parse(uri).ok().filter(|url| self.signer.covers(url));
        let url = url.ok_or_else(|| {
            ClientError::from(Error::Url {
                url: uri.to_owned(),
                reason: format!("the signer signs for {}", self.signer.url()),
            })
        })?;
        let first = self.send_once(&url, &method, &headers, body.as_deref()).await?;
        if !self.signer.asks_again(first.status(), first.headers()) {
            return Ok(first);
        }
        let second = self.send_once(&url, &method, &headers, body.as_deref()).await?;
        self.signer.asks_again(second.status(), second.headers());
        Ok(second)
    }

    async fn send_once(
        &self,
        url: &Url,
        method: &Method,
        headers: &HeaderMap,
        body: Option<&[u8]>,
    ) -> Result<Response, ClientError> {
        let mut headers = headers.clone();
        self.signer.sign(method, body, &mut headers).await?;
        let mut request = self.http.request(method.clone(), url.clone()).headers(headers);
        if let Some(body) = body {
            request = request.body(body.to_vec());
        }
        request
            .send()
            .await
            .map_err(|e| ClientError::Http(e.without_url()))
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl StreamableHttpClient for SigningClient {
    type Error = ClientError;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        self.post_message_with_max_sse_event_size(
            uri,
            message,
            session_id,
            auth_header,
            custom_headers,
            MAX_EVENT,
        )
        .await
    }

    async fn post_message_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
        max_sse_event_size: usize,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let body = serde_json::to_vec(&message).map_err(ClientError::from)?;
        let posted = Posted::new(&message, session_id.is_some());
        let mut headers = headers(session_id.as_deref(), auth_header.as_deref(), custom_headers)?;
        headers.insert(ACCEPT, HeaderValue::from_static(BOTH));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = self.send(&uri, Method::POST, headers, Some(body)).await?;
        posted.answer(answer, max_sse_event_size).await
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), Failure> {
        let headers = headers(Some(&session_id), auth_header.as_deref(), custom_headers)?;
        let answer = self.send(&uri, Method::DELETE, headers, None).await?;
        answer::deleted(&answer)
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Failure> {
        self.get_stream_with_max_sse_event_size(
            uri,
            session_id,
            last_event_id,
            auth_header,
            custom_headers,
            MAX_EVENT,
        )
        .await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
        max_sse_event_size: usize,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Failure> {
        let mut headers = headers(session_id.as_deref(), auth_header.as_deref(), custom_headers)?;
        headers.insert(ACCEPT, HeaderValue::from_static(BOTH));
        if let Some(id) = last_event_id {
            headers.insert(LAST_EVENT, written(&id)?);
        }
        let answer = self.send(&uri, Method::GET, headers, None).await?;
        answer::stream(answer, max_sse_event_size)
    }
}

/// The headers that rmcp wants. What the transport or the signer says itself may not be said twice.
fn headers(
    session: Option<&str>,
    token: Option<&str>,
    custom: HashMap<HeaderName, HeaderValue>,
) -> Result<HeaderMap, Failure> {
    if token.is_some() {
        return Err(Failure::ReservedHeaderConflict(AUTHORIZATION.to_string()));
    }
    let reserved = [
        &ACCEPT,
        &CONTENT_TYPE,
        &SESSION,
        &LAST_EVENT,
        &AUTHORIZATION,
        &DPOP,
    ];
    if let Some(name) = custom.keys().find(|name| reserved.contains(name)) {
        return Err(Failure::ReservedHeaderConflict(name.to_string()));
    }
    let mut headers: HeaderMap = custom.into_iter().collect();
    if let Some(session) = session {
        headers.insert(SESSION, written(session)?);
    }
    Ok(headers)
}

fn written(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::try_from(text)
        .map_err(|_| ClientError::from(Error::Request("an id that no header may hold".to_owned())).into())
}

#[cfg(test)]
mod tests;
