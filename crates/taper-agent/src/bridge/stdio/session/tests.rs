use http::HeaderValue;
use http::header::CONTENT_TYPE;
use proptest::prelude::*;
use serde_json::json;

use super::super::message::{LAST_EVENT, SESSION};
use super::*;

const BOUNDS: Bounds = Bounds {
    line: 4096,
    answer: 4096,
    running: 4,
};

/// A session with a clock, and what it wants.
struct Bench {
    session: Session,
    now: i64,
    opened: Vec<(CallId, Upward)>,
    dropped: Vec<CallId>,
    written: Vec<Value>,
    done: bool,
}

impl Bench {
    fn new() -> Self {
        Self {
            session: Session::new(BOUNDS),
            now: 1_000_000,
            opened: Vec::new(),
            dropped: Vec::new(),
            written: Vec::new(),
            done: false,
        }
    }

    fn step(&mut self, input: Input) {
        for output in self.session.step(input, self.now) {
            match output {
                Output::Open(call, request) => self.opened.push((call, request)),
                Output::Drop(call) => self.dropped.push(call),
                Output::Write(line) => {
                    assert!(!line.contains(&b'\n'));
                    self.written.push(serde_json::from_slice(&line).unwrap());
                }
                Output::Done => self.done = true,
            }
        }
    }

    fn line(&mut self, message: &Value) {
        self.step(Input::Line(message.to_string().into()));
    }

    fn head(&mut self, call: CallId, status: u16, kind: &'static str, session: Option<&'static str>) {
        let mut headers = HeaderMap::new();
        if !kind.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        if let Some(session) = session {
            headers.insert(SESSION, HeaderValue::from_static(session));
        }
        self.step(Input::Head(call, StatusCode::from_u16(status).unwrap(), headers));
    }

    /// A complete answer that is JSON.
    fn answer(&mut self, call: CallId, message: &Value) {
        self.head(call, 200, "application/json", None);
        self.step(Input::Data(call, message.to_string().into()));
        self.step(Input::End(call));
    }

    fn event(&mut self, call: CallId, id: &str, message: &Value) {
        let event = format!("id: {id}\ndata: {message}\n\n");
        self.step(Input::Data(call, event.into()));
    }

    /// The one request that was opened since.
    fn opening(&mut self) -> (CallId, Upward) {
        assert_eq!(self.opened.len(), 1, "{:?}", self.opened);
        self.opened.pop().unwrap()
    }

    fn told(&mut self) -> Value {
        assert_eq!(self.written.len(), 1, "{:?}", self.written);
        self.written.pop().unwrap()
    }

    /// A legacy session that is open, with its stream.
    fn legacy() -> (Self, CallId) {
        let mut bench = Self::new();
        bench.line(&json!({"id": 0, "method": "initialize"}));
        let (call, request) = bench.opening();
        assert!(!request.headers.contains_key(SESSION));
        bench.head(call, 200, "application/json", Some("s1"));
        let answer = json!({"id": 0, "result": {"protocolVersion": "2025-11-25"}});
        bench.step(Input::Data(call, answer.to_string().into()));
        bench.step(Input::End(call));
        assert_eq!(bench.told(), answer);
        bench.line(&json!({"method": "notifications/initialized"}));
        let (note, request) = bench.opening();
        assert_eq!(request.headers[SESSION], "s1");
        assert_eq!(request.headers["mcp-protocol-version"], "2025-11-25");
        bench.head(note, 202, "", None);
        let (stream, request) = bench.opening();
        assert_eq!(
            (request.method, &request.headers[SESSION]),
            (Method::GET, &HeaderValue::from_static("s1"))
        );
        bench.head(stream, 200, "text/event-stream", None);
        bench.dropped.clear();
        (bench, stream)
    }
}

fn call(id: i64) -> Value {
    json!({"id": id, "method": "tools/call", "params": {"name": "t", "arguments": {}}})
}

fn modern(id: i64, method: &str) -> Value {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    json!({"id": id, "method": method, "params": {"name": "t", "_meta": meta}})
}

