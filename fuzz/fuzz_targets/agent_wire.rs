//! A line on the key agent's socket: what is read is written as it was read, and nothing of it is shown that
//! may be a key.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The module itself: all of the agent would make this package as large as the program.
#[allow(dead_code)]
#[path = "../../crates/taper-agent/src/agent_socket/wire.rs"]
mod wire;

use wire::{Answer, Ask, MAX_LINE};

fuzz_target!(|line: &[u8]| {
    if let Ok(ask) = Ask::parse(line) {
        let written = serde_json::to_vec(&ask).expect("what was read is written");
        // Escapes may make it longer than a line.
        if written.len() <= MAX_LINE {
            assert_eq!(Ask::parse(&written).as_ref(), Ok(&ask));
        }
        if let Ask::Add { private, .. } = &ask {
            assert_eq!(format!("{private:?}"), "PrivateText(…)");
        }
    }
    if let Ok(answer) = Answer::parse(line) {
        let written = serde_json::to_vec(&answer).expect("what was read is written");
        if written.len() <= MAX_LINE {
            assert_eq!(Answer::parse(&written), Ok(answer));
        }
    }
});
