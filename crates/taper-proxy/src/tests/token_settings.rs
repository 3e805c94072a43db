//! What the configuration may say about the tokens of an upstream.

use taper_dpop::{Algorithm, PrivateKey};

use super::support::{NOW, Setup, config, usual};

#[test]
fn settings_are_checked_before_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let key = PrivateKey::from_bytes(Algorithm::EdDsa, &[7; 32]).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        taper_service::secret::write_private_file(&folder.path().join(name), bytes).unwrap();
    };
    write("key.jwk", key.to_jwk_string().as_bytes());
    let root = taper_capability::RootKey::generate(1, &mut taper_service::rng::os());
    let check = |url: &str, more: &str, oauth: &str, expected: &str| {
        let setup = Setup {
            upstream: Some(format!(
                "{{ http = '{url}'{more}, oauth = {{ client_id = 'proxy', {oauth} }} }}"
            )),
            ..usual()
        };
        let config = config(&setup, &root, "127.0.0.1:1".parse().unwrap(), folder.path());
        let clock = taper_service::clock::ManualClock::shared(NOW) as taper_service::clock::SharedClock;
        let told = crate::Proxy::check(&config, folder.path(), &clock)
            .map_or_else(|e| e.to_string(), |()| String::new());
        assert!(
            told.contains(expected) && told.is_empty() == expected.is_empty(),
            "{oauth}: {told}"
        );
        assert!(!told.contains("hunter2"), "{told}");
    };
    const UP: &str = "https://up.test/mcp";
    let own = "grant = 'client_credentials', issuer = 'https://as.test', client_secret = { file = 'secret' }";
    check(UP, "", own, "");
    check("http://127.0.0.1:1/", "", own, "");
    check("http://up.test/", "", own, "it is an https url");
    check(
        UP,
        ", headers = { Authorization = { file = 'secret' } }",
        own,
        "beside the header",
    );
    let with = |more: &str| format!("{own}, {more}");
    check(
        UP,
        "",
        &with("token_endpoint = 'https://as.test/token'"),
        "one of `issuer` and",
    );
    check(
        UP,
        "",
        &own.replace("https://as.test", "http://as.test"),
        "`oauth.issuer`: ",
    );
    check(
        UP,
        "",
        &own.replace("https://as.test", "https://as.test?x=1"),
        "`oauth.issuer`: ",
    );
    check(UP, "", &own.replace("'secret'", "'absent'"), "absent");
    check(
        UP,
        "",
        &with("client_auth = 'private_key_jwt'"),
        "`oauth.client_secret`: `private_key_jwt` does not use it",
    );
    check(
        UP,
        "",
        &with("client_key = 'key.jwk'"),
        "`oauth.client_key`: `client_secret_basic` does not use it",
    );
    check(UP, "", &with("scope = 'a  b'"), "`oauth.scope`");
    check(UP, "", &with("resource = 'up'"), "`oauth.resource`");
    check(UP, "", &with("audience = ''"), "`oauth.audience`");
    check(
        UP,
        "",
        &with("subject_issuer = 'https://idp.test'"),
        "`oauth.subject_issuer`: the grant does not use it",
    );
    check(UP, "", &with("max_tokens = 0"), "`oauth.max_tokens`");
    let by_key = "grant = 'client_credentials', token_endpoint = 'https://as.test/t', client_auth = 'private_key_jwt', client_key = 'key.jwk'";
    check(UP, "", by_key, "");
    check(
        UP,
        "",
        &by_key.replace("key.jwk", "secret"),
        "`oauth.client_key`: it is not a private key",
    );
    check(
        UP,
        "",
        &by_key.replace(", client_key = 'key.jwk'", ""),
        "`private_key_jwt` needs it",
    );
    let exchange = by_key.replace("client_credentials", "token_exchange");
    check(UP, "", &exchange, "`oauth.subject_issuer`: the grant needs it");
    let named = format!("{exchange}, subject_issuer = 'https://idp.test'");
    check(UP, "", &named, "`oauth.assertion_key`: the grant needs it");
    check(
        UP,
        "",
        &format!("{named}, assertion_key = 'key.jwk'"),
        "it is the key of `client_key`",
    );
    let other = PrivateKey::from_bytes(Algorithm::EdDsa, &[8; 32]).unwrap();
    write("other.jwk", other.to_jwk_string().as_bytes());
    check(UP, "", &format!("{named}, assertion_key = 'other.jwk'"), "");
    let by_certificate = "grant = 'client_credentials', issuer = 'https://as.test', client_auth = 'tls_client_auth', client_certificate = { certificate = 'client.pem', key = 'client-key.pem' }";
    check(UP, "", by_certificate, "client.pem");
    let pair = rcgen::generate_simple_self_signed(["client.test".to_owned()]).unwrap();
    write("client.pem", pair.cert.pem().as_bytes());
    write("client-key.pem", pair.signing_key.serialize_pem().as_bytes());
    check(UP, "", by_certificate, "");
    check(
        UP,
        "",
        &by_certificate.replace("'tls_client", "'self_signed_tls_client"),
        "",
    );
    check(
        UP,
        "",
        &by_certificate.replace("key = 'client-key.pem'", "key = 'secret'"),
        "not a pair in PEM",
    );
    let endpoint = |url: &str| {
        by_certificate.replace("issuer = 'https://as.test'", &format!("token_endpoint = '{url}'"))
    };
    check(UP, "", &endpoint("https://as.test/t"), "");
    check(UP, "", &endpoint("http://127.0.0.1:1/t"), "https is required");
}
