use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use proptest::prelude::*;
use taper_capability::json::{JsonLimits, parse};

use super::*;

fn json(text: &str) -> Value {
    parse(text.as_bytes(), &JsonLimits::default()).unwrap()
}

fn schema(properties: &str) -> Value {
    json(&format!(r#"{{"type":"object","properties":{{{properties}}}}}"#))
}

#[test]
fn declarations() {
    let check = |text: &str, expected: &[&str]| {
        let found = params(&json(text));
        let shown: Vec<String> = found
            .iter()
            .map(|param| format!("{}={}", param.header, param.path.join("/")))
            .collect();
        assert_eq!(shown, expected, "{text}");
    };
    let of = |properties: &str| format!(r#"{{"type":"object","properties":{{{properties}}}}}"#);
    check(
        &of(r#""region":{"type":"string","x-mcp-header":"Region"},"q":{"type":"string"}"#),
        &["mcp-param-region=region"],
    );
    check(
        &of(r#""a":{"type":"object","properties":{"b":{"type":"integer","x-mcp-header":"B"}}}"#),
        &["mcp-param-b=a/b"],
    );
    check(
        &of(r#""n":{"type":"number","x-mcp-header":"N"}"#),
        &["mcp-param-n=n"],
    );
    // A property of that name, and data, declare nothing.
    check(
        &of(r#""x-mcp-header":{"type":"string","x-mcp-header":"X"},"d":{"default":{"x-mcp-header":"Y"}}"#),
        &["mcp-param-x=x-mcp-header"],
    );
    let good = r#""a":{"type":"string","x-mcp-header":"A"}"#;
    for bad in [
        r#""b":{"type":"string","x-mcp-header":""}"#,
        r#""b":{"type":"string","x-mcp-header":"a b"}"#,
        r#""b":{"type":"string","x-mcp-header":"a\r\nb"}"#,
        r#""b":{"type":"string","x-mcp-header":1}"#,
        r#""b":{"type":"string","x-mcp-header":"a"}"#,
        r#""b":{"type":"object","x-mcp-header":"B"}"#,
        r#""b":{"type":["string","null"],"x-mcp-header":"B"}"#,
        r#""b":{"x-mcp-header":"B"}"#,
        r#""b":{"type":"array","items":{"type":"string","x-mcp-header":"B"}}"#,
        r#""b":{"anyOf":[{"type":"string","x-mcp-header":"B"}]}"#,
        r#""b":{"type":"array","items":{"properties":{"c":{"type":"string","x-mcp-header":"B"}}}}"#,
    ] {
        check(&of(&format!("{good},{bad}")), &[]);
    }
    check(r#"{"type":"string","x-mcp-header":"A"}"#, &[]);
    check(
        r#"{"properties":{},"$defs":{"x":{"type":"string","x-mcp-header":"A"}}}"#,
        &[],
    );
    let many: Vec<String> = (0..65)
        .map(|n| format!(r#""p{n}":{{"type":"string","x-mcp-header":"P{n}"}}"#))
        .collect();
    assert_eq!(params(&json(&of(&many.join(",")))).len(), 0);
    assert_eq!(params(&json(&of(&many[..64].join(",")))).len(), 64);
}

#[test]
fn headers_say_what_arguments_say() {
    let declared = params(&schema(r#""a":{"type":"string","x-mcp-header":"A"}"#));
    let check = |arguments: &str, given: &[&[u8]], expected: Result<usize, Mismatch>| {
        let mut headers = HeaderMap::new();
        for value in given {
            headers.append("mcp-param-a", HeaderValue::from_bytes(value).unwrap());
        }
        let got = proved(&declared, &json(arguments), &headers).map(|proved| proved.len());
        assert_eq!(got, expected, "{arguments} {given:?}");
    };
    let (same, differs) = (Ok(1), Err(Mismatch));
    check(r#"{"a":"us-west1"}"#, &[b"us-west1"], same);
    check(r#"{"a":"us-west1"}"#, &[b"us-west2"], differs);
    check(r#"{"a":"us-west1"}"#, &[b"US-west1"], differs);
    check(r#"{"a":"us-west1"}"#, &[b"us-west1", b"us-west1"], differs);
    check(r#"{"a":"us-west1"}"#, &[], differs);
    check(
        r#"{"a":"Hello, 世界"}"#,
        &[b"=?base64?SGVsbG8sIOS4lueVjA==?="],
        same,
    );
    check(r#"{"a":"Hello, 世界"}"#, &["Hello, 世界".as_bytes()], differs);
    check(r#"{"a":" padded "}"#, &[b"=?base64?IHBhZGRlZCA=?="], same);
    check(
        r#"{"a":"=?base64?literal?="}"#,
        &[b"=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="],
        same,
    );
    check(r#"{"a":"=?base64?literal?="}"#, &[b"=?base64?literal?="], differs);
    check(r#"{"a":"x"}"#, &[b"=?BASE64?eA==?="], differs);
    // Other spellings of the same bytes, which readers take apart differently.
    check(r#"{"a":"x"}"#, &[b"=?base64?eB==?="], differs);
    check(r#"{"a":"x"}"#, &[b"=?base64?eA?="], differs);
    check(r#"{"a":"=?base64?="}"#, &[b"=?base64?="], differs);
    check(r#"{"a":""}"#, &[b"=?base64??="], same);
    check(r#"{"a":true}"#, &[b"true"], same);
    check(r#"{"a":true}"#, &[b"True"], differs);
    check(r#"{"a":42}"#, &[b"42"], same);
    check(r#"{"a":42}"#, &[b"42.0"], same);
    check(r#"{"a":42}"#, &[b"042"], differs);
    check(r#"{"a":42}"#, &[b"43"], differs);
    check(r#"{"a":9007199254740993}"#, &[b"9007199254740992"], differs);
    check(r#"{"a":1.5}"#, &[b"1.5"], same);
    // Without an argument there is no header.
    check(r#"{"a":null}"#, &[], Ok(0));
    check("{}", &[], Ok(0));
    check(r#"{"a":null}"#, &[b"null"], differs);
    check("{}", &[b""], differs);
    check(r#"{"b":"x"}"#, &[b"x"], differs);
    // What has no form as a header.
    check(r#"{"a":{"b":1}}"#, &[], Ok(0));
    check(r#"{"a":[1]}"#, &[b"1"], differs);
    check(r#"{"a":9007199254740993}"#, &[], Ok(0));
}

#[test]
fn a_schema_is_left_where_it_declares_too_many() {
    let many = |count: usize| {
        let one = |n: usize| format!(r#""p{n}":{{"type":"string","x-mcp-header":"p{n}"}}"#);
        schema(&(0..count).map(one).collect::<Vec<_>>().join(","))
    };
    let check = |count: usize, sound: bool| {
        let mut found = Vec::new();
        let walked = collect(&many(count), &mut Vec::new(), &mut found);
        assert_eq!((walked.is_some(), found.len()), (sound, MAX_PARAMS), "{count}");
    };
    check(64, true);
    check(65, false);
    check(300, false);
}

#[test]
fn what_another_member_could_be_taken_for_is_not_repeated() {
    let declared = params(&schema(
        r#""o":{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"}}}"#,
    ));
    let mut given = HeaderMap::new();
    given.append("mcp-param-region", HeaderValue::from_static("us"));
    let check = |arguments: &str, expected: Result<usize, Mismatch>| {
        let proved = proved(&declared, &json(arguments), &given);
        assert_eq!(proved.map(|proved| proved.len()), expected, "{arguments}");
    };
    check(r#"{"o":{"region":"us","x":1,"X":2}}"#, Ok(1));
    check(r#"{"o":{"region":"us","Region":"eu"}}"#, Err(Mismatch));
}

/// A header as a client of the protocol makes it.
fn encoded(text: &str) -> String {
    let plain = !text.is_empty()
        && text.trim() == text
        && text.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
        && !(text.starts_with("=?base64?") && text.ends_with("?="));
    if plain {
        text.to_owned()
    } else {
        format!("=?base64?{}?=", STANDARD.encode(text))
    }
}

fn any_argument() -> impl Strategy<Value = (String, String)> {
    let text = prop_oneof![
        "[ -~]{0,12}",
        "[^\0]{0,6}",
        "=\\?base64\\?[a-zA-Z0-9+/=]{0,8}\\?="
    ];
    prop_oneof![
        text.prop_map(|text: String| (serde_json::to_string(&text).unwrap(), encoded(&text))),
        any::<bool>().prop_map(|value| (value.to_string(), value.to_string())),
        (-9_007_199_254_740_991i64..=9_007_199_254_740_991).prop_map(|n| (n.to_string(), n.to_string())),
    ]
}

proptest! {
    #[test]
    fn what_an_honest_client_sends_passes((argument, header) in any_argument()) {
        let declared = params(&schema(r#""a":{"type":"string","x-mcp-header":"A"}"#));
        let mut headers = HeaderMap::new();
        headers.append("mcp-param-a", HeaderValue::from_str(&header).unwrap());
        let arguments = json(&format!(r#"{{"a":{argument}}}"#));
        prop_assert_eq!(proved(&declared, &arguments, &headers).map(|proved| proved.len()), Ok(1));
    }

    /// Whatever is sent: a header goes on only if it says what its argument says.
    #[test]
    fn what_is_forwarded_equals_the_argument(
        (argument, own) in any_argument(),
        (_, other) in any_argument(),
        swapped in any::<bool>(),
    ) {
        let declared = params(&schema(r#""a":{"type":"string","x-mcp-header":"A"}"#));
        let header = if swapped { &other } else { &own };
        let mut given = HeaderMap::new();
        given.append("mcp-param-a", HeaderValue::from_str(header).unwrap());
        given.append("mcp-param-b", HeaderValue::from_static("x"));
        let arguments = json(&format!(r#"{{"a":{argument}}}"#));
        let names = proved(&declared, &arguments, &given).unwrap_or_default();
        let forwarded = headers::to_upstream(&http::Method::POST, &given, &[], &names, false);
        prop_assert!(!forwarded.contains_key("mcp-param-b"));
        if let Some(value) = forwarded.get("mcp-param-a") {
            let said = decoded(value.to_str().unwrap()).unwrap();
            let meant = match arguments.get("a").unwrap() {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            prop_assert_eq!(said, meant);
        }
    }
}
