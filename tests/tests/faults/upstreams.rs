//! Servers over HTTP that misbehave, each in one way. Four calls run into each trouble at once, which is
//! all that its server may have running; then the server is well again, and four more pass.

use std::io::{Read as _, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use taper_tests::authority;
use taper_tests::daemon::free_port;
use taper_tests::upstream::{RESULT, json, request};

use crate::table::{Gets, Row};
use crate::wire::{Got, Wire};
use crate::world::{Caller, World, until};

/// How many requests one server runs at once.
pub(crate) const PLACES: usize = 4;
/// How long a silence must last before a trouble speaks again: less than what is granted.
const DRIP: Duration = Duration::from_millis(200);
/// A trouble that would go on for ever is given up after this many pieces, which no row may reach.
const ENDLESS: usize = 1 << 20;

/// What a server does with a request that it has read.
type Trouble = fn(&mut TcpStream);

/// What the caller does with its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// Reads it.
    Reads,
    /// Reads its head and goes away.
    Leaves,
    /// Opens a stream with GET, and reads it.
    Listens,
}

/// One row, and how it is played.
pub(crate) struct Play {
    pub(crate) row: Row,
    caller: Reader,
    server: Server,
}

enum Server {
    /// Answers so.
    Does(Trouble),
    /// Nobody listens.
    Refuses,
    /// Its queue of connections is full.
    Full,
    /// Its name does not resolve.
    Nameless,
}

use Reader::{Leaves, Listens, Reads};

pub(crate) fn plays() -> Vec<Play> {
    let play = |name, server, caller, gets| Play {
        row: Row { name, gets },
        caller,
        server,
    };
    let does = |name, trouble, gets| play(name, Server::Does(trouble), Reads, gets);
    let failed = Gets::Refused(502, "M-30");
    let cut = Gets::Cut;
    let whole = Gets::Whole;
    vec![
        play("refuses connections", Server::Refuses, Reads, failed),
        play("lets connections wait in its queue", Server::Full, Reads, failed),
        play(
            "has a name that does not resolve",
            Server::Nameless,
            Reads,
            failed,
        ),
        does("takes the request and says nothing", silence, failed),
        does("sends a byte of its head at a time", slow_head, failed),
        does("falls silent in a short answer", silent_in_short, failed),
        does("falls silent in a long answer", silent_in_long, cut),
        does("dies in a short answer", dies_in_short, failed),
        does("dies in a long answer", dies_in_long, cut),
        does("dies in an event", dies_in_event, cut),
        does("resets the connection in a long answer", resets_in_long, cut),
        does("resets the connection", resets, failed),
        does("does not speak HTTP", no_http, failed),
        does("sends a head of 2 MiB", large_head, failed),
        does("sends 10,000 headers", many_headers, failed),
        does("sends interim answers without end", interim_answers, failed),
        does("sends a chunk extension without end", chunk_extension, cut),
        does("sends trailers without end", trailers, cut),
        does("announces two lengths", two_lengths, failed),
        does("announces more than it sends", longer, failed),
        does("sends more than it announces", shorter, whole),
        does("announces a length and chunks", both, whole),
        does("answers in two codings of transfer", foreign_coding, failed),
        does("compresses its answer", compressed, failed),
        does("answers with a page of HTML", page, failed),
        does("answers with a page of HTML and 500", failed_page, failed),
        does("answers what is not JSON, to a call", not_json, whole),
        does("answers with another request's id", other_id, whole),
        does("sends a line of 3 MiB in an event", large_line, whole),
        play(
            "answers without end, to a caller that goes away",
            Server::Does(endless_answer),
            Leaves,
            Gets::Left,
        ),
        play(
            "floods a caller that goes away",
            Server::Does(flood_of_events),
            Leaves,
            Gets::Left,
        ),
        play(
            "opens a stream, says one thing and falls silent",
            Server::Does(silent_stream),
            Listens,
            cut,
        ),
    ]
}

const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";

/// Whether all of it was taken.
fn put(stream: &mut TcpStream, bytes: impl AsRef<[u8]>) -> bool {
    stream.write_all(bytes.as_ref()).is_ok()
}

/// A chunk with `bytes`.
fn chunk(bytes: &str) -> String {
    format!("{:x}\r\n{bytes}\r\n", bytes.len())
}

/// Waits until the other side goes.
fn hold(stream: &mut TcpStream) {
    while stream.read(&mut [0; 1024]).is_ok_and(|n| n > 0) {}
}

fn put_and_hold(stream: &mut TcpStream, bytes: impl AsRef<[u8]>) {
    put(stream, bytes);
    hold(stream);
}

/// Sends the same piece until nobody takes it.
fn for_ever(stream: &mut TcpStream, piece: &[u8]) {
    for _ in 0..ENDLESS {
        if !put(stream, piece) {
            return;
        }
    }
    panic!("a flood was taken whole");
}

/// Ends the connection with a reset.
fn reset(stream: &TcpStream) {
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
}

