//! Taking back: what one was granted, what one handed on, one's own key; as a client what was granted to
//! it, as an administrator anything (RULES 28, `spec/exchange.md`).
//!
//! What these functions return is on the issuer's disk. An empty list says that there was nothing to
//! revoke: the issuer knows no such capability, its grant has ended, or all of it is revoked already.

use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use taper_capability::{Token, UnverifiedToken};
use taper_service::clock::Clock;
use taper_service::fetch::{Fetched, Request};
use taper_service::secret::Secret;

use crate::issuer::{self, Client, Issuer};
use crate::proven::{self, Outgoing, Prover, secret_value};
use crate::{Credential, Error, HolderKey};

const FORM: &str = "application/x-www-form-urlencoded";
/// The limit of an answer, in bytes: a hundred grants of a subject take 10 kB.
const MAX_ANSWER: usize = 64 * 1024;

/// What is revoked, in the form of the admin API and of the feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Everything granted for a subject, or to it as an actor.
    Subject {
        /// The issuer of its identity.
        iss: String,
        /// Its name there.
        sub: String,
    },
    /// What one holder hands on to another directly, in every chain of a grant.
    Delegation {
        /// The grant's id.
        grant: String,
        /// The thumbprint of the key that handed on.
        from: String,
        /// The thumbprint of the key that was handed to.
        to: String,
    },
}

/// A revocation that is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Its number in the issuer's feed; a thing that was revoked before keeps its first one.
    pub seq: u64,
    /// What it stops.
    pub what: Target,
}

/// Which part of what a key handed on is taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandedOn {
    /// All that it hands to the key with this RFC 7638 thumbprint under the grant, now and later.
    To(String),
    /// A branch that the key signed, by its id.
    Branch(String),
    /// The branch of the last hand-over in the chain that the key signed.
    Last,
}

/// What a client with a secret takes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Own {
    /// A grant of its own, by its id.
    Grant(String),
    /// A branch of a grant of its own.
    Branch {
        /// The grant's id.
        grant: String,
        /// The branch's id.
        branch: String,
        /// A capability that has this branch; it shows that the branch is of the grant.
        token: Token,
    },
    /// Its grants for a subject. One that is made meanwhile may be missed.
    Subject {
        /// The issuer of the subject's identity.
        iss: String,
        /// The subject.
        sub: String,
    },
    /// Itself: all that it was granted and all that it asks for later. There is no way back.
    Everything,
}

/// Revokes the grant of `token`, which was not handed on and of which `key` is the holder (RFC 7009 with
/// a DPoP proof whose `ath` is the token's), in the name of the client that it was granted to.
///
/// # Errors
/// [`Error::Issuer`] when the issuer refuses; [`Error::Request`] when `key` is not the holder, or the
/// capability is another issuer's.
pub async fn revoke(
    issuer: &Issuer,
    client: &Client,
    token: &Token,
    key: &HolderKey,
    clock: &dyn Clock,
) -> Result<Vec<Revoked>, Error> {
    demand_issuer(issuer, token)?;
    let credential = Credential::new(token, key.clone())?;
    let fields = [("token", credential.token()), ("client_id", &client.id)];
    prove(
        issuer,
        client.headers()?,
        &fields,
        key,
        Some(credential.token()),
        clock,
    )
    .await
}

/// Takes back a part of what `key` handed on. `token` is any capability of the grant in which `key` is a
/// holder, for a branch one that has it; it may have ended. No client is needed: the authority is the key.
///
/// # Errors
/// [`Error::Issuer`] when the issuer refuses; [`Error::Request`] when the capability is another issuer's.
pub async fn revoke_handed_on(
    issuer: &Issuer,
    token: &Token,
    key: &HolderKey,
    part: &HandedOn,
    clock: &dyn Clock,
) -> Result<Vec<Revoked>, Error> {
    demand_issuer(issuer, token)?;
    let sealed = token.sealed()?;
    let part = match part {
        HandedOn::To(thumbprint) => ("to", thumbprint.as_str()),
        HandedOn::Branch(id) => ("branch", id.as_str()),
        HandedOn::Last => ("branch", "last"),
    };
    let fields = [("token", sealed.as_str()), part];
    prove(
        issuer,
        HeaderMap::new(),
        &fields,
        key,
        Some(sealed.as_str()),
        clock,
    )
    .await
}

