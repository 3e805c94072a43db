//! Showing a chain to people and programs: who, what, until when, each link and what it restricts,
//! or what all of it together still allows.
//!
//! A chain holds text of everybody who ever held it. All of it goes through
//! [`taper_capability::escaped`], so that nothing can forge a line or command a terminal.

use serde::Serialize;
use taper_capability::{
    Caveat, Effective, LinkKind, Party, Token, UnverifiedToken, VerifiedChain, escaped, quoted,
};
use taper_dpop::PublicKey;
use taper_service::clock::{human_duration, rfc3339};

use crate::Error;

/// What is said of a chain that nobody checked.
const WARNING: &str = "UNVERIFIED: anyone can write what follows; `taper verify` checks it";

/// What a chain says. The texts are as they stand in the token, but for other checks;
/// [`Report::to_text`] escapes them.
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
    /// Who acts for the subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<Party>,
    /// Claims of the subject, as (name, value).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<(String, String)>,
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
    /// The id of the branch that begins with this link, 64 hex digits: what a revocation by branch names.
    pub branch: String,
    /// Hand-overs up to and with this link.
    pub depth: u32,
    /// Its own end, in seconds since the Unix epoch.
    pub expires_at: i64,
    /// What its signer noted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Its restrictions that are caveats of the profile.
    pub caveats: Vec<Caveat>,
    /// Its other restrictions, as escaped Datalog.
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
        for (index, (link, branch)) in chain.links().iter().zip(chain.branch_ids()).enumerate() {
            let kind = match before {
                None => LinkKind::Grant,
                Some(key) if key == &link.holder => LinkKind::Narrowing,
                Some(_) => LinkKind::HandOver,
            };
            depth += u32::from(kind == LinkKind::HandOver);
            before = Some(&link.holder);
            links.push(LinkReport {
                index,
                kind: kind_name(kind),
                holder: link.holder.thumbprint().to_string(),
                branch: hex(&branch),
                depth,
                expires_at: link.expires_at(),
                note: link.note.clone(),
                caveats: link.caveats().0,
                other_checks: link.other_checks(),
            });
        }
        Ok(Self {
            verified: false,
            issuer: chain.issuer().to_owned(),
            grant: chain.grant_id().to_owned(),
            subject: chain.subject().clone(),
            client: chain.client().to_owned(),
            actor: chain.actor().cloned(),
            claims: chain.claims().to_vec(),
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
        let link = |(link, branch): (&taper_capability::Link, &[u8; 32])| {
            let others = link.caveats.iter().filter(|check| check.caveat().is_none());
            LinkReport {
                index: link.index,
                kind: kind_name(link.kind),
                holder: link.holder.thumbprint().to_string(),
                branch: hex(branch),
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
            claims: chain.claims().to_vec(),
            audiences: chain.audiences().to_vec(),
            rights: chain.rights().iter().map(ToString::to_string).collect(),
            issued_at: chain.issued_at(),
            expires_at: chain.expires_at(),
            max_depth: chain.max_depth(),
            links: chain.links().iter().zip(chain.branch_ids()).map(link).collect(),
        }
    }

    /// The report for people, as it stands at `now` (seconds since the Unix epoch). Whatever the
    /// chain's texts hold, each part, link and restriction has one line.
    pub fn to_text(&self, now: i64) -> String {
        let mut lines = vec![heading(self.verified).to_owned()];
        let party = |party: &Party| format!("{} at {}", escaped(&party.sub), escaped(&party.iss));
        let mut part = |name: &str, value: String| lines.push(format!("{name:<9} {value}"));
        part("issuer", escaped(&self.issuer));
        part("grant", escaped(&self.grant));
        part("subject", party(&self.subject));
        if let Some(actor) = &self.actor {
            part("actor", party(actor));
        }
        for (name, value) in &self.claims {
            part("claim", format!("{} = {}", escaped(name), quoted(value)));
        }
        part("client", escaped(&self.client));
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
        lines.extend(self.links.iter().flat_map(LinkReport::to_lines));
        lines.join("\n")
    }

    /// The report for programs.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl LinkReport {
    /// Who holds it until when, then a line for each restriction: what they say cannot pose as
    /// another one.
    fn to_lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{:>3} {:<9} {} until {}",
            self.index,
            self.kind,
            escaped(&self.holder),
            rfc3339(self.expires_at)
        )];
        let mut under = |text: String| lines.push(format!("{:>13} {text}", ""));
        if self.index > 0 {
            under(format!("branch {}", escaped(&self.branch)));
        }
        self.caveats.iter().for_each(|caveat| under(caveat.to_string()));
        for check in &self.other_checks {
            under(format!("also {check}"));
        }
        if let Some(note) = &self.note {
            under(format!("note {}", quoted(note)));
        }
        lines
    }
}

