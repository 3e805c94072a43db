//! Runs what `examples/operations.md` says beside the two daemons of `examples/configs`, restores what it saved, and holds every
//! metric, label and word that the page, the alerts and the dashboard name against what the daemons tell.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod alerts;
mod promql;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use taper_tests::daemon::write_private;
use taper_tests::pages::{FIRST_PORT, blocks, copy_examples, free_ports, on_ports};
use taper_tests::{root, taper_bin, taper_ok};
use tempfile::TempDir;

use self::promql::Scraped;

const ISSUER: &str = "http://127.0.0.1:9400";
/// What is secret here.
const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// Both daemons, until the session ends, after a few requests and a revocation.
const START: &str = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
taper issuer --config issuer.toml 2> issuer.log &
curl -sf -o /dev/null --retry 30 --retry-all-errors --retry-delay 1 http://127.0.0.1:9400/readyz
taper proxy --config proxy.toml 2> proxy.log &
curl -sf -o /dev/null --retry 30 --retry-all-errors --retry-delay 1 http://127.0.0.1:9405/readyz
curl -s -o /dev/null -X POST http://127.0.0.1:9405/git/mcp
curl -s -o /dev/null -X POST http://127.0.0.1:9400/token
for port in 9400 9405; do exec 3<>/dev/tcp/127.0.0.1/$port; printf 'no request\\r\\n\\r\\n' >&3; cat <&3 > nothing; exec 3<&-; done
curl -sf -o /dev/null -H 'Authorization: Bearer SECRET' -H 'Content-Type: application/json' -d '{\"client\":\"gone\"}' http://127.0.0.1:9401/admin/v1/revocations
until curl -sf http://127.0.0.1:9406/metrics | grep -q 'taper_proxy_feed_sequence.* [1-9]$'; do sleep 0.1; done
";
const END: &str = "kill $(jobs -p) && wait\n";
/// What was saved takes the place of what is there.
const RESTORED: &str = "ls proxy-state/feed-*.json
for file in proxy-state/feed-*.json; do cmp $file proxy-restored/$(basename $file); done
mv proxy-state proxy-old
mv proxy-restored proxy-state
";
/// Families that do not say 0 at the end of this session; those of calls and of trouble are in the tests of the daemons.
const MOVED: &[&str] = &[
    "@requests_total",
    "@refusals_total",
    "@answers_total",
    "@sent_bytes_total",
    "@feed_age_limit_seconds",
    "@feed_sequence",
    "@running_limit",
    "@streams_limit",
    "@bodies_limit",
    "@programs_limit",
    "@connections",
    "@connections_limit",
    "@connections_refused_total",
    "@journal_bytes",
    "@journal_files",
    "@journal_commits_total",
    "@state_free_bytes",
    "@store_up",
    "@ready",
    "taper_build_info",
    "process_start_time_seconds",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_max_fds",
];
const MOVED_ISSUER: &[&str] = &[
    "@requests_total",
    "@refusals_total",
    "@revocations_total",
    "@token_seconds_count",
    "@feed_readers",
    "@feed_sequence",
    "@connections",
    "@connections_limit",
    "@connections_refused_total",
    "@journal_bytes",
    "@journal_files",
    "@journal_commits_total",
    "@state_free_bytes",
    "@store_up",
    "taper_build_info",
    "process_cpu_seconds_total",
    "process_open_fds",
];
/// Of families that have no series in this session, the labels.
const UNSEEN: [(&str, &[&str]); 4] = [
    ("taper_proxy_decisions_total", &["outcome", "rule"]),
    ("taper_proxy_cuts_total", &["rule"]),
    ("taper_proxy_upstream_certificate_end_seconds", &["server"]),
    ("taper_proxy_certificate_end_seconds", &["listener"]),
];

