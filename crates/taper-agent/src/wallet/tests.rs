use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::response::IntoResponse as _;
use http::StatusCode;
use taper_oauth::AuthorizationServerMetadata;
use taper_service::clock::ManualClock;
use taper_service::secret::write_private_file;

use super::*;
use crate::testing::{NOW, Server};

/// The life of a capability of [`Server::issuer`], in seconds.
const LIFE: i64 = 3_600;
const ISSUER: &str = "TAPER_TEST_WALLET_ISSUER";
const DIR: &str = "TAPER_TEST_WALLET_DIR";

fn purpose(issuer: &str, dir: &Path) -> Purpose {
    let subject = dir.join("subject");
    write_private_file(&subject, b"header.payload.signature\n").unwrap();
    Purpose {
        issuer: issuer.to_owned(),
        client: Client {
            id: "dev".into(),
            secret: None,
        },
        subject: SubjectToken::File(subject),
        scope: vec!["git:*".parse().unwrap()],
        details: Vec::new(),
        resources: Vec::new(),
    }
}

async fn open(dir: &Path, issuer: &str, clock: &Arc<ManualClock>) -> Result<Wallet, Error> {
    let purpose = purpose(issuer, dir);
    Wallet::open(&dir.join("wallet"), None, purpose, clock.clone()).await
}

/// An issuer, a folder, and the clock of everybody.
struct World {
    server: Server,
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
}

impl World {
    async fn new() -> Self {
        let clock = ManualClock::shared(NOW);
        Self {
            server: Server::issuer(clock.clone()).await,
            folder: tempfile::tempdir().unwrap(),
            clock,
        }
    }

    async fn open(&self) -> Wallet {
        self.try_open(&self.server.url).await.unwrap()
    }

    async fn try_open(&self, issuer: &str) -> Result<Wallet, Error> {
        open(self.folder.path(), issuer, &self.clock).await
    }

    async fn at(&self, now: i64, wallet: &Wallet) -> Result<Held, Error> {
        self.clock.set(now);
        wallet.capability(now).await
    }

    async fn renew(&self, now: i64, wallet: &Wallet, refused: &Held) -> Result<Held, Error> {
        self.clock.set(now);
        wallet.renew(&refused.token, now).await
    }
}

#[tokio::test]
async fn a_capability_is_obtained_once_and_renewed_in_time() {
    let world = World::new().await;
    let wallet = world.open().await;
    let first = world.at(NOW, &wallet).await.unwrap();
    assert_eq!(first.expires_at, NOW + LIFE);
    let check = async |wallet: &Wallet, now, same: bool, exchanges| {
        let held = world.at(now, wallet).await.unwrap();
        let asked = world.server.exchanges();
        assert_eq!((held.token == first.token, asked), (same, exchanges), "{now}");
        assert_eq!(held.key.public(), first.key.public());
    };
    let late = NOW + LIFE - RENEW_BEFORE;
    check(&wallet, late - 1, true, 1).await;
    // Another process finds what is there.
    let other = world.open().await;
    check(&other, late - 1, true, 1).await;
    check(&wallet, late, false, 2).await;
    check(&other, late, false, 2).await;
    let (a, b) = (world.at(late, &wallet).await, world.at(late, &other).await);
    assert_eq!(a.unwrap().token, b.unwrap().token);
    let contents = Contents::read(wallet.dir()).unwrap().unwrap();
    assert_eq!(
        (contents.issuer, contents.scope),
        (world.server.url.clone(), "git:*".to_owned())
    );
}

fn grant(held: &Held) -> String {
    UnverifiedToken::decode(held.token.as_str())
        .unwrap()
        .grant_id()
        .to_owned()
}

fn refusal(code: &str) -> impl axum::response::IntoResponse {
    (
        StatusCode::BAD_REQUEST,
        axum::Json(serde_json::json!({"error": code})),
    )
}

