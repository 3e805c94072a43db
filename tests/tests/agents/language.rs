//! The two agents as programs, and what they say of a refusal.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use taper_tests::{named_by_run, root};

/// An example agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Agent {
    Python,
    Js,
}

impl Agent {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Js => "js",
        }
    }

    pub(crate) fn run(self, dir: &Path, words: &[&str]) -> Output {
        let mut command = match self {
            Self::Python => {
                let mut python = self.interpreter();
                python.args(["-m", "taper_agent"]);
                python
            }
            Self::Js => self.script("taper-agent.mjs"),
        };
        command.current_dir(dir).args(words).output().unwrap()
    }

    /// A command for a program of the example's folder.
    pub(crate) fn script(self, file: &str) -> Command {
        let mut command = self.interpreter();
        let folder = match self {
            Self::Python => self.example(),
            // Node looks for packages beside the file that asks, so a copy runs.
            Self::Js => {
                let copy = named_by_run("TAPER_REAL").join("agents/js");
                same_scripts(&self.example(), &copy);
                copy
            }
        };
        command.arg(folder.join(file));
        command
    }

    fn example(self) -> PathBuf {
        root().join("examples/agents").join(self.name())
    }

    fn interpreter(self) -> Command {
        let real = |part: &str| Command::new(named_by_run("TAPER_REAL").join(part));
        match self {
            Self::Python => {
                let mut python = real("agents/python/bin/python");
                python
                    .env("PYTHONPATH", self.example())
                    .env("PYTHONDONTWRITEBYTECODE", "1");
                python
            }
            Self::Js => {
                let mut node = real("bin/node");
                node.arg("--disable-warning=ExperimentalWarning");
                node
            }
        }
    }

    #[track_caller]
    pub(crate) fn ok(self, dir: &Path, words: &[&str]) -> String {
        succeeds(&self.run(dir, words))
    }

    /// Makes `NAME.jwk` and `NAME.pub.jwk`.
    #[track_caller]
    pub(crate) fn keygen(self, dir: &Path, name: &str) {
        let public = self.ok(dir, &["keygen", "--out", &format!("{name}.jwk")]);
        assert!(!public.contains("\"d\""), "{public}");
        std::fs::write(dir.join(format!("{name}.pub.jwk")), public).unwrap();
    }

    /// Calls with a capability and `NAME.jwk`.
    pub(crate) fn call(self, dir: &Path, url: &str, token: &str, name: &str, words: &[&str]) -> Output {
        let key = format!("{name}.jwk");
        let how = ["call", "--url", url, "--token", token, "--key", &key];
        // Only one of the libraries can seal, and to do so it verifies.
        let roots: &[&str] = match self {
            Self::Python => &[],
            Self::Js => &["--roots", "roots.json"],
        };
        self.run(dir, &[&how[..], roots, words].concat())
    }

    /// It ended with `code`, in words, and without a result.
    #[track_caller]
    pub(crate) fn fails(self, output: &Output, code: i32) {
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{self:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{self:?}: {output:?}");
        assert!(
            !said.contains("Traceback") && !said.contains("panicked"),
            "{said}"
        );
        assert!(code != 1 || said.starts_with("failed: "), "{said}");
    }
}

#[track_caller]
fn same_scripts(example: &Path, copy: &Path) {
    for entry in std::fs::read_dir(example).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "mjs" || extension == "ts")
        {
            let copied = std::fs::read(copy.join(path.file_name().unwrap())).unwrap_or_default();
            let same = copied == std::fs::read(&path).unwrap();
            assert!(
                same,
                "{} is newer than its copy: run tests/real/setup",
                path.display()
            );
        }
    }
}

/// Ended well, and said nothing but its result.
#[track_caller]
pub(crate) fn succeeds(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(said, "");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What an agent said of a refusal.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) said: String,
}

/// The refusal that `refused: status N, …` speaks of, with exit code 2.
#[track_caller]
pub(crate) fn refused(output: &Output) -> Refusal {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    let (status, said) = said
        .trim()
        .strip_prefix("refused: status ")
        .and_then(|said| said.split_once(", "))
        .unwrap_or_else(|| panic!("{said}"));
    Refusal {
        status: status.parse().unwrap(),
        said: said.to_owned(),
    }
}

impl Refusal {
    /// The refusal that `taper call --format json` speaks of.
    #[track_caller]
    pub(crate) fn of_taper(output: &Output) -> Self {
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said: Value = serde_json::from_slice(&output.stderr).unwrap_or_else(|_| panic!("{output:?}"));
        Self {
            status: said["status"].as_u64().unwrap().try_into().unwrap(),
            said: said.to_string(),
        }
    }

    /// 403, code 4403, and the caveat of this link.
    #[track_caller]
    pub(crate) fn is_denied_by(&self, link: u64, caveat: &Value) {
        let error: Value = serde_json::from_str(&self.said).unwrap_or_else(|_| panic!("{self:?}"));
        assert_eq!((self.status, &error["code"]), (403, &json!(4403)), "{error:#}");
        let data = &error["data"];
        assert_eq!(
            (&data["rule"], &data["link"], &data["caveat"]),
            (&json!("R-22"), &json!(link), caveat),
            "{error:#}"
        );
    }

    /// 401 by this rule.
    #[track_caller]
    pub(crate) fn is_unauthorized(&self, rule: &str) {
        assert_eq!(self.status, 401, "{self:?}");
        assert!(self.said.starts_with("DPoP error=\"invalid_"), "{self:?}");
        assert!(self.said.contains(&format!("({rule})")), "{self:?}");
    }
}
