//! The same question to a program: one of its own, started for this and ended after it.

use taper_capability::json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{ChildStdin, ChildStdout};

use super::super::StdioUpstream;
use super::{
    Collected, MAX_SIZE_PAGES, OwnError, initialize, initialized, list as list_message, read, revision,
};
use crate::config::StdioEra;
use crate::message::MODERN;

/// All tools that a program lists.
pub(super) async fn list(upstream: &StdioUpstream, max_page: usize) -> Result<Vec<Value>, OwnError> {
    let failed = |error: std::io::Error| OwnError::Upstream(format!("the program: {error}"));
    // It ends when it is dropped, also because this takes too long.
    let mut program = upstream.lone().map_err(failed)?;
    let (input, output) = program.pipes().ok_or(OwnError::Broken)?;
    let mut talk = Talk {
        input,
        output: BufReader::new(output),
        max_page,
        left: max_page.saturating_mul(MAX_SIZE_PAGES),
    };
    talk.list(upstream.era()).await
}

struct Talk {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    max_page: usize,
    left: usize,
}

impl Talk {
    async fn list(&mut self, era: StdioEra) -> Result<Vec<Value>, OwnError> {
        let revision = match era {
            StdioEra::Modern => MODERN,
            StdioEra::Legacy => {
                self.send(&initialize()).await?;
                let revision = revision(&self.answer(0).await?)?;
                self.send(&initialized()).await?;
                revision
            }
        };
        let mut collected = Collected::default();
        loop {
            // The handshake had the 0.
            let id = collected.pages + 1;
            let message = list_message(revision, id, collected.cursor.as_deref());
            self.send(&message).await?;
            let result = self.answer(id).await?;
            if collected.take(result)? {
                return Ok(collected.tools);
            }
        }
    }

    async fn send(&mut self, message: &serde_json::Value) -> Result<(), OwnError> {
        let line = format!("{message}\n");
        let sent = async {
            self.input.write_all(line.as_bytes()).await?;
            self.input.flush().await
        };
        sent.await.map_err(|_| OwnError::Broken)
    }

    /// The result for request `id`. What a program sends by itself is skipped, in lines that are no JSON
    /// as well: programs log there.
    async fn answer(&mut self, id: usize) -> Result<Value, OwnError> {
        loop {
            let mut line = Vec::new();
            let allowed = self.max_page.min(self.left);
            let mut bounded = (&mut self.output).take(allowed as u64 + 1);
            bounded
                .read_until(b'\n', &mut line)
                .await
                .map_err(|_| OwnError::Broken)?;
            if line.len() > allowed {
                return Err(OwnError::TooLong("its size"));
            }
            self.left -= line.len();
            if line.pop() != Some(b'\n') {
                return Err(OwnError::Broken);
            }
            match read(line, id, self.max_page).await {
                Ok(Some(result)) => return Ok(result),
                Ok(None) | Err(OwnError::Malformed(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
