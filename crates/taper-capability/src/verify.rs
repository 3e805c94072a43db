//! The verifier: native code over the decoded blocks. Whatever a builder promises is checked here
//! again; no Datalog runs.

use crate::chain::{Link, LinkKind, VerifiedChain, first_branch, next_branch};
use crate::{Error, UnverifiedToken, admission, rules};
use biscuit_auth::builder::Algorithm;
use biscuit_auth::format::SerializedBiscuit;
use std::collections::HashMap;
use taper_dpop::{Algorithm as KeyAlgorithm, PublicKey};

/// The root keys that are trusted, per issuer, each with the servers it may grant rights for.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    /// Keyed by (issuer, root key id).
    keys: HashMap<(String, u32), Root>,
}

#[derive(Clone, Debug)]
struct Root {
    key: PublicKey,
    servers: Option<Vec<String>>,
}

impl Roots {
    /// No roots: every token is refused.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts a root key of an issuer. `servers` are the ids it may grant rights for; `None` is
    /// every server.
    ///
    /// # Errors
    /// [`Error::Builder`] when the key is not Ed25519 or the pair (issuer, id) is there already.
    pub fn trust(
        mut self,
        issuer: &str,
        key_id: u32,
        key: PublicKey,
        servers: Option<Vec<String>>,
    ) -> Result<Self, Error> {
        if key.algorithm() != KeyAlgorithm::EdDsa {
            return Err(Error::Builder("a root key is Ed25519"));
        }
        match self
            .keys
            .insert((issuer.to_owned(), key_id), Root { key, servers })
        {
            None => Ok(self),
            Some(_) => Err(Error::Builder("a root key id is given once per issuer")),
        }
    }

    /// Whether a key of this issuer with this id is trusted.
    #[must_use]
    pub fn knows(&self, issuer: &str, key_id: u32) -> bool {
        self.keys.contains_key(&(issuer.to_owned(), key_id))
    }
}

/// Verifies capabilities against a set of roots.
#[derive(Clone, Debug)]
pub struct Verifier {
    roots: Roots,
}

impl Verifier {
    /// A verifier for these roots.
    #[must_use]
    pub fn new(roots: Roots) -> Self {
        Self { roots }
    }

    /// Verifies a decoded token at `now`: expiry, root, all signatures, each block's signer, servers,
    /// the shape of every check and the depth, in that order.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn verify(&self, token: UnverifiedToken, now: i64) -> Result<VerifiedChain, Error> {
        token.check_expiry(now)?;
        let expires_at = token.expires_at();
        let root = self.root(&token)?;
        signatures(&token, &root.key)?;
        if let Some(servers) = &root.servers {
            for right in &token.authority.rights {
                if !rules::ROOT_SERVERS.holds(servers.iter().any(|server| server == right.server())) {
                    return Err(Error::RootServer(right.server().to_owned()));
                }
            }
        }
        let UnverifiedToken {
            hash,
            authority,
            links: unverified,
            ..
        } = token;
        let mut links: Vec<Link> = Vec::with_capacity(unverified.len());
        let mut branch = first_branch(&authority.issuer, &authority.grant);
        let mut branches = Vec::with_capacity(unverified.len());
        let mut max_depth = authority.max_depth;
        for link in unverified {
            let index = link.block.index;
            let (kind, depth) = match (links.last(), &link.signer) {
                (None, _) => (LinkKind::Grant, 0),
                (Some(before), signer) => {
                    let by_holder = signer.as_ref() == Some(&before.holder);
                    if !rules::SIGNER.holds(by_holder) {
                        return Err(Error::Signer { block: index });
                    }
                    if let Some(signer) = signer {
                        branch = next_branch(&branch, signer, &link.block.payload);
                    }
                    if link.holder == before.holder {
                        (LinkKind::Narrowing, before.depth)
                    } else {
                        (LinkKind::HandOver, before.depth.saturating_add(1))
                    }
                }
            };
            branches.push(branch);
            max_depth = max_depth.min(link.max_depth.unwrap_or(u32::MAX));
            let expires_at = link.block.expires_at;
            let caveats = link
                .block
                .checks
                .into_iter()
                .enumerate()
                .map(|(i, check)| admission::admit(index, i, check))
                .collect::<Result<_, _>>()?;
            links.push(Link {
                index,
                holder: link.holder,
                depth,
                expires_at,
                kind,
                note: link.note,
                caveats,
            });
        }
        let depth = links.last().map_or(0, |link| link.depth);
        if !rules::DEPTH.holds(depth <= max_depth) {
            return Err(Error::Depth {
                depth,
                max: max_depth,
            });
        }
        Ok(VerifiedChain {
            authority,
            links,
            branches,
            expires_at,
            max_depth,
            hash,
        })
    }

    /// The root key by issuer and id (P-03, P-09): a token that names another issuer than the one
    /// whose key it is signed with finds another key, or none.
    fn root(&self, token: &UnverifiedToken) -> Result<&Root, Error> {
        let (issuer, id) = (&token.authority.issuer, token.root_key_id);
        if let Some(root) = self.roots.keys.get(&(issuer.clone(), id)) {
            return Ok(root);
        }
        let any = |is: &dyn Fn(&(String, u32)) -> bool| {
            let found = self.roots.keys.iter().find(|(name, _)| is(name));
            found.map(|(_, root)| root)
        };
        let (rule, error, other) = match any(&|(_, other)| *other == id) {
            Some(root) => (rules::ISSUER, Error::Issuer, Some(root)),
            None => (rules::ROOT, Error::Root, any(&|(other, _)| other == issuer)),
        };
        // Another root serves only a test build that leaves the rule out.
        match other {
            Some(root) if rule.holds(false) => Ok(root),
            _ => Err(error),
        }
    }
}

/// All Biscuit signatures of the token, each once (P-04).
fn signatures(token: &UnverifiedToken, root: &PublicKey) -> Result<(), Error> {
    let key =
        biscuit_auth::PublicKey::from_bytes(&root.to_bytes(), Algorithm::Ed25519).map_err(|_| Error::Root)?;
    let verified = SerializedBiscuit::from_slice(&token.bytes, key);
    if rules::SIGNATURES.holds(verified.is_ok()) {
        Ok(())
    } else {
        Err(Error::Signatures)
    }
}
