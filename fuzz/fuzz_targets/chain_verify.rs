//! A thief and a holder at work on valid tokens: whatever verifies grants no more than the original.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use taper_fuzz::attack::Attack;
use taper_fuzz::world::World;

static WORLD: LazyLock<World> = LazyLock::new(World::new);

fuzz_target!(|attack: Attack| WORLD.check(&attack.token(&WORLD)));
