//! stdio: one message a line, legacy era, one client for as long as the input lasts.

use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::Config;
use crate::protocol::{Message, Responder, answer, parse};

/// Longest line that is read, in bytes.
const MAX_LINE: u64 = 256 * 1024;

/// Answers the messages of `input` on `output`, in their order, until `input` ends.
///
/// # Errors
/// Reading or writing failed, or a line is longer than 256 KiB.
pub async fn serve_stdio(
    config: Config,
    mut input: impl AsyncBufRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
) -> std::io::Result<()> {
    let responder = Responder::new(config);
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut input).take(MAX_LINE).read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            return Ok(());
        }
        if line.len() as u64 == MAX_LINE && !line.ends_with(b"\n") {
            return Err(std::io::Error::other("a line is too long"));
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let answered = match parse(&line) {
            Ok(Message::Request(request)) => {
                let result = responder.legacy(&request.method, request.params).await;
                answer(request.id, result)
            }
            Ok(Message::Other) => continue,
            Err(error) => answer(Value::Null, Err(error)),
        };
        output.write_all(format!("{answered}\n").as_bytes()).await?;
        output.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use rand_core::OsRng;

    use super::*;
    use crate::sample_repositories;

    async fn run(input: &str) -> (std::io::Result<()>, Vec<Value>) {
        let folder = tempfile::tempdir().unwrap();
        sample_repositories(folder.path(), 1_790_000_000).unwrap();
        let config = Config::new(folder.path(), "git", &mut OsRng);
        let mut output = Vec::new();
        let result = serve_stdio(config, input.as_bytes(), &mut output).await;
        let lines = String::from_utf8(output).unwrap();
        let answers = lines.lines().map(|line| serde_json::from_str(line).unwrap());
        (result, answers.collect())
    }

    #[tokio::test]
    async fn each_request_gets_one_line_and_a_notification_none() {
        let (result, answers) = run(concat!(
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#,
            "\n",
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            "\n\n{\n",
            r#"{"jsonrpc":"2.0","id":"two","method":"tools/call","params":{"name":"git_log","arguments":{"repo_path":"acme/payroll"}}}"#,
        ))
        .await;
        result.unwrap();
        assert_eq!(answers.len(), 3);
        assert_eq!(answers[0]["result"]["protocolVersion"], "2025-06-18");
        assert_eq!(answers[1]["error"]["code"], -32700);
        assert_eq!(answers[2]["id"], "two");
        let text = answers[2]["result"]["content"][0]["text"].as_str().unwrap();
        assert!(text.contains("Round to cents"), "{text}");
    }

    #[tokio::test]
    async fn a_line_without_end_is_refused() {
        let (result, answers) = run(&"x".repeat(MAX_LINE as usize + 1)).await;
        assert!(result.is_err());
        assert!(answers.is_empty());
    }
}
