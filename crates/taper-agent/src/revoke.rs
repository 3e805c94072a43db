//! Taking a capability back: the holder's way (RFC 7009) and the administrator's.

use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use taper_capability::Token;
use taper_dpop::PrivateKey;
use taper_service::clock::Clock;
use taper_service::secret::Secret;

use crate::issuer::{self, Client, Issuer};
use crate::proven::{self, Outgoing, Prover, secret_value};
use crate::{Credential, Error};

const FORM: &str = "application/x-www-form-urlencoded";
const MAX_ANSWER: usize = 16 * 1024;

/// What an administrator revokes (RULES 28), in the form of the admin API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A grant, by its id.
    Grant(String),
    /// A branch: 64 lower-case hex digits.
    Branch(String),
    /// A holder key, by its RFC 7638 thumbprint.
    Holder(String),
    /// Everything granted to a client.
    Client(String),
}

/// Revokes the grant of `token`, of which `key` is the holder (RFC 7009 with a DPoP proof whose `ath`
/// is the token's). It is in force when this returns.
///
/// # Errors
/// [`Error::Issuer`] when the issuer refuses, [`Error::Request`] when `key` is not the holder.
pub async fn revoke(
    issuer: &Issuer,
    client: &Client,
    token: &Token,
    key: PrivateKey,
    clock: &dyn Clock,
) -> Result<(), Error> {
    let url = issuer.endpoint("revocation_endpoint", &issuer.metadata().revocation_endpoint)?;
    let credential = Credential::new(token, key)?;
    let form = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("token", credential.token())
        .append_pair("client_id", &client.id)
        .finish();
    let prover = Prover {
        key: credential.key(),
        token: Some(credential.token()),
        presents: false,
    };
    let mut outgoing = Outgoing::post(url, FORM, form);
    outgoing.headers = client.headers()?;
    outgoing.max_bytes = MAX_ANSWER;
    let answer = proven::send(issuer.fetcher(), clock, prover, outgoing, &mut None).await?;
    if answer.status == StatusCode::OK {
        Ok(())
    } else {
        Err(issuer::refusal(url, &answer))
    }
}

/// Revokes `target` through the admin listener at `admin_url`. It is in force when this returns.
///
/// # Errors
/// [`Error::Issuer`] when it is refused, [`Error::Url`], [`Error::Fetch`].
pub async fn revoke_as_admin(admin_url: &str, admin_token: &Secret, target: &Target) -> Result<(), Error> {
    let fetcher = proven::fetcher_for(admin_url)?;
    let url = format!("{}/admin/v1/revocations", admin_url.trim_end_matches('/'));
    let mut headers = HeaderMap::new();
    let bearer = format!("Bearer {}", admin_token.expose_str()?);
    headers.insert(AUTHORIZATION, secret_value(&bearer)?);
    let answer = fetcher.post_json(&url, target, headers, MAX_ANSWER).await?;
    if answer.status.is_success() {
        Ok(())
    } else {
        Err(issuer::refusal(&url, &answer))
    }
}

#[cfg(test)]
mod tests {
    use axum::Json;
    use serde_json::{Value, json};
    use taper_dpop::{Algorithm, Expectation, NonceRule, PrivateKey, Proof, TokenHash};
    use taper_oauth::{AuthorizationServerMetadata, Form};
    use taper_service::rng;

    use super::*;
    use crate::testing::{Chain, NOW, Server, clock};

    async fn start() -> (Server, Issuer, Client) {
        let server = Server::start().await;
        server.will_answer(Json(AuthorizationServerMetadata::for_issuer(&server.url)));
        let issuer = Issuer::discover(&server.url).await.unwrap();
        let client = Client {
            id: "dev".into(),
            secret: None,
        };
        (server, issuer, client)
    }

    #[tokio::test]
    async fn the_holder_proves_possession_of_what_it_takes_back() {
        let (server, issuer, client) = start().await;
        let chain = Chain::new();
        let holder = chain.key.public();
        server.will_answer(StatusCode::OK);
        revoke(&issuer, &client, &chain.token, chain.key, clock().as_ref())
            .await
            .unwrap();
        let seen = server.seen().pop().unwrap();
        let form = Form::parse(&seen.body, 64 * 1024).unwrap();
        let (token, url) = (form.get("token").unwrap(), format!("{}/revoke", server.url));
        assert_eq!(form.get("client_id"), Some("dev"));
        assert_ne!(token, chain.token.as_str(), "a sealed copy is sent");
        let expectation = Expectation {
            method: "POST",
            url: &url,
            token: Some(TokenHash::of(token)),
            nonce: NonceRule::Unused,
            now: NOW,
        };
        let proof = Proof::parse(seen.headers["dpop"].to_str().unwrap()).unwrap();
        let proof = proof.check(&expectation).unwrap().verify().unwrap();
        assert_eq!(proof.key(), &holder);
        assert_eq!(proof.binds(&seen.body), Ok(true));
        assert!(!seen.headers.contains_key("authorization"));
    }

    #[tokio::test]
    async fn a_refusal_is_told_and_a_stranger_sends_nothing() {
        let (server, issuer, client) = start().await;
        let chain = Chain::new();
        let stranger = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
        let error = revoke(&issuer, &client, &chain.token, stranger, clock().as_ref()).await;
        assert!(matches!(error, Err(Error::Request(_))));
        assert_eq!(server.seen().len(), 1);
        server.will_answer((
            StatusCode::BAD_REQUEST,
            Json(json!({"error": "unsupported_token_type"})),
        ));
        let error = revoke(&issuer, &client, &chain.token, chain.key, clock().as_ref()).await;
        assert!(matches!(error, Err(Error::Issuer { status: 400, .. })));
    }

    #[tokio::test]
    async fn an_administrator_names_what_is_revoked() {
        let server = Server::start().await;
        for (target, body) in [
            (Target::Grant("g".into()), json!({"grant": "g"})),
            (Target::Branch("b".into()), json!({"branch": "b"})),
            (Target::Holder("h".into()), json!({"holder": "h"})),
            (Target::Client("c".into()), json!({"client": "c"})),
        ] {
            server.will_answer(StatusCode::NO_CONTENT);
            revoke_as_admin(&format!("{}/", server.url), &Secret::new("hunter2"), &target)
                .await
                .unwrap();
            let seen = server.seen().pop().unwrap();
            assert_eq!(seen.path, "/admin/v1/revocations");
            assert_eq!(seen.headers["authorization"], "Bearer hunter2");
            assert_eq!(serde_json::from_slice::<Value>(&seen.body).unwrap(), body);
        }
        server.will_answer(StatusCode::UNAUTHORIZED);
        let refused = revoke_as_admin(&server.url, &Secret::new("x"), &Target::Grant("g".into())).await;
        assert!(matches!(refused, Err(Error::Answer { .. })));
    }
}
