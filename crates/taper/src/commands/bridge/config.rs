//! `taper bridge --print-config`: what to put into the settings of a client, made of the command that was
//! typed.

use std::path::Path;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::listen::Listen;
use crate::failure::Failure;

/// How the variable begins from which clients take their secret for a server, where they can.
const SECRET: &str = "TAPER_BRIDGE_SECRET_";
/// Options whose value is a file or a folder: clients start a command anywhere.
const PATHS: [&str; 6] = [
    "--token",
    "--key",
    "--wallet",
    "--state",
    "--subject-token",
    "--client-secret-file",
];
/// How a key that is not in a file is named.
const NO_FILES: [&str; 3] = ["agent:", "env:", "keyring:"];

/// A client whose settings are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ClientKind {
    /// Claude Code: `.mcp.json`.
    Claude,
    /// VS Code: `.vscode/mcp.json`.
    Vscode,
    /// Cursor: `.cursor/mcp.json`.
    Cursor,
}

impl ClientKind {
    /// The file that the settings belong in.
    pub(super) fn file(self) -> &'static str {
        match self {
            Self::Claude => ".mcp.json",
            Self::Vscode => ".vscode/mcp.json",
            Self::Cursor => ".cursor/mcp.json",
        }
    }

    /// How the client's settings name a variable of its environment.
    fn secret(self, path: &str) -> String {
        let variable = secret_variable(path);
        match self {
            Self::Claude => format!("${{{variable}}}"),
            Self::Vscode | Self::Cursor => format!("${{env:{variable}}}"),
        }
    }

    fn servers(self) -> &'static str {
        match self {
            Self::Vscode => "servers",
            Self::Claude | Self::Cursor => "mcpServers",
        }
    }
}

/// What was typed.
pub(super) struct Typed<'a> {
    /// The program.
    pub(super) program: &'a Path,
    /// Its arguments, `bridge` and all that follows.
    pub(super) words: &'a [String],
    /// The MCP server's path.
    pub(super) path: &'a str,
    /// Where the bridge listens, if it does.
    pub(super) listen: Option<&'a Listen>,
    /// Whether clients have a secret.
    pub(super) with_secret: bool,
}

/// The settings of a client.
///
/// # Errors
/// A usage failure where the client could not find the bridge again.
pub(super) fn settings(kind: ClientKind, typed: &Typed<'_>) -> Result<Value, Failure> {
    let server = match typed.listen {
        None => {
            let mut server = json!({
                "command": typed.program.display().to_string(),
                "args": words(typed.words).map_err(Failure::failed)?,
            });
            if kind != ClientKind::Cursor {
                insert(&mut server, "type", json!("stdio"));
            }
            server
        }
        Some(Listen::Loopback(address)) if address.port() != 0 => {
            let mut server = json!({"url": format!("http://{address}{}", typed.path)});
            if kind != ClientKind::Cursor {
                insert(&mut server, "type", json!("http"));
            }
            if typed.with_secret {
                let secret = format!("Bearer {}", kind.secret(typed.path));
                insert(&mut server, "headers", json!({"Authorization": secret}));
            }
            server
        }
        Some(Listen::Loopback(_)) => {
            return Err(Failure::usage(
                "with port 0 the bridge is at another place each time; give `--listen` a port",
            ));
        }
        Some(Listen::Unix(_)) => {
            return Err(Failure::usage("this client cannot connect to a Unix socket"));
        }
    };
    Ok(json!({kind.servers(): {name(typed.path): server}}))
}

/// The variable from which clients take their secret for the server at this path: one client may have several
/// servers, each with a bridge of its own.
pub(super) fn secret_variable(path: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    SECRET.chars().chain(name(path).chars().map(plain)).collect()
}

/// What a client's settings call the server.
fn name(path: &str) -> &str {
    let mut segments = path
        .split('/')
        .filter(|segment| !segment.is_empty() && *segment != "mcp");
    segments.next_back().unwrap_or("taper")
}

