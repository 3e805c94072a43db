//! Who acts for whom: decided on the claims of the tokens, never on which parameters a request has.
//!
//! A token that says someone acts or may act (`act`, `may_act`) does not come back clean from a request
//! that leaves the actor out, and an actor is only who the subject token allows (RFC 8693 §4.1, §4.4). A
//! token bound to a key counts only with a proof of that key (RFC 9449 §6).

use crate::claims::{Actor, SubjectClaims};
use crate::error::{ErrorCode, OAuthError};

/// Decides the actor of an exchange. `proof_jkt` is the thumbprint of the key of the request's verified
/// proof; both tokens are verified. The actor's chain holds what the subject token's `act` says.
///
/// # Errors
/// `invalid_request`: a token is bound to another key; the actor is missing, not allowed, or itself a
/// delegated one.
pub fn provenance(
    subject: &SubjectClaims,
    actor: Option<&SubjectClaims>,
    proof_jkt: &str,
) -> Result<Option<Actor>, OAuthError> {
    for (claims, name) in [(Some(subject), "subject_token"), (actor, "actor_token")] {
        let bound = claims.and_then(|claims| claims.cnf_jkt.as_deref());
        if bound.is_some_and(|jkt| jkt != proof_jkt) {
            return refuse(&format!("`{name}` is bound to another key"));
        }
    }
    let Some(actor) = actor else {
        if subject.act.is_some() || subject.may_act.is_some() {
            return refuse("the subject token demands an `actor_token`");
        }
        return Ok(None);
    };
    let Some(may_act) = &subject.may_act else {
        return refuse("the subject token does not allow an actor");
    };
    if actor.act.is_some() {
        return refuse("the actor token is itself a delegated one");
    }
    let allowed = may_act.iss == actor.iss
        && may_act.sub.as_ref().is_none_or(|sub| *sub == actor.sub)
        && may_act
            .client_id
            .as_ref()
            .is_none_or(|client| actor.client_id.as_ref() == Some(client))
        && (may_act.sub.is_some() || may_act.client_id.is_some());
    if !allowed {
        return refuse("the subject token allows another actor");
    }
    Ok(Some(Actor {
        iss: actor.iss.clone(),
        sub: actor.sub.clone(),
        act: subject.act.clone().map(Box::new),
    }))
}

fn refuse<T>(description: &str) -> Result<T, OAuthError> {
    Err(OAuthError::new(ErrorCode::InvalidRequest, description))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::MayAct;
    use std::collections::BTreeMap;

    const ISS: &str = "https://id.example";

    fn claims(sub: &str) -> SubjectClaims {
        SubjectClaims {
            iss: ISS.to_owned(),
            sub: sub.to_owned(),
            aud: vec!["taper".to_owned()],
            client_id: Some("bot".to_owned()),
            exp: 100,
            iat: None,
            jti: None,
            act: None,
            may_act: None,
            cnf_jkt: None,
            claims: BTreeMap::new(),
        }
    }

    fn actor(sub: &str, act: Option<Actor>) -> Actor {
        Actor {
            iss: ISS.to_owned(),
            sub: sub.to_owned(),
            act: act.map(Box::new),
        }
    }

    fn may(iss: &str, sub: Option<&str>, client_id: Option<&str>) -> Option<MayAct> {
        Some(MayAct {
            iss: iss.to_owned(),
            sub: sub.map(str::to_owned),
            client_id: client_id.map(str::to_owned),
        })
    }

    /// Alice's token with a change, an actor's token with a change if there is one, a proof by key `k`.
    #[track_caller]
    fn check(
        change: impl FnOnce(&mut SubjectClaims),
        acting: Option<fn(&mut SubjectClaims)>,
        expected: Result<Option<Actor>, &str>,
    ) {
        let mut subject = claims("alice");
        change(&mut subject);
        let acting = acting.map(|change| {
            let mut acting = claims("agent");
            change(&mut acting);
            acting
        });
        match (provenance(&subject, acting.as_ref(), "k"), expected) {
            (Ok(got), Ok(actor)) => assert_eq!(got, actor),
            (Err(error), Err(part)) => {
                assert_eq!(error.code(), ErrorCode::InvalidRequest);
                assert!(error.description().contains(part), "{error}");
            }
            (got, _) => panic!("{got:?}"),
        }
    }

    #[test]
    fn a_bound_token_needs_a_proof_of_its_key() {
        check(|_| {}, None, Ok(None));
        check(|s| s.cnf_jkt = Some("k".to_owned()), None, Ok(None));
        check(
            |s| s.cnf_jkt = Some("other".to_owned()),
            None,
            Err("`subject_token` is bound"),
        );
        let allowed = |s: &mut SubjectClaims| s.may_act = may(ISS, Some("agent"), None);
        check(
            allowed,
            Some(|a| a.cnf_jkt = Some("k".to_owned())),
            Ok(Some(actor("agent", None))),
        );
        check(
            allowed,
            Some(|a| a.cnf_jkt = Some("other".to_owned())),
            Err("`actor_token` is bound"),
        );
    }

    #[test]
    fn a_token_with_provenance_does_not_come_back_clean() {
        check(
            |s| s.act = Some(actor("agent", None)),
            None,
            Err("demands an `actor_token`"),
        );
        check(
            |s| s.may_act = may(ISS, Some("agent"), None),
            None,
            Err("demands an `actor_token`"),
        );
    }

    #[test]
    fn only_the_allowed_actor_acts() {
        check(
            |s| s.may_act = may(ISS, Some("agent"), None),
            Some(|_| {}),
            Ok(Some(actor("agent", None))),
        );
        check(
            |s| s.may_act = may(ISS, None, Some("bot")),
            Some(|_| {}),
            Ok(Some(actor("agent", None))),
        );
        check(
            |s| s.may_act = may(ISS, Some("agent"), Some("bot")),
            Some(|_| {}),
            Ok(Some(actor("agent", None))),
        );
        check(|_| {}, Some(|_| {}), Err("does not allow an actor"));
        check(
            |s| s.act = Some(actor("agent", None)),
            Some(|_| {}),
            Err("does not allow an actor"),
        );
        check(
            |s| s.may_act = may(ISS, Some("mallory"), None),
            Some(|_| {}),
            Err("another actor"),
        );
        check(
            |s| s.may_act = may("https://x.example", Some("agent"), None),
            Some(|_| {}),
            Err("another actor"),
        );
        check(
            |s| s.may_act = may(ISS, Some("agent"), Some("x")),
            Some(|_| {}),
            Err("another actor"),
        );
        check(
            |s| s.may_act = may(ISS, Some("agent"), Some("bot")),
            Some(|a| a.client_id = None),
            Err("another"),
        );
        check(
            |s| s.may_act = may(ISS, None, None),
            Some(|_| {}),
            Err("another actor"),
        );
        let delegated: fn(&mut SubjectClaims) = |a| a.act = Some(actor("x", None));
        check(
            |s| s.may_act = may(ISS, Some("agent"), None),
            Some(delegated),
            Err("delegated"),
        );
    }

    #[test]
    fn the_chain_of_actors_is_kept() {
        let first = actor("first", None);
        check(
            |s| {
                s.act = Some(first.clone());
                s.may_act = may(ISS, Some("agent"), None);
            },
            Some(|_| {}),
            Ok(Some(actor("agent", Some(first.clone())))),
        );
    }
}
