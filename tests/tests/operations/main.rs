//! Runs what `examples/operations.md` says beside the two daemons of `examples/configs`, and holds every
//! metric that the page, the alerts and the dashboard name against what the daemons tell.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use taper_tests::daemon::write_private;
use taper_tests::pages::{FIRST_PORT, blocks, copy_examples, free_ports, on_ports};
use taper_tests::{root, taper_bin, taper_ok};
use tempfile::TempDir;

/// Both daemons, until the session ends.
const START: &str = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
taper issuer --config issuer.toml 2> issuer.log &
curl -sf -o /dev/null --retry 30 --retry-all-errors --retry-delay 1 http://127.0.0.1:9400/readyz
taper proxy --config proxy.toml 2> proxy.log &
curl -sf -o /dev/null --retry 30 --retry-all-errors --retry-delay 1 http://127.0.0.1:9405/readyz
curl -s -o /dev/null -X POST http://127.0.0.1:9405/git/mcp
curl -s -o /dev/null -X POST http://127.0.0.1:9400/token
";
const END: &str = "kill $(jobs -p) && wait\n";

/// The example configurations on loopback, with the key and the secrets that they name.
fn prepared(folder: &Path, port: u16) {
    copy_examples(folder, port);
    let configs = folder.join("examples/configs");
    taper_ok(&configs, &["keygen", "--out", "root-1.jwk"]);
    for secret in ["admin-token", "feed-secret"] {
        write_private(&configs.join(secret), "0123456789abcdef0123456789abcdef\n");
    }
    for daemon in ["issuer", "proxy"] {
        let file = configs.join(format!("{daemon}.toml"));
        let mut text = std::fs::read_to_string(&file).unwrap();
        for (from, to) in [
            ("https://issuer.example.com", "http://127.0.0.1:9400"),
            ("https://mcp.example.com", "http://127.0.0.1:9405"),
            ("https://login.example.com", "http://127.0.0.1:9412/development"),
            ("\ndevelopment = false", "\ndevelopment = true"),
            ("\ninsecure_loopback = false", "\ninsecure_loopback = true"),
            ("\nallow_loopback_http = false", "\nallow_loopback_http = true"),
        ] {
            text = text.replace(from, &on_ports(to, port));
        }
        std::fs::write(&file, text).unwrap();
    }
}

/// The families of a scraped page, as they are asked for.
fn families(page: &str) -> BTreeSet<String> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|line| match line.split_once(' ').unwrap() {
            (name, "counter") => format!("{name}_total"),
            (name, "info") => format!("{name}_info"),
            (name, _) => name.to_owned(),
        })
        .collect()
}

/// The metrics that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| {
            ["taper_proxy_", "taper_issuer_", "taper_build_"]
                .iter()
                .any(|start| word.starts_with(start))
        })
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word).to_owned())
        .collect()
}

#[test]
fn the_commands_of_the_page_run_and_every_metric_is_on_it() {
    let read = |name: &str| std::fs::read_to_string(root().join("examples").join(name)).unwrap();
    let page = read("operations.md");
    let blocks = blocks(&page);
    let other: Vec<&str> = blocks
        .iter()
        .map(|(l, _)| l.as_str())
        .filter(|l| *l != "sh")
        .collect();
    assert_eq!(
        other,
        ["yaml"],
        "the job for Prometheus is the only block that is not run"
    );

    let folder = TempDir::new().unwrap();
    let port = free_ports();
    prepared(folder.path(), port);
    let configs = folder.path().join("examples/configs");
    let commands = blocks
        .iter()
        .filter(|(language, _)| language == "sh")
        .map(|(_, text)| text.as_str());
    let script: String = std::iter::once(START).chain(commands).chain([END]).collect();
    std::fs::write(configs.join("session.sh"), on_ports(&script, port)).unwrap();
    let programs = taper_bin().canonicalize().unwrap().parent().unwrap().to_owned();
    let before = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths(std::iter::once(programs).chain(std::env::split_paths(&before))).unwrap();
    let (stdout, stderr) = (configs.join("stdout"), configs.join("stderr"));
    let status = Command::new("timeout")
        .args(["120", "bash", "-euxo", "pipefail", "session.sh"])
        .current_dir(&configs)
        .env("PATH", path)
        .stdout(std::fs::File::create(&stdout).unwrap())
        .stderr(std::fs::File::create(&stderr).unwrap())
        .status()
        .unwrap();
    let text = |name: &str| std::fs::read_to_string(configs.join(name)).unwrap();
    let transcript = ["stdout", "stderr", "issuer.log", "proxy.log"]
        .map(text)
        .join("\n---\n");
    assert!(status.success(), "{status}\n{transcript}");

    let (proxy, issuer) = (text("proxy.metrics"), text("issuer.metrics"));
    let known: BTreeSet<String> = families(&proxy).union(&families(&issuer)).cloned().collect();
    assert!(known.len() > 40, "{known:?}");
    assert_eq!(
        known,
        named(&page),
        "every family is on the page, and the page has no other"
    );
    for name in ["operations/alerts.yaml", "operations/dashboard.json"] {
        let unknown: Vec<String> = named(&read(name)).difference(&known).cloned().collect();
        assert!(unknown.is_empty(), "{name} names {unknown:?}");
        assert!(named(&read(name)).len() > 8, "{name}");
    }
    // The alerts speak of rules and outcomes that there are.
    let alerts = read("operations/alerts.yaml");
    for (label, there) in [("rule=\"", &proxy), ("outcome=\"", &page)] {
        let values: Vec<&str> = alerts
            .split(label)
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        assert!(!values.is_empty(), "{label}");
        for value in values {
            let shown = [format!("rule=\"{value}\""), format!("`{value}`")];
            assert!(shown.iter().any(|shown| there.contains(shown)), "{label}{value}");
        }
    }
    // What was sent is counted, and the secrets of the daemons are nowhere.
    let counted = |page: &str, line: &str| assert!(page.lines().any(|one| one == line), "{line}\n{page}");
    counted(&proxy, "taper_proxy_refusals_total{rule=\"R-15\"} 1");
    counted(
        &issuer,
        "taper_issuer_requests_total{endpoint=\"token\",outcome=\"invalid_request\"} 1",
    );
    for page in [&proxy, &issuer, &transcript] {
        assert!(!page.contains("0123456789abcdef"), "{page}");
    }
    assert!(
        transcript.starts_with("ok\n") && transcript.contains(r#"{"ready":true,"missing":[]}"#),
        "{transcript}"
    );
}

#[test]
fn the_dashboard_is_one() {
    let text = std::fs::read_to_string(root().join("examples/operations/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 10);
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        assert!(
            panel["title"].is_string() && panel["gridPos"]["w"].is_u64(),
            "{panel}"
        );
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        for target in targets {
            assert!(!named(target["expr"].as_str().unwrap()).is_empty(), "{target}");
        }
    }
    assert!(
        FIRST_PORT == 9400 && !text.contains("94"),
        "a dashboard has no ports"
    );
}
