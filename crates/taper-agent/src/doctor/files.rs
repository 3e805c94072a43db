//! What lies on this machine: wallet, capability and key.

use std::path::Path;

use taper_capability::{Token, UnverifiedToken};
use taper_service::clock::rfc3339;

use super::{Finding, Known, Patient};
use crate::folder::{Named, private_folder};
use crate::wallet::{CAPABILITY_FILE, Contents, KEY_FILE, is_absent};
use crate::{Error, KeySource, blocking, source};

/// With less than this left, in seconds, a capability ends soon.
const SOON: i64 = 60;

const EXCHANGE: &str = "`taper exchange` gets a capability";

pub(super) async fn examine(patient: &Patient, now: i64, findings: &mut Vec<Finding>) -> Known {
    let mut known = Known {
        issuer: patient.issuer.clone(),
        url: patient.url.clone(),
        ..Known::default()
    };
    let mut key = patient.key.clone();
    let mut text = None;
    if let Some(dir) = &patient.wallet {
        let (finding, contents) = wallet(dir).await;
        findings.push(finding);
        key = key.or_else(|| Some(KeySource::File(dir.join(KEY_FILE))));
        known.is_renewed = true;
        if let Some(contents) = contents {
            if let (None, Some(named)) = (&patient.key, contents.key) {
                key = named.parse().ok();
            }
            known.issuer.get_or_insert(contents.issuer);
            known.url = known.url.or_else(|| contents.resources.into_iter().next());
            text = Some(Ok(contents.token.expose().to_owned()));
        }
    } else if let Some(path) = &patient.token {
        text = Some(token_file(path, findings).await);
    }
    match text {
        Some(Ok(text)) => decode(&text, &mut known, findings),
        Some(Err(finding)) => findings.push(finding),
        None => findings.push(
            Finding::skipped("capability", "no capability was named")
                .next("`--token FILE` or `--wallet DIR`"),
        ),
    }
    findings.extend(expiry(&mut known, now));
    findings.push(key_of(key.as_ref(), &mut known).await);
    findings.push(holder(&known));
    findings.push(client(patient, &known));
    known
}

async fn wallet(dir: &Path) -> (Finding, Option<Contents>) {
    let name = "wallet";
    let folder = dir.to_owned();
    let read = blocking(move || {
        // A wallet that is not there is not made by looking at it.
        if folder.is_dir() {
            private_folder(&folder, Named::Itself)?;
        }
        Contents::read(&folder)
    });
    match read.await {
        Ok(Some(contents)) if contents.revoked => {
            let finding = Finding::fail(name, "the issuer revoked its grant; it asks for no other").next(
                format!("where it shall: `rm {}`", dir.join(CAPABILITY_FILE).display()),
            );
            (finding, Some(contents))
        }
        Ok(Some(contents)) => {
            let what = format!("{} holds a capability of {}", dir.display(), contents.issuer);
            (Finding::ok(name, what), Some(contents))
        }
        Ok(None) => {
            let what = format!("{} holds no capability yet", dir.display());
            let next = "the first request through `taper bridge --wallet` obtains one";
            (Finding::warn(name, what).next(next), None)
        }
        Err(error) => (Finding::fail(name, error.to_string()), None),
    }
}

async fn token_file(path: &Path, findings: &mut Vec<Finding>) -> Result<String, Finding> {
    let file = path.to_owned();
    let read = blocking(move || source::read_text(&file)).await;
    findings.extend(mode(path));
    match read {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(Finding::fail("capability", error.to_string()).next(EXCHANGE)),
    }
}

/// A capability is worth nothing without its key; whoever reads it learns what its holder may do.
#[cfg(unix)]
fn mode(path: &Path) -> Option<Finding> {
    use std::os::unix::fs::MetadataExt as _;
    let mode = std::fs::metadata(path).ok()?.mode() & 0o7777;
    let shown = path.display();
    let what = format!("`{shown}` has mode {mode:04o}");
    Some(if mode & 0o077 == 0 {
        Finding::ok("file-mode", what)
    } else {
        Finding::warn("file-mode", format!("{what}: other users may read it"))
            .next(format!("`chmod 600 {shown}`"))
    })
}

#[cfg(not(unix))]
fn mode(_: &Path) -> Option<Finding> {
    None
}

