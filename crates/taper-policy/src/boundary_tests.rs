use super::*;
use proptest::prelude::*;
use rand_core::OsRng;
use std::sync::Arc;
use taper_capability::{
    ArgumentMatch, ArgumentValue, Caveat, Delegation, Grant, Party, ResourceMatch, RootKey, Roots, Token,
    UnverifiedToken, Verifier, issue, json,
};
use taper_dpop::{Algorithm, Expectation, NonceRule, PrivateKey, Proof, ProofClaims};

#[path = "boundary_spellings.rs"]
mod spellings;

const NOW: i64 = 1_800_000_000;
const AUDIENCE: &str = "https://proxy.example/git/mcp";

fn key() -> PrivateKey {
    PrivateKey::generate(Algorithm::EdDsa, &mut OsRng)
}

struct World {
    root: RootKey,
    holder: PrivateKey,
    token: Token,
}

fn world(rights: Vec<Right>) -> World {
    let (root, holder) = (RootKey::generate(1, &mut OsRng), key());
    let grant = Grant {
        issuer: "https://issuer.example".into(),
        id: Grant::new_id(&mut OsRng),
        subject: Party {
            iss: "https://idp.example".into(),
            sub: "alice".into(),
        },
        client: "dev".into(),
        actor: None,
        holder: holder.public(),
        audiences: vec![AUDIENCE.into()],
        rights,
        claims: vec![("groups".into(), "eng".into())],
        issued_at: NOW,
        expires_at: NOW + 3600,
        max_depth: 3,
        caveats: vec![],
    };
    let token = issue(&grant, &root, &mut OsRng).unwrap();
    World { root, holder, token }
}

impl World {
    fn present(&self, token: &Token, key: &PrivateKey) -> VerifiedPresentation {
        let roots = Roots::new()
            .trust("https://issuer.example", 1, self.root.public(), None)
            .unwrap();
        let chain = Verifier::new(roots)
            .verify(UnverifiedToken::decode(token.as_str()).unwrap(), NOW)
            .unwrap();
        let header = ProofClaims::new("POST", AUDIENCE, NOW, &mut OsRng)
            .token(token.as_str())
            .sign(key)
            .unwrap();
        let expected = Expectation {
            method: "POST",
            url: AUDIENCE,
            token: Some(token.hash()),
            nonce: NonceRule::Unused,
            now: NOW,
        };
        let proof = Proof::parse(&header)
            .unwrap()
            .check(&expected)
            .unwrap()
            .verify()
            .unwrap();
        VerifiedPresentation::new(Arc::new(chain), proof).unwrap()
    }

    fn with(&self, caveats: &[Caveat]) -> VerifiedPresentation {
        let child = key();
        let start = Delegation::to(child.public()).until(NOW + 600);
        let dated = caveats.iter().fold(start, |d, caveat| d.only(caveat.clone()));
        self.present(
            &dated.sign(&self.token, &self.holder, &mut OsRng).unwrap(),
            &child,
        )
    }
}

fn policy(sources: &[&str]) -> BoundaryPolicy {
    let files: Vec<_> = sources
        .iter()
        .enumerate()
        .map(|(i, s)| PolicyFile {
            name: format!("{i}.dl"),
            source: (*s).into(),
        })
        .collect();
    BoundaryPolicy::load(&files).unwrap()
}

fn call(tool: &str, arguments: &str, repos: &[&str]) -> Access {
    let mut access = Access::new(AccessKind::ToolCall, "git", AUDIENCE, "tools/call");
    access.tool = Some(tool.into());
    access.arguments = Some(json::parse(arguments.as_bytes(), &json::JsonLimits::default()).unwrap());
    access.resources = repos.iter().map(|repo| ("repo".into(), (*repo).into())).collect();
    access
}

fn rule(
    policy: &BoundaryPolicy,
    presentation: &VerifiedPresentation,
    access: Access,
) -> Option<&'static str> {
    match decide(policy, presentation, access, NOW) {
        Decision::Allow(_) => None,
        Decision::Deny(denial) => Some(denial.rule.as_str()),
        Decision::Indeterminate(_) => Some("indeterminate"),
    }
}

fn any_tool() -> World {
    world(vec![Right::AnyTool { server: "git".into() }])
}

