//! The command line of `taper revoke`: what is asked for, told by the options that are there.

use std::path::PathBuf;

use taper_agent::KeySource;
use taper_agent::revoke::Target;

use crate::failure::Failure;

const FORMS: &str = "\
A holder: --issuer URL --key FILE, and
  --token FILE --client-id ID             the whole grant of a capability that was not handed on
  --token FILE --to KEY                   what this key hands to that one under the grant
  --token FILE --last-hand-over           the last that this key handed on in that capability
  --token FILE --branch HEX               a branch that this key signed; `taper inspect` shows them
  --this-key [--token FILE]               all that this key holds; for ever

A client with a secret: --issuer URL --client-id ID --client-secret-file FILE, and
  --grant ID                              one of its grants
  --grant ID --branch HEX --token FILE    a branch of one of its grants
  --subject NAME --subject-issuer URL     all its grants for a subject
  --everything                            all that it was granted and asks for later; for ever

An administrator: --admin-url URL --admin-token-file FILE, and one of
  --grant, --branch, --delegation         until the grant ends
  --holder, --client, --subject           for ever";

/// The options of `taper revoke`; [`Args::form`] says what they mean together.
#[derive(Debug, clap::Args)]
#[command(after_help = FORMS)]
pub(crate) struct Args {
    /// The issuer's URL.
    #[arg(long, value_name = "URL")]
    pub(super) issuer: Option<String>,
    /// The private key that takes back: a file, `agent:`, `keyring:NAME` or `env:`.
    #[arg(long, value_name = "KEY")]
    pub(super) key: Option<KeySource>,
    /// A file with a capability, or `-`.
    #[arg(long, value_name = "FILE")]
    pub(super) token: Option<String>,
    /// To whom it was handed: a thumbprint, or a file with the public JWK.
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    pub(super) to: Option<String>,
    /// What was handed on last, by this key.
    #[arg(long)]
    pub(super) last_hand_over: bool,
    /// The key itself.
    #[arg(long)]
    pub(super) this_key: bool,
    /// The client's id.
    #[arg(long, value_name = "ID")]
    pub(super) client_id: Option<String>,
    /// A private file with the client's secret.
    #[arg(long, value_name = "FILE")]
    pub(super) client_secret_file: Option<PathBuf>,
    /// All that the client was granted and asks for later.
    #[arg(long)]
    pub(super) everything: bool,
    /// Everything of this grant.
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    pub(super) grant: Option<String>,
    /// Everything from this branch of a chain on, 64 hex digits.
    #[arg(long, value_name = "HEX")]
    pub(super) branch: Option<String>,
    /// Everything that this key holds or held, by its thumbprint.
    #[arg(long, value_name = "THUMBPRINT", allow_hyphen_values = true)]
    pub(super) holder: Option<String>,
    /// Everything granted to this client.
    #[arg(long, value_name = "ID")]
    pub(super) client: Option<String>,
    /// What one key hands to another under a grant: its id and two thumbprints.
    #[arg(long, num_args = 3, value_names = ["GRANT", "FROM", "TO"], allow_hyphen_values = true)]
    pub(super) delegation: Option<Vec<String>>,
    /// Everything for this subject.
    #[arg(long, value_name = "NAME")]
    pub(super) subject: Option<String>,
    /// Who says who the subject is.
    #[arg(long, value_name = "URL")]
    pub(super) subject_issuer: Option<String>,
    /// The issuer's admin listener.
    #[arg(long, value_name = "URL")]
    pub(super) admin_url: Option<String>,
    /// A private file with the admin token.
    #[arg(long, value_name = "FILE")]
    pub(super) admin_token_file: Option<PathBuf>,
}

/// One way to use the command: which options say so, which others it needs, which it may have.
struct Form {
    is: Is,
    by: &'static [&'static str],
    needs: &'static [&'static str],
    may: &'static [&'static str],
}

/// The ways to use the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Is {
    Grant,
    To,
    Branch,
    Last,
    Key,
    OwnGrant,
    OwnBranch,
    OwnSubject,
    Everything,
    Admin,
}

