//! What an attacker does to tokens whose bytes he has: blocks of his own, properly signed with the keys
//! that he holds, then edits of anything.

use crate::checks::{CheckSpec, PredicateSpec, TermSpec};
use crate::world::{HELD, NOW, World};
use arbitrary::Arbitrary;
use biscuit_auth::builder::{
    Algorithm, Binary, BlockBuilder, Check, CheckKind, Expression, Fact, Op, Predicate, Rule, Term,
};
use biscuit_auth::format::schema;
use biscuit_auth::format::schema::proof::Content;
use biscuit_auth::{KeyPair, PrivateKey, UnverifiedBiscuit};
use prost::Message as _;
use taper_dpop::{Algorithm as KeyAlgorithm, base64url_encode};

/// What is done.
#[derive(Arbitrary, Debug)]
pub struct Attack {
    /// With which token it begins: the one that the attacker holds, or any.
    base: Option<u8>,
    own: Vec<Own>,
    seal: bool,
    edits: Vec<Edit>,
}

/// A block of the attacker's.
#[derive(Arbitrary, Debug, Default)]
struct Own {
    /// With which key it is signed; none is a first-party block.
    signer: Option<u8>,
    holder: Option<u8>,
    until: Option<i16>,
    max_depth: Option<u8>,
    facts: Vec<PredicateSpec>,
    checks: Vec<CheckSpec>,
    rule: Option<(PredicateSpec, PredicateSpec)>,
    note: Option<TermSpec>,
    /// Edits of its bytes before it is signed.
    edits: Vec<Bytes>,
}

/// An edit of bytes.
#[derive(Arbitrary, Debug)]
enum Bytes {
    Turn(u16, u8),
    Insert(u16, u8),
    Remove(u16),
}

/// An edit of a token, after everything was signed.
#[derive(Arbitrary, Debug)]
enum Edit {
    Payload(u8, Bytes),
    Signature(u8, Bytes),
    External(u8, Bytes),
    ExternalKey(u8, Bytes),
    NextKey(u8, Bytes),
    Algorithm(u8, i8),
    Version(u8, Option<u8>),
    RootKeyId(Option<u32>),
    /// Something of block `.1` of token `.0` in the place of the same of block `.2`.
    Splice(u8, u8, u8, Part),
    Insert(u8, u8, u8),
    Remove(u8),
    Swap(u8, u8),
    /// The proof of another token.
    Proof(u8),
    ProofBytes(Bytes),
    /// The secret of one proof as the seal of this, or the reverse.
    ProofKind,
}

#[derive(Arbitrary, Debug)]
enum Part {
    All,
    Payload,
    Signature,
    External,
    NextKey,
}

impl Attack {
    /// The text of what came of it.
    #[must_use]
    pub fn token(&self, world: &World) -> String {
        let base = self.base.map_or(HELD, usize::from) % world.originals.len();
        let mut token = world.originals[base].proto.clone();
        for own in self.own.iter().take(4) {
            own.append(&mut token, world);
        }
        if self.seal {
            seal(&mut token);
        }
        for edit in self.edits.iter().take(16) {
            edit.apply(&mut token, world);
        }
        base64url_encode(&token.encode_to_vec())
    }
}

impl Own {
    fn append(&self, token: &mut schema::Biscuit, world: &World) {
        if let Some(mut payload) = self.payload(world) {
            self.edits.iter().for_each(|edit| edit.apply(&mut payload));
            append(token, payload, self.signer.map(|signer| world.owned(signer)));
        }
    }

    /// The bytes of the block, as the standard library writes it.
    fn payload(&self, world: &World) -> Option<Vec<u8>> {
        payload_of(self.block(world)?)
    }

    fn block(&self, world: &World) -> Option<BlockBuilder> {
        let fact = |name: &str, terms| Fact::new(name.to_owned(), terms);
        let mut block = BlockBuilder::new();
        let holder = world.anybody(self.holder.unwrap_or(0));
        let algorithm = match holder.algorithm() {
            KeyAlgorithm::EdDsa => "ed25519",
            KeyAlgorithm::Es256 => "secp256r1",
        };
        let terms = vec![Term::Str(algorithm.into()), Term::Bytes(holder.to_bytes())];
        block = block.fact(fact("holder", terms)).ok()?;
        let until = u64::try_from(NOW + i64::from(self.until.unwrap_or(300))).ok()?;
        block = block.check(expiry(until)).ok()?;
        if let Some(depth) = self.max_depth {
            block = block
                .fact(fact("max_depth", vec![Term::Integer(depth.into())]))
                .ok()?;
        }
        if let Some(note) = &self.note {
            block = block.fact(fact("note", vec![note.term()])).ok()?;
        }
        for spec in self.facts.iter().take(4) {
            let Predicate { name, terms } = spec.predicate();
            block = block.fact(Fact::new(name, terms)).ok()?;
        }
        for check in self.checks.iter().take(6).filter_map(CheckSpec::check) {
            block = block.check(check).ok()?;
        }
        if let Some((head, body)) = &self.rule {
            let rule = Rule::new(head.predicate(), vec![body.predicate()], vec![], vec![]);
            block = block.rule(rule).ok()?;
        }
        Some(block)
    }
}

