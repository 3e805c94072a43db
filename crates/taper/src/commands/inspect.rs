//! `taper inspect`.

use taper_agent::inspect::Report;

use crate::context::Context;
use crate::failure::Failure;

/// The arguments of `taper inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A file with the capability, or `-`.
    #[arg(value_name = "TOKEN-FILE", default_value = "-")]
    token: String,
}

/// Shows what a capability says.
pub(crate) fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let token = context.read_token(&args.token)?;
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
        let check = |format, stdin: &str, expected: Result<&str, Kind>| {
            let (mut context, out, _) = context(format, stdin);
            let ran = run(Args { token: "-".into() }, &mut context).map_err(|e| e.kind());
            match expected {
                Ok(part) => assert!(ran.is_ok() && out.text().contains(part), "{}", out.text()),
                Err(kind) => assert_eq!(ran, Err(kind)),
            }
        };
        check(Format::Text, chain.token.as_str(), Ok("UNVERIFIED"));
        check(
            Format::Text,
            &format!("\n{}\n", chain.token.as_str()),
            Ok("alice at https://idp.example"),
        );
        check(Format::Json, chain.token.as_str(), Ok("\"verified\":false"));
        check(Format::Text, "", Err(Kind::Failure));
        check(Format::Text, "AAAA", Err(Kind::Failure));
    }
}
