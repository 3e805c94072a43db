//! `taper completions`.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::context::Context;
use crate::failure::Failure;

/// The arguments of `taper completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "taper", &mut script);
    context.raw(&script)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Format;
    use crate::context::testing::context;

    #[test]
    fn every_command_is_completed() {
        let (mut context, out, _) = context(Format::Text, "");
        run(Args { shell: Shell::Bash }, &mut context).unwrap();
        for command in Cli::command().get_subcommands() {
            assert!(out.text().contains(command.get_name()), "{}", command.get_name());
        }
    }
}
