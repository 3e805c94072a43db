use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use http::StatusCode;
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
    let late = NOW + LIFE - LIFE / 5;
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

#[tokio::test]
async fn what_cannot_be_renewed_is_used_to_its_end() {
    let world = World::new().await;
    let wallet = world.open().await;
    let first = world.at(NOW, &wallet).await.unwrap();
    world.server.will_answer(StatusCode::INTERNAL_SERVER_ERROR);
    let late = NOW + LIFE - 60;
    let asked = world.server.seen().len();
    for now in [late, late + PAUSE - 1] {
        assert_eq!(world.at(now, &wallet).await.unwrap().token, first.token);
        assert_eq!(world.server.seen().len(), asked + 1, "one attempt in {PAUSE} s");
    }
    let renewed = world.at(late + PAUSE, &wallet).await.unwrap();
    assert_ne!(renewed.token, first.token);
    world.server.will_answer(StatusCode::INTERNAL_SERVER_ERROR);
    assert!(world.at(renewed.expires_at, &wallet).await.is_err());
}

#[tokio::test]
async fn a_refused_capability_is_replaced_once() {
    let world = World::new().await;
    let (wallet, other) = (world.open().await, world.open().await);
    let first = world.at(NOW, &wallet).await.unwrap();
    let fresh = world.renew(NOW + PAUSE - 1, &wallet, &first).await;
    assert!(matches!(fresh, Err(Error::NoOther(_))));
    let second = world.renew(NOW + PAUSE, &wallet, &first).await.unwrap();
    assert_ne!(second.token, first.token);
    let renewed = world.renew(NOW + PAUSE, &other, &first).await.unwrap();
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
