//! Issuers whose revocation feed is in trouble: what they had said grows stale, and then their capabilities count
//! no more; those of others do.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rand_core::OsRng;
use taper_capability::RootKey;
use taper_store::{FEED_SIGNATURE, FEED_TYP, FeedKnown, FeedPage, History};
use taper_tests::call::now;
use taper_tests::upstream::request;

use crate::table::{Gets, Row};
use crate::world::{World, until_within};

/// How long what an issuer said counts. Its feed is asked once a second.
const STALE: &str = "6s";
/// What a slow machine needs to ask again: the longest wait for an answer, and the longest pause after it.
const PATIENCE: Duration = Duration::from_secs(90);

/// A row, and what the feed does.
pub(crate) struct Play {
    pub(crate) row: Row,
    trouble: Trouble,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Gone,
    Silent,
    Slow,
    Status,
    NoSignature,
    OtherKey,
    NoPage,
    OldPage,
    Endless,
}

pub(crate) fn plays() -> Vec<Play> {
    let play = |name, trouble| Play {
        row: Row {
            name,
            gets: Gets::Refused(503, "M-13"),
        },
        trouble,
    };
    vec![
        play("ends every connection", Trouble::Gone),
        play("takes the request and says nothing", Trouble::Silent),
        play("sends a byte at a time", Trouble::Slow),
        play("answers 500", Trouble::Status),
        play("signs nothing", Trouble::NoSignature),
        play("signs with another key", Trouble::OtherKey),
        play("signs what is no page", Trouble::NoPage),
        play("says again what it said an hour ago", Trouble::OldPage),
        play("answers without end", Trouble::Endless),
    ]
}

/// The name of the issuer of the `at`-th row.
fn name(at: usize) -> String {
    format!("https://issuer-{at}.example")
}

/// A feed of an issuer that never revoked anything.
pub(crate) struct Feed {
    issuer: String,
    url: String,
    root: Arc<RootKey>,
    trouble: Trouble,
    /// Whether it is in trouble now.
    on: AtomicBool,
}

impl Feed {
    /// A feed that is well.
    pub(crate) fn start(issuer: &str, root: &Arc<RootKey>) -> Arc<Self> {
        Self::troubled(issuer, root, Trouble::Gone)
    }

