//! `taper delegate`.

use serde_json::json;
use taper_agent::{KeySource, Step};
use taper_capability::{Effective, UnverifiedToken};
use taper_dpop::PublicKey;
use taper_service::clock::rfc3339;
use taper_service::rng;

use super::read_key;
use super::restrictions::{EXAMPLES, Expiry, Restrictions, Reviewed};
use crate::context::Context;
use crate::failure::Failure;

/// The arguments of `taper delegate`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("end").required(true).args(["until", "lifetime"]))]
pub(crate) struct Args {
    /// A file with the capability, or `-`.
    #[arg(value_name = "TOKEN-FILE", default_value = "-")]
    token: String,
    /// The next holder's public key: a JWK, a file with one, or `-`.
    #[arg(long, value_name = "JWK")]
    to: String,
    /// The present holder's private key: a file, `agent:`, `keyring:NAME` or `env:`.
    #[arg(long, value_name = "KEY", env = "TAPER_KEY_FILE", hide_env_values = true)]
    key: KeySource,
    #[command(flatten)]
    restrictions: Restrictions,
    #[command(flatten)]
    expiry: Expiry,
    /// The file for the new capability, or `-` for stdout.
    #[arg(long, value_name = "FILE", default_value = "-", help_heading = "Options")]
    out: String,
}

/// Hands a capability on.
pub(crate) fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let key = read_key(&args.key, context)?;
    let token = context.read_token(&args.token)?;
    let child = public_key(&args.to, context)?;
    let until = args
        .expiry
        .until(context.now())?
        .ok_or_else(|| Failure::usage("`--until` or `--for` is needed"))?;
    let parent = UnverifiedToken::decode(token.as_str())?;
    let reviewed = Reviewed::new(
        Effective::of_unverified(&parent).handed_on(),
        args.restrictions.caveats(&mut rng::os())?,
        Some(until),
        args.restrictions.max_depth,
    );
    reviewed.judge(&args.restrictions, context)?;
    let step = reviewed.add_to(Step::hand_over(child.clone(), until), &args.restrictions);
    let delegated = context.block_on(key.append(&token, &step))??;
    let expires_at = UnverifiedToken::decode(delegated.as_str())?.expires_at();
    context.talk(format_args!(
        "handed on to the key {}, until {}",
        child.thumbprint(),
        rfc3339(expires_at)
    ));
    let json = json!({
        "holder": child.thumbprint().to_string(),
        "expires_at": expires_at,
        "warnings": reviewed.to_json(),
    });
    context.deliver(&delegated, &args.out, json)
}

/// A JWK itself begins with a brace, which no sensible file name does.
fn public_key(text: &str, context: &mut Context) -> Result<PublicKey, Failure> {
    let read;
    let jwk = if text.trim_start().starts_with('{') {
        text
    } else {
        read = context.read_text(text)?;
        read.as_str()
    };
    PublicKey::from_jwk_str(jwk).map_err(|e| {
        Failure::failed(format!("`--to` is not a public JWK: {e}"))
            .next("`taper keygen --out FILE` prints the public JWK of the key that it makes")
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::Chain;
    use super::*;
    use crate::cli::{Cli, Command};
    use crate::context::Format;
    use crate::context::testing::{NOW, context};
    use crate::failure::Kind;
    use clap::Parser as _;
    use serde_json::Value;
    use taper_dpop::{Algorithm, PrivateKey};

    /// Runs a command line; `KEY` is the holder's file, and the capability comes from stdin.
    fn run_line(chain: &Chain, line: &[&str], format: Format) -> Result<String, Kind> {
        let key = chain.key();
        let words = line.iter().map(|word| {
            if *word == "KEY" {
                key.to_str().unwrap()
            } else {
                word
            }
        });
        let cli = Cli::try_parse_from(std::iter::once("taper").chain(words)).map_err(|_| Kind::Usage)?;
        assert!(matches!(cli.command, Command::Delegate(_) | Command::Narrow(_)));
        let (mut context, out, _) = context(format, chain.token.as_str());
        crate::commands::run(cli.command, &mut context).map_err(|e| e.kind())?;
        Ok(out.text())
    }

    #[test]
    fn a_delegated_capability_is_the_childs_and_says_what_was_typed() {
        let chain = Chain::new(NOW + 3_600);
        let child = PrivateKey::generate(Algorithm::Es256, &mut rng::os()).public();
        let jwk = serde_json::to_string(&child.to_jwk()).unwrap();
        let line = [
            "delegate",
            "--key",
            "KEY",
            "--to",
            &jwk,
            "--tool",
            "git:git_log",
            "--repo",
            "acme/web",
            "--for",
            "10m",
            "--note",
            "for the review",
        ];
        let token = run_line(&chain, &line, Format::Text).unwrap();
        let decoded = UnverifiedToken::decode(token.trim()).unwrap();
        assert_eq!(decoded.last_holder(), &child);
        assert_eq!(decoded.expires_at(), NOW + 600);
        let last = decoded.links().last().unwrap();
        assert_eq!(last.note.as_deref(), Some("for the review"));
        let said: Vec<_> = last.caveats().0.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["only git:git_log", "only repo acme/web"]);
        let json: Value = serde_json::from_str(&run_line(&chain, &line, Format::Json).unwrap()).unwrap();
        assert_eq!(json["holder"], child.thumbprint().to_string());
        assert_eq!(json["expires_at"], NOW + 600);
        assert!(UnverifiedToken::decode(json["token"].as_str().unwrap()).is_ok());
    }

    #[test]
    fn a_narrowed_capability_stays_with_its_holder() {
        let chain = Chain::new(NOW + 3_600);
        let line = ["narrow", "--key", "KEY", "--server", "git"];
        let token = run_line(&chain, &line, Format::Text).unwrap();
        let (before, after) = (
            UnverifiedToken::decode(chain.token.as_str()).unwrap(),
            UnverifiedToken::decode(token.trim()).unwrap(),
        );
        assert_eq!(after.last_holder(), before.last_holder());
        assert_eq!((after.depth(), after.expires_at()), (0, before.expires_at()));
        assert_eq!(after.links().len(), 2);
    }

    #[test]
    fn what_cannot_be_handed_on_is_refused() {
        let chain = Chain::new(NOW + 3_600);
        let child = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
        let jwk = serde_json::to_string(&child.public().to_jwk()).unwrap();
        let private = child.to_jwk_string();
        let check = |line: &[&str], expected: Result<(), Kind>| {
            assert_eq!(
                run_line(&chain, line, Format::Text).map(|_| ()),
                expected,
                "{line:?}"
            );
        };
        check(
            &["delegate", "--key", "KEY", "--to", &jwk, "--for", "10m"],
            Ok(()),
        );
        check(&["delegate", "--key", "KEY", "--to", &jwk], Err(Kind::Usage));
        check(
            &["delegate", "--key", "KEY", "--to", &private, "--for", "10m"],
            Err(Kind::Failure),
        );
        check(
            &["delegate", "--key", "KEY", "--to", "{}", "--for", "10m"],
            Err(Kind::Failure),
        );
        check(
            &["delegate", "--key", "/absent", "--to", &jwk, "--for", "10m"],
            Err(Kind::Failure),
        );
        check(
            &["delegate", "--key", "KEY", "--to", "-", "--for", "10m"],
            Err(Kind::Usage),
        );
        let repo = "acme*";
        check(
            &[
                "delegate", "--key", "KEY", "--to", &jwk, "--for", "10m", "--repo", repo,
            ],
            Err(Kind::Failure),
        );
    }
}
