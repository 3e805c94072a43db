use super::*;

const POLICY: &str = r#"
// Engineers get every git tool; others may read the log.
grant_any_tool("git") <- claim("groups", "eng"), requested_any_tool("git");
grant_right("git", $tool) <- claim("groups", "eng"), requested("git", $tool);
grant_right("git", "git_log") <- client("dev");
grant_ttl(3600) <- client($client);
grant_ttl(60) <- claim("groups", "guest");
grant_depth(3) <- client($client);
grant_resource("git", "repo", "acme/web") <- claim("groups", "guest");
deny("suspended") <- claim("status", "suspended");
"#;

fn policy(source: &str) -> Result<GrantPolicy, PolicyErrors> {
    GrantPolicy::load(&[PolicyFile {
        name: "grant.dl".into(),
        source: source.into(),
    }])
}

fn tool(name: &str) -> Right {
    Right::Tool {
        server: "git".into(),
        tool: name.into(),
    }
}

fn any() -> Right {
    Right::AnyTool { server: "git".into() }
}

fn request(claims: &[(&str, &str)], requested: &[Right]) -> GrantRequest {
    GrantRequest {
        subject: Party {
            iss: "https://idp.example".into(),
            sub: "alice".into(),
        },
        claims: claims
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect(),
        client: "dev".into(),
        actor: None,
        scopes: vec![],
        requested: requested.to_vec(),
        resources: vec![],
    }
}

#[test]
fn never_more_than_requested_and_never_more_than_granted() {
    let policy = policy(POLICY).unwrap();
    let check = |claims: &[(&str, &str)], requested: &[Right], granted: Result<&[Right], GrantRefusal>| {
        let result = decide(&policy, &request(claims, requested), 0).map(|terms| terms.rights);
        assert_eq!(
            result.as_deref().map_err(Clone::clone),
            granted.as_ref().map(|r| *r).map_err(Clone::clone)
        );
    };
    check(&[("groups", "eng")], &[any()], Ok(&[any()]));
    check(&[("groups", "eng")], &[tool("git_show")], Ok(&[tool("git_show")]));
    check(&[], &[any()], Ok(&[tool("git_log")]));
    check(&[], &[tool("git_log"), tool("git_show")], Ok(&[tool("git_log")]));
    check(&[], &[tool("git_show")], Err(GrantRefusal::NothingGranted));
    check(&[], &[], Err(GrantRefusal::NothingGranted));
    check(
        &[],
        &[Right::AnyTool {
            server: "mail".into(),
        }],
        Err(GrantRefusal::NothingGranted),
    );
    check(
        &[("status", "suspended"), ("groups", "eng")],
        &[any()],
        Err(GrantRefusal::Denied("suspended".into())),
    );
}

fn uri(uri_prefix: &str) -> Right {
    Right::Resource {
        server: "git".into(),
        uri_prefix: uri_prefix.into(),
    }
}

fn prompt(name: &str) -> Right {
    Right::Prompt {
        server: "git".into(),
        name: name.into(),
    }
}

#[test]
fn resources_and_prompts_are_granted_by_their_own_heads() {
    let source = r#"
        grant_any_tool("git") <- claim("groups", "eng");
        grant_uri("git", "repo://acme/") <- client("dev");
        grant_uri("git", "repo://home/readme") <- client("dev");
        grant_uri("mail", "repo://mail/") <- client("dev");
        grant_prompt("git", "review") <- requested_prompt("git", "review");
        grant_uri("git", $uri) <- claim("groups", "all"), requested_uri("git", $uri);
    "#;
    let policy = policy(source).unwrap();
    let check = |claims: &[(&str, &str)], asked: &[Right], granted: &[Right]| {
        let rights = decide(&policy, &request(claims, asked), 0).map(|terms| terms.rights);
        let expected = match granted {
            [] => Err(GrantRefusal::NothingGranted),
            granted => Ok(granted.to_vec()),
        };
        assert_eq!(rights, expected, "{asked:?}");
    };
    check(&[], &[uri("repo://acme/")], &[uri("repo://acme/")]);
    // The narrower one of both, whichever it is.
    check(&[], &[uri("repo://acme/web/")], &[uri("repo://acme/web/")]);
    check(&[], &[uri("repo://acme/web")], &[uri("repo://acme/web")]);
    check(
        &[],
        &[uri("repo://")],
        &[uri("repo://acme/"), uri("repo://home/readme")],
    );
    // A prefix ends at a boundary.
    check(&[], &[uri("repo://acme")], &[]);
    check(&[], &[uri("repo://acme-web/")], &[]);
    check(&[], &[uri("repo://home/readme.md")], &[]);
    check(&[], &[uri("repo://home/readme/")], &[]);
    check(&[], &[uri("repo://mail/")], &[]);
    check(
        &[("groups", "all")],
        &[uri("repo://mail/")],
        &[uri("repo://mail/")],
    );
    check(&[], &[prompt("review")], &[prompt("review")]);
    check(&[], &[prompt("other")], &[]);
    // Neither tools bring the others along, nor the other way round.
    let eng = [("groups", "eng")];
    check(&eng, &[any()], &[any()]);
    check(&eng, &[prompt("other")], &[]);
    check(&[], &[any(), prompt("review")], &[prompt("review")]);
    check(
        &eng,
        &[any(), prompt("review"), uri("repo://acme/x")],
        &[any(), uri("repo://acme/x"), prompt("review")],
    );
}

