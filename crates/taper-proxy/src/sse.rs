//! Event streams, cut into events without changing a byte (WHATWG HTML §9.2).
//!
//! Comments and empty lines pass as soon as they are complete, and an event when its empty line came. An
//! event that is larger than what may be held passes in parts, unread.

use bytes::{Bytes, BytesMut};
use memchr::{memchr2, memmem};

const MARK: &[u8] = b"\xef\xbb\xbf";

/// Cuts a stream into pieces. Joined, they are the stream.
#[derive(Debug)]
pub(crate) struct Splitter {
    /// The beginning of a piece.
    held: BytesMut,
    /// How large an event may be that is held.
    max: usize,
    /// How far the piece was looked at, and where its current line begins.
    seen: usize,
    line: usize,
    /// Whether nothing was looked at yet: only here a byte order mark means nothing.
    first: bool,
    /// A piece ended with a CR; a LF that follows belongs to it.
    after_cr: bool,
    mode: Mode,
}

/// How the current piece passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// When it is complete.
    Whole,
    /// In parts: a comment, which ends with its line.
    Comment,
    /// In parts: an event. `goes_on` says whether its current line has a byte already.
    Event { goes_on: bool },
}

/// A piece of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// One event with the empty line that ends it.
    Event(Event),
    /// What stands between events: comments, empty lines, a byte order mark.
    Between(Bytes),
    /// A part of an event that is too large to be held.
    Part {
        /// Its bytes.
        bytes: Bytes,
        /// Whether the event ends here.
        last: bool,
    },
}

#[derive(Clone, Copy)]
enum Kind {
    Event,
    Between,
    Part { last: bool },
}

/// One event, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event(Bytes);

impl Splitter {
    /// At the start of a stream of which events of at most `max` bytes are held.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            held: BytesMut::new(),
            max,
            seen: 0,
            line: 0,
            first: true,
            after_cr: false,
            mode: Mode::Whole,
        }
    }

    /// Takes bytes and gives the pieces that they complete.
    pub(crate) fn push(&mut self, mut bytes: Bytes) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if self.held.is_empty() {
            while let Some((kind, length)) = self.cut(&bytes) {
                pieces.push(kind.piece(bytes.split_to(length)));
            }
            self.held = BytesMut::from(bytes.as_ref());
        } else {
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(&bytes);
            while let Some((kind, length)) = self.cut(&held) {
                pieces.push(kind.piece(held.split_to(length).freeze()));
            }
            self.held = held;
        }
        pieces
    }

    /// What is left when the stream has ended: an event that no client takes for one.
    pub(crate) fn finish(&mut self) -> Option<Bytes> {
        let rest = std::mem::take(&mut self.held).freeze();
        (!rest.is_empty()).then_some(rest)
    }

    /// The kind and length of the piece that `bytes` begin with, if it is complete.
    fn cut(&mut self, bytes: &[u8]) -> Option<(Kind, usize)> {
        if self.first && !bytes.is_empty() {
            self.first = MARK != bytes && MARK.starts_with(bytes);
            if bytes.starts_with(MARK) {
                return Some((Kind::Between, MARK.len()));
            }
            if self.first {
                return None;
            }
        }
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            if bytes.starts_with(b"\n") {
                let kind = match self.mode {
                    Mode::Whole => Kind::Between,
                    Mode::Comment | Mode::Event { .. } => Kind::Part { last: false },
                };
                return Some((kind, 1));
            }
        }
        while let Some((end, next)) = self.line_end(bytes) {
            if self.ends_piece(bytes, end) {
                let kind = match self.mode {
                    Mode::Whole if self.line == 0 => Kind::Between,
                    Mode::Whole if end <= self.max => Kind::Event,
                    _ => Kind::Part { last: true },
                };
                self.after_cr = next == bytes.len() && bytes.last() == Some(&b'\r');
                self.mode = Mode::Whole;
                (self.line, self.seen) = (0, 0);
                return Some((kind, next));
            }
            if let Mode::Event { goes_on } = &mut self.mode {
                *goes_on = false;
            }
            (self.line, self.seen) = (next, next);
        }
        if bytes.is_empty() || (self.mode == Mode::Whole && bytes.len() <= self.max) {
            return None;
        }
        // A CR at the very end has ended its line, which was not empty.
        self.after_cr = bytes.last() == Some(&b'\r');
        let in_line = bytes.len() > self.line || self.mode == Mode::Event { goes_on: true };
        self.mode = match self.mode {
            Mode::Comment => Mode::Comment,
            Mode::Whole if self.line == 0 && bytes.starts_with(b":") => Mode::Comment,
            _ => Mode::Event {
                goes_on: in_line && !self.after_cr,
            },
        };
        (self.line, self.seen) = (0, 0);
        Some((Kind::Part { last: false }, bytes.len()))
    }

    /// Whether the piece ends with the current line, which ends at `end`.
    fn ends_piece(&self, bytes: &[u8], end: usize) -> bool {
        match self.mode {
            Mode::Whole => end == self.line || (self.line == 0 && bytes.starts_with(b":")),
            Mode::Comment => true,
            Mode::Event { goes_on } => end == self.line && !goes_on,
        }
    }

    /// The end of the current line and the start of the next. A CR at the very end may be half of a line
    /// end; it is waited for only where nothing depends on it.
    fn line_end(&mut self, bytes: &[u8]) -> Option<(usize, usize)> {
        let rest = bytes.get(self.seen..).unwrap_or_default();
        let Some(offset) = memchr2(b'\r', b'\n', rest) else {
            self.seen = bytes.len();
            return None;
        };
        let at = self.seen + offset;
        self.seen = at;
        match (bytes.get(at), bytes.get(at + 1)) {
            (Some(b'\n'), _) => Some((at, at + 1)),
            (Some(_), Some(b'\n')) => Some((at, at + 2)),
            (Some(_), Some(_)) => Some((at, at + 1)),
            _ => self.ends_piece(bytes, at).then_some((at, at + 1)),
        }
    }
}

