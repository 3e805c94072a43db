//! One presentation in the making: everything is right until a vector bends it.

use std::rc::Rc;

use biscuit_auth::format::schema;
use prost::Message as _;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use taper_dpop::{Algorithm, PrivateKey, base64url_encode};

use crate::block::{Block, holder};
use crate::kit::{self, Key, Piece, Signer};
use crate::parts::{Access, Root, digest, hash, mint};

/// What every random value comes from, together with the vector's name.
const SEED: &[u8] = b"taper vectors 1";

/// 2027-01-15T08:00:00Z, a Friday.
pub(crate) const NOW: i64 = 1_800_000_000;
pub(crate) const ISSUER: &str = "https://issuer.example";
pub(crate) const AUDIENCE: &str = "https://proxy.example/git/mcp";

type Bend<T> = Box<dyn FnOnce(&mut T)>;

/// A block after block 0.
pub(crate) struct Link {
    pub(crate) signer: Signer,
    pub(crate) block: Block,
    pub(crate) version: Option<u32>,
}

/// Fresh keys of the vector's people.
pub(crate) struct Keys {
    /// The first holder, Ed25519.
    pub(crate) alice: Key,
    /// The next one, Ed25519.
    pub(crate) bob: Key,
    /// The one after, Ed25519.
    pub(crate) carol: Key,
    /// Somebody with a P-256 key.
    pub(crate) pat: Key,
    /// Nobody's friend, Ed25519.
    pub(crate) mallory: Key,
}

/// A presentation that is accepted unless it is bent.
pub(crate) struct Scene {
    rng: ChaCha20Rng,
    pub(crate) keys: Keys,
    pub(crate) time: i64,
    pub(crate) roots: Vec<Root>,
    /// The key that signs block 0.
    pub(crate) root: Key,
    pub(crate) root_key_id: Option<u32>,
    pub(crate) grant: Block,
    pub(crate) links: Vec<Link>,
    /// The next keys of all blocks, made when needed, or chosen.
    pub(crate) next: Vec<(usize, Key)>,
    pub(crate) sealed: bool,
    /// Who presents.
    pub(crate) presenter: Key,
    pub(crate) access: Access,
    pub(crate) method: &'static str,
    pub(crate) url: &'static str,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) nonce: Option<([u8; 64], bool)>,
    pub(crate) policy: Vec<&'static str>,
    payloads: Vec<(usize, Bend<schema::Block>)>,
    raw_payloads: Vec<(usize, Bend<Vec<u8>>)>,
    pieces: Option<Bend<Vec<Piece>>>,
    token: Option<Bend<schema::Biscuit>>,
    bytes: Option<Bend<Vec<u8>>>,
    text: Option<Bend<String>>,
    header: Option<Bend<Map<String, Value>>>,
    claims: Option<Bend<Map<String, Value>>>,
    segments: Option<Bend<[String; 2]>>,
    signature: Option<Bend<Vec<u8>>>,
    proof: Option<Bend<String>>,
}

impl Scene {
    /// Alice holds a capability for every tool of `git` and calls one.
    pub(crate) fn new(name: &str) -> Self {
        let seed = Sha256::new().chain_update(SEED).chain_update(name).finalize();
        let mut rng = ChaCha20Rng::from_seed(seed.into());
        let mut key = |algorithm| Rc::new(PrivateKey::generate(algorithm, &mut rng));
        let root = key(Algorithm::EdDsa);
        let keys = Keys {
            alice: key(Algorithm::EdDsa),
            bob: key(Algorithm::EdDsa),
            carol: key(Algorithm::EdDsa),
            pat: key(Algorithm::Es256),
            mallory: key(Algorithm::EdDsa),
        };
        let mut id = [0; 16];
        rng.fill_bytes(&mut id);
        Self {
            time: NOW,
            roots: vec![Root {
                issuer: ISSUER.into(),
                key_id: 1,
                key: Rc::clone(&root),
                servers: None,
            }],
            root,
            root_key_id: Some(1),
            grant: Block::grant(ISSUER, &base64url_encode(&id), AUDIENCE, &keys.alice),
            links: Vec::new(),
            next: Vec::new(),
            sealed: true,
            presenter: Rc::clone(&keys.alice),
            access: Access {
                kind: "tool_call",
                audience: AUDIENCE,
                server: "git",
                method: "tools/call",
                tool: Some("git_log"),
                arguments: Some("{}".into()),
                resources: Vec::new(),
                uri: None,
                prompt: None,
                client_ip: None,
                calls: Vec::new(),
            },
            method: "POST",
            url: AUDIENCE,
            body: None,
            nonce: None,
            policy: vec!["allow if true;"],
            rng,
            keys,
            payloads: Vec::new(),
            raw_payloads: Vec::new(),
            pieces: None,
            token: None,
            bytes: None,
            text: None,
            header: None,
            claims: None,
            segments: None,
            signature: None,
            proof: None,
        }
    }

