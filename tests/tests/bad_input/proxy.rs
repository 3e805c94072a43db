//! What the proxy refuses. Every request goes to the proxy of `taper up`, and to a second proxy with the
//! same configuration before an upstream that counts: a refused request never gets there.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use taper_tests::call::Call;
use taper_tests::daemon::{self, free_port};
use taper_tests::{Answer, Running, Up, raw};

use super::{Findings, Spoil, bad_proofs, claiming, key, spoil, stranger};

const MESSAGE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"git_log","arguments":{"repo_path":"acme/web"}}}"#;

/// A server that answers everything with the same result, and counts.
struct Upstream {
    requests: Arc<AtomicU64>,
    url: String,
}

impl Upstream {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let count = Arc::clone(&count);
                std::thread::spawn(move || answer(stream, &count));
            }
        });
        Self { requests, url }
    }

    fn count(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

fn answer(mut stream: std::net::TcpStream, count: &AtomicU64) {
    let mut received = Vec::new();
    let mut buffer = [0; 65_536];
    loop {
        let text = String::from_utf8_lossy(&received).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.trim().parse().unwrap()) {
                break;
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(n) => received.extend(&buffer[..n]),
        }
    }
    count.fetch_add(1, Ordering::SeqCst);
    let body = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"done"}]}}"#;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
    let _ = write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
}

/// `taper up`, and the second proxy.
pub(crate) struct Proxies {
    pub(crate) up: Up,
    second: Running,
    second_url: String,
    upstream: Upstream,
    token: String,
    key: String,
    pub(crate) findings: Findings,
}

impl Proxies {
    pub(crate) fn start() -> Self {
        let up = Up::start();
        up.capability("alice", "git:*");
        let token = std::fs::read_to_string(up.dir().join("alice.cap"))
            .unwrap()
            .trim()
            .to_owned();
        let key = key(&up, "alice");
        let upstream = Upstream::start();
        let second_url = format!("http://127.0.0.1:{}", free_port());
        let config = std::fs::read_to_string(up.dir().join("up/proxy/proxy.toml")).unwrap();
        let mut lines: Vec<String> = config.lines().map(str::to_owned).collect();
        for line in &mut lines {
            if line.starts_with("listen") {
                *line = format!("listen = \"{}\"", taper_tests::authority(&second_url));
            } else if line.starts_with("state") {
                "state = \"second-state\"".clone_into(line);
            } else if line.starts_with("upstream") {
                *line = format!("upstream = {{ http = \"{}\" }}", upstream.url);
            }
        }
        let config = lines
            .join("\n")
            .replace("\"boundary.dl\"", "\"up/proxy/boundary.dl\"")
            .replace("../feed-secret", "up/feed-secret");
        assert!(!config.contains("../"), "{config}");
        let second = daemon::start(up.dir(), "proxy", &config, &second_url);
        Self {
            up,
            second,
            second_url,
            upstream,
            token,
            key,
            findings: Findings::default(),
        }
    }

    /// A call that passes.
    pub(crate) fn honest(&self) -> Call {
        Call::mcp(&self.up.mcp(), &self.token, &self.key, MESSAGE)
    }

    /// Sends the twin to the second proxy, where it passes, and the other to both, where it does not.
    pub(crate) fn pair(&self, name: &str, twin: &[u8], bad: &[u8], status: u16, says: &str) {
        let before = self.upstream.count();
        self.findings.passed(name, &raw(&self.second_url, twin));
        let seen = self.upstream.count();
        self.findings.expect(seen == before + 1, || {
            format!("the twin of {name} did not reach the upstream")
        });
        for url in [&self.second_url, &self.up.mcp()] {
            self.findings.refused(name, &raw(url, bad), status, says);
            self.findings.healthy(name, url);
        }
        self.findings.expect(self.upstream.count() == seen, || {
            format!("{name} reached the upstream")
        });
    }

    fn check(&self, name: &str, spoil: impl Fn(Call) -> Call, status: u16, says: &str) {
        self.pair(
            name,
            &self.honest().bytes(),
            &spoil(self.honest()).bytes(),
            status,
            says,
        );
    }

    /// Nothing panicked, and both end as they should.
    pub(crate) fn end(self) {
        let Self {
            up, second, findings, ..
        } = self;
        findings.end(second);
        findings.end(up.process);
        findings.none();
    }
}

