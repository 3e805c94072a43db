use std::sync::Arc;

use taper_service::rng;
use taper_store::{Audit as _, DecisionRecord, EmbeddedStore, LinkRecord, Outcome, Record, RecordKind};

use super::*;
use crate::context::Format;
use crate::context::testing::{NOW, context};
use crate::failure::Kind;

/// A folder with one journal of three records; the second one holds what could deceive.
async fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = EmbeddedStore::open(
        &dir.path().join("state"),
        "issuer",
        Arc::new(|| NOW * 1000),
        rng::os(),
    )
    .unwrap();
    for role in ["issuer", "a\n\u{1b}[31m", "proxy"] {
        let record = Record {
            at_ms: NOW * 1000,
            kind: RecordKind::Started { role: role.into() },
        };
        store.append(record).await.unwrap();
    }
    store.close().await.unwrap();
    dir
}

fn checked(dir: &Path, against: &[&Path]) -> Checked {
    Checked {
        folder: Folder { dir: dir.to_owned() },
        against: against.iter().map(|path| path.display().to_string()).collect(),
    }
}

fn records(dir: &Path) -> Records {
    Records {
        folder: Folder { dir: dir.to_owned() },
        selection: Selection::default(),
    }
}

/// A denial of a tool call.
pub(super) fn decision() -> Record {
    let kind = RecordKind::Decision(DecisionRecord {
        decision_id: "d1".into(),
        outcome: Outcome::Deny,
        rule: Some("R-22".into()),
        reason: None,
        issuer: "https://issuer.example".into(),
        grant_id: "g1".into(),
        holder_jkt: "last".into(),
        depth: 1,
        links: vec![LinkRecord {
            holder_jkt: "first".into(),
            depth: 0,
        }],
        subject_iss: "https://idp.example".into(),
        subject: "alice".into(),
        client: "dev".into(),
        server: "git".into(),
        method: "tools/call".into(),
        tool: Some("git_log".into()),
        resources: Vec::new(),
        body_sha256: None,
        token_sha256: String::new(),
        policy_digest: String::new(),
        client_ip: None,
        counted: Vec::new(),
    });
    Record {
        at_ms: 1_769_851_800_500,
        kind,
    }
}

fn journal(dir: &Path) -> PathBuf {
    find_journals(dir).unwrap().pop().unwrap()
}

#[tokio::test]
async fn an_intact_journal_passes_and_a_damaged_one_does_not() {
    let dir = folder().await;
    let (mut json, out, _) = context(Format::Json, "");
    verify(&checked(dir.path(), &[]), &mut json).unwrap();
    assert_eq!(out.json()["ok"], true);
    assert_eq!(out.json()["journals"][0]["records"], 3);

    let log = journal(dir.path()).join("journal-00000000000000000000.log");
    let mut bytes = std::fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let (mut text, out, _) = context(Format::Text, "");
    assert_eq!(
        verify(&checked(dir.path(), &[]), &mut text).unwrap_err().kind(),
        Kind::Failure
    );
    assert!(out.text().starts_with("DAMAGED"), "{}", out.text());
}

#[test]
fn no_journal_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let commands = [
        Command::Verify(checked(dir.path(), &[])),
        Command::Show(records(dir.path())),
        Command::Export(records(dir.path())),
    ];
    for command in commands {
        let (mut context, out, _) = context(Format::Text, "");
        let args = Args { command };
        assert_eq!(run(args, &mut context).unwrap_err().kind(), Kind::Failure);
        assert_eq!(out.text(), "");
    }
}

#[tokio::test]
async fn records_are_shown_one_a_line_and_exported_exactly() {
    let dir = folder().await;
    let run_with = |command: fn(Records) -> Command, format| {
        let (mut context, out, _) = context(format, "");
        let command = command(records(dir.path()));
        run(Args { command }, &mut context).unwrap();
        out.text()
    };
    let shown = run_with(Command::Show, Format::Text);
    assert_eq!(shown.lines().count(), 3, "{shown}");
    assert!(
        shown.contains("2026-01-31T09:30:00Z a\\u{a}\\u{1b}[31m started"),
        "{shown}"
    );
    assert_eq!(run_with(Command::Show, Format::Json).lines().count(), 3);
    let exported = run_with(Command::Export, Format::Text);
    let records = read_records(&journal(dir.path())).unwrap();
    for (line, record) in exported.lines().zip(records) {
        let record = record.unwrap();
        assert!(
            line.ends_with(&format!("\"payload\":{}}}", record.payload)),
            "{line}"
        );
        let json: Value = serde_json::from_str(line).unwrap();
        assert_eq!(json["salt"].as_str().map(str::len), Some(32));
        assert_eq!(json["type_uid"], 600_203, "a start of an application");
        assert_eq!(json["time"], NOW * 1000);
        assert_eq!(json["metadata"]["sequence"], record.index);
    }
}

