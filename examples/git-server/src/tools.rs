//! The two tools: their definitions, and their arguments checked before git sees them.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::git::{Git, GitError, MAX_COMMITS};

/// How many commits `git_log` returns when it is not told.
const DEFAULT_COMMITS: u32 = 10;

/// What a call of a known tool comes to. A failure is a result too (`isError`), so that a model can
/// read it and mend its arguments (MCP 2025-11-25, tools, error handling).
pub(crate) enum Outcome {
    Text(String),
    Failure(String),
}

/// The definitions as `tools/list` gives them.
pub(crate) fn definitions() -> Value {
    let annotations = json!({
        "readOnlyHint": true,
        "destructiveHint": false,
        "idempotentHint": true,
        "openWorldHint": false,
    });
    let repo_path = json!({
        "type": "string",
        "description": "The repository as `owner/name`, for example `acme/web`.",
    });
    json!([
        {
            "name": "git_log",
            "title": "Show the history",
            "description": "Lists the newest commits of a repository: id, author, date, subject.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "repo_path": repo_path,
                    "max_count": {
                        "type": "integer",
                        "minimum": 1,
                        "maximum": MAX_COMMITS,
                        "default": DEFAULT_COMMITS,
                        "description": "How many commits to list at most.",
                    },
                },
                "required": ["repo_path"],
                "additionalProperties": false,
            },
            "annotations": annotations,
        },
        {
            "name": "git_show",
            "title": "Show a commit",
            "description": "Shows one commit of a repository with its patch.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "repo_path": repo_path,
                    "revision": {
                        "type": "string",
                        "description": "A branch, a tag, a commit id, or one of these with `~n`.",
                    },
                },
                "required": ["repo_path", "revision"],
                "additionalProperties": false,
            },
            "annotations": annotations,
        },
    ])
}

/// Runs the tool `name`; `None` when there is no such tool.
pub(crate) async fn call(git: &Git, name: &str, arguments: Value) -> Option<Outcome> {
    let result = match name {
        "git_log" => log(git, arguments).await,
        "git_show" => show(git, arguments).await,
        _ => return None,
    };
    Some(match result {
        Ok(text) => Outcome::Text(text),
        Err(error) => Outcome::Failure(error.to_string()),
    })
}

#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("wrong arguments: {0}")]
    Arguments(#[from] serde_json::Error),
    #[error("wrong arguments: `max_count` must be from 1 to {MAX_COMMITS}")]
    Count,
    #[error(transparent)]
    Git(#[from] GitError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogArguments {
    repo_path: String,
    max_count: Option<u32>,
}

async fn log(git: &Git, arguments: Value) -> Result<String, CallError> {
    let arguments: LogArguments = serde_json::from_value(arguments)?;
    let max_count = arguments.max_count.unwrap_or(DEFAULT_COMMITS);
    if !(1..=MAX_COMMITS).contains(&max_count) {
        return Err(CallError::Count);
    }
    Ok(git.log(&arguments.repo_path, max_count).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShowArguments {
    repo_path: String,
    revision: String,
}

async fn show(git: &Git, arguments: Value) -> Result<String, CallError> {
    let arguments: ShowArguments = serde_json::from_value(arguments)?;
    Ok(git.show(&arguments.repo_path, &arguments.revision).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::sample_repositories;

    #[tokio::test]
    async fn arguments_are_checked_against_the_schema() {
        let folder = tempfile::tempdir().unwrap();
        sample_repositories(folder.path(), 1_790_000_000).unwrap();
        let git = Git::new(folder.path().to_owned());
        let check = async |name: &str, arguments: Value, expected: Result<&str, &str>| {
            let outcome = call(&git, name, arguments.clone()).await;
            match (outcome, expected) {
                (Some(Outcome::Text(text)), Ok(part)) | (Some(Outcome::Failure(text)), Err(part)) => {
                    assert!(text.contains(part), "{name} {arguments}: {text}");
                }
                (Some(Outcome::Text(text) | Outcome::Failure(text)), _) => {
                    panic!("{name} {arguments}: {text}")
                }
                (None, _) => panic!("{name}: unknown"),
            }
        };
        check("git_log", json!({"repo_path": "acme/web"}), Ok("Fix the price")).await;
        check(
            "git_log",
            json!({"repo_path": "acme/web", "max_count": 1}),
            Ok("Fix the price"),
        )
        .await;
        check(
            "git_show",
            json!({"repo_path": "acme/payroll", "revision": "main"}),
            Ok("+band,"),
        )
        .await;
        for arguments in [
            json!(null),
            json!([]),
            json!({}),
            json!({"repo_path": 1}),
            json!({"repo_path": ["acme/web"]}),
            json!({"repo_path": "acme/web", "max_count": 0}),
            json!({"repo_path": "acme/web", "max_count": 101}),
            json!({"repo_path": "acme/web", "max_count": -1}),
            json!({"repo_path": "acme/web", "max_count": 1.5}),
            json!({"repo_path": "acme/web", "max_count": "1"}),
            json!({"repo_path": "acme/web", "revision": "HEAD"}),
        ] {
            check("git_log", arguments, Err("wrong arguments")).await;
        }
        check("git_show", json!({"repo_path": "acme/web"}), Err("`revision`")).await;
        check(
            "git_show",
            json!({"repo_path": "../web", "revision": "HEAD"}),
            Err("not a repository"),
        )
        .await;
        assert!(call(&git, "git_push", json!({})).await.is_none());
    }

    #[test]
    fn every_definition_is_closed_and_read_only() {
        let tools = definitions();
        let names: Vec<_> = tools.as_array().unwrap().iter().map(|t| &t["name"]).collect();
        assert_eq!(names, ["git_log", "git_show"]);
        for tool in tools.as_array().unwrap() {
            assert_eq!(tool["inputSchema"]["additionalProperties"], false);
            assert_eq!(tool["annotations"]["readOnlyHint"], true);
        }
    }
}
