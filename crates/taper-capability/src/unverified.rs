//! A decoded token of which nothing is known to be true.

use crate::block::{Block, Container, decode, signer};
use crate::chain::{first_branch, next_branch};
use crate::grant::{Party, Right};
use crate::token::decode_text;
use crate::{Caveat, Error, names, rules};
use biscuit_auth::builder::{Fact, Term};
use std::fmt;
use taper_dpop::{PublicKey, TokenHash};
use zeroize::Zeroizing;

/// A decoded capability. Its shape is that of the profile, but no signature was checked: what it
/// says may serve to reject it early, or to show it to a person as unverified.
pub struct UnverifiedToken {
    pub(crate) bytes: Zeroizing<Vec<u8>>,
    pub(crate) hash: TokenHash,
    pub(crate) root_key_id: u32,
    pub(crate) authority: Authority,
    pub(crate) links: Vec<UnverifiedLink>,
}

/// The facts of block 0.
#[derive(Debug)]
pub(crate) struct Authority {
    pub(crate) issuer: String,
    pub(crate) grant: String,
    pub(crate) subject: Party,
    pub(crate) client: String,
    pub(crate) actor: Option<Party>,
    pub(crate) audiences: Vec<String>,
    pub(crate) rights: Vec<Right>,
    pub(crate) claims: Vec<(String, String)>,
    pub(crate) issued_at: i64,
    pub(crate) max_depth: u32,
    pub(crate) holder: PublicKey,
}

/// One link of an unverified chain; the first is block 0.
#[derive(Debug)]
pub struct UnverifiedLink {
    pub(crate) block: Block,
    pub(crate) signer: Option<PublicKey>,
    /// The holder that the block names.
    pub holder: PublicKey,
    /// A note that the signer left; text of a stranger.
    pub note: Option<String>,
    pub(crate) max_depth: Option<u32>,
}

impl UnverifiedLink {
    /// The block's own expiry, in seconds since the Unix epoch.
    #[must_use]
    pub fn expires_at(&self) -> i64 {
        self.block.expires_at
    }

    /// Who signed the block; nobody for block 0, which a root key signs.
    #[must_use]
    pub fn signer(&self) -> Option<&PublicKey> {
        self.signer.as_ref()
    }

    /// The checks that read as caveats of ours, and how many others there are.
    #[must_use]
    pub fn caveats(&self) -> (Vec<Caveat>, usize) {
        let caveats: Vec<_> = self.block.checks.iter().filter_map(Caveat::from_check).collect();
        let others = self.block.checks.len() - caveats.len();
        (caveats, others)
    }

    /// The other checks as Datalog, for people only: escaped, and not meant to be parsed again.
    #[must_use]
    pub fn other_checks(&self) -> Vec<String> {
        self.block
            .checks
            .iter()
            .filter(|check| Caveat::from_check(check).is_none())
            .map(crate::datalog::datalog)
            .collect()
    }
}

impl UnverifiedToken {
    /// Decodes a token's text (P-01 to P-03, P-05 to P-08, P-10 to P-12, P-14, P-21, P-22,
    /// D-01, D-03, D-04, D-06).
    ///
    /// # Errors
    /// The first of those rules that it breaks.
    pub fn decode(text: &str) -> Result<Self, Error> {
        let bytes = decode_text(text)?;
        let Container { root_key_id, blocks } = decode(&bytes)?;
        let mut blocks = blocks.into_iter();
        let first = blocks.next().ok_or(Error::Protobuf("no block 0"))?;
        let authority = authority(&first.facts)?;
        let mut links = vec![UnverifiedLink {
            holder: authority.holder.clone(),
            note: None,
            max_depth: Some(authority.max_depth),
            signer: None,
            block: first,
        }];
        for block in blocks {
            let before = links.last().map_or(&authority.holder, |link| &link.holder);
            let link = later(block, before)?;
            links.push(link);
        }
        Ok(Self {
            bytes,
            hash: TokenHash::of(text),
            root_key_id,
            authority,
            links,
        })
    }

    /// The branch id after each link, the grant's first, as a verifier will compute them.
    #[must_use]
    pub fn branch_ids(&self) -> Vec<[u8; 32]> {
        let mut branch = first_branch(&self.authority.issuer, &self.authority.grant);
        let next = |link: &UnverifiedLink| {
            if let Some(signer) = &link.signer {
                branch = next_branch(&branch, signer, &link.block.payload);
            }
            branch
        };
        self.links.iter().map(next).collect()
    }

