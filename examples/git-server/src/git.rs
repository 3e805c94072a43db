//! Runs the `git` program on one repository below the root folder.
//!
//! Everything in a request is hostile here: a repository name may not leave the root, no argument
//! may become an option, nothing in a repository's own configuration may start a program, and time,
//! output and the number of processes are bounded.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::Semaphore;

/// Most commits that one `git_log` returns.
pub(crate) const MAX_COMMITS: u32 = 100;

/// Longest answer in bytes; what is beyond is cut and said to be cut.
const MAX_OUTPUT: usize = 128 * 1024;

/// Longest error text that is read from git, in bytes. It goes to the log, never to the caller.
const MAX_ERROR: u64 = 4 * 1024;

/// How long one run of git may take.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// How many runs of git there may be at once.
const CONCURRENCY: usize = 16;

/// Longest `<owner>` or `<name>`, and longest revision, in bytes.
const MAX_SEGMENT: usize = 64;
const MAX_REVISION: usize = 128;

/// Ends a format of `git log` and heads each commit.
const LOG_FORMAT: &str = "--format=commit %H%nAuthor: %an <%ae>%nDate:   %aI%n%n    %s%n";

/// Why a repository could not be read. The text is meant for the caller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
    #[error("`{0}` is not a repository of this server; say `owner/name`")]
    Repository(String),
    #[error("`{0}` is not a revision; say a branch, a tag or a commit id")]
    Revision(String),
    #[error("there is no commit `{revision}` in `{repository}`")]
    NotFound { revision: String, repository: String },
    #[error("git took longer than {} seconds", TIME_LIMIT.as_secs())]
    Time,
    #[error("git could not be run")]
    Io(#[from] std::io::Error),
}

/// The repositories below one root folder.
pub(crate) struct Git {
    root: PathBuf,
    runs: Semaphore,
}

impl Git {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self {
            root,
            runs: Semaphore::new(CONCURRENCY),
        }
    }

    /// The newest `max_count` commits of the branch that is checked out, newest first.
    pub(crate) async fn log(&self, repo_path: &str, max_count: u32) -> Result<String, GitError> {
        let repository = self.locate(repo_path).await?;
        let max_count = format!("--max-count={}", max_count.min(MAX_COMMITS));
        let arguments = [
            "log",
            "--no-color",
            "--no-show-signature",
            "--no-notes",
            &max_count,
            LOG_FORMAT,
            "--end-of-options",
            "HEAD",
            "--",
        ];
        self.run(&repository, &arguments)
            .await?
            .ok_or_else(|| GitError::NotFound {
                revision: "HEAD".to_owned(),
                repository: repo_path.to_owned(),
            })
    }

    /// One commit with its patch.
    pub(crate) async fn show(&self, repo_path: &str, revision: &str) -> Result<String, GitError> {
        if !is_revision(revision) {
            return Err(GitError::Revision(shortened(revision)));
        }
        let repository = self.locate(repo_path).await?;
        // Peeled to a commit, the revision can name neither a blob nor a range.
        let commit = format!("{revision}^{{commit}}");
        let arguments = [
            "show",
            "--no-color",
            "--no-show-signature",
            "--no-notes",
            "--no-ext-diff",
            "--no-textconv",
            "--format=fuller",
            "--end-of-options",
            &commit,
            "--",
        ];
        self.run(&repository, &arguments)
            .await?
            .ok_or_else(|| GitError::NotFound {
                revision: revision.to_owned(),
                repository: repo_path.to_owned(),
            })
    }

    /// The folder of `<owner>/<name>`: directly below the root, reached through no symbolic link,
    /// and a repository by itself (a `.git` *file* would point elsewhere).
    async fn locate(&self, repo_path: &str) -> Result<PathBuf, GitError> {
        let unknown = || GitError::Repository(shortened(repo_path));
        let (owner, name) = repo_path.split_once('/').ok_or_else(unknown)?;
        if !is_segment(owner) || !is_segment(name) {
            return Err(unknown());
        }
        let root = tokio::fs::canonicalize(&self.root).await?;
        let path = root.join(owner).join(name);
        let canonical = tokio::fs::canonicalize(&path).await.map_err(|_| unknown())?;
        let git_dir = tokio::fs::symlink_metadata(path.join(".git"))
            .await
            .map_err(|_| unknown())?;
        if canonical != path || !git_dir.is_dir() {
            return Err(unknown());
        }
        Ok(path)
    }

    /// What git printed, or `None` when it answered no.
    async fn run(&self, repository: &Path, arguments: &[&str]) -> Result<Option<String>, GitError> {
        let work = async {
            let _run = self.runs.acquire().await.map_err(std::io::Error::other)?;
            let (status, output, error) = execute(repository, arguments).await?;
            let cut = output.len() > MAX_OUTPUT;
            if !status.success() && !cut {
                let error = String::from_utf8_lossy(&error);
                tracing::debug!(git.error = %error.trim(), "git refused");
                return Ok(None);
            }
            let kept = output.get(..MAX_OUTPUT).unwrap_or(&output);
            let mut text = String::from_utf8_lossy(kept).into_owned();
            if cut {
                text.push_str("\n[cut: the rest is too long]\n");
            }
            Ok(Some(text))
        };
        tokio::time::timeout(TIME_LIMIT, work)
            .await
            .map_err(|_| GitError::Time)?
    }
}

/// Runs git to its end, or until more than `MAX_OUTPUT` bytes came out of it.
async fn execute(repository: &Path, arguments: &[&str]) -> std::io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let mut child = command(repository, arguments).spawn()?;
    let missing = || std::io::Error::other("no pipe from git");
    let stdout = child.stdout.take().ok_or_else(missing)?;
    let stderr = child.stderr.take().ok_or_else(missing)?;
    // Each block owns its pipe and closes it when it has read enough, which ends a git that writes on.
    let output = async move {
        let mut bytes = Vec::new();
        let mut limited = stdout.take(MAX_OUTPUT as u64 + 1);
        limited.read_to_end(&mut bytes).await.map(|_| bytes)
    };
    let error = async move {
        let mut bytes = Vec::new();
        let mut limited = stderr.take(MAX_ERROR);
        limited.read_to_end(&mut bytes).await.map(|_| bytes)
    };
    let (output, error) = tokio::try_join!(output, error)?;
    let status = child.wait().await?;
    Ok((status, output, error))
}

fn command(repository: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command
        .env_clear()
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("LC_ALL", "C")
        // A broken repository must not make git look for one further up.
        .env(
            "GIT_CEILING_DIRECTORIES",
            repository.parent().unwrap_or(repository),
        )
        .args(["--no-pager", "--no-replace-objects"])
        .args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"])
        .args(["-c", "protocol.allow=never"])
        .arg("-C")
        .arg(repository)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// A folder name that can be neither an option nor a way out.
fn is_segment(segment: &str) -> bool {
    segment.len() <= MAX_SEGMENT
        && segment.starts_with(|c: char| c.is_ascii_alphanumeric())
        && segment
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// A branch, a tag, a commit id, or one of these with `~n` and `^n`: no option, no range, no
/// `commit:path`, no search.
fn is_revision(revision: &str) -> bool {
    revision.len() <= MAX_REVISION
        && !revision.contains("..")
        && revision.starts_with(|c: char| c.is_ascii_alphanumeric())
        && revision
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '~' | '^'))
}

/// The caller's own text as it may stand in an error.
fn shortened(text: &str) -> String {
    text.chars().take(MAX_REVISION).collect()
}

#[cfg(test)]
mod tests;
