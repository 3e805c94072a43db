//! Session ids of the legacy era. A session carries no state here, but clients and proxies expect an
//! id that is known until it is deleted (MCP 2025-11-25, transports, session management).

use std::collections::VecDeque;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// Sessions kept open at once; the oldest makes room.
const OPEN: usize = 1024;

pub(crate) struct Sessions {
    key: [u8; 32],
    counter: u64,
    open: VecDeque<String>,
}

impl Sessions {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self {
            key,
            counter: 0,
            open: VecDeque::new(),
        }
    }

    /// Opens a session and returns its id: 32 hexadecimal digits.
    pub(crate) fn open(&mut self) -> String {
        self.counter += 1;
        let digest = Sha256::new()
            .chain_update(self.key)
            .chain_update(self.counter.to_be_bytes())
            .finalize();
        let mut id = String::with_capacity(32);
        for byte in digest.iter().take(16) {
            // Writing to a String cannot fail.
            let _ = write!(id, "{byte:02x}");
        }
        if self.open.len() == OPEN {
            self.open.pop_front();
        }
        self.open.push_back(id.clone());
        id
    }

    pub(crate) fn is_open(&self, id: &str) -> bool {
        self.open.iter().any(|open| open == id)
    }

    /// Ends the session; false when there is none of that id.
    pub(crate) fn close(&mut self, id: &str) -> bool {
        let before = self.open.len();
        self.open.retain(|open| open != id);
        self.open.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_distinct_known_until_closed_and_differ_by_key() {
        let mut sessions = Sessions::new([1; 32]);
        let (first, second) = (sessions.open(), sessions.open());
        assert_ne!(first, second);
        assert_ne!(first, Sessions::new([2; 32]).open());
        assert!(sessions.is_open(&first));
        assert!(sessions.close(&first));
        assert!(!sessions.close(&first));
        assert!(!sessions.is_open(&first));
        assert!(sessions.is_open(&second));
    }

    #[test]
    fn the_oldest_session_makes_room() {
        let mut sessions = Sessions::new([1; 32]);
        let first = sessions.open();
        let last = (0..OPEN).map(|_| sessions.open()).last();
        assert!(!sessions.is_open(&first));
        assert!(last.is_some_and(|id| sessions.is_open(&id)));
    }
}