    /// A fresh key.
    pub(crate) fn key(&mut self, algorithm: Algorithm) -> Key {
        Rc::new(PrivateKey::generate(algorithm, &mut self.rng))
    }

    /// Some random bytes.
    pub(crate) fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// The presenter hands on to `child`, who presents.
    pub(crate) fn hand_over(&mut self, child: &Key) -> &mut Block {
        let by = std::mem::replace(&mut self.presenter, Rc::clone(child));
        self.link(&by, Block::later(&holder(child)))
    }

    /// The presenter hands on to Bob, who presents.
    pub(crate) fn hand_to_bob(&mut self) -> &mut Block {
        let bob = Rc::clone(&self.keys.bob);
        self.hand_over(&bob)
    }

    /// The presenter narrows for itself.
    pub(crate) fn narrow(&mut self) -> &mut Block {
        let by = Rc::clone(&self.presenter);
        self.link(&by, Block::later(&holder(&by)))
    }

    /// The presenter adds one check.
    pub(crate) fn check(&mut self, check: &str) {
        self.narrow().add(check);
    }

    /// A block signed by `signer`, whoever that is.
    pub(crate) fn link(&mut self, signer: &Key, block: Block) -> &mut Block {
        self.links.push(Link {
            signer: Signer::Key(Rc::clone(signer)),
            block,
            version: Some(1),
        });
        &mut self.links.last_mut().expect("one was added").block
    }

    /// The call has these arguments.
    pub(crate) fn arguments(&mut self, json: &str) {
        self.access.arguments = Some(json.to_owned());
    }

    /// Another kind of access, that names nothing yet.
    pub(crate) fn ask(&mut self, kind: &'static str, method: &'static str) {
        self.access.kind = kind;
        self.access.method = method;
        self.access.tool = None;
        self.access.arguments = None;
    }

    /// Bends the payload of a block before it is signed.
    pub(crate) fn payload(&mut self, block: usize, bend: impl FnOnce(&mut schema::Block) + 'static) {
        self.payloads.push((block, Box::new(bend)));
    }

    /// Bends the bytes of a payload before they are signed.
    pub(crate) fn raw_payload(&mut self, block: usize, bend: impl FnOnce(&mut Vec<u8>) + 'static) {
        self.raw_payloads.push((block, Box::new(bend)));
    }

    /// Bends the list of blocks before they are signed.
    pub(crate) fn pieces(&mut self, bend: impl FnOnce(&mut Vec<Piece>) + 'static) {
        self.pieces = Some(Box::new(bend));
    }

    /// Bends the signed token.
    pub(crate) fn token(&mut self, bend: impl FnOnce(&mut schema::Biscuit) + 'static) {
        self.token = Some(Box::new(bend));
    }

    /// Bends the bytes of the token.
    pub(crate) fn bytes(&mut self, bend: impl FnOnce(&mut Vec<u8>) + 'static) {
        self.bytes = Some(Box::new(bend));
    }

    /// Bends the text of the token.
    pub(crate) fn text(&mut self, bend: impl FnOnce(&mut String) + 'static) {
        self.text = Some(Box::new(bend));
    }

    /// Bends the proof's header before it is signed.
    pub(crate) fn header(&mut self, bend: impl FnOnce(&mut Map<String, Value>) + 'static) {
        self.header = Some(Box::new(bend));
    }

    /// Bends the proof's claims before they are signed.
    pub(crate) fn claims(&mut self, bend: impl FnOnce(&mut Map<String, Value>) + 'static) {
        self.claims = Some(Box::new(bend));
    }

    /// Bends the JSON texts of header and claims before they are signed.
    pub(crate) fn segments(&mut self, bend: impl FnOnce(&mut [String; 2]) + 'static) {
        self.segments = Some(Box::new(bend));
    }

    /// Bends the proof's signature.
    pub(crate) fn signature(&mut self, bend: impl FnOnce(&mut Vec<u8>) + 'static) {
        self.signature = Some(Box::new(bend));
    }

    /// Bends the proof's text.
    pub(crate) fn proof(&mut self, bend: impl FnOnce(&mut String) + 'static) {
        self.proof = Some(Box::new(bend));
    }

    /// A nonce that the server of this vector made at `time`.
    pub(crate) fn mint(&self, time: i64) -> String {
        let (key, _) = self.nonce.expect("the server has a key for nonces");
        mint(&key, time)
    }

