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
const EDGES: [(&str, &[&str]); 14] = [
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
    ("taper-store", &["taper-dpop"]),
    ("taper-capability", &["taper-dpop"]),
    ("taper-oauth", &["taper-dpop"]),
    ("taper-dpop", &[]),
    ("taper-service", &[]),
    ("git-server", &["taper-service"]),
    ("mcp-fixture", &[]),
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
    ("taper-bench", &["taper-capability", "taper-dpop"]),
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
            "taper-policy/tests",
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
        let letter = b"PDRXMA".contains(&window[0]);
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

/// The constants that name rules, as crate/NAME, with their numbers.
fn constants() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (path, text) in files(&root().join("crates"), "rs") {
        // Crates have rules of one name (`FORM`), so the crate counts.
        let inside = path.strip_prefix(root().join("crates")).unwrap();
        let module = inside.iter().next().unwrap().to_str().unwrap();
        for line in text.lines() {
            let name = match line.split_once(": RuleId = RuleId::new(\"") {
                Some((declared, _)) => declared.rsplit(' ').next().unwrap(),
                // A table of `NAME = "M-01";`.
                None if path.ends_with("src/rules.rs") => match line.trim().split_once(" = \"") {
                    Some((name, _)) => name,
                    None => continue,
                },
                None => continue,
            };
            let number = line.split('"').nth(1).unwrap();
            found.insert(format!("{module}/{name}"), number.to_owned());
        }
    }
    found
}

/// A number in a comment proves nothing. Each rule of a verifier is asked by `holds`, so that a test
/// build can leave it out, is what some error or denial says, and is what some vector or test wants.
#[test]
fn every_rule_of_a_verifier_is_enforced_denied_and_proved() {
    let sources = files(&root().join("crates"), "rs");
    let product: Vec<&str> = sources
        .iter()
        .filter(|(path, _)| {
            !path
                .components()
                .any(|c| c.as_os_str() == "tests" || c.as_os_str() == "benches")
        })
        .filter(|(path, _)| !path.file_stem().unwrap().to_str().unwrap().ends_with("_tests"))
        .map(|(_, text)| text.split("#[cfg(test)]").next().unwrap())
        .collect();
    let mut proofs: Vec<String> = files(&root().join("spec/vectors"), "json")
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    let wanted = proofs.len();
    assert!(wanted >= 150, "{wanted} vectors");
    proofs.extend(
        files(&root().join("tests/tests"), "rs")
            .into_iter()
            .map(|(_, text)| text),
    );
    for (path, text) in &sources {
        let is_test = path.components().any(|c| c.as_os_str() == "tests")
            || path.file_stem().unwrap().to_str().unwrap().ends_with("_tests");
        proofs.push(match text.split_once("#[cfg(test)]") {
            _ if is_test => text.clone(),
            Some((_, tests)) => tests.to_owned(),
            None => continue,
        });
    }
    let mut missing = Vec::new();
    for (constant, number) in constants() {
        let (module, name) = constant.split_once('/').unwrap();
        let name = if module == "taper-dpop" {
            format!("r::{name}")
        } else {
            format!("rules::{name}")
        };
        let uses = |with: &dyn Fn(&str) -> bool| {
            product.iter().any(|text| {
                text.match_indices(&name).any(|(at, _)| {
                    let rest = &text[at + name.len()..];
                    !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') && with(rest)
                })
            })
        };
        let verifier = number.starts_with(['P', 'D', 'R']);
        // what a request has, and how long an answer takes, cannot be left out.
        let cannot = ["R-15", "R-26"].contains(&number.as_str());
        // Or it is one of a table of rules that are asked in a loop.
        if verifier && !cannot && !uses(&|rest| rest.starts_with(".holds(") || rest.starts_with(", ")) {
            missing.push(format!("{number}: nothing asks `{name}.holds`"));
        }
        // M-32 shortens a list and X-25 refuses a configuration: no request is denied by them.
        let denies_nothing = ["M-32", "X-25"].contains(&number.as_str());
        if !denies_nothing && !uses(&|rest| !rest.starts_with(".holds(")) {
            missing.push(format!("{number}: no denial carries `{name}`"));
        }
        // The rules of issuer and proxy are proved by what their own tests see on the wire.
        if verifier && !proofs.iter().any(|text| text.contains(&format!("\"{number}\""))) {
            missing.push(format!("{number}: no vector and no test wants it"));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_pages_cite_rules_and_proofs_that_exist() {
    let rules: BTreeSet<String> = constants().into_values().collect();
    let pages = files(&root().join("spec"), "md");
    for (path, text) in &pages {
        for number in numbers(text) {
            assert!(rules.contains(&number), "{} cites {number}", path.display());
        }
    }
    let code: String = files(&root(), "rs").into_iter().map(|(_, text)| text).collect();
    let (_, threats) = pages
        .iter()
        .find(|(path, _)| path.ends_with("threats.md"))
        .unwrap();
    let rows: Vec<&str> = threats.lines().filter(|line| line.starts_with("| T-")).collect();
    for (at, row) in rows.iter().enumerate() {
        assert!(row.starts_with(&format!("| T-{:02} |", at + 1)), "{row}");
        // The last cell names its proofs: paths, functions (their beginnings end in `…`), steps.
        let cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        for name in cell.split('`').skip(1).step_by(2) {
            let name = name.trim_end_matches('…');
            let found = root().join(name).exists()
                || code.contains(name)
                || root().join("spec/vectors").join(name).exists();
            assert!(found, "{name} of {row}");
        }
    }
    assert!(rows.len() > 50);
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
    let table = page.split("\n## ").next().unwrap();
    assert_eq!(
        table.lines().filter(|line| line.starts_with("| `")).count(),
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