#[tokio::test]
async fn a_renewal_keeps_the_grant_and_needs_no_subject_token() {
    let world = World::new().await;
    let wallet = world.open().await;
    let first = world.at(NOW, &wallet).await.unwrap();
    fs::remove_file(world.folder.path().join("subject")).unwrap();
    let second = world.at(NOW + LIFE - RENEW_BEFORE, &wallet).await.unwrap();
    assert_ne!(second.token, first.token);
    assert_eq!((grant(&second), world.server.exchanges()), (grant(&first), 2));
}

#[tokio::test]
async fn a_grant_at_its_end_is_followed_by_another() {
    for code in ["invalid_scope", "invalid_request"] {
        let world = World::new().await;
        let wallet = world.open().await;
        let first = world.at(NOW, &wallet).await.unwrap();
        let late = NOW + LIFE - RENEW_BEFORE;
        let document = AuthorizationServerMetadata::for_issuer(&world.server.url);
        world.server.will_answer(axum::Json(document));
        world.server.will_answer(refusal(code));
        let second = world.at(late, &wallet).await.unwrap();
        assert_ne!(grant(&second), grant(&first), "{code}");
        assert_eq!(world.server.exchanges(), 3, "{code}");
    }
}

#[tokio::test]
async fn a_revoked_grant_is_not_followed_by_another() {
    let world = World::new().await;
    let (wallet, other) = (world.open().await, world.open().await);
    let first = world.at(NOW, &wallet).await.unwrap();
    world.at(NOW, &other).await.unwrap();
    let late = NOW + LIFE - RENEW_BEFORE;
    let document = AuthorizationServerMetadata::for_issuer(&world.server.url);
    world.server.will_answer(axum::Json(document));
    world.server.will_answer(refusal("invalid_grant"));
    // Not even the old one, which lasts half a minute more, is given; nor does another process ask.
    for (now, wallet) in [
        (late, &wallet),
        (late, &other),
        (late + 60, &wallet),
        (late + 60, &other),
    ] {
        let refused = world.at(now, wallet).await;
        let Err(Error::Revoked { grant: revoked, path }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(
            (revoked, path),
            (grant(&first), wallet.dir().join("capability.json"))
        );
    }
    let ended = world.renew(NOW + LIFE, &wallet, &first).await;
    assert!(matches!(ended, Err(Error::Revoked { .. })), "{ended:?}");
    let refused = world.try_open(&world.server.url).await.unwrap_err();
    assert!(refused.to_string().contains("capability.json"), "{refused}");
    assert_eq!(world.server.exchanges(), 2);
    fs::remove_file(wallet.dir().join("capability.json")).unwrap();
    let another = world.at(late + 60, &world.open().await).await.unwrap();
    assert_ne!(grant(&another), grant(&first));
}

#[tokio::test]
async fn what_cannot_be_renewed_is_used_to_its_end() {
    let world = World::new().await;
    let wallet = world.open().await;
    let first = world.at(NOW, &wallet).await.unwrap();
    world.server.will_answer(StatusCode::INTERNAL_SERVER_ERROR);
    let late = NOW + LIFE - RENEW_BEFORE;
    let asked = world.server.seen().len();
    for now in [late, late + PAUSE - 1] {
        assert_eq!(world.at(now, &wallet).await.unwrap().token, first.token);
        assert_eq!(world.server.seen().len(), asked + 1, "one attempt in {PAUSE} s");
    }
    let renewed = world.at(late + PAUSE, &wallet).await.unwrap();
    assert_ne!(renewed.token, first.token);
    // Without one there is one attempt as well, whoever waits; and a clock that is set back ends the pause.
    let end = renewed.expires_at;
    world.server.will_answer(StatusCode::INTERNAL_SERVER_ERROR);
    let asked = world.server.seen().len();
    for now in [end, end, end + PAUSE - 1] {
        assert!(world.at(now, &wallet).await.is_err());
        assert_eq!(world.server.seen().len(), asked + 1);
    }
    assert!(world.at(end - 1, &wallet).await.is_ok());
}

#[tokio::test]
async fn what_cannot_be_written_down_is_used() {
    let world = World::new().await;
    let wallet = world.open().await;
    // A folder cannot be replaced by a file, not even by root.
    fs::create_dir(wallet.dir().join("capability.json")).unwrap();
    let one = world.at(NOW, &wallet).await;
    assert!(one.is_err(), "what is there cannot be read");
    fs::remove_dir(wallet.dir().join("capability.json")).unwrap();
    let first = world.at(NOW + PAUSE, &wallet).await.unwrap();
    fs::remove_file(wallet.dir().join("capability.json")).unwrap();
    fs::create_dir_all(wallet.dir().join("capability.json/full")).unwrap();
    assert_eq!(world.at(NOW + PAUSE, &wallet).await.unwrap().token, first.token);
    let late = first.expires_at - RENEW_BEFORE;
    let renewed = world.at(late, &wallet).await.unwrap();
    assert_ne!(renewed.token, first.token);
    for now in [late, late + PAUSE] {
        assert_eq!(world.at(now, &wallet).await.unwrap().token, renewed.token);
    }
    assert_eq!(world.server.exchanges(), 2);
}

/// An authorization server that rotates: each refresh token is good once, and used again it ends the login. Each
/// access token lasts 300 s.
async fn rotating() -> (Server, Arc<Mutex<u64>>) {
    let rotations = Arc::new(Mutex::new(0));
    let count = rotations.clone();
    let server = Server::answering(move |seen: &crate::testing::Seen| {
        let at = format!("http://{}", seen.headers["host"].to_str().unwrap());
        if seen.path != "/token" {
            let document = serde_json::json!({"issuer": at, "authorization_endpoint": format!("{at}/authorize"),
                "token_endpoint": format!("{at}/token"), "code_challenge_methods_supported": ["S256"],
                "grant_types_supported": ["authorization_code", "refresh_token"]});
            return axum::Json(document).into_response();
        }
        let form: std::collections::HashMap<String, String> =
            url::form_urlencoded::parse(&seen.body).into_owned().collect();
        assert_eq!(form["grant_type"], "refresh_token");
        let mut count = count.lock().unwrap();
        if form["refresh_token"] != format!("refresh-{count}") {
            return refusal("invalid_grant").into_response();
        }
        *count += 1;
        axum::Json(serde_json::json!({"access_token": format!("access-{count}"), "token_type": "DPoP",
            "expires_in": 300, "refresh_token": format!("refresh-{count}")}))
        .into_response()
    })
    .await;
    (server, rotations)
}

/// The subject token of the last exchange.
fn exchanged(server: &Server) -> String {
    let seen = server.seen();
    let last = seen.iter().rfind(|seen| seen.path == "/token").unwrap();
    let mut form = url::form_urlencoded::parse(&last.body);
    form.find(|(name, _)| name == "subject_token")
        .unwrap()
        .1
        .into_owned()
}

#[tokio::test]
async fn a_login_is_renewed_and_no_rotation_is_lost() {
    let world = World::new().await;
    let (provider, rotations) = rotating().await;
    let dir = world.folder.path().join("wallet");
    let kept = KeptLogin {
        issuer: provider.url.clone(),
        client: Client {
            id: "dev".into(),
            secret: None,
        },
        resource: None,
        key: None,
        access_token: Secret::new("access-0"),
        expires_at: Some(NOW + 300),
        refresh_token: Some(Secret::new("refresh-0")),
    };
    let file = kept.keep(&dir).await.unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let open = async || {
        let mut purpose = purpose(&world.server.url, world.folder.path());
        purpose.subject = SubjectToken::Login;
        // What was obtained is gone, so each obtains anew.
        let _ = fs::remove_file(dir.join("capability.json"));
        Wallet::open(&dir, None, purpose, world.clock.clone())
            .await
            .unwrap()
    };
    for round in 0..4 {
        // Several at once, of which one asks.
        let (one, two) = (open().await, open().await);
        let now = NOW + round * 1_000;
        let (a, b) = tokio::join!(world.at(now, &one), world.at(now, &two));
        assert_eq!(a.unwrap().token, b.unwrap().token, "{round}");
        assert_eq!(exchanged(&world.server), format!("access-{round}"));
        assert_eq!(*rotations.lock().unwrap(), u64::try_from(round).unwrap());
    }
    let text = fs::read_to_string(&file).unwrap();
    assert!(
        text.contains("refresh-3") && !text.contains("refresh-2"),
        "{text}"
    );
    // The server ends the login: a person is to log in again, and what is kept stays as it is.
    *rotations.lock().unwrap() = 17;
    let ended = world
        .at(NOW + 9_000, &open().await)
        .await
        .unwrap_err()
        .to_string();
    assert!(ended.contains("taper login --wallet"), "{ended}");
    assert!(
        !ended.contains("refresh-") && !ended.contains("access-"),
        "{ended}"
    );
}

#[tokio::test]
async fn a_rotation_outlives_who_asked_for_it() {
    let world = World::new().await;
    let (provider, rotations) = rotating().await;
    let dir = world.folder.path().join("wallet");
    let kept = || KeptLogin {
        issuer: provider.url.clone(),
        client: Client {
            id: "dev".into(),
            secret: None,
        },
        resource: None,
        key: None,
        access_token: Secret::new("access-0"),
        expires_at: Some(NOW),
        refresh_token: Some(Secret::new("refresh-0")),
    };
    kept().keep(&dir).await.unwrap();
    let open = async || {
        let mut purpose = purpose(&world.server.url, world.folder.path());
        purpose.subject = SubjectToken::Login;
        Wallet::open(&dir, None, purpose, world.clock.clone())
            .await
            .unwrap()
    };
    let wallet = open().await;
    let rotated = async {
        while *rotations.lock().unwrap() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        () = rotated => {}
        held = wallet.capability(NOW) => panic!("the provider was not asked: {held:?}"),
    }
    // The client went away while the answer was on its way.
    drop(wallet);
    open().await.capability(NOW).await.unwrap();
    assert_eq!(
        (exchanged(&world.server), *rotations.lock().unwrap()),
        ("access-1".to_owned(), 1)
    );
    // A login that has ended is not presented again, and another one forgets what was granted before.
    *rotations.lock().unwrap() = 17;
    fs::remove_file(dir.join("capability.json")).unwrap();
    world.clock.set(NOW + 900);
    let asked = provider.seen().len();
    for _ in 0..2 {
        let ended = open().await.capability(NOW + 900).await.unwrap_err();
        assert!(ended.to_string().contains("taper login"), "{ended}");
    }
    let tokens = provider
        .seen()
        .iter()
        .skip(asked)
        .filter(|seen| seen.path == "/token")
        .count();
    assert_eq!(tokens, 1);
    fs::write(dir.join("capability.json"), "").unwrap();
    kept().keep(&dir).await.unwrap();
    assert!(!dir.join("capability.json").exists());
}

#[tokio::test]
async fn a_wallet_has_one_key() {
    let world = World::new().await;
    let wallet = world.open().await;
    let first = world.at(NOW, &wallet).await.unwrap();
    let other = world.folder.path().join("other.jwk");
    let key = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
    keyfile::create(&other, &key).unwrap();
    let with = async |dir: &str, key: Option<&Path>| {
        let purpose = purpose(&world.server.url, world.folder.path());
        let key = key.map(|path| KeySource::File(path.to_owned()));
        Wallet::open(&world.folder.path().join(dir), key, purpose, world.clock.clone()).await
    };
    let refused = with("wallet", Some(&other)).await.unwrap_err();
    assert!(
        refused.to_string().contains("used with the key its own"),
        "{refused}"
    );
    assert_eq!(world.server.exchanges(), 1);
    // A wallet whose key is elsewhere remembers where.
    let elsewhere = with("second", Some(&other)).await.unwrap();
    let held = world.at(NOW, &elsewhere).await.unwrap();
    let again = with("second", None).await.unwrap();
    assert_eq!(world.at(NOW, &again).await.unwrap().token, held.token);
    assert_eq!((held.key.public(), world.server.exchanges()), (&key.public(), 2));
    // What somebody else put there takes nothing away.
    let there = |dir: &str| world.folder.path().join(dir).join("capability.json");
    fs::copy(there("second"), there("wallet")).unwrap();
    world.server.will_answer(StatusCode::INTERNAL_SERVER_ERROR);
    let late = first.expires_at - RENEW_BEFORE + 10;
    assert_eq!(world.at(late, &wallet).await.unwrap().token, first.token);
}

#[tokio::test]
async fn only_what_has_ended_is_replaced_when_it_is_refused() {
    let world = World::new().await;
    let (wallet, other) = (world.open().await, world.open().await);
    let first = world.at(NOW, &wallet).await.unwrap();
    // It may be revoked: a new grant would undo that.
    let revoked = world.renew(NOW + LIFE - SKEW - 1, &wallet, &first).await;
    assert!(matches!(revoked, Err(Error::NoOther(reason)) if reason.contains("revoked")));
    assert_eq!(world.server.exchanges(), 1);
    let second = world.renew(NOW + LIFE - SKEW, &wallet, &first).await.unwrap();
    assert_ne!(second.token, first.token);
    let renewed = world.renew(NOW + LIFE - SKEW, &other, &first).await.unwrap();
    assert_eq!((renewed.token, world.server.exchanges()), (second.token, 2));
}

#[tokio::test]
async fn a_wallet_has_one_purpose_and_its_folder_one_user() {
    let world = World::new().await;
    let dir = world.folder.path().join("wallet");
    let first = world.at(NOW, &world.open().await).await.unwrap();
    let foreign = world.try_open("https://issuer.example").await.unwrap_err();
    assert!(matches!(foreign, Error::Request(reason) if reason.contains("another issuer")));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for file in fs::read_dir(&dir).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
    let set = |mode| fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
    set(0o750);
    let refused = world.try_open(&world.server.url).await.unwrap_err();
    assert!(refused.to_string().contains("chmod 700"), "{refused}");
    set(0o700);
    // With another key the capability is of no use.
    fs::remove_file(dir.join(KEY_FILE)).unwrap();
    let held = world.at(NOW, &world.open().await).await.unwrap();
    assert_ne!(held.key.public(), first.key.public());
    assert_eq!(world.server.exchanges(), 2);
    let broken = format!("{{\"token\":\"{}\"", held.token.as_str());
    write_private_file(&dir.join("capability.json"), broken.as_bytes()).unwrap();
    let refused = world.try_open(&world.server.url).await.unwrap_err();
    assert!(!refused.to_string().contains(held.token.as_str()), "{refused}");
    assert!(matches!(refused, Error::Wallet { .. }));
}

#[tokio::test]
async fn tasks_of_one_process_ask_once() {
    let world = World::new().await;
    let wallet = world.open().await;
    let one = || async { world.at(NOW, &wallet).await.unwrap().token };
    let (a, b, c, d) = tokio::join!(one(), one(), one(), one());
    assert!(a == b && b == c && c == d);
    assert_eq!(world.server.exchanges(), 1);
}

/// Starts itself again, eight times at once; each child takes the branch at the top.
#[tokio::test]
async fn many_processes_at_once_ask_once_and_nobody_goes_without() {
    const PROCESSES: usize = 8;
    if let (Ok(issuer), Ok(dir)) = (std::env::var(ISSUER), std::env::var(DIR)) {
        let clock = ManualClock::shared(NOW);
        let wallet = open(Path::new(&dir), &issuer, &clock).await.unwrap();
        let held = wallet.capability(NOW).await.unwrap();
        println!("holds {}", held.token.hash());
        return;
    }
    let World { server, folder, .. } = World::new().await;
    for round in 1..=2 {
        let children: Vec<_> = (0..PROCESSES)
            .map(|_| {
                Command::new(std::env::current_exe().unwrap())
                    .args(["many_processes_at_once", "--nocapture"])
                    .env(ISSUER, &server.url)
                    .env(DIR, folder.path())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let mut held = Vec::new();
        for child in children {
            let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
            let output = output.await.unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{text}");
            held.extend(
                text.lines()
                    .filter_map(|line| line.strip_prefix("holds "))
                    .map(str::to_owned),
            );
        }
        assert_eq!(held.len(), PROCESSES);
        held.dedup();
        assert_eq!((held.len(), server.exchanges()), (1, round), "{held:?}");
        // What was obtained is gone, so the next round asks again, with the same key.
        fs::remove_file(folder.path().join("wallet/capability.json")).unwrap();
    }
}
