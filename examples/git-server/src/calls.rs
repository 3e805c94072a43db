//! What reached the tools. A test or a demonstration keeps a clone and asserts on it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How many tool names are remembered.
const REMEMBERED: usize = 64;

/// How many characters of a tool name are remembered; the name is the caller's to choose.
const NAME_LENGTH: usize = 128;

/// Counts every `tools/call` that arrived, whether or not it then succeeded. Clones share the count.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    count: Arc<AtomicU64>,
    last: Arc<Mutex<VecDeque<String>>>,
}

impl Calls {
    /// How many `tools/call` requests have arrived so far.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// The tools of the last 64 calls, oldest first.
    pub fn last_tools(&self) -> Vec<String> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.iter().cloned().collect()
    }

    pub(crate) fn record(&self, tool: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == REMEMBERED {
            last.pop_front();
        }
        last.push_back(tool.chars().take(NAME_LENGTH).collect());
        self.count.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_count_and_memory_is_bounded() {
        let calls = Calls::default();
        let seen = calls.clone();
        for n in 0..REMEMBERED + 1 {
            calls.record(&format!("tool_{n}"));
        }
        assert_eq!(seen.count(), 65);
        assert_eq!(seen.last_tools().len(), REMEMBERED);
        assert_eq!(seen.last_tools()[0], "tool_1");
        calls.record(&"x".repeat(10_000));
        assert_eq!(seen.last_tools().last().map(String::len), Some(NAME_LENGTH));
    }
}
