//! A middleware for [`reqwest-middleware`](https://docs.rs/reqwest-middleware) that signs: each request
//! to one URL gets its capability and a proof over its body.
//!
//! Requests to other URLs pass as they are. A body that is a stream is refused: a proof is over the
//! bytes, and they are not known before they are sent.
//!
//! ```
//! # use taper_agent::HolderKey;
//! # mod testing { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/testing.rs")); }
//! use std::sync::Arc;
//!
//! use reqwest_middleware::ClientBuilder;
//! use taper_agent::middleware::Signing;
//! use taper_agent::{Credential, Signer};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let chain = testing::Chain::new();
//! # let (token, key, clock) = (&chain.token, chain.holder(), testing::clock());
//! # let server = testing::Server::start().await;
//! # server.will_answer("{}");
//! # let url = format!("{}/git/mcp", server.url);
//! let signer = Signer::new(&url, Credential::new(token, key)?, clock)?;
//! let client = ClientBuilder::new(signer.http_client()?)
//!     .with(Signing::new(Arc::clone(&signer)))
//!     .build();
//! let answer = client.post(&url).body(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).send().await?;
//! assert!(answer.status().is_success());
//! # testing::proven_token(&server, &server.seen()[0]);
//! # Ok(())
//! # }
//! ```
//!
//! [`Signer::replace`] takes a renewed capability.

use std::sync::Arc;

use async_trait::async_trait;
use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Error as Failure, Middleware, Next};

use crate::{Error, Signer};

/// Signs requests to the URL of its [`Signer`], and repeats one once when the server asks for a nonce.
///
/// Put it last, where no other middleware changes a body afterwards, on a client that follows no
/// redirects ([`Signer::http_client`]).
#[derive(Clone, Debug)]
pub struct Signing(Arc<Signer>);

impl Signing {
    /// Signs with `signer`.
    pub fn new(signer: Arc<Signer>) -> Self {
        Self(signer)
    }

    async fn sign(&self, request: &mut Request) -> Result<(), Failure> {
        let mut headers = std::mem::take(request.headers_mut());
        let signed = match request.body().map(reqwest::Body::as_bytes) {
            Some(None) => Err(Error::Request(
                "a body that is a stream cannot be signed; send it as bytes".to_owned(),
            )),
            Some(Some(bytes)) => self.0.sign(request.method(), Some(bytes), &mut headers).await,
            None => self.0.sign(request.method(), None, &mut headers).await,
        };
        *request.headers_mut() = headers;
        signed.map_err(Failure::middleware)
    }
}

#[async_trait]
impl Middleware for Signing {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response, Failure> {
        if !self.0.covers(request.url()) {
            return next.run(request, extensions).await;
        }
        let again = request.try_clone();
        self.sign(&mut request).await?;
        let answer = next.clone().run(request, extensions).await?;
        match again {
            Some(mut again) if self.0.asks_again(answer.status(), answer.headers()) => {
                self.sign(&mut again).await?;
                let answer = next.run(again, extensions).await?;
                self.0.asks_again(answer.status(), answer.headers());
                Ok(answer)
            }
            _ => Ok(answer),
        }
    }
}

#[cfg(test)]
mod tests;
