//! The forms of a request to revoke, told apart by their parameters alone.

use taper_oauth::{ErrorCode, Form};

use crate::error::Refusal;
use crate::rules;

/// What `branch` says for the last hand-over that the proof's key signed.
const LAST: &str = "last";
/// The parameters that say what is revoked. Others, as `token_type_hint`, are not looked at.
const PARAMETERS: [&str; 9] = [
    "token",
    "to",
    "branch",
    "holder",
    "grant_id",
    "subject",
    "subject_issuer",
    "after",
    "everything",
];

/// A request, by whose word it goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked<'a> {
    ByHolder(ByHolder<'a>),
    ByClient(ByClient<'a>),
}

/// What a key asks for, with a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByHolder<'a> {
    /// The grant of a capability (RFC 7009).
    Grant { token: &'a str },
    /// What the key handed to another one under this grant.
    Delegation { token: &'a str, to: &'a str },
    /// A branch that the key signed.
    Branch { token: &'a str, branch: Branch<'a> },
    /// The key itself, everywhere.
    Key { holder: &'a str, token: Option<&'a str> },
}

/// Which branch of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Branch<'a> {
    /// By its id.
    Id(&'a str),
    /// The last hand-over by the proof's key.
    Last,
}

/// What a client asks for, with its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByClient<'a> {
    Grant {
        id: &'a str,
    },
    /// A branch of a grant; the capability shows that it is one.
    Branch {
        id: &'a str,
        branch: &'a str,
        token: &'a str,
    },
    /// Every grant of the client for a subject, from the one after `after`.
    Subject {
        iss: &'a str,
        sub: &'a str,
        after: Option<&'a str>,
    },
    /// The client itself.
    Everything,
}

impl<'a> ByHolder<'a> {
    /// The capability that is shown.
    pub(super) fn token(&self) -> Option<&'a str> {
        match *self {
            Self::Grant { token } | Self::Delegation { token, .. } | Self::Branch { token, .. } => {
                Some(token)
            }
            Self::Key { token, .. } => token,
        }
    }
}

/// Reads which form a request is. A parameter of another form beside it is refused: it was meant to say
/// something.
pub(super) fn read(form: &Form) -> Result<Asked<'_>, Refusal> {
    let get = |name: &str| form.get(name);
    let require = |name: &str| {
        form.require(name)
            .map_err(|answer| Refusal::answered(rules::REVOKE_FORM, answer))
    };
    let (asked, own): (Asked<'_>, &[&str]) = if let Some(value) = get("everything") {
        if value != "true" {
            return Err(refused("`everything` has the value `true`"));
        }
        (Asked::ByClient(ByClient::Everything), &["everything"])
    } else if let Some(sub) = get("subject") {
        let (iss, after) = (require("subject_issuer")?, get("after"));
        (
            Asked::ByClient(ByClient::Subject { iss, sub, after }),
            &["subject", "subject_issuer", "after"],
        )
    } else if let Some(id) = get("grant_id") {
        match get("branch") {
            None => (Asked::ByClient(ByClient::Grant { id }), &["grant_id"]),
            Some(branch) => {
                let token = require("token")?;
                (
                    Asked::ByClient(ByClient::Branch { id, branch, token }),
                    &["grant_id", "branch", "token"],
                )
            }
        }
    } else if let Some(holder) = get("holder") {
        let token = get("token");
        (
            Asked::ByHolder(ByHolder::Key { holder, token }),
            &["holder", "token"],
        )
    } else {
        let token = require("token")?;
        match (get("to"), get("branch")) {
            (Some(to), _) => (
                Asked::ByHolder(ByHolder::Delegation { token, to }),
                &["token", "to"],
            ),
            (None, Some(branch)) => {
                let branch = if branch == LAST {
                    Branch::Last
                } else {
                    Branch::Id(branch)
                };
                (
                    Asked::ByHolder(ByHolder::Branch { token, branch }),
                    &["token", "branch"],
                )
            }
            (None, None) => (Asked::ByHolder(ByHolder::Grant { token }), &["token"]),
        }
    };
    let beside = PARAMETERS
        .iter()
        .find(|name| get(name).is_some() && !own.contains(name));
    match beside {
        Some(name) if !rules::REVOKE_FORM.holds(false) => Err(refused(format!(
            "`{name}` does not go with {}: revoke one thing at a time",
            own.iter()
                .map(|name| format!("`{name}`"))
                .collect::<Vec<_>>()
                .join(", ")
        ))),
        _ => Ok(asked),
    }
}

/// The form or a value in it is not one that can mean anything.
pub(super) fn refused(description: impl AsRef<str>) -> Refusal {
    Refusal::new(rules::REVOKE_FORM, ErrorCode::InvalidRequest, description)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_told_by_its_parameters() {
        let check = |body: &str, expected: Option<Asked<'_>>| {
            let form = Form::parse(body.as_bytes(), 1024).unwrap();
            assert_eq!(read(&form).ok(), expected, "{body}");
        };
        let holder = |asked| Some(Asked::ByHolder(asked));
        let client = |asked| Some(Asked::ByClient(asked));
        let token = "t";
        check("token=t", holder(ByHolder::Grant { token }));
        check(
            "token=t&client_id=c&token_type_hint=x&unknown=y",
            holder(ByHolder::Grant { token }),
        );
        check("token=t&to=k", holder(ByHolder::Delegation { token, to: "k" }));
        let branch = Branch::Id("b");
        check("token=t&branch=b", holder(ByHolder::Branch { token, branch }));
        let branch = Branch::Last;
        check("token=t&branch=last", holder(ByHolder::Branch { token, branch }));
        let key = |token| holder(ByHolder::Key { holder: "k", token });
        check("holder=k", key(None));
        check("holder=k&token=t", key(Some("t")));
        check("grant_id=g", client(ByClient::Grant { id: "g" }));
        let (id, branch) = ("g", "b");
        check(
            "grant_id=g&branch=b&token=t",
            client(ByClient::Branch { id, branch, token }),
        );
        let subject = |after| {
            client(ByClient::Subject {
                iss: "i",
                sub: "s",
                after,
            })
        };
        check("subject=s&subject_issuer=i", subject(None));
        check("subject=s&subject_issuer=i&after=g", subject(Some("g")));
        check("everything=true", client(ByClient::Everything));
        for wrong in [
            "",
            "to=k",
            "branch=b",
            "after=g",
            "subject_issuer=i",
            "subject=s",
            "everything=1",
            "token=t&to=k&branch=b",
            "token=t&subject_issuer=i",
            "token=t&after=g",
            "holder=k&to=k",
            "holder=k&branch=b",
            "grant_id=g&token=t",
            "grant_id=g&branch=b",
            "grant_id=g&holder=k",
            "grant_id=g&to=k",
            "subject=s&subject_issuer=i&token=t",
            "subject=s&subject_issuer=i&grant_id=g",
            "everything=true&token=t",
            "everything=true&subject=s",
        ] {
            check(wrong, None);
        }
    }
}
