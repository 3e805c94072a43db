//! The development identity provider of `taper up`: access tokens for whoever sits at this machine.
//!
//! For development only (RULES 32): its issuer URL is on loopback and ends in `/development`, its
//! metadata says so too, and its key is made fresh for each folder. Tokens are signed locally with
//! the folder's key, so `taper dev-token` needs no running server; the server only publishes the key.

use std::fs;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::response::Json;
use axum::routing::get;
use serde_json::{Value, json};
use taper_agent::keyfile;
use taper_dpop::{Algorithm, PrivateKey, base64url_encode};
use taper_service::rng;
use tokio::net::TcpListener;
use url::{Host, Url};

use crate::world;

/// The path of the issuer URL, by which anybody can see what it is.
pub(crate) const PATH: &str = "/development";
/// The longest life of a token, in seconds: a day.
const MAX_TTL: u64 = 86_400;

const FOLDER: &str = "idp";
const KEY: &str = "key.jwk";

/// Why the provider cannot work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The issuer URL is not one of a development provider.
    #[error("`{0}` is not `http://127.0.0.1:PORT{PATH}`")]
    Issuer(String),
    /// The listener can be reached from other machines.
    #[error("the development provider listens on loopback only")]
    NotLoopback,
    /// Its folder cannot be read or written.
    #[error("cannot use `{}`: {source}", path.display())]
    Folder {
        /// Which file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Its key cannot be used.
    #[error(transparent)]
    Key(#[from] taper_agent::Error),
    /// Nothing was ever up in the folder.
    #[error("{0}")]
    Urls(String),
    /// The token that was asked for makes no sense.
    #[error("{0}")]
    Token(&'static str),
}

/// Who a development token is for.
pub(crate) struct Subject<'a> {
    /// The `sub`.
    pub(crate) name: &'a str,
    /// The `groups` claim.
    pub(crate) groups: &'a [String],
    /// The lifetime in seconds, at most a day.
    pub(crate) ttl: u64,
}

/// The provider of one folder.
pub(crate) struct Provider {
    issuer: String,
    key: PrivateKey,
}

impl Provider {
    /// The provider of `dir` as `issuer`. The first time its key is made.
    ///
    /// # Errors
    /// [`Error::Issuer`], [`Error::Folder`], [`Error::Key`].
    pub(crate) fn open(dir: &Path, issuer: &str) -> Result<Self, Error> {
        let url = Url::parse(issuer).map_err(|_| Error::Issuer(issuer.to_owned()))?;
        let loopback = matches!(url.host(), Some(Host::Ipv4(address)) if address.is_loopback());
        if !loopback || url.scheme() != "http" || url.path() != PATH || url.query().is_some() {
            return Err(Error::Issuer(issuer.to_owned()));
        }
        let folder = dir.join(FOLDER);
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        let path = folder.join(KEY);
        match keyfile::create(&path, &PrivateKey::generate(Algorithm::EdDsa, &mut rng::os())) {
            Ok(()) | Err(taper_agent::Error::Exists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Self {
            issuer: issuer.to_owned(),
            key: keyfile::load(&path)?,
        })
    }

    /// Publishes metadata and key on `listener` until `stop` resolves.
    ///
    /// # Errors
    /// When the listener is not on loopback, or fails.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        if !listener.local_addr()?.ip().is_loopback() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, Error::NotLoopback));
        }
        axum::serve(listener, self.router())
            .with_graceful_shutdown(stop)
            .await
    }

    fn router(&self) -> Router {
        let (metadata, keys) = (self.metadata(), self.keys());
        Router::new()
            .route(
                &format!("{PATH}/.well-known/openid-configuration"),
                get(move || async move { Json(metadata) }),
            )
            .route(
                &format!("{PATH}/jwks.json"),
                get(move || async move { Json(keys) }),
            )
    }

    fn metadata(&self) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("{}/jwks.json", self.issuer),
            "response_types_supported": [],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [self.key.algorithm().as_str()],
            "taper_development": true,
        })
    }

    fn keys(&self) -> Value {
        let public = self.key.public();
        let mut jwk = serde_json::to_value(public.to_jwk()).unwrap_or_default();
        if let Value::Object(members) = &mut jwk {
            members.insert("kid".to_owned(), public.thumbprint().to_string().into());
            members.insert("alg".to_owned(), public.algorithm().as_str().into());
            members.insert("use".to_owned(), "sig".into());
        }
        json!({"keys": [jwk]})
    }
}

