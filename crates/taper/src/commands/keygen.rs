//! `taper keygen`.

use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::json;
use taper_agent::keyfile;
use taper_dpop::{Algorithm, PrivateKey};
use taper_service::rng;

use crate::context::Context;
use crate::failure::Failure;

/// The arguments of `taper keygen`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The kind of key.
    #[arg(long, value_enum, default_value_t, value_name = "ALG")]
    alg: Alg,
    /// The file for the private key; it must not exist.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Alg {
    /// Ed25519.
    #[default]
    Ed25519,
    /// ECDSA on P-256.
    P256,
}

/// Makes a key pair.
pub(crate) fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let algorithm = match args.alg {
        Alg::Ed25519 => Algorithm::EdDsa,
        Alg::P256 => Algorithm::Es256,
    };
    let key = PrivateKey::generate(algorithm, &mut rng::os());
    keyfile::create(&args.out, &key)?;
    let public = key.public();
    let jwk = serde_json::to_value(public.to_jwk()).map_err(Failure::failed)?;
    context.talk(format_args!(
        "private key in {}, thumbprint {}",
        args.out.display(),
        public.thumbprint()
    ));
    let json = json!({"jwk": jwk, "thumbprint": public.thumbprint().to_string(), "file": args.out});
    context.result(&jwk, &json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Format;
    use crate::context::testing::context;
    use crate::failure::Kind;
    use taper_dpop::PublicKey;

    #[test]
    fn the_public_key_is_printed_and_a_file_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        for (alg, name) in [(Alg::Ed25519, "a"), (Alg::P256, "b")] {
            let out = folder.path().join(name);
            let args = || Args {
                alg,
                out: out.clone(),
            };
            let (mut text, stdout, stderr) = context(Format::Text, "");
            run(args(), &mut text).unwrap();
            let key = keyfile::load(&out).unwrap();
            assert_eq!(PublicKey::from_jwk_str(&stdout.text()).unwrap(), key.public());
            assert!(stderr.text().contains(&key.public().thumbprint().to_string()));
            assert!(!stdout.text().contains("\"d\""));
            assert_eq!(run(args(), &mut text).unwrap_err().kind(), Kind::Failure);
            assert_eq!(keyfile::load(&out).unwrap().public(), key.public());
        }
    }

    #[test]
    fn programs_get_one_object() {
        let folder = tempfile::tempdir().unwrap();
        let (mut json, stdout, stderr) = context(Format::Json, "");
        let out = folder.path().join("key");
        run(
            Args {
                alg: Alg::Ed25519,
                out,
            },
            &mut json,
        )
        .unwrap();
        let thumbprint = stdout.json()["thumbprint"].as_str().map(str::len);
        assert_eq!((thumbprint, stderr.text().as_str()), (Some(43), ""));
    }
}
