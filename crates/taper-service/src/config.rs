//! Configuration: one TOML file per daemon, read strictly.
//!
//! Every complaint starts with `file:line:column`. A key that nobody reads is an error, because a
//! misspelt security setting would otherwise be a missing one. A secret is never written in the file:
//! it is named there ([`SecretSource`]). No message quotes a value's source line.

mod source;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_ignored::Path as KeyPath;
use toml::de::{DeTable, DeValue};

pub use self::source::{PrefixedSource, SecretSource, path_or_source};
use crate::suggest;

/// The largest configuration file that is read, in bytes.
pub const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file says something that it may not.
    #[error("{name}:{line}:{column}: {message}")]
    Invalid {
        /// The file.
        name: String,
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
        /// What is wrong and, where it can be guessed, what was meant.
        message: String,
    },
}

/// Reads and checks a configuration file.
///
/// # Errors
/// [`ConfigError`], also for a file larger than [`MAX_CONFIG_BYTES`].
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_CONFIG_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_CONFIG_BYTES {
        let message = format!("it is larger than {MAX_CONFIG_BYTES} bytes");
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, message)));
    }
    let source = String::from_utf8(bytes)
        .map_err(|_| failed(io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text")))?;
    parse(&source, &path.display().to_string())
}

/// Checks a configuration given as text; `name` stands for the file in messages.
///
/// # Errors
/// [`ConfigError::Invalid`].
pub fn parse<T: DeserializeOwned>(source: &str, name: &str) -> Result<T, ConfigError> {
    let invalid = |offset: usize, message: String| {
        let (line, column) = position(source, offset);
        ConfigError::Invalid {
            name: name.to_owned(),
            line,
            column,
            message,
        }
    };
    let refused = |error: toml::de::Error| {
        invalid(
            error.span().map_or(0, |span| span.start),
            with_suggestion(error.message()),
        )
    };
    let deserializer = toml::Deserializer::parse(source).map_err(refused)?;
    let mut unread: Option<Vec<String>> = None;
    let value = serde_ignored::deserialize(deserializer, |path| {
        unread.get_or_insert_with(|| steps(&path));
    })
    .map_err(refused)?;
    match unread {
        None => Ok(value),
        Some(path) => Err(invalid(
            offset_of(source, &path).unwrap_or(0),
            format!("unknown key `{}`", path.join(".")),
        )),
    }
}

/// The folder of a configuration file, against which the paths in it are meant.
pub fn folder_of(config: &Path) -> PathBuf {
    match config.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// A path as written in a configuration file, made usable: relative ones start at `folder`.
pub fn resolve(folder: &Path, path: &Path) -> PathBuf {
    folder.join(path)
}

/// Serde support for a [`std::time::Duration`] written as `"10s"` or `"1h30m"`:
/// `#[serde(with = "taper_service::config::duration")]`.
pub mod duration {
    use std::time::Duration;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::clock;

    /// Reads the text form; a bare number is refused, since it does not say of what.
    ///
    /// # Errors
    /// When the text is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        clock::parse_duration(&text)
            .map(Duration::from_secs)
            .map_err(D::Error::custom)
    }

    /// Writes the text form, in whole seconds.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&clock::human_duration(duration.as_secs()))
    }
}

fn position(source: &str, offset: usize) -> (usize, usize) {
    let before = source.get(..offset).unwrap_or(source);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.matches('\n').count() + 1;
    (
        line,
        before.get(line_start..).unwrap_or_default().chars().count() + 1,
    )
}

/// Serde says ``unknown field `a`, expected one of `b`, `c` ``: the nearest expected name is put first.
fn with_suggestion(message: &str) -> String {
    let (kind, rest) = match (
        message.strip_prefix("unknown field "),
        message.strip_prefix("unknown variant "),
    ) {
        (Some(rest), _) => ("key", rest),
        (_, Some(rest)) => ("value", rest),
        _ => return message.to_owned(),
    };
    // Odd pieces stand between backticks.
    let mut names = rest.split('`').skip(1).step_by(2);
    let given = names.next().unwrap_or_default();
    match suggest::closest(given, names) {
        Some(meant) => format!("unknown {kind} `{given}`, did you mean `{meant}`?"),
        None => format!("unknown {kind} {rest}"),
    }
}

fn steps(path: &KeyPath<'_>) -> Vec<String> {
    let (parent, step) = match path {
        KeyPath::Root => return Vec::new(),
        KeyPath::Seq { parent, index } => (parent, index.to_string()),
        KeyPath::Map { parent, key } => (parent, key.clone()),
        KeyPath::Some { parent } | KeyPath::NewtypeStruct { parent } | KeyPath::NewtypeVariant { parent } => {
            return steps(parent);
        }
    };
    let mut all = steps(parent);
    all.push(step);
    all
}

