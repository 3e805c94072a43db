//! Which headers pass. What is not listed does not: credentials, cookies, addresses of the client, and
//! whatever belongs to one connection only.

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName};

/// Of a client, beside `mcp-*`.
const UP: [&str; 6] = [
    "accept",
    "baggage",
    "content-type",
    "last-event-id",
    "traceparent",
    "tracestate",
];
/// Of the proxy, beside `mcp-*`. No challenge: it is the bridge's to meet.
const DOWN: [HeaderName; 6] = [
    ALLOW,
    CACHE_CONTROL,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    RETRY_AFTER,
    HeaderName::from_static("x-accel-buffering"),
];

/// What the proxy gets of a client's headers.
pub(super) fn up(headers: &HeaderMap) -> HeaderMap {
    pass(headers, |name| {
        UP.contains(&name.as_str()) || name.as_str().starts_with("mcp-")
    })
}

/// What a client gets of the proxy's headers.
pub(super) fn down(headers: &HeaderMap) -> HeaderMap {
    pass(headers, |name| {
        DOWN.contains(name) || name.as_str().starts_with("mcp-")
    })
}

fn pass(headers: &HeaderMap, allowed: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for (name, value) in headers {
        if allowed(name) {
            passed.append(name.clone(), value.clone());
        }
    }
    passed
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_is_not_listed_stays() {
        let mut given = HeaderMap::new();
        for name in [
            "authorization",
            "baggage",
            "connection",
            "content-encoding",
            "content-length",
            "content-type",
            "cookie",
            "dpop",
            "forwarded",
            "host",
            "last-event-id",
            "mcp-param-x",
            "mcp-session-id",
            "origin",
            "proxy-authorization",
            "set-cookie",
            "te",
            "traceparent",
            "transfer-encoding",
            "upgrade",
            "www-authenticate",
            "x-forwarded-for",
            "x-http-method-override",
        ] {
            given.append(name, HeaderValue::from_static("x"));
        }
        assert_eq!(
            names(&up(&given)),
            [
                "baggage",
                "content-type",
                "last-event-id",
                "mcp-param-x",
                "mcp-session-id",
                "traceparent"
            ]
        );
        assert_eq!(
            names(&down(&given)),
            ["content-length", "content-type", "mcp-param-x", "mcp-session-id"]
        );
        // Each of several values.
        given.append("mcp-session-id", HeaderValue::from_static("y"));
        assert_eq!(up(&given).get_all("mcp-session-id").iter().count(), 2);
    }
}
