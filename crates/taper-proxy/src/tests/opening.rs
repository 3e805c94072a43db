//! What keeps the proxy from starting, found before a port is open.

use std::path::Path;

use taper_capability::RootKey;
use taper_service::clock::{ManualClock, SharedClock};
use taper_service::rng;

use super::support::{NOW, Setup, config, usual};
use crate::{Config, OpenError, Proxy};

fn check_now(config: &Config, folder: &Path) -> Result<(), OpenError> {
    Proxy::check(config, folder, &(ManualClock::shared(NOW) as SharedClock))
}

#[test]
fn mistakes_are_named() {
    let root = RootKey::generate(1, &mut rng::os());
    let upstream = "127.0.0.1:1".parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let good = config(&usual(), &root, upstream, folder.path());
    check_now(&good, folder.path()).unwrap();

    let check = |change: &dyn Fn(&mut crate::Config), expected: &str| {
        let mut config = good.clone();
        change(&mut config);
        let message = check_now(&config, folder.path()).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    check(&|c| c.public_url = "http://proxy.test".into(), "public_url");
    check(&|c| c.public_url = "https://proxy.test/path".into(), "path");
    check(&|c| c.proxies = 0, "`proxies`");
    check(&|c| c.proxies = 2, "`nonce`");
    check(&|c| c.issuers.clear(), "`issuers`");
    check(&|c| c.servers.clear(), "`servers`");
    check(&|c| c.issuers[0].without_feed = false, "without_feed");
    check(
        &|c| c.issuers[0].jwks_uri = Some("https://i.test/".into()),
        "one of",
    );
    check(&|c| c.issuers[0].jwks_file = Some("absent".into()), "absent");
    check(&|c| c.issuers[0].jwks_file = Some("policy.dl".into()), "JWK set");
    check(&|c| c.issuers[0].issuer = "http://issuer.test".into(), "issuer");
    check(&|c| c.policies.push("absent.dl".into()), "absent.dl");
    let twice = good.issuers[0].clone();
    check(&move |c| c.issuers.push(twice.clone()), "twice");

    let bad = Setup {
        policy: Some("allow if nonsense"),
        ..usual()
    };
    let bad = config(&bad, &root, upstream, folder.path());
    let message = check_now(&bad, folder.path()).unwrap_err().to_string();
    assert!(message.contains("policy.dl:1:"), "{message}");
    for upstream_text in [
        "{ http = 'ftp://a.test/' }",
        "{ http = 'http://u:p@a.test/' }",
        "{ stdio = [] }",
    ] {
        let bad = Setup {
            upstream: Some(upstream_text.into()),
            policy: Some("allow if true;"),
            ..usual()
        };
        let bad = config(&bad, &root, upstream, folder.path());
        let message = check_now(&bad, folder.path()).unwrap_err().to_string();
        assert!(message.contains("server `git`"), "{message}");
    }
}
