//! Callers that misbehave, each in its own way, round after round, and count what they got.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use taper_tests::call::Call;
use taper_tests::{authority, tell};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::crowd::PAUSE;
use crate::lasting::Lasting;
use crate::wire::Got;
use crate::world::{Caller, PATIENCE, World, keep_open};

/// How a client misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Sends its head a byte at a time.
    DripsHead,
    /// Sends its body a byte at a time.
    DripsBody,
    /// Never reads its answer.
    ReadsNoAnswer,
    /// Never reads its stream.
    ReadsNoStream,
    /// Asks for pages of the proxy's own and never reads them.
    ReadsNoPage,
    /// Closes its side of the connection behind its request.
    HalfCloses,
    /// Sends requests without waiting, and then garbage.
    Pipelines,
    /// Shows a proof with a wrong signature.
    ProvesWrongly,
    /// Sends the same request again and again.
    Replays,
    /// Sends bodies that are too large: announced, and in chunks.
    SendsTooMuch,
    /// Connects and leaves, asks for a page, asks without credentials.
    Churns,
}

pub(crate) const KINDS: [Kind; 11] = [
    Kind::DripsHead,
    Kind::DripsBody,
    Kind::ReadsNoAnswer,
    Kind::ReadsNoStream,
    Kind::ReadsNoPage,
    Kind::HalfCloses,
    Kind::Pipelines,
    Kind::ProvesWrongly,
    Kind::Replays,
    Kind::SendsTooMuch,
    Kind::Churns,
];

/// Between two bytes of who sends a byte at a time.
const DRIP: Duration = Duration::from_millis(100);
/// Requests that are sent at once.
const AT_ONCE: u64 = 8;
/// As many rounds show all that a client does.
const LEAST_ROUNDS: u64 = 3;
/// Pages that are asked for at once by who reads none, and how many clients do so.
const PAGES: usize = 100;
const PAGE_CLIENTS: usize = 2;
/// A connection that reads little takes little.
const SMALL_BUFFER: u32 = 4096;

/// What clients got.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Refusals, by their rule.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Requests that were answered, to the end or not.
    pub(crate) answered: u64,
    /// Of them, those that were cut because nobody read.
    pub(crate) cut: u64,
    /// Requests behind which the connection was closed on this side, and how many were answered.
    pub(crate) half_closed: u64,
    pub(crate) half_answered: u64,
    /// Garbage that was answered with 400.
    pub(crate) garbage: u64,
    /// Requests that a busy machine sent too late: their connections had ended.
    pub(crate) unanswered: u64,
    pub(crate) wrong: Vec<String>,
}

impl Tally {
    /// The sum.
    pub(crate) fn of(tallies: Vec<Self>) -> Self {
        let mut sum = Self::default();
        for tally in tallies {
            for (rule, count) in tally.refused {
                *sum.refused.entry(rule).or_default() += count;
            }
            sum.answered += tally.answered;
            sum.cut += tally.cut;
            sum.half_closed += tally.half_closed;
            sum.half_answered += tally.half_answered;
            sum.garbage += tally.garbage;
            sum.unanswered += tally.unanswered;
            sum.wrong.extend(tally.wrong);
        }
        sum
    }

    /// Whether a client of this kind got what it should, at least once.
    fn is_of(&self, kind: Kind) -> bool {
        match kind {
            Kind::DripsHead | Kind::ReadsNoPage => true,
            Kind::HalfCloses => self.half_closed > 0,
            Kind::ReadsNoAnswer | Kind::ReadsNoStream => self.cut > 0,
            _ => !self.refused.is_empty(),
        }
    }

    /// Counts a refusal that has to be this one.
    fn refusal(&mut self, got: Option<Got>, status: u16, rule: &str) {
        match got {
            Some(got) if got.status == status && got.whole => {
                let told = rule_of(&got).unwrap_or_else(|| rule.to_owned());
                *self.refused.entry(told).or_default() += 1;
            }
            // A machine that is slow to send is too slow before it has sent too much.
            Some(got) if got.status == 408 && (status, rule) == (413, "M-08") => {
                *self.refused.entry(rule.to_owned()).or_default() += 1;
            }
            // All workers are busy: then nothing else is looked at.
            Some(got) if got.status == 503 && rule_of(&got).as_deref() == Some("M-29") => {
                *self.refused.entry("M-29".to_owned()).or_default() += 1;
            }
            None => self.unanswered += 1,
            got => self.wrong.push(format!("expected {status}, {rule}: {got:?}")),
        }
    }

