use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use proptest::prelude::*;
use rand_core::OsRng;
use tempfile::TempDir;

use super::*;
use crate::checkpoint::PUB_FILE;
use crate::counters::{Counter, CounterKey};
use crate::embedded::{OpenReport, Settings};
use crate::moves::rebuild;
use crate::receipt::{Which, receipt, verify_receipt};
use crate::record::tests::{allowed, decision, grant};
use crate::revocation::{NewRevocation, RevocationKey};
use crate::traits::{Audit as _, CallCounters as _, Grants as _, Revocations as _};
use crate::verify::{verify_against, verify_dir};

const ISSUER: &str = "https://issuer.example";

/// A store in a folder, with a clock that goes on by one millisecond a record.
struct Setup {
    dir: TempDir,
    now: Arc<AtomicI64>,
    store: Option<EmbeddedStore>,
}

impl Setup {
    fn new() -> Self {
        let mut setup = Self {
            dir: tempfile::tempdir().unwrap(),
            now: Arc::default(),
            store: None,
        };
        setup.open();
        setup
    }

    fn open(&mut self) -> OpenReport {
        let settings = Settings {
            segment_bytes: 1500,
            ..Settings::default()
        };
        let now = Arc::clone(&self.now);
        let now: crate::NowMillis = Arc::new(move || now.fetch_add(1, Ordering::SeqCst));
        let (store, report) =
            EmbeddedStore::open_with(self.dir.path(), "test", settings, now, OsRng).unwrap();
        self.store = Some(store);
        report
    }

    fn store(&self) -> &EmbeddedStore {
        self.store.as_ref().unwrap()
    }

    async fn close(&mut self) {
        self.store.take().unwrap().close().await.unwrap();
    }

    async fn revoke(&self, id: &str) -> u64 {
        let revocation = NewRevocation {
            at: 1,
            issuer: ISSUER.into(),
            what: RevocationKey::Grant(id.into()),
            until: None,
            by: "admin".into(),
        };
        self.store().revoke(revocation).await.unwrap()
    }

    async fn decide(&self) {
        let at_ms = self.now.fetch_add(1, Ordering::SeqCst);
        let record = Record {
            at_ms,
            ..decision("d")
        };
        self.store().append(record).await.unwrap();
    }

    async fn call(&self, n: u8) -> u64 {
        let calls = self.store().reserve(ISSUER, &[key(n)]).unwrap();
        let value = calls.values()[0];
        let at_ms = self.now.fetch_add(1, Ordering::SeqCst);
        let record = Record {
            at_ms,
            ..allowed("call")
        };
        self.store().append_counted(record, calls).await.unwrap();
        value
    }

    /// Everything that can be asked about what the tests write.
    async fn knowledge(&self) -> String {
        let store = self.store();
        let mut known = Vec::new();
        for n in 0..4_u8 {
            let id = format!("g{n}");
            known.push(format!(
                "{:?}",
                store.grant(&grant(&id).issuer, &id).await.unwrap()
            ));
            let next = store.reserve(ISSUER, &[key(n)]).unwrap();
            known.push(format!("{:?}", next.values()));
        }
        let page = store.revocations_after(0, 100).await.unwrap();
        known.push(format!("{page:?}"));
        known.join("\n")
    }
}

fn key(n: u8) -> Counter {
    CounterKey {
        branch: [n; 32],
        index: 0,
    }
    .into()
}

#[tokio::test]
async fn old_records_go_and_what_they_said_stays() {
    let mut setup = Setup::new();
    setup.store().insert_grant(grant("g0")).await.unwrap();
    setup.revoke("g1").await;
    setup.call(2).await;
    setup.call(2).await;
    for _ in 0..20 {
        setup.decide().await;
    }
    let kept = fs::read(setup.dir.path().join("checkpoint")).unwrap();
    let before = setup.knowledge().await;
    assert_eq!(
        setup.store().retire(0).await.unwrap(),
        None,
        "nothing is that old"
    );
    let retired = setup.store().retire(i64::MAX).await.unwrap().unwrap();
    assert!(retired.first == 0 && retired.end > 10, "{retired:?}");
    assert_eq!(
        segment::list(setup.dir.path()).unwrap().first(),
        Some(&retired.end)
    );
    // The grant, the revocation, the counter, the end of the feed.
    assert_eq!(retired.carried, 4);
    assert_eq!(setup.knowledge().await, before);
    assert_eq!(setup.revoke("g2").await, 2, "numbers go on");
    let before = setup.knowledge().await;

    let report = verify_dir(setup.dir.path()).unwrap();
    assert!(report.is_ok() && report.first == retired.end, "{report:?}");
    let report = verify_against(setup.dir.path(), &kept).unwrap();
    assert!(
        report.checkpoint_problems[0].contains("keep a newer one"),
        "{report:?}"
    );
    let key = fs::read_to_string(setup.dir.path().join(PUB_FILE)).unwrap();
    let dir = setup.dir.path();
    let made = receipt(dir, &Which::Index(retired.end)).unwrap();
    verify_receipt(&serde_json::to_vec(&made).unwrap(), &key).unwrap();
    let gone = receipt(dir, &Which::Index(retired.end - 1)).unwrap_err();
    assert!(gone.to_string().contains("was dropped"), "{gone}");
    receipt(dir, &Which::Grant("g0".into())).unwrap();

    setup.close().await;
    rebuild(setup.dir.path()).unwrap();
    setup.open();
    assert_eq!(setup.knowledge().await, before, "the rest says the same");
}

