//! The same question to a program: one of its own, started for this and ended after it.

use taper_capability::json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{ChildStdin, ChildStdout};

use super::super::StdioUpstream;
use super::super::stdio::Lone;
use super::{OwnError, read};

/// A program that runs until this is dropped.
pub(super) struct Talk {
    _program: Lone,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Talk {
    /// Starts one for this.
    pub(super) fn start(upstream: &StdioUpstream) -> Result<Self, OwnError> {
        let failed = |error: std::io::Error| OwnError::Upstream(format!("the program: {error}"));
        let mut program = upstream.lone().map_err(failed)?;
        let (input, output) = program.pipes().ok_or(OwnError::Broken)?;
        Ok(Self {
            _program: program,
            input,
            output: BufReader::new(output),
        })
    }

    /// Sends one message.
    pub(super) async fn send(&mut self, message: &serde_json::Value) -> Result<(), OwnError> {
        let line = format!("{message}\n");
        let sent = async {
            self.input.write_all(line.as_bytes()).await?;
            self.input.flush().await
        };
        sent.await.map_err(|_| OwnError::Broken)
    }

    /// The result for request `id`. What a program sends by itself is skipped, in lines that are no JSON
    /// as well: programs log there.
    pub(super) async fn answer(
        &mut self,
        id: usize,
        max_page: usize,
        left: &mut usize,
    ) -> Result<Value, OwnError> {
        loop {
            let mut line = Vec::new();
            let allowed = max_page.min(*left);
            let mut bounded = (&mut self.output).take(allowed as u64 + 1);
            bounded
                .read_until(b'\n', &mut line)
                .await
                .map_err(|_| OwnError::Broken)?;
            if line.len() > allowed {
                return Err(OwnError::TooLong("its size"));
            }
            *left -= line.len();
            if line.pop() != Some(b'\n') {
                return Err(OwnError::Broken);
            }
            match read(line, id, max_page).await {
                Ok(Some(result)) => return Ok(result),
                Ok(None) | Err(OwnError::Malformed(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
