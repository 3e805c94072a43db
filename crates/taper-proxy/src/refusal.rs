//! Every refusal, with the number of the rule that was broken.

use std::time::Duration;

use taper_capability::{Caveat, rules as capability_rules};
use taper_dpop::RuleId;
use taper_dpop::rule::r;
use taper_policy::DenialKind;

use crate::message::Era;
use crate::rules;
use crate::tokens::{Cause, Failure};

/// Why a request was refused. `rule` says which check it was; [`crate::error::respond`] what the caller reads.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("there is nothing at this path")]
    Path,
    #[error("the method is not allowed here")]
    Method { allow: &'static str },
    #[error("a header names another method")]
    MethodOverride,
    #[error("a query string is not accepted")]
    Query,
    #[error("a content encoding is not accepted")]
    ContentEncoding,
    #[error("the origin is not allowed")]
    Origin,
    #[error("this host is not served here")]
    Host,
    #[error("another protocol is not spoken here")]
    Upgrade,
    #[error("the body is too large")]
    BodyTooLarge,
    #[error("the body did not arrive in time")]
    BodyTimedOut,
    #[error("the body broke off")]
    BodyBroken,
    #[error("a GET or DELETE has no body")]
    BodyUnwanted,
    #[error("the content type is not application/json")]
    MediaType,
    #[error("a bearer token is not accepted")]
    Bearer,
    #[error("a capability and its proof are needed")]
    NoCredentials,
    #[error("this needs a capability: without one the approved catalogue is shown, and nothing else")]
    LoginNeeded,
    #[error("too many requests without a capability, from one address or at once")]
    Anonymous(RuleId),
    #[error("one `Authorization: DPoP` and one `DPoP` header are needed")]
    Credentials,
    #[error("the proof is refused: {0}")]
    Proof(taper_dpop::Error),
    #[error("the capability is refused: {0}")]
    Capability(taper_capability::Error),
    #[error("the issuer is not one whose capabilities count here")]
    Issuer,
    #[error("the issuer's keys are not known yet")]
    IssuerNotReady,
    #[error("the {0} is revoked")]
    Revoked(&'static str),
    #[error("revocations are not known to be complete")]
    Stale,
    #[error("the issuer's revocations are not what they were before")]
    FeedHistory,
    #[error("the proof does not carry the digest of the body")]
    Unbound,
    #[error("a nonce is needed until older proofs have expired")]
    Restart,
    #[error("the proof was used before")]
    Replay,
    #[error("too many proofs of this grant are alive")]
    Quota,
    #[error("too many requests of this {whose}")]
    Rate { whose: &'static str, wait: Duration },
    #[error("too many {what}{}", whose.map(|whose| format!(" of this {whose}")).unwrap_or_default())]
    Crowded {
        what: &'static str,
        whose: Option<&'static str>,
    },
    #[error("too many decisions of this {whose} ran into a limit")]
    Costly { whose: &'static str, wait: Duration },
    #[error("the proof cannot be remembered")]
    SeenFailed,
    #[error("the call cannot be counted")]
    Uncounted,
    #[error("it is not known yet what the server says of the tool")]
    Undescribed,
    #[error("it is not known yet whether the tool is as it was approved")]
    Unpinned,
    #[error("it is not known yet which `Mcp-Param-*` headers the tool has")]
    Unlisted,
    #[error("{0}")]
    Json(String),
    #[error("{0}")]
    Message(&'static str),
    #[error("two keys, or a key and one of the protocol, differ in letter case only")]
    FoldedKeys,
    #[error("the header `{0}` does not equal the message")]
    HeaderMismatch(&'static str),
    #[error("the message answers a request that is not outstanding")]
    ClientAnswer,
    #[error("the upstream does not speak this revision")]
    Revision { requested: Option<String> },
    #[error("the method is neither the protocol's nor configured")]
    UnknownMethod(Era),
    #[error("`_meta` names no protocol version")]
    NoRevision,
    #[error("there is no such session")]
    Session,
    #[error("the task is not one that this holder created")]
    Task,
    #[error("{0}")]
    Denied(Box<Denied>),
    #[error("the decision ran into a limit: {0}")]
    Indeterminate(String),
    #[error("the decision could not be recorded")]
    Audit,
    #[error("too much is waiting to be checked")]
    Busy,
    #[error("too many programs are running")]
    Children,
    #[error("too many requests wait for one program")]
    Waiting,
    #[error("the session's stream is open already")]
    SecondStream,
    #[error("the upstream did not answer as it should: {0}")]
    Upstream(&'static str),
    #[error("there is no token for the upstream: {}", .0.cause)]
    UpstreamToken(Failure),
    #[error("the upstream answered {0}, and not in the protocol's words")]
    UpstreamStatus(http::StatusCode),
}

/// A denial by rights, caveats, policy or the server's profile. `reason` is the operator's.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Denied {
    pub(crate) rule: RuleId,
    pub(crate) kind: DenialKind,
    pub(crate) link: Option<usize>,
    pub(crate) caveat: Option<Caveat>,
    pub(crate) obtainable: Vec<String>,
    pub(crate) reason: String,
}

impl Denied {
    /// A denial by the server's profile.
    pub(crate) fn by_profile(rule: RuleId, reason: String) -> Box<Self> {
        Box::new(Self {
            rule,
            kind: DenialKind::Policy,
            link: None,
            caveat: None,
            obtainable: Vec::new(),
            reason,
        })
    }
}

impl Refusal {
    /// The rule that was broken.
    pub(crate) fn rule(&self) -> RuleId {
        match self {
            Self::Path => rules::PATH,
            Self::Method { .. } | Self::MethodOverride => rules::METHOD,
            Self::Query => rules::QUERY,
            Self::ContentEncoding => rules::ENCODING,
            Self::Origin => rules::ORIGIN,
            Self::Host => rules::HOST,
            Self::Upgrade => rules::UPGRADE,
            Self::BodyTooLarge | Self::BodyTimedOut | Self::BodyBroken | Self::BodyUnwanted => rules::BODY,
            Self::MediaType => rules::MEDIA_TYPE,
            Self::Bearer => rules::BEARER,
            Self::NoCredentials | Self::Credentials => r::CREDENTIAL,
            Self::LoginNeeded => rules::LOGIN,
            Self::Anonymous(rule) => *rule,
            Self::Proof(error) => error.rule(),
            Self::Capability(error) => error.rule(),
            Self::Issuer | Self::IssuerNotReady => rules::ISSUER,
            Self::Revoked(_) => rules::REVOKED,
            Self::Stale => rules::STALE,
            Self::FeedHistory => rules::FEED_HISTORY,
            Self::Unbound => rules::BINDING,
            Self::Restart => rules::RESTART,
            Self::Replay | Self::SeenFailed => r::REPLAY,
            Self::Quota => rules::QUOTA,
            Self::Rate { .. } => rules::RATE,
            Self::Crowded { .. } => rules::PLACES,
            Self::Costly { .. } => rules::COSTLY,
            Self::Uncounted => rules::CALLS,
            Self::Undescribed => rules::FACTS,
            Self::Unpinned => rules::PINS_KNOWN,
            Self::Unlisted => rules::PARAMS,
            Self::Json(_) => rules::JSON,
            Self::Message(_) => rules::MESSAGE,
            Self::FoldedKeys => rules::FOLDED_KEYS,
            Self::HeaderMismatch(_) | Self::NoRevision => rules::HEADERS,
            Self::UnknownMethod(_) => rules::UNKNOWN_METHOD,
            Self::ClientAnswer => rules::CLIENT_ANSWER,
            Self::Revision { .. } => rules::REVISION,
            Self::Session => rules::SESSION,
            Self::Task => rules::TASK,
            Self::Denied(denied) => denied.rule,
            Self::Indeterminate(_) => capability_rules::LIMITS,
            Self::Audit => rules::AUDIT,
            Self::Busy => rules::BUSY,
            Self::Children | Self::Waiting => rules::CHILDREN,
            Self::SecondStream => rules::ONE_STREAM,
            Self::Upstream(_) | Self::UpstreamStatus(_) => rules::UPSTREAM,
            Self::UpstreamToken(Failure { paused: true, .. }) => rules::TOKEN_PAUSE,
            Self::UpstreamToken(failure) => match failure.cause {
                Cause::Foreign => rules::TOKEN_SUBJECT,
                Cause::Malformed => rules::TOKEN_ANSWER,
                _ => rules::TOKEN,
            },
        }
    }
}

impl Refusal {
    /// Whether nothing was wrong with the request, which may pass another time: what is answered 429 or 503.
    pub(crate) fn may_pass_later(&self) -> bool {
        matches!(
            self,
            Self::IssuerNotReady
                | Self::Stale
                | Self::FeedHistory
                | Self::Quota
                | Self::Rate { .. }
                | Self::Crowded { .. }
                | Self::Costly { .. }
                | Self::SeenFailed
                | Self::Uncounted
                | Self::Undescribed
                | Self::Unpinned
                | Self::Unlisted
                | Self::Indeterminate(_)
                | Self::Audit
                | Self::Busy
                | Self::Children
                | Self::Waiting
        )
    }
}

impl From<taper_dpop::Error> for Refusal {
    fn from(error: taper_dpop::Error) -> Self {
        Self::Proof(error)
    }
}

impl From<taper_capability::Error> for Refusal {
    fn from(error: taper_capability::Error) -> Self {
        Self::Capability(error)
    }
}
