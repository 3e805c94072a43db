//! What passes through an honest call in either direction: nothing of the caller's credentials goes to
//! the upstream, nothing of the upstream's own troubles comes to the caller.

use std::collections::BTreeSet;

use taper_tests::authority;

use crate::row::{Sent, Wire, deliver};
use crate::script::{OWN_CREDENTIALS, SECRET_WORD};
use crate::world::{Era, World};

/// Headers that a caller may send and an upstream never gets.
const OUTWARD: [(&str, &str); 33] = [
    ("cookie", "a=caller-secret"),
    ("proxy-authorization", "Basic caller-secret"),
    ("x-forwarded-for", "10.0.0.1"),
    ("x-forwarded-host", "evil.example"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-user", "root"),
    ("x-real-ip", "10.0.0.1"),
    ("x-remote-user", "root"),
    ("x-api-key", "caller-secret"),
    ("x-auth-token", "caller-secret"),
    ("x-original-url", "/admin"),
    ("x-rewrite-url", "/admin"),
    ("forwarded", "for=10.0.0.1;host=evil.example"),
    ("via", "1.1 evil"),
    ("referer", "https://evil.example/caller-secret"),
    ("user-agent", "caller-secret"),
    ("accept-language", "caller-secret"),
    ("accept-encoding", "gzip"),
    ("range", "bytes=0-1"),
    ("if-match", "caller-secret"),
    ("expect", "x-caller-secret"),
    ("last-event-id", "caller-secret"),
    ("prefer", "respond-async"),
    ("dpop-nonce", "caller-secret"),
    // To an interface that reads `-` and other signs as `_`, each of these is one that is checked or set.
    ("mcp-session_id", "caller-secret"),
    ("mcp-session.id", "caller-secret"),
    ("mcp-protocol_version", "2024-11-05"),
    ("mcp-param_repo", "caller-secret"),
    ("mcp_name", "git_push"),
    ("authorization_", "caller-secret"),
    ("content_length", "7"),
    ("x_http_method_override", "DELETE"),
    ("x_own", "caller-secret"),
];

/// Each of these alone and all of them together leave what the upstream gets as it is, byte for byte.
pub(crate) fn outward(world: &World<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for era in Era::BOTH {
        for wire in [Wire::H1, Wire::H2] {
            let all = OUTWARD.iter().map(|header| vec![*header]);
            let together = OUTWARD.iter().filter(|(name, _)| *name != "expect");
            for extra in all.chain([together.copied().collect(), vec![]]) {
                let call = world.honest(era);
                let body = call.body.clone();
                let call = extra
                    .iter()
                    .fold(call, |call, (name, value)| call.header(name, value));
                let before = world.upstream.count();
                let answer = deliver(world, wire, &Sent::Call(call.clone()));
                let got = world.upstream.last().unwrap();
                if answer.status != 200 || world.upstream.count() != before + 1 {
                    wrong.push(format!("{era:?} {wire:?} {extra:?}: {answer:?}"));
                    continue;
                }
                let mut expected = vec![
                    ("accept", "application/json, text/event-stream".to_owned()),
                    ("authorization", OWN_CREDENTIALS.to_owned()),
                    ("content-length", body.len().to_string()),
                    ("content-type", "application/json".to_owned()),
                    ("host", authority(&world.upstream.url).to_owned()),
                    ("mcp-protocol-version", era.revision().to_owned()),
                ];
                match era {
                    Era::Legacy => expected.push(("mcp-session-id", world.alice.session.clone())),
                    Era::Modern => expected.extend([
                        ("mcp-method", "tools/call".to_owned()),
                        ("mcp-name", "git_log".to_owned()),
                    ]),
                }
                let expected: BTreeSet<(String, String)> = expected
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect();
                let headers = got.headers();
                let line = got.head.lines().next();
                let same = headers.len() == expected.len()
                    && headers.into_iter().collect::<BTreeSet<_>>() == expected
                    && line == Some("POST /git HTTP/1.1")
                    && got.body == body;
                if !same {
                    wrong.push(format!("{era:?} {wire:?} {extra:?}: the upstream got {got:?}"));
                }
            }
        }
    }
    wrong
}

/// What an upstream does, by its server, and the status that the caller sees.
const INWARD: [(&str, u16); 8] = [
    ("asks", 502),
    ("proxyasks", 502),
    ("moved", 502),
    ("encoded", 502),
    ("nonsense", 502),
    ("early", 502),
    ("cookies", 200),
    ("cors", 200),
];

/// Nothing of what an upstream says about itself comes through.
pub(crate) fn inward(world: &World<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (server, status) in INWARD {
        for era in Era::BOTH {
            let before = world.upstream.count();
            let call = world.ask(
                &world.alice,
                era,
                server,
                "tools/call",
                r#""name":"x","arguments":{}"#,
            );
            let answer = deliver(world, Wire::H1, &Sent::Call(call));
            let clean = [&answer.head, &answer.body].iter().all(|text| {
                !text.contains(SECRET_WORD) && !text.to_ascii_lowercase().contains("access-control")
            });
            if answer.status != status || !clean || world.upstream.count() == before {
                wrong.push(format!("{server} {era:?}: expected {status}, got {answer:?}"));
            }
        }
    }
    wrong
}
