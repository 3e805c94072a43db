//! A server without any trouble.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};

use taper_tests::upstream::{RESULT, request};

/// Answers every call at once.
pub(crate) struct Quick {
    pub(crate) url: String,
}

impl Quick {
    /// One that keeps its connections.
    pub(crate) fn start() -> Self {
        Self::run(true)
    }

    /// One that ends them after each answer, so that the proxy has none left when it rests.
    pub(crate) fn without_rest() -> Self {
        Self::run(false)
    }

    fn run(keeps: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || serve(stream, keeps));
            }
        });
        Self { url }
    }
}

fn serve(mut stream: TcpStream, keeps: bool) {
    stream.set_nodelay(true).unwrap();
    while request(&mut stream).is_some() {
        let length = RESULT.len();
        let close = if keeps { "" } else { "connection: close\r\n" };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{close}content-length: {length}\r\n\r\n"
        );
        if stream.write_all((head + RESULT).as_bytes()).is_err() || !keeps {
            return;
        }
    }
}
