//! Traces: one span for each request, within its caller's trace where that names one, with the parts of the
//! work below it. The upstream is told the span of the request to it, so that its own spans follow.
//!
//! A trace says what the line of the log says and nothing else. What a caller did not have recorded is
//! passed on as it came.

use http::{HeaderMap, HeaderName, HeaderValue};
use taper_service::rng;
use taper_service::spans::{Context, Kind, Span, Spans, TRACEPARENT, Value};

use crate::headers;

const PARENT: HeaderName = HeaderName::from_static(TRACEPARENT);
const STATE: HeaderName = HeaderName::from_static("tracestate");

/// Who gets spans, and of how many requests.
#[derive(Clone, Debug)]
pub(crate) struct Traces {
    spans: Spans,
    /// Of the requests whose caller does not say.
    sample: f64,
}

/// The trace of one request.
#[derive(Debug)]
pub(crate) struct Trace {
    spans: Spans,
    /// The request's own span.
    own: Context,
    parent: Option<[u8; 8]>,
    /// The span of the request to the upstream.
    upstream: Context,
    /// When the request came, in nanoseconds since the Unix epoch.
    opened: u64,
}

/// A part of a request, in nanoseconds since it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// The part that is a request to the upstream.
pub(crate) const UPSTREAM: &str = "upstream";

/// The place in a trace that a caller names.
pub(crate) fn context_of(headers: &HeaderMap) -> Option<Context> {
    Context::parse(headers::single(headers, &PARENT).ok()??)
}

impl Traces {
    pub(crate) fn new(spans: Spans, sample: f64) -> Self {
        Self { spans, sample }
    }

    /// Waits until what was handed in is sent, or given up.
    pub(crate) async fn close(&self) {
        self.spans.close().await;
    }

    /// Begins the trace of a request, if it is recorded, and puts it into the headers that the upstream
    /// gets. `now_ms` is in milliseconds since the Unix epoch.
    pub(crate) fn begin(&self, headers: &mut HeaderMap, now_ms: i64) -> Option<Trace> {
        let caller = context_of(headers);
        let own = match caller {
            Some(caller) => caller.next(&mut rng::os()),
            None => {
                let first = Context::first(true, &mut rng::os());
                Context {
                    sampled: is_drawn(&first, self.sample),
                    ..first
                }
            }
        };
        if !own.sampled {
            return None;
        }
        let upstream = own.next(&mut rng::os());
        headers.insert(PARENT, HeaderValue::try_from(upstream.header()).ok()?);
        if caller.is_none() {
            // It belongs to the context that was not there.
            headers.remove(STATE);
        }
        Some(Trace {
            spans: self.spans.clone(),
            own,
            parent: caller.map(|caller| caller.span),
            upstream,
            opened: u64::try_from(now_ms).unwrap_or(0).saturating_mul(1_000_000),
        })
    }
}

/// Whether a trace is one of so many of all, by its number, which is random.
fn is_drawn(context: &Context, sample: f64) -> bool {
    let [.., a, b, c, d] = context.trace;
    f64::from(u32::from_be_bytes([a, b, c, d])) < sample * 4_294_967_296.0
}

impl Trace {
    /// The trace, in hexadecimal digits.
    pub(crate) fn id(&self) -> String {
        self.own.trace_id()
    }

    /// Hands in the spans of a request that took `whole` nanoseconds.
    pub(crate) fn end(
        &self,
        name: String,
        attributes: Vec<(&'static str, Value)>,
        failed: bool,
        whole: u64,
        parts: impl Iterator<Item = Part>,
    ) {
        let mut spans = vec![Span {
            context: self.own,
            parent: self.parent,
            name,
            kind: Kind::Server,
            start: self.opened,
            end: self.opened.saturating_add(whole),
            attributes,
            failed,
        }];
        spans.extend(parts.map(|part| {
            let (context, kind) = if part.name == UPSTREAM {
                (self.upstream, Kind::Client)
            } else {
                (self.own.next(&mut rng::os()), Kind::Internal)
            };
            Span {
                context,
                parent: Some(self.own.span),
                name: part.name.to_owned(),
                kind,
                start: self.opened.saturating_add(part.start),
                end: self.opened.saturating_add(part.end),
                attributes: Vec::new(),
                failed: false,
            }
        }));
        self.spans.export(spans);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_drawn_as_was_said() {
        let drawn = |sample: f64| {
            let all = (0..4000).filter(|_| is_drawn(&Context::first(true, &mut rng::os()), sample));
            all.count()
        };
        assert_eq!((drawn(0.0), drawn(1.0)), (0, 4000));
        let half = drawn(0.5);
        assert!((1700..2300).contains(&half), "{half}");
    }
}
