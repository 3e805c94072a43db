//! What answers: the issuer, and the proxy with what it says to a harmless call.

use http::StatusCode;
use serde_json::Map;
use taper_capability::UnverifiedToken;
use taper_oauth::{AuthorizationServerMetadata, ProtectedResourceMetadata, json, jwk, metadata, uri};
use taper_service::clock::SharedClock;
use taper_service::fetch::Fetched;

use super::{Finding, Known, date, renewal};
use crate::{Credential, Era, Error, Issuer, McpClient, Refusal, fetcher_for};

/// The JSON-RPC error of a revision of MCP that the server lacks.
const NO_REVISION: i64 = -32022;

pub(super) async fn examine(known: &Known, clock: &SharedClock, findings: &mut Vec<Finding>) {
    let trusted = proxy(known, clock, findings).await;
    issuer(known, &trusted, clock, findings).await;
    findings.push(call(known, clock).await);
}

/// The issuer that the user names, or that both capability and proxy name: what a capability alone says may
/// be anybody's, and is not called.
async fn issuer(known: &Known, trusted: &[String], clock: &SharedClock, findings: &mut Vec<Finding>) {
    let own = known.chain.as_ref().map(UnverifiedToken::issuer);
    let vouched = own.filter(|own| trusted.iter().any(|issuer| issuer == own));
    let Some(id) = known.issuer.as_deref().or(vouched) else {
        let what = "no issuer is named by you, or by both capability and proxy";
        findings.push(Finding::skipped("issuer", what).next("`--issuer URL`"));
        return;
    };
    if let Some(own) = own.filter(|own| *own != id) {
        let what = format!("the capability is of {own}, not of {id}");
        let finding = Finding::fail("capability-issuer", what);
        findings.push(finding.next("`--issuer` as the capability has it, or `taper exchange` at this one"));
    }
    let document = async {
        let url = uri::authorization_server_metadata(id).map_err(|e| e.to_string())?;
        get(url.as_str()).await
    };
    let answer = match document.await {
        Ok(answer) => answer,
        Err(reason) => {
            let what = format!("{id} does not answer: {reason}");
            findings.push(Finding::fail("issuer", what).next("check `--issuer`, and that the issuer runs"));
            return;
        }
    };
    findings.push(date::clock("issuer-clock", &answer.headers, clock.unix()));
    match AuthorizationServerMetadata::parse(&answer.body, id) {
        Ok(document) => {
            findings.push(sane(id, &document, known));
            let issuer = Issuer::discover(id).await;
            if let Ok(issuer) = &issuer {
                findings.push(renewal::token_endpoint(issuer).await);
            }
            findings.push(root(id, issuer, known).await);
        }
        Err(error) => {
            let what = format!("{id} publishes metadata that cannot be used: {error}");
            let next = "check `--issuer`: it is spelled exactly as the issuer spells itself";
            findings.push(Finding::fail("issuer", what).next(next));
        }
    }
}

fn sane(id: &str, document: &AuthorizationServerMetadata, known: &Known) -> Finding {
    let name = "issuer";
    let algorithm = known.key.as_ref().map(|key| key.public().algorithm().as_str());
    let algorithms = &document.dpop_signing_alg_values_supported;
    if document.token_endpoint.is_none() || document.jwks_uri.is_none() {
        let what = format!("the metadata of {id} lacks `token_endpoint` or `jwks_uri`");
        return Finding::fail(name, what).next("check `--issuer`: this is no issuer of capabilities");
    }
    match algorithm.filter(|own| !algorithms.iter().any(|alg| alg == own)) {
        Some(own) => {
            let what = format!(
                "{id} does not take proofs with {own}, only {}",
                algorithms.join(", ")
            );
            Finding::fail(name, what).next("`taper keygen --alg` makes a key of another kind")
        }
        None => Finding::ok(name, format!("{id} answers")),
    }
}

/// A capability whose root key the issuer no longer publishes is one that no proxy will take.
async fn root(id: &str, issuer: Result<Issuer, Error>, known: &Known) -> Finding {
    let name = "root-key";
    let Some(chain) = known.chain.as_ref().filter(|chain| chain.issuer() == id) else {
        return Finding::skipped(name, "there is no capability of this issuer");
    };
    let keys = async { issuer?.keys().await };
    let keys = match keys.await {
        Ok(keys) => keys,
        Err(error) => return Finding::fail(name, format!("the keys of {id} cannot be had: {error}")),
    };
    let wanted = chain.root_key_id().to_string();
    let set = json::parse_object(&keys, jwk::MAX_SET).unwrap_or_default();
    let members = set.get("keys").and_then(|keys| keys.as_array());
    let known = members
        .into_iter()
        .flatten()
        .filter_map(|key| key.get("kid")?.as_str())
        .any(|kid| kid == wanted);
    if known {
        Finding::ok(name, format!("{id} publishes the root key {wanted}"))
    } else {
        Finding::fail(
            name,
            format!("{id} does not publish the root key {wanted} of the capability"),
        )
        .next("`taper exchange` gets a capability under a present root key")
    }
}