#[test]
fn heads() {
    let proxies = Proxies::start();
    let check = |name: &str, spoil: Spoil, status, says: &str| proxies.check(name, spoil, status, says);
    let with = |name: &'static str, value: &'static str| spoil(move |call| call.header(name, value));
    let instead = |name: &'static str, value: &'static str| spoil(move |call| call.instead(name, value));
    let at = |target: &'static str| spoil(move |call: Call| call.line("POST", target));

    check("a query", at("/git/mcp?x=1"), 400, "-32600");
    check("an empty query", at("/git/mcp?"), 400, "-32600");
    check(
        "a credential in the query",
        at("/git/mcp?access_token=x"),
        400,
        "-32600",
    );
    for target in [
        "/",
        "/git",
        "/git/",
        "/git/mcp/",
        "//git/mcp",
        "/git//mcp",
        "/./git/mcp",
        "/x/../git/mcp",
        "/git/mcp/..",
        "/git%2fmcp",
        "/%67it/mcp",
        "/git/mcp%00",
        "/git/mcp%20",
        "/GIT/mcp",
        "/git;v=1/mcp",
        "/git\\mcp",
        "/other/mcp",
        "/git/sse",
        "/metrics",
        "/admin/v1/revocations",
        "/.well-known/oauth-protected-resource/other/mcp",
    ] {
        check(target, at(target), 404, "");
    }
    check(
        "another host in the target",
        at("http://other.example/git/mcp"),
        421,
        "-32600",
    );
    for method in ["PUT", "PATCH", "OPTIONS", "TRACE", "PROPFIND"] {
        check(
            method,
            spoil(move |call| call.line(method, "/git/mcp")),
            405,
            "allow: POST, GET, DELETE",
        );
    }
    check(
        "CONNECT",
        spoil(|call| call.line("CONNECT", "other.example:443")),
        404,
        "",
    );
    for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
        check(name, with(name, "DELETE"), 400, "-32600");
    }
    for coding in ["gzip", "identity", "br, gzip"] {
        check(coding, with("content-encoding", coding), 400, "-32600");
    }
    check("another host", with("host", "other.example"), 421, "-32600");
    check(
        "two hosts",
        spoil(|call| {
            let host = taper_tests::authority(&call.url).to_owned();
            call.header("host", &host).header("host", &host)
        }),
        421,
        "-32600",
    );
    check(
        "another origin",
        with("origin", "http://evil.example"),
        403,
        "-32600",
    );
    check("the null origin", with("origin", "null"), 403, "-32600");
    check(
        "a websocket",
        spoil(|call| {
            call.header("upgrade", "websocket")
                .header("connection", "upgrade")
        }),
        400,
        "-32600",
    );
    check(
        "no content type",
        spoil(|call| call.without("content-type")),
        415,
        "-32600",
    );
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "application/json, text/plain",
    ] {
        check(kind, instead("content-type", kind), 415, "-32600");
    }
    check(
        "two content types",
        with("content-type", "application/json"),
        415,
        "-32600",
    );
    for method in ["GET", "DELETE"] {
        let get = Call {
            length: true,
            ..proxies.honest().line(method, "/git/mcp")
        };
        let twin = Call {
            length: false,
            ..get.clone()
        }
        .body("");
        proxies.pair(
            &format!("{method} with a body"),
            &twin.bytes(),
            &get.bytes(),
            400,
            "-32600",
        );
    }
    check(
        "the method in a header",
        with("mcp-method", "tools/list"),
        400,
        "-32020",
    );
    check(
        "the name in a header",
        with("mcp-name", "git_show"),
        400,
        "-32020",
    );
    check(
        "the name in base64",
        with("mcp-name", "=?base64?%%?="),
        400,
        "-32020",
    );
    check(
        "a revision in a header only",
        with("mcp-protocol-version", "2026-07-28"),
        400,
        "-32020",
    );
    check(
        "two revisions",
        spoil(|c| {
            c.header("mcp-protocol-version", "2025-11-25")
                .header("mcp-protocol-version", "2025-06-18")
        }),
        400,
        "-32020",
    );
    check(
        "a session of nobody",
        with("mcp-session-id", "0123456789abcdef"),
        404,
        "-32600",
    );
    check(
        "two sessions",
        spoil(|call| call.header("mcp-session-id", "a").header("mcp-session-id", "b")),
        404,
        "-32600",
    );
    proxies.end();
}