#[test]
fn rights_come_first_whatever_a_policy_says() {
    let w = world(vec![Right::Tool {
        server: "git".into(),
        tool: "git_log".into(),
    }]);
    let p = w.present(&w.token, &w.holder);
    let allow = policy(&["allow if true;"]);
    assert_eq!(rule(&allow, &p, call("git_log", "{}", &[])), None);
    assert_eq!(rule(&allow, &p, call("git_show", "{}", &[])), Some("R-21"));
    assert_eq!(
        rule(
            &allow,
            &p,
            Access {
                server: "mail".into(),
                ..call("git_log", "{}", &[])
            }
        ),
        Some("R-21")
    );
    assert_eq!(
        rule(
            &allow,
            &p,
            Access {
                audience: "https://else".into(),
                ..call("git_log", "{}", &[])
            }
        ),
        Some("R-20")
    );
    assert_eq!(rule(&policy(&[]), &p, call("git_log", "{}", &[])), Some("R-24"));
    assert!(
        matches!(decide(&allow, &p, call("git_log", "{}", &[]), NOW + 3600), Decision::Deny(d) if d.kind == DenialKind::Expired)
    );
    match decide(&allow, &p, call("git_show", "{}", &[]), NOW) {
        Decision::Deny(denial) => assert_eq!(denial.obtainable, ["git:git_show"]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_cannot_reorder_denies_and_allows() {
    let w = any_tool();
    let p = w.present(&w.token, &w.holder);
    let check = |sources: &[&str], wanted: Option<&str>| {
        assert_eq!(
            rule(&policy(sources), &p, call("git_show", "{}", &["acme/payroll"])),
            wanted,
            "{sources:?}"
        );
    };
    check(&["allow if true;"], None);
    check(&["allow if true; deny if tool(\"git_show\");"], Some("R-23"));
    check(
        &["allow if true;", "deny if resource(\"repo\", \"acme/payroll\");"],
        Some("R-23"),
    );
    check(&["deny if tool(\"git_log\"); allow if true;"], None);
    check(&["allow if claim(\"groups\", \"eng\");"], None);
    check(&["allow if claim(\"groups\", \"ops\");"], Some("R-24"));
    check(&["allow if true; check if hour($h), $h > 24;"], Some("R-23"));
    check(
        &["allow if true; deny if args($a), $a.get(\"x\") > 1;"],
        Some("R-25"),
    );
    check(
        &[
            "secret($r) <- resource(\"repo\", $r), $r.ends_with(\"payroll\"); deny if secret($r); allow if true;",
        ],
        Some("R-23"),
    );
}

/// The facts of a decision are those that something names; so a word that is named has its facts.
#[test]
fn every_word_that_a_policy_names_is_there() {
    let w = any_tool();
    let p = w.present(&w.token, &w.holder);
    let mut access = call("git_log", "{}", &["acme/web"]);
    access.client_ip = Some([127, 0, 0, 1].into());
    access.calls = vec![("c".into(), 1)];
    access.tool_facts = Some(taper_capability::ToolFacts {
        hints: Some(taper_capability::ToolHints::default()),
        digest: Some("00".into()),
    });
    let all = vocabulary::facts(p.chain(), &access, NOW);
    for word in vocabulary::WORDS {
        let terms: Vec<String> = (0..word.arity).map(|n| format!("$t{n}")).collect();
        let atom = format!("{}({})", word.name, terms.join(", "));
        let is_there = all.iter().any(|fact| fact.predicate.name == word.name);
        let wanted = is_there.then_some("R-23");
        let by = |source: String| rule(&policy(&[&source]), &p, access.clone());
        let direct = by(format!("deny if {atom}; allow if true;"));
        assert_eq!(direct, wanted, "{atom}");
        let derived = by(format!("found(1) <- {atom}; deny if found(1); allow if true;"));
        assert_eq!(derived, wanted, "{atom} in a rule");
    }
    assert!(all.len() > 20);
}

#[test]
fn a_refused_caveat_is_named_with_its_link() {
    let w = any_tool();
    let only = Caveat::Tool {
        server: "git".into(),
        tools: vec!["git_log".into()],
    };
    let p = w.with(std::slice::from_ref(&only));
    match decide(&policy(&["allow if true;"]), &p, call("git_show", "{}", &[]), NOW) {
        Decision::Deny(denial) => {
            assert_eq!(
                (denial.link, denial.caveat, denial.rule.as_str()),
                (Some(1), Some(only), "R-22")
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn caveats_mean_what_they_say() {
    let w = any_tool();
    let allow = policy(&["allow if true;"]);
    let check = |caveat: Caveat, access: Access, wanted: Option<&str>| {
        assert_eq!(
            rule(&allow, &w.with(std::slice::from_ref(&caveat)), access.clone()),
            wanted,
            "{caveat:?} {access:?}"
        );
    };
    let repo = |matches| Caveat::Resource {
        kind: "repo".into(),
        matches,
    };
    let web = || repo(ResourceMatch::OneOf(vec!["acme/web".into()]));
    check(web(), call("git_log", "{}", &["acme/web"]), None);
    check(
        web(),
        call("git_log", "{}", &["acme/web", "acme/payroll"]),
        Some("R-22"),
    );
    check(web(), call("git_log", "{}", &[]), Some("R-22"));
    let below = || repo(ResourceMatch::Prefix("acme/".into()));
    check(below(), call("git_log", "{}", &["acme/web"]), None);
    check(below(), call("git_log", "{}", &["acme-evil/web"]), Some("R-22"));
    let argument = |matches| Caveat::Argument {
        pointer: "/n".into(),
        matches,
    };
    let five = || argument(ArgumentMatch::Equals(ArgumentValue::Integer(5)));
    check(five(), call("git_log", r#"{"n":5}"#, &[]), None);
    check(five(), call("git_log", r#"{"n":5.0}"#, &[]), Some("R-25"));
    check(five(), call("git_log", r#"{"n":"5"}"#, &[]), Some("R-25"));
    check(five(), call("git_log", "{}", &[]), Some("R-25"));
    let one_of = || {
        argument(ArgumentMatch::OneOf(vec![
            ArgumentValue::String("a".into()),
            ArgumentValue::String("b".into()),
        ]))
    };
    check(one_of(), call("git_log", r#"{"n":"b"}"#, &[]), None);
    check(one_of(), call("git_log", r#"{"n":"c"}"#, &[]), Some("R-22"));
    check(one_of(), call("git_log", "{}", &[]), Some("R-25"));
    let prefix = || argument(ArgumentMatch::Prefix("feat-".into()));
    check(prefix(), call("git_log", r#"{"n":"feat-1"}"#, &[]), None);
    check(prefix(), call("git_log", r#"{"n":"fix-1"}"#, &[]), Some("R-22"));
    check(prefix(), call("git_log", r#"{"n":1}"#, &[]), Some("R-25"));
    check(Caveat::NotBefore(NOW), call("git_log", "{}", &[]), None);
    check(
        Caveat::NotBefore(NOW + 1),
        call("git_log", "{}", &[]),
        Some("R-22"),
    );
    check(
        Caveat::Server {
            servers: vec!["mail".into()],
        },
        call("git_log", "{}", &[]),
        Some("R-22"),
    );
}

#[test]
fn lists_show_what_could_be_called() {
    let w = any_tool();
    let p = w.with(&[
        Caveat::Tool {
            server: "git".into(),
            tools: vec!["git_log".into()],
        },
        Caveat::Resource {
            kind: "repo".into(),
            matches: ResourceMatch::OneOf(vec!["acme/web".into()]),
        },
    ]);
    let allow = policy(&["allow if true;"]);
    let entry = |tool: &str| {
        let mut access = Access::new(AccessKind::ListEntry, "git", AUDIENCE, "tools/list");
        access.tool = Some(tool.into());
        visible(&allow, &p, &access, NOW).is_ok()
    };
    assert!(entry("git_log"));
    assert!(!entry("git_show"));
    assert!(
        visible(&allow, &p, &call("git_log", "{}", &["acme/web"]), NOW).is_err(),
        "a call is no list entry"
    );
    let plumbing = Access::new(AccessKind::Plumbing, "git", AUDIENCE, "tools/list");
    assert_eq!(rule(&allow, &p, plumbing), None);
}

#[test]
fn uris_have_one_reading() {
    for (uri, ok) in [
        ("file:///a/b", true),
        ("https://h/a/", true),
        ("https://h/a/../b", false),
        ("https://h/a/./b", false),
        ("https://h//a", false),
        ("https://h/%2e%2e/a", false),
        ("file:///a\\b", false),
        ("file:///a//b", false),
        ("repo/a", true),
        ("../a", false),
        ("file:///srv/data/.\t./x", false),
        ("file:/srv/data/../../etc/passwd#://", false),
        ("repo:acme/web", true),
        ("repo:acme/../web", false),
    ] {
        assert_eq!(is_canonical(uri), ok, "{uri}");
    }
}

fn any_caveat() -> impl Strategy<Value = Caveat> {
    let tools = || {
        prop::sample::subsequence(
            vec!["git_log".to_owned(), "git_show".into(), "git_diff".into()],
            1..3,
        )
    };
    let repos = || prop::sample::subsequence(vec!["acme/web".to_owned(), "acme/payroll".into()], 1..2);
    prop_oneof![
        tools().prop_map(|tools| Caveat::Tool {
            server: "git".into(),
            tools
        }),
        repos().prop_map(|r| Caveat::Resource {
            kind: "repo".into(),
            matches: ResourceMatch::OneOf(r)
        }),
        Just(Caveat::Resource {
            kind: "repo".into(),
            matches: ResourceMatch::Prefix("acme/".into())
        }),
        (1i64..4).prop_map(|n| Caveat::Argument {
            pointer: "/n".into(),
            matches: ArgumentMatch::Equals(ArgumentValue::Integer(n)),
        }),
        (-2i64..2).prop_map(|d| Caveat::NotBefore(NOW + d)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn what_a_child_may_its_parent_may(
        first in prop::collection::vec(any_caveat(), 0..2),
        second in prop::collection::vec(any_caveat(), 0..2),
        tool in prop::sample::select(vec!["git_log", "git_show"]),
        repo in prop::sample::select(vec!["acme/web", "acme/payroll"]),
        n in 1i64..4,
    ) {
        let w = any_tool();
        let allow = policy(&["allow if true; deny if tool(\"git_show\"), resource(\"repo\", \"acme/payroll\");"]);
        let access = || call(tool, &format!("{{\"n\":{n}}}"), &[repo]);
        let (a, b) = (key(), key());
        let hand = |to: &PrivateKey, caveats: &[Caveat], token: &Token, by: &PrivateKey| {
            caveats.iter().fold(Delegation::to(to.public()).until(NOW + 600), |d, c| d.only(c.clone()))
                .sign(token, by, &mut OsRng).unwrap()
        };
        let parent = hand(&a, &first, &w.token, &w.holder);
        let child = hand(&b, &second, &parent, &a);
        let parent_may = rule(&allow, &w.present(&parent, &a), access()).is_none();
        let child_may = rule(&allow, &w.present(&child, &b), access()).is_none();
        prop_assert!(!child_may || parent_may);
    }
}

#[test]
fn a_name_in_the_arguments_is_written_whole() {
    let load = |source: &str| {
        BoundaryPolicy::load(&[PolicyFile {
            name: "a.dl".into(),
            source: source.into(),
        }])
    };
    for source in [
        "allow if true;\n  deny if args($a), server($s), $a.contains($s + \"_force\");",
        "bad($x) <- args($x);\n  deny if bad($a), server($s), $a.get(\"o\").get($s + \"_force\") === true;",
        "allow if true;\n  check if args($a), server($s), [1].all($n -> !$a.contains($s + \"_force\"));",
        "allow if true;\n  bad(1) <- args($a), server($s), $a.get(\"a\" + $s) === 1;",
    ] {
        let errors = load(source).unwrap_err().to_string();
        assert!(
            errors.starts_with("a.dl:2:3: a name in the arguments is put together"),
            "{source}: {errors}"
        );
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
    for source in [
        "deny if args($a), $a.get(\"a\" + \"b\") === 1;",
        "deny if args($a), server($s), $a.get(\"path\") === $s + \"/x\";",
        "deny if args($a), server($s), $a.get(\"paths\").contains($s + \"/x\");",
        "deny if server($s), tool($t), $t.contains($s + \"_\");",
    ] {
        load(source).unwrap();
    }
}

#[test]
fn what_would_refuse_every_call_is_not_loaded() {
    let load = |source: &str| {
        BoundaryPolicy::load(&[PolicyFile {
            name: "a.dl".into(),
            source: source.into(),
        }])
    };
    for source in [
        "allow if true;\n  deny if args($a), $a.any($e -> $e.get(0).matches(\"^x\"));",
        "allow if true;\n  deny if args($a), $a.any($e -> $e.get(0).length() > 9);",
        "allow if true;\n  check if args($a), tool($t), $a.all($e -> !$e.get(0).starts_with($t));",
        "allow if true;\n  check if args($a), $a.all($e -> \"a,b\".contains($e.get(0)));",
        "bad($x) <- args($x);\n  deny if bad($a), server($s), $a.any($e -> $e.get(0) + $s === \"x\");",
        "names({\"x\": \"y,z\"});\n  bad(1) <- args($a), tool($t), names($n), $a.any($e -> $n.get($t).contains($e.get(0)));",
    ] {
        let errors = load(source).unwrap_err().to_string();
        assert!(
            errors.starts_with("a.dl:2:3: something else is made of the names of the arguments"),
            "{source}: {errors}"
        );
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
    for source in [
        "allowed({\"x\": [\"a\", \"b\"]}); deny if args($a), tool($t), allowed($m), !$a.all($e -> $m.get($t).contains($e.get(0)));",
        "deny if args($a), tool($t), !$a.all($e -> {\"x\": [\"a\"]}.get($t).contains($e.get(0)));",
        "deny if args($a), $a.any($e -> $e.get(0).starts_with(\"x\"));",
        "deny if args($a), $a.get(\"o\").any($e -> $e.get(0).matches(\"^x\"));",
        "deny if args($a), $a.get(\"paths\").all($p -> $p.matches(\"^x\"));",
    ] {
        load(source).unwrap();
    }
}
