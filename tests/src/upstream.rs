//! A server behind a proxy, for tests that must know what got through.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A server that answers everything with the same result, and counts. A request with a `traceparent` is
/// answered with a stream that says one thing and stays open.
pub struct Upstream {
    requests: Arc<AtomicU64>,
    /// Where it is.
    pub url: String,
}

impl Upstream {
    /// Starts one.
    pub fn start() -> Self {
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

    /// Requests that got here.
    pub fn count(&self) -> u64 {
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
    if String::from_utf8_lossy(&received).contains("\r\ntraceparent: ") {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close";
        let event = r#"data: {"jsonrpc":"2.0","method":"notifications/message","params":{}}"#;
        let _ = write!(stream, "{head}\r\n\r\n{event}\n\n");
        // Until the reader goes.
        let _ = stream.read(&mut buffer);
        return;
    }
    let body = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"done"}]}}"#;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
    let _ = write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
}
