//! Two small repositories with a believable history: `acme/web` and `acme/payroll`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

type Author = (&'static str, &'static str);

const ADA: Author = ("Ada Okafor", "ada@acme.example");
const LIN: Author = ("Lin Petersen", "lin@acme.example");
const SAM: Author = ("Sam Rivera", "sam@acme.example");

/// Why the sample repositories could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// A file or folder could not be written, or the `git` program could not be started.
    #[error("sample repositories: {0}")]
    Io(#[from] std::io::Error),
    /// The `git` program failed.
    #[error("sample repositories: git {command} failed: {error}")]
    Git {
        /// The subcommand of git.
        command: String,
        /// What git wrote to its standard error.
        error: String,
    },
}

/// One commit: hours before `now`, author, message, and the files as they are after it.
struct Commit {
    hours_ago: i64,
    author: Author,
    message: &'static str,
    files: &'static [(&'static str, &'static str)],
}

/// Makes `acme/web` and `acme/payroll` below `root`, with commits dated in the days before `now`
/// (seconds since the Unix epoch). The same `now` makes the same commit ids. A repository that
/// exists is left as it is; one that could not be finished is not left behind under its name.
/// Blocks on the file system and on the `git` program, which needs no configuration of a user.
///
/// # Errors
/// [`SampleError`] when a file cannot be written, or git is missing or fails.
pub fn sample_repositories(root: &Path, now: i64) -> Result<(), SampleError> {
    make(root, "web", WEB, now)?;
    make(root, "payroll", PAYROLL, now)
}

fn make(root: &Path, name: &str, commits: &[Commit], now: i64) -> Result<(), SampleError> {
    let owner = root.join("acme");
    let path = owner.join(name);
    if path.join(".git").is_dir() {
        return Ok(());
    }
    // Made aside and renamed, so that a run that was cut off leaves no half of a history. The leading
    // dot keeps the server from serving it.
    let aside: PathBuf = owner.join(format!(".{name}.new"));
    if aside.exists() {
        std::fs::remove_dir_all(&aside)?;
    }
    std::fs::create_dir_all(&aside)?;
    run(
        git(&aside).args(["init", "--quiet", "--template=", "--initial-branch=main"]),
        "init",
    )?;
    for change in commits {
        for (file, text) in change.files {
            let file = aside.join(file);
            if let Some(folder) = file.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::write(file, text)?;
        }
        let date = now.saturating_sub(change.hours_ago.saturating_mul(3600));
        commit(&aside, date, change.author, change.message)?;
    }
    std::fs::rename(&aside, &path)?;
    Ok(())
}

/// Commits everything in the working copy.
pub(crate) fn commit(
    repository: &Path,
    date: i64,
    (name, email): (&str, &str),
    message: &str,
) -> Result<(), SampleError> {
    run(git(repository).args(["add", "--all"]), "add")?;
    let date = format!("{date} +0000");
    run(
        git(repository)
            .env("GIT_AUTHOR_NAME", name)
            .env("GIT_AUTHOR_EMAIL", email)
            .env("GIT_AUTHOR_DATE", &date)
            .env("GIT_COMMITTER_NAME", name)
            .env("GIT_COMMITTER_EMAIL", email)
            .env("GIT_COMMITTER_DATE", &date)
            .args(["commit", "--quiet", "--no-verify", "--no-gpg-sign", "-m", message]),
        "commit",
    )
}

fn git(repository: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .env_clear()
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C")
        .arg("-C")
        .arg(repository)
        .stdin(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

fn run(command: &mut Command, name: &str) -> Result<(), SampleError> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(SampleError::Git {
        command: name.to_owned(),
        error: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

const WEB: &[Commit] = &[
    Commit {
        hours_ago: 214,
        author: ADA,
        message: "Serve the landing page",
        files: &[
            ("README.md", "# web\n\nThe public site of Acme.\n"),
            (
                "src/server.py",
                "from http.server import HTTPServer, SimpleHTTPRequestHandler\n\n\
                 HTTPServer((\"\", 8080), SimpleHTTPRequestHandler).serve_forever()\n",
            ),
            (
                "public/index.html",
                "<!doctype html>\n<title>Acme</title>\n<h1>Acme</h1>\n",
            ),
        ],
    },
    Commit {
        hours_ago: 167,
        author: LIN,
        message: "Listen on loopback only, the load balancer does the rest",
        files: &[(
            "src/server.py",
            "from http.server import HTTPServer, SimpleHTTPRequestHandler\n\n\
             HTTPServer((\"127.0.0.1\", 8080), SimpleHTTPRequestHandler).serve_forever()\n",
        )],
    },
    Commit {
        hours_ago: 90,
        author: ADA,
        message: "Add the price list",
        files: &[
            (
                "public/prices.html",
                "<!doctype html>\n<title>Prices</title>\n<p>Anvil: 40</p>\n",
            ),
            (
                "public/index.html",
                "<!doctype html>\n<title>Acme</title>\n<h1>Acme</h1>\n<a href=\"prices.html\">Prices</a>\n",
            ),
        ],
    },
    Commit {
        hours_ago: 19,
        author: SAM,
        message: "Fix the price of the anvil",
        files: &[(
            "public/prices.html",
            "<!doctype html>\n<title>Prices</title>\n<p>Anvil: 42</p>\n",
        )],
    },
];

const PAYROLL: &[Commit] = &[
    Commit {
        hours_ago: 402,
        author: SAM,
        message: "Compute the monthly net pay",
        files: &[
            (
                "README.md",
                "# payroll\n\nConfidential. Ask finance before you share.\n",
            ),
            (
                "payroll.py",
                "def net(gross, rate):\n    return gross * (1 - rate)\n",
            ),
        ],
    },
    Commit {
        hours_ago: 255,
        author: LIN,
        message: "Round to cents",
        files: &[(
            "payroll.py",
            "def net(gross, rate):\n    return round(gross * (1 - rate), 2)\n",
        )],
    },
    Commit {
        hours_ago: 44,
        author: SAM,
        message: "Raise the salary bands for the new year",
        files: &[(
            "bands.csv",
            "band,from,to\n1,41000,52000\n2,52000,69000\n3,69000,94000\n",
        )],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn head(root: &Path, name: &str) -> String {
        std::fs::read_to_string(root.join("acme").join(name).join(".git/refs/heads/main")).unwrap()
    }

    #[test]
    fn the_same_time_makes_the_same_commits_and_a_repository_is_kept() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        sample_repositories(first.path(), 1_790_000_000).unwrap();
        sample_repositories(second.path(), 1_790_000_000).unwrap();
        for name in ["web", "payroll"] {
            assert_eq!(head(first.path(), name), head(second.path(), name));
        }
        assert_ne!(head(first.path(), "web"), head(first.path(), "payroll"));

        let before = head(first.path(), "web");
        sample_repositories(first.path(), 1_790_000_001).unwrap();
        assert_eq!(head(first.path(), "web"), before);
    }

    #[test]
    fn what_a_run_left_unfinished_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let aside = folder.path().join("acme/.web.new");
        std::fs::create_dir_all(aside.join(".git")).unwrap();
        std::fs::write(aside.join("left"), "over").unwrap();
        sample_repositories(folder.path(), 1_790_000_000).unwrap();
        assert!(!aside.exists());
        assert!(!folder.path().join("acme/web/left").exists());
        assert_eq!(head(folder.path(), "web").trim().len(), 40);
    }
}