const HOLDER: [Form; 5] = [
    form(Is::Key, &["this-key"], &["issuer", "key"], &["token"]),
    form(Is::To, &["to"], &["issuer", "token", "key"], &[]),
    form(Is::Last, &["last-hand-over"], &["issuer", "token", "key"], &[]),
    form(Is::Branch, &["branch"], &["issuer", "token", "key"], &[]),
    form(
        Is::Grant,
        &["token"],
        &["issuer", "client-id", "key"],
        &["client-secret-file"],
    ),
];
const CLIENT_NEEDS: &[&str] = &["issuer", "client-id", "client-secret-file"];
const CLIENT: [Form; 4] = [
    form(Is::Everything, &["everything"], CLIENT_NEEDS, &[]),
    form(
        Is::OwnSubject,
        &["subject"],
        &["subject-issuer", "issuer", "client-id", "client-secret-file"],
        &[],
    ),
    form(
        Is::OwnBranch,
        &["grant", "branch"],
        &["token", "issuer", "client-id", "client-secret-file"],
        &[],
    ),
    form(Is::OwnGrant, &["grant"], CLIENT_NEEDS, &[]),
];
const ADMIN_NEEDS: &[&str] = &["admin-url", "admin-token-file"];
const ADMIN: [Form; 6] = [
    form(Is::Admin, &["delegation"], ADMIN_NEEDS, &[]),
    form(
        Is::Admin,
        &["subject"],
        &["subject-issuer", "admin-url", "admin-token-file"],
        &[],
    ),
    form(Is::Admin, &["grant"], ADMIN_NEEDS, &[]),
    form(Is::Admin, &["branch"], ADMIN_NEEDS, &[]),
    form(Is::Admin, &["holder"], ADMIN_NEEDS, &[]),
    form(Is::Admin, &["client"], ADMIN_NEEDS, &[]),
];

const fn form(
    is: Is,
    by: &'static [&'static str],
    needs: &'static [&'static str],
    may: &'static [&'static str],
) -> Form {
    Form { is, by, needs, may }
}

