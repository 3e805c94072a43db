//! Traces: one span for each request, within its caller's trace where that names one, with the parts of the
//! work below it. The upstream is told the span of the request to it, so that its own spans follow.
//!
//! A trace says what the line of the log says and nothing else. What a caller did not have recorded is
//! passed on as it came.

use std::path::Path;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use taper_oauth::uri;
use taper_service::config::resolve;
use taper_service::fetch::{FetchRules, Fetcher};
use taper_service::rng;
use taper_service::spans::{Collector, Context, Kind, Span, Spans, TRACEPARENT, Value};

use crate::config::Config;
use crate::headers;
use crate::ready::{OpenError, read_file, setting};

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
    /// Whether it is recorded whoever the caller is; otherwise because the caller has it recorded.
    is_drawn: bool,
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

    /// Says that no more requests come.
    pub(crate) fn close(&self) {
        self.spans.close();
    }

    /// Begins the trace of a request, if it is recorded, and puts it into the headers that the upstream
    /// gets. `now_ms` is in milliseconds since the Unix epoch.
    pub(crate) fn begin(&self, headers: &mut HeaderMap, now_ms: i64) -> Option<Trace> {
        let caller = context_of(headers);
        if caller.is_none() {
            // What is not valid counts as not there, and the state belongs to it.
            headers.remove(PARENT);
            headers.remove(STATE);
        }
        let own = match caller {
            Some(caller) => caller.next(&mut rng::os()),
            None => Context::first(true, &mut rng::os()),
        };
        let is_drawn = is_drawn(&own, self.sample);
        if !own.sampled || (caller.is_none() && !is_drawn) {
            return None;
        }
        let upstream = own.next(&mut rng::os());
        headers.insert(PARENT, HeaderValue::try_from(upstream.header()).ok()?);
        Some(Trace {
            spans: self.spans.clone(),
            own,
            is_drawn,
            parent: caller.map(|caller| caller.span),
            upstream,
            opened: u64::try_from(now_ms).unwrap_or(0).saturating_mul(1_000_000),
        })
    }
}

/// Where spans go, as it is configured.
pub(crate) struct Traced {
    pub(crate) collector: Collector,
    pub(crate) fetcher: Fetcher,
    pub(crate) sample: f64,
}

impl Traced {
    /// What OpenTelemetry calls the place when the file has none.
    const ENDPOINT: &'static str = "OTEL_EXPORTER_OTLP_ENDPOINT";

    /// The collector of the configuration or of the environment, if there is one.
    ///
    /// # Errors
    /// A setting that means nothing, or a file that cannot be read.
    pub(crate) fn of(config: &Config, folder: &Path) -> Result<Option<Self>, OpenError> {
        let traces = &config.traces;
        if !(0.0..=1.0).contains(&traces.sample) {
            return Err(setting("traces.sample", "it is a number from 0 to 1"));
        }
        let from_env = || std::env::var(Self::ENDPOINT).ok().filter(|url| !url.is_empty());
        let Some(endpoint) = traces.endpoint.clone().or_else(from_env) else {
            return Ok(None);
        };
        let parsed = uri::secure(&endpoint, true).map_err(|e| setting("traces.endpoint", e))?;
        let mut headers = HeaderMap::new();
        if let Some(source) = &traces.authorization {
            let secret = source.read(folder)?;
            let mut value = HeaderValue::from_bytes(secret.expose())
                .map_err(|_| setting("traces.authorization", "it is not the text of a header"))?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let mut extra_roots = Vec::new();
        for path in &config.outbound.ca_files {
            extra_roots.push(read_file(&resolve(folder, path))?);
        }
        let fetcher = Fetcher::new(&FetchRules {
            allow_loopback_http: true,
            trusted_hosts: parsed.host_str().map(str::to_owned).into_iter().collect(),
            extra_roots,
            ..FetchRules::default()
        })?;
        Ok(Some(Self {
            collector: Collector {
                endpoint,
                headers,
                service: "taper-proxy",
                version: env!("CARGO_PKG_VERSION"),
            },
            fetcher,
            sample: traces.sample,
        }))
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

    /// Whether the spans are wanted of a request whose presentation verified, or did not: a caller that shows
    /// none does not choose what is recorded.
    pub(crate) fn counts(&self, is_presented: bool) -> bool {
        self.is_drawn || is_presented
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
