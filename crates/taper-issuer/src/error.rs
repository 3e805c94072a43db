//! What goes wrong: at the start ([`OpenError`]) and with a request ([`Refusal`]).

use std::path::PathBuf;

use taper_dpop::RuleId;
use taper_oauth::{ErrorCode, OAuthError};
use taper_service::edge::TlsError;
use taper_service::fetch::FetchError;
use taper_service::pool::PoolError;
use taper_service::secret::SecretError;
use taper_store::StoreError;

use crate::rules;

/// Why an issuer cannot be started. Nothing listens then.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration contradicts itself.
    #[error("`{key}`: {reason}")]
    Config {
        /// The key of the configuration file.
        key: String,
        /// What is wrong with its value.
        reason: String,
    },
    /// A secret cannot be read.
    #[error("`{key}`: {source}")]
    Secret {
        /// The key of the configuration file.
        key: String,
        /// Why.
        source: SecretError,
    },
    /// A file of root keys cannot be used.
    #[error("root key `{}`: {reason}", path.display())]
    RootKey {
        /// Its file.
        path: PathBuf,
        /// Why, without any of its content.
        reason: String,
    },
    /// The grant policy cannot be loaded.
    #[error("{0}")]
    Policy(String),
    /// The listener's certificate and its key.
    #[error("`tls`: {0}")]
    Tls(#[from] TlsError),
    /// Outbound requests cannot be set up.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The state cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    pub(crate) fn config(key: impl Into<String>, reason: impl ToString) -> Self {
        Self::Config {
            key: key.into(),
            reason: reason.to_string(),
        }
    }
}

/// A request that is refused: the answer for the caller, the rule and the detail for the operator.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) rule: RuleId,
    pub(crate) answer: OAuthError,
    /// The HTTP status, where it is not the usual one of the code.
    pub(crate) status: Option<u16>,
    /// For the operator only.
    pub(crate) detail: Option<String>,
}

impl Refusal {
    pub(crate) fn new(rule: RuleId, code: ErrorCode, description: impl AsRef<str>) -> Self {
        Self::answered(rule, OAuthError::new(code, description))
    }

    pub(crate) fn answered(rule: RuleId, answer: OAuthError) -> Self {
        Self {
            rule,
            answer,
            status: None,
            detail: None,
        }
    }

    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    pub(crate) fn with_detail(mut self, detail: impl ToString) -> Self {
        self.detail = Some(detail.to_string());
        self
    }

    pub(crate) fn status(&self) -> u16 {
        self.status.unwrap_or_else(|| self.answer.status())
    }

    /// The state could not be read or written: what was asked for has not happened.
    pub(crate) fn store(error: &StoreError) -> Self {
        Self::new(
            rules::JOURNALED,
            ErrorCode::TemporarilyUnavailable,
            "the server cannot record this now",
        )
        .with_detail(error)
    }

    pub(crate) fn pool(error: PoolError) -> Self {
        Self::new(
            rules::LOAD,
            ErrorCode::TemporarilyUnavailable,
            "the server is busy",
        )
        .with_detail(error)
    }
}
