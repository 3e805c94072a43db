//! `taper audit`, over journals that are whole and damaged ones.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use taper_tests::{Up, taper, taper_ok};

use super::{ends, json, stderr, stdout, succeeds};

/// The journal files below a folder.
fn journal_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(journal_files(&path));
        } else if path.components().any(|part| part.as_os_str() == "journal")
            || path.to_string_lossy().contains("journal")
        {
            found.push(path);
        }
    }
    found
}

#[test]
fn audit() {
    let up = Up::start();
    up.capability("alice", "git:*");
    let call = [
        "call",
        "--url",
        &up.mcp(),
        "--token",
        "alice.cap",
        "--key",
        "alice.jwk",
        "git_log",
        "repo_path=acme/web",
    ];
    taper_ok(up.dir(), &call);
    let Up { process, folder } = up;
    assert!(process.stop());
    let dir = folder.path();
    let verified = taper_ok(dir, &["audit", "verify", "--dir", "up"]);
    assert_eq!(verified.matches("intact ").count(), 2, "{verified}");
    let report = json(&taper(
        dir,
        &["audit", "verify", "--dir", "up", "--format", "json"],
    ));
    assert_eq!(
        (&report["ok"], report["journals"].as_array().unwrap().len()),
        (&true.into(), 2)
    );

    let shown = taper_ok(dir, &["audit", "show", "--dir", "up"]);
    for told in [
        "issuer started",
        "proxy started",
        "grant ",
        " to alice ",
        "allowed git tools/call git_log repo=acme/web",
    ] {
        assert!(shown.contains(told), "{told} is not in {shown}");
    }
    for command in ["show", "export"] {
        let lines = succeeds(&taper(
            dir,
            &["audit", command, "--dir", "up", "--format", "json"],
        ));
        let lines: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let told: u64 = report["journals"]
            .as_array()
            .unwrap()
            .iter()
            .map(|journal| journal["records"].as_u64().unwrap())
            .sum();
        assert_eq!(lines.len() as u64, told, "{command}");
    }
    for text in [
        &shown,
        &succeeds(&taper(dir, &["audit", "export", "--dir", "up"])),
    ] {
        let token = std::fs::read_to_string(dir.join("alice.cap")).unwrap();
        assert!(
            !text.contains(token[token.len() - 60..].trim()),
            "the journal holds the token"
        );
    }

    // Every journal file, one bit changed in a copy: found, in whatever file it is. The private key signs
    // and proves nothing.
    let mut files = journal_files(&dir.join("up"));
    files.retain(|file| !file.ends_with("journal.key"));
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        let intact = std::fs::read(&file).unwrap();
        if intact.is_empty() {
            continue;
        }
        let copy = dir.join("copy");
        let copied = Command::new("cp")
            .arg("-a")
            .arg(dir.join("up"))
            .arg(&copy)
            .status()
            .unwrap();
        assert!(copied.success());
        let target = copy.join(file.strip_prefix(dir.join("up")).unwrap());
        let mut damaged = intact.clone();
        // Zeros may be the padding of a file that is overwritten in place.
        let bytes: Vec<_> = (0..damaged.len()).filter(|&at| damaged[at] != 0).collect();
        damaged[bytes[bytes.len() / 2]] ^= 1;
        std::fs::write(&target, damaged).unwrap();
        let output = taper(dir, &["audit", "verify", "--dir", "copy"]);
        assert_eq!(output.status.code(), Some(1), "{}: {output:?}", file.display());
        assert!(!stderr(&output).contains("panicked"), "{output:?}");
        let found = format!("{}{}", stdout(&output), stderr(&output));
        let expected: &[&str] = if file.ends_with("journal.head") {
            // The other slot and the records are good, and a torn write looks the same.
            &["TORN", "one checkpoint slot is torn; opening heals it"]
        } else {
            &["DAMAGED", "unreadable"]
        };
        assert!(
            expected.iter().any(|word| found.contains(word)),
            "{}: {found}",
            file.display()
        );
        let report = taper(dir, &["audit", "verify", "--dir", "copy", "--format", "json"]);
        assert_eq!(
            serde_json::from_str::<Value>(&stdout(&report)).unwrap()["ok"],
            false
        );
        std::fs::write(&target, &intact).unwrap();
        taper_ok(dir, &["audit", "verify", "--dir", "copy"]);
        std::fs::remove_dir_all(&copy).unwrap();
    }
    std::fs::create_dir(dir.join("empty")).unwrap();
    ends(
        &taper(dir, &["audit", "verify", "--dir", "empty"]),
        1,
        &["no journal"],
    );
    ends(
        &taper(dir, &["audit", "show", "--dir", "nowhere"]),
        1,
        &["nowhere"],
    );
}
