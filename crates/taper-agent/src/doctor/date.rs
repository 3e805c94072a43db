//! The date of an answer, and what it says about this machine's clock.

use http::HeaderMap;
use http::header::DATE;
use taper_dpop::{MAX_AGE, MAX_FUTURE};
use taper_service::clock::parse_rfc3339;

use super::Finding;

/// From this difference on, in seconds, a clock is told to be wrong.
const NOTABLE: i64 = 10;

/// What the date in `headers` says about a clock that shows `now`.
pub(super) fn clock(check: &'static str, headers: &HeaderMap, now: i64) -> Finding {
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    let Some(theirs) = date.and_then(parse) else {
        return Finding::skipped(check, "the answer has no date");
    };
    let ahead = now.saturating_sub(theirs);
    let what = match ahead {
        0 => "this machine's clock and its clock agree".to_owned(),
        1.. => format!("this machine's clock is {ahead} s ahead of its clock"),
        _ => format!(
            "this machine's clock is {} s behind its clock",
            ahead.saturating_abs()
        ),
    };
    let next = "set the clock: `timedatectl set-ntp true`, or what keeps time on this machine";
    if ahead >= MAX_FUTURE {
        let why = format!("{what}; a proof may be {MAX_FUTURE} s ahead");
        Finding::fail(check, why).next(next)
    } else if ahead <= -MAX_AGE {
        let why = format!("{what}; a proof may be {MAX_AGE} s old");
        Finding::fail(check, why).next(next)
    } else if ahead.abs() >= NOTABLE {
        Finding::warn(check, what).next(next)
    } else {
        Finding::ok(check, what)
    }
}

/// Reads an HTTP date in its one form that is still written (RFC 9110 section 5.6.7),
/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn parse(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let words: Vec<_> = text.split(' ').collect();
    let [_, day, month, year, time, "GMT"] = words.as_slice() else {
        return None;
    };
    let month = MONTHS.iter().position(|name| name == month)? + 1;
    parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z"))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        for text in [
            "",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 CET",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_clock_is_wrong_where_a_proof_is_refused() {
        let headers = HeaderMap::from_iter([(DATE, "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap())]);
        let check = |ahead: i64, verdict| {
            let finding = clock("c", &headers, 784_111_777 + ahead);
            assert_eq!(finding.verdict, verdict, "{ahead}: {finding:?}");
            assert_eq!(finding.next.is_none(), verdict == Verdict::Ok);
        };
        check(0, Verdict::Ok);
        check(9, Verdict::Ok);
        check(-9, Verdict::Ok);
        check(10, Verdict::Warn);
        check(59, Verdict::Warn);
        check(60, Verdict::Fail);
        check(-299, Verdict::Warn);
        check(-300, Verdict::Fail);
        assert_eq!(clock("c", &HeaderMap::new(), 0).verdict, Verdict::Skipped);
    }
}
