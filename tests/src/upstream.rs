//! A server behind a proxy, for tests that must know what got through.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as it came, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Request line and headers, without the empty line.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Received {
    /// The path of the request line.
    pub fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// The headers, names in lower case, in order.
    pub fn headers(&self) -> Vec<(String, String)> {
        let lines = self.head.lines().skip(1);
        let split = lines.filter_map(|line| line.split_once(": "));
        split
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect()
    }
}

/// What a server answers.
pub enum Reply {
    /// These bytes, and the end of the connection.
    Whole(Vec<u8>),
    /// These bytes, and then nothing until the reader goes.
    Open(Vec<u8>),
}

type Script = dyn Fn(&Received) -> Reply + Send + Sync;

/// A server that counts and keeps what callers send. What the proxy asks by itself, which its
/// `User-Agent` tells apart, is answered and not kept.
pub struct Upstream {
    received: Arc<Mutex<Vec<Received>>>,
    /// Where it is.
    pub url: String,
}

impl Upstream {
    /// A server that answers everything with the same result. A request with a `traceparent` is answered
    /// with a stream that says one thing and stays open.
    pub fn start() -> Self {
        Self::answering(|request| {
            if request.headers().iter().any(|(name, _)| name == "traceparent") {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close";
                let event = r#"data: {"jsonrpc":"2.0","method":"notifications/message","params":{}}"#;
                return Reply::Open(format!("{head}\r\n\r\n{event}\n\n").into_bytes());
            }
            Reply::Whole(json(RESULT, ""))
        })
    }

    /// A server that answers as the script says.
    pub fn answering(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let (kept, script): (_, Arc<Script>) = (Arc::clone(&received), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (kept, script) = (Arc::clone(&kept), Arc::clone(&script));
                std::thread::spawn(move || answer(stream, &kept, &*script));
            }
        });
        Self { received, url }
    }

    /// Requests of callers that got here.
    pub fn count(&self) -> u64 {
        self.received.lock().unwrap().len() as u64
    }

    /// The bodies of all of them, one after the other.
    pub fn bodies(&self) -> String {
        let received = self.received.lock().unwrap();
        received
            .iter()
            .map(|request| String::from_utf8_lossy(&request.body))
            .collect()
    }

    /// The requests of callers that got here, in order.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// The last request of a caller that got here.
    pub fn last(&self) -> Option<Received> {
        self.received.lock().unwrap().last().cloned()
    }
}

/// The result of a call.
pub const RESULT: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"done"}]}}"#;

/// An answer of JSON, with further header lines, each ended by CR LF.
pub fn json(body: &str, headers: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
    format!("{head}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes()
}

fn answer(mut stream: TcpStream, kept: &Mutex<Vec<Received>>, script: &Script) {
    let Some(request) = request(&mut stream) else {
        return;
    };
    let own = ("user-agent".to_owned(), "taper-proxy".to_owned());
    if !request.headers().contains(&own) {
        kept.lock().unwrap().push(request.clone());
    }
    match script(&request) {
        Reply::Whole(bytes) => drop(stream.write_all(&bytes)),
        Reply::Open(bytes) => {
            let _ = stream.write_all(&bytes);
            let _ = stream.read(&mut [0]);
        }
    }
}

/// Reads one request; `None` when the connection ends before it does.
pub fn request(stream: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 65_536];
    loop {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                let value = name.eq_ignore_ascii_case("content-length").then_some(value)?;
                Some(value.trim().parse::<usize>().unwrap())
            });
            let body = &bytes[end + 4..];
            if body.len() >= length.unwrap_or(0) {
                let body = body.to_vec();
                return Some(Received { head, body });
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(n) => bytes.extend(&buffer[..n]),
        }
    }
}
