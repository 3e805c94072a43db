//! What the upstream of the tests answers: honestly under `git`, `notes` and `other`, and with a trouble
//! of its own under each name of [`TROUBLED`].

use std::sync::atomic::{AtomicU64, Ordering};

use taper_tests::upstream::{RESULT, Received, Reply, json};

use crate::guarded;

/// What the proxy shows to the upstream of `git`.
pub(crate) const OWN_CREDENTIALS: &str = "Bearer own-credentials-of-the-proxy";

/// Servers whose upstream misbehaves, each in its way.
pub(crate) const TROUBLED: &[&str] = &[
    "asks",
    "proxyasks",
    "trace",
    "moved",
    "cookies",
    "cors",
    "html",
    "encoded",
    "nonsense",
    "early",
];

/// What no answer of an upstream may bring to a caller.
pub(crate) const SECRET_WORD: &str = "upstream-secret-4711";

pub(crate) fn answer(request: &Received) -> Reply {
    static SESSIONS: AtomicU64 = AtomicU64::new(0);
    let server = request.path().trim_start_matches('/');
    let secret = SECRET_WORD;
    let head = |status: &str, headers: &str, body: &str| {
        let length = body.len();
        let text = format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        );
        Reply::Whole(text.into_bytes())
    };
    if let Some(reply) = guarded::answer(server, request) {
        return reply;
    }
    match server {
        "asks" => head(
            "401 Unauthorized",
            &format!("www-authenticate: Bearer realm=\"{secret}\"\r\n"),
            secret,
        ),
        "proxyasks" => head(
            "407 Proxy Authentication Required",
            &format!("proxy-authenticate: Basic realm=\"{secret}\"\r\n"),
            secret,
        ),
        "trace" => head(
            "500 Internal Server Error",
            "content-type: text/plain\r\n",
            &format!("Traceback (most recent call last): {secret}"),
        ),
        "moved" => head(
            "307 Temporary Redirect",
            &format!("location: https://evil.example/{secret}\r\n"),
            secret,
        ),
        "cookies" => head(
            "200 OK",
            &format!(
                "content-type: application/json\r\nset-cookie: a={secret}\r\nx-powered-by: {secret}\r\nserver: {secret}\r\ndpop-nonce: {secret}\r\nwww-authenticate: Basic {secret}\r\n"
            ),
            RESULT,
        ),
        "cors" => head(
            "200 OK",
            &format!(
                "content-type: application/json\r\naccess-control-allow-origin: *\r\naccess-control-allow-credentials: true\r\naccess-control-expose-headers: {secret}\r\n"
            ),
            RESULT,
        ),
        "html" => head(
            "200 OK",
            "content-type: text/html\r\n",
            &format!("<script>{secret}</script>"),
        ),
        "encoded" => head(
            "200 OK",
            "content-type: application/json\r\ncontent-encoding: gzip\r\n",
            secret,
        ),
        "nonsense" => Reply::Whole(format!("{secret}\r\n\r\n").into_bytes()),
        "early" => Reply::Whole(Vec::new()),
        _ => {
            let body = String::from_utf8_lossy(&request.body);
            let initialize = body.contains(r#""method":"initialize""#);
            let session = if initialize && body.contains("2025") {
                let number = SESSIONS.fetch_add(1, Ordering::SeqCst);
                format!("mcp-session-id: session-{number}-of-a-test\r\n")
            } else {
                String::new()
            };
            let list = ["tools", "resources", "prompts"]
                .iter()
                .find(|list| body.contains(&format!(r#""method":"{list}/list""#)));
            let result = match list {
                Some(list) => format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"{list}":[]}}}}"#),
                None => RESULT.to_owned(),
            };
            Reply::Whole(json(&result, &session))
        }
    }
}