/// Returns the issuers that the proxy takes.
async fn proxy(known: &Known, clock: &SharedClock, findings: &mut Vec<Finding>) -> Vec<String> {
    let Some(url) = known.url.as_deref() else {
        findings.push(Finding::skipped("proxy", "no MCP server was named").next("`--url URL`"));
        return Vec::new();
    };
    findings.push(audience(url, known));
    let document = async {
        let url = uri::protected_resource_metadata(url).map_err(|e| e.to_string())?;
        get(url.as_str()).await
    };
    let answer = match document.await {
        Ok(answer) => answer,
        Err(reason) => {
            let what = format!("{url} has no metadata: {reason}");
            findings.push(Finding::fail("proxy", what).next("check `--url`, and that the proxy runs"));
            return Vec::new();
        }
    };
    findings.push(date::clock("proxy-clock", &answer.headers, clock.unix()));
    let document = match ProtectedResourceMetadata::parse(&answer.body, url) {
        Ok(document) => document,
        Err(error) => {
            let what = format!("{url} publishes metadata that cannot be used: {error}");
            let next = "check `--url`: it is spelled exactly as the proxy spells it";
            findings.push(Finding::fail("proxy", what).next(next));
            return Vec::new();
        }
    };
    findings.push(Finding::ok("proxy", format!("{url} answers")));
    let own = known.chain.as_ref().map(UnverifiedToken::issuer);
    findings.push(match own.or(known.issuer.as_deref()) {
        None => Finding::skipped("trust", "no issuer is known"),
        Some(own) if document.authorization_servers.iter().any(|issuer| issuer == own) => {
            Finding::ok("trust", format!("the proxy takes capabilities of {own}"))
        }
        Some(own) => {
            let trusted = document.authorization_servers.join(", ");
            let what = format!("the proxy takes capabilities of {trusted}, not of {own}");
            Finding::fail("trust", what).next("`taper exchange --issuer` with an issuer that the proxy takes")
        }
    });
    document.authorization_servers
}

fn audience(url: &str, known: &Known) -> Finding {
    let name = "audience";
    match &known.chain {
        None => Finding::skipped(name, "there is no capability"),
        Some(chain) if chain.audiences().iter().any(|audience| audience == url) => {
            Finding::ok(name, "the capability is for this URL")
        }
        Some(chain) => {
            let what = format!(
                "the capability is for {}, not for {url}",
                chain.audiences().join(", ")
            );
            Finding::fail(name, what).next(format!(
                "one of these as `--url`, or `taper exchange --resource {url}`"
            ))
        }
    }
}

/// A call that every capability may make, in the modern era or, where the server lacks it, the legacy one.
async fn call(known: &Known, clock: &SharedClock) -> Finding {
    let name = "call";
    let (Some(url), Some(token), Some(key)) = (&known.url, &known.token, &known.key) else {
        return Finding::skipped(name, "it needs a URL, a capability and its key");
    };
    let is_for = |chain: &UnverifiedToken| chain.audiences().iter().any(|audience| audience == url);
    if !known.chain.as_ref().is_some_and(is_for) {
        return Finding::skipped(name, "a capability is not shown where it is not for");
    }
    if known.has_ended && known.is_renewed {
        return Finding::skipped(name, "the wallet renews the capability first");
    }
    let ask = async |era: Era, method: &str| {
        let credential = Credential::new(token, key.clone())?;
        let mut client = McpClient::new(url, credential, era, clock.clone())?;
        let answer = client.request(method, Map::new()).await;
        // The answer is there already; a session that stays open ends by itself.
        let _ = client.close().await;
        answer
    };
    let mut answer = ask(Era::Modern, "server/discover").await;
    if let Err(Error::Refused(refusal)) = &answer
        && refusal.code == Some(NO_REVISION)
    {
        answer = ask(Era::Legacy, "ping").await;
    }
    match answer {
        Ok(_) => Finding::ok(
            name,
            "the proxy takes capability and proof, and the server answers",
        ),
        Err(Error::Refused(refusal)) => {
            let finding = Finding::fail(name, told(&refusal));
            match next(&refusal) {
                Some(next) => finding.next(next),
                None => finding,
            }
        }
        Err(error) => Finding::fail(name, error.to_string()),
    }
}

/// The refusal with its rule, which a 401 says at the end of its description.
fn told(refusal: &Refusal) -> String {
    match rule(refusal) {
        Some(rule) => format!("{refusal} [rule {rule}]"),
        None => refusal.to_string(),
    }
}

fn rule(refusal: &Refusal) -> Option<&str> {
    let data = refusal.data.as_ref().and_then(|data| data.rule.as_deref());
    let described = || {
        let description = refusal.challenge.as_ref()?.param("error_description")?;
        let (_, rule) = description.strip_suffix(')')?.rsplit_once('(')?;
        Some(rule)
    };
    data.or_else(described)
}

/// What to do about a refusal; the numbers are those of the specification's pages.
fn next(refusal: &Refusal) -> Option<&'static str> {
    let error = refusal
        .challenge
        .as_ref()
        .and_then(|challenge| challenge.param("error"));
    Some(match (refusal.status, rule(refusal), error) {
        (401, Some("M-12"), _) => {
            "`taper exchange` gets a new one, unless subject, client or key themselves are revoked"
        }
        (401, Some("M-11"), _) => "`taper exchange --issuer` with an issuer that the proxy takes",
        (401, _, Some("invalid_dpop_proof")) => "set this machine's clock, and check `--key` and `--url`",
        (401, ..) => "`taper inspect` shows what the capability says; `taper exchange` gets a new one",
        (403, _, Some("insufficient_scope")) => "`taper exchange --scope` with more of this server",
        (403, ..) => "`taper inspect --effective` shows what the capability still allows",
        (404, ..) => "check `--url`: the proxy has no such server",
        (421, ..) => "check `--url`: the proxy goes by another host",
        (429 | 502 | 503, ..) => "try again in a moment; the proxy's operator finds the reason in its log",
        _ => return None,
    })
}

async fn get(url: &str) -> Result<Fetched, String> {
    let fetched = async {
        fetcher_for(url)?
            .get(url, metadata::MAX_DOCUMENT)
            .await
            .map_err(Error::from)
    };
    match fetched.await {
        Ok(answer) if answer.status == StatusCode::OK => Ok(answer),
        Ok(answer) => Err(format!("status {}", answer.status)),
        Err(error) => Err(error.to_string()),
    }
}
