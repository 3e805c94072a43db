use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use proptest::prelude::*;
use taper_capability::{Caveat, UnverifiedToken};
use taper_dpop::{Algorithm, Expectation, NonceRule, PrivateKey, Proof, ProofClaims, TokenHash};
use taper_service::clock::ManualClock;
use taper_service::rng;
use taper_service::shutdown::Shutdown;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::wire::{Answer, Ask, MAX_LINE};
use super::*;
use crate::testing::{Chain, NOW};
use crate::{Error, HolderKey, KeySource, Step};

struct Agent {
    folder: tempfile::TempDir,
    ring: Arc<KeyRing>,
    clock: Arc<ManualClock>,
    shutdown: Shutdown,
    socket: AgentSocket,
}

impl Agent {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("private").join("agent.sock");
        let clock = ManualClock::shared(NOW);
        let ring = Arc::new(KeyRing::new(clock.clone()));
        let shutdown = Shutdown::new();
        let listening = listen(&path).unwrap();
        shutdown.spawn("agent", listening.serve(ring.clone(), shutdown.clone()));
        Self {
            folder,
            ring,
            clock,
            shutdown,
            socket: AgentSocket::at(path),
        }
    }

    async fn only_key(&self) -> HolderKey {
        HolderKey::of_agent(self.socket.clone(), None).await.unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

const DELEGATES: Added = Added {
    lifetime: None,
    delegate: true,
};

#[tokio::test]
async fn proofs_are_the_agents_own_in_time_and_id() {
    let agent = Agent::start();
    let chain = Chain::new();
    agent.ring.add_private(&chain.key, Added::default());
    let key = agent.only_key().await;
    assert_eq!(key.public(), &chain.key.public());
    let url = "https://proxy.example/git/mcp";
    let claims = ProofClaims::new("POST", url, 17, &mut rng::os())
        .token(chain.token.as_str())
        .body(b"{}")
        .nonce(Some("n"));
    let proof = key.prove(&claims).await.unwrap();
    let parsed = Proof::parse(&proof).unwrap();
    let expected = Expectation {
        method: "POST",
        url,
        token: Some(TokenHash::of(chain.token.as_str())),
        nonce: NonceRule::Unused,
        now: NOW,
    };
    let verified = parsed.check(&expected).unwrap().verify().unwrap();
    assert_eq!((verified.iat(), verified.binds(b"{}")), (NOW, Ok(true)));
    assert_ne!(
        proof,
        key.prove(&claims).await.unwrap(),
        "two proofs have two ids"
    );
}

#[tokio::test]
async fn hand_overs_are_signed_by_keys_that_are_for_it() {
    let agent = Agent::start();
    let chain = Chain::new();
    agent.ring.add_private(&chain.key, Added::default());
    let key = agent.only_key().await;
    let child = PrivateKey::generate(Algorithm::Es256, &mut rng::os()).public();
    let caveat = Caveat::Server {
        servers: vec!["git".into()],
    };
    let step = Step::hand_over(child.clone(), NOW + 60)
        .only(caveat.clone())
        .max_depth(2)
        .note("n");
    let refused = key.append(&chain.token, &step).await.unwrap_err();
    assert!(refused.to_string().contains("--delegate"), "{refused}");
    let narrowed = key
        .append(&chain.token, &Step::narrow().only(caveat.clone()))
        .await
        .unwrap();
    let narrowed = UnverifiedToken::decode(narrowed.as_str()).unwrap();
    assert_eq!((narrowed.last_holder(), narrowed.depth()), (key.public(), 0));
    agent.ring.add_private(&chain.key, DELEGATES);
    assert!(
        key.append(&chain.token, &step).await.is_err(),
        "adding again widens nothing"
    );
    let remove = Ask::Remove {
        key: key.thumbprint().to_string(),
    };
    agent.socket.ask(&remove).await.unwrap();
    agent.ring.add_private(&chain.key, DELEGATES);
    let handed = key.append(&chain.token, &step).await.unwrap();
    let handed = UnverifiedToken::decode(handed.as_str()).unwrap();
    assert_eq!(
        (handed.last_holder(), handed.depth(), handed.max_depth()),
        (&child, 1, 2)
    );
    let link = handed.links().last().unwrap();
    assert_eq!(link.caveats().0, std::slice::from_ref(&caveat));
    assert_eq!(link.note.as_deref(), Some("n"));
    let foreign = key.append(&Chain::new().token, &step).await.unwrap_err();
    assert!(matches!(foreign, Error::Agent(_)), "{foreign}");
}

#[tokio::test]
async fn keys_come_and_go() {
    let agent = Agent::start();
    let ask = async |ask: Ask| agent.socket.ask(&ask).await;
    let none = HolderKey::of_agent(agent.socket.clone(), None).await.unwrap_err();
    assert!(none.to_string().contains("holds no key"), "{none}");
    let file = agent.folder.path().join("key.jwk");
    let key = PrivateKey::generate(Algorithm::Es256, &mut rng::os());
    crate::keyfile::create(&file, &key).unwrap();
    let source = KeySource::File(file.clone());
    let for_a_minute = Added {
        lifetime: Some(60),
        delegate: false,
    };
    let added = agent.socket.add(&source, for_a_minute).await.unwrap();
    let thumbprint = key.public().thumbprint().to_string();
    assert_eq!((&added.thumbprint, added.until), (&thumbprint, Some(NOW + 60)));
    // Neither hand-overs nor a later end come with adding it again.
    let again = agent.socket.add(&source, DELEGATES).await.unwrap();
    assert_eq!(again, added);
    // Who adds a key must be able to read it.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = agent.socket.add(&source, DELEGATES).await.unwrap_err();
    assert!(open.to_string().contains("chmod 600"), "{open}");
    let generate = Ask::Generate {
        lifetime: None,
        delegate: true,
    };
    let Answer::Key(made) = ask(generate.clone()).await.unwrap() else {
        panic!("not a key")
    };
    let two = HolderKey::of_agent(agent.socket.clone(), None).await.unwrap_err();
    assert!(two.to_string().contains("agent:THUMBPRINT"), "{two}");
    let chosen = HolderKey::of_agent(agent.socket.clone(), Some(key.public().thumbprint()))
        .await
        .unwrap();
    let claims = ProofClaims::new("POST", "https://x.example/", NOW, &mut rng::os());
    assert!(chosen.prove(&claims).await.is_ok());
    agent.clock.advance(60);
    assert!(chosen.prove(&claims).await.is_err(), "its time has come");
    assert_eq!(agent.socket.list().await.unwrap(), std::slice::from_ref(&made));
    let remove = Ask::Remove { key: made.thumbprint };
    assert_eq!(ask(remove.clone()).await.unwrap(), Answer::Removed(1));
    assert_eq!(ask(remove).await.unwrap(), Answer::Removed(0));
    ask(generate.clone()).await.unwrap();
    assert_eq!(ask(Ask::Lock {}).await.unwrap(), Answer::Removed(1));
    assert!(ask(generate).await.unwrap_err().to_string().contains("locked"));
}

#[tokio::test]
async fn the_socket_is_private_and_goes_with_its_agent() {
    let agent = Agent::start();
    let path = agent.socket.path().to_owned();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert!(
        matches!(listen(&path), Err(Error::Exists { .. })),
        "an agent answers there"
    );
    agent.shutdown.trigger();
    agent.shutdown.drain(PATIENCE).await.unwrap();
    assert!(!path.exists());
    // What an agent leaves that was killed is no hindrance.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    drop(listen(&path).unwrap());
    let open = agent.folder.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
    let refused = listen(&open.join("sock")).unwrap_err();
    // The folder may be for something else too: its mode is not the agent's affair.
    let refused = refused.to_string();
    assert!(
        refused.contains("open/taper/sock") && !refused.contains("chmod"),
        "{refused}"
    );
}

#[tokio::test]
async fn what_is_no_request_is_answered_and_a_line_has_an_end() {
    let agent = Agent::start();
    let say = async |bytes: &[u8]| {
        let mut stream = UnixStream::connect(agent.socket.path()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let key = "k";
    let check = async |line: &str, part: &str| {
        let answer = say(format!("{line}\n").as_bytes()).await;
        assert!(answer.contains(part), "{line}: {answer}");
    };
    check(r#"{"op":"list"}"#, r#"{"keys":[]}"#).await;
    check(r#"{"op":"list","op":"list"}"#, "not a request").await;
    check(r#"{"op":"list","more":1}"#, "not a request").await;
    check(r#"{"op":"sign","key":"k","bytes":"AAAA"}"#, "not a request").await;
    check("", "not a request").await;
    let prove = |htm: &str, htu: &str, more: &str| {
        format!(r#"{{"op":"prove","key":"{key}","htm":"{htm}","htu":"{htu}"{more}}}"#)
    };
    check(&prove("POST", "https://x", ""), "no such key").await;
    check(&prove("post", "https://x", ""), "htm").await;
    check(&prove("POST", "file:///x", ""), "htu").await;
    check(&prove("POST", "https://x y", ""), "htu").await;
    check(&prove("POST", "https://x", r#","ath":"AAAA""#), "ath").await;
    check(&prove("POST", "https://x", r#","nonce":"a b""#), "nonce").await;
    check(
        &prove("POST", "https://x", r#","content_digest":"md5=:x:""#),
        "digest",
    )
    .await;
    check(&prove("POST", "https://x", r#","iat":1"#), "not a request").await;
    check(r#"{"op":"add","file":"/etc/key"}"#, "not a request").await;
    check(r#"{"op":"add","private":"{}","name":"n"}"#, "error").await;
    check(r#"{"op":"generate","for":0}"#, "for").await;
    assert!(say(b"{\"op\":\"list\"}").await.contains("a line has an end"));
    let long = vec![b' '; MAX_LINE + 1];
    assert!(say(&long).await.contains("at most"));
    let both = say(b"{\"op\":\"list\"}\n{\"op\":\"lock\"}\n").await;
    assert_eq!(both, "{\"keys\":[]}\n{\"removed\":0}\n");
}

/// Waits until the agent hangs up.
async fn ends(mut stream: UnixStream) {
    let mut rest = Vec::new();
    // An agent that hangs up before it read all resets the connection.
    let _ = stream.read_to_end(&mut rest).await;
}

#[tokio::test]
async fn who_keeps_connections_open_keeps_nobody_from_signing() {
    let agent = Agent::start();
    agent.ring.add_private(&Chain::new().key, Added::default());
    let mut open = Vec::new();
    for _ in 0..3 * MAX_CONNECTIONS {
        open.push(UnixStream::connect(agent.socket.path()).await.unwrap());
    }
    let key = agent.only_key().await;
    let claims = ProofClaims::new("POST", "https://proxy.example/", 0, &mut rng::os());
    key.prove(&claims).await.unwrap();
    // The process's share is what is left, less the last two requests.
    for stream in open.drain(..3 * MAX_CONNECTIONS - MAX_OF_ONE) {
        ends(stream).await;
    }
}

#[tokio::test]
async fn nonsense_that_goes_on_ends_the_connection() {
    let agent = Agent::start();
    let mut stream = UnixStream::connect(agent.socket.path()).await.unwrap();
    let lines = "{}\n".repeat(MAX_NONSENSE + 2);
    stream.write_all(lines.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut some = [0; 512];
    while let Ok(count @ 1..) = stream.read(&mut some).await {
        answer.extend_from_slice(&some[..count]);
    }
    let answers = answer.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(answers, MAX_NONSENSE);
    assert!(agent.socket.list().await.unwrap().is_empty());
}

proptest! {
    #[test]
    fn any_line_is_read_or_refused(line in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = (Ask::parse(&line), Answer::parse(&line));
    }

    #[test]
    fn what_is_read_is_written_as_it_was_read(
        key in "[A-Za-z0-9_-]{0,43}",
        htu in "https?://[a-z./:?#%]{0,40}",
        nonce in proptest::option::of("[!-~]{0,40}"),
        until in proptest::option::of(any::<i64>()),
        lifetime in proptest::option::of(1_u64..1_000_000),
        delegate: bool,
    ) {
        let prove = Ask::Prove {
            key: key.clone(), htm: "POST".to_owned(), htu, ath: None, nonce, content_digest: None,
        };
        let append = Ask::Append {
            key: key.clone(), token: "t".to_owned(), to: None, until, caveats: Vec::new(),
            max_depth: None, note: Some(key.clone()),
        };
        let generate = Ask::Generate { lifetime, delegate };
        for ask in [prove, append, generate, Ask::Remove { key }, Ask::Lock {}] {
            let line = serde_json::to_vec(&ask).unwrap();
            prop_assert_eq!(Ask::parse(&line), Ok(ask));
        }
    }
}
