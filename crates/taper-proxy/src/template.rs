//! Resource templates: how `resource(kind, value)` is made from a call's arguments (RULES 14).
//!
//! `{owner}/{repo}` takes two arguments, `{/target/path}` a nested one by its RFC 6901 pointer,
//! `{paths[]}` every element of an array. A value is never repaired: what is missing, of another type
//! or not canonical is denied.

use taper_capability::ArgumentPath;
use taper_capability::json::Value;
use url::Url;

use crate::config::{Kind, KindForm};

/// The most values that the templates of a tool may yield.
pub(crate) const MAX_VALUES: usize = 64;
/// The most bytes of all of them together: they are in one record of the journal.
pub(crate) const MAX_BYTES: usize = 64 * 1024;
/// The longest value, in bytes.
const MAX_VALUE: usize = 4096;

/// Why a template or a value was refused. Names the place, never the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template itself is malformed.
    #[error("the template `{template}` is malformed: {reason}")]
    Malformed {
        /// As it is configured.
        template: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// An argument is missing or is not the text that the template needs.
    #[error("the argument `{0}` is not a non-empty text")]
    Argument(String),
    /// An argument has a character that separates parts in the template.
    #[error("the argument `{0}` contains a separator of its template")]
    Separator(String),
    /// Too many elements.
    #[error("the argument `{0}` has no element, or too many")]
    Elements(String),
    /// The value has another spelling.
    #[error("a value of the kind `{kind}` is not canonical: {reason}")]
    NotCanonical {
        /// The kind of resource.
        kind: String,
        /// What is wrong.
        reason: &'static str,
    },
}

/// A checked template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    kind: String,
    pieces: Vec<Piece>,
    separators: Vec<char>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Argument { pointer: String, each: bool },
}

impl Template {
    /// Reads a template of the kind `kind`.
    pub(crate) fn parse(kind: &str, text: &str) -> Result<Self, TemplateError> {
        let malformed = |reason| TemplateError::Malformed {
            template: text.to_owned(),
            reason,
        };
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (literal, tail) = rest.split_once('{').unwrap_or((rest, ""));
            if literal.contains('}') {
                return Err(malformed("a `}` without its `{`"));
            }
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.to_owned()));
            }
            if tail.is_empty() {
                if rest.len() > literal.len() {
                    return Err(malformed("a `{` without its `}`"));
                }
                break;
            }
            let (name, after) = tail
                .split_once('}')
                .ok_or_else(|| malformed("a `{` without its `}`"))?;
            if matches!(pieces.last(), Some(Piece::Argument { .. })) {
                return Err(malformed("two arguments without a separator"));
            }
            pieces.push(argument(name).ok_or_else(|| malformed("an argument without a name"))?);
            rest = after;
        }
        let each = |piece: &&Piece| matches!(piece, Piece::Argument { each: true, .. });
        match pieces
            .iter()
            .filter(|p| matches!(p, Piece::Argument { .. }))
            .count()
        {
            0 => return Err(malformed("no argument")),
            _ if pieces.iter().filter(each).count() > 1 => return Err(malformed("two arrays")),
            _ => {}
        }
        let separators = separators(&pieces);
        Ok(Self {
            kind: kind.to_owned(),
            pieces,
            separators,
        })
    }

    /// The kind of the resources that it yields.
    pub(crate) fn kind(&self) -> &str {
        &self.kind
    }

    /// The names of the arguments, at the top level, that the template reads.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = String> + '_ {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Argument { pointer, .. } => top_of(pointer),
            Piece::Literal(_) => None,
        })
    }

    /// What the template reads in the arguments.
    pub(crate) fn reads(&self) -> impl Iterator<Item = ArgumentPath> + '_ {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Argument { pointer, .. } => Some(ArgumentPath::of_pointer(pointer)),
            Piece::Literal(_) => None,
        })
    }

    /// The values that `arguments` yield, checked and folded as `rules` say.
    pub(crate) fn values(
        &self,
        arguments: &Value,
        rules: Kind,
    ) -> Result<Vec<(String, String)>, TemplateError> {
        let mut values = vec![String::new()];
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => values.iter_mut().for_each(|value| value.push_str(text)),
                Piece::Argument { pointer, each: false } => {
                    let part = self.part(pointer, arguments.pointer(pointer))?;
                    values.iter_mut().for_each(|value| value.push_str(part));
                }
                Piece::Argument { pointer, each: true } => {
                    let parts = self.parts(pointer, arguments)?;
                    // Only one array per template, and literals before it are the same for all.
                    let start = values.first().cloned().unwrap_or_default();
                    values = parts.iter().map(|part| format!("{start}{part}")).collect();
                }
            }
        }
        let finish = |value: String| {
            canonical(&value, rules.form).map_err(|reason| TemplateError::NotCanonical {
                kind: self.kind.clone(),
                reason,
            })?;
            let value = if rules.ascii_lower {
                value.to_ascii_lowercase()
            } else {
                value
            };
            Ok((self.kind.clone(), value))
        };
        values.into_iter().map(finish).collect()
    }

    fn parts<'a>(&self, pointer: &str, arguments: &'a Value) -> Result<Vec<&'a str>, TemplateError> {
        match arguments.pointer(pointer) {
            Some(Value::Array(elements)) if (1..=MAX_VALUES).contains(&elements.len()) => elements
                .iter()
                .map(|element| self.part(pointer, Some(element)))
                .collect(),
            Some(Value::Array(_)) => Err(TemplateError::Elements(pointer.to_owned())),
            _ => Err(TemplateError::Argument(pointer.to_owned())),
        }
    }

    fn part<'a>(&self, pointer: &str, value: Option<&'a Value>) -> Result<&'a str, TemplateError> {
        match value {
            Some(Value::String(text)) if !text.is_empty() => {
                if text.contains(self.separators.as_slice()) {
                    return Err(TemplateError::Separator(pointer.to_owned()));
                }
                Ok(text)
            }
            _ => Err(TemplateError::Argument(pointer.to_owned())),
        }
    }
}

