//! An upstream's answer with lists, filtered: no reader of JSON finds an entry in it that was dropped, nor a
//! list where none was seen, and what an entry says of its tool is its own.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use taper_capability::json::{JsonLimits, Value, parse};

// The modules themselves: all of the proxy would make this package as large as the program.
#[allow(dead_code)]
#[path = "../src/catalogue.rs"]
mod catalogue;
#[allow(dead_code)]
#[path = "../../crates/taper-proxy/src/lists/read.rs"]
mod read;

/// What a caller's headers are compared by, of which nothing is read here.
#[allow(dead_code)]
mod headers {
    pub(crate) const PARAM_PREFIX: &str = "mcp-param-";

    pub(crate) fn single<'a>(_: &'a http::HeaderMap, _: &http::HeaderName) -> Result<Option<&'a str>, ()> {
        Err(())
    }
}
mod message {
    pub(crate) fn decoded(_: &str) -> Result<String, ()> {
        Err(())
    }
}

use catalogue::{Definition, facts};
use read::Read;

const MEMBERS: [&str; 5] = ["tools", "resources", "resourceTemplates", "prompts", "tasks"];
const LIMITS: JsonLimits = JsonLimits {
    bytes: 1 << 20,
    depth: 64,
    nodes: 1 << 20,
    elements: 1 << 16,
};

/// Some are kept: those whose digest begins with an even digit.
fn is_kept(entry: &Value) -> bool {
    let digest = facts(entry).digest;
    digest.is_some_and(|digest| digest.as_bytes().first().is_some_and(|digit| digit % 2 == 0))
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut read) = Read::new(bytes, &LIMITS, &MEMBERS) else {
        return;
    };
    for name in loose(bytes).unwrap_or_default().keys() {
        let seen = MEMBERS
            .iter()
            .any(|member| member.eq_ignore_ascii_case(name) && read.holds(member));
        assert!(seen, "{name} was not seen");
    }
    let (mut kept, mut filtered) = (0, false);
    for member in MEMBERS {
        let keep = |entry: &Value| {
            let definition = Definition::of(entry);
            // The digest is of what is said, however it is spelt.
            let again = parse(entry.to_string().as_bytes(), &LIMITS);
            assert_eq!(again.as_ref().map(Definition::of), Ok(definition));
            kept += usize::from(is_kept(entry));
            is_kept(entry)
        };
        match read.keep(member, keep) {
            Ok(found) => filtered |= found,
            Err(_) => return,
        }
    }
    if !filtered {
        return;
    }
    let written = read.clone().into_private(true);
    let mut again = Read::new(written.as_bytes(), &LIMITS, &MEMBERS).expect("what was written is read");
    for member in MEMBERS {
        let known = again.keep(member, |entry| {
            assert!(is_kept(entry), "an entry is there that was dropped");
            true
        });
        known.expect("a list");
    }
    // A number that is out of its range is no number for this reader.
    if let Some(lists) = loose(written.as_bytes()) {
        let left: usize = lists
            .values()
            .filter_map(|list| list.as_array())
            .map(Vec::len)
            .sum();
        assert_eq!(left, kept, "an entry more or less");
    }
});

/// The lists in a message as a reader finds them that takes the last of two keys, in any case of letters;
/// nothing where it finds no message.
fn loose(bytes: &[u8]) -> Option<BTreeMap<String, serde_json::Value>> {
    let serde_json::Value::Object(message) = serde_json::from_slice(bytes).ok()? else {
        return None;
    };
    let results = message
        .into_iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("result"));
    let members = results.filter_map(|(_, result)| match result {
        serde_json::Value::Object(members) => Some(members),
        _ => None,
    });
    let is_list = |name: &str| MEMBERS.iter().any(|member| member.eq_ignore_ascii_case(name));
    Some(members.flatten().filter(|(name, _)| is_list(name)).collect())
}