fn insert(object: &mut Value, name: &str, value: Value) {
    if let Value::Object(members) = object {
        members.insert(name.to_owned(), value);
    }
}

/// The words again, with whole paths and without the one that asked for this.
fn words(typed: &[String]) -> std::io::Result<Vec<String>> {
    let mut words = Vec::new();
    let mut typed = typed.iter();
    while let Some(word) = typed.next() {
        let (option, inner) = match word.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        if option == "--print-config" {
            if inner.is_none() {
                typed.next();
            }
        } else if PATHS.contains(&option) {
            words.push(option.to_owned());
            if let Some(value) = inner.or_else(|| typed.next().cloned()) {
                words.push(whole(value)?);
            }
        } else {
            words.push(word.clone());
        }
    }
    Ok(words)
}

fn whole(value: String) -> std::io::Result<String> {
    if NO_FILES.iter().any(|scheme| value.starts_with(scheme)) {
        return Ok(value);
    }
    Ok(std::path::absolute(value)?.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: ClientKind, line: &str, listen: Option<&str>, with_secret: bool) -> Value {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let listen = listen.map(|text| text.parse().unwrap());
        let typed = Typed {
            program: Path::new("/bin/taper"),
            words: &words,
            path: "/git/mcp",
            listen: listen.as_ref(),
            with_secret,
        };
        settings(kind, &typed).unwrap_or_default()
    }

    #[test]
    fn a_command_that_can_be_started_anywhere() {
        let line = "bridge --url http://h/git/mcp --token=/t --key /k --tool git:a --print-config claude";
        let args = json!([
            "bridge",
            "--url",
            "http://h/git/mcp",
            "--token",
            "/t",
            "--key",
            "/k",
            "--tool",
            "git:a"
        ]);
        let stdio = json!({"command": "/bin/taper", "args": args, "type": "stdio"});
        assert_eq!(
            told(ClientKind::Claude, line, None, true),
            json!({"mcpServers": {"git": stdio}})
        );
        assert_eq!(
            told(ClientKind::Vscode, line, None, true),
            json!({"servers": {"git": stdio}})
        );
        let bare = json!({"command": "/bin/taper", "args": args});
        assert_eq!(
            told(ClientKind::Cursor, line, None, true),
            json!({"mcpServers": {"git": bare}})
        );
        let relative = words(&["--key".into(), "k".into()]).unwrap();
        assert!(Path::new(relative.last().unwrap()).is_absolute());
        let elsewhere = words(&["--key=agent:".into(), "--print-config=cursor".into()]).unwrap();
        assert_eq!(elsewhere, ["--key", "agent:"]);
    }

    #[test]
    fn a_url_and_no_secret_itself() {
        let http = |with_secret| told(ClientKind::Vscode, "bridge", Some("127.0.0.1:7777"), with_secret);
        let url = "http://127.0.0.1:7777/git/mcp";
        let secret = json!({"Authorization": "Bearer ${env:TAPER_BRIDGE_SECRET_GIT}"});
        assert_eq!(
            http(true),
            json!({"servers": {"git": {"url": url, "type": "http", "headers": secret}}})
        );
        assert_eq!(
            http(false),
            json!({"servers": {"git": {"url": url, "type": "http"}}})
        );
        assert_eq!(
            told(ClientKind::Vscode, "bridge", Some("127.0.0.1:0"), true),
            Value::Null
        );
        assert_eq!(
            told(ClientKind::Cursor, "bridge", Some("unix:/s"), true),
            Value::Null
        );
        assert_eq!(secret_variable("/pay-roll/mcp"), "TAPER_BRIDGE_SECRET_PAY_ROLL");
        assert_eq!(
            (name("/mcp"), name("/"), name("/a/b/mcp")),
            ("taper", "taper", "b")
        );
    }
}
