//! The parts of a presentation that are plain data.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use taper_dpop::base64url_encode;

use crate::kit::Key;

/// A root key that the verifier trusts.
#[derive(Clone)]
pub(crate) struct Root {
    pub(crate) issuer: String,
    pub(crate) key_id: u32,
    pub(crate) key: Key,
    pub(crate) servers: Option<Vec<&'static str>>,
}

/// What the boundary read from the request.
pub(crate) struct Access {
    pub(crate) kind: &'static str,
    pub(crate) audience: &'static str,
    pub(crate) server: &'static str,
    pub(crate) method: &'static str,
    pub(crate) tool: Option<&'static str>,
    pub(crate) arguments: Option<String>,
    pub(crate) resources: Vec<(&'static str, &'static str)>,
    pub(crate) uri: Option<&'static str>,
    pub(crate) prompt: Option<&'static str>,
    pub(crate) client_ip: Option<&'static str>,
    pub(crate) calls: Vec<(&'static str, i64)>,
}

impl Root {
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "issuer": self.issuer,
            "key_id": self.key_id,
            "key": base64url_encode(&self.key.public().to_bytes()),
            "servers": self.servers,
        })
    }
}

impl Access {
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "kind": self.kind,
            "audience": self.audience,
            "server": self.server,
            "method": self.method,
            "tool": self.tool,
            "arguments": self.arguments,
            "resources": self.resources,
            "uri": self.uri,
            "prompt": self.prompt,
            "client_ip": self.client_ip,
            "calls": self.calls,
        })
    }
}

/// The SHA-256 of some bytes in base64url.
pub(crate) fn hash(bytes: &[u8]) -> String {
    base64url_encode(&Sha256::digest(bytes))
}

/// The value of `content_digest` for a body.
pub(crate) fn digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)))
}

/// A nonce made at `time` under a key (`spec/vectors/README.md`).
pub(crate) fn mint(key: &[u8; 64], time: i64) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.update(b"taper nonce v1");
    mac.update(&time.to_be_bytes());
    let tag = mac.finalize().into_bytes();
    base64url_encode(&[time.to_be_bytes().as_slice(), &tag[..16]].concat())
}
