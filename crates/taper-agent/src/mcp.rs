//! A client of one MCP server behind the proxy: every request carries the capability, and a proof
//! over the exact bytes of its body.
//!
//! Both eras: *modern* (2026-07-28: stateless, headers that equal the body, `_meta` in each request)
//! and *legacy* (`initialize`, `Mcp-Session-Id`). Answers may be JSON or an SSE stream.

mod message;
mod refusal;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Map, Value, json};
use taper_service::clock::SharedClock;
use taper_service::fetch::{Fetched, Fetcher};

pub use self::message::{Era, LEGACY_VERSION, MODERN_VERSION};
pub use self::refusal::{DenialData, Refusal};
use crate::issuer::unusable;
use crate::proven::{self, Outgoing, Prover};
use crate::{Credential, Error};

/// How long a tool may take unless stated otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest answer that is read, in bytes.
pub const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// Pages of a list that are fetched: a server that never ends its list must not hold the client.
const MAX_PAGES: usize = 64;

/// A client of one MCP server.
#[derive(Debug)]
pub struct McpClient {
    url: String,
    era: Era,
    credential: Credential,
    clock: SharedClock,
    fetcher: Fetcher,
    timeout: Duration,
    nonce: Option<String>,
    session: Option<Session>,
    last_id: u64,
}

/// What `initialize` settled, in the legacy era.
#[derive(Debug)]
struct Session {
    id: Option<HeaderValue>,
    version: String,
}

impl McpClient {
    /// A client of the server at `url`. Plain HTTP is accepted on loopback.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Fetch`].
    pub fn new(url: &str, credential: Credential, era: Era, clock: SharedClock) -> Result<Self, Error> {
        Ok(Self {
            url: url.to_owned(),
            era,
            credential,
            clock,
            fetcher: proven::fetcher_for(url)?,
            timeout: DEFAULT_TIMEOUT,
            nonce: None,
            session: None,
            last_id: 0,
        })
    }

    /// Bounds each exchange in place of [`DEFAULT_TIMEOUT`].
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Calls a tool; the result as the server gave it (`content`, `isError`, …).
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn call(&mut self, tool: &str, arguments: Map<String, Value>) -> Result<Value, Error> {
        let params = Map::from_iter([
            ("name".to_owned(), Value::from(tool)),
            ("arguments".to_owned(), Value::Object(arguments)),
        ]);
        self.request("tools/call", params).await
    }

    /// The tools that this capability may see, over all pages.
    ///
    /// # Errors
    /// As [`Self::request`]; [`Error::Answer`] when a page is none, or there is no end of them.
    pub async fn list_tools(&mut self) -> Result<Vec<Value>, Error> {
        let mut tools = Vec::new();
        let mut cursor: Option<Value> = None;
        for _ in 0..MAX_PAGES {
            let params = cursor
                .take()
                .map(|cursor| ("cursor".to_owned(), cursor))
                .into_iter()
                .collect();
            let mut page = self.request("tools/list", params).await?;
            let Some(Value::Array(entries)) = page.get_mut("tools").map(Value::take) else {
                return Err(unusable(&self.url, "there is no list of tools".to_owned()));
            };
            tools.extend(entries);
            match page.get_mut("nextCursor").map(Value::take) {
                None | Some(Value::Null) => return Ok(tools),
                next => cursor = next,
            }
        }
        Err(unusable(&self.url, "the list of tools has no end".to_owned()))
    }

    /// Sends one request of any method and waits for its result. In the legacy era the first one
    /// opens a session.
    ///
    /// # Errors
    /// [`Error::Refused`] with the whole refusal, of the proxy or of the server; [`Error::Answer`]
    /// when there is no answer to this request; [`Error::Fetch`].
    pub async fn request(&mut self, method: &str, params: Map<String, Value>) -> Result<Value, Error> {
        if self.era == Era::Legacy && self.session.is_none() {
            self.initialize().await?;
        }
        self.exchange(method, params).await.map(|(result, _)| result)
    }

