//! What the next capability takes: the client's secret, the subject's token, and the token endpoint.

use std::path::PathBuf;

use http::StatusCode;
use taper_service::clock::rfc3339;
use taper_service::secret;

use super::{Finding, Known, Patient};
use crate::exchange::{Claims, bound_to};
use crate::wallet::{KeptLogin, SubjectToken, is_logged_in};
use crate::{Issuer, blocking};

/// With less than this left, in seconds, a token ends soon.
const SOON: i64 = 60;

/// Only what was named, or a wallet needs, is looked at: who has a capability renews nothing.
pub(super) async fn examine(patient: &Patient, known: &Known, now: i64, findings: &mut Vec<Finding>) {
    if let Some(path) = &patient.client_secret_file {
        findings.push(client_secret(path.clone()).await);
    }
    match (&patient.subject, &patient.wallet) {
        (None, Some(dir)) if is_logged_in(dir) => findings.push(login(dir.clone(), now).await),
        (None, None) => {}
        (source, _) => findings.push(subject(source.as_ref(), known, now).await),
    }
}

async fn client_secret(path: PathBuf) -> Finding {
    let name = "client-secret";
    let shown = path.display().to_string();
    match blocking(move || Ok(secret::read_secret_file(&path)?)).await {
        Ok(_) => Finding::ok(name, format!("{shown} holds a secret that only the user reads")),
        Err(error) => {
            Finding::fail(name, error.to_string()).next("`--client-secret-file` of the client's own secret")
        }
    }
}

/// The login of a wallet. Nothing is renewed by looking at it.
async fn login(dir: PathBuf, now: i64) -> Finding {
    let name = "subject-token";
    let again = format!("`taper login --wallet {}` logs in again", dir.display());
    let kept = match blocking(move || KeptLogin::read(&dir)).await {
        Ok(Some(kept)) => kept,
        Ok(None) => return Finding::fail(name, "nobody is logged in").next(again),
        Err(error) => return Finding::fail(name, error.to_string()).next(again),
    };
    let what = format!("the wallet is logged in at {}", kept.issuer);
    match kept.expires_at() {
        Some(end) if !kept.refreshes() && end <= now => {
            let what = format!(
                "{what}, whose access token ended at {}; it gave no refresh token",
                rfc3339(end)
            );
            Finding::fail(name, what).next(again)
        }
        Some(end) if !kept.refreshes() => Finding::ok(name, format!("{what} until {}", rfc3339(end))),
        _ => Finding::ok(name, what),
    }
}

async fn subject(source: Option<&SubjectToken>, known: &Known, now: i64) -> Finding {
    let name = "subject-token";
    let Some(source) = source else {
        return Finding::skipped(name, "no access token to exchange was named")
            .next("`--subject-token FILE` or `--subject-token-command COMMAND`, as the bridge has it");
    };
    let token = match source.read().await {
        Ok(token) => token,
        Err(error) => {
            return Finding::fail(name, error.to_string()).next("`taper login` gets an access token");
        }
    };
    let bound = bound_to(&token);
    if let (Some(jkt), Some(key)) = (&bound, &known.key)
        && *jkt != key.thumbprint().to_string()
    {
        let what = format!(
            "the access token is bound to the key {jkt}, not to {}",
            key.thumbprint()
        );
        return Finding::fail(name, what).next("`taper login --key` with the key of the capability");
    }
    match Claims::of(&token).exp {
        Some(exp) if exp <= now => Finding::fail(name, format!("the access token ended at {}", rfc3339(exp)))
            .next("`taper login` gets another, or see to what keeps the file fresh"),
        Some(exp) if exp.saturating_sub(now) < SOON => {
            Finding::warn(name, format!("the access token ends at {}", rfc3339(exp)))
                .next("`taper login` gets another")
        }
        Some(exp) => Finding::ok(name, format!("there is an access token until {}", rfc3339(exp))),
        None => Finding::ok(name, "there is an access token; it does not say until when"),
    }
}

/// Whether somebody is there who would exchange: asked for nothing, the endpoint refuses.
pub(super) async fn token_endpoint(issuer: &Issuer) -> Finding {
    const MAX: usize = 64 * 1024;
    let name = "token-endpoint";
    let metadata = issuer.metadata();
    let url = match issuer.endpoint("token_endpoint", &metadata.token_endpoint) {
        Ok(url) => url,
        Err(error) => return Finding::fail(name, error.to_string()),
    };
    let nothing: [(&str, &str); 0] = [];
    let answer = issuer
        .fetcher()
        .post_form(url, &nothing, http::HeaderMap::new(), MAX)
        .await;
    let next = "check that the issuer runs, and what stands in front of it";
    match answer {
        Ok(answer) if matches!(answer.status, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED) => {
            Finding::ok(name, format!("{url} answers"))
        }
        Ok(answer) => Finding::fail(
            name,
            format!("{url} answers with {} to an empty request", answer.status),
        )
        .next(next),
        Err(error) => Finding::fail(name, format!("{url} does not answer: {error}")).next(next),
    }
}
