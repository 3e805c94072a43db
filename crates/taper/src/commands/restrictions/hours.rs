//! Hours as a person types them.

use taper_capability::Caveat;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Reads `09:00-17:30 [OFFSET] [DAYS]`: the offset `Z`, `+HH:MM` or `-HH:MM` (`Z` if none is said),
/// the days as `mon-fri`, `sat,sun` or both (every day if none are said).
pub(super) fn parse(text: &str) -> Result<Caveat, String> {
    let wrong = || "not hours such as `09:00-17:30 +02:00 mon-fri`".to_owned();
    let mut words = text.split_whitespace();
    let (from, to) = words.next().and_then(|w| w.split_once('-')).ok_or_else(wrong)?;
    let (mut offset, mut days) = (None, None);
    for word in words {
        let repeated = if word.starts_with(['+', '-', 'Z', 'z']) {
            offset.replace(self::offset(word)).is_some()
        } else {
            days.replace(self::days(word).ok_or_else(wrong)?).is_some()
        };
        if repeated {
            return Err(wrong());
        }
    }
    let caveat = Caveat::Hours {
        from: from.to_owned(),
        to: to.to_owned(),
        offset: offset.unwrap_or_else(|| "Z".to_owned()),
        days: days.unwrap_or_else(|| (1..=7).collect()),
    };
    caveat.to_check().map_err(|_| wrong())?;
    Ok(caveat)
}

fn offset(word: &str) -> String {
    match word {
        "z" | "+00:00" | "-00:00" => "Z".to_owned(),
        other => other.to_owned(),
    }
}

/// `mon-fri,sun`; a range may run over the end of the week.
fn days(word: &str) -> Option<Vec<u8>> {
    let mut on = [false; 7];
    for part in word.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut day, last) = (index(first)?, index(last)?);
        loop {
            *on.get_mut(day)? = true;
            if day == last {
                break;
            }
            day = (day + 1) % DAYS.len();
        }
    }
    let chosen = (1..).zip(on).filter(|(_, on)| *on);
    Some(chosen.map(|(day, _)| day).collect())
}

fn index(name: &str) -> Option<usize> {
    let name = name.to_ascii_lowercase();
    DAYS.iter().position(|day| *day == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_read_as_people_say_them() {
        let check = |text: &str, expected: Option<(&str, &str, &str, &[u8])>| {
            let expected = expected.map(|(from, to, offset, days)| Caveat::Hours {
                from: from.into(),
                to: to.into(),
                offset: offset.into(),
                days: days.to_vec(),
            });
            assert_eq!(parse(text).ok(), expected, "{text}");
        };
        let (all, week): (&[u8], &[u8]) = (&[1, 2, 3, 4, 5, 6, 7], &[1, 2, 3, 4, 5]);
        check("09:00-17:30", Some(("09:00", "17:30", "Z", all)));
        check(
            "09:00-17:30 +02:00 mon-fri",
            Some(("09:00", "17:30", "+02:00", week)),
        );
        check(
            " 09:00-17:30  Mon-FRI -05:30 ",
            Some(("09:00", "17:30", "-05:30", week)),
        );
        check("22:00-06:00 z sat,sun", Some(("22:00", "06:00", "Z", &[6, 7])));
        check(
            "00:00-24:00 +00:00 fri-mon,wed",
            Some(("00:00", "24:00", "Z", &[1, 3, 5, 6, 7])),
        );
        for wrong in [
            "",
            "09:00",
            "9:00-17:30",
            "09:00-25:00",
            "09:00-09:00",
            "09:00-17:30 +2",
            "09:00-17:30 monday",
            "09:00-17:30 mon-",
            "09:00-17:30 mon sat",
            "09:00-17:30 Z Z",
            "09:00-17:30 CET",
        ] {
            check(wrong, None);
        }
    }
}
