//! `WWW-Authenticate`: written by the proxy, read by the agent (RFC 9110 §11.6.1, RFC 9449 §7.1, RFC 9728
//! §5.1).
//!
//! ```text
//! DPoP error="invalid_token", error_description="expired", algs="EdDSA ES256", resource_metadata="…", scope="…"
//! ```
//!
//! Whatever goes into a parameter, the header stays one line of printable ASCII.

use std::fmt;

use crate::error::{OAuthError, WireError};

/// The scheme of RFC 9449.
pub const SCHEME_DPOP: &str = "DPoP";
/// The proof algorithms that are accepted, as the `algs` parameter has them.
pub const DPOP_ALGS: &str = "EdDSA ES256";
/// The longest header that is read, in bytes.
pub const MAX_HEADER: usize = 8 * 1024;
/// How many challenges and how many parameters per challenge are read.
pub const MAX_ITEMS: usize = 16;

/// One challenge. `Display` is the header's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    scheme: String,
    params: Vec<(String, String)>,
}

impl Challenge {
    /// A DPoP challenge; with an error when credentials were sent and refused (RFC 9449 §7.1).
    pub fn dpop(error: Option<&OAuthError>) -> Self {
        let mut challenge = Self {
            scheme: SCHEME_DPOP.to_owned(),
            params: Vec::new(),
        };
        if let Some(error) = error {
            challenge.push("error", error.code().as_str());
            challenge.push("error_description", error.description());
        }
        challenge.push("algs", DPOP_ALGS);
        challenge
    }

    /// Adds where the metadata of the resource lies (RFC 9728 §5.1).
    #[must_use]
    pub fn with_resource_metadata(mut self, url: &str) -> Self {
        self.push("resource_metadata", url);
        self
    }

    /// Adds the scope that would be needed. It comes from configured names only (RULES 24).
    #[must_use]
    pub fn with_scope(mut self, scope: &str) -> Self {
        self.push("scope", scope);
        self
    }

    /// The scheme, as it was written.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Whether this is a DPoP challenge; schemes are case-insensitive.
    pub fn is_dpop(&self) -> bool {
        self.scheme.eq_ignore_ascii_case(SCHEME_DPOP)
    }

    /// The value of a parameter, by its lower-case name.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Reads the value of one `WWW-Authenticate` header, which may hold several challenges.
    ///
    /// # Errors
    /// [`WireError::TooLarge`], [`WireError::Challenge`].
    pub fn parse_all(header: &str) -> Result<Vec<Self>, WireError> {
        if header.len() > MAX_HEADER {
            return Err(WireError::TooLarge { limit: MAX_HEADER });
        }
        let mut rest = Cursor { rest: header };
        let mut challenges: Vec<Self> = Vec::new();
        loop {
            rest.skip_separators();
            if rest.rest.is_empty() {
                return Ok(challenges);
            }
            if challenges.len() == MAX_ITEMS {
                return Err(WireError::Challenge("too many challenges"));
            }
            challenges.push(rest.challenge()?);
        }
    }

    fn push(&mut self, name: &str, value: &str) {
        let printable = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
        self.params
            .push((name.to_owned(), value.chars().map(printable).collect()));
    }
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.scheme)?;
        for (index, (name, value)) in self.params.iter().enumerate() {
            let separator = if index == 0 { " " } else { ", " };
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            write!(f, "{separator}{name}=\"{value}\"")?;
        }
        Ok(())
    }
}

struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    /// One scheme with its `token68` or its parameters, up to the scheme of the next challenge.
    fn challenge(&mut self) -> Result<Challenge, WireError> {
        let scheme = self.token()?;
        let mut challenge = Challenge {
            scheme: scheme.to_owned(),
            params: Vec::new(),
        };
        if !self.rest.is_empty() && !self.rest.starts_with([' ', ',']) {
            return Err(WireError::Challenge("a scheme is followed by a space"));
        }
        self.skip_spaces();
        if self.skip_token68() {
            return Ok(challenge);
        }
        while let Some((name, value)) = self.param()? {
            let name = name.to_ascii_lowercase();
            if challenge.param(&name).is_some() {
                return Err(WireError::Challenge("a parameter is repeated"));
            }
            if challenge.params.len() == MAX_ITEMS {
                return Err(WireError::Challenge("too many parameters"));
            }
            challenge.params.push((name, value));
            self.skip_spaces();
            if !self.rest.is_empty() && !self.rest.starts_with(',') {
                return Err(WireError::Challenge("parameters are separated by commas"));
            }
            self.skip_separators();
        }
        Ok(challenge)
    }

    /// The next parameter; `None`, with nothing consumed, when the next thing is a scheme or the end.
    fn param(&mut self) -> Result<Option<(&'a str, String)>, WireError> {
        let mut ahead = Cursor { rest: self.rest };
        let Ok(name) = ahead.token() else { return Ok(None) };
        ahead.skip_spaces();
        let Some(after) = ahead.rest.strip_prefix('=') else {
            return Ok(None);
        };
        ahead.rest = after;
        ahead.skip_spaces();
        let value = match ahead.rest.strip_prefix('"') {
            Some(quoted) => ahead.quoted(quoted)?,
            None => ahead.token()?.to_owned(),
        };
        self.rest = ahead.rest;
        Ok(Some((name, value)))
    }

    fn quoted(&mut self, text: &'a str) -> Result<String, WireError> {
        let mut value = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' => {
                    self.rest = chars.as_str();
                    return Ok(value);
                }
                '\\' => match chars.next() {
                    Some(escaped @ ' '..='~') => value.push(escaped),
                    _ => return Err(WireError::Challenge("a broken escape")),
                },
                ' '..='~' => value.push(c),
                _ => return Err(WireError::Challenge("a character that is not printable")),
            }
        }
        Err(WireError::Challenge("a quoted string has no end"))
    }

    fn token(&mut self) -> Result<&'a str, WireError> {
        let end = self.rest.find(|c| !is_token_char(c)).unwrap_or(self.rest.len());
        match self.rest.split_at_checked(end) {
            Some((token, rest)) if !token.is_empty() => {
                self.rest = rest;
                Ok(token)
            }
            _ => Err(WireError::Challenge("a token is missing")),
        }
    }

    /// Skips a `token68`, as `Negotiate` has it: it ends at a comma or the end, and is not the start of a
    /// parameter or of another challenge.
    fn skip_token68(&mut self) -> bool {
        let trimmed = self
            .rest
            .trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c));
        let trimmed = trimmed.trim_start_matches('=').trim_start_matches([' ', '\t']);
        let skipped = self.rest.len() > trimmed.len() && (trimmed.is_empty() || trimmed.starts_with(','));
        if skipped {
            self.rest = trimmed;
        }
        skipped
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    fn skip_separators(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', ',']);
    }
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;
    use proptest::prelude::*;

    #[test]
    fn a_challenge_is_written_as_the_rfcs_have_it() {
        let error = OAuthError::new(ErrorCode::InvalidToken, "the capability has expired");
        let challenge = Challenge::dpop(Some(&error))
            .with_resource_metadata("https://a.example/.well-known/oauth-protected-resource/git/mcp")
            .with_scope("git:git_log");
        assert_eq!(
            challenge.to_string(),
            "DPoP error=\"invalid_token\", error_description=\"the capability has expired\", \
             algs=\"EdDSA ES256\", \
             resource_metadata=\"https://a.example/.well-known/oauth-protected-resource/git/mcp\", \
             scope=\"git:git_log\""
        );
        assert_eq!(Challenge::dpop(None).to_string(), r#"DPoP algs="EdDSA ES256""#);
    }

    #[test]
    fn a_value_cannot_break_out() {
        let challenge = Challenge::dpop(None).with_scope("a\", error=\"x\r\nSet-Cookie: y\\");
        assert_eq!(
            challenge.to_string(),
            r#"DPoP algs="EdDSA ES256", scope="a\", error=\"x??Set-Cookie: y\\""#
        );
        assert_eq!(Challenge::parse_all(&challenge.to_string()), Ok(vec![challenge]));
    }

    type Expected<'a> = &'a [(&'a str, &'a [(&'a str, &'a str)])];
    type Seen<'a> = Vec<(&'a str, Vec<(&'a str, &'a str)>)>;

    #[track_caller]
    fn check(header: &str, expected: Option<Expected<'_>>) {
        let got = Challenge::parse_all(header);
        let seen: Option<Seen<'_>> = got.as_ref().ok().map(|challenges| {
            challenges
                .iter()
                .map(|c| {
                    (
                        c.scheme(),
                        c.params.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect(),
                    )
                })
                .collect()
        });
        let expected = expected.map(|list| list.iter().map(|(s, p)| (*s, p.to_vec())).collect());
        assert_eq!(seen, expected, "{header}");
    }

    #[test]
    fn headers_of_others_are_read() {
        check("", Some(&[]));
        check("Bearer", Some(&[("Bearer", &[])]));
        check(
            "Negotiate abc==, DPoP algs=ES256",
            Some(&[("Negotiate", &[]), ("DPoP", &[("algs", "ES256")])]),
        );
        check(
            "Negotiate, DPoP algs=ES256",
            Some(&[("Negotiate", &[]), ("DPoP", &[("algs", "ES256")])]),
        );
        check(
            r#"Bearer realm="a, b", Error = "x" , DPoP algs="ES256 EdDSA""#,
            Some(&[
                ("Bearer", &[("realm", "a, b"), ("error", "x")]),
                ("DPoP", &[("algs", "ES256 EdDSA")]),
            ]),
        );
        check(
            r#"Bearer realm="a\"b\\""#,
            Some(&[("Bearer", &[("realm", r#"a"b\"#)])]),
        );
        check(r#"Bearer realm="a"#, None);
        check(r#"Bearer realm="a\"#, None);
        check(r#"Bearer realm="a" error="b""#, None);
        check(r#"Bearer realm="a", Realm="b""#, None);
        check("Bearer realm=\"a\nb\"", None);
        check("Bearer realm=", Some(&[("Bearer", &[])]));
        check(r#""Bearer""#, None);
        check("Bearer/x a=b", None);
    }

    #[test]
    fn a_header_has_limits() {
        let params = |n: usize| (0..n).map(|i| format!("p{i}=1")).collect::<Vec<_>>().join(", ");
        assert!(Challenge::parse_all(&format!("X {}", params(MAX_ITEMS))).is_ok());
        assert!(Challenge::parse_all(&format!("X {}", params(MAX_ITEMS + 1))).is_err());
        assert!(Challenge::parse_all(&vec!["X"; MAX_ITEMS].join(", ")).is_ok());
        assert!(Challenge::parse_all(&vec!["X"; MAX_ITEMS + 1].join(", ")).is_err());
        assert!(Challenge::parse_all(&" ".repeat(MAX_HEADER + 1)).is_err());
    }

    proptest! {
        #[test]
        fn our_own_reads_back(description in any::<String>(), url in any::<String>(), scope in any::<String>()) {
            let error = OAuthError::new(ErrorCode::InvalidDpopProof, description);
            let challenge = Challenge::dpop(Some(&error)).with_resource_metadata(&url).with_scope(&scope);
            let header = challenge.to_string();
            prop_assert!(header.chars().all(|c| matches!(c, ' '..='~')));
            prop_assert_eq!(Challenge::parse_all(&header), Ok(vec![challenge]));
        }

        #[test]
        fn any_text_is_answered(header in any::<String>()) {
            let _ = Challenge::parse_all(&header);
        }
    }
}
