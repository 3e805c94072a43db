//! An MCP client on rmcp that signs its requests, or starts the sidecar.
//!
//! ```text
//! client --url URL --token FILE --key KEY [--era legacy|modern] [TOOL [NAME=VALUE]...]...
//! client --url URL --header 'Authorization: Bearer SECRET' ...      a server that takes a secret, such as `taper bridge`
//! client ... -- PROGRAM [ARGUMENT]...      an MCP server over stdio, such as `taper bridge`
//! ```
//!
//! Lists the tools and calls those that are named. Prints one line of JSON:
//! `{"era", "version", "tools": [...], "calls": [{"tool", "result" or "error"}, ...]}`.
//! `examples/clients/rmcp.md` shows it.

use std::collections::HashMap;
use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;

use rmcp::RoleClient;
use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt as _, RunningService, ServiceError};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde_json::{Map, Value, json};
use taper_agent::rmcp::SigningClient;
use taper_agent::{Credential, KeySource, Signer};
use taper_capability::Token;
use taper_service::clock::SystemClock;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the command line says.
#[derive(Default)]
struct Asked {
    options: HashMap<String, String>,
    calls: Vec<(String, Map<String, Value>)>,
    program: Vec<String>,
}

impl Asked {
    fn read() -> Result<Self, Failure> {
        let (mut asked, mut words) = (Self::default(), std::env::args().skip(1));
        while let Some(word) = words.next() {
            if word == "--" {
                asked.program = words.by_ref().collect();
            } else if let Some(option) = word.strip_prefix("--") {
                let value = words.next().ok_or_else(|| format!("--{option} has no value"))?;
                asked.options.insert(option.to_owned(), value);
            } else if let Some((name, text)) = word.split_once('=') {
                let (_, arguments) = asked.calls.last_mut().ok_or("an argument without its tool")?;
                let value = serde_json::from_str(text).unwrap_or_else(|_| json!(text));
                arguments.insert(name.to_owned(), value);
            } else {
                asked.calls.push((word, Map::new()));
            }
        }
        Ok(asked)
    }

    fn option(&self, name: &str) -> Result<&str, Failure> {
        let value = self.options.get(name).map(String::as_str);
        value.ok_or_else(|| format!("--{name} is missing").into())
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let asked = Asked::read()?;
    let (era, mode) = match asked.options.get("era").map(String::as_str) {
        Some("legacy") => ("legacy", ClientLifecycleMode::Initialize),
        None | Some("modern") => (
            "modern",
            ClientLifecycleMode::Discover {
                preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            },
        ),
        Some(other) => return Err(format!("no era {other}: legacy or modern").into()),
    };
    let client = connect(&asked, mode).await?;
    let version = client.peer_info().map(|server| json!(server.protocol_version));
    let tools = client.list_all_tools().await?;
    let tools: Vec<_> = tools.iter().map(|tool| &tool.name).collect();
    let mut said = json!({"era": era, "version": version, "tools": tools, "calls": []});
    for (tool, arguments) in &asked.calls {
        let wanted = CallToolRequestParams::new(tool.clone()).with_arguments(arguments.clone());
        let done = match client.call_tool(wanted).await {
            Ok(result) => json!({"tool": tool, "result": result}),
            // A refusal of the proxy, with its rule.
            Err(ServiceError::McpError(error)) => json!({"tool": tool, "error": error}),
            // To rmcp's own HTTP client a refusal (403) is an error of the transport, with the refusal in its text.
            Err(ServiceError::TransportSend(error)) => json!({"tool": tool, "error": error.to_string()}),
            Err(error) => return Err(error.into()),
        };
        if let Some(calls) = said.get_mut("calls").and_then(Value::as_array_mut) {
            calls.push(done);
        }
    }
    client.cancel().await?;
    writeln!(std::io::stdout(), "{said}")?;
    Ok(())
}

/// rmcp's client: over a program's standard input and output, its own HTTP client, or one that signs.
async fn connect(
    asked: &Asked,
    mode: ClientLifecycleMode,
) -> Result<RunningService<RoleClient, ()>, Failure> {
    if let [program, arguments @ ..] = asked.program.as_slice() {
        let mut command = tokio::process::Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let pipes = child.stdout.take().zip(child.stdin.take());
        let pipes = pipes.ok_or("the program has no standard input and output")?;
        return Ok(().serve_with_lifecycle(pipes, mode).await?);
    }
    if let Some(header) = asked.options.get("header") {
        let secret = header.strip_prefix("Authorization: Bearer ");
        let secret = secret.ok_or("the one header that is taken is `Authorization: Bearer SECRET`")?;
        let config = StreamableHttpClientTransportConfig::with_uri(asked.option("url")?).auth_header(secret);
        #[expect(
            clippy::disallowed_methods,
            reason = "what a client that cannot sign would use"
        )]
        let client = reqwest::Client::new();
        let transport = StreamableHttpClientTransport::with_client(client, config);
        return Ok(().serve_with_lifecycle(transport, mode).await?);
    }
    let token = Token::parse(std::fs::read_to_string(asked.option("token")?)?.trim())?;
    let key = asked.option("key")?.parse::<KeySource>()?.open().await?;
    let credential = Credential::new(&token, key)?;
    let signer = Signer::new(asked.option("url")?, credential, Arc::new(SystemClock))?;
    let transport = SigningClient::new(signer)?.transport();
    Ok(().serve_with_lifecycle(transport, mode).await?)
}
