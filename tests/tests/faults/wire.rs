//! The caller's side of a connection: reads an answer as far as it goes, and tells one that is whole from
//! one that was cut.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use taper_tests::authority;
use taper_tests::call::Call;

/// What came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Got {
    /// 0 when the connection ended without an answer.
    pub(crate) status: u16,
    /// Status line and headers.
    pub(crate) head: String,
    /// What arrived of the body, without the framing. At most [`KEPT`] bytes of it.
    pub(crate) body: String,
    /// Whether the body ended as its framing says.
    pub(crate) whole: bool,
    /// Whether nothing came for [`SILENCE`], which is never an end.
    pub(crate) silent: bool,
}

/// How much of a body is kept.
const KEPT: usize = 64 * 1024;
/// After this long without a byte nobody waits any more.
const SILENCE: Duration = Duration::from_secs(30);

/// One connection.
pub(crate) struct Wire {
    reader: BufReader<TcpStream>,
    silent: bool,
}

impl Wire {
    /// Connects to the host of a URL.
    #[track_caller]
    pub(crate) fn open(url: &str) -> Self {
        Self::on(TcpStream::connect(authority(url)).expect("somebody listens"))
    }

    /// The same; `None` where nobody listens.
    pub(crate) fn try_open(url: &str) -> Option<Self> {
        TcpStream::connect(authority(url)).ok().map(Self::on)
    }

    pub(crate) fn on(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            reader: BufReader::new(stream),
            silent: false,
        }
    }

    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        self.reader.get_mut()
    }

    /// Sends bytes, as many as are taken: who answers early may not read them all.
    pub(crate) fn sends(&mut self, bytes: &[u8]) -> &mut Self {
        let _ = self.stream().write_all(bytes);
        self
    }

    /// Sends a call and reads its answer.
    pub(crate) fn asks(&mut self, call: &Call) -> Got {
        self.exchange(&call.bytes())
    }

    /// Sends bytes and reads an answer.
    pub(crate) fn exchange(&mut self, bytes: &[u8]) -> Got {
        self.sends(bytes).reads()
    }

    /// Reads one answer.
    pub(crate) fn reads(&mut self) -> Got {
        let mut got = self.reads_head();
        let header = |name: &str| {
            got.head.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        if got.status == 0 {
            got.silent = self.silent;
            return got;
        }
        let (length, coding) = (header("content-length"), header("transfer-encoding"));
        let mut body = Vec::new();
        got.whole = if coding.is_some_and(|coding| coding == "chunked") {
            self.chunks(&mut body).is_some()
        } else {
            let length = length.map_or(0, |length| length.parse().unwrap());
            self.take(length, &mut body).is_some()
        };
        got.body = String::from_utf8_lossy(&body).into_owned();
        got.silent = self.silent;
        got
    }

    /// Reads the head of an answer.
    pub(crate) fn reads_head(&mut self) -> Got {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match self.reader.read_until(b'\n', &mut head) {
                Ok(1..) => {}
                ended => {
                    self.heard(ended);
                    return Got::default();
                }
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        Got {
            status: head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0),
            head,
            ..Got::default()
        }
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> Option<()> {
        loop {
            let mut line = String::new();
            let read = self.reader.read_line(&mut line);
            self.heard(read)?;
            let size = usize::from_str_radix(line.trim_end(), 16).ok()?;
            self.take(size, body)?;
            self.take(2, &mut Vec::new())?;
            if size == 0 {
                return Some(());
            }
        }
    }

    /// How much was read; `None` at the end. Notes whether it is one.
    fn heard(&mut self, read: std::io::Result<usize>) -> Option<usize> {
        use std::io::ErrorKind::{TimedOut, WouldBlock};
        if let Err(error) = &read {
            self.silent |= matches!(error.kind(), TimedOut | WouldBlock);
        }
        read.ok().filter(|n| *n > 0)
    }

    /// Reads exactly `size` bytes.
    fn take(&mut self, size: usize, body: &mut Vec<u8>) -> Option<()> {
        let (mut left, mut piece) = (size, vec![0; size.min(64 * 1024)]);
        while left > 0 {
            let most = left.min(piece.len());
            let read = self.reader.read(&mut piece[..most]);
            let n = self.heard(read)?;
            body.extend(&piece[..n.min(KEPT.saturating_sub(body.len()))]);
            left -= n;
        }
        Some(())
    }
}
