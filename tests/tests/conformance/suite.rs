//! Runs the official conformance suite against a server and reads what it found.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use taper_tests::named_by_run;
use tempfile::TempDir;

/// One check: its scenario, its id and name there, and the how-manieth of that id and name it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Check {
    pub(crate) scenario: String,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) nth: usize,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} / {} / {} / {}",
            self.scenario, self.id, self.name, self.nth
        )
    }
}

/// What the suite says of a check.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    /// `SUCCESS`, `FAILURE`, `WARNING`, `SKIPPED` or `INFO`.
    pub(crate) status: String,
    /// Why, where it is no success.
    pub(crate) why: String,
}

/// All checks of a run.
pub(crate) struct Report(pub(crate) BTreeMap<Check, Verdict>);

impl Report {
    /// How many checks have this status.
    pub(crate) fn count(&self, status: &str) -> usize {
        let verdicts = self.0.values();
        verdicts.filter(|verdict| verdict.status == status).count()
    }

    /// The checks that are no success, each with the reason.
    pub(crate) fn lines(&self, status: &str) -> String {
        let found = self.0.iter().filter(|(_, verdict)| verdict.status == status);
        found
            .map(|(check, verdict)| format!("{check}: {}\n", verdict.why))
            .collect()
    }
}

/// Runs what the revision requires of a server, all scenarios one after the other.
pub(crate) fn run(url: &str, revision: &str) -> Report {
    let real = named_by_run("TAPER_REAL");
    let found = TempDir::new().unwrap();
    let script = "node_modules/@modelcontextprotocol/conformance/dist/index.js";
    let output = Command::new(real.join("bin/node"))
        .arg(real.join(script))
        .args(["server", "--url", url, "--requirements", revision, "--output-dir"])
        .arg(found.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let report = read(found.path());
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!report.0.is_empty(), "nothing was checked:\n{stdout}\n{stderr}");
    report
}

/// `server-SCENARIO-TIME/checks.json`, of each scenario.
fn read(folder: &Path) -> Report {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let scenario = scenario(&name).to_owned();
        let checks = std::fs::read(entry.path().join("checks.json")).unwrap();
        let checks: Vec<Value> = serde_json::from_slice(&checks).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for found in checks {
            let mut check = Check {
                scenario: scenario.clone(),
                id: text(&found["id"]),
                name: text(&found["name"]),
                nth: 0,
            };
            while all.contains_key(&check) {
                check.nth += 1;
            }
            let verdict = Verdict {
                status: text(&found["status"]),
                why: text(&found["errorMessage"]),
            };
            all.insert(check, verdict);
        }
    }
    Report(all)
}

/// `server-tools-list-2026-01-02T03-04-05-678Z` is of `tools-list`.
fn scenario(folder: &str) -> &str {
    let name = folder.strip_prefix("server-").unwrap();
    let time = "-2026-01-02T03-04-05-678Z".len();
    &name[..name.len() - time]
}
