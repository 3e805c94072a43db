//! The file: JSON that people review. One entry a tool, in the order of their names, with the definition
//! itself, so that a later difference can be shown; nothing in it hides from a reader.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use taper_capability::json::{self, JsonError, JsonLimits, Value};
use taper_service::rng;

use super::text::{pretty, shown_str};
use super::{Pin, Pins, Preface};

/// The largest file, in bytes.
const MAX_FILE: usize = 16 * 1024 * 1024;
const VERSION: &str = "taper_pins";
const LIMITS: JsonLimits = JsonLimits {
    bytes: MAX_FILE,
    depth: 68,
    nodes: 1 << 20,
    elements: 1 << 16,
};

/// Why a file of pins cannot be used, or a tool not pinned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PinsError {
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("it is larger than {MAX_FILE} bytes")]
    TooLarge,
    #[error("it is not strict JSON: {0}")]
    Json(#[from] JsonError),
    #[error("`{0}` is missing or of another kind")]
    Missing(&'static str),
    #[error("{0} is not a key of it")]
    Unknown(String),
    #[error("it is of the server {0}")]
    Server(String),
    #[error("the tool {0} is there twice")]
    Twice(String),
    #[error("the tool {0}: its digest is not that of its definition; one of them was changed by hand")]
    Digest(String),
    #[error("a tool has no name")]
    Nameless,
    #[error("the tool {0} has a number that not every reader holds, so that it has no digest")]
    NoDigest(String),
}

/// The bytes of a file, as far as they may be read.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, PinsError> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_FILE {
        return Err(PinsError::TooLarge);
    }
    Ok(bytes)
}

