//! tenuo: from the texts of the two headers to a decision, by its own entry point for a whole chain.

use crate::{Caveats, Side, TTL};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::HashMap;
use std::time::Duration;
use tenuo::constraints::{ConstraintSet, ConstraintValue, OneOf};
use tenuo::crypto::{Signature, SigningKey};
use tenuo::wire::{WarrantStack, decode_stack, encode_stack};
use tenuo::{Authorizer, Warrant};

const TOOLS: [&str; 2] = ["git_log", "git_show"];

/// An authorizer with one credential.
pub struct Theirs {
    authorizer: Authorizer,
    arguments: HashMap<String, ConstraintValue>,
    now: i64,
    stack: String,
    proof: String,
}

impl Theirs {
    /// A chain of so many delegations with its proof of possession.
    pub fn new(hand_overs: usize, caveats: Caveats, now: i64) -> Self {
        let root = SigningKey::generate();
        let mut key = SigningKey::generate();
        let ttl = Duration::from_secs(TTL.unsigned_abs());
        let mut first = Warrant::builder().ttl(ttl).max_depth(8).holder(key.public_key());
        for tool in TOOLS {
            first = first.capability(tool, ConstraintSet::new());
        }
        let mut chain = vec![first.build(&root).unwrap()];
        for _ in 0..hand_overs {
            let next = SigningKey::generate();
            let parent = chain.last().unwrap();
            let mut child = parent
                .attenuate()
                .ttl_capped_to_parent(ttl)
                .holder(next.public_key());
            child = match caveats {
                Caveats::None => child.inherit_all(),
                Caveats::Two => TOOLS
                    .into_iter()
                    .fold(child, |child, tool| child.capability(tool, repo())),
            };
            chain.push(child.build(&key).unwrap());
            key = next;
        }
        let arguments = HashMap::from([(
            "repo_path".to_owned(),
            ConstraintValue::String("acme/web".to_owned()),
        )]);
        let leaf = chain.last().unwrap();
        let proof = leaf
            .sign_with_timestamp(&key, TOOLS[0], &arguments, Some(now))
            .unwrap();
        Self {
            authorizer: Authorizer::new().with_trusted_root(root.public_key()),
            arguments,
            now,
            proof: URL_SAFE_NO_PAD.encode(proof.to_bytes()),
            stack: URL_SAFE_NO_PAD.encode(encode_stack(&WarrantStack::new(chain)).unwrap()),
        }
    }
}

impl Side for Theirs {
    fn bytes(&self) -> [usize; 2] {
        [self.stack.len(), self.proof.len()]
    }

    fn passes(&self) -> bool {
        let stack = decode_stack(&URL_SAFE_NO_PAD.decode(&self.stack).unwrap()).unwrap();
        let proof = URL_SAFE_NO_PAD.decode(&self.proof).unwrap();
        let proof = Signature::from_bytes(proof.as_slice().try_into().unwrap()).unwrap();
        let checked = self.authorizer.check_chain_with_pop_args_as_of(
            &stack.0,
            TOOLS[0],
            &self.arguments,
            &self.arguments,
            Some(&proof),
            &[],
            self.now,
        );
        checked.is_ok()
    }
}

fn repo() -> ConstraintSet {
    ConstraintSet::from_iter([("repo_path".to_owned(), OneOf::new(["acme/web"]).into())])
}
