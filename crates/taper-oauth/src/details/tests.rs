//! Each refusal beside a twin that passes, the limits, and the round trip.

use super::*;
use proptest::prelude::*;

const FULL: &str = r#"{"type":"mcp","server":"git","tools":["git_log"],"resources":{"repo":["acme/web"]},"until":"2030-01-01T00:00:00Z"}"#;

#[track_caller]
fn check(entry: &str, expected: Result<(), &str>) {
    match (parse_list(&format!("[{entry}]")), expected) {
        (Ok(details), Ok(())) => assert_eq!(format_list(&details).unwrap(), format!("[{entry}]")),
        (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
        (got, _) => panic!("{entry}: {got:?}"),
    }
}

#[test]
fn an_entry_is_understood_completely_or_refused() {
    check(FULL, Ok(()));
    check(r#"{"type":"mcp","server":"git","tools":["*"]}"#, Ok(()));
    check(r#"{"server":"git","tools":["*"]}"#, Err("missing field `type`"));
    check(
        r#"{"type":"payment","server":"git","tools":["*"]}"#,
        Err("not `mcp`"),
    );
    check(r#"{"type":"mcp","tools":["*"]}"#, Err("missing field `server`"));
    check(r#"{"type":"mcp","server":"*","tools":["*"]}"#, Err("server id"));
    check(r#"{"type":"mcp","server":"git"}"#, Err("none of `tools`"));
    check(
        r#"{"type":"mcp","server":"git","tools":[]}"#,
        Err("`tools` is out of bounds"),
    );
    check(
        r#"{"type":"mcp","server":"git","tools":["*","a"]}"#,
        Err("not a tool name"),
    );
    check(
        r#"{"type":"mcp","server":"git","tools":["a","a"]}"#,
        Err("repeats"),
    );
    check(
        r#"{"type":"mcp","server":"git","tools":"a"}"#,
        Err("invalid type"),
    );
    check(
        r#"{"type":"mcp","server":"git","tools":["a"],"actions":["read"]}"#,
        Err("unknown field"),
    );
    check(
        r#"{"type":"mcp","server":"git","tools":["a"],"tools":["b"]}"#,
        Err("duplicate"),
    );
    check(
        r#"{"type":"mcp","server":"git","tools":["a"],"resources":{}}"#,
        Err("empty"),
    );
    check(
        r#"{"type":"mcp","server":"git","tools":["a"],"resources":null}"#,
        Err("invalid type"),
    );
    check(
        r#"{"type":"mcp","server":"git","tools":["a"],"resources":{"repo":[]}}"#,
        Err("out of bounds"),
    );
    check(
        r#"{"type":"mcp","server":"git","tools":["a"],"resources":{"repo":[""]}}"#,
        Err("empty"),
    );
    check(
        r#"{"type":"mcp","server":"git","tools":["a"],"resources":{"repo":["a\n"]}}"#,
        Err("printable"),
    );
    check(
        r#"{"type":"mcp","server":"git","tools":["a"],"resources":{"repo":["a","a"]}}"#,
        Err("repeated"),
    );
    check(
        r#"{"type":"mcp","server":"git","tools":["a"],"resources":{"a b":["x"]}}"#,
        Err("resource kind"),
    );
    check(
        r#"{"type":"mcp","server":"git","uris":["repo://acme/"],"prompts":["review"]}"#,
        Ok(()),
    );
    check(r#"{"type":"mcp","server":"git","prompts":["review"]}"#, Ok(()));
    check(
        r#"{"type":"mcp","server":"git","tools":["a"],"uris":["repo://acme/"]}"#,
        Ok(()),
    );
    check(r#"{"type":"mcp","server":"git","uris":[]}"#, Err("empty"));
    check(r#"{"type":"mcp","server":"git","prompts":[]}"#, Err("empty"));
    check(
        r#"{"type":"mcp","server":"git","tools":["a"],"uris":null}"#,
        Err("invalid type"),
    );
    check(r#"{"type":"mcp","server":"git","uris":[""]}"#, Err("empty"));
    check(
        r#"{"type":"mcp","server":"git","uris":["a\n"]}"#,
        Err("printable"),
    );
    check(
        r#"{"type":"mcp","server":"git","uris":["a","a"]}"#,
        Err("repeats"),
    );
    check(
        r#"{"type":"mcp","server":"git","prompts":["*"]}"#,
        Err("prompt name"),
    );
    check(
        r#"{"type":"mcp","server":"git","prompts":["a","a"]}"#,
        Err("repeats"),
    );
    check(
        r#"{"type":"mcp","server":"git","tools":["a"],"until":"tomorrow"}"#,
        Err("RFC 3339"),
    );
    check(
        r#"{"type":"mcp","server":"git","tools":["a"],"until":1}"#,
        Err("invalid type"),
    );
    check(
        r#"{"type":"mcp","server":"git","tools":["a"],"until":null}"#,
        Err("invalid type"),
    );
}

#[test]
fn the_parameter_is_a_bounded_array() {
    let list = |n: usize| parse_list(&format!("[{}]", vec![FULL; n].join(",")));
    assert!(list(1).is_ok());
    assert!(list(MAX_DETAILS).is_ok());
    assert!(list(0).is_err());
    assert!(list(MAX_DETAILS + 1).is_err());
    assert!(parse_list(FULL).is_err());
    assert_eq!(
        parse_list(&" ".repeat(MAX_BYTES + 1)),
        Err(WireError::TooLarge { limit: MAX_BYTES })
    );
}

#[test]
fn counts_and_lengths_are_bounded() {
    let tools = |n: usize| ToolSelection::Named((0..n).map(|i| format!("t{i}")).collect());
    let kinds = |n: usize| (0..n).map(|i| (format!("k{i}"), vec!["v".to_owned()])).collect();
    let values = |n: usize| BTreeMap::from([("k".to_owned(), (0..n).map(|i| i.to_string()).collect())]);
    let value = |n: usize| BTreeMap::from([("k".to_owned(), vec!["v".repeat(n)])]);
    fn passes(wanted: impl Into<Wanted>, resources: BTreeMap<String, Vec<String>>) -> bool {
        McpDetail::new("git", wanted, resources, None).is_ok()
    }
    assert!(passes(tools(MAX_TOOLS), kinds(MAX_KINDS)));
    assert!(!passes(tools(MAX_TOOLS + 1), kinds(0)));
    assert!(!passes(tools(1), kinds(MAX_KINDS + 1)));
    assert!(passes(tools(1), values(MAX_VALUES)));
    assert!(!passes(tools(1), values(MAX_VALUES + 1)));
    assert!(passes(tools(1), value(MAX_VALUE)));
    assert!(!passes(tools(1), value(MAX_VALUE + 1)));
    assert!(McpDetail::new("git", tools(1), kinds(0), Some(i64::MAX)).is_err());
    let wanted = |uris: usize, length: usize, prompts: usize| Wanted {
        tools: ToolSelection::None,
        uris: (0..uris).map(|i| format!("{i:0length$}")).collect(),
        prompts: (0..prompts).map(|i| format!("p{i}")).collect(),
    };
    assert!(passes(wanted(MAX_URIS, MAX_URI, MAX_PROMPTS), kinds(0)));
    assert!(!passes(wanted(MAX_URIS + 1, 4, 0), kinds(0)));
    assert!(!passes(wanted(1, MAX_URI + 1, 0), kinds(0)));
    assert!(!passes(wanted(0, 4, MAX_PROMPTS + 1), kinds(0)));
    assert!(!passes(wanted(0, 0, 0), kinds(0)), "nothing at all");
}

#[test]
fn an_offset_and_a_fraction_become_whole_seconds() {
    let until = |text: &str| {
        let entry = format!(r#"[{{"type":"mcp","server":"git","tools":["a"],"until":"{text}"}}]"#);
        parse_list(&entry).unwrap().first().and_then(McpDetail::until)
    };
    assert_eq!(until("1970-01-01T01:00:10+01:00"), Some(10));
    assert_eq!(until("1970-01-01T00:00:10.999Z"), Some(10));
}

proptest! {
    #[test]
    fn an_entry_reads_back(
        server in "[a-z0-9-]{1,64}",
        tools in proptest::option::of(proptest::collection::btree_set("[A-Za-z0-9_./-]{1,16}", 1..8)),
        resources in proptest::collection::btree_map(
            "[a-z_-]{1,8}",
            proptest::collection::btree_set("[^\\x00-\\x1f\\x7f-\\u{9f}]{1,16}", 1..4),
            0..4,
        ),
        until in proptest::option::of(0_i64..253_402_300_800),
        uris in proptest::collection::btree_set("[^\\x00-\\x1f\\x7f-\\u{9f}]{1,16}", 0..4),
        prompts in proptest::collection::btree_set("[A-Za-z0-9_./-]{1,16}", 0..4),
    ) {
        let tools = match tools {
            None => ToolSelection::Any,
            Some(names) => ToolSelection::Named(names.into_iter().collect()),
        };
        let resources = resources.into_iter().map(|(k, v)| (k, v.into_iter().collect())).collect();
        let (uris, prompts) = (uris.into_iter().collect(), prompts.into_iter().collect());
        let wanted = Wanted { tools, uris, prompts };
        let details = vec![McpDetail::new(&server, wanted, resources, until).unwrap()];
        prop_assert_eq!(parse_list(&format_list(&details).unwrap()).unwrap(), details);
    }

    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        let _ = parse_list(&text);
    }
}
