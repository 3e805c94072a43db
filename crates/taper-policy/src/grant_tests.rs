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

#[test]
fn the_smallest_terms_hold() {
    let policy = policy(POLICY).unwrap();
    let terms = decide(&policy, &request(&[("groups", "guest")], &[any()]), 0).unwrap();
    assert_eq!(
        (terms.ttl, terms.max_depth, terms.renew_until),
        (Some(60), Some(3), None)
    );
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
