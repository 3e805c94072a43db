//! Signing Biscuits by hand: whatever the payloads say, every signature is right.
//!
//! The library signs good tokens only; a vector that breaks one rule must break none besides.

use std::rc::Rc;

use biscuit_auth::builder::BlockBuilder;
use biscuit_auth::datalog::SymbolTable;
use biscuit_auth::format::schema;
use biscuit_auth::{BiscuitBuilder, KeyPair};
use p256::ecdsa::Signature;
use prost::Message as _;
use taper_dpop::{Algorithm, PrivateKey};

/// A private key that several blocks may use.
pub(crate) type Key = Rc<PrivateKey>;

/// Who signs a block besides the chain of next keys.
#[derive(Clone)]
pub(crate) enum Signer {
    /// Nobody: a plain block.
    Nobody,
    /// This key: a third-party block.
    Key(Key),
    /// This P-256 key, with a high s.
    HighS(Key),
    /// Somebody signed it elsewhere.
    Ready(schema::ExternalSignature),
}

/// One block with what is needed to sign it.
#[derive(Clone)]
pub(crate) struct Piece {
    pub(crate) payload: Vec<u8>,
    pub(crate) next: Key,
    pub(crate) signer: Signer,
    /// The form of its signatures: `None` and 0 are the old one.
    pub(crate) version: Option<u32>,
}

/// The token of these blocks, block 0 first, signed by `root` and by each next key after it.
pub(crate) fn assemble(
    root_key_id: Option<u32>,
    root: &Key,
    pieces: &[Piece],
    sealed: bool,
) -> schema::Biscuit {
    let mut key = root;
    let mut signed: Vec<schema::SignedBlock> = Vec::new();
    for piece in pieces {
        let before = signed
            .last()
            .map(|block| (block.signature.as_slice(), public(key)));
        let external = match (&piece.signer, &before) {
            (Signer::Nobody, _) => None,
            (Signer::Ready(ready), _) => Some(ready.clone()),
            (_, None) => panic!("block 0 has one signature"),
            (Signer::Key(signer), Some((previous, previous_key))) => Some(schema::ExternalSignature {
                signature: sign(signer, &external_payload(piece, previous, previous_key)),
                public_key: public(signer),
            }),
            (Signer::HighS(signer), Some((previous, previous_key))) => Some(schema::ExternalSignature {
                signature: der(&high_s(&signer.sign(&external_payload(
                    piece,
                    previous,
                    previous_key,
                )))),
                public_key: public(signer),
            }),
        };
        let previous = before.as_ref().map(|(signature, _)| *signature);
        let payload = block_payload(piece, external.as_ref(), previous);
        signed.push(schema::SignedBlock {
            block: piece.payload.clone(),
            next_key: public(&piece.next),
            signature: sign(key, &payload),
            external_signature: external,
            version: piece.version,
        });
        key = &piece.next;
    }
    let content = match signed.last() {
        Some(last) if sealed => schema::proof::Content::FinalSignature(sign(key, &seal_payload(last))),
        _ => schema::proof::Content::NextSecret(key.to_bytes().to_vec()),
    };
    let mut signed = signed.into_iter();
    schema::Biscuit {
        root_key_id,
        authority: signed.next().expect("there is a block 0"),
        blocks: signed.collect(),
        proof: schema::Proof {
            content: Some(content),
        },
    }
}

/// The payload of a block with these statements of Datalog, as the standard library writes it.
pub(crate) fn payload(source: &str) -> schema::Block {
    let block = BlockBuilder::new()
        .code(source)
        .unwrap_or_else(|e| panic!("{e:?}: {source}"));
    let any = KeyPair::from(
        &biscuit_auth::PrivateKey::from_bytes(&[1; 32], biscuit_auth::builder::Algorithm::Ed25519)
            .expect("32 bytes are a key"),
    );
    let token = BiscuitBuilder::new()
        .merge(block)
        .build_with_key_pair(&any, SymbolTable::default(), &any)
        .and_then(|token| token.to_vec())
        .unwrap_or_else(|e| panic!("{e:?}: {source}"));
    let token = schema::Biscuit::decode(token.as_slice()).expect("the library writes Biscuits");
    schema::Block::decode(token.authority.block.as_slice()).expect("the library writes blocks")
}

