//! Valid tokens, made once from a fixed seed, and what each of them allows.
//!
//! An attacker knows the bytes of all of them, next-block secrets included, and holds the keys that
//! [`World::is_owned`] names: that of the last holder of one chain, and two of nobody.

use crate::text::is_plain;
use biscuit_auth::format::schema;
use prost::Message as _;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use std::sync::Arc;
use taper_capability::json::Value;
use taper_capability::{
    Access, AccessKind, Caveat, Delegation, Grant, Narrowing, Party, ResourceMatch, Right, RootKey, Roots,
    Token, UnverifiedToken, VerifiedChain, VerifiedPresentation, Verifier, issue,
};
use taper_dpop::{
    Algorithm, Expectation, NonceRule, PrivateKey, Proof, ProofClaims, PublicKey, TokenHash, VerifiedProof,
    base64url_decode,
};
use taper_policy::PolicyFile;
use taper_policy::boundary::{BoundaryPolicy, Decision, decide};

/// When everything happens, in seconds since the Unix epoch.
pub const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://issuer.example";
const URL: &str = "https://proxy.example/git/mcp";

/// All there is.
pub struct World {
    verifier: Verifier,
    policy: BoundaryPolicy,
    probes: Vec<Access>,
    /// Every key; the first [`OWNED`] are the attacker's.
    keys: Vec<PrivateKey>,
    /// The tokens.
    pub originals: Vec<Original>,
}

/// The keys that the attacker holds: the last holder's of the chain [`HELD`], a stranger's of either
/// algorithm.
const OWNED: usize = 3;
/// The chain that the attacker holds.
pub const HELD: usize = 1;

/// A valid token.
pub struct Original {
    /// The decoded token.
    pub proto: schema::Biscuit,
    chain: VerifiedChain,
    allowed: Vec<bool>,
}

