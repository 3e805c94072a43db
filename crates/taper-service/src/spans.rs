//! Spans for OpenTelemetry: the context that callers send along (W3C Trace Context), and an exporter that
//! speaks OTLP over HTTP in its JSON form, to `/v1/traces`.
//!
//! Who makes spans never waits: they go into a bounded queue, and what does not fit is counted. When the
//! collector does not answer, what was meant for it is dropped and counted; nothing is sent twice.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use rand_core::CryptoRngCore;
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::fetch::{FetchError, Fetcher, Request};
use crate::metrics::Counter;

/// The name of the header with [`Context`].
pub const TRACEPARENT: &str = "traceparent";
/// Requests whose spans may wait for the exporter.
const QUEUE: usize = 1024;
/// Spans in one message to the collector.
const BATCH: usize = 512;
/// How long spans wait for others to go with.
const LINGER: Duration = Duration::from_secs(1);
/// How long a collector may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer of a collector that is read, in bytes.
const ANSWER: usize = 64 * 1024;

/// A place in a trace: which one, and which span of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: [u8; 16],
    /// The span.
    pub span: [u8; 8],
    /// Whether it is recorded.
    pub sampled: bool,
}

impl Context {
    /// Reads the value of a `traceparent` header; `None` for one that is not valid, which counts as none
    /// (W3C Trace Context, section 3.2).
    pub fn parse(text: &str) -> Option<Self> {
        let known = text.get(..55)?;
        let mut parts = known.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let [version] = bytes::<1>(version)?;
        // A later version may say more behind another dash.
        let is_whole = text.len() == 55 || (version > 0 && text.as_bytes().get(55) == Some(&b'-'));
        if parts.next().is_some() || version == 0xff || !is_whole {
            return None;
        }
        let (trace, span, [flags]) = (bytes::<16>(trace)?, bytes::<8>(span)?, bytes::<1>(flags)?);
        (trace != [0; 16] && span != [0; 8]).then_some(Self {
            trace,
            span,
            sampled: flags & 1 == 1,
        })
    }

    /// The first span of a new trace.
    pub fn first(sampled: bool, rng: &mut impl CryptoRngCore) -> Self {
        let mut trace = [0; 16];
        rng.fill_bytes(&mut trace);
        Self {
            trace,
            span: span_id(rng),
            sampled,
        }
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn next(self, rng: &mut impl CryptoRngCore) -> Self {
        Self {
            span: span_id(rng),
            ..self
        }
    }

    /// The value of a `traceparent` header.
    pub fn header(&self) -> String {
        let flags = u8::from(self.sampled);
        format!("00-{}-{}-{flags:02x}", hex(&self.trace), hex(&self.span))
    }

    /// The trace, in hexadecimal digits.
    pub fn trace_id(&self) -> String {
        hex(&self.trace)
    }
}

fn span_id(rng: &mut impl CryptoRngCore) -> [u8; 8] {
    let mut span = [0; 8];
    rng.fill_bytes(&mut span);
    span
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Exactly `N` bytes in lower case hexadecimal digits.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut found = [0; N];
    let pairs = text.as_bytes().chunks_exact(2);
    if text.len() != 2 * N || !pairs.remainder().is_empty() {
        return None;
    }
    for (byte, pair) in found.iter_mut().zip(pairs) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? * 16 + digit(*low)?;
    }
    Some(found)
}

/// What a span is to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A part of the work.
    Internal = 1,
    /// A request that is answered.
    Server = 2,
    /// A request that is made.
    Client = 3,
}

/// What an attribute says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

/// One span that has ended.
#[derive(Clone, Debug)]
pub struct Span {
    /// Where it is.
    pub context: Context,
    /// The span that it is a part of.
    pub parent: Option<[u8; 8]>,
    /// What is done in it, in few words.
    pub name: String,
    /// What it is to others.
    pub kind: Kind,
    /// When it began, in nanoseconds since the Unix epoch.
    pub start: u64,
    /// When it ended.
    pub end: u64,
    /// What there is to say of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// Whether something was wrong on this side.
    pub failed: bool,
}

