//! Showing a chain to people and programs: who, what, until when, one line for each link.
//!
//! A chain holds text of everybody who ever held it. All of it goes through [`crate::escape`], so
//! that no note can forge a line, a column of its own or a command to the terminal.

use std::fmt::Write as _;

use serde::Serialize;
use taper_capability::{Caveat, LinkKind, Party, Token, UnverifiedToken, VerifiedChain};
use taper_dpop::PublicKey;
use taper_service::clock::{human_duration, rfc3339};

use crate::Error;
use crate::escape::{printable, quoted};

/// What is said of a chain that nobody checked.
const WARNING: &str = "UNVERIFIED: anyone can write what follows; `taper verify` checks it";

/// What a chain says. The texts are as they stand in the token; [`Report::to_text`] escapes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether every signature and every rule was checked.
    pub verified: bool,
    /// Who granted.
    pub issuer: String,
    /// The grant's id at that issuer.
    pub grant: String,
    /// For whom.
    pub subject: Party,
    /// The OAuth client that asked.
    pub client: String,
    /// Who acts for the subject; shown of verified chains only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<Party>,
    /// Where it counts.
    pub audiences: Vec<String>,
    /// What was granted.
    pub rights: Vec<String>,
    /// Seconds since the Unix epoch.
    pub issued_at: i64,
    /// The earliest end in the chain, in seconds since the Unix epoch.
    pub expires_at: i64,
    /// How often it may be handed on in all.
    pub max_depth: u32,
    /// The links, the grant first.
    pub links: Vec<LinkReport>,
}

/// What one link says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LinkReport {
    /// Its position; 0 is the grant.
    pub index: usize,
    /// `grant`, `hand-over` or `narrowing`.
    pub kind: &'static str,
    /// The RFC 7638 thumbprint of the key that holds the chain after it.
    pub holder: String,
    /// Hand-overs up to and with this link.
    pub depth: u32,
    /// Its own end, in seconds since the Unix epoch.
    pub expires_at: i64,
    /// What its signer noted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Its restrictions that are caveats of the profile.
    pub caveats: Vec<Caveat>,
    /// Its other restrictions, as Datalog; of an unverified chain only how many there are.
    pub other_checks: Vec<String>,
}

impl Report {
    /// What `token` says of itself.
    ///
    /// # Errors
    /// [`Error::Capability`] when it has not the shape of a capability.
    pub fn unverified(token: &Token) -> Result<Self, Error> {
        let chain = UnverifiedToken::decode(token.as_str())?;
        let mut depth = 0;
        let mut before: Option<&PublicKey> = None;
        let mut links = Vec::new();
        for (index, link) in chain.links().iter().enumerate() {
            let kind = match before {
                None => LinkKind::Grant,
                Some(key) if key == &link.holder => LinkKind::Narrowing,
                Some(_) => LinkKind::HandOver,
            };
            depth += u32::from(kind == LinkKind::HandOver);
            before = Some(&link.holder);
            let (caveats, others) = link.caveats();
            links.push(LinkReport {
                index,
                kind: kind_name(kind),
                holder: link.holder.thumbprint().to_string(),
                depth,
                expires_at: link.expires_at(),
                note: link.note.clone(),
                caveats,
                other_checks: vec!["a check of another form".to_owned(); others],
            });
        }
        Ok(Self {
            verified: false,
            issuer: chain.issuer().to_owned(),
            grant: chain.grant_id().to_owned(),
            subject: chain.subject().clone(),
            client: chain.client().to_owned(),
            actor: None,
            audiences: chain.audiences().to_vec(),
            rights: chain.rights().iter().map(ToString::to_string).collect(),
            issued_at: chain.issued_at(),
            expires_at: chain.expires_at(),
            max_depth: chain.max_depth(),
            links,
        })
    }

    /// What a verified chain says.
    pub fn verified(chain: &VerifiedChain) -> Self {
        let link = |link: &taper_capability::Link| {
            let others = link.caveats.iter().filter(|check| check.caveat().is_none());
            LinkReport {
                index: link.index,
                kind: kind_name(link.kind),
                holder: link.holder.thumbprint().to_string(),
                depth: link.depth,
                expires_at: link.expires_at,
                note: link.note.clone(),
                caveats: link
                    .caveats
                    .iter()
                    .filter_map(|check| check.caveat().cloned())
                    .collect(),
                other_checks: others.map(|check| check.datalog()).collect(),
            }
        };
        Self {
            verified: true,
            issuer: chain.issuer().to_owned(),
            grant: chain.grant_id().to_owned(),
            subject: chain.subject().clone(),
            client: chain.client().to_owned(),
            actor: chain.actor().cloned(),
            audiences: chain.audiences().to_vec(),
            rights: chain.rights().iter().map(ToString::to_string).collect(),
            issued_at: chain.issued_at(),
            expires_at: chain.expires_at(),
            max_depth: chain.max_depth(),
            links: chain.links().iter().map(link).collect(),
        }
    }

