//! Where the access token comes from that is exchanged for a capability.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use taper_service::secret::MAX_SECRET_BYTES;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use zeroize::Zeroizing;

use crate::keys::KEY_VARIABLE;
use crate::source::read_text;
use crate::{Error, blocking};

/// How long a command may take: a person may have to answer it.
const LONGEST: Duration = Duration::from_secs(60);

/// Where the subject's access token comes from. It is read again each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectToken {
    /// A file, such as one that a platform keeps fresh.
    File(PathBuf),
    /// What a command of the shell prints on stdout.
    Command(String),
    /// The wallet's own login ([`super::KeptLogin`]), which only a wallet can read.
    Login,
}

impl SubjectToken {
    /// Reads the token, at most 64 KiB of text, less the white space around it.
    ///
    /// # Errors
    /// [`Error::Secret`] when the file cannot be read, [`Error::Subject`] when the command fails, takes
    /// longer than a minute, or prints nothing or too much, and for a wallet's login.
    pub async fn read(&self) -> Result<Zeroizing<String>, Error> {
        let text = match self {
            Self::File(path) => {
                let path = path.clone();
                blocking(move || read_text(&path)).await?
            }
            Self::Login => return Err(failed("it is in a wallet, which renews it")),
            Self::Command(command) => match tokio::time::timeout(LONGEST, output(command)).await {
                Ok(output) => output?,
                Err(_) => return Err(failed("it took longer than a minute")),
            },
        };
        let token = text.trim();
        if token.is_empty() {
            return Err(failed("there is nothing in it"));
        }
        Ok(Zeroizing::new(token.to_owned()))
    }
}

/// What `command` prints. It has no stdin, and is killed when nobody waits any more.
async fn output(command: &str) -> Result<Zeroizing<String>, Error> {
    let cannot = |e: std::io::Error| failed(&e.to_string());
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .env_remove(KEY_VARIABLE)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(cannot)?;
    let mut bytes = Zeroizing::new(Vec::new());
    if let Some(stdout) = child.stdout.take() {
        let mut limited = stdout.take(MAX_SECRET_BYTES + 1);
        limited.read_to_end(&mut bytes).await.map_err(cannot)?;
    }
    if bytes.len() as u64 > MAX_SECRET_BYTES {
        return Err(failed("it is too long"));
    }
    let status = child.wait().await.map_err(cannot)?;
    if !status.success() {
        return Err(failed(&format!("the command ended with {status}")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| failed("it is not UTF-8 text"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn failed(reason: &str) -> Error {
    Error::Subject(reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(command: &str, expected: Result<&str, &str>) {
        let read = SubjectToken::Command(command.to_owned()).read().await;
        match (read, expected) {
            (Ok(token), Ok(expected)) => assert_eq!(token.as_str(), expected),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{command}: {error}"),
            (read, _) => panic!("{command}: {read:?}"),
        }
    }

    #[tokio::test]
    async fn a_command_prints_the_token() {
        check("echo ' a.b.c '", Ok("a.b.c")).await;
        check("cat; echo x", Ok("x")).await;
        check("echo a.b.c; exit 3", Err("exit status: 3")).await;
        check("true", Err("nothing")).await;
        check("head -c 70000 /dev/zero", Err("too long")).await;
        check("printf '\\377'", Err("UTF-8")).await;
    }

    #[tokio::test]
    async fn a_file_is_read_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let subject = SubjectToken::File(path.clone());
        assert!(matches!(subject.read().await, Err(Error::Secret(_))));
        for text in ["one\n", " two"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(subject.read().await.unwrap().as_str(), text.trim());
        }
    }
}
