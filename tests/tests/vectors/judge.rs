//! What the verifier says of a vector, along the way that the proxy goes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rand_core::{CryptoRng, RngCore};
use serde_json::Value;
use taper_capability::json::{self, JsonLimits};
use taper_capability::{
    Access, AccessKind, Error, Roots, UnverifiedToken, VerifiedPresentation, Verifier, rules,
};
use taper_dpop::rule::r;
use taper_dpop::{Expectation, NonceKey, NonceRule, Proof, PublicKey, TokenHash, base64url_decode};
use taper_policy::PolicyFile;
use taper_policy::boundary::{self, BoundaryPolicy, Decision};

/// One vector.
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) members: Value,
}

/// `accepted`, or the number of the rule that refuses.
pub(crate) type Verdict = String;

impl Vector {
    #[track_caller]
    pub(crate) fn text(&self, pointer: &str) -> &str {
        let member = self.members.pointer(pointer).and_then(Value::as_str);
        member.unwrap_or_else(|| panic!("{}: {pointer} is no text", self.name))
    }

    fn optional(&self, pointer: &str) -> Option<String> {
        self.members.pointer(pointer)?.as_str().map(str::to_owned)
    }

    fn list(&self, pointer: &str) -> &[Value] {
        let member = self.members.pointer(pointer).and_then(Value::as_array);
        member.unwrap_or_else(|| panic!("{}: {pointer} is no array", self.name))
    }

    fn time(&self) -> i64 {
        self.members["time"].as_i64().unwrap()
    }

    /// What has to be said of it.
    pub(crate) fn wanted(&self) -> Verdict {
        match self.text("/expected") {
            "accepted" => "accepted".to_owned(),
            "refused" => self.text("/rule").to_owned(),
            other => panic!("{}: expected {other}", self.name),
        }
    }

    /// What the verifier says, along the way that the proxy goes; `panics` when it does.
    pub(crate) fn judge(&self) -> Verdict {
        match catch_unwind(AssertUnwindSafe(|| self.decide())) {
            Ok(Ok(())) => "accepted".to_owned(),
            Ok(Err(rule)) => rule,
            Err(_) => "panics".to_owned(),
        }
    }

    fn decide(&self) -> Result<(), Verdict> {
        let presentation = self.authenticate()?;
        let body = base64url_decode(self.text("/request/body")).unwrap();
        let bound = presentation
            .proof()
            .binds(&body)
            .map_err(|e| e.rule().to_string())?;
        let access = self.access(bound)?;
        let files: Vec<PolicyFile> = self
            .list("/policy")
            .iter()
            .map(|source| PolicyFile {
                name: "policy".into(),
                source: source.as_str().unwrap().to_owned(),
            })
            .collect();
        let policy = BoundaryPolicy::load(&files).unwrap();
        let decision = boundary::decide(&policy, &presentation, access.clone(), self.time());
        if access.kind == AccessKind::ListEntry {
            let visible = boundary::visible(&policy, &presentation, &access, self.time()).is_ok();
            assert_eq!(visible, matches!(decision, Decision::Allow(_)), "{}", self.name);
        }
        match decision {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(denial) => Err(denial.rule.to_string()),
            Decision::Indeterminate(_) => Err(rules::LIMITS.to_string()),
        }
    }

    fn authenticate(&self) -> Result<VerifiedPresentation, Verdict> {
        let token_text = self.text("/token");
        let of_proof = |e: taper_dpop::Error| e.rule().to_string();
        let of_token = |e: Error| e.rule().to_string();
        let key = self.optional("/request/nonce/key").map(|key| nonce_key(&key));
        let nonce = match &key {
            Some(key) if self.members["request"]["nonce"]["demanded"] == true => NonceRule::Demanded(key),
            _ => NonceRule::Unused,
        };
        let expected = Expectation {
            method: self.text("/request/method"),
            url: self.text("/request/url"),
            token: Some(TokenHash::of(token_text)),
            nonce,
            now: self.time(),
        };
        let proof = Proof::parse(self.text("/proof")).map_err(of_proof)?;
        let proof = proof.check(&expected).map_err(of_proof)?;
        let token = UnverifiedToken::decode(token_text).map_err(of_token)?;
        if !r::HOLDER.holds(token.last_holder() == proof.key()) {
            return Err(r::HOLDER.to_string());
        }
        token.check_expiry(self.time()).map_err(of_token)?;
        let proof = proof.verify().map_err(of_proof)?;
        let chain = Verifier::new(self.roots())
            .verify(token, self.time())
            .map_err(of_token)?;
        VerifiedPresentation::new(Arc::new(chain), proof).map_err(of_token)
    }

    fn roots(&self) -> Roots {
        self.list("/roots").iter().fold(Roots::new(), |roots, root| {
            let key = base64url_decode(root["key"].as_str().unwrap()).unwrap();
            let id = u32::try_from(root["key_id"].as_u64().unwrap()).unwrap();
            let servers = root["servers"].as_array().map(|servers| {
                let server = |id: &Value| id.as_str().unwrap().to_owned();
                servers.iter().map(server).collect()
            });
            let issuer = root["issuer"].as_str().unwrap();
            roots
                .trust(issuer, id, PublicKey::ed25519(&key).unwrap(), servers)
                .unwrap()
        })
    }

    fn access(&self, body_bound: bool) -> Result<Access, Verdict> {
        let kind = match self.text("/access/kind") {
            "tool_call" => AccessKind::ToolCall,
            "resource_read" => AccessKind::ResourceRead,
            "prompt_get" => AccessKind::PromptGet,
            "completion" => AccessKind::Completion,
            "task" => AccessKind::Task,
            "logging_level" => AccessKind::LoggingLevel,
            "plumbing" => AccessKind::Plumbing,
            "list_entry" => AccessKind::ListEntry,
            other => panic!("{}: {other} is no kind of access", self.name),
        };
        let mut access = Access::new(
            kind,
            self.text("/access/server"),
            self.text("/access/audience"),
            self.text("/access/method"),
        );
        let arguments = self.optional("/access/arguments");
        access.arguments = arguments
            .map(|text| json::parse(text.as_bytes(), &JsonLimits::default()))
            .transpose()
            .map_err(|_| rules::JSON.to_string())?;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        access.tool = self.optional("/access/tool");
        access.uri = self.optional("/access/uri");
        access.prompt = self.optional("/access/prompt");
        access.client_ip = self.optional("/access/client_ip").map(|ip| ip.parse().unwrap());
        access.resources = self
            .list("/access/resources")
            .iter()
            .map(|pair| (text(&pair[0]), text(&pair[1])))
            .collect();
        access.calls = self
            .list("/access/calls")
            .iter()
            .map(|pair| (text(&pair[0]), pair[1].as_i64().unwrap()))
            .collect();
        access.body_bound = body_bound;
        Ok(access)
    }
}

/// The key of these bytes: a server draws its key from its source of randomness.
fn nonce_key(text: &str) -> NonceKey {
    struct Given(Vec<u8>);
    impl RngCore for Given {
        fn next_u32(&mut self) -> u32 {
            unreachable!("a key is drawn as bytes")
        }
        fn next_u64(&mut self) -> u64 {
            unreachable!("a key is drawn as bytes")
        }
        fn fill_bytes(&mut self, dest: &mut [u8]) {
            dest.copy_from_slice(&self.0);
        }
        fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core::Error> {
            self.fill_bytes(dest);
            Ok(())
        }
    }
    impl CryptoRng for Given {}
    NonceKey::generate(&mut Given(base64url_decode(text).unwrap()))
}
