//! The answer to `/readyz`, the same for every daemon: what is missing, in lines for people or in JSON for
//! programs.

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use serde_json::{Value, json};

/// What is missing and what else should be known, a line each: a name, `: ` and the reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// While there is one, the daemon is not ready.
    pub missing: Vec<String>,
    /// What leaves it ready all the same.
    pub notes: Vec<String>,
}

impl Health {
    /// 200 or 503. `?format=json` and `Accept: application/json` ask for JSON.
    pub fn answer<B>(&self, request: &Request<B>) -> Response<String> {
        let (kind, text) = if wants_json(request) {
            ("application/json", self.as_json())
        } else {
            ("text/plain; charset=utf-8", self.as_lines())
        };
        let mut response = Response::new(text);
        if !self.missing.is_empty() {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    fn as_lines(&self) -> String {
        let word = if self.missing.is_empty() {
            "ok"
        } else {
            "not ready"
        };
        let lines = self.missing.iter().chain(&self.notes).map(String::as_str);
        std::iter::once(word)
            .chain(lines)
            .map(|line| format!("{line}\n"))
            .collect()
    }

    fn as_json(&self) -> String {
        let told = |lines: &[String]| -> Vec<Value> {
            let one = |line: &String| {
                let (name, reason) = line.split_once(": ").unwrap_or((line, ""));
                json!({ "name": name, "reason": reason })
            };
            lines.iter().map(one).collect()
        };
        let mut page = json!({ "ready": self.missing.is_empty(), "missing": told(&self.missing) });
        if let (false, Some(page)) = (self.notes.is_empty(), page.as_object_mut()) {
            page.insert("notes".to_owned(), told(&self.notes).into());
        }
        page.to_string()
    }
}

fn wants_json<B>(request: &Request<B>) -> bool {
    let mut accept = request.headers().get_all(ACCEPT).iter();
    let only = accept.next().filter(|_| accept.next().is_none());
    request.uri().query() == Some("format=json")
        || only
            .and_then(|accept| accept.to_str().ok())
            .is_some_and(|accept| accept.trim_start().starts_with("application/json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_in_lines_and_in_json() {
        let check = |missing: &[&str], notes: &[&str], status: u16, lines: &str, document: Value| {
            let lines_of = |of: &[&str]| of.iter().map(|line| (*line).to_owned()).collect();
            let health = Health {
                missing: lines_of(missing),
                notes: lines_of(notes),
            };
            let plain = Request::get("/readyz").body(()).unwrap();
            let by_query = Request::get("/readyz?format=json").body(()).unwrap();
            let by_header = Request::get("/readyz").header(ACCEPT, "application/json");
            let answer = health.answer(&plain);
            assert_eq!(
                (answer.status().as_u16(), answer.body().as_str()),
                (status, lines)
            );
            assert_eq!(answer.headers()[CACHE_CONTROL], "no-store");
            for request in [by_query, by_header.body(()).unwrap()] {
                let answer = health.answer(&request);
                assert_eq!(answer.status().as_u16(), status);
                assert_eq!(answer.headers()[CONTENT_TYPE], "application/json");
                assert_eq!(serde_json::from_str::<Value>(answer.body()).unwrap(), document);
            }
        };
        check(&[], &[], 200, "ok\n", json!({ "ready": true, "missing": [] }));
        check(
            &["the store: it has failed", "odd"],
            &["git: 1 tool"],
            503,
            "not ready\nthe store: it has failed\nodd\ngit: 1 tool\n",
            json!({
                "ready": false,
                "missing": [
                    { "name": "the store", "reason": "it has failed" },
                    { "name": "odd", "reason": "" },
                ],
                "notes": [{ "name": "git", "reason": "1 tool" }],
            }),
        );
    }
}
