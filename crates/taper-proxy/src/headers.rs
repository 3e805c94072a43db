//! Request and response headers: what is refused, what identifies the caller, what may pass (RULES 20).

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use taper_service::secret::Secret;

use crate::refusal::Refusal;
use crate::rules;

/// Names of a caller that an upstream gets, beside `mcp-*` and the profile's. The content type is not
/// among them: it is set anew, for a `charset` would make the upstream read another text than was
/// checked.
const TO_UPSTREAM: [&str; 3] = ["accept", "traceparent", "tracestate"];
/// Names of an upstream that a caller gets, beside its own session's.
const TO_CALLER: [&str; 5] = [
    "allow",
    "content-type",
    "mcp-protocol-version",
    "retry-after",
    "x-accel-buffering",
];
/// The protocol's own names.
const PREFIX: &str = "mcp-";
/// `Mcp-Param-*` repeats arguments; what is not proved equal to the body stays here.
pub(crate) const PARAM_PREFIX: &str = "mcp-param-";
/// Ways to say another method than the request line does.
const OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// Where a stream shall go on. It counts on a GET within a session only, which has an owner.
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

/// The session's id.
pub(crate) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// RFC 9449.
pub(crate) const DPOP: HeaderName = HeaderName::from_static("dpop");
/// RFC 9449 §8.2.
pub(crate) const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// A header that is there twice, or is not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotSingle;

/// The value of a header that is there at most once and is text.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, NotSingle> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| NotSingle),
        (Some(_), Some(_)) => Err(NotSingle),
    }
}

/// Which `Host` and `Origin` values are answered.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// Authorities in lower case.
    pub(crate) hosts: Vec<String>,
    /// Origins in lower case.
    pub(crate) origins: Vec<String>,
}

/// Checks the request head that needs neither credentials nor body (M-02 to M-07).
pub(crate) fn check_head<B>(request: &Request<B>, names: &Names) -> Result<(), Refusal> {
    let headers = request.headers();
    if request.uri().query().is_some() {
        return Err(Refusal::Query);
    }
    let written = single(headers, &header::HOST).map_err(|_| Refusal::Host)?;
    let host = match (request.uri().authority(), written) {
        // HTTP/2 may say it twice (RFC 9113 section 8.3.1), and so may an absolute request target.
        (Some(authority), Some(written)) if !authority.as_str().eq_ignore_ascii_case(written) => {
            return Err(Refusal::Host);
        }
        (Some(authority), _) => Some(authority.as_str()),
        (None, written) => written,
    };
    let known = |list: &[String], value: &str| list.iter().any(|one| value.eq_ignore_ascii_case(one));
    if !host.is_some_and(|host| known(&names.hosts, host)) {
        return Err(Refusal::Host);
    }
    match single(headers, &header::ORIGIN) {
        Ok(None) => {}
        Ok(Some(origin)) if known(&names.origins, origin) => {}
        _ => return Err(Refusal::Origin),
    }
    if OVERRIDES.iter().any(|name| headers.contains_key(*name)) {
        return Err(Refusal::MethodOverride);
    }
    if request.method() == Method::CONNECT || is_websocket(headers) {
        return Err(Refusal::Upgrade);
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Refusal::ContentEncoding);
    }
    Ok(())
}

fn is_websocket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get_all(header::UPGRADE).iter().any(|value| {
        value
            .to_str()
            .map_or(true, |value| value.to_ascii_lowercase().contains("websocket"))
    });
    upgrade || headers.contains_key(header::SEC_WEBSOCKET_KEY)
}

/// Whether a body says that it is JSON, in UTF-8 if it says anything about that (M-09).
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    is_kind(headers, "application/json")
}

/// Whether a body says that it is an event stream, in UTF-8 if it says anything about that.
pub(crate) fn is_events(headers: &HeaderMap) -> bool {
    is_kind(headers, "text/event-stream")
}

fn is_kind(headers: &HeaderMap, kind: &str) -> bool {
    let Ok(Some(value)) = single(headers, &header::CONTENT_TYPE) else {
        return false;
    };
    let mut parts = value.split(';').map(str::trim);
    parts.next().is_some_and(|first| first.eq_ignore_ascii_case(kind))
        && parts.all(|parameter| {
            ["charset=utf-8", "charset=\"utf-8\""]
                .iter()
                .any(|utf8| parameter.eq_ignore_ascii_case(utf8))
        })
}