/// Whether `value` is spelled the one way that `form` has (RULES 14).
///
/// # Errors
/// What is wrong with it, for the operator.
pub(crate) fn canonical(value: &str, form: KindForm) -> Result<(), &'static str> {
    if value.is_empty() || value.len() > MAX_VALUE {
        return Err("it is empty or too long");
    }
    if value.chars().any(char::is_control) {
        return Err("it has a control character");
    }
    match form {
        KindForm::Text => Ok(()),
        KindForm::Path => segments(value),
        KindForm::AbsolutePath => segments(value.strip_prefix('/').ok_or("it is not absolute")?),
        KindForm::Url => match Url::parse(value) {
            // Who compares text takes the name before the `@` for the host.
            Ok(url) if is_web(&url) && has_user(&url) => Err("it names a user"),
            Ok(url) if url.as_str() == value => {
                let path = url.path();
                let path = path.strip_prefix('/').unwrap_or(path);
                if path.is_empty() {
                    no_escapes(value)
                } else {
                    segments(path)
                }
            }
            _ => Err("it does not read back as the same url"),
        },
    }
}

fn is_web(url: &Url) -> bool {
    ["http", "https"].contains(&url.scheme())
}

fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn segments(path: &str) -> Result<(), &'static str> {
    no_escapes(path)?;
    if path.starts_with('~') {
        return Err("it starts with `~`");
    }
    if path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err("it has an empty segment, `.` or `..`");
    }
    Ok(())
}

fn no_escapes(text: &str) -> Result<(), &'static str> {
    if text.contains(['\\', '%']) {
        return Err("it has `\\` or `%`");
    }
    Ok(())
}

fn argument(name: &str) -> Option<Piece> {
    let (name, each) = match name.strip_suffix("[]") {
        Some(name) => (name, true),
        None => (name, false),
    };
    let pointer = match name.strip_prefix('/') {
        Some(_) => name.to_owned(),
        None => format!("/{}", name.replace('~', "~0").replace('/', "~1")),
    };
    (!name.is_empty() && !pointer.ends_with('/')).then_some(Piece::Argument { pointer, each })
}

/// The unescaped first token of an RFC 6901 pointer.
pub(crate) fn top_of(pointer: &str) -> Option<String> {
    let token = pointer.strip_prefix('/')?.split('/').next()?;
    Some(token.replace("~1", "/").replace("~0", "~"))
}

