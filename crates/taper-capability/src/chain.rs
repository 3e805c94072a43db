//! A chain all of whose signatures, signers and checks were verified.

use crate::Caveat;
use crate::admission::AdmittedCheck;
use crate::grant::{Party, Right};
use crate::unverified::Authority;
use sha2::{Digest as _, Sha256};
use taper_dpop::{PublicKey, TokenHash};

/// What a link does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// Block 0: the issuer grants.
    Grant,
    /// The holder hands on to another key.
    HandOver,
    /// The holder narrows for itself.
    Narrowing,
}

/// A counter of calls. Its key is (branch, index), which no other link has; its name is chosen by
/// the link's signer and may be that of another counter of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The branch id of the link that has the caveat.
    pub branch: [u8; 32],
    /// The caveat's position among the link's checks.
    pub index: usize,
    /// The name under which its value is supplied.
    pub name: String,
    /// How many calls the caveat allows.
    pub most: i64,
    /// When no capability with this branch can be used any more, in seconds since the Unix epoch. A
    /// branch id fixes the expiry of every link that was signed by a holder, not that of the grant, which
    /// a renewal moves; so the counters of a grant have no end.
    pub until: Option<i64>,
}

/// One verified link.
#[derive(Clone, Debug)]
pub struct Link {
    /// Its position; 0 is the grant.
    pub index: usize,
    /// Who holds the chain after it.
    pub holder: PublicKey,
    /// The hand-overs up to and with this link.
    pub depth: u32,
    /// Its own expiry, in seconds since the Unix epoch.
    pub expires_at: i64,
    /// What it does.
    pub kind: LinkKind,
    /// A note of its signer; never to be printed without escaping.
    pub note: Option<String>,
    /// Its checks, admitted.
    pub caveats: Vec<AdmittedCheck>,
}

/// A capability whose signatures verified, whose every link is signed by the holder before it and
/// whose checks are within the admitted grammar. Obtainable only from [`crate::Verifier::verify`].
///
/// ```compile_fail
/// fn forge(link: taper_capability::Link) -> taper_capability::VerifiedChain {
///     taper_capability::VerifiedChain { links: vec![link] }
/// }
/// ```
/// while its links can be read:
/// ```
/// fn read(chain: &taper_capability::VerifiedChain) -> &[taper_capability::Link] {
///     chain.links()
/// }
/// ```
#[derive(Debug)]
pub struct VerifiedChain {
    pub(crate) authority: Authority,
    pub(crate) links: Vec<Link>,
    pub(crate) branches: Vec<[u8; 32]>,
    pub(crate) expires_at: i64,
    pub(crate) max_depth: u32,
    pub(crate) hash: TokenHash,
}

impl VerifiedChain {
    /// The issuer.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.authority.issuer
    }

    /// The grant's id, unique at its issuer.
    #[must_use]
    pub fn grant_id(&self) -> &str {
        &self.authority.grant
    }

    /// For whom it was granted.
    #[must_use]
    pub fn subject(&self) -> &Party {
        &self.authority.subject
    }

    /// The OAuth client it was granted to.
    #[must_use]
    pub fn client(&self) -> &str {
        &self.authority.client
    }

    /// Who acts for the subject.
    #[must_use]
    pub fn actor(&self) -> Option<&Party> {
        self.authority.actor.as_ref()
    }

    /// The claims of the subject.
    #[must_use]
    pub fn claims(&self) -> &[(String, String)] {
        &self.authority.claims
    }

    /// The resource URIs where it counts.
    #[must_use]
    pub fn audiences(&self) -> &[String] {
        &self.authority.audiences
    }

    /// The rights of the grant.
    #[must_use]
    pub fn rights(&self) -> &[Right] {
        &self.authority.rights
    }

    /// When it was issued, in seconds since the Unix epoch.
    #[must_use]
    pub fn issued_at(&self) -> i64 {
        self.authority.issued_at
    }

    /// The links, the grant first. There is always one.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// How many patterns its checks have. Each is held compiled and takes some 40 KB of memory.
    #[must_use]
    pub fn patterns(&self) -> usize {
        let checks = self.links.iter().flat_map(|link| &link.caveats);
        checks.map(AdmittedCheck::patterns).sum()
    }

    /// How often it was handed on.
    #[must_use]
    pub fn depth(&self) -> u32 {
        self.links.last().map_or(0, |link| link.depth)
    }

    /// How often it may be handed on in all.
    #[must_use]
    pub fn max_depth(&self) -> u32 {
        self.max_depth
    }

    /// When it ends: the earliest expiry of its links, in seconds since the Unix epoch.
    #[must_use]
    pub fn expires_at(&self) -> i64 {
        self.expires_at
    }

    /// Who may present it.
    #[must_use]
    pub fn last_holder(&self) -> &PublicKey {
        self.links
            .last()
            .map_or(&self.authority.holder, |link| &link.holder)
    }

    /// The branch id after each link, the grant's first: what a revocation by branch names.
    #[must_use]
    pub fn branch_ids(&self) -> &[[u8; 32]] {
        &self.branches
    }

    /// What is counted for the max-calls caveats of the chain (RULES 16).
    #[must_use]
    pub fn counters(&self) -> Vec<Counter> {
        let mut counters = Vec::new();
        let mut until: Option<i64> = None;
        for (link, branch) in self.links.iter().zip(&self.branches) {
            if link.index > 0 {
                let own = link.expires_at;
                until = Some(until.map_or(own, |earlier| earlier.min(own)));
            }
            for (index, check) in link.caveats.iter().enumerate() {
                if let Some(Caveat::MaxCalls { counter, calls }) = check.caveat() {
                    counters.push(Counter {
                        branch: *branch,
                        index,
                        name: counter.clone(),
                        most: *calls,
                        until,
                    });
                }
            }
        }
        counters
    }

    /// The hash of the exact text that was verified.
    #[must_use]
    pub fn token_hash(&self) -> TokenHash {
        self.hash
    }
}

/// The branch id of a grant: SHA-256(issuer ‖ grant id).
pub(crate) fn first_branch(issuer: &str, grant: &str) -> [u8; 32] {
    Sha256::new()
        .chain_update(issuer)
        .chain_update(grant)
        .finalize()
        .into()
}

/// The branch id after a link: SHA-256(parent branch ‖ external public key ‖ payload).
pub(crate) fn next_branch(parent: &[u8; 32], signer: &PublicKey, payload: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(parent)
        .chain_update(signer.to_bytes())
        .chain_update(payload)
        .finalize()
        .into()
}