fn decode(text: &str, known: &mut Known, findings: &mut Vec<Finding>) {
    let name = "capability";
    let decoded = Token::parse(text).and_then(|token| Ok((UnverifiedToken::decode(token.as_str())?, token)));
    match decoded {
        Ok((chain, token)) => {
            let what = format!(
                "granted by {} for {} to the client {}, {} hand-over{}",
                chain.issuer(),
                chain.subject().sub,
                chain.client(),
                chain.depth(),
                if chain.depth() == 1 { "" } else { "s" }
            );
            findings.push(Finding::ok(name, what));
            (known.chain, known.token) = (Some(chain), Some(token));
        }
        Err(error) => {
            let what = format!("it does not decode: {error} [rule {}]", error.rule());
            findings.push(Finding::fail(name, what).next(EXCHANGE));
        }
    }
}

fn expiry(known: &mut Known, now: i64) -> Option<Finding> {
    let name = "expiry";
    let chain = known.chain.as_ref()?;
    let end = chain.expires_at();
    let left = end.saturating_sub(now);
    known.has_ended = left <= 0;
    if known.is_renewed && left < SOON {
        return Some(Finding::ok(
            name,
            "the next request through the wallet renews the capability",
        ));
    }
    let next = match chain.depth() {
        0 => "`taper exchange` gets a new one",
        _ => "ask its delegator for a new one: a delegate does not renew",
    };
    Some(if left <= 0 {
        Finding::fail(name, format!("the capability ended at {}", rfc3339(end))).next(next)
    } else if left < SOON {
        Finding::warn(name, format!("the capability ends in {left} s")).next(next)
    } else {
        Finding::ok(name, format!("the capability is valid until {}", rfc3339(end)))
    })
}

async fn key_of(source: Option<&KeySource>, known: &mut Known) -> Finding {
    let name = "key";
    let Some(source) = source else {
        return Finding::skipped(name, "no key was named")
            .next("`--key FILE`, `--key agent:` or `--wallet DIR`");
    };
    match source.open().await {
        Ok(key) => {
            let what = format!("{source} is the key {}", key.thumbprint());
            known.key = Some(key);
            Finding::ok(name, what)
        }
        Err(error) => {
            let next = next_of_key(source, &error);
            let finding = Finding::fail(name, error.to_string());
            match next {
                Some(next) => finding.next(next),
                None => finding,
            }
        }
    }
}

fn next_of_key(source: &KeySource, error: &Error) -> Option<String> {
    use taper_service::secret::SecretError;
    match (source, error) {
        (_, Error::Secret(SecretError::TooOpen { path, .. })) => {
            Some(format!("`chmod 600 {}`", path.display()))
        }
        (KeySource::File(path), Error::Secret(error)) if is_absent(error) => {
            Some(format!("`taper keygen --out {}` makes a key", path.display()))
        }
        (KeySource::Keyring(_), _) => {
            Some("`taper keygen --out keyring:NAME` makes a key in the keyring".to_owned())
        }
        (KeySource::Agent(_), _) => Some("`taper agent list` shows the keys of the agent".to_owned()),
        _ => None,
    }
}

fn holder(known: &Known) -> Finding {
    let name = "holder";
    let (Some(chain), Some(key)) = (&known.chain, &known.key) else {
        return Finding::skipped(name, "there is no capability, or no key");
    };
    let holder = chain.last_holder().thumbprint();
    if chain.last_holder() == key.public() {
        Finding::ok(name, "the capability is held by the key")
    } else {
        let what = format!(
            "the capability is held by the key {holder}, not by {}",
            key.thumbprint()
        );
        Finding::fail(name, what)
            .next("`--key` with the key of the exchange or hand-over, or `taper exchange` for this one")
    }
}

fn client(patient: &Patient, known: &Known) -> Finding {
    let name = "client";
    match (&patient.client_id, &known.chain) {
        (Some(id), Some(chain)) if chain.client() != id => {
            let what = format!(
                "the capability was granted to the client {}, not to {id}",
                chain.client()
            );
            Finding::fail(name, what)
                .next("`--client-id` as it was at the exchange, or `taper exchange` again")
        }
        (Some(_), Some(_)) => Finding::ok(name, "the capability was granted to the client"),
        _ => Finding::skipped(name, "there is no capability, or no `--client-id`"),
    }
}