#[test]
fn framing() {
    let proxies = Proxies::start();
    let check = |name: &str, spoil: Spoil, status, says: &str| proxies.check(name, spoil, status, says);
    let with = |name: &'static str, value: Vec<u8>| spoil(move |call| call.header(name, &value));
    let own_length = |value: &'static str| {
        spoil(move |call| {
            Call {
                length: false,
                ..call
            }
            .header("content-length", value)
        })
    };

    check(
        "a header of 20,000 bytes",
        with("x-large", vec![b'a'; 20_000]),
        431,
        "",
    );
    check(
        "three hundred headers",
        spoil(|call| (0..300).fold(call, |call, n| call.header(&format!("x-{n}"), "a"))),
        431,
        "",
    );
    check("a header with a NUL", with("x-nul", b"a\0b".to_vec()), 400, "");
    check("a header name with a space", with("x y", b"a".to_vec()), 400, "");
    check("a folded header", with("x-folded", b"a\r\n b".to_vec()), 400, "");
    check(
        "another length twice",
        with("content-length", b"5".to_vec()),
        400,
        "",
    );
    check("a list of lengths", own_length("5, 6"), 400, "");
    check("a negative length", own_length("-1"), 400, "");
    check("a length with a sign", own_length("+112"), 400, "");
    check("a length in hexadecimal", own_length("0x70"), 400, "");
    check(
        "a length beyond counting",
        own_length("99999999999999999999999"),
        400,
        "",
    );
    check(
        "a length of a terabyte",
        own_length("1099511627776"),
        413,
        "-32600",
    );
    check("a length too short", own_length("20"), 401, "R-12");

    let chunked = |call: Call, coding: &str, length: bool| {
        let framed = [
            format!("{:x}\r\n", call.body.len()).as_bytes(),
            &call.body,
            b"\r\n0\r\n\r\n",
        ]
        .concat();
        let proof = call.proof();
        Call { length, ..call }
            .header("transfer-encoding", coding)
            .proofs(&[&proof])
            .body(framed)
    };
    let twin = || chunked(proxies.honest(), "chunked", false).bytes();
    let pair =
        |name: &str, bad: Call, status, says: &str| proxies.pair(name, &twin(), &bad.bytes(), status, says);
    // It is cut without an answer: nobody here decodes it.
    pair(
        "gzip and chunked",
        chunked(proxies.honest(), "gzip, chunked", false),
        0,
        "",
    );
    pair(
        "chunked before gzip",
        chunked(proxies.honest(), "chunked, gzip", false),
        400,
        "",
    );
    pair(
        "chunked that is not",
        chunked(proxies.honest(), "xchunked", false),
        400,
        "",
    );
    pair(
        "a broken chunk size",
        chunked(proxies.honest(), "chunked", false).edit("6f\r\n", "zz\r\n"),
        400,
        "",
    );
    pair(
        "a chunk size beyond counting",
        chunked(proxies.honest(), "chunked", false).edit("6f\r\n", "fffffffffffffffff\r\n"),
        400,
        "",
    );
    let mut in_chunks = proxies.honest();
    in_chunks.body.resize(1024 * 1024 + 1, b' ');
    pair(
        "a large body in chunks",
        chunked(in_chunks, "chunked", false),
        413,
        "-32600",
    );

    let large = |bytes: usize| {
        let mut call = proxies.honest();
        call.body.resize(bytes, b' ');
        call.bytes()
    };
    proxies.pair(
        "a body of a byte too much",
        &large(1024 * 1024),
        &large(1024 * 1024 + 1),
        413,
        "-32600",
    );

    for (name, bytes) in [
        (
            "noise",
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..],
        ),
        ("no version", b"GET /healthz\r\n\r\n"),
        ("another version", b"GET /healthz HTTP/3.0\r\n\r\n"),
        ("a target with a space", b"GET /git/mcp x HTTP/1.1\r\n\r\n"),
        (
            "a line without a target",
            b"GET HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        ),
    ] {
        proxies.pair(name, &proxies.honest().bytes(), bytes, 400, "");
    }
    proxies.end();
}

