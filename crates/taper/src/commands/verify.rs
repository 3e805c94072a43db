//! `taper verify`.

use taper_agent::inspect::{EffectiveReport, Report};
use taper_agent::{Issuer, fetcher_for};
use taper_capability::{Roots, UnverifiedToken, Verifier};
use taper_dpop::PublicKey;
use taper_oauth::{json, jwk};

use crate::context::Context;
use crate::failure::{Failure, Kind};

/// The arguments of `taper verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A file with the capability, or `-`.
    #[arg(value_name = "TOKEN-FILE", default_value = "-")]
    token: String,
    /// The issuer that is trusted.
    #[arg(long, value_name = "URL")]
    issuer: String,
    /// Where its public keys are: a URL or a file; the issuer's metadata says it otherwise.
    #[arg(long, value_name = "URL|FILE")]
    jwks: Option<String>,
    /// What the whole chain still allows, in place of what each link says.
    #[arg(long)]
    effective: bool,
}

/// Checks a capability as a proxy would, but for its proof, revocation and policies.
pub(crate) fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let token = context.read_token(&args.token)?;
    let keys = keys(&args, context)?;
    let verifier = Verifier::new(roots(&args.issuer, &keys)?);
    let denied = |e: taper_capability::Error| {
        Failure::new(Kind::Denied, format!("{e} [rule {}]", e.rule()))
            .next("`taper inspect` shows what the capability says")
    };
    let decoded = UnverifiedToken::decode(token.as_str()).map_err(denied)?;
    let chain = verifier.verify(decoded, context.now()).map_err(denied)?;
    if args.effective {
        let report = EffectiveReport::verified(&chain);
        return context.result(report.to_text(context.now()), &report.to_json());
    }
    let report = Report::verified(&chain);
    context.result(report.to_text(context.now()), &report.to_json())
}

fn keys(args: &Args, context: &mut Context) -> Result<Vec<u8>, Failure> {
    match args.jwks.as_deref() {
        None => Ok(context
            .block_on(async { Issuer::discover(&args.issuer).await?.keys().await })??
            .to_vec()),
        Some(url) if url.starts_with("https://") || url.starts_with("http://") => {
            let answer = context.block_on(async {
                let fetcher = fetcher_for(url)?;
                Ok::<_, taper_agent::Error>(fetcher.get(url, jwk::MAX_SET).await?)
            })??;
            if answer.status.is_success() {
                Ok(answer.body.to_vec())
            } else {
                Err(Failure::failed(format!("the key set answers {}", answer.status)))
            }
        }
        Some(path) => Ok(context.read(path)?.to_vec()),
    }
}

/// The issuer's root keys: the `kid` is the decimal root key id. Keys of another kind are not roots.
pub(crate) fn roots(issuer: &str, keys: &[u8]) -> Result<Roots, Failure> {
    let bad = |e: &dyn std::fmt::Display| Failure::failed(format!("the key set is not usable: {e}"));
    let set = json::parse_object(keys, jwk::MAX_SET).map_err(|e| bad(&e))?;
    let members = set.get("keys").and_then(|keys| keys.as_array());
    let mut roots = Roots::new();
    let mut found = false;
    for member in members.into_iter().flatten() {
        let id = member
            .get("kid")
            .and_then(|kid| kid.as_str())
            .and_then(root_key_id);
        let key = PublicKey::from_jwk_str(&member.to_string());
        if let (Some(id), Ok(key)) = (id, key) {
            roots = roots.trust(issuer, id, key, None).map_err(|e| bad(&e))?;
            found = true;
        }
    }
    if found {
        Ok(roots)
    } else {
        Err(bad(&"it has no root key").next("give the issuer's own `/.well-known/jwks.json` with `--jwks`"))
    }
}

/// A second spelling of a number would be a second name of one key.
fn root_key_id(kid: &str) -> Option<u32> {
    kid.parse().ok().filter(|id: &u32| id.to_string() == kid)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Chain;
    use super::*;
    use crate::context::Format;
    use crate::context::testing::{NOW, context};
    use serde_json::json;

    fn verify(chain: &Chain, issuer: &str, kid: &str, key: &PublicKey) -> Result<serde_json::Value, Kind> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jwks.json");
        let mut jwk = serde_json::to_value(key.to_jwk()).unwrap();
        jwk["kid"] = json!(kid);
        std::fs::write(&path, json!({"keys": [jwk]}).to_string()).unwrap();
        let (mut context, out, _) = context(Format::Json, chain.token.as_str());
        let args = Args {
            token: "-".into(),
            issuer: issuer.into(),
            jwks: Some(path.to_str().unwrap().into()),
            effective: false,
        };
        run(args, &mut context).map_err(|e| e.kind())?;
        Ok(out.json())
    }

    #[test]
    fn only_the_issuers_own_signature_verifies() {
        let (chain, other) = (Chain::new(NOW + 60), Chain::new(NOW + 60));
        let report = verify(&chain, &chain.issuer, "1", &chain.root.public()).unwrap();
        assert_eq!(report["verified"], true);
        let check = |issuer: &str, kid: &str, key: PublicKey, kind| {
            assert_eq!(
                verify(&chain, issuer, kid, &key).err(),
                Some(kind),
                "{issuer} {kid}"
            );
        };
        check(&chain.issuer, "1", other.root.public(), Kind::Denied);
        check("https://other.example", "1", chain.root.public(), Kind::Denied);
        check(&chain.issuer, "2", chain.root.public(), Kind::Denied);
        check(&chain.issuer, "01", chain.root.public(), Kind::Failure);
        let expired = Chain::new(NOW);
        let denied = verify(&expired, &expired.issuer, "1", &expired.root.public());
        assert_eq!(denied.err(), Some(Kind::Denied));
    }
}
