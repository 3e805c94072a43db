//! A check that reads back as a caveat compiles to the same check, byte by byte; what is printed of any
//! check stands on one line as it is; and a token with the check grants no more than without it.
#![no_main]

use biscuit_auth::builder::{BlockBuilder, Check};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use taper_capability::Caveat;
use taper_fuzz::attack::{payload_of, with_check};
use taper_fuzz::checks::check_of;
use taper_fuzz::text::is_plain;
use taper_fuzz::world::World;

static WORLD: LazyLock<World> = LazyLock::new(World::new);

fn bytes(check: &Check) -> Option<Vec<u8>> {
    payload_of(BlockBuilder::new().check(check.clone()).ok()?)
}

fuzz_target!(|data: &[u8]| {
    let Ok(Some(check)) = check_of(data) else {
        return;
    };
    if let Some(token) = with_check(&WORLD, check.clone()) {
        WORLD.check(&token);
    }
    let Some(caveat) = Caveat::from_check(&check) else {
        return;
    };
    let printed = caveat.to_string();
    assert!(is_plain(&printed), "{printed:?}");
    let again = caveat.to_check().expect("what was read back does not compile");
    assert_eq!(bytes(&again), bytes(&check), "it reads as {caveat:?}");
    assert_eq!(Caveat::from_check(&again), Some(caveat));
});
