//! Certificates that callers show (`client_ca`): who has none of the authority's has no connection, whatever
//! else it holds, and a certificate takes the place of nothing.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use taper_tests::call::Call;
use taper_tests::daemon::write_private;
use tempfile::TempDir;

use crate::quick::Quick;
use crate::world::{Setup, World, until};
use crate::{calm, ends};

/// Writes the proxy's own pair, and those of three callers: of its authority, of another one, and of itself.
fn write(dir: &Path) {
    let file = |name: &str, pem: &str| write_private(&dir.join(name), pem);
    for (authority, caller) in [("ca", "known"), ("other-ca", "other")] {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, authority);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        file(&format!("{authority}.pem"), &issuer.pem());
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["caller.test".to_owned()]).unwrap();
        file(
            &format!("{caller}.pem"),
            &params.signed_by(&key, &issuer).unwrap().pem(),
        );
        file(&format!("{caller}-key.pem"), &key.serialize_pem());
    }
    for (name, host) in [("tls", "localhost"), ("self", "caller.test")] {
        let own = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        file(&format!("{name}.pem"), &own.cert.pem());
        file(&format!("{name}-key.pem"), &own.signing_key.serialize_pem());
    }
}

/// Sends a call over TLS, with this caller's certificate if it has one. The status, 000 without an answer.
fn send(world: &World, call: &Call, certificate: Option<&str>) -> (Output, String) {
    let dir = world.dir();
    fs::write(dir.join("body"), &call.body).unwrap();
    let port = world.at.rsplit_once(':').unwrap().1;
    let mut curl = Command::new("curl");
    curl.current_dir(dir)
        .args(["-sS", "--max-time", "30", "-o", "answer", "-w", "%{http_code}"])
        .args(["--cacert", "tls.pem", "--data-binary", "@body"])
        // Over HTTP/2 curl 7.88 now and then reports an error instead of a refusal; `protocols` has refusals over HTTP/2.
        .arg("--http1.1")
        .arg("--connect-to")
        .arg(format!("localhost:443:127.0.0.1:{port}"));
    for (name, value) in call.fields().iter().filter(|(name, _)| !name.starts_with(':')) {
        curl.arg("-H")
            .arg(format!("{name}: {}", String::from_utf8(value.clone()).unwrap()));
    }
    if let Some(name) = certificate {
        curl.args([
            "--cert",
            &format!("{name}.pem"),
            "--key",
            &format!("{name}-key.pem"),
        ]);
    }
    let output = curl.arg(&call.url).output().unwrap();
    let status = String::from_utf8(output.stdout.clone()).unwrap();
    (output, status)
}

pub(crate) fn of_callers() {
    for (mode, without, refused) in [("required", "000", 3.0), ("optional", "200", 2.0)] {
        let (upstream, folder) = (Quick::start(), TempDir::new().unwrap());
        write(folder.path());
        let tls = format!(
            "[tls]\ncertificate = \"tls.pem\"\nkey = \"tls-key.pem\"\nclient_ca = \"ca.pem\"\nclient_auth = \"{mode}\"\n"
        );
        let setup = Setup {
            public: Some("https://localhost"),
            issuers: &tls,
            ..Setup::default()
        };
        let world = World::start_in(folder.path(), &calm(&upstream), &setup);
        let caller = world.caller("calm");
        let seen = || world.counted("taper_proxy_requests_total", &[]);
        for (certificate, expected) in [
            (Some("known"), "200"),
            (None, without),
            (Some("other"), "000"),
            (Some("self"), "000"),
            (Some("known"), "200"),
        ] {
            let before = seen();
            let (output, status) = send(&world, &caller.call(), certificate);
            assert_eq!(status, expected, "{mode} {certificate:?}: {output:?}");
            let counted = if expected == "000" { 0.0 } else { 1.0 };
            assert!((seen() - before - counted).abs() < 0.5, "{mode} {certificate:?}");
        }
        let counted = || {
            world.counted(
                "taper_proxy_connections_refused_total",
                &["reason=\"certificate\""],
            )
        };
        assert!(until(|| counted() >= refused), "{mode}: {}", counted());
        assert!(counted() < refused + 0.5, "{mode}: {}", counted());
        // It is no capability, and no proof.
        for header in ["authorization", "dpop"] {
            let call = caller.call();
            let mut bare = call.clone();
            bare.headers = call
                .fields()
                .into_iter()
                .filter(|(name, _)| !name.starts_with(':') && name != header)
                .collect();
            (bare.token, bare.key) = (None, None);
            let (output, status) = send(&world, &bare, Some("known"));
            assert_eq!(status, "401", "{mode} without {header}: {output:?}");
        }
        ends(world);
    }
}
