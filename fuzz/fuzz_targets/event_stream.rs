//! An upstream's event stream: no byte is lost or moved however it is cut on its way, and what it is read as
//! depends neither on that nor on the reader.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

// The module itself: all of the proxy would make this package as large as the program.
#[allow(dead_code)]
#[path = "../../crates/taper-proxy/src/sse.rs"]
mod sse;

use sse::{Event, Piece, Splitter};

/// Larger than any input.
const WHOLE: usize = 1 << 20;

// The first bytes say how the rest is cut and how large an event may be.
fuzz_target!(|input: &[u8]| {
    let [max, cuts @ .., _] = input.get(..8).unwrap_or(&[0; 8]) else {
        return;
    };
    let stream = input.get(8..).unwrap_or_default();
    let whole = read(stream, WHOLE, &[stream.len().max(1)]);
    let cut: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut).max(1)).collect();
    assert_eq!(read(stream, WHOLE, &cut), whole, "it depends on how it came");
    let small = read(stream, usize::from(*max), &cut);
    let held = whole.iter().filter(|event| event.text.len() <= usize::from(*max));
    assert!(small.iter().eq(held), "another event is held");
    // Where a mark stands within, readers differ; this one hears more than others.
    if !stream.windows(3).any(|three| three == b"\xef\xbb\xbf") {
        let data: Vec<Vec<u8>> = whole.into_iter().filter_map(|event| event.data).collect();
        assert_eq!(data, dispatched(stream), "a client reads another thing");
    }
});

/// An event that was held.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    /// Without the empty line that ends it, of which a part may come later.
    text: Vec<u8>,
    data: Option<Vec<u8>>,
}

impl Held {
    fn new(event: &Event) -> Self {
        let bytes = event.clone().into_bytes();
        let ends: [&[u8]; 3] = [b"\r\n", b"\n", b"\r"];
        let text = ends.into_iter().find_map(|end| bytes.strip_suffix(end));
        let changed = Event::new(Bytes::from(event.with_data(b"x")));
        assert_eq!(changed.data().as_deref(), Some(&b"x"[..]));
        Self {
            text: text.expect("an empty line").to_vec(),
            data: event.data(),
        }
    }
}

/// The events that are held of a stream that comes in pieces of these lengths, over and over.
fn read(stream: &[u8], max: usize, cuts: &[usize]) -> Vec<Held> {
    let (mut splitter, mut events, mut passed) = (Splitter::new(max), Vec::new(), Vec::new());
    let (mut rest, mut cuts) = (stream, cuts.iter().cycle());
    while !rest.is_empty() {
        let (now, later) = rest.split_at((*cuts.next().expect("a length")).min(rest.len()));
        rest = later;
        for piece in splitter.push(Bytes::copy_from_slice(now)) {
            match piece {
                Piece::Event(event) => {
                    events.push(Held::new(&event));
                    passed.extend_from_slice(&event.into_bytes());
                }
                Piece::Between(bytes) | Piece::Part { bytes, .. } => passed.extend_from_slice(&bytes),
            }
        }
    }
    passed.extend_from_slice(&splitter.finish().unwrap_or_default());
    assert_eq!(passed, stream, "bytes are lost or moved");
    events
}

/// The data that a client is told, by the page of the standard alone (WHATWG HTML §9.2.6).
fn dispatched(stream: &[u8]) -> Vec<Vec<u8>> {
    let (mut all, mut data, mut line) = (Vec::new(), Vec::new(), Vec::new());
    let mut bytes = stream.iter().peekable();
    while let Some(byte) = bytes.next() {
        if !matches!(byte, b'\r' | b'\n') {
            line.push(*byte);
            continue;
        }
        if *byte == b'\r' {
            bytes.next_if_eq(&&b'\n');
        }
        let line = std::mem::take(&mut line);
        if line.is_empty() {
            let mut told = std::mem::take(&mut data);
            if told.pop().is_some() && !told.is_empty() {
                all.push(told);
            }
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        if name == b"data" {
            data.extend_from_slice(value);
            data.push(b'\n');
        }
    }
    all
}
