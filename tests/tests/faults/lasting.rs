//! A server whose answers do not end: streams on which nothing happens, and floods for those who do not read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::world::steps_back;

const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
/// How long an answer to a call says that it is.
const LONG: usize = 1 << 30;

/// A server on a thread of its own. A request with a `traceparent` gets a flood, all others get a stream that says one
/// thing and nothing more.
#[derive(Clone)]
pub(crate) struct Lasting {
    pub(crate) url: String,
    /// Who waits for the end of a flood, by the id of its trace.
    waiting: Arc<Mutex<HashMap<String, oneshot::Sender<()>>>>,
}

impl Lasting {
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let lasting = Self {
            url: format!("http://{}/mcp", listener.local_addr().unwrap()),
            waiting: Arc::default(),
        };
        let server = lasting.clone();
        std::thread::spawn(move || {
            steps_back();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let server = server.clone();
                    tokio::task::spawn(async move { server.answers(stream).await });
                }
            });
        });
        lasting
    }

    /// Completes when the proxy has ended the request that belongs to this trace.
    pub(crate) fn end_of(&self, trace: &str) -> oneshot::Receiver<()> {
        let (gone, end) = oneshot::channel();
        self.waiting.lock().unwrap().insert(trace.to_owned(), gone);
        end
    }

    async fn answers(self, mut stream: TcpStream) {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if !stream.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {
                return;
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let trace = head
            .lines()
            .find_map(|line| line.strip_prefix("traceparent: 00-"));
        let Some(trace) = trace.and_then(|trace| trace.split('-').next()) else {
            let first = format!("{STREAM}9\r\n: hello\n\n\r\n");
            let _ = stream.write_all(first.as_bytes()).await;
            while stream.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {}
            return;
        };
        let event = format!("data: {{\"x\":\"{}\"}}\n\n", "x".repeat(60_000));
        let (first, piece) = if head.starts_with("GET ") {
            (STREAM.to_owned(), format!("{:x}\r\n{event}\r\n", event.len()))
        } else {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json";
            (
                format!("{head}\r\ncontent-length: {LONG}\r\n\r\n"),
                " ".repeat(64 * 1024),
            )
        };
        let _ = stream.write_all(first.as_bytes()).await;
        // The body may still be on its way: what is not read would end this side with a reset.
        let (mut reads, mut writes) = stream.split();
        let mut piece_of = [0; 1024];
        tokio::select! {
            () = async { while writes.write_all(piece.as_bytes()).await.is_ok() {} } => {}
            () = async { while reads.read(&mut piece_of).await.is_ok_and(|n| n > 0) {} } => {}
        }
        let waiting = self.waiting.lock().unwrap().remove(trace);
        if let Some(waiting) = waiting {
            let _ = waiting.send(());
        }
    }
}
