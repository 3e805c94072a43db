//! Tokens for upstreams from somebody else's authorization server (`spec/proxy.md`, "To the upstream"; M-50 to
//! M-53): a real one issues them, and an upstream asks it about each.

mod world;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use taper_tests::Answer;

use self::world::{IDP, SUBJECTS, World};

#[test]
fn tokens_of_a_real_authorization_server() {
    let mut world = World::start();
    each_client_proves_itself(&world);
    each_subject_has_a_token(&world);
    a_wrong_secret_holds_up_its_server_only(&world);
    a_short_life_is_renewed(&world);
    a_server_that_is_gone_and_comes_back(&mut world);
    nobody_got_what_is_not_theirs(&world);
    let (success, log) = world.proxy.stop_for_log();
    assert!(success && !log.contains("panicked"), "{log}");
}

/// The JSON of a body, of which HTTP/1.1 may make a chunk.
#[track_caller]
fn document(answer: &Answer) -> Value {
    let (from, to) = (answer.body.find('{').unwrap(), answer.body.rfind('}').unwrap());
    serde_json::from_str(&answer.body[from..=to]).unwrap()
}

/// What an upstream says of the token that it got, where the call came out.
#[track_caller]
fn told(world: &World, server: &str, subject: &str) -> Value {
    let answer = world.call(server, subject);
    let asked = world.asked_by(server);
    assert_eq!(
        answer.status,
        200,
        "{server}: {answer:?}\n{asked:#?}\n{}",
        world.proxy.log()
    );
    let answer = document(&answer);
    let text = answer["result"]["content"][0]["text"].as_str().expect("a text");
    serde_json::from_str(text).unwrap()
}

#[track_caller]
fn refused(world: &World, server: &str, subject: &str, status: u16, rule: &str) {
    let answer = world.call(server, subject);
    assert_eq!(
        answer.status,
        status,
        "{server}: {answer:?}\n{}",
        world.proxy.log()
    );
    let told = document(&answer);
    assert_eq!(told["error"]["data"]["rule"], rule, "{told}");
    let after = answer.head.contains("retry-after: ");
    assert_eq!(after, status == 503, "{}", answer.head);
}

/// RFC 6749 §2.3.1, RFC 7523 §2.2, RFC 8705 §2: the client is who it says, once for all calls, and the token is
/// for the one server (RFC 8707). Certificates are seen at the alias only (RFC 8705 §5).
fn each_client_proves_itself(world: &World) {
    for (server, grant) in [
        ("basic", "Basic "),
        ("post", ""),
        ("key", ""),
        ("pki", ""),
        ("own", ""),
    ] {
        for _ in 0..2 {
            let told = told(world, server, "alice");
            assert_eq!(
                told,
                json!({ "client": server, "subject": null, "audience": format!("https://up.test/{server}"), "scope": "mcp:call" })
            );
        }
        let asked = world.asked_by(server);
        let [one] = asked.as_slice() else {
            panic!("{server}: {asked:?}");
        };
        assert_eq!(
            (&one["grant"], &one["status"]),
            (&json!("client_credentials"), &json!(200))
        );
        assert_eq!(one["certified"], matches!(server, "pki" | "own"), "{one}");
        let header = one["authorization"].as_str().unwrap();
        assert!(
            header.starts_with(grant) && header.is_empty() == grant.is_empty(),
            "{one}"
        );
        assert_eq!(world.tokens_at(server).len(), 1, "one for all calls");
    }
}

/// RFC 8693: the word of the proxy is verified by the keys that it publishes.
fn each_subject_has_a_token(world: &World) {
    for subject in ["alice", "alice", "bob", "alice"] {
        assert_eq!(
            told(world, "behalf", subject),
            json!({ "client": "behalf", "subject": subject, "audience": "https://up.test/behalf", "scope": "mcp:call" })
        );
    }
    assert_eq!(world.tokens_at("behalf").len(), 2);
    let asked = world.asked_by("behalf");
    let subjects: Vec<&Value> = asked.iter().map(|one| &one["subject"]).collect();
    assert_eq!(subjects, ["alice", "bob"], "{asked:?}");
    // One whom the server does not know, and one whom another provider calls so.
    refused(world, "behalf", "mallory", 502, "M-50");
    refused(world, "behalf", "mallory", 502, "M-53");
    refused(world, "behalf", "stranger", 502, "M-51");
    assert_eq!(world.asked_by("behalf").len(), 3, "the stranger is not named");
    assert_eq!(told(world, "behalf", "bob")["subject"], "bob", "in nobody's way");
    assert!(SUBJECTS.contains(&("stranger", "alice", "https://other-idp.example")) && !IDP.contains("other"));
}

fn a_wrong_secret_holds_up_its_server_only(world: &World) {
    refused(world, "wrong", "alice", 503, "M-50");
    refused(world, "wrong", "bob", 503, "M-53");
    let asked = world.asked_by("wrong");
    let [one] = asked.as_slice() else {
        panic!("{asked:?}");
    };
    assert_eq!(
        (&one["status"], &one["error"]),
        (&json!(401), &json!("invalid_client"))
    );
    assert_eq!(world.count("wrong", "refused"), 1);
    assert_eq!(world.count("basic", "issued"), 1);
    let ready = world.ready();
    assert_eq!(ready.status, 200);
    let line = "upstream credentials of wrong: its authorization server refuses the proxy";
    assert!(ready.body.contains(line), "{}", ready.body);
    assert_eq!(told(world, "basic", "alice")["client"], "basic");
}

/// A token of 6 s is replaced before its end: no call fails meanwhile, and none is sent with one that has ended.
fn a_short_life_is_renewed(world: &World) {
    world.until("a second token", || {
        told(world, "short", "alice");
        world.tokens_at("short").len() == 2
    });
    assert_eq!(world.refused_by_upstreams(), 0);
}

fn a_server_that_is_gone_and_comes_back(world: &mut World) {
    world.provider_goes();
    refused(world, "late", "alice", 503, "M-50");
    refused(world, "late", "alice", 503, "M-53");
    // Its port is closed: its metadata cannot be read.
    assert_eq!(world.count("late", "unreachable"), 1);
    let line = "upstream credentials of late: its authorization server cannot be reached";
    assert!(world.ready().body.contains(line), "{}", world.ready().body);
    assert_eq!(
        told(world, "basic", "bob")["client"],
        "basic",
        "it has one that counts"
    );
    assert!(world.tokens_at("late").is_empty());
    world.provider_comes();
    world.until("a token", || world.call("late", "alice").status == 200);
    assert_eq!(world.tokens_at("late").len(), 1);
    assert!(!world.ready().body.contains("of late"), "{}", world.ready().body);
}

/// What a caller presents stays at the proxy, and what the authorization server is told stays there.
fn nobody_got_what_is_not_theirs(world: &World) {
    let at_upstreams = world.all_at_upstreams();
    let at_provider = world.all_at_provider();
    assert!(at_upstreams.contains("authorization: Bearer ") && at_provider.contains("\"subject_token\":"));
    for (name, secret) in world.capabilities() {
        let places = [&at_upstreams, &at_provider].map(|place| place.contains(&secret));
        assert_eq!(places, [false, false], "{name}");
    }
    let secrets: BTreeSet<String> = world.secrets();
    assert!(secrets.len() >= 4 && secrets.iter().any(|secret| at_provider.contains(secret)));
    for secret in secrets {
        assert!(!at_upstreams.contains(&secret));
    }
    assert!(!at_upstreams.contains("dpop: ") && !at_upstreams.contains("DPoP "));
}