fn with_length(length: usize, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// An answer of JSON that is longer than what is read whole.
fn long() -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"result":{{"text":"{}"}}}}"#,
        "x".repeat(40_000)
    )
}

fn silence(stream: &mut TcpStream) {
    hold(stream);
}

fn slow_head(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(DRIP)).unwrap();
    for byte in with_length(2, "{}").as_bytes() {
        if !put(stream, [*byte]) || stream.read(&mut [0]).is_ok() {
            return;
        }
    }
}

fn silent_in_short(stream: &mut TcpStream) {
    put_and_hold(stream, with_length(RESULT.len(), &RESULT[..20]));
}

fn silent_in_long(stream: &mut TcpStream) {
    put_and_hold(stream, with_length(long().len(), &long()[..30_000]));
}

fn dies_in_short(stream: &mut TcpStream) {
    put(stream, with_length(RESULT.len(), &RESULT[..20]));
}

fn dies_in_long(stream: &mut TcpStream) {
    put(stream, with_length(long().len(), &long()[..30_000]));
}

fn dies_in_event(stream: &mut TcpStream) {
    put(stream, format!("{STREAM}{}", chunk("data: {\"jsonrpc\":")));
}

fn resets(stream: &mut TcpStream) {
    reset(stream);
}

fn resets_in_long(stream: &mut TcpStream) {
    dies_in_long(stream);
    reset(stream);
}

fn endless_answer(stream: &mut TcpStream) {
    if put(stream, CHUNKED) {
        for_ever(stream, chunk(&" ".repeat(32_768)).as_bytes());
    }
}

fn no_http(stream: &mut TcpStream) {
    put_and_hold(stream, "SSH-2.0-OpenSSH_9.6\r\n");
}

fn large_head(stream: &mut TcpStream) {
    let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(2 << 20));
    put_and_hold(stream, head);
}

fn many_headers(stream: &mut TcpStream) {
    let head = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(10_000));
    put_and_hold(stream, head);
}

fn interim_answers(stream: &mut TcpStream) {
    for_ever(
        stream,
        &b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".repeat(100),
    );
}

fn chunk_extension(stream: &mut TcpStream) {
    if put(stream, format!("{CHUNKED}2;x=")) {
        for_ever(stream, &[b'x'; 4096]);
    }
}

fn trailers(stream: &mut TcpStream) {
    if put(stream, format!("{CHUNKED}{}0\r\n", chunk(RESULT))) {
        for_ever(stream, &b"x: yyyyyyyy\r\n".repeat(100));
    }
}

fn two_lengths(stream: &mut TcpStream) {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\ncontent-length: 3";
    put_and_hold(stream, format!("{head}\r\n\r\n{{}} "));
}

fn longer(stream: &mut TcpStream) {
    put(stream, with_length(RESULT.len() + 1, RESULT));
}

/// What follows the answer looks like another one, to whoever asks next on this connection.
fn shorter(stream: &mut TcpStream) {
    let next = with_length(RESULT.len(), &RESULT.replace("done", "evil"));
    put_and_hold(stream, with_length(RESULT.len(), RESULT) + &next);
}

fn both(stream: &mut TcpStream) {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5\r\ntransfer-encoding: chunked";
    put(stream, format!("{head}\r\n\r\n{}0\r\n\r\n", chunk(RESULT)));
}

fn foreign_coding(stream: &mut TcpStream) {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: gzip, identity";
    put(stream, format!("{head}\r\n\r\n{RESULT}"));
}

/// Ten bytes that say of themselves that they are compressed: nobody looks whether they are a bomb.
fn compressed(stream: &mut TcpStream) {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: 10";
    put(stream, format!("{head}\r\n\r\n\x1f\x08xxxxxxxx"));
}

fn page(stream: &mut TcpStream) {
    put(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 7\r\n\r\n<html/>",
    );
}

fn failed_page(stream: &mut TcpStream) {
    let head = "HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/html\r\ncontent-length: 7";
    put(stream, format!("{head}\r\n\r\n<html/>"));
}

fn not_json(stream: &mut TcpStream) {
    put(stream, with_length(5, "{\"a\":"));
}

fn other_id(stream: &mut TcpStream) {
    put(
        stream,
        with_length(RESULT.len(), &RESULT.replace("\"id\":1", "\"id\":2")),
    );
}

fn large_line(stream: &mut TcpStream) {
    put(
        stream,
        format!(
            "{STREAM}{}0\r\n\r\n",
            chunk(&format!("data: {}\n\n", "x".repeat(3 << 20)))
        ),
    );
}

fn flood_of_events(stream: &mut TcpStream) {
    let event = r#"data: {"jsonrpc":"2.0","method":"notifications/message","params":{}}"#;
    if put(stream, STREAM) {
        for_ever(stream, chunk(&format!("{event}\n\n").repeat(500)).as_bytes());
    }
}

