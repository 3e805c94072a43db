//! The way out: of callers, an upstream takes permitted requests and nothing else. What the proxy asks by
//! itself, for the list of a server's tools, has a type of its own (`own`).

mod answer;
mod http;
mod own;
mod stdio;

use std::sync::Arc;

use ::http::Response;
use taper_capability::VerifiedChain;
use taper_service::edge::ClientIdentity;
use taper_service::shutdown::Shutdown;

pub(crate) use self::http::{Again, Credential, HttpSettings, HttpUpstream, client_config};
pub(crate) use self::own::{OwnError, describe, list_tools};
pub(crate) use self::stdio::{StdioSettings, StdioUpstream};
use crate::body::Body;
use crate::permitted::{Outbound, Permitted};
use crate::refusal::Refusal;
use crate::tokens::Tokens;

/// One server behind the proxy.
#[derive(Debug)]
pub(crate) enum Upstream {
    /// Streamable HTTP.
    Http(Box<HttpUpstream>),
    /// Programs that speak over standard input and output.
    Stdio(Box<StdioUpstream>),
}

impl Upstream {
    /// How many programs run for it.
    pub(crate) fn programs(&self) -> usize {
        match self {
            Self::Http(_) => 0,
            Self::Stdio(upstream) => upstream.running(),
        }
    }

    /// How many programs may run for it.
    pub(crate) fn max_programs(&self) -> usize {
        match self {
            Self::Http(_) => 0,
            Self::Stdio(upstream) => upstream.most(),
        }
    }

    /// The tokens that it takes.
    pub(crate) fn tokens(&self) -> Option<&Arc<Tokens>> {
        match self {
            Self::Http(upstream) => upstream.tokens(),
            Self::Stdio(_) => None,
        }
    }

    /// The certificate that it is shown.
    pub(crate) fn identity(&self) -> Option<&ClientIdentity> {
        match self {
            Self::Http(upstream) => upstream.identity(),
            Self::Stdio(_) => None,
        }
    }

    /// What a request of `chain` is sent with. It may take as long as an authorization server does.
    ///
    /// # Errors
    /// [`Refusal::UpstreamToken`]; then there is nothing to send (M-50).
    pub(crate) async fn credential(&self, chain: &VerifiedChain) -> Result<Credential, Refusal> {
        match self {
            Self::Http(upstream) => upstream.credential(Some(chain)).await,
            Self::Stdio(_) => Ok(Credential::default()),
        }
    }

    /// Sends a permitted request and returns the answer's head; its body is streamed. `again` says whether
    /// it is still permitted, should it be sent a second time.
    ///
    /// # Errors
    /// [`Refusal::Upstream`] for an answer that may not be passed on, and what a program cannot do.
    pub(crate) async fn forward(
        &self,
        request: Permitted<Outbound>,
        credential: &Credential,
        again: Again<'_>,
        shutdown: &Shutdown,
    ) -> Result<Response<Body>, Refusal> {
        match self {
            Self::Http(upstream) => upstream.send(request.into_inner(), credential, again).await,
            Self::Stdio(upstream) => upstream.send(request.into_inner(), shutdown).await,
        }
    }
}
