//! `taper bridge`: the sidecar for clients that can only start a command or send a static header.

mod lines;
mod listen;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use taper_agent::KeySource;
use taper_agent::bridge::{Channel, Conversation, Held, Limits, Source, Target, Terms};
use taper_capability::{Effective, UnverifiedToken};
use taper_service::clock::SharedClock;
use taper_service::rng;
use taper_service::telemetry::{self, Telemetry};

use self::listen::Listen;
use super::read_key;
use super::restrictions::{Expiry, Restrictions, Reviewed};
use crate::context::Context;
use crate::failure::Failure;

/// What the help ends with.
const EXAMPLES: &str = "\
Each client gets a capability of its own, handed over to a key that is made for this run:
  taper bridge --url URL --token t --key k --repo 'acme/*'
  taper bridge --url URL --token t --key k --listen 127.0.0.1:7777 --client code
  taper bridge --url URL --token t --key k --listen unix:/run/user/1000/taper --tool git:git_log --for 8h";

/// The arguments of `taper bridge`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The MCP server's URL at the proxy.
    #[arg(long, value_name = "URL")]
    url: String,
    /// A file with the capability, which is read again when it changed.
    #[arg(long, value_name = "FILE")]
    token: PathBuf,
    /// Its holder's private key.
    #[arg(long, value_name = "KEY")]
    key: KeySource,
    /// Where clients connect: an address of this machine such as `127.0.0.1:0`, or `unix:PATH`. Without it
    /// the client speaks over standard input and output.
    #[arg(long, value_name = "ADDRESS", help_heading = "Listening")]
    listen: Option<Listen>,
    /// A client with a secret and a conversation of its own; may repeat.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "default",
        help_heading = "Listening"
    )]
    client: Vec<String>,
    /// Let every process of this machine use the capability: for clients that can set a URL only.
    #[arg(
        long,
        conflicts_with = "client",
        requires = "listen",
        help_heading = "Listening"
    )]
    no_secret: bool,
    /// The folder of the clients' secrets; that of the capability otherwise.
    #[arg(long, value_name = "DIR", requires = "listen", help_heading = "Listening")]
    state: Option<PathBuf>,
    /// Narrow the capability for its own key instead of handing it over to a fresh one.
    #[arg(long)]
    own_key: bool,
    /// What is logged on stderr, such as `info` or `taper_agent=debug`.
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log: String,
    #[command(flatten)]
    restrictions: Restrictions,
    #[command(flatten)]
    expiry: Expiry,
}

/// Runs until it is told to stop.
pub(crate) fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let logs = Telemetry {
        filter: args.log.clone(),
        ..Telemetry::default()
    };
    telemetry::init(&logs).map_err(Failure::usage)?;
    let clock = context.clock();
    let target = Target::new(&args.url, clock.clone(), Limits::default())?;
    let key = read_key(&args.key, context)?;
    let token = context.read_token(&args.token.display().to_string())?;
    let held = Held { token, key };
    let terms = terms(&args, &held, context)?;
    let bridge = Bridge {
        target,
        source: Arc::new(Source::Fixed(held)),
        terms,
        clock,
    };
    match &args.listen {
        Some(address) => listen::run(address, &args, &bridge, context),
        None => lines::run(&bridge),
    }
}

/// What conversations are made of.
struct Bridge {
    target: Target,
    source: Arc<Source>,
    terms: Terms,
    clock: SharedClock,
}

impl Bridge {
    /// A conversation of its own. That it can be had is seen before anybody is told of it.
    async fn conversation(&self) -> Result<Arc<Channel>, Failure> {
        let conversation = Conversation::new(Arc::clone(&self.source), self.terms.clone());
        let credential = conversation.credential(self.clock.unix()).await;
        credential.map_err(Failure::failed)?;
        Ok(Arc::new(Channel::new(self.target.clone(), conversation)))
    }
}

/// What each conversation is restricted to; whoever starts the bridge hears what that changes.
fn terms(args: &Args, held: &Held, context: &mut Context) -> Result<Terms, Failure> {
    let until = args.expiry.until(context.now())?;
    let before = Effective::of_unverified(&UnverifiedToken::decode(held.token.as_str())?);
    let before = if args.own_key { before } else { before.handed_on() };
    let caveats = args.restrictions.caveats(&mut rng::os())?;
    let depth = args.restrictions.max_depth;
    Reviewed::new(before, caveats.clone(), until, depth).judge(&args.restrictions, context)?;
    Ok(Terms {
        caveats,
        until,
        max_depth: depth,
        note: args.restrictions.note.clone(),
        own_key: args.own_key,
    })
}

/// The folder that a file is in.
fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
