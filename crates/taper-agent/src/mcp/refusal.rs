//! A refusal of the proxy, or of the server behind it, with everything that it says.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use taper_oauth::Challenge;
use taper_service::fetch::Fetched;

use super::message::RpcError;
use crate::proven;
use taper_capability::escaped;

/// The longest message that is kept of another party, in characters.
const MAX_MESSAGE: usize = 512;

/// The JSON-RPC error code of a refusal by a caveat or a policy.
const DENIED: i64 = 4403;
/// The member of `_meta` that holds [`DenialData`] in the result of a tool.
const DENIAL_META: &str = "taper/denial";

/// Why a request was refused. Everything in it was said by the other side.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The DPoP challenge of the answer, for a 401 or an `insufficient_scope`.
    pub challenge: Option<Challenge>,
    /// The JSON-RPC error code: 4403 for a refusal by a caveat or a policy, 4503 when no decision
    /// could be made.
    pub code: Option<i64>,
    /// The JSON-RPC error message.
    pub message: Option<String>,
    /// What the proxy says about its decision.
    pub data: Option<DenialData>,
}

/// The `data` of a refusal by the proxy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DenialData {
    /// The decision in the operator's audit log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision_id: Option<String>,
    /// The number of the rule that refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The link of the chain whose caveat refused, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<u64>,
    /// That caveat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caveat: Option<Value>,
    /// What could be asked for instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub obtainable: Option<Value>,
}

impl Refusal {
    pub(super) fn new(answer: &Fetched, error: Option<&RpcError>) -> Self {
        let data = error
            .and_then(|error| error.data.clone())
            .and_then(|data| serde_json::from_value::<DenialData>(data).ok())
            .filter(|data| *data != DenialData::default());
        let cut = |text: &str| text.chars().take(MAX_MESSAGE).collect();
        Self {
            status: answer.status.as_u16(),
            challenge: proven::challenge(&answer.headers),
            code: error.map(|error| error.code),
            message: error.map(|error| cut(&error.message)),
            data,
        }
    }

    /// The refusal that a proxy wrote as the result of a tool (`deny_style = "tool_result"`), if
    /// `result` is one.
    pub(super) fn of_result(answer: &Fetched, result: &Value) -> Option<Self> {
        if result.get("isError") != Some(&Value::Bool(true)) {
            return None;
        }
        let data = result.get("_meta")?.get(DENIAL_META)?.clone();
        let text = result.pointer("/content/0/text").and_then(Value::as_str);
        let error = RpcError {
            code: DENIED,
            message: text.unwrap_or_default().to_owned(),
            data: Some(data),
        };
        Some(Self::new(answer, Some(&error)))
    }

    /// Whether somebody decided against the request, as opposed to a failure that may pass.
    pub fn is_denial(&self) -> bool {
        self.code == Some(DENIED) || matches!(self.status, 401 | 403)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused with status {}", self.status)?;
        let param = |name| self.challenge.as_ref().and_then(|c| c.param(name));
        if let Some(error) = param("error") {
            write!(f, ", {}", escaped(error))?;
        }
        if let Some(description) = param("error_description") {
            write!(f, " ({})", escaped(description))?;
        }
        if let Some(code) = self.code {
            write!(f, ", code {code}")?;
        }
        if let Some(message) = self.message.as_deref().filter(|message| !message.is_empty()) {
            write!(f, ": {}", escaped(message))?;
        }
        if let Some(rule) = self.data.as_ref().and_then(|data| data.rule.as_deref()) {
            write!(f, " [rule {}]", escaped(rule))?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}
