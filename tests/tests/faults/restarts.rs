//! A server that is started anew while the proxy has connections to it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use taper_tests::tell;
use taper_tests::upstream::{RESULT, request};

use crate::wire::Wire;
use crate::world::{CALL, Setup, World, keep_open};

/// How often it is started anew.
const TIMES: usize = 25;

/// One run of the server, which keeps its connections.
struct Server {
    addr: SocketAddr,
    ends: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    listening: JoinHandle<()>,
}

/// How often each request was seen, over all runs, by its body.
type Seen = Arc<Mutex<BTreeMap<String, usize>>>;

impl Server {
    fn start(addr: &str, seen: &Seen) -> Self {
        let listener = TcpListener::bind(addr).unwrap();
        let addr = listener.local_addr().unwrap();
        let (ends, open) = (
            Arc::<AtomicBool>::default(),
            Arc::<Mutex<Vec<TcpStream>>>::default(),
        );
        let (is_over, connections, seen) = (Arc::clone(&ends), Arc::clone(&open), Arc::clone(seen));
        let listening = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                connections.lock().unwrap().push(stream.try_clone().unwrap());
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || answers(stream, &seen));
            }
        });
        Self {
            addr,
            ends,
            open,
            listening,
        }
    }

    /// Ends it with all of its connections.
    fn stop(self) -> String {
        self.ends.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.addr));
        self.listening.join().unwrap();
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.addr.to_string()
    }
}

fn answers(mut stream: TcpStream, seen: &Seen) {
    while let Some(request) = request(&mut stream) {
        let body = String::from_utf8(request.body).unwrap();
        *seen.lock().unwrap().entry(body).or_default() += 1;
        let length = RESULT.len();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        if stream.write_all((head + RESULT).as_bytes()).is_err() {
            return;
        }
    }
}

/// Starts it anew between any two calls.
pub(crate) fn run() {
    let seen = Seen::default();
    let mut server = Server::start("127.0.0.1:0", &seen);
    let configured = format!(
        "[servers.calm]\nupstream = {{ http = \"http://{}/mcp\" }}\nread_only = [\"echo\"]\ncatalogue.facts = \"off\"\n",
        server.addr
    );
    let world = World::start(&configured, &Setup::default());
    let caller = world.caller("calm");
    let mut wire = Wire::open(&world.at);
    let mut failed = 0;
    for n in 0..TIMES {
        let message = CALL.replacen("\"id\":1", &format!("\"id\":{}", n + 1), 1);
        let got = wire.exchange(&keep_open(&caller.says(&message).bytes()));
        let times = seen.lock().unwrap().get(&message).copied().unwrap_or(0);
        // A connection that ends in the moment in which it is used: whether the server has read the request is not
        // known, so it is not sent again.
        let is_failed = got.status == 502 && got.body.contains("M-30");
        assert!(
            got.status == 200 && times == 1 || is_failed && times <= 1,
            "{times} times: {got:?}"
        );
        failed += usize::from(is_failed);
        let addr = server.stop();
        server = Server::start(&addr, &seen);
    }
    tell(&format!(
        "faults: {TIMES} restarts of a server, {failed} calls failed"
    ));
    assert!(failed * 2 < TIMES, "{failed} of {TIMES} calls failed");
    let (_, log) = world.ends();
    assert!(!log.contains("panicked"), "{log}");
}