impl Kind {
    fn piece(self, bytes: Bytes) -> Piece {
        match self {
            Self::Event => Piece::Event(Event(bytes)),
            Self::Between => Piece::Between(bytes),
            Self::Part { last } => Piece::Part { bytes, last },
        }
    }
}

impl Event {
    /// One event with the empty line that ends it.
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// Its data, the lines joined by line feeds; `None` when it has none. Empty data is none: no client
    /// is told of such an event, with which servers begin a stream to give it an id (SEP-1699).
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
        data.filter(|data| !data.is_empty())
    }

    /// Whether these bytes stand in it somewhere.
    pub(crate) fn contains(&self, bytes: &[u8]) -> bool {
        memmem::find(&self.0, bytes).is_some()
    }

    /// As it came.
    pub(crate) fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The same event without lines in which a client could find another line. It is as it came where there
    /// are none.
    pub(crate) fn plain(self) -> Bytes {
        let keeps = |line: &&[u8]| line.is_empty() || data_of(line).is_some() || is_plain(line);
        if lines(&self.0).all(|line| keeps(&line)) {
            return self.0;
        }
        let mut out = Vec::with_capacity(self.0.len());
        for line in lines(&self.0).filter(|line| !line.is_empty()).filter(keeps) {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        out.push(b'\n');
        out.into()
    }

    /// The same event with other data, which has no line end in it, and of the other lines those that are
    /// plain.
    pub(crate) fn with_data(&self, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.len());
        for line in lines(&self.0).filter(|line| is_plain(line) && data_of(line).is_none()) {
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

/// What stands between events; of a comment in which a client could find another line only that it is one.
pub(crate) fn plain_between(between: Bytes) -> Bytes {
    if between.starts_with(b":") && !lines(&between).all(|line| line.is_empty() || is_plain(line)) {
        return Bytes::from_static(b":\n");
    }
    between
}

/// Whether a line is a comment or a field that a client needs beside the data, of visible ASCII: some clients
/// end a line at more characters than the standard has (U+2028, U+0085, the separators of ASCII).
fn is_plain(line: &[u8]) -> bool {
    let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
    let is_known = line.starts_with(b":") || [&b"id"[..], b"event", b"retry"].contains(&name);
    is_known && line.iter().all(|byte| (0x20..=0x7e).contains(byte))
}

fn data_of(line: &[u8]) -> Option<&[u8]> {
    // Some readers drop a byte order mark wherever it stands.
    let line = line.strip_prefix(MARK).unwrap_or(line);
    match line.strip_prefix(b"data") {
        Some([]) => Some(&[]),
        Some([b':', b' ', value @ ..]) | Some([b':', value @ ..]) => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 40;

    /// What a stream is cut into: `=` an event, `-` what is between, `~` a part, `!` the last part.
    fn pieces(parts: &[&[u8]], max: usize) -> Vec<(char, Vec<u8>)> {
        let mut splitter = Splitter::new(max);
        let mut got = Vec::new();
        for part in parts {
            for piece in splitter.push(Bytes::copy_from_slice(part)) {
                got.push(match piece {
                    Piece::Event(event) => ('=', event.into_bytes().to_vec()),
                    Piece::Between(bytes) => ('-', bytes.to_vec()),
                    Piece::Part { bytes, last: false } => ('~', bytes.to_vec()),
                    Piece::Part { bytes, last: true } => ('!', bytes.to_vec()),
                });
            }
        }
        got.extend(splitter.finish().map(|rest| ('.', rest.to_vec())));
        got
    }

    fn told(parts: &[&str]) -> Vec<String> {
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        let tell = |(kind, bytes): (char, Vec<u8>)| format!("{kind}{}", String::from_utf8(bytes).unwrap());
        pieces(&parts, MAX).into_iter().map(tell).collect()
    }

    #[test]
    fn events_end_at_an_empty_line_and_comments_at_their_line() {
        let check = |parts: &[&str], expected: &[&str]| assert_eq!(told(parts), expected, "{parts:?}");
        check(&["data: a\n\ndata: b\n\n"], &["=data: a\n\n", "=data: b\n\n"]);
        check(&["data: a\r\n\r", "\ndata"], &["=data: a\r\n\r", "-\n", ".data"]);
        check(&["data: a\r\r"], &["=data: a\r\r"]);
        check(&["data: a\r\n\r\n"], &["=data: a\r\n\r\n"]);
        check(&[": ping\n", "\n"], &["-: ping\n", "-\n"]);
        check(&[": ping\r", "\n\r\nx"], &["-: ping\r", "-\n", "-\r\n", ".x"]);
        check(&["id: 1\n: c\ndata: a\n\n"], &["=id: 1\n: c\ndata: a\n\n"]);
        check(&["d", "ata: a", "\n", "\n", "x"], &["=data: a\n\n", ".x"]);
        check(&["data: a\n"], &[".data: a\n"]);
        check(
            &["\u{feff}: c\ndata: a\n\n"],
            &["-\u{feff}", "-: c\n", "=data: a\n\n"],
        );
        check(&["\n\u{feff}: c\n\n"], &["-\n", "=\u{feff}: c\n\n"]);
    }

    #[test]
    fn what_is_too_large_passes_in_parts() {
        let long = "data: ".to_owned() + &"x".repeat(MAX);
        let check = |parts: &[&str], expected: &[&str]| assert_eq!(told(parts), expected, "{parts:?}");
        check(
            &[&long, "y\n", "data: z\n", "\n: c\ndata: a\n\n"],
            &[
                &format!("~{long}"),
                "~y\n",
                "~data: z\n",
                "!\n",
                "-: c\n",
                "=data: a\n\n",
            ],
        );
        check(
            &[&long, "\r", "\n", "\r", "\ndata: a\n\n"],
            &[&format!("~{long}"), "~\r", "~\n", "!\r", "-\n", "=data: a\n\n"],
        );
        let whole = format!("{long}\n\n");
        check(&[&whole], &[&format!("!{whole}")]);
        let comment = format!(": {}", "c".repeat(MAX));
        check(
            &[&comment, "\ndata: a\n\n"],
            &[&format!("~{comment}"), "!\n", "=data: a\n\n"],
        );
    }

    #[test]
    fn data_is_read_and_replaced() {
        let event = |text: &'static [u8]| Event(Bytes::from_static(text));
        let two = event(b"id: 7\r\nevent: message\r\ndata: a\r\ndata:b\r\n\r\n");
        assert_eq!(two.data().as_deref(), Some(&b"a\nb"[..]));
        assert_eq!(two.with_data(b"{}"), b"id: 7\nevent: message\ndata: {}\n\n");
        assert_eq!(event(b"id: 1\n\n").data(), None);
        assert_eq!(event(b"data: \nid: 0\nretry: 3000\n\n").data(), None);
        assert_eq!(event(b"data\ndata\n\n").data().as_deref(), Some(&b"\n"[..]));
        assert_eq!(event(b"datax: 1\n\n").data(), None);
        assert_eq!(
            event(b"\xef\xbb\xbfdata: 1\n\n").data().as_deref(),
            Some(&b"1"[..])
        );
        assert!(two.contains(b"message") && !two.contains(b"Message"));
    }

    /// Texts of the characters that matter, more often than others.
    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            4 => Just(b"\n".to_vec()),
            4 => Just(b"\r".to_vec()),
            3 => Just(b"\r\n".to_vec()),
            3 => Just(b"data: {\"id\":1}".to_vec()),
            2 => Just(b": comment".to_vec()),
            1 => Just(MARK.to_vec()),
            1 => Just(b"id: 7".to_vec()),
            1 => Just(vec![b'x'; MAX]),
            1 => proptest::collection::vec(any::<u8>(), 0..4),
        ];
        proptest::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
    }

    fn events(pieces: &[(char, Vec<u8>)]) -> Vec<Option<Vec<u8>>> {
        let events = pieces.iter().filter(|(kind, _)| *kind == '=');
        events
            .map(|(_, bytes)| Event(Bytes::copy_from_slice(bytes)).data())
            .collect()
    }

    proptest! {
        #[test]
        fn every_cut_gives_the_same_bytes_and_the_same_events(
            stream in streams(),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.sort_unstable();
            let mut parts = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().rev() {
                let (before, after) = rest.split_at(*cut);
                parts.push(after);
                rest = before;
            }
            parts.push(rest);
            parts.reverse();
            let (whole, cut) = (pieces(&[&stream], MAX), pieces(&parts, MAX));
            let single: Vec<&[u8]> = stream.chunks(1).collect();
            let single = pieces(&single, MAX);
            for got in [&whole, &cut, &single] {
                let joined: Vec<u8> = got.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
                prop_assert_eq!(&joined, &stream);
                prop_assert_eq!(events(got), events(&whole));
            }
        }
    }
}
