use super::*;
use crate::upstream::stdio::lines::Message;

const KEEP: Duration = Duration::from_secs(300);
const ASK: Duration = Duration::from_secs(30);

struct Scene {
    routes: Routes,
    now: Instant,
}

/// `id`, then what the request has.
fn asked(id: &str) -> Asked {
    Asked {
        id: id_of(id),
        progress: None,
        streams: true,
        is_list: false,
        listens: false,
    }
}

fn id_of(text: &str) -> Id {
    Id::of(&taper_capability::json::Value::String(text.to_owned())).unwrap()
}

fn kind(line: &str) -> Kind {
    Message::read(line.as_bytes().to_vec()).unwrap().kind
}

fn item(bytes: usize, ask: Option<&str>) -> Item {
    Item {
        line: vec![b'x'; bytes].into(),
        ask: ask.map(id_of),
        last: false,
        room: None,
    }
}

impl Scene {
    fn new(era: StdioEra) -> Self {
        let now = Instant::now();
        Self {
            routes: Routes::new(era, KEEP, ASK, now),
            now,
        }
    }

    fn open(&mut self, asked: Asked) -> (Arc<Outlet>, u64) {
        let outlet = Outlet::new(VecDeque::new(), Arc::default());
        let number = self.routes.open(asked, Arc::clone(&outlet), self.now).unwrap();
        (outlet, number)
    }

    fn refused(&mut self, asked: Asked) -> &'static str {
        let outlet = Outlet::new(VecDeque::new(), Arc::default());
        let refusal = self.routes.open(asked, outlet, self.now).unwrap_err();
        refusal.rule().as_str()
    }

    fn attach(&mut self) -> Arc<Outlet> {
        let outlet = |items| Outlet::new(items, Arc::default());
        self.routes.attach(outlet, self.now).unwrap()
    }

    #[track_caller]
    fn goes(&mut self, line: &str, to: Option<&Arc<Outlet>>) {
        let way = self.routes.way(&kind(line));
        match (&way, to) {
            (Way::To(outlet), Some(to)) => assert!(Arc::ptr_eq(outlet, to), "{line}"),
            (Way::Nobody(_), None) => {}
            _ => panic!("{line}: {way:?}"),
        }
    }

    #[track_caller]
    fn waits(&mut self, line: &str) {
        let way = self.routes.way(&kind(line));
        assert!(matches!(way, Way::Queue), "{line}: {way:?}");
    }
}

const LOG: &str = r#"{"method":"notifications/message"}"#;
const ASKS: &str = r#"{"method":"sampling/createMessage","id":"s"}"#;
const CHANGED: &str = r#"{"method":"notifications/tools/list_changed"}"#;
const PROGRESS: &str = r#"{"method":"notifications/progress","params":{"progressToken":"p"}}"#;