/// What became of spans.
#[derive(Clone, Debug, Default)]
pub struct Fates {
    /// The collector took them.
    pub sent: Counter,
    /// There was no room for them.
    pub full: Counter,
    /// The collector did not take them.
    pub failed: Counter,
}

/// Where spans go in.
#[derive(Clone, Debug)]
pub struct Spans {
    queue: mpsc::Sender<Vec<Span>>,
    closed: CancellationToken,
    fates: Fates,
}

/// Where they are sent to, and as whose.
#[derive(Clone, Debug)]
pub struct Collector {
    /// The URL of OTLP over HTTP, without `/v1/traces`.
    pub endpoint: String,
    /// Sent along: its own credential, for one.
    pub headers: HeaderMap,
    /// The name of this service.
    pub service: &'static str,
    /// Its version.
    pub version: &'static str,
}

/// Sends spans to a collector.
#[derive(Debug)]
pub struct Exporter {
    queue: mpsc::Receiver<Vec<Span>>,
    closed: CancellationToken,
    collector: Collector,
    fetcher: Fetcher,
    fates: Fates,
    is_down: bool,
}

/// A way in and an exporter, which does nothing before it is run.
pub fn exporter(mut collector: Collector, fetcher: Fetcher, fates: Fates) -> (Spans, Exporter) {
    for value in collector.headers.values_mut() {
        value.set_sensitive(true);
    }
    let (sender, receiver) = mpsc::channel(QUEUE);
    let closed = CancellationToken::new();
    let spans = Spans {
        queue: sender,
        closed: closed.clone(),
        fates: fates.clone(),
    };
    let exporter = Exporter {
        queue: receiver,
        closed,
        collector,
        fetcher,
        fates,
        is_down: false,
    };
    (spans, exporter)
}

impl Spans {
    /// Hands in the spans of one piece of work. It does not wait: where there is no room they are dropped.
    pub fn export(&self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        if self.queue.try_send(spans).is_err() {
            self.fates.full.add_many(count);
        }
    }

    /// Says that no more will come. The exporter sends what it can of what came before, and ends within
    /// a few seconds.
    pub fn close(&self) {
        self.closed.cancel();
    }
}

impl Exporter {
    /// Sends what is handed in, in batches, until [`Spans::close`].
    pub async fn run(mut self) {
        let closed = self.closed.clone();
        while let Some(Some(mut batch)) = closed.run_until_cancelled(self.queue.recv()).await {
            let until = Instant::now() + LINGER;
            while batch.len() < BATCH {
                let next = timeout_at(until, self.queue.recv());
                match closed.run_until_cancelled(next).await {
                    Some(Ok(Some(spans))) => batch.extend(spans),
                    Some(Ok(None) | Err(_)) | None => break,
                }
            }
            let deadline = Instant::now() + PATIENCE;
            // A collector that hangs does not hold up the end.
            let ended = async {
                closed.cancelled().await;
                tokio::time::sleep(LINGER).await;
            };
            tokio::select! {
                () = self.send(&batch, deadline) => {}
                () = ended => self.fates.failed.add_many(batch.len() as u64),
            }
        }
        self.queue.close();
        let deadline = Instant::now() + PATIENCE;
        let mut rest = Vec::new();
        while let Ok(spans) = self.queue.try_recv() {
            rest.extend(spans);
        }
        for batch in rest.chunks(BATCH) {
            self.send(batch, deadline).await;
        }
    }

