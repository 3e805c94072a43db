use futures_util::FutureExt as _;
use taper_capability::json::Value;

use super::*;
use crate::upstream::stdio::outlet::{MAX_BYTES, MAX_ITEMS};

fn program(era: StdioEra) -> (Arc<Program>, Input) {
    let owner = Owner::with_grant("g");
    Program::new("git", &owner, era, &Limits::default(), Patience::default())
}

fn asked(id: &str) -> Asked {
    Asked {
        id: Id::of(&Value::String(id.to_owned())).unwrap(),
        progress: None,
        streams: true,
        is_list: false,
        listens: false,
    }
}

fn message(line: impl Into<Vec<u8>>) -> Message {
    Message::read(line.into()).unwrap()
}

async fn reply(input: &mut Input) -> String {
    String::from_utf8(input.replies.recv().await.unwrap()).unwrap()
}

const LOG: &str = r#"{"method":"notifications/message"}"#;
const CHANGED: &str = r#"{"method":"notifications/tools/list_changed"}"#;
const ASKS: &str = r#"{"method":"roots/list","id":"r"}"#;

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_cut_and_holds_up_nobody_else() {
    let (program, mut input) = program(StdioEra::Modern);
    let (slow, quick) = (
        program.ask(asked("slow")).unwrap(),
        program.ask(asked("quick")).unwrap(),
    );
    drop(quick);
    assert!(reply(&mut input).await.contains("quick"));
    for _ in 0..MAX_ITEMS {
        program.deliver(message(LOG)).await;
    }
    let quick = program.ask(asked("other")).unwrap();
    drop(program.ask(asked("third")).unwrap());
    assert!(reply(&mut input).await.contains("third"));
    // The answer finds no room; time passes, then the stream is cut, and the next message is delivered.
    program.deliver(message(r#"{"id":"slow","result":{}}"#)).await;
    assert_eq!(slow.next().await.unwrap_err(), End::Cut);
    program.deliver(message(r#"{"id":"other","result":{}}"#)).await;
    assert!(quick.next().await.unwrap().last);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_cut_was_cancelled_in_the_modern_era_only() {
    let (program, mut input) = program(StdioEra::Modern);
    let slow = program.ask(asked("slow")).unwrap();
    for _ in 0..=MAX_ITEMS {
        program.deliver(message(LOG)).await;
    }
    let told = reply(&mut input).await;
    assert!(
        told.contains("notifications/cancelled") && told.contains(r#""requestId":"slow""#),
        "{told}"
    );
    assert_eq!(slow.next().await.unwrap_err(), End::Cut);
    drop(slow);
    assert!(input.replies.try_recv().is_err(), "once");

    let (program, mut input) = self::program(StdioEra::Legacy);
    let slow = program.ask(asked("slow")).unwrap();
    for _ in 0..=MAX_ITEMS {
        program.deliver(message(LOG)).await;
    }
    assert_eq!(slow.next().await.unwrap_err(), End::Cut);
    drop(slow);
    assert!(input.replies.try_recv().is_err());
    let session = program.listen().unwrap();
    assert_eq!(
        &session.next().await.unwrap().line[..],
        LOG.as_bytes(),
        "the one too many"
    );
}

#[tokio::test(start_paused = true)]
async fn what_waits_of_one_program_is_bounded_in_bytes() {
    let (program, _input) = program(StdioEra::Legacy);
    let large = vec![b' '; Limits::default().max_list - MAX_BYTES];
    let answer = |n: usize| {
        let mut line = format!(r#"{{"id":"{n}","result":{{}}}}"#).into_bytes();
        line.extend_from_slice(&large);
        message(line)
    };
    let readings: Vec<Reading> = (0..6)
        .map(|n| program.ask(asked(&n.to_string())).unwrap())
        .collect();
    for n in 0..6 {
        program.deliver(answer(n)).await;
    }
    let mut read = Vec::new();
    for reading in &readings {
        read.push(reading.next().await.map(|item| item.last));
    }
    assert_eq!(&read[..4], [Ok(true); 4]);
    assert_eq!(read[5], Err(End::Cut));
    drop(readings);
    let next = program.ask(asked("7")).unwrap();
    program.deliver(answer(7)).await;
    assert!(next.next().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn questions_are_asked_or_answered() {
    let (program, mut input) = program(StdioEra::Legacy);
    program.deliver(message(r#"{"method":"ping","id":1}"#)).await;
    assert_eq!(
        reply(&mut input).await,
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n"
    );
    let idle = Duration::from_secs(600);
    let begun = Instant::now();
    program.deliver(message(ASKS)).await;
    program.deliver(message(CHANGED)).await;
    tokio::select! {
        () = program.until_idle(idle) => panic!("it was told before"),
        told = reply(&mut input) => assert!(told.contains("-32601") && told.contains("\"r\""), "{told}"),
    }
    assert_eq!(begun.elapsed(), Patience::default().ask);
    program.until_idle(idle).await;
    assert_eq!(begun.elapsed(), idle);

    let session = program.listen().unwrap();
    program.deliver(message(ASKS)).await;
    assert_eq!(&session.next().await.unwrap().line[..], CHANGED.as_bytes());
    assert_eq!(&session.next().await.unwrap().line[..], ASKS.as_bytes());

    let (program, mut input) = self::program(StdioEra::Modern);
    program.deliver(message(ASKS)).await;
    assert!(reply(&mut input).await.contains("-32601"));
}

#[tokio::test(start_paused = true)]
async fn what_a_program_does_not_read_is_bounded() {
    let (program, _input) = program(StdioEra::Legacy);
    let mut waiting: Vec<_> = (0..INPUT + MAX_SENDING)
        .map(|_| Box::pin(program.tell(b"{}\n".to_vec())))
        .collect();
    let sent = waiting.iter_mut().filter_map(|told| told.now_or_never());
    assert_eq!(sent.filter(Result::is_ok).count(), INPUT);
    let more = program.tell(b"{}\n".to_vec()).await.unwrap_err();
    assert_eq!(more.rule().as_str(), "M-31");
    drop(waiting);
    let again = program.tell(b"{}\n".to_vec()).now_or_never();
    assert!(again.is_none(), "it waits like the first");
}

#[tokio::test(start_paused = true)]
async fn requests_are_bounded_and_end_with_their_program() {
    let (program, _input) = program(StdioEra::Legacy);
    let mut readings: Vec<Reading> = (0..MAX_REQUESTS)
        .map(|n| program.ask(asked(&n.to_string())).unwrap())
        .collect();
    let refused = |program: &Arc<Program>, id| program.ask(asked(id)).err().map(|r| r.rule().as_str());
    assert_eq!(refused(&program, "more"), Some("M-31"));
    readings.pop();
    let session = program.listen().unwrap();
    assert_eq!(refused(&program, "more"), None);
    program.end();
    for reading in readings.iter().chain([&session]) {
        assert_eq!(reading.next().await.unwrap_err(), End::Gone);
    }
    readings.pop();
    assert_eq!(refused(&program, "late"), Some("M-30"));
    assert_eq!(program.listen().err().map(|r| r.rule().as_str()), Some("M-24"));
}
