//! Half a request and then silence: the connection is cut.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use taper_tests::authority;

use super::proxies::Proxies;

/// What comes back when these bytes are all that is sent. Hangs for a minute at most.
fn silence_after(url: &str, bytes: &[u8]) -> taper_tests::Answer {
    let mut stream = TcpStream::connect(authority(url)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer);
    if end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock) {
        answer = b"STILL 999 OPEN".to_vec();
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    taper_tests::Answer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

#[test]
fn silence_is_cut() {
    let proxies = Proxies::start();
    let whole = proxies.honest().bytes();
    let head = whole.len() - proxies.honest().body.len();
    let (issuer, proxy) = (proxies.up.issuer(), proxies.up.mcp());
    let form = b"POST /token HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: 500\r\n\r\ngrant_type=";
    let cases: Vec<(&str, &str, Vec<u8>, u16)> = vec![
        ("nothing", &proxy, Vec::new(), 0),
        ("half a line", &proxy, whole[..10].to_vec(), 0),
        ("half a head", &proxy, whole[..head / 2].to_vec(), 0),
        ("half a body", &proxy, whole[..head + 20].to_vec(), 408),
        ("nothing to the issuer", &issuer, Vec::new(), 0),
        (
            "half a head to the issuer",
            &issuer,
            b"POST /token HTTP/1.1\r\nhost:".to_vec(),
            0,
        ),
        ("half a form to the issuer", &issuer, form.to_vec(), 408),
    ];
    std::thread::scope(|scope| {
        let findings = &proxies.findings;
        for (name, url, bytes, status) in &cases {
            scope.spawn(move || {
                let answer = silence_after(url, bytes);
                // A head that does not end may be answered with 408 before the cut, or not at all.
                let status = if answer.status == 408 { 408 } else { *status };
                findings.refused(name, &answer, status, "");
                findings.healthy(name, url);
            });
        }
    });
    proxies.end();
}
