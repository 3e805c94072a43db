//! rmcp's own client, with requests that are signed: lists the tools, then calls one as often as there are
//! repositories.
//!
//! ```text
//! rmcp-client legacy|modern URL TOKEN KEY TOOL REPOSITORY...
//! ```
//!
//! It prints one line of JSON: `{"version", "tools": [...], "calls": [{"text"} or {"code", "data"}, ...]}`.

use std::io::Write as _;
use std::path::PathBuf;

use rmcp::ServiceError;
use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt as _};
use serde_json::{Map, Value, json};
use taper_agent::rmcp::SigningClient;
use taper_agent::{Credential, KeySource, Signer};
use taper_capability::Token;
use taper_service::clock::SystemClock;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [era, url, token, key, tool, repositories @ ..] = words.as_slice() else {
        return Err("usage: rmcp-client legacy|modern URL TOKEN KEY TOOL REPOSITORY...".into());
    };
    let lifecycle = match era.as_str() {
        "legacy" => ClientLifecycleMode::Initialize,
        _ => ClientLifecycleMode::Discover {
            preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        },
    };
    let token = Token::parse(std::fs::read_to_string(token)?.trim())?;
    let key = KeySource::File(PathBuf::from(key)).open().await?;
    let signer = Signer::new(url, Credential::new(&token, key)?, SystemClock::shared())?;
    let transport = SigningClient::new(signer)?.transport();
    let client = ().serve_with_lifecycle(transport, lifecycle).await?;

    let version = client.peer_info().map(|info| info.protocol_version.to_string());
    let tools = client.list_all_tools().await?;
    let tools: Vec<_> = tools.iter().map(|tool| tool.name.as_ref()).collect();
    let mut calls = Vec::new();
    for repository in repositories {
        let arguments = Map::from_iter([("repo_path".to_owned(), json!(repository))]);
        let request = CallToolRequestParams::new(tool.clone()).with_arguments(arguments);
        calls.push(match client.call_tool(request).await {
            Ok(result) => {
                let result = serde_json::to_value(&result)?;
                json!({"text": result.pointer("/content/0/text")})
            }
            Err(ServiceError::McpError(error)) => json!({"code": error.code.0, "data": error.data}),
            Err(other) => return Err(other.into()),
        });
    }
    client.cancel().await?;
    let report: Value = json!({"version": version, "tools": tools, "calls": calls});
    writeln!(std::io::stdout().lock(), "{report}")?;
    Ok(())
}
