//! rmcp's own client with the library's transport, through the proxy to a real server.

use serde_json::{Value, json};
use taper_tests::{Up, taper_ok};

use super::{example, is_log};
use crate::language::succeeds;

#[test]
fn rmcps_client_signs_in_both_eras() {
    let up = Up::start();
    up.capability("holder", "git:*");
    let narrow = [
        "narrow",
        "holder.cap",
        "--key",
        "holder.jwk",
        "--tool",
        "git:git_log",
    ];
    let only = ["--repo", "acme/web", "--out", "web.cap"];
    taper_ok(up.dir(), &[&narrow[..], &only].concat());
    for (era, version) in [("legacy", "2025-11-25"), ("modern", "2026-07-28")] {
        let mut client = example("rmcp-client");
        client
            .current_dir(up.dir())
            .args([era, &up.mcp(), "web.cap", "holder.jwk"]);
        let output = client
            .args(["git_log", "acme/web", "acme/payroll"])
            .output()
            .unwrap();
        let report: Value = serde_json::from_str(&succeeds(&output)).unwrap();
        assert_eq!(report["version"], version, "{report:#}");
        assert_eq!(report["tools"], json!(["git_log"]), "{report:#}");
        is_log(report["calls"][0]["text"].as_str().unwrap(), &up, "acme/web", 99);
        let refused = &report["calls"][1];
        assert_eq!(
            (&refused["code"], &refused["data"]["rule"]),
            (&json!(4403), &json!("R-22")),
            "{report:#}"
        );
        assert_eq!(
            refused["data"]["caveat"]["resource"]["kind"], "repo",
            "{report:#}"
        );
    }
}
