//! `git-server`: the example server as a program, on HTTP or on stdio.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use git_server::{Config, MCP_PATH, serve, serve_stdio};
use taper_service::clock::{Clock as _, SystemClock};
use taper_service::rng;
use tokio::io::BufReader;
use tokio::net::TcpListener;

/// A small MCP server over the git repositories in one folder.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The folder that holds the repositories, as OWNER/NAME
    #[arg(long)]
    root: PathBuf,
    /// The name the server gives for itself
    #[arg(long, default_value = "git")]
    name: String,
    /// Where to listen; port 0 takes a free one. The URL is printed when the server is ready
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Speak over standard input and output instead (one message a line, legacy era)
    #[arg(long, conflicts_with = "listen")]
    stdio: bool,
    /// First make the repositories acme/web and acme/payroll; those that exist are kept
    #[arg(long)]
    sample: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if arguments.sample {
        let (root, now) = (arguments.root.clone(), SystemClock.unix());
        tokio::task::spawn_blocking(move || git_server::sample_repositories(&root, now)).await??;
    }
    let config = Config::new(arguments.root, arguments.name, &mut rng::os());
    if arguments.stdio {
        let input = BufReader::new(tokio::io::stdin());
        return Ok(serve_stdio(config, input, tokio::io::stdout()).await?);
    }
    let listener = TcpListener::bind(arguments.listen).await?;
    writeln!(std::io::stdout(), "http://{}{MCP_PATH}", listener.local_addr()?)?;
    let interrupted = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::warn!(%error, "no signal handler; the server runs until it is killed");
            std::future::pending::<()>().await;
        }
    };
    Ok(serve(listener, config, interrupted).await?)
}