fn offset_of(source: &str, path: &[String]) -> Option<usize> {
    let root = DeTable::parse(source).ok()?;
    let (first, rest) = path.split_first()?;
    let (key, mut value) = root.get_ref().get_key_value(first.as_str())?;
    let mut offset = key.span().start;
    for step in rest {
        value = match value.get_ref() {
            DeValue::Table(table) => {
                let (key, inner) = table.get_key_value(step.as_str())?;
                offset = key.span().start;
                inner
            }
            DeValue::Array(items) => items.get(step.parse::<usize>().ok()?)?,
            _ => return Some(offset),
        };
    }
    Some(offset)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::Deserialize;

    use super::*;
    #[cfg(unix)]
    use crate::secret::write_private_file;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only its reading is tested")]
    struct Daemon {
        listen: String,
        port: Option<u16>,
        token: Option<SecretSource>,
        #[serde(default, with = "duration")]
        timeout: Duration,
        mode: Option<Mode>,
        #[serde(default)]
        upstream: Vec<Lenient>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        Strict,
        Audit,
    }

    /// A struct whose author forgot `deny_unknown_fields`.
    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only its reading is tested")]
    struct Lenient {
        url: String,
    }

    fn message(source: &str) -> String {
        parse::<Daemon>(source, "proxy.toml").unwrap_err().to_string()
    }

    #[test]
    fn complaints_carry_place_and_suggestion() {
        let check = |source: &str, expected: &str| assert_eq!(message(source), expected);
        check(
            "listen = 'a'\nprot = 1\n",
            "proxy.toml:2:1: unknown key `prot`, did you mean `port`?",
        );
        check(
            "listen = 'a'\nzzz = 1\n",
            "proxy.toml:2:1: unknown key `zzz`, expected one of `listen`, `port`, `token`, `timeout`, `mode`, `upstream`",
        );
        check(
            "listen = 'a'\nmode = 'strct'\n",
            "proxy.toml:2:8: unknown value `strct`, did you mean `strict`?",
        );
        check(
            "listen = 'é'\n\n  port = 70000",
            "proxy.toml:3:10: invalid value: integer `70000`, expected u16",
        );
        check("port = 1\n", "proxy.toml:1:1: missing field `listen`");
        check("listen = 'a'\nlisten = 'b'\n", "proxy.toml:2:1: duplicate key");
        check(
            "listen = 'a'\ntimeout = 'soon'\n",
            "proxy.toml:2:11: `soon` is not a duration such as `30s`, `10m`, `1h30m` or `2d`",
        );
        check(
            "listen = 'a'\n[[upstream]]\nurl = 'u'\n[[upstream]]\nurl = 'v'\ntls = true\n",
            "proxy.toml:6:1: unknown key `upstream.1.tls`",
        );
    }

    #[test]
    fn a_good_file() {
        let daemon: Daemon = parse(
            "listen = 'a'\nport = 1\ntimeout = '1m'\nmode = 'audit'\ntoken = { env = 'X' }\n[[upstream]]\nurl = 'u'\n",
            "x",
        )
        .unwrap();
        assert_eq!((daemon.timeout, daemon.port), (Duration::from_secs(60), Some(1)));
        assert_eq!(daemon.token, Some(SecretSource::Env("X".to_owned())));
    }

    #[test]
    fn syntax_errors_do_not_quote_the_line() {
        let message = message("listen = 'a'\ntoken = hunter2\n");
        assert!(message.starts_with("proxy.toml:2:9: "), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn files_and_relative_paths() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("issuer.toml");
        std::fs::write(&config, "listen = 'a'\ntoken = { file = 'secrets/token' }\n").unwrap();
        std::fs::create_dir(folder.path().join("secrets")).unwrap();
        write_private_file(&folder.path().join("secrets/token"), b"hunter2\n").unwrap();
        let daemon: Daemon = load(&config).unwrap();
        let secret = daemon.token.unwrap().read(&folder_of(&config)).unwrap();
        assert_eq!(secret.expose(), b"hunter2");
        assert_eq!(folder_of(Path::new("issuer.toml")), Path::new("."));
        assert_eq!(
            resolve(Path::new("/etc/taper"), Path::new("/run/key")),
            Path::new("/run/key")
        );
    }

    #[test]
    fn unreadable_files() {
        let folder = tempfile::tempdir().unwrap();
        let check = |bytes: Option<&[u8]>, expected: &str| {
            let path = folder.path().join("c.toml");
            match bytes {
                Some(bytes) => std::fs::write(&path, bytes).unwrap(),
                None => drop(std::fs::remove_file(&path)),
            }
            let message = load::<Daemon>(&path).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("cannot read `{}`: ", path.display())),
                "{message}"
            );
            assert!(message.contains(expected), "{message}");
        };
        check(None, "No such file");
        check(Some(b"listen = '\xff'"), "not UTF-8");
        check(Some(&vec![b'\n'; MAX_CONFIG_BYTES as usize + 1]), "larger than");
    }
}
