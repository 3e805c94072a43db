//! Taking back by the word of a key: what it was granted, what it handed on, and itself (RULES 28).
//!
//! | asked | the proof is by | revoked |
//! |---|---|---|
//! | the grant | the last holder of a capability that was not handed on; its client is named | the grant |
//! | `to` | a holder of the chain | what this key hands to that one under this grant |
//! | `branch` | the key that signed the branch's link | the branch |
//! | `holder` | that key | the key |

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use taper_capability::{LinkKind, VerifiedChain};
use taper_dpop::{PublicKey, TokenHash, VerifiedProof};
use taper_oauth::{ErrorCode, Form};
use taper_store::{GrantRecord, Grants as _, RevocationKey};

use super::form::{Branch, ByHolder, refused};
use super::{Done, beyond, grant_record, hex, record_below, record_one, signed_end};
use crate::error::Refusal;
use crate::rules;
use crate::state::State;

/// Client and proof are checked first; then a text that is no capability of this issuer, and a grant that
/// has ended, are answered 200 with nothing, as RFC 7009 §2.2 demands: there is nothing to revoke.
pub(super) async fn revoke(
    state: &State,
    headers: &HeaderMap,
    form: &Form,
    body: &Bytes,
    asked: ByHolder<'_>,
) -> Result<Done, Refusal> {
    let is_plain = matches!(asked, ByHolder::Grant { .. });
    // Elsewhere a client has no say; but one that says something says it truly.
    let client = if is_plain || form.get("client_id").is_some() || headers.contains_key(AUTHORIZATION) {
        Some(state.parts.clients.authenticate(headers, form)?)
    } else {
        None
    };
    let now = state.clock.unix();
    let url = state.parts.url("/revoke");
    let proven = state
        .gate
        .verify(headers, &url, asked.token().map(TokenHash::of), now)?;
    let proof = &proven.proof;
    let bound = proof
        .binds(body)
        .map_err(|error| Refusal::new(error.rule(), ErrorCode::InvalidDpopProof, error.to_string()))?;
    if !rules::REVOKE_BODY.holds(bound || is_plain) {
        return Err(Refusal::new(
            rules::REVOKE_BODY,
            ErrorCode::InvalidDpopProof,
            "the proof needs the `content_digest` of this body",
        ));
    }
    let chain = match asked.token() {
        Some(token) => state.signed_chain(token).await?,
        None => None,
    };
    match (asked, chain) {
        (ByHolder::Key { holder, token }, chain) => {
            revoke_key(state, proof, holder, token.is_some(), chain.as_ref(), now).await
        }
        (_, None) => Ok(Done::nothing()),
        (ByHolder::Grant { .. }, Some(chain)) => {
            let client = client.map_or(String::new(), |client| client.id().to_owned());
            revoke_grant(state, proof, &client, &chain, now).await
        }
        (ByHolder::Delegation { to, .. }, Some(chain)) => {
            revoke_delegation(state, proof, to, &chain, now).await
        }
        (ByHolder::Branch { branch, .. }, Some(chain)) => {
            revoke_branch(state, proof, branch, &chain, now).await
        }
    }
}

async fn revoke_grant(
    state: &State,
    proof: &VerifiedProof,
    client: &str,
    chain: &VerifiedChain,
    now: i64,
) -> Result<Done, Refusal> {
    if !rules::REVOKE_PROOF.holds(proof.key() == chain.last_holder()) {
        return Err(Refusal::new(
            rules::REVOKE_PROOF,
            ErrorCode::InvalidDpopProof,
            "the proof is not made with the key of the capability's last holder",
        ));
    }
    if !rules::REVOKE_OWN.holds(chain.client() == client) {
        return Err(Refusal::new(
            rules::REVOKE_OWN,
            ErrorCode::InvalidGrant,
            "the capability was issued to another client",
        ));
    }
    if !rules::REVOKE_UNDELEGATED.holds(chain.depth() == 0) {
        return Err(Refusal::new(
            rules::REVOKE_UNDELEGATED,
            ErrorCode::UnsupportedTokenType,
            "a capability that was handed on does not revoke its grant; its holder takes back what it \
             handed on itself, with `to` or `branch`",
        ));
    }
    let Some(until) = life(state, chain, now).await? else {
        return Ok(Done::nothing());
    };
    spend(state, proof, chain)?;
    let what = RevocationKey::Grant(chain.grant_id().to_owned());
    record_one(state, what, until, by(proof)).await
}

async fn revoke_delegation(
    state: &State,
    proof: &VerifiedProof,
    to: &str,
    chain: &VerifiedChain,
    now: i64,
) -> Result<Done, Refusal> {
    if !rules::REVOKE_SIGNER.holds(position(chain, proof.key()).is_some()) {
        return Err(not_signer("the proof's key is no holder of the capability"));
    }
    let what = RevocationKey::Delegation {
        grant: chain.grant_id().to_owned(),
        from: proof.thumbprint().to_string(),
        to: to.to_owned(),
    };
    what.check().map_err(|error| refused(format!("`to`: {error}")))?;
    below(state, proof, chain, what, now).await
}

