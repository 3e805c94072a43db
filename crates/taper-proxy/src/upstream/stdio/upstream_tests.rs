use bytes::Bytes;
use http_body_util::BodyExt as _;

use super::*;

/// Asks before it answers, and answers with what it was told.
const ASKS: &str = r#"while read -r line; do case "$line" in
  *'"initialize"'*) echo '{"jsonrpc":"2.0","id":1,"result":{}}' ;;
  *'"tools/call"'*)
    echo '{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{}}'
    read -r told
    echo "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"told\":$told}}" ;;
  esac; done"#;

fn upstream(script: &str) -> StdioUpstream {
    StdioUpstream::new(StdioSettings {
        server: "git".into(),
        command: vec!["sh".into(), "-c".into(), script.into()],
        env: Vec::new(),
        era: StdioEra::Legacy,
        stderr: StdioStderr::Drop,
        max_children: 8,
        idle: Duration::from_secs(600),
        limits: Limits::default(),
    })
}

/// A message of the owner, as the gate lets it through.
fn outbound(owner: &Owner, session: Option<&str>, call: Option<(&str, u32)>, body: String) -> Outbound {
    let mut headers = HeaderMap::new();
    let both = HeaderValue::from_static("application/json, text/event-stream");
    headers.insert(header::ACCEPT, both);
    Outbound {
        method: Method::POST,
        headers,
        body: Bytes::from(body),
        era: Era::Legacy,
        owner: owner.clone(),
        session: session.map(str::to_owned),
        call: call.map(|(method, id)| Call {
            method: method.to_owned(),
            id: Some(taper_capability::json::Value::Number(id.to_string())),
            list: None,
            makes_task: false,
            progress: None,
            cancels: None,
            revision: None,
        }),
        subscribed: Vec::new(),
        answers: None,
    }
}

fn request(method: &str, id: u32) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}"}}"#)
}

#[tokio::test]
async fn a_question_goes_to_the_client_and_its_answer_to_the_program() {
    let (upstream, shutdown, owner) = (upstream(ASKS), Shutdown::new(), Owner::with_grant("g"));
    let initialize = outbound(&owner, None, Some(("initialize", 1)), request("initialize", 1));
    let opened = upstream.send(initialize, &shutdown).await.unwrap();
    let session = opened.headers()[SESSION].to_str().unwrap().to_owned();
    let call = outbound(
        &owner,
        Some(&session),
        Some(("tools/call", 2)),
        request("tools/call", 2),
    );
    let mut answer = upstream.send(call, &shutdown).await.unwrap();
    let mut event = async || {
        let frame = answer.body_mut().frame().await.unwrap().unwrap();
        String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
    };
    assert!(event().await.contains("elicitation/create"));

    let told = r#"{"jsonrpc":"2.0","id":"q","result":{"action":"accept"}}"#;
    let told = outbound(&owner, Some(&session), None, told.to_owned());
    let taken = upstream.send(told, &shutdown).await.unwrap();
    assert_eq!(taken.status(), StatusCode::ACCEPTED);
    let result = event().await;
    assert!(
        result.contains(r#""action":"accept""#) && result.contains(r#""id":2"#),
        "{result}"
    );

    let other = outbound(&owner, Some("other"), None, "{}".to_owned());
    let refused = upstream.send(other, &shutdown).await.unwrap_err();
    assert_eq!(refused.rule().as_str(), "M-24");
    shutdown.trigger();
    shutdown.drain(Duration::from_secs(30)).await.unwrap();
}

#[tokio::test]
async fn a_session_that_nobody_learned_of_ends() {
    let silent = "while read -r line; do :; done";
    let (upstream, shutdown, owner) = (upstream(silent), Shutdown::new(), Owner::with_grant("g"));
    let initialize = outbound(&owner, None, Some(("initialize", 1)), request("initialize", 1));
    {
        let opening = upstream.send(initialize, &shutdown);
        tokio::pin!(opening);
        assert!(futures_util::poll!(&mut opening).is_pending());
    }
    let running = upstream.lock().running.clone();
    running.first().unwrap().gone.cancelled().await;
    shutdown.trigger();
    shutdown.drain(Duration::from_secs(30)).await.unwrap();
}

#[tokio::test]
async fn a_grant_has_a_part_of_the_programs_whatever_its_holders() {
    let silent = "while read -r line; do :; done";
    let (upstream, shutdown) = (upstream(silent), Shutdown::new());
    let opens = |grant: &str| {
        let (key, owner) = (
            Key::Session(rng::random_id_128(&mut rng::os())),
            Owner::with_grant(grant),
        );
        let started = upstream.program(key, Some(&owner), &shutdown);
        started.map(drop).map_err(|refusal| refusal.rule().as_str())
    };
    assert_eq!([opens("g"), opens("g")], [Ok(()), Ok(())]);
    assert_eq!([opens("g"), opens("h")], [Err("M-31"), Ok(())]);
    shutdown.trigger();
    shutdown.drain(Duration::from_secs(30)).await.unwrap();
}

#[test]
fn what_a_client_reads() {
    let check = |accept: Option<&'static str>, json: bool, events: bool| {
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept {
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        }
        let reads = Reads::of(&headers);
        assert_eq!((reads.json, reads.events), (json, events), "{accept:?}");
    };
    check(None, true, false);
    check(Some("application/json"), true, false);
    check(Some("*/*"), true, false);
    check(Some("application/json, Text/Event-Stream;q=0.9"), true, true);
    check(Some("text/event-stream"), false, true);
    check(Some("text/event-stream, */*"), true, true);
}
