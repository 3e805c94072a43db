//! The real pipeline, from a grant to a decision: issue, hand on or narrow, decode, verify, prove, decide.

use crate::asked::AccessCase;
use crate::given::{Block, GrantCase, Hand, KeyName};
use biscuit_auth::UnverifiedBiscuit;
use biscuit_auth::builder::{Algorithm as BiscuitAlgorithm, BlockBuilder, Check, Fact, Term};
use rand_core::OsRng;
use std::sync::{Arc, LazyLock};
use taper_capability::{
    Access, Delegation, Error, Grant, Narrowing, Party, RootKey, Roots, Token, UnverifiedToken,
    VerifiedChain, VerifiedPresentation, Verifier, issue,
};
use taper_dpop::{
    Algorithm, Expectation, NonceRule, PrivateKey, Proof, ProofClaims, base64url_decode, base64url_encode,
};
use taper_policy::PolicyFile;
use taper_policy::boundary::{BoundaryPolicy, Decision, decide};

/// 2027-01-15, a Friday, 08:00 UTC.
pub(crate) const NOW: i64 = 1_800_000_000;
pub(crate) const ISSUER: &str = "https://issuer.example";
pub(crate) const GIT: &str = "https://proxy.example/git/mcp";
pub(crate) const MAIL: &str = "https://proxy.example/mail/mcp";

/// The keys, made once.
pub(crate) struct Keys {
    pub(crate) root: RootKey,
    holders: [PrivateKey; 4],
}

pub(crate) static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let key = |algorithm| PrivateKey::generate(algorithm, &mut OsRng);
    Keys {
        root: RootKey::generate(1, &mut OsRng),
        holders: [
            key(Algorithm::EdDsa),
            key(Algorithm::Es256),
            key(Algorithm::EdDsa),
            key(Algorithm::Es256),
        ],
    }
});

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let roots = Roots::new().trust(ISSUER, 1, KEYS.root.public(), None);
    Verifier::new(roots.unwrap())
});

/// The shipped default, `allow if true`: a capability alone decides.
pub(crate) static ALLOW: LazyLock<BoundaryPolicy> = LazyLock::new(|| policy("allow if true;"));

pub(crate) fn policy(source: &str) -> BoundaryPolicy {
    BoundaryPolicy::load(&[PolicyFile {
        name: "policy.dl".into(),
        source: source.into(),
    }])
    .unwrap()
}

pub(crate) fn key(name: KeyName) -> &'static PrivateKey {
    &KEYS.holders[name as usize]
}

/// How a request ended, with the rule that ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    Denied(&'static str),
    /// The token or the proof does not verify.
    Refused(&'static str),
    Indeterminate,
}

impl Verdict {
    pub(crate) fn allowed(self) -> bool {
        self == Self::Allowed
    }
}

pub(crate) fn issued(case: &GrantCase) -> Token {
    let party = |sub: &str| Party {
        iss: "https://idp.example".into(),
        sub: sub.into(),
    };
    let grant = Grant {
        issuer: ISSUER.into(),
        id: Grant::new_id(&mut OsRng),
        subject: party("alice"),
        client: "dev".into(),
        actor: case.actor.then(|| party("agent")),
        holder: key(case.holder).public(),
        audiences: case.audiences.iter().map(|a| (*a).to_owned()).collect(),
        rights: case.rights.clone(),
        claims: vec![("groups".into(), "eng".into()), ("team".into(), "web".into())],
        issued_at: NOW - 10,
        expires_at: NOW + case.ttl,
        max_depth: case.max_depth,
        caveats: case.caveats.clone(),
    };
    issue(&grant, &KEYS.root, &mut OsRng).unwrap()
}

/// A chain, link by link: the token after each link and who holds it then.
#[derive(Clone)]
pub(crate) struct Chain {
    pub(crate) tokens: Vec<Token>,
    pub(crate) holders: Vec<KeyName>,
}

impl Chain {
    pub(crate) fn new(grant: &GrantCase, blocks: &[Block]) -> Self {
        let mut chain = Self {
            tokens: vec![issued(grant)],
            holders: vec![grant.holder],
        };
        for block in blocks {
            chain.add(block);
        }
        chain
    }

    pub(crate) fn last(&self) -> (&Token, KeyName) {
        (self.tokens.last().unwrap(), *self.holders.last().unwrap())
    }

    /// Signs a block with the last holder's key, through our own builder where it takes the block
    /// and with the Biscuit library where only that can say it.
    pub(crate) fn add(&mut self, block: &Block) {
        let (token, holder) = self.last();
        let next = block.hand.holder(holder);
        let signed = built(token, holder, next, block);
        let token = signed.unwrap_or_else(|| by_library(token, key(holder), next, block));
        self.tokens.push(token);
        self.holders.push(next);
    }
}