/// With both a length and chunks, whoever stands in front may take the rest for another request.
#[test]
fn a_smuggled_request_is_not_read() {
    let proxies = Proxies::start();
    let health = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answers = |framing: &str, body: &str| {
        let first = format!("POST /nothing HTTP/1.1\r\nhost: x\r\n{framing}\r\n{body}");
        let url = proxies.up.mcp();
        let answer = raw(&url, format!("{first}{health}").as_bytes());
        let whole = format!("{}{}", answer.head, answer.body);
        (
            whole.matches("HTTP/1.1 404").count(),
            whole.matches("HTTP/1.1 200").count(),
        )
    };
    assert_eq!(answers("content-length: 5\r\n", "0\r\n\r\n"), (1, 1));
    assert_eq!(
        answers("content-length: 5\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
        (1, 0)
    );
    assert_eq!(
        answers(
            "transfer-encoding: chunked\r\ncontent-length: 100\r\n",
            "0\r\n\r\n"
        ),
        (1, 0)
    );
    proxies.end();
}

#[test]
fn credentials() {
    let proxies = Proxies::start();
    let check = |name: &str, spoil: Spoil, status, says: &str| proxies.check(name, spoil, status, says);
    let scheme = |scheme: &'static str| {
        spoil(move |call| {
            let token = call.token.clone().unwrap();
            call.instead("authorization", format!("{scheme}{token}"))
        })
    };
    check(
        "no credentials",
        spoil(|call| call.without("authorization")),
        401,
        "www-authenticate: DPoP ",
    );
    check("a bearer token", scheme("Bearer "), 401, "M-10");
    check("a bearer token in small letters", scheme("bearer "), 401, "M-10");
    check("a basic one", scheme("Basic "), 401, "R-15");
    check("no scheme", scheme(""), 401, "R-15");
    check("a tab for a space", scheme("DPoP\t"), 401, "R-15");
    check("two spaces", scheme("DPoP  "), 401, "R-09");
    check(
        "no token",
        spoil(|call| call.instead("authorization", "DPoP")),
        401,
        "R-15",
    );
    check(
        "two authorizations",
        spoil(|call| call.header("authorization", "DPoP x")),
        401,
        "R-15",
    );
    check(
        "the same twice",
        spoil(|call| {
            let token = call.token.clone().unwrap();
            call.header("authorization", format!("DPoP {token}"))
        }),
        401,
        "R-15",
    );
    check(
        "beside a bearer token",
        spoil(|call| call.header("authorization", "Bearer x")),
        401,
        "R-15",
    );
    check(
        "bytes beyond ASCII",
        spoil(|call| call.instead("authorization", b"DPoP \xff\xfe")),
        401,
        "R-15",
    );
    check("no proof", spoil(|call| call.proofs(&[])), 401, "R-15");
    check(
        "two proofs",
        spoil(|call| {
            let (first, second) = (call.proof(), call.proof());
            call.proofs(&[&first, &second])
        }),
        401,
        "R-15",
    );
    check(
        "two proofs in one",
        spoil(|call| {
            let both = format!("{}, {}", call.proof(), call.proof());
            call.proofs(&[&both])
        }),
        401,
        "R-01",
    );

    for (name, spoil, rule) in bad_proofs() {
        check(name, spoil, 401, rule);
    }
    check("no ath", claiming(|claims| claims.ath = None), 401, "R-09");
    check(
        "ath of another token",
        claiming(|claims| *claims = claims.clone().token("other")),
        401,
        "R-09",
    );
    check(
        "an empty ath",
        claiming(|claims| claims.ath = Some(String::new())),
        401,
        "R-09",
    );
    check(
        "a proof of a stranger",
        spoil(|call| Call {
            key: Some(stranger()),
            ..call
        }),
        401,
        "R-14",
    );
    let once = proxies.honest().bytes();
    assert_eq!(raw(&proxies.up.mcp(), &once).status, 200);
    proxies.pair("the same request once more", &once, &once, 401, "R-13");

    // The proof is the right one for the token that is sent.
    let token = |change: &dyn Fn(&str) -> String| {
        let call = proxies.honest();
        let token = change(call.token.as_ref().unwrap());
        let call = call.instead("authorization", format!("DPoP {token}"));
        Call {
            token: Some(token),
            ..call
        }
    };
    let garbled = |name: &str, change: &dyn Fn(&str) -> String| {
        proxies.pair(
            name,
            &proxies.honest().bytes(),
            &token(change).bytes(),
            401,
            "invalid_token",
        );
    };
    garbled("a token of one letter", &|_| "x".into());
    garbled("a token that is not base64url", &|_| "%%%".into());
    garbled("a token of zeros", &|_| "A".repeat(400));
    garbled("a token of 12,000 letters", &|_| "A".repeat(12_000));
    garbled("half a token", &|token| token[..token.len() / 2].to_owned());
    garbled("a token without its end", &|token| {
        token[..token.len() - 1].to_owned()
    });
    garbled("a padded token", &|token| format!("{token}="));
    garbled("a token twice", &|token| token.repeat(2));
    garbled("a token in two parts", &|token| format!("{token},{token}"));
    for at in [0, 40, 200, 400] {
        garbled(&format!("letter {at} changed"), &|token| {
            let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
            format!("{}{other}{}", &token[..at], &token[at + 1..])
        });
    }
    garbled("an access token", &|_| {
        std::fs::read_to_string(proxies.up.dir().join("access-token"))
            .unwrap()
            .trim()
            .to_owned()
    });
    proxies.end();
}