/// Revokes `key` itself: everything that it holds or held, at this issuer, for ever. Without a `token`
/// the key has to be the first holder of a grant, with one any holder of it.
///
/// # Errors
/// [`Error::Issuer`] when the issuer refuses; [`Error::Request`] when the capability is another issuer's.
pub async fn revoke_key(
    issuer: &Issuer,
    token: Option<&Token>,
    key: &HolderKey,
    clock: &dyn Clock,
) -> Result<Vec<Revoked>, Error> {
    let sealed = match token {
        Some(token) => {
            demand_issuer(issuer, token)?;
            Some(token.sealed()?)
        }
        None => None,
    };
    let thumbprint = key.thumbprint().to_string();
    let token = sealed.as_ref().map(Token::as_str);
    let mut fields = vec![("holder", thumbprint.as_str())];
    fields.extend(token.map(|token| ("token", token)));
    prove(issuer, HeaderMap::new(), &fields, key, token, clock).await
}

/// Takes back what was granted to a client, by its secret and without a proof.
///
/// # Errors
/// [`Error::Issuer`] when the issuer refuses; [`Error::Request`] for a client without a secret. When the
/// grants of a subject are many and an error comes between, the earlier ones are revoked: ask again.
pub async fn revoke_as_client(issuer: &Issuer, client: &Client, own: &Own) -> Result<Vec<Revoked>, Error> {
    if client.secret.is_none() {
        return Err(Error::Request(
            "only a client with a secret revokes without a proof".to_owned(),
        ));
    }
    let sealed = match own {
        Own::Branch { token, .. } => Some(token.sealed()?),
        _ => None,
    };
    let mut revoked = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut fields = match own {
            Own::Grant(id) => vec![("grant_id", id.as_str())],
            Own::Branch { grant, branch, .. } => {
                vec![("grant_id", grant.as_str()), ("branch", branch.as_str())]
            }
            Own::Subject { iss, sub } => vec![("subject", sub.as_str()), ("subject_issuer", iss.as_str())],
            Own::Everything => vec![("everything", "true")],
        };
        fields.extend(sealed.iter().map(|token| ("token", token.as_str())));
        fields.extend(after.iter().map(|id| ("after", id.as_str())));
        let url = endpoint(issuer)?;
        let request = Request::form(url, &fields)
            .headers(client.headers()?)
            .max_bytes(MAX_ANSWER);
        let page = read(url, &issuer.fetcher().send(request).await?)?;
        revoked.extend(page.entries);
        match page.next {
            Some(next) if after.as_ref() != Some(&next) => after = Some(next),
            Some(_) => return Err(issuer::unusable(url, "it goes round in circles".to_owned())),
            None => return Ok(revoked),
        }
    }
}

/// Revokes `target` through the admin listener at `admin_url`.
///
/// # Errors
/// [`Error::Issuer`] when it is refused, [`Error::Url`], [`Error::Fetch`].
pub async fn revoke_as_admin(
    admin_url: &str,
    admin_token: &Secret,
    target: &Target,
) -> Result<Revoked, Error> {
    #[derive(Deserialize)]
    struct Numbered {
        seq: u64,
    }
    let fetcher = proven::fetcher_for(admin_url)?;
    let url = format!("{}/admin/v1/revocations", admin_url.trim_end_matches('/'));
    let mut headers = HeaderMap::new();
    let bearer = format!("Bearer {}", admin_token.expose_str()?);
    headers.insert(AUTHORIZATION, secret_value(&bearer)?);
    let answer = fetcher.post_json(&url, target, headers, MAX_ANSWER).await?;
    if !answer.status.is_success() {
        return Err(issuer::refusal(&url, &answer));
    }
    let Numbered { seq } =
        serde_json::from_slice(&answer.body).map_err(|e| issuer::unusable(&url, e.to_string()))?;
    let what = target.clone();
    Ok(Revoked { seq, what })
}

/// The answer of `/revoke`.
#[derive(Deserialize)]
struct Page {
    entries: Vec<Revoked>,
    next: Option<String>,
}

fn endpoint(issuer: &Issuer) -> Result<&str, Error> {
    issuer.endpoint("revocation_endpoint", &issuer.metadata().revocation_endpoint)
}

/// Another issuer would answer that there is nothing to revoke, which could be taken for done.
fn demand_issuer(issuer: &Issuer, token: &Token) -> Result<(), Error> {
    let chain = UnverifiedToken::decode(token.as_str())?;
    if chain.issuer() == issuer.id() {
        return Ok(());
    }
    Err(Error::Request(format!(
        "the capability is of the issuer {}, not of {}",
        chain.issuer(),
        issuer.id()
    )))
}