fn silent_stream(stream: &mut TcpStream) {
    put_and_hold(stream, format!("{STREAM}{}", chunk(": hello\n\n")));
}

/// A server of one row.
pub(crate) struct Troubled {
    addr: SocketAddr,
    pub(crate) well: Arc<AtomicBool>,
    /// Connections that it has.
    pub(crate) open: Arc<AtomicUsize>,
    /// Connections that fill its queue.
    _full: Vec<TcpStream>,
    _listener: Option<TcpListener>,
}

impl Troubled {
    fn start(server: &Server) -> Self {
        // One that is closed for a while is not given to anybody else meanwhile.
        let port = match server {
            Server::Refuses => free_port(),
            _ => 0,
        };
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let addr = listener.local_addr().unwrap();
        let mut troubled = Self {
            addr,
            well: Arc::default(),
            open: Arc::default(),
            _full: Vec::new(),
            _listener: None,
        };
        match server {
            Server::Does(trouble) => troubled.serve(listener, *trouble),
            Server::Refuses | Server::Nameless => drop(listener),
            Server::Full => {
                let wait = Duration::from_millis(200);
                while let Ok(stream) = TcpStream::connect_timeout(&addr, wait) {
                    troubled._full.push(stream);
                }
                troubled._listener = Some(listener);
            }
        }
        troubled
    }

    fn serve(&self, listener: TcpListener, trouble: Trouble) {
        let (well, open) = (Arc::clone(&self.well), Arc::clone(&self.open));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let (well, open) = (Arc::clone(&well), Arc::clone(&open));
                open.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    if request(&mut stream).is_some() {
                        if well.load(Ordering::SeqCst) {
                            put(&mut stream, json(RESULT, ""));
                        } else {
                            trouble(&mut stream);
                        }
                    }
                    drop(stream);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
    }

    /// Ends the trouble.
    fn heal(&mut self, server: &Server) {
        self.well.store(true, Ordering::SeqCst);
        self._full.clear();
        let listener = match server {
            Server::Does(_) | Server::Nameless => return,
            Server::Refuses => TcpListener::bind(self.addr).unwrap(),
            Server::Full => self._listener.take().unwrap(),
        };
        self.serve(listener, silence);
    }
}

/// The server of the `at`-th row, for the proxy's configuration.
pub(crate) fn configured(at: usize, play: &Play) -> (String, Troubled) {
    let troubled = Troubled::start(&play.server);
    let host = match play.server {
        Server::Nameless => "nowhere.invalid".to_owned(),
        _ => troubled.addr.to_string(),
    };
    let text = format!(
        "[servers.u{at}]\nupstream = {{ http = \"http://{host}/mcp\" }}\nread_only = [\"echo\"]\n\
         catalogue.facts = \"off\"\n{}",
        limits(play.row.gets)
    );
    (text, troubled)
}

/// Short times, and as many places as calls. Times are long where an answer is expected: the
/// floods of other rows may take the machine for a while.
fn limits(gets: Gets) -> String {
    let (answer_timeout, idle) = if gets == Gets::Whole {
        ("30s", "30s")
    } else {
        ("5s", "1s")
    };
    format!(
        "limits = {{ connect_timeout = \"1s\", answer_timeout = \"{answer_timeout}\", answer_idle = \"{idle}\", \
         stream_idle = \"{idle}\", caller_idle = \"5s\", max_running = {PLACES}, max_streams = {PLACES} }}\n"
    )
}

/// Plays one row; what went otherwise.
pub(crate) fn run(world: &World, at: usize, play: &Play, mut troubled: Troubled) -> Vec<String> {
    let Play { row, caller, server } = play;
    let caller_of = world.caller(&format!("u{at}"));
    let mut wrong = Vec::new();
    let gots: Vec<Got> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..PLACES)
            .map(|_| scope.spawn(|| asks(&caller_of, *caller)))
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    for got in &gots {
        wrong.extend(row.gets.wrong(got));
    }
    if !until(|| troubled.open.load(Ordering::SeqCst) == 0) {
        wrong.push("a connection to the server stays open".to_owned());
    }
    wrong.extend(row.gets.uncounted(world, &format!("u{at}"), PLACES));
    troubled.heal(server);
    if !matches!(server, Server::Nameless) {
        for _ in 0..PLACES {
            let got = caller_of.asks(&caller_of.call());
            if !(got.status == 200 && got.whole && got.body == RESULT) {
                wrong.push(format!("afterwards: {got:?}"));
            }
        }
    }
    wrong
        .into_iter()
        .map(|what| format!("{}: {what}", row.name))
        .collect()
}

fn asks(caller: &Caller, how: Reader) -> Got {
    let call = match how {
        Listens => caller.listens(),
        _ => caller.call(),
    };
    match how {
        Reads | Listens => caller.asks(&call),
        Leaves => {
            let mut wire = Wire::on(TcpStream::connect(authority(&call.url)).unwrap());
            wire.sends(&call.bytes());
            wire.reads_head()
        }
    }
}
