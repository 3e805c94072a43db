//! Arguments that headers repeat (`x-mcp-header`, SEP-2243), as the lists of tools that passed declared
//! them.

use std::collections::BTreeMap;

use http::HeaderName;
use serde_json::Value;

const EXTENSION: &str = "x-mcp-header";
const PREFIX: &str = "mcp-param-";
/// How many arguments of one tool may have a header.
const MAX_PARAMS: usize = 64;
/// How many tools are remembered.
const MAX_TOOLS: usize = 4096;
/// The largest magnitude of a number that a header repeats.
const MAX_SAFE: f64 = 9_007_199_254_740_991.0;

/// What is known of each tool.
#[derive(Debug, Default)]
pub(super) struct Params(BTreeMap<String, Vec<(HeaderName, Vec<String>)>>);

impl Params {
    /// Takes what the result of `tools/list` declares.
    pub(super) fn learn(&mut self, result: &Value) {
        let tools = result.get("tools").and_then(Value::as_array);
        for tool in tools.into_iter().flatten() {
            let (Some(name), Some(schema)) =
                (tool.get("name").and_then(Value::as_str), tool.get("inputSchema"))
            else {
                continue;
            };
            let found = declared(schema).unwrap_or_default();
            if found.is_empty() {
                self.0.remove(name);
            } else if self.0.contains_key(name) || self.0.len() < MAX_TOOLS {
                self.0.insert(name.to_owned(), found);
            }
        }
    }

    /// The headers of a call, with their values.
    pub(super) fn of(&self, tool: &str, arguments: Option<&Value>) -> Vec<(HeaderName, String)> {
        let declared = self.0.get(tool).map(Vec::as_slice).unwrap_or_default();
        let value = |path: &[String]| {
            let value = path.iter().try_fold(arguments?, |value, name| value.get(name))?;
            text(value)
        };
        let all = declared.iter();
        all.filter_map(|(header, path)| Some((header.clone(), value(path)?)))
            .collect()
    }
}

/// The declarations that are reached by `properties` alone; none at all when one of them is malformed.
fn declared(schema: &Value) -> Option<Vec<(HeaderName, Vec<String>)>> {
    let mut found = Vec::new();
    collect(schema, &mut Vec::new(), &mut found)?;
    (found.len() <= MAX_PARAMS).then_some(found)
}

fn collect(schema: &Value, path: &mut Vec<String>, found: &mut Vec<(HeaderName, Vec<String>)>) -> Option<()> {
    if let Some(name) = schema.get(EXTENSION) {
        let kind = schema.get("type").and_then(Value::as_str)?;
        if path.is_empty() || !["string", "integer", "boolean", "number"].contains(&kind) {
            return None;
        }
        let name = name.as_str().filter(|name| !name.is_empty())?;
        let header = HeaderName::try_from(format!("{PREFIX}{name}")).ok()?;
        if found.iter().any(|(known, _)| *known == header) {
            return None;
        }
        found.push((header, path.clone()));
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        path.push(name.clone());
        collect(property, path, found)?;
        path.pop();
    }
    Some(())
}

/// What a header says of a value; nothing for what has no form as one.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => {
            let safe = number
                .as_f64()
                .is_some_and(|n| n.is_finite() && n.abs() <= MAX_SAFE);
            safe.then(|| number.to_string())
        }
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn declared_arguments_are_repeated() {
        let mut params = Params::default();
        let property = |header: &str, kind: &str| json!({"type": kind, "x-mcp-header": header});
        let schema = |properties: Value| json!({"type": "object", "properties": properties});
        let tools = json!({"tools": [
            {"name": "a", "inputSchema": schema(json!({
                "region": property("Region", "string"),
                "deep": schema(json!({"n": property("N", "integer"), "b": property("B", "boolean")})),
                "plain": {"type": "string"},
            }))},
            {"name": "twice", "inputSchema": schema(json!({
                "x": property("Same", "string"), "y": property("same", "string"),
            }))},
            {"name": "object", "inputSchema": schema(json!({"x": property("X", "object")}))},
            {"name": "none", "inputSchema": schema(json!({}))},
            {"inputSchema": {}},
        ]});
        params.learn(&tools);
        let check = |tool: &str, arguments: Value, expected: &[(&str, &str)]| {
            let got = params.of(tool, Some(&arguments));
            let got: Vec<_> = got
                .iter()
                .map(|(name, text)| (name.as_str(), text.as_str()))
                .collect();
            assert_eq!(got, expected, "{tool} {arguments}");
        };
        check(
            "a",
            json!({"region": "eu", "deep": {"n": 5, "b": true}, "plain": "x"}),
            &[
                ("mcp-param-region", "eu"),
                ("mcp-param-n", "5"),
                ("mcp-param-b", "true"),
            ],
        );
        check("a", json!({"region": null, "deep": {"n": 1e300}}), &[]);
        check("a", json!({"region": ["eu"]}), &[]);
        for tool in ["twice", "object", "none", "unknown"] {
            check(tool, json!({"x": "1", "y": "2"}), &[]);
        }
        assert!(params.of("a", None).is_empty());
        params.learn(&json!({"tools": [{"name": "a", "inputSchema": {}}]}));
        assert!(params.of("a", Some(&json!({"region": "eu"}))).is_empty());
        params.learn(&json!({}));
    }
}