#[test]
fn a_legacy_message_belongs_to_its_request_or_the_session() {
    let mut scene = Scene::new(StdioEra::Legacy);
    for line in [LOG, ASKS, CHANGED, PROGRESS] {
        scene.waits(line);
    }
    let session = scene.attach();
    let again = scene
        .routes
        .attach(|items| Outlet::new(items, Arc::default()), scene.now);
    assert_eq!(again.unwrap_err().rule(), rules::ONE_STREAM);
    for line in [LOG, ASKS, CHANGED, PROGRESS] {
        scene.goes(line, Some(&session));
    }

    let (one, _) = scene.open(Asked {
        progress: Some(id_of("p")),
        ..asked("1")
    });
    for line in [LOG, ASKS, PROGRESS] {
        scene.goes(line, Some(&one));
    }
    scene.goes(CHANGED, Some(&session));
    // With two requests under way nobody knows whose it is; progress names its request.
    let (two, number) = scene.open(asked("2"));
    for line in [LOG, ASKS] {
        scene.goes(line, Some(&session));
    }
    scene.goes(PROGRESS, Some(&one));
    scene.goes(r#"{"id":"1","result":{}}"#, Some(&one));
    scene.goes(r#"{"id":"1","result":{}}"#, None);
    scene.goes(PROGRESS, Some(&session));
    scene.goes(LOG, Some(&two));
    // A client that went away has not cancelled, but its request holds up no other.
    assert!(!scene.routes.give_up(&id_of("2"), number, scene.now));
    scene.goes(LOG, Some(&session));
    let (three, _) = scene.open(asked("3"));
    for line in [LOG, ASKS] {
        scene.goes(line, Some(&three));
    }
    scene.goes(r#"{"id":"2","result":{}}"#, None);
    // Nor does one that its client cancelled, although its answer is still read.
    let (four, _) = scene.open(asked("4"));
    scene.goes(ASKS, Some(&session));
    scene.routes.cancel(&id_of("unknown"));
    scene.goes(ASKS, Some(&session));
    scene.routes.cancel(&id_of("3"));
    scene.goes(ASKS, Some(&four));
    scene.goes(r#"{"id":"3","result":{}}"#, Some(&three));
}

#[test]
fn a_client_that_reads_no_streams_has_the_session() {
    let mut scene = Scene::new(StdioEra::Legacy);
    let (one, _) = scene.open(Asked {
        progress: Some(id_of("p")),
        streams: false,
        ..asked("1")
    });
    for line in [LOG, ASKS, PROGRESS] {
        scene.waits(line);
    }
    scene.goes(r#"{"id":"1","error":{}}"#, Some(&one));
}

#[test]
fn a_modern_message_names_its_request() {
    let mut scene = Scene::new(StdioEra::Modern);
    for line in [LOG, ASKS, CHANGED, PROGRESS] {
        scene.goes(line, None);
    }
    let (listener, _) = scene.open(Asked {
        listens: true,
        ..asked("l")
    });
    let told = |id: &str| {
        let meta = format!(r#"{{"io.modelcontextprotocol/subscriptionId":"{id}"}}"#);
        format!(r#"{{"method":"notifications/tools/list_changed","params":{{"_meta":{meta}}}}}"#)
    };
    scene.goes(&told("l"), Some(&listener));
    scene.goes(&told("1"), None);
    let (one, _) = scene.open(Asked {
        progress: Some(id_of("p")),
        ..asked("1")
    });
    scene.goes(&told("1"), None);
    scene.goes(PROGRESS, Some(&one));
    scene.goes(LOG, Some(&one));
    scene.goes(ASKS, None);
    scene.goes(CHANGED, None);
    // The program ends a subscription.
    let ends = |id: &str| {
        kind(&format!(
            r#"{{"method":"notifications/cancelled","params":{{"requestId":"{id}"}}}}"#
        ))
    };
    assert!(matches!(scene.routes.way(&ends("1")), Way::Nobody(_)));
    assert!(matches!(scene.routes.way(&ends("l")), Way::Close(_)));
    scene.goes(&told("l"), None);
}

#[test]
fn ids_and_tokens_are_taken_once() {
    let mut scene = Scene::new(StdioEra::Modern);
    let with_token = |id: &str| Asked {
        progress: Some(id_of("p")),
        ..asked(id)
    };
    let (_, one) = scene.open(with_token("1"));
    assert_eq!(scene.refused(asked("1")), "M-16");
    assert_eq!(scene.refused(with_token("2")), "M-16");
    assert!(
        !scene.routes.give_up(&id_of("1"), one + 1, scene.now),
        "another request"
    );
    assert!(
        scene.routes.give_up(&id_of("1"), one, scene.now),
        "it is cancelled"
    );
    assert!(!scene.routes.give_up(&id_of("1"), one, scene.now), "once");
    let (_, two) = scene.open(with_token("2"));
    // A late answer must not be taken for that of another request.
    assert_eq!(scene.refused(asked("1")), "M-16");
    scene.now += KEEP;
    scene.open(asked("1"));
    assert_eq!(scene.refused(asked("2")), "M-16");
    scene.routes.give_up(&id_of("2"), two, scene.now);
    scene.goes(r#"{"id":"2","result":{}}"#, None);
    scene.open(asked("2"));

    let list = |id: &str| Asked {
        is_list: true,
        ..asked(id)
    };
    let (_, number) = scene.open(list("list"));
    scene.routes.give_up(&id_of("list"), number, scene.now);
    scene.now += KEEP * 100;
    assert_eq!(
        scene.refused(asked("list")),
        "M-16",
        "what is late would not be filtered"
    );

    let listen = |id: &str| Asked {
        listens: true,
        ..asked(id)
    };
    let (_, number) = scene.open(listen("l"));
    assert_eq!(scene.refused(listen("l")), "M-16");
    scene.routes.give_up(&id_of("l"), number, scene.now);
    assert_eq!(scene.refused(asked("l")), "M-16");
    scene.open(listen("l"));
}

#[test]
fn what_was_given_up_is_bounded() {
    let mut scene = Scene::new(StdioEra::Legacy);
    for n in 0..MAX_GIVEN_UP {
        let id = format!("{n}");
        let (_, number) = scene.open(asked(&id));
        scene.routes.give_up(&id_of(&id), number, scene.now);
    }
    assert_eq!(scene.refused(asked("more")), "M-31");
    scene.now += KEEP;
    scene.open(asked("more"));
}

#[test]
fn the_queue_is_bounded_and_the_oldest_notifications_leave() {
    let mut scene = Scene::new(StdioEra::Legacy);
    let now = scene.now;
    assert!(scene.routes.enqueue(item(1, Some("first")), now).asks.is_empty());
    for _ in 1..MAX_ITEMS {
        assert_eq!(scene.routes.enqueue(item(2, None), now).others, 0);
    }
    assert_eq!(scene.routes.enqueue(item(3, None), now).others, 1);
    let displaced = scene.routes.enqueue(item(MAX_BYTES + 1, Some("large")), now);
    assert_eq!((displaced.asks, displaced.others), (vec![id_of("large")], 0));
    let displaced = scene.routes.enqueue(item(MAX_BYTES - 1, None), now);
    assert_eq!(displaced.others, MAX_ITEMS - 1, "all but the question");
    assert_eq!(scene.routes.enqueue(item(1, Some("next")), now).others, 1);
    assert_eq!(scene.routes.queue.len(), 2);

    // Questions wait for a while only.
    assert_eq!(scene.routes.wake(KEEP, now), Some(now + ASK));
    assert!(scene.routes.overdue(now).is_empty());
    assert_eq!(scene.routes.overdue(now + ASK), [id_of("first"), id_of("next")]);
    assert_eq!(scene.routes.queued_bytes, 0);
}

#[tokio::test]
async fn what_a_stream_did_not_read_waits_for_the_next() {
    let mut scene = Scene::new(StdioEra::Legacy);
    let now = scene.now;
    scene.routes.enqueue(item(1, None), now);
    let session = scene.attach();
    session.push(item(2, Some("s"))).unwrap();
    let left = session.close(super::super::outlet::End::Done);
    assert!(scene.routes.detach(&session, left, now).asks.is_empty());
    scene.routes.enqueue(item(3, None), now);
    let session = scene.attach();
    for length in 1..4 {
        assert_eq!(session.next().await.unwrap().line.len(), length);
    }
    // What a request's client did not read is nobody's.
    let (request, _) = scene.open(asked("1"));
    let displaced = scene
        .routes
        .detach(&request, VecDeque::from([item(1, Some("q"))]), now);
    assert_eq!(displaced.asks, [id_of("q")]);
}

#[test]
fn idle_is_what_nobody_uses() {
    let mut scene = Scene::new(StdioEra::Legacy);
    let (now, idle) = (scene.now, Duration::from_secs(600));
    assert_eq!(scene.routes.wake(idle, now), Some(now + idle));
    scene.routes.touch(now + ASK);
    assert!(scene.routes.wake(idle, now + idle).is_some());
    scene.attach();
    let late = now + idle * 10;
    assert_eq!(scene.routes.wake(idle, late), Some(late + idle));
    scene.routes.left(late);
    assert_eq!(scene.routes.wake(idle, late), Some(late + idle));
    assert_eq!(scene.routes.wake(idle, late + idle), None);
}