/// A public key as it stands in a token.
pub(crate) fn public(key: &PrivateKey) -> schema::PublicKey {
    let algorithm = match key.algorithm() {
        Algorithm::EdDsa => schema::public_key::Algorithm::Ed25519,
        Algorithm::Es256 => schema::public_key::Algorithm::Secp256r1,
    };
    schema::PublicKey {
        algorithm: algorithm as i32,
        key: key.public().to_bytes(),
    }
}

/// A signature as it stands in a token: raw for Ed25519, DER for P-256.
pub(crate) fn sign(key: &PrivateKey, message: &[u8]) -> Vec<u8> {
    let raw = key.sign(message);
    match key.algorithm() {
        Algorithm::EdDsa => raw.to_vec(),
        Algorithm::Es256 => der(&raw),
    }
}

/// A P-256 signature in DER.
pub(crate) fn der(raw: &[u8; 64]) -> Vec<u8> {
    Signature::from_slice(raw)
        .expect("64 bytes of r and s")
        .to_der()
        .as_bytes()
        .to_vec()
}

/// Of the two P-256 signatures of a message that belong together, s and n − s, the one with the larger.
pub(crate) fn high_s(raw: &[u8; 64]) -> [u8; 64] {
    let signature = Signature::from_slice(raw).expect("64 bytes of r and s");
    if signature.normalize_s().is_some() {
        return *raw;
    }
    let (r, s) = signature.split_scalars();
    let other = Signature::from_scalars(r.to_bytes(), (-*s).to_bytes()).expect("s is not zero");
    other.to_bytes().into()
}

/// An Ed25519 signature with the order of the group added to its second half: a lax verifier takes it.
pub(crate) fn plus_order(raw: &[u8]) -> Vec<u8> {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut sum = raw.to_vec();
    let mut carry = 0;
    for (byte, add) in sum[32..].iter_mut().zip(ORDER) {
        let total = u16::from(*byte) + u16::from(add) + carry;
        *byte = total.to_le_bytes()[0];
        carry = total >> 8;
    }
    sum
}

/// The bytes of one protobuf field of wire type 2.
pub(crate) fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut bytes);
    bytes.extend(content);
    bytes
}

fn next_key(key: &PrivateKey) -> (Vec<u8>, Vec<u8>) {
    let key = public(key);
    (key.algorithm.to_le_bytes().to_vec(), key.key)
}

fn block_payload(
    piece: &Piece,
    external: Option<&schema::ExternalSignature>,
    previous: Option<&[u8]>,
) -> Vec<u8> {
    let (algorithm, next) = next_key(&piece.next);
    let version = piece.version.unwrap_or(0);
    let external = external.map(|external| external.signature.as_slice());
    if version == 0 {
        return [&piece.payload, external.unwrap_or_default(), &algorithm, &next].concat();
    }
    let mut bytes = [
        b"\0BLOCK\0\0VERSION\0".as_slice(),
        &version.to_le_bytes(),
        b"\0PAYLOAD\0",
        &piece.payload,
        b"\0ALGORITHM\0",
        &algorithm,
        b"\0NEXTKEY\0",
        &next,
    ]
    .concat();
    if let Some(previous) = previous {
        bytes.extend([b"\0PREVSIG\0", previous].concat());
    }
    if let Some(external) = external {
        bytes.extend([b"\0EXTERNALSIG\0", external].concat());
    }
    bytes
}

fn external_payload(piece: &Piece, previous: &[u8], previous_key: &schema::PublicKey) -> Vec<u8> {
    match piece.version.unwrap_or(0) {
        0 => [
            &piece.payload,
            previous_key.algorithm.to_le_bytes().as_slice(),
            &previous_key.key,
        ]
        .concat(),
        version => [
            b"\0EXTERNAL\0\0VERSION\0".as_slice(),
            &version.to_le_bytes(),
            b"\0PAYLOAD\0",
            &piece.payload,
            b"\0PREVSIG\0",
            previous,
        ]
        .concat(),
    }
}

fn seal_payload(last: &schema::SignedBlock) -> Vec<u8> {
    [
        &last.block,
        last.next_key.algorithm.to_le_bytes().as_slice(),
        &last.next_key.key,
        &last.signature,
    ]
    .concat()
}