fn built(token: &Token, holder: KeyName, next: KeyName, block: &Block) -> Option<Token> {
    let caveats: Option<Vec<_>> = block.checks.iter().map(|check| check.caveat().cloned()).collect();
    let caveats = caveats?;
    let rng = &mut OsRng;
    match block.hand {
        Hand::Over(_) => {
            let dated = Delegation::to(key(next).public()).until(NOW + block.ttl);
            let dated = caveats
                .into_iter()
                .fold(dated, |dated, caveat| dated.only(caveat));
            let dated = match block.max_depth {
                Some(depth) => dated.max_depth(depth),
                None => dated,
            };
            dated.sign(token, key(holder), rng).ok()
        }
        Hand::Narrow => {
            let start = Narrowing::new().until(NOW + block.ttl);
            let narrowing = caveats
                .into_iter()
                .fold(start, |narrowing, caveat| narrowing.only(caveat));
            let narrowing = match block.max_depth {
                Some(depth) => narrowing.max_depth(depth),
                None => narrowing,
            };
            narrowing.sign(token, key(holder), rng).ok()
        }
    }
}

/// What any holder can sign with a Biscuit library, our builder's promises aside.
pub(crate) fn by_library(token: &Token, signer: &PrivateKey, next: KeyName, block: &Block) -> Token {
    let algorithm = |key: &PrivateKey| match key.algorithm() {
        Algorithm::EdDsa => ("ed25519", BiscuitAlgorithm::Ed25519),
        Algorithm::Es256 => ("secp256r1", BiscuitAlgorithm::Secp256r1),
    };
    let signer = biscuit_auth::PrivateKey::from_bytes(&signer.to_bytes(), algorithm(signer).1).unwrap();
    let terms = vec![
        Term::Str(algorithm(key(next)).0.into()),
        Term::Bytes(key(next).public().to_bytes()),
    ];
    let mut contents = BlockBuilder::new()
        .fact(Fact::new("holder".into(), terms))
        .unwrap()
        .check(expiry(NOW + block.ttl))
        .unwrap();
    if let Some(depth) = block.max_depth {
        let terms = vec![Term::Integer(i64::from(depth))];
        contents = contents.fact(Fact::new("max_depth".into(), terms)).unwrap();
    }
    for check in &block.checks {
        contents = contents.check(check.to_check()).unwrap();
    }
    let biscuit = UnverifiedBiscuit::from(bytes(token)).unwrap();
    let request = biscuit.third_party_request().unwrap();
    let signed = request.create_block(&signer, contents).unwrap();
    let longer = biscuit.append_third_party(&signed.serialize().unwrap()).unwrap();
    Token::parse(&base64url_encode(&longer.to_vec().unwrap())).unwrap()
}

fn expiry(at: i64) -> Check {
    let mut check: Check = "check if time($t), $t < {until}".parse().unwrap();
    check
        .set("until", Term::Date(u64::try_from(at).unwrap()))
        .unwrap();
    check
}

pub(crate) fn bytes(token: &Token) -> Vec<u8> {
    base64url_decode(token.as_str()).unwrap()
}

pub(crate) fn verify(text: &str, now: i64) -> Result<VerifiedChain, Error> {
    let token = UnverifiedToken::decode(text)?;
    token.check_expiry(now)?;
    VERIFIER.verify(token, now)
}

/// The chain together with a fresh proof that `holder` signs.
pub(crate) fn present(text: &str, holder: KeyName, now: i64) -> Result<VerifiedPresentation, &'static str> {
    let chain = verify(text, now).map_err(|error| error.rule().as_str())?;
    let header = ProofClaims::new("POST", GIT, now, &mut OsRng)
        .token(text)
        .sign(key(holder))
        .unwrap();
    let expected = Expectation {
        method: "POST",
        url: GIT,
        token: Some(taper_dpop::TokenHash::of(text)),
        nonce: NonceRule::Unused,
        now,
    };
    let proof = Proof::parse(&header).and_then(|proof| proof.check(&expected)?.verify());
    let proof = proof.map_err(|error| error.rule().as_str())?;
    VerifiedPresentation::new(Arc::new(chain), proof).map_err(|error| error.rule().as_str())
}

/// The access as the boundary would put it to this chain: the chain's own counters, and no others.
pub(crate) fn access_of(chain: &VerifiedChain, case: &AccessCase) -> Access {
    let mut access = case.access.clone();
    if let Some(used) = &case.used {
        // By their names: what was counted does not depend on where a check stands.
        let used = |name: &str| {
            let turn: usize = name.bytes().map(usize::from).sum();
            used.get(turn % used.len()).copied().unwrap_or(1)
        };
        access.calls = chain
            .counters()
            .into_iter()
            .map(|counter| {
                let n = used(&counter.name);
                (counter.name, n)
            })
            .collect();
    }
    access
}

/// One request: everything from the token's text to the verdict.
pub(crate) fn ask(token: &Token, holder: KeyName, case: &AccessCase) -> Verdict {
    let now = NOW + case.later;
    match present(token.as_str(), holder, now) {
        Ok(presentation) => {
            let access = access_of(presentation.chain(), case);
            judged(&decide(&ALLOW, &presentation, access, now))
        }
        Err(rule) => Verdict::Refused(rule),
    }
}

pub(crate) fn judged(decision: &Decision) -> Verdict {
    match decision {
        Decision::Allow(_) => Verdict::Allowed,
        Decision::Deny(denial) => Verdict::Denied(denial.rule.as_str()),
        Decision::Indeterminate(_) => Verdict::Indeterminate,
    }
}