    /// Counts an answer.
    fn answer(&mut self, got: Option<Got>) {
        match got {
            Some(got) if got.status == 200 && got.whole => self.answered += 1,
            None => self.unanswered += 1,
            got => self.wrong.push(format!("expected an answer: {got:?}")),
        }
    }
}

/// The rule that an answer names; a page that is not there has none.
fn rule_of(got: &Got) -> Option<String> {
    let is_rule = |text: &&str| matches!(text.as_bytes(), [b'A'..=b'Z', b'-', b'0'..=b'9', b'0'..=b'9']);
    let told = got.head.lines().find(|line| line.starts_with("www-authenticate"));
    let words = |text: &str| {
        let mut words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        words.find(is_rule).map(str::to_owned)
    };
    told.and_then(words).or_else(|| words(&got.body))
}

/// Where the clients are.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) lasting: Lasting,
    pub(crate) watched: Watched,
    /// Whether no further round begins.
    pub(crate) over: Arc<AtomicBool>,
}

impl Place {
    /// Opens a stream on which nothing happens: of either era, in turn.
    pub(crate) async fn listens(&self, caller: &Caller, n: usize) -> Option<Line> {
        let call = if n.is_multiple_of(2) {
            caller.listens()
        } else {
            caller.subscribes()
        };
        let mut line = Line::open(caller.at()).await?;
        line.sends(&call.bytes()).await;
        let got = line.head().await?;
        (got.status == 200).then_some(line)
    }
}

/// Says what is waited for, and ends the test when that takes too long.
#[derive(Clone, Default)]
pub(crate) struct Watched(Arc<Mutex<(String, BTreeMap<usize, String>)>>);

impl Watched {
    /// Also ends the process of this id.
    pub(crate) fn start(patience: Duration, id: u32) -> Self {
        let watched = Self::default();
        let on = Arc::downgrade(&watched.0);
        std::thread::spawn(move || {
            std::thread::sleep(patience);
            let Some(waits) = on.upgrade() else { return };
            let (phase, clients) = &*waits.lock().unwrap();
            let mut groups = BTreeMap::<&str, usize>::new();
            for doing in clients.values() {
                *groups.entry(doing).or_default() += 1;
            }
            tell(&format!(
                "faults: after {patience:?} waiting for {phase}; {groups:?}"
            ));
            let _ = Command::new("kill").args(["-9", &id.to_string()]).status();
            std::process::exit(1);
        });
        watched
    }

    pub(crate) fn phase(&self, phase: &str) {
        phase.clone_into(&mut self.0.lock().unwrap().0);
    }

    fn doing(&self, client: usize, doing: String) {
        self.0.lock().unwrap().1.insert(client, doing);
    }
}

/// One client.
pub(crate) struct Client {
    n: usize,
    kind: Kind,
    caller: Caller,
    place: Place,
    rounds: u64,
    /// Where it goes on.
    line: Option<Line>,
    /// What it sends each time.
    bytes: Vec<u8>,
    tally: Tally,
}