    /// Sends `body` as it is, with `headers` beside the protocol's own, and returns the answer as it
    /// is. No session is opened and nothing is read out of the answer but a demand for a nonce.
    ///
    /// # Errors
    /// [`Error::Fetch`], [`Error::Key`].
    pub async fn send(&mut self, body: impl Into<Bytes>, headers: HeaderMap) -> Result<Fetched, Error> {
        let mut outgoing = Outgoing::post(&self.url, message::JSON, body);
        outgoing.headers = message::accept();
        outgoing.headers.extend(headers);
        outgoing.max_bytes = MAX_ANSWER;
        outgoing.timeout = Some(self.timeout);
        self.prove(outgoing).await
    }

    /// Ends a legacy session, if one is open. A server may refuse (405); that is no error.
    ///
    /// # Errors
    /// [`Error::Fetch`].
    pub async fn close(&mut self) -> Result<(), Error> {
        let Some(session) = self.session.take() else {
            return Ok(());
        };
        if session.id.is_some() {
            let mut outgoing = Outgoing::bare(Method::DELETE, &self.url);
            outgoing.headers = session.headers()?;
            self.prove(outgoing).await?;
        }
        Ok(())
    }

    async fn prove(&mut self, outgoing: Outgoing) -> Result<Fetched, Error> {
        let prover = Prover {
            key: self.credential.key(),
            token: Some(self.credential.token()),
            presents: true,
        };
        proven::send(
            &self.fetcher,
            self.clock.as_ref(),
            prover,
            outgoing,
            &mut self.nonce,
        )
        .await
    }

    async fn initialize(&mut self) -> Result<(), Error> {
        let params = Map::from_iter([
            ("protocolVersion".to_owned(), Value::from(LEGACY_VERSION)),
            ("capabilities".to_owned(), json!({})),
            ("clientInfo".to_owned(), message::client_info()),
        ]);
        let (result, headers) = self.exchange("initialize", params).await?;
        let version = result.get("protocolVersion").and_then(Value::as_str);
        self.session = Some(Session {
            id: headers.get(message::SESSION).cloned(),
            version: version.unwrap_or(LEGACY_VERSION).to_owned(),
        });
        let note = message::notification("notifications/initialized")?;
        let headers = self.headers("notifications/initialized", &Map::new())?;
        let answer = self.send(note, headers).await?;
        if answer.status.is_success() {
            Ok(())
        } else {
            Err(self.refused(&answer))
        }
    }

    /// One request and its answer's result and headers.
    async fn exchange(
        &mut self,
        method: &str,
        mut params: Map<String, Value>,
    ) -> Result<(Value, HeaderMap), Error> {
        let headers = self.headers(method, &params)?;
        if self.era == Era::Modern {
            message::add_meta(&mut params);
        }
        self.last_id += 1;
        let id = self.last_id;
        let body = message::request(id, method, params)?;
        let answer = self.send(body, headers).await?;
        let message = match message::answer_to(id, &answer) {
            Ok(message) => message,
            Err(_) if answer.status != StatusCode::OK => return Err(self.refused(&answer)),
            Err(reason) => return Err(unusable(&self.url, reason)),
        };
        match message {
            Ok(result) if answer.status == StatusCode::OK => match Refusal::of_result(&answer, &result) {
                Some(refusal) => Err(Box::new(refusal).into()),
                None => Ok((result, answer.headers)),
            },
            Ok(_) => Err(self.refused(&answer)),
            Err(error) => Err(Box::new(Refusal::new(&answer, Some(&error))).into()),
        }
    }

    fn headers(&self, method: &str, params: &Map<String, Value>) -> Result<HeaderMap, Error> {
        match (self.era, &self.session) {
            (Era::Modern, _) => message::modern_headers(method, params),
            (Era::Legacy, Some(session)) => session.headers(),
            (Era::Legacy, None) => Ok(HeaderMap::new()),
        }
    }

    fn refused(&self, answer: &Fetched) -> Error {
        let error = message::any_error(answer);
        Box::new(Refusal::new(answer, error.as_ref())).into()
    }
}

impl Session {
    fn headers(&self) -> Result<HeaderMap, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(message::VERSION, message::header(&self.version)?);
        if let Some(id) = &self.id {
            headers.insert(message::SESSION, id.clone());
        }
        Ok(headers)
    }
}

#[cfg(test)]
mod tests;