#[test]
fn bodies() {
    let proxies = Proxies::start();
    // The digest in the proof is that of the spoilt body: nothing but the body itself is wrong.
    let body = |name: &str, body: &[u8], status, says: &str| {
        proxies.check(name, |call| call.body(body), status, says);
    };
    let edit = |name: &str, from: &str, to: &str, status, says: &str| {
        proxies.check(name, |call| call.edit(from, to), status, says);
    };
    let repo = r#""repo_path":"acme/web""#;

    body("no body", b"", 400, "-32700");
    body("white space", b" \n", 400, "-32700");
    body("a word", b"tools/call", 400, "-32700");
    body("half a message", &MESSAGE.as_bytes()[..60], 400, "-32700");
    body(
        "a byte order mark",
        format!("\u{feff}{MESSAGE}").as_bytes(),
        400,
        "-32700",
    );
    body(
        "UTF-16",
        &MESSAGE.bytes().flat_map(|b| [b, 0]).collect::<Vec<_>>(),
        400,
        "-32700",
    );
    body(
        "invalid UTF-8",
        &[MESSAGE.replace("acme/web\"", "acme/").as_bytes(), b"\xff\"}}}"].concat(),
        400,
        "-32700",
    );
    body(
        "two messages",
        format!("{MESSAGE}\n{MESSAGE}").as_bytes(),
        400,
        "-32700",
    );
    body(
        "a letter behind it",
        format!("{MESSAGE}x").as_bytes(),
        400,
        "-32700",
    );
    body(
        "a NUL behind it",
        format!("{MESSAGE}\0").as_bytes(),
        400,
        "-32700",
    );
    edit("a comment", "{", "{/* */", 400, "-32700");
    edit("a comma too much", "}}", ",}}", 400, "-32700");
    edit(
        "NaN",
        repo,
        r#""repo_path":"acme/web","max_count":NaN"#,
        400,
        "-32700",
    );
    edit(
        "a number with a leading zero",
        repo,
        r#""repo_path":"acme/web","max_count":01"#,
        400,
        "-32700",
    );
    edit(
        "the method twice",
        "{",
        r#"{"method":"tools/list","#,
        400,
        "-32700",
    );
    edit(
        "an argument twice",
        repo,
        r#""repo_path":"acme/web","repo_path":"acme/payroll""#,
        400,
        "-32700",
    );
    edit(
        "an argument twice, escaped",
        repo,
        r#""repo_path":"acme/web","repo\u005fpath":"acme/payroll""#,
        400,
        "-32700",
    );
    edit("params twice", "{", r#"{"params":{},"#, 400, "-32700");
    edit("a lone surrogate", "acme/web", r"acme/web\ud800", 400, "-32700");
    edit("a NUL in a text", "acme/web", r"acme/web\u0000", 400, "-32700");
    edit(
        "a control character in a text",
        "acme/web",
        "acme/web\u{1}",
        400,
        "-32700",
    );
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for depth in [100, 100_000] {
        edit(
            &format!("depth {depth}"),
            repo,
            &format!("{repo},\"max_count\":{}", nested(depth)),
            400,
            "-32700",
        );
    }
    edit(
        "five thousand values",
        repo,
        &format!("{repo},\"max_count\":[{}1]", "1,".repeat(5_000)),
        400,
        "-32700",
    );

    body("a batch", format!("[{MESSAGE}]").as_bytes(), 400, "-32600");
    body("an empty batch", b"[]", 400, "-32600");
    body("a text", b"\"tools/call\"", 400, "-32600");
    body("null", b"null", 400, "-32600");
    body("an empty object", b"{}", 400, "-32600");
    edit("another protocol", "2.0", "1.0", 400, "-32600");
    edit("no protocol", r#""jsonrpc":"2.0","#, "", 400, "-32600");
    edit(
        "a method in capitals too",
        "{",
        r#"{"Method":"tools/list","#,
        400,
        "-32600",
    );
    edit("params in capitals too", "{", r#"{"PARAMS":{},"#, 400, "-32600");
    edit(
        "an argument in capitals too",
        repo,
        r#""repo_path":"acme/web","Repo_Path":"acme/payroll""#,
        400,
        "-32600",
    );
    edit(
        "a name in capitals too",
        r#""name""#,
        r#""Name":"git_show","name""#,
        400,
        "-32600",
    );
    edit("a method that is a number", r#""tools/call""#, "7", 400, "-32600");
    edit("a method that is null", r#""tools/call""#, "null", 400, "-32600");
    for id in ["null", "1.5", "[]", "{}", "true"] {
        edit(
            &format!("id {id}"),
            r#""id":1"#,
            &format!("\"id\":{id}"),
            400,
            "-32600",
        );
    }
    edit(
        "params that are an array",
        r#""params":{"#,
        r#""params":[],"x":{"#,
        400,
        "-32600",
    );
    edit(
        "arguments that are an array",
        r#"{"repo_path":"acme/web"}"#,
        r#"["acme/web"]"#,
        400,
        "-32600",
    );
    edit("a request and an answer", "{", r#"{"result":{},"#, 400, "-32600");
    body(
        "an answer",
        br#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        400,
        "-32600",
    );
    body(
        "an error",
        br#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}"#,
        400,
        "-32600",
    );
    edit("no tool", r#""name":"git_log","#, "", 400, "-32600");
    edit("a tool that is a number", r#""git_log""#, "7", 400, "-32600");

    edit("an unknown method", "tools/call", "tools/destroy", 403, "M-19");
    edit(
        "a method with a NUL's name",
        "tools/call",
        "tools/call\u{200b}",
        403,
        "M-19",
    );
    edit("no repository", repo, "", 403, "M-21");
    edit("a repository that is a number", r#""acme/web""#, "7", 403, "M-21");
    edit(
        "a repository that is a list",
        r#""acme/web""#,
        r#"["acme/web"]"#,
        403,
        "M-21",
    );
    edit("an empty repository", "acme/web", "", 403, "M-2");
    for path in [
        "acme/../acme/web",
        "acme/./web",
        "acme//web",
        "acme/web/",
        "/acme/web",
        "~/web",
        r"acme\\web",
        "acme%2fweb",
    ] {
        edit(path, "acme/web", path, 403, "M-22");
    }
    edit(
        "another argument",
        repo,
        r#""repo_path":"acme/web","path":"../payroll""#,
        403,
        "M-23",
    );

    let unbound = |call: Call| {
        let mut claims = call.claims();
        claims.content_digest = None;
        let key = call.key.clone().unwrap();
        call.proven_by(&key, &claims)
    };
    let other = proxies.honest().body(
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "git_push"}})
            .to_string(),
    );
    let read_only = unbound(proxies.honest());
    proxies.pair(
        "a tool that writes, unbound",
        &read_only.bytes(),
        &unbound(other.clone()).bytes(),
        401,
        "M-14",
    );
    proxies.pair(
        "the same",
        &other.bytes(),
        &unbound(other.clone()).bytes(),
        401,
        "M-14",
    );
    proxies.end();
}

#[test]
fn the_twin_is_answered() {
    let proxies = Proxies::start();
    let answer: Answer = raw(&proxies.second_url, &proxies.honest().bytes());
    assert!(answer.body.contains("done"), "{answer:?}");
    let answer = raw(&proxies.up.mcp(), &proxies.honest().bytes());
    assert!(answer.body.contains("Author: "), "{answer:?}");
    proxies.end();
}
