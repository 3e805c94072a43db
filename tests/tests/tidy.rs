//! Keeps the map true: edges, names, sizes and rule numbers (`spec/architecture.md`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use cargo_metadata::{DependencyKind, MetadataCommand};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn files(dir: &Path, extension: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !matches!(
                    path.file_name().unwrap().to_str(),
                    Some("target" | "node_modules" | ".git")
                ) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push((path.clone(), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "no .{extension} below {}", dir.display());
    found
}

/// What each crate may use of ours.
const EDGES: [(&str, &[&str]); 12] = [
    (
        "taper",
        &[
            "git-server",
            "taper-agent",
            "taper-capability",
            "taper-dpop",
            "taper-issuer",
            "taper-oauth",
            "taper-policy",
            "taper-proxy",
            "taper-service",
            "taper-store",
        ],
    ),
    (
        "taper-issuer",
        &[
            "taper-capability",
            "taper-dpop",
            "taper-oauth",
            "taper-policy",
            "taper-service",
            "taper-store",
        ],
    ),
    (
        "taper-proxy",
        &[
            "taper-capability",
            "taper-dpop",
            "taper-oauth",
            "taper-policy",
            "taper-service",
            "taper-store",
        ],
    ),
    (
        "taper-agent",
        &[
            "taper-capability",
            "taper-dpop",
            "taper-oauth",
            "taper-policy",
            "taper-service",
        ],
    ),
    ("taper-policy", &["taper-capability", "taper-dpop"]),
    ("taper-store", &["taper-capability", "taper-oauth"]),
    ("taper-capability", &["taper-dpop"]),
    ("taper-oauth", &["taper-dpop"]),
    ("taper-dpop", &[]),
    ("taper-service", &[]),
    ("git-server", &["taper-service"]),
    (
        "taper-tests",
        &[
            "taper-agent",
            "taper-capability",
            "taper-dpop",
            "taper-oauth",
            "taper-policy",
            "taper-store",
        ],
    ),
];
const PURE: [&str; 4] = ["taper-dpop", "taper-oauth", "taper-capability", "taper-policy"];
const IMPURE: [&str; 7] = ["tokio", "axum", "hyper", "reqwest", "sled", "mio", "socket2"];

#[test]
fn edges_point_down() {
    let metadata = MetadataCommand::new()
        .current_dir(root())
        .other_options(vec!["--offline".into()])
        .exec()
        .unwrap();
    let allowed: BTreeMap<&str, &[&str]> = EDGES.into_iter().collect();
    let members: BTreeSet<String> = metadata
        .workspace_packages()
        .iter()
        .map(|p| p.name.to_string())
        .collect();
    assert_eq!(
        members,
        allowed.keys().map(|name| (*name).to_owned()).collect(),
        "a crate is not on the map"
    );
    for package in metadata.workspace_packages() {
        for dependency in package
            .dependencies
            .iter()
            .filter(|d| d.kind == DependencyKind::Normal)
        {
            if members.contains(&dependency.name) {
                let may = allowed[package.name.as_str()].contains(&dependency.name.as_str());
                assert!(may, "{} may not use {}", package.name, dependency.name);
            }
        }
    }
    let resolve = metadata.resolve.as_ref().unwrap();
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let name = |id: &cargo_metadata::PackageId| metadata[id].name.to_string();
    for package in metadata
        .workspace_packages()
        .into_iter()
        .filter(|p| PURE.contains(&p.name.as_str()))
    {
        let (mut seen, mut next) = (BTreeSet::new(), vec![&package.id]);
        while let Some(id) = next.pop() {
            if seen.insert(name(id)) {
                let normal = nodes[id]
                    .deps
                    .iter()
                    .filter(|d| d.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal));
                next.extend(normal.map(|dep| &dep.pkg));
            }
        }
        for impure in IMPURE {
            assert!(!seen.contains(impure), "{} reaches {impure}", package.name);
        }
    }
}

