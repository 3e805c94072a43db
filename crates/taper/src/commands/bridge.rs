//! `taper bridge`: the sidecar for clients that can only start a command or send a static header.

mod config;
mod lines;
mod listen;
mod source;

use std::path::PathBuf;
use std::sync::Arc;

use taper_agent::bridge::{Channel, Conversation, Limits, Target, Terms, Trouble};
use taper_agent::{Error, Held, Source};
use taper_capability::{Effective, UnverifiedToken};
use taper_service::clock::SharedClock;
use taper_service::rng;
use taper_service::telemetry::{self, Telemetry};

use self::config::{ClientKind, Typed, settings};
use self::listen::Listen;
use self::source::Capability;
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
    #[arg(long, value_name = "URL", env = "TAPER_URL", hide_env_values = true)]
    url: String,
    #[command(flatten)]
    capability: Capability,
    /// Where clients connect: an address of this machine such as `127.0.0.1:0`, or `unix:PATH`. Without it
    /// the client speaks over standard input and output.
    #[arg(long, value_name = "ADDRESS", help_heading = "Listening")]
    listen: Option<Listen>,
    /// A client with a secret and a conversation of its own; may repeat.
    #[arg(
        long,
        value_name = "NAME",
        default_value = listen::DEFAULT_CLIENT,
        help_heading = "Listening"
    )]
    client: Vec<String>,
    /// Let every process of this machine use the capability: for clients that can set a URL only.
    #[arg(long, conflicts_with = "client", help_heading = "Listening")]
    no_secret: bool,
    /// The folder of the clients' secrets; the wallet or that of the capability otherwise.
    #[arg(long, value_name = "DIR", help_heading = "Listening")]
    state: Option<PathBuf>,
    /// Narrow the capability for its own key instead of handing it over to a fresh one.
    #[arg(long)]
    own_key: bool,
    /// Print the settings of a client that starts this command, or connects to it, and exit.
    #[arg(long, value_enum, value_name = "CLIENT")]
    print_config: Option<ClientKind>,
    /// What is logged on stderr, such as `info` or `taper_agent=debug`.
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log: String,
    #[command(flatten)]
    restrictions: Restrictions,
    #[command(flatten)]
    expiry: Expiry,
}

/// Runs until it is told to stop.
pub(crate) fn run(args: &Args, context: &mut Context) -> Result<(), Failure> {
    args.capability.check()?;
    listen::check(args)?;
    let logs = Telemetry {
        filter: args.log.clone(),
        ..Telemetry::default()
    };
    telemetry::init(&logs).map_err(Failure::usage)?;
    let clock = context.clock();
    let target = Target::new(&args.url, clock.clone(), Limits::default())?;
    if let Some(kind) = args.print_config {
        return print_config(kind, args, &target, context);
    }
    let source = args.capability.open(&args.url, &clock, context)?;
    let terms = terms(args, &source, context)?;
    let bridge = Bridge {
        target,
        source: Arc::new(source),
        terms,
        clock,
    };
    match &args.listen {
        Some(address) => listen::run(address, args, &bridge, context),
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
    /// A conversation of its own. What can never be had is told before a client connects.
    async fn conversation(&self) -> Result<Arc<Channel>, Failure> {
        let conversation = Conversation::new(Arc::clone(&self.source), self.terms.clone());
        match conversation.credential(self.clock.unix()).await {
            // What cannot be reached now may be later; each request tries again.
            Ok(_) | Err(Trouble::Issuer(_)) => {}
            Err(trouble) => return Err(Failure::failed(trouble)),
        }
        Ok(Arc::new(Channel::new(self.target.clone(), conversation)))
    }
}

/// What each conversation is restricted to; whoever starts the bridge hears what that changes.
fn terms(args: &Args, source: &Source, context: &mut Context) -> Result<Terms, Failure> {
    let until = args.expiry.until(context.now())?;
    let caveats = args.restrictions.caveats(&mut rng::os())?;
    let depth = args.restrictions.max_depth;
    match context.block_on(source.current(context.now()))? {
        Ok(Held { token, .. }) => {
            let before = Effective::of_unverified(&UnverifiedToken::decode(token.as_str())?);
            let before = if args.own_key { before } else { before.handed_on() };
            Reviewed::new(before, caveats.clone(), until, depth).judge(&args.restrictions, context)?;
        }
        Err(Error::Fetch(error)) => context.talk(format_args!(
            "the issuer cannot be reached yet ({error}); the bridge tries again with each request"
        )),
        Err(error) => return Err(error.into()),
    }
    Ok(Terms {
        caveats,
        until,
        max_depth: depth,
        note: args.restrictions.note.clone(),
        own_key: args.own_key,
    })
}

fn print_config(
    kind: ClientKind,
    args: &Args,
    target: &Target,
    context: &mut Context,
) -> Result<(), Failure> {
    let program = std::env::current_exe().map_err(Failure::failed)?;
    let words = std::env::args_os().skip(1).map(|word| word.into_string());
    let words = words.collect::<Result<Vec<_>, _>>();
    let mut words = words.map_err(|_| Failure::usage("settings cannot hold what is not UTF-8 text"))?;
    // What came from the environment, which is another where the client starts.
    let said = [("--url", Some(args.url.clone()))];
    for (option, value) in said.into_iter().chain(args.capability.said()) {
        let is_option = |word: &String| word.split('=').next() == Some(option);
        if let Some(value) = value.filter(|_| !words.iter().any(is_option)) {
            words.extend([option.to_owned(), value]);
        }
    }
    let typed = Typed {
        program: &program,
        words: &words,
        path: target.path(),
        listen: args.listen.as_ref(),
        with_secret: !args.no_secret,
    };
    let settings = settings(kind, &typed)?;
    context.talk(format_args!("for {} of the project:", kind.file()));
    if let (Some(Listen::Loopback(_)), false) = (&args.listen, args.no_secret) {
        context.talk(format_args!(
            "the client takes its secret from {}: export the contents of the file that the running bridge names",
            config::secret_variable(target.path())
        ));
    }
    context.result(format_args!("{settings:#}"), &settings)
}