impl Client {
    pub(crate) fn new(n: usize, kind: Kind, world: &World, place: &Place) -> Self {
        let kind = match kind {
            Kind::ReadsNoPage if n / KINDS.len() >= PAGE_CLIENTS => Kind::Replays,
            kind => kind,
        };
        let server = match kind {
            Kind::ReadsNoAnswer | Kind::ReadsNoStream => "lasting",
            Kind::HalfCloses => "half",
            _ => "side",
        };
        Self {
            n,
            kind,
            caller: world.caller(server),
            place: place.clone(),
            rounds: 0,
            line: None,
            bytes: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Round after round, until it is over; what it got.
    pub(crate) async fn misbehaves(mut self) -> Tally {
        // Not all of them in the same moment.
        sleep(PAUSE * u32::try_from(self.n).unwrap() / 200).await;
        while (!self.place.over.load(Ordering::Relaxed) || self.rounds < LEAST_ROUNDS)
            && self.tally.wrong.is_empty()
        {
            self.doing("a round");
            match self.kind {
                Kind::DripsHead => self.drips_head().await,
                Kind::DripsBody => self.drips_body().await,
                Kind::ReadsNoAnswer | Kind::ReadsNoStream => self.reads_nothing().await,
                Kind::ReadsNoPage => self.reads_no_page().await,
                Kind::HalfCloses => self.half_closes().await,
                Kind::Pipelines => self.pipelines().await,
                Kind::ProvesWrongly => self.proves_wrongly().await,
                Kind::Replays => self.replays().await,
                Kind::SendsTooMuch => self.sends_too_much().await,
                Kind::Churns => self.churns().await,
            }
            self.rounds += 1;
            self.doing("its pause");
            // A flood that nobody reads fills buffers of megabytes: the machine would do little else.
            let is_flooded = matches!(
                self.kind,
                Kind::ReadsNoAnswer | Kind::ReadsNoStream | Kind::ReadsNoPage
            );
            sleep(if is_flooded { PAUSE * 20 } else { PAUSE }).await;
        }
        let stopped = self
            .tally
            .wrong
            .first()
            .map_or("nothing", String::as_str)
            .to_owned();
        self.doing(&stopped);
        if !self.tally.is_of(self.kind) {
            self.wrong("it never got what it should");
        }
        let (kind, n) = (self.kind, self.n);
        let named = |what: String| format!("{kind:?} {n}: {what}");
        self.tally.wrong = self.tally.wrong.into_iter().map(named).collect();
        self.tally
    }

    fn doing(&self, what: &str) {
        self.place
            .watched
            .doing(self.n, format!("{:?}: {what}", self.kind));
    }

    fn wrong(&mut self, what: &str) {
        self.tally.wrong.push(what.to_owned());
    }

    async fn open(&mut self) -> Option<Line> {
        let line = Line::open(self.caller.at()).await;
        if line.is_none() {
            self.wrong("no connection");
        }
        line
    }

    async fn drips_head(&mut self) {
        let Some(mut line) = self.open().await else { return };
        let head = format!("GET /healthz HTTP/1.1\r\nx: {}", "x".repeat(300));
        for byte in head.bytes() {
            if !line.sends(&[byte]).await || line.is_over(DRIP).await {
                return;
            }
        }
        self.wrong("nobody minded a head that took longer than it may");
    }

    async fn drips_body(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = self.caller.call().bytes();
        }
        let Some(mut line) = self.open().await else { return };
        let head = self
            .bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap()
            + 4;
        line.sends(&self.bytes[..head]).await;
        for byte in &self.bytes[head..] {
            if !line.sends(&[*byte]).await || line.has_answer(DRIP).await {
                break;
            }
        }
        let got = line.answer().await;
        self.tally.refusal(got, 408, "M-08");
    }

    async fn reads_nothing(&mut self) {
        let trace = format!("{:016x}{:016x}", self.n + 1, self.rounds + 1);
        let call = match self.kind {
            Kind::ReadsNoStream => self.caller.listens(),
            _ => self.caller.call(),
        };
        let call = call.header("traceparent", format!("00-{trace}-00000000000000ff-00"));
        let end = self.place.lasting.end_of(&trace);
        let Some(mut line) = Line::open_small(self.caller.at()).await else {
            return self.wrong("no connection");
        };
        line.sends(&call.bytes()).await;
        self.doing("the end of the request to the server");
        if !matches!(timeout(PATIENCE, end).await, Ok(Ok(()))) {
            return self.wrong("the request to the server does not end");
        }
        self.doing("reading what there is");
        match line.answer().await {
            Some(got) if got.status == 200 && !got.whole => {
                self.tally.answered += 1;
                self.tally.cut += 1;
            }
            got => self.tally.wrong.push(format!("expected half an answer: {got:?}")),
        }
    }

    /// Sends until it is stopped, which only the end of the connection does.
    async fn reads_no_page(&mut self) {
        let Some(mut line) = Line::open_small(self.caller.at()).await else {
            return self.wrong("no connection");
        };
        let host = authority(self.caller.at());
        let pages = format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\n\r\n").repeat(PAGES);
        self.doing("the end of its connection");
        // At a pace: its buffers take ten thousands of pages, and that is not what is measured.
        let sent = timeout(PATIENCE * 4, async {
            while line.stream.write_all(pages.as_bytes()).await.is_ok() {
                sleep(PAUSE).await;
            }
        });
        if sent.await.is_err() {
            self.wrong("the connection does not end");
        }
    }

    async fn half_closes(&mut self) {
        let Some(mut line) = self.open().await else { return };
        line.sends(&self.caller.call().bytes()).await;
        line.closes_its_side().await;
        self.tally.half_closed += 1;
        if let Some(got) = line.answer().await {
            self.tally.half_answered += u64::from(got.whole);
        }
    }

    async fn pipelines(&mut self) {
        let Some(mut line) = self.open().await else { return };
        let host = authority(self.caller.at());
        let one = format!("GET /nowhere HTTP/1.1\r\nhost: {host}\r\n\r\n");
        let all = one.repeat(AT_ONCE as usize) + "\u{1}\u{2} garbage\r\n\r\n";
        line.sends(all.as_bytes()).await;
        for _ in 0..AT_ONCE {
            let got = line.answer().await;
            let is_answer = got.is_some();
            self.tally.refusal(got, 404, "M-01");
            if !is_answer {
                return;
            }
        }
        // What is no head is no request, and is not counted.
        match line.answer().await {
            None => {}
            Some(got) if got.status == 400 => self.tally.garbage += 1,
            got => self.tally.wrong.push(format!("garbage: {got:?}")),
        }
    }

    async fn proves_wrongly(&mut self) {
        if self.bytes.is_empty() {
            let call = self.caller.call();
            let proof = call.proof();
            let (signed, signature) = proof.rsplit_once('.').unwrap();
            let other = if signature.starts_with('A') { "B" } else { "A" };
            let proof = format!("{signed}.{other}{}", &signature[1..]);
            self.bytes = keep_open(&call.proofs(&[&proof]).bytes());
        }
        let got = self.repeats().await;
        self.tally.refusal(got, 401, "R-11");
    }

    async fn replays(&mut self) {
        if self.bytes.is_empty() {
            let call = self.caller.call();
            let proof = call.proof();
            self.bytes = keep_open(&call.proofs(&[&proof]).bytes());
            let got = self.repeats().await;
            if got.is_none() {
                self.bytes.clear();
            }
            return self.tally.answer(got);
        }
        let got = self.repeats().await;
        self.tally.refusal(got, 401, "R-13");
    }

    /// Sends its bytes where it did so before, or on a new connection when that has ended meanwhile: what was
    /// not answered was not read, or the counts differ.
    async fn repeats(&mut self) -> Option<Got> {
        if let Some(mut line) = self.line.take() {
            line.sends(&self.bytes).await;
            if let Some(got) = line.answer().await {
                self.line = line.is_open().then_some(line);
                return Some(got);
            }
        }
        let mut line = self.open().await?;
        line.sends(&self.bytes).await;
        let got = line.answer().await?;
        self.line = line.is_open().then_some(line);
        Some(got)
    }

    async fn sends_too_much(&mut self) {
        let Some(mut line) = self.open().await else { return };
        if self.rounds.is_multiple_of(2) {
            let call = self.caller.says(&" ".repeat(100_000));
            let bytes = call.bytes();
            line.sends(&bytes[..bytes.len() - 100_000]).await;
        } else {
            let call = Call {
                length: false,
                ..self.caller.says("")
            };
            let call = call.header("transfer-encoding", "chunked");
            line.sends(&call.bytes()).await;
            let chunk = format!("1000\r\n{}\r\n", " ".repeat(4096));
            // Up to what may be sent; then some more, until somebody minds.
            for n in 0..32 {
                if !line.sends(chunk.as_bytes()).await || (n >= 16 && line.has_answer(DRIP).await) {
                    break;
                }
            }
        }
        let got = line.answer().await;
        self.tally.refusal(got, 413, "M-08");
    }

    async fn churns(&mut self) {
        let Some(mut line) = self.open().await else { return };
        match self.rounds % 3 {
            0 => {}
            1 => {
                let page = format!(
                    "{}/.well-known/oauth-protected-resource/side/mcp",
                    self.caller.at()
                );
                let page = Call::new("GET", &page);
                line.sends(&page.bytes()).await;
                let got = line.answer().await;
                self.tally.answer(got);
            }
            _ => {
                let call = self.caller.call().without("authorization").proofs(&[]);
                line.sends(&call.bytes()).await;
                let got = line.answer().await;
                self.tally.refusal(got, 401, "R-15");
            }
        }
    }
}

/// One connection, on which nothing takes longer than [`PATIENCE`].
pub(crate) struct Line {
    stream: TcpStream,
    /// What has arrived and was not looked at.
    bytes: Vec<u8>,
}

impl Line {
    async fn open(url: &str) -> Option<Self> {
        let stream = timeout(PATIENCE, TcpStream::connect(authority(url))).await;
        let stream = stream.ok()?.ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Self {
            stream,
            bytes: Vec::new(),
        })
    }