    fn troubled(issuer: &str, root: &Arc<RootKey>, trouble: Trouble) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let feed = Arc::new(Self {
            issuer: issuer.to_owned(),
            url: format!("http://{}/revocations", listener.local_addr().unwrap()),
            root: Arc::clone(root),
            trouble,
            on: AtomicBool::new(false),
        });
        let serving = Arc::clone(&feed);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let feed = Arc::clone(&serving);
                std::thread::spawn(move || feed.answers(stream));
            }
        });
        feed
    }

    /// Its part of the proxy's configuration.
    pub(crate) fn configured(&self, max_staleness: &str) -> String {
        format!(
            "[[issuers]]\nissuer = \"{}\"\njwks_file = \"mint.json\"\n\
             feed = {{ uri = \"{}\", client_id = \"proxy\", client_secret = {{ file = \"feed-secret\" }}, \
             max_staleness = \"{max_staleness}\" }}\n",
            self.issuer, self.url
        )
    }

    fn page(&self, time: i64) -> String {
        let page = FeedPage {
            issuer: self.issuer.clone(),
            after: 0,
            entries: Vec::new(),
            head: 0,
            upto: 0,
            history: History::default(),
            known: Some(FeedKnown {
                seq: 0,
                history: Some(History::default()),
            }),
            time,
        };
        serde_json::to_string(&page).unwrap()
    }

    fn answers(&self, mut stream: TcpStream) {
        // It is asked about once a second, as by an issuer that waits for news.
        while request(&mut stream).is_some() {
            std::thread::sleep(Duration::from_millis(500));
            let trouble = self.on.load(Ordering::SeqCst).then_some(self.trouble);
            if self.answer(&mut stream, trouble).is_none() {
                return;
            }
        }
    }

    fn answer(&self, stream: &mut TcpStream, trouble: Option<Trouble>) -> Option<()> {
        let body = match trouble {
            Some(Trouble::NoPage) => "{\"revoked\":[]}".to_owned(),
            Some(Trouble::OldPage) => self.page(now() - 3600),
            _ => self.page(now()),
        };
        let other = RootKey::generate(self.root.id(), &mut OsRng);
        let signer = match trouble {
            Some(Trouble::OtherKey) => &other,
            _ => &*self.root,
        };
        let signature = signer.sign_detached(FEED_TYP, body.as_bytes()).unwrap();
        let signature = match trouble {
            Some(Trouble::NoSignature) => String::new(),
            _ => format!("{FEED_SIGNATURE}: {signature}\r\n"),
        };
        let (status, length) = match trouble {
            Some(Trouble::Status) => ("500 Internal Server Error", body.len()),
            _ => ("200 OK", body.len()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{signature}content-length: {length}\r\n\r\n"
        );
        match trouble {
            Some(Trouble::Gone) => None,
            Some(Trouble::Silent) => {
                let _ = request(stream);
                None
            }
            Some(Trouble::Slow) => {
                // The head as it should be: it is the body that takes too long.
                stream.write_all(head.as_bytes()).ok()?;
                for byte in body.bytes() {
                    stream.write_all(&[byte]).ok()?;
                    std::thread::sleep(Duration::from_millis(200));
                }
                Some(())
            }
            Some(Trouble::Endless) => {
                let head = format!("HTTP/1.1 200 OK\r\n{signature}transfer-encoding: chunked\r\n\r\n");
                stream.write_all(head.as_bytes()).ok()?;
                let chunk = format!("10000\r\n{}\r\n", " ".repeat(65_536));
                loop {
                    stream.write_all(chunk.as_bytes()).ok()?;
                }
            }
            _ => stream.write_all((head + &body).as_bytes()).ok(),
        }
    }
}

/// The feeds of all rows, and their part of the configuration.
pub(crate) fn feeds(root: &Arc<RootKey>) -> (Vec<Arc<Feed>>, String) {
    let feed = |(at, play): (usize, Play)| Feed::troubled(&name(at), root, play.trouble);
    let feeds: Vec<_> = plays().into_iter().enumerate().map(feed).collect();
    let configured = feeds.iter().map(|feed| feed.configured(STALE)).collect();
    (feeds, configured)
}

/// Plays one row and counts what was refused; what went otherwise.
pub(crate) fn run(world: &World, at: usize, play: &Play, feed: &Feed, refused: &AtomicUsize) -> Vec<String> {
    let issuer = name(at);
    let caller = world.caller_of(&issuer, "calm", now(), 3_000);
    let mut wrong = Vec::new();
    let asks = || {
        let got = caller.asks(&caller.call());
        if got.status == 503 {
            refused.fetch_add(1, Ordering::SeqCst);
        }
        got
    };
    let gets = |wanted: u16| until_within(PATIENCE, || asks().status == wanted);
    if !gets(200) {
        wrong.push(format!("at first: {:?}", asks()));
    }
    feed.on.store(true, Ordering::SeqCst);
    if !gets(503) {
        wrong.push("what it said counts on and on".to_owned());
    }
    wrong.extend(play.row.gets.wrong(&asks()));
    let said = world.ready();
    let line = said.lines().find(|line| line.starts_with(&issuer));
    if !line.is_some_and(|line| line.contains("stale")) {
        wrong.push(format!("/readyz says {said:?}"));
    }
    let age = world.counted("taper_proxy_feed_age_seconds", &[&format!("issuer=\"{issuer}\"")]);
    if age < 6.0 {
        wrong.push(format!("the age of its feed is {age}"));
    }
    feed.on.store(false, Ordering::SeqCst);
    if !gets(200) {
        wrong.push(format!("afterwards: {:?}", asks()));
    }
    wrong
        .into_iter()
        .map(|what| format!("{}: {what}", play.row.name))
        .collect()
}
