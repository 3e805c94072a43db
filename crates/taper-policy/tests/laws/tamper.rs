//! A thief of bytes, or a holder with a protobuf editor, gets nothing that verifies.

use crate::given::{Block, any_block, any_grant};
use crate::scene::{Chain, NOW, by_library, bytes, key, verify};
use crate::share::cases;
use biscuit_auth::format::schema;
use proptest::prelude::*;
use prost::Message as _;
use rand_core::OsRng;
use taper_capability::Token;
use taper_dpop::{Algorithm, PrivateKey, base64url_encode};

fn proto(token: &Token) -> schema::Biscuit {
    schema::Biscuit::decode(bytes(token).as_slice()).unwrap()
}

fn text(biscuit: &schema::Biscuit) -> String {
    base64url_encode(&biscuit.encode_to_vec())
}

/// How the blocks of a token are put together anew. Indices count the later blocks.
#[derive(Clone, Copy, Debug)]
enum Surgery {
    Strip(usize),
    Swap(usize, usize),
    Repeat(usize),
    /// Only the first so many blocks, under the proof of the whole.
    Truncate(usize),
    /// A block of another chain of the same issuer instead.
    Splice(usize),
    /// The payload of another block.
    Payload(usize, usize),
    /// The external signature of another chain's block.
    Signature(usize),
    /// Without its external signature.
    Plain(usize),
    /// Block 0 of another grant.
    Authority,
    /// The proof of another chain.
    Proof,
    NextKey(usize),
}

fn any_surgery() -> impl Strategy<Value = Surgery> {
    let at = || 0usize..3;
    prop_oneof![
        at().prop_map(Surgery::Strip),
        (at(), at()).prop_map(|(a, b)| Surgery::Swap(a, b)),
        at().prop_map(Surgery::Repeat),
        at().prop_map(Surgery::Truncate),
        at().prop_map(Surgery::Splice),
        (at(), at()).prop_map(|(a, b)| Surgery::Payload(a, b)),
        at().prop_map(Surgery::Signature),
        at().prop_map(Surgery::Plain),
        Just(Surgery::Authority),
        Just(Surgery::Proof),
        at().prop_map(Surgery::NextKey),
    ]
}

/// The token after surgery, or nothing where it would be as before.
fn cut(token: &schema::Biscuit, other: &schema::Biscuit, surgery: Surgery) -> Option<schema::Biscuit> {
    let mut cut = token.clone();
    let blocks = &mut cut.blocks;
    match surgery {
        Surgery::Strip(i) if i < blocks.len() => {
            blocks.remove(i);
        }
        Surgery::Swap(a, b) if a != b && a < blocks.len() && b < blocks.len() => blocks.swap(a, b),
        Surgery::Repeat(i) if i < blocks.len() => blocks.insert(i, blocks[i].clone()),
        Surgery::Truncate(n) if n < blocks.len() => blocks.truncate(n),
        Surgery::Splice(i) if i < blocks.len() => blocks[i] = other.blocks.get(i)?.clone(),
        Surgery::Payload(a, b) if a != b && a < blocks.len() => {
            blocks[a].block = blocks.get(b)?.block.clone();
        }
        Surgery::Signature(i) if i < blocks.len() => {
            blocks[i].external_signature = other.blocks.get(i)?.external_signature.clone();
        }
        Surgery::Plain(i) if i < blocks.len() => blocks[i].external_signature = None,
        Surgery::Authority => cut.authority = other.authority.clone(),
        Surgery::Proof => cut.proof = other.proof.clone(),
        Surgery::NextKey(i) if i < blocks.len() => blocks[i].next_key = other.authority.next_key.clone(),
        _ => return None,
    }
    (text(&cut) != text(token)).then_some(cut)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(400), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn blocks_cannot_be_taken_apart(
        grant in any_grant(),
        blocks in prop::collection::vec(any_block(), 1..4),
        others in prop::collection::vec(any_block(), 1..4),
        surgery in any_surgery(),
        sealed in any::<bool>(),
    ) {
        let (chain, other) = (Chain::new(&grant, &blocks), Chain::new(&grant, &others));
        let seal = |token: &Token| if sealed { token.sealed().unwrap() } else { token.clone() };
        let (token, other) = (proto(&seal(chain.last().0)), proto(&seal(other.last().0)));
        if let Some(cut) = cut(&token, &other, surgery) {
            let verified = verify(&text(&cut), NOW - 5);
            prop_assert!(verified.is_err(), "{:?}", verified.map(|chain| chain.links().len()));
        }
    }

    /// Who stole an earlier copy, unsealed, can append to it what the library lets anybody append.
    #[test]
    fn strangers_add_nothing(
        grant in any_grant(),
        blocks in prop::collection::vec(any_block(), 0..3),
        added in any_block(),
        es256 in any::<bool>(),
    ) {
        let chain = Chain::new(&grant, &blocks);
        let (token, holder) = chain.last();
        let algorithm = if es256 { Algorithm::Es256 } else { Algorithm::EdDsa };
        let stranger = PrivateKey::generate(algorithm, &mut OsRng);
        let next = added.hand.holder(holder);
        let forged = by_library(token, &stranger, next, &added);
        let honest = by_library(token, key(holder), next, &added);
        let rule = |token: &Token| verify(token.as_str(), NOW - 5).err().map(|error| error.rule().as_str());
        // Where the honest twin is fine, the forged block fails for its signer alone.
        match rule(&honest) {
            None => prop_assert_eq!(rule(&forged), Some("D-02")),
            Some(_) => prop_assert!(rule(&forged).is_some()),
        }
    }
}

/// Every single bit of a token, sealed and not, is covered: by a signature, by the public key of the proof's
/// secret, by the choice of the root key, or by the one spelling of the protobuf.
#[test]
fn no_bit_can_be_flipped() {
    let grant = crate::given::GrantCase::generous();
    let block = |steps| Block {
        hand: crate::given::Hand::Over(steps),
        ttl: 50,
        max_depth: None,
        checks: vec![],
    };
    // From an Ed25519 key to a P-256 key and on.
    let chain = Chain::new(&grant, &[block(1), block(1)]);
    let unsealed = chain.last().0;
    for token in [unsealed, &unsealed.sealed().unwrap()] {
        assert!(verify(token.as_str(), NOW).is_ok());
        let whole = bytes(token);
        let mut verified = Vec::new();
        for at in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            if verify(&base64url_encode(&flipped), NOW).is_ok() {
                verified.push((at / 8, at % 8));
            }
        }
        assert_eq!(verified, [], "of {} bytes", whole.len());
    }
}
