//! `taper call`.

use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Map, Value, json};
use taper_agent::{Credential, Era, KeySource, McpClient};
use taper_capability::escaped;

use super::read_key;
use super::restrictions::duration;
use crate::context::Context;
use crate::failure::Failure;

/// The arguments of `taper call`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The URL of the MCP server, as its proxy gives it.
    #[arg(long, value_name = "URL", env = "TAPER_URL", hide_env_values = true)]
    url: String,
    /// A file with the capability, or `-`.
    #[arg(long, value_name = "FILE", env = "TAPER_TOKEN", hide_env_values = true)]
    token: String,
    /// The holder's private key: a file, `agent:`, `keyring:NAME` or `env:`.
    #[arg(long, value_name = "KEY", env = "TAPER_KEY_FILE", hide_env_values = true)]
    key: KeySource,
    /// List the tools that the capability may see, instead of calling one.
    #[arg(long, conflicts_with_all = ["tool", "args", "arguments"])]
    list: bool,
    /// The tool.
    #[arg(value_name = "TOOL", required_unless_present = "list")]
    tool: Option<String>,
    /// The arguments as one JSON object.
    #[arg(long, value_name = "JSON", conflicts_with = "arguments")]
    args: Option<String>,
    /// The arguments one by one; a value that is JSON is taken as such, anything else as text.
    #[arg(value_name = "NAME=VALUE")]
    arguments: Vec<String>,
    /// Which revision of MCP is spoken.
    #[arg(long, value_enum, default_value_t, value_name = "ERA")]
    era: EraName,
    /// How long to wait for an answer.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1m")]
    timeout: u64,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum EraName {
    /// 2026-07-28, stateless.
    #[default]
    Modern,
    /// 2025-11-25 and before, with a session.
    Legacy,
}

/// Calls a tool, or lists them.
pub(crate) fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let arguments = arguments(args.args.as_deref(), &args.arguments)?;
    let key = read_key(&args.key, context)?;
    let token = context.read_token(&args.token)?;
    let credential = Credential::new(&token, key)
        .map_err(|e| Failure::from(e).next("`taper inspect` shows which key holds the capability"))?;
    let era = match args.era {
        EraName::Modern => Era::Modern,
        EraName::Legacy => Era::Legacy,
    };
    let mut client = McpClient::new(&args.url, credential, era, context.clock())?
        .timeout(Duration::from_secs(args.timeout));
    let answer = context.block_on(async {
        let answer = match &args.tool {
            Some(tool) => client.call(tool, arguments).await,
            None => client.list_tools().await.map(|tools| json!({"tools": tools})),
        };
        // The answer is there already; a session that stays open ends by itself.
        let _ = client.close().await;
        answer
    })??;
    if args.list {
        return context.result(listing(&answer), &answer);
    }
    context.result(shown(&answer), &answer)?;
    if answer.get("isError") == Some(&Value::Bool(true)) {
        return Err(Failure::failed("the tool reports an error"));
    }
    Ok(())
}

fn arguments(object: Option<&str>, pairs: &[String]) -> Result<Map<String, Value>, Failure> {
    if let Some(text) = object {
        return taper_oauth::json::parse_object(text.as_bytes(), 1024 * 1024)
            .map_err(|e| Failure::usage(format!("`--args` is not one JSON object: {e}")));
    }
    let mut arguments = Map::new();
    for pair in pairs {
        let (name, value) = pair
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| Failure::usage(format!("`{pair}` is not `name=value`")))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        if arguments.insert(name.to_owned(), value).is_some() {
            return Err(Failure::usage(format!("the argument `{name}` is there twice")));
        }
    }
    Ok(arguments)
}

/// What people read of a result: its texts. Line ends stay, other control characters are shown.
fn shown(result: &Value) -> String {
    let content = result.get("content").and_then(Value::as_array);
    let texts = content
        .into_iter()
        .flatten()
        .map(|part| match part.get("text").and_then(Value::as_str) {
            Some(text) => text.lines().map(line).collect::<Vec<_>>().join("\n"),
            None => escaped(&part.to_string()),
        });
    texts.collect::<Vec<_>>().join("\n")
}

fn line(text: &str) -> String {
    text.split('\t').map(escaped).collect::<Vec<_>>().join("\t")
}

fn listing(answer: &Value) -> String {
    let tools = answer.get("tools").and_then(Value::as_array);
    let lines = tools.into_iter().flatten().map(|tool| {
        let text = |name: &str| escaped(tool.get(name).and_then(Value::as_str).unwrap_or_default());
        format!("{}  {}", text("name"), text("description"))
            .trim_end()
            .to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    #[test]
    fn arguments_are_what_was_typed() {
        let check = |object: Option<&str>, pairs: &[&str], expected: Result<Value, Kind>| {
            let pairs: Vec<_> = pairs.iter().map(|p| (*p).to_owned()).collect();
            let got = arguments(object, &pairs).map(Value::Object).map_err(|e| e.kind());
            assert_eq!(got, expected, "{object:?} {pairs:?}");
        };
        check(None, &[], Ok(json!({})));
        check(
            None,
            &[
                "repo_path=acme/web",
                "max_count=5",
                "deep=true",
                "q=a=b",
                "e=",
                "n=\"5\"",
            ],
            Ok(json!({"repo_path": "acme/web", "max_count": 5, "deep": true, "q": "a=b", "e": "", "n": "5"})),
        );
        check(None, &["x"], Err(Kind::Usage));
        check(None, &["=x"], Err(Kind::Usage));
        check(None, &["x=1", "x=2"], Err(Kind::Usage));
        check(Some(r#"{"a":[1]}"#), &[], Ok(json!({"a": [1]})));
        check(Some("[]"), &[], Err(Kind::Usage));
        check(Some(r#"{"a":1,"a":2}"#), &[], Err(Kind::Usage));
    }

    #[test]
    fn a_result_cannot_command_a_terminal() {
        let result = json!({"content": [
            {"type": "text", "text": "a\tb\r\n\u{1b}[2Jc"},
            {"type": "image", "data": "\u{1b}"},
        ]});
        assert_eq!(
            shown(&result),
            "a\tb\n\\u{1b}[2Jc\n{\"type\":\"image\",\"data\":\"\\\\u001b\"}"
        );
        let tools = json!({"tools": [{"name": "git_log", "description": "x\ny"}, {"name": "b"}]});
        assert_eq!(listing(&tools), "git_log  x\\u{a}y\nb");
    }
}
