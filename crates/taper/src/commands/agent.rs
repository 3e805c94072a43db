//! `taper agent`: holds keys and signs for the processes of one user, as `ssh-agent` does.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;

use serde_json::{Value, json};
use taper_agent::agent_socket::wire::{Answer, Ask, Listed};
use taper_agent::agent_socket::{Added, KeyRing, Listening, Passed, SOCKET_VARIABLE, hide_memory, listen};
use taper_agent::{AgentSocket, KeySource};
use taper_capability::escaped;
use taper_service::clock::rfc3339;
use taper_service::rng;
use taper_service::shutdown::Shutdown;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::daemon::finish;
use super::restrictions::duration;
use crate::context::{Context, run_on};
use crate::failure::{Failure, Kind};

const EXAMPLES: &str = "\
  taper agent --key key.jwk -- ./my-agent     for one command, which finds the key as `agent:`
  taper agent --generate --for 8h             until it is stopped; prints what to export
  taper agent list                            the keys of the agent that TAPER_AGENT_SOCK names";

/// The arguments of `taper agent`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// A key to hold: a file, `keyring:NAME` or `env:`; may repeat.
    #[arg(long, value_name = "KEY")]
    key: Vec<KeySource>,
    /// Hold a new key, which is nowhere else.
    #[arg(long)]
    generate: bool,
    /// Forget these keys after so long.
    #[arg(id = "lifetime", long = "for", value_name = "DURATION", value_parser = duration)]
    lifetime: Option<u64>,
    /// Sign hand-overs with these keys as well, not only proofs and narrowings.
    #[arg(long)]
    delegate: bool,
    /// Where the socket is, in a folder of your own; a new folder unless stated.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// A command to run with this agent, which ends with it.
    #[arg(value_name = "COMMAND", last = true)]
    command: Vec<String>,
    #[command(subcommand)]
    ask: Option<Say>,
}

/// What is said to the agent that `TAPER_AGENT_SOCK` names.
#[derive(Debug, clap::Subcommand)]
enum Say {
    /// Show its keys.
    List,
    /// Give it a key.
    Add {
        /// The private key: a file, `keyring:NAME` or `env:`.
        #[arg(value_name = "KEY")]
        key: KeySource,
        /// Forget it after so long.
        #[arg(id = "lifetime", long = "for", value_name = "DURATION", value_parser = duration)]
        lifetime: Option<u64>,
        /// Sign hand-overs with it as well.
        #[arg(long)]
        delegate: bool,
    },
    /// Let it make a key.
    Generate {
        /// Forget it after so long.
        #[arg(id = "lifetime", long = "for", value_name = "DURATION", value_parser = duration)]
        lifetime: Option<u64>,
        /// Sign hand-overs with it as well.
        #[arg(long)]
        delegate: bool,
    },
    /// Let it forget a key.
    Remove {
        /// The key's thumbprint.
        #[arg(value_name = "THUMBPRINT", allow_hyphen_values = true)]
        key: String,
    },
    /// Let it forget all keys, and take none any more.
    Lock,
}

/// Holds keys until it is told to stop or its command ends, or asks an agent that does.
pub(crate) fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    match args.ask {
        Some(say) => ask(say, context),
        None => hold(args, context),
    }
}

fn ask(say: Say, context: &mut Context) -> Result<(), Failure> {
    let agent = AgentSocket::of_environment()?;
    let answer = match say {
        Say::Add {
            key,
            lifetime,
            delegate,
        } => {
            let added = Added { lifetime, delegate };
            Answer::Key(context.block_on(agent.add(&key, added))??)
        }
        Say::List => context.block_on(agent.ask(&Ask::List {}))??,
        Say::Generate { lifetime, delegate } => {
            context.block_on(agent.ask(&Ask::Generate { lifetime, delegate }))??
        }
        Say::Remove { key } => context.block_on(agent.ask(&Ask::Remove { key }))??,
        Say::Lock => context.block_on(agent.ask(&Ask::Lock {}))??,
    };
    let json = serde_json::to_value(&answer).map_err(Failure::failed)?;
    let text = match &answer {
        Answer::Keys(keys) if keys.is_empty() => "it holds no key".to_owned(),
        Answer::Keys(keys) => keys.iter().map(line).collect::<Vec<_>>().join("\n"),
        // What a delegator needs of a key.
        Answer::Key(key) => serde_json::to_string(&key.jwk).map_err(Failure::failed)?,
        Answer::Removed(count) => format!("forgot {count} key{}", if *count == 1 { "" } else { "s" }),
        _ => return Err(Failure::failed("the agent answers another question")),
    };
    context.result(text, &json)
}

fn line(key: &Listed) -> String {
    let mut line = format!("{}  {}", escaped(&key.thumbprint), escaped(&key.name));
    if let Some(until) = key.until {
        // Writing to a string cannot fail.
        let _ = write!(line, ", until {}", rfc3339(until));
    }
    if key.delegate {
        line.push_str(", signs hand-overs");
    }
    line
}

