//! "Did you mean": the nearest of some known words.

/// The candidate nearest to `word`, when it is near enough to be what was meant: at most a third of
/// the letters differ (and always one may). The first of several equally near ones wins.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions() {
        let check = |word: &str, expected: Option<&str>| {
            assert_eq!(
                closest(word, ["listen", "issuer", "public_url", "ca"]),
                expected,
                "{word}"
            );
        };
        check("lisen", Some("listen"));
        check("isuser", Some("issuer"));
        check("public-url", Some("public_url"));
        check("listen", Some("listen"));
        check("database", None);
        check("x", None);
        check("", None);
        assert_eq!(closest("bat", ["cat", "hat"]), Some("cat"));
    }
}