#[test]
fn a_denial_is_a_denied_call_of_an_interface() {
    let stored = StoredRecord {
        segment: String::new(),
        index: 7,
        offset: 0,
        salt: [0; 16],
        payload: String::new(),
        record: decision(),
    };
    let event = Value::Object(ocsf::event(&stored, "proxy/state"));
    for (pointer, value) in [
        ("/class_uid", json!(6003)),
        ("/category_uid", json!(6)),
        ("/type_uid", json!(600_399)),
        ("/time", json!(1_769_851_800_500_i64)),
        ("/status_id", json!(2)),
        ("/action_id", json!(2)),
        ("/status_code", json!("R-22")),
        ("/actor/user/name", json!("alice")),
        ("/actor/session/uid", json!("g1")),
        ("/api/operation", json!("git_log")),
        ("/api/service/name", json!("git")),
        ("/api/request/uid", json!("d1")),
        ("/src_endpoint/uid", json!("last")),
        ("/metadata/log_name", json!("proxy/state")),
        ("/metadata/sequence", json!(7)),
    ] {
        assert_eq!(event.pointer(pointer), Some(&value), "{pointer}");
    }
    let line = line(&stored);
    assert!(
        line.contains("denied git tools/call git_log to last at depth 1 of grant g1, rule R-22"),
        "{line}"
    );
}

#[tokio::test]
async fn a_kept_checkpoint_is_compared_and_must_be_of_a_journal() {
    let (dir, elsewhere) = (folder().await, tempfile::tempdir().unwrap());
    let kept = elsewhere.path().join("kept");
    std::fs::copy(journal(dir.path()).join("checkpoint"), &kept).unwrap();
    let check = |dir: &Path, kept: &Path| {
        let (mut context, out, _) = context(Format::Text, "");
        let outcome = verify(&checked(dir, &[kept]), &mut context);
        (outcome.map_err(|e| e.to_string()), out.text())
    };
    assert!(check(dir.path(), &kept).0.is_ok());
    // Another journal of the same name has another key.
    let other = folder().await;
    let (outcome, told) = check(other.path(), &kept);
    assert!(outcome.is_err() && told.starts_with("DAMAGED"), "{told}");
    let foreign = elsewhere.path().join("foreign");
    std::fs::write(&foreign, "example.com/log\n1\n").unwrap();
    let (outcome, _) = check(dir.path(), &foreign);
    assert!(outcome.unwrap_err().contains("no checkpoint of a journal"));
}

#[tokio::test]
async fn a_receipt_is_made_and_checked_alone() {
    let dir = folder().await;
    let make = |id: &str, tlog_proof: bool| {
        let (mut context, out, _) = context(Format::Text, "");
        let args = proofs::receipt_args(id, dir.path(), tlog_proof);
        proofs::receipt(&args, &mut context)
            .map(|()| out.text())
            .map_err(|e| e.to_string())
    };
    let receipt = make("1", false).unwrap();
    let key = journal(dir.path()).join("journal.pub");
    let check = |text: &str| {
        let (mut context, out, _) = context(Format::Text, text);
        let args = proofs::verify_args("-", &key);
        proofs::verify_receipt(&args, &mut context)
            .map(|()| out.text())
            .map_err(|e| e.to_string())
    };
    let told = check(&receipt).unwrap();
    assert!(told.starts_with("proven    record 1 of "), "{told}");
    assert!(told.contains("a\\u{a}\\u{1b}[31m started"), "{told}");
    assert!(check(&receipt.replacen("\"index\":1", "\"index\":2", 1)).is_err());
    assert!(
        make("1", true)
            .unwrap()
            .starts_with("c2sp.org/tlog-proof@v1\nextra ")
    );
    for unknown in ["3", "nobody"] {
        assert!(make(unknown, false).is_err(), "{unknown}");
    }
}

#[tokio::test]
async fn a_damaged_journal_is_looked_at_and_then_repaired() {
    let dir = folder().await;
    let state = journal(dir.path());
    let repaired = |dry_run: bool| {
        let (mut context, out, _) = context(Format::Text, "");
        let outcome = repair::run(&repair::args(&state, dry_run), &mut context);
        outcome.map(|()| out.text()).map_err(|e| e.to_string())
    };
    assert!(repaired(true).is_err(), "there is nothing to repair");
    let log = state.join("journal-00000000000000000000.log");
    let mut bytes = std::fs::read(&log).unwrap();
    let at = bytes.len() - 5;
    bytes[at] ^= 1;
    std::fs::write(&log, &bytes).unwrap();
    let opened = EmbeddedStore::open(&state, "issuer", Arc::new(|| NOW * 1000), rng::os());
    let said = opened.err().unwrap().to_string();
    assert!(
        said.contains("record 2") && said.contains("taper audit repair"),
        "{said}"
    );

    let told = repaired(true).unwrap();
    assert!(told.contains("readable  0 to 1\nlost      2\n"), "{told}");
    assert_eq!(std::fs::read(&log).unwrap(), bytes, "nothing was changed");
    let told = repaired(false).unwrap();
    assert!(
        told.contains("lost      2\n") && told.contains("evidence  "),
        "{told}"
    );
    let (mut text, out, _) = context(Format::Text, "");
    verify(&checked(&state, &[]), &mut text).unwrap_or_else(|_| panic!("{}", out.text()));
    EmbeddedStore::open(&state, "issuer", Arc::new(|| NOW * 1000), rng::os()).unwrap();
}
