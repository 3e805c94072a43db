//! Making bombs: chains with whatever blocks a holder can sign, and accesses of any size.

use biscuit_auth::UnverifiedBiscuit;
use biscuit_auth::builder::{BlockBuilder, Fact, Term};
use rand_core::OsRng;
use std::sync::Arc;
use taper_capability::{
    Access, AccessKind, Error, Grant, Party, Right, RootKey, Roots, Token, UnverifiedToken,
    VerifiedPresentation, Verifier, issue, json,
};
use taper_dpop::{
    Algorithm, Expectation, NonceRule, PrivateKey, Proof, ProofClaims, base64url_decode, base64url_encode,
};
use taper_policy::PolicyFile;
use taper_policy::boundary::{BoundaryPolicy, Decision, decide};

pub(crate) const NOW: i64 = 1_800_000_000;
pub(crate) const AUDIENCE: &str = "https://proxy.example/git/mcp";
const ISSUER: &str = "https://issuer.example";
const EXPIRY: &str = "check if time($t), $t < 2027-01-15T08:10:00Z;";

/// An issuer, a holder and what the boundary knows of them.
pub(crate) struct World {
    root: RootKey,
    pub(crate) holder: PrivateKey,
    verifier: Verifier,
    policy: BoundaryPolicy,
}

impl World {
    pub(crate) fn new() -> Self {
        let root = RootKey::generate(1, &mut OsRng);
        let roots = Roots::new().trust(ISSUER, 1, root.public(), None).unwrap();
        let policy = PolicyFile {
            name: "allow.dl".into(),
            source: "allow if true;".into(),
        };
        Self {
            root,
            holder: PrivateKey::generate(Algorithm::EdDsa, &mut OsRng),
            verifier: Verifier::new(roots),
            policy: BoundaryPolicy::load(&[policy]).unwrap(),
        }
    }

    /// A grant for every tool of one server, with more claims and rights as wanted.
    pub(crate) fn grant(&self, claims: usize, rights: usize) -> Token {
        let mut granted = vec![Right::AnyTool { server: "git".into() }];
        granted.extend((0..rights).map(|i| Right::Tool {
            server: "git".into(),
            tool: format!("t{i}"),
        }));
        let grant = Grant {
            issuer: ISSUER.into(),
            id: Grant::new_id(&mut OsRng),
            subject: Party {
                iss: "https://idp.example".into(),
                sub: "alice".into(),
            },
            client: "dev".into(),
            actor: None,
            holder: self.holder.public(),
            audiences: vec![AUDIENCE.into()],
            rights: granted,
            claims: (0..claims).map(|i| (format!("c{i}"), format!("v{i}"))).collect(),
            issued_at: NOW,
            expires_at: NOW + 3_600,
            max_depth: 16,
            caveats: vec![],
        };
        issue(&grant, &self.root, &mut OsRng).unwrap()
    }

    /// The token with a block that the holder signed for itself, whatever the library signs.
    pub(crate) fn narrowed(&self, token: &Token, block: BlockBuilder) -> Option<Token> {
        let key = biscuit_auth::PrivateKey::from_bytes(
            &self.holder.to_bytes(),
            biscuit_auth::builder::Algorithm::Ed25519,
        );
        let holder = vec![
            Term::Str("ed25519".into()),
            Term::Bytes(self.holder.public().to_bytes()),
        ];
        let block = block
            .fact(Fact::new("holder".into(), holder))
            .unwrap()
            .code(EXPIRY)
            .unwrap();
        let bytes = base64url_decode(token.as_str()).unwrap();
        let biscuit = UnverifiedBiscuit::from(&bytes).unwrap();
        let request = biscuit.third_party_request().unwrap();
        let signed = request.create_block(&key.unwrap(), block).unwrap();
        let longer = biscuit.append_third_party(&signed.serialize().unwrap()).unwrap();
        Token::parse(&base64url_encode(&longer.to_vec().unwrap())).ok()
    }

    /// What a boundary does with one request: decode, verify, prove, read the arguments, decide.
    pub(crate) fn ask(&self, token: &str, proof: &str, body: &[u8], access: &Access) -> Verdict {
        let proof = match self.proven(proof, token) {
            Ok(proof) => proof,
            Err(rule) => return Verdict::Refused(rule),
        };
        let chain = UnverifiedToken::decode(token).and_then(|token| {
            token.check_expiry(NOW)?;
            self.verifier.verify(token, NOW)
        });
        let presented = chain.and_then(|chain| VerifiedPresentation::new(Arc::new(chain), proof));
        let presented = match presented {
            Ok(presented) => presented,
            Err(error) => return Verdict::Refused(rule(&error)),
        };
        let Ok(arguments) = json::parse(body, &json::JsonLimits::default()) else {
            return Verdict::Refused("R-27");
        };
        let mut access = access.clone();
        access.arguments = Some(arguments);
        match decide(&self.policy, &presented, access, NOW) {
            Decision::Allow(_) => Verdict::Allowed,
            Decision::Deny(denial) => Verdict::Denied(denial.rule.as_str()),
            Decision::Indeterminate(_) => Verdict::Indeterminate,
        }
    }

    fn proven(&self, proof: &str, token: &str) -> Result<taper_dpop::VerifiedProof, &'static str> {
        let expected = Expectation {
            method: "POST",
            url: AUDIENCE,
            token: Some(taper_dpop::TokenHash::of(token)),
            nonce: NonceRule::Unused,
            now: NOW,
        };
        let proof = Proof::parse(proof).and_then(|proof| proof.check(&expected)?.verify());
        proof.map_err(|error| error.rule().as_str())
    }

    pub(crate) fn proof(&self, token: &str) -> String {
        ProofClaims::new("POST", AUDIENCE, NOW, &mut OsRng)
            .token(token)
            .sign(&self.holder)
            .unwrap()
    }
}

fn rule(error: &Error) -> &'static str {
    error.rule().as_str()
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    Denied(&'static str),
    Refused(&'static str),
    Indeterminate,
}

/// A call of a tool on `resources`.
pub(crate) fn call(resources: Vec<(String, String)>) -> Access {
    let mut access = Access::new(AccessKind::ToolCall, "git", AUDIENCE, "tools/call");
    access.tool = Some("git_log".into());
    access.client_ip = Some([10, 1, 2, 3].into());
    access.resources = resources;
    access
}

/// A block of these statements.
pub(crate) fn block(source: &str) -> BlockBuilder {
    BlockBuilder::new()
        .code(source)
        .unwrap_or_else(|e| panic!("{e:?}: {source}"))
}