async fn revoke_branch(
    state: &State,
    proof: &VerifiedProof,
    branch: Branch<'_>,
    chain: &VerifiedChain,
    now: i64,
) -> Result<Done, Refusal> {
    let links = chain.links();
    let signed = |at: usize| {
        let signer = at.checked_sub(1).and_then(|before| links.get(before));
        signer.is_some_and(|before| before.holder == *proof.key())
    };
    let ids = || chain.branch_ids().iter().enumerate();
    let found = match branch {
        Branch::Id(id) => ids().find(|(_, known)| hex(*known) == id),
        Branch::Last => ids().rev().find(|(at, _)| {
            signed(*at) && links.get(*at).is_some_and(|link| link.kind == LinkKind::HandOver)
        }),
    };
    let Some((at, id)) = found else {
        return Err(not_signer(match branch {
            Branch::Id(_) => {
                "the capability has no such branch: it is 64 lower-case hex digits, as `taper inspect` shows them"
            }
            Branch::Last => "the proof's key handed nothing on in this capability",
        }));
    };
    if !rules::REVOKE_SIGNER.holds(signed(at)) {
        return Err(not_signer("the proof's key did not sign this branch"));
    }
    below(state, proof, chain, RevocationKey::Branch(hex(id)), now).await
}

/// Revokes something below a grant, unless the whole of it has ended or is revoked: then nothing is left
/// to stop, and nothing is stored for whoever was shut out.
async fn below(
    state: &State,
    proof: &VerifiedProof,
    chain: &VerifiedChain,
    what: RevocationKey,
    now: i64,
) -> Result<Done, Refusal> {
    let Some(until) = life(state, chain, now).await? else {
        return Ok(Done::nothing());
    };
    spend(state, proof, chain)?;
    if is_revoked_as_a_whole(state, chain).await? {
        return Ok(Done::nothing());
    }
    let depth = depth(chain, proof.key());
    record_below(state, chain.grant_id(), depth, what, until, by(proof)).await
}

async fn revoke_key(
    state: &State,
    proof: &VerifiedProof,
    holder: &str,
    shown: bool,
    chain: Option<&VerifiedChain>,
    now: i64,
) -> Result<Done, Refusal> {
    let jkt = proof.thumbprint().to_string();
    if !rules::REVOKE_SELF.holds(jkt == holder) {
        return Err(Refusal::new(
            rules::REVOKE_SELF,
            ErrorCode::InvalidDpopProof,
            "`holder` is not the thumbprint of the proof's key: only an administrator revokes the keys of others",
        ));
    }
    // A revoked key is never forgotten, and anybody can make keys: only those are stored that matter.
    let known = match chain {
        Some(chain) => {
            position(chain, proof.key()).is_some()
                && life(state, chain, now).await?.is_some()
                && !is_revoked_as_a_whole(state, chain).await?
        }
        None if shown => false,
        None => state
            .store
            .is_first_holder(&state.parts.issuer, &jkt)
            .await
            .map_err(|error| Refusal::store(&error))?,
    };
    if !rules::REVOKE_KNOWN.holds(known) {
        return Err(Refusal::new(
            rules::REVOKE_KNOWN,
            ErrorCode::InvalidGrant,
            "this issuer does not know the key: send a `token` with it whose grant is alive and in which \
             the key is a holder, or ask an administrator",
        ));
    }
    let (what, by) = (RevocationKey::Holder(holder.to_owned()), by(proof));
    if let Some(chain) = chain {
        spend(state, proof, chain)?;
        let depth = depth(chain, proof.key());
        return record_below(state, chain.grant_id(), depth, what, None, by).await;
    }
    // There are no more first holders than grants.
    state
        .gate
        .spend(proof, &format!("key {jkt}"), state.clock.unix())?;
    record_one(state, what, None, by).await
}

/// Until when a revocation below the chain's grant is kept. `None`: the grant has ended, for proxies whose
/// clocks are behind as well. The grant counts, not the chain: a narrowed one ends earlier than others of
/// its grant. A grant without a record is one that was lost; what is revoked of it is never forgotten.
async fn life(state: &State, chain: &VerifiedChain, now: i64) -> Result<Option<Option<i64>>, Refusal> {
    let record = grant_record(state, chain.grant_id()).await?;
    let recorded = record.as_ref().map_or(i64::MIN, GrantRecord::end);
    let until = beyond(recorded.max(signed_end(chain)));
    Ok((until > now).then(|| record.map(|_| until)))
}