#[tokio::test]
async fn the_feeds_end_outlives_every_record_of_it() {
    let mut setup = Setup::new();
    setup.revoke("g1").await;
    for _ in 0..3 {
        for _ in 0..8 {
            setup.decide().await;
        }
        setup.store().retire(i64::MAX).await.unwrap().unwrap();
    }
    let page = setup.store().revocations_after(0, 10).await.unwrap();
    setup.close().await;
    rebuild(setup.dir.path()).unwrap();
    setup.open();
    assert_eq!(setup.store().revocations_after(0, 10).await.unwrap(), page);
    assert_eq!(setup.revoke("g2").await, 2);
}

/// What a crash leaves at each step is a store that opens, is intact and says the same.
#[tokio::test]
async fn a_crash_at_any_step_leaves_a_good_store() {
    for step in 0..4 {
        let mut setup = Setup::new();
        setup.revoke("g1").await;
        setup.call(1).await;
        for _ in 0..12 {
            setup.decide().await;
        }
        let dir = setup.dir.path().to_path_buf();
        let plan = plan(&dir, i64::MAX).unwrap().unwrap();
        let before = setup.knowledge().await;
        if step > 0 {
            setup.store().carry_names(plan.names).await.unwrap();
        }
        if step > 1 {
            let retired = RetiredRecord {
                first: plan.first,
                end: plan.end,
                root: plan.root.0,
            };
            setup.store().note(RecordKind::Retired(retired)).await.unwrap();
        }
        if step > 2 {
            fs::remove_file(segment::path(&dir, 0)).unwrap();
        }
        assert!(verify_dir(&dir).unwrap().is_ok(), "step {step}");
        setup.close().await;
        assert!(verify_dir(&dir).unwrap().is_ok(), "step {step}");
        setup.open();
        let begin = segment::list(&dir).unwrap()[0];
        assert_eq!(
            begin,
            if step > 1 { plan.end } else { 0 },
            "step {step}: finished at opening"
        );
        assert_eq!(setup.knowledge().await, before, "step {step}");
        setup.close().await;
        rebuild(&dir).unwrap();
        setup.open();
        assert_eq!(setup.knowledge().await, before, "step {step}");
    }
}

#[tokio::test]
async fn more_than_was_dropped_is_damage() {
    let mut setup = Setup::new();
    for _ in 0..12 {
        setup.decide().await;
    }
    let middle = segment::list(setup.dir.path()).unwrap()[3];
    let bytes = fs::read(segment::path(setup.dir.path(), middle)).unwrap();
    let root = segment::read(&mut bytes.as_slice()).unwrap().tree.root().0;
    let retired = RetiredRecord {
        first: 0,
        end: middle,
        root,
    };
    setup.store().note(RecordKind::Retired(retired)).await.unwrap();
    setup.close().await;
    setup.open();
    setup.close().await;
    assert!(verify_dir(setup.dir.path()).unwrap().is_ok());
    fs::remove_file(segment::path(setup.dir.path(), middle)).unwrap();
    let bad = verify_dir(setup.dir.path()).unwrap().first_bad.unwrap();
    assert!(
        bad.reason
            .contains("no signed record says that they were dropped"),
        "{bad:?}"
    );
}

#[derive(Debug, Clone)]
enum Step {
    Grant(u8),
    Revoke(u8),
    Call(u8),
    Decision,
    Retire(u8),
    Reopen,
    Rebuild,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..4_u8).prop_map(Step::Grant),
        3 => (0..4_u8).prop_map(Step::Revoke),
        3 => (0..4_u8).prop_map(Step::Call),
        6 => Just(Step::Decision),
        2 => (0..=100_u8).prop_map(Step::Retire),
        1 => Just(Step::Reopen),
        1 => Just(Step::Rebuild),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_history_of_appends_and_retirements_stays_whole(
        steps in prop::collection::vec(step(), 1..40),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut setup = Setup::new();
            let dir = setup.dir.path().to_path_buf();
            let mut calls = [0_u64; 4];
            for step in steps {
                match step {
                    Step::Grant(n) => {
                        setup.store().insert_grant(grant(&format!("g{n}"))).await.unwrap();
                    }
                    Step::Revoke(n) => {
                        setup.revoke(&format!("g{n}")).await;
                    }
                    Step::Call(n) => {
                        calls[usize::from(n)] += 1;
                        assert_eq!(setup.call(n).await, calls[usize::from(n)]);
                    }
                    Step::Decision => setup.decide().await,
                    Step::Retire(percent) => {
                        let before = setup.now.load(Ordering::SeqCst) * i64::from(percent) / 100;
                        let known = setup.knowledge().await;
                        setup.store().retire(before).await.unwrap();
                        assert_eq!(setup.knowledge().await, known);
                    }
                    Step::Reopen | Step::Rebuild => {
                        let known = setup.knowledge().await;
                        setup.close().await;
                        if matches!(step, Step::Rebuild) {
                            rebuild(&dir).unwrap();
                        }
                        setup.open();
                        assert_eq!(setup.knowledge().await, known);
                    }
                }
            }
            setup.close().await;
            let report = verify_dir(&dir).unwrap();
            assert!(report.is_ok(), "{report:?}");
            let key = fs::read_to_string(dir.join(PUB_FILE)).unwrap();
            for index in [report.first, report.tree_size.saturating_sub(1)] {
                if index < report.tree_size {
                    let made = receipt(&dir, &Which::Index(index)).unwrap();
                    verify_receipt(&serde_json::to_vec(&made).unwrap(), &key).unwrap();
                }
            }
            // Everything is acknowledged, so any flipped bit of any segment is found.
            let segments = segment::list(&dir).unwrap();
            let path = segment::path(&dir, segments[at.index(segments.len())]);
            let mut bytes = fs::read(&path).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            fs::write(&path, bytes).unwrap();
            assert!(!verify_dir(&dir).unwrap().is_ok(), "byte {at} of {}", path.display());
        });
    }
}
