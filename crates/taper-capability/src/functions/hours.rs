//! `in_hours(hours)`: a time of day on some days of the week, in UTC or at a fixed offset.

/// A window of each of some days, at one offset from UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hours {
    /// Minutes of the day: from this one, before that one.
    from: i64,
    to: i64,
    /// Minutes ahead of UTC.
    offset: i64,
    /// Monday is the first.
    days: [bool; 7],
}

const DAY: i64 = 24 * 60;
const MAX_OFFSET: i64 = 14 * 60;

impl Hours {
    /// `HH:MM/HH:MM/OFFSET/DAYS`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (from, to, offset, digits) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let (from, to) = (clock(from)?, clock(to)?);
        let offset = match offset {
            "Z" => 0,
            _ => match (offset.get(..1)?, clock(offset.get(1..)?)?) {
                ("+", minutes @ 1..=MAX_OFFSET) => minutes,
                ("-", minutes @ 1..=MAX_OFFSET) => -minutes,
                _ => return None,
            },
        };
        let mut days = [false; 7];
        let mut last = 0;
        for digit in digits.bytes() {
            let day = usize::from(digit.checked_sub(b'0')?);
            if day <= last {
                return None;
            }
            *days.get_mut(day.checked_sub(1)?)? = true;
            last = day;
        }
        let fits = parts.next().is_none() && last > 0 && from < DAY && to > 0 && from != to;
        fits.then_some(Self {
            from,
            to,
            offset,
            days,
        })
    }

    /// Whether a time, in seconds since the Unix epoch, lies in the window.
    pub(crate) fn contain(&self, at: u64) -> bool {
        let Some(local) = i64::try_from(at)
            .ok()
            .and_then(|at| at.checked_add(self.offset * 60))
        else {
            return false;
        };
        let minute = local.rem_euclid(DAY * 60) / 60;
        // 1970-01-01 was a Thursday, the fourth day (ISO 8601).
        let day = local.div_euclid(DAY * 60) + 3;
        let on = |day: i64| {
            let index = usize::try_from(day.rem_euclid(7)).unwrap_or_default();
            self.days.get(index) == Some(&true)
        };
        if self.from < self.to {
            (self.from..self.to).contains(&minute) && on(day)
        } else {
            (minute >= self.from && on(day)) || (minute < self.to && on(day - 1))
        }
    }
}

/// `HH:MM` as minutes, `24:00` included.
fn clock(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |digits: &str| {
        let ok = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
        ok.then(|| digits.parse::<i64>().ok()).flatten()
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    let total = hours * 60 + minutes;
    (minutes < 60 && total <= DAY).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21 is a Saturday; `0` is its midnight in UTC.
    fn at(hour: i64, minute: i64) -> u64 {
        u64::try_from(1_795_219_200 + hour * 3_600 + minute * 60).unwrap()
    }

    #[test]
    fn windows_end_before_their_end() {
        let check = |hours: &str, at: u64, expected: bool| {
            assert_eq!(Hours::parse(hours).unwrap().contain(at), expected, "{hours} {at}");
        };
        check("09:00/17:30/Z/6", at(9, 0), true);
        check("09:00/17:30/Z/6", at(8, 59), false);
        check("09:00/17:30/Z/6", at(17, 29) + 59, true);
        check("09:00/17:30/Z/6", at(17, 30), false);
        check("09:00/17:30/Z/12345", at(9, 0), false);
        check("09:00/17:30/+02:00/6", at(7, 0), true);
        check("09:00/17:30/-05:30/6", at(14, 29), false);
        check("09:00/17:30/-05:30/6", at(14, 30), true);
        check("00:00/24:00/Z/6", at(23, 59), true);
        check("00:00/24:00/Z/6", at(24, 0), false);
        check("00:00/24:00/+14:00/7", at(10, 0), true);
        check("00:00/24:00/-14:00/5", at(13, 59), true);
        check("22:00/06:00/Z/6", at(22, 0), true);
        check("22:00/06:00/Z/6", at(29, 59), true);
        check("22:00/06:00/Z/6", at(30, 0), false);
        check("22:00/06:00/Z/6", at(5, 0), false);
        check("22:00/06:00/Z/5", at(5, 0), true);
        check("22:00/06:00/Z/7", at(-24 * 7 + 24 + 23, 0), true);
        check("00:00/24:00/Z/1234567", u64::MAX, false);
    }

    #[test]
    fn there_is_one_spelling() {
        for text in [
            "",
            "09:00/17:30/Z",
            "09:00/17:30/Z/",
            "9:00/17:30/Z/1",
            "09:00/09:00/Z/1",
            "24:00/17:30/Z/1",
            "09:00/00:00/Z/1",
            "09:60/17:30/Z/1",
            "09:00/24:01/Z/1",
            "09:00/17:30/+00:00/1",
            "09:00/17:30/+14:01/1",
            "09:00/17:30/02:00/1",
            "09:00/17:30/z/1",
            "09:00/17:30/Z/0",
            "09:00/17:30/Z/8",
            "09:00/17:30/Z/11",
            "09:00/17:30/Z/21",
            "09:00/17:30/Z/1/1",
            "+9:00/17:30/Z/1",
            "09:00/17:30/é/1",
        ] {
            assert_eq!(Hours::parse(text), None, "{text}");
        }
    }
}
