//! The commands, one file each. A command reads its arguments and a [`Context`] and nothing else.

#[cfg(unix)]
pub(crate) mod agent;
pub(crate) mod audit;
pub(crate) mod bridge;
pub(crate) mod call;
pub(crate) mod completions;
pub(crate) mod daemon;
pub(crate) mod delegate;
pub(crate) mod dev_token;
pub(crate) mod doctor;
pub(crate) mod exchange;
pub(crate) mod inspect;
pub(crate) mod issuer;
pub(crate) mod keygen;
pub(crate) mod login;
pub(crate) mod narrow;
pub(crate) mod pin;
pub(crate) mod proxy;
mod restrictions;
pub(crate) mod revoke;
pub(crate) mod store;
#[cfg(test)]
mod testing;
pub(crate) mod verify;

use taper_agent::{HolderKey, KeySource};

use crate::cli::Command;
use crate::context::Context;
use crate::failure::Failure;

/// Runs one command.
pub(crate) fn run(command: Command, context: &mut Context) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => crate::demo::run(&args, context),
        Command::Up(args) => crate::up::run(&args, context),
        #[cfg(unix)]
        Command::Agent(args) => agent::run(args, context),
        Command::Keygen(args) => keygen::run(args, context),
        Command::Login(args) => login::run(args, context),
        Command::Exchange(args) => exchange::run(args, context),
        Command::Inspect(args) => inspect::run(args, context),
        Command::Narrow(args) => narrow::run(args, context),
        Command::Delegate(args) => delegate::run(args, context),
        Command::Verify(args) => verify::run(args, context),
        Command::Call(args) => call::run(args, context),
        Command::Bridge(args) => bridge::run(&args, context),
        Command::Revoke(args) => revoke::run(args, context),
        Command::Audit(args) => audit::run(args, context),
        Command::Store(args) => store::run(args, context),
        Command::Doctor(args) => doctor::run(args, context),
        Command::Issuer(args) => issuer::run(args, context),
        Command::Proxy(args) => proxy::run(args, context),
        Command::DevToken(args) => dev_token::run(args, context),
        Command::Completions(args) => completions::run(args, context),
    }
}

/// Gets the use of a holder's key.
fn read_key(source: &KeySource, context: &Context) -> Result<HolderKey, Failure> {
    context.block_on(source.open())?.map_err(|error| {
        let failure = Failure::from(error);
        match source {
            KeySource::File(path) => {
                failure.next(format!("`taper keygen --out {}` makes one", path.display()))
            }
            // The keyring's own message says what to type.
            _ => failure,
        }
    })
}