#[test]
fn requests_run_side_by_side_and_answers_pass_as_they_are() {
    let mut bench = Bench::new();
    bench.line(&modern(1, "tools/call"));
    let (one, request) = bench.opening();
    assert_eq!(request.headers["mcp-method"], "tools/call");
    assert_eq!(request.headers["mcp-name"], "t");
    assert_eq!(request.body, modern(1, "tools/call").to_string());
    bench.line(&modern(2, "tools/call"));
    let (two, _) = bench.opening();
    bench.head(two, 200, "text/event-stream", None);
    let progress = json!({"method": "notifications/progress"});
    bench.event(two, "1", &progress);
    assert_eq!(bench.told(), progress);
    bench.event(two, "2", &json!({"id": 2, "result": {}}));
    assert_eq!(bench.told()["id"], 2);
    // Not twice, and nobody else's.
    bench.event(two, "3", &json!({"id": 2, "result": {}}));
    bench.event(two, "4", &json!({"id": 9, "result": {}}));
    bench.step(Input::End(two));
    bench.head(one, 400, "application/json", None);
    bench.step(Input::Data(
        one,
        "{\n\"id\":1,\"error\":{\"code\":-32020}}\r\n".into(),
    ));
    bench.step(Input::End(one));
    assert_eq!(bench.told()["error"]["code"], -32020);
    // An error that names no request is the answer to the one that was sent.
    bench.line(&modern(3, "tools/call"));
    let (three, _) = bench.opening();
    bench.answer(three, &json!({"id": null, "error": {"code": -32700}}));
    assert_eq!(
        bench.told(),
        json!({"jsonrpc": "2.0", "id": 3, "error": {"code": -32700}})
    );
    bench.step(Input::Closed);
    assert!(bench.done);
}