/// Appends a block as anybody can who has the bytes: of nobody, or signed with a key.
fn append(token: &mut schema::Biscuit, payload: Vec<u8>, signer: Option<&taper_dpop::PrivateKey>) {
    let Some(Content::NextSecret(secret)) = &token.proof.content else {
        return;
    };
    let Ok(secret) = PrivateKey::from_bytes(secret, Algorithm::Ed25519) else {
        return;
    };
    let before = token.blocks.last().unwrap_or(&token.authority).signature.clone();
    let version = 1_u32;
    let external_signature = signer.map(|signer| {
        let key = pair(signer);
        let signed = [
            b"\0EXTERNAL\0\0VERSION\0".as_slice(),
            &version.to_le_bytes(),
            b"\0PAYLOAD\0",
            &payload,
            b"\0PREVSIG\0",
            &before,
        ]
        .concat();
        schema::ExternalSignature {
            signature: sign(&key, &signed),
            public_key: key.public().to_proto(),
        }
    });
    let next = PrivateKey::from_bytes(&[token.blocks.len() as u8 + 1; 32], Algorithm::Ed25519).unwrap();
    let next_key = next.public().to_proto();
    let mut signed = [
        b"\0BLOCK\0\0VERSION\0".as_slice(),
        &version.to_le_bytes(),
        b"\0PAYLOAD\0",
        &payload,
        b"\0ALGORITHM\0",
        &next_key.algorithm.to_le_bytes(),
        b"\0NEXTKEY\0",
        &next_key.key,
        b"\0PREVSIG\0",
        &before,
    ]
    .concat();
    if let Some(external) = &external_signature {
        signed.extend_from_slice(b"\0EXTERNALSIG\0");
        signed.extend_from_slice(&external.signature);
    }
    token.blocks.push(schema::SignedBlock {
        block: payload,
        next_key,
        signature: sign(&KeyPair::from(&secret), &signed),
        external_signature,
        version: Some(version),
    });
    token.proof.content = Some(Content::NextSecret(next.to_bytes().to_vec()));
}

/// The held token with a narrowing that says just this check; none if it cannot be said.
#[must_use]
pub fn with_check(world: &World, check: Check) -> Option<String> {
    let mut token = world.originals[HELD].proto.clone();
    let own = Own {
        signer: Some(0),
        ..Own::default()
    };
    append(
        &mut token,
        payload_of(own.block(world)?.check(check).ok()?)?,
        Some(world.owned(0)),
    );
    Some(base64url_encode(&token.encode_to_vec()))
}

/// The bytes of a block, as the standard library writes it into a third-party block.
#[must_use]
pub fn payload_of(block: BlockBuilder) -> Option<Vec<u8>> {
    // Which token asks and who signs does not show in the payload.
    let seed = PrivateKey::from_bytes(&[9; 32], Algorithm::Ed25519).ok()?;
    let request = schema::ThirdPartyBlockRequest {
        legacy_previous_key: None,
        legacy_public_keys: vec![],
        previous_signature: vec![0; 64],
    };
    let request = biscuit_auth::ThirdPartyRequest::deserialize(&request.encode_to_vec()).ok()?;
    let signed = request.create_block(&seed, block).ok()?.serialize().ok()?;
    Some(
        schema::ThirdPartyBlockContents::decode(signed.as_slice())
            .ok()?
            .payload,
    )
}

/// Seals it, if it can be.
fn seal(token: &mut schema::Biscuit) {
    let sealed = UnverifiedBiscuit::from(token.encode_to_vec().as_slice())
        .and_then(|token| token.seal())
        .and_then(|token| token.to_vec());
    if let Ok(sealed) = sealed
        && let Ok(sealed) = schema::Biscuit::decode(sealed.as_slice())
    {
        *token = sealed;
    }
}

