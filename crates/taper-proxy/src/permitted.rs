//! What may leave the proxy: a request together with its permit.

use bytes::Bytes;
use http::{HeaderMap, Method};
use taper_capability::Access;
use taper_capability::json::Value;
use taper_policy::boundary::Permit;

use crate::message::Era;
use crate::methods::List;
use crate::outstanding::Answering;
use crate::session::Owner;

/// Something that a permit was made for. Upstreams take nothing else, and only the gate makes one, from
/// the very bytes that it judged:
///
/// ```compile_fail
/// use taper_policy::boundary::Permit;
/// fn forge<T>(permit: Permit, inner: T) -> taper_proxy::Permitted<T> {
///     taper_proxy::Permitted { permit, inner }
/// }
/// ```
/// while its permit can be read:
/// ```
/// use taper_policy::boundary::Permit;
/// fn read<T>(permitted: &taper_proxy::Permitted<T>) -> &Permit {
///     permitted.permit()
/// }
/// ```
pub struct Permitted<T> {
    permit: Permit,
    inner: T,
}

impl<T> Permitted<T> {
    /// Joins what was judged with the permit of that judgement.
    pub(crate) fn new(permit: Permit, inner: T) -> Self {
        Self { permit, inner }
    }

    /// The permit.
    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// What is permitted.
    pub(crate) fn inner(&self) -> &T {
        &self.inner
    }

    /// What is permitted, to be sent.
    pub(crate) fn into_inner(self) -> T {
        self.inner
    }
}

/// Neither the arguments nor the body print.
impl<T> std::fmt::Debug for Permitted<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Permitted(…)")
    }
}

/// A request as an upstream gets it.
pub(crate) struct Outbound {
    pub(crate) method: Method,
    /// By allow-list.
    pub(crate) headers: HeaderMap,
    /// The bytes that were received and judged.
    pub(crate) body: Bytes,
    pub(crate) era: Era,
    pub(crate) owner: Owner,
    /// A session of `owner`.
    pub(crate) session: Option<String>,
    /// The message's method and id; nothing for GET, DELETE and what answers the server.
    pub(crate) call: Option<Call>,
    /// The reads that a subscription amounts to, permitted as well.
    pub(crate) subscribed: Vec<Access>,
    /// The request of the server that the body answers.
    pub(crate) answers: Option<Answering>,
}

/// What an upstream has to know of a message.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) id: Option<Value>,
    pub(crate) list: Option<List>,
    /// Whether the answer may be a task.
    pub(crate) makes_task: bool,
    /// The token by which progress of it is told.
    pub(crate) progress: Option<Value>,
    /// The request that `notifications/cancelled` names.
    pub(crate) cancels: Option<Value>,
    /// The revision that the message names.
    pub(crate) revision: Option<String>,
}