/// Every character of a literal between two arguments: were one allowed in a part, two different sets
/// of arguments could yield one value.
fn separators(pieces: &[Piece]) -> Vec<char> {
    let inner = pieces.get(1..pieces.len().saturating_sub(1)).unwrap_or_default();
    let mut all: Vec<char> = Vec::new();
    for piece in inner {
        if let Piece::Literal(text) = piece {
            all.extend(text.chars());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use taper_capability::json::{self, JsonLimits};

    fn parse(arguments: &str) -> Value {
        json::parse(arguments.as_bytes(), &JsonLimits::default()).unwrap()
    }

    #[track_caller]
    fn check(template: &str, arguments: &str, kind: Kind, expected: Option<&[&str]>) {
        let template = Template::parse("repo", template).unwrap();
        let values = template.values(&parse(arguments), kind);
        let got = values.as_ref().ok().map(|values| {
            values
                .iter()
                .map(|(kind, value)| {
                    assert_eq!(kind, "repo");
                    value.as_str()
                })
                .collect::<Vec<_>>()
        });
        assert_eq!(got.as_deref(), expected, "{arguments}: {values:?}");
    }

    #[test]
    fn values_come_from_arguments() {
        let kind = Kind::default();
        check(
            "{repo_path}",
            r#"{"repo_path":"acme/web"}"#,
            kind,
            Some(&["acme/web"]),
        );
        check("{o}/{r}", r#"{"o":"acme","r":"web"}"#, kind, Some(&["acme/web"]));
        check("x/{/a/b}", r#"{"a":{"b":"c"}}"#, kind, Some(&["x/c"]));
        check("{p[]}", r#"{"p":["a","b/c"]}"#, kind, Some(&["a", "b/c"]));
        check("r/{p[]}/t", r#"{"p":["a","b"]}"#, kind, Some(&["r/a/t", "r/b/t"]));
        let lower = Kind {
            ascii_lower: true,
            ..kind
        };
        check("{o}", r#"{"o":"Acme"}"#, lower, Some(&["acme"]));
        check("{o}", r#"{"o":"Acme"}"#, kind, Some(&["Acme"]));
    }

    #[test]
    fn what_does_not_fit_is_denied() {
        let kind = Kind::default();
        for arguments in [
            "{}",
            r#"{"o":""}"#,
            r#"{"o":1}"#,
            r#"{"o":null}"#,
            r#"{"o":["a"]}"#,
            r#"{"o":"a/../b"}"#,
            r#"{"o":"a//b"}"#,
            r#"{"o":"./a"}"#,
            r#"{"o":"a/"}"#,
            r#"{"o":"~/a"}"#,
            r#"{"o":"a%2fb"}"#,
            r#"{"o":"a\\b"}"#,
            r#"{"o":"a\nb"}"#,
        ] {
            check("{o}", arguments, kind, None);
        }
        check("{o}/{r}", r#"{"o":"acme/x","r":"web"}"#, kind, None);
        check("{o}--{r}", r#"{"o":"a-","r":"b"}"#, kind, None);
        check("{p[]}", r#"{"p":[]}"#, kind, None);
        check("{p[]}", r#"{"p":"a"}"#, kind, None);
        check("{p[]}", r#"{"p":["a",1]}"#, kind, None);
    }

    #[test]
    fn forms() {
        let check = |value: &str, form: KindForm, ok: bool| {
            assert_eq!(canonical(value, form).is_ok(), ok, "{value} {form:?}");
        };
        check("/acme/web", KindForm::Path, false);
        check("/a/b", KindForm::AbsolutePath, true);
        check("a/b", KindForm::AbsolutePath, false);
        check("/", KindForm::AbsolutePath, false);
        check("https://a.example/x", KindForm::Url, true);
        check("file:///a/b", KindForm::Url, true);
        check("test://static-text", KindForm::Url, true);
        check("https://A.example/x", KindForm::Url, false);
        check("https://a.example@evil.example/x", KindForm::Url, false);
        check("https://:b@evil.example/x", KindForm::Url, false);
        check("postgres://reader@db.example/x", KindForm::Url, true);
        check("https://a.example/x/../y", KindForm::Url, false);
        check("https://a.example/x%2e", KindForm::Url, false);
        check("https://a.example//x", KindForm::Url, false);
        check("a/b", KindForm::Url, false);
        check("a/../b%", KindForm::Text, true);
        check("a\u{0}", KindForm::Text, false);
    }

    #[test]
    fn malformed_templates() {
        for text in [
            "",
            "abc",
            "{a",
            "a}",
            "{}",
            "{a}{b}",
            "{a[]}/{b[]}",
            "{a}}",
            "{/}",
            "a{",
        ] {
            assert!(Template::parse("k", text).is_err(), "{text}");
        }
        let template = Template::parse("k", "{/a~1b/c}:{d[]}").unwrap();
        assert_eq!(template.arguments().collect::<Vec<_>>(), ["a/b", "d"]);
    }
}
