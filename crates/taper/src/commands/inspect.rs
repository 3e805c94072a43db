//! `taper inspect`.

use taper_agent::inspect::{EffectiveReport, Report};

use crate::context::Context;
use crate::failure::Failure;

/// The arguments of `taper inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A file with the capability, or `-`.
    #[arg(value_name = "TOKEN-FILE", default_value = "-")]
    token: String,
    /// What the whole chain still allows, in place of what each link says.
    #[arg(long)]
    effective: bool,
}

/// Shows what a capability says.
pub(crate) fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let token = context.read_token(&args.token)?;
    if args.effective {
        let report = EffectiveReport::unverified(&token)?;
        return context.result(report.to_text(context.now()), &report.to_json());
    }
    let report = Report::unverified(&token)?;
    context.result(report.to_text(context.now()), &report.to_json())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Chain;
    use super::*;
    use crate::context::Format;
    use crate::context::testing::{NOW, context};
    use crate::failure::Kind;

    #[test]
    fn what_is_shown_is_marked_as_unverified() {
        let chain = Chain::new(NOW + 60);
        let check = |format, effective, stdin: &str, expected: Result<&str, Kind>| {
            let (mut context, out, _) = context(format, stdin);
            let args = Args {
                token: "-".into(),
                effective,
            };
            let ran = run(args, &mut context).map_err(|e| e.kind());
            match expected {
                Ok(part) => assert!(ran.is_ok() && out.text().contains(part), "{}", out.text()),
                Err(kind) => assert_eq!(ran, Err(kind)),
            }
        };
        let token = chain.token.as_str();
        check(Format::Text, true, token, Ok("UNVERIFIED"));
        check(Format::Text, true, token, Ok("tools       git: any"));
        check(Format::Json, true, token, Ok("\"verified\":false"));
        check(Format::Json, true, token, Ok("\"servers\":{\"git\""));
        check(Format::Text, true, "AAAA", Err(Kind::Failure));
        check(Format::Text, false, chain.token.as_str(), Ok("UNVERIFIED"));
        check(
            Format::Text,
            false,
            &format!("\n{}\n", chain.token.as_str()),
            Ok("alice at https://idp.example"),
        );
        check(
            Format::Json,
            false,
            chain.token.as_str(),
            Ok("\"verified\":false"),
        );
        check(Format::Text, false, "", Err(Kind::Failure));
        check(Format::Text, false, "AAAA", Err(Kind::Failure));
    }
}
