//! Frames of HTTP/2 that no client library would send.

use axum::Router;
use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Far beyond what a passing test takes.
const PATIENCE: Duration = Duration::from_secs(20);
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
/// END_STREAM and END_HEADERS.
const WHOLE: u8 = 5;
const PROTOCOL_ERROR: [u8; 4] = [0, 0, 0, 1];
const ENHANCE_YOUR_CALM: [u8; 4] = [0, 0, 0, 11];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A head, every field literally and with a new name (RFC 7541 §6.2.2).
fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    let usual = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "a"),
    ];
    let mut block = Vec::new();
    for (name, value) in usual.iter().chain(fields) {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.bytes());
        }
    }
    block
}

/// What a server answers to `frames`: its own frames up to the end, or to the first of `last`.
async fn answers(frames: &[u8], last: &[u8]) -> Vec<(u8, u32, Vec<u8>)> {
    let limits = EdgeLimits::default();
    let bound = Bound::bind("127.0.0.1:0".parse().unwrap(), limits).await.unwrap();
    let (addr, shutdown) = (bound.local_addr(), Shutdown::new());
    let router = Router::new().route("/", get(|| async { "hello" }));
    shutdown.spawn("edge", bound.serve(router, shutdown.clone()));
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    opening.extend(frame(4, 0, 0, &[]));
    opening.extend(frames);
    stream.write_all(&opening).await.unwrap();
    let mut all = Vec::new();
    let reading = async {
        loop {
            let mut prefix = [0; 9];
            if stream.read_exact(&mut prefix).await.is_err() {
                return;
            }
            let [a, b, c, kind, _, id @ ..] = prefix;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            stream.read_exact(&mut payload).await.unwrap();
            all.push((kind, u32::from_be_bytes(id), payload));
            if last.contains(&kind) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap();
    drop(stream);
    shutdown.trigger();
    assert_eq!(shutdown.drain(PATIENCE).await, Ok(()));
    all
}

#[tokio::test]
async fn a_head_has_no_fields_of_the_connection() {
    let sent = async |fields: &[(&str, &str)]| {
        let frames = frame(HEADERS, WHOLE, 1, &head(fields));
        let got = answers(&frames, &[HEADERS, RST_STREAM, GOAWAY]).await;
        got.into_iter().next_back().unwrap()
    };
    let (kind, stream, _) = sent(&[("x", "y")]).await;
    assert_eq!((kind, stream), (HEADERS, 1), "the honest twin");
    for field in [
        ("transfer-encoding", "chunked"),
        ("connection", "keep-alive"),
        ("keep-alive", "1"),
        ("proxy-connection", "close"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        (":path", "/other"),
        ("content-length", "5"),
    ] {
        let (kind, stream, payload) = sent(&[field]).await;
        assert_eq!((kind, stream), (RST_STREAM, 1), "{field:?}");
        assert_eq!(payload, PROTOCOL_ERROR, "{field:?}");
    }
}

#[tokio::test]
async fn a_flood_of_resets_ends_its_connection() {
    let mut frames = Vec::new();
    for n in 0..200 {
        frames.extend(frame(HEADERS, WHOLE, 2 * n + 1, &head(&[])));
        frames.extend(frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8]));
    }
    let got = answers(&frames, &[GOAWAY]).await;
    let (kind, _, payload) = got.last().unwrap();
    assert_eq!(*kind, GOAWAY);
    assert_eq!(payload[4..8], ENHANCE_YOUR_CALM);
}
