//! Where a server is, and the credentials that it wants from the proxy.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use taper_service::config::{PrefixedSource, SecretSource, path_or_source};
use taper_service::edge::CertificateFiles;

/// Where a server is.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Written")]
pub enum Upstream {
    /// Streamable HTTP.
    Http {
        /// Its one URL.
        http: String,
        /// Headers that it needs: its own credentials, each `{ file = … }` or `{ env = … }`, with a
        /// `prefix` such as `"Bearer "` if the secret alone is kept there.
        headers: BTreeMap<String, PrefixedSource>,
        /// Further request headers of the caller that it gets (RULES 20).
        forward_headers: Vec<String>,
        /// The certificate authorities of an `https` URL, a PEM file, instead of the public's.
        ca_file: Option<PathBuf>,
        /// The certificate that the proxy shows to an `https` URL.
        tls: Option<CertificateFiles>,
        /// Tokens of its own authorization server, instead of an `authorization` header.
        oauth: Option<Box<Oauth>>,
    },
    /// A program that speaks over its standard input and output, one per session.
    Stdio {
        /// The command and its arguments.
        stdio: Vec<String>,
        /// Its environment; of our own it gets `PATH` only.
        env: BTreeMap<String, EnvValue>,
        /// Which era the program speaks.
        era: StdioEra,
        /// What becomes of its standard error.
        stderr: StdioStderr,
        /// Programs at once, over all sessions; one last holder has at most an eighth, one grant a quarter.
        max_children: usize,
        /// How long a program without a request or an open stream keeps running.
        idle: Duration,
    },
}

/// Programs at once, unless configured.
const CHILDREN: usize = 32;
/// How long an idle program runs, unless configured.
const IDLE: Duration = Duration::from_secs(600);

/// A variable's value: text, or the place of a secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum EnvValue {
    /// Not a secret.
    Plain(String),
    /// A secret.
    Secret(SecretSource),
}

/// The era of the protocol that a program speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StdioEra {
    /// Up to 2025-11-25: one program per session.
    #[default]
    Legacy,
    /// 2026-07-28: one program per grant and last holder.
    Modern,
}

/// What becomes of a program's standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StdioStderr {
    /// Nobody sees it: it may carry arguments of calls.
    #[default]
    Drop,
    /// It is logged at the debug level.
    Log,
}

/// How the proxy gets the tokens that an upstream wants from it. A caller's token is never one of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oauth {
    /// Whose token it is.
    pub grant: OauthGrant,
    /// The authorization server, whose metadata tells the token endpoint (RFC 8414, or OpenID Connect
    /// Discovery).
    #[serde(default)]
    pub issuer: Option<String>,
    /// The token endpoint, where there is no such metadata.
    #[serde(default)]
    pub token_endpoint: Option<String>,
    /// The proxy's client there.
    pub client_id: String,
    /// How the client authenticates.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// Its secret, for `client_secret_basic` and `client_secret_post`.
    #[serde(default)]
    pub client_secret: Option<SecretSource>,
    /// Its private key, for `private_key_jwt`: a JWK as `taper keygen` writes it.
    #[serde(default, deserialize_with = "some_path_or_source")]
    pub client_key: Option<SecretSource>,
    /// Its certificate, for `tls_client_auth` and `self_signed_tls_client_auth` (RFC 8705).
    #[serde(default)]
    pub client_certificate: Option<ClientCertificate>,
    /// What is asked for. Default: what the server gives by itself.
    #[serde(default)]
    pub scope: Option<String>,
    /// Where the token is to be used (RFC 8707).
    #[serde(default)]
    pub resource: Option<String>,
    /// The same as a logical name (RFC 8693 §2.1).
    #[serde(default)]
    pub audience: Option<String>,
    /// For `token_exchange`: the identity provider whose subjects the authorization server knows by the same
    /// names. A grant to a subject of another one gets no token.
    #[serde(default)]
    pub subject_issuer: Option<String>,
    /// For `token_exchange`: the private key that signs who the subject is, a JWK. Its public part is in
    /// `/.well-known/jwks.json` of the proxy.
    #[serde(default, deserialize_with = "some_path_or_source")]
    pub assertion_key: Option<SecretSource>,
    /// For `token_exchange`: the `iss` of what it signs. Default: the public URL.
    #[serde(default)]
    pub assertion_issuer: Option<String>,
    /// The `aud` of what is signed. Default: `issuer`, else the token endpoint.
    #[serde(default)]
    pub assertion_audience: Option<String>,
    /// For `token_exchange`: grants whose tokens are kept; the least recently used leave.
    #[serde(default = "default_tokens")]
    pub max_tokens: usize,
}

const fn default_tokens() -> usize {
    10_000
}

/// Whose token an upstream gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OauthGrant {
    /// The proxy's own, for all callers.
    ClientCredentials,
    /// One on behalf of each grant's subject (RFC 8693). What the proxy asks by itself has the client's own.
    TokenExchange,
}

/// How a client authenticates at a token endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// RFC 6749 §2.3.1, in the `Authorization` header.
    #[default]
    ClientSecretBasic,
    /// RFC 6749 §2.3.1, in the form.
    ClientSecretPost,
    /// RFC 7523 §2.2.
    PrivateKeyJwt,
    /// RFC 8705 §2, by a certificate. Of which kind it is, §2.1 or §2.2, is between the authorization server and
    /// who registered the client: what is sent is the same.
    #[serde(alias = "self_signed_tls_client_auth")]
    TlsClientAuth,
}