    /// The presentation as members of a vector.
    pub(crate) fn finish(mut self) -> Map<String, Value> {
        let token = self.token_text();
        let body = self.body.take().unwrap_or_else(|| self.default_body());
        let proof = self.proof_text(&token, &body);
        let roots: Vec<Value> = self.roots.iter().map(Root::to_json).collect();
        let nonce = self
            .nonce
            .map(|(key, demanded)| json!({ "key": base64url_encode(&key), "demanded": demanded }));
        let members = json!({
            "time": self.time,
            "roots": roots,
            "token": token,
            "proof": proof,
            "request": {
                "method": self.method,
                "url": self.url,
                "body": base64url_encode(&body),
                "nonce": nonce,
            },
            "access": self.access.to_json(),
            "policy": self.policy,
        });
        match members {
            Value::Object(members) => members,
            _ => Map::new(),
        }
    }

    fn token_text(&mut self) -> String {
        let mut pieces = Vec::new();
        let mut payloads = std::mem::take(&mut self.payloads);
        let mut raw_payloads = std::mem::take(&mut self.raw_payloads);
        let links = std::mem::take(&mut self.links);
        let first = Link {
            signer: Signer::Nobody,
            block: std::mem::replace(&mut self.grant, Block::empty()),
            version: None,
        };
        for (index, link) in std::iter::once(first).chain(links).enumerate() {
            let mut payload = kit::payload(&link.block.source());
            if index > 0 {
                payload.version = payload.version.map(|version| version.max(5));
            }
            for (_, bend) in payloads.extract_if(.., |(block, _)| *block == index) {
                bend(&mut payload);
            }
            let version = match (index, payload.version) {
                // The standard library signs block 0 in the new form as soon as it needs version 6.
                (0, Some(6..)) => Some(1),
                _ => link.version,
            };
            let mut payload = payload.encode_to_vec();
            for (_, bend) in raw_payloads.extract_if(.., |(block, _)| *block == index) {
                bend(&mut payload);
            }
            let chosen = self.next.iter().find(|(block, _)| *block == index);
            let next = match chosen.map(|(_, key)| Rc::clone(key)) {
                Some(key) => key,
                None => self.key(Algorithm::EdDsa),
            };
            pieces.push(Piece {
                payload,
                next,
                signer: link.signer,
                version,
            });
        }
        bend(&mut self.pieces, &mut pieces);
        let mut token = kit::assemble(self.root_key_id, &self.root, &pieces, self.sealed);
        bend(&mut self.token, &mut token);
        let mut bytes = token.encode_to_vec();
        bend(&mut self.bytes, &mut bytes);
        let mut text = base64url_encode(&bytes);
        bend(&mut self.text, &mut text);
        text
    }

    fn proof_text(&mut self, token: &str, body: &[u8]) -> String {
        let key = Rc::clone(&self.presenter);
        let mut header = Map::new();
        header.insert("typ".into(), json!("dpop+jwt"));
        header.insert("alg".into(), json!(key.algorithm().as_str()));
        let jwk = serde_json::to_value(key.public().to_jwk());
        header.insert("jwk".into(), jwk.expect("a key is JSON"));
        bend(&mut self.header, &mut header);
        let mut claims = Map::new();
        claims.insert("jti".into(), json!(base64url_encode(&self.random::<16>())));
        claims.insert("htm".into(), json!(self.method));
        claims.insert("htu".into(), json!(self.url));
        claims.insert("iat".into(), json!(self.time));
        claims.insert("ath".into(), json!(hash(token.as_bytes())));
        claims.insert("content_digest".into(), json!(digest(body)));
        bend(&mut self.claims, &mut claims);
        let mut segments = [
            Value::Object(header).to_string(),
            Value::Object(claims).to_string(),
        ];
        bend(&mut self.segments, &mut segments);
        let [header, claims] = segments.map(|segment| base64url_encode(segment.as_bytes()));
        let input = format!("{header}.{claims}");
        let mut signature = key.sign(input.as_bytes()).to_vec();
        bend(&mut self.signature, &mut signature);
        let mut proof = format!("{input}.{}", base64url_encode(&signature));
        bend(&mut self.proof, &mut proof);
        proof
    }

    fn default_body(&self) -> Vec<u8> {
        let access = &self.access;
        let name = access
            .tool
            .or(access.prompt)
            .map(|name| format!(r#""name":"{name}""#));
        let uri = access.uri.map(|uri| format!(r#""uri":"{uri}""#));
        let arguments = access.arguments.as_ref().map(|a| format!(r#""arguments":{a}"#));
        let params: Vec<String> = [name, uri, arguments].into_iter().flatten().collect();
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"{}","params":{{{}}}}}"#,
            access.method,
            params.join(",")
        )
        .into_bytes()
    }
}

fn bend<T>(slot: &mut Option<Bend<T>>, value: &mut T) {
    if let Some(bend) = slot.take() {
        bend(value);
    }
}