fn pair(key: &taper_dpop::PrivateKey) -> KeyPair {
    let algorithm = match key.algorithm() {
        KeyAlgorithm::EdDsa => Algorithm::Ed25519,
        KeyAlgorithm::Es256 => Algorithm::Secp256r1,
    };
    KeyPair::from(&PrivateKey::from_bytes(&key.to_bytes(), algorithm).unwrap())
}

fn sign(key: &KeyPair, message: &[u8]) -> Vec<u8> {
    key.sign(message).unwrap().to_bytes().to_vec()
}

/// `check if time($time), $time < at`
fn expiry(at: u64) -> Check {
    let time = || Term::Variable("time".into());
    let ops = vec![
        Op::Value(time()),
        Op::Value(Term::Date(at)),
        Op::Binary(Binary::LessThan),
    ];
    let predicate = |name: &str, terms| Predicate {
        name: name.into(),
        terms,
    };
    let body = vec![predicate("time", vec![time()])];
    Check {
        kind: CheckKind::One,
        queries: vec![Rule::new(
            predicate("query", vec![]),
            body,
            vec![Expression { ops }],
            vec![],
        )],
    }
}

impl Bytes {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let len = bytes.len();
        let at = |at: u16, len: usize| usize::from(at).checked_rem(len);
        match *self {
            Self::Turn(i, by) => {
                if let Some(i) = at(i, len) {
                    bytes[i] ^= by;
                }
            }
            Self::Insert(i, byte) => bytes.insert(at(i, len + 1).unwrap_or(0), byte),
            Self::Remove(i) => {
                if let Some(i) = at(i, len) {
                    bytes.remove(i);
                }
            }
        }
    }
}

fn block(token: &mut schema::Biscuit, n: u8) -> &mut schema::SignedBlock {
    match usize::from(n) % (token.blocks.len() + 1) {
        0 => &mut token.authority,
        n => &mut token.blocks[n - 1],
    }
}

impl Edit {
    fn apply(&self, token: &mut schema::Biscuit, world: &World) {
        let original = |n: u8| {
            world.originals[usize::from(n) % world.originals.len()]
                .proto
                .clone()
        };
        let count = token.blocks.len();
        match self {
            Self::Payload(n, bytes) => bytes.apply(&mut block(token, *n).block),
            Self::Signature(n, bytes) => bytes.apply(&mut block(token, *n).signature),
            Self::NextKey(n, bytes) => bytes.apply(&mut block(token, *n).next_key.key),
            Self::External(n, bytes) => {
                if let Some(external) = &mut block(token, *n).external_signature {
                    bytes.apply(&mut external.signature);
                }
            }
            Self::ExternalKey(n, bytes) => {
                if let Some(external) = &mut block(token, *n).external_signature {
                    bytes.apply(&mut external.public_key.key);
                }
            }
            Self::Algorithm(n, to) => block(token, *n).next_key.algorithm = i32::from(*to),
            Self::Version(n, to) => block(token, *n).version = to.map(u32::from),
            Self::RootKeyId(to) => token.root_key_id = *to,
            Self::Splice(of, from, to, part) => {
                let from = block(&mut original(*of), *from).clone();
                let to = block(token, *to);
                match part {
                    Part::All => *to = from,
                    Part::Payload => to.block = from.block,
                    Part::Signature => to.signature = from.signature,
                    Part::External => to.external_signature = from.external_signature,
                    Part::NextKey => to.next_key = from.next_key,
                }
            }
            Self::Insert(of, from, at) => {
                let from = block(&mut original(*of), *from).clone();
                token.blocks.insert(usize::from(*at) % (count + 1), from);
            }
            Self::Remove(at) if count > 0 => {
                token.blocks.remove(usize::from(*at) % count);
            }
            Self::Swap(a, b) if count > 0 => token
                .blocks
                .swap(usize::from(*a) % count, usize::from(*b) % count),
            Self::Remove(_) | Self::Swap(..) => {}
            Self::Proof(of) => token.proof = original(*of).proof,
            Self::ProofBytes(bytes) => {
                if let Some(Content::NextSecret(content) | Content::FinalSignature(content)) =
                    &mut token.proof.content
                {
                    bytes.apply(content);
                }
            }
            Self::ProofKind => {
                token.proof.content = match token.proof.content.take() {
                    Some(Content::NextSecret(content)) => Some(Content::FinalSignature(content)),
                    Some(Content::FinalSignature(content)) => Some(Content::NextSecret(content)),
                    None => None,
                }
            }
        }
    }
}
