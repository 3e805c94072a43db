//! The command line as types.

use clap::{Parser, Subcommand};

use crate::commands;
use crate::context::Format;

/// Authority for AI agents that narrows at every hop.
///
/// Results go to stdout, talk goes to stderr; `-` is stdin. Exit codes: 0 ok, 1 failure, 2 denied,
/// 3 invalid policy or configuration, 64 usage.
#[derive(Debug, Parser)]
#[command(
    name = "taper",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    /// The form of the result.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) format: Format,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the whole story, end to end, and exit.
    Demo(crate::demo::Args),
    /// Run issuer, proxy and a sample server on this machine, for development.
    Up(crate::up::Args),
    /// Make a key pair; the private key goes to a file, the public JWK to stdout.
    Keygen(commands::keygen::Args),
    /// Log in with a browser, for an access token that is bound to a key.
    Login(commands::login::Args),
    /// Hold keys and sign for other processes, as `ssh-agent` does.
    #[cfg(unix)]
    Agent(commands::agent::Args),
    /// Exchange an access token for a capability.
    Exchange(commands::exchange::Args),
    /// Show what a capability says, without checking any of it.
    Inspect(commands::inspect::Args),
    /// Add restrictions to a capability for its own holder.
    Narrow(commands::narrow::Args),
    /// Hand a capability on to another key, with restrictions.
    Delegate(commands::delegate::Args),
    /// Check a capability against its issuer's keys, and show it.
    Verify(commands::verify::Args),
    /// Call a tool of an MCP server behind the proxy.
    Call(commands::call::Args),
    /// Sign for MCP clients that cannot: the sidecar.
    Bridge(Box<commands::bridge::Args>),
    /// Take a capability, or everything about a grant, key or client, back.
    Revoke(commands::revoke::Args),
    /// Check, show or export the audit journals of a folder.
    Audit(commands::audit::Args),
    /// Move a state folder, or build its database anew.
    Store(commands::store::Args),
    /// Find out what is wrong between an agent, its issuer and a proxy.
    Doctor(commands::doctor::Args),
    /// Run the issuer.
    Issuer(commands::daemon::Args),
    /// Run the proxy, or approve what its servers say of their tools.
    Proxy(commands::proxy::Args),
    /// Print an access token of the development identity provider of `taper up`.
    DevToken(commands::dev_token::Args),
    /// Print a completion script for a shell.
    Completions(commands::completions::Args),
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn examples_of_the_help_are_accepted() {
        let check = |line: &str, accepted: bool| {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert_eq!(
                parsed.is_ok(),
                accepted,
                "{line}: {:?}",
                parsed.err().map(|e| e.to_string())
            );
        };
        check("taper keygen --out key.jwk", true);
        check("taper keygen --alg p256 --out key.jwk --format json", true);
        check("taper keygen --alg rsa --out key.jwk", false);
        check("taper keygen", false);
        check("taper agent --key key.jwk -- ./my-agent --flag", true);
        check("taper agent --generate --for 8h --delegate", true);
        check("taper agent list", true);
        check(
            "taper doctor --url http://127.0.0.1:1/git/mcp --token t --key k",
            true,
        );
        check("taper doctor", true);
        check("taper agent add key.jwk --for 1h", true);
        check("taper agent --generate list", false);
        check(
            "taper call --url http://127.0.0.1:1/git/mcp --token t --key agent:x git_log",
            false,
        );
        check(
            "taper call --url http://127.0.0.1:1/git/mcp --token t --key env: git_log",
            true,
        );
        check(
            "taper login --url http://127.0.0.1:1/git/mcp --key k --out t",
            true,
        );
        check(
            "taper login --server https://idp.example --resource https://issuer.example --client-id c --key k --scope openid --open xdg-open --out t",
            true,
        );
        check(
            "taper login --url http://127.0.0.1:1/git/mcp --server https://idp.example --key k --out t",
            false,
        );
        check("taper login --key k --out t", false);
        check(
            "taper exchange --issuer http://127.0.0.1:1 --client-id dev --subject-token - --key k --scope git:git_log --scope hub:*",
            true,
        );
        check(
            "taper delegate t --key k --to child.jwk --tool git:git_log --repo acme/web --for 10m",
            true,
        );
        check(
            "taper delegate t --key k --to child.jwk --for 10m --until 2026-01-31T10:00:00Z",
            false,
        );
        check("taper delegate t --key k --to child.jwk", false);
        check("taper narrow t --key k --arg /max_count=5", true);
        check(
            "taper call --url http://127.0.0.1:1/git/mcp --token t --key k git_log repo_path=acme/web",
            true,
        );
        check(
            "taper call --url http://127.0.0.1:1/git/mcp --token t --key k --list",
            true,
        );
        check(
            "taper call --url http://127.0.0.1:1/git/mcp --token t --key k",
            false,
        );
        let bridge = "taper bridge --url http://127.0.0.1:1/git/mcp --token t --key k";
        check(
            &format!("{bridge} --listen 127.0.0.1:0 --client a --client b --tool git:git_log --for 8h"),
            true,
        );
        check(&format!("{bridge} --repo acme/web"), true);
        check(&format!("{bridge} --listen unix:/run/s --own-key"), true);

        check(
            &format!("{bridge} --listen 127.0.0.1:0 --no-secret --client a"),
            false,
        );
        check(&format!("{bridge} --listen 0.0.0.0:0"), false);
        check(
            "taper revoke --issuer http://127.0.0.1:1 --token t --key k --client-id dev",
            true,
        );
        check(
            "taper revoke --grant g --admin-url http://127.0.0.1:1 --admin-token-file f",
            true,
        );
        check("taper revoke --delegation g from", false);
        check("taper audit verify --dir d", true);
        check("taper audit verify --against kept", true);
        check("taper audit receipt 17 --dir d --tlog-proof", true);
        check("taper audit verify-receipt r --key journal.pub", true);
        check("taper audit tiles --dir d --out o", true);
        check(
            "taper audit show --grant g --holder h --subject s --tool git:git_log --decision deny",
            true,
        );
        check("taper store export --dir d --out o", true);
        check("taper store import --from o --dir d", true);
        check("taper store rebuild --dir d", true);
        check("taper store rebuild", false);
        check("taper issuer --config c --check-config", true);
        check("taper proxy --config c --check-config", true);
        check("taper proxy", false);
        check("taper proxy pin --config c --check", true);
        check(
            "taper proxy pin --config c --server git --accept a --accept b --accept-rest",
            true,
        );
        check("taper proxy pin --config c --accept a", false);
        check("taper proxy pin --config c --check --all --server git", false);
        check("taper proxy pin --config c --all", false);
        check("taper proxy pin --config c --server git --all --reviewed d", true);
        check("taper proxy pin", false);
        check(
            "taper dev-token --dir d --subject alice --group eng --group ops --ttl 1h",
            true,
        );
        check("taper completions bash", true);
    }

    /// The rows of the variables that stand for options, as the command tree has them.
    fn variables() -> Vec<String> {
        let mut rows: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        for command in Cli::command().get_subcommands() {
            for argument in command.get_arguments() {
                let (Some(variable), Some(option)) = (argument.get_env(), argument.get_long()) else {
                    continue;
                };
                // What is in the environment may be a secret in place of the name of its file.
                assert!(
                    argument.is_hide_env_values_set(),
                    "{} --{option}",
                    command.get_name()
                );
                let variable = variable.to_str().unwrap().to_owned();
                let commands = rows.entry((variable, option.to_owned())).or_default();
                commands.push(format!("`{}`", command.get_name()));
            }
        }
        let row = |((variable, option), mut commands): ((String, String), Vec<String>)| {
            commands.sort();
            format!("| `{variable}` | `--{option}` | {} |", commands.join(", "))
        };
        rows.into_iter().map(row).collect()
    }

    #[test]
    fn the_page_lists_the_variables_that_stand_for_options() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
        let page = std::fs::read_to_string(page).unwrap();
        let is_row = |line: &&str| line.starts_with("| `TAPER_") && line.contains("| `--");
        let told: Vec<_> = page.lines().filter(is_row).collect();
        assert_eq!(told, variables(), "\n{}", variables().join("\n"));
    }
}
