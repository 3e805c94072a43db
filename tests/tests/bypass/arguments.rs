//! Arguments that a caveat speaks of: left out, of another type, in another spelling.

use rand_core::OsRng;
use taper_capability::{ArgumentMatch, ArgumentValue, Caveat, Narrowing};
use taper_tests::call::Call;

use crate::row::{Row, row};
use crate::world::{Era, Holder, World};

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(integers());
    rows.extend(texts());
    rows.extend(places());
    rows.extend(spellings());
    rows
}

/// A call of the server without templates, by alice narrowed to this caveat.
fn call(world: &World<'_>, era: Era, caveat: &Caveat, arguments: &str) -> Call {
    let token = Narrowing::new()
        .only(caveat.clone())
        .sign(&world.alice.token, &world.alice.key, &mut OsRng)
        .unwrap();
    let narrowed = Holder {
        token,
        ..world.alice.clone()
    };
    let inner = format!(r#""name":"note_write","arguments":{arguments}"#);
    world.ask(&narrowed, era, "notes", "tools/call", &inner)
}

fn pair(name: String, pointer: &str, matches: ArgumentMatch, good: String, bad: String) -> Row {
    let caveat = Caveat::Argument {
        pointer: pointer.into(),
        matches,
    };
    let same = caveat.clone();
    row("T-24", name, move |world, era, _| call(world, era, &same, &bad))
        .twin(move |world, era| call(world, era, &caveat, &good))
}

fn integers() -> Vec<Row> {
    let mut rows = Vec::new();
    let equals = |value: &str| {
        let matches = ArgumentMatch::Equals(ArgumentValue::Integer(5));
        pair(
            format!("{value} for 5"),
            "/n",
            matches,
            r#"{"n":5}"#.into(),
            format!("{{\"n\":{value}}}"),
        )
    };
    for value in ["6", "-5", "50"] {
        rows.push(equals(value).denied("R-22"));
    }
    for value in [
        "5.0",
        "5e0",
        "0.5e1",
        "50e-1",
        "\"5\"",
        "true",
        "null",
        "[5]",
        "{\"n\":5}",
        "5.0000000000000001",
        "500000000000000000000e-20",
    ] {
        rows.push(equals(value).denied("R-25"));
    }
    let range = |value: &str| {
        let matches = ArgumentMatch::Range {
            min: Some(0),
            max: Some(10),
        };
        pair(
            format!("{value} for 0 to 10"),
            "/n",
            matches,
            r#"{"n":0}"#.into(),
            format!("{{\"n\":{value}}}"),
        )
    };
    for value in ["11", "-1", "9007199254740991", "-9007199254740991"] {
        rows.push(range(value).denied("R-22"));
    }
    for value in [
        "-0",
        "-0.0",
        "0.0",
        "1e400",
        "-1e400",
        "1e-400",
        "9007199254740992",
        "9007199254740993",
        "18446744073709551616",
        "18446744073709551617",
        "4294967296.0",
        "\"7\"",
        "null",
    ] {
        rows.push(range(value).denied("R-25"));
    }
    rows
}

fn texts() -> Vec<Row> {
    let mut rows = Vec::new();
    let equals = |value: &str| {
        let matches = ArgumentMatch::Equals(ArgumentValue::String("dev".into()));
        pair(
            format!("{value} for \"dev\""),
            "/n",
            matches,
            r#"{"n":"dev"}"#.into(),
            format!("{{\"n\":{value}}}"),
        )
    };
    for value in [
        "\"Dev\"",
        "\"dev \"",
        "\" dev\"",
        "\"dev\\n\"",
        "\"devx\"",
        "\"\"",
        "\"d\u{435}v\"",
        "\"dev\u{200b}\"",
        "\"\\uff44ev\"",
    ] {
        rows.push(equals(value).denied("R-22"));
    }
    for value in ["null", "[\"dev\"]", "{\"dev\":1}", "true", "7"] {
        rows.push(equals(value).denied("R-25"));
    }
    let prefix = |value: &str| {
        let matches = ArgumentMatch::Prefix("feature-".into());
        pair(
            format!("{value} for feature-…"),
            "/n",
            matches,
            r#"{"n":"feature-1"}"#.into(),
            format!("{{\"n\":{value}}}"),
        )
    };
    rows.push(prefix("\"Feature-1\"").denied("R-22"));
    rows.push(prefix("\" feature-1\"").denied("R-22"));
    rows.push(prefix("[\"feature-1\"]").denied("R-25"));
    let within = |value: &str| {
        let matches = ArgumentMatch::PathWithin("/srv/data".into());
        pair(
            format!("path {value}"),
            "/n",
            matches,
            r#"{"n":"/srv/data/x"}"#.into(),
            format!("{{\"n\":{value}}}"),
        )
    };
    for value in [
        "/srv/data/../etc",
        "/srv/database",
        "/srv/data/",
        "/srv/data//x",
        "srv/data/x",
        "/srv/data/./x",
        "/srv/data%2fx",
        "/SRV/data/x",
        "/srv/data/x ",
        "/srv/data/x.",
        "/srv/data\\\\x",
        "/",
        "",
    ] {
        rows.push(within(&format!("\"{value}\"")).denied("R-22"));
    }
    let host = |value: &str| {
        let matches = ArgumentMatch::UrlHost(vec!["https://example.com".into()]);
        pair(
            format!("URL {value}"),
            "/n",
            matches,
            r#"{"n":"https://example.com/x"}"#.into(),
            format!("{{\"n\":{value}}}"),
        )
    };
    for value in [
        "http://example.com/x",
        "https://example.com@evil.example/x",
        "https://example.com.evil.example/x",
        "https://evil.example/example.com",
        "https://EXAMPLE.com/x",
        "https://example.com:444/x",
        "https://example.com./x",
        "https://evil.example#@example.com/x",
        "https://evil.example\\\\@example.com/x",
        "https://[::1]/x",
        "https://2130706433/",
        "https://example.com%2f@evil.example/",
        "//example.com/x",
        "javascript://example.com/%0aalert(1)",
    ] {
        rows.push(host(&format!("\"{value}\"")).denied("R-22"));
    }
    rows
}

fn places() -> Vec<Row> {
    let at = |name: &str, bad: &str| {
        let matches = ArgumentMatch::Equals(ArgumentValue::Integer(5));
        pair(
            format!("argument: {name}"),
            "/n",
            matches,
            r#"{"n":5}"#.into(),
            bad.into(),
        )
    };
    let nested = |name: &str, bad: &str| {
        let matches = ArgumentMatch::Equals(ArgumentValue::Integer(5));
        pair(
            format!("nested argument: {name}"),
            "/o/n",
            matches,
            r#"{"o":{"n":5}}"#.into(),
            bad.into(),
        )
    };
    vec![
        at("left out", "{}").denied("R-25"),
        at("with a space in its name", r#"{"n ":5}"#).denied("M-23"),
        at("in another case", r#"{"N":5}"#).denied("M-23"),
        at("with one more that nobody listed", r#"{"n":5,"m":6}"#).denied("M-23"),
        at("in an object", r#"{"o":{"n":5}}"#).denied("M-23"),
        at("as a pointer", r#"{"/n":5}"#).denied("M-23"),
        at("twice", r#"{"n":6,"n":5}"#).is(400, -32700, "M-15"),
        at("twice, in two cases", r#"{"n":5,"N":6}"#).is(400, -32600, "M-17"),
        nested("left out", r#"{"o":{}}"#).denied("R-25"),
        nested("in a list", r#"{"o":[{"n":5}]}"#).denied("R-25"),
        nested("at the top", r#"{"o":5}"#).denied("R-25"),
        nested("of another value", r#"{"o":{"n":6}}"#).denied("R-22"),
        nested("under a name with a slash", r#"{"o/n":5}"#).denied("M-23"),
    ]
}

/// For a server that ignores case, another one than was read here.
fn spellings() -> Vec<Row> {
    let beside = |name: &str, bad: &str| {
        let matches = ArgumentMatch::Equals(ArgumentValue::Integer(5));
        let row = pair(
            format!("nested argument: {name}"),
            "/o/nos",
            matches,
            r#"{"o":{"nos":5,"headers":{"A":1,"a":2}}}"#.into(),
            bad.into(),
        );
        row.of("T-25")
    };
    let plain = |name: &str, bad: &'static str| {
        let call = |world: &World<'_>, era, arguments: &str| {
            let inner = format!(r#""name":"note_write","arguments":{arguments}"#);
            world.ask(&world.alice, era, "notes", "tools/call", &inner)
        };
        let good = r#"{"overwrite":false,"x":{"OVERWRITE":true}}"#;
        row("T-25", name, move |world, era, _| call(world, era, bad))
            .twin(move |world, era| call(world, era, good))
    };
    vec![
        beside("in another case too", r#"{"o":{"nos":5,"Nos":6}}"#),
        beside("in another case first", r#"{"o":{"NOS":6,"nos":5}}"#),
        beside("with a long s too", "{\"o\":{\"nos\":5,\"no\u{17f}\":6}}"),
        beside("in another case, escaped", r#"{"o":{"nos":5,"no\u0053":6}}"#),
        plain("what a policy reads in another case", r#"{"Overwrite":true}"#),
        plain(
            "what a policy reads with a dotless letter",
            "{\"overwr\u{131}te\":true}",
        ),
    ]
    .into_iter()
    .map(|row| row.is(400, -32600, "M-17"))
    .collect()
}