    /// The report for people, as it stands at `now` (seconds since the Unix epoch). It has one line
    /// for each part and each link, whatever the chain's texts hold.
    pub fn to_text(&self, now: i64) -> String {
        let mut lines = vec![if self.verified {
            "verified".to_owned()
        } else {
            WARNING.to_owned()
        }];
        let party = |party: &Party| format!("{} at {}", printable(&party.sub), printable(&party.iss));
        let mut part = |name: &str, value: String| lines.push(format!("{name:<9} {value}"));
        part("issuer", printable(&self.issuer));
        part("grant", printable(&self.grant));
        part("subject", party(&self.subject));
        if let Some(actor) = &self.actor {
            part("actor", party(actor));
        }
        part("client", printable(&self.client));
        part("audience", list(&self.audiences));
        part("rights", list(&self.rights));
        part(
            "until",
            format!(
                "{} ({})",
                rfc3339(self.expires_at),
                remaining(self.expires_at, now)
            ),
        );
        let depth = self.links.last().map_or(0, |link| link.depth);
        part(
            "handed on",
            format!("{depth} of at most {} times", self.max_depth),
        );
        lines.extend(self.links.iter().map(LinkReport::to_line));
        lines.join("\n")
    }

    /// The report for programs.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl LinkReport {
    fn to_line(&self) -> String {
        let mut line = format!(
            "{:>3} {:<9} {} until {}",
            self.index,
            self.kind,
            printable(&self.holder),
            rfc3339(self.expires_at)
        );
        let others = self.other_checks.iter().map(|check| printable(check));
        let says = self
            .caveats
            .iter()
            .map(|caveat| printable(&caveat.to_string()))
            .chain(others);
        // Writing to a string does not fail.
        for restriction in says {
            let _ = write!(line, "; {restriction}");
        }
        if let Some(note) = &self.note {
            let _ = write!(line, "; note {}", quoted(note));
        }
        line
    }
}

fn kind_name(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::Grant => "grant",
        LinkKind::HandOver => "hand-over",
        LinkKind::Narrowing => "narrowing",
    }
}

fn list(texts: &[String]) -> String {
    texts
        .iter()
        .map(|text| printable(text))
        .collect::<Vec<_>>()
        .join(", ")
}

fn remaining(expires_at: i64, now: i64) -> String {
    match u64::try_from(expires_at.saturating_sub(now)) {
        Ok(left) if left > 0 => format!("{} left", human_duration(left)),
        _ => "expired".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Chain, NOW};
    use taper_capability::{Delegation, ResourceMatch, Roots, Verifier};
    use taper_dpop::{Algorithm, PrivateKey};
    use taper_service::rng;

    #[test]
    fn a_note_can_neither_forge_a_line_nor_command_a_terminal() {
        let chain = Chain::new();
        let child = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
        let repo = Caveat::Resource {
            kind: "repo".into(),
            matches: ResourceMatch::OneOf(vec!["acme/web\u{1b}[2K\r".into()]),
        };
        let token = Delegation::to(child.public())
            .until(NOW + 600)
            .only(repo)
            .note("fine\n  2 narrowing x\u{1b}[31m\u{202e}\"")
            .sign(&chain.token, &chain.key, &mut rng::os())
            .unwrap();
        let report = Report::unverified(&token).unwrap();
        let text = report.to_text(NOW);
        assert_eq!(text.lines().count(), 9 + 2, "{text}");
        assert!(!text.contains(['\u{1b}', '\r', '\u{202e}']), "{text:?}");
        assert!(text.starts_with("UNVERIFIED"));
        assert!(
            text.ends_with(r#"note "fine\u{a}  2 narrowing x\u{1b}[31m\u{202e}\"""#),
            "{text}"
        );
        assert!(text.contains("2026-01-31T09:40:00Z (10m left)"), "{text}");
        assert!(text.contains("handed on 1 of at most 3 times"), "{text}");
        assert!(report.to_text(NOW + 600).contains("(expired)"));
        let json = report.to_json();
        assert_eq!(json["verified"], false);
        assert_eq!(json["links"][1]["kind"], "hand-over");
        assert_eq!(
            json["links"][1]["holder"],
            child.public().thumbprint().to_string()
        );
    }

    #[test]
    fn verified_and_unverified_reports_agree() {
        let chain = Chain::new();
        let roots = Roots::new()
            .trust(&chain.issuer, 1, chain.root.public(), None)
            .unwrap();
        let decoded = UnverifiedToken::decode(chain.token.as_str()).unwrap();
        let verified = Report::verified(&Verifier::new(roots).verify(decoded, NOW).unwrap());
        let unverified = Report::unverified(&chain.token).unwrap();
        assert!(verified.verified && !unverified.verified);
        assert_eq!(
            Report {
                verified: false,
                ..verified
            },
            unverified
        );
    }
}
