//! Limits of an evaluation. Reaching one is indeterminate, never a denial.

use biscuit_auth::AuthorizerLimits;
use std::time::Duration;

/// The limits of one evaluation. Facts and iterations bound what rules of a policy may derive:
/// a request brings at most some 600 facts (256 of block 0, 256 resources, the rest of the
/// vocabulary). The time is a backstop far above an honest evaluation (well under a millisecond),
/// because on a loaded machine the wall clock runs while the thread waits.
pub(crate) fn limits() -> AuthorizerLimits {
    AuthorizerLimits {
        max_facts: 4_096,
        max_iterations: 128,
        max_time: Duration::from_secs(2),
    }
}
