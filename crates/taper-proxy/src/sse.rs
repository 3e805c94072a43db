//! Event streams, event by event, byte for byte where nothing has to change (WHATWG HTML §9.2).

/// Splits a stream into its events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    buffer: Vec<u8>,
    /// Where the line that is being read begins.
    line: usize,
    /// How far the buffer was looked at.
    seen: usize,
}

/// One event, or a block of comments, with the empty line that ends it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event(Vec<u8>);

impl Events {
    /// Takes bytes and gives the events that they complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.buffer.extend_from_slice(bytes);
        let mut complete = Vec::new();
        while let Some((end, next)) = self.line_end() {
            let is_empty = end == self.line;
            self.line = next;
            self.seen = next;
            if is_empty {
                let rest = self.buffer.split_off(next);
                complete.push(Event(std::mem::replace(&mut self.buffer, rest)));
                self.line = 0;
                self.seen = 0;
            }
        }
        complete
    }

    /// Bytes of an event that is not complete.
    pub(crate) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// The end of the current line and the start of the next. A CR at the very end may be half of a
    /// line end, so it waits.
    fn line_end(&mut self) -> Option<(usize, usize)> {
        let rest = self.buffer.get(self.seen..).unwrap_or_default();
        let Some(offset) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
            self.seen = self.buffer.len();
            return None;
        };
        let at = self.seen + offset;
        self.seen = at;
        match (self.buffer.get(at), self.buffer.get(at + 1)) {
            (Some(b'\n'), _) => Some((at, at + 1)),
            (Some(_), Some(b'\n')) => Some((at, at + 2)),
            (Some(_), Some(_)) => Some((at, at + 1)),
            _ => None,
        }
    }
}

impl Event {
    /// Its data, the lines joined by line feeds; `None` when it has none.
    pub(crate) fn data(&self) -> Option<Vec<u8>> {
        let mut data: Option<Vec<u8>> = None;
        for line in lines(&self.0) {
            if let Some(value) = data_of(line) {
                match &mut data {
                    None => data = Some(value.to_vec()),
                    Some(data) => {
                        data.push(b'\n');
                        data.extend_from_slice(value);
                    }
                }
            }
        }
        data
    }

    /// As it came.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The same event with other data, which has no line end in it.
    pub(crate) fn with_data(&self, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.len());
        for line in lines(&self.0).filter(|line| !line.is_empty() && data_of(line).is_none()) {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(data);
        out.extend_from_slice(b"\n\n");
        out
    }
}

/// Lines by any of the three line ends; the empty ones between CR and LF do no harm here.
fn lines(event: &[u8]) -> impl Iterator<Item = &[u8]> {
    event.split(|byte| matches!(byte, b'\r' | b'\n'))
}

fn data_of(line: &[u8]) -> Option<&[u8]> {
    // A byte order mark may stand before the first line of a stream.
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    match line.strip_prefix(b"data") {
        Some([]) => Some(&[]),
        Some([b':', b' ', value @ ..]) | Some([b':', value @ ..]) => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(parts: &[&str]) -> Vec<String> {
        let mut events = Events::default();
        let mut got = Vec::new();
        for part in parts {
            for event in events.push(part.as_bytes()) {
                got.push(String::from_utf8(event.into_bytes()).unwrap());
            }
        }
        got
    }

    #[test]
    fn events_end_at_an_empty_line() {
        let check = |parts: &[&str], expected: &[&str]| assert_eq!(all(parts), expected, "{parts:?}");
        check(&["data: a\n\ndata: b\n\n"], &["data: a\n\n", "data: b\n\n"]);
        check(&["data: a\r\n\r", "\ndata"], &["data: a\r\n\r\n"]);
        check(&["data: a\r\rx"], &["data: a\r\r"]);
        check(&[": ping\n", "\n"], &[": ping\n\n"]);
        check(&["d", "ata: a", "\n", "\n", "x"], &["data: a\n\n"]);
        check(&["data: a\n"], &[]);
    }

    #[test]
    fn every_cut_gives_the_same_events() {
        let text = "id: 1\r\ndata: a\r\ndata: b\r\n\r\n: c\n\ndata: d\r\re\n\n";
        let whole = all(&[text]);
        for at in 0..text.len() {
            assert_eq!(all(&[&text[..at], &text[at..]]), whole, "{at}");
        }
        let single: Vec<&str> = text.split("").collect();
        assert_eq!(all(&single), whole);
    }

    #[test]
    fn data_is_read_and_replaced() {
        let event = Event(b"id: 7\r\nevent: message\r\ndata: a\r\ndata:b\r\n\r\n".to_vec());
        assert_eq!(event.data().as_deref(), Some(&b"a\nb"[..]));
        assert_eq!(event.with_data(b"{}"), b"id: 7\nevent: message\ndata: {}\n\n");
        assert_eq!(Event(b": c\n\n".to_vec()).data(), None);
        assert_eq!(Event(b"datax: 1\n\n".to_vec()).data(), None);
        assert_eq!(
            Event(b"\xef\xbb\xbfdata: 1\n\n".to_vec()).data().as_deref(),
            Some(&b"1"[..])
        );
    }
}