mod never_more {
    use super::*;
    use proptest::prelude::*;

    fn any_uri() -> impl Strategy<Value = String> {
        proptest::collection::vec(prop_oneof!["a", "b", "ab"], 0..4).prop_flat_map(|parts| {
            prop_oneof![Just(""), Just("/")].prop_map(move |end| {
                format!("repo://{}{end}", parts.join("/")).replace("repo:///", "repo://")
            })
        })
    }

    proptest! {
        /// What is granted can be read by who asked and by whom the policy says, and all that both say is
        /// granted.
        #[test]
        fn a_uri_is_readable_when_it_was_requested_and_allowed(
            asked in proptest::collection::vec(any_uri(), 1..4),
            allowed in proptest::collection::vec(any_uri(), 0..4),
            read in any_uri(),
        ) {
            let rules: Vec<String> = allowed
                .iter()
                .map(|uri| format!("grant_uri(\"git\", \"{uri}\") <- client(\"dev\");"))
                .collect();
            let requested: Vec<Right> = asked.iter().map(|prefix| uri(prefix)).collect();
            let decided = decide(&policy(&rules.join("\n")).unwrap(), &request(&[], &requested), 0);
            let granted = match decided {
                Ok(terms) => terms.rights,
                Err(GrantRefusal::NothingGranted) => Vec::new(),
                Err(other) => panic!("{other}"),
            };
            let readable = |prefixes: &[String]| prefixes.iter().any(|prefix| uri_covers(prefix, &read));
            let by_grant = granted.iter().any(|right| match right {
                Right::Resource { uri_prefix, .. } => uri_covers(uri_prefix, &read),
                _ => false,
            });
            prop_assert_eq!(by_grant, readable(&asked) && readable(&allowed));
        }
    }
}

#[test]
fn the_smallest_terms_hold() {
    let policy = policy(POLICY).unwrap();
    let terms = decide(&policy, &request(&[("groups", "guest")], &[any()]), 0).unwrap();
    assert_eq!(
        (terms.ttl, terms.max_depth, terms.renew_until, terms.renew_for),
        (Some(60), Some(3), None, None)
    );
    let more =
        format!("{POLICY}\nrenew_for(600) <- client($c);\nrenew_for(0) <- claim(\"groups\", \"guest\");");
    let renews = |group| {
        let policy = self::policy(&more).unwrap();
        decide(&policy, &request(&[("groups", group)], &[any()]), 0)
            .unwrap()
            .renew_for
    };
    assert_eq!((renews("eng"), renews("guest")), (Some(600), Some(0)));
    let only = Caveat::Resource {
        kind: "repo".into(),
        matches: ResourceMatch::OneOf(vec!["acme/web".into()]),
    };
    assert_eq!(terms.caveats, [only]);
}

#[test]
fn mistakes_are_found_at_their_place() {
    let check = |source: &str, wanted: &str| {
        let errors = policy(source).unwrap_err().to_string();
        assert!(errors.contains(wanted), "{source}: {errors}");
    };
    check("\n  allow if true;", "grant.dl:2:3: a grant policy derives");
    check("claim(\"groups\", \"eng\");", "grant.dl:1:1: `claim` is given");
    check("grant_ttl(1) <- clientt($c);", "did you mean `client`?");
    check("grant_ttl(1) <- client($c, $d);", "`client` has 1 terms, not 2");
    check(
        "grant_right(\"git\") <- client($c);",
        "`grant_right` has 2 terms elsewhere and 1 here",
    );
    check("grant_ttl(1) <- client($c), $c == \"x\";", "use `===`");
    check("grant_ttl(1) <- client($c), ($c === 1).try_or(true);", "try_or");
    check("grant_ttl(1) <- ;", "grant.dl:1");
}

#[test]
fn what_cannot_be_granted_is_an_error() {
    let check = |source: &str| {
        let result = decide(&policy(source).unwrap(), &request(&[], &[any()]), 0);
        assert!(
            matches!(result, Err(GrantRefusal::Error(_))),
            "{source}: {result:?}"
        );
    };
    let base = "grant_any_tool(\"git\") <- client($c);";
    check("grant_any_tool(\"*\") <- client($c);");
    check("grant_right(\"git\", 1) <- client($c);");
    check("grant_uri(\"git\", \"repo://a/../b/\") <- client($c);");
    check("grant_uri(\"*\", \"repo://a/\") <- client($c);");
    check("grant_uri(\"git\", 1) <- client($c);");
    check("grant_prompt(\"git\", \"a b\") <- client($c);");
    check(&format!("{base} grant_ttl(\"x\") <- client($c);"));
    check(&format!("{base} grant_ttl(-1) <- client($c);"));
    check(&format!(
        "{base} grant_resource(\"git\", \"repo\", \"a/*\"); grant_resource(\"git\", \"repo\", \"b\");"
    ));
    check(&format!("{base} grant_ttl(1) <- client($c), $c < 1;"));
}

#[test]
fn no_policy_grants_nothing() {
    let none = GrantPolicy::load(&[]).unwrap();
    assert_eq!(
        decide(&none, &request(&[("groups", "eng")], &[any()]), 0),
        Err(GrantRefusal::NothingGranted)
    );
}
