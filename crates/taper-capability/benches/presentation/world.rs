//! What is measured: chains of hand-overs, their proofs, and the work that a boundary does with them.

use rand_core::OsRng;
use std::collections::HashMap;
use std::sync::Arc;
use taper_capability::json::{JsonLimits, Value, parse};
use taper_capability::{
    Access, AccessKind, Caveat, Delegation, Grant, Narrowing, Party, ResourceMatch, Right, RootKey, Roots,
    Token, UnverifiedToken, VerifiedChain, VerifiedPresentation, Verifier, issue,
};
use taper_dpop::{
    Algorithm, CheckedProof, Expectation, NonceRule, PrivateKey, Proof, ProofClaims, TokenHash, VerifiedProof,
};
use taper_policy::PolicyFile;
use taper_policy::boundary::{BoundaryPolicy, Decision, decide};

const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://issuer.example";
const URL: &str = "https://proxy.example/git/mcp";
const BODY: &[u8] = br#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"git_log","arguments":{"repo_path":"acme/web","max_count":5}}}"#;

/// An issuer's root key and a boundary that trusts it.
pub(crate) struct World {
    root: RootKey,
    verifier: Verifier,
    policy: BoundaryPolicy,
}

/// One credential as it arrives: the texts of the two headers.
pub(crate) struct Presented {
    pub(crate) token: String,
    pub(crate) proof: String,
}

/// Why a request stops.
#[derive(Debug)]
pub(crate) enum Refused {
    Proof,
    Decode,
    Holder,
    Expired,
    ProofSignature,
    Chain,
    Decision,
}

impl World {
    pub(crate) fn new() -> Self {
        let root = RootKey::generate(1, &mut OsRng);
        let roots = Roots::new().trust(ISSUER, 1, root.public(), None).unwrap();
        // The policy that is shipped: it leaves the decision to the capability.
        let policy = PolicyFile {
            name: "boundary.dl".into(),
            source: "allow if true;".into(),
        };
        Self {
            root,
            verifier: Verifier::new(roots),
            policy: BoundaryPolicy::load(&[policy]).unwrap(),
        }
    }

    /// A sealed token after so many hand-overs, each with two caveats, and its last holder's key.
    pub(crate) fn chain(&self, hand_overs: usize, algorithm: Algorithm) -> (Token, PrivateKey) {
        let (token, key) = issued(&self.root, algorithm);
        let (token, key) = (0..hand_overs).fold((token, key), |(token, key), _| {
            let next = PrivateKey::generate(algorithm, &mut OsRng);
            let [tool, repo] = caveats();
            let hand_over = Delegation::to(next.public()).until(NOW + 3600);
            let token = hand_over
                .only(tool)
                .only(repo)
                .sign(&token, &key, &mut OsRng)
                .unwrap();
            (token, next)
        });
        (token.sealed().unwrap(), key)
    }

    /// The credential of a call that passes.
    pub(crate) fn presented(&self, hand_overs: usize, algorithm: Algorithm) -> Presented {
        let (token, key) = self.chain(hand_overs, algorithm);
        let presented = present(token.as_str(), &key);
        self.call(&presented).unwrap();
        presented
    }

    /// The most expensive token that needs no root key: it names the issuer and its key, its signature
    /// is another's, and its links have keys that cost the most to read.
    pub(crate) fn unrooted(&self) -> Presented {
        let stranger = RootKey::generate(self.root.id(), &mut OsRng);
        let (mut token, key) = issued(&stranger, Algorithm::Es256);
        while let Ok(longer) = Narrowing::new().sign(&token, &key, &mut OsRng) {
            token = longer;
        }
        present(token.sealed().unwrap().as_str(), &key)
    }

    /// Everything from the header texts to a verified presentation, in the order of RULES 9.
    pub(crate) fn authenticate(&self, presented: &Presented) -> Result<VerifiedPresentation, Refused> {
        let proof = check_proof(presented)?;
        let token = decode(presented)?;
        if token.last_holder() != proof.key() {
            return Err(Refused::Holder);
        }
        token.check_expiry(NOW).map_err(|_| Refused::Expired)?;
        let proof = verify_proof(proof)?;
        let chain = Arc::new(self.verify(token)?);
        VerifiedPresentation::new(chain, proof).map_err(|_| Refused::Holder)
    }

    /// The same with the chain taken from a cache of verified tokens.
    pub(crate) fn authenticate_cached(
        &self,
        presented: &Presented,
        cache: &HashMap<TokenHash, Arc<VerifiedChain>>,
    ) -> Result<VerifiedPresentation, Refused> {
        let proof = check_proof(presented)?;
        let chain = cache
            .get(&TokenHash::of(&presented.token))
            .ok_or(Refused::Chain)?;
        if NOW >= chain.expires_at() {
            return Err(Refused::Expired);
        }
        let proof = verify_proof(proof)?;
        VerifiedPresentation::new(Arc::clone(chain), proof).map_err(|_| Refused::Holder)
    }