impl ClientAuth {
    /// The method's registered name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
            Self::PrivateKeyJwt => "private_key_jwt",
            Self::TlsClientAuth => "tls_client_auth",
        }
    }
}

/// A client's certificate at an authorization server. It is read at the start.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificate {
    /// The chain in PEM, the client's own certificate first.
    pub certificate: PathBuf,
    /// Its private key in PEM.
    #[serde(deserialize_with = "path_or_source")]
    pub key: SecretSource,
}

/// The table as it is written: the keys of both kinds, so that a mistake is told where it stands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    http: Option<String>,
    headers: Option<BTreeMap<String, PrefixedSource>>,
    forward_headers: Option<Vec<String>>,
    ca_file: Option<PathBuf>,
    tls: Option<CertificateFiles>,
    oauth: Option<Box<Oauth>>,
    stdio: Option<Vec<String>>,
    env: Option<BTreeMap<String, EnvValue>>,
    era: Option<StdioEra>,
    stderr: Option<StdioStderr>,
    max_children: Option<usize>,
    #[serde(default, deserialize_with = "super::some_duration")]
    idle: Option<Duration>,
}

impl TryFrom<Written> for Upstream {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let of_http = [
            ("headers", written.headers.is_some()),
            ("forward_headers", written.forward_headers.is_some()),
            ("ca_file", written.ca_file.is_some()),
            ("tls", written.tls.is_some()),
            ("oauth", written.oauth.is_some()),
        ];
        let of_stdio = [
            ("env", written.env.is_some()),
            ("era", written.era.is_some()),
            ("stderr", written.stderr.is_some()),
            ("max_children", written.max_children.is_some()),
            ("idle", written.idle.is_some()),
        ];
        let first = |keys: &[(&'static str, bool)]| {
            let there = keys.iter().find(|(_, there)| *there);
            there.map(|(name, _)| *name)
        };
        match (written.http, written.stdio) {
            (Some(http), None) => match first(&of_stdio) {
                Some(key) => Err(format!("`{key}` is for a program (`stdio`), not for `http`")),
                None => Ok(Self::Http {
                    http,
                    headers: written.headers.unwrap_or_default(),
                    forward_headers: written.forward_headers.unwrap_or_default(),
                    ca_file: written.ca_file,
                    tls: written.tls,
                    oauth: written.oauth,
                }),
            },
            (None, Some(stdio)) => match first(&of_http) {
                Some("oauth" | "headers") => Err(
                    "a program gets its credentials by `env`: `oauth` and `headers` are for `http`".into(),
                ),
                Some(key) => Err(format!("`{key}` is for `http`, not for a program (`stdio`)")),
                None => Ok(Self::Stdio {
                    stdio,
                    env: written.env.unwrap_or_default(),
                    era: written.era.unwrap_or_default(),
                    stderr: written.stderr.unwrap_or_default(),
                    max_children: written.max_children.unwrap_or(CHILDREN),
                    idle: written.idle.unwrap_or(IDLE),
                }),
            },
            (Some(_), Some(_)) => Err("`http` beside `stdio`: a server is in one place".into()),
            (None, None) => Err("one of `http` and `stdio` is needed".into()),
        }
    }
}

fn some_path_or_source<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SecretSource>, D::Error> {
    path_or_source(from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        #[allow(dead_code)]
        upstream: Upstream,
    }

    #[test]
    fn a_mistake_is_told_where_it_stands() {
        let check = |text: &str, expected: &str| {
            let parsed = taper_service::config::parse::<File>(text, "proxy.toml");
            let told = parsed.map_or_else(|error| error.to_string(), |_| "fine".to_owned());
            assert!(told.contains(expected), "{told}");
        };
        let oauth = "[upstream]\nhttp = 'http://a.test/'\n[upstream.oauth]\ngrant = 'client_credentials'\n\
                     issuer = 'https://as.test'\nclient_id = 'proxy'\nclient_secret = { file = 's' }\n";
        check(oauth, "fine");
        check(&format!("{oauth}scop = 'x'"), "proxy.toml:8:1: unknown ");
        check(
            &oauth.replace("client_credentials", "password"),
            "proxy.toml:4:9: unknown value `password`",
        );
        check(
            &oauth.replace("{ file = 's' }", "'hunter2'"),
            "proxy.toml:7:17: a secret is not written here",
        );
        check(&oauth.replace("client_id", "client"), "proxy.toml:");
        check(
            &oauth.replace("http = 'http://a.test/'", "stdio = ['server']"),
            "a program gets its credentials by `env`",
        );
        check(
            "upstream = { stdio = ['a'], tls = { certificate = 'c', key = 'k' } }",
            "`tls` is for `http`",
        );
        check(
            "upstream = { http = 'a', era = 'modern' }",
            "`era` is for a program",
        );
        check(
            "upstream = { http = 'a', stdio = ['a'] }",
            "a server is in one place",
        );
        check("upstream = {}", "one of `http` and `stdio` is needed");
        check(
            "upstream = { http = 'a', headers = { a = 'hunter2' } }",
            "proxy.toml:1:",
        );
        check(
            "upstream = { stdio = ['a'], idle = '1x' }",
            "`1x` is not a duration",
        );
    }
}
