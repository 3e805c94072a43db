//! What is said on the socket: one JSON object a line, at most [`MAX_LINE`] bytes, read strictly.

use std::fmt;

use serde::{Deserialize, Serialize};
use taper_capability::Caveat;
use taper_dpop::{ContentDigest, Jwk, base64url_decode};
use taper_oauth::json;
use zeroize::Zeroize;

/// The longest line, in bytes: a capability of 12 KiB with its caveats has less than a third of it.
pub const MAX_LINE: usize = 64 * 1024;
/// The longest URL of a proof and the longest name of a key, in bytes.
const MAX_NAME: usize = 4096;
/// The longest nonce, in bytes.
const MAX_NONCE: usize = 512;
/// The longest life of a key, in seconds: a year.
const MAX_LIFE: u64 = 366 * 86_400;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// Which keys there are.
    List {},
    /// A proof with this key; its `iat` and `jti` are made by the agent.
    Prove {
        /// The thumbprint of the key.
        key: String,
        /// The request's method.
        htm: String,
        /// The request's URL.
        htu: String,
        /// The hash of the token.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ath: Option<String>,
        /// The server's nonce.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nonce: Option<String>,
        /// The digest of the body.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content_digest: Option<String>,
    },
    /// A capability with one more link.
    Append {
        /// The thumbprint of the key.
        key: String,
        /// The capability, unsealed.
        token: String,
        /// To whom it is handed; the holder itself without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<Jwk>,
        /// Until when, in seconds since the Unix epoch.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<i64>,
        /// The caveats.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        caveats: Vec<Caveat>,
        /// How deep the chain may become.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_depth: Option<u32>,
        /// A note.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// Adds a key, which whoever adds it must have.
    Add {
        /// The private JWK.
        private: PrivateText,
        /// Where it came from, for people.
        name: String,
        /// For how many seconds.
        #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
        lifetime: Option<u64>,
        /// Whether it signs hand-overs.
        #[serde(default)]
        delegate: bool,
    },
    /// Makes a key, which never leaves the agent.
    Generate {
        /// For how many seconds.
        #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
        lifetime: Option<u64>,
        /// Whether it signs hand-overs.
        #[serde(default)]
        delegate: bool,
    },
    /// Forgets one key.
    Remove {
        /// Its thumbprint.
        key: String,
    },
    /// Forgets all keys, and takes none until the agent is started again.
    Lock {},
}

/// A private JWK on its way to the agent. It does not print, and is wiped when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize)]
#[zeroize(drop)]
#[serde(transparent)]
pub struct PrivateText(String);

impl PrivateText {
    /// The text of a private JWK.
    pub fn new(jwk: impl Into<String>) -> Self {
        Self(jwk.into())
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PrivateText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateText(…)")
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// The keys: to `list`.
    Keys(Vec<Listed>),
    /// The proof: to `prove`.
    Proof(String),
    /// The capability: to `append`.
    Token(String),
    /// The key: to `add` and `generate`.
    Key(Listed),
    /// How many keys were forgotten: to `remove` and `lock`.
    Removed(usize),
    /// Why it was not done.
    Error(String),
}

/// A key of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// Its thumbprint.
    pub thumbprint: String,
    /// The public key.
    pub jwk: Jwk,
    /// Where it came from.
    pub name: String,
    /// Until when the agent keeps it, in seconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// Whether it signs hand-overs.
    pub delegate: bool,
}

impl Ask {
    /// Reads a line, without its end.
    ///
    /// # Errors
    /// What is wrong with it; nothing of the line is repeated.
    pub fn parse(line: &[u8]) -> Result<Self, &'static str> {
        let ask: Self = json::read(line, MAX_LINE).map_err(|_| "this is not a request of this agent")?;
        ask.check()?;
        Ok(ask)
    }

    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Prove {
                htm,
                htu,
                ath,
                nonce,
                content_digest,
                ..
            } => {
                let method =
                    !htm.is_empty() && htm.len() <= 16 && htm.bytes().all(|b| b.is_ascii_uppercase());
                let url = htu.starts_with("https://") || htu.starts_with("http://");
                let plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
                let hash = |ath: &String| base64url_decode(ath).is_ok_and(|bytes| bytes.len() == 32);
                let checks = [
                    (method, "`htm` is no method"),
                    (url && htu.len() <= MAX_NAME && plain(htu), "`htu` is no URL"),
                    (ath.as_ref().is_none_or(hash), "`ath` is no hash"),
                    (
                        nonce.as_ref().is_none_or(|n| n.len() <= MAX_NONCE && plain(n)),
                        "`nonce` is no nonce",
                    ),
                    (
                        content_digest
                            .as_ref()
                            .is_none_or(|d| ContentDigest::parse(d).is_ok()),
                        "`content_digest` is no digest",
                    ),
                ];
                checks
                    .iter()
                    .find(|(holds, _)| !holds)
                    .map_or(Ok(()), |(_, why)| Err(*why))
            }
            Self::Append { to, until, .. } if to.is_some() && until.is_none() => {
                Err("a hand-over has `until`")
            }
            Self::Add { name, .. } if name.len() > MAX_NAME => Err("`name` is too long"),
            Self::Add { lifetime, .. } | Self::Generate { lifetime, .. }
                if lifetime.is_some_and(|seconds| seconds == 0 || seconds > MAX_LIFE) =>
            {
                Err("`for` is a second to a year")
            }
            _ => Ok(()),
        }
    }
}

impl Answer {
    /// Reads a line, without its end.
    ///
    /// # Errors
    /// When it is no answer.
    pub fn parse(line: &[u8]) -> Result<Self, &'static str> {
        json::read(line, MAX_LINE).map_err(|_| "it does not speak as a taper agent does")
    }
}