    /// One that takes little as long as nobody reads.
    async fn open_small(url: &str) -> Option<Self> {
        let socket = TcpSocket::new_v4().ok()?;
        socket.set_recv_buffer_size(SMALL_BUFFER).ok()?;
        let to = authority(url).parse().ok()?;
        let stream = timeout(PATIENCE, socket.connect(to)).await.ok()?.ok()?;
        Some(Self {
            stream,
            bytes: Vec::new(),
        })
    }

    /// Whether all of it was taken.
    async fn sends(&mut self, bytes: &[u8]) -> bool {
        let sent = timeout(PATIENCE, self.stream.write_all(bytes)).await;
        sent.is_ok_and(|sent| sent.is_ok())
    }

    async fn closes_its_side(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Reads some; `false` at the end of the connection.
    async fn more(&mut self, patience: Duration) -> Option<bool> {
        let read = timeout(patience, self.stream.read_buf(&mut self.bytes))
            .await
            .ok()?;
        Some(read.is_ok_and(|n| n > 0))
    }

    /// Whether the connection ends within that time.
    async fn is_over(&mut self, within: Duration) -> bool {
        self.more(within).await == Some(false)
    }

    /// Whether anything comes, or the end, within that time.
    async fn has_answer(&mut self, within: Duration) -> bool {
        self.more(within).await.is_some()
    }

    /// Whether it has not ended, and nothing but comments has come.
    pub(crate) fn lasts(&mut self) -> bool {
        loop {
            match self.stream.try_read_buf(&mut self.bytes) {
                Ok(1..) => {}
                Ok(0) => return false,
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return false,
                Err(_) => break,
            }
        }
        !self.bytes.windows(5).any(|five| five == b"data:")
    }

    /// Whether nothing came and it has not ended.
    fn is_open(&mut self) -> bool {
        let read = self.stream.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Reads the head of an answer; `None` when there is none.
    async fn head(&mut self) -> Option<Got> {
        loop {
            if let Some(end) = self.bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.bytes[..end]).into_owned();
                self.bytes.drain(..end + 4);
                return Some(Got {
                    status: head.split(' ').nth(1)?.parse().ok()?,
                    head,
                    ..Got::default()
                });
            }
            if self.more(PATIENCE).await != Some(true) {
                return None;
            }
        }
    }

