//! What a verified token says: [`SubjectClaims`].
//!
//! Claims that bind (`act`, `may_act`, `cnf`) are understood completely or the token is refused; dropping
//! one would launder it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::error::JwtError;

/// How many claims are handed to a policy.
pub const MAX_CLAIMS: usize = 64;
/// How many values these claims may have together.
pub const MAX_VALUES: usize = 1024;
/// How deep `act` may nest.
pub const MAX_ACTORS: usize = 8;
/// The longest `sub` and `client_id`, in bytes.
pub const MAX_IDENTIFIER: usize = 256;
/// The last second of the year 9999, the last one that RFC 3339 can write.
const MAX_TIME: i64 = 253_402_300_799;

/// Claims with a meaning of their own; they are not repeated in [`SubjectClaims::claims`].
const PROTOCOL_CLAIMS: [&str; 16] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "act",
    "may_act",
    "cnf",
    "client_id",
    "azp",
    "nonce",
    "at_hash",
    "c_hash",
    "s_hash",
];

/// The claims of a token whose signature, issuer, audience, times and type were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectClaims {
    /// Who issued it.
    pub iss: String,
    /// Whom it is about, unique at `iss`.
    pub sub: String,
    /// For whom it was issued.
    pub aud: Vec<String>,
    /// The client it was issued to: `client_id` (RFC 9068 §2.2), else `azp`.
    pub client_id: Option<String>,
    /// When it ends, in seconds since the Unix epoch.
    pub exp: i64,
    /// When it was issued.
    pub iat: Option<i64>,
    /// Its id.
    pub jti: Option<String>,
    /// Who acts already (RFC 8693 §4.1).
    pub act: Option<Actor>,
    /// Who may become the actor (RFC 8693 §4.4).
    pub may_act: Option<MayAct>,
    /// The thumbprint of the key that it is bound to (RFC 9449 §6.1).
    pub cnf_jkt: Option<String>,
    /// Every other claim that is a string or an array of strings, for policies.
    pub claims: BTreeMap<String, Vec<String>>,
}

/// Someone who acts for the subject, and for whom that one acted before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The issuer under which `sub` is unique; the token's own when `act` does not say.
    pub iss: String,
    /// Who acts.
    pub sub: String,
    /// The actor before this one.
    pub act: Option<Box<Actor>>,
}

/// Whom a token allows to act. Every part that is present must fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MayAct {
    /// The issuer of the actor; the token's own when `may_act` does not say.
    pub iss: String,
    /// The actor's subject.
    pub sub: Option<String>,
    /// The actor's client.
    pub client_id: Option<String>,
}

impl SubjectClaims {
    /// Reads the claims; the caller has checked or will check everything that needs a configuration.
    pub(crate) fn read(claims: &Map<String, Value>) -> Result<Self, JwtError> {
        let iss = required(claims, "iss")?;
        Ok(Self {
            sub: identifier(claims, "sub")?.ok_or(JwtError::MissingClaim("sub"))?,
            aud: audience(claims)?,
            client_id: match identifier(claims, "client_id")? {
                None => identifier(claims, "azp")?,
                named => named,
            },
            exp: time(claims, "exp")?.ok_or(JwtError::MissingClaim("exp"))?,
            iat: time(claims, "iat")?,
            jti: identifier(claims, "jti")?,
            act: claims
                .get("act")
                .map(|act| actor(act, &iss, MAX_ACTORS))
                .transpose()?,
            may_act: claims
                .get("may_act")
                .map(|may_act| self::may_act(may_act, &iss))
                .transpose()?,
            cnf_jkt: claims.get("cnf").map(confirmation).transpose()?,
            claims: policy_claims(claims)?,
            iss,
        })
    }
}

/// A claim that is a string; `None` when it is absent.
pub(crate) fn string<'a>(
    claims: &'a Map<String, Value>,
    name: &'static str,
) -> Result<Option<&'a str>, JwtError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(JwtError::MalformedClaim(name)),
    }
}

/// A claim that must be a string.
pub(crate) fn required(claims: &Map<String, Value>, name: &'static str) -> Result<String, JwtError> {
    string(claims, name)?
        .map(str::to_owned)
        .ok_or(JwtError::MissingClaim(name))
}

