//! Arguments that headers repeat (`x-mcp-header`, SEP-2243): which header stands for which argument, and
//! whether it says what the body says.

use http::{HeaderMap, HeaderName};
use taper_capability::ArgumentPath;
use taper_capability::json::Value;

use super::decimal::Decimal;
use crate::headers::{self, PARAM_PREFIX};
use crate::message::decoded;

/// The member of a property's schema that names its header.
const EXTENSION: &str = "x-mcp-header";
/// How many arguments of one tool may have a header.
const MAX_PARAMS: usize = 64;

/// An argument that a header repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Param {
    header: HeaderName,
    /// Member names from the arguments down.
    path: Vec<String>,
}

/// A header and its argument differ, or one of them is there alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch;

/// The declarations of an input schema: those that are reached by `properties` alone, of a primitive type,
/// under names that differ beyond letter case. A schema that declares one in any other way has none:
/// clients of the protocol drop its tool. `number` is not one of the protocol's types for this, but
/// servers compare such headers, and its comparison is exact here.
pub(crate) fn params(schema: &Value) -> Vec<Param> {
    let mut found = Vec::new();
    let sound = collect(schema, &mut Vec::new(), &mut found).is_some();
    if sound && found.len() == declared(schema) {
        found
    } else {
        Vec::new()
    }
}

/// Walks `properties`. Nothing when a declaration is malformed, or there are too many.
fn collect(schema: &Value, path: &mut Vec<String>, found: &mut Vec<Param>) -> Option<()> {
    if let Some(name) = schema.get(EXTENSION) {
        let kind = schema.get("type").and_then(Value::as_str)?;
        if path.is_empty() || !["string", "integer", "boolean", "number"].contains(&kind) {
            return None;
        }
        let name = name.as_str().filter(|name| !name.is_empty())?;
        let header = HeaderName::try_from(format!("{PARAM_PREFIX}{name}")).ok()?;
        // Before the comparison: a server may declare as many as a list holds.
        if found.len() >= MAX_PARAMS || found.iter().any(|param| param.header == header) {
            return None;
        }
        found.push(Param {
            header,
            path: path.clone(),
        });
    }
    let properties = schema
        .get("properties")
        .and_then(Value::as_object)
        .unwrap_or_default();
    for (name, property) in properties {
        path.push(name.clone());
        collect(property, path, found)?;
        path.pop();
    }
    Some(())
}

/// How many schemas in `value` have a declaration, wherever they stand. A property that merely has this
/// name is none: what stands under `properties` and its like are names.
fn declared(value: &Value) -> usize {
    let within = |value: &Value| match value {
        Value::Object(members) => members.iter().map(|(_, member)| declared(member)).sum(),
        other => declared(other),
    };
    match value {
        Value::Array(elements) => elements.iter().map(declared).sum(),
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| match name.as_str() {
                EXTENSION => 1,
                "properties" | "patternProperties" | "dependentSchemas" | "$defs" | "definitions" => {
                    within(member)
                }
                // What stands here is data, not a schema.
                "const" | "default" | "enum" | "examples" => 0,
                _ => declared(member),
            })
            .sum(),
        _ => 0,
    }
}

/// The headers that may be forwarded: those that say what their argument says.
///
/// # Errors
/// [`Mismatch`] when one differs from its argument, is there without it, or is missing beside it.
pub(crate) fn proved(
    params: &[Param],
    arguments: &Value,
    given: &HeaderMap,
) -> Result<Vec<HeaderName>, Mismatch> {
    let mut proved = Vec::new();
    for param in params {
        let header = headers::single(given, &param.header).map_err(|_| Mismatch)?;
        let argument = param
            .path
            .iter()
            .try_fold(arguments, |value, name| value.get(name));
        match (header, argument) {
            (None, None | Some(Value::Null)) => {}
            // What has no form as a header is not repeated by one.
            (None, Some(value)) if !is_expected(value) => {}
            // A server that ignores case could compare the header with another argument.
            (Some(header), Some(value))
                if says(header, value) && !ArgumentPath::of_members(&param.path).is_ambiguous(arguments) =>
            {
                proved.push(param.header.clone());
            }
            _ => return Err(Mismatch),
        }
    }
    Ok(proved)
}

/// Whether a client must send a header beside this value: numbers that not every reader holds are left
/// out, as are objects and arrays.
fn is_expected(value: &Value) -> bool {
    match value {
        Value::String(_) | Value::Bool(_) => true,
        Value::Number(text) => text
            .parse()
            .is_ok_and(|value: f64| value.is_finite() && value.abs() <= MAX_SAFE),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// The largest magnitude of an integer that the protocol lets a header repeat.
const MAX_SAFE: f64 = 9_007_199_254_740_991.0;

/// Whether a header's value, decoded, is the value. Numbers are compared as numbers, exactly.
fn says(header: &str, value: &Value) -> bool {
    let Ok(said) = decoded(header) else {
        return false;
    };
    match value {
        Value::String(text) => said == *text,
        Value::Bool(value) => said == if *value { "true" } else { "false" },
        Value::Number(text) => match (Decimal::parse(&said), Decimal::parse(text)) {
            (Some(said), Some(number)) => said == number,
            _ => false,
        },
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
#[path = "params_tests.rs"]
mod tests;