/// Puts a file in the place of another, with the permissions of that: whoever reads it sees the one or the
/// other, also after a crash.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let no_name = || io::Error::new(io::ErrorKind::InvalidInput, "the path names no file");
    let mut name = path.file_name().ok_or_else(no_name)?.to_owned();
    name.push(format!(".{}.tmp", rng::random_id_128(&mut rng::os())));
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    let temporary = folder.join(name);
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        if let Ok(before) = fs::metadata(path) {
            file.set_permissions(before.permissions())?;
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    let written = write();
    if written.is_err() {
        // The first failure is the one to report.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    // A rename is durable only when its folder is.
    File::open(folder)?.sync_all()
}

impl Pins {
    /// Reads the file of `server` at `path`.
    ///
    /// # Errors
    /// As for [`Self::parse`], and when it cannot be read.
    pub(crate) fn open(path: &Path, server: &str) -> Result<Self, PinsError> {
        Self::parse(&read(path)?, server)
    }

    /// Reads the file of `server`.
    ///
    /// # Errors
    /// What is wrong with it; also a digest that is not that of its definition.
    pub(crate) fn parse(bytes: &[u8], server: &str) -> Result<Self, PinsError> {
        let file = json::parse(bytes, &LIMITS)?;
        known(&file, &[VERSION, "server", "asked_with", "tools", "before_login"])?;
        if file.get(VERSION) != Some(&Value::Number("1".to_owned())) {
            return Err(PinsError::Missing(VERSION));
        }
        let named = file.get("server").and_then(Value::as_str);
        let named = named.ok_or(PinsError::Missing("server"))?;
        if named != server {
            return Err(PinsError::Server(shown_str(named)));
        }
        let asked_with = file.get("asked_with").and_then(Value::as_array);
        let asked_with = asked_with.map(|names| names.iter().map(|name| name.as_str().map(str::to_owned)));
        let asked_with = asked_with.and_then(Iterator::collect::<Option<Vec<_>>>);
        let tools = file.get("tools").and_then(Value::as_array);
        let mut pins = Self {
            asked_with: asked_with.ok_or(PinsError::Missing("asked_with"))?,
            ..Self::default()
        };
        for entry in tools.ok_or(PinsError::Missing("tools"))? {
            known(entry, &["name", "digest", "definition"])?;
            let text = |key: &'static str| entry.get(key).and_then(Value::as_str);
            let name = text("name").ok_or(PinsError::Missing("name"))?;
            let digest = text("digest").ok_or(PinsError::Missing("digest"))?;
            let definition = entry.get("definition").ok_or(PinsError::Missing("definition"))?;
            let pin = Pin::of(definition)?;
            if pin.digest != digest || definition.get("name") != entry.get("name") {
                return Err(PinsError::Digest(shown_str(name)));
            }
            if pins.tools.insert(name.to_owned(), pin).is_some() {
                return Err(PinsError::Twice(shown_str(name)));
            }
        }
        pins.preface = file.get("before_login").map(Preface::read).transpose()?;
        Ok(pins)
    }

    /// The file of `server`.
    pub(crate) fn to_text(&self, server: &str) -> String {
        let text = |text: &str| Value::String(text.to_owned());
        let member = |name: &str, value: Value| (name.to_owned(), value);
        let tool = |(name, pin): (&String, &Pin)| {
            Value::Object(vec![
                member("name", text(name)),
                member("digest", text(&pin.digest)),
                member("definition", pin.definition.clone()),
            ])
        };
        let mut file = vec![
            member(VERSION, Value::Number("1".to_owned())),
            member("server", text(server)),
            member(
                "asked_with",
                Value::Array(self.asked_with.iter().map(|name| text(name)).collect()),
            ),
            member("tools", Value::Array(self.tools.iter().map(tool).collect())),
        ];
        if let Some(preface) = &self.preface {
            file.push(member("before_login", preface.to_value()));
        }
        let mut text = pretty(&Value::Object(file), 0);
        text.push('\n');
        text
    }
}

/// Refuses an object with another key.
pub(super) fn known(object: &Value, keys: &[&str]) -> Result<(), PinsError> {
    let members = object.as_object().unwrap_or_default();
    match members.iter().find(|(name, _)| !keys.contains(&name.as_str())) {
        Some((name, _)) => Err(PinsError::Unknown(shown_str(name))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Pins, PinsError> {
        Pins::parse(text.as_bytes(), "git")
    }

    fn pins(tools: &[&str]) -> Pins {
        let mut pins = Pins::default();
        for tool in tools {
            pins.approve(&json::parse(tool.as_bytes(), &LIMITS).unwrap())
                .unwrap();
        }
        pins
    }

    #[test]
    fn a_file_reads_back_and_has_one_form() {
        let z = r#"{"name":"z","description":"a\u202eb","n":[1.50,{}]}"#;
        let a = r#"{"title":"A","name":"a"}"#;
        let file = pins(&[z, a]).to_text("git");
        assert_eq!(file, pins(&[a, z]).to_text("git"));
        assert!(file.contains(r#""description": "a\u202eb""#), "{file}");
        assert!(file.contains("1.50"), "numbers keep their text");
        assert_eq!(parse(&file).unwrap(), pins(&[a, z]));
        assert!(
            parse(&file)
                .unwrap()
                .approves("a", Some(&pins(&[a]).tools["a"].digest))
        );
        assert!(!parse(&file).unwrap().approves("a", None));
        assert!(!parse(&file).unwrap().approves("b", None));
    }

    #[test]
    fn a_file_with_a_mistake_is_refused() {
        let good = pins(&[r#"{"name":"a","x":1}"#]).to_text("git");
        let check = |from: &str, to: &str, part: &str| {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{from}");
            let error = parse(&bad).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        check("\"x\": 1", "\"x\": 2", "changed by hand");
        check("\"name\": \"a\"", "\"name\": \"b\"", "changed by hand");
        check("\"x\": 1", "\"x\": 1e400", "no digest");
        check("\"taper_pins\": 1", "\"taper_pins\": 2", "`taper_pins`");
        check(
            "\"server\": \"git\"",
            "\"server\": \"hub\\u0007\"",
            "\"hub\\u0007\"",
        );
        check("\"digest\"", "\"digests\"", "\"digests\" is not a key");
        check("\"tools\"", "\"Tools\"", "\"Tools\" is not a key");
        check("\"x\": 1", "\"x\": 1, \"x\": 1", "strict JSON");
        let entry = good
            .split_once("\"tools\": [")
            .unwrap()
            .1
            .rsplit_once(']')
            .unwrap()
            .0
            .to_owned();
        let twice = good.replacen(&entry, &format!("{},{entry}", entry.trim_end()), 1);
        assert!(
            parse(&twice).unwrap_err().to_string().contains("twice"),
            "{twice}"
        );
    }
}