impl Args {
    /// The options that are there.
    fn given(&self) -> Vec<&'static str> {
        [
            ("issuer", self.issuer.is_some()),
            ("key", self.key.is_some()),
            ("token", self.token.is_some()),
            ("to", self.to.is_some()),
            ("last-hand-over", self.last_hand_over),
            ("this-key", self.this_key),
            ("client-id", self.client_id.is_some()),
            ("client-secret-file", self.client_secret_file.is_some()),
            ("everything", self.everything),
            ("grant", self.grant.is_some()),
            ("branch", self.branch.is_some()),
            ("holder", self.holder.is_some()),
            ("client", self.client.is_some()),
            ("delegation", self.delegation.is_some()),
            ("subject", self.subject.is_some()),
            ("subject-issuer", self.subject_issuer.is_some()),
            ("admin-url", self.admin_url.is_some()),
            ("admin-token-file", self.admin_token_file.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
    }

    /// Which way the command is used.
    pub(super) fn form(&self) -> Result<Is, Failure> {
        let given = self.given();
        let has = |name: &&str| given.contains(name);
        let any = |names: &[&str]| names.iter().any(has);
        let forms: &[Form] = if any(&["admin-url", "admin-token-file", "holder", "client", "delegation"]) {
            &ADMIN
        } else if any(&["key", "this-key", "to", "last-hand-over"])
            || !any(&["grant", "subject", "everything"])
        {
            &HOLDER
        } else {
            &CLIENT
        };
        let Some(form) = forms.iter().find(|form| form.by.iter().all(has)) else {
            return Err(Failure::usage("nothing says what is revoked")
                .next("`taper revoke --help` lists what can be, and by whom"));
        };
        let option = |name: &&str| format!("--{name}");
        let listed = |names: &[&str]| names.iter().map(option).collect::<Vec<_>>().join(" ");
        let whole = format!("taper revoke {} {}", listed(form.by), listed(form.needs));
        let own = |name: &&&str| {
            [form.by, form.needs, form.may]
                .iter()
                .any(|part| part.contains(name))
        };
        if let Some(beside) = given.iter().find(|name| !own(name)) {
            return Err(Failure::usage(format!(
                "{} does not go with {}: revoke one thing at a time",
                option(beside),
                listed(form.by)
            ))
            .next(format!("`{whole}`, or `taper revoke --help`")));
        }
        let missing: Vec<&str> = form.needs.iter().filter(|name| !has(name)).copied().collect();
        if !missing.is_empty() {
            let or = match form.is {
                Is::OwnGrant | Is::OwnSubject => {
                    " by its client; an administrator gives --admin-url and --admin-token-file"
                }
                _ => "",
            };
            return Err(
                Failure::usage(format!("{} is missing", listed(&missing))).next(format!("`{whole}`{or}"))
            );
        }
        Ok(form.is)
    }

    /// What an administrator names.
    pub(super) fn target(self) -> Option<Target> {
        let delegation = |parts: Vec<String>| match <[String; 3]>::try_from(parts) {
            Ok([grant, from, to]) => Some(Target::Delegation { grant, from, to }),
            Err(_) => None,
        };
        self.grant
            .map(Target::Grant)
            .or_else(|| self.branch.map(Target::Branch))
            .or_else(|| self.holder.map(Target::Holder))
            .or_else(|| self.client.map(Target::Client))
            .or_else(|| self.delegation.and_then(delegation))
            .or(match (self.subject_issuer, self.subject) {
                (Some(iss), Some(sub)) => Some(Target::Subject { iss, sub }),
                _ => None,
            })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn form_of(line: &str) -> Result<Is, String> {
        let line = line.replace("HOLDER", "--issuer u --key k --token t");
        let line = line.replace("CLIENT", "--issuer u --client-id c --client-secret-file s");
        let line = line.replace("ADMIN", "--admin-url u --admin-token-file f");
        let words = ["taper", "revoke"]
            .into_iter()
            .chain(line.split(' ').filter(|word| !word.is_empty()));
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let Command::Revoke(args) = cli.command else {
            return Err("another command".to_owned());
        };
        args.form().map_err(|failure| failure.to_string())
    }

    #[test]
    fn every_way_to_revoke_is_told_by_its_options() {
        let check = |line: &str, expected: Is| assert_eq!(form_of(line), Ok(expected), "{line}");
        check("HOLDER --client-id c", Is::Grant);
        check("HOLDER --client-id c --client-secret-file s", Is::Grant);
        check("HOLDER --to -key", Is::To);
        check("HOLDER --last-hand-over", Is::Last);
        check("HOLDER --branch b", Is::Branch);
        check("HOLDER --this-key", Is::Key);
        check("--issuer u --key k --this-key", Is::Key);
        check("CLIENT --grant -g", Is::OwnGrant);
        check("CLIENT --grant g --branch b --token t", Is::OwnBranch);
        check("CLIENT --subject s --subject-issuer i", Is::OwnSubject);
        check("CLIENT --everything", Is::Everything);
        check("ADMIN --grant g", Is::Admin);
        check("ADMIN --branch b", Is::Admin);
        check("ADMIN --holder h", Is::Admin);
        check("ADMIN --client c", Is::Admin);
        check("ADMIN --delegation g -from -to", Is::Admin);
        check("ADMIN --subject s --subject-issuer i", Is::Admin);
    }

    #[test]
    fn what_cannot_be_meant_says_what_can() {
        let check = |line: &str, says: &[&str]| {
            let message = form_of(line).unwrap_err();
            for part in says {
                assert!(message.contains(part), "{line}: {part}: {message}");
            }
        };
        check("", &["nothing says", "--help"]);
        check("--issuer u", &["nothing says"]);
        check("--key k", &["nothing says"]);
        check(
            "--token t",
            &[
                "--issuer --client-id --key is missing",
                "next: `taper revoke --token",
            ],
        );
        check("HOLDER", &["--client-id is missing"]);
        check(
            "HOLDER --to a --branch b",
            &["--branch does not go with --to", "one thing"],
        );
        check(
            "HOLDER --to a --client-id c",
            &["--client-id does not go with --to"],
        );
        check("HOLDER --this-key --everything", &["--everything does not go"]);
        check("--this-key --issuer u", &["--key is missing"]);
        check(
            "--grant g",
            &[
                "--issuer --client-id --client-secret-file is missing",
                "--admin-url",
            ],
        );
        check("CLIENT --grant g --branch b", &["--token is missing"]);
        check("CLIENT --subject s", &["--subject-issuer is missing"]);
        check(
            "CLIENT --grant g --everything",
            &["--grant does not go with --everything"],
        );
        check(
            "--everything --issuer u --client-id c",
            &["--client-secret-file is missing"],
        );
        check("--holder h", &["--admin-url --admin-token-file is missing"]);
        check(
            "ADMIN --grant g --holder h",
            &["--holder does not go with --grant"],
        );
        check("ADMIN --grant g --issuer u", &["--issuer does not go"]);
        check("ADMIN --subject s", &["--subject-issuer is missing"]);
        check("ADMIN", &["nothing says"]);
        check("ADMIN --delegation g from", &["delegation"]);
    }
}