    async fn send(&mut self, batch: &[Span], deadline: Instant) {
        let count = batch.len() as u64;
        let url = format!("{}/v1/traces", self.collector.endpoint.trim_end_matches('/'));
        let request = Request::post(
            url,
            HeaderValue::from_static("application/json"),
            message(&self.collector, batch).to_string(),
        );
        let request = request
            .headers(self.collector.headers.clone())
            .max_bytes(ANSWER)
            .timeout(PATIENCE);
        let answer = match timeout_at(deadline, self.fetcher.send(request)).await {
            Ok(answer) => answer,
            Err(_) => {
                self.fates.failed.add_many(count);
                return;
            }
        };
        let trouble = match answer {
            Ok(answer) if answer.status.is_success() => {
                let rejected = rejected(&answer.body).min(count);
                self.fates.failed.add_many(rejected);
                self.fates.sent.add_many(count - rejected);
                if std::mem::take(&mut self.is_down) {
                    tracing::info!("the collector takes spans again");
                }
                return;
            }
            Ok(answer) => format!("it answered {}", answer.status),
            Err(error @ FetchError::Url(_)) => format!("its {error}"),
            Err(error) => error.to_string(),
        };
        self.fates.failed.add_many(count);
        if !std::mem::replace(&mut self.is_down, true) {
            tracing::warn!(
                cause = trouble,
                "the collector does not take spans, they are dropped and counted"
            );
        }
    }
}

/// How many spans a collector did not take although it answers that it did (`partialSuccess`).
fn rejected(answer: &[u8]) -> u64 {
    let answer: Json = serde_json::from_slice(answer).unwrap_or_default();
    let rejected = answer.pointer("/partialSuccess/rejectedSpans");
    let text = rejected.and_then(Json::as_str).and_then(|text| text.parse().ok());
    text.or_else(|| rejected.and_then(Json::as_u64)).unwrap_or(0)
}

/// An `ExportTraceServiceRequest` (OTLP 1.x, JSON).
fn message(collector: &Collector, batch: &[Span]) -> Json {
    let resource = [
        ("service.name", Value::Text(collector.service.to_owned())),
        ("service.version", Value::Text(collector.version.to_owned())),
    ];
    let spans: Vec<Json> = batch.iter().map(Span::json).collect();
    json!({ "resourceSpans": [{
        "resource": { "attributes": attributes(&resource) },
        "scopeSpans": [{ "scope": { "name": "taper" }, "spans": spans }],
    }] })
}

