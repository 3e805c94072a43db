//! One request on its way to the proxy, without IO: what is sent, what is sent once more, and what the
//! client gets. Every request ends in exactly one of [`Output::Pass`] and [`Output::Refuse`].
//!
//! Only refusals that come before anything was done are answered by sending again: a demand for a nonce
//! (RFC 9449 section 9) and a capability that is no longer accepted, each once. A connection that broke is
//! not: the request may have been carried out.

use http::{HeaderMap, StatusCode};
use taper_oauth::ErrorCode;

use super::trouble::{Trouble, cut};
use crate::proven::{self, DPOP_NONCE};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// There is a credential.
    Ready,
    /// There is none.
    Unavailable(Trouble),
    /// The head of the answer arrived.
    Head(Head),
    /// There is no answer.
    Failed(Trouble),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// Get the credential that holds at this time.
    Obtain,
    /// Get another one: this one was refused.
    Renew,
    /// Sign with the newest nonce, and send.
    Send,
    /// The answer that arrived is the client's.
    Pass,
    /// The client gets this error.
    Refuse(Trouble),
}

/// What the head of an answer says of the presentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Nothing: it is the answer.
    Answer,
    /// A proof with the nonce that came along is needed.
    NonceWanted,
    /// The capability is not accepted any more: expired, revoked, of unknown keys.
    TokenRefused(String),
    /// Something else about the presentation is not accepted.
    Refused(String),
    /// The grant has no such right.
    Scope(Option<String>),
}

/// One request.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    nonce_given: bool,
    /// What was said of the credential that was replaced.
    refused: Option<String>,
}

impl Exchange {
    /// What is to be done first.
    pub(super) const FIRST: Output = Output::Obtain;

    /// What is to be done next.
    pub(super) fn step(&mut self, input: Input) -> Output {
        match input {
            Input::Ready => Output::Send,
            Input::Unavailable(trouble) => Output::Refuse(match (self.refused.take(), trouble) {
                (Some(said), Trouble::Credential(why)) => Trouble::Refused(format!("{said}, and {why}")),
                (_, trouble) => trouble,
            }),
            Input::Failed(trouble) => Output::Refuse(trouble),
            Input::Head(Head::Answer) => Output::Pass,
            Input::Head(Head::NonceWanted) if !self.nonce_given => {
                self.nonce_given = true;
                Output::Send
            }
            Input::Head(Head::NonceWanted) => {
                Output::Refuse(Trouble::Refused("it asks for one nonce after another".to_owned()))
            }
            Input::Head(Head::TokenRefused(said)) if self.refused.is_none() => {
                self.refused = Some(said);
                Output::Renew
            }
            Input::Head(Head::TokenRefused(said)) => {
                let next = "exchange a new one with `taper exchange`, or see `taper doctor`";
                Output::Refuse(Trouble::Refused(format!("{said}; {next}")))
            }
            Input::Head(Head::Refused(said)) => {
                let next = "see that this machine's clock is right, and `taper doctor`";
                Output::Refuse(Trouble::Refused(format!("{said}; {next}")))
            }
            Input::Head(Head::Scope(scope)) => Output::Refuse(Trouble::Scope { scope }),
        }
    }
}

impl Head {
    /// Reads the head of an answer. A 401 of the proxy always concerns the presentation.
    pub(super) fn read(status: StatusCode, headers: &HeaderMap) -> Self {
        if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Self::Answer;
        }
        let challenge = proven::challenge(headers);
        let param = |name| challenge.as_ref().and_then(|c| c.param(name));
        let error = param("error").unwrap_or_default();
        let is = |code: ErrorCode| error == code.as_str();
        if status == StatusCode::FORBIDDEN {
            return match is(ErrorCode::InsufficientScope) {
                true => Self::Scope(param("scope").map(cut)),
                false => Self::Answer,
            };
        }
        if is(ErrorCode::UseDpopNonce) && headers.contains_key(DPOP_NONCE) {
            return Self::NonceWanted;
        }
        let said = match param("error_description") {
            Some(description) => format!("{error} ({description})"),
            None if error.is_empty() => "it does not say why".to_owned(),
            None => error.to_owned(),
        };
        match is(ErrorCode::InvalidToken) {
            true => Self::TokenRefused(cut(&said)),
            false => Self::Refused(cut(&said)),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::WWW_AUTHENTICATE;
    use proptest::prelude::*;

    use super::*;

    fn head(status: u16, challenge: &'static str, nonce: bool) -> Head {
        let mut headers = HeaderMap::new();
        if !challenge.is_empty() {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if nonce {
            headers.insert(DPOP_NONCE, HeaderValue::from_static("n"));
        }
        Head::read(StatusCode::from_u16(status).unwrap(), &headers)
    }

    #[test]
    fn heads() {
        assert_eq!(head(200, "", false), Head::Answer);
        assert_eq!(head(404, "", false), Head::Answer);
        assert_eq!(head(403, "", false), Head::Answer);
        let nonce = r#"DPoP error="use_dpop_nonce""#;
        assert_eq!(head(401, nonce, true), Head::NonceWanted);
        assert!(matches!(head(401, nonce, false), Head::Refused(_)));
        assert_eq!(head(400, nonce, true), Head::Answer);
        let token = r#"DPoP error="invalid_token", error_description="expired""#;
        assert_eq!(
            head(401, token, false),
            Head::TokenRefused("invalid_token (expired)".to_owned())
        );
        let proof = r#"DPoP error="invalid_dpop_proof""#;
        assert_eq!(
            head(401, proof, false),
            Head::Refused("invalid_dpop_proof".to_owned())
        );
        assert!(matches!(head(401, "", false), Head::Refused(_)));
        let scope = r#"DPoP error="insufficient_scope", scope="git:git_log""#;
        assert_eq!(
            head(403, scope, false),
            Head::Scope(Some("git:git_log".to_owned()))
        );
    }

    fn input() -> impl Strategy<Value = Input> {
        prop_oneof![
            Just(Input::Head(Head::Answer)),
            Just(Input::Head(Head::NonceWanted)),
            Just(Input::Head(Head::TokenRefused("x".into()))),
            Just(Input::Head(Head::Refused("x".into()))),
            Just(Input::Head(Head::Scope(None))),
            Just(Input::Failed(Trouble::TimedOut)),
        ]
    }

    proptest! {
        #[test]
        fn each_cause_is_retried_once_and_each_request_ends(
            answers in proptest::collection::vec(input(), 4),
            renewable in any::<bool>(),
        ) {
            let mut exchange = Exchange::default();
            let mut answers = answers.into_iter();
            let (mut sent, mut renewed, mut last) = (0, 0, None);
            let mut output = Exchange::FIRST;
            loop {
                let input = match output {
                    Output::Obtain => Input::Ready,
                    Output::Renew => {
                        renewed += 1;
                        match renewable {
                            true => Input::Ready,
                            false => Input::Unavailable(Trouble::Credential("x".into())),
                        }
                    }
                    Output::Send => {
                        sent += 1;
                        // More sends than causes would run out of answers here.
                        let answer = answers.next().unwrap();
                        last = Some(answer.clone());
                        answer
                    }
                    Output::Pass => {
                        prop_assert_eq!(last, Some(Input::Head(Head::Answer)));
                        break;
                    }
                    Output::Refuse(_) => {
                        prop_assert_ne!(last, Some(Input::Head(Head::Answer)));
                        break;
                    }
                };
                output = exchange.step(input);
            }
            prop_assert!(sent <= 3 && renewed <= 1, "{} {}", sent, renewed);
        }
    }
}