/// An access token (RFC 9068) of the provider of `dir`, made at `now` (seconds since the Unix epoch) for
/// the issuer of the same folder.
///
/// # Errors
/// [`Error::Urls`] or [`Error::Key`] when nothing was ever up in `dir`, [`Error::Token`] for an empty
/// subject or a lifetime out of range.
pub(crate) fn mint(dir: &Path, subject: &Subject<'_>, now: i64) -> Result<String, Error> {
    if subject.name.is_empty() {
        return Err(Error::Token("the subject is empty"));
    }
    if !(1..=MAX_TTL).contains(&subject.ttl) {
        return Err(Error::Token("a development token lives for 1 s to 24 h"));
    }
    let urls = world::read_urls(dir).map_err(|e| Error::Urls(format!("{e:#}")))?;
    let key = keyfile::load(&dir.join(FOLDER).join(KEY))?;
    let header = json!({
        "typ": "at+jwt",
        "alg": key.algorithm().as_str(),
        "kid": key.public().thumbprint().to_string(),
    });
    let claims = json!({
        "iss": urls.idp,
        "aud": urls.issuer,
        "sub": subject.name,
        "client_id": world::CLIENT_ID,
        "groups": subject.groups,
        "iat": now,
        "exp": now.saturating_add_unsigned(subject.ttl),
        "jti": rng::random_id_128(&mut rng::os()),
    });
    let part = |value: &Value| base64url_encode(value.to_string().as_bytes());
    let signing_input = format!("{}.{}", part(&header), part(&claims));
    let signature = base64url_encode(&key.sign(signing_input.as_bytes()));
    Ok(format!("{signing_input}.{signature}"))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Folder { path, source }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use taper_oauth::{JwkSet, TrustedIssuer, UnverifiedJwt, jwt::Expected};
    use taper_service::fetch::{FetchRules, Fetcher};

    const IDP: &str = "http://127.0.0.1:7000/development";
    const AUD: &str = "http://127.0.0.1:7001";
    const NOW: i64 = 1_769_851_800;

    /// A folder as `taper up` leaves it.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let ports = json!({"issuer": 7001, "admin": 7002, "idp": 7000, "proxy": 7003, "git": 7004});
        let urls = json!({"issuer": AUD, "idp": IDP, "mcp": {"git": "http://127.0.0.1:7003/git/mcp"},
            "admin": "http://127.0.0.1:7002", "ports": ports});
        fs::write(dir.path().join("up.json"), urls.to_string()).unwrap();
        dir
    }

    fn alice(groups: &[String]) -> Subject<'_> {
        Subject {
            name: "alice",
            groups,
            ttl: 60,
        }
    }

    #[test]
    fn a_token_is_accepted_by_an_issuer_that_trusts_the_provider() {
        let dir = folder();
        let provider = Provider::open(dir.path(), IDP).unwrap();
        let token = mint(dir.path(), &alice(&["eng".into(), "ops".into()]), NOW).unwrap();
        let keys = JwkSet::parse(provider.keys().to_string().as_bytes()).unwrap();
        let jwt = UnverifiedJwt::parse(&token).unwrap();
        assert_eq!(jwt.claimed_issuer(), IDP);
        let key = keys.find(jwt.kid().unwrap()).unwrap();
        let verify = |audience: &str, now| {
            let trusted = TrustedIssuer::new(IDP, vec![audience.to_owned()]);
            let jwt = UnverifiedJwt::parse(&token).unwrap();
            jwt.verify(&trusted, key, Expected::AccessToken, now)
        };
        let claims = verify(AUD, NOW).unwrap();
        assert_eq!(claims.sub, "alice");
        assert!(verify(AUD, NOW + 60).is_err());
        assert!(verify("http://127.0.0.1:7002", NOW).is_err());
    }

    #[test]
    fn the_key_stays_with_its_folder_and_is_private() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let keys = |dir: &tempfile::TempDir| Provider::open(dir.path(), IDP).unwrap().keys();
        assert_eq!(keys(&a), keys(&a));
        assert_ne!(keys(&a), keys(&b));
        assert!(keys(&a)["keys"][0].get("d").is_none());
        keyfile::load(&a.path().join("idp/key.jwk")).unwrap();
    }

    #[test]
    fn only_a_marked_loopback_url_is_an_issuer() {
        let dir = tempfile::tempdir().unwrap();
        let check = |issuer: &str, accepted: bool| {
            assert_eq!(Provider::open(dir.path(), issuer).is_ok(), accepted, "{issuer}");
        };
        check(IDP, true);
        check("http://127.0.0.1:7000", false);
        check("http://192.0.2.1:7000/development", false);
        check("https://idp.example/development", false);
        check("http://localhost.example:7000/development", false);
        check("http://127.0.0.1:7000/development?x", false);
        check("", false);
    }

    #[test]
    fn tokens_that_make_no_sense_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(mint(dir.path(), &alice(&[]), NOW), Err(Error::Urls(_))));
        let dir = folder();
        assert!(matches!(mint(dir.path(), &alice(&[]), NOW), Err(Error::Key(_))));
        Provider::open(dir.path(), IDP).unwrap();
        let check = |name: &str, ttl, accepted| {
            let subject = Subject {
                name,
                groups: &[],
                ttl,
            };
            assert_eq!(mint(dir.path(), &subject, NOW).is_ok(), accepted, "{name} {ttl}");
        };
        check("alice", 1, true);
        check("alice", MAX_TTL, true);
        check("alice", 0, false);
        check("alice", MAX_TTL + 1, false);
        check("", 60, false);
    }

    #[tokio::test]
    async fn metadata_and_keys_are_published_and_marked() {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap();
        let issuer = format!("http://{}{PATH}", listener.local_addr().unwrap());
        let provider = Provider::open(dir.path(), &issuer).unwrap();
        let keys = provider.keys();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let rules = FetchRules {
            allow_loopback_http: true,
            ..FetchRules::default()
        };
        let fetcher = Fetcher::new(&rules).unwrap();
        let reading = async {
            let read = async |url: String| {
                let answer = fetcher.get(&url, 64 * 1024).await.unwrap();
                serde_json::from_slice::<Value>(&answer.body).unwrap()
            };
            let metadata = read(format!("{issuer}/.well-known/openid-configuration")).await;
            assert_eq!(metadata["issuer"], *issuer);
            assert_eq!(metadata["taper_development"], true);
            assert_eq!(
                read(metadata["jwks_uri"].as_str().unwrap().to_owned()).await,
                keys
            );
            stop.send(()).unwrap();
        };
        let serving = provider.serve(listener, async { stopped.await.unwrap_or(()) });
        let (served, ()) = tokio::join!(serving, reading);
        served.unwrap();
    }

    #[tokio::test]
    async fn a_listener_that_others_can_reach_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let provider = Provider::open(dir.path(), IDP).unwrap();
        // Bound, so that the address is real, and dropped before anything could connect.
        let listener = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], 0)))
            .await
            .unwrap();
        assert!(provider.serve(listener, async {}).await.is_err());
    }
}
