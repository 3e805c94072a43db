//! Answers that our own proxy gives rarely: event streams, redirects, text that commands a terminal.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use taper_tests::Up;

use super::{BOTH, obtain};
use crate::language::{refused, succeeds};

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

/// An answer of status 200 with this body.
fn of_json(body: &str) -> String {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
    format!("{head}\r\n\r\n{body}")
}

#[test]
fn an_answer_that_is_none_is_said_to_be_none() {
    let up = Up::start();
    for agent in BOTH {
        let name = agent.name();
        obtain(agent, &up, name);
        let cap = format!("{name}.cap");
        let ask = |answer: String| {
            let (url, server) = answering(answer);
            let output = agent.call(up.dir(), &url, &cap, name, &["git_log"]);
            server.join().unwrap();
            output
        };
        for result in [
            "[]",
            "null",
            "5",
            r#"{"content":null}"#,
            r#"{"content":"abc"}"#,
            r#"{"content":["abc"]}"#,
            r#"{"content":[null]}"#,
            r#"{"content":[[]]}"#,
            r#"{"content":[{"type":"text","text":"shown"},{"type":"text","text":5}]}"#,
            r#"{"content":[{"type":"text","text":null}]}"#,
            r#"{"content":[],"isError":"yes"}"#,
        ] {
            let message = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
            agent.fails(&ask(of_json(&message)), 1);
        }
        let deep = "[".repeat(100_000);
        for body in ["", "null", "[]", "{}", "\"\"", &deep] {
            agent.fails(&ask(of_json(body)), 1);
        }
        // A refusal whose body says nothing is one.
        let refusal = format!("HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n{deep}");
        agent.fails(&ask(refusal), 2);

        // Neither a result nor a refusal poses as another text.
        let text = "\u{202e}\u{2066}\u{2028}\u{200b}\u{feff}\u{9b}\u{e000}\u{a0}";
        let shown = r"\u{202e}\u{2066}\u{2028}\u{200b}\u{feff}\u{9b}\u{e000}\u{a0}";
        let part = format!(r#"{{"type":"text","text":"größer, 東京 \\u{text}\ud800"}}"#);
        let message = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"content":[{part}]}}}}"#);
        let printed = succeeds(&ask(of_json(&message)));
        assert_eq!(printed, format!("größer, 東京 \\\\u{shown}\\u{{d800}}\n"));
        let output = ask(format!(
            "HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n{{\"error\":\"{text}\"}}"
        ));
        assert_eq!(refused(&output).said, shown, "{agent:?}");
    }
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
        assert_eq!(succeeds(&output), "a\tb\nc\\u{1b}[2Jd\n");
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
