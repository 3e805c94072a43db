//! What a server shows before login: what it says of itself, and the lists beside that of its tools.
//!
//! Of what a server says, this is what a caller without a token can use: who it is, its revision, its
//! instructions, and that there are tools, prompts and resources. Capabilities that need a session or a
//! stream are left out, as nobody serves them before login.

use taper_capability::json::Value;

use super::PinsError;
use super::file::known;
use crate::methods::List;

/// What `server/discover` says of the server beside its lists.
const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
/// The lists beside that of the tools.
const LISTS: [List; 3] = [List::Prompts, List::Resources, List::Templates];

/// What is shown to callers without a token, beside the pinned tools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Preface {
    /// The result of `initialize`, of a server of the legacy era.
    pub(crate) initialize: Option<Value>,
    /// The result of `server/discover`, of a server of the modern era.
    pub(crate) discover: Option<Value>,
    /// Whether `initialize` began a session.
    pub(crate) sessions: bool,
    prompts: Vec<Value>,
    resources: Vec<Value>,
    templates: Vec<Value>,
}

impl Preface {
    /// What a server said, as far as it is shown.
    pub(crate) fn new(initialize: Option<&Value>, discover: Option<&Value>, sessions: bool) -> Self {
        let keep = |result: &Value, names: &[&str]| {
            let mut kept = Vec::new();
            for name in names {
                let member = match (*name, result.get(name)) {
                    (_, None) => continue,
                    ("capabilities", Some(value)) => capabilities(value),
                    ("_meta", Some(value)) => match value.get(SERVER_INFO) {
                        Some(info) => Value::Object(vec![(SERVER_INFO.to_owned(), info.clone())]),
                        None => continue,
                    },
                    (_, Some(value)) => value.clone(),
                };
                kept.push(((*name).to_owned(), member));
            }
            Value::Object(kept)
        };
        let legacy = ["protocolVersion", "capabilities", "serverInfo", "instructions"];
        let modern = [
            "supportedVersions",
            "capabilities",
            "serverInfo",
            "instructions",
            "_meta",
        ];
        Self {
            initialize: initialize.map(|result| keep(result, &legacy)),
            discover: discover.map(|result| keep(result, &modern)),
            sessions,
            ..Self::default()
        }
    }

    /// The entries of a list; the tools are elsewhere.
    pub(crate) fn list(&self, list: List) -> &[Value] {
        match list {
            List::Prompts => &self.prompts,
            List::Resources => &self.resources,
            List::Templates => &self.templates,
            List::Tools | List::Tasks => &[],
        }
    }

    /// Sets the entries of a list.
    pub(crate) fn set_list(&mut self, list: List, entries: Vec<Value>) {
        match list {
            List::Prompts => self.prompts = entries,
            List::Resources => self.resources = entries,
            List::Templates => self.templates = entries,
            List::Tools | List::Tasks => {}
        }
    }

    /// Reads the file's `before_login`.
    pub(super) fn read(value: &Value) -> Result<Self, PinsError> {
        known(
            value,
            &[
                "initialize",
                "discover",
                "sessions",
                "prompts",
                "resources",
                "resourceTemplates",
            ],
        )?;
        let object = |name: &'static str| match value.get(name) {
            None => Ok(None),
            Some(result @ Value::Object(_)) => Ok(Some(result)),
            Some(_) => Err(PinsError::Missing(name)),
        };
        let (initialize, discover) = (object("initialize")?, object("discover")?);
        if initialize.is_none() && discover.is_none() {
            return Err(PinsError::Missing("initialize"));
        }
        let Some(Value::Bool(sessions)) = value.get("sessions") else {
            return Err(PinsError::Missing("sessions"));
        };
        // A member that is never shown would be reviewed for nothing.
        let mut preface = Self::new(initialize, discover, *sessions);
        for list in LISTS {
            let entries = value.get(list.member()).and_then(Value::as_array);
            let entries = entries.ok_or(PinsError::Missing(list.member()))?;
            preface.set_list(list, entries.to_vec());
        }
        Ok(preface)
    }

    /// As the file has it.
    pub(crate) fn to_value(&self) -> Value {
        let mut members = Vec::new();
        for (name, result) in [("initialize", &self.initialize), ("discover", &self.discover)] {
            if let Some(result) = result {
                members.push((name.to_owned(), result.clone()));
            }
        }
        members.push(("sessions".to_owned(), Value::Bool(self.sessions)));
        for list in LISTS {
            let entries = Value::Array(self.list(list).to_vec());
            members.push((list.member().to_owned(), entries));
        }
        Value::Object(members)
    }
}

/// That there are lists, without what nobody serves before login.
fn capabilities(said: &Value) -> Value {
    let named = ["tools", "prompts", "resources"];
    let there = named.into_iter().filter(|name| said.get(name).is_some());
    Value::Object(
        there
            .map(|name| (name.to_owned(), Value::Object(Vec::new())))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use taper_capability::json::{JsonLimits, parse};

    use super::*;

    fn of(text: &str) -> Value {
        parse(text.as_bytes(), &JsonLimits::default()).unwrap()
    }

    #[test]
    fn what_nobody_serves_before_login_is_not_promised() {
        let initialize = of(
            r#"{"protocolVersion":"2025-11-25","serverInfo":{"name":"s"},"instructions":"i","_meta":{"x":1},
                "capabilities":{"logging":{},"tools":{"listChanged":true},"tasks":{},"resources":{"subscribe":true}}}"#,
        );
        let discover = of(
            r#"{"resultType":"complete","ttlMs":5,"supportedVersions":["2026-07-28"],"capabilities":{"completions":{}},
                "_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s"},"time":7}}"#,
        );
        let mut preface = Preface::new(Some(&initialize), Some(&discover), true);
        preface.set_list(List::Prompts, vec![of(r#"{"name":"p"}"#)]);
        let value = preface.to_value();
        let expected = of(
            r#"{"initialize":{"protocolVersion":"2025-11-25","capabilities":{"tools":{},"resources":{}},
                 "serverInfo":{"name":"s"},"instructions":"i"},
                "discover":{"supportedVersions":["2026-07-28"],"capabilities":{},
                 "_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s"}}},
                "sessions":true,"prompts":[{"name":"p"}],"resources":[],"resourceTemplates":[]}"#,
        );
        assert_eq!(value, expected);
        assert_eq!(Preface::read(&value).unwrap(), preface);
        assert!(
            Preface::read(&of(
                r#"{"sessions":true,"prompts":[],"resources":[],"resourceTemplates":[]}"#
            ))
            .is_err()
        );
        assert!(
            Preface::read(&of(
                r#"{"initialize":{},"sessions":true,"prompts":[],"resources":[]}"#
            ))
            .is_err()
        );
    }
}