/// The example configurations on loopback, with the key and the secrets that they name.
fn prepared(folder: &Path, port: u16) {
    copy_examples(folder, port);
    let configs = folder.join("examples/configs");
    taper_ok(&configs, &["keygen", "--out", "root-1.jwk"]);
    for secret in ["admin-token", "feed-secret"] {
        write_private(&configs.join(secret), &format!("{SECRET}\n"));
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
            ["taper_proxy_", "taper_issuer_", "taper_build_", "process_"]
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
        ["yaml", "ini"],
        "the job for Prometheus and the unit of systemd are the only blocks that are not run"
    );

    let folder = TempDir::new().unwrap();
    let port = free_ports();
    prepared(folder.path(), port);
    let configs = folder.path().join("examples/configs");
    let commands = blocks
        .iter()
        .filter(|(language, _)| language == "sh")
        .map(|(_, text)| text.as_str());
    let start = START.replace("SECRET", SECRET);
    let session = std::iter::once(start.as_str()).chain(commands);
    let script: String = session.chain([END, RESTORED, &start, END]).collect();
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
    let mut scraped = Scraped::default();
    scraped.add(&proxy, &UNSEEN);
    scraped.add(
        &issuer,
        &[("taper_issuer_certificate_end_seconds", &["listener"])],
    );
    check_alerts(&scraped, &page, &proxy);
    check_dashboard(&scraped, &page, &known);
    assert!(
        proxy.contains(&format!(
            "taper_proxy_root_keys_age_seconds{{issuer=\"{}\"",
            on_ports(ISSUER, port)
        )),
        "{proxy}"
    );
    for (page, prefix, families) in [
        (&proxy, "taper_proxy_", MOVED),
        (&issuer, "taper_issuer_", MOVED_ISSUER),
    ] {
        for family in families {
            let family = family.replace("@", prefix);
            let moved = page.lines().any(|line| {
                let rest = line.strip_prefix(&family);
                rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && !line.ends_with(" 0")
            });
            assert!(moved, "{family} is 0\n{page}");
        }
    }
    // What was sent is counted, and the secrets of the daemons are nowhere.
    let counted = |page: &str, line: &str| assert!(page.lines().any(|one| one == line), "{line}\n{page}");
    counted(&proxy, "taper_proxy_refusals_total{rule=\"R-15\"} 1");
    counted(
        &issuer,
        "taper_issuer_requests_total{endpoint=\"token\",outcome=\"invalid_request\"} 1",
    );
    for page in [
        &proxy,
        &issuer,
        &text("stdout"),
        &text("issuer.log"),
        &text("proxy.log"),
    ] {
        assert!(!page.contains(SECRET), "{page}");
    }
    let counted_once = |page: &str, line: &str| page.lines().filter(|one| *one == line).count();
    assert_eq!(
        counted_once(
            &issuer,
            &format!("taper_issuer_feed_sequence{{issuer=\"{ISSUER}\"}} 1")
                .replace("9400", &port.to_string())
        ),
        1,
        "{issuer}"
    );
    assert!(
        transcript.starts_with("ok\n") && transcript.contains(r#"{"ready":true,"missing":[]}"#),
        "{transcript}"
    );
}

/// Every query can be read, every alert says whose it is and how long it lasts, and what it speaks of exists.
fn check_alerts(scraped: &Scraped, page: &str, proxy: &str) {
    let text = std::fs::read_to_string(root().join("examples/operations/alerts.yaml")).unwrap();
    let alerts = alerts::read(&text).unwrap();
    assert!(alerts.len() > 20);
    let mut names = BTreeSet::new();
    for alert in &alerts {
        let name = &alert.name;
        assert!(names.insert(name) && name.starts_with("Taper"), "{name}");
        assert!(["page", "warn"].contains(&alert.severity.as_str()), "{name}");
        let lasts = alert.lasts.as_deref().unwrap_or("1m").strip_suffix(['m', 'h']);
        assert!(lasts.is_some_and(|lasts| lasts.parse::<u8>().is_ok()), "{name}");
        let labels = scraped.check(&alert.expr, &|word| said(page, word));
        let labels = labels.unwrap_or_else(|error| panic!("{name}: {error}: {}", alert.expr));
        for text in [&alert.summary, &alert.action] {
            for label in between(text, "{{ $labels.", " }}") {
                assert!(
                    labels.contains(label),
                    "{name} has no label `{label}`: {labels:?}"
                );
            }
            for rule in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-') {
                if rule.len() == 4 && (rule.starts_with("M-") || rule.starts_with("R-")) {
                    let shown = format!("taper_proxy_refusals_total{{rule=\"{rule}\"}}");
                    assert!(proxy.contains(&shown), "{name}: {rule}");
                }
            }
        }
    }
}

/// Every query of the dashboard can be read, and every family is on a panel.
fn check_dashboard(scraped: &Scraped, page: &str, known: &BTreeSet<String>) {
    let text = std::fs::read_to_string(root().join("examples/operations/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    for target in targets(&dashboard) {
        let query = target["expr"].as_str().unwrap();
        let labels = scraped.check(query, &|word| said(page, word));
        let labels = labels.unwrap_or_else(|error| panic!("{error}: {query}"));
        let legend = target["legendFormat"].as_str().unwrap_or_default();
        for label in between(legend, "{{", "}}") {
            assert!(labels.contains(label), "`{label}` of {query}: {labels:?}");
        }
    }
    let shown = named(&text);
    let absent: Vec<&String> = known.difference(&shown).collect();
    assert!(absent.is_empty(), "on no panel: {absent:?}");
}

/// Whether the page has the word as one that a label says.
fn said(page: &str, word: &str) -> bool {
    page.contains(&format!("`{word}`"))
}

fn between<'a>(text: &'a str, before: &'a str, after: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before)
        .skip(1)
        .map(move |rest| rest.split(after).next().unwrap())
}

fn targets(dashboard: &Value) -> impl Iterator<Item = &Value> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    panels.flat_map(|panel| panel["targets"].as_array().unwrap())
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
        assert!(!panel["targets"].as_array().unwrap().is_empty(), "{panel}");
    }
    assert!(
        FIRST_PORT == 9400 && !text.contains("94"),
        "a dashboard has no ports"
    );
}