async fn prove(
    issuer: &Issuer,
    headers: HeaderMap,
    fields: &[(&str, &str)],
    key: &HolderKey,
    token: Option<&str>,
    clock: &dyn Clock,
) -> Result<Vec<Revoked>, Error> {
    let url = endpoint(issuer)?;
    let form = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish();
    let prover = Prover {
        key,
        token,
        presents: false,
    };
    let mut outgoing = Outgoing::post(url, FORM, form);
    outgoing.headers = headers;
    outgoing.max_bytes = MAX_ANSWER;
    let answer = proven::send(issuer.fetcher(), clock, prover, outgoing, &mut None).await?;
    read(url, &answer).map(|page| page.entries)
}

fn read(url: &str, answer: &Fetched) -> Result<Page, Error> {
    if answer.status != StatusCode::OK {
        return Err(issuer::refusal(url, answer));
    }
    serde_json::from_slice(&answer.body).map_err(|e| issuer::unusable(url, e.to_string()))
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

    const NOTHING: &str = r#"{"entries":[]}"#;

    /// What the server was sent last: the fields, and who proved them.
    fn proven(server: &Server, token: Option<&str>) -> (Form, taper_dpop::PublicKey) {
        let seen = server.seen().pop().unwrap();
        let url = format!("{}/revoke", server.url);
        let expectation = Expectation {
            method: "POST",
            url: &url,
            token: token.map(TokenHash::of),
            nonce: NonceRule::Unused,
            now: NOW,
        };
        let proof = Proof::parse(seen.headers["dpop"].to_str().unwrap()).unwrap();
        let proof = proof.check(&expectation).unwrap().verify().unwrap();
        assert_eq!(proof.binds(&seen.body), Ok(true));
        assert!(!seen.headers.contains_key("authorization"));
        let form = Form::parse(&seen.body, 64 * 1024).unwrap();
        (form, proof.key().clone())
    }

    fn chain(server: &Server) -> Chain {
        Chain::of(
            &server.url,
            PrivateKey::generate(Algorithm::EdDsa, &mut rng::os()),
        )
    }

    #[tokio::test]
    async fn the_holder_proves_possession_of_what_it_takes_back() {
        let (server, issuer, client) = start().await;
        let chain = chain(&server);
        let holder = chain.key.public();
        server.will_answer(r#"{"entries":[{"seq":7,"what":{"grant":"g"}}]}"#);
        let revoked = revoke(&issuer, &client, &chain.token, &chain.holder(), clock().as_ref()).await;
        let what = Target::Grant("g".into());
        assert_eq!(revoked.unwrap(), [Revoked { seq: 7, what }]);
        let seen = server.seen().pop().unwrap();
        let form = Form::parse(&seen.body, 64 * 1024).unwrap();
        let token = form.get("token").unwrap();
        assert_ne!(token, chain.token.as_str(), "a sealed copy is sent");
        let (form, key) = proven(&server, Some(token));
        assert_eq!((form.get("client_id"), &key), (Some("dev"), &holder));
    }

    #[tokio::test]
    async fn a_delegator_and_a_key_prove_what_they_ask() {
        let (server, issuer, _) = start().await;
        let chain = chain(&server);
        let sealed = chain.token.sealed().unwrap();
        for (part, field) in [
            (HandedOn::To("t".into()), ("to", "t")),
            (HandedOn::Branch("b".into()), ("branch", "b")),
            (HandedOn::Last, ("branch", "last")),
        ] {
            server.will_answer(NOTHING);
            let revoked =
                revoke_handed_on(&issuer, &chain.token, &chain.holder(), &part, clock().as_ref()).await;
            assert_eq!(revoked.unwrap(), []);
            let (form, key) = proven(&server, Some(sealed.as_str()));
            assert_eq!(form.get(field.0), Some(field.1));
            assert_eq!(form.get("token"), Some(sealed.as_str()));
            assert_eq!((form.get("client_id"), key), (None, chain.key.public()));
        }
        for token in [None, Some(&chain.token)] {
            server.will_answer(NOTHING);
            let revoked = revoke_key(&issuer, token, &chain.holder(), clock().as_ref()).await;
            assert_eq!(revoked.unwrap(), []);
            let sent = token.map(|_| sealed.as_str());
            let (form, _) = proven(&server, sent);
            let thumbprint = chain.key.public().thumbprint().to_string();
            assert_eq!(form.get("holder"), Some(thumbprint.as_str()));
            assert_eq!(form.get("token"), sent);
        }
    }

    #[tokio::test]
    async fn a_client_goes_on_until_all_is_revoked() {
        let (server, issuer, public) = start().await;
        let (iss, sub) = ("https://idp.example".to_owned(), "alice".to_owned());
        let own = Own::Subject { iss, sub };
        let refused = revoke_as_client(&issuer, &public, &own).await;
        assert!(matches!(refused, Err(Error::Request(_))));
        let secret = Some(taper_oauth::Secret::new("hunter2"));
        let client = Client { secret, ..public };
        server.will_answer(r#"{"entries":[{"seq":1,"what":{"grant":"a"}}],"next":"a"}"#);
        server.will_answer(r#"{"entries":[{"seq":2,"what":{"grant":"b"}}]}"#);
        let revoked = revoke_as_client(&issuer, &client, &own).await.unwrap();
        let numbers: Vec<u64> = revoked.iter().map(|revoked| revoked.seq).collect();
        assert_eq!(numbers, [1, 2]);
        let seen = server.seen();
        let last = seen.last().unwrap();
        let form = Form::parse(&last.body, 1024).unwrap();
        assert_eq!(
            (form.get("after"), form.get("subject")),
            (Some("a"), Some("alice"))
        );
        assert!(last.headers.contains_key("authorization") && !last.headers.contains_key("dpop"));
        for _ in 0..2 {
            server.will_answer(r#"{"entries":[],"next":"a"}"#);
        }
        let circles = revoke_as_client(&issuer, &client, &own).await;
        assert!(matches!(circles, Err(Error::Answer { .. })));

        let chain = chain(&server);
        let (grant, branch, token) = ("g".to_owned(), "b".to_owned(), chain.token);
        for (own, body) in [
            (Own::Grant("g".into()), "grant_id=g"),
            (Own::Everything, "everything=true"),
            (Own::Branch { grant, branch, token }, "grant_id=g&branch=b&token="),
        ] {
            server.will_answer(NOTHING);
            revoke_as_client(&issuer, &client, &own).await.unwrap();
            let sent = server.seen().pop().unwrap().body;
            assert!(sent.starts_with(body.as_bytes()), "{sent:?}");
        }
    }

    #[tokio::test]
    async fn a_refusal_is_told_and_a_stranger_sends_nothing() {
        let (server, issuer, client) = start().await;
        let chain = chain(&server);
        let stranger = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
        let error = revoke(&issuer, &client, &chain.token, &stranger.into(), clock().as_ref()).await;
        assert!(matches!(error, Err(Error::Request(_))));
        let foreign = Chain::new();
        let error = revoke(
            &issuer,
            &client,
            &foreign.token,
            &foreign.holder(),
            clock().as_ref(),
        )
        .await;
        assert!(matches!(error, Err(Error::Request(reason)) if reason.contains("https://issuer.example")));
        assert_eq!(server.seen().len(), 1);
        server.will_answer((
            StatusCode::BAD_REQUEST,
            Json(json!({"error": "unsupported_token_type"})),
        ));
        let error = revoke(&issuer, &client, &chain.token, &chain.holder(), clock().as_ref()).await;
        assert!(matches!(error, Err(Error::Issuer { status: 400, .. })));
    }

    #[tokio::test]
    async fn an_administrator_names_what_is_revoked() {
        let server = Server::start().await;
        let (iss, sub) = ("i".to_owned(), "s".to_owned());
        let (grant, from, to) = ("g".to_owned(), "f".to_owned(), "t".to_owned());
        for (target, body) in [
            (Target::Grant("g".into()), json!({"grant": "g"})),
            (Target::Branch("b".into()), json!({"branch": "b"})),
            (Target::Holder("h".into()), json!({"holder": "h"})),
            (Target::Client("c".into()), json!({"client": "c"})),
            (
                Target::Subject { iss, sub },
                json!({"subject": {"iss": "i", "sub": "s"}}),
            ),
            (
                Target::Delegation { grant, from, to },
                json!({"delegation": {"grant": "g", "from": "f", "to": "t"}}),
            ),
        ] {
            server.will_answer(r#"{"seq":3}"#);
            let url = format!("{}/", server.url);
            let revoked = revoke_as_admin(&url, &Secret::new("hunter2"), &target).await;
            assert_eq!(revoked.unwrap().seq, 3);
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
