//! Numbers by what their text says: two spellings are one number exactly when their digits say so. No
//! floating point is involved, so nothing is rounded to equal.

/// A finite decimal number: sign, significant digits, power of ten of the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decimal {
    negative: bool,
    /// Without zeros at either end; none for zero.
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    /// Reads a number as JSON writes it (RFC 8259 §6); nothing else is one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, power) = match rest.split_once(['e', 'E']) {
            Some((mantissa, power)) => (mantissa, exponent(power)?),
            None => (rest, 0),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (mantissa, ""),
        };
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let leading_zero = whole.len() > 1 && whole.starts_with('0');
        if whole.is_empty() || leading_zero || !is_digits(whole) || !is_digits(fraction) {
            return None;
        }
        let all = format!("{whole}{fraction}");
        let significant = all.trim_start_matches('0');
        let digits = significant.trim_end_matches('0');
        if digits.is_empty() {
            return Some(Self {
                negative: false,
                digits: Vec::new(),
                exponent: 0,
            });
        }
        let dropped = i64::try_from(significant.len().checked_sub(digits.len())?).ok()?;
        let places = i64::try_from(fraction.len()).ok()?;
        Some(Self {
            negative,
            digits: digits.as_bytes().to_vec(),
            exponent: power.checked_sub(places)?.checked_add(dropped)?,
        })
    }
}

/// The digits after the `e`, with an optional sign. One that does not fit is no number that anyone means.
fn exponent(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_number_are_equal() {
        let check = |a: &str, b: &str, equal: bool| {
            let (one, other) = (Decimal::parse(a), Decimal::parse(b));
            assert!(one.is_some() && other.is_some(), "{a} {b}");
            assert_eq!(one == other, equal, "{a} {b}");
        };
        check("42", "42.0", true);
        check("42", "4.2e1", true);
        check("1200", "12E+2", true);
        check("0.001", "1e-3", true);
        check("-0", "0.0e9", true);
        check("-7", "7", false);
        check("9007199254740993", "9007199254740992", false);
        check("1", "1.0000000000000000000001", false);
        check("1e400", "1e401", false);
        check("10", "1", false);
    }

    #[test]
    fn other_texts_are_no_numbers() {
        for text in [
            "",
            "-",
            "+1",
            "01",
            "1.",
            ".5",
            "1e",
            "1e+",
            "0x1",
            " 1",
            "1 ",
            "NaN",
            "1_0",
            "1e1.5",
            "--1",
            "1e--1",
            "1e99999999999999999999",
            "\u{661}",
        ] {
            assert_eq!(Decimal::parse(text), None, "{text:?}");
        }
    }
}