/// A NumericDate (RFC 7519 §2) in whole seconds; fractions are cut.
pub(crate) fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<i64>, JwtError> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let seconds = match value {
        Value::Number(number) => number
            .as_i64()
            .or_else(|| number.as_f64().and_then(whole_seconds)),
        _ => None,
    };
    match seconds {
        Some(seconds) if (0..=MAX_TIME).contains(&seconds) => Ok(Some(seconds)),
        _ => Err(JwtError::MalformedClaim(name)),
    }
}

fn whole_seconds(seconds: f64) -> Option<i64> {
    (0.0..=MAX_TIME as f64)
        .contains(&seconds)
        .then(|| seconds.floor() as i64)
}

fn identifier(claims: &Map<String, Value>, name: &'static str) -> Result<Option<String>, JwtError> {
    let Some(text) = string(claims, name)? else {
        return Ok(None);
    };
    if text.is_empty() || text.len() > MAX_IDENTIFIER || text.chars().any(char::is_control) {
        return Err(JwtError::MalformedClaim(name));
    }
    Ok(Some(text.to_owned()))
}

fn audience(claims: &Map<String, Value>) -> Result<Vec<String>, JwtError> {
    let aud = claims.get("aud").ok_or(JwtError::MissingClaim("aud"))?;
    strings(aud)
        .filter(|aud| !aud.is_empty())
        .ok_or(JwtError::MalformedClaim("aud"))
}

/// A string, or an array of strings.
fn strings(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect(),
        _ => None,
    }
}

/// `act` may hold more about the actor; that is for people (RFC 8693 §4.1).
fn actor(value: &Value, token_iss: &str, levels: usize) -> Result<Actor, JwtError> {
    let malformed = JwtError::MalformedClaim("act");
    let members = value.as_object().ok_or(malformed.clone())?;
    if levels == 0 {
        return Err(malformed);
    }
    let part = |name| identifier(members, name).map_err(|_| JwtError::MalformedClaim("act"));
    Ok(Actor {
        iss: part("iss")?.unwrap_or_else(|| token_iss.to_owned()),
        sub: part("sub")?.ok_or(malformed)?,
        act: members
            .get("act")
            .map(|inner| actor(inner, token_iss, levels - 1))
            .transpose()?
            .map(Box::new),
    })
}

/// A member that is not known here could restrict who may act, so it refuses the token.
fn may_act(value: &Value, token_iss: &str) -> Result<MayAct, JwtError> {
    let malformed = JwtError::MalformedClaim("may_act");
    let members = value.as_object().ok_or(malformed.clone())?;
    if !members
        .keys()
        .all(|name| ["iss", "sub", "client_id"].contains(&name.as_str()))
    {
        return Err(malformed);
    }
    let part = |name| identifier(members, name).map_err(|_| JwtError::MalformedClaim("may_act"));
    let (sub, client_id) = (part("sub")?, part("client_id")?);
    if sub.is_none() && client_id.is_none() {
        return Err(malformed);
    }
    Ok(MayAct {
        iss: part("iss")?.unwrap_or_else(|| token_iss.to_owned()),
        sub,
        client_id,
    })
}

/// `cnf` with `jkt` and nothing else: any other method would have to be checked as well.
fn confirmation(value: &Value) -> Result<String, JwtError> {
    let members = value
        .as_object()
        .filter(|members| members.len() == 1)
        .ok_or(JwtError::Confirmation)?;
    let jkt = members
        .get("jkt")
        .and_then(Value::as_str)
        .ok_or(JwtError::Confirmation)?;
    // SHA-256 in base64url without padding (RFC 7638).
    let valid = jkt.len() == 43
        && jkt
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if valid {
        Ok(jkt.to_owned())
    } else {
        Err(JwtError::Confirmation)
    }
}

fn policy_claims(claims: &Map<String, Value>) -> Result<BTreeMap<String, Vec<String>>, JwtError> {
    let facts: BTreeMap<String, Vec<String>> = claims
        .iter()
        .filter(|(name, _)| !PROTOCOL_CLAIMS.contains(&name.as_str()))
        .filter_map(|(name, value)| Some((name.clone(), strings(value)?)))
        .collect();
    if facts.len() > MAX_CLAIMS || facts.values().map(Vec::len).sum::<usize>() > MAX_VALUES {
        return Err(JwtError::TooManyClaims);
    }
    Ok(facts)
}

#[cfg(test)]
mod tests;
