//! A client's key as a small server on loopback: what cannot send a capability talks to it, and it adds
//! capability and proof to each request. Answers go back byte for byte, as they arrive.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::authority;
use crate::call::Call;

/// A running signer. It ends with the process, or when it is dropped: then it takes no more connections.
pub struct Signer {
    /// Where it is, with the path of the server.
    pub url: String,
    stopped: Arc<AtomicBool>,
}

/// Where requests go, and who signs them.
struct Holder {
    /// The server's URL at the proxy.
    url: String,
    /// The host and port of the signer itself, which stand for those of `url`.
    own: String,
    token: String,
    key: String,
}

impl Signer {
    /// A signer for the server at `url`, that presents `token` with the private JWK `key`.
    pub fn start(url: &str, token: &str, key: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().to_string();
        let stopped = Arc::new(AtomicBool::new(false));
        let signer = Self {
            url: url.replacen(authority(url), &own, 1),
            stopped: Arc::clone(&stopped),
        };
        let holder = Arc::new(Holder {
            url: url.to_owned(),
            own,
            token: token.trim().to_owned(),
            key: key.to_owned(),
        });
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let holder = Arc::clone(&holder);
                std::thread::spawn(move || holder.serve(stream));
            }
        });
        signer
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(authority(&self.url));
    }
}

impl Holder {
    /// One connection, which has one request. A peer that goes away is no failure.
    fn serve(&self, mut client: TcpStream) {
        let Some((head, body)) = request(&mut client) else {
            return;
        };
        let call = self.call(&head, body);
        let mut first = call.clone();
        let Some((server, answer)) = self.send(&call) else {
            return;
        };
        // A nonce is asked for before anything else is done, so the same request is sent once more.
        let (mut server, answer) = match nonce(&answer) {
            Some(nonce) => {
                let _ = server.shutdown(Shutdown::Both);
                let key = taper_dpop::PrivateKey::from_jwk_str(&self.key).unwrap();
                let proof = call.claims().nonce(Some(&nonce)).sign(&key).unwrap();
                first.proofs = Some(vec![proof]);
                match self.send(&first) {
                    Some(again) => again,
                    None => return,
                }
            }
            None => (server, answer),
        };
        // The client's going away is the server's to know at once.
        let (mut left, gone) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ = left.read(&mut [0]);
            let _ = gone.shutdown(Shutdown::Both);
        });
        if client.write_all(&answer).is_ok() {
            pass_on(&mut server, &mut client);
        }
        let _ = client.shutdown(Shutdown::Both);
    }

    /// The request with capability and proof. Who speaks to the signer means the proxy behind it; other
    /// hosts and origins stay as they are.
    fn call(&self, head: &str, body: Vec<u8>) -> Call {
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let method = words.next().unwrap_or_default();
        let mut call = Call::new(method, &self.url).body(body);
        call.target = words.next().unwrap_or_default().to_owned();
        call.token = Some(self.token.clone());
        call.key = Some(self.key.clone());
        for line in lines {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let name = name.to_ascii_lowercase();
            match name.as_str() {
                // Made anew by the call.
                "connection" | "content-length" | "keep-alive" => {}
                "host" | "origin" => {
                    let value = value.trim().replace(&self.own, authority(&self.url));
                    call = call.header(&name, value);
                }
                // The rest as it is, the spaces around the value too.
                _ => call = call.header(&name, value.strip_prefix(' ').unwrap_or(value)),
            }
        }
        call.header("authorization", format!("DPoP {}", self.token))
    }

    /// Sends a request; the connection, and what arrived until the head of the answer was complete.
    fn send(&self, call: &Call) -> Option<(TcpStream, Vec<u8>)> {
        let mut server = TcpStream::connect(authority(&self.url)).ok()?;
        server.write_all(&call.bytes()).ok()?;
        let mut answer = Vec::new();
        until_head(&mut server, &mut answer)?;
        Some((server, answer))
    }
}

/// Head and body of a request with a `content-length`, or without a body.
fn request(client: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut received = Vec::new();
    let end = until_head(client, &mut received)?;
    let head = String::from_utf8(received[..end].to_vec()).ok()?;
    let mut body = received.split_off(end + 4);
    let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
    let mut buffer = [0; 65_536];
    while body.len() < length {
        match client.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(n) => body.extend(&buffer[..n]),
        }
    }
    Some((head, body))
}

/// Reads until there is a whole head; where it ends.
fn until_head(stream: &mut TcpStream, received: &mut Vec<u8>) -> Option<usize> {
    let mut buffer = [0; 65_536];
    loop {
        if let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            return Some(end);
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(n) => received.extend(&buffer[..n]),
        }
    }
}

/// The nonce of a challenge that asks for one.
fn nonce(answer: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(answer);
    let challenged = head.starts_with("HTTP/1.1 401 ");
    challenged.then(|| header(&head, "dpop-nonce")).flatten()
}

fn header(head: &str, wanted: &str) -> Option<String> {
    let mut lines = head.split("\r\n").skip(1);
    lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
    })
}

/// What arrives, when it arrives, until the end.
fn pass_on(from: &mut TcpStream, to: &mut TcpStream) {
    let mut buffer = [0; 65_536];
    loop {
        match from.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(n) if to.write_all(&buffer[..n]).is_err() => return,
            Ok(_) => {}
        }
    }
}