async fn is_revoked_as_a_whole(state: &State, chain: &VerifiedChain) -> Result<bool, Refusal> {
    let mut keys = vec![
        RevocationKey::Grant(chain.grant_id().to_owned()),
        RevocationKey::Client(chain.client().to_owned()),
    ];
    for party in std::iter::once(chain.subject()).chain(chain.actor()) {
        keys.push(RevocationKey::Subject {
            iss: party.iss.clone(),
            sub: party.sub.clone(),
        });
    }
    Ok(state.revoked(&keys).await?.is_some())
}

/// Uses the proof up, by the time as it is: since the request began, the store was asked.
fn spend(state: &State, proof: &VerifiedProof, chain: &VerifiedChain) -> Result<(), Refusal> {
    let account = account(chain, proof.key());
    state.gate.spend(proof, &account, state.clock.unix())
}

/// Who bears the quota of live proofs: the grant, by the holders down to the first place of the key in the
/// chain. So a holder uses up only what it handed on itself, not what those above it or beside it need to
/// take something back.
fn account(chain: &VerifiedChain, key: &PublicKey) -> String {
    let mut path = Sha256::new();
    for link in chain.links() {
        path.update(link.holder.thumbprint().as_bytes());
        if link.holder == *key {
            break;
        }
    }
    format!("grant {} holders {}", chain.grant_id(), hex(&path.finalize()))
}

/// How many hand-overs there are before the first place of a key in a chain.
fn depth(chain: &VerifiedChain, key: &PublicKey) -> u32 {
    position(chain, key).unwrap_or_else(|| chain.depth())
}

/// How deep a key first stands in a chain as a holder.
fn position(chain: &VerifiedChain, key: &PublicKey) -> Option<u32> {
    let mut links = chain.links().iter();
    links.find(|link| link.holder == *key).map(|link| link.depth)
}

fn by(proof: &VerifiedProof) -> String {
    format!("holder {}", proof.thumbprint())
}

fn not_signer(description: &str) -> Refusal {
    Refusal::new(rules::REVOKE_SIGNER, ErrorCode::InvalidDpopProof, description)
}

#[cfg(test)]
mod tests {
    use taper_capability::{
        Delegation, Grant, Party, Right, RootKey, Roots, UnverifiedToken, Verifier, issue,
    };
    use taper_dpop::{Algorithm, PrivateKey};
    use taper_service::rng;

    use super::*;

    #[test]
    fn whoever_stands_above_or_beside_has_an_account_of_its_own() {
        let rng = &mut rng::os();
        let root = RootKey::generate(1, rng);
        let keys: Vec<_> = (0..3)
            .map(|_| PrivateKey::generate(Algorithm::EdDsa, &mut rng::os()))
            .collect();
        let grant = Grant {
            issuer: "https://i".into(),
            id: Grant::new_id(rng),
            subject: Party {
                iss: "https://idp".into(),
                sub: "alice".into(),
            },
            client: "c".into(),
            actor: None,
            holder: keys[0].public(),
            audiences: vec!["https://p/git/mcp".into()],
            rights: vec![Right::AnyTool { server: "git".into() }],
            claims: Vec::new(),
            issued_at: 1_000,
            expires_at: 2_000,
            max_depth: 4,
            caveats: Vec::new(),
        };
        let roots = Roots::new().trust("https://i", 1, root.public(), None).unwrap();
        let verifier = Verifier::new(roots);
        let first = issue(&grant, &root, rng).unwrap();
        let chain = |holders: &[usize]| {
            let mut token = first.clone();
            for (from, to) in holders.iter().zip(holders.iter().skip(1)) {
                let next = Delegation::to(keys[*to].public()).until(1_900);
                token = next.sign(&token, &keys[*from], &mut rng::os()).unwrap();
            }
            let token = UnverifiedToken::decode(token.as_str()).unwrap();
            verifier.verify(token, 1_500).unwrap()
        };
        let account = |holders: &[usize], key: usize| account(&chain(holders), &keys[key].public());
        // Siblings, a child, and the same key by another way.
        let accounts = [
            account(&[0, 1], 0),
            account(&[0, 1], 1),
            account(&[0, 2], 2),
            account(&[0, 1, 2], 2),
            account(&[0, 2, 1], 1),
        ];
        for (at, one) in accounts.iter().enumerate() {
            assert!(one.starts_with(&format!("grant {} ", grant.id)), "{one}");
            assert!(!accounts[..at].contains(one), "{at}");
        }
        // What comes after the first place of the key makes no other account.
        for (holders, key, same) in [(&[0, 2, 1][..], 0, 0), (&[0, 1, 2, 0], 0, 0), (&[0, 1, 2], 1, 1)] {
            assert_eq!(account(holders, key), accounts[same], "{holders:?}");
        }
    }
}