#[test]
fn libraries_are_named_in_their_rooms_only() {
    let check = |word: &str, rooms: &[&str]| {
        let mut named = 0;
        for (path, text) in files(&root().join("crates"), "rs") {
            if text.contains(word) {
                named += 1;
                let room = rooms
                    .iter()
                    .any(|room| path.starts_with(root().join("crates").join(room)));
                assert!(room, "{} names {word}", path.display());
            }
        }
        assert!(named > 0, "nobody names {word}: the check checks nothing");
    };
    check("biscuit_auth", &["taper-capability", "taper-policy"]);
    check("sled::", &["taper-store"]);
    check(
        "RootKey::",
        &[
            "taper-capability",
            "taper-issuer",
            "taper-policy/src/boundary_tests.rs",
            "taper-proxy/src",
            "taper-agent/src",
            "taper/src",
        ],
    );
    check("Permit { access", &["taper-policy"]);
}

#[test]
fn a_root_private_key_is_used_by_the_issuer_only() {
    for (path, text) in files(&root().join("crates"), "rs") {
        let product = text.split("#[cfg(test)]").next().unwrap();
        let is_test = path.file_name().unwrap().to_str().unwrap().contains("test")
            || path.components().any(|c| c.as_os_str() == "tests");
        let home = ["taper-issuer", "taper-capability"]
            .iter()
            .any(|c| path.starts_with(root().join("crates").join(c)));
        assert!(
            home || is_test || !product.contains("RootKey::"),
            "{} makes root keys",
            path.display()
        );
    }
}

#[test]
fn files_keep_to_one_purpose() {
    for (path, text) in files(&root(), "rs") {
        let lines = text.lines().count();
        assert!(lines <= 800, "{} has {lines} lines", path.display());
    }
}

/// Every `X-nn` in a text.
fn numbers(text: &str) -> BTreeSet<String> {
    let bytes = text.as_bytes();
    let mut found = BTreeSet::new();
    for (at, window) in bytes.windows(4).enumerate() {
        let letter = b"PDRXM".contains(&window[0]);
        let starts = at == 0 || !(bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'-');
        let ends = bytes.get(at + 4).is_none_or(|b| !b.is_ascii_alphanumeric());
        if letter
            && starts
            && ends
            && window[1] == b'-'
            && window[2].is_ascii_digit()
            && window[3].is_ascii_digit()
        {
            found.insert(String::from_utf8(window.to_vec()).unwrap());
        }
    }
    found
}

#[test]
fn rules_are_in_the_spec_and_in_the_code() {
    let mut in_spec = BTreeMap::new();
    for (path, text) in files(&root().join("spec"), "md") {
        for row in text.lines().filter_map(|line| line.strip_prefix("| ")) {
            if let Some(rule) = row.get(..4).filter(|_| row.get(4..6) == Some(" |")) {
                for rule in numbers(rule) {
                    let page = in_spec.entry(rule.clone()).or_insert_with(|| path.clone());
                    assert_eq!(*page, path, "{rule} stands on two pages");
                }
            }
        }
    }
    let in_spec: BTreeSet<String> = in_spec.into_keys().collect();
    let mut in_code = BTreeSet::new();
    for (_, text) in files(&root().join("crates"), "rs") {
        for line in text.lines() {
            if line.contains("RuleId::new(\"") || line.trim_end().ends_with("\";") && line.contains(" = \"") {
                in_code.extend(numbers(line));
            }
        }
    }
    assert!(in_spec.len() > 60, "{in_spec:?}");
    assert_eq!(in_code, in_spec);
}

#[test]
fn the_vocabulary_page_is_the_vocabulary() {
    use taper_capability::vocabulary::{Origin, WORDS};
    let page = std::fs::read_to_string(root().join("spec/vocabulary.md")).unwrap();
    for word in WORDS {
        let origin = if word.origin == Origin::Request {
            "request"
        } else {
            "grant"
        };
        let row = format!("| `{}` | {} | {origin} |", word.name, word.arity);
        assert!(page.contains(&row), "{row}");
    }
    assert_eq!(
        page.lines().filter(|line| line.starts_with("| `")).count(),
        WORDS.len()
    );
}

#[test]
fn nothing_is_left_behind() {
    // Put together so that this file does not find itself.
    let words = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["todo", "!("],
        ["unimplemented", "!("],
    ]
    .map(|parts| parts.concat());
    for extension in ["rs", "toml", "mjs"] {
        for (path, text) in files(&root(), extension) {
            for word in &words {
                assert!(!text.contains(word), "{} has {word}", path.display());
            }
        }
    }
}