    /// Reads an answer as far as it goes; of a large body only the end is kept.
    async fn answer(&mut self) -> Option<Got> {
        let mut got = self.head().await?;
        let header = |name: &str| got.head.lines().find_map(|line| line.strip_prefix(name));
        let mut body = Vec::new();
        got.whole = if let Some(length) = header("content-length: ") {
            self.take(length.parse().ok()?, &mut body).await.is_some()
        } else if header("transfer-encoding: ").is_some() {
            self.chunks(&mut body).await.is_some()
        } else {
            true
        };
        got.body = String::from_utf8_lossy(&body).into_owned();
        Some(got)
    }

    async fn chunks(&mut self, body: &mut Vec<u8>) -> Option<()> {
        loop {
            let end = loop {
                match self.bytes.windows(2).position(|two| two == b"\r\n") {
                    Some(end) => break end,
                    None => self.more(PATIENCE).await.filter(|more| *more)?,
                };
            };
            let size = std::str::from_utf8(&self.bytes[..end]).ok()?;
            let size = usize::from_str_radix(size, 16).ok()?;
            self.bytes.drain(..end + 2);
            self.take(size, body).await?;
            self.take(2, &mut Vec::new()).await?;
            if size == 0 {
                return Some(());
            }
        }
    }

    /// Reads exactly `size` bytes.
    async fn take(&mut self, mut size: usize, body: &mut Vec<u8>) -> Option<()> {
        loop {
            let n = size.min(self.bytes.len());
            if body.len() > SMALL_BUFFER as usize {
                body.clear();
            }
            body.extend_from_slice(&self.bytes[..n]);
            self.bytes.drain(..n);
            size -= n;
            if size == 0 {
                return Some(());
            }
            self.more(PATIENCE).await.filter(|more| *more)?;
        }
    }
}
