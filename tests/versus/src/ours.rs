//! taper: from the texts of the two headers to a decision, as the boundary works.

use crate::{Caveats, HOST, Side, TTL};
use rand_core::OsRng;
use std::sync::Arc;
use taper_capability::json::Value;
use taper_capability::{
    Access, AccessKind, Caveat, Delegation, Grant, Party, ResourceMatch, Right, RootKey, Roots,
    UnverifiedToken, VerifiedPresentation, Verifier, issue,
};
use taper_dpop::{Algorithm, Expectation, NonceRule, PrivateKey, Proof, ProofClaims, TokenHash};
use taper_policy::PolicyFile;
use taper_policy::boundary::{BoundaryPolicy, Decision, decide};

const ISSUER: &str = "https://issuer.example";

/// A verifier with one credential.
pub struct Ours {
    verifier: Verifier,
    policy: BoundaryPolicy,
    access: Access,
    now: i64,
    token: String,
    proof: String,
}

impl Ours {
    /// A sealed chain of so many hand-overs with its proof.
    pub fn new(hand_overs: usize, caveats: Caveats, now: i64) -> Self {
        let root = RootKey::generate(1, &mut OsRng);
        let mut key = PrivateKey::generate(Algorithm::EdDsa, &mut OsRng);
        let grant = Grant {
            issuer: ISSUER.into(),
            id: Grant::new_id(&mut OsRng),
            subject: Party {
                iss: "https://idp.example".into(),
                sub: "alice".into(),
            },
            client: "dev".into(),
            actor: None,
            holder: key.public(),
            audiences: vec![HOST.into()],
            rights: vec![Right::AnyTool { server: "git".into() }],
            claims: vec![],
            issued_at: now,
            expires_at: now + TTL,
            max_depth: 8,
            caveats: vec![],
        };
        let mut token = issue(&grant, &root, &mut OsRng).unwrap();
        for _ in 0..hand_overs {
            let next = PrivateKey::generate(Algorithm::EdDsa, &mut OsRng);
            let mut hand_over = Delegation::to(next.public()).until(now + TTL);
            if caveats == Caveats::Two {
                hand_over = hand_over.only(tools()).only(repo());
            }
            token = hand_over.sign(&token, &key, &mut OsRng).unwrap();
            key = next;
        }
        let token = token.sealed().unwrap();
        let proof = ProofClaims::new("POST", HOST, now, &mut OsRng).token(token.as_str());
        let policy = PolicyFile {
            name: "boundary.dl".into(),
            source: "allow if true;".into(),
        };
        let repo_path = Value::String("acme/web".into());
        let mut access = Access::new(AccessKind::ToolCall, "git", HOST, "tools/call");
        access.tool = Some("git_log".into());
        access.arguments = Some(Value::Object(vec![("repo_path".into(), repo_path)]));
        access.resources = vec![("repo".into(), "acme/web".into())];
        Self {
            verifier: Verifier::new(Roots::new().trust(ISSUER, 1, root.public(), None).unwrap()),
            policy: BoundaryPolicy::load(&[policy]).unwrap(),
            access,
            now,
            proof: proof.sign(&key).unwrap(),
            token: token.as_str().to_owned(),
        }
    }
}

impl Side for Ours {
    fn bytes(&self) -> [usize; 2] {
        [self.token.len(), self.proof.len()]
    }

    fn passes(&self) -> bool {
        let expected = Expectation {
            method: "POST",
            url: HOST,
            token: Some(TokenHash::of(&self.token)),
            nonce: NonceRule::Unused,
            now: self.now,
        };
        let proof = Proof::parse(&self.proof).unwrap().check(&expected).unwrap();
        let token = UnverifiedToken::decode(&self.token).unwrap();
        let proof = proof.verify().unwrap();
        let chain = Arc::new(self.verifier.verify(token, self.now).unwrap());
        let presentation = VerifiedPresentation::new(chain, proof).unwrap();
        let decision = decide(&self.policy, &presentation, self.access.clone(), self.now);
        matches!(decision, Decision::Allow(_))
    }
}

fn tools() -> Caveat {
    Caveat::Tool {
        server: "git".into(),
        tools: vec!["git_log".into(), "git_show".into()],
    }
}

fn repo() -> Caveat {
    Caveat::Resource {
        kind: "repo".into(),
        matches: ResourceMatch::OneOf(vec!["acme/web".into()]),
    }
}