/// What all links together still allow, for people and for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EffectiveReport {
    /// Whether every signature and every rule was checked.
    pub verified: bool,
    /// What is allowed.
    pub effective: Effective,
}

impl EffectiveReport {
    /// What `token` says of itself.
    ///
    /// # Errors
    /// [`Error::Capability`] when it has not the shape of a capability.
    pub fn unverified(token: &Token) -> Result<Self, Error> {
        Ok(Self {
            verified: false,
            effective: Effective::of_unverified(&UnverifiedToken::decode(token.as_str())?),
        })
    }

    /// What a verified chain allows, revocation and policies apart.
    pub fn verified(chain: &VerifiedChain) -> Self {
        Self {
            verified: true,
            effective: Effective::of_verified(chain),
        }
    }

    /// The report for people, as it stands at `now` (seconds since the Unix epoch).
    pub fn to_text(&self, now: i64) -> String {
        format!(
            "{}\n{}\nat present  {}",
            heading(self.verified),
            self.effective,
            remaining(self.effective.expires_at, now)
        )
    }

    /// The report for programs.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

fn heading(verified: bool) -> &'static str {
    if verified { "verified" } else { WARNING }
}

fn kind_name(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::Grant => "grant",
        LinkKind::HandOver => "hand-over",
        LinkKind::Narrowing => "narrowing",
    }
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn list(texts: &[String]) -> String {
    texts
        .iter()
        .map(|text| escaped(text))
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
    use taper_capability::{
        ArgumentMatch, ArgumentValue, Delegation, Grant, ResourceMatch, Right, RootKey, Roots, Verifier,
        issue,
    };
    use taper_dpop::{Algorithm, PrivateKey};
    use taper_service::rng;

    const EVIL: &str = "x\n  9 narrowing\r\u{1b}[31m\u{9b}\u{202e}\u{2066}\u{200b}\u{feff}\u{2028}\0";

    /// Every field that a stranger writes holds the same attack, as far as the profile admits it.
    fn crafted() -> (RootKey, Token) {
        let evil = || EVIL.to_owned();
        let party = || Party {
            iss: evil(),
            sub: evil(),
        };
        let (root, key) = (
            RootKey::generate(1, &mut rng::os()),
            PrivateKey::generate(Algorithm::EdDsa, &mut rng::os()),
        );
        let resource = |matches| Caveat::Resource {
            kind: "repo".into(),
            matches,
        };
        let argument = |matches| Caveat::Argument {
            pointer: format!("/{EVIL}"),
            matches,
        };
        let grant = Grant {
            issuer: evil(),
            id: Grant::new_id(&mut rng::os()),
            subject: party(),
            client: evil(),
            actor: Some(party()),
            holder: key.public(),
            audiences: vec![evil()],
            rights: vec![
                Right::AnyTool { server: "git".into() },
                Right::Resource {
                    server: "git".into(),
                    uri_prefix: evil(),
                },
            ],
            claims: vec![(evil(), evil())],
            issued_at: NOW,
            expires_at: NOW + 3_600,
            max_depth: 3,
            caveats: vec![
                resource(ResourceMatch::OneOf(vec![evil()])),
                resource(ResourceMatch::Prefix(format!("{EVIL}/"))),
                argument(ArgumentMatch::Equals(ArgumentValue::String(evil()))),
                argument(ArgumentMatch::OneOf(vec![ArgumentValue::String(evil())])),
                argument(ArgumentMatch::Prefix(evil())),
                Caveat::Method {
                    methods: vec![evil()],
                },
                Caveat::Audience {
                    audiences: vec![evil()],
                },
            ],
        };
        let token = issue(&grant, &root, &mut rng::os()).unwrap();
        let child = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
        let token = Delegation::to(child.public())
            .until(NOW + 600)
            .note(EVIL)
            .sign(&token, &key, &mut rng::os())
            .unwrap();
        (root, token)
    }

    #[test]
    fn no_text_of_a_stranger_forges_a_line_or_a_colour() {
        let (root, token) = crafted();
        let roots = Roots::new().trust(EVIL, 1, root.public(), None).unwrap();
        let decoded = UnverifiedToken::decode(token.as_str()).unwrap();
        let chain = Verifier::new(roots).verify(decoded, NOW).unwrap();
        let whole = [
            Report::unverified(&token).unwrap().to_text(NOW),
            Report::verified(&chain).to_text(NOW),
        ];
        for text in &whole {
            // A heading, ten parts, a grant with seven restrictions, a hand-over with its branch and a note.
            assert_eq!(text.lines().count(), 1 + 10 + 8 + 3, "{text}");
        }
        let effective = [
            EffectiveReport::unverified(&token).unwrap().to_text(NOW),
            EffectiveReport::verified(&chain).to_text(NOW),
        ];
        assert_eq!(effective[0].lines().count(), effective[1].lines().count());
        for text in whole.iter().chain(&effective) {
            let deceives = |c: char| {
                (c.is_control() && c != '\n')
                    || matches!(c, '\u{200b}' | '\u{2028}' | '\u{202e}' | '\u{2066}' | '\u{feff}')
            };
            assert!(!text.contains(deceives), "{text:?}");
            assert!(!text.lines().any(|line| line.starts_with("  9")), "{text}");
            assert!(text.contains(r"x\u{a}  9 narrowing\u{d}\u{1b}[31m"), "{text}");
        }
    }

    #[test]
    fn checks_of_other_forms_are_shown() {
        let chain = Chain::new();
        let mut report = Report::unverified(&chain.token).unwrap();
        report.links[0].other_checks = vec!["check if body_bound(true)".to_owned()];
        let text = report.to_text(NOW);
        assert!(
            text.ends_with("              also check if body_bound(true)"),
            "{text}"
        );
    }

    #[test]
    fn a_report_says_how_long_and_how_often() {
        let chain = Chain::new();
        let child = PrivateKey::generate(Algorithm::EdDsa, &mut rng::os());
        let repo = Caveat::Resource {
            kind: "repo".into(),
            matches: ResourceMatch::OneOf(vec!["acme/web".into()]),
        };
        let token = Delegation::to(child.public())
            .until(NOW + 600)
            .only(repo)
            .note("for the \"review\"")
            .sign(&chain.token, &chain.key, &mut rng::os())
            .unwrap();
        let report = Report::unverified(&token).unwrap();
        let text = report.to_text(NOW);
        assert!(text.starts_with("UNVERIFIED"), "{text}");
        assert!(
            text.ends_with(
                "\n              only repo acme/web\n              note \"for the \\\"review\\\"\""
            ),
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
        let effective = EffectiveReport::unverified(&token).unwrap();
        assert!(effective.to_text(NOW).starts_with("UNVERIFIED"));
        assert!(effective.to_text(NOW).ends_with("10m left"));
        let json = effective.to_json();
        assert_eq!(
            (
                &json["verified"],
                &json["effective"]["resources"]["repo"]["one_of"][0]
            ),
            (&false.into(), &"acme/web".into())
        );
    }

    #[test]
    fn verified_and_unverified_reports_agree() {
        let chain = Chain::new();
        let child = PrivateKey::generate(Algorithm::Es256, &mut rng::os());
        let token = Delegation::to(child.public())
            .until(NOW + 600)
            .sign(&chain.token, &chain.key, &mut rng::os())
            .unwrap();
        let roots = Roots::new()
            .trust(&chain.issuer, 1, chain.root.public(), None)
            .unwrap();
        let decoded = UnverifiedToken::decode(token.as_str()).unwrap();
        let verified = Report::verified(&Verifier::new(roots).verify(decoded, NOW).unwrap());
        let unverified = Report::unverified(&token).unwrap();
        assert!(verified.verified && !unverified.verified);
        assert_ne!(verified.links[0].branch, verified.links[1].branch);
        assert_eq!(
            Report {
                verified: false,
                ..verified
            },
            unverified
        );
    }
}
