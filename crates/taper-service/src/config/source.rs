//! Where a configured secret is found: it is named in the file, never written there.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use super::resolve;
use crate::secret::{self, Secret, SecretError};

/// Where a secret is to be found: `{ file = "path" }` or `{ env = "NAME" }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file that only its owner can read.
    File(PathBuf),
    /// An environment variable.
    Env(String),
}

impl SecretSource {
    /// Fetches the secret, without one line end; a relative path starts at `folder`, the
    /// configuration file's (see [`folder_of`](super::folder_of)).
    ///
    /// # Errors
    /// [`SecretError`], also when the secret is empty or its file open to other users.
    pub fn read(&self, folder: &Path) -> Result<Secret, SecretError> {
        match self {
            Self::File(path) => secret::read_secret_file(&resolve(folder, path)),
            Self::Env(name) => secret::read_secret_variable(name),
        }
    }
}

impl<'de> serde::Deserialize<'de> for SecretSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretSourceVisitor)
    }
}

/// Serde support for a secret whose usual place is a file: `"path"` beside the two forms of
/// [`SecretSource`].
///
/// # Errors
/// When it is none of them, or the secret itself.
pub fn path_or_source<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretSource, D::Error> {
    deserializer.deserialize_any(PathOrSource)
}

struct PathOrSource;