impl World {
    /// Makes it; the same every time.
    #[must_use]
    pub fn new() -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let algorithms = [
            Algorithm::EdDsa,
            Algorithm::EdDsa,
            Algorithm::Es256,
            Algorithm::EdDsa,
            Algorithm::Es256,
            Algorithm::EdDsa,
        ];
        let keys: Vec<_> = algorithms
            .into_iter()
            .map(|algorithm| PrivateKey::generate(algorithm, &mut rng))
            .collect();
        let [mine, _, _, first, second, third] = keys.as_slice() else {
            unreachable!("there are six keys");
        };
        let root = RootKey::generate(1, &mut rng);
        let mut grant = |holder: &PrivateKey, rights: Vec<Right>| {
            let grant = Grant {
                issuer: ISSUER.into(),
                id: Grant::new_id(&mut rng),
                subject: Party {
                    iss: "https://idp.example".into(),
                    sub: "alice".into(),
                },
                client: "dev".into(),
                actor: None,
                holder: holder.public(),
                audiences: vec![URL.into()],
                rights,
                claims: vec![("groups".into(), "eng".into())],
                issued_at: NOW - 60,
                expires_at: NOW + 3600,
                max_depth: 3,
                caveats: vec![],
            };
            issue(&grant, &root, &mut rng).unwrap()
        };
        let some = grant(
            first,
            vec![
                Right::Tool {
                    server: "git".into(),
                    tool: "git_log".into(),
                },
                Right::Prompt {
                    server: "git".into(),
                    name: "review".into(),
                },
            ],
        );
        let all = grant(third, vec![Right::AnyTool { server: "git".into() }]);
        let repo = Caveat::Resource {
            kind: "repo".into(),
            matches: ResourceMatch::OneOf(vec!["acme/web".into()]),
        };
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let held = Delegation::to(mine.public())
            .until(NOW + 600)
            .max_depth(2)
            .only(repo.clone())
            .sign(&some, first, &mut rng)
            .unwrap();
        let narrowed = Narrowing::new().only(repo).sign(&some, first, &mut rng).unwrap();
        let to_p256 = Delegation::to(second.public())
            .until(NOW + 600)
            .sign(&narrowed, first, &mut rng)
            .unwrap();
        let to_first = Delegation::to(first.public())
            .until(NOW + 600)
            .sign(&all, third, &mut rng)
            .unwrap();
        let policy = PolicyFile {
            name: "fuzz.dl".into(),
            source: "allow if true;".into(),
        };
        let mut world = Self {
            verifier: Verifier::new(Roots::new().trust(ISSUER, 1, root.public(), None).unwrap()),
            policy: BoundaryPolicy::load(&[policy]).unwrap(),
            probes: probes(),
            keys,
            originals: Vec::new(),
        };
        let sealed = to_p256.sealed().unwrap();
        for token in [some, held, to_p256, all, to_first, sealed] {
            let original = world.original(&token);
            world.originals.push(original);
        }
        world
    }

    /// Asserts that a token grants no more than an original of which the attacker may make it, and that
    /// what is shown of it, verified or not, stands on one line as it is.
    pub fn check(&self, text: &str) {
        let Ok(token) = UnverifiedToken::decode(text) else {
            return;
        };
        for link in token.links() {
            let caveats = link.caveats().0.into_iter().map(|caveat| caveat.to_string());
            for shown in caveats.chain(link.other_checks()) {
                assert!(is_plain(&shown), "{shown:?}");
            }
        }
        let Ok(chain) = self.verifier.verify(token, NOW) else {
            return;
        };
        let chain = Arc::new(chain);
        let original = self
            .originals
            .iter()
            .filter(|original| chain.branch_ids().starts_with(original.chain.branch_ids()))
            .max_by_key(|original| original.chain.links().len())
            .expect("it verifies, and is made of no original");
        let from = &original.chain;
        assert_eq!(chain.issuer(), from.issuer());
        assert_eq!(chain.grant_id(), from.grant_id());
        assert_eq!(chain.rights(), from.rights());
        assert_eq!(chain.audiences(), from.audiences());
        assert_eq!(chain.claims(), from.claims());
        assert_eq!(chain.subject(), from.subject());
        assert!(chain.expires_at() <= from.expires_at());
        assert!(chain.max_depth() <= from.max_depth());
        assert!(from.depth() <= chain.depth() && chain.depth() <= chain.max_depth());
        for (link, of) in chain.links().iter().zip(from.links()) {
            assert_eq!(link.holder, of.holder);
            assert_eq!(link.caveats.len(), of.caveats.len());
        }
        if chain.links().len() == from.links().len() {
            assert_eq!(chain.last_holder(), from.last_holder());
            // Block by block the original: it allows the same.
            return;
        }
        assert!(
            self.is_owned(from.last_holder()),
            "the holder's key is not the attacker's"
        );
        if let Some(allowed) = self.allowed(&chain, text) {
            for (i, (now, before)) in allowed.iter().zip(&original.allowed).enumerate() {
                assert!(
                    *before || !now,
                    "it allows what the original does not: {:?}",
                    self.probes[i]
                );
            }
        }
    }

    /// Whether the attacker holds this key.
    #[must_use]
    pub fn is_owned(&self, key: &PublicKey) -> bool {
        self.keys[..OWNED].iter().any(|owned| owned.public() == *key)
    }

    /// A key of the attacker's.
    #[must_use]
    pub fn owned(&self, choice: u8) -> &PrivateKey {
        &self.keys[usize::from(choice) % OWNED]
    }

    /// Anybody's public key.
    #[must_use]
    pub fn anybody(&self, choice: u8) -> PublicKey {
        self.keys[usize::from(choice) % self.keys.len()].public()
    }

    fn original(&self, token: &Token) -> Original {
        let unverified = UnverifiedToken::decode(token.as_str()).unwrap();
        let chain = Arc::new(self.verifier.verify(unverified, NOW).unwrap());
        let allowed = self.allowed(&chain, token.as_str()).unwrap();
        assert!(
            allowed.iter().any(|allowed| *allowed),
            "an original that allows nothing"
        );
        let bytes = base64url_decode(token.as_str()).unwrap();
        Original {
            proto: schema::Biscuit::decode(bytes.as_slice()).unwrap(),
            chain: Arc::into_inner(chain).unwrap(),
            allowed,
        }
    }

    /// Which probes pass, if the key of the last holder is known here.
    fn allowed(&self, chain: &Arc<VerifiedChain>, text: &str) -> Option<Vec<bool>> {
        let key = self
            .keys
            .iter()
            .find(|key| key.public() == *chain.last_holder())?;
        let presentation = VerifiedPresentation::new(Arc::clone(chain), prove(key, text)).unwrap();
        let allows = |access: &Access| {
            matches!(
                decide(&self.policy, &presentation, access.clone(), NOW),
                Decision::Allow(_)
            )
        };
        Some(self.probes.iter().map(allows).collect())
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

fn prove(key: &PrivateKey, token: &str) -> VerifiedProof {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let proof = ProofClaims::new("POST", URL, NOW, &mut rng)
        .token(token)
        .sign(key)
        .unwrap();
    let expected = Expectation {
        method: "POST",
        url: URL,
        token: Some(TokenHash::of(token)),
        nonce: NonceRule::Unused,
        now: NOW,
    };
    Proof::parse(&proof)
        .unwrap()
        .check(&expected)
        .unwrap()
        .verify()
        .unwrap()
}

/// Calls of every kind, those that the originals allow and their neighbours.
fn probes() -> Vec<Access> {
    let mut probes = Vec::new();
    for tool in ["git_log", "git_show"] {
        for repo in ["acme/web", "acme/payroll"] {
            let mut access = Access::new(AccessKind::ToolCall, "git", URL, "tools/call");
            access.tool = Some(tool.into());
            access.resources = vec![("repo".into(), repo.into())];
            let arguments = vec![
                ("repo_path".into(), Value::String(repo.into())),
                ("max_count".into(), Value::Number("5".into())),
            ];
            access.arguments = Some(Value::Object(arguments));
            access.client_ip = Some([10, 0, 0, 1].into());
            access.calls = vec![("c".into(), 1)];
            probes.push(access);
        }
    }
    let of = |kind, server: &str, audience: &str, method: &str| Access::new(kind, server, audience, method);
    probes.push(Access {
        prompt: Some("review".into()),
        ..of(AccessKind::PromptGet, "git", URL, "prompts/get")
    });
    probes.push(Access {
        uri: Some("file:///etc/passwd".into()),
        ..of(AccessKind::ResourceRead, "git", URL, "resources/read")
    });
    probes.push(Access {
        tool: Some("git_log".into()),
        ..of(AccessKind::ListEntry, "git", URL, "tools/list")
    });
    probes.push(of(AccessKind::Task, "git", URL, "tasks/get"));
    probes.push(of(AccessKind::Plumbing, "git", URL, "ping"));
    probes.push(of(
        AccessKind::Plumbing,
        "git",
        "https://other.example/mcp",
        "ping",
    ));
    probes.push(Access {
        tool: Some("read_file".into()),
        ..of(AccessKind::ToolCall, "files", URL, "tools/call")
    });
    probes
}
