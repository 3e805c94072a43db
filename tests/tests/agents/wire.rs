//! Answers that our own proxy gives rarely: event streams, redirects, text that commands a terminal.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use taper_tests::Up;

use super::{BOTH, obtain};
use crate::language::succeeds;

/// A server that gives one answer; its URL, and the head of the request that it got.
fn answering(answer: String) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/git/mcp", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            reader.read_line(&mut head).unwrap();
        }
        let length = head
            .to_ascii_lowercase()
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
            .unwrap();
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        reader.get_mut().write_all(answer.as_bytes()).unwrap();
        head
    });
    (url, server)
}

#[test]
fn answers_are_read_with_care() {
    let up = Up::start();
    for agent in BOTH {
        let name = agent.name();
        obtain(agent, &up, name);
        let cap = format!("{name}.cap");

        let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress"}"#;
        let other = r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"no"}]}}"#;
        let (first, second) = (
            r#"{"jsonrpc":"2.0","id":1,"#,
            r#""result":{"content":[{"type":"text","text":"a\tb\nc\u001b[2Jd"}]}}"#,
        );
        let stream = format!(
            ": hello\r\n\r\ndata: {progress}\r\n\r\ndata:{other}\n\nevent: message\ndata: {first}\ndata: {second}\n\n"
        );
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nconnection: close";
        let (url, server) = answering(format!("{head}\r\n\r\n{stream}"));
        let output = agent.call(up.dir(), &url, &cap, name, &["git_log"]);
        assert_eq!(succeeds(&output), "a\tb\nc\\x1b[2Jd\n");
        let head = server.join().unwrap().to_ascii_lowercase();
        for header in [
            "\r\nauthorization: dpop ",
            "\r\ndpop: ",
            "\r\nmcp-name: git_log\r\n",
        ] {
            assert!(head.contains(header), "{head}");
        }

        // A redirect would carry the proof elsewhere.
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        elsewhere.set_nonblocking(true).unwrap();
        let to = elsewhere.local_addr().unwrap();
        let (url, server) = answering(format!(
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{to}/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        ));
        let output = agent.call(up.dir(), &url, &cap, name, &["git_log"]);
        assert!(!output.status.success(), "{output:?}");
        server.join().unwrap();
        assert!(elsewhere.accept().is_err(), "{agent:?} followed");

        // Plain HTTP is for this machine; nothing is looked up for this name.
        let url = "http://proxy.example/git/mcp";
        agent.fails(&agent.call(up.dir(), url, &cap, name, &["git_log"]), 1);
        let words = ["roots", "--issuer", "http://issuer.example", "--out", "none.json"];
        agent.fails(&agent.run(up.dir(), &words), 1);
    }
}
