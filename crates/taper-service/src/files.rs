//! How many files the process may have open. Connections are files, and the usual limit of 1,024 is less than what the
//! limits of a daemon let in.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a daemon has open beside its connections.
const OWN: u64 = 128;

/// Lets the process have `connections` open, beside its own files, as far as the system permits: it raises the soft
/// limit towards the hard one. What is missing then is said in the log.
///
/// Without descriptors nobody is let past anything: connections wait, and upstreams cannot be reached.
pub fn allow(connections: u64) {
    let wanted = connections.saturating_add(OWN);
    let limit = getrlimit(Resource::Nofile);
    let Some(raised) = raised(&limit, wanted) else {
        return;
    };
    let now = match setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(raised),
            ..limit
        },
    ) {
        Ok(()) => raised,
        Err(_) => limit.current.unwrap_or(raised),
    };
    if now < wanted {
        tracing::warn!(
            limit = now,
            wanted,
            "fewer files may be open than the limits of this configuration permit connections; \
             raise the limit (LimitNOFILE of the unit, `ulimit -Hn`) or lower `max_connections`, `max_running` and `max_streams`"
        );
    }
}

/// The soft limit that comes nearest to `wanted`, unless there is enough.
fn raised(limit: &Rlimit, wanted: u64) -> Option<u64> {
    let now = limit.current.filter(|now| *now < wanted)?;
    Some(limit.maximum.map_or(wanted, |most| most.min(wanted)).max(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_goes_no_further_than_it_must_and_may() {
        let check = |current, maximum, wanted, expected| {
            assert_eq!(
                raised(&Rlimit { current, maximum }, wanted),
                expected,
                "{current:?} of {maximum:?}"
            );
        };
        check(Some(1024), Some(4096), 2000, Some(2000));
        check(Some(1024), Some(4096), 5000, Some(4096));
        check(Some(1024), None, 5000, Some(5000));
        check(Some(1024), Some(1024), 5000, Some(1024));
        check(Some(1024), Some(4096), 1024, None);
        check(None, None, 5000, None);
    }
}