/// A capability and its proof, as they were sent. Debug shows neither.
pub(crate) struct Credentials {
    token: Secret,
    proof: String,
}

impl Credentials {
    /// Takes them from `Authorization: DPoP` and `DPoP`, each exactly once.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let authorization = single(headers, &header::AUTHORIZATION).map_err(|_| Refusal::Credentials)?;
        let Some(authorization) = authorization else {
            return Err(Refusal::NoCredentials);
        };
        let (scheme, token) = authorization.split_once(' ').ok_or(Refusal::Credentials)?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Err(Refusal::Bearer);
        }
        if !scheme.eq_ignore_ascii_case("dpop") {
            return Err(Refusal::Credentials);
        }
        let proof = single(headers, &DPOP).map_err(|_| Refusal::Credentials)?;
        let proof = proof.ok_or(Refusal::Credentials)?;
        Ok(Self {
            token: Secret::new(token),
            proof: proof.to_owned(),
        })
    }

    /// The capability's text.
    pub(crate) fn token(&self) -> &str {
        // It came out of a header value that is text.
        self.token.expose_str().unwrap_or_default()
    }

    /// The proof.
    pub(crate) fn proof(&self) -> &str {
        &self.proof
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// From where the request came (RULES 18): the socket's peer, or with `hops` trusted proxies in
/// front the address that the outermost of them saw. `None` when they did not say.
pub(crate) fn client_ip(peer: Option<SocketAddr>, headers: &HeaderMap, hops: usize) -> Option<IpAddr> {
    let Some(before_last) = hops.checked_sub(1) else {
        return peer.map(|peer| peer.ip().to_canonical());
    };
    let mut seen: Vec<&str> = Vec::new();
    for value in headers.get_all("x-forwarded-for") {
        seen.extend(value.to_str().ok()?.split(','));
    }
    let seen = seen.iter().rev().nth(before_last)?;
    seen.trim().parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// Whether a header says that it repeats an argument.
pub(crate) fn has_params(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with(PARAM_PREFIX))
}

/// What an upstream gets of the caller's headers. Hop-by-hop names and credentials are in no list.
/// `params` are the headers that were proved to repeat an argument; `session` is whether the request has
/// an owned one.
pub(crate) fn to_upstream(
    method: &Method,
    headers: &HeaderMap,
    extra: &[HeaderName],
    params: &[HeaderName],
    session: bool,
) -> HeaderMap {
    let resumes = session && method == Method::GET;
    pass(headers, |name| {
        let text = name.as_str();
        if text.starts_with(PARAM_PREFIX) {
            return rules::PARAMS.holds(params.contains(name));
        }
        if name == SESSION && !session {
            return false;
        }
        TO_UPSTREAM.contains(&text)
            || (text.starts_with(PREFIX) && is_plain(text))
            || (resumes && name == LAST_EVENT)
            || extra.contains(name)
    })
}

/// Whether a server behind an interface like CGI's takes two names in lower case for one. It reads headers as
/// variables, in which `-`, `_` and other signs are all `_`: there `Mcp-Session_Id` is the session's id.
fn is_alike(a: &str, b: &str) -> bool {
    let sign = |byte: u8| !byte.is_ascii_alphanumeric();
    let same = |(a, b): (u8, u8)| a == b || (sign(a) && sign(b));
    a.len() == b.len() && a.bytes().zip(b.bytes()).all(same)
}

/// Whether a name is written as the protocol's are, so that no other one was checked in its place.
fn is_plain(name: &str) -> bool {
    name.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Sets one of the proxy's own headers, in place of whatever a server could take for it.
pub(crate) fn set(headers: &mut HeaderMap, name: &HeaderName, value: &HeaderValue) {
    let is = |other: &&HeaderName| is_alike(other.as_str(), name.as_str());
    let alike: Vec<HeaderName> = headers.keys().filter(is).cloned().collect();
    for other in alike {
        headers.remove(other);
    }
    headers.insert(name.clone(), value.clone());
}

/// What a caller gets of the upstream's headers. Whatever the upstream says of caches, an answer is for
/// the one who presented a capability.
pub(crate) fn to_caller(headers: &HeaderMap, session: bool) -> HeaderMap {
    let mut passed = pass(headers, |name| {
        let text = name.as_str();
        TO_CALLER.contains(&text) || (name == SESSION && session)
    });
    let private = HeaderValue::from_static("private, no-store");
    passed.insert(header::CACHE_CONTROL, private);
    passed
}

/// Whether a configured header may be forwarded: never one that carries credentials or framing, says
/// how the body is read, or belongs to a session; nor one that could be taken for such, or for one of the
/// protocol's.
pub(crate) fn may_forward(name: &HeaderName) -> bool {
    const NEVER: [&str; 16] = [
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "dpop",
        "expect",
        "host",
        "keep-alive",
        "last-event-id",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let text = name.as_str();
    let start = text.get(..PREFIX.len()).unwrap_or_default();
    let is_disguised = is_alike(start, PREFIX) && !is_plain(text);
    let is_never = NEVER.iter().chain(&OVERRIDES).any(|never| is_alike(never, text));
    !is_never && !is_disguised
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
    use super::*;

    fn headers(given: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in given {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn credentials_come_once_and_by_dpop() {
        let check = |given: &[(&'static str, &'static str)], expected: Option<&str>| {
            let got = Credentials::of(&headers(given));
            let rule = got.as_ref().err().map(|refusal| refusal.rule().as_str());
            assert_eq!(rule, expected, "{given:?}");
        };
        check(&[("authorization", "DPoP abc"), ("dpop", "p")], None);
        check(&[("authorization", "dpop abc"), ("dpop", "p")], None);
        check(&[], Some("R-15"));
        check(&[("dpop", "p")], Some("R-15"));
        check(&[("authorization", "DPoP abc")], Some("R-15"));
        check(&[("authorization", "DPoP")], Some("R-15"));
        check(&[("authorization", "Basic abc"), ("dpop", "p")], Some("R-15"));
        check(&[("authorization", "Bearer abc"), ("dpop", "p")], Some("M-10"));
        let twice = [("authorization", "DPoP a"), ("dpop", "p"), ("dpop", "q")];
        check(&twice, Some("R-15"));
        let twice = [
            ("authorization", "DPoP a"),
            ("authorization", "DPoP a"),
            ("dpop", "p"),
        ];
        check(&twice, Some("R-15"));
        let one = Credentials::of(&headers(&[("authorization", "DPoP abc"), ("dpop", "p")])).unwrap();
        assert_eq!(format!("{one:?}"), "Credentials(…)");
        assert_eq!((one.token(), one.proof()), ("abc", "p"));
    }

    #[test]
    fn heads() {
        let names = Names {
            hosts: vec!["proxy.example".into()],
            origins: vec!["https://proxy.example".into()],
        };
        let check = |uri: &str, given: &[(&'static str, &'static str)], expected: Option<&str>| {
            let mut request = Request::post(uri).body(()).unwrap();
            *request.headers_mut() = headers(given);
            let got = check_head(&request, &names);
            assert_eq!(got.err().map(|r| r.rule().as_str()), expected, "{uri} {given:?}");
        };
        let host = ("host", "Proxy.example");
        check("/git/mcp", &[host], None);
        check("https://proxy.example/git/mcp", &[], None);
        check("/git/mcp?", &[host], Some("M-03"));
        check("/git/mcp?token=x", &[host], Some("M-03"));
        check("/git/mcp", &[], Some("M-06"));
        check("/git/mcp", &[("host", "evil.example")], Some("M-06"));
        check("/git/mcp", &[host, host], Some("M-06"));
        check("/git/mcp", &[host, ("origin", "https://proxy.example")], None);
        check(
            "/git/mcp",
            &[host, ("origin", "https://evil.example")],
            Some("M-05"),
        );
        check("/git/mcp", &[host, ("origin", "null")], Some("M-05"));
        check(
            "/git/mcp",
            &[host, ("x-http-method-override", "GET")],
            Some("M-02"),
        );
        check("/git/mcp", &[host, ("upgrade", "WebSocket")], Some("M-07"));
        check("/git/mcp", &[host, ("upgrade", "h2c")], None);
        check("/git/mcp", &[host, ("content-encoding", "gzip")], Some("M-04"));
    }

    #[test]
    fn headers_pass_by_name() {
        let sent = headers(&[
            ("authorization", "DPoP secret"),
            ("dpop", "proof"),
            ("cookie", "a=b"),
            ("x-forwarded-for", "1.2.3.4"),
            ("accept", "application/json"),
            ("mcp-protocol-version", "2025-11-25"),
            ("mcp-session-id", "s"),
            ("mcp-param-repo", "x"),
            ("mcp-param_repo", "x"),
            ("mcp-session_id", "another"),
            ("mcp-session.id", "another"),
            ("mcp-protocol_version", "1"),
            ("mcp_name", "x"),
            ("x-own", "1"),
            ("x_own", "2"),
            ("content_length", "7"),
            ("x_http_method_override", "GET"),
            ("transfer-encoding", "chunked"),
            ("content-type", "application/json; charset=utf-7"),
            ("last-event-id", "9"),
        ]);
        let names = |map: &HeaderMap| {
            let mut names: Vec<String> = map.keys().map(|name| name.to_string()).collect();
            names.sort_unstable();
            names.join(" ")
        };
        let own = [HeaderName::from_static("x-own")];
        assert_eq!(
            names(&to_upstream(&Method::POST, &sent, &own, &[], true)),
            "accept mcp-protocol-version mcp-session-id x-own"
        );
        assert_eq!(
            names(&to_upstream(&Method::GET, &sent, &[], &[], false)),
            "accept mcp-protocol-version"
        );
        assert_eq!(
            names(&to_upstream(&Method::GET, &sent, &[], &[], true)),
            "accept last-event-id mcp-protocol-version mcp-session-id"
        );
        let answered = headers(&[
            ("content-type", "application/json"),
            ("set-cookie", "a=b"),
            ("www-authenticate", "Bearer"),
            ("access-control-allow-origin", "*"),
            ("mcp-session-id", "s"),
        ]);
        let passed = to_caller(&answered, true);
        assert_eq!(names(&passed), "cache-control content-type mcp-session-id");
        assert_eq!(passed[header::CACHE_CONTROL], "private, no-store");
        assert_eq!(names(&to_caller(&answered, false)), "cache-control content-type");
        assert!(!may_forward(&header::AUTHORIZATION) && !may_forward(&DPOP) && may_forward(&own[0]));
        assert!(!may_forward(&header::CONTENT_TYPE) && !may_forward(&LAST_EVENT));
        for disguised in [
            "content_length",
            "transfer.encoding",
            "mcp-session_id",
            "mcp_session_id",
            "x_http_method_override",
        ] {
            assert!(!may_forward(&HeaderName::from_static(disguised)), "{disguised}");
        }
        assert!(may_forward(&HeaderName::from_static("x_tenant")));
    }

    #[test]
    fn json_is_utf_8() {
        let check = |value: &'static str, expected: bool| {
            let given = headers(&[("content-type", value)]);
            assert_eq!(is_json(&given), expected, "{value}");
        };
        check("application/json", true);
        check("Application/JSON; charset=utf-8", true);
        check("application/json;Charset=\"UTF-8\"", true);
        check("application/json; charset=utf-7", false);
        check("application/json; charset=utf-16le", false);
        check("application/json; charset=utf-8; charset=utf-7", false);
        check("application/json; boundary=x", false);
        check("application/json;", false);
        check("application/json, text/plain", false);
        check("text/json", false);
        check("", false);
        let twice = [
            ("content-type", "application/json"),
            ("content-type", "text/plain"),
        ];
        assert!(!is_json(&headers(&twice)));
    }

    #[test]
    fn the_client_is_the_peer_or_a_declared_hop() {
        let peer: SocketAddr = "10.0.0.9:1".parse().unwrap();
        let check = |given: &[(&'static str, &'static str)], hops: usize, expected: Option<&str>| {
            let got = client_ip(Some(peer), &headers(given), hops).map(|ip| ip.to_string());
            assert_eq!(got.as_deref(), expected, "{given:?} {hops}");
        };
        let forwarded = ("x-forwarded-for", "6.6.6.6, 1.1.1.1, 2.2.2.2");
        check(&[forwarded], 0, Some("10.0.0.9"));
        check(&[forwarded], 1, Some("2.2.2.2"));
        check(&[forwarded], 2, Some("1.1.1.1"));
        check(&[forwarded], 4, None);
        check(&[], 1, None);
        check(&[("x-forwarded-for", "nonsense")], 1, None);
    }
}
