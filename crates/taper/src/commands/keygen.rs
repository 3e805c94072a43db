//! `taper keygen`.

use clap::ValueEnum;
use serde_json::json;
use taper_agent::{KeySource, keyfile, keyring};
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
    /// Where the private key goes, a file or `keyring:NAME`; there must be none yet.
    #[arg(long, value_name = "KEY")]
    out: KeySource,
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
    match &args.out {
        KeySource::File(path) => keyfile::create(path, &key)?,
        KeySource::Keyring(name) => keyring::create(name, &key)?,
        _ => {
            return Err(Failure::usage("a new key goes into a file or a keyring").next(
                "`--out FILE` or `--out keyring:NAME`; `taper agent generate` makes one in the agent",
            ));
        }
    }
    let public = key.public();
    let jwk = serde_json::to_value(public.to_jwk()).map_err(Failure::failed)?;
    context.talk(format_args!(
        "private key in {}, thumbprint {}",
        args.out,
        public.thumbprint()
    ));
    let mut json =
        json!({"jwk": jwk, "thumbprint": public.thumbprint().to_string(), "key": args.out.to_string()});
    if let (KeySource::File(path), Some(members)) = (&args.out, json.as_object_mut()) {
        members.insert("file".to_owned(), json!(path));
    }
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
                out: KeySource::File(out.clone()),
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
        let out = KeySource::File(folder.path().join("key"));
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

    #[test]
    fn a_new_key_goes_into_a_file_or_a_keyring() {
        for out in ["agent:", "env:"] {
            let (mut text, stdout, _) = context(Format::Text, "");
            let args = Args {
                alg: Alg::Ed25519,
                out: out.parse().unwrap(),
            };
            assert_eq!(run(args, &mut text).unwrap_err().kind(), Kind::Usage);
            assert_eq!(stdout.text(), "");
        }
    }

    #[cfg(all(feature = "keyring", target_os = "linux"))]
    #[test]
    fn a_key_goes_into_the_keyring() {
        if std::env::var("TAPER_NOT_RUN")
            .is_ok_and(|left_out| left_out.split(' ').any(|one| one == "keyring"))
        {
            return;
        }
        let name = format!("test-{}", rng::random_id_128(&mut rng::os()));
        let (mut json, stdout, _) = context(Format::Json, "");
        let args = || Args {
            alg: Alg::Ed25519,
            out: KeySource::Keyring(name.clone()),
        };
        let made = run(args(), &mut json);
        let again = run(args(), &mut json).map_err(|failure| failure.kind());
        let read = keyring::load(&name);
        let removed = keyring::remove(&name);
        made.unwrap();
        removed.unwrap();
        assert_eq!(again, Err(Kind::Failure));
        let thumbprint = read.unwrap().public().thumbprint().to_string();
        assert_eq!(stdout.json()["thumbprint"], thumbprint);
        assert_eq!(stdout.json()["key"], format!("keyring:{name}"));
    }
}