impl<'de> Visitor<'de> for PathOrSource {
    type Value = SecretSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path, or `{ env = \"NAME\" }`")
    }

    fn visit_str<E: serde::de::Error>(self, path: &str) -> Result<SecretSource, E> {
        // A message about a path prints it.
        let is_path = !path.is_empty() && !path.contains(char::is_control) && !path.contains("-----");
        if is_path {
            Ok(SecretSource::File(path.into()))
        } else {
            Err(E::custom(NOT_INLINE))
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SecretSource, A::Error> {
        SecretSourceVisitor.visit_map(map)
    }
}

const NOT_INLINE: &str =
    "a secret is not written here; name its place: `{ file = \"path\" }` or `{ env = \"NAME\" }`";

struct SecretSourceVisitor;

/// Every scalar has its own method: the default ones quote the value in their error.
impl<'de> Visitor<'de> for SecretSourceVisitor {
    type Value = SecretSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`{ file = \"path\" }` or `{ env = \"NAME\" }`")
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<SecretSource, E> {
        Err(E::custom(NOT_INLINE))
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<SecretSource, E> {
        Err(E::custom(NOT_INLINE))
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<SecretSource, E> {
        Err(E::custom(NOT_INLINE))
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<SecretSource, E> {
        Err(E::custom(NOT_INLINE))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<SecretSource, E> {
        Err(E::custom(NOT_INLINE))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SecretSource, A::Error> {
        read_map(map, false).map(|read| read.source)
    }
}

/// A secret, and what stands before it where it is sent: `{ file = "path", prefix = "Bearer " }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixedSource {
    /// Where the secret is.
    pub source: SecretSource,
    /// What stands before it; not a secret.
    pub prefix: String,
}

impl PrefixedSource {
    /// Fetches the secret as [`SecretSource::read`] does, and puts the prefix before it.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn read(&self, folder: &Path) -> Result<Secret, SecretError> {
        let secret = self.source.read(folder)?;
        // One allocation: a buffer that grows would leave copies of the secret behind.
        let mut whole = Vec::with_capacity(self.prefix.len() + secret.expose().len());
        whole.extend_from_slice(self.prefix.as_bytes());
        whole.extend_from_slice(secret.expose());
        Ok(Secret::new(whole))
    }
}

impl<'de> serde::Deserialize<'de> for PrefixedSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PrefixedSourceVisitor)
    }
}

struct PrefixedSourceVisitor;

impl<'de> Visitor<'de> for PrefixedSourceVisitor {
    type Value = PrefixedSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`{ file = \"path\" }` or `{ env = \"NAME\" }`, with a `prefix` or without")
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<PrefixedSource, E> {
        Err(E::custom(NOT_INLINE))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PrefixedSource, A::Error> {
        read_map(map, true)
    }
}

fn read_map<'de, A: MapAccess<'de>>(mut map: A, may_have_prefix: bool) -> Result<PrefixedSource, A::Error> {
    let mut found: Option<(SecretSource, String)> = None;
    let mut prefix = None;
    while let Some(key) = map.next_key::<String>()? {
        if let ("file" | "env", Some((_, before))) = (key.as_str(), &found) {
            return Err(A::Error::custom(format!(
                "`{key}` beside `{before}`: a secret has one place only"
            )));
        }
        match key.as_str() {
            "file" => found = Some((SecretSource::File(map.next_value()?), key)),
            "env" => found = Some((SecretSource::Env(map.next_value()?), key)),
            "prefix" if may_have_prefix => prefix = Some(map.next_value()?),
            _ if may_have_prefix => return Err(A::Error::unknown_field(&key, &["file", "env", "prefix"])),
            _ => return Err(A::Error::unknown_field(&key, &["file", "env"])),
        }
    }
    let (source, _) = found.ok_or_else(|| A::Error::custom(NOT_INLINE))?;
    Ok(PrefixedSource {
        source,
        prefix: prefix.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::config;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Daemon {
        token: SecretSource,
    }

    #[test]
    fn secrets_are_named_never_written() {
        let check = |value: &str, expected: &str| {
            let message = config::parse::<Daemon>(&format!("# a comment\ntoken = {value}\n"), "proxy.toml")
                .unwrap_err()
                .to_string();
            assert!(!message.contains("hunter2"), "{message}");
            assert!(message.starts_with("proxy.toml:2:"), "{message}");
            assert!(message.contains(expected), "{message}");
        };
        check("'hunter2'", NOT_INLINE);
        check("42", NOT_INLINE);
        check("4.2", NOT_INLINE);
        check("true", NOT_INLINE);
        check("{}", NOT_INLINE);
        check(
            "{ value = 'hunter2' }",
            "unknown key `value`, expected `file` or `env`",
        );
        check("{ fil = 'hunter2' }", "unknown key `fil`, did you mean `file`?");
        check("{ file = 'a', env = 'hunter2' }", "a secret has one place only");
        check("['hunter2']", "expected `{ file");
    }

    #[test]
    fn both_places() {
        let check = |value: &str, expected: SecretSource| {
            let daemon: Daemon = config::parse(&format!("token = {value}"), "x").unwrap();
            assert_eq!(daemon.token, expected);
        };
        check("{ file = 'a' }", SecretSource::File("a".into()));
        check("{ env = 'A' }", SecretSource::Env("A".to_owned()));
    }

    #[derive(Debug, Deserialize)]
    struct Listener {
        #[serde(deserialize_with = "path_or_source")]
        key: SecretSource,
    }

    #[test]
    fn a_path_stands_for_its_file() {
        let read =
            |value: &str| config::parse::<Listener>(&format!("key = {value}"), "x").map(|read| read.key);
        assert_eq!(read("'a'").unwrap(), SecretSource::File("a".into()));
        assert_eq!(read("{ file = 'a' }").unwrap(), SecretSource::File("a".into()));
        assert_eq!(read("{ env = 'A' }").unwrap(), SecretSource::Env("A".to_owned()));
        for inline in [
            "''",
            "'-----BEGIN PRIVATE KEY----- hunter2'",
            "\"a\\nhunter2\"",
            "7",
        ] {
            let message = read(inline).unwrap_err().to_string();
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[derive(Debug, Deserialize)]
    struct Header {
        value: PrefixedSource,
    }

    #[test]
    fn a_prefix_stands_before_the_secret() {
        let read =
            |value: &str| config::parse::<Header>(&format!("value = {value}"), "x").map(|read| read.value);
        let folder = tempfile::tempdir().unwrap();
        crate::secret::write_private_file(&folder.path().join("a"), b"hunter2\r\n").unwrap();
        let check = |value: &str, expected: &[u8]| {
            let secret = read(value).unwrap().read(folder.path()).unwrap();
            assert_eq!(secret.expose(), expected, "{value}");
        };
        check("{ file = 'a' }", b"hunter2");
        check("{ file = 'a', prefix = 'Bearer ' }", b"Bearer hunter2");
        check("{ prefix = 'Bearer ', file = 'a' }", b"Bearer hunter2");
        for wrong in [
            "'hunter2'",
            "{ prefix = 'hunter2' }",
            "{ file = 'a', suffix = 'hunter2' }",
            "7",
        ] {
            let message = read(wrong).unwrap_err().to_string();
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn an_absent_secret_is_an_error() {
        let source = SecretSource::Env("TAPER_TEST_ABSENT".to_owned());
        assert!(matches!(
            source.read(Path::new(".")),
            Err(SecretError::NoVariable { .. })
        ));
        let source = SecretSource::File("absent".into());
        assert!(matches!(
            source.read(Path::new("/nowhere")),
            Err(SecretError::Read { .. })
        ));
    }
}