fn hold(args: Args, context: &mut Context) -> Result<(), Failure> {
    if args.key.is_empty() && !args.generate && !args.command.is_empty() {
        return Err(Failure::usage("a command needs a key").next("`--key FILE` or `--generate`"));
    }
    hide_memory().map_err(|e| Failure::failed(format!("cannot hide the keys from other processes: {e}")))?;
    let added = Added {
        lifetime: args.lifetime,
        delegate: args.delegate,
    };
    let ring = Arc::new(KeyRing::new(context.clock()));
    let own_folder = args.socket.is_none().then(own_folder);
    let path = match (&args.socket, &own_folder) {
        (Some(path), _) => std::path::absolute(path).map_err(Failure::usage)?,
        (None, folder) => folder.iter().map(|folder| folder.join("agent.sock")).collect(),
    };
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|e| Failure::failed(format!("cannot start the runtime: {e}")))?;
    let held = run_on(&runtime, async {
        let mut keys = Vec::new();
        for source in &args.key {
            keys.push(ring.add_source(source, added).await?);
        }
        if args.generate {
            keys.push(ring.generate(added)?);
        }
        let listening = listen(&path)?;
        let shutdown = Shutdown::new();
        if args.command.is_empty() {
            shutdown.on_signals().map_err(Failure::failed)?;
            say_ready(&path, &keys, context)?;
            listening.serve(ring, shutdown.clone()).await;
            return finish(&shutdown).await;
        }
        let ended = with_command(&args.command, listening, ring, &keys, &shutdown).await?;
        finish(&shutdown).await?;
        outcome(&args.command, ended)
    });
    // With it goes the socket, and whatever still talks on it.
    drop(runtime);
    if let Some(folder) = own_folder {
        // The socket in it is gone; what else somebody put there stays.
        let _ = std::fs::remove_dir(folder);
    }
    held
}

/// A folder that nobody has, in the user's own place for such things where there is one.
fn own_folder() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let base = runtime
        .filter(|dir| dir.is_dir())
        .unwrap_or_else(std::env::temp_dir);
    base.join(format!("taper-agent-{}", rng::random_id_128(&mut rng::os())))
}

fn say_ready(path: &Path, keys: &[Listed], context: &mut Context) -> Result<(), Failure> {
    let quoted = path.display().to_string().replace('\'', r"'\''");
    let json: Value = json!({ "socket": path, "keys": keys });
    for key in keys {
        context.talk(line(key));
    }
    context.result(
        format_args!("{SOCKET_VARIABLE}='{quoted}'; export {SOCKET_VARIABLE}"),
        &json,
    )
}

async fn with_command(
    command: &[String],
    listening: Listening,
    ring: Arc<KeyRing>,
    keys: &[Listed],
    shutdown: &Shutdown,
) -> Result<ExitStatus, Failure> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failure::usage("there is no command"));
    };
    let failed = |e: std::io::Error| Failure::failed(format!("cannot run `{program}`: {e}"));
    let mut child = Command::new(program);
    child
        .args(arguments)
        .env(SOCKET_VARIABLE, listening.path())
        .env_remove("TAPER_KEY")
        .kill_on_drop(true);
    if keys.len() == 1 {
        child.env("TAPER_KEY_FILE", "agent:");
    }
    let (mut interrupt, mut hang_up, mut terminate) = (
        signal(SignalKind::interrupt()).map_err(failed)?,
        signal(SignalKind::hangup()).map_err(failed)?,
        signal(SignalKind::terminate()).map_err(failed)?,
    );
    shutdown.spawn("agent", listening.serve(ring, shutdown.clone()));
    let mut child = child.spawn().map_err(failed)?;
    loop {
        tokio::select! {
            ended = child.wait() => return ended.map_err(failed),
            // A terminal told the command as well, and whether it ends is its own affair.
            _ = interrupt.recv() => if !std::io::stdin().is_terminal() { pass_on(&child, Passed::Interrupt) },
            _ = hang_up.recv() => pass_on(&child, Passed::HangUp),
            _ = terminate.recv() => pass_on(&child, Passed::Terminate),
        }
    }
}

fn pass_on(child: &Child, signal: Passed) {
    if let Some(id) = child.id() {
        // A command that has just ended needs none.
        let _ = signal.send_to(id);
    }
}

fn outcome(command: &[String], ended: ExitStatus) -> Result<(), Failure> {
    if ended.success() {
        return Ok(());
    }
    // As a shell says it.
    let code = ended.code().or_else(|| ended.signal().map(|signal| 128 + signal));
    let code = code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    let name = command.first().map(String::as_str).unwrap_or_default();
    Err(Failure::new(
        Kind::Command(code),
        format!("`{name}` ended with {ended}"),
    ))
}