fn attributes(attributes: &[(&'static str, Value)]) -> Json {
    let one = |(key, value): &(&str, Value)| {
        let value = match value {
            Value::Text(text) => json!({ "stringValue": text }),
            // 64 bits are a text in the JSON of Protocol Buffers.
            Value::Number(number) => json!({ "intValue": number.to_string() }),
        };
        json!({ "key": key, "value": value })
    };
    attributes.iter().map(one).collect()
}

impl Span {
    fn json(&self) -> Json {
        // STATUS_CODE_ERROR, or unset.
        let status = if self.failed {
            json!({ "code": 2 })
        } else {
            json!({})
        };
        json!({
            "traceId": hex(&self.context.trace),
            "spanId": hex(&self.context.span),
            "parentSpanId": self.parent.map(|parent| hex(&parent)).unwrap_or_default(),
            "name": self.name,
            "kind": self.kind as i32,
            "startTimeUnixNano": self.start.to_string(),
            "endTimeUnixNano": self.end.to_string(),
            "attributes": attributes(&self.attributes),
            "status": status,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::FetchRules;
    use crate::rng;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_is_read_as_the_recommendation_says() {
        let context = Context::parse(GOOD).unwrap();
        assert!(context.sampled);
        assert_eq!(context.header(), GOOD);
        assert_eq!(context.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        let off = Context::parse(&GOOD.replace("-01", "-00")).unwrap();
        assert!(!off.sampled);
        // Flags that nobody knows yet, and a later version that says more.
        assert!(Context::parse(&GOOD.replace("-01", "-ff")).unwrap().sampled);
        assert!(Context::parse(&format!("cc{}-more", &GOOD[2..])).is_some());
        for bad in [
            "",
            &GOOD[..54],
            &format!("{GOOD}-"),
            &format!("cc{}x", &GOOD[2..]),
            &format!("ff{}", &GOOD[2..]),
            &GOOD.to_uppercase(),
            &GOOD.replace('b', "ä"),
            &GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            &GOOD.replacen("-0af", "0-af", 1),
        ] {
            assert_eq!(Context::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn spans_of_one_trace_differ() {
        let first = Context::first(true, &mut rng::os());
        let next = first.next(&mut rng::os());
        assert_eq!((first.trace, first.sampled), (next.trace, next.sampled));
        assert_ne!(first.span, next.span);
        assert_eq!(Context::parse(&first.header()), Some(first));
    }

    fn span() -> Span {
        Span {
            context: Context::parse(GOOD).unwrap(),
            parent: Some([7; 8]),
            name: "work".into(),
            kind: Kind::Server,
            start: 1_800_000_000_000_000_001,
            end: 1_800_000_000_000_000_002,
            attributes: vec![("a", Value::Text("b".into())), ("n", Value::Number(-3))],
            failed: true,
        }
    }

    fn collector(endpoint: String) -> Collector {
        Collector {
            endpoint,
            headers: HeaderMap::new(),
            service: "test",
            version: "1",
        }
    }

    #[test]
    fn a_part_that_was_not_taken_is_told() {
        for (answer, count) in [
            (r#"{"partialSuccess":{"rejectedSpans":"3"}}"#, 3),
            (r#"{"partialSuccess":{"rejectedSpans":2}}"#, 2),
            (r#"{"partialSuccess":{}}"#, 0),
            ("{}", 0),
            ("", 0),
        ] {
            assert_eq!(rejected(answer.as_bytes()), count, "{answer}");
        }
    }

    #[test]
    fn the_credential_of_a_collector_does_not_print() {
        let mut target = collector("http://127.0.0.1:9".into());
        let secret = HeaderValue::from_static("hunter2");
        target.headers.insert(http::header::AUTHORIZATION, secret);
        let fetcher = Fetcher::new(&FetchRules {
            allow_loopback_http: true,
            ..FetchRules::default()
        });
        let (_, exporter) = exporter(target, fetcher.unwrap(), Fates::default());
        assert!(!format!("{exporter:?}").contains("hunter2"));
    }

    #[test]
    fn a_message_has_the_form_of_otlp() {
        let message = message(&collector(String::new()), &[span()]);
        let one = &message["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        assert_eq!(one["traceId"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(
            (&one["spanId"], &one["parentSpanId"]),
            (&"b7ad6b7169203331".into(), &"0707070707070707".into())
        );
        assert_eq!((&one["kind"], &one["status"]["code"]), (&2.into(), &2.into()));
        assert_eq!(one["startTimeUnixNano"], "1800000000000000001");
        assert_eq!(
            one["attributes"][1],
            json!({ "key": "n", "value": { "intValue": "-3" } })
        );
        let name = &message["resourceSpans"][0]["resource"]["attributes"][0];
        assert_eq!(
            *name,
            json!({ "key": "service.name", "value": { "stringValue": "test" } })
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_is_gone_costs_spans_and_nothing_else() {
        let fates = Fates::default();
        let rules = FetchRules {
            allow_loopback_http: true,
            ..FetchRules::default()
        };
        // The discard port of loopback: nobody listens.
        let target = collector("http://127.0.0.1:9".into());
        let (spans, exporter) = exporter(target, Fetcher::new(&rules).unwrap(), fates.clone());
        for _ in 0..QUEUE + 5 {
            spans.export(vec![span(), span()]);
        }
        assert_eq!(fates.full.get(), 10);
        spans.close();
        exporter.run().await;
        spans.export(vec![span()]);
        assert_eq!(fates.full.get(), 11, "what comes later is counted too");
        assert_eq!((fates.sent.get(), fates.failed.get()), (0, 2 * QUEUE as u64));
    }
}
