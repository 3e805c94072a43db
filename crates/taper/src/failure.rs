//! How a command ends when it does not succeed: an exit code, a sentence, and the next thing to type.

use std::fmt;
use std::process::ExitCode;

use serde_json::{Value, json};
use taper_agent::{Error as AgentError, Refusal};

/// The kinds of ending, each with its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Something did not work.
    Failure,
    /// It worked, and somebody said no.
    Denied,
    /// A policy or a configuration is not valid.
    Invalid,
    /// The command line cannot mean anything.
    Usage,
    /// A command that was run for the user ended with this code.
    Command(u8),
}

impl Kind {
    /// The exit code; 64 is `EX_USAGE` of sysexits.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Failure => 1,
            Self::Denied => 2,
            Self::Invalid => 3,
            Self::Usage => 64,
            Self::Command(code) => code,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::Usage => "usage",
            Self::Command(_) => "command",
        }
    }
}

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    message: String,
    next: Option<String>,
    refusal: Option<Box<Refusal>>,
}

impl Failure {
    /// An ending of this kind.
    pub(crate) fn new(kind: Kind, message: impl fmt::Display) -> Self {
        Self {
            kind,
            message: without_secrets(&message.to_string()),
            next: None,
            refusal: None,
        }
    }

    /// A command line that cannot mean anything.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Something that did not work.
    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self::new(Kind::Failure, message)
    }

    /// A policy or a configuration that is not valid.
    pub(crate) fn invalid(message: impl fmt::Display) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// Says what to do next, unless something more exact is said already.
    #[must_use]
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next.get_or_insert_with(|| next.into());
        self
    }

    /// The kind.
    #[cfg(test)]
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind.code())
    }

    /// One JSON object that says everything.
    pub(crate) fn to_json(&self) -> Value {
        let mut value = json!({"error": self.message, "kind": self.kind.as_str()});
        let mut add = |name: &str, member: Value| {
            if let Value::Object(members) = &mut value {
                members.insert(name.to_owned(), member);
            }
        };
        if let Some(next) = &self.next {
            add("next", json!(next));
        }
        if let Some(refusal) = &self.refusal {
            add("status", json!(refusal.status));
            add("code", json!(refusal.code));
            add("data", json!(refusal.data));
        }
        value
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let data = self.refusal.as_ref().and_then(|refusal| refusal.data.as_ref());
        if let Some(data) = data {
            let shown = |value: &Value| match value {
                Value::String(text) => taper_capability::escaped(text),
                other => taper_capability::escaped(&other.to_string()),
            };
            let mut line = |name: &str, value: Option<Value>| match value {
                Some(value) if !is_empty(&value) => write!(f, "\n  {name}: {}", shown(&value)),
                _ => Ok(()),
            };
            line("decision", data.decision_id.clone().map(Value::from))?;
            line("link", data.link.map(Value::from))?;
            line("caveat", data.caveat.clone())?;
            line("obtainable", data.obtainable.clone())?;
        }
        if let Some(next) = &self.next {
            write!(f, "\n  next: {next}")?;
        }
        Ok(())
    }
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        let message = error.to_string();
        match error {
            AgentError::Refused(refusal) => {
                let kind = if refusal.is_denial() {
                    Kind::Denied
                } else {
                    Kind::Failure
                };
                let next = next_after(&refusal);
                let failure = Self {
                    refusal: Some(refusal),
                    ..Self::new(kind, message)
                };
                match next {
                    Some(next) => failure.next(next),
                    None => failure,
                }
            }
            AgentError::Issuer { status, .. } if status < 500 => Self::new(Kind::Denied, message),
            AgentError::Exists { .. } => {
                Self::failed(message).next("choose another file, or move this one away first")
            }
            AgentError::Url { .. } => Self::usage(message),
            _ => Self::failed(message),
        }
    }
}

impl From<taper_capability::Error> for Failure {
    fn from(error: taper_capability::Error) -> Self {
        Self::failed(format!("{error} [rule {}]", error.rule()))
    }
}

