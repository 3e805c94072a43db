//! The way out: of callers, an upstream takes permitted requests and nothing else. What the proxy asks by
//! itself, for the list of a server's tools, has a type of its own (`own`).

mod answer;
mod http;
mod own;
mod stdio;

use ::http::Response;
use taper_service::shutdown::Shutdown;

pub(crate) use self::http::{HttpUpstream, believing};
pub(crate) use self::own::{OwnError, describe, list_tools};
pub(crate) use self::stdio::{StdioSettings, StdioUpstream};
use crate::body::Body;
use crate::permitted::{Outbound, Permitted};
use crate::refusal::Refusal;

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

    /// Sends a permitted request and returns the answer's head; its body is streamed.
    ///
    /// # Errors
    /// [`Refusal::Upstream`] for an answer that may not be passed on, and what a program cannot do.
    pub(crate) async fn forward(
        &self,
        request: Permitted<Outbound>,
        shutdown: &Shutdown,
    ) -> Result<Response<Body>, Refusal> {
        match self {
            Self::Http(upstream) => upstream.send(request.into_inner()).await,
            Self::Stdio(upstream) => upstream.send(request.into_inner(), shutdown).await,
        }
    }
}