#[test]
fn what_is_no_message_is_refused_here() {
    let mut bench = Bench::new();
    for (line, code) in [("{", -32700), ("[]", -32600), (r#"{"id":1}"#, 0), ("  ", 0)] {
        bench.step(Input::Line(line.into()));
        match code {
            0 => assert!(bench.written.is_empty(), "{line}"),
            code => assert_eq!(bench.told()["error"]["code"], code, "{line}"),
        }
    }
    bench.step(Input::TooLong);
    assert_eq!(bench.told()["error"]["code"], -32600);
    bench.opened.clear();
    let mut bench = Bench::new();
    for id in 0..4 {
        bench.line(&modern(id, "tools/call"));
    }
    bench.line(&modern(1, "tools/call"));
    assert_eq!(bench.told()["error"]["code"], -32600, "its id is under way");
    bench.line(&modern(4, "tools/call"));
    assert_eq!(bench.told()["error"]["code"], 4503);
    assert_eq!(bench.opened.len(), 4);
}

#[test]
fn what_is_no_answer_is_told() {
    let check = |end: &dyn Fn(&mut Bench, CallId), code: i64| {
        let mut bench = Bench::new();
        bench.line(&modern(7, "tools/call"));
        let (at, _) = bench.opening();
        end(&mut bench, at);
        let told = bench.told();
        assert_eq!(
            (&told["id"], &told["error"]["code"]),
            (&json!(7), &json!(code)),
            "{told}"
        );
        bench.step(Input::End(at));
        assert!(bench.written.is_empty() && bench.session.calls.is_empty());
    };
    check(
        &|bench, at| bench.step(Input::Failed(at, Trouble::TimedOut)),
        -32603,
    );
    check(&|bench, at| bench.head(at, 502, "text/html", None), -32603);
    check(&|bench, at| bench.head(at, 202, "", None), -32603);
    check(&|bench, at| bench.head(at, 404, "", None), -32603);
    check(
        &|bench, at| bench.answer(at, &json!({"id": 8, "result": {}})),
        -32603,
    );
    check(&|bench, at| bench.answer(at, &json!("x")), -32603);
    let large = "x".repeat(BOUNDS.answer + 1);
    check(
        &|bench, at| {
            bench.head(at, 200, "application/json", None);
            bench.step(Input::Data(at, large.clone().into()));
        },
        -32603,
    );
    check(
        &|bench, at| {
            bench.head(at, 200, "text/event-stream", None);
            bench.event(at, "1", &json!({"method": "x", "params": large}));
        },
        -32603,
    );
    check(
        &|bench, at| {
            bench.head(at, 200, "text/event-stream", None);
            bench.step(Input::End(at));
        },
        -32603,
    );
}

#[test]
fn a_notification_comes_before_what_follows_it() {
    let (mut bench, _) = Bench::legacy();
    bench.line(&json!({"method": "notifications/roots/list_changed"}));
    let (note, _) = bench.opening();
    bench.line(&call(1));
    bench.line(&json!({"id": 5, "result": {}}));
    assert!(bench.opened.is_empty());
    bench.head(note, 202, "", None);
    let answer = bench.opened.pop().unwrap();
    assert_eq!(bench.opening().1.body, call(1).to_string());
    assert!(answer.1.headers.contains_key(SESSION));
    // One that gets no answer does not hold up the rest for ever.
    bench.line(&call(2));
    assert!(bench.opened.is_empty());
    bench.now = bench.session.deadline().unwrap();
    bench.step(Input::Tick);
    bench.opening();
}

#[test]
fn a_modern_request_is_cancelled_by_leaving_and_a_legacy_one_by_saying_so() {
    let cancel = json!({"method": "notifications/cancelled", "params": {"requestId": 1}});
    let mut bench = Bench::new();
    bench.line(&modern(1, "tools/call"));
    let (at, _) = bench.opening();
    bench.line(&cancel);
    assert!(bench.opened.is_empty());
    assert_eq!(bench.dropped, [at]);
    let (mut bench, _) = Bench::legacy();
    bench.line(&call(1));
    let (at, _) = bench.opening();
    bench.line(&cancel);
    let (note, request) = bench.opening();
    assert_eq!(request.body, cancel.to_string());
    assert!(bench.dropped.is_empty());
    bench.head(note, 202, "", None);
    assert!(bench.dropped.contains(&at));
    bench.step(Input::End(at));
    assert!(bench.written.is_empty());
}

#[test]
fn a_forgotten_session_is_opened_once_more() {
    let (mut bench, stream) = Bench::legacy();
    bench.line(&call(1));
    bench.line(&call(2));
    let (two, _) = bench.opened.pop().unwrap();
    let (one, _) = bench.opening();
    bench.head(one, 404, "", None);
    let (reopen, request) = bench.opening();
    assert!(bench.dropped.contains(&stream));
    assert!(!request.headers.contains_key(SESSION));
    bench.head(two, 404, "", None);
    assert!(bench.opened.is_empty(), "once for both");
    bench.line(&call(3));
    assert!(bench.opened.is_empty(), "it waits");
    bench.head(reopen, 200, "text/event-stream", Some("s2"));
    bench.event(
        reopen,
        "1",
        &json!({"id": 0, "result": {"protocolVersion": "2025-11-25"}}),
    );
    let (greeting, request) = bench.opening();
    assert_eq!(request.headers[SESSION], "s2");
    bench.head(greeting, 202, "", None);
    assert!(bench.written.is_empty(), "the client opened its session already");
    let again: Vec<_> = bench.opened.drain(..).collect();
    let bodies: Vec<_> = again.iter().map(|(_, request)| request.body.clone()).collect();
    let expected = [
        String::new(),
        call(1).to_string(),
        call(2).to_string(),
        call(3).to_string(),
    ];
    assert_eq!(bodies, expected);
    assert!(again.iter().all(|(_, request)| request.headers[SESSION] == "s2"));
    // Once: the second time the client hears of it.
    bench.head(again[1].0, 404, "", None);
    assert_eq!(bench.told()["id"], 1);
    assert!(bench.opened.is_empty());
    bench.answer(again[2].0, &json!({"id": 2, "result": {}}));
    assert_eq!(bench.told()["id"], 2);
}

#[test]
fn a_session_that_cannot_be_opened_again_is_told_and_tried_with_the_next_request() {
    let (mut bench, _) = Bench::legacy();
    bench.line(&call(1));
    let (one, _) = bench.opening();
    bench.head(one, 404, "", None);
    let (reopen, _) = bench.opening();
    bench.line(&call(2));
    bench.step(Input::Failed(reopen, Trouble::TimedOut));
    let told = bench.written.remove(0);
    assert_eq!((&told["id"], &told["error"]["code"]), (&json!(1), &json!(-32603)));
    let (reopen, _) = bench.opening();
    bench.answer(reopen, &json!({"id": 0, "error": {"code": 1}}));
    assert_eq!(bench.told()["id"], 2);
    assert!(bench.opened.is_empty());
}

#[test]
fn a_stream_is_taken_up_where_it_broke_off() {
    let (mut bench, _) = Bench::legacy();
    bench.line(&call(1));
    let (at, _) = bench.opening();
    bench.head(at, 200, "text/event-stream", None);
    bench.step(Input::Data(at, "id: e1\nretry: 250\ndata:\n\n".into()));
    bench.step(Input::End(at));
    assert!(bench.opened.is_empty());
    assert_eq!(bench.session.deadline(), Some(bench.now + 500));
    bench.now += 500;
    bench.step(Input::Tick);
    let (again, request) = bench.opening();
    assert_eq!((again, &request.method), (at, &Method::GET));
    assert_eq!(request.headers[LAST_EVENT], "e1");
    bench.head(at, 200, "text/event-stream", None);
    bench.event(at, "e2", &json!({"id": 1, "result": {}}));
    assert_eq!(bench.told()["id"], 1);
    bench.step(Input::End(at));
    bench.now += 60_000;
    bench.step(Input::Tick);
    assert_eq!(bench.session.deadline(), None);
    // Where the stream is gone, the request is never sent once more.
    bench.line(&call(2));
    let (at, _) = bench.opening();
    bench.head(at, 200, "text/event-stream", None);
    bench.step(Input::Data(at, "id: e1\ndata:\n\n".into()));
    bench.step(Input::Failed(at, Trouble::TimedOut));
    bench.now += 1_000;
    bench.step(Input::Tick);
    bench.opening();
    bench.head(at, 404, "", None);
    assert_eq!(bench.told()["id"], 2);
    assert!(bench.opened.is_empty());
}

#[test]
fn the_stream_of_a_session_comes_back_and_carries_requests_of_the_server() {
    let (mut bench, stream) = Bench::legacy();
    let question = json!({"id": "s", "method": "sampling/createMessage"});
    bench.event(stream, "7", &question);
    assert_eq!(bench.told(), question);
    bench.step(Input::End(stream));
    bench.now = bench.session.deadline().unwrap();
    bench.step(Input::Tick);
    let (at, request) = bench.opening();
    assert_eq!(
        (at, &request.headers[LAST_EVENT]),
        (stream, &HeaderValue::from_static("7"))
    );
    bench.head(stream, 405, "", None);
    assert_eq!(bench.session.deadline(), None, "it has none any more");
}

#[test]
fn the_end_of_the_client_ends_the_session() {
    let (mut bench, stream) = Bench::legacy();
    bench.line(&call(1));
    let (at, _) = bench.opening();
    bench.step(Input::Closed);
    assert_eq!(bench.dropped, [stream]);
    assert!(!bench.session.takes_lines());
    bench.answer(at, &json!({"id": 1, "result": {}}));
    assert_eq!(bench.told()["id"], 1);
    let (farewell, request) = bench.opening();
    assert_eq!(
        (request.method, &request.headers[SESSION]),
        (Method::DELETE, &HeaderValue::from_static("s1"))
    );
    assert!(!bench.done);
    bench.head(farewell, 200, "", None);
    assert!(bench.done);
    // Neither requests nor the farewell are waited for without end.
    let (mut bench, _) = Bench::legacy();
    bench.line(&call(1));
    bench.step(Input::Closed);
    for _ in 0..2 {
        bench.now = bench.session.deadline().unwrap();
        bench.step(Input::Tick);
    }
    assert!(bench.done);
}

#[test]
fn a_stream_is_not_taken_up_in_another_session() {
    let (mut bench, _) = Bench::legacy();
    bench.line(&call(1));
    let (one, _) = bench.opening();
    bench.head(one, 200, "text/event-stream", None);
    bench.step(Input::Data(one, "id: e1\ndata:\n\n".into()));
    bench.step(Input::End(one));
    bench.line(&call(2));
    let (two, _) = bench.opening();
    bench.head(two, 404, "", None);
    let (reopen, _) = bench.opening();
    bench.now += 1_000;
    bench.step(Input::Tick);
    assert!(bench.opened.is_empty());
    assert_eq!(bench.told()["id"], 1);
    bench.answer(reopen, &json!({"id": 0, "result": {}}));
    assert!(
        bench
            .opened
            .iter()
            .all(|(_, request)| !request.headers.contains_key(LAST_EVENT))
    );
}

#[test]
fn an_answer_is_given_only_in_the_session_that_asked() {
    let question = json!({"id": 0, "method": "elicitation/create"});
    let answer = json!({"id": 0, "result": {"action": "accept"}});
    // It was lost: the answer is not sent again.
    let (mut bench, stream) = Bench::legacy();
    bench.event(stream, "1", &question);
    bench.line(&answer);
    let (note, _) = bench.opening();
    bench.head(note, 404, "", None);
    assert!(bench.opened.is_empty());
    // Another was opened meanwhile, and asks under the same id.
    let (mut bench, stream) = Bench::legacy();
    bench.event(stream, "1", &question);
    bench.line(&call(1));
    let (one, _) = bench.opening();
    bench.head(one, 404, "", None);
    let (reopen, _) = bench.opening();
    bench.head(reopen, 200, "application/json", Some("s2"));
    bench.step(Input::Data(
        reopen,
        json!({"id": 0, "result": {}}).to_string().into(),
    ));
    bench.step(Input::End(reopen));
    let (greeting, _) = bench.opening();
    bench.head(greeting, 202, "", None);
    let streams: Vec<_> = bench.opened.drain(..).collect();
    let (stream, _) = streams
        .iter()
        .find(|(_, request)| request.method == Method::GET)
        .unwrap();
    bench.head(*stream, 200, "text/event-stream", None);
    bench.event(*stream, "1", &question);
    bench.line(&answer);
    assert!(bench.opened.is_empty(), "it is the answer to the first");
    bench.line(&answer);
    assert_eq!(bench.opening().1.body, answer.to_string());
}

#[test]
fn the_stream_of_a_session_is_tried_again_without_end_and_without_haste() {
    let (mut bench, stream) = Bench::legacy();
    let begun = bench.now;
    for _ in 0..10 {
        bench.step(Input::Failed(stream, Trouble::Unreachable("x".into())));
        bench.now = bench.session.deadline().unwrap();
        bench.step(Input::Tick);
        bench.opening();
    }
    assert!(bench.now - begun > 100_000);
    // A server that lets it end at once, and says to come back at once.
    let (mut bench, stream) = Bench::legacy();
    let (begun, mut opened) = (bench.now, 0);
    while bench.now - begun < 10_000 {
        bench.step(Input::Data(stream, "id: 1\nretry: 0\n\n".into()));
        bench.step(Input::End(stream));
        bench.now = bench.session.deadline().unwrap();
        bench.step(Input::Tick);
        bench.opening();
        bench.head(stream, 200, "text/event-stream", None);
        opened += 1;
    }
    assert!(opened <= 6, "{opened}");
}

#[test]
fn what_a_server_writes_passes_unread() {
    let odd = r#"{"jsonrpc":"2.0","id":1,"result":{"x":"\ud83d","n":1e400}}"#;
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"result":{}1{}}}"#,
        "[".repeat(300),
        "]".repeat(300)
    );
    for message in [odd.to_owned(), deep] {
        for kind in ["application/json", "text/event-stream"] {
            let mut session = Session::new(BOUNDS);
            let mut outputs = session.step(Input::Line(modern(1, "tools/call").to_string().into()), 0);
            let Some(Output::Open(at, _)) = outputs.pop() else {
                panic!("nothing is sent")
            };
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
            session.step(Input::Head(at, StatusCode::OK, headers), 0);
            let events = kind == "text/event-stream";
            let body = if events {
                format!("data: {message}\n\n")
            } else {
                message.clone()
            };
            let mut outputs = session.step(Input::Data(at, body.into()), 0);
            outputs.extend(session.step(Input::End(at), 0));
            let written = outputs.into_iter().find_map(|output| match output {
                Output::Write(line) => Some(line),
                _ => None,
            });
            assert_eq!(written.unwrap(), message);
        }
    }
    let mut bench = Bench::new();
    bench.line(&modern(7, "tools/call"));
    let (at, _) = bench.opening();
    bench.head(at, 429, "application/json", None);
    bench.step(Input::Data(at, r#"{"error":"rate limited"}"#.into()));
    bench.step(Input::End(at));
    let told = bench.told();
    assert_eq!((&told["id"], &told["error"]["code"]), (&json!(7), &json!(-32603)));
}

#[test]
fn who_waits_for_nothing_takes_no_place() {
    let mut bench = Bench::new();
    for id in 0..10 {
        bench.line(&modern(id, "tools/call"));
        let (at, _) = bench.opening();
        bench.head(at, 200, "text/event-stream", None);
        bench.event(at, "1", &json!({"id": id, "result": {}}));
        assert_eq!(bench.told()["result"], json!({}));
    }
    bench.now = bench.session.deadline().unwrap();
    bench.step(Input::Tick);
    assert_eq!(bench.dropped.len(), 10);
    let (mut bench, _) = Bench::legacy();
    bench.line(&call(1));
    let (at, _) = bench.opening();
    bench.line(&json!({"method": "notifications/cancelled", "params": {"requestId": 1}}));
    let (note, _) = bench.opening();
    bench.step(Input::Failed(note, Trouble::TimedOut));
    assert!(bench.dropped.contains(&at));
}

#[derive(Clone, Debug)]
enum Move {
    Request,
    Note,
    Head(usize, u16, bool),
    Own(usize),
    Foreign(usize),
    End(usize),
    Fail(usize),
    Later,
}

fn moves() -> impl Strategy<Value = Move> {
    let which = 0..4_usize;
    prop_oneof![
        3 => Just(Move::Request),
        1 => Just(Move::Note),
        4 => (which.clone(), prop_oneof![Just(200_u16), Just(404), Just(202), Just(500)], any::<bool>())
            .prop_map(|(at, status, events)| Move::Head(at, status, events)),
        4 => which.clone().prop_map(Move::Own),
        1 => which.clone().prop_map(Move::Foreign),
        2 => which.clone().prop_map(Move::End),
        1 => which.prop_map(Move::Fail),
        1 => Just(Move::Later),
    ]
}

proptest! {
    /// Whatever the proxy does, each request is answered exactly once in the end, and is sent at most
    /// twice.
    #[test]
    fn every_request_is_answered_exactly_once(moves in proptest::collection::vec(moves(), 0..60)) {
        let (mut bench, _) = Bench::legacy();
        let mut open: BTreeMap<CallId, (Bytes, bool)> = BTreeMap::new();
        let mut sent: BTreeMap<Bytes, usize> = BTreeMap::new();
        let (mut asked, mut answers) = (Vec::new(), Vec::new());
        // In the end nothing of the proxy arrives any more, again and again.
        let failures = (0..800).flat_map(|n| [Move::Fail(n), Move::Later]);
        for next in moves.into_iter().chain(failures) {
            let pick = |at: usize| open.keys().nth(at % open.len().max(1)).copied();
            match next {
                Move::Request => {
                    asked.push(asked.len() as i64 + 1);
                    bench.line(&call(asked.len() as i64));
                }
                Move::Note => bench.line(&json!({"method": "notifications/roots/list_changed"})),
                Move::Head(at, status, events) => if let Some(at) = pick(at) {
                    let kind = if events { "text/event-stream" } else { "application/json" };
                    bench.head(at, status, kind, Some("s2"));
                    if let Some(call) = open.get_mut(&at) { call.1 = events; }
                },
                Move::Own(at) => if let Some(at) = pick(at) {
                    let (body, events) = open[&at].clone();
                    let id = serde_json::from_slice::<Value>(&body).map(|m| m["id"].clone());
                    let id = id.unwrap_or_default();
                    let message = json!({"id": id, "result": {"protocolVersion": "2025-11-25"}});
                    match events {
                        true => bench.event(at, "1", &message),
                        false => bench.step(Input::Data(at, message.to_string().into())),
                    }
                },
                Move::Foreign(at) => if let Some(at) = pick(at) {
                    bench.event(at, "1", &json!({"id": 1, "result": {}}));
                },
                Move::End(at) => if let Some(at) = pick(at) { bench.step(Input::End(at)) },
                Move::Fail(at) => if let Some(at) = pick(at) {
                    bench.step(Input::Failed(at, Trouble::TimedOut));
                },
                Move::Later => {
                    bench.now += 60_000;
                    bench.step(Input::Tick);
                }
            }
            for (at, request) in bench.opened.drain(..) {
                if request.body.starts_with(b"{\"id\"") && request.headers.contains_key(SESSION) {
                    *sent.entry(request.body.clone()).or_default() += 1;
                }
                open.insert(at, (request.body, false));
            }
            open.retain(|at, _| bench.session.calls.contains_key(at));
            answers.extend(bench.written.drain(..).filter_map(|told| told["id"].as_i64()));
        }
        answers.sort_unstable();
        prop_assert_eq!(answers, asked);
        prop_assert!(sent.values().all(|times| *times <= 2), "{:?}", sent);
    }
}
