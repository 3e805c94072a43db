//! Server-sent events as they arrive (HTML standard, section 9.2).

use bytes::Bytes;

const MARK: &[u8] = b"\xef\xbb\xbf";
/// The longest id of an event that is kept, in bytes.
const MAX_ID: usize = 4096;

/// One event that was sent completely.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its data; nothing for an event that only has an id.
    pub(crate) data: Option<Vec<u8>>,
    /// The stream's last id, as of this event.
    pub(crate) id: Option<String>,
    /// How long to wait before coming back, in milliseconds, if it says so.
    pub(crate) retry: Option<u64>,
}

/// An event is larger than may be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// Cuts a stream into events.
#[derive(Debug)]
pub(crate) struct Decoder {
    max: usize,
    line: Vec<u8>,
    after_cr: bool,
    first: bool,
    event: Event,
    held: usize,
}

impl Decoder {
    /// At the start of a stream of which events of at most `max` bytes are held.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            line: Vec::new(),
            after_cr: false,
            first: true,
            event: Event::default(),
            held: 0,
        }
    }

    /// Takes bytes and gives the events that they complete.
    ///
    /// # Errors
    /// [`TooLarge`]: the rest of the stream has no meaning.
    pub(crate) fn push(&mut self, bytes: &Bytes) -> Result<Vec<Event>, TooLarge> {
        let mut events = Vec::new();
        for byte in bytes.iter().copied() {
            let after_cr = std::mem::take(&mut self.after_cr);
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => {
                    self.after_cr = byte == b'\r';
                    events.extend(self.end_of_line());
                }
                byte => {
                    if self.held >= self.max {
                        return Err(TooLarge);
                    }
                    self.held += 1;
                    self.line.push(byte);
                }
            }
        }
        Ok(events)
    }

    fn end_of_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let marked = std::mem::take(&mut self.first) && line.starts_with(MARK);
        let line = line
            .get(if marked { MARK.len() } else { 0 }..)
            .unwrap_or_default();
        if line.is_empty() {
            self.held = 0;
            let event = std::mem::take(&mut self.event);
            // The id stays that of the stream until another comes.
            self.event.id.clone_from(&event.id);
            let says = event.data.is_some() || event.id.is_some() || event.retry.is_some();
            return says.then_some(event);
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (field, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => match &mut self.event.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                none => *none = Some(value.to_vec()),
            },
            b"id" if value.len() <= MAX_ID && !value.contains(&0) => {
                self.event.id = String::from_utf8(value.to_vec()).ok().filter(|id| !id.is_empty());
            }
            b"retry" => {
                let text = std::str::from_utf8(value).ok();
                self.event.retry = text.and_then(|text| text.parse().ok());
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn data(stream: &str) -> Vec<String> {
        let mut decoder = Decoder::new(1000);
        let events = decoder.push(&Bytes::copy_from_slice(stream.as_bytes())).unwrap();
        let data = events.into_iter().filter_map(|event| event.data);
        data.map(|data| String::from_utf8(data).unwrap()).collect()
    }

    #[test]
    fn streams() {
        let check = |stream: &str, expected: &[&str]| assert_eq!(data(stream), expected, "{stream:?}");
        check("", &[]);
        check("data: a\n\n", &["a"]);
        check("data:a\n\n", &["a"]);
        check("data:  a\n\n", &[" a"]);
        check("data: a\ndata: b\n\n", &["a\nb"]);
        check("data\n\n", &[""]);
        check("data: a\r\n\r\ndata: b\r\r", &["a", "b"]);
        check("\u{feff}data: a\n\n", &["a"]);
        check("\n\u{feff}data: a\n\n", &[]);
        check(": comment\n\nevent: x\n\n", &[]);
        check("data: a\n\ndata: cut", &["a"]);
        check("data: a\n\ndata: cut\n", &["a"]);
        check("datax: a\n\n", &[]);
    }

    #[test]
    fn ids_stay_until_another_comes() {
        let mut decoder = Decoder::new(1000);
        let stream = "id: 1\nretry: 250\ndata:\n\ndata: a\n\nid: 2\n\nid\ndata: b\n\n";
        let events = decoder.push(&Bytes::from(stream)).unwrap();
        let told: Vec<_> = events
            .iter()
            .map(|event| (event.id.as_deref(), event.retry, event.data.is_some()))
            .collect();
        assert_eq!(
            told,
            [
                (Some("1"), Some(250), true),
                (Some("1"), None, true),
                (Some("2"), None, false),
                (None, None, true)
            ]
        );
    }

    #[test]
    fn an_event_is_bounded_and_a_stream_is_not() {
        let mut decoder = Decoder::new(8);
        for _ in 0..100 {
            assert_eq!(decoder.push(&Bytes::from("data: ab\n\n")).unwrap().len(), 1);
        }
        assert_eq!(decoder.push(&Bytes::from("data: abc\n\n")), Err(TooLarge));
        let mut decoder = Decoder::new(8);
        assert_eq!(decoder.push(&Bytes::from("data: a\ndata: b\n\n")), Err(TooLarge));
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(stream in "(data: ?[a-c]{0,3}|id: [12]|:|x)?(\n|\r\n|\r)", cuts in 1..5_usize) {
            let stream = stream.repeat(4);
            let whole = Decoder::new(1000).push(&Bytes::from(stream.clone())).unwrap();
            let mut decoder = Decoder::new(1000);
            let mut parts = Vec::new();
            for part in stream.as_bytes().chunks(cuts) {
                parts.extend(decoder.push(&Bytes::copy_from_slice(part)).unwrap());
            }
            prop_assert_eq!(parts, whole);
        }
    }
}