/// A message less what looks like a token, which was put where the name of its file belongs.
fn without_secrets(message: &str) -> String {
    // As much as no name of a file has without a `/`.
    const LONG: usize = 200;
    let is_of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~' | '+' | '=');
    let is_token = |word: &str| word.len() > LONG || (word.starts_with("eyJ") && word.len() > 8);
    let mut told = String::with_capacity(message.len());
    let mut rest = message;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.find(|c| !is_of_token(c)).unwrap_or(rest.len()));
        told.push_str(if is_token(word) { "(a secret)" } else { word });
        let (between, after) = after.split_at(after.find(is_of_token).unwrap_or(after.len()));
        told.push_str(between);
        rest = after;
    }
    told
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

fn next_after(refusal: &Refusal) -> Option<String> {
    let data = refusal.data.as_ref();
    if data.is_some_and(|data| data.caveat.is_some()) {
        return Some(
            "`taper inspect TOKEN` shows which link says so; ask its holder for a wider one".to_owned(),
        );
    }
    match (refusal.status, refusal.challenge.as_ref()) {
        (401, _) => Some(
            "`taper inspect TOKEN` shows until when it is valid; `taper exchange` gets a new one".to_owned(),
        ),
        (403, Some(challenge)) => challenge.param("scope").map(|scope| {
            format!(
                "`taper exchange --scope` with {}",
                taper_capability::quoted(scope)
            )
        }),
        (503, _) => Some("try again in a moment".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taper_agent::mcp::DenialData;

    fn refusal(status: u16, code: Option<i64>) -> Failure {
        let refusal = Refusal {
            status,
            challenge: None,
            code,
            message: Some("no".to_owned()),
            data: Some(DenialData {
                decision_id: Some("d\n1".to_owned()),
                link: Some(1),
                caveat: Some(json!({"server": {"servers": ["git"]}})),
                ..DenialData::default()
            }),
        };
        AgentError::Refused(Box::new(refusal)).into()
    }

    #[test]
    fn a_denial_is_not_a_failure() {
        let check = |status, code, kind| assert_eq!(refusal(status, code).kind(), kind, "{status} {code:?}");
        check(403, Some(4403), Kind::Denied);
        check(200, Some(4403), Kind::Denied);
        check(401, None, Kind::Denied);
        check(503, Some(4503), Kind::Failure);
        check(400, Some(-32600), Kind::Failure);
    }

    #[test]
    fn a_denial_says_what_is_known_and_what_next() {
        let failure = refusal(403, Some(4403));
        let text = failure.to_string();
        assert!(text.contains("\n  decision: d\\u{a}1\n  link: 1\n"), "{text}");
        assert!(text.contains("\n  next: `taper inspect TOKEN`"), "{text}");
        let json = failure.to_json();
        assert_eq!(json["kind"], "denied");
        assert_eq!(json["data"]["caveat"]["server"]["servers"][0], "git");
    }

    #[test]
    fn a_token_in_place_of_a_files_name_is_not_repeated() {
        let capability = "En0-_".repeat(50);
        for token in [capability.as_str(), "eyJhbGciOiJFUzI1NiJ9.e30.AAAA"] {
            let told = Failure::failed(format!("cannot read `{token}`: no such file"));
            assert_eq!(told.to_string(), "cannot read `(a secret)`: no such file");
            assert!(!told.to_json().to_string().contains(token));
        }
        let long = format!("cannot read `/home/{}/key.jwk`", "a".repeat(190));
        for plain in [long.as_str(), "", "`é` is no `eyJ`, 3 of 4"] {
            assert_eq!(Failure::failed(plain).to_string(), plain);
        }
    }

    #[test]
    fn exit_codes_are_the_contract() {
        let codes = [Kind::Failure, Kind::Denied, Kind::Invalid, Kind::Usage].map(Kind::code);
        assert_eq!(codes, [1, 2, 3, 64]);
    }
}