    /// The issuer that the token names.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.authority.issuer
    }

    /// The grant's id.
    #[must_use]
    pub fn grant_id(&self) -> &str {
        &self.authority.grant
    }

    /// For whom it says it was granted.
    #[must_use]
    pub fn subject(&self) -> &Party {
        &self.authority.subject
    }

    /// The client it says it was granted to.
    #[must_use]
    pub fn client(&self) -> &str {
        &self.authority.client
    }

    /// Who it says acts for the subject.
    #[must_use]
    pub fn actor(&self) -> Option<&Party> {
        self.authority.actor.as_ref()
    }

    /// The rights it says it has.
    #[must_use]
    pub fn rights(&self) -> &[Right] {
        &self.authority.rights
    }

    /// The audiences it says it counts for.
    #[must_use]
    pub fn audiences(&self) -> &[String] {
        &self.authority.audiences
    }

    /// The claims of the subject that it says it has.
    #[must_use]
    pub fn claims(&self) -> &[(String, String)] {
        &self.authority.claims
    }

    /// When it says it was issued, in seconds since the Unix epoch.
    #[must_use]
    pub fn issued_at(&self) -> i64 {
        self.authority.issued_at
    }

    /// The id of the root key that it says it is signed with.
    #[must_use]
    pub fn root_key_id(&self) -> u32 {
        self.root_key_id
    }

    /// The links, block 0 first.
    #[must_use]
    pub fn links(&self) -> &[UnverifiedLink] {
        &self.links
    }

    /// The holder that the last block names.
    #[must_use]
    pub fn last_holder(&self) -> &PublicKey {
        self.links
            .last()
            .map_or(&self.authority.holder, |link| &link.holder)
    }

    /// The earliest expiry of all links, in seconds since the Unix epoch.
    #[must_use]
    pub fn expires_at(&self) -> i64 {
        self.links
            .iter()
            .map(UnverifiedLink::expires_at)
            .min()
            .unwrap_or(i64::MIN)
    }

    /// How often it was handed on.
    #[must_use]
    pub fn depth(&self) -> u32 {
        let hand_overs = self
            .links
            .windows(2)
            .filter(|pair| matches!(pair, [a, b] if a.holder != b.holder))
            .count();
        u32::try_from(hand_overs).unwrap_or(u32::MAX)
    }

    /// The smallest `max_depth` of the chain.
    #[must_use]
    pub fn max_depth(&self) -> u32 {
        self.links
            .iter()
            .filter_map(|link| link.max_depth)
            .min()
            .unwrap_or(0)
    }

    /// The hash of the text.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        self.hash
    }

    /// Rejects a token that has expired at `now` (P-15): zero tolerance.
    ///
    /// # Errors
    /// [`Error::Expired`].
    pub fn check_expiry(&self, now: i64) -> Result<(), Error> {
        match self.links.iter().min_by_key(|link| link.expires_at()) {
            Some(first) if !rules::NOT_EXPIRED.holds(now < first.expires_at()) => Err(Error::Expired {
                block: first.block.index,
                at: first.expires_at(),
            }),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for UnverifiedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "UnverifiedToken(grant {}, {} links)",
            self.authority.grant,
            self.links.len()
        )
    }
}

fn wrong(fact: &Fact, problem: &'static str) -> Error {
    Error::AuthorityFact {
        fact: fact.predicate.name.escape_debug().to_string(),
        problem,
    }
}

fn once<T>(slot: &mut Option<T>, fact: &Fact, value: T) -> Result<(), Error> {
    match slot.replace(value) {
        Some(_) if !rules::AUTHORITY_COUNTS.holds(false) => Err(Error::AuthorityCount {
            fact: fact.predicate.name.clone(),
            problem: "stands there twice",
        }),
        _ => Ok(()),
    }
}

