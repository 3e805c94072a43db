use std::path::PathBuf;

use super::*;
use crate::state::tests::revoked;

const ROOT: Hash = Hash([7; 32]);

fn applied(size: u64) -> Applied {
    Applied { size, root: ROOT }
}

/// A state with 600 revocations, closed or merely dropped.
fn folder(close: bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let state = State::create(dir.path()).unwrap();
    let records: Vec<_> = (1..=600).map(|n| revoked(n, &format!("g{n}"))).collect();
    state.write(&records, 0, Some(applied(600))).unwrap();
    if close {
        state.close().unwrap();
        assert!(matches!(state.head(), Err(StoreError::Closed)));
        assert!(matches!(state.close(), Err(StoreError::Closed)));
    }
    dir
}

fn mark(dir: &Path) -> PathBuf {
    State::folder(dir).join(MARK)
}

fn find(dir: &Path, boot: &str) -> Result<State, String> {
    match State::find_in_boot(dir, Some(boot)).unwrap() {
        Found::Kept(state, found) => {
            assert_eq!(found, applied(600));
            assert_eq!(state.head().unwrap(), 600);
            Ok(state)
        }
        Found::Lost { reason, .. } => Err(reason.unwrap()),
    }
}

#[test]
fn a_closed_state_is_believed_once_and_an_open_one_in_its_boot() {
    let dir = folder(true);
    assert_eq!(
        read(&State::folder(dir.path())).unwrap(),
        Some(Left::Closed(applied(600)))
    );
    drop(find(dir.path(), "boot-1").unwrap());
    let said = std::fs::read_to_string(mark(dir.path())).unwrap();
    assert_eq!(said, "taper-state-1 open boot-1\n");
    drop(find(dir.path(), "boot-1").unwrap());
    let said = find(dir.path(), "boot-2").err().unwrap();
    assert!(said.contains("before the machine last started"), "{said}");
    drop(find(dir.path(), "boot-1").unwrap());
    // Where boots have no ids, nothing but a clean end is believed.
    assert!(matches!(
        State::find_in_boot(dir.path(), None).unwrap(),
        Found::Lost { reason: Some(_), .. }
    ));
    let dir = folder(true);
    drop(State::find_in_boot(dir.path(), None).unwrap());
    assert!(find(dir.path(), "boot-1").is_err());
}

#[test]
fn a_state_that_was_not_closed_is_marked_with_the_boot() {
    let dir = folder(false);
    let boot = boot_id().unwrap();
    drop(find(dir.path(), &boot).unwrap());
    assert!(find(dir.path(), "another").is_err());
}

#[test]
fn a_closed_state_is_not_believed_before_it_may_be_written() {
    let dir = folder(true);
    // The database cannot be opened: what stopped there must not leave it marked as closed.
    let database = File::open(State::folder(dir.path()).join(DATABASE)).unwrap();
    database.lock().unwrap();
    assert!(State::find_in_boot(dir.path(), Some("boot")).is_err());
    assert!(!mark(dir.path()).exists());
}

#[test]
fn any_other_mark_is_none() {
    for text in [
        "",
        "taper-state-1 open \n",
        "taper-state-1 open boot",
        "taper-state-2 open boot\n",
        "taper-state-1 closed 600\n",
        "taper-state-1 closed 600 short\n",
        "taper-state-1 closed -1 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
    ] {
        let dir = folder(true);
        std::fs::write(mark(dir.path()), text).unwrap();
        let said = find(dir.path(), "boot").err().unwrap();
        assert_eq!(said, "nothing says how it was left", "{text:?}");
        std::fs::write(mark(dir.path()), vec![b'x'; 1_000]).unwrap();
        assert!(find(dir.path(), "boot").is_err());
    }
    let dir = folder(true);
    let other = Left::Closed(applied(599));
    write(&State::folder(dir.path()), &other).unwrap();
    assert_eq!(
        find(dir.path(), "boot").err().unwrap(),
        "it is not as it was closed"
    );
}

#[test]
fn a_state_that_fell_behind_is_not_marked_as_closed() {
    let dir = folder(true);
    let state = find(dir.path(), "boot").unwrap();
    state.behind.get_or_init(|| ());
    state.close().unwrap();
    assert!(find(dir.path(), "another").is_err());
}

#[test]
fn closing_waits_for_readers() {
    let dir = folder(false);
    let state = find(dir.path(), &boot_id().unwrap()).unwrap();
    let reader = state.tree().unwrap();
    let closing = std::thread::spawn(move || state.close());
    assert_eq!(reader.len(), reader.iter().count());
    assert!(!closing.is_finished());
    assert!(matches!(
        read(&State::folder(dir.path())).unwrap(),
        Some(Left::Open(_))
    ));
    drop(reader);
    closing.join().unwrap().unwrap();
    drop(find(dir.path(), "another").unwrap());
}

#[test]
fn a_panic_is_an_answer() {
    let said = guarded(|| panic!("page {}", 7)).unwrap_err();
    assert_eq!(said, "sled panicked: page 7");
    assert_eq!(guarded(|| 5), Ok(5));
}
