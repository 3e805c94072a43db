//! Every request is counted once and has one line in the log, whatever comes of it.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::Value;
use taper_service::shutdown::Shutdown;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tracing::Level;

use super::support::{Setup, World, json, tool_call, usual};
use crate::body::Body;
use crate::service::answer_admin;

const LOG: &str = r#"{"repo_path":"acme/web"}"#;

/// What was logged on this thread.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    pub(super) fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let lines = Self::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(Level::DEBUG)
            .with_writer(move || writer.clone())
            .finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines of requests.
    fn requests(&self) -> Vec<Value> {
        let text = self.text();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["target"] == "taper::request").collect()
    }
}

pub(super) fn page(world: &World) -> String {
    world.shared.measured.render(&world.shared)
}

/// The sum of what a family counted, of the lines that have `with`.
pub(super) fn sum(page: &str, family: &str, with: &str) -> u64 {
    let lines = page.lines().filter(|line| {
        let rest = line.strip_prefix(family);
        rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(with)
    });
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

/// Waits until every answer has ended and has given its place back.
async fn ended(world: &World) -> String {
    for _ in 0..6_000 {
        let page = page(world);
        let held = ["taper_proxy_open_requests", "taper_proxy_running"].map(|family| sum(&page, family, ""));
        if held == [0, 0] {
            return page;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("an account is not closed: {}", page(world));
}

/// An event stream that does not end by itself.
fn endless() -> Response<Body> {
    let event = Bytes::from_static(b": here\n\n");
    let first = stream::iter([Ok(Frame::data(event))]);
    let body = StreamBody::new(futures_util::StreamExt::chain(first, stream::pending()));
    let mut response = Response::new(body.boxed_unsync());
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert("content-type", kind);
    response
}

#[tokio::test]
async fn a_mixed_run_is_counted_once_and_written_once() {
    let (lines, _guard) = Lines::start();
    let world = World::start(usual()).await;
    let mut sent = 0_u64;
    let mut send = async |request| {
        sent += 1;
        world.send(request).await.status.as_u16()
    };
    let call = |tool: &str| world.call(tool, LOG).request();
    assert_eq!(send(call("git_log")).await, 200);
    assert_eq!(
        send(
            world
                .ask(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#)
                .request()
        )
        .await,
        200
    );
    assert_eq!(send(call("git_rm")).await, 403);
    assert_eq!(send(call("bad\\nname {x}")).await, 403);
    assert_eq!(
        send(
            world
                .ask(r#"{"jsonrpc":"2.0","id":1,"method":"no/such"}"#)
                .request()
        )
        .await,
        403
    );
    assert_eq!(send(world.ask("{").request()).await, 400);
    let mut naked = world.call("git_log", LOG);
    (naked.scheme, naked.proof) = ("", false);
    assert_eq!(send(naked.request()).await, 401);
    assert_eq!(
        send(world.call("git_log", LOG).path("/other/mcp").request()).await,
        404
    );
    assert_eq!(send(world.ask("").method(Method::PUT).request()).await, 405);
    let pages = [
        "/healthz",
        "/readyz",
        "/.well-known/oauth-protected-resource/git/mcp",
    ];
    for path in pages {
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(
                send(world.ask("").method(method).path(path).request()).await,
                200,
                "{path}"
            );
        }
        assert_eq!(send(world.ask("").path(path).request()).await, 405, "{path}");
    }
    let twice = world.call("git_log", LOG);
    let (one, two) = {
        let request = twice.request();
        let (parts, body) = request.into_parts();
        (
            Request::from_parts(parts.clone(), body.clone()),
            Request::from_parts(parts, body),
        )
    };
    assert_eq!((send(one).await, send(two).await), (200, 401));
    world.upstream.answers(|_| {
        let mut response = json("{}");
        *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        response
    });
    assert_eq!(send(call("git_log")).await, 502);
    // One whose caller leaves in the middle of the answer.
    world.upstream.answers(|_| endless());
    let mut answer = world.open(call("git_log")).await;
    sent += 1;
    assert!(answer.body_mut().frame().await.unwrap().is_ok());
    let under_way = page(&world);
    for (family, with, least) in [
        ("taper_proxy_open_requests", "", 1),
        ("taper_proxy_running", "server=\"git\"", 1),
        ("taper_proxy_connections", "listener=\"callers\"", 1),
    ] {
        assert!(sum(&under_way, family, with) >= least, "{family}: {under_way}");
    }
    drop(answer);
    // One whose caller leaves in the middle of the request.
    let head = world.call("git_log", LOG).request();
    let mut text = String::from("POST /git/mcp HTTP/1.1\r\ncontent-length: 500\r\n");
    for (name, value) in head.headers() {
        text.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    let mut raw = tokio::net::TcpStream::connect(world.addr).await.unwrap();
    raw.write_all(format!("{text}\r\n{{").as_bytes()).await.unwrap();
    raw.shutdown().await.unwrap();
    let mut rest = Vec::new();
    raw.read_to_end(&mut rest).await.unwrap();
    sent += 1;

    let page = ended(&world).await;
    let requests = |with: &str| sum(&page, "taper_proxy_requests_total", with);
    let outcome = |word: &str| requests(&format!("outcome=\"{word}\""));
    assert_eq!(requests(""), sent, "{page}");
    let refused = sent - outcome("answered") - outcome("aborted") - outcome("panicked");
    assert_eq!(sum(&page, "taper_proxy_refusals_total", ""), refused, "{page}");
    assert_eq!(sum(&page, "taper_proxy_answers_total", ""), sent, "{page}");
    assert_eq!(sum(&page, "taper_proxy_panics_total", ""), 0);
    let decided = world.decisions().await;
    assert_eq!(
        sum(&page, "taper_proxy_decisions_total", ""),
        decided.len() as u64,
        "{decided:?}"
    );
    let denied = decided.iter().filter(|(outcome, _)| outcome == "deny").count();
    assert_eq!(outcome("denied"), denied as u64);
    assert_eq!(
        sum(&page, "taper_proxy_answers_total", "end=\"left\""),
        1,
        "{page}"
    );
    assert_eq!((outcome("failed"), requests("kind=\"health\"")), (1, 6));
    assert_eq!(sum(&page, "taper_proxy_refusals_total", "rule=\"R-13\""), 1);
    assert_eq!(sum(&page, "taper_proxy_refusals_total", "rule=\"none\""), 0);
    assert_eq!(sum(&page, "taper_proxy_upstream_seconds_count", ""), 5);
    let git = "server=\"git\"";
    assert_eq!(sum(&page, "taper_proxy_upstream_seconds_count", git), 5);
    assert_eq!(
        sum(&page, "taper_proxy_running_limit", git),
        world.shared.servers["git"].profile.limits.max_running as u64
    );
    assert_eq!(
        sum(&page, "taper_proxy_journal_seconds_count", ""),
        decided.len() as u64
    );
    for family in [
        "taper_proxy_verify_seconds_count",
        "taper_proxy_decide_seconds_count",
        "taper_proxy_queue_seconds_count",
        "taper_proxy_request_seconds_count",
        "taper_proxy_verified_chain_hits_total",
        "taper_proxy_verified_chain_misses_total",
        "taper_proxy_verified_chains",
        "taper_proxy_verified_chains_bytes",
        "taper_proxy_seen_proofs",
        "taper_proxy_journal_commits_total",
        "taper_proxy_connections_limit",
        "process_open_fds",
    ] {
        assert!(sum(&page, family, "") > 0, "{family}: {page}");
    }

    let written = lines.requests();
    assert_eq!(written.len() as u64, sent);
    let mut ids: Vec<&str> = written
        .iter()
        .map(|line| line["request.id"].as_str().unwrap())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len() as u64, sent, "every request has an id of its own");
    let of = |name: &str, value: &str| written.iter().find(|line| line[name] == value).unwrap();
    let replay = of("rule", "R-13");
    assert!(
        replay["grant.id"].is_string() && replay["holder"].is_string(),
        "{replay}"
    );
    assert_eq!(of("outcome", "failed")["level"], "WARN");
    let one = of("mcp.tool", "git_log");
    for (name, value) in [
        ("outcome", "answered"),
        ("decision", "allow"),
        ("mcp.kind", "tool"),
        ("mcp.era", "legacy"),
        ("mcp.method", "tools/call"),
        ("end", "complete"),
    ] {
        assert_eq!(one[name], value, "{one}");
    }
    for name in [
        "us.verify",
        "us.decide",
        "us.journal",
        "us.upstream",
        "us.head",
        "us.whole",
        "bytes.sent",
    ] {
        assert!(one[name].is_u64(), "{name}: {one}");
    }
    assert!(one["subject"].is_null() && one["grant.id"].is_string() && one["holder"].is_string());
    let text = lines.text();
    assert!(
        !text.contains("bad\\nname") || !text.contains("mcp.tool\":\"bad"),
        "{text}"
    );
    assert!(
        !text.contains("hunter2") && !text.contains(&twice.token),
        "no credential is written"
    );
    world.end().await;
}

#[tokio::test]
async fn a_cut_answer_says_why_and_the_subject_is_named_where_that_is_configured() {
    let (lines, _guard) = Lines::start();
    let setup = Setup {
        top: "request_log = { subject = true }",
        feed: true,
        ..usual()
    };
    let world = World::start(setup).await;
    world.page(Vec::new(), 0);
    world.upstream.answers(|_| endless());
    let mut answer = world.open(world.call("git_log", LOG).request()).await;
    assert!(answer.body_mut().frame().await.unwrap().is_ok());
    let subject = taper_store::RevocationKey::Subject {
        iss: "https://idp.test".into(),
        sub: "alice".into(),
    };
    world.revoke(1, subject);
    while let Some(Ok(_)) = answer.body_mut().frame().await {}
    let page = ended(&world).await;
    assert_eq!(sum(&page, "taper_proxy_cuts_total", "rule=\"M-12\""), 1, "{page}");
    assert_eq!(
        sum(&page, "taper_proxy_answers_total", "end=\"cut\""),
        1,
        "{page}"
    );
    assert_eq!(
        sum(&page, "taper_proxy_feed_sequence", "https://issuer.test"),
        1,
        "{page}"
    );
    let written = lines.requests();
    let [line] = &written[..] else {
        panic!("{written:?}")
    };
    assert_eq!(
        (&line["end"], &line["cause"]),
        (&"cut".into(), &"M-12".into()),
        "{line}"
    );
    assert_eq!(
        (&line["outcome"], &line["subject"]),
        (&"answered".into(), &"alice".into()),
        "{line}"
    );
    world.end().await;
}

#[tokio::test]
async fn a_flood_of_nobody_is_counted_and_written_at_a_bounded_rate() {
    let (lines, _guard) = Lines::start();
    let world = World::start(usual()).await;
    const FLOOD: u64 = 60;
    for _ in 0..FLOOD {
        let mut naked = world.ask(tool_call("git_log", LOG));
        (naked.scheme, naked.proof) = ("", false);
        naked.send().await;
    }
    let page = ended(&world).await;
    let written = lines.requests();
    assert_eq!(written.len() as u64, FLOOD, "none is lost");
    let quiet = written.iter().filter(|line| line["level"] == "DEBUG").count();
    assert_eq!(sum(&page, "taper_proxy_quiet_lines_total", ""), quiet as u64);
    assert_eq!(sum(&page, "taper_proxy_refusals_total", "rule=\"R-15\""), FLOOD);
    // Of what a holder does every line is at the usual level.
    world.call("git_log", LOG).send().await;
    ended(&world).await;
    assert_eq!(lines.requests().last().unwrap()["level"], "INFO");
    world.end().await;
}

#[tokio::test]
async fn what_is_held_is_on_the_page() {
    let world = World::start(usual()).await;
    let told = |family: &str| sum(&page(&world), &format!("taper_proxy_{family}"), "");
    assert!(
        !page(&world).contains("taper_proxy_root_keys_age_seconds{"),
        "nobody fetches keys that are in a file"
    );
    assert_eq!(
        (told("uptime_seconds"), told("sessions"), told("workers_busy")),
        (0, 0, 0)
    );
    world.clock.advance(3);
    assert_eq!(told("uptime_seconds"), 3);
    // A session of a server over HTTP.
    world.upstream.answers(|_| {
        let mut response = json(r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25"}}"#);
        let id = HeaderValue::from_static("s");
        response.headers_mut().insert("mcp-session-id", id);
        response
    });
    let begin = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
    assert_eq!(world.ask(begin).send().await.status.as_u16(), 200);
    assert_eq!(told("sessions"), 1);
    assert!(told("received_bytes_total") >= begin.len() as u64 && told("sent_bytes_total") > 0);
    // All workers, and one more closure that waits for one.
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let work = || {
        let held = Arc::clone(&held);
        world.shared.pool.run(move || held.lock().unwrap().recv().is_ok())
    };
    let mut all = futures_util::future::join_all((0..=workers).map(|_| work()));
    assert!(futures_util::FutureExt::now_or_never(&mut all).is_none());
    assert_eq!(
        (told("workers_busy"), told("workers_waiting")),
        (workers as u64, 1)
    );
    for _ in 0..=workers {
        release.send(()).unwrap();
    }
    assert!(all.await.into_iter().all(|done| done == Ok(true)));
    assert_eq!((told("workers_busy"), told("workers_waiting")), (0, 0));
    world.end().await;
}

#[tokio::test]
async fn readiness_is_told_to_programs_too() {
    let setup = Setup {
        feed: true,
        ..usual()
    };
    let world = World::start(setup).await;
    let asks = || {
        let plain = world.ask("").method(Method::GET);
        let by_header = world.ask("").method(Method::GET).path("/readyz");
        [
            plain.path("/readyz?format=json"),
            by_header.header("accept", "application/json"),
        ]
    };
    for ask in asks() {
        let answer = ask.send().await;
        let (told, kind) = (answer.json(), answer.header("content-type"));
        assert_eq!((answer.status.as_u16(), kind), (503, "application/json"));
        assert_eq!(told["ready"], false, "{told}");
        assert_eq!(told["missing"][0]["name"], "https://issuer.test", "{told}");
        let reason = told["missing"][0]["reason"].as_str().unwrap();
        assert!(
            reason.starts_with("its revocation feed is not complete yet"),
            "{told}"
        );
    }
    world.page(Vec::new(), 0);
    for ask in asks() {
        let answer = ask.send().await;
        assert_eq!(answer.status.as_u16(), 200);
        assert_eq!(answer.json(), serde_json::json!({ "ready": true, "missing": [] }));
    }
    world.end().await;
}

/// A collector that keeps what it gets.
async fn collector(shutdown: &Shutdown) -> (std::net::SocketAddr, Arc<Mutex<Vec<Value>>>) {
    let kept: Arc<Mutex<Vec<Value>>> = Arc::default();
    let limits = taper_service::edge::EdgeLimits::default();
    let bound = taper_service::edge::Bound::bind("127.0.0.1:0".parse().unwrap(), limits);
    let bound = bound.await.unwrap();
    let addr = bound.local_addr();
    let all = Arc::clone(&kept);
    let service = tower::service_fn(move |request: Request<hyper::body::Incoming>| {
        let all = Arc::clone(&all);
        async move {
            assert_eq!(
                (request.uri().path(), request.method()),
                ("/v1/traces", &Method::POST)
            );
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let message: Value = serde_json::from_slice(&body).unwrap();
            let spans = message["resourceSpans"][0]["scopeSpans"][0]["spans"]
                .as_array()
                .unwrap();
            all.lock().unwrap().extend(spans.iter().cloned());
            Ok::<_, std::convert::Infallible>(json("{}"))
        }
    });
    shutdown.spawn("collector", bound.serve(service, shutdown.clone()));
    (addr, kept)
}

#[tokio::test]
async fn a_request_has_its_spans_in_the_trace_of_its_caller() {
    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let shutdown = Shutdown::new();
    let (addr, kept) = collector(&shutdown).await;
    let top = format!("traces = {{ endpoint = 'http://{addr}' }}");
    let setup = Setup {
        top: Box::leak(top.into_boxed_str()),
        ..usual()
    };
    let world = World::start(setup).await;
    let call = || world.call("git_log", LOG).header("tracestate", "a=b");
    assert_eq!(
        call().header("traceparent", CALLER).send().await.status.as_u16(),
        200
    );
    let off = CALLER.replace("-01", "-00");
    assert_eq!(
        call().header("traceparent", &off).send().await.status.as_u16(),
        200
    );
    assert_eq!(call().send().await.status.as_u16(), 200);
    assert_eq!(
        world
            .call("git_rm", LOG)
            .header("traceparent", CALLER)
            .send()
            .await
            .status
            .as_u16(),
        403
    );
    world.ask("").method(Method::GET).path("/healthz").send().await;
    ended(&world).await;
    let seen = world.upstream.seen();
    let header = |n: usize, name: &str| {
        let value = seen[n].headers.get(name);
        value
            .map_or("", |value: &HeaderValue| value.to_str().unwrap())
            .to_owned()
    };
    // What the caller did not have recorded goes on as it came.
    assert_eq!(
        (header(1, "traceparent"), header(1, "tracestate")),
        (off, "a=b".to_owned())
    );
    assert_eq!(header(0, "tracestate"), "a=b");
    assert_eq!(
        header(2, "tracestate"),
        "",
        "it belongs to a context that was not there"
    );
    let (first, own) = (header(0, "traceparent"), header(2, "traceparent"));
    let measured = Arc::clone(&world.shared.measured);
    let token = world.call("git_log", LOG).token;
    world.end().await;
    shutdown.trigger();
    shutdown.drain(Duration::from_secs(30)).await.unwrap();

    let spans = kept.lock().unwrap().clone();
    assert_eq!(measured.fates().sent.get(), spans.len() as u64);
    let text = |span: &Value, name: &str| span[name].as_str().unwrap().to_owned();
    let requests: Vec<&Value> = spans.iter().filter(|span| span["kind"] == 2).collect();
    assert_eq!(
        requests.len(),
        3,
        "two of three calls and a denial, no page of health: {spans:?}"
    );
    let children = |of: &Value| {
        let mine = |span: &&Value| span["parentSpanId"] == of["spanId"];
        let mut names: Vec<String> = spans.iter().filter(mine).map(|span| text(span, "name")).collect();
        names.sort();
        names
    };
    let says = |span: &Value, key: &str| {
        let attributes = span["attributes"].as_array().unwrap();
        let one = attributes.iter().find(|one| one["key"] == key);
        one.map(|one| {
            one["value"]["stringValue"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
    };
    let (call, fresh, denied) = (requests[0], requests[1], requests[2]);
    assert_eq!(text(call, "traceId"), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(text(call, "parentSpanId"), "b7ad6b7169203331");
    assert_eq!(text(call, "name"), "tools/call git");
    assert_eq!(children(call), ["decide", "journal", "upstream", "verify"]);
    assert_eq!(says(call, "gen_ai.tool.name").as_deref(), Some("git_log"));
    assert_eq!(says(call, "taper.decision").as_deref(), Some("allow"));
    // The upstream continues the span of the request to it.
    for (request, header) in [(call, &first), (fresh, &own)] {
        let upstream = spans
            .iter()
            .find(|span| span["kind"] == 3 && span["parentSpanId"] == request["spanId"]);
        let upstream = upstream.unwrap();
        let expected = format!("00-{}-{}-01", text(upstream, "traceId"), text(upstream, "spanId"));
        assert_eq!(
            (header, text(upstream, "traceId")),
            (&expected, text(request, "traceId"))
        );
        let time = |span: &Value, name: &str| text(span, name).parse::<u64>().unwrap();
        assert!(time(upstream, "startTimeUnixNano") >= time(request, "startTimeUnixNano"));
        assert!(time(upstream, "endTimeUnixNano") <= time(request, "endTimeUnixNano"));
    }
    assert_eq!(text(fresh, "parentSpanId"), "");
    assert_eq!(children(denied), ["decide", "journal", "verify"]);
    assert_eq!(says(denied, "taper.rule").as_deref(), Some("R-21"));
    let all = serde_json::to_string(&spans).unwrap();
    assert!(
        !all.contains(&token[..24]) && !all.contains("hunter2") && !all.contains("alice"),
        "{all}"
    );
}

#[tokio::test]
async fn metrics_are_for_operators_alone() {
    let world = World::start(usual()).await;
    let public = world.ask("").method(Method::GET).path("/metrics").send().await;
    assert_eq!(public.status.as_u16(), 404);
    let ask = |method: Method| {
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = "/metrics".parse().unwrap();
        answer_admin(&world.shared, &request)
    };
    assert_eq!(ask(Method::POST).status().as_u16(), 405);
    let answer = ask(Method::GET);
    assert_eq!(answer.status().as_u16(), 200);
    let kind = answer.headers()["content-type"].to_str().unwrap();
    assert!(
        kind.starts_with("application/openmetrics-text; version=1.0.0"),
        "{kind}"
    );
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(text.ends_with(b"# EOF\n"));
    world.end().await;
}