/// Reads the closed list of facts of block 0 (P-05, P-06, P-11, P-12, P-22).
fn authority(facts: &[Fact]) -> Result<Authority, Error> {
    let (mut taper, mut issuer, mut grant, mut subject, mut client, mut actor) =
        (None, None, None, None, None, None);
    let (mut holder, mut issued_at, mut max_depth) = (None, None, None);
    let (mut audiences, mut rights, mut claims) = (Vec::new(), Vec::new(), Vec::new());
    for fact in facts {
        let text = |s: &String| s.clone();
        let party = |iss: &String, sub: &String| Party {
            iss: iss.clone(),
            sub: sub.clone(),
        };
        match (fact.predicate.name.as_str(), fact.predicate.terms.as_slice()) {
            ("taper", [Term::Integer(n)]) => once(&mut taper, fact, *n)?,
            ("issuer", [Term::Str(s)]) => once(&mut issuer, fact, text(s))?,
            ("grant", [Term::Str(s)]) if names::is_grant_id(s) => once(&mut grant, fact, text(s))?,
            ("subject", [Term::Str(iss), Term::Str(sub)]) => once(&mut subject, fact, party(iss, sub))?,
            ("client", [Term::Str(s)]) => once(&mut client, fact, text(s))?,
            ("actor", [Term::Str(iss), Term::Str(sub)]) => once(&mut actor, fact, party(iss, sub))?,
            ("holder", [Term::Str(alg), Term::Bytes(key)]) => match self::holder(0, alg, key) {
                Err(_) if rules::HOLDER_KEY.holds(false) => {}
                key => once(&mut holder, fact, key?)?,
            },
            ("for_audience", [Term::Str(s)]) => audiences.push(text(s)),
            ("right", [Term::Str(s), Term::Str(t)]) => rights.push(Right::Tool {
                server: text(s),
                tool: text(t),
            }),
            ("right_any_tool", [Term::Str(s)]) => rights.push(Right::AnyTool { server: text(s) }),
            ("right_resource", [Term::Str(s), Term::Str(p)]) => {
                rights.push(Right::Resource {
                    server: text(s),
                    uri_prefix: text(p),
                });
            }
            ("right_prompt", [Term::Str(s), Term::Str(n)]) => {
                rights.push(Right::Prompt {
                    server: text(s),
                    name: text(n),
                });
            }
            ("claim", [Term::Str(n), Term::Str(v)]) => claims.push((text(n), text(v))),
            ("issued_at", [Term::Date(at)]) => {
                once(
                    &mut issued_at,
                    fact,
                    i64::try_from(*at).map_err(|_| wrong(fact, "is out of range"))?,
                )?;
            }
            ("max_depth", [Term::Integer(n)]) => {
                once(
                    &mut max_depth,
                    fact,
                    u32::try_from(*n).map_err(|_| wrong(fact, "is out of range"))?,
                )?;
            }
            _ if rules::AUTHORITY_FACTS.holds(false) => {}
            _ => return Err(wrong(fact, "is unknown or has terms of other types")),
        }
    }
    let missing = |fact: &str| Error::AuthorityCount {
        fact: fact.to_owned(),
        problem: "is missing",
    };
    let version = taper.ok_or_else(|| missing("taper"))?;
    if !rules::VERSION.holds(version == 1) {
        return Err(Error::Version);
    }
    if audiences.is_empty() {
        return Err(missing("for_audience"));
    }
    rights.iter().try_for_each(Right::check_names)?;
    Ok(Authority {
        issuer: issuer.ok_or_else(|| missing("issuer"))?,
        grant: grant.ok_or_else(|| missing("grant"))?,
        subject: subject.ok_or_else(|| missing("subject"))?,
        client: client.ok_or_else(|| missing("client"))?,
        actor,
        audiences,
        rights,
        claims,
        issued_at: issued_at.ok_or_else(|| missing("issued_at"))?,
        max_depth: max_depth.ok_or_else(|| missing("max_depth"))?,
        holder: holder.ok_or_else(|| missing("holder"))?,
    })
}

/// Reads the facts of a later block (D-03, D-04, D-06, P-12).
fn later(block: Block, before: &PublicKey) -> Result<UnverifiedLink, Error> {
    let index = block.index;
    let signer = block.signer.as_ref().map(|key| signer(index, key, before));
    let signer = match signer.transpose() {
        // As if there were none: then the block is nobody's.
        Err(_) if rules::HOLDER_KEY.holds(false) => return Err(Error::NotThirdParty { block: index }),
        other => other?,
    };
    let (mut holders, mut note, mut max_depth) = (Vec::new(), None, None);
    let count = block
        .facts
        .iter()
        .filter(|fact| fact.predicate.name == "holder")
        .count();
    // Asked before a key is parsed: a point costs as much as many facts.
    if !rules::ONE_HOLDER.holds(count == 1) {
        return Err(Error::OneHolder { block: index, count });
    }
    let twice = |fact| Error::LaterCount { block: index, fact };
    for fact in &block.facts {
        let wrong = |problem| Error::LaterFact {
            block: index,
            fact: fact.predicate.name.escape_debug().to_string(),
            problem,
        };
        match (fact.predicate.name.as_str(), fact.predicate.terms.as_slice()) {
            ("holder", [Term::Str(alg), Term::Bytes(key)]) => match holder(index, alg, key) {
                Err(_) if rules::HOLDER_KEY.holds(false) => {}
                key => holders.push(key?),
            },
            ("note", [Term::Str(s)]) if s.len() <= 1024 => {
                if !rules::LATER_COUNTS.holds(note.replace(s.clone()).is_none()) {
                    return Err(twice("note"));
                }
            }
            ("max_depth", [Term::Integer(n)]) => {
                let n = u32::try_from(*n).map_err(|_| wrong("is out of range"))?;
                if !rules::LATER_COUNTS.holds(max_depth.replace(n).is_none()) {
                    return Err(twice("max_depth"));
                }
            }
            _ if rules::LATER_FACTS.holds(false) => {}
            _ => return Err(wrong("is not allowed here")),
        }
    }
    match holders.into_iter().next() {
        Some(holder) => Ok(UnverifiedLink {
            block,
            signer,
            holder,
            note,
            max_depth,
        }),
        None => Err(Error::OneHolder { block: index, count }),
    }
}

fn holder(block: usize, alg: &str, key: &[u8]) -> Result<PublicKey, Error> {
    match alg {
        "ed25519" => PublicKey::ed25519(key),
        "secp256r1" => PublicKey::p256(key),
        _ => return Err(Error::HolderKey { block }),
    }
    .map_err(|_| Error::HolderKey { block })
}