    /// All signatures of a chain, the walk, the admission of its checks.
    pub(crate) fn verify(&self, token: UnverifiedToken) -> Result<VerifiedChain, Refused> {
        self.verifier.verify(token, NOW).map_err(|_| Refused::Chain)
    }

    /// From a verified presentation and a message to the decision.
    pub(crate) fn decide(&self, presentation: &VerifiedPresentation, message: &Value) -> Result<(), Refused> {
        match decide(&self.policy, presentation, access(message), NOW) {
            Decision::Allow(_) => Ok(()),
            _ => Err(Refused::Decision),
        }
    }

    /// A whole call with nothing cached.
    pub(crate) fn call(&self, presented: &Presented) -> Result<(), Refused> {
        let presentation = self.authenticate(presented)?;
        self.decide(&presentation, &read(presentation.proof()))
    }

    /// A whole call with the verified token cached.
    pub(crate) fn call_cached(
        &self,
        presented: &Presented,
        cache: &HashMap<TokenHash, Arc<VerifiedChain>>,
    ) -> Result<(), Refused> {
        let presentation = self.authenticate_cached(presented, cache)?;
        self.decide(&presentation, &read(presentation.proof()))
    }
}

fn issued(root: &RootKey, algorithm: Algorithm) -> (Token, PrivateKey) {
    let holder = PrivateKey::generate(algorithm, &mut OsRng);
    let party = |sub: &str| Party {
        iss: "https://idp.example".into(),
        sub: sub.into(),
    };
    let grant = Grant {
        issuer: ISSUER.into(),
        id: Grant::new_id(&mut OsRng),
        subject: party("alice"),
        client: "dev".into(),
        actor: Some(party("assistant")),
        holder: holder.public(),
        audiences: vec![URL.into()],
        rights: vec![Right::AnyTool { server: "git".into() }],
        claims: vec![("groups".into(), "eng".into())],
        issued_at: NOW,
        expires_at: NOW + 3600,
        max_depth: 8,
        caveats: vec![],
    };
    (issue(&grant, root, &mut OsRng).unwrap(), holder)
}

fn caveats() -> [Caveat; 2] {
    let tool = Caveat::Tool {
        server: "git".into(),
        tools: vec!["git_log".into(), "git_show".into()],
    };
    let repo = Caveat::Resource {
        kind: "repo".into(),
        matches: ResourceMatch::OneOf(vec!["acme/web".into()]),
    };
    [tool, repo]
}

/// Proof that `key` presents `token`.
pub(crate) fn present(token: &str, key: &PrivateKey) -> Presented {
    let claims = ProofClaims::new("POST", URL, NOW, &mut OsRng)
        .token(token)
        .body(BODY);
    Presented {
        token: token.to_owned(),
        proof: claims.sign(key).unwrap(),
    }
}

/// Form and claims of the proof, the token's hash among them.
pub(crate) fn check_proof(presented: &Presented) -> Result<CheckedProof<'_>, Refused> {
    let expected = Expectation {
        method: "POST",
        url: URL,
        token: Some(TokenHash::of(&presented.token)),
        nonce: NonceRule::Unused,
        now: NOW,
    };
    let proof = Proof::parse(&presented.proof).map_err(|_| Refused::Proof)?;
    proof.check(&expected).map_err(|_| Refused::Proof)
}

/// The one signature check of the proof.
pub(crate) fn verify_proof(proof: CheckedProof<'_>) -> Result<VerifiedProof, Refused> {
    proof.verify().map_err(|_| Refused::ProofSignature)
}

/// The token, unverified.
pub(crate) fn decode(presented: &Presented) -> Result<UnverifiedToken, Refused> {
    UnverifiedToken::decode(&presented.token).map_err(|_| Refused::Decode)
}

/// The body: its digest, and its strict JSON.
pub(crate) fn read(proof: &VerifiedProof) -> Value {
    assert!(proof.binds(BODY).unwrap());
    parse(BODY, &JsonLimits::default()).unwrap()
}

fn access(message: &Value) -> Access {
    let arguments = message
        .get("params")
        .and_then(|params| params.get("arguments"))
        .unwrap();
    let repo = arguments.get("repo_path").and_then(Value::as_str).unwrap();
    let mut access = Access::new(AccessKind::ToolCall, "git", URL, "tools/call");
    access.tool = Some("git_log".into());
    access.resources = vec![("repo".into(), repo.into())];
    access.arguments = Some(arguments.clone());
    access.body_bound = true;
    access
}
