//! `taper revoke`: by a holder, by a client with its secret, by an administrator.

mod args;

use serde_json::json;
use taper_agent::revoke::{
    self, HandedOn, Own, Revoked, Target, revoke_as_admin, revoke_as_client, revoke_handed_on, revoke_key,
};
use taper_agent::{Client, Error, Issuer};
use taper_capability::escaped;
use taper_dpop::PublicKey;
use taper_service::secret;

pub(crate) use self::args::Args;
use self::args::Is;
use super::exchange::client_secret;
use super::read_key;
use crate::context::Context;
use crate::failure::Failure;

/// Takes a capability, or more, back.
pub(crate) fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let revoked = match args.form()? {
        Is::Admin => by_admin(args, context)?,
        Is::OwnGrant | Is::OwnBranch | Is::OwnSubject | Is::Everything => by_client(args, context)?,
        form @ (Is::Grant | Is::To | Is::Branch | Is::Last | Is::Key) => by_holder(form, args, context)?,
    };
    let mut lines: Vec<String> = revoked.iter().map(line).collect();
    if lines.is_empty() {
        lines.push("nothing to revoke: it has ended, or the whole grant is revoked already".to_owned());
    }
    let json = json!({ "revoked": !revoked.is_empty(), "entries": revoked });
    context.result(lines.join("\n"), &json)
}

fn by_holder(form: Is, args: Args, context: &mut Context) -> Result<Vec<Revoked>, Failure> {
    let (Some(issuer), Some(key)) = (&args.issuer, &args.key) else {
        return Err(incomplete());
    };
    let key = read_key(key, context)?;
    let token = args.token.as_deref().map(|path| context.read_token(path));
    let token = token.transpose()?;
    let part = match (form, &args.to, &args.branch) {
        (Is::To, Some(to), _) => Some(HandedOn::To(thumbprint(to, context)?)),
        (Is::Branch, _, Some(branch)) => Some(HandedOn::Branch(branch.clone())),
        (Is::Last, _, _) => Some(HandedOn::Last),
        _ => None,
    };
    let secret = client_secret(args.client_secret_file.as_deref())?;
    let client = args.client_id.map(|id| Client { id, secret });
    let clock = context.clock();
    let revoked = context.block_on(async {
        let issuer = Issuer::discover(issuer).await?;
        match (form, token, part, client) {
            (Is::Key, token, _, _) => revoke_key(&issuer, token.as_ref(), &key, clock.as_ref()).await,
            (_, Some(token), Some(part), _) => {
                revoke_handed_on(&issuer, &token, &key, &part, clock.as_ref()).await
            }
            (_, Some(token), None, Some(client)) => {
                revoke::revoke(&issuer, &client, &token, &key, clock.as_ref()).await
            }
            _ => Err(Error::Request("something is missing".to_owned())),
        }
    })?;
    revoked.map_err(explained)
}

fn by_client(args: Args, context: &mut Context) -> Result<Vec<Revoked>, Failure> {
    let secret = client_secret(args.client_secret_file.as_deref())?;
    let (Some(issuer), Some(id)) = (args.issuer, args.client_id) else {
        return Err(incomplete());
    };
    let own = match (
        args.grant,
        args.branch,
        args.token,
        args.subject_issuer,
        args.subject,
    ) {
        (Some(grant), Some(branch), Some(path), _, _) => Own::Branch {
            grant,
            branch,
            token: context.read_token(&path)?,
        },
        (Some(grant), _, _, _, _) => Own::Grant(grant),
        (_, _, _, Some(iss), Some(sub)) => Own::Subject { iss, sub },
        _ => Own::Everything,
    };
    let client = Client { id, secret };
    let revoked = context.block_on(async {
        let issuer = Issuer::discover(&issuer).await?;
        revoke_as_client(&issuer, &client, &own).await
    })?;
    revoked.map_err(explained)
}

fn by_admin(args: Args, context: &mut Context) -> Result<Vec<Revoked>, Failure> {
    let (Some(url), Some(file)) = (args.admin_url.clone(), args.admin_token_file.clone()) else {
        return Err(incomplete());
    };
    let target = args.target().ok_or_else(incomplete)?;
    let token = secret::read_secret_file(&file).map_err(Failure::failed)?;
    let revoked = context.block_on(revoke_as_admin(&url, &token, &target))?;
    Ok(vec![revoked.map_err(explained)?])
}

/// [`Args::form`] leaves no combination that comes here.
fn incomplete() -> Failure {
    Failure::usage("something is missing").next("`taper revoke --help`")
}

/// A thumbprint as it is typed, or that of the key in a file.
fn thumbprint(text: &str, context: &mut Context) -> Result<String, Failure> {
    let is_base64url = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if text.len() == 43 && text.chars().all(is_base64url) {
        return Ok(text.to_owned());
    }
    let jwk = context.read_text(text)?;
    let key = PublicKey::from_jwk_str(&jwk).map_err(|e| {
        Failure::failed(format!(
            "`{text}` is neither a thumbprint nor a file with a public JWK: {e}"
        ))
        .next("`taper inspect TOKEN` shows the thumbprint of every holder")
    })?;
    Ok(key.thumbprint().to_string())
}

fn line(revoked: &Revoked) -> String {
    let what = match &revoked.what {
        Target::Grant(id) => format!("the grant {}", escaped(id)),
        Target::Branch(id) => format!("the branch {}", escaped(id)),
        Target::Holder(jkt) => format!("the key {}", escaped(jkt)),
        Target::Client(id) => format!("the client {}", escaped(id)),
        Target::Subject { iss, sub } => format!("the subject {} at {}", escaped(sub), escaped(iss)),
        Target::Delegation { grant, from, to } => format!(
            "what {} hands to {} under the grant {}",
            escaped(from),
            escaped(to),
            escaped(grant)
        ),
    };
    format!("revoked {what}: number {}", revoked.seq)
}

/// Says what to do about a refusal of the issuer.
fn explained(error: Error) -> Failure {
    let next = match &error {
        Error::Issuer { body, .. } => match body.error.as_str() {
            "unsupported_token_type" => {
                "`--to THUMBPRINT` or `--last-hand-over` instead of `--client-id` takes back what this key handed on"
            }
            "invalid_dpop_proof" => {
                "`taper inspect TOKEN` shows the holders of the chain: only they take back, each what it handed on itself"
            }
            "invalid_grant" => {
                "`taper inspect TOKEN` shows grant, client and holders of a capability; with `--this-key`, add `--token`"
            }
            "invalid_client" | "unauthorized_client" => {
                "check `--client-id` and `--client-secret-file`; a client without a secret needs the holder's `--key` and `--token`"
            }
            "invalid_token" => "check `--admin-token-file`",
            _ => return error.into(),
        },
        Error::Request(_) => "`taper inspect TOKEN` shows the issuer and the holders of a capability",
        _ => return error.into(),
    };
    Failure::from(error).next(next)
}
