//! The two programs beside the proxy: the server behind it, and a proxy that only proxies.

use std::convert::Infallible;
use std::io::Write as _;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// What the server answers: the result of one call.
pub(crate) const ANSWER: &str =
    r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"3f1c9e2 first commit"}]}}"#;

/// What a stream begins with.
pub(crate) const FIRST_EVENT: &str = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":\"open\"}}\n\n";

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// The list of its tools.
const TOOLS: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","tools":[{"name":"git_log","description":"Shows commits.","inputSchema":{"type":"object","properties":{"repo_path":{"type":"string"}},"required":["repo_path"]}}]}}"#;

/// A server that reads a request to its end, lists its tools when it is asked for them and gives every
/// other request the same result. A GET is answered with an event stream that stays open.
pub(crate) async fn server() -> anyhow::Result<()> {
    serve(async |request: Request<Incoming>| {
        if request.method() == Method::GET {
            return open_stream();
        }
        let Ok(body) = request.into_body().collect().await else {
            return whole(StatusCode::BAD_REQUEST, "");
        };
        let asked = memchr::memmem::find(&body.to_bytes(), br#""tools/list""#);
        whole(StatusCode::OK, if asked.is_some() { TOOLS } else { ANSWER })
    })
    .await
}

/// One event, and no end.
fn open_stream() -> Answer {
    let first = Frame::data(Bytes::from_static(FIRST_EVENT.as_bytes()));
    let frames = stream::once(std::future::ready(Ok(first))).chain(stream::pending());
    let mut answer = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    let kind = HeaderValue::from_static("text/event-stream");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

/// A proxy that passes each request on to `upstream` and each answer back, as they come, and looks at
/// nothing.
pub(crate) async fn plain(upstream: &str) -> anyhow::Result<()> {
    let upstream: Uri = upstream.parse()?;
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    let client: Client<HttpConnector, Incoming> = Client::builder(TokioExecutor::new()).build(tcp);
    serve(move |mut request| {
        *request.uri_mut() = upstream.clone();
        let answered = client.request(request);
        async {
            match answered.await {
                Ok(answer) => answer.map(BodyExt::boxed),
                Err(_) => whole(StatusCode::BAD_GATEWAY, ""),
            }
        }
    })
    .await
}

fn whole(status: StatusCode, text: &'static str) -> Answer {
    let body = Full::new(Bytes::from_static(text.as_bytes()));
    let mut answer = Response::new(body.map_err(|never: Infallible| match never {}).boxed());
    *answer.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer
}

/// Says where it is, then answers until it is killed.
async fn serve<F>(
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
) -> anyhow::Result<()>
where
    F: Future<Output = Answer> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "http://{}/mcp", listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let answered = answer(request);
            async move { Ok::<_, Infallible>(answered.await) }
        });
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new();
            // A connection that breaks ends alone.
            let _ = connection.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
