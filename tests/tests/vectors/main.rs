//! The test vectors (`spec/vectors/README.md`): they are what the writer writes, the verifier says of
//! each what stands in it, and says otherwise as soon as the vector's rule is left out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use judge::{Vector, Verdict};
use serde_json::Value;
use taper_dpop::rule::sabotage;

/// Rules of the pages that no vector can show, and why.
const WITHOUT_VECTORS: [(&str, &str); 3] = [
    (
        "R-13",
        "a proof that is presented twice needs a server that remembers",
    ),
    (
        "R-15",
        "the header fields of a request are gone before there is a presentation",
    ),
    ("R-26", "what reaches a limit depends on a clock or on a policy"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The files `subject/name.json` below `dir`, by name.
fn files(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for subject in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if !subject.path().is_dir() {
            continue;
        }
        for file in std::fs::read_dir(subject.path()).unwrap().map(Result::unwrap) {
            let subject = subject.file_name().into_string().unwrap();
            let name = format!("{subject}/{}", file.file_name().into_string().unwrap());
            found.insert(name, std::fs::read_to_string(file.path()).unwrap());
        }
    }
    found
}

fn vectors() -> Vec<Vector> {
    let files = files(&root().join("spec/vectors"));
    assert!(files.len() >= 150, "{} vectors", files.len());
    files
        .into_iter()
        .map(|(name, text)| Vector {
            name: name.trim_end_matches(".json").to_owned(),
            members: serde_json::from_str(&text).unwrap(),
        })
        .collect()
}

/// Fails with one line for each vector that is judged otherwise than it says.
#[track_caller]
fn compare(judged: impl Iterator<Item = (String, Verdict, Verdict)>) {
    let wrong: Vec<String> = judged
        .filter(|(_, wanted, found)| wanted != found)
        .map(|(name, wanted, found)| format!("{name:<60} wanted {wanted:<10} found {found}"))
        .collect();
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_vectors_are_what_the_writer_writes() {
    let dir = tempfile::TempDir::new().unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_write-vectors"))
        .arg(dir.path())
        .status();
    assert!(status.unwrap().success());
    let (written, committed) = (files(dir.path()), files(&root().join("spec/vectors")));
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&written), names(&committed));
    let differ: Vec<&String> = written
        .iter()
        .filter(|(name, text)| committed.get(*name) != Some(text))
        .map(|(name, _)| name)
        .collect();
    assert!(differ.is_empty(), "{differ:#?}");
}

#[test]
fn the_members_are_those_of_the_format() {
    let members = |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    for vector in vectors() {
        assert_eq!(
            members(&vector.members),
            [
                "description",
                "time",
                "roots",
                "token",
                "proof",
                "request",
                "access",
                "policy",
                "expected",
                "rule",
                "without"
            ],
            "{}",
            vector.name
        );
        assert_eq!(
            members(&vector.members["request"]),
            ["method", "url", "body", "nonce"],
            "{}",
            vector.name
        );
        let accepted = vector.text("/expected") == "accepted";
        assert_eq!(vector.members["rule"].is_null(), accepted, "{}", vector.name);
        assert_eq!(vector.members["without"].is_null(), accepted, "{}", vector.name);
    }
}

#[test]
fn every_vector_is_judged_as_it_says() {
    compare(vectors().iter().map(|v| (v.name.clone(), v.wanted(), v.judge())));
}

#[test]
fn a_rule_that_is_left_out_is_noticed() {
    let vectors = vectors();
    let refused = || {
        vectors
            .iter()
            .filter(|vector| vector.text("/expected") == "refused")
    };
    compare(refused().map(|vector| {
        let found = sabotage::without(vector.text("/rule"), || vector.judge());
        (vector.name.clone(), vector.text("/without").to_owned(), found)
    }));
    let noticed: BTreeSet<&str> = refused()
        .filter(|vector| vector.text("/without") != vector.text("/rule"))
        .map(|vector| vector.text("/rule"))
        .collect();
    let without: BTreeSet<&str> = WITHOUT_VECTORS.iter().map(|(rule, _)| *rule).collect();
    let numbers = numbers();
    let all: BTreeSet<&str> = numbers.iter().map(String::as_str).collect();
    assert!(without.is_subset(&all), "{without:?} are not all rules");
    let demanded: BTreeSet<&str> = all.difference(&without).copied().collect();
    assert_eq!(noticed, demanded);
}

/// The rules of the three pages about a presentation.
fn numbers() -> BTreeSet<String> {
    ["profile", "delegation", "presentation"]
        .iter()
        .flat_map(|page| {
            let text = std::fs::read_to_string(root().join(format!("spec/{page}.md"))).unwrap();
            let number = |line: &str| {
                let number = line.strip_prefix("| ")?.split(" |").next()?.to_owned();
                let (letter, digits) = number.split_once('-')?;
                let is_number = letter.len() == 1 && digits.len() == 2 && digits.parse::<u8>().is_ok();
                is_number.then_some(number)
            };
            text.lines().filter_map(number).collect::<Vec<_>>()
        })
        .collect()
}
